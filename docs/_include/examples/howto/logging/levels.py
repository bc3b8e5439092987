from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
UTF_8 = StreamProtocol(StringLineSerializer(encoding="utf-8"))
LATIN_1 = StreamProtocol(StringLineSerializer(encoding="latin-1"))


class DivisionRequestHandler(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        number: str = yield
        await client.send_packet(str(100 / int(number)))


async def ask(protocol: StreamProtocol[str, str], text: str) -> None:
    async with AsyncTCPNetworkClient[str, str](ADDRESS, protocol) as client:
        await client.send_packet(text)
        with contextlib.suppress(ConnectionError):  # no answer: the log says why
            await client.recv_packet()


async def main() -> None:
    async with AsyncTCPNetworkServer(*ADDRESS, UTF_8, DivisionRequestHandler()) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        for protocol, text in (UTF_8, "8"), (LATIN_1, "½"), (UTF_8, "0"):
            await ask(protocol, text)
        await server.server_close()  # those clients that are here are served to the end
        await server_task


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    asyncio.run(main())
