"""Handlers that do not go when they are told to: they cost their client, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import traceback

import anyio
import pytest

from tests.conformance.support import Client, Recorder, Records, Requests, Serve

pytestmark = pytest.mark.anyio

# The interpreter says so when it collects a generator that has ignored GeneratorExit.
wicked = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def assert_ignored_exit(log: Records) -> None:
    """Check that the one problem in the log is a generator that ignored GeneratorExit."""
    [(level, _, exc)] = log.problems()
    assert level == "ERROR"
    assert isinstance(exc, RuntimeError)
    assert str(exc) == "async generator ignored GeneratorExit"
    traceback.clear_frames(exc.__traceback__)  # so that the generator is collected now
    gc.collect()


@wicked
async def test_generator_that_will_not_go(serve: Serve, log: Records) -> None:
    """A handler that answers GeneratorExit with a yield has crashed."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            try:
                yield
            except GeneratorExit:
                yield

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        peer.send_eof()
        assert await peer.rest() == ("", "reset")
        assert_ignored_exit(log)
    assert handler.notes == ["on_connection", "on_disconnection"]


class Stubborn(Recorder):
    """Swallows errors and goes on, at the yield or elsewhere."""

    def __init__(self, swallowed: type[BaseException], where: str) -> None:
        super().__init__()
        self.swallowed = swallowed
        self.where = where

    async def handle(self, client: Client) -> Requests:
        self.note("waiting")
        if self.where == "elsewhere":
            with contextlib.suppress(self.swallowed):
                await anyio.sleep_forever()
        while True:
            with contextlib.suppress(self.swallowed):
                yield


@pytest.mark.parametrize("where", ["at the yield", "elsewhere"])
async def test_generator_that_swallows_its_cancellation(serve: Serve, where: str) -> None:
    """A handler that goes on when it is cancelled cannot keep the server from stopping."""
    handler = Stubborn(anyio.get_cancelled_exc_class(), where)
    async with serve(handler) as service:
        (await service.connect()).send("hello")
        await handler.noted("waiting")
        await service.server.shutdown()
        assert service.server.is_listening()
        assert handler.notes[-1] == "on_disconnection"


@wicked
@pytest.mark.parametrize("where", ["at the yield", "elsewhere"])
async def test_generator_that_swallows_everything(serve: Serve, log: Records, where: str) -> None:
    """Nor can one that swallows GeneratorExit as well."""
    handler = Stubborn(BaseException, where)
    async with serve(handler) as service:
        (await service.connect()).send("hello")
        await handler.noted("waiting")
        await service.server.shutdown()
        assert handler.notes[-1] == "on_disconnection"
        assert_ignored_exit(log)


@pytest.mark.parametrize("victim", ["another task", "the client's task"])
async def test_foreign_cancellation(
    serve: Serve, log: Records, anyio_backend_name: str, victim: str
) -> None:
    """On asyncio, a handler that lets out a cancellation by who knows whom has crashed, no more."""
    if anyio_backend_name == "trio":
        pytest.skip("trio's cancellations do not leave their scope")

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            if (yield) == "suffer":
                task = asyncio.current_task()
                if victim == "another task":
                    task = asyncio.create_task(asyncio.sleep(60))
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)
                await (task if victim == "another task" else asyncio.sleep(60))
            await client.send_packet("fine")

        async def on_disconnection(self, client: Client) -> None:
            await asyncio.sleep(0)
            await super().on_disconnection(client)

    handler = Handler()
    async with serve(handler) as service:
        peer, other = await service.connect(), await service.connect()
        peer.send("suffer")
        assert await peer.rest() == ("", "reset")
        assert handler.notes[-1] == "on_disconnection"
        assert await other.ask("hello") == "fine"
        assert service.server.is_serving()
        [(level, _, exc)] = log.problems()
        assert level == "ERROR"
        assert exc is not None
        assert isinstance(exc.__cause__, asyncio.CancelledError)
