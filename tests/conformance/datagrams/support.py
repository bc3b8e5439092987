"""What the conformance tests of datagrams share; see the support of those of streams."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import pytest

from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.handlers import AsyncDatagramClient, AsyncDatagramRequestHandler
from easynetwork.servers.statistics import DatagramStatistics
from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._memory.servers import MemoryUDPServer
from easynetwork.testing._serving import RawDatagrams
from tests.conformance import peers, support
from tests.conformance.support import Notes
from tests.times import PATIENCE

Client: TypeAlias = AsyncDatagramClient[str]
Requests: TypeAlias = AsyncGenerator[Any, str]
Server: TypeAlias = AsyncUDPNetworkServer[str, str]


# For tests of what Unix sockets do otherwise: the kernel drops nothing, but has senders wait.
on_ip = pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "memory"], ids=["ipv4", "ipv6", "memory"]
)


class Recorder(Notes, AsyncDatagramRequestHandler[str, str]):
    """Echoes datagrams, and keeps notes. A test overrides what it is about."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []

    async def handle(self, client: Client) -> Requests:
        self.clients.append(client)
        self.note("handle")
        with self.noting_errors():
            request = yield
        self.note(request)
        await client.send_packet(request)


class Peer:
    """The other end, without the library: a blocking socket, read in a worker thread."""

    socket: Any
    address: Any

    def __init__(self, address: Any, host: str | None = None) -> None:
        self.socket = peers.new_socket(address, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        if host is not None:
            self.socket.bind((host, 0))
        self.socket.connect(peers.raw(address))
        self.address = self.socket.getsockname()

    @property
    def name(self) -> str:
        """The address as it stands in the log."""
        return peers.name_in_log(self.socket.family, self.address)

    def send(self, *packets: str | bytes) -> None:
        """Send datagrams."""
        for packet in packets:
            self.socket.send(packet.encode() if isinstance(packet, str) else packet)

    async def receive(self) -> str:
        """Return the next datagram."""
        datagram: bytes = await anyio.to_thread.run_sync(self.socket.recv, 1 << 17)
        return datagram.decode()

    async def ask(self, *packets: str | bytes) -> str:
        """Send datagrams and return the next one that is received."""
        self.send(*packets)
        return await self.receive()

    def close(self) -> None:
        self.socket.close()


class MemoryPeer(Peer):
    """A socket of a network in memory, which needs no thread."""

    def __init__(self, network: MemoryNetwork, address: Any) -> None:
        self.socket = network.bind(address)
        self.address = self.socket.getsockname()
        self._datagrams = RawDatagrams(self.socket)

    async def receive(self) -> str:
        return (await self._datagrams.receive()).decode()


def new_peer(server: Any, host: str | None = None) -> Peer:
    """Return a new peer of a server, bound to a certain host if one is given."""
    address = server.get_addresses()[0]
    if isinstance(server, MemoryUDPServer):
        return MemoryPeer(server._network, address.for_connection())
    return Peer(address, host)


class Service:
    """A server that is up, and the peers that a test makes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.peers: list[Peer] = []

    def connect(self, host: str | None = None) -> Peer:
        """Return a new peer, bound to an address of its own if one is given."""
        peer = new_peer(self.server, host)
        self.peers.append(peer)
        return peer

    async def statistics(self, **expected: int) -> DatagramStatistics:
        """Return the server's statistics, as soon as they are as expected."""
        with anyio.move_on_after(PATIENCE / 2):
            while True:
                statistics = self.server.get_statistics()
                if all(getattr(statistics, name) == value for name, value in expected.items()):
                    return statistics
                await anyio.sleep(0.001)
        raise AssertionError(f"{self.server.get_statistics()}, but {expected} were expected")

    def close(self) -> None:
        for peer in self.peers:
            peer.close()


Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[Service]]
NewServer: TypeAlias = Callable[..., Server]


def serving(server: Server) -> AbstractAsyncContextManager[Service]:
    """Serve while the block runs; then the server is shut down."""
    return support.serving(server, Service)


def server_on(host: Any, port: int = 0, **options: Any) -> Server:
    """Return a server on certain hosts, which echoes."""
    protocol: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer())
    return AsyncUDPNetworkServer(host, port, protocol, Recorder(), **options)
