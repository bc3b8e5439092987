from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, Limits
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.statistics import CloseReason

ADDRESS = ("127.0.0.1", 9000)
PROTOCOL = StreamProtocol(StringLineSerializer(encoding="utf-8"))


MAY_RETURN = (CloseReason.PEER_RESET, CloseReason.TRUNCATED, CloseReason.IDLE_TIMEOUT)


class GameRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Keeps the seat of a player who has not left the game, but lost the connection."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        move: str = yield
        await client.send_packet(f"You play {move}")

    async def on_disconnection(self, client: AsyncStreamClient[str]) -> None:
        if client.close_reason in MAY_RETURN:
            print(f"The seat is kept ({client.close_reason})")
        else:
            print(f"The seat is free ({client.close_reason})")


async def play() -> None:
    async with AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as one:
        await one.send_packet("e4")
        print(await one.recv_packet())

    async with AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as other:
        await other.send_packet("d4")
        print(await other.recv_packet())
        try:
            await other.recv_packet()
        except ConnectionError:
            print("The connection is closed")


async def main() -> None:
    handler = GameRequestHandler()
    limits = Limits(idle_timeout=1.0)  # seconds
    async with AsyncTCPNetworkServer(*ADDRESS, PROTOCOL, handler, limits=limits) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        await play()
        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
