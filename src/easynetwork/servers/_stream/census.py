"""The connections of a server: how many there are, of whom, and what became of them."""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import TYPE_CHECKING, Any

from easynetwork.addresses._unix import AnySocketAddress, UnixSocketAddress
from easynetwork.servers.limits import Limits
from easynetwork.servers.statistics import CloseReason

if TYPE_CHECKING:
    from easynetwork.servers._stream.drain import StreamDrain
    from easynetwork.servers._stream.session import StreamSession

_NETWORK_BITS = 64
"""Of an IPv6 address: the least that a host gets, so it can choose the others (RFC 6177)."""


class Census:
    """Counts connections, and lets no more in than may be here.

    Attributes:
        accepted: Connections so far, those that were refused here included.
        closed: Those that have ended, by reason.
        connections: Those that are here, handshakes included.
        drain: Ends them, while the server drains.
        most: How many may be here.
        sessions: Those that have come as far as their handler.
    """

    __slots__ = (
        "_hosts",
        "_limits",
        "accepted",
        "closed",
        "connections",
        "drain",
        "most",
        "sessions",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._hosts: Counter[Any] = Counter()
        self.accepted: int = 0
        self.closed: Counter[CloseReason] = Counter()
        self.connections: int = 0
        self.drain: StreamDrain | None = None
        self.most: float = 0
        self.sessions: set[StreamSession] = set()

    def admit(self, address: AnySocketAddress) -> bool:
        """Count a connection; return whether it may stay."""
        self.accepted += 1
        limit = self._limits.max_clients_per_host
        host = None if limit is None else _host_of(address)
        if self.connections >= self.most or (
            limit is not None and host is not None and self._hosts[host] >= limit
        ):
            self.closed[CloseReason.FULL] += 1
            return False
        self.connections += 1
        if host is not None:
            self._hosts[host] += 1
        return True

    def leave(self, address: AnySocketAddress, reason: CloseReason) -> None:
        """Take note that a connection which was admitted is closed."""
        self.connections -= 1
        self.closed[reason] += 1
        if self.drain is not None:
            self.drain.changed()
        if self._limits.max_clients_per_host is not None:
            host = _host_of(address)
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]


def _host_of(address: AnySocketAddress) -> object:
    """Return what stands for the host of an address; None for a Unix socket's."""
    if isinstance(address, UnixSocketAddress):
        return None
    host = ipaddress.ip_address(address.host.partition("%")[0])
    if host.version == 4:
        return host
    if host.ipv4_mapped is not None:
        return host.ipv4_mapped
    return int(host) >> (128 - _NETWORK_BITS)
