from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator
from contextvars import ContextVar

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
PROTOCOL = StreamProtocol(StringLineSerializer(encoding="utf-8"))

logger = logging.getLogger("echo")
connection_id: ContextVar[str] = ContextVar("connection_id", default="-")


class AddConnectionID(logging.Filter):
    """Adds the ID of the connection to each line of the log, also to those of the server."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.connection_id = connection_id.get()
        return True


class EchoRequestHandler(AsyncStreamRequestHandler[str, str]):
    def __init__(self) -> None:
        self.ids = itertools.count(1)

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        connection_id.set(f"c{next(self.ids)}")

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        request: str = yield
        logger.info("A request of %d characters", len(request))
        await client.send_packet(request)


async def ask(client: AsyncTCPNetworkClient[str, str], text: str) -> None:
    await client.send_packet(text)
    await client.recv_packet()


async def main() -> None:
    async with AsyncTCPNetworkServer(*ADDRESS, PROTOCOL, EchoRequestHandler()) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        async with AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as one:
            await ask(one, "hello")
            async with AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as other:
                await ask(other, "good morning")
            await ask(one, "bye")
        await server.server_close()  # those clients that are here are served to the end
        await server_task


if __name__ == "__main__":
    log_handler = logging.StreamHandler()
    log_handler.addFilter(AddConnectionID())
    log_format = "%(levelname)s %(connection_id)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=log_format, handlers=[log_handler])
    asyncio.run(main())
