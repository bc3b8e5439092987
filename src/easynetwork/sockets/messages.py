"""Receive bytes together with the ancillary data that belongs to them."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any, Final, NamedTuple

from easynetwork.addresses._ancillary import (
    AncillaryCallback,
    RawAncillary,
    close_descriptors,
    count_descriptors,
)
from easynetwork.sockets.datagrams import MSG_TRUNC, DatagramCalls, cut_off

_FLAGS: Final[int] = getattr(socket, "MSG_CMSG_CLOEXEC", 0) | MSG_TRUNC
"""Child programs do not inherit received descriptors, and the length of a datagram is known even if
it does not fit (recvmsg(2); Linux)."""


class Message(NamedTuple):
    """What one call has received."""

    nbytes: int
    """The length. More than fits into the view if a datagram was cut off (MSG_TRUNC)."""

    ancillary: RawAncillary
    """What came with the bytes. The receiver has to close the descriptors."""

    address: Any
    """The sender's address, as the socket module says it; None if it has none."""

    error: OSError | None
    """Set if ancillary data was cut off (MSG_CTRUNC). What came of it is closed."""


def receive_message(sock: socket.socket, view: memoryview, bufsize: int) -> Message:
    """Receive bytes and ancillary data.

    Args:
        sock: The socket.
        view: Where to put the bytes.
        bufsize: The most bytes of ancillary data.

    Raises:
        BlockingIOError: Nothing has arrived yet.
        OSError: The socket has failed.
    """
    nbytes, ancillary, flags, address = sock.recvmsg_into([view], bufsize, _FLAGS)
    error = None
    if flags & socket.MSG_CTRUNC:
        close_descriptors(ancillary)
        ancillary = []
        error = OSError(
            errno.EMSGSIZE,
            f"ancillary data was cut off: it is longer than the {bufsize} bytes of its buffer, or "
            "the process has no descriptor left (`ulimit -n`)",
        )
    return Message(nbytes, ancillary, address, error)


_NOTHING: Final = Message(0, [], None, None)

_MAX_DESCRIPTORS: Final = 256
"""Descriptors that wait with the datagrams of one server: those of one datagram (Linux: at most
253), and a few. A process has 1,024 by default."""


class MessageReader:
    """Reads bytes of a stream, and hands over their ancillary data.

    Attributes:
        error: Set if ancillary data was cut off.
    """

    __slots__ = ("_bufsize", "_received", "_socket", "error")

    def __init__(self, sock: socket.socket, bufsize: int, received: AncillaryCallback) -> None:
        self.error: OSError | None = None
        self._socket = sock
        self._bufsize = bufsize
        self._received = received

    def recv_into(self, view: memoryview) -> int:
        """Do what the method of a socket does."""
        message = receive_message(self._socket, view, self._bufsize)
        self.error = message.error
        if message.nbytes > len(view):
            self.error = cut_off(message.nbytes, len(view))
        self._received(message.ancillary)
        return message.nbytes

    def recv(self, size: int) -> bytes:
        """Do what the method of a socket does."""
        view = memoryview(bytearray(size))
        return view[: self.recv_into(view)].tobytes()


class ReceivedDatagram(bytes):
    """A datagram with ancillary data, which closes the descriptors that nothing has taken."""

    _inbox: AncillaryInbox
    _message: Message

    @classmethod
    def new(cls, datagram: bytes, message: Message, inbox: AncillaryInbox) -> ReceivedDatagram:
        """Return a datagram with what came with it."""
        self = cls(datagram)
        self._inbox, self._message = inbox, message
        inbox.waiting += count_descriptors(message.ancillary)
        return self

    def take(self) -> RawAncillary:
        """Return the ancillary data. Its descriptors belong to the caller from now on.

        Raises:
            OSError: It was cut off.
        """
        ancillary, error, self._message = self._message.ancillary, self._message.error, _NOTHING
        self._inbox.waiting -= count_descriptors(ancillary)
        if error is not None:
            raise error
        return ancillary

    def close(self) -> None:
        """Close the descriptors."""
        with contextlib.suppress(OSError):
            close_descriptors(self.take())

    def __del__(self) -> None:
        self.close()


class AncillaryInbox:
    """Receives the datagrams of a Unix socket with their ancillary data.

    Attributes:
        waiting: Descriptors that came with datagrams, and that nothing has taken or closed yet.
    """

    __slots__ = ("_bufsize", "_message", "_socket", "waiting")

    def __init__(self, sock: socket.socket, bufsize: int) -> None:
        self.waiting: int = 0
        self._socket = sock
        self._bufsize = bufsize
        self._message = _NOTHING

    def calls(self, plain: DatagramCalls) -> DatagramCalls:
        """Return the calls of the socket."""
        return plain._replace(receive_from=self._receive_from, attach=self._attach)

    def _receive_from(self, view: memoryview) -> tuple[int, Any]:
        message = receive_message(self._socket, view, self._bufsize)
        if message.nbytes > len(view):
            close_descriptors(message.ancillary)
            raise cut_off(message.nbytes, len(view))
        if self.waiting + count_descriptors(message.ancillary) > _MAX_DESCRIPTORS:
            close_descriptors(message.ancillary)
            error = OSError(
                errno.EMSGSIZE,
                f"descriptors were closed: {self.waiting} of earlier datagrams are waiting",
            )
            message = message._replace(ancillary=[], error=error)
        self._message = message
        return message.nbytes, message.address

    def _attach(self, datagram: bytes) -> bytes:
        message, self._message = self._message, _NOTHING
        return ReceivedDatagram.new(datagram, message, self)


def too_long_for_ancillary(sock: socket.socket, data: bytes) -> OSError | None:
    """Return the error of a packet that is too long to be sent with ancillary data, if it is.

    The kernel takes what fits into the send buffer. The rest would have to wait for the peer.
    """
    limit = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    if len(data) <= limit:
        return None
    reason = f"packet of {len(data)} bytes is too long to be sent with ancillary data"
    return OSError(errno.EMSGSIZE, f"{reason}: at most {limit} bytes fit")
