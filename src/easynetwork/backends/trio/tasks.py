"""Tasks of clients, on trio."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, suppress
from typing import Any

import trio

from easynetwork._typevars import _Ts
from easynetwork.backends.abc import SessionObserver, SessionTasks
from easynetwork.backends.abc.tasks import CoroFunc


class TrioSessionTasks(SessionTasks):
    """A nursery that leaves out exception groups which only contain its own cancellation."""

    __slots__ = ("_deadline", "_manager", "_nursery", "_observer", "_scopes")

    def __init__(self, observer: SessionObserver) -> None:
        super().__init__(trio.lowlevel.current_clock().current_time)
        self._observer = observer
        self._manager = trio.open_nursery()
        self._scopes: dict[trio.lowlevel.Task, trio.CancelScope] = {}  # the last of each

    def start(
        self,
        coro_func: CoroFunc[*_Ts],
        *args: *_Ts,
        name: str | None = None,
        otherwise: Callable[[], object] | None = None,
    ) -> None:
        # A task of trio runs up to its first checkpoint, even if it is cancelled before.
        self._nursery.start_soon(self._run, coro_func, args, name=name)

    async def _run(
        self, coro_func: Callable[..., Coroutine[Any, Any, None]], args: tuple[Any, ...]
    ) -> None:
        task = trio.lowlevel.current_task()
        try:
            await coro_func(*args)
        except BaseException as exc:
            if self.is_cancelled() or self._observer.interrupts(exc):
                raise
            self._observer.uncaught(exc, task.name)
        finally:
            # A task that has entered no scope has run nothing of a client's.
            if self._scopes.pop(task, None) is not None and task.child_nurseries:
                await _close_nurseries(task)

    def scope(self) -> trio.CancelScope:
        # On leaving it, trio also repairs the stack of scopes, if it has to complain about it.
        scope = self._scopes[trio.lowlevel.current_task()] = trio.CancelScope()
        return scope

    def is_orderly(self, scope: AbstractContextManager[object]) -> bool:
        # To ask trio for the effective deadline costs a fifth of a datagram (measured).
        status = getattr(trio.lowlevel.current_task(), "_cancel_status", None)
        if status is None:
            return trio.current_effective_deadline() == self._deadline
        return status is getattr(scope, "_cancel_status", None)

    def is_cancelled(self) -> bool:
        return trio.current_effective_deadline() == -math.inf

    def is_scope_cancelled(self) -> bool:
        status = getattr(self._scopes[trio.lowlevel.current_task()], "_cancel_status", None)
        if status is None:
            return self.is_cancelled()  # or a scope inside is: trio has no public way to tell
        return bool(status.effectively_cancelled)

    def is_current(self) -> bool:
        return trio.lowlevel.current_task() in self._scopes

    def give_up(self) -> None:
        self.has_given_up = self.is_ending = True
        for task, scope in self._scopes.items():
            scope.shield = True  # so that a task that ignores its cancellation can wait again
            _shield_nurseries(task)
        if tasks := self._nursery.child_tasks:
            self._observer.still_running(sorted(task.name for task in tasks))

    async def __aenter__(self) -> TrioSessionTasks:
        self._deadline = trio.current_effective_deadline()
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        try:
            return await self._manager.__aexit__(*exc_info)
        except BaseExceptionGroup as group:
            if group.split(trio.Cancelled)[1] is None:
                await trio.lowlevel.checkpoint_if_cancelled()  # raises one, as outside of nurseries
            raise


async def _close_nurseries(task: trio.lowlevel.Task) -> None:
    """Close the nurseries that a client's code has left open, with what runs in them.

    A task that ends with one makes trio cancel all of the surrounding nursery, and trio has no
    public way to close a nursery from outside of its block.
    """
    for nursery in reversed(task.child_nurseries):
        nursery.cancel_scope.cancel()
        with suppress(BaseException):  # whatever the tasks in it raise is due to that
            await nursery._nested_child_finished(None)


def _shield_nurseries(task: trio.lowlevel.Task) -> None:
    """Do the same for the nurseries of a task: they are cancelled by themselves once it was."""
    for nursery in task.child_nurseries:
        nursery.cancel_scope.shield = True
        for child in nursery.child_tasks:
            _shield_nurseries(child)
