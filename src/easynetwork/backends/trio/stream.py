"""A stream socket on trio.

The task that wants data pulls: `receive` waits until the socket is readable and feeds a chunk. What
waits for the socket is the task itself, or `Readiness` for many of them, which then reads for it.
What the kernel does not take at once is sent by a system task, which lives until nothing is left,
so that `write` needs no task of its own and never leaves bytes behind.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import outcome
import trio

from easynetwork._tuning import SEND_BUDGET_BYTES
from easynetwork.backends.abc import broken_connection
from easynetwork.backends.abc.stream import Feed
from easynetwork.backends.fair_queue import BUSY_PACKETS, BUSY_SIZE
from easynetwork.backends.stream_transport import SocketStreamTransport
from easynetwork.backends.trio.readiness import Readiness, readiness


class TrioStreamTransport(SocketStreamTransport):
    """A connected stream socket under trio's care."""

    __slots__ = (
        *("_is_quiet", "_is_watched", "_looks_twice", "_readiness"),
        *("_sending", "_task", "_token"),
    )

    def __init__(self, sock: socket.socket, feed: Feed, max_recv_size: int) -> None:
        super().__init__(sock, feed, max_recv_size)
        self._sending: trio.CancelScope | None = None  # while bytes wait to be sent
        # While it waits for its turn to read, or for something to read, if the socket is watched.
        self._task: trio.lowlevel.Task | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._readiness: Readiness | None = readiness()
        self._is_watched = self._readiness.join(self._fd, self)
        # Nothing is left to read. If the socket is watched, `on_ready()` tells when that changes.
        self._is_quiet = True
        # Whether a read that does not fill the buffer may leave something: on a Unix socket, before
        # bytes with other ancillary data.
        self._looks_twice = sock.family == getattr(socket, "AF_UNIX", None)

    # -- called by the owner

    def receive(self, deadline: float = math.inf) -> Awaitable[Any]:
        if deadline < math.inf:
            return self._receive_until(deadline)
        if not self._is_watched or self._at_eof:
            return self._receive()
        return self._wait() if self._is_quiet else self._receive_in_turn()

    async def _receive_until(self, deadline: float) -> None:
        if deadline > trio.current_time():
            with trio.CancelScope(deadline=deadline) as scope:
                await self.receive()
            if scope.cancelled_caught:
                raise TimeoutError("timed out")
        else:
            await trio.lowlevel.checkpoint()
            while not (found := self._receive_now()):
                if found is None:
                    raise TimeoutError("timed out")
                await trio.lowlevel.checkpoint()  # a peer that sends without a break is not alone

    async def _receive(self) -> None:
        is_complete: bool | None = False
        while not is_complete:
            # Most often, a busy connection has data. To wait for it costs a tenth (measured).
            if (self._is_quiet or not self._must_wait()) and not self._at_eof:
                try:
                    await trio.lowlevel.wait_readable(self.socket)
                except trio.ClosedResourceError:
                    self._at_eof = True
                except OSError as exc:  # other code has closed the descriptor
                    self._break(exc)
                self._is_quiet = False
            if self._must_wait():
                is_complete = await self._receive_in_turn()
            else:
                is_complete = self._receive_now()

    def _must_wait(self) -> bool:
        fair_queue = self._fair_queue
        return fair_queue.is_exhausted and not self._at_eof and fair_queue.must_wait(self)

    def _receive_in_turn(self) -> Awaitable[bool | None]:
        self._fair_queue.enter(self, self, self._take_turn)
        return self._wait()

    def _wait(self) -> Awaitable[bool | None]:
        """Wait until it was the turn of the socket, or what is watched has something complete."""
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abandon_wait)  # noqa: ASYNC105 - by callers

    def _abandon_wait(self, _: object) -> trio.lowlevel.Abort:
        self._fair_queue.leave(self)
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def on_ready(self, *, is_plain: bool) -> None:
        """Implement `Watched`."""
        self._is_quiet = False
        # After the end, nothing else will tell; and reading stops at urgent data (tcp(7)).
        self._looks_twice = self._looks_twice or not is_plain
        if self._task is not None:
            if self._must_wait():
                self._fair_queue.enter(self, self, self._take_turn)
            else:
                self._fair_queue.leave(self)
                self._take_turn()

    def _take_turn(self) -> None:
        task, self._task = self._task, None
        assert task is not None
        # Not in the task: what is read has to be charged before the next one is served.
        result = outcome.capture(self._receive_now)
        is_partial = isinstance(result, outcome.Value) and not result.value
        if not (is_partial and self._is_watched) or self._at_eof:
            trio.lowlevel.reschedule(task, result)
        else:
            self._task = task  # it goes on waiting
            if not self._is_quiet:
                self._fair_queue.enter(self, self, self._take_turn)
        del result  # the traceback of its exception refers to this frame

    def _receive_now(self) -> bool | None:
        """Read once; return whether something is complete, or at its end; None for nothing."""
        if self._at_eof:
            if self._error is not None:
                raise broken_connection(self._error)
            raise EOFError
        view, busy_size = self._view, BUSY_SIZE
        if self._fair_queue.is_exhausted:
            view = self._fair_queue.limited(view)
            busy_size = len(view)
        try:
            nbytes = self._source.recv_into(view)
        except BlockingIOError:
            self._is_quiet = True
            return None
        except OSError as exc:
            self._break(exc)
            raise broken_connection(exc) from None
        if nbytes:
            if self._is_watched and nbytes < len(view):  # nothing is left: epoll(7)
                self._is_quiet = not (self._looks_twice and self._has_something())
            packets = self.feed(view[:nbytes].tobytes())
            if nbytes >= busy_size or packets > BUSY_PACKETS:
                self._fair_queue.charge(self, nbytes, packets)
                self._budget = SEND_BUDGET_BYTES  # the answers are paid with the requests
            if not packets:
                self.observer.note_partial()
            return packets > 0
        self._at_eof = True
        return True

    def _has_something(self) -> bool:
        """Whether reading would not block: bytes are there, or the end, or an error."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError as exc:  # which the socket has forgotten now
            self._break_sending(exc)
        return True

    def limit_sending(self, timeout: float) -> None:
        self._deadline = min(self._deadline, trio.current_time() + timeout)
        if self._sending is not None:
            self._sending.deadline = self._deadline

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._token.run_sync_soon(callback)

    # -- called by the base class

    def _send_later(self) -> None:
        trio.lowlevel.spawn_system_task(self._send_unsent)

    async def _send_unsent(self) -> None:
        with trio.CancelScope(deadline=self._deadline) as self._sending:
            while self._unsent is not None:
                try:
                    await trio.lowlevel.wait_writable(self.socket)
                except trio.ClosedResourceError:
                    pass  # receive() was to be woken up, not this
                except OSError as exc:  # other code has closed the descriptor
                    self._break_sending(exc)
                self._send_some()
        if self._sending.cancelled_caught:
            self._give_up()
        self._sending = None

    def _stop_receiving(self) -> None:
        self._in_its_loop(self._wake)

    def _unregister(self) -> None:
        self._in_its_loop(self._leave)

    def _in_its_loop(self, callback: Callable[[], object]) -> None:
        """Call a function where the connection lives: not always here, see `own_descriptor()`."""
        try:
            is_here = trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:  # no loop of trio's runs here
            is_here = False
        if is_here:
            callback()
        else:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(callback)

    def _wake(self) -> None:
        if self._task is not None:
            self._fair_queue.leave(self)
            self._take_turn()
        trio.lowlevel.notify_closing(self._fd)

    def _leave(self) -> None:
        if self._readiness is not None:
            self._readiness.leave(self._fd, is_watched=self._is_watched)
            self._readiness = None
        trio.lowlevel.notify_closing(self._fd)
