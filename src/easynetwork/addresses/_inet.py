"""Addresses of Internet sockets."""

from __future__ import annotations

import socket as _socket
from typing import Any, NamedTuple, TypeAlias


class IPv4SocketAddress(NamedTuple):
    """Where an IPv4 socket is: an address (or a host name) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"({self.host!r}, {self.port})"

    def for_connection(self) -> tuple[str, int]:
        """Return the (host, port) pair that a client connects to."""
        return self.host, self.port


class IPv6SocketAddress(NamedTuple):
    """Where an IPv6 socket is; the last two fields are those of RFC 3493, section 3.3.

    An address that is only valid on one link has the number of the network interface in `scope_id`.
    In the pair of host and port that number is the zone of the host: ``fe80::1%2`` (RFC 4007,
    section 11).
    """

    host: str
    port: int
    flowinfo: int = 0
    scope_id: int = 0

    def __str__(self) -> str:
        host, port = self.for_connection()
        return f"({host!r}, {port})"

    def for_connection(self) -> tuple[str, int]:
        """Return the (host, port) pair that a client connects to, with the zone if there is one."""
        if self.scope_id and "%" not in self.host:
            return f"{self.host}%{self.scope_id}", self.port
        return self.host, self.port


SocketAddress: TypeAlias = IPv4SocketAddress | IPv6SocketAddress
"""An address of an Internet socket."""


def new_socket_address(addr: tuple[Any, ...], family: int) -> SocketAddress:
    """Give names to an address of the socket module.

    Args:
        addr: What ``getsockname()``, ``getpeername()``, ``accept()``, ... return.
        family: The family of that socket.

    Raises:
        ValueError: `family` is neither ``AF_INET`` nor ``AF_INET6``.
    """
    if family == _socket.AF_INET:
        return IPv4SocketAddress(*addr)
    if family == _socket.AF_INET6:
        return IPv6SocketAddress(*addr)
    raise ValueError(f"Unsupported address family {family!r}")
