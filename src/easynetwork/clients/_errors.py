"""What errors of a client's socket mean, and where they hide."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

_NOT_A_SOCKET: Final = {errno.EBADF, errno.ENOTSOCK}


def explain_descriptor(exc: OSError) -> None:
    """Say so if an error means that somebody else has closed the socket's descriptor."""
    if exc.errno in _NOT_A_SOCKET:
        exc.add_note("The socket file descriptor was closed unexpectedly.")


def raise_pending_error(sock: socket.socket) -> None:
    """Raise what the kernel has learnt of earlier datagrams; it forgets that then.

    On a machine's own addresses, it knows at once that nobody listens.

    Raises:
        OSError: `ConnectionRefusedError`, say.
    """
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, os.strerror(error))
