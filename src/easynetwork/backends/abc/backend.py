"""The contract for event loops."""

from __future__ import annotations

__all__ = ["AsyncBackend"]

import math
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from easynetwork._typevars import _T, _Ts
from easynetwork.backends.abc.datagram import DatagramEndpoint
from easynetwork.backends.abc.stream import StreamTransport
from easynetwork.backends.abc.tasks import SessionObserver, SessionTasks
from easynetwork.sockets.datagrams import DatagramCalls

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal


class AsyncBackend(ABC):
    """An asynchronous framework, under the names that are the same for all of them.

    Handlers and client code may use the framework itself, anyio or these methods as they like:
    everything runs in ordinary tasks of the loop. Unless said otherwise, methods must be called in
    the event loop's thread.
    """

    __slots__ = ("__weakref__",)

    name: ClassVar[str]
    """The framework's name, as anyio spells it."""

    @abstractmethod
    def bootstrap(
        self,
        coro_func: Callable[[*_Ts], Coroutine[Any, Any, _T]],
        *args: *_Ts,
        runner_options: Mapping[str, Any] | None = None,
    ) -> _T:
        """Run a coroutine function in a new event loop of this thread and return its result.

        Args:
            coro_func: The coroutine function.
            *args: Its positional arguments.
            runner_options: Keyword arguments of `asyncio.Runner` or of `trio.run`.
        """

    @abstractmethod
    def wrap_stream_socket(
        self, sock: socket.socket, feed: Callable[[bytes], int], max_recv_size: int
    ) -> StreamTransport:
        """Put a connected, non-blocking stream socket under the loop's care.

        Args:
            sock: The socket. It belongs to the transport from now on, and is closed if this fails.
            feed: See `StreamTransport.feed`.
            max_recv_size: The most bytes taken from the connection per turn of the loop.

        Raises:
            OSError: The peer has left already, or the loop cannot watch more sockets.
        """

    @abstractmethod
    def wrap_datagram_socket(
        self, sock: socket.socket, calls: DatagramCalls | None = None
    ) -> DatagramEndpoint:
        """Put a bound or connected, non-blocking datagram socket under the loop's care.

        Args:
            sock: The socket. It belongs to the endpoint from now on, and is closed if this fails.
            calls: How to receive from it and send; None for the way of its kind.

        Raises:
            OSError: The loop cannot watch more sockets, or other code has closed the descriptor.
        """

    @abstractmethod
    def create_session_tasks(self, observer: SessionObserver) -> SessionTasks:
        """Return a new owner of tasks."""

    # -- doors to anyio

    def timeout(self, delay: float | None) -> AbstractContextManager[anyio.CancelScope]:
        """Return a context manager that raises `TimeoutError` if its block takes longer.

        Args:
            delay: Seconds; None for no limit.
        """
        return anyio.fail_after(delay)

    def timeout_at(self, deadline: float) -> AbstractContextManager[anyio.CancelScope]:
        """Like `timeout()`, with a point in time on the clock of `current_time()`."""
        return anyio.fail_after(deadline - self.current_time())

    def move_on_after(self, delay: float | None) -> anyio.CancelScope:
        """Return a context manager that leaves its block after that many seconds, silently."""
        return anyio.move_on_after(delay)

    def move_on_at(self, deadline: float) -> anyio.CancelScope:
        """Like `move_on_after()`, with a point in time on the clock of `current_time()`."""
        return anyio.CancelScope(deadline=deadline)

    def open_cancel_scope(self, *, deadline: float = math.inf) -> anyio.CancelScope:
        """Return a context manager whose block can be cancelled by its `cancel()` method."""
        return anyio.CancelScope(deadline=deadline)

    def create_task_group(self) -> anyio.abc.TaskGroup:
        """Return an asynchronous context manager that owns tasks: see `anyio.abc.TaskGroup`."""
        return anyio.create_task_group()

    async def gather(self, *coroutines: Coroutine[Any, Any, _T]) -> list[_T]:
        """Run coroutines concurrently and return their results, in the order of the arguments.

        One that is given several times runs once, as with `asyncio.gather()`.

        Raises:
            ExceptionGroup: Some failed; the others have been cancelled.
        """
        results: dict[int, _T] = {}

        async def run(key: int, coroutine: Coroutine[Any, Any, _T]) -> None:
            results[key] = await coroutine

        async with anyio.create_task_group() as task_group:
            for key, coroutine in {id(coroutine): coroutine for coroutine in coroutines}.items():
                task_group.start_soon(run, key, coroutine)
        return [results[id(coroutine)] for coroutine in coroutines]

    async def sleep(self, delay: float) -> None:
        """Pause this task for that many seconds."""
        await anyio.sleep(delay)

    async def sleep_forever(self) -> None:
        """Pause this task until it is cancelled."""
        await anyio.sleep_forever()

    async def sleep_until(self, deadline: float) -> None:
        """Pause this task until that time on the clock of `current_time()`."""
        await anyio.sleep_until(deadline)

    def current_time(self) -> float:
        """Return the event loop's clock, in seconds."""
        return anyio.current_time()

    async def coro_yield(self) -> None:
        """Let other tasks run. Can be cancelled."""
        await anyio.lowlevel.checkpoint()

    async def cancel_shielded_coro_yield(self) -> None:
        """Let other tasks run. Cannot be cancelled: the next pause is, instead."""
        await anyio.lowlevel.cancel_shielded_checkpoint()

    async def ignore_cancellation(self, coroutine: Awaitable[_T]) -> _T:
        """Await to the end, whatever is cancelled meanwhile, and however often.

        That holds for cancel scopes, and on asyncio for `Task.cancel()` and `asyncio.timeout()`,
        too. There, the coroutine runs in a task of its own: it sees this task's context variables,
        and what it sets is seen here afterwards, but it must not release a lock that this task
        holds. `asyncio.run()` cancels that task as well if it ends before.

        A cancellation is delivered when the coroutine has ended: at once, by an exception in place
        of the result, if it was asyncio's own; at the next pause, if a cancel scope was cancelled
        or the coroutine raised an exception, which is raised here.

        Args:
            coroutine: What to await.
        """
        with anyio.CancelScope(shield=True):
            result = await coroutine
        return result

    def get_cancelled_exc_class(self) -> type[BaseException]:
        """Return the class of the exception that tells a task that it is cancelled."""
        return anyio.get_cancelled_exc_class()

    def get_current_task(self) -> anyio.TaskInfo:
        """Return the running task's identity and name."""
        return anyio.get_current_task()

    def create_lock(self) -> anyio.Lock:
        """Return a lock; tasks get it in the order in which they asked."""
        return anyio.Lock()

    def create_fair_lock(self) -> anyio.Lock:
        """Return a lock; tasks get it in the order in which they asked."""
        return anyio.Lock()

    def create_event(self) -> anyio.Event:
        """Return an event that tasks can wait for."""
        return anyio.Event()

    def create_condition_var(self, lock: anyio.Lock | None = None) -> anyio.Condition:
        """Return a condition variable around a lock, by default one of its own."""
        return anyio.Condition(lock)

    async def run_in_thread(
        self, func: Callable[[*_Ts], _T], *args: *_Ts, abandon_on_cancel: bool = False
    ) -> _T:
        """Call a blocking function in a worker thread and return its result.

        Cancelled before a thread was free, the function is not called. Later, this waits until the
        function has returned; then the cancellation is delivered as by `ignore_cancellation()`.

        Args:
            func: The function.
            *args: Its positional arguments.
            abandon_on_cancel: Let the thread go on alone if this task is cancelled, instead of
                waiting for it.
        """
        return await anyio.to_thread.run_sync(func, *args, abandon_on_cancel=abandon_on_cancel)

    def create_threads_portal(self) -> BlockingPortal:
        """Return an asynchronous context manager through which other threads call into the loop."""
        from anyio.from_thread import BlockingPortal

        return BlockingPortal()
