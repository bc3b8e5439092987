"""Test the statements and the examples about request handlers on the page about socketserver.

As in `test_howto_socketserver`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs._include.examples.howto.socketserver import (
    echo_simple,
    four_servers,
    own_servers,
    request_handlers,
)
from easynetwork.clients import TCPNetworkClient
from easynetwork.clients.unix_stream import UnixStreamClient
from easynetwork.exceptions import DatagramProtocolParseError, StreamProtocolParseError
from easynetwork.socketserver import (
    DatagramPacketHandler,
    TCPServer,
    ThreadingTCPServer,
)
from tests.docs.howto_support import check_quotations
from tests.docs.socketserver_program import server_class
from tests.docs.socketserver_support import (
    DATAGRAMS,
    LOCAL,
    STREAMS,
    Keeping,
    KeepingStreams,
    Peer,
    connected,
    entries,
    keeping,
    new_address,
    noting,
    serving,
)
from tests.docs.unix_support import short_folder
from tests.times import PATIENCE, SOON


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/socketserver.rst", globals())


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


# Request handlers


@pytest.mark.parametrize("kind", STREAMS)
def test_client(kind: str, folder: Path) -> None:
    """The connection is a client of the library.

    "In StreamPacketHandler, it creates self.client, the connection as a blocking client."

    "self.client_address is the address of the client, self.server is the server, and self.request
    is the socket."

    "The attributes are those of socketserver.BaseRequestHandler"
    """
    client_class = {"TCPServer": TCPNetworkClient, "UnixStreamServer": UnixStreamClient}[kind]
    server_type = server_class(f"easynetwork.socketserver:{kind}")
    server = keeping(server_type(new_address(kind, folder), KeepingStreams))
    with serving(server), connected(server.server_address, kind) as peer:
        assert peer.ask("Zoe") == "Hello, Zoe!"
        [handler] = server.kept
        assert isinstance(handler.client, client_class)
        assert handler.client_address == peer.address
        assert handler.server is server
        assert handler.request.getsockname() == server.server_address


def test_finish_after_error(log: pytest.LogCaptureFixture) -> None:
    """finish() is called after an error, and what was sent before arrives.

    "cleans up after handle(), also if handle() has raised an exception. In StreamPacketHandler, it
    closes the connection: data that has been sent still arrives."
    """
    data = "x" * 1_000_000

    class Handler(own_servers.EchoRequestHandler):
        def handle(self) -> None:
            self.send_packet(data)
            raise LookupError("on demand")

    calls: list[str] = []
    with serving(TCPServer(LOCAL, noting(Handler, calls))) as server:
        with connected(server.server_address) as peer:
            assert peer.receive() == data
            assert peer.ending() == "end of the stream"
    assert calls == ["setup", "handle", "finish"]
    assert entries(log) == [("ERROR", True)]


def test_no_finish_after_failed_setup(log: pytest.LogCaptureFixture) -> None:
    """finish() is not called if setup() has failed.

    "It is not called if setup() raises an exception."
    """

    class Handler(own_servers.EchoRequestHandler):
        def setup(self) -> None:
            super().setup()
            raise LookupError("on demand")

    calls: list[str] = []
    with serving(TCPServer(LOCAL, noting(Handler, calls))) as server:
        with connected(server.server_address) as peer:
            assert peer.ending() == "end of the stream"
    assert calls == ["setup"]
    assert entries(log) == [("ERROR", True)]


def test_counting_request_handler(capsys: pytest.CaptureFixture[str]) -> None:
    """The handler numbers the packets of each connection.

    "If you override one of the other methods, call super() there, as this handler does."

    "So you can keep a client's data in attributes of self."

    "handle() does the work: it receives requests, processes them, and sends responses."
    """
    handler_class = request_handlers.CountingRequestHandler
    with serving(ThreadingTCPServer(LOCAL, handler_class)) as server:
        with connected(server.server_address) as first, connected(server.server_address) as second:
            assert first.ask('"a"') == '{"number":1,"request":"a"}'
            assert first.ask('"b"') == '{"number":2,"request":"b"}'
            assert second.ask('"c"') == '{"number":1,"request":"c"}'
            first.socket.shutdown(socket.SHUT_WR)
            assert first.ending() == "end of the stream"
    assert capsys.readouterr().out == "2 requests of 127.0.0.1\n1 requests of 127.0.0.1\n"


def test_client_reads_ahead() -> None:
    """The client reads several packets at once.

    "Do not read from the socket yourself: self.client may already have read more than one packet."
    """
    left: list[bool] = []

    class Handler(own_servers.EchoRequestHandler):
        def handle(self) -> None:
            self.recv_packet()
            selector = selectors.DefaultSelector()
            with selector:
                selector.register(self.request, selectors.EVENT_READ)
                left.append(bool(selector.select(SOON)))
            super().handle()

    with serving(TCPServer(LOCAL, Handler)) as server, connected(server.server_address) as peer:
        assert peer.ask("one", "two") == "two"
    assert left == [False]


# Packets instead of bytes


def test_packets_until_the_client_disconnects() -> None:
    """packets() ends with the connection, however it ends.

    "yields packets until the client disconnects."
    """
    received: list[list[str]] = []

    class Handler(own_servers.EchoRequestHandler):
        def handle(self) -> None:
            self.send_packet("ready")
            received.append(list(self.packets()))

    with serving(TCPServer(LOCAL, Handler)) as server:
        for leave in Peer.close, Peer.reset:
            with connected(server.server_address) as peer:
                assert peer.receive() == "ready"
                leave(peer)
        with connected(server.server_address) as peer:
            assert peer.ask("one", "two") == "ready"
            peer.socket.shutdown(socket.SHUT_WR)
            assert peer.ending() == "end of the stream"
    assert received == [[], [], ["one", "two"]]


class LoopOverBytes(Keeping, socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.server.lines.append(line.decode().rstrip())  # type: ignore[attr-defined]
            self.wfile.write(line.upper())


class LoopOverPackets(Keeping, own_servers.EchoRequestHandler):
    def handle(self) -> None:
        for packet in self.packets():
            self.server.lines.append(packet)  # type: ignore[attr-defined]
            self.send_packet(packet.upper())


class OnePacket(Keeping, own_servers.EchoRequestHandler):
    def handle(self) -> None:
        for _ in range(2):
            packet = self.recv_packet()
            self.server.lines.append(packet)  # type: ignore[attr-defined]
            self.send_packet(packet.upper())


@pytest.mark.parametrize("handler_class", [LoopOverBytes, LoopOverPackets, OnePacket])
def test_replacements(handler_class: Any) -> None:
    """Handlers of bytes and of packets do the same.

    "This table shows what replaces the attributes and methods of a handler of socketserver"
    "for line in self.rfile" "for packet in self.packets()"

    "packet = self.recv_packet() waits for one packet."

    "self.send_packet(packet) sends a packet."
    """
    server: Any = keeping(TCPServer(LOCAL, handler_class))
    server.lines = []
    with serving(server), connected(server.server_address) as peer:
        assert peer.ask("one", "two") == "ONE"
        assert peer.receive() == "TWO"
    assert server.lines == ["one", "two"]


@pytest.mark.parametrize("way", ["packets", "recv_packet"])
def test_timeout(way: str) -> None:
    """Both ways to receive have a timeout.

    "With self.packets(timeout=60), it raises TimeoutError if no packet arrives for 60 seconds."

    "It also has a timeout, and it raises a ConnectionError if the client has disconnected."

    "There are two ways to receive packets"
    """
    raised: list[type[BaseException]] = []

    class Handler(own_servers.EchoRequestHandler):
        timeout = 0.01

        def handle(self) -> None:
            self.send_packet("ready")
            try:
                if way == "packets":
                    next(self.packets(timeout=self.timeout))
                else:
                    self.recv_packet(timeout=self.timeout)
            except (TimeoutError, ConnectionError, StopIteration) as exc:
                raised.append(type(exc))

    with serving(TCPServer(LOCAL, Handler)) as server:
        with connected(server.server_address) as peer:
            assert peer.receive() == "ready"
            assert peer.ending() == "end of the stream"
        Handler.timeout = PATIENCE
        with connected(server.server_address) as peer:
            assert peer.receive() == "ready"
    assert raised[0] is TimeoutError
    assert issubclass(raised[1], StopIteration if way == "packets" else ConnectionError)


def test_send_packet_waits() -> None:
    """A client that does not read holds up its handler.

    "It blocks while the client is too slow to read."
    """
    count, over = 50, threading.Event()

    class Handler(own_servers.EchoRequestHandler):
        def handle(self) -> None:
            for _ in range(count):
                self.send_packet("x" * 1_000_000)
            over.set()

    with serving(TCPServer(LOCAL, Handler)) as server, connected(server.server_address) as peer:
        assert not over.wait(SOON)
        assert len(list(iter(peer.receive, ""))) == count
        assert over.wait(PATIENCE)


def test_send_packet_with_timeout() -> None:
    """Sending has a timeout.

    "It has a timeout, too."
    """
    raised = threading.Event()

    class Handler(own_servers.EchoRequestHandler):
        def handle(self) -> None:
            with pytest.raises(TimeoutError):
                self.send_packet("x" * 50_000_000, timeout=0.01)
            raised.set()

    with serving(TCPServer(LOCAL, Handler)) as server, connected(server.server_address):
        assert raised.wait(PATIENCE)


class KeepingBytes(Keeping, socketserver.StreamRequestHandler):
    timeout = SOON / 5
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(TimeoutError):
            self.server.lines.append(self.rfile.readline())  # type: ignore[attr-defined]


class KeepingPackets(Keeping, own_servers.EchoRequestHandler):
    timeout = SOON / 5

    def handle(self) -> None:
        lines = list(self.packets())
        with pytest.raises(ConnectionError):
            self.recv_packet()
        self.server.lines.extend(lines)  # type: ignore[attr-defined]


@pytest.mark.parametrize("handler_class", [KeepingBytes, KeepingPackets])
def test_changed_handler(handler_class: Any) -> None:
    """A timeout has to be passed to methods, and packets are sent at once.

    "A class attribute timeout has no effect"
    "disable_nagle_algorithm = True"
    "Always on"

    "self.recv_packet(timeout=60), self.packets(timeout=60), self.send_packet(packet, timeout=60)"
    """
    server: Any = keeping(TCPServer(LOCAL, handler_class))
    server.lines = []
    with serving(server), connected(server.server_address) as peer:
        assert peer.hears() == (handler_class is KeepingBytes)
        [handler] = server.kept
        if handler_class is KeepingPackets:
            assert handler.request.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        peer.send("one")
        peer.close()
    assert server.lines == ([] if handler_class is KeepingBytes else ["one"])


@pytest.mark.parametrize("handler_class", [KeepingBytes, KeepingPackets])
def test_incomplete_packet(handler_class: Any) -> None:
    """A last packet without its end is no packet.

    "If a client sends Ada without a newline, for example with printf 'Ada' | nc localhost 9000, and
    then disconnects, readline() returns"

    "But this packet is incomplete, so packets() ends without it, and recv_packet() raises
    a ConnectionError."

    "A socketserver.StreamRequestHandler reads bytes from self.rfile. Your code has to find the end
    of each packet, and to check whether the packet is valid."
    """
    server: Any = keeping(TCPServer(LOCAL, handler_class))
    server.lines = []
    with serving(server), connected(server.server_address) as peer:
        peer.socket.sendall(b"Ada")
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.ending() == "end of the stream"
    assert server.lines == ([b"Ada"] if handler_class is KeepingBytes else [])


def test_log_of_incomplete_packet(log: pytest.LogCaptureFixture) -> None:
    """The log tells of it.

    "The log then contains an entry at level DEBUG: \u2026 left 3 bytes of an incomplete packet."
    """
    with serving(TCPServer(LOCAL, echo_simple.EchoRequestHandler)) as server:
        with connected(server.server_address) as peer:
            peer.socket.sendall(b"Zoe\nAda")
            peer.socket.shutdown(socket.SHUT_WR)
            assert peer.receive() == "Zoe"
            assert peer.ending() == "end of the stream"
    assert entries(log) == [("DEBUG", False)]
    assert log.records[0].getMessage().endswith(" left 3 bytes of an incomplete packet")


@pytest.mark.parametrize("way", ["packets", "recv_packet"])
def test_invalid_packet(way: str, log: pytest.LogCaptureFixture) -> None:
    """What is not a packet ends the connection of a handler that does not expect it.

    "If the client sends data that is not a packet, both ways raise StreamProtocolParseError. If you
    do not catch it, the connection is closed, and the log contains one line."
    """
    raised: list[Exception] = []

    class Handler(request_handlers.CountingRequestHandler):
        def handle(self) -> None:
            try:
                if way == "packets":
                    super().handle()
                else:
                    self.recv_packet()
            except Exception as exc:
                raised.append(exc)
                raise

    with serving(TCPServer(LOCAL, Handler)) as server, connected(server.server_address) as peer:
        peer.send("invalid")
        assert peer.ending() == "end of the stream"
    [exc] = raised
    assert isinstance(exc, StreamProtocolParseError)
    assert entries(log) == [("WARNING", False)]


def test_patient_request_handler(log: pytest.LogCaptureFixture) -> None:
    """The handler answers what is not a packet, and goes on; it does not wait forever.

    "With recv_packet(), you can respond with send_packet(), and continue with the next packet"
    """

    class Impatient(request_handlers.PatientRequestHandler):
        idle_timeout = 0.01

    with serving(TCPServer(LOCAL, request_handlers.PatientRequestHandler)) as server:
        with connected(server.server_address) as peer:
            for _ in range(2):
                assert peer.ask("[1") == '{"error":"invalid JSON"}'
                assert peer.ask('{"a":1}') == '{"a":1}'
    assert request_handlers.PatientRequestHandler.idle_timeout == 60
    with serving(TCPServer(LOCAL, Impatient)) as server:
        with connected(server.server_address) as peer:
            assert peer.ending() == "end of the stream"
    assert log.records == []


@pytest.mark.parametrize("kind", DATAGRAMS)
def test_datagrams(kind: str, folder: Path) -> None:
    """A handler gets a packet, and responds to its sender.

    "self.packet is the packet that the datagram contains, and self.send_packet() sends a datagram
    to its sender"

    "A DatagramPacketHandler handles one datagram."
    """
    new_server = server_class(f"easynetwork.socketserver:{kind}")
    address = new_address(kind, folder)
    with serving(new_server(address, request_handlers.EchoDatagramHandler)) as server:
        with (
            connected(server.server_address, kind) as first,
            connected(server.server_address, kind) as second,
        ):
            first.send('{"a":1}')
            assert second.ask("[1") == '{"error":"invalid JSON"}'
            assert second.ask("[2]") == "[2]"
            assert first.receive() == '{"a":1}'


@pytest.mark.parametrize("kind", DATAGRAMS)
def test_invalid_datagram(kind: str, folder: Path, log: pytest.LogCaptureFixture) -> None:
    """By default, a datagram that is not a packet is logged.

    "If the datagram is not a packet, handle_invalid() is called instead of setup(), handle() and
    finish(). By default, it logs one line."
    """
    calls: list[str] = []

    class Handler(request_handlers.EchoDatagramHandler):
        def handle_invalid(self, exc: DatagramProtocolParseError) -> None:
            DatagramPacketHandler.handle_invalid(self, exc)

    new_server = server_class(f"easynetwork.socketserver:{kind}")
    with serving(new_server(new_address(kind, folder), noting(Handler, calls))) as server:
        with connected(server.server_address, kind) as peer:
            assert peer.ask("invalid", "[]") == "[]"
    assert calls == ["setup", "handle", "finish"]
    assert entries(log) == [("WARNING", False)]


@pytest.mark.parametrize("options", [{}, {"timeout": SOON}])
def test_unix_client_that_does_not_read(
    options: dict[str, float], folder: Path, log: pytest.LogCaptureFixture
) -> None:
    """A client that does not read holds up the server for a second.

    "If a client with a Unix socket does not read its datagrams, self.send_packet() waits for at
    most one second, then it raises TimeoutError. The timeout argument of self.send_packet() changes
    this limit. If you do not catch the exception, it is logged at level DEBUG."
    """
    durations: list[float] = []

    class Handler(four_servers.GreetingDatagramHandler):
        def handle(self) -> None:
            while True:
                begin = time.monotonic()
                try:
                    self.send_packet(self.packet, **options)
                except TimeoutError:
                    durations.append(time.monotonic() - begin)
                    raise

    kind = "UnixDatagramServer"
    server_type = server_class(f"easynetwork.socketserver:{kind}")
    server = server_type(new_address(kind, folder), Handler)
    thread = threading.Thread(target=server.handle_request, daemon=True)
    with server, connected(server.server_address, kind) as peer:
        peer.send("Zoe")
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    [duration] = durations
    expected = options.get("timeout", 1.0)
    assert expected <= duration < expected + PATIENCE / 2
    assert entries(log) == [("DEBUG", False)]
