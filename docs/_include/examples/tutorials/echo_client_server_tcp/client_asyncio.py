from __future__ import annotations

import asyncio
import sys

from echo_protocol import host, port, protocol

from easynetwork.clients import AsyncTCPNetworkClient


async def main(messages: list[str]) -> None:
    async with AsyncTCPNetworkClient((host, port), protocol) as client:
        for message in messages:
            await client.send_packet({"message": message})
            response = await client.recv_packet()
            print("From server:", response)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
