"""Translate errors of a client's socket."""

from __future__ import annotations

import errno
import os
from typing import Final

from easynetwork.exceptions import EndOfStreamError

_LOST: Final = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
"""tcp(7): besides a `ConnectionError`, how an operation learns that the peer is out of reach."""

_NOT_A_SOCKET: Final = {errno.EBADF, errno.ENOTSOCK}


def aborted(detail: str = "") -> ConnectionAbortedError:
    """Return the error of an operation on a connection that has ended."""
    return ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED) + detail)


def ended(*, is_complete: bool = True) -> ConnectionAbortedError:
    """Return the error of an operation on a connection whose peer has ended its side.

    Args:
        is_complete: Whether everything that the peer sent has been received, as far as can be
            known.
    """
    error = EndOfStreamError if is_complete else ConnectionAbortedError
    return error(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED) + " (end-of-stream)")


def explain_stream(exc: OSError) -> None:
    """Raise what an error of a connection means, or add to it what it means."""
    if isinstance(exc, ConnectionError) or exc.errno in _LOST:
        raise aborted() from exc
    explain_descriptor(exc)


def explain_descriptor(exc: OSError) -> None:
    """Say so if an error means that other code has closed the socket's descriptor."""
    if exc.errno in _NOT_A_SOCKET:
        exc.add_note("The socket file descriptor was closed unexpectedly.")
