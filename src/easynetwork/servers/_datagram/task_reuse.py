"""Run the generators of many peers in few tasks.

Each generator behaves as if it had its own task. As an optimisation, a generator that ends without
having suspended, and that has left its context and cancel scopes as they were, hands its task to
the next one. So a burst of datagrams that are answered at once costs one task (half the time,
measured).

A generator that suspends keeps its task, and the others must not wait for it. Which task goes on
with them depends on how the event loop starts tasks. There are three cases:

1. *Eagerly* (asyncio from CPython 3.12 on): starting a task runs it up to its first suspension.
   `start_ready()` then sees that generators are left, and starts another task.
2. *Later* (trio, CPython 3.11, a loop with a task factory): starting a task only schedules it, so
   `start_ready()` leaves everything to that task. Before it runs a generator, the task therefore
   schedules a *successor*, if there is more than this generator to do. The successor begins when
   the generator suspends, or when everything is done.
3. *A successor that begins* finds something to do, and is then like the task of case 2; or nothing,
   and ends.

`_worker` is the task that began last. A task that is no longer `_worker` has suspended since
another one began, and takes no more generators.
"""

from __future__ import annotations

import contextvars
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from easynetwork.backends.abc import SessionTasks
from easynetwork.servers._core.verdict import scope_error
from easynetwork.servers._datagram.session import DatagramSession

_NO_WORKER: Final = object()


class TaskReuse:
    """Runs the generators of peers that have a datagram for them.

    Args:
        tasks: Where to start tasks.
        forget: Called with a session when its last generator has ended; an attribute, too.
        report: Called with a session and what left its generator; raises it if it is meant for the
            whole program.
    """

    def __init__(
        self,
        tasks: SessionTasks,
        forget: Callable[[DatagramSession], None],
        report: Callable[[DatagramSession, BaseException], None],
    ) -> None:
        self._tasks = tasks
        self.forget: Callable[[DatagramSession], None] = forget
        self._report = report
        self._context = contextvars.copy_context()
        self._hooks = sys.get_asyncgen_hooks()
        self._ready: deque[DatagramSession] = deque()  # their generators have yet to begin
        self._worker = _NO_WORKER
        self._is_starting = False  # start_ready() is on the stack

    def add(self, session: DatagramSession) -> None:
        """Have a generator of a session run by the next `start_ready()`."""
        self._ready.append(session)

    def clear(self) -> list[DatagramSession]:
        """Return the sessions whose generators have yet to begin, which they never will."""
        ready = list(self._ready)
        self._ready.clear()
        return ready

    def start(self, session: DatagramSession) -> None:
        """Have a generator of a session run soon. May be called in another's `_work()`."""
        self.add(session)
        self._start_rest()

    def start_ready(self) -> None:
        """Start tasks for the generators that have yet to begin."""
        self._is_starting = True
        try:
            while self._ready:
                self._worker = _NO_WORKER
                self._tasks.start(self._work)
                if self._worker is _NO_WORKER:  # it was only scheduled (2)
                    break
                self._worker = _NO_WORKER  # it has ended or suspended (1)
        finally:
            self._is_starting = False

    async def _work(self) -> None:
        """Run generators until one of them keeps this task."""
        worker = self._worker = object()
        if not self._ready:
            return  # (3)
        goes_on = self._is_starting or self._has_successor()
        last: DatagramSession | None = None  # its generator has kept this task
        end: BaseException | None = None
        try:
            scope = self._tasks.scope()
            with scope:
                while self._ready and self._worker is worker:
                    session = self._ready.popleft()
                    end = await session.converse(self._hooks)
                    if end is not None or not goes_on or not self._is_clean(scope):
                        last = session
                        break
                    self._settle(session)
        except RuntimeError as exc:  # of the scope
            end = end if isinstance(end, Exception) else scope_error(exc)
        try:
            if last is not None:
                self._finish(last, end)
        finally:
            del end  # an exception's traceback may refer to this frame
        if self._ready:
            self._start_rest()

    def _start_rest(self) -> None:
        if not self._is_starting and not self._tasks.is_cancelled():
            # A copy, because a context cannot be entered while it is entered already.
            self._context.copy().run(self.start_ready)

    def _has_successor(self) -> bool:
        """Schedule a successor of the current task, if there is more than one generator to run."""
        is_needed = len(self._ready) > 1 or any(session.has_waiting() for session in self._ready)
        if is_needed:
            self._tasks.start(self._work)
        return is_needed

    def _is_clean(self, scope: AbstractContextManager[object]) -> bool:
        """Whether the current context and cancel scopes are what they were at the beginning."""
        if not self._tasks.is_orderly(scope):
            return False
        try:
            return contextvars.copy_context() == self._context
        except Exception:  # of a value that cannot be compared: so it was set
            return False

    def _finish(self, session: DatagramSession, end: BaseException | None) -> None:
        try:
            if end is not None:
                self._report(session, end)
        finally:
            self._settle(session)

    def _settle(self, session: DatagramSession) -> None:
        """Let the next generator of a session follow, or forget the session."""
        if session.has_next():
            self._ready.append(session)
        else:
            self.forget(session)
