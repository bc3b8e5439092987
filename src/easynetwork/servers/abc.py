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
    runs), listening again, and in the end *closed*. A `shutdown()` with a grace makes it
    *draining*, and then new again. Methods must be called in the event loop's thread, by any task.
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

    def is_draining(self) -> bool:
        """Whether `shutdown()` was called with a grace, and `serve_forever()` is not over yet."""
        return False

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
        a `shutdown()` the server still listens, and this may be called again. If the server has
        drained, this opens the listening sockets again: with port 0, at another port. Sockets that
        were given to `from_sockets()` cannot be opened again (`OSError`, `EBADF`).

        Args:
            is_up_event: Set when clients are being accepted.

        Raises:
            ServerClosedError: The server is closed.
            ServerAlreadyRunning: Another task is serving already.
        """

    @abstractmethod
    async def shutdown(self, *, grace: float = 0.0) -> None:
        """Stop `serve_forever()` and wait until it is over. Does nothing if it does not run.

        Without a grace, the tasks of all clients are cancelled. With a grace, the server drains
        before that:

        * Connections that wait to be accepted are accepted, and the listening sockets are closed:
          new ones are refused. `is_draining()` is true, also that of clients. TLS handshakes are
          dropped.
        * A client between two requests is closed at once, as if it had left: its generator, which
          waits at its first `yield`, gets GeneratorExit. One that has just connected has a second
          to send its first request.
        * A request that has arrived is finished, also if others were before it. After the last
          answer, the connection is closed.
        * A client in a conversation (at a later `yield`, in `on_connection()` or `recv_packet()`,
          in the middle of a packet) is closed when it has been silent for a second: nothing came
          from it, and nothing waits to be sent to it. `recv_packet()` raises `EndOfStreamError`.
        * A server of datagrams serves what its sockets hold, and takes nothing after that.
          Generators that wait for more are closed.

        This ends when the last client has left, or the grace is over. What runs then is cancelled.
        A handler may call this in its client's own task: it does not wait for that client, which is
        cancelled at the end. If it is called while the server drains, the shorter grace holds.

        May be called by several tasks at once. If it is cancelled, the server stops all the same.

        One second after the cancellation this returns, always. If something still runs then, the
        log gets one ERROR that names it. On asyncio, `serve_forever()` abandons the clients whose
        tasks still run, and returns as well. trio cannot abandon tasks: there, `serve_forever()`
        returns when they have ended.

        Warning:
            The task that runs `serve_forever()` must not call this: it would wait for itself.

        Args:
            grace: Seconds that clients have, on the event loop's clock; infinity for no limit.

        Raises:
            ValueError: `grace` is negative or not a number.
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

    def is_draining(self) -> bool:
        """Whether `shutdown()` was called with a grace, and the server has not stopped yet."""
        return False

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
    def shutdown(self, timeout: float | None = None, *, grace: float = 0.0) -> None:
        """Stop `serve_forever()` and wait until it is over. Does nothing if it does not run.

        With a grace, the server drains before: see `AbstractAsyncNetworkServer.shutdown()`.

        Warning:
            The thread that runs `serve_forever()` must not call this: it would wait for itself.

        Args:
            timeout: The most seconds to wait; None for no limit. The server stops all the same.
            grace: Seconds that clients have to come to an end.

        Raises:
            ValueError: `grace` is negative or not a number.
        """

    @abstractmethod
    def server_close(self) -> None:
        """Close the listening sockets for good. May be called several times."""
