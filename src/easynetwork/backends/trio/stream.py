"""A stream socket on trio: non-blocking calls, and waits for readiness only.

The task that wants data pulls: `receive` waits until the socket is readable and feeds one chunk.
What the kernel does not take at once is sent by a system task, which lives until nothing is left,
so that `write` needs no task of its own and never leaves bytes behind.
"""

from __future__ import annotations

__all__ = ["TrioStreamTransport"]

import math
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

import trio

from easynetwork.addresses import enable_socket_linger
from easynetwork.backends.abc import HIGH_WATER, LINGER_TIME, StreamTransport, broken_connection
from easynetwork.backends.receive_buffer import receive_view

_LOW_WATER: Final = HIGH_WATER // 4  # as asyncio's transports: resumes with something left to send


class TrioStreamTransport(StreamTransport):
    """A connected stream socket under trio's care. Made by `wrap`."""

    __slots__ = (
        "_at_eof",
        "_error",
        "_is_closing",
        "_lingering",
        "_sends_eof",
        "_sent",
        "_token",
        "_unsent",
        "_view",
        "_writable",
        "congested",
        "feed",
        "socket",
    )

    def __init__(
        self, sock: socket.socket, feed: Callable[[bytes], bool], view: memoryview
    ) -> None:
        self.feed = feed
        self.socket = sock
        self.congested = False
        self._token = trio.lowlevel.current_trio_token()
        self._view = view
        self._unsent = bytearray()
        self._sent: trio.Event | None = None  # while bytes wait; set when there are none left
        self._writable: trio.Event | None = None  # set when no longer congested
        self._error: BaseException | None = None
        self._at_eof = False  # nothing will arrive any more
        self._is_closing = False
        self._lingering: trio.Event | None = None  # set when no longer reading to the end
        self._sends_eof = False

    @classmethod
    async def wrap(
        cls, sock: socket.socket, feed: Callable[[bytes], bool], max_recv_size: int
    ) -> Self:
        """See `AsyncBackend.wrap_stream_socket`."""
        return cls(sock, feed, receive_view(max_recv_size))

    # -- receiving

    async def receive(self, deadline: float = math.inf) -> None:
        if deadline == math.inf:
            while not await self._receive_chunk():
                pass
        elif deadline > trio.current_time():
            with trio.CancelScope(deadline=deadline) as scope:
                while not await self._receive_chunk():
                    pass
            if scope.cancelled_caught:
                raise TimeoutError("timed out")
        else:
            await trio.lowlevel.checkpoint()
            while not self._receive_now():
                pass

    async def _receive_chunk(self) -> bool:
        if not self._at_eof:
            try:
                await trio.lowlevel.wait_readable(self.socket)
            except trio.ClosedResourceError:
                self._at_eof = True
        try:
            return self._receive_now()
        except TimeoutError:
            return False  # a spurious wake-up

    def _receive_now(self) -> bool:
        if self._at_eof:
            if self._error is not None:
                raise broken_connection(self._error)
            raise EOFError
        try:
            nbytes = self.socket.recv_into(self._view)
        except BlockingIOError:
            raise TimeoutError("timed out") from None
        except OSError as exc:
            self._break(exc)
            raise broken_connection(exc) from None
        if nbytes:
            return self.feed(self._view[:nbytes].tobytes())
        self._at_eof = True
        return True

    # -- sending

    def write(self, data: bytes) -> None:
        if self._is_closing:
            raise broken_connection(self._error)
        if self._sent is None:
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as exc:
                self._break(exc)
                raise broken_connection(exc) from None
            if sent == len(data):
                return
            data = data[sent:]
            self._sent = trio.Event()
            trio.lowlevel.spawn_system_task(self._send_unsent, self._sent)
        self._unsent += data
        if len(self._unsent) > HIGH_WATER and not self.congested:
            self.congested = True
            self._writable = trio.Event()

    async def _send_unsent(self, sent: trio.Event) -> None:
        try:
            while self._unsent:
                await trio.lowlevel.wait_writable(self.socket)
                del self._unsent[: self._send_some()]
                if len(self._unsent) <= _LOW_WATER:
                    self._resume_writing()
            if self._sends_eof:
                self.socket.shutdown(socket.SHUT_WR)
        except (OSError, trio.ClosedResourceError) as exc:
            self._break(exc)
        finally:
            self._sent = None
            sent.set()

    def _send_some(self) -> int:
        with memoryview(self._unsent) as view:
            try:
                return self.socket.send(view)
            except BlockingIOError:  # a spurious wake-up
                return 0

    def _resume_writing(self) -> None:
        self.congested = False
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    async def drain(self) -> None:
        while self._writable is not None:
            await self._writable.wait()
        if self._is_closing:
            raise broken_connection(self._error)

    async def send_eof(self) -> None:
        if self._is_closing or self._sends_eof:
            return
        self._sends_eof = True
        if self._sent is None:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError as exc:
                self._break(exc)

    # -- closing

    async def aclose(self, *, linger: bool = False) -> None:
        linger = linger and not self._at_eof
        self._is_closing = True
        try:
            if self._sent is not None:
                await self._sent.wait()
            if self._lingering is not None:
                await self._lingering.wait()
            elif linger and self.socket.fileno() >= 0:
                await self._linger()
        except BaseException:
            self.abort()
            raise
        self._close()

    async def _linger(self) -> None:
        self._lingering = trio.Event()
        trio.lowlevel.notify_closing(self.socket)  # whoever waits in receive()
        with suppress(OSError, trio.ClosedResourceError), trio.move_on_after(LINGER_TIME):
            self.socket.shutdown(socket.SHUT_WR)
            await trio.lowlevel.wait_readable(self.socket)
            while self.socket.recv_into(self._view):
                await trio.lowlevel.wait_readable(self.socket)
        self._lingering.set()

    def abort(self) -> None:
        if self.socket.fileno() >= 0:
            enable_socket_linger(self.socket, 0)  # close() sends RST, at once
        self._close()

    def _break(self, exc: BaseException) -> None:
        if self._error is None and isinstance(exc, OSError):
            self._error = exc
        self._at_eof = self._is_closing = True
        self._unsent.clear()
        self._resume_writing()

    def _close(self) -> None:
        self._at_eof = self._is_closing = True
        self._unsent.clear()
        self._resume_writing()
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._token.run_sync_soon(callback)
