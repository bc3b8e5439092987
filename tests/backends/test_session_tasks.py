"""The owner of clients' tasks, on each backend: it waits for them, cancels them, hears of them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from easynetwork.backends import AsyncBackend, ensure_backend
from easynetwork.backends.abc import SessionTasks

pytestmark = pytest.mark.anyio


class Fatal(BaseException):
    """What is meant for the whole program."""


class Observer:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.reports: list[object] = []

    def interrupts(self, exc: BaseException, /) -> bool:
        return isinstance(exc, Fatal)

    def uncaught(self, exc: BaseException, name: str, /) -> None:
        self.reports.append((type(exc), name))

    def still_running(self, names: list[str], /) -> None:
        self.reports.append(names)


@pytest.fixture
async def backend(anyio_backend: object) -> AsyncBackend:
    return ensure_backend(None)


@pytest.fixture
def observer() -> Observer:
    return Observer()


async def scoped(tasks: SessionTasks, func: Callable[[], Awaitable[None]]) -> None:
    """Do what every client's task does: run a function in a scope of the owner."""
    with tasks.scope():
        await func()


async def test_waits(backend: AsyncBackend, observer: Observer) -> None:
    """The block ends when the last task is over, those started by tasks included."""
    over = []

    async def first() -> None:
        await anyio.lowlevel.checkpoint()
        tasks.start(second, "second", name="second")
        over.append("first")

    async def second(name: str) -> None:
        await anyio.sleep(0.001)
        over.append(name)

    async with backend.create_session_tasks(observer) as tasks:
        tasks.start(first, name="first")
    assert over == ["first", "second"]


@pytest.mark.parametrize("where", ["outside", "inside"])
async def test_cancelled(backend: AsyncBackend, observer: Observer, where: str) -> None:
    """A cancelled block cancels its tasks and waits for them, whether it was left or not."""
    begun, over = anyio.Event(), []

    async def sleep() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            over.append("cancelled")
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.001)
            over.append("cleaned up")

    async def cancel() -> None:
        await begun.wait()
        scope.cancel()

    async with anyio.create_task_group() as others:
        others.start_soon(cancel)
        with anyio.CancelScope() as scope:
            async with backend.create_session_tasks(observer) as tasks:
                tasks.start(scoped, tasks, sleep, name="sleeper")
                if where == "inside":
                    await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert over == ["cancelled", "cleaned up"]


async def test_cancelled_again_and_again(backend: AsyncBackend, observer: Observer) -> None:
    """A task that goes on after its cancellation is cancelled at whatever it awaits next."""
    awaited = []

    async def sleep() -> None:
        for _ in range(3):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                awaited.append("cancelled")
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        async with backend.create_session_tasks(observer) as tasks:
            tasks.start(scoped, tasks, sleep, name="sleeper")
            await anyio.lowlevel.checkpoint()
            scope.cancel()
    assert awaited == ["cancelled"] * 3


async def test_started_too_late(backend: AsyncBackend, observer: Observer) -> None:
    """What is started while the block is being cancelled is cancelled as well."""

    async def start_another() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            tasks.start(scoped, tasks, anyio.sleep_forever, name="late")

    with anyio.CancelScope() as scope:
        async with backend.create_session_tasks(observer) as tasks:
            tasks.start(scoped, tasks, start_another, name="starter")
            await anyio.lowlevel.checkpoint()
            scope.cancel()


async def test_exception_in_the_block(backend: AsyncBackend, observer: Observer) -> None:
    """A block that is left by an exception cancels its tasks, and raises it."""
    with pytest.raises((LookupError, ExceptionGroup)) as caught:
        async with backend.create_session_tasks(observer) as tasks:
            tasks.start(scoped, tasks, anyio.sleep_forever, name="sleeper")
            raise LookupError
    assert isinstance(caught.value, LookupError) or caught.group_contains(LookupError)


@pytest.mark.parametrize("at_once", [True, False])
async def test_fatal(backend: AsyncBackend, observer: Observer, at_once: bool) -> None:
    """A task that fails cancels the block and the others, and its exception is raised there."""

    async def fail() -> None:
        if not at_once:
            await anyio.lowlevel.checkpoint()
        raise Fatal

    with pytest.raises(BaseExceptionGroup) as caught:
        async with backend.create_session_tasks(observer) as tasks:
            tasks.start(scoped, tasks, anyio.sleep_forever, name="sleeper")
            tasks.start(fail, name="fatal")
            await anyio.sleep_forever()
    assert caught.group_contains(Fatal)


@pytest.mark.parametrize("at_once", [True, False])
async def test_failure(backend: AsyncBackend, observer: Observer, at_once: bool) -> None:
    """A task that fails with anything else is reported, and the others go on."""
    over = []

    async def fail() -> None:
        if not at_once:
            await anyio.lowlevel.checkpoint()
        raise LookupError

    async def succeed() -> None:
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        over.append("other")

    async with backend.create_session_tasks(observer) as tasks:
        tasks.start(succeed, name="other")
        tasks.start(fail, name="failing")
    assert over == ["other"]
    assert observer.reports == [(LookupError, "failing")]


async def test_scope_in_disorder(backend: AsyncBackend, observer: Observer) -> None:
    """A scope that is left while another one is open inside says so; a new task can go on."""
    over = []

    async def disorder() -> None:
        with pytest.raises(RuntimeError):
            with tasks.scope():
                anyio.move_on_after(0).__enter__()
        assert not tasks.is_cancelled()
        tasks.start(scoped, tasks, go_on, name="second")

    async def go_on() -> None:
        await anyio.sleep(0.001)
        over.append("went on")

    async with backend.create_session_tasks(observer) as tasks:
        tasks.start(disorder, name="first")
    assert over == ["went on"]
    assert observer.reports == []


async def test_is_cancelled(backend: AsyncBackend, observer: Observer) -> None:
    """A task can tell the cancellation of all from one that comes from elsewhere."""
    seen: list[bool] = []

    async def sleep(scope: anyio.CancelScope) -> None:
        with tasks.scope(), scope:
            await anyio.sleep_forever()
        seen.append(tasks.is_cancelled())

    own = anyio.CancelScope()
    with anyio.CancelScope() as outer:
        async with backend.create_session_tasks(observer) as tasks:
            tasks.start(sleep, own, name="alone")
            await anyio.lowlevel.checkpoint()
            own.cancel()
            while not seen:
                await anyio.lowlevel.checkpoint()
            tasks.start(sleep, anyio.CancelScope(), name="with all")
            await anyio.lowlevel.checkpoint()
            outer.cancel()
    assert seen[0] is False
    assert all(seen[1:])


@pytest.mark.parametrize("how", ["waits", "spins"])
async def test_stubborn_task(
    backend: AsyncBackend,
    observer: Observer,
    anyio_backend_name: str,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """A task that ignores its cancellation is reported, and given up where that is possible."""
    monkeypatch.setattr("easynetwork.backends.asyncio.tasks.STOP_TIMEOUT", 0.05)
    released, over = anyio.Event(), anyio.Event()

    async def ignore() -> None:
        while not released.is_set():
            try:
                with anyio.CancelScope(shield=how == "waits"):
                    await released.wait()
            except anyio.get_cancelled_exc_class():
                spins.append(None)
        over.set()

    async def give_up() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.05)
            if anyio_backend_name == "trio":
                tasks.give_up()
            before = len(spins)
            for _ in range(10):
                await anyio.sleep(0.001)
            assert len(spins) - before < 3
            released.set()

    spins: list[None] = []
    with anyio.CancelScope() as scope:
        async with backend.create_session_tasks(observer) as tasks:
            tasks.start(scoped, tasks, ignore, name="stubborn")
            if anyio_backend_name == "trio":
                tasks.start(give_up, name="stopper")
            await anyio.lowlevel.checkpoint()
            scope.cancel()
    if anyio_backend_name == "trio":
        assert observer.reports == [["stopper", "stubborn"]]
    else:
        assert observer.reports == [["stubborn"]]
        await give_up()
    await over.wait()


async def test_name_and_context(backend: AsyncBackend, observer: Observer) -> None:
    """A task has its name, and a copy of the context in which it was started."""
    variable = contextvars.ContextVar("variable", default="nothing")
    seen = []

    async def look(value: str) -> None:
        await anyio.lowlevel.checkpoint()  # a task factory may begin before it gives the name
        seen.append((anyio.get_current_task().name, variable.get()))
        variable.set(value)

    async with backend.create_session_tasks(observer) as tasks:
        variable.set("something")
        tasks.start(look, "else", name="a client")
        tasks.start(look, "different", name="another")
    assert sorted(seen) == [("a client", "something"), ("another", "something")]
    assert variable.get() == "something"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_by_asyncio(
    backend: AsyncBackend, observer: Observer, anyio_backend: str
) -> None:
    """A task that somebody cancels, even before it began, is over; the others go on."""
    async with backend.create_session_tasks(observer) as tasks:
        for _ in range(2):
            tasks.start(scoped, tasks, anyio.sleep_forever, name="victim")
            for task in asyncio.all_tasks():
                if task.get_name() == "victim":
                    task.cancel()
            await anyio.lowlevel.checkpoint()
