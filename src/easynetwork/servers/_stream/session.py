"""One connection from its first byte to its last.

    connect hook -> generations of `handle()` -> disconnect hook -> close

The conversation runs in the client's own task, so a timeout or a task group that a handler opens
around a `yield` works. While packets are at hand, it does not give way to the event loop. Whatever
ends it, `_conclude()` ends the connection, in one order of steps.

A handler that leaves a cancel scope open may be cancelled at any time. The conversation therefore
has a scope of its own, and is concluded in a new task if that scope cannot be left in order.
"""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel

from easynetwork.addresses import UnixSocketAddress
from easynetwork.backends.abc import SessionTasks
from easynetwork.backends.ancillary import take_received
from easynetwork.exceptions import (
    StreamProtocolParseError,
    TypedAttributeLookupError,
    UnsupportedOperation,
)
from easynetwork.parsers import NEED_DATA
from easynetwork.servers._core.fault_log import printable
from easynetwork.servers._core.generators import (
    abandon,
    close,
    deliver_ancillary,
    not_a_generator,
    throw_in,
    timeout_of,
)
from easynetwork.servers._core.verdict import NOTHING, Verdict, interrupts, judge, scope_error
from easynetwork.servers._stream.background import Background
from easynetwork.servers._stream.client import ServedClient
from easynetwork.servers._stream.drain import Stage
from easynetwork.servers._stream.ending import End, Over, reason_of
from easynetwork.servers._stream.errors import (
    DisconnectedError,
    came_from_client,
    was_raised_for_packet,
)
from easynetwork.servers._stream.options import StreamOptions
from easynetwork.servers._stream.timeouts import Supervision
from easynetwork.servers.handlers import (
    RecvAncillaryDataParams,
    RecvParams,
    UNIXClientAttribute,
    Yielded,
)
from easynetwork.servers.statistics import CloseReason

_CLOSE_TIMEOUT_AT_STOP: Final = 0.5
"""How long, in seconds, a server that stops waits for a peer to read what was sent to it."""


class StreamSession:
    """Drives a handler for one client.

    Attributes:
        client: What the handler sees of it.
    """

    __slots__ = ("_generator", "_leaving", "_options", "_tasks", "client", "thrown")

    def __init__(self, options: StreamOptions, tasks: SessionTasks, client: ServedClient) -> None:
        self._options = options
        self._tasks = tasks  # that own the current one
        self.client: ServedClient = client
        self._generator: AsyncGenerator[Yielded, Any] | None = None  # the last one
        self._leaving = False  # the generator is being closed
        self.thrown: BaseException | None = None  # see `throw_in()`

    def is_cancelled(self) -> bool:
        """Whether the current task is to end, and not just a scope that its handler has opened."""
        return self._tasks.is_scope_cancelled()

    async def run(self) -> None:
        """Serve the client in the current task, and end the connection.

        Raises:
            BaseException: What has left the handler, if it is meant for the whole program.
        """
        options, client = self._options, self.client
        options.census.sessions.add(self)
        client.connected = self._tasks.clock()
        client.supervision = Supervision(options.timeouts, client, options.limits)
        self._log_accepted()
        end: End = Over.LEFT
        try:
            with self._tasks.scope() as client.conversation:
                try:
                    end = await self._greet()
                    client.is_greeted = end is not Over.LEFT
                    if client.is_greeted and not client.is_closed:
                        end = await self._converse(options.handler.handle, once=False)
                except BaseException as exc:
                    end = exc
                    if interrupts(exc):
                        abandon(self._generator)
        except RuntimeError as exc:  # of the scope
            if not isinstance(end, Exception) and not interrupts(end):
                end = scope_error(exc)
            name = anyio.get_current_task().name
            self._tasks.start(self._conclude, end, name=name, otherwise=self._abandon)
        else:
            await self._conclude(end)
        finally:
            # An exception's traceback may refer to this frame, and others to this object.
            del end
            self._generator = None

    def _log_accepted(self) -> None:
        options, client = self._options, self.client
        message, details = "Accepted new connection (address = %s)", tuple[Any, ...]()
        if isinstance(client.address, UnixSocketAddress):  # which is no name, most often
            with suppress(TypedAttributeLookupError):
                details = client.extra(UNIXClientAttribute.peer_credentials)
                message += ", pid %s, uid %s, gid %s"
        options.log.log(options.connection_log_level, message, client.address, *details)

    # -- the conversation

    async def _greet(self) -> Over:
        hook = self._options.handler.on_connection(self.client)
        if isinstance(hook, AsyncGenerator):
            end = await self._converse(lambda _: hook, once=True)
            return Over.FINISHED if end is Over.REFUSED else end
        if not isinstance(hook, Awaitable):
            raise TypeError(
                "on_connection() must be a coroutine function or an asynchronous generator "
                f"function, but it returned {hook!r}"
            )
        await hook
        return Over.FINISHED

    async def _converse(
        self, new_generator: Callable[[Any], AsyncGenerator[Yielded, Any]], *, once: bool
    ) -> Over:
        client = self.client
        conversing = Stage.CONVERSING  # looked up once
        first_stage = conversing if once else Stage.NEW
        firstiter = sys.get_asyncgen_hooks().firstiter
        while True:
            generator = self._generator = new_generator(client)
            sys.set_asyncgen_hooks(None)  # see `easynetwork.servers._core.generators`
            try:
                first_step = generator.asend(None)
            except AttributeError:
                raise not_a_generator(generator) from None
            finally:
                sys.set_asyncgen_hooks(firstiter)
            try:
                yielded = await first_step
            except StopAsyncIteration:
                return Over.REFUSED
            stage = first_stage  # of the client, if it is waited for
            try:
                while True:
                    try:
                        if yielded is not None:
                            packet = await self._next_packet(yielded, stage)
                        elif (packet := client.take()) is NEED_DATA:
                            packet = await client.next_packet(None, stage)
                    except DisconnectedError:
                        self._leaving = True
                        await close(generator)
                        return Over.LEFT
                    except BaseException as exc:
                        if isinstance(exc, StreamProtocolParseError):
                            client.note_invalid()
                        yielded = await throw_in(generator, exc, self)
                    else:
                        yielded = await generator.asend(packet)
                    stage = conversing
            except StopAsyncIteration:
                if once or client.is_closed:
                    return Over.FINISHED
                first_stage = Stage.IDLE

    def _next_packet(self, yielded: Yielded, stage: Stage) -> Coroutine[Any, Any, Any]:
        timeout = timeout_of(yielded)
        if isinstance(yielded, RecvParams) and yielded.recv_with_ancillary is not None:
            return self._next_with_ancillary(yielded.recv_with_ancillary, timeout, stage)
        return self.client.next_packet(timeout, stage)

    async def _next_with_ancillary(
        self, params: RecvAncillaryDataParams, timeout: float | None, stage: Stage
    ) -> Any:
        """Return the next packet; read once for it, if it is not here yet."""
        client, bufsize = self.client, self._options.ancillary_bufsize
        if bufsize is None:
            raise UnsupportedOperation(
                "The server is not configured to handle ancillary data (ancillary_bufsize=None)."
            )
        client.check_ancillary()  # even if the packet is here already
        undelivered = client.undelivered = list(client.undelivered)
        packet = await take_received(client.decoder, client.transport)
        if packet is NEED_DATA and not undelivered:
            await client.receive_with_ancillary(bufsize, undelivered.extend, timeout, stage)
            client.undelivered = ()
            deliver_ancillary(params, undelivered)
            packet = await take_received(client.decoder, client.transport)
        elif undelivered:
            client.undelivered = ()
            deliver_ancillary(params, undelivered)
        if packet is NEED_DATA:
            raise EOFError("Received partial packet data")
        client.waiting_since = None
        return packet

    # -- the end

    async def _conclude(self, end: End) -> None:
        """End the connection, and count it.

        Args:
            end: Why the conversation is over.

        Raises:
            BaseException: `end`, if it is meant for the whole program.
        """
        client, census = self.client, self._options.census
        try:
            await self._end_connection(end)
        finally:
            if client.transport.has_given_up and not self._tasks.is_cancelled():
                reason = client.close_reason = CloseReason.CLOSE_TIMEOUT
                self._options.log.limit("%s is reset: %s", client.address, reason.value)
            census.leave(client.address, client.close_reason or CloseReason.STOPPED)
            census.forget(self)

    def _abandon(self) -> None:
        """End the connection and count it, when it cannot be concluded in order."""
        client, census = self.client, self._options.census
        client.abort()
        self._end_conversation()
        census.leave(client.address, CloseReason.HANDLER_ERROR)
        census.forget(self)

    async def _end_connection(self, end: End) -> None:
        """Flush, disconnect hook, log, report, close. In this order, always.

        Args:
            end: Why the conversation is over.

        Raises:
            BaseException: `end`, if it is meant for the whole program.
        """
        client, tasks = self.client, self._tasks
        client.is_over, client.conversation = True, None
        handler_end = end
        if client.background is not None:
            end = await self._end_background(client.background, end)
        is_stopping = tasks.is_cancelled()
        verdict = self._judge(end, is_stopping=is_stopping or end is not handler_end)
        transport = client.transport
        client.close_reason = reason_of(end, verdict, client, is_stopping=is_stopping)
        unused = len(client.decoder) if end is Over.LEFT and not client.is_closed else 0
        self._end_conversation()
        if not (verdict.is_failure or is_stopping):
            client.is_closed = True
        goodbye = NOTHING
        is_closed = False
        try:
            with tasks.scope():
                if self.client.is_greeted:
                    goodbye = await self._call_on_disconnection()
                self._report(verdict, goodbye, unused)
                if end is Over.REFUSED or verdict.crash or goodbye.crash:
                    transport.abort()
                if not tasks.is_cancelled():
                    await transport.aclose()
                    is_closed = True
        except BaseException as exc:  # of the scope, or a cancellation that is not the server's
            if interrupts(exc):
                raise
            if not (goodbye.crash or tasks.is_cancelled()):
                error = scope_error(exc) if isinstance(exc, RuntimeError) else exc
                self._judge(error, is_stopping=False).report(client.address, self._options.log)
            transport.abort()
        finally:
            if not is_closed:
                with anyio.CancelScope(shield=True):
                    await transport.aclose(timeout=_CLOSE_TIMEOUT_AT_STOP)
            if transport.has_lost_descriptor and verdict.crash is None:
                self._report_lost_descriptor()
        if isinstance(end, BaseException) and interrupts(end):
            raise end

    def _report_lost_descriptor(self) -> None:
        self.client.close_reason = CloseReason.HANDLER_ERROR
        error = OSError(errno.EBADF, "Other code has closed the connection's descriptor")
        Verdict(crash=error).report(self.client.address, self._options.log)

    async def _end_background(self, background: Background, end: End) -> End:
        """End the tasks that the handler has started; return the end with their errors."""
        self.client.background = None  # it refers to the client
        transport, is_stopping = self.client.transport, self._tasks.is_cancelled()
        closing = transport.aclose() if self.client.is_closed and not is_stopping else None
        names = await background.finish(closing, transport.close_timeout, _CLOSE_TIMEOUT_AT_STOP)
        if names:
            message = "Tasks of %s still run after they were cancelled: %s"
            self._options.log.log(logging.WARNING, message, self.client.address, ", ".join(names))
        errors, background.errors = background.errors, []
        if not errors:
            return end
        if isinstance(end, BaseException) and not isinstance(end, anyio.get_cancelled_exc_class()):
            errors.append(end)
        return errors[0] if len(errors) == 1 else BaseExceptionGroup("Errors of a client", errors)

    def _end_conversation(self) -> None:
        client = self.client
        with suppress(ConnectionError):
            client.flush()
        client.discard_input()
        client.close_undelivered()
        if client.supervision is not None:
            client.supervision.end()
            client.supervision = None  # it refers to the client
        client.watch = None  # it refers to the client
        # From here on, every wait for this peer ends in time, also of tasks that send to it.
        client.transport.limit_sending(client.transport.close_timeout)

    def _judge(self, end: End, *, is_stopping: bool) -> Verdict:
        thrown, self.thrown = self.thrown, None
        is_leaving, self._leaving = self._leaving, False
        if not isinstance(end, BaseException):
            return NOTHING
        client = self.client
        return judge(
            end,
            is_thrown=lambda leaf: leaf is thrown or was_raised_for_packet(client, leaf),
            is_excused=partial(came_from_client, client),
            is_stopping=is_stopping,
            is_leaving=is_leaving,
        )

    async def _call_on_disconnection(self) -> Verdict:
        try:
            await self._options.handler.on_disconnection(self.client)
        except BaseException as exc:
            if interrupts(exc):
                raise
            verdict = self._judge(exc, is_stopping=self._tasks.is_cancelled())
            if verdict.excused is not None:
                message = "ConnectionError raised in request_handler.on_disconnection() of %s: %s"
                self._options.log.fault(message, self.client.address, printable(verdict.excused))
            try:
                return verdict
            finally:
                del verdict  # its exception's traceback refers to this frame
        return NOTHING

    def _report(self, verdict: Verdict, goodbye: Verdict, unused: int) -> None:
        """Log what there is to log of the end.

        Args:
            verdict: How the conversation has ended.
            goodbye: How `on_disconnection()` has ended.
            unused: Bytes of an incomplete packet that the client has left.
        """
        options, client = self._options, self.client
        client.is_closed = True
        reason = "" if client.close_reason is None else client.close_reason.value
        if unused:
            reason += f"; {unused} bytes of an incomplete packet were dropped"
        options.log.log(
            options.connection_log_level, "%s disconnected (%s)", client.address, reason
        )
        if verdict is not NOTHING:
            verdict.report(client.address, options.log)
        if goodbye.crash is not None:
            Verdict(crash=goodbye.crash).report(client.address, options.log)
        options.tls_log.report_end(client.transport, client.address)
