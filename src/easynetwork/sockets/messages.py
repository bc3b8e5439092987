"""Receive bytes together with the ancillary data that belongs to them."""

from __future__ import annotations

__all__ = ["Message", "receive_message"]

import errno
import socket
from typing import Any, Final, NamedTuple

from easynetwork.addresses.ancillary import RawAncillary, close_descriptors

_MSG_CMSG_CLOEXEC: Final[int] = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
"""Received descriptors are not inherited by child programs (recvmsg(2); Linux)."""


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


def receive_message(sock: socket.socket, view: memoryview, bufsize: int, flags: int = 0) -> Message:
    """Receive bytes and ancillary data.

    Args:
        sock: The socket.
        view: Where to put the bytes.
        bufsize: The most bytes of ancillary data.
        flags: Of recvmsg(2). With MSG_TRUNC, the length of a datagram is known that does not fit.

    Raises:
        BlockingIOError: Nothing has arrived yet.
        OSError: The socket has failed.
    """
    nbytes, ancillary, flags, address = sock.recvmsg_into(
        [view], bufsize, flags | _MSG_CMSG_CLOEXEC
    )
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
