"""Clients: the other end."""

from __future__ import annotations

__all__ = ["AsyncTCPNetworkClient", "TCPNetworkClient"]

from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
from easynetwork.clients.tcp import TCPNetworkClient
