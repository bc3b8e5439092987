"""What the kernel holds of a connection."""

from __future__ import annotations

import socket
import struct
from typing import Final

try:
    import fcntl
    import termios
except ModuleNotFoundError:  # Windows
    _TIOCOUTQ = None
else:
    _TIOCOUTQ = getattr(termios, "TIOCOUTQ", None)

_INT: Final = struct.Struct("i")


def unacknowledged(sock: socket.socket) -> int:
    """Return how many bytes were sent and not acknowledged; 0 where the system does not tell.

    Linux: SIOCOUTQ of tcp(7), which is TIOCOUTQ, and counts for Unix sockets what is not read.
    """
    if _TIOCOUTQ is None:
        return 0
    try:
        answer = fcntl.ioctl(sock, _TIOCOUTQ, bytes(_INT.size))
    except (OSError, ValueError, TypeError):  # not a socket of the kernel, or closed
        return 0
    size: int = _INT.unpack(answer)[0]
    return size
