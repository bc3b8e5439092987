"""Socket options, by name.

All functions raise `OSError` if the socket is closed or has no such option.
"""

from __future__ import annotations

import socket as _socket
import struct
import sys
from typing import NamedTuple

from easynetwork.addresses._proxies import SupportsSocketOptions


def set_tcp_nodelay(sock: SupportsSocketOptions, state: bool) -> None:
    """Send small segments at once (True), or gather them (False; RFC 896, Nagle's algorithm).

    Does nothing where the platform does not know the option.
    """
    if hasattr(_socket, "TCP_NODELAY"):
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, bool(state))


def set_tcp_keepalive(sock: SupportsSocketOptions, state: bool) -> None:
    """Have the kernel probe idle connections (RFC 9293, 3.8.4), or not.

    Does nothing where the platform does not know the option.
    """
    if hasattr(_socket, "SO_KEEPALIVE"):
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, bool(state))


class socket_linger(NamedTuple):  # noqa: N801  # C calls it "struct linger".
    """What ``close()`` does with data that is not sent yet.

    If enabled, it waits for at most `timeout` seconds, and then resets the connection; a timeout of
    0 resets it at once. If disabled, the kernel goes on sending by itself. See
    :manpage:`socket(7)`.
    """

    enabled: bool
    timeout: int


def get_socket_linger_struct() -> struct.Struct:
    """Return the layout of the SO_LINGER option: two ints, on Windows two unsigned shorts."""
    return struct.Struct("@HH" if sys.platform == "win32" else "@ii")


def get_socket_linger(sock: SupportsSocketOptions) -> socket_linger:
    """Read the SO_LINGER option."""
    layout = get_socket_linger_struct()
    value = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, layout.size)
    enabled, timeout = layout.unpack(value)
    return socket_linger(bool(enabled), timeout)


def enable_socket_linger(sock: SupportsSocketOptions, timeout: int) -> None:
    """Have ``close()`` wait for at most `timeout` seconds, then reset the connection."""
    value = get_socket_linger_struct().pack(True, timeout)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, value)


def disable_socket_linger(sock: SupportsSocketOptions) -> None:
    """Let the kernel send unsent data in the background after ``close()``, which is the default."""
    value = get_socket_linger_struct().pack(False, 0)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, value)
