"""Servers: what listens, and the sessions behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easynetwork._lazy import attribute_getter

if TYPE_CHECKING:
    from easynetwork.servers.async_tcp import AsyncTCPNetworkServer
else:
    __getattr__ = attribute_getter(__name__, {"AsyncTCPNetworkServer": "async_tcp"})

__all__ = ["AsyncTCPNetworkServer"]
