from __future__ import annotations

import asyncio

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer


async def main(host: str, port: int) -> None:
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))

    async with asyncio.timeout(5.0):
        async with AsyncTCPNetworkClient((host, port), protocol) as client:
            await client.send_packet("Zoë")
            print(await client.recv_packet())


if __name__ == "__main__":
    asyncio.run(main("localhost", 9000))
