"""Blocking handlers on standalone servers of all kinds; what is checked when a server is made."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from easynetwork._tuning import STOP_TIMEOUT
from easynetwork.addresses import UnixSocketAddress
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import StandaloneTCPNetworkServer, StandaloneUDPNetworkServer
from easynetwork.servers.blocking import (
    BlockingDatagramRequestHandler,
    BlockingStreamRequestHandler,
)
from easynetwork.servers.standalone_unix_datagram import StandaloneUnixDatagramServer
from easynetwork.servers.standalone_unix_stream import StandaloneUnixStreamServer
from tests.conformance.blocking_support import Client, DatagramEcho, Echo, Stopwatch
from tests.servers.standalone_support import each_loop, loop_options, serving
from tests.times import FACTOR, PATIENCE

STREAMS: Any = StreamProtocol(StringLineSerializer())
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())

each_kind = pytest.mark.parametrize("kind", ["tcp", "udp", "unix stream", "unix datagram"])
each_stream = pytest.mark.parametrize("kind", ["tcp", "unix stream"])


@pytest.fixture
def path() -> Iterator[str]:
    """Return a path for a Unix socket. Those of pytest's folders are too long (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="easynetwork-") as folder:
        yield f"{folder}/socket"


def new_server(kind: str, handler: Any, path: str, **options: Any) -> Any:
    """Return a server of a kind."""
    if kind == "tcp":
        return StandaloneTCPNetworkServer("127.0.0.1", 0, STREAMS, handler, **options)
    if kind == "udp":
        return StandaloneUDPNetworkServer("127.0.0.1", 0, DATAGRAMS, handler, **options)
    if kind == "unix stream":
        return StandaloneUnixStreamServer(path, STREAMS, handler, **options)
    return StandaloneUnixDatagramServer(path, DATAGRAMS, handler, **options)


def new_echo(kind: str) -> Any:
    """Return a handler for a kind of server."""
    return Echo() if kind in ("tcp", "unix stream") else DatagramEcho()


@contextlib.contextmanager
def connected(server: Any) -> Iterator[socket.socket]:
    """Connect to a server for a block."""
    [address] = server.get_addresses()
    is_stream = "Datagram" not in type(server).__name__ and "UDP" not in type(server).__name__
    is_unix = isinstance(address, UnixSocketAddress)
    with socket.socket(
        socket.AF_UNIX if is_unix else socket.AF_INET,
        socket.SOCK_STREAM if is_stream else socket.SOCK_DGRAM,
    ) as sock:
        sock.settimeout(PATIENCE)
        if is_unix:
            sock.bind("")
        sock.connect(address.as_raw() if is_unix else address)
        yield sock


def ask(sock: socket.socket, request: str) -> str:
    sock.sendall(f"{request}\n".encode())
    return sock.recv(4096).decode().rstrip("\n")


@each_loop
@each_kind
def test_conversation(kind: str, loop: str, path: str) -> None:
    """Requests are answered, and again after a shutdown with clients that stay."""
    server = new_server(kind, new_echo(kind), path, **loop_options(loop))
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            with serving(server) as thread:
                for _ in range(3):
                    sock = stack.enter_context(connected(server))
                    assert ask(sock, "one") == "one"
                    assert ask(sock, "two") == "two"
                with Stopwatch() as stopwatch:
                    server.shutdown()
                thread.join(PATIENCE)
            assert stopwatch.elapsed < 1 * FACTOR


@each_loop
@each_stream
def test_stubborn_handler(kind: str, loop: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler in its own code does not keep `shutdown()`; the thread ends with the handler."""
    monkeypatch.setattr("easynetwork.servers._core.threads.STOP_TIMEOUT", STOP_TIMEOUT / 5)

    class Handler(Echo):
        def answer(self, client: Client, request: str) -> str:
            self.wait()
            return request

    handler = Handler()
    server = new_server(kind, handler, path, **loop_options(loop))
    with serving(server), connected(server) as sock:
        sock.sendall(b"one\n")
        while "on_connection" not in handler.notes:
            threading.Event().wait(0.001)
        with Stopwatch() as stopwatch:
            server.shutdown()
        assert stopwatch.elapsed < 1.5 * FACTOR
        handler.released.set()


@each_loop
@each_stream
def test_server_close(kind: str, loop: str, path: str) -> None:
    """It returns at once, and a client that is connected is served until it leaves."""
    server = new_server(kind, Echo(), path, **loop_options(loop))
    with serving(server) as thread:
        with connected(server) as sock:
            assert ask(sock, "one") == "one"
            with Stopwatch() as stopwatch:
                server.server_close()
            assert stopwatch.elapsed < 1 * FACTOR
            assert ask(sock, "two") == "two"
        threading.Thread.join(thread, PATIENCE)
        assert not thread.is_alive()


@each_loop
def test_keyboard_interrupt(loop: str, path: str) -> None:
    """One that leaves a handler is meant for the program: it ends `serve_forever()`."""

    class Handler(Echo):
        def answer(self, client: Client, request: str) -> str:
            raise KeyboardInterrupt

    server = new_server("tcp", Handler(), path, **loop_options(loop))
    is_up = threading.Event()
    caught: list[BaseException] = []

    def serve() -> None:
        try:
            server.serve_forever(is_up_event=is_up)
        except BaseException as exc:
            caught.append(exc)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert is_up.wait(PATIENCE)
    with connected(server) as sock:
        sock.sendall(b"one\n")
        thread.join(PATIENCE)
    assert [type(exc) for exc in caught] == [KeyboardInterrupt]


# -- what is checked


@pytest.mark.parametrize("kind", [BlockingStreamRequestHandler, BlockingDatagramRequestHandler])
@pytest.mark.parametrize("max_threads", [0, -1, True, "5", 1.5, None])
def test_wrong_number_of_threads(kind: Any, max_threads: Any) -> None:
    """It has to be a positive integer."""

    class Handler(kind):
        def handle(self, client: Client) -> None:
            raise NotImplementedError

    with pytest.raises(ValueError, match="max_threads must be a strictly positive int"):
        Handler(max_threads=max_threads)


@each_kind
def test_constructor_not_called(kind: str, path: str) -> None:
    """That is an error when the server is made."""
    base = type(new_echo(kind))
    handler: Any = type("Handler", (base,), {"__init__": lambda self: None})()
    with pytest.raises(TypeError, match=r"Handler.__init__\(\) did not call"):
        new_server(kind, handler, path)


@each_kind
def test_handler_of_another_kind(kind: str, path: str) -> None:
    """A handler of datagrams does not serve connections, and the other way round."""
    other = "udp" if kind in ("tcp", "unix stream") else "tcp"
    with pytest.raises(TypeError, match="RequestHandler object"):
        new_server(kind, new_echo(other), path)


async def coroutine(self: Any, client: Client) -> None:
    raise NotImplementedError


def generator(self: Any, client: Client) -> Any:
    yield


async def asynchronous_generator(self: Any, client: Client) -> Any:
    yield


@pytest.mark.parametrize("function", [coroutine, generator, asynchronous_generator])
@pytest.mark.parametrize("method", ["on_connection", "handle", "on_disconnection"])
@each_stream
def test_method_that_is_not_plain(kind: str, method: str, function: Any, path: str) -> None:
    """A coroutine or generator function would do nothing; that is an error at once."""
    handler: Any = type("Handler", (Echo,), {method: function})()
    with pytest.raises(TypeError, match=rf"Handler\.{method}\(\) must be a plain method"):
        new_server(kind, handler, path)


@pytest.mark.parametrize("function", [coroutine, generator, asynchronous_generator])
def test_datagram_method_that_is_not_plain(function: Any, path: str) -> None:
    handler: Any = type("Handler", (DatagramEcho,), {"handle": function})()
    with pytest.raises(TypeError, match=r"Handler\.handle\(\) must be a plain method"):
        new_server("udp", handler, path)
