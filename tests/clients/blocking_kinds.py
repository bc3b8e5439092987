"""What the contract of the blocking clients has to know of each kind of client.

A further kind is a subclass of `BlockingKind` in `BLOCKING_KINDS`.
"""

from __future__ import annotations

import abc
import contextlib
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeAlias

from easynetwork.clients.tcp import TCPNetworkClient
from easynetwork.clients.udp import UDPNetworkClient
from easynetwork.clients.unix_datagram import UnixDatagramClient
from easynetwork.clients.unix_stream import UnixStreamClient
from easynetwork.converter import AbstractPacketConverter
from easynetwork.exceptions import (
    BaseProtocolParseError,
    DatagramProtocolParseError,
    StreamProtocolParseError,
)
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers.line import StringLineSerializer
from tests.clients import udp_support as udp, unix_support as unix
from tests.clients.async_tcp_support import listening
from tests.clients.families import IP, Family, Unix
from tests.times import PATIENCE


class CrashConverter(AbstractPacketConverter[str, str]):
    """Fails if it is asked to, in both directions."""

    def create_from_dto_packet(self, packet: str, /) -> str:
        if packet == "crash":
            raise ZeroDivisionError
        return packet

    convert_to_dto_packet = create_from_dto_packet


class Peer(abc.ABC):
    """The other end of a client: a plain blocking socket.

    Attributes:
        socket: The socket.
        address: Where it is bound.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.socket = sock
        self.address = sock.getsockname()

    def send(self, *packets: str) -> None:
        """Send packets that the kernel has room for."""
        self.send_bytes(*(packet.encode() for packet in packets))

    @abc.abstractmethod
    def send_bytes(self, *packets: bytes) -> None:
        """Send packets that are bytes already."""

    @abc.abstractmethod
    def deliver(self, client: Any, *packets: str) -> None:
        """Send packets, and wait until the kernel has them at the client's end."""

    @abc.abstractmethod
    def receive(self) -> str:
        """Return the next packet of the client."""

    @abc.abstractmethod
    def rest(self) -> list[str]:
        """Return all further packets of a closed client. The end of its stream is in order."""

    @abc.abstractmethod
    def leave(self) -> None:
        """Send nothing more, so that the client need not wait for that when it closes."""


class StreamPeer(Peer):
    """The other end of a connection that carries lines."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._received = bytearray()

    def send_bytes(self, *packets: bytes) -> None:
        self.socket.sendall(b"".join(packet + b"\n" for packet in packets))

    def deliver(self, client: Any, *packets: str) -> None:
        self.send(*packets)
        assert select.select([client.fileno()], [], [], PATIENCE)[0]

    def receive(self) -> str:
        while b"\n" not in self._received:
            assert self._read(), f"the end, behind {bytes(self._received)!r}"
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def _read(self) -> bool:
        data = self.socket.recv(1 << 18)
        self._received += data
        return bool(data)

    def rest(self) -> list[str]:
        while self._read():
            pass
        *lines, part = self._received.decode().split("\n")
        assert part == ""
        return lines

    def leave(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)


class DatagramPeer(Peer):
    """A datagram socket that is connected to the client's."""

    def send_bytes(self, *packets: bytes) -> None:
        for packet in packets:
            self.socket.send(packet)

    def deliver(self, client: Any, *packets: str) -> None:
        udp.deliver(self.socket, client, *(packet.encode() for packet in packets))

    def receive(self) -> str:
        return self.socket.recv(1 << 17).decode()

    def rest(self) -> list[str]:
        self.socket.setblocking(False)
        packets: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packets.append(self.receive())
        return packets

    def leave(self) -> None:
        """Datagrams have no end."""


Opened: TypeAlias = tuple[Any, Peer]
Congested: TypeAlias = tuple[Any, Peer, Callable[[], object]]


class BlockingKind(abc.ABC):
    """A kind of client.

    Attributes:
        client_class: The class of the client.
        family: The family of its sockets.
        protocol_class: The class of the protocol object.
        expected_protocols: How the client names the classes that it accepts.
        parse_error: What a client raises if it receives something that is not a packet.
        socket_type: The type of the sockets that the client accepts.
        options_of_addresses: Options that only go with an address.
        deserializing: The method of the protocol object that turns bytes into packets.
        serializing: The method that turns packets into bytes.
        burst: How many short packets the kernel holds for a client that does not receive.
        long: A packet that a `congested` kernel does not take at once.
    """

    client_class: ClassVar[Any]
    family: ClassVar[Family] = IP()
    protocol_class: ClassVar[Any]
    expected_protocols: ClassVar[str]
    parse_error: ClassVar[type[BaseProtocolParseError]]
    socket_type: ClassVar[socket.SocketKind]
    options_of_addresses: ClassVar[dict[str, Any]]
    deserializing: ClassVar[str]
    serializing: ClassVar[str]
    burst: ClassVar[int]
    long: ClassVar[str]

    def new_protocol(self, converter: AbstractPacketConverter[str, str] | None = None) -> Any:
        """Return a protocol object whose packets are short texts."""
        return self.protocol_class(StringLineSerializer(), converter)

    def new(self, target: Any, **options: Any) -> Any:
        """Return a client of an address or a socket."""
        return self.client_class(target, **{"protocol": self.new_protocol()} | options)

    @abc.abstractmethod
    def target(self, host: str) -> contextlib.AbstractContextManager[socket.socket]:
        """Return a context manager of a socket that clients can connect to.

        Args:
            host: See the fixture `host`.
        """

    def connected_socket(self, target: socket.socket) -> socket.socket:
        """Return a plain socket that is connected to a target."""
        host = "::1" if target.family == socket.AF_INET6 else "127.0.0.1"
        sock = self.family.new_socket(self.socket_type, host)
        sock.connect(target.getsockname())
        return sock

    @abc.abstractmethod
    def peer_of(self, target: socket.socket, client: Any) -> Peer:
        """Return the other end of a client that has connected to it; closed by the test."""

    @abc.abstractmethod
    def congested(self, host: str, **options: Any) -> contextlib.AbstractContextManager[Congested]:
        """Return a context manager of a client whose kernel does not take a long packet at once.

        Besides the client and its other end, there is a function. When that was called, the packets
        leave as fast as the other end receives them.
        """

    @contextlib.contextmanager
    def open(self, host: str, converter: Any = None, **options: Any) -> Iterator[Opened]:
        """Yield a client and its other end; both are closed when the block ends."""
        with self.target(host) as target:
            protocol = self.new_protocol(converter)
            with self.client_class(self.family.address_of(target), protocol, **options) as client:
                peer = self.peer_of(target, client)
                with peer.socket:
                    yield client, peer


class IPKind(BlockingKind):
    """A kind whose addresses are a host and a port."""

    @abc.abstractmethod
    def target_of_both_families(self) -> contextlib.AbstractContextManager[socket.socket]:
        """Return a target that clients can connect to by IPv4 and by IPv6."""


class StreamKind(BlockingKind):
    """A connection, and a protocol object that gets the received bytes in chunks."""

    protocol_class: ClassVar[Any] = StreamProtocol
    expected_protocols = "a StreamProtocol or a BufferedStreamProtocol"
    parse_error = StreamProtocolParseError
    socket_type = socket.SOCK_STREAM
    deserializing = "build_packet_from_chunks"
    serializing = "generate_chunks"
    burst = 10_000
    long = "x" * 1_000_000

    def peer_of(self, target: socket.socket, client: Any) -> Peer:
        return StreamPeer(target.accept()[0])

    @contextlib.contextmanager
    def congested(self, host: str, **options: Any) -> Iterator[Congested]:
        with self.open(host, **options) as (client, peer):
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            yield client, peer, lambda: None  # the other end makes room when it receives


class TCPKind(StreamKind, IPKind):
    """TCP, and a protocol object that gets the received bytes in chunks."""

    client_class = TCPNetworkClient
    options_of_addresses: ClassVar = {"local_address": ("127.0.0.1", 0), "connect_timeout": 1}

    def target(self, host: str) -> contextlib.AbstractContextManager[socket.socket]:
        return listening(host)

    def target_of_both_families(self) -> contextlib.AbstractContextManager[socket.socket]:
        return listening("::", dualstack_ipv6=True)


class BufferedTCPKind(TCPKind):
    """TCP, and a protocol object that gets the received bytes in its own buffer."""

    protocol_class = BufferedStreamProtocol
    deserializing = "build_packet_from_buffer"


class PatientTCPClient(TCPNetworkClient[Any, Any]):
    """A client that waits in recv(2), as those of `easynetwork.socketserver` do."""

    __slots__ = ()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._wait_in_recv()
        assert self._arrived == []


class PatientTCPKind(TCPKind):
    """TCP, and a client that waits in recv(2)."""

    client_class = PatientTCPClient


class DatagramKind(BlockingKind):
    """One datagram for each packet."""

    protocol_class = DatagramProtocol
    expected_protocols = "a DatagramProtocol"
    parse_error = DatagramProtocolParseError
    socket_type = socket.SOCK_DGRAM
    deserializing = "build_packet_from_datagram"
    serializing = "make_datagram"
    burst = 80


class UDPKind(DatagramKind, IPKind):
    """UDP."""

    client_class = UDPNetworkClient
    options_of_addresses: ClassVar = {
        "local_address": ("127.0.0.1", 0),
        "family": socket.AF_INET,
    }
    long = "x" * 1000

    def target(self, host: str) -> contextlib.AbstractContextManager[socket.socket]:
        return udp.bound(host)

    def target_of_both_families(self) -> contextlib.AbstractContextManager[socket.socket]:
        sock = socket.socket(socket.AF_INET6, self.socket_type)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        return sock

    def peer_of(self, target: socket.socket, client: Any) -> Peer:
        target.connect(client.socket.getsockname())
        return DatagramPeer(target)

    @contextlib.contextmanager
    def congested(self, host: str, **options: Any) -> Iterator[Congested]:
        with udp.bound(host) as target:
            sock = udp.connected_to(target, udp.Full)
            with self.new(sock, **options) as client:
                try:
                    yield client, self.peer_of(target, client), sock.make_room
                finally:
                    sock.make_room()  # else the client would wait for its senders


class UnixStreamKind(StreamKind):
    """A Unix stream, and a protocol object that gets the received bytes in chunks."""

    client_class = UnixStreamClient
    family = Unix()
    options_of_addresses: ClassVar = {"local_path": "/nowhere/client.sock", "connect_timeout": 1}

    def target(self, host: str) -> contextlib.AbstractContextManager[socket.socket]:
        return unix.named(is_abstract=":" in host)


class BufferedUnixStreamKind(UnixStreamKind):
    """A Unix stream, and a protocol object that gets the received bytes in its own buffer."""

    protocol_class = BufferedStreamProtocol
    deserializing = "build_packet_from_buffer"


class UnixDatagramPeer(DatagramPeer):
    """A Unix datagram socket that is connected to the client's."""

    def deliver(self, client: Any, *packets: str) -> None:
        self.send(*packets)  # a datagram is in the queue of the receiver when send(2) returns


class UnixDatagramKind(DatagramKind):
    """Unix datagrams."""

    client_class = UnixDatagramClient
    family = Unix()
    options_of_addresses: ClassVar = {"local_path": "/nowhere/client.sock"}
    burst = 50  # poll(2) calls a sender writable while a quarter of its buffer is in use
    long = "x" * 50_000

    def target(self, host: str) -> contextlib.AbstractContextManager[socket.socket]:
        return unix.named(self.socket_type, is_abstract=":" in host)

    def peer_of(self, target: socket.socket, client: Any) -> Peer:
        target.connect(client.socket.getsockname())
        return UnixDatagramPeer(target)

    @contextlib.contextmanager
    def congested(self, host: str, **options: Any) -> Iterator[Congested]:
        with self.open(host, **options) as (client, peer):
            # Here, a real kernel is full when its other end does not read.
            fillers = unix.fill(client, b"x" * len(self.long)) // len(self.long)

            def make_room() -> None:
                nonlocal fillers
                for _ in range(fillers):
                    peer.receive()
                fillers = 0

            try:
                yield client, peer, make_room
            finally:
                make_room()  # else the client would wait for its senders


BLOCKING_KINDS: dict[str, BlockingKind] = {
    "TCP": TCPKind(),
    "TCP-buffered": BufferedTCPKind(),
    "TCP-patient": PatientTCPKind(),
    "UDP": UDPKind(),
    "Unix-stream": UnixStreamKind(),
    "Unix-stream-buffered": BufferedUnixStreamKind(),
    "Unix-datagram": UnixDatagramKind(),
}
