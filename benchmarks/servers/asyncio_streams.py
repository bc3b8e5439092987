"""asyncio: ``start_server`` with a reader and a writer.

Usage: asyncio_streams.py LIMIT {asyncio|uvloop} [CERTIFICATE]    (with one: over TLS)
"""

from __future__ import annotations

import asyncio
import ssl
import sys


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection, line by line."""
    while line := await reader.readline():
        text = line.decode("ascii").removesuffix("\n")
        writer.write(text.encode("ascii") + b"\n")
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def main(limit: int, certificates: list[str]) -> None:
    """Serve until the process is ended."""
    context = None
    for certificate in certificates:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=limit, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    limit, loop, certificates = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if loop == "uvloop":
        import uvloop

        uvloop.run(main(limit, certificates))
    else:
        asyncio.run(main(limit, certificates))
