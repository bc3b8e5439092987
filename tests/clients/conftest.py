"""The other end of a client: a listening socket, and the connection that it gets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from easynetwork.clients.tcp import TCPNetworkClient
from easynetwork.protocol import AnyStreamProtocolType, BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.line import StringLineSerializer

Lines: TypeAlias = AnyStreamProtocolType[str, str]
Pair: TypeAlias = tuple[TCPNetworkClient[str, str], socket.socket]


@pytest.fixture(params=["IPv4", "IPv6"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A socket that listens on a loopback address. Who connects is served by the kernel."""
    is_ipv6 = request.param == "IPv6"
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    with socket.create_server(("::1" if is_ipv6 else "127.0.0.1", 0), family=family) as sock:
        sock.settimeout(5)
        yield sock


@pytest.fixture(params=[StreamProtocol, BufferedStreamProtocol])
def lines(request: pytest.FixtureRequest) -> Lines:
    """A protocol object for lines of text."""
    protocol: Lines = request.param(StringLineSerializer())
    return protocol


@pytest.fixture
def connect(listener: socket.socket, lines: Lines) -> Iterator[Callable[..., Pair]]:
    """Return a function that makes a client, with some options, and its peer, a plain socket."""
    opened: list[Any] = []

    def connect(**options: Any) -> Pair:
        client = TCPNetworkClient(listener.getsockname()[:2], lines, **options)
        opened.append(client)
        peer, _ = listener.accept()
        opened.append(peer)
        peer.settimeout(5)
        return client, peer

    yield connect
    for each in reversed(opened):
        each.close()


@pytest.fixture
def pair(connect: Callable[..., Pair]) -> Pair:
    """A client and its peer."""
    return connect()


@pytest.fixture
def narrow(pair: Pair) -> Pair:
    """A client and its peer, and a kernel that keeps little between them, some 100 KB."""
    pair[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return pair
