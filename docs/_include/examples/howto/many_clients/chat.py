from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.groups import ClientGroup
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
PROTOCOL = StreamProtocol(StringLineSerializer(encoding="utf-8"))


class ChatRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Sends what one client says to all others."""

    def __init__(self) -> None:
        self.members: ClientGroup[str] = ClientGroup()

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        self.members.add(client)
        self.members.broadcast(f"{len(self.members)} in the room")

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        line: str = yield

        count = self.members.broadcast(line, exclude=[client])
        await client.send_packet(f"(sent to {count})")


async def chat() -> None:
    async with (
        AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as ada,
        AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as grace,
    ):
        print(f"Grace reads: {await grace.recv_packet()}")
        await ada.send_packet("Good morning!")
        print(f"Grace reads: {await grace.recv_packet()}")


async def main() -> None:
    handler = ChatRequestHandler()
    async with AsyncTCPNetworkServer(*ADDRESS, PROTOCOL, handler) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        await chat()
        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
