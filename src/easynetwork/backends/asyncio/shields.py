"""Shields that hold under every cancellation of asyncio.

anyio's shields hold off anyio's cancellations. `Task.cancel()`, and with it `asyncio.timeout()` and
`asyncio.TaskGroup`, throws into whatever the task awaits. So what must be finished runs elsewhere,
and the task waits for it again and again.

The request is passed on when the work is over. It stays counted (`Task.cancelling()`), so that an
`asyncio.timeout()` that asked for it recognizes it.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from easynetwork._typevars import _T


async def finish(awaitable: Awaitable[_T]) -> _T:
    """Do what `AsyncBackend.ignore_cancellation()` says."""
    before = _delivered_requests()
    context = contextvars.copy_context()
    work = asyncio.get_running_loop().create_task(_result_of(awaitable), context=context)
    try:
        cancellation = await _outlast(work)
        _adopt(context)
        if cancellation is None:
            return work.result()
        if work.cancelled() or work.exception() is None:
            raise cancellation
        _cancel_again(before, cancellation)
        return work.result()  # raises
    finally:
        del work, cancellation  # an exception's traceback refers to this frame


async def finish_in_thread(func: Callable[[], _T]) -> _T:
    """Call a function in a worker thread; once it has begun, wait until it is over."""
    before = _delivered_requests()
    call = _ThreadCall(func)
    try:
        return await anyio.to_thread.run_sync(call)
    except asyncio.CancelledError as exc:
        if call.revoke():
            raise
        cancellation = await _outlast(call.finished) or exc
        if call.error is None:
            raise cancellation from None
        _cancel_again(before, cancellation)
        raise call.error from None
    finally:
        call.error = None  # whose traceback refers to the call


async def yield_once() -> None:
    """Do what `AsyncBackend.cancel_shielded_coro_yield()` says."""
    before = _delivered_requests()
    try:
        await anyio.lowlevel.cancel_shielded_checkpoint()
    except asyncio.CancelledError as exc:
        _cancel_again(before, exc)


class _ThreadCall:
    """A function that a worker thread calls, unless it is revoked before.

    Attributes:
        finished: Done when the function is over.
        error: What it raised.
    """

    __slots__ = ("_func", "_is_taken", "_loop", "error", "finished")

    def __init__(self, func: Callable[[], Any]) -> None:
        self._func = func
        self._is_taken = threading.Lock()  # by the thread, or by `revoke()`; never released
        self._loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self._loop.create_future()
        self.error: BaseException | None = None

    def __call__(self) -> Any:
        if not self._is_taken.acquire(blocking=False):
            return None
        try:
            return self._func()
        except BaseException as exc:
            self.error = exc
            raise
        finally:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.finished.set_result, None)

    def revoke(self) -> bool:
        """Return whether the thread had not begun; if so, it never will."""
        return self._is_taken.acquire(blocking=False)


async def _outlast(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until a future is done; return the last cancellation that came meanwhile."""
    cancellation = None
    with anyio.CancelScope(shield=True):  # anyio would cancel again at every turn of the loop
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as exc:
                cancellation = exc
    return cancellation


def _cancel_again(before: int, cancellation: asyncio.CancelledError) -> None:
    """Have the running task cancelled at its next pause, where this one did not get through.

    Unless the request has been withdrawn until then: an exception, or the end of its block, takes
    the task out of an `asyncio.timeout()` that has expired.

    Args:
        before: How many requests had been delivered before.
        cancellation: What was caught.
    """
    task = _current_task()

    def cancel() -> None:
        if not task.done() and task.cancelling() > before:
            task.uncancel()  # cancel() counts it anew
            task.cancel(*cancellation.args)

    asyncio.get_running_loop().call_soon(cancel)


def _adopt(context: contextvars.Context) -> None:
    """Set the context variables that were set in another context."""
    missing = object()
    for variable, value in context.items():
        if variable.get(missing) is not value:
            variable.set(value)


def _delivered_requests() -> int:
    """Return how often the running task was asked to be cancelled, as far as it knows."""
    task = _current_task()
    is_waiting: bool = getattr(task, "_must_cancel", False)  # for the next pause
    return task.cancelling() - is_waiting


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def _result_of(awaitable: Awaitable[_T]) -> _T:
    return await awaitable
