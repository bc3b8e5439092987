"""A binary format with a length, a type, a body and a CRC-32, and a server that uses it."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TypeAlias

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.converter import AbstractPacketConverter
from easynetwork.exceptions import (
    DeserializeError,
    PacketConversionError,
    StreamProtocolParseError,
)
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers.framing import LengthPrefixedPacketSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.testing import check_serializer

Content: TypeAlias = tuple[int, bytes]  # the type and the body

CRC_SIZE = 4


class FrameSerializer(LengthPrefixedPacketSerializer[Content, Content]):
    """A length of 2 bytes, a type of 1 byte, a body, and a CRC-32 of the type and the body."""

    def __init__(self) -> None:
        super().__init__("u16", byteorder="big", limit=1024)

    def serialize(self, packet: Content) -> bytes:
        packet_type, body = packet
        content = bytes([packet_type]) + body
        return content + zlib.crc32(content).to_bytes(CRC_SIZE, "big")

    def deserialize(self, data: bytes) -> Content:
        content, crc = data[:-CRC_SIZE], data[-CRC_SIZE:]
        if not content:
            raise DeserializeError("The frame is too short")
        if zlib.crc32(content).to_bytes(CRC_SIZE, "big") != crc:
            raise DeserializeError("The CRC is wrong")
        return content[0], content[1:]


@dataclass(frozen=True)
class Reading:
    sensor: int
    celsius: float


@dataclass(frozen=True)
class Accepted:
    sensor: int


@dataclass(frozen=True)
class Rejected:
    reason: str


Packet: TypeAlias = Reading | Accepted | Rejected


class PacketConverter(AbstractPacketConverter[Packet, Content]):
    reading = struct.Struct("!Hd")
    accepted = struct.Struct("!H")

    def convert_to_dto_packet(self, obj: Packet) -> Content:
        match obj:
            case Reading(sensor, celsius):
                return 1, self.reading.pack(sensor, celsius)
            case Accepted(sensor):
                return 2, self.accepted.pack(sensor)
            case Rejected(reason):
                return 3, reason.encode()

    def create_from_dto_packet(self, packet: Content) -> Packet:
        packet_type, body = packet
        try:
            match packet_type:
                case 1:
                    return Reading(*self.reading.unpack(body))
                case 2:
                    return Accepted(*self.accepted.unpack(body))
                case 3:
                    return Rejected(body.decode())
        except (struct.error, UnicodeDecodeError) as exc:
            raise PacketConversionError(f"Type {packet_type}: {exc}") from exc
        raise PacketConversionError(f"Unknown type {packet_type}")


protocol = StreamProtocol(FrameSerializer(), PacketConverter())


class ReadingHandler(AsyncStreamRequestHandler[Packet, Packet]):
    async def handle(
        self,
        client: AsyncStreamClient[Packet],
    ) -> AsyncGenerator[None, Packet]:
        try:
            packet = yield
        except StreamProtocolParseError as exc:
            await client.send_packet(Rejected(str(exc.error)))
            return
        match packet:
            case Reading(sensor, _):
                await client.send_packet(Accepted(sensor))
            case _:
                await client.send_packet(Rejected("Not a request"))


async def main() -> None:
    # Port 0: the operating system chooses a free port.
    async with AsyncTCPNetworkServer("localhost", 0, protocol, ReadingHandler()) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        host, port = server.get_addresses()[0][:2]

        async with AsyncTCPNetworkClient((host, port), protocol) as client:
            for packet in Reading(7, 21.5), Accepted(7), Reading(8, -3.0):
                await client.send_packet(packet)
                print(await client.recv_packet())

        await server.shutdown()
        await server_task


def test_frames() -> None:
    check_serializer(
        FrameSerializer(),
        [(1, b"\x00\x07hello"), (255, b"")],
        malformed=[
            b"\x00\x00",  # no type
            b"\x00\x05\x01\x00\x00\x00\x00",  # a wrong CRC
        ],
        oversized=[b"\x04\x01"],  # the beginning of 1,025 bytes
    )


if __name__ == "__main__":
    asyncio.run(main())
