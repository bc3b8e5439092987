from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
)


class EchoRequestHandler(AsyncDatagramRequestHandler[Any, Any]):
    """Send each request back to its client."""

    async def handle(
        self,
        client: AsyncDatagramClient[Any],
    ) -> AsyncGenerator[None, Any]:
        request = yield
        await client.send_packet(request)
