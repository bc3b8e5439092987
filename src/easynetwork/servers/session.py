"""One connection from its first byte to its last.

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
from easynetwork.decoder import NEED_DATA
from easynetwork.servers._driving import own_error, report_error, start, throw_in, timeout_of
from easynetwork.servers.handlers import Yielded
from easynetwork.servers.reports import printable, split_errors
from easynetwork.servers.served_client import ServedClient, StreamService, is_owned_by

_STOP_TIMEOUT: Final = 0.5
"""Seconds that a peer has to take what was sent when the server stops: nobody wants to wait."""


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
            end = own_error(exc)
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
            try:
                yielded = await start(generator, firstiter)
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
        deadline = math.inf
        timeout = None if yielded is None else timeout_of(yielded)
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
            return await throw_in(generator, exc)
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
                report_error(
                    error,
                    self._let_out,
                    lambda exc: is_owned_by(client, exc),
                    client.address,
                    self._service.logger,
                    self._service.peer_faults,
                )
            if end is _End.REFUSED or any(crash_in(client, error) for error in errors):
                client.transport.abort()
            await self._close(is_stopping)

    async def _say_goodbye(self) -> list[Exception]:
        try:
            await self._service.handler.on_disconnection(self._client)
        except BaseException as exc:
            error = own_error(exc)
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

    async def _close(self, is_stopping: bool) -> None:
        transport = self._client.transport
        timeout = _STOP_TIMEOUT if is_stopping else transport.close_timeout
        try:
            with anyio.move_on_after(timeout, shield=is_stopping):
                await transport.aclose()
        finally:
            with anyio.CancelScope(shield=True):  # cut short, it was reset: just the descriptor
                await transport.aclose()

    def _log_connection(self, message: str, address: SocketAddress) -> None:
        self._service.logger.log(self._service.connection_log_level, message, address)


def crash_in(client: ServedClient, error: Exception) -> Exception | None:
    """Return the part of an error that is a bug of the handler: not this client's connection."""
    return split_errors(error, lambda exc: is_owned_by(client, exc))[1]
