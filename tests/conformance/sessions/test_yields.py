"""What a handler may yield, and the timeouts and scopes that it may put around a yield."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import anyio
import pytest
import trio

from easynetwork.servers.handlers import RecvParams
from tests.conformance.sessions.kinds import Handler, Kind, Requests

pytestmark = pytest.mark.anyio


class Waiting(Handler):
    """Echoes some packets, waits for another one in a certain way, and sends the outcome."""

    def __init__(self, wait: Any, position: int = 2) -> None:
        super().__init__()
        self.wait = wait
        self.position = position

    async def handle(self, client: Any) -> Requests:
        for _ in range(self.position - 1):
            await client.send_packet((yield))
        try:
            answer = yield self.wait
        except Exception as exc:
            answer = f"{type(exc).__name__}: {exc}"
        await client.send_packet(answer)


@pytest.mark.parametrize("position", [2, 3])
@pytest.mark.parametrize("delay", [0, 0.0, 0.01, RecvParams(timeout=0.01)])
async def test_timeout(kind: Kind, delay: Any, position: int) -> None:
    """If no packet comes in time, a TimeoutError is raised; the next one is not lost."""
    async with kind.serve(Waiting(delay, position)) as service:
        peer = await kind.connect(service)
        for number in range(position - 1):
            assert await peer.ask(str(number)) == str(number)
        assert await peer.receive() == "TimeoutError: timed out"
        assert await peer.ask("hello") == "hello"


@pytest.mark.parametrize(
    "wait",
    [None, 5, 5.0, float("inf"), RecvParams(), RecvParams(timeout=None), RecvParams(timeout=5)],
)
async def test_patience(kind: Kind, wait: Any) -> None:
    """None waits for ever, a number for that many seconds; `RecvParams` says the same."""
    async with kind.serve(Waiting(wait)) as service:
        peer = await kind.connect(service)
        assert await peer.ask("one") == "one"
        await anyio.wait_all_tasks_blocked()
        assert await peer.ask("two") == "two"


@pytest.mark.parametrize("wait", [0, 5, 5.0, float("inf"), None, RecvParams(timeout=None)])
async def test_no_patience_needed(kind: Kind, wait: Any) -> None:
    """A packet that has arrived is delivered, even if the timeout is 0."""

    class Busy(Handler):
        async def handle(self, client: Any) -> Requests:
            await client.send_packet((yield))
            self.note("taken")
            await self.released.wait()
            for _ in range(2):
                await client.send_packet((yield wait))

    handler = Busy()
    async with kind.serve(handler) as service:
        peer = await kind.connect(service)
        peer.send("one")
        await handler.noted("taken")
        peer.send("two", "three")
        handler.released.set()
        assert [await peer.receive() for _ in range(3)] == ["one", "two", "three"]


BAD_TIMEOUTS: tuple[tuple[Any, str], ...] = (
    (-1, "ValueError: Invalid delay: negative value"),
    (float("-inf"), "ValueError: Invalid delay: negative value"),
    (float("nan"), "ValueError: Invalid delay: NaN (not a number)"),
    ("5", "TypeError: must be real number, not str"),
)


@pytest.mark.parametrize("position", [1, 2])
@pytest.mark.parametrize("wrapped", [False, True])
async def test_bad_timeout(kind: Kind, wrapped: bool, position: int) -> None:
    """An invalid timeout is an error at that yield, the first one too; no packet is lost."""

    class Careless(Handler):
        wait: Any

        async def handle(self, client: Any) -> Requests:
            if position == 2:
                await client.send_packet((yield))
            try:
                yield RecvParams(timeout=self.wait) if wrapped else self.wait
            except Exception as exc:
                await client.send_packet(f"{type(exc).__name__}: {exc}")
            await client.send_packet((yield))

    handler = Careless()
    async with kind.serve(handler) as service:
        for handler.wait, error in BAD_TIMEOUTS:
            peer = await kind.connect(service)
            peer.send("one", "two")
            answers = [await peer.receive() for _ in range(3)]
            assert answers == (["one", error, "two"] if position == 2 else [error, "one", error])


# -- cancellation


def native_timeout(name: str, delay: float) -> Any:
    """Return the framework's own way to limit the time of a block."""
    return asyncio.timeout(delay) if name == "asyncio" else trio.fail_after(delay)


@pytest.mark.parametrize("source", ["framework", "anyio", "backend"])
async def test_timeout_around_yields(kind: Kind, anyio_backend_name: str, source: str) -> None:
    """A handler may put a timeout around its yields."""

    def timeout(client: Any, delay: float) -> Any:
        match source:
            case "framework":
                return native_timeout(anyio_backend_name, delay)
            case "anyio":
                return anyio.fail_after(delay)
        return client.backend().timeout(delay)

    class Limited(Handler):
        async def handle(self, client: Any) -> Requests:
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

    async with kind.serve(Limited()) as service:
        peer = await kind.connect(service)
        for _ in range(2):
            assert await peer.ask("one") == "one"
            assert await peer.ask("two") == "two"
            assert await peer.receive() == "timed out"


async def test_cancel_scope_around_yield(kind: Kind) -> None:
    """A scope around a yield can be cancelled from outside; no packet is lost."""

    class Scoped(Handler):
        async def handle(self, client: Any) -> Requests:
            yield
            with anyio.CancelScope() as self.scope, self.noting_errors():
                self.note("waiting")
                yield
            await client.send_packet((yield))

    handler = Scoped()
    async with kind.serve(handler) as service:
        peer = await kind.connect(service)
        peer.send("one")
        await handler.noted("waiting")
        await anyio.wait_all_tasks_blocked()
        handler.scope.cancel()
        await handler.noted("cancelled")
        assert await peer.ask("two") == "two"


async def test_one_cancelled_scope_after_the_other(kind: Kind) -> None:
    """A yield in a scope that is cancelled already is cancelled, like any other pause."""

    class Polling(Handler):
        async def handle(self, client: Any) -> Requests:
            await client.send_packet((yield))
            for _ in range(3):
                with anyio.CancelScope() as scope, self.noting_errors():
                    scope.cancel()
                    yield
            await client.send_packet((yield))

    handler = Polling()
    async with kind.serve(handler) as service:
        peer = await kind.connect(service)
        assert await peer.ask("one") == "one"
        await handler.noted("cancelled", times=3)
        assert await peer.ask("two") == "two"


@pytest.mark.parametrize("where", ["at the yield", "elsewhere"])
async def test_shutdown_cancels(kind: Kind, where: str) -> None:
    """When the server stops, the handler is cancelled wherever it waits."""

    class Cancelled(Handler):
        async def handle(self, client: Any) -> Requests:
            yield
            self.note("waiting")
            with self.noting_errors():
                if where == "elsewhere":
                    await anyio.sleep_forever()
                yield

    handler = Cancelled()
    async with kind.serve(handler) as service:
        (await kind.connect(service)).send("hello")
        await handler.noted("waiting")
        await service.server.shutdown()
        kind.check_gone(service, handler)
    assert handler.notes[:2] == ["waiting", "cancelled"]
