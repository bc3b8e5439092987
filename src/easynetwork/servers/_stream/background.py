"""The tasks that a handler has started for its client: see `AsyncStreamClient.start_soon()`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel

from easynetwork.backends.abc import Cancellable, SessionTasks
from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.servers._core.verdict import as_exception, interrupts, scope_error


class _Task:
    """A task, from the moment in which it is started."""

    __slots__ = ("func", "name", "scope")

    def __init__(self, func: Callable[[], Coroutine[Any, Any, object]], name: str) -> None:
        self.func: Callable[[], Coroutine[Any, Any, object]] = func
        self.name: str = name
        self.scope: Cancellable | None = None  # once it runs


class Background:
    """Owns the tasks of one client.

    Args:
        tasks: The owner of all of a server's tasks.
        log: Where to report what goes wrong after the client.
        fail: Called with an exception that has left one of them; returns whether it matters.

    Attributes:
        errors: The exceptions that have left them.
    """

    __slots__ = (
        *("_fail", "_has_given_up", "_idle", "_is_over", "_log", "_running", "_tasks"),
        "errors",
    )

    def __init__(
        self, tasks: SessionTasks, log: ServerLog, fail: Callable[[BaseException], bool]
    ) -> None:
        self.errors: list[BaseException] = []
        self._tasks = tasks
        self._fail = fail
        self._running: set[_Task] = set()
        self._idle = anyio.Event()  # when none runs any more
        self._is_over = False
        self._has_given_up = False  # those that still run are not waited for
        self._log = log

    def start(self, func: Callable[[], Coroutine[Any, Any, object]], name: str) -> None:
        """Run a coroutine function in a new task."""
        task = _Task(func, name)
        self._running.add(task)
        self._tasks.start(self._run, task, name=name)

    async def _run(self, task: _Task) -> None:
        error: BaseException | None = None
        try:
            with self._tasks.scope() as task.scope:
                if self._is_over:
                    task.scope.cancel()
                try:
                    await anyio.lowlevel.checkpoint()  # on no event loop does it begin at once
                    await task.func()
                except BaseException as exc:
                    error = exc
        except RuntimeError as exc:  # of the scope
            if not isinstance(error, Exception) and not interrupts(error):
                error = scope_error(exc)
        finally:
            self._running.discard(task)
            self._note_end()
        try:
            if error is not None:
                self._end_by(error, task)
        finally:
            del error  # its traceback refers to this frame

    def _end_by(self, error: BaseException, task: _Task) -> None:
        """Do something about an exception that has left a task."""
        if interrupts(error):
            raise error
        if self._is_over or self._tasks.is_cancelled():
            if isinstance(error, anyio.get_cancelled_exc_class()):
                return
        elif not isinstance(error, Exception):
            error = as_exception(error)  # now: when the tasks end, cancellations are expected
        if self._has_given_up:
            self._log.handler_errors += 1
            self._log.error("Exception occurred in %s, after its client", task.name, exc=error)
        elif self._fail(error):
            self.errors.append(error)

    async def finish(
        self, closing: Awaitable[None] | None, timeout: float, grace: float
    ) -> list[str]:
        """Cancel all tasks, and wait until they have ended.

        Args:
            closing: What to wait for before: the graceful end of the connection, if one of them may
                be waiting for that. To cancel it would reset the connection.
            timeout: The most seconds to wait for the tasks.
            grace: The most seconds to wait beyond that, and when the server stops.

        Returns:
            The names of those that still run.
        """
        self._is_over = True
        self._note_end()
        try:
            with self._tasks.scope():
                if closing is not None:
                    await closing
                self._cancel()
                with anyio.move_on_after(timeout):
                    await self._idle.wait()
        except anyio.get_cancelled_exc_class() as exc:
            # Of the server, on trio, or one that is not meant for this task. Go on in any case:
            # the connection is yet to be closed.
            if not self._tasks.is_cancelled():
                self.errors.append(as_exception(exc))
        self._cancel()
        with anyio.move_on_after(grace, shield=True):
            await self._idle.wait()
        self._has_given_up = True
        return sorted(task.name for task in self._running)

    def _note_end(self) -> None:
        if self._is_over and not self._running:
            self._idle.set()

    def _cancel(self) -> None:
        for task in self._running:
            if task.scope is not None:
                task.scope.cancel()
