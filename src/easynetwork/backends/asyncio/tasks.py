"""Tasks of clients, on asyncio."""

from __future__ import annotations

__all__ = ["AsyncIOSessionTasks"]

import asyncio
import sys
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVarTuple

import anyio

from easynetwork.backends.abc import SessionTasks

_Ts = TypeVarTuple("_Ts")


class AsyncIOSessionTasks(SessionTasks):
    """Plain asyncio tasks, each with a cancel scope, so that what anyio shields stays shielded."""

    __slots__ = ("_block", "_errors", "_idle", "_is_cancelled", "_loop", "_scopes", "_tasks")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._block = anyio.CancelScope()
        self._tasks: set[asyncio.Task[None]] = set()  # those that are not done
        self._scopes: set[anyio.CancelScope] = set()  # of those that have begun
        self._is_cancelled = False
        self._errors: list[BaseException] = []
        self._idle: anyio.Event | None = None  # while somebody waits until no task is left

    def start(
        self,
        coro_func: Callable[[*_Ts], Coroutine[Any, Any, None]],
        *args: *_Ts,
        name: str | None = None,
    ) -> None:
        coroutine = self._run(coro_func, *args)
        # A task factory belongs to somebody who wants to see all tasks.
        if sys.version_info >= (3, 12) and self._loop.get_task_factory() is None:
            task = asyncio.Task(coroutine, loop=self._loop, name=name, eager_start=True)
            if task.done():
                self._collect_error(task)
                return
        else:
            task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    async def _run(
        self, coro_func: Callable[[*_Ts], Coroutine[Any, Any, None]], *args: *_Ts
    ) -> None:
        with anyio.CancelScope() as scope:
            if self._is_cancelled:
                scope.cancel()
            self._scopes.add(scope)
            try:
                await coro_func(*args)
            finally:
                self._scopes.discard(scope)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._collect_error(task)
        if self._idle is not None and not self._tasks:
            self._idle.set()

    def _collect_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)
            self._block.cancel()

    def _cancel(self) -> None:
        self._is_cancelled = True
        for scope in list(self._scopes):
            scope.cancel()

    async def __aenter__(self) -> AsyncIOSessionTasks:
        self._block.__enter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if exc is not None:
            self._cancel()
        try:
            await self._wait()
            if self._errors:
                raise BaseExceptionGroup("unhandled errors in client tasks", self._errors)
        except BaseException as error:
            if self._block.__exit__(type(error), error, error.__traceback__):
                return None
            raise
        return self._block.__exit__(exc_type, exc, traceback)

    async def _wait(self) -> None:
        cancellation: BaseException | None = None
        while self._tasks:
            self._idle = anyio.Event()
            try:
                with anyio.CancelScope(shield=self._is_cancelled):
                    await self._idle.wait()
            except asyncio.CancelledError as exc:
                cancellation = exc
                self._cancel()
        if cancellation is not None:
            raise cancellation
