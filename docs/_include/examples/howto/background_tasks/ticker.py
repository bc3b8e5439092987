from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
PROTOCOL = StreamProtocol(StringLineSerializer())


class TickerRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Sends ticks to each client, and answers it at the same time."""

    interval = 0.1  # seconds
    patience = 30.0  # seconds

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        client.start_soon(self.push_ticks, client)

    async def push_ticks(self, client: AsyncStreamClient[str]) -> None:
        number = 0
        while True:
            await client.backend().sleep(self.interval)
            number += 1
            # A client that is too slow misses a tick.
            client.try_send_packet(f"tick {number}")

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[float, str]:
        try:
            request: str = yield self.patience
        except TimeoutError:
            await client.send_packet("ping")
            try:
                request = yield self.patience
            except TimeoutError:
                client.abort()
                return

        if request != "pong":
            await client.send_packet(f"You said {request}")


async def listen() -> None:
    async with AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as client:
        await client.send_packet("hello")
        for _ in range(3):
            print(await client.recv_packet())


async def main() -> None:
    handler = TickerRequestHandler()
    async with AsyncTCPNetworkServer(*ADDRESS, PROTOCOL, handler) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        await listen()
        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
