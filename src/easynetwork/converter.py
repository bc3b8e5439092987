"""Plain object <-> your object.

A serializer turns bytes into plain objects (dictionaries, strings, ...): *data transfer objects*,
DTO for short. A converter turns those into the objects that a program works with, and back. It does
no I/O, keeps no state between two packets, and may be used by all connections at once.
"""

from __future__ import annotations

import dataclasses
from abc import ABCMeta, abstractmethod
from typing import Any, Generic, TypeVar

from easynetwork._typevars import Received, Sent

__all__ = ["AbstractPacketConverter", "AbstractPacketConverterComposite", "StapledPacketConverter"]

SentDTO = TypeVar("SentDTO", covariant=True)
ReceivedDTO = TypeVar("ReceivedDTO", contravariant=True)
Packet = TypeVar("Packet")
DTO = TypeVar("DTO")


class AbstractPacketConverterComposite(
    Generic[Sent, Received, SentDTO, ReceivedDTO], metaclass=ABCMeta
):
    """Converts packets whose types differ between the two directions."""

    __slots__ = ("__weakref__",)

    @abstractmethod
    def create_from_dto_packet(self, packet: ReceivedDTO, /) -> Received:
        """Make the program's object of what the serializer read.

        Args:
            packet: What a peer sent, as plain data. Its shape is the peer's choice: check it.

        Raises:
            PacketConversionError: `packet` is not something the program understands. Any other
                exception is a bug of the converter and reported as such.
        """
        raise NotImplementedError

    @abstractmethod
    def convert_to_dto_packet(self, obj: Sent, /) -> SentDTO:
        """Make plain data, which the serializer can write, of the program's object.

        Exceptions propagate to the sender of the packet.
        """
        raise NotImplementedError


class AbstractPacketConverter(AbstractPacketConverterComposite[Packet, Packet, DTO, DTO]):
    """Converts packets of one type to and from plain data of one type."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True, slots=True)
class StapledPacketConverter(
    AbstractPacketConverterComposite[Sent, Received, SentDTO, ReceivedDTO]
):
    """Two converters, one per direction, used as one.

    Args:
        sent_packet_converter: Converts packets that are sent.
        received_packet_converter: Converts packets that are received.
    """

    sent_packet_converter: AbstractPacketConverterComposite[Sent, Any, SentDTO, Any]
    received_packet_converter: AbstractPacketConverterComposite[Any, Received, Any, ReceivedDTO]

    def create_from_dto_packet(self, packet: ReceivedDTO) -> Received:
        """Delegate to `received_packet_converter`."""
        return self.received_packet_converter.create_from_dto_packet(packet)

    def convert_to_dto_packet(self, obj: Sent) -> SentDTO:
        """Delegate to `sent_packet_converter`."""
        return self.sent_packet_converter.convert_to_dto_packet(obj)
