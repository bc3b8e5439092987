"""The owner of clients' tasks, on each backend: it waits for them, cancels them, hears of them."""

from __future__ import annotations

import asyncio
import contextvars

import anyio
import anyio.lowlevel
import pytest

from easynetwork.backends import AsyncBackend, ensure_backend

pytestmark = pytest.mark.anyio


class Fatal(BaseException):
    """What no session deals with."""


@pytest.fixture
async def backend(anyio_backend: object) -> AsyncBackend:
    return ensure_backend(None)


async def test_waits(backend: AsyncBackend) -> None:
    """The block ends when the last task is over, those started by tasks included."""
    over = []

    async def first() -> None:
        await anyio.lowlevel.checkpoint()
        tasks.start(second, "second", name="second")
        over.append("first")

    async def second(name: str) -> None:
        await anyio.sleep(0.001)
        over.append(name)

    async with backend.create_session_tasks() as tasks:
        tasks.start(first, name="first")
    assert over == ["first", "second"]


@pytest.mark.parametrize("where", ["outside", "inside"])
async def test_cancelled(backend: AsyncBackend, where: str) -> None:
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
            async with backend.create_session_tasks() as tasks:
                tasks.start(sleep, name="sleeper")
                if where == "inside":
                    await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert over == ["cancelled", "cleaned up"]


async def test_cancelled_again_and_again(backend: AsyncBackend) -> None:
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
        async with backend.create_session_tasks() as tasks:
            tasks.start(sleep, name="sleeper")
            await anyio.lowlevel.checkpoint()
            scope.cancel()
    assert awaited == ["cancelled"] * 3


async def test_started_too_late(backend: AsyncBackend) -> None:
    """What is started while the block is being cancelled is cancelled as well."""

    async def start_another() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            tasks.start(anyio.sleep_forever, name="late")

    with anyio.CancelScope() as scope:
        async with backend.create_session_tasks() as tasks:
            tasks.start(start_another, name="starter")
            await anyio.lowlevel.checkpoint()
            scope.cancel()


async def test_exception_in_the_block(backend: AsyncBackend) -> None:
    """A block that is left by an exception cancels its tasks, and raises it."""
    with pytest.raises((LookupError, ExceptionGroup)) as caught:
        async with backend.create_session_tasks() as tasks:
            tasks.start(anyio.sleep_forever, name="sleeper")
            raise LookupError
    assert isinstance(caught.value, LookupError) or caught.group_contains(LookupError)


@pytest.mark.parametrize("at_once", [True, False])
async def test_fatal(backend: AsyncBackend, at_once: bool) -> None:
    """A task that fails cancels the block and the others, and its exception is raised there."""

    async def fail() -> None:
        if not at_once:
            await anyio.lowlevel.checkpoint()
        raise Fatal

    with pytest.raises(BaseExceptionGroup) as caught:
        async with backend.create_session_tasks() as tasks:
            tasks.start(anyio.sleep_forever, name="sleeper")
            tasks.start(fail, name="fatal")
            await anyio.sleep_forever()
    assert caught.group_contains(Fatal)


async def test_name_and_context(backend: AsyncBackend) -> None:
    """A task has its name, and a copy of the context in which it was started."""
    variable = contextvars.ContextVar("variable", default="nothing")
    seen = []

    async def look(value: str) -> None:
        await anyio.lowlevel.checkpoint()  # a task factory may begin before it gives the name
        seen.append((anyio.get_current_task().name, variable.get()))
        variable.set(value)

    async with backend.create_session_tasks() as tasks:
        variable.set("something")
        tasks.start(look, "else", name="a client")
        tasks.start(look, "different", name="another")
    assert sorted(seen) == [("a client", "something"), ("another", "something")]
    assert variable.get() == "something"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_by_asyncio(backend: AsyncBackend, anyio_backend: str) -> None:
    """A task that somebody cancels, even before it began, is over; the others go on."""
    async with backend.create_session_tasks() as tasks:
        for _ in range(2):
            tasks.start(anyio.sleep_forever, name="victim")
            for task in asyncio.all_tasks():
                if task.get_name() == "victim":
                    task.cancel()
            await anyio.lowlevel.checkpoint()
