"""Protocol objects for readings of thermometers."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any, NamedTuple

from easynetwork.converter import AbstractPacketConverter
from easynetwork.exceptions import PacketConversionError
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, LengthPrefixedSerializer

logger = logging.getLogger(__name__)


class Reading(NamedTuple):
    sensor: str
    celsius: float


class ReadingConverter(AbstractPacketConverter[Reading, Any]):
    def create_from_dto_packet(self, packet: Any) -> Reading:
        match packet:
            case [str(sensor), float(celsius)]:
                return Reading(sensor, celsius)
            case _:
                raise PacketConversionError("Not a reading")

    def convert_to_dto_packet(self, obj: Reading) -> Any:
        return [obj.sensor, obj.celsius]


stream_protocol = StreamProtocol(JSONSerializer(), ReadingConverter())

framed_json = LengthPrefixedSerializer(JSONSerializer())
buffered_protocol = BufferedStreamProtocol(framed_json, ReadingConverter())

datagram_protocol = DatagramProtocol(JSONSerializer(), ReadingConverter())


class ReadingProtocol(StreamProtocol[Reading, Reading]):
    def __init__(self) -> None:
        super().__init__(JSONSerializer(limit=1000), ReadingConverter())


class TracingReadingProtocol(ReadingProtocol):
    def generate_chunks(self, packet: Reading) -> Generator[bytes, None, None]:
        logger.debug("Sends %r", packet)
        yield from super().generate_chunks(packet)

    def build_packet_from_chunks(self) -> Generator[None, bytes, tuple[Reading, bytes]]:
        packet, remaining_data = yield from super().build_packet_from_chunks()
        logger.debug("Received %r", packet)
        return packet, remaining_data


if __name__ == "__main__":
    reading = Reading("kitchen", 21.5)
    print("stream:  ", *stream_protocol.generate_chunks(reading))
    print("buffered:", *buffered_protocol.generate_chunks(reading))
    print("datagram:", datagram_protocol.make_datagram(reading))
