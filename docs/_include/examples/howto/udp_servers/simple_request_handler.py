from __future__ import annotations

from collections.abc import AsyncGenerator

from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
)


class GreetingRequestHandler(AsyncDatagramRequestHandler[str, str]):
    """Responds to a name with a greeting."""

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        # Receive the request that this client has sent.
        name: str = yield

        # Send the response.
        await client.send_packet(f"Hello, {name}!")
