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


class NewsRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Sends each message to the clients that have subscribed to its topic."""

    def __init__(self, *topics: str) -> None:
        # A client must not be able to create topics without end.
        self.subscribers: dict[str, ClientGroup[str]] = {
            topic: ClientGroup(slow="abort", high_water=1_000_000) for topic in topics
        }

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        line: str = yield

        command, _, rest = line.partition(" ")
        topic, _, message = rest.partition(" ")
        group = self.subscribers.get(topic)
        if group is None:
            await client.send_packet(f"Unknown topic: {topic}")
        elif command == "subscribe":
            group.add(client)
            await client.send_packet(f"Subscribed to {topic}")
        elif command == "unsubscribe":
            group.discard(client)
            await client.send_packet(f"Unsubscribed from {topic}")
        elif command == "publish":
            count = group.broadcast(f"[{topic}] {message}")
            await client.send_packet(f"Sent to {count}")
        else:
            await client.send_packet(f"Unknown command: {command}")


async def subscribe_and_publish() -> None:
    async with (
        AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as reader,
        AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as writer,
    ):
        await reader.send_packet("subscribe weather")
        print(f"Reader: {await reader.recv_packet()}")
        await writer.send_packet("publish weather It is raining")
        print(f"Writer: {await writer.recv_packet()}")
        print(f"Reader: {await reader.recv_packet()}")
        await writer.send_packet("publish sports 3:2")
        print(f"Writer: {await writer.recv_packet()}")


async def main() -> None:
    handler = NewsRequestHandler("weather", "sports")
    async with AsyncTCPNetworkServer(*ADDRESS, PROTOCOL, handler) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        await subscribe_and_publish()
        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
