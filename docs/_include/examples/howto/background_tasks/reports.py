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


class ReportRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Makes long reports, but only for clients that still want them."""

    seconds = 60.0

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        subject: str = yield

        await client.send_packet("Please wait")
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self.give_up, client, task_group.cancel_scope)
            report = await self.make_report(subject)
            await client.send_packet(report)
            task_group.cancel_scope.cancel()

    async def give_up(self, client: AsyncStreamClient[str], scope: anyio.CancelScope) -> None:
        await client.wait_disconnected()
        print("The client has left")
        scope.cancel()

    async def make_report(self, subject: str) -> str:
        await anyio.sleep(self.seconds)
        return f"All about {subject}"


async def ask_and_leave() -> None:
    async with AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as client:
        await client.send_packet("elephants")
        print(await client.recv_packet())


async def main() -> None:
    handler = ReportRequestHandler()
    async with AsyncTCPNetworkServer(*ADDRESS, PROTOCOL, handler) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        await ask_and_leave()
        # Serve the connected clients until they have left, or have their report.
        await server.server_close()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
