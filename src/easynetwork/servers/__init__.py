"""Servers: what listens, and the sessions behind it."""

from __future__ import annotations

__all__ = ["AsyncTCPNetworkServer"]

from easynetwork.servers.async_tcp import AsyncTCPNetworkServer
