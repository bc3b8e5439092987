from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
)


class EchoRequestHandler(AsyncDatagramRequestHandler[Any, Any]):
    """Sends every request back."""

    async def handle(
        self,
        client: AsyncDatagramClient[Any],
    ) -> AsyncGenerator[None, Any]:
        request = yield
        await client.send_packet(request)
