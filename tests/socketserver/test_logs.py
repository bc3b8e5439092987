"""Whose fault an error is decides how it is logged, and no client fills the log."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver as standard
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import easynetwork.socketserver as ours
from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from tests.socketserver.support import (
    LINES,
    LOCALHOST,
    Echo,
    EchoBytes,
    EchoDatagrams,
    address_for,
    connect,
    datagram_socket,
    echoes,
    levels_of,
    records_of,
    reset,
    served,
    wait_cut_off,
)
from tests.times import MS, PATIENCE
from tests.tls_peers import NEWEST, VERSIONS, TLSSocket, client_context, server_context

ASCII: Any = StreamProtocol(StringLineSerializer(encoding="ascii"))


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG, "easynetwork.socketserver"):
        yield


def closed_port() -> tuple[str, int]:
    """Return an address at which nothing listens."""
    with socket.socket() as sock:
        sock.bind(LOCALHOST)
        address: tuple[str, int] = sock.getsockname()
        return address


class Receiver(Echo):
    """Receives one packet of ASCII text."""

    protocol = ASCII

    def handle(self) -> None:
        self.recv_packet()


def handle_once(handler: Any, *sent: bytes, end: Any = None, **options: Any) -> None:
    """Serve one connection, on which some bytes are sent, in the current thread.

    Args:
        handler: The handler class.
        *sent: The bytes.
        end: Ends the connection before it is accepted; None to end it afterwards.
        **options: Those of the server.
    """
    with ours.TCPServer(LOCALHOST, handler, **options) as server:
        with connect(server) as sock:
            for data in sent:
                sock.sendall(data)
            if end is not None:
                end(sock)
            server.handle_request()


# -- bugs


class InInit(Echo):
    def __init__(self, *arguments: Any) -> None:
        raise LookupError("bug")


class BeforeSetup(Echo):
    def setup(self) -> None:
        raise LookupError("bug")


class AfterSetup(Echo):
    def setup(self) -> None:
        super().setup()
        raise LookupError("bug")


class InHandle(Echo):
    def handle(self) -> None:
        raise LookupError("bug")


class BeforeFinish(Echo):
    def finish(self) -> None:
        self.client.close()
        raise LookupError("bug")


class WithoutFinish(Echo):
    def finish(self) -> None:
        raise LookupError("bug")


@pytest.mark.parametrize("name", ["TCPServer", "ThreadingTCPServer"])
@pytest.mark.parametrize(
    "broken", [InInit, BeforeSetup, AfterSetup, InHandle, BeforeFinish, WithoutFinish]
)
def test_bug(name: str, broken: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is an ERROR with its traceback, and ends its connection only."""
    left = [broken]

    def handler(*arguments: Any) -> Any:
        return (left.pop() if left else Echo)(*arguments)

    options = {"max_threads": 1} if name == "ThreadingTCPServer" else {}
    with served(getattr(ours, name), handler, **options) as server:
        with connect(server) as sock:
            sock.shutdown(socket.SHUT_WR)
            wait_cut_off(sock)
        assert echoes(server)
    assert levels_of(caplog).count("ERROR") == 1  # the other line may be that the thread is busy
    assert "LookupError: bug" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("hook", ["process_request", "finish_request"])
@pytest.mark.parametrize("name", ["TCPServer", "ThreadingTCPServer"])
def test_bug_in_a_hook(name: str, hook: str, caplog: pytest.LogCaptureFixture) -> None:
    """These are called where errors are handled."""
    left = [LookupError("bug")]

    def broken(self: Any, *arguments: Any) -> None:
        if left:
            raise left.pop()
        getattr(super(server_class, self), hook)(*arguments)

    server_class: Any = type("Server", (getattr(ours, name),), {hook: broken})
    with served(server_class, Echo) as server:
        with connect(server) as sock:
            assert sock.recv(1) == b""
        assert echoes(server)
    assert levels_of(caplog) == ["ERROR"]
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("module", [ours, standard], ids=["ours", "standard"])
@pytest.mark.parametrize("hook", ["get_request", "verify_request", "handle_error"])
def test_bug_outside_of_error_handling(module: Any, hook: str) -> None:
    """It leaves the loop, as in the standard module: programs stop servers in this way."""

    class Handler(standard.BaseRequestHandler):
        def handle(self) -> None:
            raise ValueError

    def broken(self: Any, *arguments: Any) -> None:
        for request in arguments[:1]:
            self.close_request(request)
        raise LookupError("bug")

    server_class: Any = type("Server", (module.TCPServer,), {hook: broken})
    with server_class(LOCALHOST, Handler) as server, connect(server):
        with pytest.raises(LookupError, match="bug"):
            server.serve_forever()


def test_bug_in_handle_error_of_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends this thread only, and frees its place."""
    uncaught: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: uncaught.append(args.exc_type))
    left = [InHandle]

    class Server(ours.ThreadingTCPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            raise OSError("bug")

    def handler(*arguments: Any) -> Any:
        return (left.pop() if left else Echo)(*arguments)

    with served(Server, handler, max_threads=1) as server:
        with connect(server) as sock:
            assert sock.recv(1) == b""
        assert echoes(server)
    assert uncaught == [OSError]


class RefusedDatabase(Echo):
    def handle(self) -> None:
        socket.create_connection(closed_port()).close()


class RefusedPackets(Echo):
    def handle(self) -> None:
        for _ in self.packets():
            TCPNetworkClient(closed_port(), LINES)


class SilentDatabase(Echo):
    def handle(self) -> None:
        with socket.create_server(LOCALHOST) as listener:
            with TCPNetworkClient(listener.getsockname(), LINES) as database:
                database.recv_packet(timeout=0)


class DatabaseThatLeft(Echo):
    def setup(self) -> None:
        super().setup()
        raise ConnectionResetError("database")


class DatabaseInSetup(Echo):
    def setup(self) -> None:
        raise ConnectionResetError("database")


class DatabaseAfterTheClientLeft(Echo):
    def handle(self) -> None:
        try:
            while True:
                self.recv_packet()
        except ConnectionError:
            raise TimeoutError("database") from None


class BrokenTLSDatabase(Echo):
    def handle(self) -> None:
        raise ssl.SSLError("database")


@pytest.mark.parametrize(
    "handler",
    [
        *(RefusedDatabase, RefusedPackets, SilentDatabase, DatabaseThatLeft, DatabaseInSetup),
        *(DatabaseAfterTheClientLeft, BrokenTLSDatabase),
    ],
)
def test_sockets_of_the_handler(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Their errors are not the client's."""
    handle_once(handler, b"packet\n", end=lambda sock: sock.shutdown(socket.SHUT_WR))
    assert levels_of(caplog) == ["ERROR"]
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("end", ["silence", "reset"])
def test_standard_handler(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is not known whose its sockets are, so nothing is taken for the client's fault."""

    class Handler(EchoBytes):
        timeout = 0.01

    handle_once(Handler, end=reset if end == "reset" else None)
    assert levels_of(caplog) == ["ERROR"]


# -- clients


class Timeout(Echo):
    def handle(self) -> None:
        self.recv_packet(timeout=0)


class TimeoutOfPackets(Echo):
    def handle(self) -> None:
        for _ in self.packets(timeout=0):
            raise AssertionError("a packet")


@pytest.mark.parametrize(
    ("handler", "end"),
    [
        (Receiver, lambda sock: sock.shutdown(socket.SHUT_WR)),
        (Receiver, socket.socket.close),
        (Receiver, reset),
        (Timeout, None),
        (TimeoutOfPackets, None),
    ],
)
def test_client_that_has_left(handler: Any, end: Any, caplog: pytest.LogCaptureFixture) -> None:
    """One line at the level DEBUG; so is a timeout."""
    handle_once(handler, end=end)
    assert levels_of(caplog) == ["DEBUG"]
    assert "has left or is silent" in caplog.text
    assert "Traceback" not in caplog.text


def test_client_that_leaves_while_packets_are_sent(caplog: pytest.LogCaptureFixture) -> None:
    """`send_packet()` notices, too."""

    class Sender(Echo):
        def handle(self) -> None:
            while True:
                self.send_packet("x" * 65536)

    handle_once(Sender, end=reset)
    assert levels_of(caplog) == ["DEBUG"]


def test_client_that_leaves_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """`packets()` ends without an exception."""
    handle_once(Echo, b"packet\n", end=socket.socket.close)
    assert levels_of(caplog) == []


def test_garbage(caplog: pytest.LogCaptureFixture) -> None:
    """One WARNING line, printable, whatever the bytes."""
    handle_once(Receiver, b"\x1b[2J\xff\r\0\n")
    [(level, line)] = records_of(caplog)
    assert level == logging.WARNING
    assert "sent invalid data" in line
    assert line.isascii()
    assert line.isprintable()
    assert "Traceback" not in caplog.text


def test_endless_garbage(caplog: pytest.LogCaptureFixture) -> None:
    """A packet that is too long is garbage as well; its line is short."""

    class Limited(Echo):
        protocol = StreamProtocol(JSONSerializer(limit=1024))

    with served(ours.ThreadingTCPServer, Limited) as server, connect(server) as sock:
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                sock.sendall(b'["' + b"x" * 4096)
        wait_cut_off(sock)
    [(level, line)] = records_of(caplog)
    assert level == logging.WARNING
    assert len(line) < 500


@pytest.mark.parametrize("handler", [Receiver, InHandle])
def test_flood(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand clients write no more lines than one does: three per second, and one traceback."""
    with ours.TCPServer(LOCALHOST, handler) as server:
        for _ in range(300):
            with connect(server) as sock:
                sock.sendall(b"\xff\n")
            server.handle_request()
    seconds = {int(record.created) for record in caplog.records}
    assert len(caplog.records) <= 4 * (len(seconds) + 2) + 1 < 100
    assert caplog.text.count("Traceback") == (1 if handler is InHandle else 0)


# -- TLS


def handle_tls(handler: Any, client: Any, **options: Any) -> None:
    """Serve one connection over TLS; `client` is called in a thread with its socket."""
    with ours.TCPServer(LOCALHOST, handler, ssl=server_context(), **options) as server:
        with connect(server) as sock:
            thread = threading.Thread(target=client, args=(sock,))
            thread.start()
            server.handle_request()
            thread.join(PATIENCE)


def client_without_trust(sock: socket.socket) -> None:
    """Refuse the server's certificate."""
    with pytest.raises(ssl.SSLError):
        TLSSocket(sock, ssl.create_default_context()).do_handshake()


def client_of_an_old_version(sock: socket.socket) -> None:
    """Speak another version than the server."""
    with pytest.raises(ssl.SSLError):
        TLSSocket(sock, client_context(VERSIONS[0])).do_handshake()


def client_of_http(sock: socket.socket) -> None:
    """Do not know that the server speaks TLS."""
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def client_that_breaks_later(sock: socket.socket) -> None:
    """Send garbage after the handshake."""
    TLSSocket(sock, client_context(NEWEST)).do_handshake()
    sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))


class ServesPackets(Echo):
    """Does not see the exception of a connection that breaks."""


@pytest.mark.parametrize("handler", [Receiver, ServesPackets])
@pytest.mark.parametrize(
    "client",
    [client_without_trust, client_of_an_old_version, client_of_http, client_that_breaks_later],
)
def test_tls_failure(handler: Any, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """One WARNING line."""
    handle_tls(handler, client)
    [line] = [line for level, line in records_of(caplog) if level > logging.DEBUG]
    assert levels_of(caplog).count("WARNING") == 1
    assert "TLS connection of" in line
    assert "Traceback" not in caplog.text


def test_tls_of_the_program(caplog: pytest.LogCaptureFixture) -> None:
    """A program that wraps sockets by itself, as it had to before, learns what to change."""

    class Server(ours.TCPServer):
        def get_request(self) -> tuple[Any, Any]:
            sock, address = super().get_request()
            context = server_context()
            return context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False
            ), address

    with Server(LOCALHOST, Echo) as server, connect(server):
        server.handle_request()
    assert levels_of(caplog) == ["ERROR"]
    assert "TypeError: Pass the context to the server" in caplog.text


def client_that_truncates(sock: socket.socket) -> None:
    """End the connection without an alert."""
    TLSSocket(sock, client_context(NEWEST)).do_handshake()
    sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("client", [client_that_truncates, lambda sock: reset(sock), bool])
def test_tls_client_that_leaves(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is not logged as a failure, nor is a handshake that takes too long."""
    handle_tls(Receiver, client, ssl_handshake_timeout=100 * MS)
    assert levels_of(caplog) == ["DEBUG"]


# -- datagrams


def handle_datagram(
    server_class: Any, handler: Any, sock: socket.socket | None = None, **options: Any
) -> None:
    """Handle one datagram of a socket, by default one that has left."""
    with address_for(server_class) as address:
        with server_class(address, handler, **options) as server:
            if sock is None:
                with datagram_socket(server) as sender:
                    sender.send(b"datagram")
            else:
                sock.sendto(b"datagram", address)
            server.handle_request()


def test_datagram_that_is_no_packet(caplog: pytest.LogCaptureFixture) -> None:
    with served(ours.UDPServer, EchoDatagrams) as server, datagram_socket(server) as sock:
        for data in b"\xff\xff", b"", b"good":
            sock.send(data)
        while sock.recv(100) != b"good":
            pass
    [(level, line), *others] = records_of(caplog)
    assert level == logging.WARNING
    assert "sent invalid data" in line
    assert others == []


def test_bug_with_a_datagram(caplog: pytest.LogCaptureFixture) -> None:
    class Handler(EchoDatagrams):
        def handle(self) -> None:
            raise ConnectionError("database")

    handle_datagram(ours.UDPServer, Handler)
    assert levels_of(caplog) == ["ERROR"]


def test_response_that_is_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """That is the handler's fault."""

    class Handler(EchoDatagrams):
        def handle(self) -> None:
            self.send_packet("x" * 70000)

    handle_datagram(ours.UDPServer, Handler)
    assert levels_of(caplog) == ["ERROR"]


def test_sender_that_has_left(caplog: pytest.LogCaptureFixture) -> None:
    """The path of a Unix socket may be gone when the response is sent."""
    handle_datagram(ours.UnixDatagramServer, EchoDatagrams)
    assert levels_of(caplog) == ["DEBUG"]


def test_sender_without_a_name(caplog: pytest.LogCaptureFixture) -> None:
    """It does not want a response."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        handle_datagram(ours.UnixDatagramServer, EchoDatagrams, sock)
    assert levels_of(caplog) == ["DEBUG"]


def test_flood_of_datagrams(caplog: pytest.LogCaptureFixture) -> None:
    with ours.UDPServer(LOCALHOST, EchoDatagrams) as server, datagram_socket(server) as sock:
        for _ in range(300):
            sock.send(b"\xff")
            server.handle_request()
    seconds = {int(record.created) for record in caplog.records}
    assert len(caplog.records) <= 4 * (len(seconds) + 2) < 100


def test_handle_invalid() -> None:
    """An override can answer."""

    class Handler(EchoDatagrams):
        def handle_invalid(self, exc: Exception) -> None:
            self.send_packet("invalid")

    with served(ours.UDPServer, Handler) as server, datagram_socket(server) as sock:
        sock.send(b"\xff")
        assert sock.recv(100) == b"invalid"
