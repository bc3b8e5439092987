from __future__ import annotations

import asyncio
import datetime
import json
import logging
from collections.abc import AsyncGenerator

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
PROTOCOL = StreamProtocol(StringLineSerializer(encoding="utf-8"))


class JSONFormatter(logging.Formatter):
    """Makes an object of JSON of each record, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class EchoRequestHandler(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        await client.send_packet((yield))


async def main() -> None:
    logger = logging.getLogger("echo")
    handler = EchoRequestHandler()
    async with AsyncTCPNetworkServer(*ADDRESS, PROTOCOL, handler, logger=logger) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        async with AsyncTCPNetworkClient[str, str](ADDRESS, PROTOCOL) as client:
            await client.send_packet("hello")
            await client.recv_packet()
        await server.server_close()  # those clients that are here are served to the end
        await server_task


if __name__ == "__main__":
    log_handler = logging.StreamHandler()
    log_handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[log_handler])
    asyncio.run(main())
