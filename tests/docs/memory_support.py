"""Servers in memory and in virtual time, for tests of pages: a handler that does what it is asked.

A script is what a client does, step by step: bytes are sent, a number is a pause in seconds, and
the words are those of `Stage._step`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import anyio

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.statistics import CloseReason, StreamStatistics
from easynetwork.testing import serve, virtual_time

LINES: Any = StreamProtocol(StringLineSerializer(encoding="utf-8"))

Script: TypeAlias = tuple[bytes | float | str, ...]


def play(main: Callable[[], Awaitable[Any]], backend: str = "asyncio") -> None:
    """Run a coroutine function in virtual time."""
    anyio.run(main, backend=backend, backend_options=virtual_time(backend))


class Obedient(AsyncStreamRequestHandler[str, str]):
    """Does what a request says; notes why its clients end."""

    def __init__(self) -> None:
        self.refuses = False
        self.clients: list[AsyncStreamClient[str]] = []
        self.reasons: list[CloseReason | None] = []
        self.raised: list[BaseException] = []

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        self.clients.append(client)

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[float | None, str]:
        if self.refuses:
            return
        try:
            request = yield None
        except BaseException as exc:
            self.raised.append(exc)
            raise
        match request.split():
            case ["close"]:
                await client.aclose()
            case ["abort"]:
                client.abort()
            case ["raise"]:
                raise LookupError("planted")
            case ["refuse"]:
                self.refuses = True
            case ["work", seconds]:
                await anyio.sleep(float(seconds))
                await client.send_packet("worked")
            case ["flood", *_]:
                client.try_send_packet("x" * 8_000_000)
                if request.endswith("and close"):
                    await client.aclose()
            case ["patience", seconds]:
                await client.send_packet((yield float(seconds)))
            case _:
                await client.send_packet(request)

    async def on_disconnection(self, client: AsyncStreamClient[str]) -> None:
        self.reasons.append(client.close_reason)


class Stage:
    """A server in memory, and the clients that play scripts on it.

    Args:
        handler: The handler.
        options: Keyword arguments of the server.
    """

    def __init__(self, handler: Any = None, **options: Any) -> None:
        self.handler = handler or Obedient()
        self._options = options
        self.statistics = StreamStatistics()
        self.received = b""

    def play(self, *scripts: Script) -> None:
        """Play scripts one after the other; all clients stay as long as the last one."""
        play(partial(self._play, scripts))

    async def _play(self, scripts: tuple[Script, ...]) -> None:
        async with serve(self.handler, LINES, **self._options) as served:
            for script in scripts:
                connection = await served.connect(raw=True)
                for step in script:
                    await self._step(served, connection, step)
                await anyio.sleep(0.001)
            self.statistics = served.server.get_statistics()

    async def _step(self, served: Any, connection: Any, step: bytes | float | str) -> None:
        match step:
            case bytes(data):
                await connection.send(data)
            case float() | int():
                await anyio.sleep(step)
            case "read":
                self.received += await connection.receive()
            case "close":
                connection.close()
            case "reset":
                connection.reset()
            case "stop":
                await served.server.shutdown()
            case "drain":
                await served.server.shutdown(grace=10)
            case _:
                raise ValueError(step)


async def rest_of(connection: Any) -> bytes:
    """Return what a connection receives until its end."""
    found = b""
    while data := await connection.receive():
        found += data
    return found
