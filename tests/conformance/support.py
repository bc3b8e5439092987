"""What the conformance tests share: handlers that keep notes, a running server, what is logged.

Tests wait for a note, for the log or for a peer's socket, never for time to pass.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import anyio
import pytest

from easynetwork.protocol import StreamProtocol
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)
from tests.conformance.peers import BasePeer, new_peer
from tests.times import PATIENCE

Client: TypeAlias = AsyncStreamClient[str]
Requests: TypeAlias = AsyncGenerator[Any, str]
Server: TypeAlias = AsyncTCPNetworkServer[str, str]

each_family = pytest.mark.parametrize("host", ["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
# How connecting to a server that was closed fails: a Unix socket's path is gone.
REFUSED = (ConnectionRefusedError, FileNotFoundError)
# For tests of what Unix sockets do not have.
on_ip = pytest.mark.parametrize("transport", ["tcp", "tls", "memory"])
# For slow tests of what comes after the protocol.
one_protocol = pytest.mark.parametrize("protocol_class", [StreamProtocol], ids=["chunks"])


class Changes:
    """Lets tasks wait until something that changes now and then is as they want it."""

    def __init__(self) -> None:
        self._next = anyio.Event()

    def announce(self) -> None:
        self._next.set()
        self._next = anyio.Event()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._next.wait()


class Notes:
    """Keeps notes, for which a test can wait."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.released = anyio.Event()  # for methods that wait until the test lets them go on
        self._changes = Changes()

    def note(self, what: str) -> None:
        self.notes.append(what)
        self._changes.announce()

    async def noted(self, what: str, times: int = 1) -> None:
        """Wait until something has been noted that often."""
        await self._changes.wait_for(lambda: self.notes.count(what) >= times)

    @contextlib.contextmanager
    def noting_errors(self) -> Iterator[None]:
        """Note what is raised in the block, and let it through."""
        try:
            yield
        except BaseException as exc:
            self.note(name_of(exc))
            raise


class Recorder(Notes, AsyncStreamRequestHandler[str, str]):
    """Echoes lines, and keeps notes. A test overrides the method that it is about."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []

    def on_connection(self, client: Client) -> Any:
        self.clients.append(client)
        return self.greet(client)

    async def greet(self, client: Client) -> None:
        self.note("on_connection")

    async def handle(self, client: Client) -> Requests:
        self.note("handle")
        with self.noting_errors():
            request = yield
        self.note(request)
        await client.send_packet(request)

    async def on_disconnection(self, client: Client) -> None:
        self.note("on_disconnection")


class Narrow(Recorder):
    """Lets the kernel hold little of what is sent, so that a peer which does not read is felt."""

    async def greet(self, client: Client) -> None:
        sock = client.extra(INETClientAttribute.socket)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await super().greet(client)


class Echo(Recorder):
    """Answers each request, or what is raised instead of one, until the client leaves."""

    timeout: Any = None

    async def handle(self, client: Client) -> Requests:
        while True:
            try:
                answer = yield self.timeout
            except Exception as exc:
                answer = self.describe(exc)
            await client.send_packet(answer)

    def describe(self, exc: Exception) -> str:
        return f"{type(exc).__name__}: {exc}"


def name_of(exc: BaseException) -> str:
    """Return what kind of exception this is, with one name for the cancellations of all loops."""
    return "cancelled" if isinstance(exc, anyio.get_cancelled_exc_class()) else type(exc).__name__


class Service:
    """A server that is up, and the peers that a test connects to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.peers: list[BasePeer] = []

    async def connect(self, receive_buffer: int | None = None) -> BasePeer:
        """Return a new peer; it is closed with the service at the latest."""
        peer = new_peer(self.server, receive_buffer=receive_buffer)
        self.peers.append(peer)
        await peer.start()
        return peer

    def close(self) -> None:
        for peer in self.peers:
            peer.close()


Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[Service]]
NewServer: TypeAlias = Callable[..., Server]


@contextlib.asynccontextmanager
async def serving(server: Any, new_service: Callable[[Any], Any] = Service) -> AsyncIterator[Any]:
    """Serve while the block runs; then the peers leave and the server is shut down."""
    with anyio.fail_after(PATIENCE):
        async with server, restarting(server):
            with contextlib.closing(new_service(server)) as service:
                yield service


@contextlib.asynccontextmanager
async def restarting(server: Any) -> AsyncIterator[None]:
    """Serve once more while the block runs."""
    async with anyio.create_task_group() as tasks:
        is_up = anyio.Event()
        tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        yield
        await server.shutdown()


class Records(logging.Handler):
    """What was logged, by anybody; from INFO on for the servers, from WARNING on for others."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self._changes = Changes()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._changes.announce()

    async def logged(self, text: str, minimum: int = logging.INFO) -> None:
        """Wait until a message contains a text."""
        await self._changes.wait_for(lambda: any(text in line for line in self.messages(minimum)))

    async def logged_often(self, count: int, minimum: int = logging.WARNING) -> None:
        """Wait until there are so many messages."""
        await self._changes.wait_for(lambda: len(self.messages(minimum)) >= count)

    def messages(self, minimum: int = logging.INFO) -> list[str]:
        """Return what the library said, in order."""
        return [
            record.getMessage()
            for record in self.records
            if record.levelno >= minimum and record.name.startswith("easynetwork")
        ]

    def problems(self) -> list[tuple[str, str, BaseException | None]]:
        """Return level, text and exception of all warnings and errors, and forget them."""
        found = [record for record in self.records if record.levelno >= logging.WARNING]
        self.records = [record for record in self.records if record not in found]
        return [
            (record.levelname, record.getMessage(), record.exc_info[1] if record.exc_info else None)
            for record in found
        ]
