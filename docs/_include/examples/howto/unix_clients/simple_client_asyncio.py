from __future__ import annotations

import asyncio

from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer


async def main(path: str) -> None:
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))

    async with asyncio.timeout(5.0):
        async with AsyncUnixStreamClient(path, protocol) as client:
            await client.send_packet("Zoë")
            print(await client.recv_packet())


if __name__ == "__main__":
    asyncio.run(main("greeting.sock"))
