"""The boundary of one client: whatever its handler does, the others do not notice."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from tests import misbehaviours
from tests.conformance.support import Client, Recorder, Records, Requests, Serve, one_protocol
from tests.misbehaviours import MISBEHAVIOURS, runs_on

pytestmark = [
    pytest.mark.anyio,
    # Generators and task groups that a handler leaves open speak up when they are collected.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

# Where a handler misbehaves. "leaving" is in the clean-up at a yield, when its peer leaves.
STEPS = ("on_connection", "greeting", "first step", "handle", "leaving", "on_disconnection")


class Misbehaving(Recorder):
    """Does something wrong for clients that ask for it, and serves the others."""

    def __init__(self, name: str, step: str) -> None:
        super().__init__()
        self.misbehave = MISBEHAVIOURS[name]
        self.step = step
        self.good: set[Any] = set()

    async def at(self, step: str, client: Client) -> None:
        if step == self.step and client not in self.good:
            await self.misbehave()

    def on_connection(self, client: Client) -> Any:
        if not self.clients:
            self.good.add(client)  # the bystander comes first
        self.clients.append(client)
        return self.ask(client) if self.step == "greeting" else self.greet(client)

    async def greet(self, client: Client) -> None:
        await self.at("on_connection", client)

    async def ask(self, client: Client) -> Requests:
        await client.send_packet((yield))
        await self.at("greeting", client)

    async def handle(self, client: Client) -> Requests:
        await self.at("first step", client)
        try:
            request = yield
        except GeneratorExit:
            await self.at("leaving", client)
            raise
        if request == "good":
            self.good.add(client)
        elif request == "bad":
            await self.at("handle", client)
        await client.send_packet(request)
        # The conversation goes on at another yield, in the same generator.
        await client.send_packet((yield))

    async def on_disconnection(self, client: Client) -> None:
        await self.at("on_disconnection", client)


@pytest.fixture
def asyncio_is_silent() -> Iterator[None]:
    """Leave out what asyncio and trio log of generators that they find unclosed."""
    loggers = [logging.getLogger(name) for name in ("asyncio", "trio")]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    yield
    for logger in loggers:
        logger.setLevel(logging.NOTSET)
    with contextlib.suppress(BaseException):
        gc.collect()


def expected_reports(name: str, step: str) -> set[int]:
    """Return how many reports are right."""
    if step == "leaving" and name in ("GeneratorExit", "group of GeneratorExit"):
        return {0}  # the generator was being closed: an ordinary disconnection
    if name in ("cancel_oneself_later", "leave_an_asyncio_timeout_open"):
        return {0, 1}  # if the client leaves before it would have been cancelled
    return {1}


@one_protocol
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", MISBEHAVIOURS)
async def test_misbehaviour(
    serve: Serve,
    log: Records,
    anyio_backend_name: str,
    asyncio_is_silent: None,
    name: str,
    step: str,
) -> None:
    """It ends that client and is reported once; a bystander notices nothing."""
    if not runs_on(name, anyio_backend_name):
        return
    handler = Misbehaving(name, step)
    async with serve(handler) as service:
        bystander = await service.connect()
        if step == "greeting":
            assert await bystander.ask("hello") == "hello"
        assert await bystander.ask("good") == "good"  # it is in the middle of a conversation

        peer = await service.connect()
        with contextlib.suppress(OSError):
            peer.send("bad")
            if step in ("leaving", "on_disconnection"):
                await peer.receive()
                peer.send("more")
                await peer.receive()
            peer.send("worse", "worst")
            peer.send_eof()
        await log.logged(f"{peer.name} disconnected")
        await anyio.wait_all_tasks_blocked()

        assert await bystander.ask("how are you") == "how are you"
        newcomer = await service.connect()
        assert (
            await newcomer.ask("good" if step != "first step" else "x")
            if step not in ("on_connection", "first step")
            else True
        )
        assert service.server.is_serving()
        with anyio.fail_after(3):
            await service.server.shutdown()
        await misbehaviours.clean_up()
    reports = [problem for problem in log.problems() if problem[0] in ("ERROR", "WARNING")]
    mine = [report for report in reports if peer.name in report[1]]
    assert len(mine) in expected_reports(name, step), [str(exc) for *_, exc in mine]
