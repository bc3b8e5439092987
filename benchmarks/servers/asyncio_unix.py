"""asyncio: ``start_unix_server`` with a reader and a writer; or an ``asyncio.DatagramProtocol``.

Usage: asyncio_unix.py LIMIT {asyncio|uvloop} {streams|datagrams}
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

PATH = f"\0easynetwork-benchmark-{os.getpid()}"


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection, line by line."""
    while line := await reader.readline():
        text = line.decode("ascii").removesuffix("\n")
        writer.write(text.encode("ascii") + b"\n")
        await writer.drain()
    writer.close()
    await writer.wait_closed()


class EchoProtocol(asyncio.DatagramProtocol):
    """The whole service of datagrams."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport does not derive from asyncio.DatagramTransport.
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        text = data.decode("ascii").removesuffix("\n")
        self.transport.sendto(text.encode("ascii") + b"\n", addr)


async def main(limit: int, kind: str) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server: Any
    if kind == "streams":
        server = await asyncio.start_unix_server(handle, PATH, limit=limit)
    else:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(PATH)
        sock.setblocking(False)
        server = await loop.create_datagram_endpoint(EchoProtocol, sock=sock)
    print(os.getpid(), flush=True)
    await asyncio.Event().wait()
    del server


if __name__ == "__main__":
    limit, loop, kind = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    if loop == "uvloop":
        import uvloop

        uvloop.run(main(limit, kind))
    else:
        asyncio.run(main(limit, kind))
