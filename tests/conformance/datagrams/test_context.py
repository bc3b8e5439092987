"""Context variables: those of the service are seen by all generators, and no others."""

from __future__ import annotations

import contextvars
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from tests.conformance.datagrams.support import (
    Client,
    Recorder,
    Requests,
    Serve,
    on_ip,
)

pytestmark = pytest.mark.anyio

who: contextvars.ContextVar[Any] = contextvars.ContextVar("who", default="nobody")


@on_ip
@pytest.mark.parametrize("waits", [False, True])
async def test_context_of_a_generator(serve: Serve, waits: bool) -> None:
    """What a generator sets stays with it: neither the peer's next one sees it, nor another's."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            before = who.get()
            who.set("set")
            request = yield
            if request == "hold":
                self.note("held")
                await self.released.wait()
            if waits:
                await anyio.lowlevel.checkpoint()
            await client.send_packet(f"{request} {before} {who.get()}")

    handler = Handler()
    async with serve(handler) as service:
        peers = [service.connect() for _ in range(3)]
        for _ in range(2):
            for peer in peers:
                assert await peer.ask("hello") == "hello nobody set"
        # Many at once, so that their generators follow each other without a pause.
        peers[0].send("hold", *map(str, range(60)))
        await handler.noted("held")
        for peer in peers[1:]:
            peer.send(*map(str, range(30)))
        await service.statistics(received=6 + 1 + 60 + 60)
        handler.released.set()
        assert await peers[0].receive() == "hold nobody set"
        for number in range(60):
            assert await peers[0].receive() == f"{number} nobody set"
        for peer in peers[1:]:
            for number in range(30):
                assert await peer.receive() == f"{number} nobody set"


class Incomparable:
    """What cannot be compared, like an array."""

    __hash__ = None  # type: ignore[assignment] # so it is with what has an __eq__

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")


async def test_value_that_cannot_be_compared(serve: Serve) -> None:
    """Any object may be the value of a context variable."""

    class Handler(Recorder):
        async def service_init(self, exit_stack: AsyncExitStack, server: Any) -> None:
            who.set(Incomparable())

        async def handle(self, client: Client) -> Requests:
            before = who.get()
            who.set(Incomparable())
            if (yield) == "wait":
                await self.released.wait()
            seen.append(before)
            await client.send_packet("fine")

    seen: list[Any] = []
    handler = Handler()
    async with serve(handler) as service:
        peer = service.connect()
        peer.send("wait", "a", "b")
        await service.statistics(received=3)
        handler.released.set()
        for _ in range(3):
            assert await peer.receive() == "fine"
        assert len(set(map(id, seen))) == 1
