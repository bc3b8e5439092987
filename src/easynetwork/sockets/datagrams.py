"""How datagrams are received from a socket and sent to it, by the kind of socket."""

from __future__ import annotations

__all__ = [
    "MSG_TRUNC",
    "DatagramCalls",
    "cut_off",
    "explain_unix",
    "get_next_size",
    "is_unix",
    "largest_datagram",
    "new_datagram_calls",
    "too_long",
]

import errno
import functools
import math
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from easynetwork.addresses import UnixSocketAddress

_MAX_UDP_SIZE: Final = 64 * 1024
"""Bytes; no UDP datagram is longer: its length has 16 bits (RFC 768)."""

_MAX_LENGTH: Final = {socket.AF_INET: 65_507, socket.AF_INET6: 65_527}
"""65,535 bytes, less 8 of UDP's header (RFC 768), less 20 of IPv4's, which counts itself (RFC 791,
3.1); IPv6's does not (RFC 8200, 3)."""

_MAX_UNIX_SIZE: Final = 2 * 212_992
"""Bytes; the default of Linux, see `_largest_unix_datagram`."""


class DatagramCalls(NamedTuple):
    """The calls of one socket."""

    receive_from: Callable[[memoryview], tuple[int, Any]]
    """Receive a datagram; return its length and its sender's address."""

    receive: Callable[[memoryview], int]
    """Receive a datagram of a connected socket; return its length."""

    send_to: Callable[[bytes, Any], object]
    """Send a datagram to an address, as `receive_from` returns it."""

    attach: Callable[[bytes], bytes] | None = None
    """Add the ancillary data to the datagram that `receive_from` has just received, if there may be
    any."""


def is_unix(sock: socket.socket) -> bool:
    """Whether this is a Unix socket."""
    return sock.family == getattr(socket, "AF_UNIX", None)


def new_datagram_calls(sock: socket.socket) -> DatagramCalls:
    """Return the calls of a socket. They raise what the socket's methods raise."""
    if is_unix(sock):
        return DatagramCalls(
            functools.partial(_receive_whole_from, sock),
            functools.partial(_receive_whole, sock),
            sock.sendto,
        )
    return DatagramCalls(sock.recvfrom_into, sock.recv_into, sock.sendto)


# On Linux, MSG_TRUNC asks for the length of the datagram, even if it is longer than the buffer. On
# other systems, that is only known by recvmsg().
MSG_TRUNC: Final[int] = getattr(socket, "MSG_TRUNC", 0) if sys.platform == "linux" else 0


def _receive_whole_from(sock: socket.socket, view: memoryview) -> tuple[int, Any]:
    nbytes, address = sock.recvfrom_into(view, 0, MSG_TRUNC)
    if nbytes > len(view):
        raise cut_off(nbytes, len(view))
    return nbytes, address


def _receive_whole(sock: socket.socket, view: memoryview) -> int:
    return _receive_whole_from(sock, view)[0]


def get_next_size(sock: socket.socket, size: int) -> int:
    """Return the length of the next datagram, which has arrived; `size` if the system cannot tell.

    One look costs less than a buffer for the largest datagram that there may be.
    """
    if not MSG_TRUNC:
        return size
    # Not 0: Python would not ask the system, and an empty datagram would stay.
    return max(1, sock.recv_into(bytearray(1), 1, socket.MSG_PEEK | MSG_TRUNC))


def cut_off(size: int, room: int) -> OSError:
    """Return the error of a datagram that was longer than its buffer, and is lost."""
    return OSError(errno.EMSGSIZE, f"datagram of {size} bytes does not fit into {room} bytes")


def explain_unix(exc: OSError, address: str | bytes) -> OSError:
    """Return an error of sending to a Unix socket, with its name in the text."""
    if not address:
        return OSError(errno.EINVAL, "Cannot send a datagram to an unnamed address.")
    where = UnixSocketAddress.from_raw(address)
    return OSError(exc.errno, f"Cannot send a datagram to {where}: {exc.strerror}")


def largest_datagram(family: int) -> int:
    """Return the length in bytes of the largest datagram that a socket may receive."""
    if family == getattr(socket, "AF_UNIX", None):
        return _largest_unix_datagram()
    return _MAX_UDP_SIZE


@functools.cache
def _largest_unix_datagram() -> int:
    """Return the size of the largest send buffer that a process may ask for.

    A datagram fits into its sender's buffer, which the kernel makes twice as large as it is asked
    to, up to this limit (socket(7)). Only a privileged process can go beyond it.
    """
    try:
        with open("/proc/sys/net/core/wmem_max", encoding="ascii") as file:
            return max(2 * int(file.read()), _MAX_UDP_SIZE)
    except (OSError, ValueError):
        return _MAX_UNIX_SIZE


def too_long(data: bytes, family: int) -> OSError:
    """Return the error of a datagram that does not fit: it says how much would."""
    limit = _MAX_LENGTH.get(socket.AddressFamily(family), math.inf)
    why = f"at most {limit} bytes fit" if len(data) > limit else "the system does not send it whole"
    return OSError(errno.EMSGSIZE, f"datagram of {len(data)} bytes is too long: {why}")
