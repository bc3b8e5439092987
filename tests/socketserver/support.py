"""Handlers, servers in threads, and clients for the tests of `easynetwork.socketserver`."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver as standard
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import easynetwork.socketserver as ours
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from tests.times import MS, PATIENCE

LINES: Any = StreamProtocol(StringLineSerializer())
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())
LOCALHOST = ("127.0.0.1", 0)

STREAM_SERVERS = [
    "TCPServer",
    "ThreadingTCPServer",
    "UnixStreamServer",
    "ThreadingUnixStreamServer",
]
DATAGRAM_SERVERS = [
    *("UDPServer", "ThreadingUDPServer"),
    *("UnixDatagramServer", "ThreadingUnixDatagramServer"),
]


class Echo(ours.StreamPacketHandler[str, str]):
    """Sends back each packet."""

    protocol = LINES

    def handle(self) -> None:
        for packet in self.packets():
            self.send_packet(packet)


class EchoDatagrams(ours.DatagramPacketHandler[str, str]):
    """Sends back the packet."""

    protocol = DATAGRAMS

    def handle(self) -> None:
        self.send_packet(self.packet)


class EchoBytes(standard.StreamRequestHandler):
    """Sends back each line, with the classes of the standard library only."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class EchoDatagramBytes(standard.DatagramRequestHandler):
    """Sends back the datagram, with the classes of the standard library only."""

    def handle(self) -> None:
        self.wfile.write(self.rfile.read())


def named(name: str, module: Any = ours) -> Any:
    """Return a server class."""
    return getattr(module, name)


@contextlib.contextmanager
def address_for(server_class: Any) -> Iterator[Any]:
    """Yield an address to bind a server of a class to."""
    if server_class.address_family == socket.AF_INET:
        yield LOCALHOST
    else:
        with tempfile.TemporaryDirectory(prefix="easynetwork-") as folder:
            yield f"{folder}/server"


@contextlib.contextmanager
def serving(server: Any) -> Iterator[Any]:
    """Run a server in a thread; shut it down and close it."""
    thread = threading.Thread(target=server.serve_forever, args=(10 * MS,))
    try:
        thread.start()
        yield server
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()
        assert not thread.is_alive()


@contextlib.contextmanager
def served(server_class: Any, handler: Any, **options: Any) -> Iterator[Any]:
    """Make a server, and run it in a thread."""
    with address_for(server_class) as address:
        with serving(server_class(address, handler, **options)) as server:
            yield server


def connect(server: Any) -> socket.socket:
    """Return a new connection to a server."""
    sock = socket.socket(server.address_family)
    try:
        sock.settimeout(PATIENCE)
        sock.connect(server.server_address)
    except BaseException:
        sock.close()
        raise
    return sock


def ask(sock: Any, line: bytes) -> bytes:
    """Send a line, and return the line that comes back."""
    sock.sendall(line)
    return receive_line(sock)


def receive_line(sock: Any) -> bytes:
    """Return the line that arrives, or what there is of it before the end."""
    received = b""
    while not received.endswith(b"\n") and (chunk := sock.recv(4096)):
        received += chunk
    return received


def echoes(server: Any) -> bool:
    """Whether a server serves one more connection."""
    with connect(server) as sock:
        return ask(sock, b"echo\n") == b"echo\n"


@contextlib.contextmanager
def datagram_socket(server: Any) -> Iterator[socket.socket]:
    """Yield a socket that has an address, and sends to a server of datagrams."""
    with socket.socket(server.address_family, socket.SOCK_DGRAM) as sock:
        with contextlib.ExitStack() as stack:
            if server.address_family == socket.AF_INET:
                sock.bind(LOCALHOST)
            else:
                folder = tempfile.TemporaryDirectory(prefix="easynetwork-")
                sock.bind(f"{stack.enter_context(folder)}/client")
            sock.settimeout(PATIENCE)
            sock.connect(server.server_address)
            yield sock


def reset(sock: socket.socket) -> None:
    """Close a connection with a reset, if it is of TCP."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def wait_cut_off(sock: Any) -> None:
    """Wait until the server ends the connection."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(65536):
            pass


def wait_until(condition: Callable[[], Any]) -> Any:
    """Wait for what nothing announces; return what the condition returns."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(5 * MS)
    return result


def records_of(caplog: Any) -> list[tuple[int, str]]:
    """Return the level and the first line of what was logged."""
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == "easynetwork.socketserver"
    ]


def levels_of(caplog: Any) -> list[str]:
    """Return the names of the levels of what was logged."""
    return [logging.getLevelName(level) for level, _ in records_of(caplog)]
