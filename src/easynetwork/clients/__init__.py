"""Clients for TCP, UDP and Unix sockets, asynchronous and blocking.

Those for Unix sockets, which Windows does not have, are imported from their modules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import lazy_attributes

if TYPE_CHECKING:
    from easynetwork.clients.async_tcp import AsyncTCPNetworkClient as AsyncTCPNetworkClient
    from easynetwork.clients.async_udp import AsyncUDPNetworkClient as AsyncUDPNetworkClient
    from easynetwork.clients.async_udp_endpoint import (
        AsyncUDPNetworkEndpoint as AsyncUDPNetworkEndpoint,
    )
    from easynetwork.clients.tcp import TCPNetworkClient as TCPNetworkClient
    from easynetwork.clients.udp import UDPNetworkClient as UDPNetworkClient
    from easynetwork.clients.udp_endpoint import UDPNetworkEndpoint as UDPNetworkEndpoint
else:
    __getattr__, __dir__, __all__ = lazy_attributes(
        __name__,
        {
            "AsyncTCPNetworkClient": "async_tcp",
            "AsyncUDPNetworkClient": "async_udp",
            "AsyncUDPNetworkEndpoint": "async_udp_endpoint",
            "TCPNetworkClient": "tcp",
            "UDPNetworkClient": "udp",
            "UDPNetworkEndpoint": "udp_endpoint",
        },
    )
