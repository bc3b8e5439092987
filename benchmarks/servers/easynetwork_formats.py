"""easynetwork: ``AsyncTCPNetworkServer`` with a serializer for each format.

Usage: easynetwork_formats.py LIMIT {json|msgpack|prefixed|resp|struct}
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Generator
from typing import Any

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import (
    JSONSerializer,
    LengthPrefixedSerializer,
    MessagePackSerializer,
    StructSerializer,
)
from easynetwork.serializers.abc import AbstractIncrementalPacketSerializer
from easynetwork.serializers.framing import LengthPrefixedPacketSerializer
from easynetwork.serializers.tools import GeneratorStreamReader
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class BytesSerializer(LengthPrefixedPacketSerializer[bytes, bytes]):
    """Packets are bytes."""

    __slots__ = ()

    def serialize(self, packet: bytes, /) -> bytes:
        return packet

    def deserialize(self, data: bytes, /) -> bytes:
        return data


class RESPSerializer(AbstractIncrementalPacketSerializer[list[bytes], list[bytes]]):
    """Packets are commands in Redis's protocol: lists of words."""

    __slots__ = ("_limit",)

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def incremental_serialize(self, packet: list[bytes], /) -> Generator[bytes, None, None]:
        yield b"*%d\r\n" % len(packet)
        for word in packet:
            yield b"$%d\r\n%b\r\n" % (len(word), word)

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[list[bytes], bytes]]:
        reader = GeneratorStreamReader()
        line = yield from reader.read_until(b"\r\n", self._limit)
        words = []
        for _ in range(int(line[1:])):
            size = int((yield from reader.read_until(b"\r\n", self._limit))[1:])
            words.append((yield from reader.read_exactly(size + 2))[:-2])
        return words, reader.read_all()


class Echo(AsyncStreamRequestHandler[Any, Any]):
    """A generator for each connection."""

    __slots__ = ()

    async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
        while True:
            packet = yield
            await client.send_packet(packet)


def make_serializer(name: str, limit: int) -> AbstractIncrementalPacketSerializer[Any, Any]:
    """Return the serializer of a format."""
    match name:
        case "json":
            return JSONSerializer(limit=limit)
        case "msgpack":
            return LengthPrefixedSerializer(MessagePackSerializer(), "u32", limit=limit)
        case "prefixed":
            return BytesSerializer("u32", limit=limit)
        case "resp":
            return RESPSerializer(limit)
        case _:
            return StructSerializer("!IIdd40s")


async def main(limit: int, name: str) -> None:
    """Serve until the process is ended."""
    protocol = StreamProtocol(make_serializer(name, limit))
    async with AsyncTCPNetworkServer("127.0.0.1", 0, protocol, Echo(), "asyncio") as server:
        print(server.get_addresses()[0].port, flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
