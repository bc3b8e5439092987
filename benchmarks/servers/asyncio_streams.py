"""asyncio: ``start_server`` with a reader and a writer.

Usage: asyncio_streams.py LIMIT {asyncio|uvloop}
"""

from __future__ import annotations

import asyncio
import sys


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection, line by line."""
    while line := await reader.readline():
        text = line.decode("ascii").removesuffix("\n")
        writer.write(text.encode("ascii") + b"\n")
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def main(limit: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=limit)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    limit, loop = int(sys.argv[1]), sys.argv[2]
    if loop == "uvloop":
        import uvloop

        uvloop.run(main(limit))
    else:
        asyncio.run(main(limit))
