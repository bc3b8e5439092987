from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, strategies as st

from easynetwork.exceptions import DeserializeError, IncrementalDeserializeError
from easynetwork.serializers import NamedTupleStructSerializer, StructSerializer
from easynetwork.serializers.abc import FixedSizeFraming
from easynetwork.serializers.struct import AbstractStructSerializer
from tests.tools import parse_one


class Point(NamedTuple):
    name: str
    x: int


FORMATS = {"name": "8s", "x": "h"}


class Even(AbstractStructSerializer[int, int]):
    """Packets are even numbers; one of them is a bug."""

    __slots__ = ()

    def iter_values(self, packet: int, /) -> Iterable[int]:
        yield packet

    def from_tuple(self, packet_tuple: tuple[Any, ...], /) -> int:
        (number,) = packet_tuple
        if number % 2:
            raise DeserializeError("odd", {"number": number})
        assert number != 666
        return int(number)


# -- Any structure -----------------------------------------------------------------------------


@pytest.mark.parametrize("byte_order", ["@", "=", "<", ">", "!"])
def test_byte_order(byte_order: str) -> None:
    """A format keeps its byte order."""
    serializer = StructSerializer(f"{byte_order}BI")

    assert serializer.struct.format == f"{byte_order}BI"
    assert serializer.packet_size == struct.calcsize(f"{byte_order}BI")
    assert serializer.serialize((1, 2)) == struct.pack(f"{byte_order}BI", 1, 2)


def test_default_byte_order() -> None:
    """A format without one is in network order, not padded."""
    serializer = StructSerializer("BI")

    assert serializer.struct.format == "!BI"
    assert serializer.serialize((1, 2)) == b"\x01\x00\x00\x00\x02"


def test_properties() -> None:
    """A serializer shows its options."""
    serializer = StructSerializer("BI", debug=True)

    assert serializer.framing() == FixedSizeFraming(5)
    assert serializer.debug is True
    assert StructSerializer("B").debug is False
    assert not hasattr(serializer, "__dict__")


@pytest.mark.parametrize(("format_", "error_type"), [("", ValueError), ("k", struct.error)])
def test_wrong_format(format_: str, error_type: type[Exception]) -> None:
    """A structure that does not exist, or has no bytes, is refused at construction."""
    with pytest.raises(error_type):
        StructSerializer(format_)


def test_abstract() -> None:
    """What a packet has to do with the values is for subclasses to say."""
    with pytest.raises(TypeError, match="abstract"):
        AbstractStructSerializer("B")  # type: ignore[abstract]  # It is what this is about.
    assert Even("H").serialize(4) == b"\x00\x04"
    assert Even("H").deserialize(b"\x00\x04") == 4


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x00"])
def test_wrong_size(data: bytes) -> None:
    """A datagram of another size is not a packet."""
    with pytest.raises(DeserializeError, match=r"^Invalid value: unpack requires") as caught:
        StructSerializer("H", debug=True).deserialize(data)
    assert caught.value.error_info == {"data": data}
    assert isinstance(caught.value.__cause__, struct.error)
    with pytest.raises(DeserializeError) as caught:
        StructSerializer("H").deserialize(data)
    assert caught.value.error_info is None


def test_refused_values() -> None:
    """`from_tuple()` may refuse what it is given; any other exception of it is a bug."""
    with pytest.raises(DeserializeError, match=r"^odd$"):
        Even("H").deserialize(b"\x00\x03")
    with pytest.raises(IncrementalDeserializeError, match=r"data: odd$") as caught:
        parse_one(Even("H").incremental_deserialize(), b"\x00\x03\x00\x04")
    assert caught.value.remaining_data == b"\x00\x04"
    assert caught.value.error_info == {"number": 3}
    with pytest.raises(AssertionError):
        Even("H").deserialize((666).to_bytes(2))


# -- Tuples ------------------------------------------------------------------------------------


def test_tuple() -> None:
    """Packets are the tuples of struct."""
    serializer = StructSerializer("BI")

    assert serializer.iter_values((1, 2)) == (1, 2)
    assert serializer.from_tuple((1, 2)) == (1, 2)
    assert serializer.deserialize(struct.pack("!BI", 1, 2)) == (1, 2)


def test_not_a_tuple() -> None:
    """What is not a tuple, or not of those values, is the sender's error."""
    packet: Any = [1, 2]
    with pytest.raises(TypeError, match=r"^Expected a tuple instance, got \[1, 2\]$"):
        StructSerializer("BI").serialize(packet)
    for packet in (1,), (1, 2, 3), (-1, 2), ("1", 2):
        with pytest.raises(struct.error):
            StructSerializer("BI").serialize(packet)


# -- Named tuples ------------------------------------------------------------------------------


@pytest.mark.parametrize("byte_order", ["", "@", "=", "<", ">", "!"])
def test_named_tuple(byte_order: str) -> None:
    """Each field is a value, in the order of the class, not of the formats."""
    serializer = NamedTupleStructSerializer(Point, {"x": "h", "name": "8s"}, byte_order)
    data = struct.pack(f"{byte_order or '!'}8sh", "é".encode(), -2)

    assert serializer.serialize(Point("é", -2)) == data
    received = serializer.deserialize(data)
    assert received == Point("é", -2)
    assert type(received) is Point


def test_collections_namedtuple() -> None:
    """Both ways to make a named tuple will do."""
    Pair = namedtuple("Pair", ["one", "two"])
    serializer = NamedTupleStructSerializer(Pair, {"one": "b", "two": "s"})

    assert serializer.deserialize(b"\x01a") == Pair(1, "a")


def test_bytes() -> None:
    """Without an encoding, strings are bytes."""
    serializer: Any = NamedTupleStructSerializer(Point, FORMATS, encoding=None)

    assert serializer.deserialize(serializer.serialize(Point._make([b"\xff", 1]))) == (b"\xff", 1)


def test_trailing_nul_bytes() -> None:
    """The padding is removed if that is wanted, and nothing else."""
    data = b"\0a\0b\0\0\0\0\0\x01"

    assert NamedTupleStructSerializer(Point, FORMATS).deserialize(data).name == "\0a\0b"
    serializer = NamedTupleStructSerializer(Point, FORMATS, strip_string_trailing_nul_bytes=False)
    assert serializer.deserialize(data).name == "\0a\0b\0\0\0\0"
    raw: Any = NamedTupleStructSerializer(Point, FORMATS, encoding=None)
    assert raw.deserialize(data).name == b"\0a\0b"


def test_encoding() -> None:
    """Texts are encoded as agreed."""
    serializer = NamedTupleStructSerializer(Point, FORMATS, encoding="latin-1")
    assert serializer.serialize(Point("é", 0)).startswith(b"\xe9\0")
    serializer = NamedTupleStructSerializer(
        Point, FORMATS, encoding="ascii", unicode_errors="replace"
    )
    assert serializer.deserialize(b"\xe9".ljust(10, b"\0")).name == "\ufffd"


def test_not_text() -> None:
    """Bytes that are not text in that encoding are not a packet."""
    data = b"\xff".ljust(10, b"\0")
    with pytest.raises(
        DeserializeError,
        match=r"^UnicodeError when building packet from unpacked struct value: .*0xff",
    ) as caught:
        NamedTupleStructSerializer(Point, FORMATS, debug=True).deserialize(data)
    assert caught.value.error_info == {"unpacked_struct": (b"\xff".ljust(8, b"\0"), 0)}
    assert isinstance(caught.value.__cause__, UnicodeError)
    with pytest.raises(DeserializeError) as caught:
        NamedTupleStructSerializer(Point, FORMATS).deserialize(data)
    assert caught.value.error_info is None


def test_text_too_long() -> None:
    """A text that does not fit is not sent: struct would cut it off, in a character maybe."""
    serializer = NamedTupleStructSerializer(Point, FORMATS)

    assert serializer.serialize(Point("12345678", 0))
    with pytest.raises(ValueError, match=r"^'name': 9 bytes do not fit into a field of 8$"):
        serializer.serialize(Point("1234567é", 0))


def test_wrong_packet() -> None:
    """Another class, even if it looks the same, is the sender's error."""
    packet: Any = ("a", 1)
    with pytest.raises(TypeError, match=r"^Expected a Point instance, got \('a', 1\)$"):
        NamedTupleStructSerializer(Point, FORMATS).serialize(packet)


@pytest.mark.parametrize(
    ("options", "error_type", "message"),
    [
        ({"format_endianness": "x"}, ValueError, "^Invalid endianness character$"),
        ({"format_endianness": "<>"}, ValueError, "^Invalid endianness character$"),
        ({"field_formats": {"name": "8s"}}, ValueError, "^Expected the formats of"),
        ({"field_formats": {**FORMATS, "y": "h"}}, ValueError, "^Expected the formats of"),
        *(
            ({"field_formats": {"name": format_, "x": "h"}}, ValueError, "^'name': Invalid field")
            for format_ in ("", "hh", "<h", "2h", "x", "s8", "8s ", "!", "é")
        ),
        ({"field_formats": {"name": "k", "x": "h"}}, struct.error, "bad char"),
        ({"encoding": "martian"}, LookupError, "martian"),
        ({"unicode_errors": "forgive"}, LookupError, "forgive"),
    ],
)
def test_wrong_options(options: Any, error_type: type[Exception], message: str) -> None:
    """Wrong options are refused at construction."""
    with pytest.raises(error_type, match=message):
        NamedTupleStructSerializer(**{"namedtuple_cls": Point, "field_formats": FORMATS, **options})


@given(st.text(max_size=2), st.integers(-(2**15), 2**15 - 1))
def test_agrees_with_struct(name: str, x: int) -> None:
    """The bytes are those of struct."""
    data = NamedTupleStructSerializer(Point, FORMATS, unicode_errors="surrogatepass").serialize(
        Point(name, x)
    )

    assert struct.unpack("!8sh", data) == (name.encode(errors="surrogatepass").ljust(8, b"\0"), x)
