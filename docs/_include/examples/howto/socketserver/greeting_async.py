from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class GreetingRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Responds to names with greetings."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        name: str = yield
        await client.send_packet(f"Hello, {name}!")


async def main() -> None:
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    handler = GreetingRequestHandler()

    async with AsyncTCPNetworkServer("localhost", 9000, protocol, handler) as server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
