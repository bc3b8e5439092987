from __future__ import annotations

from collections.abc import AsyncGenerator

from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class GreetingRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Answers a name with a greeting."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        # Wait for the next request of this client.
        name: str = yield

        # Answer it.
        await client.send_packet(f"Hello, {name}!")
