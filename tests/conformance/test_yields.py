"""What a handler may yield, and the time limits and scopes that it may put around a yield."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import anyio
import pytest
import trio

from easynetwork.servers.handlers import RecvParams
from tests.conformance.support import Client, Echo, Recorder, Requests, Serve

pytestmark = pytest.mark.anyio


async def test_time_out(serve: Serve) -> None:
    """A timeout that has expired is a TimeoutError; what has come of a packet is kept."""

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


@pytest.mark.parametrize("position", [1, 2])
@pytest.mark.parametrize("delay", [0, 0.0, 0.01])
async def test_time_out_at_each_yield(serve: Serve, delay: float, position: int) -> None:
    """The first yield of a generator may have a timeout, and each other one."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            if position == 2:
                await client.send_packet((yield))
            try:
                yield delay
            except TimeoutError:
                await client.send_packet("timed out")
                await client.aclose()

    async with serve(Handler()) as service:
        peer = await service.connect()
        if position == 2:
            assert await peer.ask("hello") == "hello"
        assert await peer.receive() == "timed out"


@pytest.mark.parametrize(
    "wait",
    [None, 5, 5.0, float("inf"), RecvParams(), RecvParams(timeout=None), RecvParams(timeout=5)],
)
async def test_patience(serve: Serve, wait: Any) -> None:
    """None waits for ever, a number for that many seconds; `RecvParams` says the same."""

    class Handler(Echo):
        timeout = wait

    async with serve(Handler()) as service:
        peer = await service.connect()
        await anyio.wait_all_tasks_blocked()
        assert await peer.ask("hello") == "hello"


async def test_no_patience_needed(serve: Serve) -> None:
    """What has arrived is delivered, even if the timeout is 0."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            await client.send_packet((yield))
            self.note("first")
            await self.released.wait()
            for _ in range(2):
                await client.send_packet((yield 0))

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("one") == "one"
        await handler.noted("first")
        peer.send("two", "three")
        handler.released.set()
        assert await peer.receive() == "two"
        assert await peer.receive() == "three"


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("wait", "error"),
    [
        (-1, "ValueError: Invalid delay: negative value"),
        (float("-inf"), "ValueError: Invalid delay: negative value"),
        (float("nan"), "ValueError: Invalid delay: NaN (not a number)"),
        ("5", "TypeError: must be real number, not str"),
    ],
)
async def test_bad_timeout(serve: Serve, wait: Any, error: str, wrapped: bool) -> None:
    """What is no timeout is an error at that yield, before anything is read."""

    class Handler(Echo):
        timeout = RecvParams(timeout=wait) if wrapped else wait

        def describe(self, exc: Exception) -> str:
            self.timeout = None
            return super().describe(exc)

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.receive() == error
        assert await peer.ask("hello") == "hello"


# -- cancellation


def native_timeout(name: str, delay: float) -> Any:
    """Return the framework's own way to limit the time of a block."""
    return asyncio.timeout(delay) if name == "asyncio" else trio.fail_after(delay)


@pytest.mark.parametrize("source", ["framework", "anyio", "backend"])
async def test_timeout_around_yields(serve: Serve, anyio_backend_name: str, source: str) -> None:
    """A handler may put a time limit around its yields."""

    def timeout(client: Client, delay: float) -> Any:
        match source:
            case "framework":
                return native_timeout(anyio_backend_name, delay)
            case "anyio":
                return anyio.fail_after(delay)
        return client.backend().timeout(delay)

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            async with contextlib.AsyncExitStack() as stack:
                block = timeout(client, 5)
                # asyncio's are asynchronous context managers, the others are not.
                if hasattr(block, "__aenter__"):
                    await stack.enter_async_context(block)
                else:
                    stack.enter_context(block)
                for _ in range(2):
                    await client.send_packet((yield))
            try:
                if hasattr(block := timeout(client, 0.01), "__aenter__"):
                    async with block:
                        yield
                else:
                    with block:
                        yield
            except (TimeoutError, trio.TooSlowError):
                await client.send_packet("timed out")

    async with serve(Handler()) as service:
        peer = await service.connect()
        for _ in range(2):
            assert await peer.ask("one") == "one"
            assert await peer.ask("two") == "two"
            assert await peer.receive() == "timed out"


async def test_cancel_scope_around_yield(serve: Serve) -> None:
    """A scope around a yield can be cancelled from outside; what has arrived is not lost."""

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


@pytest.mark.parametrize("where", ["at the yield", "elsewhere"])
async def test_shutdown_cancels(serve: Serve, where: str) -> None:
    """When the server stops, the handler is cancelled wherever it waits."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("waiting")
            with self.noting_errors():
                if where == "elsewhere":
                    await anyio.sleep_forever()
                yield

    handler = Handler()
    async with serve(handler) as service:
        await service.connect()
        await handler.noted("waiting")
        await service.server.shutdown()
    assert handler.notes == ["on_connection", "waiting", "cancelled", "on_disconnection"]
