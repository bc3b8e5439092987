"""Handlers, servers and mix-ins of this module and of the standard one go together."""

from __future__ import annotations

import contextlib
import socket
import socketserver as standard
import sys
import threading
from typing import Any

import pytest

import easynetwork.socketserver as ours
from tests.socketserver.support import (
    DATAGRAM_SERVERS,
    LOCALHOST,
    STREAM_SERVERS,
    Echo,
    EchoBytes,
    EchoDatagramBytes,
    EchoDatagrams,
    address_for,
    ask,
    connect,
    datagram_socket,
    echoes,
    levels_of,
    named,
    receive_line,
    served,
)
from tests.times import PATIENCE

each_module = pytest.mark.parametrize("module", [ours, standard], ids=["ours", "standard"])
each_exit = pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])


class EchoRaw(standard.BaseRequestHandler):
    """Sends back one chunk, with the socket alone."""

    def handle(self) -> None:
        self.request.sendall(self.request.recv(100))


@each_module
@pytest.mark.parametrize("name", STREAM_SERVERS)
@pytest.mark.parametrize("handler", [Echo, EchoBytes, EchoRaw])
def test_streams(name: str, handler: Any, module: Any) -> None:
    """Each handler serves each server."""
    with served(named(name, module), handler) as server:
        assert echoes(server)
        assert echoes(server)


@each_module
@pytest.mark.parametrize("name", DATAGRAM_SERVERS)
@pytest.mark.parametrize("handler", [EchoDatagrams, EchoDatagramBytes])
def test_datagrams(name: str, handler: Any, module: Any) -> None:
    """Each handler serves each server."""
    with served(named(name, module), handler) as server, datagram_socket(server) as sock:
        for data in b"one", b"two":
            sock.send(data)
            assert sock.recv(100) == data


@each_module
def test_protocol_of_the_server(module: Any) -> None:
    """A server of the standard module has it as an attribute, like any other that a user adds."""

    class Handler(Echo):
        protocol = None

    class Server(module.TCPServer):
        protocol = Echo.protocol

    with served(Server, Handler) as server:
        assert echoes(server)


@pytest.mark.parametrize("mixin", [ours.ThreadingMixIn, standard.ThreadingMixIn])
@pytest.mark.parametrize("base", [ours.TCPServer, standard.TCPServer])
@pytest.mark.parametrize("handler", [Echo, EchoBytes])
def test_mixin_before_the_server(mixin: Any, base: Any, handler: Any) -> None:
    """A thread serves each connection, whichever module a class is from."""
    server_class = type("Server", (mixin, base), {})
    with served(server_class, handler) as server:
        with connect(server) as first, connect(server) as second:
            assert ask(first, b"one\n") == b"one\n"
            assert ask(second, b"two\n") == b"two\n"


@pytest.mark.parametrize("mixin", [ours.ThreadingMixIn, standard.ThreadingMixIn])
@pytest.mark.parametrize("base", [ours.TCPServer, standard.TCPServer])
def test_mixin_after_the_server(mixin: Any, base: Any) -> None:
    """It has no effect, as in the standard module: the server handles requests itself."""
    threads: list[threading.Thread] = []

    class Handler(Echo):
        def handle(self) -> None:
            threads.append(threading.current_thread())

    server_class = type("Server", (base, mixin), {})
    with server_class(LOCALHOST, Handler) as server, connect(server):
        server.handle_request()
    assert threads == [threading.current_thread()]


def test_bounded_mixin_with_the_standard_server() -> None:
    """The options of the mix-in work there, too: a time limit resets what it cannot close."""

    class Server(ours.ThreadingMixIn, standard.TCPServer):
        pass

    with served(Server, Echo, max_threads=1, close_timeout=PATIENCE) as server:
        with connect(server) as first, connect(server) as second:
            assert ask(first, b"one\n") == b"one\n"
            second.sendall(b"two\n")
            first.close()
            assert receive_line(second) == b"two\n"


@pytest.mark.parametrize("name", ["StreamRequestHandler", "StreamPacketHandler"])
@pytest.mark.parametrize("value", [False, True])
def test_disable_nagle_algorithm(name: str, value: bool) -> None:
    """The attribute of the standard handler works; packets are never delayed."""
    found: list[int] = []

    class Handler(named(name)):  # type: ignore[misc]
        protocol = Echo.protocol
        disable_nagle_algorithm = value

        def handle(self) -> None:
            found.append(self.request.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    with ours.TCPServer(LOCALHOST, Handler) as server, connect(server):
        server.handle_request()
    assert bool(found[0]) is (value or name == "StreamPacketHandler")


def test_attributes_of_the_handler() -> None:
    """They are those of the standard handler."""
    found: list[Any] = []

    class Handler(Echo):
        def handle(self) -> None:
            found.extend((self.request.fileno(), self.client_address, self.server))

    with ours.TCPServer(LOCALHOST, Handler) as server, connect(server) as sock:
        server.handle_request()
        assert found[0] >= 0
        assert found[1:] == [sock.getsockname(), server]


# -- exceptions that are no errors


@each_exit
@each_module
@pytest.mark.parametrize("handler", [Echo, standard.BaseRequestHandler])
def test_exit_leaves_the_loop(error: Any, module: Any, handler: Any) -> None:
    """Without threads, it leaves `serve_forever()`, when the connection has been closed."""

    class Handler(handler):
        def handle(self) -> None:
            raise error

    with module.TCPServer(LOCALHOST, Handler) as server, connect(server) as sock:
        with pytest.raises(error):
            server.serve_forever()
        assert sock.recv(1) == b""


@each_exit
@each_module
@pytest.mark.parametrize("name", ["ThreadingTCPServer", "ThreadingUDPServer"])
def test_exit_ends_the_thread(
    name: str,
    error: Any,
    module: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It ends one request only, is logged by our servers, and frees its thread."""
    uncaught: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: uncaught.append(args.exc_type))
    base: Any = Echo if name == "ThreadingTCPServer" else EchoDatagrams
    left = [error]

    class Handler(base):
        def handle(self) -> None:
            if left:
                raise left.pop()
            super().handle()

    options = {"max_threads": 1} if module is ours else {}
    with served(named(name, module), Handler, **options) as server:
        if base is Echo:
            with connect(server) as sock:
                assert sock.recv(1) == b""
            assert echoes(server)
        else:
            with datagram_socket(server) as sock:
                sock.send(b"exit")
                sock.send(b"echo")
                assert sock.recv(100) == b"echo"
    assert uncaught == ([] if module is ours else [error])
    assert levels_of(caplog).count("ERROR") == (module is ours)


@each_module
def test_exit_in_a_hook(module: Any) -> None:
    """A hook can stop the server by an exception: it leaves `serve_forever()`."""

    class Server(module.ThreadingTCPServer):
        def service_actions(self) -> None:
            sys.exit()

    with address_for(Server) as address, Server(address, Echo) as server:
        with contextlib.suppress(SystemExit):
            server.serve_forever(poll_interval=0)
            raise AssertionError("still serving")
