"""What the contract of the asynchronous clients has to know of each kind of client.

A further kind is a subclass of `AsyncKind` in `ASYNC_KINDS`.
"""

from __future__ import annotations

import abc
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from easynetwork.clients.abc import AbstractAsyncNetworkClient
from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
from easynetwork.clients.async_udp import AsyncUDPNetworkClient
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.line import StringLineSerializer
from tests.clients import async_tcp_support as tcp, udp_support as udp


class Peer(abc.ABC):
    """The other end of a connected client."""

    @abc.abstractmethod
    def send(self, *packets: str) -> None:
        """Send packets that the kernel has room for."""

    @abc.abstractmethod
    async def receive(self) -> str:
        """Return the next packet of the client."""

    @abc.abstractmethod
    def deliver(self, *packets: str) -> None:
        """Send packets, and wait until the kernel has them at the client's end."""

    @abc.abstractmethod
    def leave(self) -> None:
        """Send nothing more, so that the client need not wait for that when it closes."""


class AsyncKind(abc.ABC):
    """A kind of client.

    Attributes:
        client_class: The class of the client.
        protocol: A protocol object whose packets are short texts.
        socket_type: The type of the sockets that the client accepts.
        options_of_addresses: Options that only go with an address.
    """

    client_class: ClassVar[Any]
    protocol: Any
    socket_type: ClassVar[socket.SocketKind]
    options_of_addresses: ClassVar[dict[str, Any]]

    def new(self, *args: Any, **options: Any) -> Any:
        """Return a client that is not connected."""
        return self.client_class(args[0], self.protocol, *args[1:], **options)

    @abc.abstractmethod
    def listening(self) -> socket.socket:
        """Return a socket that clients can connect to."""

    @abc.abstractmethod
    def connected(
        self,
    ) -> contextlib.AbstractAsyncContextManager[tuple[AbstractAsyncNetworkClient[str, str], Peer]]:
        """Return a context with a connected client and its peer, which are closed in the end."""

    def connected_socket(self, listener: socket.socket) -> socket.socket:
        """Return a plain socket that is connected to what listens."""
        sock = socket.socket(listener.family, self.socket_type)
        sock.connect(listener.getsockname())
        return sock


class StreamPeer(Peer):
    def __init__(self, client: Any, accepted: tcp.Accepted) -> None:
        self._client, self._accepted = client, accepted

    def send(self, *packets: str) -> None:
        self._accepted.send(*packets)

    async def receive(self) -> str:
        return await self._accepted.receive()

    def deliver(self, *packets: str) -> None:
        data = "".join(f"{packet}\n" for packet in packets).encode()
        tcp.deliver(data, self._accepted, self._client)

    def leave(self) -> None:
        self._accepted.send_eof()


class AsyncTCP(AsyncKind):
    client_class = AsyncTCPNetworkClient
    socket_type = socket.SOCK_STREAM
    options_of_addresses: ClassVar = {"local_address": ("", 0), "happy_eyeballs_delay": 1.0}

    def __init__(self, protocol_class: type[Any]) -> None:
        self.protocol = protocol_class(StringLineSerializer())

    def listening(self) -> socket.socket:
        return tcp.listening()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[Any, Peer]]:
        async with tcp.connected(self.protocol) as (client, accepted):
            yield client, StreamPeer(client, accepted)


class DatagramPeer(Peer):
    def __init__(self, client: Any, sock: socket.socket) -> None:
        self._client, self._socket = client, sock

    def send(self, *packets: str) -> None:
        for packet in packets:
            self._socket.send(packet.encode())

    async def receive(self) -> str:
        return self._socket.recv(100).decode()

    def deliver(self, *packets: str) -> None:
        udp.deliver(self._socket, self._client, *map(str.encode, packets))

    def leave(self) -> None:
        """Do nothing: a datagram socket has no end of stream."""


class AsyncUDP(AsyncKind):
    client_class = AsyncUDPNetworkClient
    protocol = udp.TEXT
    socket_type = socket.SOCK_DGRAM
    options_of_addresses: ClassVar = {"local_address": ("", 0), "family": socket.AF_INET}

    def listening(self) -> socket.socket:
        return udp.bound()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[Any, Peer]]:
        async with udp.connected() as (client, sock):
            yield client, DatagramPeer(client, sock)


ASYNC_KINDS: dict[str, AsyncKind] = {
    "TCP": AsyncTCP(StreamProtocol),
    "TCP-buffered": AsyncTCP(BufferedStreamProtocol),
    "UDP": AsyncUDP(),
}
