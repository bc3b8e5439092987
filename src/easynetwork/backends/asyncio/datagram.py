"""A datagram socket on asyncio.

The event loop calls back when the socket is readable. asyncio's own datagram transport takes one
datagram per turn of the loop, which costs several times as much (measured), and keeps what is not
asked for in a buffer without bounds.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from easynetwork.backends.abc.datagram import BatchCallback, ErrorCallback
from easynetwork.backends.asyncio.readiness import selector_of, stops_watching_on_error, wait_until
from easynetwork.backends.asyncio.stream import wake_up_later, waking_up
from easynetwork.backends.datagram_endpoint import SocketDatagramEndpoint
from easynetwork.sockets.datagrams import DatagramCalls


class AsyncIODatagramEndpoint(SocketDatagramEndpoint):
    """A datagram socket under asyncio's care."""

    __slots__ = (
        *("_callback", "_fd", "_is_reading", "_loop", "_next", "_selector", "_waiter"),
        "_wake_up",
    )

    def __init__(self, sock: socket.socket, calls: DatagramCalls | None = None) -> None:
        super().__init__(sock, calls)
        self._loop = asyncio.get_running_loop()
        self._selector = selector_of(self._loop, sock)
        self._wake_up = waking_up(self._selector)
        self._fd = sock.fileno()
        self._is_reading = False
        self._waiter: asyncio.Future[None] | None = None
        self._next: Any = None  # what `receive` is about to return or raise

    async def _serve(self, received: BatchCallback, failed: ErrorCallback) -> None:
        # Not that in which the socket was bound, if a child of fork serves it.
        self._loop = asyncio.get_running_loop()
        self._selector = selector_of(self._loop, self.socket)
        self._waiter = self._loop.create_future()
        self._start_reading(partial(self.take_waiting, received, failed))
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._stop_reading()

    async def _readable(self, deadline: float) -> None:
        waiter = self._waiter = self._loop.create_future()
        self._start_reading(self._on_readable)
        try:
            if deadline == math.inf:
                await waiter
            elif deadline > self._loop.time():
                await wait_until(self._loop, deadline, waiter)
            else:
                await asyncio.sleep(0)
                if not waiter.done():
                    raise TimeoutError("timed out")
        finally:
            self._waiter = None

    def _take(self) -> Any:
        taken, self._next = self._next, None
        if taken is None:
            return super()._take()
        if isinstance(taken, OSError):
            raise taken
        return taken

    # -- called by the event loop

    def _on_readable(self) -> None:
        # Reads, because `receive` would come after the next look at the socket: twice the work. The
        # reader stays, because a client that waits for an answer will wait for the next one too.
        if self._waiter is None or self._waiter.done():
            self._stop_reading()
            return
        try:
            self._next = super()._take()
        except OSError as exc:
            self._next = exc
        if self._next is not None:
            self._wake_up(self._waiter)  # last: see there

    # -- the reader

    def _start_reading(self, callback: Callable[[], object]) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._callback = callback
            self._selector.add_reader(self._fd, callback)

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._selector.remove_reader(self._fd)

    def _forget_error(self) -> None:
        super()._forget_error()
        if self._is_reading and stops_watching_on_error(self._loop):
            self._stop_reading()
            self._start_reading(self._callback)

    def _unregister(self) -> None:
        self._stop_reading()
        self._next = None
        if self._waiter is not None:
            wake_up_later(self._waiter)
