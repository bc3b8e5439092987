"""Clients: the other end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import attribute_getter

if TYPE_CHECKING:
    from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
    from easynetwork.clients.async_udp import AsyncUDPNetworkClient
    from easynetwork.clients.tcp import TCPNetworkClient
    from easynetwork.clients.udp import UDPNetworkClient
else:
    __getattr__ = attribute_getter(
        __name__,
        {
            "AsyncTCPNetworkClient": "async_tcp",
            "AsyncUDPNetworkClient": "async_udp",
            "TCPNetworkClient": "tcp",
            "UDPNetworkClient": "udp",
        },
    )

__all__ = [
    "AsyncTCPNetworkClient",
    "AsyncUDPNetworkClient",
    "TCPNetworkClient",
    "UDPNetworkClient",
]
