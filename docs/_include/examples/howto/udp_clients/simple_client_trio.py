from __future__ import annotations

import trio

from easynetwork.clients import AsyncUDPNetworkClient
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer


async def main(host: str, port: int) -> None:
    protocol = DatagramProtocol(StringLineSerializer(encoding="utf-8"))

    with trio.fail_after(5.0):
        async with AsyncUDPNetworkClient((host, port), protocol) as client:
            await client.send_packet("Zoë")
            print(await client.recv_packet())


if __name__ == "__main__":
    trio.run(main, "localhost", 9000)
