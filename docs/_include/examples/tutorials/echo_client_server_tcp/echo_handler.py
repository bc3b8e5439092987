from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class EchoRequestHandler(AsyncStreamRequestHandler[Any, Any]):
    """Send each request back to its client."""

    async def handle(
        self,
        client: AsyncStreamClient[Any],
    ) -> AsyncGenerator[None, Any]:
        request = yield
        await client.send_packet(request)
