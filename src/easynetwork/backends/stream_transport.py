"""The shared body of stream transports: a non-blocking socket and its unsent bytes.

Bytes are sent at once as far as the kernel takes them. The rest waits in `_unsent`, and the loop
sends it whenever the socket is writable (`_send_later`). Only a producer above the high-water mark
and `aclose()` wait for that. `limit_sending()` bounds how long the bytes themselves may wait.

The receiving half is open until `_at_eof` is set. The sending half has `Phase`s.
"""

from __future__ import annotations

import errno
import math
import os
import socket
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any, Final

import anyio
import anyio.lowlevel

from easynetwork._forks import own_descriptor
from easynetwork._tuning import (
    CLOSE_TIMEOUT,
    HIGH_WATER,
    LINGER_TIME,
    SEND_BUDGET_BYTES,
    SEND_BUDGET_PER_PACKET,
)
from easynetwork.addresses import enable_socket_linger
from easynetwork.addresses._ancillary import AncillaryCallback, RawAncillary
from easynetwork.addresses._attributes import socket_attributes
from easynetwork.addresses._unix import AnySocketAddress, typed_address
from easynetwork.backends.abc import StreamTransport, broken_connection
from easynetwork.backends.abc.stream import UNOBSERVED, Farewell, Feed, PaceObserver
from easynetwork.backends.ancillary import receive_with_ancillary, send_with_ancillary
from easynetwork.backends.fair_queue import QUANTUM, fair_queue
from easynetwork.backends.lingering import has_unread, linger
from easynetwork.backends.phases import Phase
from easynetwork.backends.receive_buffer import receive_view
from easynetwork.sockets.messages import MessageReader
from easynetwork.sockets.patience import unacknowledged

_LOW_WATER: Final = HIGH_WATER // 4
"""As in asyncio's transports: a producer goes on while there is still something to send."""

_OPEN: Final = Phase.OPEN  # looked up once: write() compares with it
_local_address: Final = lru_cache(maxsize=8)(typed_address)  # one object for many connections


class SocketStreamTransport(StreamTransport):
    """A connected stream socket; how to wait for it is up to the loop.

    Attributes:
        socket: The socket.
    """

    __slots__ = (
        *("_all_sent", "_at_eof", "_below_low_water", "_budget", "_deadline", "_error", "_fd"),
        *("_fair_queue", "_linger_done", "_phase", "_queued", "_so_error_checked", "_source"),
        *("_taken", "_turns", "_unsent", "_view", "_wants_linger", "address", "congested", "feed"),
        *("finish_tag", "has_given_up", "has_lost_descriptor", "local_address", "socket"),
    )

    def __init__(self, sock: socket.socket, feed: Feed, max_recv_size: int) -> None:
        # OSError: the peer has reset the connection.
        self.address: AnySocketAddress = typed_address(sock.getpeername(), sock.family)
        self.local_address: AnySocketAddress = _local_address(sock.getsockname(), sock.family)
        self.close_timeout: float = CLOSE_TIMEOUT
        self.feed: Feed = feed
        self.observer: PaceObserver = UNOBSERVED
        self.socket: socket.socket = sock
        self._fd = sock.fileno()
        own_descriptor(sock, self)
        self.congested: bool = False
        self.has_given_up: bool = False
        self.has_lost_descriptor: bool = False
        self.finish_tag: int = 0  # see `Flow`
        self._fair_queue = fair_queue()
        self._view = receive_view(max_recv_size)
        self._source: socket.socket | MessageReader = sock
        self._phase = Phase.OPEN
        self._at_eof = False  # nothing will be received any more
        self._error: OSError | None = None  # what broke the connection
        self._unsent: bytearray | memoryview | None = None  # while the kernel does not take it
        self._taken = 0  # bytes of those that had to wait which the kernel has taken since
        self._all_sent: anyio.Event | None = None  # while bytes are unsent
        self._below_low_water: anyio.Event | None = None  # while more than `HIGH_WATER` are
        self._budget = SEND_BUDGET_BYTES  # before the loop should get a turn
        self._deadline = math.inf  # when the connection is reset if bytes are still unsent
        self._turns: anyio.Lock | None = None  # while tasks wait for their turn to write
        self._queued = 0  # how many do
        self._wants_linger = False  # goes on reading when everything is sent
        self._linger_done: anyio.Event | None = None  # while it does that
        self._so_error_checked = True  # there was none when it was last asked, or sent to

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return socket_attributes(self.socket, self.local_address, self.address)

    # -- what the loop adds

    @abstractmethod
    def _send_later(self) -> None:
        """Call `_send_some()` whenever the socket is writable, until it returns true.

        If that is not so at `_deadline`, call `_give_up()`.
        """

    @abstractmethod
    def _stop_receiving(self) -> None:
        """Feed no more, and wake up the task that waits in `receive()`."""

    @abstractmethod
    def _unregister(self) -> None:
        """Stop watching the socket: it is about to be closed, or broken."""

    async def wait_readable(self) -> None:
        """Wait until it is worth trying to receive, while nobody else receives.

        Raises:
            anyio.ClosedResourceError: The socket was closed.
        """
        await anyio.wait_readable(self.socket)

    # -- ancillary data

    async def receive_with_ancillary(
        self, bufsize: int, received: AncillaryCallback, deadline: float = math.inf
    ) -> None:
        await receive_with_ancillary(self, bufsize, received, deadline)

    async def send_with_ancillary(
        self, encode: Callable[[], bytes], ancillary: RawAncillary
    ) -> int:
        return await send_with_ancillary(self, encode, ancillary)

    # -- receiving, as far as it is the same for all loops

    def has_unread(self) -> bool:
        return has_unread(self.socket)

    def stop_receiving(self) -> None:
        self._wants_linger = not self._at_eof  # the peer may be sending: see `aclose()`
        self._at_eof = True
        self._stop_receiving()

    # -- sending

    def write(self, data: bytes | bytearray) -> int:
        if self._phase is not _OPEN and self._phase >= Phase.FLUSHING:
            raise broken_connection(self._error)
        if self._unsent is None:
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as exc:
                self._break_sending(exc)
                raise broken_connection(exc) from None
            if sent == len(data):
                self._so_error_checked = True
                budget = self._budget = self._budget - sent - SEND_BUDGET_PER_PACKET
                if budget < 0:
                    self.congested = True
                return sent
            self._unsent = memoryview(data)[sent:]
            self._all_sent = anyio.Event()
            self._send_later()
            self.observer.note_unsent()
        else:
            if isinstance(self._unsent, memoryview):
                self._unsent = bytearray(self._unsent)
            self._unsent += data
        if len(self._unsent) > HIGH_WATER and self._below_low_water is None:
            self.congested = True
            self._below_low_water = anyio.Event()
        return len(data)

    def _send_some(self) -> bool:
        """Send what the kernel takes; return whether that is all there was."""
        if self._unsent is None:
            return True
        try:
            nbytes = self.socket.send(self._unsent)
            self._taken += nbytes
            if isinstance(self._unsent, memoryview):
                self._unsent = self._unsent[nbytes:]
            else:
                del self._unsent[:nbytes]
        except BlockingIOError:  # a spurious wake-up
            return False
        except OSError as exc:
            self._break_sending(exc)
            return True
        if len(self._unsent) <= _LOW_WATER:
            self._resume_writing()
        if self._unsent:
            return False
        self._discard_unsent()
        self._shut_down_if_done()
        return True

    def _discard_unsent(self) -> None:
        self._unsent = None
        if self._all_sent is not None:
            self._all_sent.set()
            self._all_sent = None
        self._resume_writing()

    def _resume_writing(self) -> None:
        self._budget = SEND_BUDGET_BYTES
        self.congested = self._queued > 0
        if self._below_low_water is not None:
            self._below_low_water.set()
            self._below_low_water = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        if self._turns is None:
            self._turns = anyio.Lock()
        self._queued += 1
        self.congested = True  # until the turn is over, others wait for theirs
        try:
            async with self._turns:
                while self._below_low_water is not None or self._budget < 0:
                    await self.drain()
                yield
        finally:
            self._queued -= 1
            if not self._queued:
                self._turns = None
                self.congested = self._below_low_water is not None
                self._shut_down_if_done()

    def get_unsent_size(self) -> int:
        return 0 if self._unsent is None else len(self._unsent)

    def get_progress(self) -> tuple[int, int] | None:
        return None if self._unsent is None else (self._taken, unacknowledged(self.socket))

    def make_room(self, high_water: int) -> bool:
        if self._queued or self.get_unsent_size() > high_water:
            return False
        if self._budget < 0 and self._below_low_water is None:
            self._resume_writing()
        return True

    def _give_up(self) -> None:
        """Reset the connection: its peer had time enough to take what was sent."""
        if self._unsent is not None:
            if self._error is None:
                self._error = TimeoutError(
                    errno.ETIMEDOUT, "The peer did not read what was sent to it in time"
                )
            self.has_given_up = True
            self.abort()

    async def drain(self) -> None:
        if self._below_low_water is None and self._budget < 0:
            turn = self._below_low_water = anyio.Event()
            self._fair_queue.enter(turn, self, self._renew_budget)
        # Once: the task with the next turn may write, and congest the transport again, before this
        # one runs, and the bytes of this one have left.
        if self._below_low_water is not None:
            await self._below_low_water.wait()
        if self._phase == Phase.BROKEN:
            raise broken_connection(self._error)

    def _renew_budget(self) -> None:
        self._fair_queue.charge(self, QUANTUM)
        if self.get_unsent_size() <= HIGH_WATER:  # else, the loop does so when it has sent enough
            self._resume_writing()

    async def give_way(self) -> None:
        await self._fair_queue.give_way(self)

    async def send_eof(self) -> None:
        if self._phase == Phase.OPEN:
            self._phase = Phase.ENDING
            self._shut_down_if_done()

    def _shut_down_if_done(self) -> None:
        if self._phase == Phase.ENDING and self._unsent is None and not self._queued:
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            self._break_sending(exc)

    # -- closing

    async def aclose(
        self, *, timeout: float | None = None, linger: bool = False, farewell: Farewell = None
    ) -> None:
        if timeout is None:
            timeout = self.close_timeout
        if self._phase < Phase.CLOSING:
            self._phase = Phase.CLOSING
            if not self._at_eof or self._wants_linger:
                self._wants_linger = linger or has_unread(self.socket)
            self._at_eof = True
            self._stop_receiving()
        try:
            while self._turns is not None:
                self.limit_sending(timeout)
                async with self._turns:
                    pass
            if farewell is not None and self._phase < Phase.FLUSHING:
                farewell()
            self._phase = max(self._phase, Phase.FLUSHING)
            if self._all_sent is not None:
                self.limit_sending(timeout)
            if self._wants_linger:
                await self._linger(min(timeout, LINGER_TIME))
            elif self._all_sent is not None:
                await self._all_sent.wait()
        except BaseException:
            self.abort()
            raise
        self._close()

    async def _linger(self, timeout: float) -> None:
        if self._linger_done is not None:
            if self._all_sent is not None:
                await self._all_sent.wait()
            with anyio.move_on_after(timeout):
                await self._linger_done.wait()
            return
        self._linger_done = anyio.Event()
        try:
            await linger(self, self._view, self._all_sent, self._shut_down, timeout)
        finally:
            self._linger_done.set()

    def abort(self) -> None:
        if self.socket.fileno() >= 0:
            with suppress(OSError):  # the descriptor is not ours any more
                enable_socket_linger(self.socket, 0)  # close() sends RST, at once
        self._phase = Phase.BROKEN
        self._close()

    def is_closing(self) -> bool:
        return self._phase >= Phase.FLUSHING

    def _break(self, exc: OSError) -> None:
        self._break_sending(exc)
        self._end()

    def _break_sending(self, exc: OSError) -> None:
        """Send no more. What has arrived can be received: maybe it says why the peer left."""
        if self._error is None:
            # Without its traceback, whose frames refer to this transport.
            self._error = exc.with_traceback(None)
        self._phase = Phase.BROKEN
        self._wants_linger = False
        if exc.errno == errno.EBADF:
            self.has_lost_descriptor = True
        self._discard_unsent()

    def _close(self) -> None:
        self._end()
        if self.socket.fileno() < 0:
            return
        if self._linger_done is not None:
            anyio.notify_closing(self.socket)
        if self._phase != Phase.BROKEN:
            # The end of the stream, though another process may have a copy of the descriptor.
            with suppress(OSError):  # the peer has reset the connection
                self.socket.shutdown(socket.SHUT_RDWR)
        try:
            self.socket.close()
        except OSError as exc:  # close(2) releases the descriptor, whatever it says, unless
            if exc.errno == errno.EBADF:  # other code has closed it
                self.lose_descriptor()

    def lose_descriptor(self) -> None:
        """Let go of the descriptor, which other code has closed: its number may be in use again."""
        self._error = OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._phase = Phase.BROKEN
        self.has_lost_descriptor = True
        self._end()
        self.socket.detach()

    def _end(self) -> None:
        self._at_eof = True
        self._phase = max(self._phase, Phase.CLOSED)
        self._wants_linger = False
        self._discard_unsent()
        if self.socket.fileno() >= 0:
            # If other code has closed the descriptor, the first of these forgets all about it, but
            # may complain: epoll does not know the number any more.
            with suppress(OSError):
                self._unregister()
            self._stop_receiving()
