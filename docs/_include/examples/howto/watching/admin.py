from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)

ADDRESS = ("127.0.0.1", 9000)
# Every program that can connect may use it, so do not listen on other interfaces.
ADMIN_ADDRESS = ("127.0.0.1", 9001)
PROTOCOL = StreamProtocol(StringLineSerializer(encoding="utf-8"))


class EchoRequestHandler(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        await client.send_packet((yield))


def name_of(client: AsyncStreamClient[str]) -> str:
    address = client.extra(INETClientAttribute.remote_address)
    return f"{address.host}:{address.port}"


class AdminRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Lists the clients of another server, and disconnects one of them."""

    def __init__(self, server: AsyncTCPNetworkServer[str, str]) -> None:
        self.server = server

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        request: str = yield

        command, _, name = request.partition(" ")
        clients = {name_of(other): other for other in self.server.get_clients()}
        if command == "list":
            await client.send_packet(f"{len(clients)} connected")
            for other_name, other in clients.items():
                found = other.get_statistics()
                await client.send_packet(
                    f"{other_name} is {found.state}, {found.packets_received} received, "
                    f"{found.unsent} bytes unsent"
                )
        elif command == "close" and name in clients:
            clients[name].abort()
            await client.send_packet(f"{name} is closed")
        else:
            await client.send_packet("No such command, or no such client")


async def administrate() -> None:
    async with (
        AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as client,
        AsyncTCPNetworkClient[str, str](ADMIN_ADDRESS, PROTOCOL) as admin,
    ):
        await client.send_packet("hello")
        await client.recv_packet()

        await admin.send_packet("list")
        print(await admin.recv_packet())
        line = await admin.recv_packet()
        print(line)

        name, *_ = line.split()
        await admin.send_packet(f"close {name}")
        print(await admin.recv_packet())
        try:
            await client.recv_packet()
        except ConnectionError:
            print("The client is disconnected")


async def main() -> None:
    async with (
        AsyncTCPNetworkServer(*ADDRESS, PROTOCOL, EchoRequestHandler()) as server,
        AsyncTCPNetworkServer(*ADMIN_ADDRESS, PROTOCOL, AdminRequestHandler(server)) as admin,
    ):
        up = [asyncio.Event(), asyncio.Event()]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve_forever(is_up_event=up[0]))
            tasks.create_task(admin.serve_forever(is_up_event=up[1]))
            for is_up in up:
                await is_up.wait()
            await administrate()
            await admin.shutdown()
            await server.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
