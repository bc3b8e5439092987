from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from dns.message import Message
from dns_handler import Client, DNSRequestHandler
from dns_zone import Zone

from easynetwork.servers.handlers import INETClientAttribute

OWN_NETWORKS = [ip_network(text) for text in ("127.0.0.0/8", "192.168.0.0/16", "fd00::/8")]


class PrivateRequestHandler(DNSRequestHandler):
    """Only serves clients in certain networks."""

    def __init__(self, zone: Zone, networks: Sequence[IPv4Network | IPv6Network]) -> None:
        super().__init__(zone)
        self.networks = networks

    async def handle(self, client: Client) -> AsyncGenerator[None, Message]:
        address = ip_address(client.extra(INETClientAttribute.remote_address).host)
        if not any(address in network for network in self.networks):
            return
        query = yield
        await self.answer(client, query)
