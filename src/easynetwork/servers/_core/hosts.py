"""Which addresses are one host's, for limits per host."""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Any, Final

_NETWORK_BITS: Final = 64
"""Of an IPv6 address: the least that a host gets, so it can choose the others (RFC 6177)."""


class HostCounts:
    """How many clients each host has, as far as that is limited.

    Args:
        limit: How many a host may have; None for no limit, and nothing is counted.
    """

    __slots__ = ("_counts", "limit")

    def __init__(self, limit: int | None) -> None:
        self.limit: int | None = limit
        self._counts: Counter[object] = Counter()

    def is_full(self, address: Any) -> bool:
        """Whether the host of an address has as many clients as it may have."""
        return self.limit is not None and self._counts[host_of(address)] >= self.limit

    def add(self, address: Any, number: int) -> None:
        """Count a client that comes (1) or has left (-1)."""
        if self.limit is None or (host := host_of(address)) is None:
            return
        self._counts[host] += number
        if not self._counts[host]:
            del self._counts[host]


def host_of(address: Any) -> object:
    """Return what stands for the host of an address; None for a Unix socket's.

    Args:
        address: One of `easynetwork.addresses`, or a tuple that begins like one.
    """
    if not isinstance(address, tuple):
        return None
    host = ipaddress.ip_address(address[0].partition("%")[0])
    if host.version == 4:
        return host
    if host.ipv4_mapped is not None:
        return host.ipv4_mapped
    return int(host) >> (128 - _NETWORK_BITS)
