"""Close sockets that nothing else will close, and see whether all that was sent has arrived."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from easynetwork._typevars import _T, _Ts
from easynetwork.sockets.datagrams import is_unix

if sys.platform != "win32":
    import fcntl
    import termios


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close several sockets."""
    for sock in sockets:
        sock.close()


@contextmanager
def close_on_error(*targets: object) -> Iterator[None]:
    """Close those of the `targets` that are sockets when the block raises an exception."""
    try:
        yield
    except BaseException:
        close_all(target for target in targets if isinstance(target, socket.socket))
        raise


def construct_or_close(
    cls: Callable[[socket.socket, *_Ts], _T], sock: socket.socket, *args: *_Ts
) -> _T:
    """Return the owner of a socket; close the socket if the owner cannot be made.

    A context manager would cost as much as the two calls that it surrounds (measured).
    """
    try:
        return cls(sock, *args)
    except BaseException:
        sock.close()
        raise


def get_unacknowledged_size(sock: socket.socket) -> int:
    """Return how many of the bytes sent over a connection its peer's system has not acknowledged.

    It is 0 where the system cannot tell. On Linux, that is SIOCOUTQ of tcp(7). On a Unix socket, it
    is 0, too: what was sent is with the peer at once, and SIOCOUTQ counts what that has not read.
    """
    if sys.platform == "win32" or is_unix(sock):
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # the descriptor is closed, or the system does not know this
        return 0
