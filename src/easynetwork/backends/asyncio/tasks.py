"""Tasks of clients, on asyncio."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import anyio

from easynetwork._tuning import STOP_TIMEOUT
from easynetwork._typevars import _Ts
from easynetwork.backends.abc import SessionObserver, SessionTasks
from easynetwork.backends.abc.tasks import CoroFunc


class AsyncIOSessionTasks(SessionTasks):
    """Plain asyncio tasks; anyio's cancel scopes keep shielded what a client shields.

    A task is cancelled through its `scope()`. When the program ends, asyncio cancels all tasks by
    itself, the host that waits here included. That tells the end of the program from the
    cancellation of a single task.
    """

    def __init__(self, observer: SessionObserver) -> None:
        self._loop = asyncio.get_running_loop()
        # Asked for at each wait: what most loops do is called without them.
        is_plain = type(self._loop).time is asyncio.BaseEventLoop.time
        super().__init__(time.monotonic if is_plain else self._loop.time)
        self._observer = observer
        self._block = anyio.CancelScope()
        self._tasks: set[asyncio.Task[None]] = set()  # those that are not done
        self._scopes: dict[asyncio.Task[Any] | None, anyio.CancelScope] = {}  # the last of each
        self._is_cancelled = False
        self._deadline = math.inf  # when those that were cancelled are given up
        self._interrupts: list[BaseException] = []
        self._idle: anyio.Event | None = None  # while the host waits until no task is left

    def start(
        self,
        coro_func: CoroFunc[*_Ts],
        *args: *_Ts,
        name: str | None = None,
        otherwise: Callable[[], object] | None = None,
    ) -> None:
        coroutine = coro_func(*args)
        # The user has set a task factory to see all tasks.
        if sys.version_info >= (3, 12) and self._loop.get_task_factory() is None:
            task = asyncio.Task(coroutine, loop=self._loop, name=name, eager_start=True)
            if task.done():
                self._scopes.pop(task, None)
                self._collect_error(task)
                return
        else:
            try:
                task = self._loop.create_task(coroutine, name=name)
            except BaseException:  # of a task factory
                coroutine.close()
                raise
            if otherwise is not None:
                task.add_done_callback(partial(self._call_if_cancelled_early, otherwise))
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def scope(self) -> anyio.CancelScope:
        scope = self._scopes[asyncio.current_task()] = anyio.CancelScope()
        if self._is_cancelled:
            scope.cancel()
        return scope

    def is_orderly(self, scope: AbstractContextManager[object]) -> bool:
        # To ask anyio for the effective deadline costs a tenth of a datagram (measured).
        children = getattr(scope, "_child_scopes", None)
        if children is None:
            return anyio.current_effective_deadline() == math.inf
        task = asyncio.current_task()
        return not children and task is not None and not task.cancelling()

    def is_cancelled(self) -> bool:
        return self._is_cancelled or self._host.cancelling() > self._host_cancelling

    def is_scope_cancelled(self) -> bool:
        return self._scopes[asyncio.current_task()].cancel_called

    def is_current(self) -> bool:
        return asyncio.current_task() in self._scopes

    def give_up(self) -> None:
        self.has_given_up = self.is_ending = True
        for scope in self._scopes.values():
            _stop_cancelling(scope)
        if self._tasks:
            self._observer.still_running(sorted(task.get_name() for task in self._tasks))

    def _call_if_cancelled_early(
        self, otherwise: Callable[[], object], task: asyncio.Task[None]
    ) -> None:
        if task.cancelled() and task not in self._scopes:
            otherwise()

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._scopes.pop(task, None)
        self._collect_error(task)
        if self._idle is not None and not self._tasks:
            self._idle.set()

    def _collect_error(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._observer.interrupts(error):
            self._interrupts.append(error)
            self._block.cancel()
        else:
            self._observer.uncaught(error, task.get_name())

    def _cancel(self) -> None:
        if not self._is_cancelled:
            self._is_cancelled = True
            self._deadline = self._loop.time() + STOP_TIMEOUT
        for scope in list(self._scopes.values()):
            scope.cancel()

    async def __aenter__(self) -> AsyncIOSessionTasks:
        host = asyncio.current_task()
        assert host is not None
        self._host, self._host_cancelling = host, host.cancelling()
        self._block.__enter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        if exc_info[1] is not None:
            self._cancel()
        try:
            await self._wait()
            if self._interrupts:
                raise BaseExceptionGroup("unhandled errors in client tasks", self._interrupts)
        except BaseException as error:
            if self._block.__exit__(type(error), error, error.__traceback__):
                return None
            raise
        return self._block.__exit__(*exc_info)

    async def _wait(self) -> None:
        cancellation: BaseException | None = None
        while self._tasks:
            self._idle = anyio.Event()
            try:
                with anyio.CancelScope(shield=self._is_cancelled, deadline=self._deadline) as scope:
                    await self._idle.wait()
            except asyncio.CancelledError as exc:
                cancellation = exc
                self._cancel()
            else:
                if scope.cancelled_caught:
                    self.give_up()
                    break
        if cancellation is not None:
            raise cancellation


def _stop_cancelling(scope: anyio.CancelScope) -> None:
    """Stop delivering a cancellation that a task ignores.

    anyio delivers it again at each turn of the loop, which costs all of a processor's time as long
    as the task goes on, and has no public way to stop that.
    """
    handle = getattr(scope, "_cancel_handle", None)
    if handle is not None:
        handle.cancel()
    for child in getattr(scope, "_child_scopes", ()):
        _stop_cancelling(child)
