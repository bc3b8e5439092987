"""Virtual time: an event loop whose clock jumps to the next timer when no task can go on.

This is the asyncio loop, and what both backends share; trio's clock is in `_virtual_trio`.

The clock must not jump while a worker thread computes what a task waits for, but it must jump while
such a thread waits for the event loop: `client.recv_packet(timeout=300)` in a blocking handler, for
example, ends at a timer of the loop. A thread waits like this in `Future.result()` of
`concurrent.futures`, and the future is done from the moment when the loop has answered. So there is
no instant at which a thread that can go on looks like one that waits. Nothing tells the loop when a
thread begins to wait: it looks again after each `SLICE`.
"""

from __future__ import annotations

import asyncio
import gc
import math
import selectors
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextvars import Context
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

import anyio.to_thread

from easynetwork._extras import requiring
from easynetwork._typevars import _T, _Ts
from easynetwork.servers._core.threads import occupied_threads

SLICE: Final = 0.001
"""Seconds of real time between two looks at the worker threads."""

GRACE: Final = 0.5
"""Seconds of real time that other threads have to call the loop when nothing else can happen."""

REFUSAL: Final = (
    "Virtual time does not wait for real sockets, pipes and processes: its clock would jump before "
    "they are ready. Run this code in real time, or without them"
)

# The functions in which the worker threads of executors, anyio and trio wait for work and do it.
# The names of the threads do not tell: executors have one of the program's, trio names the work.
_WORKERS: Final = {
    ("concurrent.futures.thread", "_worker"),
    ("anyio._backends._asyncio", "WorkerThread.run"),
    ("trio._core._thread_cache", "WorkerThread._work"),
}

_LIBRARIES: Final = {"_pytest", "anyio", "asyncio", "easynetwork", "pluggy", "trio"}

_LINKS: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)


def virtual_time(backend: str = "asyncio") -> dict[str, Any]:
    """Return the options of a runner whose clock jumps to the next timer when no task can go on.

    A timeout of minutes is tested in milliseconds, and the same program sees the same times::

        anyio.run(main, backend="trio", backend_options=virtual_time("trio"))


        @pytest.fixture(params=[(name, virtual_time(name)) for name in ("asyncio", "trio")])
        def anyio_backend(request):
            return request.param

    The clock is that of `anyio.current_time()`, `loop.time()` and `trio.current_time()`, and of all
    sleeps and timeouts of these libraries. It starts at 0 with each run. `time.monotonic()` and
    `time.sleep()` remain real.

    The clock stands still while a worker thread runs for a task: those of `anyio.to_thread`,
    `asyncio.to_thread()`, `loop.run_in_executor()` and `trio.to_thread`, and of blocking request
    handlers. Other threads, and those that a cancelled task has abandoned, do not stop it; neither
    does a worker thread that waits for the event loop, or for another `concurrent.futures.Future`.

    A task that waits for a real socket, pipe or process gets a RuntimeError. If no task can ever go
    on (there is no timer, no thread at work, and for half a second no other thread has called the
    loop), the main task gets a RuntimeError that names the waiting tasks, and the lines where they
    wait. This is not so while another thread runs that is neither a daemon nor an idle worker.

    Args:
        backend: `"asyncio"` or `"trio"`.

    Raises:
        ModuleNotFoundError: `"trio"` was asked for and is not installed.
        ValueError: There is no virtual time for that backend; nor for uvloop, whose clock is real.
    """
    match backend:
        case "asyncio":
            return {"loop_factory": VirtualLoop}
        case "trio":
            with requiring("trio", "trio>=0.32"):
                from easynetwork.testing._virtual_trio import VirtualClock  # optional dependency
            clock = VirtualClock()
            return {"clock": clock, "instruments": [clock]}
        case "uvloop":
            raise ValueError("uvloop's clock is real: virtual time needs 'asyncio' or 'trio'")
        case _:
            raise ValueError(f"There is no virtual time for {backend!r}, only for asyncio and trio")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop with virtual time."""

    def __init__(self) -> None:
        self._waiter = _Waiter()
        super().__init__(self._waiter)
        # asyncio runs a timer if it is due before now + resolution, which must not be now: after
        # 194 days, a nanosecond more is the same number.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._waiter.now

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if when == math.inf:  # anyio.sleep_forever(), for example: no time at which to arrive
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        future = super().run_in_executor(executor, func, *args)
        self._waiter.jobs.add(future)
        future.add_done_callback(self._waiter.jobs.discard)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        self._waiter.jobs.add(self)  # a thread joins the others, with a timeout from Python 3.12 on
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._waiter.jobs.discard(self)

    async def _refuse(self, *args: Any, **options: Any) -> Any:
        raise RuntimeError(REFUSAL)

    # Their transports register in callbacks, whose errors would only be logged.
    create_connection = create_datagram_endpoint = create_server = _refuse
    create_unix_connection = create_unix_server = connect_accepted_socket = _refuse
    connect_read_pipe = connect_write_pipe = subprocess_exec = subprocess_shell = _refuse


class _Waiter(selectors.DefaultSelector):
    """The selector of a `VirtualLoop`: instead of waiting, it sets the clock forward."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.jobs: set[object] = set()  # of executors

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self.get_map():  # the loop's own socket, through which other threads wake it, is first
            raise RuntimeError(REFUSAL)
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        jobs = len(self.jobs)
        if threading.active_count() > 1:  # to look at all tasks takes time
            jobs += sum(map(_waits_for_thread, asyncio.all_tasks()))
        if are_threads_at_work(jobs):
            return super().select(SLICE)
        if ready := super().select(0):  # a thread has called, and waits, since the last look
            return ready
        if timeout is None:
            ready = super().select(GRACE)
            if not ready and not may_be_called():
                tasks = asyncio.all_tasks()
                chains = ((task.get_name(), _await_chain(task.get_coro())) for task in tasks)
                _raise_in_test(stuck(chains))
        else:
            self.now += timeout
        return ready


def _raise_in_test(error: RuntimeError) -> None:
    """Have what a test of anyio's plugin waits for raise an error; without one, raise it here.

    Raised out of the event loop, it would leave the test waiting in the task that it shares with
    the next tests and the fixtures.
    """
    runners = (task for task in asyncio.all_tasks() if _runs_tests(task))
    waiter: Any = next(runners, None)
    while isinstance(waiter, asyncio.Task):
        waiter = getattr(waiter, "_fut_waiter", None)
    if waiter is None:
        raise error
    waiter.set_exception(error)


def _runs_tests(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "") == "TestRunner._run_tests_and_fixtures"


def _waits_for_thread(task: asyncio.Task[Any]) -> bool:
    """Whether a thread runs for the task: `run_sync()` calls one coroutine, which waits for it."""
    chain = [*_await_chain(task.get_coro())]
    return len(chain) > 1 and chain[-2].f_code is anyio.to_thread.run_sync.__code__


def _await_chain(awaitable: object) -> Iterator[Any]:
    """Yield the frames of a task that waits, the innermost one last."""
    while awaitable is not None:
        if isinstance(awaitable, CoroutineType):
            yield awaitable.cr_frame
            awaitable = awaitable.cr_await
        elif isinstance(awaitable, GeneratorType):
            yield awaitable.gi_frame
            awaitable = awaitable.gi_yieldfrom
        elif isinstance(awaitable, AsyncGeneratorType):
            yield awaitable.ag_frame
            awaitable = awaitable.ag_await
        else:  # what `__anext__()` of an asynchronous generator returns does not tell of which
            links = (link for link in gc.get_referents(awaitable) if isinstance(link, _LINKS))
            awaitable = next(links, None)


# -- what both backends share


def are_threads_at_work(jobs: int) -> bool:
    """Whether a worker thread runs that does not wait for the event loop.

    Args:
        jobs: How many threads run for tasks, apart from those of blocking handlers.
    """
    jobs += occupied_threads()
    if not jobs:
        return False
    frames = sys._current_frames()
    del frames[threading.get_ident()]  # it refers to all of them
    return jobs > sum(map(_waits_for_future, frames.values()))


def _waits_for_future(frame: FrameType | None) -> bool:
    """Whether a thread is a worker, and waits for a future that is not done."""
    stack = [*_stack(frame)]
    if not any(map(_is_worker, stack)):
        return False
    futures = (each for each in stack if each.f_code is Future.result.__code__)
    waits = next(futures, None)
    future = None if waits is None else waits.f_locals.get("self")
    return isinstance(future, Future) and not future.done()


def _is_idle(frame: FrameType | None) -> bool:
    """Whether a thread is a worker, and waits for work."""
    stack = (each for each in _stack(frame) if _module(each) not in ("queue", "threading"))
    innermost = next(stack, None)
    return innermost is not None and _is_worker(innermost)


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_worker(frame: FrameType) -> bool:
    return (_module(frame), frame.f_code.co_qualname) in _WORKERS


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def may_be_called() -> bool:
    """Whether another thread may call the loop: not a daemon, an idle worker or a time limit."""
    frames = sys._current_frames()
    del frames[threading.get_ident()]
    others = (thread for thread in threading.enumerate() if thread.ident in frames)
    return any(
        not thread.daemon
        and not thread.name.startswith("pytest_timeout")
        and not _is_idle(frame := frames[thread.ident or 0])
        and not _waits_for_future(frame)
        for thread in others
    )


def stuck(tasks: Iterable[tuple[str, Iterable[FrameType]]]) -> RuntimeError:
    """Return the error for a run in which nothing can happen any more.

    Args:
        tasks: The names of the tasks, and their frames, the innermost one last.
    """
    message = "Nothing can happen any more: every task waits, and there is no timer"
    waiting = sorted(f"{name}{_place(frames)}" for name, frames in tasks)
    return RuntimeError("\n  ".join([f"{message}:", *waiting]))


def _place(frames: Iterable[FrameType]) -> str:
    """Return the line where a task waits: the innermost one that is not a library's."""
    for frame in reversed([*frames]):
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _LIBRARIES:
            code = frame.f_code
            return f", in {code.co_qualname} ({code.co_filename}:{frame.f_lineno})"
    return ""
