"""The contract for the tasks in which a server serves its clients."""

from __future__ import annotations

__all__ = ["Cancellable", "SessionObserver", "SessionTasks"]

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from easynetwork._typevars import _Ts

CoroFunc: TypeAlias = Callable[[*_Ts], Coroutine[Any, Any, None]]


class Cancellable(Protocol):
    """A cancel scope, as far as all event loops have it."""

    def cancel(self) -> None:
        """Cancel the code in it."""


class SessionObserver(Protocol):
    """What the owner of `SessionTasks` does about their failures."""

    def interrupts(self, exc: BaseException, /) -> bool:
        """Whether an exception is meant for the whole program."""

    def uncaught(self, exc: BaseException, name: str, /) -> None:
        """Report an exception that has left a task.

        Args:
            exc: The exception.
            name: The task's name.
        """

    def still_running(self, names: list[str], /) -> None:
        """Report tasks that have not ended in time after they were cancelled."""


class SessionTasks(ABC):
    """Owns the tasks in which clients are served: an asynchronous context manager.

    Leaving the block waits for all tasks; leaving it by an exception, or being cancelled while it
    waits, cancels the code in their `scope()`s first. On asyncio, tasks that still run after
    `STOP_TIMEOUT` seconds are given up; on trio, no task can be.

    A task that fails is reported to the observer, and the others go on. Only if the exception is
    one that `interrupts()` the program, the block and all tasks are cancelled, and it is raised at
    the end of the block.

    anyio's task groups cost three times as much for each task, in time and in memory (measured).
    """

    __slots__ = ("__weakref__", "clock", "has_given_up", "is_ending", "thread")

    clock: Callable[[], float]
    """Returns the time on the event loop's clock. In callbacks, too, where anyio's does not."""

    has_given_up: bool
    """Whether `give_up()` was called: a task that still runs should end as soon as it can."""

    is_ending: bool
    """Whether a task has to ask before it waits for its client: after `give_up()`, and while the
    server drains."""

    thread: int
    """The event loop's thread, as `threading.get_ident()` names it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.has_given_up = False
        self.is_ending = False
        self.thread = threading.get_ident()

    def check_thread(self) -> None:
        """Make sure that the caller runs in the event loop's thread.

        Raises:
            RuntimeError: It does not.
        """
        if threading.get_ident() != self.thread:
            raise RuntimeError(
                "A client may only be used in the thread of its event loop. In another thread, "
                "call its methods with anyio.from_thread.run() or run_sync(), or with the "
                "server's portal"
            )

    @abstractmethod
    def start(
        self,
        coro_func: CoroFunc[*_Ts],
        *args: *_Ts,
        name: str | None = None,
        otherwise: Callable[[], object] | None = None,
    ) -> None:
        """Run a coroutine function in a task of its own, in a copy of the current context.

        Where the event loop can do that, the task runs up to its first suspension at once.

        Args:
            coro_func: The coroutine function.
            *args: Its positional arguments.
            name: The task's name, for debuggers; by default, the framework's choice.
            otherwise: Called if other code has cancelled the task before it entered a `scope()`.
        """

    @abstractmethod
    def scope(self) -> AbstractContextManager[Cancellable]:
        """Return a cancel scope for the code of one task: it is cancelled when the tasks are.

        Raises:
            RuntimeError: On leaving: the code inside has left another scope open. Such a scope may
                be cancelled at any time, so the task should end, and what is left to do be done in
                a new one.
        """

    @abstractmethod
    def is_orderly(self, scope: AbstractContextManager[object]) -> bool:
        """Whether the code in a `scope()` of the current task has left no other one open so far."""

    @abstractmethod
    def is_cancelled(self) -> bool:
        """Whether the calling task ends because all do. To be asked outside of its `scope()`."""

    @abstractmethod
    def is_scope_cancelled(self) -> bool:
        """Whether the code in the calling task's `scope()` is cancelled, all of it."""

    @abstractmethod
    def is_current(self) -> bool:
        """Whether the calling task is one of these, and has entered a `scope()`."""

    @abstractmethod
    def give_up(self) -> None:
        """Cancel no more, and report the tasks that still run."""

    @abstractmethod
    async def __aenter__(self) -> SessionTasks: ...

    @abstractmethod
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None: ...
