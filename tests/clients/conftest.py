"""What tests of blocking clients share: clients and their other ends.

`kind`, `host` and `opened` are for the contract of all kinds; the others are for TCP alone.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from easynetwork.clients.tcp import TCPNetworkClient
from easynetwork.protocol import AnyStreamProtocolType, BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.line import StringLineSerializer
from tests.clients.blocking_kinds import BLOCKING_KINDS, BlockingKind, IPKind, Opened
from tests.clients.unix_support import Descriptors

Lines: TypeAlias = AnyStreamProtocolType[str, str]
Pair: TypeAlias = tuple[TCPNetworkClient[str, str], socket.socket]

IP_KINDS = {name: kind for name, kind in BLOCKING_KINDS.items() if isinstance(kind, IPKind)}


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["ipv4-or-path", "ipv6-or-abstract"])
def host(request: pytest.FixtureRequest) -> str:
    """Return the address of the loopback interface in one of the families.

    For a Unix socket, the one means a path, the other an abstract name.
    """
    return str(request.param)


@pytest.fixture(params=BLOCKING_KINDS)
def kind(request: pytest.FixtureRequest) -> BlockingKind:
    """Return a kind of client."""
    return BLOCKING_KINDS[request.param]


@pytest.fixture(params=IP_KINDS)
def ip_kind(request: pytest.FixtureRequest) -> IPKind:
    """Return a kind of client over IP.

    The address of a Unix socket has no host and no port: any text is a path, and an error names
    that. The tests of one kind say which paths are refused, and what becomes of a local path.
    """
    return IP_KINDS[request.param]


@pytest.fixture
def opened(kind: BlockingKind, host: str) -> Iterator[Opened]:
    """Yield a connected client of some kind, which seldom looks around, and its other end."""
    with kind.open(host, retry_interval=3600) as client_and_peer:
        yield client_and_peer


@pytest.fixture
def folder() -> Iterator[str]:
    """Return a folder for Unix sockets, whose paths have to be short."""
    with tempfile.TemporaryDirectory(prefix="unix-") as path:
        yield path


@pytest.fixture
def pipe() -> Iterator[Descriptors]:
    """Return descriptors to send."""
    descriptors = Descriptors(*os.pipe())
    yield descriptors
    os.close(descriptors.reading)
    os.close(descriptors.writing)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients give up earlier."""
    monkeypatch.setattr("easynetwork.clients._blocking_client.CLOSE_TIMEOUT", 0.1)
    monkeypatch.setattr("easynetwork.clients._blocking_client.SENDER_INTERVAL", 0.1)


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
