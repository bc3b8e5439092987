"""What a handler may yield, and the time limits and scopes that it may put around a yield."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import anyio
import pytest
import trio

from easynetwork.servers.handlers import RecvParams
from tests.conformance.datagrams.support import Client, Recorder, Requests, Serve

pytestmark = pytest.mark.anyio


class Waiting(Recorder):
    """Takes a datagram, then waits for others in a certain way, and says what came of it."""

    def __init__(self, wait: Any, position: int = 2) -> None:
        super().__init__()
        self.wait = wait
        self.position = position

    async def handle(self, client: Client) -> Requests:
        self.note("handle")
        for _ in range(self.position - 1):
            await client.send_packet((yield))
        try:
            answer = yield self.wait
        except Exception as exc:
            answer = f"{type(exc).__name__}: {exc}"
        await client.send_packet(answer)


@pytest.mark.parametrize("position", [2, 3])
@pytest.mark.parametrize("delay", [0, 0.0, 0.01, RecvParams(timeout=0.01)])
async def test_time_out(serve: Serve, delay: Any, position: int) -> None:
    """If no datagram comes in time, that is a TimeoutError; the generator may go on."""
    async with serve(Waiting(delay, position)) as service:
        peer = service.connect()
        for number in range(position - 1):
            assert await peer.ask(str(number)) == str(number)
        assert await peer.receive() == "TimeoutError: timed out"
        await service.statistics(peers=0)
        assert await peer.ask("hello") == "hello"


@pytest.mark.parametrize("delay", [0, 0.0, 0.001, RecvParams(timeout=0)])
async def test_first_yield(serve: Serve, delay: Any) -> None:
    """The first yield never has to wait: what it asks for started the generator."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            await anyio.sleep(0.005)
            await client.send_packet((yield delay))

    async with serve(Handler()) as service:
        assert await service.connect().ask("hello") == "hello"


@pytest.mark.parametrize("wait", [0, 5, 5.0, float("inf"), None, RecvParams(timeout=None)])
async def test_no_patience_needed(serve: Serve, wait: Any) -> None:
    """What has arrived is delivered, even if the timeout is 0."""

    class Handler(Waiting):
        async def handle(self, client: Client) -> Requests:
            async with contextlib.aclosing(super().handle(client)) as generator:
                yielded = await anext(generator)
                while True:
                    request = yield yielded
                    self.note("taken")
                    await self.released.wait()
                    try:
                        yielded = await generator.asend(request)
                    except StopAsyncIteration:
                        return

    handler = Handler(wait)
    async with serve(handler) as service:
        peer = service.connect()
        peer.send("one", "two")
        await handler.noted("taken")
        await service.statistics(waiting=1)
        handler.released.set()
        assert [await peer.receive() for _ in range(2)] == ["one", "two"]


@pytest.mark.parametrize("wait", [5, 5.0, float("inf"), RecvParams(timeout=5)])
async def test_patience(serve: Serve, wait: Any) -> None:
    """A datagram that comes in time is delivered."""
    async with serve(Waiting(wait)) as service:
        peer = service.connect()
        assert await peer.ask("one") == "one"
        await anyio.wait_all_tasks_blocked()
        assert await peer.ask("two") == "two"


@pytest.mark.parametrize("position", [1, 2])
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
async def test_bad_timeout(
    serve: Serve, wait: Any, error: str, wrapped: bool, position: int
) -> None:
    """What is no timeout is an error at that yield, the first one too; the datagram waits on."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            if position == 2:
                await client.send_packet((yield))
            try:
                yield RecvParams(timeout=wait) if wrapped else wait
            except Exception as exc:
                await client.send_packet(f"{type(exc).__name__}: {exc}")
            await client.send_packet((yield))

    async with serve(Handler()) as service:
        peer = service.connect()
        peer.send("one", "two")
        answers = [await peer.receive() for _ in range(3)]
        assert answers == (["one", error, "two"] if position == 2 else [error, "one", error])


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
        peer = service.connect()
        for _ in range(2):
            assert await peer.ask("one") == "one"
            assert await peer.ask("two") == "two"
            assert await peer.receive() == "timed out"


async def test_cancel_scope_around_yield(serve: Serve) -> None:
    """A scope around a yield can be cancelled from outside; what arrives then is not lost."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            with anyio.CancelScope() as self.scope, self.noting_errors():
                self.note("waiting")
                yield
            await client.send_packet((yield))

    handler = Handler()
    async with serve(handler) as service:
        peer = service.connect()
        peer.send("one")
        await handler.noted("waiting")
        await anyio.wait_all_tasks_blocked()
        handler.scope.cancel()
        await handler.noted("cancelled")
        assert await peer.ask("two") == "two"


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
