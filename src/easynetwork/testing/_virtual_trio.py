"""Virtual time on trio: see `_virtual_time`.

`trio.testing.MockClock` jumps while worker threads run. If its `autojump_threshold` is raised
meanwhile, nothing makes trio look again when a thread begins to wait for the event loop.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from itertools import pairwise
from types import FrameType, SimpleNamespace
from typing import Any, Final, NoReturn, cast

import trio
import trio.testing

from easynetwork.testing._virtual_time import (
    GRACE,
    REFUSAL,
    SLICE,
    are_threads_at_work,
    may_be_called,
    stuck,
)

_IN_THREAD: Final = (trio.to_thread.run_sync.__code__, trio.lowlevel.wait_task_rescheduled.__code__)
_WAITS_FOR_SOCKET: Final = {
    trio.lowlevel.wait_readable.__code__,
    trio.lowlevel.wait_writable.__code__,
}
_WATCHES: Final = trio.testing.wait_all_tasks_blocked.__code__


class VirtualClock(threading.local, trio.abc.Clock, trio.abc.Instrument):
    """A clock that jumps to the next deadline when no task can go on, anew for each run.

    trio calls `deadline_to_sleep_time()` when no task is runnable, before it polls. If it calls it
    again and no task has run meanwhile, there was nothing to poll.
    """

    def start_clock(self) -> None:
        self._now = 0.0
        self._looks = 0  # calls of deadline_to_sleep_time() since a task ran
        self._in_threads: set[trio.lowlevel.Task] = set()
        self._watching: set[trio.lowlevel.Task] = set()  # in wait_all_tasks_blocked()
        self._main: trio.lowlevel.Task | None = None

    def after_run(self) -> None:
        self.start_clock()  # nothing of a run is kept

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        self._looks += 1
        if self._watching:
            return GRACE  # they are woken up in less
        if self._looks == 1:
            return 0
        if are_threads_at_work(len(self._in_threads)):
            self._looks = 1
            return SLICE
        if self._looks == 2:  # a thread may have called, and wait, since trio has polled
            return 0
        if deadline < math.inf:
            self._now = max(deadline, self._now)
            return 0
        if self._looks == 3 or self._main is None or may_be_called():
            return GRACE
        _raise_in(self._main, stuck(_tasks(self._main)))
        return 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._looks = 0
        if task.parent_nursery is None:  # the first task, which starts trio's own and the main task
            self._main = self._main or next(iter(task.child_nurseries[-1].child_tasks), None)
            return
        codes = [frame.f_code for frame, _ in task.iter_await_frames()]
        self._in_threads.discard(task)
        self._watching.discard(task)
        if _IN_THREAD in pairwise(codes):
            self._in_threads.add(task)
        elif _WATCHES in codes:
            self._watching.add(task)
        # Of the system tasks, one waits for calls of other threads, by means of a socket.
        is_system_task = task.parent_nursery.parent_task.parent_nursery is None
        if not _WAITS_FOR_SOCKET.isdisjoint(codes) and (task is self._main or not is_system_task):
            _raise_in(task, RuntimeError(REFUSAL))


def _tasks(task: trio.lowlevel.Task) -> Iterator[tuple[str, list[FrameType]]]:
    """Yield the names and the frames of a task and of those that it has started."""
    yield task.name, [frame for frame, _ in task.iter_await_frames()]
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child)


def _raise_in(task: trio.lowlevel.Task, error: Exception) -> None:
    """Have what a task waits for raise an exception, as trio does itself with KeyboardInterrupt."""

    def raise_error() -> NoReturn:
        raise error

    abort = getattr(task, "_attempt_abort", None)
    if abort is None:  # the public way, which does not clean up after the wait
        trio.lowlevel.reschedule(task, cast("Any", SimpleNamespace(unwrap=raise_error)))
    elif getattr(task, "_abort_func", None) is not None:  # it is not cancelled
        abort(raise_error)


def is_time_virtual() -> bool:
    """Whether the clock of the running event loop is a `VirtualClock`."""
    return isinstance(trio.lowlevel.current_clock(), VirtualClock)
