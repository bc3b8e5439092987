from __future__ import annotations

import asyncio

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer

ADDRESS = ("127.0.0.1", 9000)
PROTOCOL = StreamProtocol(StringLineSerializer(encoding="utf-8"))


async def chat() -> None:
    async with AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as ada:
        print("Ada:", await ada.recv_packet())
        async with AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as grace:
            print("Grace:", await grace.recv_packet())
            await ada.send_packet("Good morning!")
            print("Ada:", await ada.recv_packet())
            print("Grace:", await grace.recv_packet())


def main() -> None:
    asyncio.run(chat())


if __name__ == "__main__":
    main()
