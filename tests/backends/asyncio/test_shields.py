"""The shields of `AsyncBackend` under asyncio's own cancellations."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from easynetwork.backends import AsyncBackend, ensure_backend
from tests.conftest import BACKENDS
from tests.times import SOON

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[param for param in BACKENDS if "asyncio" in str(param)])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture
async def backend(anyio_backend: object) -> AsyncBackend:
    return ensure_backend(None)


class Work:
    """Something that must be finished, in a coroutine or in a thread.

    It begins, waits until it may go on, and is finished.
    """

    def __init__(self, backend: AsyncBackend, where: str) -> None:
        self.backend = backend
        self.where = where
        self.error: Exception | None = None
        self.is_finished = False
        self._begun = threading.Event()
        self._may_go_on = threading.Event()
        self._loop_begun = asyncio.Event()
        self._loop_may_go_on = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def run(self) -> Awaitable[str]:
        """Return the shield around the work."""
        if self.where == "thread":
            return self.backend.run_in_thread(self._block)
        return self.backend.ignore_cancellation(self._wait())

    async def begun(self) -> None:
        await self._loop_begun.wait()

    def go_on(self) -> None:
        self._loop_may_go_on.set()
        self._may_go_on.set()

    def _block(self) -> str:
        self._loop.call_soon_threadsafe(self._loop_begun.set)
        self._may_go_on.wait(10)
        return self._finish()

    async def _wait(self) -> str:
        self._loop_begun.set()
        await self._loop_may_go_on.wait()
        return self._finish()

    def _finish(self) -> str:
        self.is_finished = True
        if self.error is not None:
            raise self.error
        return "done"


@pytest.fixture(params=["coroutine", "thread"])
async def work(request: pytest.FixtureRequest, backend: AsyncBackend) -> Work:
    return Work(backend, request.param)


@contextlib.asynccontextmanager
async def expiring_in(work: Work) -> AsyncIterator[None]:
    """Let an asyncio.timeout() around some work expire when that has begun, and finish it later."""

    async def expire() -> None:
        await work.begun()
        timeout.reschedule(asyncio.get_running_loop().time())
        await asyncio.sleep(SOON)
        work.go_on()

    async with asyncio.timeout(None) as timeout:
        expiring = asyncio.create_task(expire())
        yield
    await expiring


async def turns(count: int = 5) -> None:
    """Let other tasks run for a while."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_result(work: Work) -> None:
    """Without a cancellation, there is a result, or an exception."""
    work.go_on()
    assert await work.run() == "done"
    work.error = LookupError("oops")
    with pytest.raises(LookupError, match="oops"):
        await work.run()


async def test_timeout(work: Work) -> None:
    """A block of asyncio.timeout() lasts until the work is over, and then raises TimeoutError."""
    with pytest.raises(TimeoutError):
        async with expiring_in(work):
            await work.run()
    assert work.is_finished
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await turns()


@pytest.mark.parametrize("times", [1, 3])
async def test_cancel(work: Work, times: int) -> None:
    """A task that is cancelled, once or more, ends cancelled, after the work."""
    passed = []

    async def run() -> None:
        try:
            await work.run()
        finally:
            passed.append(work.is_finished)

    task = asyncio.create_task(run())
    await work.begun()
    for _ in range(times):
        task.cancel("please")
        await turns()
        assert not task.done()
    work.go_on()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert passed == [True]
    assert task.cancelling() == times


async def test_cancelled_before(backend: AsyncBackend) -> None:
    """A request that is older than the work does not keep a coroutine from being finished."""
    work = Work(backend, "coroutine")
    work.go_on()

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await work.run()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(run())
    assert work.is_finished


async def test_no_thread_is_free(backend: AsyncBackend) -> None:
    """A function that has not begun when its task is cancelled never does."""
    limiter = anyio.to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    try:
        first, second = Work(backend, "thread"), Work(backend, "thread")
        running, waiting = (asyncio.create_task(_awaited(work)) for work in (first, second))
        await first.begun()
        await turns()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.go_on()
        second.go_on()
        assert await running == "done"
        assert not second.is_finished
    finally:
        limiter.total_tokens = before


async def _awaited(work: Work) -> str:
    return await work.run()


async def test_error_and_timeout(work: Work) -> None:
    """The work's own exception is raised. It ends the block, and with it the request."""
    work.error = LookupError("oops")
    with pytest.raises(LookupError, match="oops"):
        async with expiring_in(work):
            await work.run()
    await turns()


async def test_error_and_cancel(work: Work) -> None:
    """The work's own exception is raised, the cancellation comes at the next pause."""
    work.error = LookupError("oops")
    passed: list[Any] = []

    async def run() -> None:
        try:
            async with asyncio.timeout(100):
                await work.run()
        except LookupError as exc:
            passed.append(exc)
        await asyncio.sleep(10)
        passed.append("not cancelled")

    task = asyncio.create_task(run())
    await work.begun()
    task.cancel("please")
    await turns()
    work.go_on()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert passed == [work.error]
    assert task.cancelling() == 1


async def test_cancel_scope(work: Work) -> None:
    """A cancel scope's cancellation comes at the next pause; the result is not lost."""
    results: list[str] = []

    async def run() -> None:
        with scope:
            results.append(await work.run())
            await asyncio.sleep(10)

    scope = anyio.CancelScope()
    task = asyncio.create_task(run())
    await work.begun()
    scope.cancel()
    await turns()
    work.go_on()
    await task
    assert results == ["done"]
    assert scope.cancelled_caught


async def test_both_kinds(work: Work) -> None:
    """A cancel scope and asyncio's own cancellation at once: the task ends cancelled."""
    scope = anyio.CancelScope()

    async def run() -> None:
        with scope:
            await work.run()

    task = asyncio.create_task(run())
    await work.begun()
    scope.cancel()
    task.cancel()
    await turns()
    work.go_on()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.is_finished


async def test_timeout_inside(backend: AsyncBackend) -> None:
    """Timeouts of the work itself hold."""

    async def wait(timeout: Callable[[], Any]) -> str:
        try:
            async with timeout():
                await asyncio.sleep(10)
        except TimeoutError:
            return "timed out"
        return "not timed out"

    assert await backend.ignore_cancellation(wait(lambda: asyncio.timeout(0.01))) == "timed out"


async def test_awaitable(backend: AsyncBackend) -> None:
    """What is awaited may be a future, or anything else that can be."""
    future = asyncio.get_running_loop().create_future()
    future.set_result(3)
    assert await backend.ignore_cancellation(future) == 3


VARIABLE = contextvars.ContextVar("VARIABLE", default="default")


async def test_context(backend: AsyncBackend) -> None:
    """The work sees the task's context variables, and what it sets is seen afterwards."""

    async def change() -> str:
        before = VARIABLE.get()
        VARIABLE.set("changed")
        return before

    VARIABLE.set("mine")
    assert await backend.ignore_cancellation(change()) == "mine"
    assert VARIABLE.get() == "changed"


async def test_check_cancelled(backend: AsyncBackend) -> None:
    """A thread can ask whether its task's cancel scope was cancelled."""
    scope = anyio.CancelScope()
    noticed = threading.Event()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def block() -> None:
        loop.call_soon_threadsafe(begun.set)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                anyio.from_thread.check_cancelled()
            except asyncio.CancelledError:
                noticed.set()
                return

    async def run() -> None:
        with scope:
            await backend.run_in_thread(block)

    task = asyncio.create_task(run())
    await begun.wait()
    scope.cancel()
    await task
    assert noticed.is_set()


async def test_yield(backend: AsyncBackend) -> None:
    """A pause that cannot be cancelled passes the cancellation on to the next one."""
    passed = []

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("please")
        await backend.cancel_shielded_coro_yield()
        passed.append("shielded")
        await backend.coro_yield()
        passed.append("not shielded")

    task = asyncio.create_task(run())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert passed == ["shielded"]
    assert task.cancelling() == 1


async def test_yield_in_timeout(backend: AsyncBackend) -> None:
    """A block that ends with such a pause has ended in time; no request is left behind."""
    async with asyncio.timeout(0):
        await backend.cancel_shielded_coro_yield()
    await turns()


class ReferableError(Exception):
    """One of Python's own classes cannot be referred to weakly."""


async def test_no_cycles(backend: AsyncBackend) -> None:
    """An exception is gone as soon as the caller has dealt with it."""
    if asyncio.get_running_loop().get_task_factory() is not None:
        pytest.skip("a frame of asyncio's refers to an eager task that has failed (as of 3.13)")
    work = Work(backend, "coroutine")
    work.go_on()
    gc.collect()
    gc.disable()
    try:
        work.error = ReferableError()
        reference = weakref.ref(work.error)
        with suppress(ReferableError):
            await work.run()
        work.error = None
        await turns()
        assert reference() is None
    finally:
        gc.enable()
