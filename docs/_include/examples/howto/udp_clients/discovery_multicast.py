from __future__ import annotations

import asyncio
import contextlib
import socket

from easynetwork.addresses import SocketAddress
from easynetwork.clients import AsyncUDPNetworkEndpoint
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer

GROUP = "239.255.42.99"


async def find_servers(
    port: int, seconds: float, interface: str = "0.0.0.0"
) -> dict[SocketAddress, str]:
    protocol = DatagramProtocol(StringLineSerializer(encoding="utf-8"))
    servers: dict[SocketAddress, str] = {}

    async with AsyncUDPNetworkEndpoint(protocol) as endpoint:
        endpoint.socket.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface)
        )
        await endpoint.send_packet_to("Zoë", (GROUP, port))

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for response, address in endpoint:
                    servers[address] = response
    return servers


if __name__ == "__main__":
    found = asyncio.run(find_servers(9000, seconds=1.0))
    for address, response in found.items():
        print(address, response)
