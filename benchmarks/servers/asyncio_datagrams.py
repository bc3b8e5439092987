"""asyncio: an ``asyncio.DatagramProtocol``.

Usage: asyncio_datagrams.py LIMIT {asyncio|uvloop}    (a datagram is limited by UDP itself)
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any


class EchoProtocol(asyncio.DatagramProtocol):
    """The whole service."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport does not derive from asyncio.DatagramTransport.
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        text = data.decode("ascii").removesuffix("\n")
        self.transport.sendto(text.encode("ascii") + b"\n", addr)


async def main() -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(EchoProtocol, ("127.0.0.1", 0))
    print(transport.get_extra_info("sockname")[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[2] == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
