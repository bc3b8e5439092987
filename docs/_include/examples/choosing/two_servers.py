from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
PATH = "counter.sock"


class Counter(AsyncStreamRequestHandler[str, int]):
    """Sends back how many requests it has received."""

    def __init__(self) -> None:
        self.count = 0

    async def handle(self, client: AsyncStreamClient[int]) -> AsyncGenerator[None, str]:
        yield
        self.count += 1
        await client.send_packet(self.count)


async def main() -> None:
    protocol = StreamProtocol(JSONSerializer())
    handler = Counter()
    async with (
        AsyncTCPNetworkServer(*ADDRESS, protocol, handler) as tcp_server,
        AsyncUnixStreamServer(PATH, protocol, handler) as unix_server,
        asyncio.TaskGroup() as tasks,
    ):
        for server in tcp_server, unix_server:
            is_up = asyncio.Event()
            tasks.create_task(server.serve_forever(is_up_event=is_up))
            await is_up.wait()

        for client in (
            AsyncTCPNetworkClient[str, int](ADDRESS, protocol),
            AsyncUnixStreamClient[str, int](PATH, protocol),
        ):
            async with client:
                await client.send_packet("count")
                print(type(client).__name__, "receives", await client.recv_packet())

        await tcp_server.shutdown()
        await unix_server.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
