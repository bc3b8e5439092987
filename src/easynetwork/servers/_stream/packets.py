"""A connected client, as far as packets are sent to it and received from it.

Responses to one chunk of requests leave in one write: while more packets of the chunk are waiting,
`send_packet()` gathers, unless bytes are unsent already. Nothing stays gathered when the handler
waits for anything: the session flushes before it waits for the next packet, and the event loop does
at its next turn.

One task receives at a time: the session, at a `yield` of the handler, or one in `recv_packet()`.
Both wait in `next_packet()`. While `start_tls()` works, no packets are received.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from threading import get_ident
from typing import Any, Final

from easynetwork._arguments import validated_delay
from easynetwork._tuning import HIGH_WATER
from easynetwork.addresses._ancillary import close_descriptors
from easynetwork.addresses._unix import AnySocketAddress
from easynetwork.backends.abc import AsyncBackend, Incoming, SessionTasks, StreamTransport
from easynetwork.decoder import StreamDecoder
from easynetwork.exceptions import (
    ClientClosedError,
    EndOfStreamError,
    StreamProtocolParseError,
)
from easynetwork.parsers import NEED_DATA
from easynetwork.servers._stream.drain import Stage
from easynetwork.servers._stream.errors import DisconnectedError, busy, tag_with_client
from easynetwork.servers._stream.options import StreamOptions
from easynetwork.servers._stream.timeouts import Supervision
from easynetwork.servers._stream.watch import Watch
from easynetwork.servers.handlers import AsyncStreamClient
from easynetwork.servers.statistics import CloseReason

_FLUSH_SIZE: Final = 32 * 1024
"""Bytes of large responses to one chunk that are gathered before they are sent.

With as many of small ones, as much as the transport takes before it is congested; larger writes
gain nothing (measured)."""

_SMALL: Final = 256
"""Bytes of a response that are not added up: that would cost a fortieth of a request (measured)."""

_FLUSH_COUNT: Final = _FLUSH_SIZE // _SMALL
"""Responses that are gathered before they are sent, however small."""


class PacketClient(AsyncStreamClient[Any]):
    """Sends and receives packets.

    Attributes:
        address: The client's address.
        bytes_sent: Bytes of packets handed to the transport.
        decoder: Where its packets come from.
        encode: Makes the bytes of a packet.
        flush_is_scheduled: Whether something may be gathered.
        gathered: Responses to earlier packets of a chunk, while more of them wait; see `flush()`.
            Not in `packets_sent` and `bytes_sent` yet.
        close_reason: Why the connection ended, from the end of the conversation on.
        connected: When its session began, on the event loop's clock.
        ended_by: Why it is about to end, if that is known before.
        is_greeted: Whether `on_connection()` is over, so that `on_disconnection()` is due.
        is_closed: Whether sending raises `ClientClosedError`.
        is_over: Whether nothing is received any more: it is closed, or the conversation is over.
        is_receiving: Whether a task waits for a packet, or does the TLS handshake.
        packets_sent: Packets handed over.
        sent_before: `bytes_sent` when its handler began to wait for the next packet.
        supervision: Sees that it is not too slow, while the conversation goes on.
        take: Returns the next packet if it is at hand, and may be taken: see `renew_take()`.
        protocol: Its protocol object.
        stage: What its next packet is.
        tasks: The owner of all of the server's tasks.
        transport: The connection.
        waiting_since: When its handler began to wait for the next packet; None while there is one.
        undelivered: Ancillary data of a `yield` that was cancelled.
        watch: Reads while no task waits for a packet; None before `wait_disconnected()`.
    """

    __slots__ = (
        *("_large_size", "_options", "address", "bytes_sent", "close_reason", "connected"),
        *("decoder", "encode", "ended_by", "flush_is_scheduled", "gathered", "is_closed"),
        *("is_greeted", "is_over", "is_receiving", "packets_sent", "protocol", "sent_before"),
        *("stage", "supervision", "take", "tasks", "transport", "undelivered", "waiting_since"),
        "watch",
    )

    def __init__(
        self,
        options: StreamOptions,
        tasks: SessionTasks,
        incoming: Incoming,
        decoder: StreamDecoder,
    ) -> None:
        self.transport: StreamTransport = incoming.transport
        self.decoder: StreamDecoder = decoder
        self.take: Callable[[], Any] = decoder.take
        self.address: AnySocketAddress = incoming.address
        self.protocol, _, self.encode = options.codec
        self._options = options
        self.tasks: SessionTasks = tasks
        self.close_reason: CloseReason | None = None
        self.ended_by: CloseReason | None = None
        self.connected: float = inf
        self.stage: Stage = Stage.CONVERSING
        self.is_closed: bool = False
        self.is_greeted: bool = False
        self.is_over: bool = False
        self.is_receiving: bool = False
        self.undelivered: Sequence[tuple[int, int, bytes]] = ()
        self.watch: Watch | None = None
        self.gathered: list[bytes] = []
        self._large_size = 0  # bytes of those that are not small
        self.flush_is_scheduled: bool = False
        self.sent_before: int = 0
        self.waiting_since: float | None = None
        self.packets_sent: int = 0
        self.bytes_sent: int = 0
        self.supervision: Supervision | None = None

    def __repr__(self) -> str:
        return f"<client with address {self.address} at {id(self):#x}>"

    def backend(self) -> AsyncBackend:
        return self._options.backend

    def is_closing(self) -> bool:
        return self.is_closed or self.transport.is_closing()

    def is_draining(self) -> bool:
        return self._options.census.drain is not None

    # -- receiving

    async def recv_packet(self, *, timeout: float | None = None) -> Any:
        if get_ident() != self.tasks.thread:  # otherwise, a call is spared
            self.tasks.check_thread()
        validated_delay(timeout)
        if self.is_receiving:
            raise busy()
        try:
            if (packet := self.take()) is not NEED_DATA:
                return packet
            self.take = nothing_at_hand
            try:
                return await self.next_packet(timeout, Stage.CONVERSING)
            finally:
                self.renew_take()
        except (StreamProtocolParseError, TimeoutError) as exc:
            if isinstance(exc, StreamProtocolParseError):
                self.note_invalid()
            vars(exc)["_easynetwork_receiver"] = self
            raise
        except DisconnectedError as exc:
            error = self._end_error(exc.__cause__)
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame

    async def next_packet(self, timeout: float | None, stage: Stage) -> Any:
        """Return the next packet.

        Args:
            timeout: How many seconds to wait for it.
            stage: What it is.

        Raises:
            DisconnectedError: There will be none.
            Exception: What `recv_packet()` raises, but for a `ConnectionError`.
        """
        if self.is_receiving:
            raise busy()
        if self.undelivered:
            self.close_undelivered()
        deadline = inf
        self.is_receiving, self.stage = True, stage
        try:
            # Most often, there is nothing to take, or this would not have been called.
            while not self.decoder.at_hand or (packet := self.decoder.take()) is NEED_DATA:
                if timeout is not None:
                    deadline, timeout = self.tasks.clock() + timeout, None
                if self.gathered:
                    self.flush()
                if self.is_over or self.tasks.is_ending:
                    self.check_may_wait()
                if self.waiting_since is None:
                    self.waiting_since, self.sent_before = self.tasks.clock(), self.bytes_sent
                if self.decoder.has_rest:
                    if self.decoder.refill():
                        await self.transport.give_way()
                        continue
                    if self.supervision is not None:
                        self.supervision.note_partial()
                if self.watch is not None:
                    await self.watch.receive(deadline)
                else:
                    await self.transport.receive(deadline)
        except EOFError as exc:
            packet = self._last_packet(exc)
        except ConnectionError as exc:
            is_truncated = getattr(self.transport, "is_truncated", False)
            self.end_by(CloseReason.TRUNCATED if is_truncated else CloseReason.PEER_RESET)
            raise DisconnectedError from exc
        finally:  # as `stop_receiving()`, whose call is spared
            self.is_receiving = False
            if self.watch is not None:
                self.watch.resume()
        self.waiting_since = None
        return packet

    def _last_packet(self, end: EOFError) -> Any:
        # Half a packet of a client that has not ended its side is no packet.
        if self.ended_by is not None or not self.decoder.end_of_stream():
            raise DisconnectedError from end
        return self.decoder.take()

    def check_may_wait(self) -> None:
        """Make sure that a packet may be waited for, if `SessionTasks.is_ending` or this ends.

        Raises:
            DisconnectedError: It may not.
        """
        drain = self._options.census.drain
        is_ending = self.is_over or self.tasks.has_given_up
        if is_ending or (drain is not None and not drain.may_wait(self)):
            raise DisconnectedError

    def note_invalid(self) -> None:
        """Take note that an error was raised in place of a packet: the wait is over."""
        self._options.census.invalid_packets += 1
        self.waiting_since = None

    def stop_receiving(self) -> None:
        """Let other tasks receive."""
        self.is_receiving = False
        if self.watch is not None:
            self.watch.resume()

    def renew_take(self) -> None:
        """Let packets be taken that are at hand, unless all go through `next_packet()`.

        They do while a task waits in `recv_packet()`, so that its packet is not taken from it, and
        from the beginning of a watch on, which has to know of each of them. So that the session
        need not ask about that for each request, `take` is another function then.
        """
        self.take = self.decoder.take if self.watch is None else nothing_at_hand

    def _end_error(self, end: BaseException | None) -> ConnectionError:
        if self.is_closed or self.tasks.has_given_up:
            error: ConnectionError = ClientClosedError("Closed client")
        elif isinstance(end, ConnectionError):
            error = end
        else:
            is_drained = self.ended_by is CloseReason.DRAINED
            text = "The server drains" if is_drained else "The client has left"
            error = EndOfStreamError(errno.ECONNABORTED, text)
        return tag_with_client(self, error)

    def close_undelivered(self) -> None:
        """Close descriptors that no handler has got."""
        close_descriptors(self.undelivered)
        self.undelivered = ()

    # -- sending

    async def send_packet(self, packet: Any, /) -> None:
        if self.is_closed:
            raise tag_with_client(self, ClientClosedError("Closed client"))
        transport = self.transport
        try:
            if self.gathered:
                data = self.encode(packet)  # first: a serializer or a converter may send, too
                self.gathered.append(data)
                if len(data) > _SMALL:
                    self._large_size += len(data)
                    if self._large_size >= _FLUSH_SIZE:
                        self.flush()
                if not self.decoder.at_hand or len(self.gathered) >= _FLUSH_COUNT:
                    self.flush()
            elif transport.congested:
                encode = self.encode  # if the protocol changes meanwhile, this packet is of the old
                async with transport.turn():  # a packet has no bytes before its turn
                    data = encode(packet)
                    # Through TLS, if that has begun meanwhile.
                    size = self.transport.write(data)
                    self.bytes_sent += size
                    self.packets_sent += 1
            elif self.decoder.at_hand and not transport.get_unsent_size():
                # On top of bytes that the kernel does not take, to gather would save nothing, and
                # hide them from the transport's high-water mark.
                self._begin_to_gather(self.encode(packet))
            else:
                data = self.encode(packet)  # first, as above
                size = transport.write(data)
                self.bytes_sent += size  # in two steps: a signal handler may send in the first one
                self.packets_sent += 1
            if transport.congested:
                await transport.drain()
        except ConnectionError as exc:
            raise self._explained(exc) from exc.__cause__

    def try_send_packet(self, packet: Any, /) -> bool:
        self.tasks.check_thread()
        return self.offer(self.encode(packet), HIGH_WATER)

    def offer(self, data: bytes, high_water: int) -> bool:
        """Send bytes, unless nothing can be sent, or not without waiting.

        Args:
            data: The bytes.
            high_water: The most bytes that may wait to be sent before.

        Returns:
            Whether they were sent.
        """
        transport = self.transport
        if self.is_closed or not transport.make_room(high_water):
            return False
        try:
            if self.gathered:
                self.flush()
            size = transport.write(data)
            self.bytes_sent += size
            self.packets_sent += 1
        except ConnectionError:  # reported to the next operation on the connection
            return False
        return True

    def get_unsent_size(self) -> int:
        return self.gathered_size() + self.transport.get_unsent_size()

    def gathered_size(self) -> int:
        """Return how many bytes are gathered."""
        return sum(map(len, self.gathered))

    def end_by(self, reason: CloseReason) -> None:
        """Take note of why the connection ends, unless there is a reason already."""
        if self.ended_by is None:
            self.ended_by = reason

    def _explained(self, exc: ConnectionError) -> ConnectionError:
        """Return the error of an operation that was going on when the connection ended."""
        self.end_by(CloseReason.PEER_RESET)
        if self.is_closed:
            closed = ClientClosedError("Closed client")
            closed.__cause__ = exc
            exc = closed
        return tag_with_client(self, exc)

    def _begin_to_gather(self, data: bytes) -> None:
        self.gathered.append(data)
        self._large_size = len(data)
        if len(data) >= _FLUSH_SIZE:
            self.flush()
        elif not self.flush_is_scheduled:
            # The handler may wait for something else before it comes to the last frame.
            self.flush_is_scheduled = True
            self.transport.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self.flush_is_scheduled = False
        with suppress(ConnectionError):  # reported to the next operation on the connection
            self.flush()

    def flush(self) -> None:
        """Send what was gathered.

        Raises:
            ConnectionError: The connection broke.
        """
        if self.gathered:
            data = b"".join(self.gathered)
            self.count_gathered(len(data))
            self.transport.write(data)

    def count_gathered(self, size: int) -> None:
        """Take what was gathered for sent, whether it is or the connection breaks."""
        self.packets_sent += len(self.gathered)
        self.bytes_sent += size
        self.gathered = []
        self._large_size = 0


def nothing_at_hand() -> Any:
    """Return no packet: what `PacketClient.take` is while none may be taken."""
    return NEED_DATA
