from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from easynetwork.exceptions import LimitOverrunError
from easynetwork.serializers.abc import SeparatorFraming
from easynetwork.serializers.framing import AutoSeparatedPacketSerializer
from easynetwork.serializers.framing.separated import strip_separators
from tests.serializers.framing.ways import (
    BAD_WORD,
    TOO_DEEP,
    Way,
    check_error_info,
    check_keyword_arguments,
    checked,
    every_way,
)
from tests.tools import (
    assert_linear,
    byte_by_byte,
    check_every_cut,
    cuts,
    feed,
    parse_one,
    through_buffer,
)


class Separated(AutoSeparatedPacketSerializer[bytes, bytes]):
    __slots__ = ()

    def serialize(self, packet: bytes, /) -> bytes:
        return packet

    def deserialize(self, data: bytes, /) -> bytes:
        return checked(data)


def test_properties() -> None:
    """A serializer shows its options."""
    serializer = Separated(bytearray(b"\r\n"), limit=100, debug=True)

    assert serializer.separator == b"\r\n"
    assert type(serializer.separator) is bytes
    assert serializer.buffer_limit == 100
    assert serializer.debug is True
    assert serializer.framing() == SeparatorFraming(b"\r\n", 100, keep_end=False)
    assert Separated(b"|").buffer_limit == 65536
    assert Separated(b"|").debug is False
    assert not hasattr(serializer, "__dict__")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": b""}, "Empty separator"),
        ({"separator": b"|", "limit": 0}, "limit must be a positive integer"),
        ({"separator": b"|", "limit": -1}, "limit must be a positive integer"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    """Wrong options are refused at construction."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        Separated(**options)


@pytest.mark.parametrize(
    ("packet", "chunks"),
    [
        (b"abc", [b"abc\r\n"]),
        (b"abc\r\n", [b"abc\r\n"]),
        (b"abc\r\n\r\n\r\n", [b"abc\r\n"]),
        (b"abc\n\r\n", [b"abc\n\r\n"]),
        (b"", [b"\r\n"]),
        (b"\r\n\r\n", [b"\r\n"]),
    ],
)
def test_serialize(packet: bytes, chunks: list[bytes]) -> None:
    """A packet is sent with exactly one separator, an empty one too."""
    serializer = Separated(b"\r\n")

    assert list(serializer.incremental_serialize(packet)) == chunks
    assert serializer.serialize_frame(packet) == b"".join(chunks)


def test_serialize_separator_inside() -> None:
    """A packet that would arrive as two is not sent."""
    serializer = Separated(b"|")
    message = "b'|' separator found in serialized packet b'a|b' which was not at the end"
    with pytest.raises(ValueError, match="separator found") as caught:
        list(serializer.incremental_serialize(b"a|b"))
    assert str(caught.value) == message
    with pytest.raises(ValueError, match="separator found"):
        serializer.serialize_frame(b"a|b")


@pytest.mark.parametrize(
    ("packet", "data"),
    [(b"a", b"a|"), (b"a|b", b"a|b|"), (b"a||", b"a||"), (b"|", b"|"), (b"", b"|")],
)
def test_serialize_unchecked(packet: bytes, data: bytes) -> None:
    """Without the check, data that ends with a separator is sent as it is."""
    serializer = Separated(b"|", incremental_serialize_check_separator=False)

    assert serializer.serialize_frame(packet) == data
    assert b"".join(serializer.incremental_serialize(packet)) == data


@every_way
@pytest.mark.parametrize("separator", [b"|", b"\r\n", b"|-|"])
def test_every_cut(way: Way, separator: bytes) -> None:
    """The same packets and errors come out however the stream is cut, and an error hurts nobody."""
    stream = separator.join([b"a", b"", b"is bad", b"is deep", b"last", b""])

    check_every_cut(
        way(Separated(separator)), stream, [b"a", b"", BAD_WORD, TOO_DEEP, b"last"], trailing=b"a"
    )


@every_way
@given(st.data())
def test_by_hypothesis(way: Way, data: st.DataObject) -> None:
    """Packets of any bytes but the separator survive any cut."""
    separator = data.draw(st.sampled_from([b"\x00", b"\x00\x01"]))
    packets = data.draw(st.lists(st.binary(max_size=8).map(lambda p: p.replace(b"\x00", b""))))
    stream = b"".join(packet + separator for packet in packets)
    chunks = data.draw(cuts(stream))

    assert feed(way(Separated(separator)), chunks) == (packets, b"")


@given(st.data())
def test_limit(data: st.DataObject) -> None:
    """Whether a packet is too long does not depend on how the stream is cut."""
    separator = data.draw(st.sampled_from([b"|", b"\r\n", b"|-|"]))
    limit = data.draw(st.integers(1, 20))
    size = data.draw(st.integers(0, 25))
    chunks = data.draw(cuts(b"x" * size + separator))
    serializer = Separated(separator, limit=limit)

    for new_parser, most in (
        (serializer.incremental_deserialize, limit),
        (through_buffer(serializer), max(0, limit - 1 - len(separator))),
    ):
        outcomes, _ = feed(new_parser, chunks)
        if size <= most:
            assert outcomes == [b"x" * size]
        else:
            assert outcomes[0][0] is LimitOverrunError


@pytest.mark.parametrize(
    ("data", "message", "consumed", "remaining_data"),
    [
        (b"12345678\r", "Separator is not found, and chunk exceed the limit", 8, b"\r"),
        (b"12345678\r\n", "Separator is found, but chunk is longer than limit", 8, b""),
    ],
)
def test_buffer_limit_error(
    data: bytes, message: str, consumed: int, remaining_data: bytes
) -> None:
    """In a buffer of 10 bytes, 7 are the most that fit with a separator and one byte more."""
    serializer = Separated(b"\r\n", limit=10)
    assert len(serializer.create_deserializer_buffer(1)) == 10
    assert parse_one(through_buffer(serializer)(), b"1234567\r\n") == (b"1234567", b"")
    with pytest.raises(LimitOverrunError, match=message) as caught:
        parse_one(through_buffer(serializer)(), data)

    assert caught.value.consumed == consumed
    assert caught.value.remaining_data == remaining_data


def test_limit_error() -> None:
    """After an oversized packet whose end is there, the next one is found."""
    serializer = Separated(b"|", limit=4)
    too_long = (LimitOverrunError, "Separator is found, but chunk is longer than limit")

    assert feed(serializer.incremental_deserialize, [b"12345|1234|"])[0] == [too_long, b"1234"]


@pytest.mark.cost
def test_cost_in_buffer() -> None:
    """A byte costs the same however much is there already."""

    def work(size: int) -> None:
        serializer = Separated(b"\r\n", limit=size + 10)
        feed(through_buffer(serializer), chunks[size])

    chunks = {size: byte_by_byte(b"\r" * size) for size in (20_000, 80_000)}
    assert_linear(work, 20_000)


@given(
    data=st.text("ab", max_size=5).map(str.encode),
    separator=st.text("ab", min_size=1, max_size=3).map(str.encode),
    count=st.integers(0, 40),
)
def test_strip_separators(data: bytes, separator: bytes, count: int) -> None:
    """All separators at the end are removed, and nothing else."""
    data += separator * count
    expected = data
    while expected.endswith(separator):
        expected = expected.removesuffix(separator)

    assert strip_separators(data, separator) == expected


def test_keyword_arguments_go_on() -> None:
    """Arguments of other classes are handed on, and refused if nobody knows them."""
    check_keyword_arguments(Separated, b"|")


def test_error_info_is_copied() -> None:
    """The information that `deserialize()` gives is not lost."""
    check_error_info(Separated(b"d"))
