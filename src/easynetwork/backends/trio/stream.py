"""A stream socket on trio.

The task that wants data pulls: `receive` waits until the socket is readable and feeds one chunk.
What the kernel does not take at once is sent by a system task, which lives until nothing is left,
so that `write` needs no task of its own and never leaves bytes behind.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import outcome
import trio

from easynetwork._tuning import SEND_BUDGET_BYTES
from easynetwork.backends.abc import broken_connection
from easynetwork.backends.abc.stream import Feed
from easynetwork.backends.fair_queue import BUSY_PACKETS, BUSY_SIZE
from easynetwork.backends.stream_transport import SocketStreamTransport


class TrioStreamTransport(SocketStreamTransport):
    """A connected stream socket under trio's care."""

    __slots__ = ("_sending", "_task", "_token")

    def __init__(self, sock: socket.socket, feed: Feed, max_recv_size: int) -> None:
        super().__init__(sock, feed, max_recv_size)
        self._sending: trio.CancelScope | None = None  # while bytes wait to be sent
        self._task: trio.lowlevel.Task | None = None  # while it waits for its turn to read
        self._token = trio.lowlevel.current_trio_token()

    # -- called by the owner

    def receive(self, deadline: float = math.inf) -> Awaitable[None]:
        return self._receive() if deadline == math.inf else self._receive_until(deadline)

    async def _receive_until(self, deadline: float) -> None:
        if deadline > trio.current_time():
            with trio.CancelScope(deadline=deadline) as scope:
                await self._receive()
            if scope.cancelled_caught:
                raise TimeoutError("timed out")
        else:
            await trio.lowlevel.checkpoint()
            while not self._receive_now():  # a peer that sends without a break is not alone
                await trio.lowlevel.checkpoint()

    async def _receive(self) -> None:
        is_complete = False
        while not is_complete:
            if self._fair_queue.is_exhausted and self._must_wait():
                # Most often, a busy connection has data. To wait for it costs a tenth (measured).
                with suppress(TimeoutError):
                    is_complete = await self._receive_in_turn()
                    continue
            if not self._at_eof:
                try:
                    await trio.lowlevel.wait_readable(self.socket)
                except trio.ClosedResourceError:
                    self._at_eof = True
                except OSError as exc:  # other code has closed the descriptor
                    self._break(exc)
            try:
                if self._fair_queue.is_exhausted and self._must_wait():
                    is_complete = await self._receive_in_turn()
                else:
                    is_complete = self._receive_now()
            except TimeoutError:
                pass  # a spurious wake-up

    def _must_wait(self) -> bool:
        return not self._at_eof and self._fair_queue.must_wait(self)

    async def _receive_in_turn(self) -> bool:
        self._task = trio.lowlevel.current_task()
        self._fair_queue.enter(self, self, self._take_turn)
        is_complete: bool = await trio.lowlevel.wait_task_rescheduled(self._abandon_turn)
        return is_complete

    def _take_turn(self) -> None:
        task, self._task = self._task, None
        assert task is not None
        # Not in the task: what is read has to be charged before the next one is served.
        trio.lowlevel.reschedule(task, outcome.capture(self._receive_now))

    def _abandon_turn(self, _: object) -> trio.lowlevel.Abort:
        self._fair_queue.leave(self)
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _receive_now(self) -> bool:
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
            raise TimeoutError("timed out") from None
        except OSError as exc:
            self._break(exc)
            raise broken_connection(exc) from None
        if nbytes:
            packets = self.feed(view[:nbytes].tobytes())
            if nbytes >= busy_size or packets > BUSY_PACKETS:
                self._fair_queue.charge(self, nbytes, packets)
                self._budget = SEND_BUDGET_BYTES  # the answers are paid with the requests
            if not packets:
                self.observer.note_partial()
            return packets > 0
        self._at_eof = True
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
        if self._fair_queue.leave(self):
            self._take_turn()
        trio.lowlevel.notify_closing(self.socket)

    def _unregister(self) -> None:
        trio.lowlevel.notify_closing(self.socket)
