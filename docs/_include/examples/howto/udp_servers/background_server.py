from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from easynetwork.clients import AsyncUDPNetworkClient
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import JSONSerializer
from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
)


class JSONRequestHandler(AsyncDatagramRequestHandler[dict[str, Any], dict[str, Any]]):
    """Sends back each request, with the name of the task that handled it."""

    async def handle(
        self,
        client: AsyncDatagramClient[dict[str, Any]],
    ) -> AsyncGenerator[None, dict[str, Any]]:
        request = yield
        task = client.backend().get_current_task()
        await client.send_packet({"task": task.name, "request": request})


async def ask(message: str) -> None:
    protocol = DatagramProtocol(JSONSerializer())

    async with AsyncUDPNetworkClient(("localhost", 9000), protocol) as client:
        await client.send_packet({"message": message})

        # A datagram can get lost, so set a timeout.
        async with asyncio.timeout(5):
            response = await client.recv_packet()
        print(f"From server: {response}")


async def main() -> None:
    protocol = DatagramProtocol(JSONSerializer())
    handler = JSONRequestHandler()

    async with AsyncUDPNetworkServer("localhost", 9000, protocol, handler) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        print(f"Server loop running in task: {server_task.get_name()}")

        for number in range(1, 4):
            await ask(f"Hello world {number}")

        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
