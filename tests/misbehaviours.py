"""What the code serving one client can do wrong: the table that servers of every kind must survive.

Each misbehaviour is something that a request handler does when it is asked to, in whichever of its
methods. `await misbehave(name)` does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import trio

Misbehaviour: TypeAlias = Callable[[], Awaitable[None]]


class Fatal(BaseException):
    """What no `except Exception` catches."""


def cancelled() -> BaseException:
    """Return an instance of the framework's cancellation, as code without a scope can get it."""
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return asyncio.CancelledError()
    return trio.Cancelled._create()


def foreign_cancellation() -> BaseException:
    """Return asyncio's cancellation, which is an exception like others elsewhere."""
    return asyncio.CancelledError()


def grouped(*makers: Callable[[], BaseException], depth: int = 1) -> Callable[[], BaseException]:
    """Return what makes a group of exceptions, in groups of one."""

    def make() -> BaseException:
        error: BaseException = BaseExceptionGroup("group", [maker() for maker in makers])
        for _ in range(depth - 1):
            error = BaseExceptionGroup("outer", [error])
        return error

    return make


EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "Exception": Exception,
    "LookupError": LookupError,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "AssertionError": AssertionError,
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "EOFError": EOFError,
    "OSError": lambda: OSError(5, "Input/output error"),
    "TimeoutError": lambda: TimeoutError("the database"),
    "ConnectionResetError": lambda: ConnectionResetError("the database"),
    "GeneratorExit": GeneratorExit,
    "SystemExit": lambda: SystemExit(2),
    "Fatal": Fatal,
    "cancelled": cancelled,
    "asyncio.CancelledError": foreign_cancellation,
    "group of LookupError": grouped(LookupError),
    "group of GeneratorExit": grouped(GeneratorExit),
    "group of SystemExit": grouped(SystemExit),
    "group of Fatal": grouped(Fatal),
    "group of cancelled": grouped(cancelled),
    "group of GeneratorExit and LookupError": grouped(GeneratorExit, LookupError),
    "group of cancelled and LookupError": grouped(cancelled, LookupError),
    "group of SystemExit and cancelled": grouped(SystemExit, cancelled, GeneratorExit),
    "nested group of SystemExit": grouped(SystemExit, depth=3),
    "nested group of GeneratorExit and Fatal": grouped(GeneratorExit, Fatal, depth=3),
}


def raising(name: str) -> Misbehaviour:
    """Return what raises an exception of the table above."""

    async def misbehave() -> None:
        raise EXCEPTIONS[name]()

    return misbehave


# -- scopes, generators and tasks in disorder


async def leave_a_scope_open() -> None:
    """Enter a scope and forget it."""
    anyio.CancelScope().__enter__()


async def leave_a_shield_open() -> None:
    """Enter a scope that shields from cancellation, and forget it."""
    anyio.CancelScope(shield=True).__enter__()


async def leave_an_expired_scope_open() -> None:
    """Enter a scope whose time is up."""
    anyio.move_on_after(0).__enter__()


async def leave_a_timeout_open() -> None:
    """Enter a scope whose time will be up while the handler waits."""
    anyio.move_on_after(0.001).__enter__()
    with contextlib.suppress(TimeoutError, anyio.get_cancelled_exc_class()):
        await anyio.sleep(0.01)


async def leave_a_cancelled_scope_open() -> None:
    """Enter a scope and cancel it from outside."""
    scope = anyio.CancelScope()
    scope.__enter__()
    scope.cancel()
    await anyio.lowlevel.checkpoint()


async def leave_scopes_in_the_wrong_order() -> None:
    """Leave an outer scope before the inner one."""
    outer, inner = anyio.CancelScope(), anyio.CancelScope()
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)


async def _numbers_in_a_scope() -> AsyncIterator[int]:
    with anyio.move_on_after(0.001):
        yield 1
        yield 2


async def leave_a_generator_open() -> None:
    """Break out of a generator that holds a scope, and keep it."""
    generator = _numbers_in_a_scope()
    kept.append(generator)
    async for _ in generator:
        break


kept: list[Any] = []
"""What is kept alive for as long as the test runs."""


async def clean_up() -> None:
    """Close what was kept, which complains."""
    while kept:
        with contextlib.suppress(BaseException):
            await kept.pop().aclose()


async def leave_a_task_group_open() -> None:
    """Enter a task group and forget it."""
    tasks = anyio.create_task_group()
    kept.append(tasks)
    await tasks.__aenter__()


async def fail_in_a_task_group() -> None:
    """Have a task of a task group fail."""

    async def fail() -> None:
        raise LookupError

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail)
        await anyio.sleep_forever()


async def fail_beside_a_task() -> None:
    """Fail in a task group that has another task."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        raise LookupError


async def let_out_a_cancellation() -> None:
    """Be cancelled by a scope, and raise the cancellation where the scope does not see it."""
    caught: BaseException | None = None
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as exc:
            caught = exc
            raise
    assert caught is not None
    raise caught


async def exceed_the_recursion_limit() -> None:
    """Call oneself for ever."""
    await exceed_the_recursion_limit()


async def raise_a_huge_error() -> None:
    """Raise an error whose text cannot be shown."""

    class Unprintable(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError("no text")

    raise Unprintable


class _NoGroup(ExceptionGroup[Exception]):
    def derive(self, excs: Any, /) -> Any:
        raise RuntimeError("cannot be split")


async def raise_a_group_that_cannot_be_split() -> None:
    """Raise a group whose class is broken."""
    raise _NoGroup("group", [LookupError(), ValueError()])


async def raise_a_deep_group() -> None:
    """Raise groups in groups, too many to split."""
    error: Exception = LookupError()
    for _ in range(20_000):
        error = ExceptionGroup("group", [error])
    raise error


async def raise_its_own_cause() -> None:
    """Raise an error that is its own cause."""
    error = LookupError()
    error.__cause__ = error
    raise ExceptionGroup("group", [error])


class _Bad(enum.Enum):
    VALUE = "\x1b[2J\r\n" * 1000


async def raise_control_characters() -> None:
    """Raise an error with control characters in its text."""
    raise LookupError(_Bad.VALUE.value)


DISORDER: dict[str, Misbehaviour] = {
    function.__name__: function
    for function in (
        leave_a_scope_open,
        leave_a_shield_open,
        leave_an_expired_scope_open,
        leave_a_timeout_open,
        leave_a_cancelled_scope_open,
        leave_scopes_in_the_wrong_order,
        leave_a_generator_open,
        leave_a_task_group_open,
        fail_in_a_task_group,
        fail_beside_a_task,
        let_out_a_cancellation,
        exceed_the_recursion_limit,
        raise_a_huge_error,
        raise_a_group_that_cannot_be_split,
        raise_a_deep_group,
        raise_its_own_cause,
        raise_control_characters,
    )
}


# -- what only asyncio offers


async def cancel_oneself() -> None:
    """Cancel the current task, and wait."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def cancel_oneself_later() -> None:
    """Cancel the current task, which notices it elsewhere."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def await_a_cancelled_task() -> None:
    """Await a task that was cancelled."""
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


async def fail_in_an_asyncio_task_group() -> None:
    """Fail in a task group of asyncio's."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(60))
        raise Fatal


async def leave_an_asyncio_timeout_open() -> None:
    """Enter a timeout of asyncio's and forget it."""
    timeout = asyncio.timeout(0.001)
    kept.append(timeout)
    await timeout.__aenter__()


ASYNCIO_ONLY: dict[str, Misbehaviour] = {
    function.__name__: function
    for function in (
        cancel_oneself,
        cancel_oneself_later,
        await_a_cancelled_task,
        fail_in_an_asyncio_task_group,
        leave_an_asyncio_timeout_open,
    )
}


# -- what only trio offers


async def leave_a_nursery_open() -> None:
    """Enter a nursery and forget it."""
    manager = trio.open_nursery()
    kept.append(manager)
    await manager.__aenter__()


async def fail_in_a_nursery() -> None:
    """Fail in a nursery that has a task."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        raise Fatal


TRIO_ONLY: dict[str, Misbehaviour] = {
    function.__name__: function for function in (leave_a_nursery_open, fail_in_a_nursery)
}

MISBEHAVIOURS: dict[str, Misbehaviour] = {
    **{name: raising(name) for name in EXCEPTIONS},
    **DISORDER,
    **ASYNCIO_ONLY,
    **TRIO_ONLY,
}


def runs_on(name: str, backend: str) -> bool:
    """Whether a backend has what a misbehaviour needs."""
    return name not in (TRIO_ONLY if backend == "asyncio" else ASYNCIO_ONLY)


# -- handlers that do not follow the form


async def no_generator(client: Any) -> None:
    """Be a coroutine function, because the yield was forgotten."""


def none(client: Any) -> None:
    """Return nothing."""


async def yields_text(client: Any) -> AsyncGenerator[Any, Any]:
    """Yield an answer."""
    yield "text"


async def yields_nan(client: Any) -> AsyncGenerator[Any, Any]:
    """Yield what is no timeout."""
    yield float("nan")


async def yields_object(client: Any) -> AsyncGenerator[Any, Any]:
    """Yield something."""
    yield object()


MALFORMED: dict[str, Callable[[Any], Any]] = {
    function.__name__: function
    for function in (no_generator, none, yields_text, yields_nan, yields_object)
}
