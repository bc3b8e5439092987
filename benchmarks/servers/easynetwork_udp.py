"""easynetwork: ``AsyncUDPNetworkServer`` with each of the two usual shapes of ``handle()``.

Usage: easynetwork_udp.py LIMIT {asyncio|uvloop|trio} {request|loop}    (LIMIT is UDP's own)
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Literal

from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.handlers import AsyncDatagramClient, AsyncDatagramRequestHandler


class EchoPerRequest(AsyncDatagramRequestHandler[str, str]):
    """A generator for each datagram."""

    __slots__ = ()

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        line = yield
        await client.send_packet(f"{line}\n")


class EchoLoop(AsyncDatagramRequestHandler[str, str]):
    """A generator for each peer."""

    __slots__ = ()

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        while True:
            line = yield
            await client.send_packet(f"{line}\n")


async def main(style: str, backend: Literal["asyncio", "trio"]) -> None:
    """Serve until the process is ended."""
    protocol = DatagramProtocol(StringLineSerializer())
    handler = EchoLoop() if style == "loop" else EchoPerRequest()
    async with AsyncUDPNetworkServer("127.0.0.1", 0, protocol, handler, backend) as server:
        print(server.get_addresses()[0].port, flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    loop, style = sys.argv[2], sys.argv[3]
    if loop == "trio":
        import trio

        trio.run(main, style, "trio")
    elif loop == "uvloop":
        import uvloop

        uvloop.run(main(style, "asyncio"))
    else:
        asyncio.run(main(style, "asyncio"))
