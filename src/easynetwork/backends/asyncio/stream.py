"""A stream socket on asyncio: a protocol that reads into one buffer for the whole loop.

The event loop pushes: `buffer_updated` copies a chunk out and feeds it, whether anybody waits or
not. `receive` waits for the next push, and its absence is what pauses reading.

What the kernel does not take at once is given to asyncio's transport in one piece; while that
waits, further writes gather here. For since CPython 3.12 a transport keeps every piece apart and
adds up their lengths at every write: 32,000 answers of two bytes to a peer who does not read would
stop the loop for seconds.
"""

from __future__ import annotations

__all__ = ["AsyncIOStreamTransport"]

import asyncio
import math
import socket
from collections.abc import Callable
from typing import Any, Self, cast

from easynetwork.addresses import enable_socket_linger
from easynetwork.backends.abc import HIGH_WATER, LINGER_TIME, StreamTransport, broken_connection
from easynetwork.backends.receive_buffer import receive_view


class AsyncIOStreamTransport(StreamTransport, asyncio.BufferedProtocol):
    """A connected stream socket under asyncio's care. Made by `wrap`."""

    __slots__ = (
        "_at_eof",
        "_backlog",
        "_error",
        "_is_blocked",
        "_is_paused",
        "_lingers",
        "_loop",
        "_lost",
        "_transport",
        "_unsent",
        "_view",
        "_waiter",
        "_writable",
        "congested",
        "feed",
        "socket",
    )

    _transport: asyncio.Transport

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        feed: Callable[[bytes], bool],
        view: memoryview,
    ) -> None:
        self.feed = feed
        self.socket = sock
        self.congested = False
        self._loop = loop
        self._view = view
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Event | None = None  # set when no longer congested
        self._lost: asyncio.Event | None = None  # set when the descriptor is closed
        self._error: BaseException | None = None
        self._at_eof = False  # nothing will arrive any more
        self._is_paused = False
        self._is_blocked = False  # asyncio's transport has bytes that the kernel does not take
        self._unsent: bytes | bytearray = b""  # what was written since
        self._lingers = False
        self._backlog = 0  # bytes fed since somebody last asked for more

    @classmethod
    async def wrap(
        cls, sock: socket.socket, feed: Callable[[bytes], bool], max_recv_size: int
    ) -> Self:
        """See `AsyncBackend.wrap_stream_socket`."""
        loop = asyncio.get_running_loop()
        self = cls(loop, sock, feed, receive_view(max_recv_size))
        try:
            await loop.connect_accepted_socket(lambda: self, sock)
        except BaseException:
            sock.close()
            raise
        return self

    # -- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)  # tell when anything waits

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._backlog += nbytes
        if self.feed(self._view[:nbytes].tobytes()) and self._waiter is not None:
            self._wake_up()
            self._backlog = nbytes
        elif self._backlog > HIGH_WATER and self._waiter is None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._at_eof = True
        self._wake_up()
        return not self._lingers  # false: asyncio closes; true: the other direction stays open

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = exc
        self._at_eof = True
        self._unsent = b""
        self._wake_up()
        self.resume_writing()
        if self._lost is None:
            self._lost = asyncio.Event()
        self._lost.set()

    def pause_writing(self) -> None:
        self._is_blocked = True
        self._check_congestion()

    def resume_writing(self) -> None:
        self._is_blocked = False
        self._hand_over()
        if self.congested and not self._is_blocked:
            self.congested = False
            if self._writable is not None:
                self._writable.set()
                self._writable = None

    def _hand_over(self) -> None:
        """Give the loop what has gathered. It calls `pause_writing` if the kernel is full again."""
        data, self._unsent = self._unsent, b""
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _check_congestion(self) -> None:
        waiting = self._transport.get_write_buffer_size() + len(self._unsent)
        if waiting > HIGH_WATER and not self.congested:
            self.congested = True
            self._writable = asyncio.Event()

    def _wake_up(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- called by the owner

    async def receive(self, deadline: float = math.inf) -> None:
        if self._at_eof:
            if self._error is not None:
                raise broken_connection(self._error)
            raise EOFError
        self._backlog = 0
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        waiter = self._waiter = self._loop.create_future()
        timer = None if deadline == math.inf else self._start_timer(deadline, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _start_timer(self, deadline: float, waiter: asyncio.Future[None]) -> asyncio.Handle:
        if deadline > self._loop.time():
            return self._loop.call_at(deadline, _expire, waiter)
        # The loop looks at its sockets between this turn and the one after the next: what the
        # kernel holds gets here first.
        return self._loop.call_soon(self._loop.call_soon, _expire, waiter)

    def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            raise broken_connection(self._error)
        if not self._is_blocked:
            self._transport.write(data)
            return
        if self._unsent:
            self._unsent += data
        else:
            self._unsent = bytearray(data)
        self._check_congestion()

    async def drain(self) -> None:
        while self._writable is not None:
            await self._writable.wait()
        if self._transport.is_closing():
            raise broken_connection(self._error)

    async def send_eof(self) -> None:
        if not self._transport.is_closing():
            self._hand_over()
            self._transport.write_eof()

    async def aclose(self, *, linger: bool = False) -> None:
        if linger and not self._at_eof and not self._transport.is_closing():
            self._start_lingering()
        elif not self._lingers:
            self._hand_over()
            self._transport.close()
        self._at_eof = True
        self._wake_up()
        try:
            await self._wait_lost()
        except BaseException:
            self.abort()
            raise

    def _start_lingering(self) -> None:
        self._lingers = True
        self._hand_over()
        self._transport.write_eof()
        if self._is_paused:
            self._transport.resume_reading()
        self._loop.call_later(LINGER_TIME, self._transport.close)

    async def _wait_lost(self) -> None:
        if self._lost is None:
            self._lost = asyncio.Event()
        await self._lost.wait()

    def abort(self) -> None:
        if self.socket.fileno() >= 0:
            enable_socket_linger(self.socket, 0)  # close() sends RST, at once
        self._at_eof = True
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)


def _expire(waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError("timed out"))
