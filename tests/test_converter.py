from __future__ import annotations

import weakref

import pytest

from easynetwork.converter import (
    AbstractPacketConverter,
    AbstractPacketConverterComposite,
    StapledPacketConverter,
)


class Tens(AbstractPacketConverter[int, int]):
    __slots__ = ()

    def create_from_dto_packet(self, packet: int, /) -> int:
        return packet * 10

    def convert_to_dto_packet(self, obj: int, /) -> int:
        return obj // 10


class Digits(AbstractPacketConverter[int, str]):
    __slots__ = ()

    def create_from_dto_packet(self, packet: str, /) -> int:
        return int(packet)

    def convert_to_dto_packet(self, obj: int, /) -> str:
        return str(obj)


@pytest.mark.parametrize(
    "converter_class", [AbstractPacketConverterComposite, AbstractPacketConverter]
)
def test_abstract(converter_class: type) -> None:
    """A converter has to define both directions."""
    with pytest.raises(TypeError, match="abstract"):
        converter_class()


def test_stapled() -> None:
    """The first converter is for what is sent, the second for what is received."""
    converter: StapledPacketConverter[int, int, str, int]
    converter = StapledPacketConverter(
        sent_packet_converter=Digits(), received_packet_converter=Tens()
    )

    assert converter.convert_to_dto_packet(42) == "42"
    assert converter.create_from_dto_packet(42) == 420


def test_stapled_is_immutable() -> None:
    """A converter is shared by all connections: nobody changes it under way."""
    converter: StapledPacketConverter[int, int, str, int]
    converter = StapledPacketConverter(Digits(), Tens())

    with pytest.raises(AttributeError):
        converter.sent_packet_converter = Digits()  # type: ignore[misc]  # That is the point.


def test_slots() -> None:
    """Converters are small, and can be referred to weakly."""
    converter: StapledPacketConverter[int, int, str, int]
    converter = StapledPacketConverter(Digits(), Tens())

    assert not hasattr(Digits(), "__dict__")
    assert not hasattr(converter, "__dict__")
    assert weakref.ref(converter)() is converter
