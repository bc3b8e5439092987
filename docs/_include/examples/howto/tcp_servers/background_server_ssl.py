from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from typing import Any

import trustme

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class JSONRequestHandler(AsyncStreamRequestHandler[dict[str, Any], dict[str, Any]]):
    """Sends back each request, with the name of the task that handled it."""

    async def handle(
        self,
        client: AsyncStreamClient[dict[str, Any]],
    ) -> AsyncGenerator[None, dict[str, Any]]:
        request = yield
        task = client.backend().get_current_task()
        await client.send_packet({"task": task.name, "request": request})


def make_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Create an authority for this run only, and a certificate that it has signed."""
    authority = trustme.CA()

    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)

    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    return server_context, client_context


async def ask(message: str, context: ssl.SSLContext) -> None:
    protocol = StreamProtocol(JSONSerializer())
    address = ("localhost", 9000)

    async with AsyncTCPNetworkClient(address, protocol, ssl=context) as client:
        await client.send_packet({"message": message})
        response = await client.recv_packet()
        print(f"From server: {response}")


async def main() -> None:
    protocol = StreamProtocol(JSONSerializer())
    handler = JSONRequestHandler()
    server_context, client_context = make_contexts()

    async with AsyncTCPNetworkServer(
        "localhost",
        9000,
        protocol,
        handler,
        ssl=server_context,
    ) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        print(f"Server loop running in task: {server_task.get_name()}")

        for number in range(1, 4):
            await ask(f"Hello world {number}", client_context)

        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
