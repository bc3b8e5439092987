"""Which addresses are one host's, for limits per host."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

_NETWORK_BITS: Final = 64
"""Of an IPv6 address: the least that a host gets, so it can choose the others (RFC 6177)."""


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
