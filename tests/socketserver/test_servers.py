"""The servers do what programs on the standard `socketserver` rely on."""

from __future__ import annotations

import contextlib
import selectors
import socket
import socketserver as standard
import threading
import time
from typing import Any

import pytest

import easynetwork.socketserver as ours
from tests.socketserver.support import (
    DATAGRAM_SERVERS,
    LOCALHOST,
    STREAM_SERVERS,
    Echo,
    EchoDatagrams,
    address_for,
    ask,
    connect,
    datagram_socket,
    echoes,
    named,
    receive_line,
    served,
    serving,
)
from tests.times import MS, PATIENCE, SOON

each_stream_server = pytest.mark.parametrize("name", STREAM_SERVERS)
each_datagram_server = pytest.mark.parametrize("name", DATAGRAM_SERVERS)
each_server = pytest.mark.parametrize("name", STREAM_SERVERS + DATAGRAM_SERVERS)

CALLS = (
    *("server_bind", "server_activate", "get_request", "verify_request", "process_request"),
    *("finish_request", "shutdown_request", "close_request", "server_close"),
)


def handler_for(name: str) -> Any:
    return EchoDatagrams if name in DATAGRAM_SERVERS else Echo


def recording(server_class: Any) -> Any:
    """Return a subclass that lists in `calls` which methods are called, and calls them."""

    def overridden(name: str) -> Any:
        def method(self: Any, *args: Any) -> Any:
            vars(self).setdefault("calls", []).append(name)
            return getattr(super(subclass, self), name)(*args)

        return method

    subclass = type("Recording", (server_class,), {name: overridden(name) for name in CALLS})
    return subclass


class Gate:
    """Where handlers wait until the test lets them go on.

    Attributes:
        waiting: Is released once by each handler that arrives.
    """

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)
        self._open = threading.Event()

    def wait(self) -> None:
        self.waiting.release()
        assert self._open.wait(PATIENCE)

    def open(self) -> None:
        self._open.set()


def gated(gate: Gate) -> Any:
    """Return a handler class that waits at a gate before it sends a packet."""

    class Gated(ours.StreamPacketHandler[str, str]):
        protocol = Echo.protocol

        def handle(self) -> None:
            gate.wait()
            self.send_packet("done")

    return Gated


# -- starting and stopping


@each_server
def test_is_a_server_of_the_standard_library(name: str) -> None:
    """A program that asks for the standard classes gets them."""
    assert issubclass(named(name), named(name.removeprefix("Threading"), standard))
    assert issubclass(named(name), standard.ThreadingMixIn) is name.startswith("Threading")


@each_server
def test_shutdown_and_close(name: str) -> None:
    """`shutdown()` returns when `serve_forever()` has; then it can serve again, until closed."""
    with address_for(named(name)) as address:
        with named(name)(address, handler_for(name)) as server:
            for _ in range(2):
                thread = threading.Thread(target=server.serve_forever, args=(10 * MS,))
                thread.start()
                server.shutdown()
                thread.join(PATIENCE)
                assert not thread.is_alive()
            assert server.fileno() >= 0
        assert server.fileno() == -1


@each_server
def test_with_closes_after_an_exception(name: str) -> None:
    """A `with` statement closes the server, whatever ends it."""
    with address_for(named(name)) as address:
        with pytest.raises(LookupError):
            with named(name)(address, handler_for(name)) as server:
                raise LookupError
        assert server.fileno() == -1


@each_server
def test_bind_and_activate_later(name: str) -> None:
    """Nothing is bound until the methods are called."""
    with address_for(named(name)) as address:
        with named(name)(address, handler_for(name), bind_and_activate=False) as server:
            assert server.socket.getsockname() in (("0.0.0.0", 0), "")
            server.server_bind()
            server.server_activate()
            assert server.server_address == server.socket.getsockname()
        with named(name)(*(server.server_address, handler_for(name), False)) as server:
            assert server.socket.getsockname() in (("0.0.0.0", 0), "")


@each_stream_server
def test_address_in_use(name: str) -> None:
    """The constructor raises OSError and closes its socket, which the fixture checks."""
    with address_for(named(name)) as address, named(name)(address, Echo) as server:
        with pytest.raises(OSError, match="in use"):
            named(name)(server.server_address, Echo)


def test_threaded_server_whose_address_is_in_use() -> None:
    """A time limit for closing changes nothing."""
    with ours.ThreadingTCPServer(LOCALHOST, Echo) as server:
        with pytest.raises(OSError, match="in use"):
            ours.ThreadingTCPServer(server.server_address, Echo, close_timeout=PATIENCE)


# -- attributes


def test_request_queue_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class attribute is the backlog. The default is 100; that of the standard module is 5."""
    backlogs: list[int] = []

    class Listener(socket.socket):
        def listen(self, *args: int) -> None:
            backlogs.extend(args)
            super().listen(*args)

    class Server(ours.TCPServer):
        request_queue_size = 7

    monkeypatch.setattr(socket, "socket", Listener)
    for server_class in Server, ours.TCPServer, ours.UnixStreamServer:
        with address_for(server_class) as address, server_class(address, Echo):
            pass
    assert backlogs == [7, 100, 100]


@pytest.mark.parametrize("attribute", ["allow_reuse_address", "allow_reuse_port"])
@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("name", ["TCPServer", "ThreadingTCPServer", "UDPServer"])
def test_reuse(name: str, attribute: str, value: bool) -> None:
    """The class attributes become options of the socket, if they are set."""
    option = socket.SO_REUSEADDR if attribute == "allow_reuse_address" else socket.SO_REUSEPORT
    server_class = type("Server", (named(name),), {attribute: value})
    with server_class(LOCALHOST, handler_for(name)) as server:
        assert bool(server.socket.getsockopt(socket.SOL_SOCKET, option)) is value


def test_reuse_by_default() -> None:
    """A TCP server can be restarted at once; one of the standard module cannot."""
    assert ours.TCPServer.allow_reuse_address
    assert not ours.UDPServer.allow_reuse_address
    assert not ours.TCPServer.allow_reuse_port


def test_two_servers_share_a_port() -> None:
    """`allow_reuse_port` is for several servers at one address."""

    class Server(ours.TCPServer):
        allow_reuse_port = True

    with Server(LOCALHOST, Echo) as first, Server(first.server_address, Echo) as second:
        assert first.server_address == second.server_address


@pytest.mark.parametrize("name", ["TCPServer", "ThreadingTCPServer"])
def test_address_family(name: str) -> None:
    """The class attribute selects IPv6."""
    server_class = type("Server", (named(name),), {"address_family": socket.AF_INET6})
    try:
        server = server_class(("::1", 0), Echo)
    except OSError:
        pytest.skip("IPv6 is not available")
    with serving(server):
        assert echoes(server)


def test_address_family_of_datagrams() -> None:
    """The response goes to the sender's IPv6 address."""
    server_class = type("Server", (ours.UDPServer,), {"address_family": socket.AF_INET6})
    try:
        server = server_class(("::1", 0), EchoDatagrams)
    except OSError:
        pytest.skip("IPv6 is not available")
    with serving(server), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.sendto(b"hello", server.server_address)
        assert sock.recv(100) == b"hello"


def test_max_packet_size(caplog: pytest.LogCaptureFixture) -> None:
    """A longer datagram is dropped with one line; the standard module cuts it off."""

    class Server(ours.UDPServer):
        max_packet_size = 8

    with served(Server, EchoDatagrams) as server, datagram_socket(server) as sock:
        for data in bytes(9), b"12345678":
            sock.send(data)
        assert sock.recv(100) == b"12345678"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "sent more than 8 bytes" in caplog.text


@pytest.mark.parametrize("name", ["UDPServer", "ThreadingUDPServer"])
def test_largest_datagram(name: str) -> None:
    """By default, datagrams of any size are received."""
    with served(named(name), EchoDatagrams) as server, datagram_socket(server) as sock:
        sock.send(b"a" * 65507)
        assert sock.recv(1 << 16) == b"a" * 65507


def test_class_attribute_protocol() -> None:
    """A server class can have the protocol object, as it has other settings."""

    class Handler(Echo):
        protocol = None

    class Server(ours.ThreadingTCPServer):
        protocol = Echo.protocol

    with served(Server, Handler) as server:
        assert echoes(server)


# -- one request at a time


@each_server
@pytest.mark.parametrize("timeout", [0, 0.01])
def test_handle_timeout(name: str, timeout: float) -> None:
    """`handle_request()` calls `handle_timeout()` if nothing arrives for so long; 0 is at once."""
    timeouts: list[Any] = []

    class Server(named(name)):  # type: ignore[misc]
        def handle_timeout(self) -> None:
            timeouts.append(self.timeout)

    Server.timeout = timeout
    with address_for(Server) as address, Server(address, handler_for(name)) as server:
        server.handle_request()
    assert timeouts == [timeout]


def test_timeout_of_the_socket() -> None:
    """The shorter of the two timeouts applies."""
    with ours.TCPServer(LOCALHOST, Echo) as server:
        server.timeout = PATIENCE
        server.socket.settimeout(0.01)
        start = time.monotonic()
        server.handle_request()
        assert time.monotonic() - start < PATIENCE / 2


@each_stream_server
def test_handle_request(name: str) -> None:
    """One call handles one connection; so a program can have its own loop, with a selector."""
    with address_for(named(name)) as address, named(name)(address, Echo) as server:
        with selectors.DefaultSelector() as selector, connect(server) as sock:
            selector.register(server, selectors.EVENT_READ)
            sock.sendall(b"echo\n")
            sock.shutdown(socket.SHUT_WR)
            [(key, _)] = selector.select(PATIENCE)
            assert key.fd == server.fileno()
            server.handle_request()
            assert receive_line(sock) == b"echo\n"
            assert selector.select(0) == []


@each_datagram_server
def test_handle_request_of_datagrams(name: str) -> None:
    """One call handles one datagram."""
    with address_for(named(name)) as address, named(name)(address, EchoDatagrams) as server:
        with datagram_socket(server) as sock:
            for line in b"one", b"two":
                sock.send(line)
                server.handle_request()
                assert sock.recv(100) == line


@each_server
def test_service_actions(name: str) -> None:
    """The loop calls it after each request, and after each `poll_interval`."""
    called = threading.Semaphore(0)

    class Server(named(name)):  # type: ignore[misc]
        def service_actions(self) -> None:
            super().service_actions()
            called.release()

    with served(Server, handler_for(name)):
        for _ in range(3):
            assert called.acquire(timeout=PATIENCE)


# -- hooks


@each_stream_server
def test_hooks_of_streams(name: str) -> None:
    """Each method is called, in the order of the standard module."""
    calls = []
    for module, handler in ((ours, Echo), (standard, Echo)):
        with served(recording(named(name, module)), handler) as server:
            assert echoes(server)
        # What a thread calls comes before or after what the loop calls meanwhile.
        calls.append(sorted(server.calls) if name.startswith("Threading") else server.calls)
    assert calls[0] == calls[1]
    assert sorted(set(calls[0])) == sorted(CALLS)


@each_datagram_server
def test_hooks_of_datagrams(name: str) -> None:
    """Each method is called, in the order of the standard module."""
    calls = []
    for module in ours, standard:
        with served(recording(named(name, module)), EchoDatagrams) as server:
            with datagram_socket(server) as sock:
                sock.send(b"echo")
                assert sock.recv(100) == b"echo"
        calls.append(sorted(server.calls))
    assert calls[0] == calls[1]
    assert sorted(set(calls[0])) == sorted(CALLS)


@each_stream_server
def test_verify_request(name: str) -> None:
    """A connection that is refused is closed without a handler."""

    class Server(named(name)):  # type: ignore[misc]
        refused = 1

        def verify_request(self, request: Any, client_address: Any) -> bool:
            self.refused -= 1
            return bool(self.refused < 0)

    with served(Server, Echo) as server:
        with connect(server) as sock:
            assert sock.recv(1) == b""
        assert echoes(server)


@each_datagram_server
def test_verify_request_of_datagrams(name: str) -> None:
    """A datagram that is refused is ignored."""

    class Server(named(name)):  # type: ignore[misc]
        def verify_request(self, request: Any, client_address: Any) -> bool:
            return bool(request[0] != b"refused")

    with served(Server, EchoDatagrams) as server, datagram_socket(server) as sock:
        for data in b"refused", b"welcome":
            sock.send(data)
        assert sock.recv(100) == b"welcome"


@each_stream_server
def test_get_request(name: str) -> None:
    """A method that accepts in its own way is used; any object can be the client's address."""
    addresses: list[object] = []

    class Server(named(name)):  # type: ignore[misc]
        def get_request(self) -> tuple[Any, Any]:
            sock, _ = self.socket.accept()
            return sock, "the client"

    class Handler(Echo):
        def handle(self) -> None:
            addresses.append(self.client_address)
            super().handle()
            raise LookupError("logged with the address")

    with served(Server, Handler) as server:
        assert echoes(server)
        assert echoes(server)
    assert addresses == ["the client"] * 2


def test_finish_request_without_super() -> None:
    """A method that makes the handlers by itself does not have to call that of the server."""

    class Server(ours.ThreadingTCPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            Echo(request, client_address, self)

    with served(Server, ours.BaseRequestHandler) as server:
        assert echoes(server)


@pytest.mark.parametrize("name", ["TCPServer", "ThreadingTCPServer"])
def test_handle_error(name: str) -> None:
    """An override gets the request and the address, where the exception is being handled."""
    errors: list[Any] = []
    handled = threading.Event()

    class Server(named(name)):  # type: ignore[misc]
        def handle_error(self, request: Any, client_address: Any) -> None:
            errors.extend((type(request), client_address))
            with contextlib.suppress(LookupError):
                raise
            errors.append("LookupError")
            handled.set()

    class Handler(Echo):
        def handle(self) -> None:
            raise LookupError

    with served(Server, Handler) as server, connect(server) as sock:
        address = sock.getsockname()
        assert handled.wait(PATIENCE)
    assert errors == [socket.socket, address, "LookupError"]


# -- threads


def test_close_joins_threads() -> None:
    """`server_close()` waits for the handlers; `shutdown()` does not."""
    gate = Gate()
    server = ours.ThreadingTCPServer(LOCALHOST, gated(gate))
    closing = threading.Thread(target=server.server_close)
    with contextlib.ExitStack() as stack:
        stack.callback(gate.open)
        with contextlib.ExitStack() as running:
            thread = threading.Thread(target=server.serve_forever, args=(10 * MS,))
            thread.start()
            running.callback(thread.join)
            running.callback(server.shutdown)
            sock = stack.enter_context(connect(server))
            assert gate.waiting.acquire(timeout=PATIENCE)
        closing.start()
        closing.join(SOON)
        assert closing.is_alive()
        gate.open()
        closing.join(PATIENCE)
        assert not closing.is_alive()
        assert receive_line(sock) == b"done\n"


@pytest.mark.parametrize(
    ("attribute", "value"), [("block_on_close", False), ("daemon_threads", True)]
)
@pytest.mark.parametrize("close_timeout", [None, 0.0])
def test_close_abandons_threads(attribute: str, value: bool, close_timeout: float | None) -> None:
    """`server_close()` does not wait if threads need not be joined, and cuts off nobody."""
    gate = Gate()
    server_class = type("Server", (ours.ThreadingTCPServer,), {attribute: value})
    with contextlib.ExitStack() as stack:
        with served(server_class, gated(gate), close_timeout=close_timeout) as server:
            stack.callback(gate.open)
            sock = stack.enter_context(connect(server))
            assert gate.waiting.acquire(timeout=PATIENCE)
        assert server.fileno() == -1
        gate.open()
        assert receive_line(sock) == b"done\n"


@pytest.mark.parametrize("daemon", [False, True])
def test_daemon_threads(daemon: bool) -> None:
    """The class attribute decides what the threads are."""
    found: list[bool] = []

    class Handler(Echo):
        def handle(self) -> None:
            found.append(threading.current_thread().daemon)
            super().handle()

    class Server(ours.ThreadingTCPServer):
        daemon_threads = daemon

    with served(Server, Handler) as server:
        assert echoes(server)
    assert found == [daemon]


def test_constructor_of_the_server_class() -> None:
    """Programs call the constructor of one base class by its name, which is not the mix-in's."""

    class Server(ours.ThreadingMixIn, ours.TCPServer):
        def __init__(self, handler: Any) -> None:
            ours.TCPServer.__init__(self, LOCALHOST, handler)

    with serving(Server(Echo)) as server:
        with connect(server) as first, connect(server) as second:
            assert ask(first, b"one\n") == b"one\n"
            assert ask(second, b"two\n") == b"two\n"
