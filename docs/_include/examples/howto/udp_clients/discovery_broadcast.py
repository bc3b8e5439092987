from __future__ import annotations

import asyncio
import contextlib

from easynetwork.addresses import SocketAddress
from easynetwork.clients import AsyncUDPNetworkEndpoint
from easynetwork.exceptions import DatagramProtocolParseError
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer


async def find_servers(host: str, port: int, seconds: float) -> dict[SocketAddress, str]:
    protocol = DatagramProtocol(StringLineSerializer(encoding="utf-8"))
    servers: dict[SocketAddress, str] = {}

    async with AsyncUDPNetworkEndpoint(protocol, broadcast=True) as endpoint:
        await endpoint.send_packet_to("Zoë", (host, port))

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        response, address = await endpoint.recv_packet_from()
                    except DatagramProtocolParseError as exc:
                        print("Not a server:", exc.sender_address)
                    else:
                        servers[address] = response
    return servers


if __name__ == "__main__":
    found = asyncio.run(find_servers("255.255.255.255", 9000, seconds=1.0))
    for address, response in found.items():
        print(address, response)
