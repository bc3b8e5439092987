from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from easynetwork.codec import new_decoder_factory, packet_encoder
from easynetwork.decoder import FramedDecoder
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import (
    JSONSerializer,
    PickleSerializer,
    StapledPacketSerializer,
    StringLineSerializer,
)
from easynetwork.serializers.abc import SeparatorFraming
from easynetwork.serializers.composite import (
    StapledBufferedIncrementalPacketSerializer,
    StapledIncrementalPacketSerializer,
)

PICKLE, JSON, LINE = PickleSerializer(), JSONSerializer(), StringLineSerializer()
CLASSES = {
    (PICKLE, PICKLE): StapledPacketSerializer,
    (PICKLE, JSON): StapledPacketSerializer,
    (JSON, PICKLE): StapledPacketSerializer,
    (PICKLE, LINE): StapledPacketSerializer,
    (JSON, JSON): StapledIncrementalPacketSerializer,
    (LINE, JSON): StapledIncrementalPacketSerializer,
    (JSON, LINE): StapledBufferedIncrementalPacketSerializer,
    (LINE, LINE): StapledBufferedIncrementalPacketSerializer,
}


class Shouted(StringLineSerializer):
    """A user's serializer, whose generators alone know what a packet is."""

    __slots__ = ()

    def incremental_serialize(self, packet: str, /) -> Generator[bytes, None, None]:
        yield from super().incremental_serialize(packet.upper())

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[str, bytes]]:
        packet, remaining_data = yield from super().incremental_deserialize()
        return packet.upper(), remaining_data

    def buffered_incremental_deserialize(self, buffer: Any, /) -> Generator[int, int, Any]:
        packet, remaining_data = yield from super().buffered_incremental_deserialize(buffer)
        return packet.upper(), remaining_data


@pytest.mark.parametrize(("pair", "expected"), CLASSES.items())
def test_class(pair: Any, expected: type) -> None:
    """Two serializers can do together what both of them can."""
    stapled = StapledPacketSerializer(*pair)

    assert type(stapled) is expected
    assert (stapled.sent_packet_serializer, stapled.received_packet_serializer) == pair
    assert repr(stapled) == (
        f"{expected.__name__}(sent_packet_serializer={pair[0]!r}, "
        f"received_packet_serializer={pair[1]!r})"
    )
    assert not hasattr(stapled, "__dict__")


@pytest.mark.parametrize(("pair", "possible"), CLASSES.items())
@pytest.mark.parametrize(
    "wanted", [StapledIncrementalPacketSerializer, StapledBufferedIncrementalPacketSerializer]
)
def test_explicit_class(pair: Any, possible: type, wanted: Any) -> None:
    """A class can be asked for by name; if the serializers are not up to it, that is an error."""
    if issubclass(possible, wanted):
        assert type(wanted(*pair)) is possible
    else:
        with pytest.raises(TypeError, match=f"not a {wanted.__name__}$"):
            wanted(*pair)


def test_read_only() -> None:
    """The halves cannot be exchanged."""
    stapled: Any = StapledPacketSerializer(JSON, LINE)
    for name in "sent_packet_serializer", "received_packet_serializer":
        with pytest.raises(AttributeError):
            setattr(stapled, name, JSON)


def test_equality() -> None:
    """A pair is equal to itself only."""
    stapled = StapledPacketSerializer(JSON, LINE)

    assert stapled == stapled
    assert stapled != StapledPacketSerializer(JSON, LINE)
    assert hash(stapled) != hash(StapledPacketSerializer(JSON, LINE))


@pytest.mark.parametrize("pair", [(JSON, None), (None, JSON), (JSON, JSONSerializer)])
def test_wrong_type(pair: Any) -> None:
    """What is not a serializer is refused."""
    with pytest.raises(TypeError, match="^Expected a serializer instance, got "):
        StapledPacketSerializer(*pair)


def test_directions() -> None:
    """What is sent is made by one, what is received is read by the other."""
    stapled: Any = StapledPacketSerializer(JSON, LINE)
    assert stapled.serialize([1]) == b"[1]"
    assert stapled.deserialize(b"[1]") == "[1]"
    assert list(stapled.incremental_serialize([1])) == [b"[1]\n"]
    assert stapled.serialize_frame([1]) == b"[1]\n"
    assert stapled.framing() == SeparatorFraming(b"\n", 65536)
    assert stapled.deserialize_frame(b"[1]") == "[1]"
    assert len(stapled.create_deserializer_buffer(10)) == 65536


@pytest.mark.parametrize("protocol_class", [StreamProtocol, BufferedStreamProtocol])
def test_shortcut(protocol_class: Any) -> None:
    """A pair is as fast as the one that reads."""
    protocol = protocol_class(StapledPacketSerializer(JSON, LINE))

    assert isinstance(new_decoder_factory(protocol, 1024)(), FramedDecoder)


@pytest.mark.parametrize("protocol_class", [StreamProtocol, BufferedStreamProtocol])
def test_overridden_generators(protocol_class: Any) -> None:
    """A half whose generators were overridden is used through them, in both directions."""
    stapled: Any = StapledPacketSerializer(Shouted(), Shouted())
    decoder = new_decoder_factory(protocol_class(stapled), 1024)()

    decoder.feed(b"hello\n")
    assert decoder.take() == "HELLO"
    assert packet_encoder(protocol_class(stapled))("hello") == b"HELLO\n"
