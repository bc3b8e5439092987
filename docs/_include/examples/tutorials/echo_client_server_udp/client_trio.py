from __future__ import annotations

import sys

import trio
from echo_protocol import host, port, protocol

from easynetwork.clients import AsyncUDPNetworkClient


async def main(messages: list[str]) -> None:
    async with AsyncUDPNetworkClient((host, port), protocol) as client:
        for message in messages:
            await client.send_packet({"message": message})
            with trio.fail_after(5):
                response = await client.recv_packet()
            print("From server:", response)


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
