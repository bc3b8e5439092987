"""How long the kernel waits for a peer that says nothing, and what it holds for it."""

from __future__ import annotations

import math
import socket
import struct
from contextlib import suppress
from typing import Final

from easynetwork._tuning import LOOK_SHARE

try:
    import fcntl
    import termios
except ModuleNotFoundError:  # Windows
    _TIOCOUTQ = None
else:
    _TIOCOUTQ = getattr(termios, "TIOCOUTQ", None)

_PROBES: Final = 3
_PATIENCE: Final = 1 + _PROBES / 2
"""How long it takes to give up a silent peer, in `keepalive`: the first silence, and the probes."""

_RESERVE: Final = 5.0
"""Seconds. While the peer's window is closed, the kernel cannot tell why (RFC 9293, 3.8.6.1)."""

_INT: Final = struct.Struct("i")
_LARGEST: Final = 2**31 - 1


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


def limit_silence(
    listening: socket.socket, keepalive: float | None, send_timeout: float | None
) -> None:
    """Have the kernel give up connections whose peer has vanished.

    Args:
        listening: A listening TCP socket. On Linux, the connections that it accepts have the same
            options (tcp(7)), which costs nothing for each of them.
        keepalive: Seconds of silence until it asks for the first time; then it asks every half of
            that. None leaves that to the system, which usually waits for two hours.
        send_timeout: Seconds that a peer may take nothing of what was sent. The kernel gives up
            later than the server does, which knows the reason. But if it did so later than silent
            peers are given up, it would keep these as long (tcp(7): TCP_USER_TIMEOUT overrides
            keepalive): then, this is left to the system, too, which tries for 15 minutes.
    """
    options: list[tuple[str, float]] = []
    if keepalive is not None:
        options = [
            ("TCP_KEEPIDLE", max(1, round(keepalive))),
            ("TCP_KEEPINTVL", max(1, round(keepalive / 2))),
            ("TCP_KEEPCNT", _PROBES),
        ]
        with suppress(OSError):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if send_timeout is not None:
        seconds = send_timeout * (1 + LOOK_SHARE) + _RESERVE
        if keepalive is None or seconds <= _PATIENCE * keepalive:
            options.append(("TCP_USER_TIMEOUT", math.ceil(seconds * 1000)))
    for name, value in options:
        if (option := getattr(socket, name, None)) is not None:
            with suppress(OSError):  # out of the system's range, or not a socket of TCP
                listening.setsockopt(socket.IPPROTO_TCP, option, min(int(value), _LARGEST))
