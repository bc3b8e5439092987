from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, Limits
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
PROTOCOL = StreamProtocol(StringLineSerializer(encoding="utf-8"))

# One second, so that you can watch it.
LIMITS = dataclasses.replace(Limits.public(), idle_timeout=1.0)


class AccountRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Lets members be silent for as long as they like, and guests only for a while."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        request: str = yield

        command, _, name = request.partition(" ")
        if command == "login":  # A real server checks a password here.
            client.set_limits(idle_timeout=None)
            await client.send_packet(f"Welcome, {name}")
        else:
            await client.send_packet(f"You said {request}")


async def visit() -> None:
    async with (
        AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as member,
        AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as guest,
    ):
        await member.send_packet("login Ada")
        print(f"Member: {await member.recv_packet()}")
        await guest.send_packet("hello")
        print(f"Guest: {await guest.recv_packet()}")
        try:
            await guest.recv_packet()
        except ConnectionError:
            print("Guest: disconnected")
        await member.send_packet("hello")
        print(f"Member: {await member.recv_packet()}")


async def main() -> None:
    handler = AccountRequestHandler()
    async with AsyncTCPNetworkServer(*ADDRESS, PROTOCOL, handler, limits=LIMITS) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        await visit()
        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
