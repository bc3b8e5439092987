from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

words: set[str] = set()


async def old_port(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    words.add((await reader.readline()).decode().strip())
    writer.write(f"{len(words)} words\n".encode())
    writer.close()


class NewPort(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        words.add((yield))
        await client.send_packet(f"{len(words)} words")


async def main() -> None:
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    old = await asyncio.start_server(old_port, "127.0.0.1", 9000)
    new = AsyncTCPNetworkServer("127.0.0.1", 9001, protocol, NewPort())
    async with old, new:
        await new.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
