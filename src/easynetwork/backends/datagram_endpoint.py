"""A datagram socket in the care of an event loop.

Datagrams stay in the kernel until somebody asks for them, and leave at once or not at all, so there
is nothing to buffer. A server is handed what arrives (`serve`); a client takes one datagram after
the other (`receive`). How to wait until the socket is readable is all that loops differ in.
"""

from __future__ import annotations

__all__ = ["MAX_DATAGRAM_SIZE", "Batch", "DatagramEndpoint", "too_long"]

import errno
import math
import socket as _socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel

from easynetwork._forks import close_in_children, keep_in_children, take_descriptor
from easynetwork.backends.receive_buffer import receive_view

Batch: TypeAlias = list[tuple[bytes, Any]]
"""Datagrams, with their senders' addresses."""

BATCH_SIZE: Final = 64
"""Datagrams taken from one socket before the event loop gets a turn."""

MAX_DATAGRAM_SIZE: Final = 64 * 1024
"""No datagram is longer: its length has 16 bits (RFC 768)."""

_MAX_LENGTH: Final = {_socket.AF_INET: 65_507, _socket.AF_INET6: 65_527}
"""65,535 bytes, less 8 of UDP's header (RFC 768), less 20 of IPv4's, which counts itself (RFC 791,
3.1); IPv6's does not (RFC 8200, 3)."""

_MSG_ERRQUEUE: Final[int | None] = getattr(_socket, "MSG_ERRQUEUE", None)  # Linux


class DatagramEndpoint(ABC):
    """One datagram socket in the care of an event loop.

    All methods must be called in the event loop's thread. What nobody asks for stays in the kernel,
    which drops what is too much.

    Resource handling: owns its socket; `close()` must be called.

    Error handling: errors of the operating system are raised as they are. Those that an earlier
    datagram caused (an ICMP message said that nobody listens there) are reported by whatever comes
    next on the same socket, if that is connected. One that is not usually hears nothing of them
    (udp(7)); where it does, they say nothing of the peer at hand, so that sending tries once more.
    """

    __slots__ = ("__weakref__", "_in_a_row", "_view", "_writing", "socket")

    socket: _socket.socket
    """The socket, to ask for addresses and options. Not to be read, written or closed."""

    def __init__(self, sock: _socket.socket) -> None:
        take_descriptor(sock)
        self.socket = sock
        self._view = receive_view(MAX_DATAGRAM_SIZE)
        self._in_a_row = 0  # datagrams that were received without waiting
        self._writing = anyio.Lock()
        with suppress(OSError):
            sock.getpeername()
            # A client's. A server's is kept by children that fork before it is served.
            close_in_children(sock)

    async def serve(
        self, received: Callable[[Batch], object], failed: Callable[[OSError], object]
    ) -> None:
        """Hand over every datagram that arrives until the endpoint is closed.

        Each time the socket is readable, a bounded number of datagrams are taken from it before the
        event loop gets a turn. Both functions run in the context of the calling task.

        Args:
            received: Called with the datagrams that were taken, and their senders' addresses.
            failed: Called with each error of the socket; receiving goes on.
        """
        if self.socket.fileno() < 0:
            return
        close_in_children(self.socket)
        try:
            await self._serve(received, failed)
        finally:
            keep_in_children(self.socket)

    async def receive(self, deadline: float = math.inf) -> bytes:
        """Return the next datagram. At most one task may wait at a time.

        Args:
            deadline: As for `StreamTransport.receive`.

        Raises:
            TimeoutError: The deadline has passed.
            OSError: See above; `EBADF` if the endpoint is closed, also meanwhile.
        """
        if self._in_a_row == BATCH_SIZE:
            await anyio.lowlevel.checkpoint()
            self._in_a_row = 0
        while (datagram := self._take()) is None:
            self._in_a_row = 0
            await self._readable(deadline)
        self._in_a_row += 1
        return datagram

    def send(self, data: bytes, address: Any = None) -> bool:
        """Send a datagram at once.

        Args:
            data: The datagram.
            address: Where to; None if the socket is connected.

        Returns:
            Whether it was sent. If not, the kernel has no room for it; try again when `writable()`
            has returned.

        Raises:
            OSError: See above; `EMSGSIZE` if the datagram is too long, `EBADF` if the endpoint is
                closed.
        """
        try:
            if address is None:
                self.socket.send(data)
            else:
                self.socket.sendto(data, address)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno == errno.EMSGSIZE:
                raise too_long(data, self.socket.family) from None
            self._forget_error()
            if address is None:
                raise
            return self._send_again(data, address)
        return True

    def _send_again(self, data: bytes, address: Any) -> bool:
        # The error may be what became of an earlier datagram, to somebody else. If so, the kernel
        # has sent nothing.
        try:
            self.socket.sendto(data, address)
        except BlockingIOError:
            return False
        return True

    async def writable(self) -> None:
        """Wait until it is worth trying to send again. Any number of tasks may wait."""
        async with self._writing:  # they take turns: loops let only one of them wait
            if self.socket.fileno() >= 0:
                with suppress(anyio.ClosedResourceError):
                    await anyio.wait_writable(self.socket)

    def close(self) -> None:
        """Close the socket and wake up everybody who waits. May be called several times."""
        if self.socket.fileno() >= 0:
            anyio.notify_closing(self.socket)
            self._forget_socket()
            self.socket.close()

    # -- what the loop adds

    @abstractmethod
    async def _serve(
        self, received: Callable[[Batch], object], failed: Callable[[OSError], object]
    ) -> None:
        """Do what `serve` says."""

    @abstractmethod
    async def _readable(self, deadline: float) -> None:
        """Wait until it is worth trying to receive again, or the endpoint is closed.

        Raises:
            TimeoutError: The deadline has passed.
        """

    @abstractmethod
    def _forget_socket(self) -> None:
        """Wake up who waits for the socket to be readable: it is about to be closed."""

    # -- for the loop

    def _take(self) -> bytes | None:
        """Return the next datagram, None if there is none."""
        try:
            nbytes = self.socket.recv_into(self._view)
        except BlockingIOError:
            return None
        except OSError:
            self._forget_error()
            raise
        return self._view[:nbytes].tobytes()

    def _take_some(
        self, received: Callable[[Batch], object], failed: Callable[[OSError], object]
    ) -> bool:
        """Hand over what the socket holds, up to a bound; see `serve`.

        Returns:
            Whether it came to the bound.
        """
        if self.socket.fileno() < 0:
            return False
        receive, view = self.socket.recvfrom_into, self._view
        batch: Batch = []
        for _ in range(BATCH_SIZE):
            try:
                nbytes, address = receive(view)
            except BlockingIOError:
                break
            except OSError as exc:
                self._forget_error()
                failed(exc)
            else:
                batch.append((view[:nbytes].tobytes(), address))
        if batch:
            received(batch)
        return len(batch) == BATCH_SIZE

    def _forget_error(self) -> None:
        """Take note that the socket has reported an error, which is not its end.

        If somebody has set IP_RECVERR, the kernel also keeps the error's details (ip(7)), and calls
        the socket ready until they are read: the event loop would never rest.
        """
        if _MSG_ERRQUEUE is not None:
            with suppress(OSError):  # there are none, or no more
                while True:
                    self.socket.recvmsg(0, 0, _MSG_ERRQUEUE)


def too_long(data: bytes, family: int) -> OSError:
    """Return the error of a datagram that does not fit: it says how much would."""
    limit = _MAX_LENGTH.get(_socket.AddressFamily(family), math.inf)
    why = f"at most {limit} bytes fit" if len(data) > limit else "the system does not send it whole"
    return OSError(errno.EMSGSIZE, f"datagram of {len(data)} bytes is too long: {why}")
