"""Every method of `AsyncBackend` that leads to anyio, once on each backend."""

from __future__ import annotations

import math
import threading
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.backends import AsyncBackend, ensure_backend

pytestmark = pytest.mark.anyio


@pytest.fixture
async def backend(anyio_backend: object) -> AsyncBackend:
    return ensure_backend(None)


# -- Time --------------------------------------------------------------------------------------


async def test_current_time(backend: AsyncBackend) -> None:
    """The clock is the loop's."""
    assert backend.current_time() == pytest.approx(anyio.current_time(), abs=1)


async def test_timeout(backend: AsyncBackend) -> None:
    """A block that takes too long ends in a TimeoutError, any other goes on."""
    with pytest.raises(TimeoutError):
        with backend.timeout(0.001):
            await backend.sleep_forever()
    with pytest.raises(TimeoutError):
        with backend.timeout_at(backend.current_time() + 0.001):
            await backend.sleep_forever()
    with backend.timeout(100), backend.timeout(None), backend.timeout_at(math.inf):
        await backend.coro_yield()


async def test_move_on(backend: AsyncBackend) -> None:
    """A block that takes too long is left, and the scope knows it."""
    with backend.move_on_after(0.001) as after:
        await backend.sleep_forever()
    with backend.move_on_at(backend.current_time() + 0.001) as at:
        await backend.sleep_forever()
    with backend.move_on_after(None) as never:
        await backend.coro_yield()
    assert after.cancelled_caught
    assert at.cancelled_caught
    assert not never.cancelled_caught


async def test_sleep(backend: AsyncBackend) -> None:
    """A pause takes as long as it should."""
    start = backend.current_time()
    await backend.sleep(0.01)
    assert backend.current_time() - start >= 0.009
    await backend.sleep_until(start + 0.02)
    assert backend.current_time() - start >= 0.019
    await backend.sleep_until(start)


# -- Tasks -------------------------------------------------------------------------------------


async def test_open_cancel_scope(backend: AsyncBackend) -> None:
    """A block can be cancelled by whoever has its scope."""
    with backend.open_cancel_scope() as scope:
        scope.cancel()
        await backend.coro_yield()
        pytest.fail("not cancelled")
    assert scope.cancelled_caught
    with backend.open_cancel_scope(deadline=backend.current_time()) as scope:
        await backend.sleep_forever()
    assert scope.cancelled_caught


async def test_create_task_group(backend: AsyncBackend) -> None:
    """A group of tasks ends with the last of them."""
    done: list[int] = []

    async def work(number: int) -> None:
        await backend.coro_yield()
        done.append(number)

    async with backend.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(work, number)
    assert sorted(done) == [0, 1, 2]


async def test_gather(backend: AsyncBackend) -> None:
    """Results come in the order of the arguments, whatever took longest; None is a result."""

    async def work(turns: int, result: Any) -> Any:
        for _ in range(turns):
            await backend.coro_yield()
        return result

    assert await backend.gather() == []
    assert await backend.gather(work(5, "a"), work(1, "b"), work(3, None)) == ["a", "b", None]


async def test_gather_the_same(backend: AsyncBackend) -> None:
    """A coroutine that is given several times runs once, and its result comes several times."""
    runs = []

    async def work(result: str) -> str:
        runs.append(result)
        await backend.coro_yield()
        return result

    one, other = work("one"), work("other")
    assert await backend.gather(one, other, one, one) == ["one", "other", "one", "one"]
    assert sorted(runs) == ["one", "other"]


async def test_gather_failure(backend: AsyncBackend) -> None:
    """If one fails, the others are cancelled."""
    cancelled = []

    async def fail() -> None:
        await backend.coro_yield()
        raise KeyError("oops")

    async def wait() -> None:
        try:
            await backend.sleep_forever()
        except backend.get_cancelled_exc_class():
            cancelled.append(True)
            raise

    with pytest.raises(ExceptionGroup) as info:
        await backend.gather(wait(), fail())
    assert [type(error) for error in info.value.exceptions] == [KeyError]
    assert cancelled == [True]


async def test_coro_yield(backend: AsyncBackend) -> None:
    """Other tasks run meanwhile; only the one that may be cancelled is."""
    for pause in (backend.coro_yield, backend.cancel_shielded_coro_yield):
        other = anyio.Event()
        async with backend.create_task_group() as tasks:
            tasks.start_soon(anyio.lowlevel.checkpoint)
            tasks.start_soon(other.wait)
            for _ in range(3):
                await pause()
            other.set()

    passed = []
    with backend.open_cancel_scope() as scope:
        scope.cancel()
        await backend.cancel_shielded_coro_yield()
        passed.append("shielded")
        await backend.coro_yield()
        passed.append("not shielded")
    assert passed == ["shielded"]


async def test_ignore_cancellation(backend: AsyncBackend) -> None:
    """What must be finished is, and has a result; the cancellation comes behind it."""
    passed = []

    async def work() -> str:
        for _ in range(3):
            await backend.coro_yield()
        return "done"

    with backend.open_cancel_scope() as scope:
        scope.cancel()
        passed.append(await backend.ignore_cancellation(work()))
        await backend.coro_yield()
        passed.append("not cancelled")
    assert passed == ["done"]


async def test_get_current_task(backend: AsyncBackend) -> None:
    """A task knows who it is."""
    assert backend.get_current_task() == anyio.get_current_task()


# -- Locks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["create_lock", "create_fair_lock"])
async def test_lock(backend: AsyncBackend, name: str) -> None:
    """A lock is given to those who wait, in order."""
    lock = getattr(backend, name)()
    order = []

    async def work(number: int) -> None:
        async with lock:
            order.append(number)
            await backend.coro_yield()

    async with backend.create_task_group() as tasks:
        async with lock:
            for number in range(3):
                tasks.start_soon(work, number)
                await anyio.wait_all_tasks_blocked()
    assert order == [0, 1, 2]


async def test_event(backend: AsyncBackend) -> None:
    """An event wakes those who wait."""
    event = backend.create_event()
    async with backend.create_task_group() as tasks:
        tasks.start_soon(event.wait)
        assert not event.is_set()
        event.set()


async def test_condition(backend: AsyncBackend) -> None:
    """A condition wakes those who wait, with its own lock or a given one."""
    for condition in (
        backend.create_condition_var(),
        backend.create_condition_var(backend.create_lock()),
    ):

        async def wait(condition: anyio.Condition = condition) -> None:
            async with condition:
                await condition.wait()

        async with backend.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            async with condition:
                condition.notify_all()


# -- Threads -----------------------------------------------------------------------------------


async def test_run_in_thread(backend: AsyncBackend) -> None:
    """A blocking function runs in another thread; its result and its exceptions come back."""
    assert await backend.run_in_thread(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await backend.run_in_thread(divmod, 1, 0)


@pytest.mark.parametrize("abandon", [False, True])
async def test_run_in_thread_cancelled(backend: AsyncBackend, abandon: bool) -> None:
    """Who is cancelled waits for the thread, or leaves it alone if told so."""
    started, gate, finished = threading.Event(), threading.Event(), threading.Event()
    returned = anyio.Event()
    scope = backend.open_cancel_scope()

    def work() -> None:
        started.set()
        gate.wait(10)
        finished.set()

    async def call() -> None:
        with scope:
            await backend.run_in_thread(work, abandon_on_cancel=abandon)
        assert finished.is_set() is not abandon
        returned.set()

    async with backend.create_task_group() as tasks:
        tasks.start_soon(call)
        await backend.run_in_thread(started.wait, 10)
        scope.cancel()
        if abandon:
            await returned.wait()
        gate.set()
    finished.wait(10)


async def test_create_threads_portal(backend: AsyncBackend) -> None:
    """Other threads can call into the loop."""
    async with backend.create_threads_portal() as portal:
        ident = await backend.run_in_thread(portal.call, threading.get_ident)
    assert ident == threading.get_ident()


# -- The backend itself ------------------------------------------------------------------------


async def test_weak_reference(backend: AsyncBackend) -> None:
    """A backend can be referred to weakly, and holds nothing."""
    assert weakref.ref(backend)() is backend
    assert not hasattr(backend, "__dict__")
