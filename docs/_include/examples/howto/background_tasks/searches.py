from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import anyio

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
PROTOCOL = StreamProtocol(StringLineSerializer())


class SearchRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Answers several requests of a client at the same time."""

    max_searches = 4  # for each client

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        free = anyio.Semaphore(self.max_searches)
        while True:
            request: str = yield
            await free.acquire()
            client.start_soon(self.answer, client, request, free)

    async def answer(
        self, client: AsyncStreamClient[str], request: str, free: anyio.Semaphore
    ) -> None:
        try:
            result = await self.search(request)
            await client.send_packet(f"{request}: {result}")
        finally:
            free.release()

    async def search(self, text: str) -> str:
        """Take a tenth of a second for each letter."""
        await anyio.sleep(len(text) / 10)
        return f"{len(text)} letters"


async def ask(*requests: str) -> None:
    async with AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as client:
        for request in requests:
            await client.send_packet(request)
        for _ in requests:
            print(await client.recv_packet())


async def main() -> None:
    handler = SearchRequestHandler()
    async with AsyncTCPNetworkServer(*ADDRESS, PROTOCOL, handler) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        await ask("elephant", "cat", "mouse")
        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
