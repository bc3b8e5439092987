"""Addresses, options and attributes of sockets, and what travels beside their bytes.

* `IPv4SocketAddress`, `IPv6SocketAddress`: the tuples of the socket module, with named fields.
  Their `str()` shows a host as `repr()` does: a name that a peer chose never reaches a log raw.
* `UnixSocketAddress`, `UnixCredentials`: the name of a Unix socket, and the process behind it.
* `SocketAncillary`: descriptors and credentials that are sent over Unix sockets.
* `SocketProxy`: the socket of a transport, with its options and addresses, but without methods to
  read, write or close: only the transport does that.
* `SocketAttribute`, `INETSocketAttribute`, `UNIXSocketAttribute`, `TLSAttribute`: keys for
  ``extra()`` of clients and transports.
"""

from __future__ import annotations

from easynetwork.addresses._ancillary import (
    SCMCredentials,
    SCMRights,
    SocketAncillary,
    SocketAncillaryMessages,
    SocketCredential,
)
from easynetwork.addresses._attributes import (
    INETSocketAttribute,
    SocketAttribute,
    TLSAttribute,
    UNIXSocketAttribute,
)
from easynetwork.addresses._inet import (
    IPv4SocketAddress,
    IPv6SocketAddress,
    SocketAddress,
    new_socket_address,
)
from easynetwork.addresses._options import (
    disable_socket_linger,
    enable_socket_linger,
    get_socket_linger,
    get_socket_linger_struct,
    set_tcp_keepalive,
    set_tcp_nodelay,
    socket_linger,
)
from easynetwork.addresses._proxies import ISocket, SocketProxy, SupportsSocketOptions
from easynetwork.addresses._unix import RawUnixSocketAddress, UnixCredentials, UnixSocketAddress

__all__ = [
    "INETSocketAttribute",
    "IPv4SocketAddress",
    "IPv6SocketAddress",
    "ISocket",
    "RawUnixSocketAddress",
    "SCMCredentials",
    "SCMRights",
    "SocketAddress",
    "SocketAncillary",
    "SocketAncillaryMessages",
    "SocketAttribute",
    "SocketCredential",
    "SocketProxy",
    "SupportsSocketOptions",
    "TLSAttribute",
    "UNIXSocketAttribute",
    "UnixCredentials",
    "UnixSocketAddress",
    "disable_socket_linger",
    "enable_socket_linger",
    "get_socket_linger",
    "get_socket_linger_struct",
    "new_socket_address",
    "set_tcp_keepalive",
    "set_tcp_nodelay",
    "socket_linger",
]
