"""What the contract of the asynchronous clients has to know of each kind of client.

A further kind is a subclass of `AsyncKind` in `ASYNC_KINDS`.
"""

from __future__ import annotations

import abc
import contextlib
import socket
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, ClassVar

import anyio

from easynetwork.clients.abc import AbstractAsyncNetworkClient
from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
from easynetwork.clients.async_udp import AsyncUDPNetworkClient
from easynetwork.clients.async_unix_datagram import AsyncUnixDatagramClient
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.line import StringLineSerializer
from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._memory.servers import MemoryTCPClient, MemoryUDPClient
from easynetwork.testing._memory.transports import MemoryListener
from easynetwork.testing._serving import RawConnection
from tests.clients import async_tcp_support as tcp, udp_support as udp, unix_support as unix
from tests.clients.families import IP, Family, Unix
from tests.times import PATIENCE


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
        family: The family of its sockets.
        protocol: A protocol object whose packets are short texts.
        socket_type: The type of the sockets that the client accepts.
        options_of_addresses: Options that only go with an address.
        takes_sockets: Whether the client may be given a socket that is connected.
    """

    takes_sockets: ClassVar[bool] = True
    client_class: ClassVar[Any]
    family: ClassVar[Family] = IP()
    protocol: Any
    socket_type: ClassVar[socket.SocketKind]
    options_of_addresses: ClassVar[dict[str, Any]]

    def new(self, *args: Any, **options: Any) -> Any:
        """Return a client that is not connected."""
        return self.client_class(args[0], self.protocol, *args[1:], **options)

    @abc.abstractmethod
    def listening(self) -> Any:
        """Return a socket that clients can connect to, as a context manager that closes it."""

    @abc.abstractmethod
    def connected(
        self,
    ) -> contextlib.AbstractAsyncContextManager[tuple[AbstractAsyncNetworkClient[str, str], Peer]]:
        """Return a context with a connected client and its peer, which are closed in the end."""

    def connected_socket(self, listener: socket.socket) -> socket.socket:
        """Return a plain socket that is connected to what listens."""
        sock = self.family.new_socket(self.socket_type)
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
    client_class: ClassVar[Any] = AsyncTCPNetworkClient
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
    client_class: ClassVar[Any] = AsyncUDPNetworkClient
    protocol = udp.TEXT
    socket_type = socket.SOCK_DGRAM
    options_of_addresses: ClassVar = {"local_address": ("", 0), "family": socket.AF_INET}

    def listening(self) -> socket.socket:
        return udp.bound()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[Any, Peer]]:
        async with udp.connected() as (client, sock):
            yield client, DatagramPeer(client, sock)


class AsyncUnixStream(AsyncTCP):
    client_class = AsyncUnixStreamClient
    family = Unix()
    options_of_addresses: ClassVar = {"local_path": "/nowhere/client.sock"}

    def listening(self) -> socket.socket:
        return unix.named()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[Any, Peer]]:
        with anyio.fail_after(PATIENCE), self.listening() as listener:
            async with self.new(listener.getsockname()) as client:
                with contextlib.closing(tcp.Accepted(listener)) as accepted:
                    yield client, StreamPeer(client, accepted)


class UnixDatagramPeer(DatagramPeer):
    def deliver(self, *packets: str) -> None:
        self.send(*packets)  # a datagram is in the queue of the receiver when send(2) returns


class AsyncUnixDatagram(AsyncKind):
    client_class = AsyncUnixDatagramClient
    family = Unix()
    protocol = udp.TEXT
    socket_type = socket.SOCK_DGRAM
    options_of_addresses: ClassVar = {"local_path": "/nowhere/client.sock"}

    def listening(self) -> socket.socket:
        return unix.named(self.socket_type)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[Any, Peer]]:
        with anyio.fail_after(PATIENCE), self.listening() as sock:
            async with self.new(sock.getsockname()) as client:
                sock.connect(client.socket.getsockname())
                yield client, UnixDatagramPeer(client, sock)


class Memory(IP):
    """Addresses of a network in memory, which look like those of IPv4."""

    def address_of(self, sock: Any) -> Any:
        address: Any = (
            sock.local_address if isinstance(sock, MemoryListener) else sock.getsockname()
        )
        return address[:2]


class MemoryStreamPeer(Peer):
    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self._connection = RawConnection(sock)

    def send(self, *packets: str) -> None:
        self._socket.send("".join(f"{packet}\n" for packet in packets).encode())

    async def receive(self) -> str:
        return (await self._connection.receive()).decode().removesuffix("\n")

    def deliver(self, *packets: str) -> None:
        self.send(*packets)

    def leave(self) -> None:
        self._connection.send_eof()


class MemoryTCP(AsyncTCP):
    takes_sockets = False
    client_class = MemoryTCPClient
    family = Memory()
    network = MemoryNetwork()

    def new(self, address: Any, *backend: Any, **options: Any) -> Any:
        options |= {"backend": backend[0]} if backend else {}
        connect = partial(self.network.connect, address, None, None, None)
        return MemoryTCPClient(connect, address, self.protocol, **options)

    def listening(self) -> Any:
        return contextlib.closing(self.network.listen(max_recv_size=1))

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[Any, Peer]]:
        with anyio.fail_after(PATIENCE), self.listening() as listener:
            async with self.new(self.family.address_of(listener)) as client:
                with contextlib.closing(listener._waiting.pop()) as accepted:
                    yield client, MemoryStreamPeer(accepted)


class MemoryDatagramPeer(Peer):
    def __init__(self, client: Any, sock: Any) -> None:
        self._address, self._socket = client.get_local_address().for_connection(), sock

    def send(self, *packets: str) -> None:
        for packet in packets:
            self._socket.sendto(packet.encode(), self._address)

    async def receive(self) -> str:
        datagram: bytes = self._socket.recv(100)
        return datagram.decode()

    def deliver(self, *packets: str) -> None:
        self.send(*packets)

    def leave(self) -> None:
        """Do nothing: a datagram socket has no end of stream."""


class MemoryUDP(AsyncUDP):
    takes_sockets = False
    client_class = MemoryUDPClient
    family = Memory()
    network = MemoryNetwork()

    def new(self, address: Any, *backend: Any, **options: Any) -> Any:
        options |= {"backend": backend[0]} if backend else {}
        return MemoryUDPClient(
            partial(self.network.bind, address), address, self.protocol, **options
        )

    def listening(self) -> Any:
        return contextlib.closing(self.network.bind())

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[Any, Peer]]:
        with anyio.fail_after(PATIENCE), self.listening() as sock:
            async with self.new(self.family.address_of(sock)) as client:
                yield client, MemoryDatagramPeer(client, sock)


ASYNC_KINDS: dict[str, AsyncKind] = {
    "TCP": AsyncTCP(StreamProtocol),
    "TCP-buffered": AsyncTCP(BufferedStreamProtocol),
    "UDP": AsyncUDP(),
    "Unix-stream": AsyncUnixStream(StreamProtocol),
    "Unix-stream-buffered": AsyncUnixStream(BufferedStreamProtocol),
    "Unix-datagram": AsyncUnixDatagram(),
    "memory-stream": MemoryTCP(StreamProtocol),
    "memory-datagram": MemoryUDP(),
}
