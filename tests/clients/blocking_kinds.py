"""What the contract of the blocking clients has to know of each kind of client.

A further kind is a subclass of `BlockingKind` in `BLOCKING_KINDS`.
"""

from __future__ import annotations

import abc
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, ClassVar, TypeAlias

from easynetwork.clients.tcp import TCPNetworkClient
from easynetwork.clients.udp import UDPNetworkClient
from easynetwork.converter import AbstractPacketConverter
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers.line import StringLineSerializer
from tests.clients import udp_support as udp
from tests.clients.async_tcp_support import address_of, listening
from tests.times import PATIENCE


class CrashConverter(AbstractPacketConverter[str, str]):
    """Fails if it is asked to, in both directions."""

    def create_from_dto_packet(self, packet: str, /) -> str:
        if packet == "crash":
            raise ZeroDivisionError
        return packet

    convert_to_dto_packet = create_from_dto_packet


class Peer:
    """The other end of a client: a plain blocking socket, whose packets end in certain bytes."""

    def __init__(self, sock: socket.socket, end: bytes) -> None:
        sock.settimeout(PATIENCE)
        self.socket = sock
        self.address = sock.getsockname()
        self._end = end

    def send(self, *packets: str) -> None:
        """Send packets; a call of its own for each, so that datagrams are not joined."""
        for packet in packets:
            self.socket.sendall(packet.encode() + self._end)

    def receive(self) -> str:
        """Return the next packet of a client that waits for a response after each."""
        data = self.socket.recv(1000)
        assert data.endswith(self._end)
        return data.removesuffix(self._end).decode()


Opened: TypeAlias = tuple[Any, Peer]


class BlockingKind(abc.ABC):
    """A kind of client.

    Attributes:
        client_class: The class of the client.
        protocol_class: The class of the protocol object.
        socket_type: The type of the sockets that the client accepts.
        deserializing: The method of the protocol object that turns bytes into packets.
        serializing: The method that turns packets into bytes.
    """

    client_class: ClassVar[Any]
    protocol_class: ClassVar[Any]
    socket_type: ClassVar[socket.SocketKind]
    deserializing: ClassVar[str]
    serializing: ClassVar[str]

    def new_protocol(self, converter: AbstractPacketConverter[str, str] | None = None) -> Any:
        """Return a protocol object whose packets are short texts."""
        return self.protocol_class(StringLineSerializer(), converter)

    def new(self, target: Any, **options: Any) -> Any:
        """Return a client of an address or a socket."""
        return self.client_class(target, self.new_protocol(), **options)

    @abc.abstractmethod
    def target(self, host: str) -> contextlib.AbstractContextManager[socket.socket]:
        """Return a context manager of a socket that clients can connect to."""

    @abc.abstractmethod
    def peer_of(self, target: socket.socket, client: Any) -> Peer:
        """Return the other end of a client that has connected to it; closed by the test."""

    @contextlib.contextmanager
    def open(self, host: str, converter: Any = None, **options: Any) -> Iterator[Opened]:
        """Yield a client and its other end; both are closed when the block ends."""
        with self.target(host) as target:
            protocol = self.new_protocol(converter)
            with self.client_class(address_of(target), protocol, **options) as client:
                peer = self.peer_of(target, client)
                with peer.socket:
                    yield client, peer


class TCPKind(BlockingKind):
    """TCP, and a protocol object that gets the received bytes in chunks."""

    client_class = TCPNetworkClient
    protocol_class: ClassVar[Any] = StreamProtocol
    socket_type = socket.SOCK_STREAM
    deserializing = "build_packet_from_chunks"
    serializing = "generate_chunks"

    def target(self, host: str) -> contextlib.AbstractContextManager[socket.socket]:
        return listening(host)

    def peer_of(self, target: socket.socket, client: Any) -> Peer:
        return Peer(target.accept()[0], b"\n")


class BufferedTCPKind(TCPKind):
    """TCP, and a protocol object that gets the received bytes in its own buffer."""

    protocol_class = BufferedStreamProtocol
    deserializing = "build_packet_from_buffer"


class UDPKind(BlockingKind):
    """UDP."""

    client_class = UDPNetworkClient
    protocol_class = DatagramProtocol
    socket_type = socket.SOCK_DGRAM
    deserializing = "build_packet_from_datagram"
    serializing = "make_datagram"

    def target(self, host: str) -> contextlib.AbstractContextManager[socket.socket]:
        return udp.bound(host)

    def peer_of(self, target: socket.socket, client: Any) -> Peer:
        target.connect(client.socket.getsockname())
        return Peer(target, b"")


BLOCKING_KINDS: dict[str, BlockingKind] = {
    "TCP": TCPKind(),
    "TCP-buffered": BufferedTCPKind(),
    "UDP": UDPKind(),
}
