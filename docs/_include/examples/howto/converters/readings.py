"""A converter for packets of one type."""

from __future__ import annotations

import dataclasses
from typing import Any

from easynetwork.converter import AbstractPacketConverter
from easynetwork.exceptions import PacketConversionError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer


@dataclasses.dataclass(frozen=True)
class Reading:
    sensor: str
    celsius: float


class ReadingConverter(AbstractPacketConverter[Reading, Any]):
    def convert_to_dto_packet(self, obj: Reading) -> Any:
        return dataclasses.asdict(obj)

    def create_from_dto_packet(self, packet: Any) -> Reading:
        match packet:
            case {
                "sensor": str(sensor),
                "celsius": int(celsius) | float(celsius),
            } if -273.15 <= celsius <= 1000:
                return Reading(sensor, float(celsius))
            case _:
                raise PacketConversionError("Not a reading", error_info=packet)


class TrustingReadingConverter(ReadingConverter):
    def create_from_dto_packet(self, packet: Any) -> Reading:
        return Reading(**packet)


protocol = StreamProtocol(JSONSerializer(), ReadingConverter())
