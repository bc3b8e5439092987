"""No peer makes the process grow, however it sends or does not read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.robustness.peers import (
    Heartbeat,
    ask,
    connect,
    receive_exactly,
    send_until,
    wait_cut_off,
)
from tests.robustness.process import ServerProcess

pytestmark = pytest.mark.cost

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30

# "Bounded" in bytes: less than this, whatever the volume.
GROWTH = 8 * MEBIBYTE

# Seconds in which others are answered meanwhile. They are 0.02; a loaded machine takes longer.
PROMPT = 2.0


@contextmanager
def bounded(server: ServerProcess) -> Iterator[None]:
    """Check that the process does not grow, and serves somebody else promptly."""
    with Heartbeat(server) as heartbeat:
        with connect(server) as sock:
            ask(sock, "echo warm")
        before = server.memory()
        server.forget_peak()
        yield
        heartbeat.wait_beat()
        assert server.peak_memory() - before < GROWTH
        assert max(heartbeat.delays) < PROMPT


def wait_stalled(server: ServerProcess) -> int:
    """Wait until the handler makes no more progress; return the bytes that it could send."""
    with connect(server) as sock:
        before, unchanged = "", 0
        while unchanged < 20:
            now = ask(sock, "progress")
            unchanged = unchanged + 1 if now == before else 0
            before = now
    return int(before)


@pytest.mark.parametrize("size", [65536, 4])
def test_peer_that_never_reads(loop: str, transport: list[str], size: int) -> None:
    """A handler that streams a gigabyte to it waits, at the high-water mark."""
    with ServerProcess(loop, *transport) as server, bounded(server):
        with connect(server, receive_buffer=1024) as sock:
            sock.sendall(b"stream %d %d\n" % (size, GIBIBYTE // size))
            sent = wait_stalled(server)
            assert 0 < sent < GIBIBYTE / 64


def test_twenty_peers_that_never_read(loop: str, plain: list[str]) -> None:
    """Each costs its high-water mark: 64 KiB, and the packet that exceeds it."""
    with ServerProcess(loop, *plain) as server, bounded(server):
        socks = [connect(server, receive_buffer=1024) for _ in range(20)]
        for sock in socks:
            sock.sendall(b"stream 65536 16384\n")
        wait_stalled(server)
        for sock in socks:
            sock.close()


@pytest.mark.parametrize(("size", "volume"), [(65536, 64 * MEBIBYTE), (4, MEBIBYTE // 4)])
def test_peer_that_reads_fast(
    loop: str, plain: list[str], size: int, volume: int, scale: int
) -> None:
    """A peer that reads as fast as a handler writes does not keep the loop to itself."""
    with ServerProcess(loop, *plain) as server, bounded(server):
        with connect(server) as sock:
            sock.sendall(b"stream %d %d\n" % (size, volume * scale // size))
            receive_exactly(sock, volume * scale)


@pytest.mark.parametrize("protocol", ["", "--buffered"])
def test_line_without_end(loop: str, transport: list[str], protocol: str) -> None:
    """A peer that would send a gigabyte without an end of line is cut off at the limit."""
    options = [*transport, *filter(None, [protocol])]
    with ServerProcess(loop, *options) as server, bounded(server):
        with connect(server) as sock:
            # What it gets rid of beyond the limit is in the kernel's buffers.
            assert send_until(sock, b"x" * 65536, GIBIBYTE) < 32 * MEBIBYTE
            wait_cut_off(sock)
        assert "LimitOverrunError" in server.log()


@pytest.mark.parametrize("protocol", ["", "--buffered"])
def test_line_without_end_that_is_forgiven(
    loop: str, plain: list[str], protocol: str, scale: int
) -> None:
    """A handler that catches the error and goes on costs no memory either, and sees the end."""
    options = ["--survives", *filter(None, [protocol])]
    with ServerProcess(loop, *plain, *options) as server, bounded(server):
        with connect(server) as sock:
            send_until(sock, b"x" * 65536, 64 * MEBIBYTE * scale)
            sock.sendall(b"x\n")  # no command: not answered
            assert ask(sock, "echo alive") == "alive"


def test_requests_for_ever_and_answers_never_read(loop: str, transport: list[str]) -> None:
    """The server stops reading requests when their answers are not taken."""
    with ServerProcess(loop, *transport) as server, bounded(server):
        with connect(server, receive_buffer=1024) as sock:
            sock.settimeout(0.3)
            requests = (b"echo " + b"x" * 58 + b"\n") * 1024
            assert send_until(sock, requests, GIBIBYTE) < 32 * MEBIBYTE
