"""asyncio: an ``asyncio.Protocol`` that splits the lines itself.

Usage: asyncio_protocol.py LIMIT {asyncio|uvloop}    (it has no limit of its own)
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any


class EchoProtocol(asyncio.Protocol):
    """One connection."""

    __slots__ = ("partial", "transport")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport does not derive from asyncio.Transport.
        self.transport: Any = transport
        self.partial = b""

    def data_received(self, data: bytes) -> None:
        *lines, self.partial = (self.partial + data).split(b"\n")
        for line in lines:
            text = line.decode("ascii")
            self.transport.write(text.encode("ascii") + b"\n")


async def main() -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(EchoProtocol, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[2] == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
