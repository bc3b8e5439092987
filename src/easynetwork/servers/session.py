"""One connection from its first byte to its last: the only place that drives handler generators.

    connect hook -> generations of `handle()` -> disconnect hook -> close

All of it runs in the client's own task, so a timeout or cancel scope that a handler opens around a
`yield` works. Between the task and the handler's generator there is one coroutine, `_converse`;
while frames are at hand it does not give way to the event loop. How a connection ends is decided
there or by what is raised through it, and carried out by `_finish`, in one order of steps.
"""

from __future__ import annotations

__all__ = ["StreamSession"]

import enum
import math
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import anyio
import anyio.lowlevel

from easynetwork.addresses import SocketAddress
from easynetwork.backends._checks import check_delay
from easynetwork.decoder import NEED_DATA
from easynetwork.exceptions import ClientClosedError, StreamProtocolParseError
from easynetwork.servers.handlers import RecvParams, Yielded
from easynetwork.servers.reports import printable, split_errors
from easynetwork.servers.served_client import ServedClient, StreamService, is_owned_by

_CLOSE_TIMEOUT: Final = 30.0
"""Seconds that a peer has to take what was sent before a connection ended. As for TLS shutdown."""

_STOP_TIMEOUT: Final = 0.5
"""The same when the server stops: nobody wants to wait for a peer then."""


class _End(enum.Enum):
    """Why a conversation is over, when nothing was raised."""

    FINISHED = "the generator returned, and nobody wants another one"
    LEFT = "the peer has left, or the client was closed before a yield"
    REFUSED = "the generator returned before its first yield"


class _DisconnectedError(Exception):
    """Raised where a packet was wanted, and there will be none."""


class StreamSession:
    """Drives a handler for one client."""

    __slots__ = ("_client", "_let_out", "_service")

    def __init__(self, service: StreamService, client: ServedClient) -> None:
        self._service = service
        self._client = client
        self._let_out: BaseException | None = None  # raised at a yield, and ended the conversation

    async def run(self) -> None:
        """Serve the client until one side has had enough; close the connection.

        Raises:
            BaseException: Only what is not an `Exception`: cancellation, KeyboardInterrupt.
        """
        self._log_connection("Accepted new connection (address = %s)", self._client.address)
        is_greeted = False
        end: _End | BaseException = _End.FINISHED
        try:
            end = await self._greet()
            is_greeted = end is not _End.LEFT
            if is_greeted and not self._client.is_closed:
                end = await self._converse(self._service.handler.handle, once=False)
        except BaseException as exc:
            end = _own(exc)
        try:
            await self._finish(end, is_greeted)
            if isinstance(end, BaseException) and not isinstance(end, Exception):
                raise end
        finally:
            self._let_out = None
            del end  # an exception's traceback refers to this frame

    # -- the conversation

    async def _greet(self) -> _End:
        hook = self._service.handler.on_connection(self._client)
        if isinstance(hook, AsyncGenerator):
            end = await self._converse(lambda _: hook, once=True)
            return _End.FINISHED if end is _End.REFUSED else end
        if not isinstance(hook, Awaitable):
            raise TypeError(
                "on_connection() must be a coroutine function or an asynchronous generator "
                f"function, but it returned {hook!r}"
            )
        await hook
        return _End.FINISHED

    async def _converse(
        self, new_generator: Callable[[Any], AsyncGenerator[Yielded, Any]], *, once: bool
    ) -> _End:
        client, decoder = self._client, self._client.decoder
        firstiter = sys.get_asyncgen_hooks().firstiter
        while True:
            generator = new_generator(client)
            start = generator.asend
            # The event loop need not remember this generator: it is closed here, whatever happens.
            # That costs more than all the rest of starting it.
            sys.set_asyncgen_hooks(None)
            try:
                first = start(None)
            finally:
                sys.set_asyncgen_hooks(firstiter)
            try:
                yielded = await first
            except StopAsyncIteration:
                return _End.REFUSED
            try:
                while True:
                    try:
                        if yielded is None and decoder.frames:
                            packet = decoder.build(decoder.frames.pop())
                        else:
                            packet = None  # an idle connection does not keep its last one
                            packet = await self._next_packet(yielded)
                    except _DisconnectedError:
                        await generator.aclose()
                        return _End.LEFT
                    except BaseException as exc:
                        yielded = await self._throw(generator, exc)
                    else:
                        yielded = await generator.asend(packet)
            except StopAsyncIteration:
                if once or client.is_closed:
                    return _End.FINISHED

    async def _next_packet(self, yielded: Yielded) -> Any:
        client = self._client
        deadline, timeout = math.inf, None
        if yielded is not None:
            timeout = yielded.timeout if isinstance(yielded, RecvParams) else yielded
            check_delay(timeout)
        while (packet := client.decoder.take()) is NEED_DATA:
            if timeout is not None:
                deadline, timeout = self._service.backend.current_time() + timeout, None
            try:
                if client.gathered:
                    client.flush()
                if client.is_closed:
                    raise _DisconnectedError
                if client.decoder.refill():
                    await anyio.lowlevel.checkpoint()
                else:
                    await client.transport.receive(deadline)
            except (EOFError, ConnectionError):
                raise _DisconnectedError from None
        return packet

    async def _throw(self, generator: AsyncGenerator[Yielded, Any], exc: BaseException) -> Yielded:
        try:
            yielded = await generator.athrow(exc)
            if not isinstance(exc, Exception) and anyio.current_effective_deadline() == -math.inf:
                # The handler caught its cancellation and goes on as if nothing had happened. There
                # is nothing for it to wait for any more.
                await generator.aclose()
                raise exc
            return yielded
        except StopAsyncIteration:
            raise
        except BaseException:
            self._let_out = exc
            raise
        finally:
            del exc  # its traceback refers to this frame, and to what the peer sent

    # -- the end

    async def _finish(self, end: _End | BaseException, is_greeted: bool) -> None:
        """Every connection's end, in this order: flush, goodbye, log, report, close."""
        client = self._client
        errors = [end] if isinstance(end, Exception) else []
        has_crashed = any(crash_in(client, error) for error in errors)
        is_stopping = not errors and isinstance(end, BaseException)
        with suppress(ConnectionError):
            client.flush()
        client.stop_listening()
        if not has_crashed and not is_stopping:
            client.is_closed = True
        try:
            if is_greeted:
                errors += await self._say_goodbye()
        finally:
            client.is_closed = True
            self._log_connection("%s disconnected", client.address)
            for error in errors:
                self._report(error)
            if end is _End.REFUSED or any(crash_in(client, error) for error in errors):
                client.transport.abort()
            await self._close(is_stopping)

    async def _say_goodbye(self) -> list[Exception]:
        try:
            await self._service.handler.on_disconnection(self._client)
        except BaseException as exc:
            error = _own(exc)
            if not isinstance(error, Exception):
                raise
            own, crash = split_errors(error, lambda exc: is_owned_by(self._client, exc))
            if own is not None:
                self._service.peer_faults.warning(
                    "ConnectionError raised in request_handler.on_disconnection() of %s: %s",
                    self._client.address,
                    printable(own),
                )
            return [] if crash is None else [crash]
        return []

    def _report(self, error: Exception) -> None:
        service, address = self._service, self._client.address
        thrown = self._let_out
        if isinstance(thrown, StreamProtocolParseError):
            fault, rest = split_errors(error, lambda exc: exc is thrown)
            if fault is not None:
                reason = printable(thrown.error)
                service.peer_faults.warning("%s sent invalid data: %s", address, reason)
            if rest is None:
                return
            error = rest
        misuse, _ = split_errors(error, lambda exc: isinstance(exc, ClientClosedError))
        if misuse is not None and crash_in(self._client, misuse) is None:
            service.logger.warning(
                "There have been attempts to do operation on closed client %s",
                address,
                exc_info=misuse,
            )
        if (crash := crash_in(self._client, error)) is not None:
            service.logger.error(
                "Exception occurred during processing of request from %s", address, exc_info=crash
            )

    async def _close(self, is_stopping: bool) -> None:
        transport = self._client.transport
        timeout = _STOP_TIMEOUT if is_stopping else _CLOSE_TIMEOUT
        try:
            with anyio.move_on_after(timeout, shield=is_stopping):
                await transport.aclose()
        finally:
            with anyio.CancelScope(shield=True):  # cut short, it was reset: just the descriptor
                await transport.aclose()

    def _log_connection(self, message: str, address: SocketAddress) -> None:
        self._service.logger.log(self._service.connection_log_level, message, address)


def _own(exc: BaseException) -> BaseException:
    """Return an exception as the session sees it.

    A handler may let out a cancellation that nobody meant for its task: it awaited another task,
    which was cancelled. That is its mistake, and must not look as if the server was stopping.
    """
    is_cancelled = anyio.current_effective_deadline() == -math.inf
    if is_cancelled or not isinstance(exc, anyio.get_cancelled_exc_class()):
        return exc
    error = RuntimeError("The handler let out a cancellation that was not its own")
    error.__cause__ = exc
    return error


def crash_in(client: ServedClient, error: Exception) -> Exception | None:
    """Return the part of an error that is a bug of the handler: not this client's connection."""
    return split_errors(error, lambda exc: is_owned_by(client, exc))[1]
