"""What the tests of the asynchronous TCP client share: its other end, a plain blocking socket.

What a peer does at once is done in the event loop's thread; where it may have to wait, a worker
thread does it. Tests wait for states, never for time to pass.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import pytest

from easynetwork.addresses import enable_socket_linger
from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.line import StringLineSerializer
from tests.times import PATIENCE
from tests.tools import until as until

Client: TypeAlias = AsyncTCPNetworkClient[str, str]
Resolve: TypeAlias = Callable[..., None]

LINES: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(limit=1 << 25))

each_family = pytest.mark.parametrize("host", ["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
each_protocol = pytest.mark.parametrize(
    "protocol_class", [StreamProtocol, BufferedStreamProtocol], ids=["chunks", "buffer"]
)


class Accepted:
    """The other end of a client's connection, as a server gets it, without the library.

    Attributes:
        socket: A blocking socket.
        address: The client's.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.socket, self.address = listener.accept()
        self.socket.settimeout(PATIENCE)
        self._received = bytearray()

    def send(self, *lines: str) -> None:
        """Send lines in one piece. They fit into the kernel's buffers."""
        self.send_bytes("".join(f"{line}\n" for line in lines).encode())

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    async def send_much(self, data: bytes) -> None:
        """Send more than the kernel holds."""
        await anyio.to_thread.run_sync(self.socket.sendall, data)

    async def receive(self) -> str:
        """Return the next line."""
        return await anyio.to_thread.run_sync(self._read_line)

    def _read_line(self) -> str:
        while b"\n" not in self._received:
            data = self.socket.recv(1 << 18)
            assert data, f"the end, behind {bytes(self._received)!r}"
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    async def ask(self, *lines: str) -> str:
        """Send lines and return the next line of the answer."""
        self.send(*lines)
        return await self.receive()

    async def rest(self) -> tuple[str, str]:
        """Return all that still arrives, and how that ends: "EOF" or "reset"."""
        return await anyio.to_thread.run_sync(self._read_rest)

    def _read_rest(self) -> tuple[str, str]:
        end = "EOF"
        try:
            while data := self.socket.recv(1 << 18):
                self._received += data
        except ConnectionResetError:
            end = "reset"
        return self._received.decode(), end

    def send_eof(self) -> None:
        """Send nothing more, but go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Leave rudely."""
        enable_socket_linger(self.socket, 0)
        self.socket.close()


def listening(host: str = "127.0.0.1", port: int = 0, **options: Any) -> socket.socket:
    """Return a socket that listens. Who connects is served by the kernel."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, **options)
    listener.settimeout(PATIENCE)
    return listener


@contextlib.contextmanager
def refusing(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """Yield a socket that nobody can connect to, until it is told to `listen()`."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.settimeout(PATIENCE)
        sock.bind((host, 0))
        yield sock


@contextlib.contextmanager
def silent() -> Iterator[socket.socket]:
    """Yield a listening socket that answers nobody: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(backlog=0))
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener


def address_of(sock: socket.socket) -> tuple[str, int]:
    """Return where a socket is bound: host and port."""
    host, port = sock.getsockname()[:2]
    return host, port


def is_waiting(listener: socket.socket) -> bool:
    """Return whether somebody has connected and waits to be accepted."""
    return bool(select.select([listener], [], [], 0)[0])


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let the host named "several" have some addresses, ports included."""
    getaddrinfo = socket.getaddrinfo

    def resolve(host: Any, port: Any, **options: Any) -> list[Any]:
        names = addresses if host == "several" else [(host, port)]
        return [info for name in names for info in getaddrinfo(*name, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@contextlib.asynccontextmanager
async def connected(
    protocol: Any = LINES, *, host: str = "127.0.0.1", narrow: bool = False, **options: Any
) -> AsyncIterator[tuple[Client, Accepted]]:
    """Yield a client and its peer; close both in the end. All that must not take for ever.

    Args:
        protocol: The protocol object.
        host: Where the peer listens.
        narrow: Whether the kernel keeps little between them, some 100 KB.
        **options: Arguments of the client.
    """
    with anyio.fail_after(PATIENCE), listening(host) as listener:
        if narrow:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with AsyncTCPNetworkClient(address_of(listener), protocol, **options) as client:
            if narrow:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            with contextlib.closing(Accepted(listener)) as peer:
                yield client, peer


def deliver(data: bytes, peer: Accepted, client: Client) -> None:
    """Send bytes, and wait until they are in the kernel at the client's end.

    The event loop does not get a turn meanwhile.
    """
    peer.send_bytes(data)
    while len(held_by_the_kernel(client, len(data))) < len(data):
        select.select([client.socket.fileno()], [], [], PATIENCE)


async def hand_over(data: bytes, peer: Accepted, client: Client) -> None:
    """Send bytes, and wait until the client has taken them from the kernel."""
    deliver(data, peer, client)
    await until(lambda: not held_by_the_kernel(client))


def held_by_the_kernel(client: Client, size: int = 1) -> bytes:
    """Return the next bytes that a client's socket has received, without taking them."""
    with socket.socket(fileno=os.dup(client.socket.fileno())) as sock:
        sock.setblocking(False)
        try:
            return sock.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            return b""


async def outcome(operation: Callable[[], Any]) -> Any:
    """Return what a coroutine function returns, or the exception that it raises."""
    try:
        return await operation()
    except Exception as exc:
        return exc


class Outcomes:
    """What operations that run as tasks of a group came to, in the order in which they ended."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    async def of(self, operation: Callable[[], Any]) -> None:
        self.all.append(await outcome(operation))

    def types(self) -> list[type]:
        return [type(each) for each in self.all]
