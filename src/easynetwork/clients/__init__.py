"""Clients: the other end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import attribute_getter

if TYPE_CHECKING:
    from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
    from easynetwork.clients.tcp import TCPNetworkClient
else:
    __getattr__ = attribute_getter(
        __name__, {"AsyncTCPNetworkClient": "async_tcp", "TCPNetworkClient": "tcp"}
    )

__all__ = ["AsyncTCPNetworkClient", "TCPNetworkClient"]
