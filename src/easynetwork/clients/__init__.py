"""Clients for TCP and UDP, asynchronous and blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import lazy_attributes

if TYPE_CHECKING:
    from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
    from easynetwork.clients.async_udp import AsyncUDPNetworkClient
    from easynetwork.clients.tcp import TCPNetworkClient
    from easynetwork.clients.udp import UDPNetworkClient
else:
    __getattr__, __dir__ = lazy_attributes(
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
