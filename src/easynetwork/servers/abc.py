"""What every server promises, whatever it serves."""

from __future__ import annotations

__all__ = ["AbstractAsyncNetworkServer", "AbstractNetworkServer", "SupportsEventSet"]

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Protocol, Self

from easynetwork.backends import AsyncBackend


class SupportsEventSet(Protocol):
    """What can be told that something has happened, such as an event of any framework."""

    def set(self) -> object:
        """Tell it."""


class AbstractAsyncNetworkServer(ABC):
    """A server inside an asynchronous program.

    It is *new*, then *listening* (from `server_activate()` on), *serving* (while `serve_forever()`
    runs), listening again, and in the end *closed*. Methods must be called in the event loop's
    thread, by any task.
    """

    __slots__ = ("__weakref__",)

    async def __aenter__(self) -> Self:
        """Call `server_activate()`."""
        await self.server_activate()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Call `server_close()`."""
        await self.server_close()

    @abstractmethod
    def is_listening(self) -> bool:
        """Whether the listening sockets are open."""

    @abstractmethod
    def is_serving(self) -> bool:
        """Whether new clients are being accepted."""

    @abstractmethod
    async def server_activate(self) -> None:
        """Open the listening sockets. Does nothing if they are open.

        If it fails, the server is as new, and this may be tried again.

        Raises:
            ServerClosedError: The server is closed.
            OSError: An address cannot be bound, or a name cannot be resolved.
            ExceptionGroup: Several of them: an `OSError` for each.
        """

    @abstractmethod
    async def serve_forever(self, *, is_up_event: SupportsEventSet | None = None) -> None:
        """Accept and serve clients, until the server is told to stop.

        Returns after `shutdown()`, or when the last client has left after `server_close()`. After
        a `shutdown()` the server still listens, and this may be called again.

        Args:
            is_up_event: Set when clients are being accepted.

        Raises:
            ServerClosedError: The server is closed.
            ServerAlreadyRunning: Another task is serving already.
        """

    @abstractmethod
    async def shutdown(self) -> None:
        """Stop `serve_forever()` and wait until it is over. Does nothing if it does not run.

        The tasks of all clients are cancelled. May be called by several tasks at once.

        One second after the cancellation this returns, always. If something still runs then, the
        log gets one ERROR that names it. On asyncio, `serve_forever()` abandons the clients whose
        tasks still run, and returns as well. trio cannot abandon tasks: there, `serve_forever()`
        returns when they have ended.

        Warning:
            The task that runs `serve_forever()` must not call this: it would wait for itself.
        """

    @abstractmethod
    async def server_close(self) -> None:
        """Close the listening sockets for good. May be called several times.

        Clients that are connected are served until they leave; then `serve_forever()` returns.

        Raises:
            BusyResourceError: `serve_forever()` is just starting: `service_init()` is not over.
        """

    @abstractmethod
    def backend(self) -> AsyncBackend:
        """Return the backend that the server runs on."""


class AbstractNetworkServer(ABC):
    """A server that needs no asynchronous program: it takes a thread and runs its own loop.

    All methods but `serve_forever()` may be called by any thread, at any time.
    """

    __slots__ = ("__weakref__",)

    def __enter__(self) -> Self:
        """Return the server, which `serve_forever()` opens."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Call `server_close()`."""
        self.server_close()

    @abstractmethod
    def is_serving(self) -> bool:
        """Whether new clients are being accepted."""

    @abstractmethod
    def serve_forever(self, *, is_up_event: SupportsEventSet | None = None) -> None:
        """Accept and serve clients in this thread, until the server is told to stop.

        Args:
            is_up_event: Set when clients are being accepted.

        Raises:
            ServerClosedError: The server is closed.
            ServerAlreadyRunning: Another thread is serving already.
        """

    @abstractmethod
    def shutdown(self, timeout: float | None = None) -> None:
        """Stop `serve_forever()` and wait until it is over. Does nothing if it does not run.

        Warning:
            The thread that runs `serve_forever()` must not call this: it would wait for itself.

        Args:
            timeout: The most seconds to wait; None for no limit.
        """

    @abstractmethod
    def server_close(self) -> None:
        """Close the listening sockets for good. May be called several times."""
