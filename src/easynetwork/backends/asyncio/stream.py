"""A stream socket on asyncio.

The event loop pushes: from the first `receive()` on, a chunk is fed whenever the socket is
readable, whether a task waits or not. Reading pauses when no task has asked for a while.

asyncio's own transports are not used. Without them a request costs a tenth less (measured), a
connection is cheaper to set up and to keep, and how it ends is decided here. And since CPython 3.12
they add up the lengths of all that waits to be sent, at every write: 32,000 answers of two bytes
to a peer that does not read would stop the loop for seconds.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from math import inf

from easynetwork._tuning import HIGH_WATER, SEND_BUDGET_BYTES
from easynetwork.backends.abc import broken_connection
from easynetwork.backends.abc.stream import Feed
from easynetwork.backends.asyncio.readiness import (
    Selector,
    selector_of,
    stops_watching_on_error,
    wait_until,
)
from easynetwork.backends.fair_queue import BUSY_PACKETS, BUSY_SIZE
from easynetwork.backends.stream_transport import SocketStreamTransport


class AsyncIOStreamTransport(SocketStreamTransport):
    """A connected stream socket under asyncio's care."""

    __slots__ = (
        *("_fed", "_is_reading", "_is_unix", "_loop"),
        *("_keeps_watching", "_selector", "_timer", "_waiter", "_wake_up"),
    )

    def __init__(self, sock: socket.socket, feed: Feed, max_recv_size: int) -> None:
        super().__init__(sock, feed, max_recv_size)
        self._loop = asyncio.get_running_loop()
        self._selector = selector_of(self._loop, sock)
        self._is_unix = sock.family == getattr(socket, "AF_UNIX", None)
        self._keeps_watching = not stops_watching_on_error(self._loop)
        self._wake_up = waking_up(self._selector)
        self._timer: asyncio.TimerHandle | None = None  # while there is a deadline for sending
        self._waiter: asyncio.Future[None] | None = None
        self._fed = 0  # bytes fed since the last receive()
        self._is_reading = False  # before the first receive(): nothing is fed to the wrong function

    # -- called by the event loop

    def _on_readable(self, *, may_wait: bool = True) -> bool:
        """Read once, unless it is the turn of others; return whether there was anything."""
        if self._is_unix and (self._waiter is None or self._waiter.done()):
            # The next task may ask for ancillary data, which to read without would lose.
            self._stop_reading()
            return False
        view, busy_size = self._view, BUSY_SIZE
        if self._fair_queue.is_exhausted:
            if may_wait and self._fair_queue.must_wait(self):
                self._wait_for_turn()
                return False
            view = self._fair_queue.limited(view)
            busy_size = len(view)
        # A loop that stops watching a socket with an error will not call again, if this was its
        # last call. To ask for the error each time would cost a twentieth of a request (measured).
        self._so_error_checked = self._keeps_watching
        try:
            nbytes = self._source.recv_into(view)
        except BlockingIOError:
            self._check_so_error_if_waiting()
            return False
        except OSError as exc:
            self._break(exc)
            return True
        if nbytes:
            packets = self.feed(view[:nbytes].tobytes())
            if nbytes >= busy_size or packets > BUSY_PACKETS:
                self._fair_queue.charge(self, nbytes, packets)
                self._budget = SEND_BUDGET_BYTES  # the answers are paid with the requests
            if not packets:
                self.observer.note_partial()
        else:
            packets = 1  # the end: something that a task waits for, too
            self._at_eof = True
            self._stop_reading()
        if packets and (waiter := self._waiter) is not None:
            self._fed, self._waiter = nbytes, None
            self._wake_up(waiter)  # last: the task may do anything
        else:
            self._note_fed(nbytes)
        return True

    def _note_fed(self, nbytes: int) -> None:
        self._fed += nbytes
        if self._fed > HIGH_WATER and (self._waiter is None or self._waiter.done()):
            self._stop_reading()
        self._check_so_error_if_waiting()

    def _wait_for_turn(self) -> None:
        # The selector would call again in each turn of the loop.
        self._selector.remove_reader(self._fd)
        self._fair_queue.enter(self, self, self._take_turn)

    def _take_turn(self) -> None:
        try:
            self._on_readable()
        finally:  # KeyboardInterrupt may end the task that goes on, and the connection stay in use
            if self._is_reading:
                # After reading, which finds out if the descriptor is still open.
                self._start_reading()

    def _check_so_error_if_waiting(self) -> None:
        if not self._so_error_checked and self._waiter is not None:
            self._check_so_error()

    def _check_so_error(self) -> None:
        self._so_error_checked = True
        if self._at_eof:
            return
        # To ask for the error makes the socket forget it. What had arrived before is still there.
        if error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._break_sending(OSError(error, os.strerror(error)))

    def _rewatch(self) -> None:
        if self._is_reading:
            self._stop_reading()
            self._start_reading()

    def _start_reading(self) -> None:
        self._is_reading = True
        self._selector.add_reader(self._fd, self._on_readable)

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            if not self._fair_queue.leave(self):
                self._selector.remove_reader(self._fd)

    # -- called by the owner

    def receive(self, deadline: float = inf) -> Awaitable[None]:
        if self._at_eof:
            raise EOFError if self._error is None else broken_connection(self._error)
        waiter: asyncio.Future[None] = asyncio.Future()
        if waiter.get_loop() is not self._loop:  # faster than to name it in the call
            raise RuntimeError("The connection belongs to another event loop")
        if not self._so_error_checked:
            self._check_so_error()
        if not self._is_reading:
            self._start_reading()
        self._fed, self._waiter = 0, waiter
        if deadline == inf:
            return waiter
        if deadline > self._loop.time():
            return wait_until(self._loop, deadline, waiter)
        return self._poll(waiter)

    async def _poll(self, waiter: asyncio.Future[None]) -> None:
        while not waiter.done():
            await asyncio.sleep(0)  # each time: a peer that sends without a break is not alone
            if not waiter.done() and not self._on_readable(may_wait=False):
                self._waiter = None
                raise TimeoutError("timed out")

    def limit_sending(self, timeout: float) -> None:
        self._deadline = min(self._deadline, self._loop.time() + timeout)
        if self._unsent is not None:
            self._start_timer()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    # -- called by the base class

    def _break_sending(self, exc: OSError) -> None:
        super()._break_sending(exc)
        if not (self._keeps_watching or self.has_lost_descriptor):
            self._rewatch()

    def _send_later(self) -> None:
        self._selector.add_writer(self._fd, self._on_writable)
        self._start_timer()

    def _start_timer(self) -> None:
        self._stop_timer()
        if self._deadline < inf:
            self._timer = self._loop.call_at(self._deadline, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _discard_unsent(self) -> None:
        super()._discard_unsent()
        self._stop_timer()

    def _on_writable(self) -> None:
        if self._send_some():
            self._selector.remove_writer(self._fd)

    def _stop_receiving(self) -> None:
        self._stop_reading()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake_up_later(waiter)

    def _unregister(self) -> None:
        self._selector.remove_writer(self._fd)


def waking_up(selector: Selector) -> Callable[[asyncio.Future[None]], None]:
    """Return a function that sets the result of a future, unless it is done.

    On most loops, the task that waits goes on at once. Otherwise it would at the next turn of the
    loop: then, a request with no others in flight takes two turns, and a quarter more instructions
    (measured). The function's caller is to be done: the task may do anything, such as closing the
    connection.

    Args:
        selector: Whose callbacks call the function.
    """
    # If it has tasks for its callbacks, no other task can go on in them. And in debug mode,
    # asyncio's log is to name the task that takes long.
    if isinstance(selector, asyncio.AbstractEventLoop) and not selector.get_debug():
        return _let_go_on
    return wake_up_later


def _let_go_on(waiter: asyncio.Future[None]) -> None:
    if callbacks := waiter._callbacks:  # none before the task waits, and when the future is done
        callback, context = callbacks[0]
        waiter.remove_done_callback(callback)
        waiter.set_result(None)
        context.run(callback, waiter)
    else:
        wake_up_later(waiter)


def wake_up_later(waiter: asyncio.Future[None]) -> None:
    """Set the result of a future, unless it is done: its task goes on at a turn of the loop."""
    if not waiter.done():
        waiter.set_result(None)
