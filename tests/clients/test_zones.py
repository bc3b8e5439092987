"""IPv6 addresses that are only valid on one link: the zone survives, in every notation."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from easynetwork.clients import (
    AsyncTCPNetworkClient,
    AsyncUDPNetworkClient,
    TCPNetworkClient,
    UDPNetworkClient,
)
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from tests.networks import LINK, own_network, wait_for_address

pytestmark = pytest.mark.anyio

STREAM: Any = StreamProtocol(StringLineSerializer())
DATAGRAM: Any = DatagramProtocol(StringLineSerializer())


@pytest.fixture
def number() -> Iterator[int]:
    """Return the number of an interface that has the address fe80::1."""
    with own_network(*LINK):
        index = socket.if_nametoindex("link0")
        wait_for_address(("fe80::1", 1, 0, index))
        yield index


def listening(kind: socket.SocketKind, number: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, kind)
    sock.bind(("fe80::1", 0, 0, number))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def notations(port: int, number: int) -> list[Any]:
    return [("fe80::1%link0", port), (f"fe80::1%{number}", port), ("fe80::1", port, 0, number)]


def check_addresses(client: Any, listener: socket.socket, number: int) -> None:
    """Check the addresses of a client that is bound to the link's address."""
    remote, local = client.get_remote_address(), client.get_local_address()
    assert remote == listener.getsockname()
    for address in (remote, local):
        assert address.for_connection() == (f"fe80::1%{number}", address.port)
        assert str(address) == f"('fe80::1%{number}', {address.port})"


@pytest.mark.parametrize(
    ("client_class", "protocol", "kind"),
    [
        (AsyncTCPNetworkClient, STREAM, socket.SOCK_STREAM),
        (AsyncUDPNetworkClient, DATAGRAM, socket.SOCK_DGRAM),
    ],
)
async def test_async_clients(
    number: int, client_class: Any, protocol: Any, kind: socket.SocketKind
) -> None:
    """Asynchronous clients connect to it, and send from it."""
    with listening(kind, number) as listener:
        port = listener.getsockname()[1]
        pairs = zip(notations(port, number), notations(0, number), strict=True)
        for address, local_address in pairs:
            async with client_class(address, protocol, local_address=local_address) as client:
                check_addresses(client, listener, number)


@pytest.mark.parametrize(
    ("client_class", "protocol", "kind"),
    [
        (TCPNetworkClient, STREAM, socket.SOCK_STREAM),
        (UDPNetworkClient, DATAGRAM, socket.SOCK_DGRAM),
    ],
)
def test_blocking_clients(
    number: int, client_class: Any, protocol: Any, kind: socket.SocketKind
) -> None:
    """Blocking clients connect to it, and send from it."""
    with listening(kind, number) as listener:
        port = listener.getsockname()[1]
        pairs = zip(notations(port, number), notations(0, number), strict=True)
        for address, local_address in pairs:
            with client_class(address, protocol, local_address=local_address) as client:
                check_addresses(client, listener, number)


class Silent(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: Any) -> Any:
        yield


async def test_server(number: int) -> None:
    """A server listens on it, and what it says of its address is what a client connects to."""
    server = AsyncTCPNetworkServer("fe80::1%link0", 0, STREAM, Silent())
    async with server, anyio.create_task_group() as tasks:
        [address] = server.get_addresses()
        assert address.for_connection() == (f"fe80::1%{number}", address.port)
        assert str(address) in repr(server)
        tasks.start_soon(server.serve_forever)
        async with AsyncTCPNetworkClient(address.for_connection(), STREAM) as client:
            assert client.get_remote_address() == address
        await server.shutdown()
