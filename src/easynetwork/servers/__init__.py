"""Servers: what listens, and the sessions behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import lazy_attributes

if TYPE_CHECKING:
    from easynetwork.servers.async_tcp import AsyncTCPNetworkServer
    from easynetwork.servers.async_udp import AsyncUDPNetworkServer
    from easynetwork.servers.standalone_tcp import StandaloneTCPNetworkServer
    from easynetwork.servers.standalone_udp import StandaloneUDPNetworkServer
else:
    __getattr__, __dir__ = lazy_attributes(
        __name__,
        {
            "AsyncTCPNetworkServer": "async_tcp",
            "AsyncUDPNetworkServer": "async_udp",
            "StandaloneTCPNetworkServer": "standalone_tcp",
            "StandaloneUDPNetworkServer": "standalone_udp",
        },
    )

__all__ = [
    "AsyncTCPNetworkServer",
    "AsyncUDPNetworkServer",
    "StandaloneTCPNetworkServer",
    "StandaloneUDPNetworkServer",
]
