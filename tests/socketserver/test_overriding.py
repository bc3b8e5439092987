"""Servers and handlers whose methods are overridden, as programs on `socketserver` do it."""

from __future__ import annotations

import contextlib
import http.server
import logging
import os
import socket
import socketserver as standard
import threading
import time
from typing import Any

import pytest

import easynetwork.socketserver as ours
from easynetwork.exceptions import ClientClosedError
from tests.socketserver.support import (
    DATAGRAMS,
    LINES,
    LOCALHOST,
    Echo,
    EchoDatagrams,
    ask,
    connect,
    datagram_socket,
    echoes,
    levels_of,
    records_of,
    served,
    serving,
    wait_until,
)
from tests.times import MS, PATIENCE
from tests.tls_peers import server_context

GRACE = 1.0
"""Seconds that a server waits for what it has aborted."""


class Greeter(ours.StreamPacketHandler[str, str]):
    """Says that it is there, then waits for packets without a limit."""

    protocol = LINES

    def handle(self) -> None:
        self.send_packet("hello")
        for _ in self.packets():
            pass


# -- threads


def test_own_process_request_thread() -> None:
    """It need not call `super()` to free its thread."""

    class Server(ours.ThreadingTCPServer):
        def process_request_thread(self, request: Any, client_address: Any) -> None:
            self.finish_request(request, client_address)
            self.shutdown_request(request)

    with served(Server, Echo, max_threads=1) as server:
        assert all(echoes(server) for _ in range(3))


def test_own_process_request() -> None:
    """A thread that the program has started itself does not count."""

    class Server(ours.ThreadingTCPServer):
        def process_request(self, request: Any, client_address: Any) -> None:
            arguments = request, client_address
            threading.Thread(target=self.process_request_thread, args=arguments).start()

    with served(Server, Echo, max_threads=2) as server:
        assert all(echoes(server) for _ in range(5))
        assert server._places._value == 2


def test_own_get_request() -> None:
    """`shutdown()` works while all threads are busy, also if a program accepts by itself."""

    class Server(ours.ThreadingTCPServer):
        def get_request(self) -> Any:
            return self.socket.accept()

    with served(Server, Greeter, max_threads=1, close_timeout=0) as server:
        with connect(server) as busy, connect(server):
            assert busy.recv(6) == b"hello\n"
            start = time.monotonic()
            server.shutdown()
            assert time.monotonic() - start < GRACE


def test_limits_of_a_class() -> None:
    """Limits may be attributes, as `max_children` is."""

    class Server(ours.ThreadingTCPServer):
        max_threads = 1
        close_timeout = 0

    with served(Server, Greeter) as server:
        with connect(server) as busy, connect(server) as waiting:
            assert busy.recv(6) == b"hello\n"
            waiting.settimeout(100 * MS)
            with pytest.raises(TimeoutError):
                waiting.recv(6)
    with served(Server, Echo, max_threads=2, close_timeout=5) as server:
        assert (server.max_threads, server.close_timeout) == (2, 5)


@pytest.mark.parametrize("base", [http.server.HTTPServer, standard.TCPServer])
def test_close_timeout_of_a_standard_server(base: Any) -> None:
    """The mix-in ends the connections of any server of streams."""

    class Server(ours.ThreadingMixIn, base):
        pass

    handler: Any = Greeter
    if base is http.server.HTTPServer:
        handler = http.server.BaseHTTPRequestHandler
    with served(Server, handler, close_timeout=0) as server:
        with connect(server) as sock:
            wait_until(lambda: server._handlers)
            server.shutdown()
            start = time.monotonic()
            server.server_close()
            assert time.monotonic() - start < GRACE / 2
            with contextlib.suppress(ConnectionError):
                while sock.recv(100):
                    pass


def test_close_timeout_with_own_finish_request() -> None:
    """It also ends a handshake, and what another method than the server's own has begun."""

    class Server(ours.ThreadingTCPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            self.RequestHandlerClass(request, client_address, self)  # type: ignore[arg-type]

    with served(Server, Greeter, close_timeout=0, ssl=server_context()) as server:
        with connect(server):
            wait_until(lambda: server._connections)
            server.shutdown()
            start = time.monotonic()
            server.server_close()
            assert time.monotonic() - start < GRACE / 2
    assert not server._connections


def test_closes_in_the_caller() -> None:
    """What overrides `server_close()` runs in the thread that calls it; its errors get there."""

    class Base(ours.TCPServer):
        def server_close(self) -> None:
            super().server_close()
            raise LookupError(threading.get_ident())

    class Server(ours.ThreadingMixIn, Base):
        pass

    server = Server(LOCALHOST, Echo, close_timeout=1e10)
    with pytest.raises(LookupError) as caught:
        server.server_close()
    assert caught.value.args == (threading.get_ident(),)


def test_own_close_request() -> None:
    """Without `super()`, it does not let a server remember connections for ever."""

    class Server(ours.ThreadingTCPServer):
        def close_request(self, request: Any) -> None:
            request.close()

    with served(Server, Echo) as server:
        assert all(echoes(server) for _ in range(3))
        wait_until(lambda: not server._connections)


# -- errors


class Wrapper:
    """A connection that cannot be a key of a dictionary."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_wrapped_request() -> None:
    """A request need not be a socket for handlers that do not take packets."""

    class Handler(ours.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(self.request.recv(100))

    class Server(ours.ThreadingTCPServer):
        def get_request(self) -> Any:
            request, address = super().get_request()
            return Wrapper(request), address

    with served(Server, Handler) as server:
        with connect(server) as sock:
            assert ask(sock, b"hello\n") == b"hello\n"


@pytest.mark.parametrize("address", [("local", 0), "text", None, 5])
def test_own_address(address: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An error is logged whatever `get_request()` has returned as the client's address."""

    class Handler(Echo):
        def handle(self) -> None:
            raise LookupError("a bug")

    class Server(ours.TCPServer):
        def get_request(self) -> Any:
            return super().get_request()[0], address

    with served(Server, Handler) as server:
        for _ in range(2):
            with connect(server) as sock:
                assert sock.recv(1) == b""
    assert levels_of(caplog) == ["ERROR", "ERROR"]


def test_error_without_text(caplog: pytest.LogCaptureFixture) -> None:
    """An exception whose `str()` fails does not end the server."""

    class NoTextError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Handler(Echo):
        def handle(self) -> None:
            raise NoTextError

    with served(ours.TCPServer, Handler) as server:
        for _ in range(3):
            with connect(server) as sock:
                assert sock.recv(1) == b""
    assert levels_of(caplog) == ["ERROR"] * 3


def test_handle_error_without_an_exception(capsys: pytest.CaptureFixture[str]) -> None:
    """It may be called at any time, as in the standard library."""
    with ours.TCPServer(LOCALHOST, Echo) as server:
        server.handle_error(None, ("127.0.0.1", 1))
    assert "Exception occurred" in capsys.readouterr().err


def test_bug_after_closing(caplog: pytest.LogCaptureFixture) -> None:
    """To send to a client that the handler has closed is a bug."""

    class Handler(Echo):
        def handle(self) -> None:
            self.client.close()
            self.send_packet("late")

    with served(ours.TCPServer, Handler) as server:
        with connect(server) as sock:
            assert sock.recv(1) == b""
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info is not None
    assert record.exc_info[0] is ClientClosedError


async def coroutine(self: object) -> None:
    """Do nothing."""


def generator(self: object) -> Any:
    yield self


@pytest.mark.parametrize("method", [coroutine, generator])
@pytest.mark.parametrize("name", ["setup", "handle", "finish"])
@pytest.mark.parametrize("base", [Echo, EchoDatagrams])
def test_methods_that_would_do_nothing(base: Any, name: str, method: Any) -> None:
    """A coroutine function or a generator function is refused."""
    handler = type("Handler", (base,), {name: method})
    server: Any = ours.TCPServer if base is Echo else ours.UDPServer
    with pytest.raises(TypeError, match=rf"^Handler\.{name}\(\) must be a plain method, not <func"):
        server(LOCALHOST, handler)


@pytest.mark.parametrize("method", ["packets", "recv_packet"])
def test_incomplete_packet(method: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a client leaves without the end of the packet is not dropped silently."""
    caplog.set_level(logging.DEBUG)

    class Handler(Echo):
        def handle(self) -> None:
            if method == "recv_packet":
                self.send_packet(self.recv_packet())
            super().handle()

    with served(ours.TCPServer, Handler) as server:
        with connect(server) as sock:
            name = f"('127.0.0.1', {sock.getsockname()[1]})"
            sock.sendall(b"Ada")
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
    assert (logging.DEBUG, f"{name} left 3 bytes of an incomplete packet") in records_of(caplog)


def test_no_descriptor_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, the server waits between its attempts, and goes on when there is one again."""
    attempts = []

    class Server(ours.TCPServer):
        def get_request(self) -> Any:
            attempts.append(time.monotonic())
            return super().get_request()

    def accept(self: Any) -> Any:
        if len(attempts) < 4:
            raise OSError(24, os.strerror(24))
        return real_accept(self)

    real_accept = socket.socket.accept
    monkeypatch.setattr(socket.socket, "accept", accept)
    with served(Server, Echo) as server:
        assert echoes(server)
    assert attempts[3] - attempts[0] > 0.3
    assert "accept() failed: [Errno 24] Too many open files. New connections wait" in caplog.text


# -- datagrams


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Unix sockets are needed")
def test_peer_that_does_not_read(caplog: pytest.LogCaptureFixture) -> None:
    """It holds up a server of Unix datagrams for a limited time; this is not an error."""
    caplog.set_level(logging.DEBUG)
    timeouts: list[float] = []

    class Handler(ours.DatagramPacketHandler[str, str]):
        protocol = DATAGRAMS

        def handle(self) -> None:
            if self.packet == "flood":
                start = time.monotonic()
                try:
                    while True:
                        self.send_packet("x" * 1000, timeout=100 * MS)
                finally:
                    timeouts.append(time.monotonic() - start)
            self.send_packet(self.packet)

    with served(ours.UnixDatagramServer, Handler) as server:
        with datagram_socket(server) as silent:
            silent.send(b"flood")
            wait_until(lambda: timeouts)
        with datagram_socket(server) as client:
            client.send(b"hello")
            assert client.recv(100) == b"hello"
    assert 100 * MS <= timeouts[0] < PATIENCE
    assert levels_of(caplog) == ["DEBUG"]


def test_serving_datagrams_of_any_address(caplog: pytest.LogCaptureFixture) -> None:
    """A datagram that is not a packet is logged, whatever the sender's address looks like."""

    class Server(ours.UDPServer):
        def get_request(self) -> Any:
            return super().get_request()[0], "somebody"

    class Handler(EchoDatagrams):
        def handle(self) -> None:
            done.set()

    done = threading.Event()
    with serving(Server(LOCALHOST, Handler)) as server:
        with datagram_socket(server) as sock:
            sock.send(b"\xff")
            sock.send(b"hello")
            assert done.wait(PATIENCE)
    assert levels_of(caplog) == ["WARNING"]
