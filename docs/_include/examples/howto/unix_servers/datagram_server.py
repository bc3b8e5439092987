from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.handlers import AsyncDatagramClient, AsyncDatagramRequestHandler


class GreetingRequestHandler(AsyncDatagramRequestHandler[str, str]):
    """Responds to a name with a greeting."""

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        name: str = yield
        await client.send_packet(f"Hello, {name}!")


async def main() -> None:
    path = "greeting.sock"
    protocol = DatagramProtocol(StringLineSerializer(encoding="utf-8"))
    handler = GreetingRequestHandler()

    async with AsyncUnixDatagramServer(path, protocol, handler) as server:
        await server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)

    # Control-C is the normal way to stop this program, so it is not an error.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
