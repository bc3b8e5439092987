"""Crowds that meet a limit are gone in time, and others do not notice them."""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.robustness.peers import Heartbeat, ask, connect, connect_plain, wait_until
from tests.robustness.process import ServerProcess
from tests.times import MS

pytestmark = [pytest.mark.usefixtures("many_descriptors"), pytest.mark.in_turn]

SECOND = 1000 * MS

# A look is due every half a second, and the machine may have other work.
LATE = 2 * SECOND

MEBIBYTE = 1 << 20
# Bytes that an allocator may keep.
GROWTH = 8 * MEBIBYTE


@contextmanager
def well_served(server: ServerProcess) -> Iterator[socket.socket]:
    """Check that a client is served meanwhile, without an error.

    Yields:
        A connection on which to ask the server what it has counted.
    """
    with Heartbeat(server) as heartbeat, connect(server) as control:
        number(control, "clients")
        yield control
        heartbeat.wait_beat()
        log = server.log()
        assert "ERROR" not in log
        assert "Traceback" not in log


def number(control: socket.socket, command: str) -> int:
    """Return what the server says that there is of something."""
    return int(ask(control, command))


def wait_for(control: socket.socket, command: str, count: int) -> None:
    """Wait until the server says that there are so many of something."""
    wait_until(lambda: number(control, command) == count)


def wait_all_ended(socks: list[socket.socket], drip: bytes, seconds: float) -> float:
    """Send bytes on all connections, until the server has ended each of them.

    Returns:
        When the first of them ended, on the clock of `time.monotonic`.
    """
    deadline = time.monotonic() + seconds
    first = 0.0
    with selectors.DefaultSelector() as selector:
        for sock in socks:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ)
        while selector.get_map():
            assert time.monotonic() < deadline, f"{len(selector.get_map())} are still there"
            for key, _ in selector.select(0.2):
                if has_ended(key.fileobj):
                    first = first or time.monotonic()
                    selector.unregister(key.fileobj)
            if drip:
                for key in list(selector.get_map().values()):
                    with suppress(OSError):
                        key.fileobj.send(drip)  # type: ignore[union-attr]
    return first


def has_ended(sock: object) -> bool:
    """Whether the server has ended a connection on which something has arrived."""
    assert isinstance(sock, socket.socket)
    try:
        return not sock.recv(1 << 16)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


def test_slow_loris(loop: str, transport: list[str]) -> None:
    """1,000 clients that drip a packet are gone when its time is up."""
    count = 200 if "--tls" in transport else 1000
    limit = 1.5 * SECOND
    options = [*transport, "--limit", f"packet_timeout={limit}"]
    with (
        ServerProcess(loop, *options) as server,
        well_served(server) as control,
        ExitStack() as stack,
    ):
        socks = [stack.enter_context(connect(server)) for _ in range(count)]
        began = time.monotonic()
        for sock in socks:
            sock.sendall(b"e")
        first = wait_all_ended(socks, b"c", limit + LATE)
        assert first - began > limit - SECOND
        wait_for(control, "closed PACKET_TIMEOUT", count)
        assert server.log().count("a packet took too long") <= 10


def test_more_than_there_may_be(loop: str, plain: list[str]) -> None:
    """Of 1,500 connections, 198 are served beside the two that are here; the others are reset."""
    options = [*plain, "--limit", "max_clients=200"]
    with ServerProcess(loop, *options) as server, well_served(server) as control:
        with ExitStack() as stack:
            served = []
            for _ in range(1500):
                with suppress(ConnectionError, AssertionError):
                    sock = stack.enter_context(connect_plain(server))
                    served.append(ask(sock, "echo x"))
            assert len(served) == 198
            assert server.log().count("too many clients") < 50
            assert number(control, "closed FULL") == 1500 - 198
        wait_for(control, "clients", 2)


def test_never_readers(loop: str, transport: list[str]) -> None:
    """100 clients that do not read what they ask for are reset, and their memory is free."""
    count = 20 if "--tls" in transport else 100
    options = [*transport, "--limit", f"send_timeout={SECOND}"]
    with ServerProcess(loop, *options) as server, well_served(server) as control:
        flood(server, control, count)
        before = server.memory()
        server.forget_peak()
        flood(server, control, count)
        flood(server, control, count)
        # Each costs its high-water mark and a packet, while it is here: 12.5 MiB for 100 of them.
        assert server.peak_memory() - before < count * MEBIBYTE // 4 + GROWTH
        assert server.memory() - before < 2 * GROWTH


def flood(server: ServerProcess, control: socket.socket, count: int) -> None:
    """Ask for more than is read, that often, and see the server lose its patience."""
    before = number(control, "closed SEND_TIMEOUT")
    with ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(connect(server, receive_buffer=1024))
            sock.sendall(b"stream 65536 16384\n")
        wait_for(control, "closed SEND_TIMEOUT", before + count)


def test_silent_clients(loop: str, transport: list[str]) -> None:
    """500 that never say anything are gone when the time for the first packet is up."""
    count = 100 if "--tls" in transport else 500
    limit = 2 * SECOND
    options = [*transport, "--limit", f"first_packet_timeout={limit}"]
    with (
        ServerProcess(loop, *options) as server,
        well_served(server) as control,
        ExitStack() as stack,
    ):
        socks = [stack.enter_context(connect(server)) for _ in range(count)]
        wait_all_ended(socks, b"", limit + LATE)
        wait_for(control, "closed FIRST_PACKET_TIMEOUT", count)


def test_silent_before_the_handshake(loop: str, over_tls: list[str]) -> None:
    """Those that do not get as far as the session meet the limit of the handshake."""
    options = [*over_tls, "--handshake-timeout", "1", "--limit", "first_packet_timeout=1"]
    with ServerProcess(loop, *options) as server, well_served(server) as control:
        with ExitStack() as stack:
            socks = [stack.enter_context(connect_plain(server)) for _ in range(300)]
            wait_all_ended(socks, b"", SECOND + LATE)
            wait_for(control, "closed TLS_FAILED", 300)
            wait_for(control, "clients", 2)
