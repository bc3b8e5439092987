"""How datagrams are received from a socket and sent to it, by the kind of socket.

A server on a wildcard address (``0.0.0.0`` or ``::``) has as many addresses as the machine. Its
clients expect responses from the one that they asked, so the kernel is asked to say which that was
(``IP_PKTINFO`` in ip(7); ``IPV6_RECVPKTINFO`` in RFC 3542, section 6). The sender's address then
gets one item more than it has in the socket module: the *source*, which is the ancillary data that
makes a response leave from there. Such an address can be hashed and compared like any other.
"""

from __future__ import annotations

import errno
import functools
import math
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from easynetwork.addresses import IPv4SocketAddress, IPv6SocketAddress, UnixSocketAddress
from easynetwork.addresses._unix import AnySocketAddress

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
    """Receive a datagram; return its length and its sender's address, maybe with a source."""

    receive: Callable[[memoryview], int]
    """Receive a datagram of a connected socket; return its length."""

    send_to: Callable[[bytes, Any], object]
    """Send a datagram to an address: one of the socket module, or as `receive_from` returns it."""

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
    sources = _SOURCES.get(sock.family)
    with suppress(OSError):
        if sources is not None and sock.getsockopt(sources.level, sources.option):
            return _calls_with_sources(sock, sources)
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
    nbytes, _ = _receive_whole_from(sock, view)
    check_still_connected(sock)
    return nbytes


def check_still_connected(sock: socket.socket) -> None:
    """Make sure that a datagram has come from the peer to which a Unix socket is connected.

    When its peer is gone, Linux disconnects a socket that sends. From then on, it would receive
    from any other.

    Raises:
        OSError: It is not connected any more (`ENOTCONN`): drop the datagram.
    """
    sock.getpeername()


def get_next_size(sock: socket.socket, size: int) -> int:
    """Return the length of the next datagram, which has arrived; `size` if the system cannot tell.

    One look costs less than a buffer for the largest datagram that there may be.
    """
    if not MSG_TRUNC:
        return size
    # Not 0: Python would not ask the system, and an empty datagram would stay.
    return max(1, sock.recv_into(bytearray(1), 1, socket.MSG_PEEK | MSG_TRUNC))


class _Sources(NamedTuple):
    """How the sockets of a family tell where a datagram was sent to.

    Attributes:
        level: The level of the option and of the ancillary data.
        option: What turns it on.
        kind: The type of the ancillary data.
        new_source: Makes the source of a response from it; empty if the kernel has to choose.
    """

    level: int
    option: int
    kind: int
    new_source: Callable[[bytes], bytes]


def _new_source_ipv4(pktinfo: bytes) -> bytes:
    # struct in_pktinfo: an interface, ipi_spec_dst, the destination in the header. The second is
    # an address of this machine even for a broadcast. Without interface, routes are as always.
    local = pktinfo[4:8]
    return b"\0\0\0\0" + local + b"\0\0\0\0" if local != b"\0\0\0\0" else b""


def _new_source_ipv6(pktinfo: bytes) -> bytes:
    # struct in6_pktinfo: the destination, an interface. The latter only matters on a link.
    if pktinfo[0] == 0xFF:
        return b""  # multicast (RFC 4291, 2.7)
    if pktinfo[0] == 0xFE and pktinfo[1] & 0xC0 == 0x80:
        return pktinfo  # link-local (RFC 4291, 2.5.6)
    return pktinfo[:16] + b"\0\0\0\0"


_SOURCES: Final[dict[int, _Sources]] = {}
if sys.platform == "linux":
    _IP_PKTINFO: Final = 8  # linux/in.h; the socket module has it from Python 3.12 on
    _SOURCES[socket.AF_INET] = _Sources(
        socket.IPPROTO_IP, _IP_PKTINFO, _IP_PKTINFO, _new_source_ipv4
    )
if hasattr(socket, "IPV6_RECVPKTINFO") and hasattr(socket.socket, "recvmsg_into"):
    _SOURCES[socket.AF_INET6] = _Sources(
        socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, socket.IPV6_PKTINFO, _new_source_ipv6
    )

_NOT_A_SOURCE_ERRNOS: Final = {errno.EINVAL, errno.ENETUNREACH, errno.EADDRNOTAVAIL}
"""Errors of sendmsg(2) that may be about the source; which one depends on the kernel's version."""

_ANCILLARY_SIZE: Final = 256
"""Bytes. The source needs 40; other options that a server's user has set may come before it."""


def ask_for_sources(sock: socket.socket, host: str) -> None:
    """Have a socket tell to which address a datagram was sent, if it has several.

    Without effect where the platform cannot.

    Args:
        sock: A UDP socket.
        host: What it is bound to, or is about to be: before, if no datagram shall lack it.
    """
    sources = _SOURCES.get(sock.family)
    if sources is not None and host in ("0.0.0.0", "::"):
        with suppress(OSError):
            sock.setsockopt(sources.level, sources.option, 1)


def _calls_with_sources(sock: socket.socket, sources: _Sources) -> DatagramCalls:
    level, _, kind, new_source = sources
    receive_message, send_message = sock.recvmsg_into, sock.sendmsg

    last: Any = None  # the ancillary data, which seldom changes: it is not parsed again then
    suffix: tuple[bytes, ...] = ()

    def receive_from(view: memoryview) -> tuple[int, Any]:
        nonlocal last, suffix
        nbytes, ancillary, _, address = receive_message((view,), _ANCILLARY_SIZE)
        if ancillary != last:
            found = [item[2] for item in ancillary if item[:2] == (level, kind)]
            last, suffix = ancillary, tuple(filter(None, map(new_source, found)))
        return nbytes, address + suffix

    def send_to(data: bytes, address: Any) -> None:
        source = address[-1]
        if type(source) is bytes:
            address = address[:-1]
            try:
                send_message((data,), ((level, kind, source),), 0, address)
                return
            except OSError as exc:
                # The machine has lost the address, or it is the broadcast address of IPv4 on a
                # socket for both families.
                if exc.errno not in _NOT_A_SOURCE_ERRNOS:
                    raise
        sock.sendto(data, address)

    return DatagramCalls(receive_from, sock.recv_into, send_to)


def remote_address(address: Any) -> Any:
    """Return an address that `DatagramCalls` deal with as the socket module has it."""
    return address[:-1] if _has_source(address) else address


def asked_address(address: Any, local_address: AnySocketAddress) -> AnySocketAddress:
    """Return the address that a datagram was sent to.

    Args:
        address: Its sender's, see `DatagramCalls`.
        local_address: That of the socket, which is returned if `address` has no source.
    """
    if _has_source(address):
        source = address[-1]
        if isinstance(local_address, IPv4SocketAddress):
            return local_address._replace(host=socket.inet_ntop(socket.AF_INET, source[4:8]))
        if isinstance(local_address, IPv6SocketAddress):
            host = socket.inet_ntop(socket.AF_INET6, source[:16])
            scope_id = int.from_bytes(source[16:], sys.byteorder)
            return local_address._replace(host=host, scope_id=scope_id)
    return local_address


def _has_source(address: Any) -> bool:
    return type(address) is tuple and type(address[-1]) is bytes


def is_of_this_machine(address: Any, family: int) -> bool:
    """Whether an address, one of the socket module, is one of this machine's.

    The kernel is asked from where it would send to it. (Binding a socket to it would not tell on
    machines that may bind to all addresses: ``ip_nonlocal_bind`` in ip(7).)
    """
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        # From the loopback interface, nothing goes to others; it has a network of IPv4 addresses.
        return probe.getsockname()[0] in {address[0], "127.0.0.1", "::ffff:127.0.0.1"}
    return False


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
