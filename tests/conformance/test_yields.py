"""The yields of a handler in the middle of a packet, and before its client has sent anything."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from easynetwork.servers.handlers import RecvParams
from tests.conformance.support import Client, Echo, Recorder, Requests, Serve

pytestmark = pytest.mark.anyio


async def test_timeout_in_a_packet(serve: Serve) -> None:
    """What has come of a packet before a timeout is kept."""

    class Handler(Echo):
        timeout: Any = 0.01

        def describe(self, exc: Exception) -> str:
            self.timeout = None
            return super().describe(exc)

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send_bytes(b"hel")
        assert await peer.receive() == "TimeoutError: timed out"
        assert await peer.ask("lo") == "hello"


@pytest.mark.parametrize("delay", [0, 0.0, 0.01])
async def test_timeout_of_the_first_yield(serve: Serve, delay: float) -> None:
    """The first yield of a generator may have a timeout, too."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            try:
                yield delay
            except TimeoutError:
                await client.send_packet("timed out")
                await client.aclose()

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.receive() == "timed out"


@pytest.mark.parametrize("wait", [-1, RecvParams(timeout=-1)])
async def test_bad_timeout_of_the_first_yield(serve: Serve, wait: Any) -> None:
    """An invalid timeout is an error before anything is read."""

    class Handler(Echo):
        timeout = wait

        def describe(self, exc: Exception) -> str:
            self.timeout = None
            return super().describe(exc)

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.receive() == "ValueError: Invalid delay: negative value"
        assert await peer.ask("hello") == "hello"


async def test_cancelled_in_a_packet(serve: Serve) -> None:
    """What has come of a packet before a scope around the yield is cancelled is kept."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            with anyio.CancelScope() as self.scope, self.noting_errors():
                self.note("waiting")
                yield
            await client.send_packet((yield))

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_bytes(b"hel")
        await handler.noted("waiting")
        await anyio.wait_all_tasks_blocked()
        handler.scope.cancel()
        await handler.noted("cancelled")
        assert await peer.ask("lo") == "hello"
