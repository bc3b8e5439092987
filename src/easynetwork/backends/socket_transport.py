"""What stream transports have in common on every loop: a non-blocking socket, and what it owes.

Bytes are sent at once as far as the kernel takes them. The rest waits in `_unsent`, and the loop
sends it whenever the socket is writable (`_send_later`). Nobody has to wait for that but producers
above the high-water mark and who closes.
"""

from __future__ import annotations

__all__ = ["SocketTransport"]

import socket
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import anyio
import anyio.lowlevel

from easynetwork.addresses import enable_socket_linger
from easynetwork.backends.abc import StreamTransport, broken_connection
from easynetwork.backends.limits import CLOSE_TIMEOUT, HIGH_WATER, LINGER_TIME
from easynetwork.backends.receive_buffer import receive_view

_LOW_WATER: Final = HIGH_WATER // 4
"""As asyncio's transports: a producer goes on while there is still something to send."""


class SocketTransport(StreamTransport):
    """A connected stream socket; how to wait for it is up to the loop."""

    __slots__ = (
        "_at_eof",
        "_error",
        "_is_broken",
        "_is_closing",
        "_is_sound",
        "_lingering",
        "_lingers",
        "_sends_eof",
        "_sent",
        "_unsent",
        "_view",
        "_writable",
        "close_timeout",
        "congested",
        "feed",
        "socket",
    )

    def __init__(
        self, sock: socket.socket, feed: Callable[[bytes], bool], max_recv_size: int
    ) -> None:
        self.close_timeout: float = CLOSE_TIMEOUT
        self.feed: Callable[[bytes], bool] = feed
        self.socket: socket.socket = sock
        self.congested: bool = False
        self._view = receive_view(max_recv_size)
        self._unsent: bytearray | memoryview | None = None  # while the kernel does not take it
        self._sent: anyio.Event | None = None  # set when there is nothing unsent any more
        self._writable: anyio.Event | None = None  # set when no longer congested
        self._lingers = False  # goes on reading when everything is sent
        self._lingering: anyio.Event | None = None  # while it does; set when that is over
        self._error: OSError | None = None
        self._is_broken = False  # what was unsent is lost
        self._at_eof = False  # nothing will arrive any more
        self._is_closing = False  # nothing can be sent any more
        self._sends_eof = False
        self._is_sound = True  # the socket had no error when it was asked, or sent to

    # -- what the loop adds

    @abstractmethod
    def _send_later(self) -> None:
        """Call `_send_some()` whenever the socket is writable, until it returns true."""

    @abstractmethod
    def _stop_receiving(self) -> None:
        """Feed no more, and wake up who waits in `receive()`."""

    @abstractmethod
    def _forget_socket(self) -> None:
        """Wait for the socket no more: it is about to be closed, or broken."""

    # -- sending

    def write(self, data: bytes | bytearray) -> None:
        if self._is_closing:
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
                self._is_sound = True
                return
            self._unsent = memoryview(data)[sent:]
            self._sent = anyio.Event()
            self._send_later()
        else:
            if isinstance(self._unsent, memoryview):
                self._unsent = bytearray(self._unsent)
            self._unsent += data
        if len(self._unsent) > HIGH_WATER and not self.congested:
            self.congested = True
            self._writable = anyio.Event()

    def _send_some(self) -> bool:
        """Send what the kernel takes; return whether that is all there was."""
        if self._unsent is None:
            return True
        try:
            nbytes = self.socket.send(self._unsent)
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
        if self._sends_eof:
            self._shut_down()
        return True

    def _discard_unsent(self) -> None:
        self._unsent = None
        if self._sent is not None:
            self._sent.set()
            self._sent = None
        self._resume_writing()

    def _resume_writing(self) -> None:
        self.congested = False
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    async def drain(self) -> None:
        while self._writable is not None:
            await self._writable.wait()
        if self._is_broken:
            raise broken_connection(self._error)

    async def send_eof(self) -> None:
        if self._is_closing or self._sends_eof:
            return
        self._sends_eof = True
        if self._unsent is None:
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            self._break_sending(exc)

    # -- closing

    async def aclose(self, *, linger: bool = False) -> None:
        if not self._is_closing:
            self._lingers = not self._at_eof and (linger or self._has_unread())
            self._at_eof = self._is_closing = True
            self._stop_receiving()
        try:
            if self._lingers:
                await self._linger()
            elif self._sent is not None:
                await self._sent.wait()
        except BaseException:
            self.abort()
            raise
        self._close()

    def _has_unread(self) -> bool:
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    async def _linger(self) -> None:
        if self._lingering is not None:
            await self._lingering.wait()
            return
        self._lingering = anyio.Event()
        try:
            async with anyio.create_task_group() as tasks:
                peer_ended = anyio.Event()
                tasks.start_soon(self._read_to_end, peer_ended)  # the peer may not read before
                if self._sent is not None:
                    await self._sent.wait()
                self._shut_down()
                with anyio.move_on_after(LINGER_TIME):
                    await peer_ended.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._lingering.set()

    async def _read_to_end(self, ended: anyio.Event) -> None:
        with suppress(OSError, anyio.ClosedResourceError):
            while self.socket.fileno() >= 0:
                await anyio.wait_readable(self.socket)
                # On uvloop, anyio does not find time to cancel who is ready at every turn.
                await anyio.lowlevel.checkpoint_if_cancelled()
                with suppress(BlockingIOError):
                    if not self.socket.recv_into(self._view):
                        break
        ended.set()

    def abort(self) -> None:
        if self.socket.fileno() >= 0:
            enable_socket_linger(self.socket, 0)  # close() sends RST, at once
            self._is_broken = True
        self._close()

    def is_closing(self) -> bool:
        return self._is_closing

    def _break(self, exc: OSError) -> None:
        self._break_sending(exc)
        self._end()

    def _break_sending(self, exc: OSError) -> None:
        """Send no more. What has arrived can be received: maybe it says why the peer left."""
        if self._error is None:
            self._error = exc
        self._is_broken = self._is_closing = True
        self._lingers = False
        self._discard_unsent()

    def _close(self) -> None:
        self._end()
        if self._lingering is not None and self.socket.fileno() >= 0:
            anyio.notify_closing(self.socket)
        self.socket.close()

    def _end(self) -> None:
        self._at_eof = self._is_closing = True
        self._lingers = False
        self._discard_unsent()
        if self.socket.fileno() >= 0:
            self._stop_receiving()
            self._forget_socket()
