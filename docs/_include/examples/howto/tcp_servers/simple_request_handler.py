from __future__ import annotations

from collections.abc import AsyncGenerator

from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class GreetingRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Responds to a name with a greeting."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        # Wait for the client's next request.
        name: str = yield

        # Send the response.
        await client.send_packet(f"Hello, {name}!")
