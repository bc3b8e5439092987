"""Request handlers whose methods may block, for asynchronous and standalone servers.

A thread runs the methods of one client, and the generator that the server drives in the client's
task receives for it: the thread posts what it wants into the event loop, and waits for the result.

    waiting for a thread -> handled by it -> ended (the client has left, the server stops) -> over

Whatever ends a client is raised where its thread receives or sends, so no thread waits for a client
that is gone.
"""

from __future__ import annotations

__all__ = [
    "AnyDatagramRequestHandler",
    "AnyStreamRequestHandler",
    "BlockingClient",
    "BlockingDatagramRequestHandler",
    "BlockingStreamRequestHandler",
]

import contextlib
import errno
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

import anyio

from easynetwork._arguments import strictly_positive, validated_delay
from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.exceptions import ClientClosedError, EndOfStreamError, UnsupportedOperation
from easynetwork.servers.handlers import (
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    BaseRequestHandler,
)
from easynetwork.servers.statistics import ClientStatistics, CloseReason

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal


class BlockingClient(Generic[_T_Request, _T_Response]):
    """A client, as the methods of blocking handlers see it. Any thread may call any method.

    Not to be called in the event loop's thread.

    Attributes:
        close_reason: Why the connection ended, as far as it was not `handle()` that has ended it:
            None if that has returned or raised an exception. `on_disconnection()` can tell by it.
    """

    __slots__ = (
        *("__weakref__", "_ahead", "_client", "_end", "_loop_thread"),
        *("_portal", "_turn", "_wake_up", "_wanted", "close_reason"),
    )

    def __init__(self, client: Any, portal: BlockingPortal) -> None:
        self.close_reason: CloseReason | None = None
        self._client = client
        self._portal = portal
        self._loop_thread = threading.get_ident()
        self._turn = threading.Lock()  # held by the thread that receives
        self._wanted: tuple[float | None, Future[_T_Request]] | None = None
        self._wake_up = anyio.Event()
        self._ahead = anyio.CancelScope()  # of `_receive_ahead()`
        self._end: Callable[[], ConnectionError] | None = None

    # -- in any thread

    def recv_packet(self, *, timeout: float | None = None) -> _T_Request:
        """Wait for a packet and return it.

        Args:
            timeout: The most seconds to wait; None for no limit.

        Raises:
            TimeoutError: No packet came in this time.
            EndOfStreamError: The client has left.
            ClientClosedError: It was closed here, or the server stops.
            BaseProtocolParseError: The client sent something that is not a packet. The next call
                continues after it.
            ProtocolCrashedError: The protocol object has a bug (the cause).
        """
        if not self._turn.acquire(blocking=False):
            timeout = self._wait_for_turn(timeout)
        future: Future[_T_Request] = Future()
        try:
            self._call(self._post, timeout, future)
            return future.result()
        finally:
            self._turn.release()
            del future  # its exception's traceback refers to this frame

    def _wait_for_turn(self, timeout: float | None) -> float | None:
        """Wait while another thread receives; return what is left of the timeout."""
        self._call(self.is_closing)  # raises in the event loop's thread, which must not wait
        limit, start = validated_delay(timeout), time.monotonic()
        if not self._turn.acquire(timeout=min(limit, threading.TIMEOUT_MAX)):
            raise TimeoutError("timed out")
        return None if timeout is None else max(limit - (time.monotonic() - start), 0)

    def packets(self, *, timeout: float | None = None) -> Iterator[_T_Request]:
        """Yield packets until the client has left, or is closed.

        Args:
            timeout: The most seconds to wait for each packet; None for no limit.

        Raises:
            Exception: What `recv_packet()` raises, but for a `ConnectionError`.
        """
        with contextlib.suppress(ConnectionError):
            while True:
                packet = self.recv_packet(timeout=timeout)
                yield packet

    def send_packet(self, packet: _T_Response) -> None:
        """Send a packet; wait as long as too much waits for the client.

        Raises:
            ClientClosedError: The client was closed here, or the server stops.
            Exception: What `AsyncStreamClient.send_packet()` raises, or that of a datagram.
        """
        self._call(self._client.send_packet, packet)

    def close(self) -> None:
        """Close the connection gracefully: see `AsyncStreamClient.aclose()`.

        Raises:
            UnsupportedOperation: The server has no connections.
        """
        self._call(self._connected().aclose)

    def is_closing(self) -> bool:
        """Whether sending raises `ClientClosedError`."""
        return self._end is closed or bool(self._client.is_closing())

    def is_draining(self) -> bool:
        """Whether the server drains: see `AsyncStreamClient.is_draining()`."""
        return bool(self._client.is_draining())

    def set_limits(self, **timeouts: float | None) -> None:
        """Allow this client something else than the others: see `AsyncStreamClient.set_limits()`.

        Args:
            **timeouts: Timeouts of `Limits` with their new values.

        Raises:
            UnsupportedOperation: The server has no connections.
            Exception: What `AsyncStreamClient.set_limits()` raises.
        """
        self._call(partial(self._connected().set_limits, **timeouts))

    def get_statistics(self) -> ClientStatistics:
        """Return what has happened on the connection so far.

        Raises:
            UnsupportedOperation: The server has no connections.
            ClientClosedError: The server has stopped.
        """
        client, found = self._connected(), list[ClientStatistics]()
        self._call(lambda: found.append(client.get_statistics()))
        return found[0]

    def _connected(self) -> AsyncStreamClient[Any]:
        if not isinstance(self._client, AsyncStreamClient):
            raise UnsupportedOperation("There is no connection")
        return self._client

    def extra(self, *args: Any) -> Any:
        """Return what is known of the client: see `AsyncStreamClient.extra()`."""
        return self._client.extra(*args)

    def _call(self, function: Any, *args: Any) -> None:
        """Call a function in the event loop, and wait for it."""
        errors: list[BaseException] = []
        try:
            self._portal.start_task_soon(_collect, errors, function, *args).result()
        except (RuntimeError, CancelledError):  # the portal or its task group has ended, unless
            if self._end is None and threading.get_ident() == self._loop_thread:
                raise
            raise self._ended() from None
        if errors:
            raise errors.pop()  # nothing else may keep it: its traceback refers to this frame

    def _ended(self) -> ConnectionError:
        """Return what is raised at the end: when the server stops, also while its session goes on.

        A new one each time: the traceback of one that was raised refers to this client.
        """
        self._end = self._end or closed
        error = self._end()
        vars(error)["_easynetwork_client"] = self
        return error

    # -- in the event loop

    def _post(self, timeout: float | None, future: Future[_T_Request]) -> None:
        if self._end is not None:
            future.set_exception(self._ended())
        else:
            self._wanted = timeout, future
            self._resume()

    def _answer(self, answer: Callable[[Future[Any], Any], None], value: object) -> None:
        """End the attempt to receive, if there is one."""
        if self._wanted is not None:
            (_, future), self._wanted = self._wanted, None
            answer(future, value)

    def _finish(
        self, end: Callable[[], ConnectionError], reason: CloseReason | None = None
    ) -> None:
        """Have all attempts to receive raise an exception."""
        self._end = end
        self.close_reason = self.close_reason or reason
        self._answer(Future.set_exception, self._ended())

    async def _receive_ahead(self, job: Future[None]) -> None:
        """Receive until the thread wants to; cancel the job if the client leaves before.

        This ends with the first bytes: a client that sends a request and then ends its stream is
        still answered.
        """
        with self._ahead:
            try:
                while not self._client.decoder:
                    await self._client.transport.receive()
            except (EOFError, ConnectionError):
                job.cancel()

    def _resume(self) -> None:
        """Let the generator go on."""
        self._wake_up.set()
        self._ahead.cancel()

    async def _leave(self) -> None:
        """Let the generator go on after the thread has finished, also if another one receives."""
        self._resume()
        if self._wanted is not None and isinstance(self._client, AsyncStreamClient):
            await self._client.aclose()


async def _collect(errors: list[BaseException], function: Any, *args: Any) -> None:
    """Call a function, and collect what it raises: SystemExit, for one, would end the portal."""
    try:
        result = function(*args)
        if isinstance(result, Awaitable):
            await result
    except anyio.get_cancelled_exc_class():
        raise
    except BaseException as exc:
        errors.append(exc)


def closed() -> ClientClosedError:
    return ClientClosedError("Closed client")


def left() -> EndOfStreamError:
    return EndOfStreamError(errno.ECONNABORTED, "The client has left")


class BlockingRequestHandler(BaseRequestHandler):
    __slots__ = ("_max_threads",)

    def __init__(self, *, max_threads: int = 100) -> None:
        """Prepare the handler.

        Args:
            max_threads: How many clients may be served at the same time. More wait for their turn,
                first come, first served. A server has so many threads at most, and starts them when
                they are needed.

        Raises:
            ValueError: `max_threads` is not a strictly positive integer.
        """
        self._max_threads = strictly_positive(max_threads, "max_threads")

    @abstractmethod
    def _serve(self, client: BlockingClient[Any, Any]) -> None:
        """Serve a client, in a thread."""


class BlockingStreamRequestHandler(BlockingRequestHandler, ABC, Generic[_T_Request, _T_Response]):
    """The request handler of a server with connections, with plain methods.

    All three run in one thread for each client, so they may block: neither the event loop nor other
    clients wait for them. There is one handler for the whole service: what belongs to a client goes
    into local variables of `handle()`.

    `service_init()` is a coroutine function, as for asynchronous handlers, and runs in the event
    loop. The context variables that it sets are visible in the methods.

    If a client leaves before a thread is free for it, and has sent nothing, no method is called.

    An exception that leaves a method is dealt with like one that leaves
    `AsyncStreamRequestHandler.handle()`. When the server stops, what waits in `recv_packet()` gets
    a `ClientClosedError` at once, and what waits in `send_packet()` gets it half a second later if
    the client does not read. Other code cannot be interrupted.

    The program does not exit while one of these threads runs, even if the server itself runs in a
    daemon thread: stop the server first.
    """

    __slots__ = ()

    def on_connection(self, client: BlockingClient[_T_Request, _T_Response], /) -> None:
        """Greet a client, before `handle()`. The default does nothing."""

    @abstractmethod
    def handle(self, client: BlockingClient[_T_Request, _T_Response], /) -> None:
        """Serve a client. When this returns, the connection is closed.

        Args:
            client: The client.
        """
        raise NotImplementedError

    def on_disconnection(self, client: BlockingClient[_T_Request, _T_Response], /) -> None:
        """Clean up after a client, after `handle()`. The default does nothing.

        Not called if `on_connection()` raised an exception.
        """

    def _serve(self, client: BlockingClient[Any, Any]) -> None:
        self.on_connection(client)
        try:
            self.handle(client)
        finally:
            self.on_disconnection(client)


class BlockingDatagramRequestHandler(BlockingRequestHandler, ABC, Generic[_T_Request, _T_Response]):
    """The request handler of a server without connections, with a plain method.

    Everything is as for `BlockingStreamRequestHandler`, except for what is said here.
    """

    __slots__ = ()

    @abstractmethod
    def handle(self, client: BlockingClient[_T_Request, _T_Response], /) -> None:
        """Serve one datagram, or several of the same peer.

        The first `recv_packet()` returns the datagram for which this is called. Further ones of
        this peer wait, as `AsyncDatagramRequestHandler.handle()` says. If another peer needs the
        place of this one (see `DatagramLimits`), a `recv_packet()` that waits raises
        `TimeoutError`, and the next one `EndOfStreamError`.

        Args:
            client: The sender.
        """
        raise NotImplementedError

    def _serve(self, client: BlockingClient[Any, Any]) -> None:
        self.handle(client)


AnyStreamRequestHandler: TypeAlias = (
    AsyncStreamRequestHandler[_T_Request, _T_Response]
    | BlockingStreamRequestHandler[_T_Request, _T_Response]
)
"""What servers with connections take."""

AnyDatagramRequestHandler: TypeAlias = (
    AsyncDatagramRequestHandler[_T_Request, _T_Response]
    | BlockingDatagramRequestHandler[_T_Request, _T_Response]
)
"""What servers of datagrams take."""
