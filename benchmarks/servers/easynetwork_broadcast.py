"""easynetwork: each line that a client sends goes to all of them, through a `ClientGroup`.

Usage: easynetwork_broadcast.py LIMIT
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncGenerator

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.groups import ClientGroup
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)


class Publisher(AsyncStreamRequestHandler[str, str]):
    """Sends what each client says to all clients."""

    __slots__ = ("clients",)

    def __init__(self) -> None:
        self.clients = ClientGroup[str]()

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        sock = client.extra(INETClientAttribute.socket)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        self.clients.add(client)

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        while True:
            line = yield
            self.clients.broadcast(line)


async def main(limit: int) -> None:
    """Serve until the process is ended."""
    protocol = StreamProtocol(StringLineSerializer(limit=limit))
    async with AsyncTCPNetworkServer("127.0.0.1", 0, protocol, Publisher(), "asyncio") as server:
        print(server.get_addresses()[0].port, flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
