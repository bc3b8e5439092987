"""asyncio: ``start_server`` with a loop by hand for each format.

Usage: asyncio_formats.py LIMIT {json|msgpack|prefixed|resp|struct}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys

LENGTH = struct.Struct("!I")
READING = struct.Struct("!IIdd40s")
# Made once, as `json` does itself for ``json.dumps(packet)`` without options.
ENCODER = json.JSONEncoder(separators=(",", ":"))


async def echo_json(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer JSON, a document a line."""
    while line := await reader.readline():
        packet = json.loads(line)
        writer.write(ENCODER.encode(packet).encode() + b"\n")
        await writer.drain()


async def echo_msgpack(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer MessagePack with its length in front."""
    import msgpack

    while True:
        (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        packet = msgpack.unpackb(await reader.readexactly(size))
        data = msgpack.packb(packet)
        writer.write(LENGTH.pack(len(data)) + data)
        await writer.drain()


async def echo_prefixed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer bytes with their length in front."""
    while True:
        (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        packet = await reader.readexactly(size)
        writer.write(LENGTH.pack(len(packet)) + packet)
        await writer.drain()


async def echo_resp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer commands in Redis's protocol."""
    while line := await reader.readline():
        words = []
        for _ in range(int(line[1:])):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2])
        parts = [b"*%d\r\n" % len(words)]
        parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        writer.write(b"".join(parts))
        await writer.drain()


async def echo_struct(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer structures, which all have the same size."""
    while True:
        packet = READING.unpack(await reader.readexactly(READING.size))
        writer.write(READING.pack(*packet))
        await writer.drain()


ECHOES = {
    "json": echo_json,
    "msgpack": echo_msgpack,
    "prefixed": echo_prefixed,
    "resp": echo_resp,
    "struct": echo_struct,
}


async def main(limit: int, name: str) -> None:
    """Serve until the process is ended."""
    echo = ECHOES[name]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await echo(reader, writer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=limit)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
