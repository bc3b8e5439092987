"""What the tests of UDP clients share: their other end, a plain blocking socket."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import anyio
import pytest

from easynetwork.clients.async_udp import AsyncUDPNetworkClient
from easynetwork.clients.udp import UDPNetworkClient
from easynetwork.exceptions import DeserializeError
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers.abc import AbstractPacketSerializer
from tests.times import PATIENCE

# Seconds. Nothing here takes a tenth of it, unless something hangs.

# Linux, asm-generic/socket.h: how much memory a socket uses, to receive to begin with.
SO_MEMINFO = 55

Client: TypeAlias = UDPNetworkClient[str, str]
AsyncClient: TypeAlias = AsyncUDPNetworkClient[str, str]

each_family = pytest.mark.parametrize("host", ["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])


class Text(AbstractPacketSerializer[str, str]):
    """A datagram is a text. Fails if it is asked to."""

    __slots__ = ()

    def serialize(self, packet: str, /) -> bytes:
        if packet == "crash":
            raise ZeroDivisionError
        return packet.encode("latin-1")

    def deserialize(self, data: bytes, /) -> str:
        if data == b"crash":
            raise ZeroDivisionError
        try:
            return data.decode("ascii")
        except UnicodeDecodeError as exc:
            raise DeserializeError("not ASCII") from exc


TEXT: DatagramProtocol[str, str] = DatagramProtocol(Text())
NOT_A_PACKET = b"\xff"


class Full(socket.socket):
    """A socket that the kernel takes nothing from, until `room` is set.

    Attributes:
        room: Whether the kernel takes datagrams.
        refused: Whether it has refused one.

    A real one is full when the network is slower than the program: never on the loopback interface.
    """

    room = False
    refused = False

    def make_room(self) -> None:
        self.room = True

    def send(self, data: Any, flags: int = 0, /) -> int:
        if not self.room:
            self.refused = True
            raise BlockingIOError
        return super().send(data, flags)


def bound(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a socket that anybody can send to."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.settimeout(PATIENCE)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def address_of(sock: socket.socket) -> tuple[str, int]:
    """Return where a socket is bound: host and port."""
    host, port = sock.getsockname()[:2]
    return host, port


def connected_to(peer: socket.socket, kind: type[socket.socket] = socket.socket) -> Any:
    """Return a socket for a client of a peer, of some class."""
    sock = kind(peer.family, socket.SOCK_DGRAM)
    sock.connect(peer.getsockname())
    return sock


@contextlib.contextmanager
def opened(
    host: str = "127.0.0.1", *, protocol: Any = TEXT, **options: Any
) -> Iterator[tuple[Client, socket.socket]]:
    """Yield a client and its peer, which is connected to it; close both in the end."""
    with bound(host) as peer:
        with UDPNetworkClient(address_of(peer), protocol, **options) as client:
            peer.connect(client.get_local_address())
            yield client, peer


@contextlib.asynccontextmanager
async def connected(
    host: str = "127.0.0.1", *, protocol: Any = TEXT, **options: Any
) -> AsyncIterator[tuple[AsyncClient, socket.socket]]:
    """Yield an asynchronous client and its peer. All that must not take for ever."""
    with anyio.fail_after(PATIENCE), bound(host) as peer:
        async with AsyncUDPNetworkClient(address_of(peer), protocol, **options) as client:
            peer.connect(client.get_local_address())
            yield client, peer


def deliver(peer: socket.socket, client: Client | AsyncClient, *datagrams: bytes) -> None:
    """Send datagrams, and wait until each of them is in the kernel at the client's end."""
    for datagram in datagrams:
        before = held(client)
        peer.send(datagram)
        wait_until(lambda before=before: held(client) > before)  # type: ignore[misc]  # mypy cannot infer it


def held(client: Client | AsyncClient) -> int:
    """Return how much the kernel holds for a client."""
    if sys.platform == "linux":
        options = client.socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36)
        return int(struct.unpack("9I", options)[0])
    return bool(select.select([client.socket.fileno()], [], [], 0)[0])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0)


def send_unnoticed(client: Client | AsyncClient, data: bytes) -> None:
    """Send a datagram by a client's socket, so that the client does not see what comes of it."""
    with socket.socket(fileno=os.dup(client.socket.fileno())) as sock:
        sock.send(data)


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let the host named "several" have some addresses, ports included."""
    getaddrinfo = socket.getaddrinfo

    def resolve(host: Any, port: Any, **options: Any) -> list[Any]:
        names = addresses if host == "several" else [(host, port)]
        return [info for name in names for info in getaddrinfo(*name, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
