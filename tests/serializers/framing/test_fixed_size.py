from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from easynetwork.serializers.abc import FixedSizeFraming
from easynetwork.serializers.framing import FixedSizePacketSerializer
from tests.serializers.framing.ways import (
    BAD_WORD,
    TOO_DEEP,
    Way,
    check_error_info,
    check_keyword_arguments,
    checked,
    every_way,
)
from tests.tools import check_every_cut, cuts, feed


class Sized(FixedSizePacketSerializer[bytes, bytes]):
    __slots__ = ()

    def serialize(self, packet: bytes, /) -> bytes:
        return packet

    def deserialize(self, data: bytes, /) -> bytes:
        return checked(data)


def test_properties() -> None:
    """A serializer shows its options."""
    serializer = Sized(True, debug=True)

    assert serializer.packet_size == 1
    assert type(serializer.packet_size) is int
    assert serializer.debug is True
    assert serializer.framing() == FixedSizeFraming(1)
    assert Sized(4).debug is False
    assert not hasattr(serializer, "__dict__")


@pytest.mark.parametrize("size", [0, -1])
def test_wrong_size(size: int) -> None:
    """A packet has at least one byte."""
    with pytest.raises(ValueError, match=r"^size must be a positive integer$"):
        Sized(size)


def test_serialize() -> None:
    """A packet of the right size is sent as it is."""
    assert list(Sized(3).incremental_serialize(b"abc")) == [b"abc"]
    assert Sized(3).serialize_frame(b"abc") == b"abc"


@pytest.mark.parametrize("packet", [b"", b"ab", b"abcd"])
def test_serialize_wrong_size(packet: bytes) -> None:
    """A packet of another size is not sent."""
    message = r"^serialized data size does not meet expectation$"
    with pytest.raises(ValueError, match=message):
        list(Sized(3).incremental_serialize(packet))
    with pytest.raises(ValueError, match=message):
        Sized(3).serialize_frame(packet)


@every_way
def test_every_cut(way: Way) -> None:
    """The same packets and errors come out however the stream is cut, and an error hurts nobody."""
    check_every_cut(
        way(Sized(4)), b"abcdbad!deeplast", [b"abcd", BAD_WORD, TOO_DEEP, b"last"], trailing=b"abc"
    )


@every_way
@given(st.data())
def test_by_hypothesis(way: Way, data: st.DataObject) -> None:
    """Packets of any bytes survive any cut."""
    size = data.draw(st.integers(1, 5))
    packets = data.draw(st.lists(st.binary(min_size=size, max_size=size)))
    chunks = data.draw(cuts(b"".join(packets)))

    assert feed(way(Sized(size)), chunks) == (packets, b"")


@pytest.mark.parametrize(("sizehint", "size"), [(1, 4), (100, 100)])
def test_buffer(sizehint: int, size: int) -> None:
    """The buffer is as large as suits the transport, and never too small for a packet."""
    buffer = Sized(4).create_deserializer_buffer(sizehint)

    assert len(buffer) == size
    assert not buffer.readonly


def test_keyword_arguments_go_on() -> None:
    """Arguments of other classes are handed on, and refused if nobody knows them."""
    check_keyword_arguments(Sized, 4)


def test_error_info_is_copied() -> None:
    """The information that `deserialize()` gives is not lost."""
    check_error_info(Sized(3))
