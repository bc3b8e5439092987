"""easynetwork: ``AsyncUnixStreamServer`` and ``AsyncUnixDatagramServer``.

Usage: easynetwork_unix.py LIMIT {asyncio|uvloop|trio} {streams|datagrams}
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from typing import Any, Literal

from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
)


class EchoStreams(AsyncStreamRequestHandler[str, str]):
    """A generator for each connection."""

    __slots__ = ()

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        while True:
            line = yield
            await client.send_packet(line)


class EchoDatagrams(AsyncDatagramRequestHandler[str, str]):
    """A generator for each datagram."""

    __slots__ = ()

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        line = yield
        await client.send_packet(f"{line}\n")


async def main(limit: int, kind: str, backend: Literal["asyncio", "trio"]) -> None:
    """Serve until the process is ended. Its number is the "port": clients make the name of it."""
    path = f"\0easynetwork-benchmark-{os.getpid()}"
    serializer = StringLineSerializer(limit=limit)
    server: Any
    if kind == "streams":
        protocol = StreamProtocol(serializer)
        server = AsyncUnixStreamServer(path, protocol, EchoStreams(), backend)
    else:
        datagrams = DatagramProtocol(serializer)
        server = AsyncUnixDatagramServer(path, datagrams, EchoDatagrams(), backend)
    async with server:
        print(os.getpid(), flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    limit, loop, kind = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    if loop == "trio":
        import trio

        trio.run(main, limit, kind, "trio")
    elif loop == "uvloop":
        import uvloop

        uvloop.run(main(limit, kind, "asyncio"))
    else:
        asyncio.run(main(limit, kind, "asyncio"))
