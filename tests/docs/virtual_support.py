"""What the tests of pages share that run in memory and in virtual time."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import anyio
import pytest

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.serializers.abc import AbstractIncrementalPacketSerializer
from easynetwork.servers.handlers import AsyncStreamClient
from easynetwork.testing import RawConnection, serve, virtual_time

LINES: Any = StreamProtocol(StringLineSerializer(limit=1 << 20))

Client = AsyncStreamClient[str]


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a coroutine test in virtual time, and only once: no event loop makes a difference."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        anyio.run(functools.partial(test, **arguments), backend_options=virtual_time())

    return run


def serve_for(seconds: float, handler: Any, protocol: Any, backend: str) -> None:
    """Serve a handler without clients, in virtual time."""

    async def main() -> None:
        async with serve(handler, protocol):
            await anyio.sleep(seconds)

    anyio.run(main, backend=backend, backend_options=virtual_time(backend))


def check_interval(
    examples: Any, protocol: Any, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Check that the services of a page report once a minute, those of one backend and of both."""
    variants = {
        "asyncio": examples.ServiceInitializationHookRequestHandlerAsyncIO,
        "trio": examples.ServiceInitializationHookRequestHandlerTrio,
    }
    for variant in (
        variants[backend],
        examples.ServiceInitializationHookRequestHandlerWithServerBackend,
    ):
        serve_for(179, variant(), protocol, backend)
        assert capsys.readouterr().out == "Requests so far: 0\n" * 3 + "Service stopped\n"


async def ending(connection: RawConnection) -> str:
    """Return how a connection ends, after what still arrives."""
    rest = b""
    try:
        while data := await connection.receive():
            rest += data
    except ConnectionResetError:
        return "reset"
    return f"end after {rest!r}" if rest else "end"


class FragileSerializer(AbstractIncrementalPacketSerializer[bytes, bytes]):
    """Fails in the middle of a packet, where no framing knows where the next one begins."""

    __slots__ = ()

    def incremental_serialize(self, packet: bytes) -> Generator[bytes]:
        yield packet

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[bytes, bytes]]:
        data = yield
        if data.startswith(b"trap"):
            raise ZeroDivisionError("a bug")
        return data, b""
