"""What peers can do to a server with TLS, and to nobody else."""

from __future__ import annotations

import socket
import ssl
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.robustness.peers import Heartbeat, ask, connect, connect_plain, wait_cut_off
from tests.robustness.process import ServerProcess
from tests.tls_forger import APPLICATION_DATA, Forger12, Forger13
from tests.tls_peers import TLSSocket, new_client_context

pytestmark = pytest.mark.in_turn

MEBIBYTE = 1 << 20

# Seconds in which somebody new is connected and served meanwhile, usually.
PROMPT = 0.2

# Bytes. About 24,300 (CPython 3.13, OpenSSL 3.0).
IDLE_LIMIT = 28 * 1024

# A tenth of a ClientHello.
HALF_A_HELLO = b"\x16\x03\x01\2\0\1\0\1\xfc\x03\x03" + bytes(50)
BAD_HELLOS = [b"", HALF_A_HELLO, HALF_A_HELLO[:4]]
BAD_HANDSHAKES = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\xff\xff" + bytes(100),
    b"\x80\x2e\1\3\1" + bytes(43),
    b"\x1b[31mINFO forged line\n" * 10,
]


@contextmanager
def undisturbed(server: ServerProcess) -> Iterator[None]:
    """Check that others, old and new, are served promptly meanwhile, and that memory returns."""
    with Heartbeat(server) as old, Heartbeat(server, anew=True) as new:
        before = server.memory()
        yield
        old.wait_beat()
        new.wait_beat()
        for delays in old.delays, new.delays:
            assert statistics.median(delays) < PROMPT
            assert max(delays) < 10 * PROMPT
    assert server.memory() - before < 4 * MEBIBYTE


@pytest.mark.usefixtures("many_descriptors")
def test_peers_that_say_nothing(loop: str, over_tls: list[str]) -> None:
    """500 connections that do not get on with their handshake are in nobody's way, or log."""
    with ServerProcess(loop, *over_tls) as server:
        stall(server, 500)
        with undisturbed(server):  # the memory of those before is used again
            stall(server, 500)
        assert server.log().count("\n") == 1  # that it serves


def stall(server: ServerProcess, count: int) -> None:
    """Connect that often without getting on, and be served nevertheless."""
    with ExitStack() as stack:
        for number in range(count):
            sock = stack.enter_context(connect_plain(server))
            sock.sendall(BAD_HELLOS[number % len(BAD_HELLOS)])
        with Heartbeat(server, anew=True) as new:
            new.wait_beat()


def test_handshake_timeout(loop: str, over_tls: list[str]) -> None:
    """They have to leave when their time is up; a connection whose handshake is over does not."""
    options = [*over_tls, "--handshake-timeout", "0.3"]
    with ServerProcess(loop, *options) as server, undisturbed(server):
        with connect(server) as sock, ExitStack() as stack:
            socks = [stack.enter_context(connect_plain(server)) for _ in range(100)]
            for peer in socks:
                peer.sendall(HALF_A_HELLO)
            for peer in socks:
                wait_cut_off(peer)
            assert ask(sock, "echo still here") == "still here"
        assert server.log().count("\n") == 1


def test_peers_without_tls(loop: str, over_tls: list[str]) -> None:
    """100 of them are turned away, with four lines per second in the log, and no secret there."""
    begin = time.monotonic()
    with ServerProcess(loop, *over_tls) as server, undisturbed(server):
        for number in range(100):
            with connect_plain(server) as sock:
                sock.sendall(BAD_HANDSHAKES[number % len(BAD_HANDSHAKES)])
                sock.shutdown(socket.SHUT_WR)
                wait_cut_off(sock)
        log = server.log()
    lines = log.splitlines()
    assert 2 <= len(lines) <= 1 + 4 * (int(time.monotonic() - begin) + 2)
    assert all("WARNING" in line and "TLS handshake" in line for line in lines[1:4])
    assert "Traceback" not in log
    assert log.isascii()
    assert "\x1b" not in log
    for secret in Path(over_tls[1]).read_text().splitlines():
        assert secret not in log


def test_peers_that_leave(loop: str, over_tls: list[str]) -> None:
    """300 that reset, before, in or behind the handshake, or truncate, are no news."""
    with ServerProcess(loop, *over_tls) as server, undisturbed(server):
        for number in range(300):
            sock = connect_plain(server)
            if number % 10 == 0:
                with suppress(ConnectionError):
                    assert server.tls is not None
                    sock = server.tls.wrap_socket(sock, server_hostname="localhost")
            else:
                sock.sendall(BAD_HELLOS[number % len(BAD_HELLOS)])
            if number % 4:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        assert server.log().count("\n") == 1


def test_many_handshakes(loop: str, over_tls: list[str]) -> None:
    """Those who shake hands again and again do not keep others from being served."""
    with ServerProcess(loop, *over_tls) as server, undisturbed(server):
        for _ in range(100):
            connect(server).close()


# -- Floods ------------------------------------------------------------------------------------


@contextmanager
def flooder(
    server: ServerProcess, keys: Path, version: ssl.TLSVersion
) -> Iterator[tuple[socket.socket, Forger12 | Forger13]]:
    """Connect; return the connection and who makes the records that are sent on it."""
    context = new_client_context()
    context.maximum_version = version
    context.keylog_filename = str(keys)
    with connect_plain(server) as sock:
        tls = TLSSocket(sock, context)
        with suppress(ssl.SSLWantReadError):
            tls.object.do_handshake()
        tls.flush()
        server_hello = sock.recv(1 << 16, socket.MSG_PEEK)
        tls.do_handshake()
        if version is ssl.TLSVersion.TLSv1_2:
            yield sock, Forger12(keys, server_hello)
        else:
            yield sock, Forger13(keys)


def test_flood_of_key_updates(loop: str, over_tls: list[str], tmp_path: Path) -> None:
    """A flood ends the connection, a drizzle does not; nobody else notices either."""
    with ServerProcess(loop, *over_tls) as server, undisturbed(server):
        for number in range(5):
            with flooder(server, tmp_path / str(number), ssl.TLSVersion.TLSv1_3) as (sock, forger):
                assert isinstance(forger, Forger13)
                sock.sendall(forger.record(APPLICATION_DATA, b"echo hello\n"))
                with suppress(ConnectionError):
                    sock.sendall(b"".join(forger.key_update() for _ in range(1000)))
                wait_cut_off(sock)
        assert "keeps TLS itself busy" in server.log()


def test_flood_of_renegotiations(loop: str, over_tls: list[str], tmp_path: Path) -> None:
    """The same for a client of TLS 1.2 that wants to do the handshake again and again."""
    with ServerProcess(loop, *over_tls) as server, undisturbed(server):
        for number in range(5):
            with flooder(server, tmp_path / str(number), ssl.TLSVersion.TLSv1_2) as (sock, forger):
                assert isinstance(forger, Forger12)
                sock.sendall(forger.record(APPLICATION_DATA, b"echo hello\n"))
                with suppress(ConnectionError):
                    sock.sendall(b"".join(forger.renegotiation() for _ in range(200)))
                wait_cut_off(sock)
        log = server.log()
    assert "broke: SSLError" in log
    assert log.count("\n") < 100


# -- Memory ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("many_descriptors")
def test_idle_connections(loop: str, over_tls: list[str]) -> None:
    """An idle connection that has been served occupies at most 30 KiB, and does not work."""
    count = 200
    with ServerProcess(loop, *over_tls) as server, ExitStack() as stack:

        def use() -> None:
            sock = stack.enter_context(connect(server))
            assert ask(sock, "echo x") == "x"

        for _ in range(100):
            use()
        before = server.memory()
        for _ in range(count):
            use()
        assert (server.memory() - before) / count <= IDLE_LIMIT
        work = server.processor_time()
        time.sleep(0.3)
        assert server.processor_time() - work < 0.01
