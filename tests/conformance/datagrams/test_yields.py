"""What a handler may yield, and the time limits and scopes that it may put around a yield."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from easynetwork.servers.handlers import RecvParams
from tests.conformance.datagrams.support import Client, Recorder, Requests, Serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("delay", [0, 0.0, 0.001, RecvParams(timeout=0)])
async def test_first_yield(serve: Serve, delay: Any) -> None:
    """The first yield never has to wait: what it asks for started the generator."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            await anyio.sleep(0.005)
            await client.send_packet((yield delay))

    async with serve(Handler()) as service:
        assert await service.connect().ask("hello") == "hello"


# -- cancellation


async def test_cancelled_when_a_datagram_comes(serve: Serve) -> None:
    """A datagram that comes in the same moment as a cancellation is there at the next yield."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            request = None
            with anyio.CancelScope() as self.scope:
                self.note("waiting")
                request = yield
            if request is None:
                request = yield
            await client.send_packet(request)

    handler = Handler()
    async with serve(handler) as service:
        for number in range(1, 10):
            peer = service.connect()
            peer.send("one")
            await handler.noted("waiting", number)
            await anyio.wait_all_tasks_blocked()
            peer.send("two")
            if number % 2:
                await service.statistics(received=2 * number)
            handler.scope.cancel()
            assert await peer.receive() == "two"
