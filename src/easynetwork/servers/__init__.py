"""Servers: listeners, the sessions of their clients, and the request handlers that you write.

The modules here are public. `_core` is what all servers share, `_stream` serves connections and
`_datagram` serves datagrams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import lazy_attributes

if TYPE_CHECKING:
    from easynetwork.servers.async_tcp import AsyncTCPNetworkServer as AsyncTCPNetworkServer
    from easynetwork.servers.async_udp import AsyncUDPNetworkServer as AsyncUDPNetworkServer
    from easynetwork.servers.limits import DatagramLimits as DatagramLimits, Limits as Limits
    from easynetwork.servers.running import run as run
    from easynetwork.servers.standalone_tcp import (
        StandaloneTCPNetworkServer as StandaloneTCPNetworkServer,
    )
    from easynetwork.servers.standalone_udp import (
        StandaloneUDPNetworkServer as StandaloneUDPNetworkServer,
    )
    from easynetwork.servers.statistics import CloseReason as CloseReason
else:
    __getattr__, __dir__, __all__ = lazy_attributes(
        __name__,
        {
            "AsyncTCPNetworkServer": "async_tcp",
            "AsyncUDPNetworkServer": "async_udp",
            "CloseReason": "statistics",
            "DatagramLimits": "limits",
            "Limits": "limits",
            "StandaloneTCPNetworkServer": "standalone_tcp",
            "StandaloneUDPNetworkServer": "standalone_udp",
            "run": "running",
        },
    )
