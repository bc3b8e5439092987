from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class EchoRequestHandler(AsyncStreamRequestHandler[Any, Any]):
    """Sends every request back."""

    async def handle(
        self,
        client: AsyncStreamClient[Any],
    ) -> AsyncGenerator[None, Any]:
        request = yield
        await client.send_packet(request)
