from __future__ import annotations

from collections.abc import AsyncGenerator

from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
)


class GreetingRequestHandler(AsyncDatagramRequestHandler[str, str]):
    """Answers a name with a greeting."""

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        # Take the datagram that this client has sent.
        name: str = yield

        # Answer it.
        await client.send_packet(f"Hello, {name}!")
