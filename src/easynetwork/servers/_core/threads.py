"""The threads in which blocking handlers run, and what receives for them in the event loop."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
import weakref
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self

import anyio

from easynetwork._arguments import check_plain_methods
from easynetwork._episode import Episode
from easynetwork._tuning import STOP_TIMEOUT
from easynetwork.servers.blocking import (
    BlockingClient,
    BlockingDatagramRequestHandler,
    BlockingRequestHandler,
    BlockingStreamRequestHandler,
    closed,
    left,
)
from easynetwork.servers.handlers import (
    AsyncDatagramRequestHandler,
    AsyncStreamRequestHandler,
    Yielded,
)
from easynetwork.servers.statistics import CloseReason

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal


_POLL_INTERVAL: Final = 0.005


class _Started(threading.local):
    """What serves blocking handlers in the event loop of a thread."""

    def __init__(self) -> None:
        self.all: weakref.WeakSet[_Threads] = weakref.WeakSet()


_started: Final = _Started()


def occupied_threads() -> int:
    """Return how many threads serve clients of this thread's event loop, for virtual time."""
    return sum(min(len(each._jobs), each._handler._max_threads) for each in _started.all)


class _Threads:
    """The threads that run a handler's methods, while a server serves."""

    __slots__ = ("__weakref__", "_busy", "_executor", "_handler", "_jobs", "_logger", "portal")

    def __init__(
        self, handler: BlockingRequestHandler, portal: BlockingPortal, logger: logging.Logger
    ) -> None:
        self.portal = portal
        self._handler = handler
        self._logger = logger
        self._executor = ThreadPoolExecutor(handler._max_threads, "request handler")
        self._jobs: set[Future[None]] = set()  # that are not over
        self._busy = Episode()
        _started.all.add(self)

    @classmethod
    async def start(
        cls, handler: BlockingRequestHandler, exit_stack: contextlib.AsyncExitStack, server: Any
    ) -> Self:
        """Prepare the service: see `BaseRequestHandler.service_init()`."""
        from anyio.from_thread import BlockingPortal

        await handler.service_init(exit_stack, server)
        portal = await BlockingPortal().__aenter__()
        # No exception may leave through the portal: its task group would wrap it.
        exit_stack.push_async_callback(portal.__aexit__, None, None, None)
        threads = cls(handler, portal, server.logger)
        exit_stack.push_async_callback(threads.stop)
        return threads

    async def serve(self, client: Any, *, closes: bool) -> AsyncGenerator[Yielded, Any]:
        """Have a client served by the next thread that is free, and receive for it.

        Args:
            client: The client.
            closes: Whether to close it at the end, or earlier if it leaves before it had a thread.

        Raises:
            BaseException: What the handler raised.
        """
        blocking_client = BlockingClient[Any, Any](client, self.portal)
        job, error = self._start(blocking_client), None
        try:
            if closes and len(self._jobs) > self._handler._max_threads:
                await blocking_client._receive_ahead(job)
            while not job.done():
                if blocking_client._wanted is None:
                    await blocking_client._wake_up.wait()
                    blocking_client._wake_up = anyio.Event()
                    continue
                try:
                    packet = yield blocking_client._wanted[0]
                except GeneratorExit:
                    end = closed if client.is_closing() else left
                    blocking_client._finish(end, _reason_of(client) if closes else None)
                except Exception as exc:
                    blocking_client._answer(Future.set_exception, exc)
                else:
                    blocking_client._answer(Future.set_result, packet)
            error = None if job.cancelled() else job.exception()
            if error is not None and vars(error).get("_easynetwork_client") is not blocking_client:
                raise error
            if closes and blocking_client._end is not left:
                await client.aclose()
        except (GeneratorExit, anyio.get_cancelled_exc_class()):
            blocking_client.close_reason = blocking_client.close_reason or CloseReason.STOPPED
            if error is None:
                job.add_done_callback(lambda job: self._report(job, client))
            raise
        finally:
            job.cancel()  # if it still waits for a thread
            del job, error  # its traceback refers to this frame
            blocking_client._finish(blocking_client._end or closed)

    def _start(self, client: BlockingClient[Any, Any]) -> Future[None]:
        context = contextvars.copy_context()
        job = self._executor.submit(context.run, self._handler._serve, client)
        self._jobs.add(job)
        if len(self._jobs) > self._handler._max_threads and self._busy.begins():
            message = "All %d threads of the request handler are busy: clients wait"
            self._logger.warning(message, self._handler._max_threads)
        job.add_done_callback(lambda job: self._end(job, client))
        return job

    def _end(self, job: Future[None], client: BlockingClient[Any, Any]) -> None:
        try:
            self.portal.start_task_soon(self._forget, job, client)
        except RuntimeError:  # the server has stopped
            self._jobs.discard(job)

    async def _forget(self, job: Future[None], client: BlockingClient[Any, Any]) -> None:
        # Here, so that stop() waits until no thread needs the event loop any more.
        self._jobs.discard(job)
        await client._leave()

    def _report(self, job: Future[None], client: Any) -> None:
        """Log what left a handler after its session had been cancelled."""
        error = None if job.cancelled() else job.exception()
        if not isinstance(error, ConnectionError | None):
            message = "Exception occurred during processing of request from %s"
            self._logger.error(message, client.address, exc_info=error)

    async def stop(self) -> None:
        """Let all threads go on that wait for the event loop, and wait a little for them."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        with anyio.CancelScope(shield=True):
            await self.portal.stop(cancel_remaining=True)
            with anyio.move_on_after(STOP_TIMEOUT / 2):
                while self._jobs:  # noqa: ASYNC110 - threads end it, without the loop
                    await anyio.sleep(_POLL_INTERVAL)
        if self._jobs:
            message = "%d request handlers are still running in their threads"
            self._logger.error(message, len(self._jobs))


def _reason_of(client: Any) -> CloseReason:
    """Return why a client has left, as far as that is known when its generator is closed."""
    if client.ended_by is not None:
        return client.ended_by  # type: ignore[no-any-return]
    return CloseReason.TRUNCATED if client.decoder else CloseReason.PEER_CLOSED


class _Adapter(AsyncStreamRequestHandler[Any, Any], AsyncDatagramRequestHandler[Any, Any]):
    """What a server makes of a blocking handler."""

    def __init__(self, handler: BlockingRequestHandler) -> None:
        if not hasattr(handler, "_max_threads"):
            raise TypeError(f"{type(handler).__name__}.__init__() did not call super().__init__()")
        check_plain_methods(type(handler), "on_connection", "handle", "on_disconnection")
        self._handler = handler

    async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any, /) -> None:
        self._threads = await _Threads.start(self._handler, exit_stack, server)

    def on_connection(self, client: Any, /) -> AsyncGenerator[Yielded, Any]:
        return self._threads.serve(client, closes=True)

    def handle(self, client: Any, /) -> AsyncGenerator[Yielded, Any]:  # of datagrams, only
        return self._threads.serve(client, closes=False)


def asynchronous_stream_handler(handler: object) -> AsyncStreamRequestHandler[Any, Any]:
    """Return what a server with connections drives for a request handler.

    Raises:
        TypeError: It is neither of the two kinds, its constructor was not called, or a method of a
            blocking handler is a coroutine function or a generator function.
    """
    if isinstance(handler, BlockingStreamRequestHandler):
        return _Adapter(handler)
    if not isinstance(handler, AsyncStreamRequestHandler):
        raise TypeError(f"Expected an AsyncStreamRequestHandler object, got {handler!r}")
    return handler


def asynchronous_datagram_handler(handler: object) -> AsyncDatagramRequestHandler[Any, Any]:
    """Return what a server of datagrams drives for a request handler.

    Raises:
        TypeError: It is neither of the two kinds, its constructor was not called, or a method of a
            blocking handler is a coroutine function or a generator function.
    """
    if isinstance(handler, BlockingDatagramRequestHandler):
        return _Adapter(handler)
    if not isinstance(handler, AsyncDatagramRequestHandler):
        raise TypeError(f"Expected an AsyncDatagramRequestHandler object, got {handler!r}")
    return handler
