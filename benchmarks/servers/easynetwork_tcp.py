"""easynetwork: ``AsyncTCPNetworkServer`` with the shapes of ``handle()``.

Usage: easynetwork_tcp.py LIMIT {asyncio|uvloop|trio} {request|loop|helper} [CERTIFICATE]
(with one: over TLS)
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Literal

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class EchoPerRequest(AsyncStreamRequestHandler[str, str]):
    """A generator for each request."""

    __slots__ = ()

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        line = yield
        await client.send_packet(line)


class EchoLoop(AsyncStreamRequestHandler[str, str]):
    """A generator for each connection."""

    __slots__ = ()

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        while True:
            line = yield
            await client.send_packet(line)


class EchoHelper(AsyncStreamRequestHandler[str, str]):
    """A generator for each connection, whose requests a coroutine receives."""

    __slots__ = ()

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        line = yield
        while True:
            await client.send_packet(line)
            line = await client.recv_packet()


HANDLERS: dict[str, Callable[[], AsyncStreamRequestHandler[str, str]]] = {
    "request": EchoPerRequest,
    "loop": EchoLoop,
    "helper": EchoHelper,
}


async def main(
    limit: int, style: str, certificates: list[str], backend: Literal["asyncio", "trio"]
) -> None:
    """Serve until the process is ended."""
    context = None
    for certificate in certificates:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    protocol = StreamProtocol(StringLineSerializer(limit=limit))
    handler = HANDLERS[style]()
    async with AsyncTCPNetworkServer(
        "127.0.0.1", 0, protocol, handler, backend, ssl=context
    ) as server:
        print(server.get_addresses()[0].port, flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    limit, loop, style, *certificates = int(sys.argv[1]), *sys.argv[2:]
    if loop == "trio":
        import trio

        trio.run(main, limit, style, certificates, "trio")
    elif loop == "uvloop":
        import uvloop

        uvloop.run(main(limit, style, certificates, "asyncio"))
    else:
        asyncio.run(main(limit, style, certificates, "asyncio"))
