"""Every serializer that is ready to use, with its option sets: what to send, and what to expect.

A new one, or a new option, has its line here: it is then checked by the conformance kit
(``test_catalogue.py``) and by Hypothesis (``test_fuzz.py``).
"""

from __future__ import annotations

import bz2
import json
import uuid
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from hypothesis import strategies as st

from easynetwork.serializers import (
    Base64EncoderSerializer,
    BZ2CompressorSerializer,
    CBORSerializer,
    JSONSerializer,
    LengthPrefixedSerializer,
    MessagePackSerializer,
    NamedTupleStructSerializer,
    NetstringSerializer,
    PickleSerializer,
    StapledPacketSerializer,
    StringLineSerializer,
    StructSerializer,
    ZlibCompressorSerializer,
)
from easynetwork.serializers.abc import AbstractPacketSerializer, LengthFormat
from easynetwork.serializers.cbor import CBOREncoderConfig
from easynetwork.serializers.json import JSONEncoderConfig
from easynetwork.serializers.msgpack import MessagePackerConfig, MessageUnpackerConfig
from easynetwork.serializers.pickle import PicklerConfig
from tests.tools import ascii_lines, json_values

# Bytes: enough for what the strategies make up. What is too large is cut at each of its bytes, so
# that the time of a test grows with the square of this.
LIMIT = 500
KEY = b"mYlL0nGGVWMLRMyIuLa3WOyKXJsRvsjHbJAfgEHPIpE="


Serializer: TypeAlias = AbstractPacketSerializer[Any, Any]


class Entry(NamedTuple):
    """A serializer with its options."""

    name: str
    serializer: Serializer
    packets: list[Any]
    packet: st.SearchStrategy[Any]
    malformed: list[bytes]
    """What is not a packet, and ends where it does."""
    oversized: list[bytes]
    """What the serializer with its options refuses because of its size."""


class Point(NamedTuple):
    label: str
    x: int
    y: float


def points() -> st.SearchStrategy[Point]:
    """Points whose labels fit into 8 bytes, and do not end with what is removed."""
    labels = st.text(st.characters(codec="utf-8"), max_size=8).filter(
        lambda label: len(label.encode()) <= 8 and not label.endswith("\0")
    )
    return st.builds(
        Point, labels, st.integers(-(2**15), 2**15 - 1), st.floats(allow_nan=False, width=32)
    )


def small_json_values() -> st.SearchStrategy[Any]:
    """JSON that is not too large for anybody, not even for a length of 8 bits."""
    return json_values().filter(lambda value: len(json.dumps(value)) < 200)


def cbor_values() -> st.SearchStrategy[Any]:
    """What CBOR has a type for, and gives back equal."""
    keys = (
        st.text(max_size=5)
        | st.binary(max_size=5)
        | st.integers(-(2**64), 2**64 - 1)
        | st.floats(allow_nan=False)
        | st.booleans()
        | st.none()
    )
    scalars = (
        keys
        | st.integers(-(2**300), 2**300)
        | st.datetimes(timezones=st.just(UTC))
        | st.uuids()
        | st.fractions()
        | st.sets(keys, max_size=4)
    )
    return st.recursive(
        scalars,
        lambda values: st.lists(values, max_size=4) | st.dictionaries(keys, values, max_size=4),
        max_leaves=8,
    ).filter(lambda value: len(repr(value)) < LIMIT // 2)


def msgpack_values() -> st.SearchStrategy[Any]:
    """What MessagePack has a type for, and gives back equal."""
    keys = st.text(max_size=5) | st.binary(max_size=5)
    scalars = (
        keys
        | st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False)
    )
    return st.recursive(
        scalars,
        lambda values: st.lists(values, max_size=4) | st.dictionaries(keys, values, max_size=4),
        max_leaves=8,
    ).filter(lambda value: len(repr(value)) < LIMIT // 2)


def entries() -> Iterator[Entry]:
    """Yield all entries."""
    yield from texts()
    yield from structures()
    yield from binary_objects()
    yield from wrappers()
    yield from lengths()
    yield from staples()


JSON_PACKETS: list[Any] = [{"id": 1, "x": [1, 2.5, None, []]}, [], "é", -5, True]
DEEP = (LIMIT + 1) * b"["
LONG_LINE = LIMIT * b"x" + b"xx"


def texts() -> Iterator[Entry]:
    """JSON, and lines."""
    serializer: Serializer
    bad = [b"{]\n", b"\n", b"\xff\n", b"1" * 5_000 + b"\n", b"[" * 200 + b"]" * 200 + b"\n"]
    many = b"[" + b"1," * LIMIT
    yield Entry(
        "json", JSONSerializer(limit=LIMIT), JSON_PACKETS, small_json_values(), bad[:3], [many]
    )
    yield Entry("json-large", JSONSerializer(limit=10_000), [1], small_json_values(), bad[3:], [])
    config = JSONEncoderConfig(ensure_ascii=False)
    serializer = JSONSerializer(config, unicode_errors="surrogatepass", limit=LIMIT)
    yield Entry("json-utf8", serializer, JSON_PACKETS, small_json_values(), [b"{]\n"], [many])
    serializer = JSONSerializer(use_lines=False, limit=LIMIT)
    yield Entry(
        "json-bare", serializer, JSON_PACKETS, small_json_values(), [b"{]}", b'"\\x"'], [many, DEEP]
    )
    keys = st.text(max_size=3)
    shallow = st.lists(st.integers(), max_size=3) | st.dictionaries(keys, st.none(), max_size=8)
    serializer = JSONSerializer(max_depth=1, limit=LIMIT, debug=True)
    bad = [b"[[]]\n", b'{"a":[]}\n', b"\n", b"{]\n", b"\xff\n"]
    yield Entry("json-options", serializer, [[1], {"a": None}, "["], shallow, bad, [many])
    serializer = JSONSerializer(use_lines=False, max_depth=1, limit=LIMIT, debug=True)
    yield Entry("json-bare-options", serializer, [[1], {"a": 1}, "["], shallow, [b"{]}"], [many])
    serializer = StringLineSerializer(encoding="utf-8", limit=LIMIT, debug=True)
    lines = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=30)
    packets = ["é", "\u2028", "two words", ""]
    yield Entry("line-utf8", serializer, packets, lines, [b"\xff\n", b"\xc3\n"], [LONG_LINE])
    newlines: list[tuple[Literal["LF", "CR", "CRLF"], str]]
    newlines = [("LF", "\n"), ("CR", "\r"), ("CRLF", "\r\n")]
    for newline, end in newlines:
        text = ascii_lines(end).filter(bool)
        bad = [f"é{end}".encode()]
        for keep_end in False, True:
            serializer = StringLineSerializer(newline, keep_end=keep_end, limit=LIMIT)
            suffix = end if keep_end else ""
            name = f"line-{newline}{'-ends' if keep_end else ''}"
            packets = [line + suffix for line in ("a", "two words", " ", "")]
            packet = st.builds(str.__add__, text, st.just(suffix))
            yield Entry(name, serializer, packets, packet, bad, [LONG_LINE])


def structures() -> Iterator[Entry]:
    """Packets of a fixed layout."""
    numbers = st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1))
    for order in "", "<", "@":
        serializer = StructSerializer(f"{order}BI")
        yield Entry(f"struct{order}", serializer, [(1, 2), (255, 2**32 - 1)], numbers, [], [])
    formats = {"label": "8s", "x": "h", "y": "f"}
    named = [Point("", 0, 0.0), Point("é", -1, 0.5)]
    yield Entry("struct-debug", StructSerializer("BI", debug=True), [(1, 2)], numbers, [], [])
    yield Entry(
        "namedtuple",
        NamedTupleStructSerializer(Point, formats),
        named,
        points(),
        [b"\xff" + bytes(13)],
        [],
    )
    yield Entry(
        "namedtuple-debug",
        NamedTupleStructSerializer(Point, formats, debug=True),
        named,
        points(),
        [b"\xff" + bytes(13)],
        [],
    )
    byte_points = points().map(lambda point: (point.label.encode().ljust(8), *point[1:]))
    yield Entry(
        "namedtuple-bytes",
        NamedTupleStructSerializer(
            Point, formats, "<", encoding=None, strip_string_trailing_nul_bytes=False
        ),
        [Point(b"12345678", 0, 0.0)],  # type: ignore[arg-type]  # Bytes are what it is about.
        byte_points.map(Point._make),
        [],
        [],
    )


def binary_objects() -> Iterator[Entry]:
    """Formats for objects of any shape."""
    serializer: Serializer
    packets = [*JSON_PACKETS, b"bytes", {"a": {b"b": [1]}}]
    long_array, long_bytes = b"\xdd\xff\xff\xff\xff" + b"\1" * LIMIT, b"\xc6\xff" + b"\xff" * LIMIT
    deep = b"\x91" * LIMIT + b"\1"
    bad = [b"\xa1\xff", b"\x81\x01\x02", b"\x91" * 129 + b"\1"]
    values = msgpack_values()
    oversized = [long_array, long_bytes, deep]
    serializer = MessagePackSerializer(limit=LIMIT)
    yield Entry("msgpack", serializer, packets, values, bad, oversized)
    serializer = MessagePackSerializer(
        MessagePackerConfig(use_single_float=True, datetime=True),
        MessageUnpackerConfig(timestamp=3, strict_map_key=False),
        limit=LIMIT,
    )
    moments = [datetime(2024, 1, 2, tzinfo=UTC), {1: 2}]
    yield Entry("msgpack-options", serializer, moments, st.integers(0, 9), bad[:1], oversized)
    keys = st.text(max_size=3)
    flat = st.lists(st.integers(0, 9), max_size=3) | st.dictionaries(keys, st.none(), max_size=8)
    serializer = MessagePackSerializer(max_depth=1, limit=LIMIT, debug=True)
    deep_ones = [b"\x91\x91\1", b"\x81\xa0\x91\1", b"\xdc\0\1\x91\1"]
    yield Entry("msgpack-depth", serializer, [[1], {"a": 1}], flat, deep_ones, oversized)

    packets = [*packets, {1: 2, 2.5: None}, {1, 2, "a"}, 2**80, -(2**80)]
    packets += [datetime(2024, 1, 2, tzinfo=UTC), uuid.UUID(int=1), Fraction(1, 3)]
    long_array, long_bytes = b"\x9a\xff\xff\xff\xff" + b"\1" * LIMIT, b"\x5a\xff" + b"\xff" * LIMIT
    deep = b"\x81" * (LIMIT + 1)
    bad = [b"\x61\xff", b"\x81" * 129 + b"\1", b"\xc0\x01", b"\xd8\x1d\x00", b"\xa1\x01\x61\xff"]
    bad += [b"\xa1\x80\x01", b"\x9f" * 129 + b"\xff" * 129]
    values = cbor_values()
    oversized = [long_array, long_bytes, deep, b"\x9f" + b"\1" * LIMIT]
    serializer = CBORSerializer(limit=LIMIT)
    yield Entry("cbor", serializer, packets, values, bad, oversized)
    serializer = CBORSerializer(
        CBOREncoderConfig(value_sharing=True, string_referencing=True, canonical=True),
        strict_map_key=False,
        limit=LIMIT,
    )
    packets = [["abc", "abc"], {(1, 2): 3}]
    yield Entry("cbor-options", serializer, packets, values, bad[:2], oversized)
    serializer = CBORSerializer(max_depth=1, limit=LIMIT, debug=True)
    deep_ones = [b"\x81\x81\1", b"\xa1\x60\xc0\x60", b"\x9f\x9f\xff\xff", b"\xa1\x80\1"]
    yield Entry("cbor-depth", serializer, [[1], {1: 2}], flat, deep_ones, oversized)
    for protocol in 2, 5:
        serializer = PickleSerializer(PicklerConfig(protocol=protocol), pickler_optimize=True)
        yield Entry(f"pickle-{protocol}", serializer, [1, [None]], small_json_values(), [], [])


def wrappers() -> Iterator[Entry]:
    """Other bytes for those of a serializer."""
    inner = JSONSerializer()
    values = small_json_values()
    options: list[dict[str, Any]] = [
        {},
        {"alphabet": "standard", "separator": b"||"},
        {"checksum": True},
        {"checksum": KEY, "alphabet": "standard"},
        {"debug": True},
    ]
    for number, option in enumerate(options):
        encoder = Base64EncoderSerializer(inner, **option, limit=LIMIT)
        bad = [data + encoder.separator for data in (b"*", b"A", b"eyB9+/-_", b"e30=e30=", b"e31=")]
        packets = JSON_PACKETS[:3]
        yield Entry(f"base64-{number}", encoder, packets, values, bad, [b"A" * (LIMIT + 2)])
    serializer: Serializer
    bomb = b'"' + b"x" * LIMIT + b'"'
    for level in None, 0:
        serializer = ZlibCompressorSerializer(inner, compress_level=level, limit=LIMIT)
        bad, bombs = [zlib.compress(b"[}")], [zlib.compress(bomb)]
        yield Entry(f"zlib-{level}", serializer, JSON_PACKETS[:2], values, bad, bombs)
    serializer = ZlibCompressorSerializer(inner, limit=LIMIT, debug=True)
    yield Entry("zlib-debug", serializer, JSON_PACKETS[:2], values, bad, bombs)
    for level in None, 1:
        serializer = BZ2CompressorSerializer(inner, compress_level=level, limit=LIMIT)
        bad, bombs = [bz2.compress(b"[}")], [bz2.compress(bomb)]
        yield Entry(f"bz2-{level}", serializer, JSON_PACKETS[:2], values, bad, bombs)
    serializer = BZ2CompressorSerializer(inner, limit=LIMIT, debug=True)
    yield Entry("bz2-debug", serializer, JSON_PACKETS[:2], values, bad, bombs)


def lengths() -> Iterator[Entry]:
    """Lengths in front of packets."""
    inner = JSONSerializer()
    options: list[dict[str, Any]] = [{"length": length} for length in get_args(LengthFormat)]
    options += [
        {"length": "u16", "byteorder": "little"},
        {"length": "u32", "byteorder": "little", "offset": 1, "adjustment": -5, "debug": True},
        {"length": "u8", "offset": 1},
        {"length": "u64", "adjustment": 1},
        {"length": "varint", "offset": 1, "adjustment": -1},
        {"length": "u24", "byteorder": "little", "adjustment": 1},
        {"length": "u24", "offset": 1},
        {"length": "varint", "offset": 1, "max_digits": 4},
        {"length": "decimal", "terminator": b"\r\n", "offset": 1, "adjustment": 1},
        {"length": "decimal", "terminator": b"\n", "max_digits": 5},
    ]
    for option in options:
        # As much as a byte can say, without what else may have to be counted.
        limit = 250 if option["length"] == "u8" else LIMIT
        serializer = LengthPrefixedSerializer(inner, **option, limit=limit)
        other = LengthPrefixedSerializer(inner, **option)
        bad = [serializer.serialize_frame("bad").replace(b'"', b"'")]
        bad += [bytes(option.get("offset", 0)) + data for data in no_length(**option)]
        name = "-".join(["length", *map(str, option.values())])
        values = small_json_values()
        if option.get("offset", 0) + option.get("adjustment", 0) > 1:  # bytes that a packet has
            values = values.filter(lambda value: len(json.dumps(value)) > 1)
        yield Entry(name, serializer, JSON_PACKETS, values, bad, [too_long(other, limit)])
    # A length that is less than what it counts: this ends behind it.
    serializer = LengthPrefixedSerializer(inner, "u16", adjustment=-2, limit=LIMIT)
    bad, large = [b"\0\0", b"\0\1", b"\0\3x"], [b"\xff\xff", b"\x04\0"]
    yield Entry("length-itself", serializer, JSON_PACKETS, small_json_values(), bad, large)
    packets = [b"a", b"hello, world", b"\0"]
    bad, large = [*no_length("netstring"), b"0:x"], [b"1001:", b"%d:" % 2**64]
    for debug in False, True:
        netstrings = NetstringSerializer(limit=LIMIT, debug=debug)
        name = f"netstring{'-debug' if debug else ''}"
        yield Entry(name, netstrings, packets, st.binary(max_size=50), bad, large)


def no_length(
    length: str,
    *,
    terminator: bytes = b" ",
    max_digits: int | None = None,
    adjustment: int = 0,
    **options: Any,
) -> list[bytes]:
    """Return malformed lengths with what is dropped with them."""
    match length:
        case "varint":
            return [b"\xff" * (max_digits or 10)]
        case "decimal":
            empty_list = b"02" + terminator + b"[]" + b" " * adjustment
            return [b"x", terminator[:1], b"2x", empty_list, b"1" * ((max_digits or 20) + 1)]
        case "netstring":
            return [b"x", b":", b"02:[],", b"2:[]x", b"1" * 21]
    return []


def too_long(serializer: LengthPrefixedSerializer[Any, Any], limit: int) -> bytes:
    """Return a packet of more bytes than the limit allows; of no more than a byte can say."""
    packet = "x" * (limit - 1)
    return serializer.serialize_frame(packet)


def staples() -> Iterator[Entry]:
    """Two serializers as one."""
    lines, objects = StringLineSerializer(limit=LIMIT), JSONSerializer(limit=LIMIT)
    text = ascii_lines().filter(bool)
    serializer: Serializer = StapledPacketSerializer(StringLineSerializer(), lines)
    yield Entry("staple-buffered", serializer, ["a", "b"], text, [b"\xff\n"], [LONG_LINE])
    serializer = StapledPacketSerializer(JSONSerializer(), objects)
    yield Entry("staple", serializer, JSON_PACKETS, small_json_values(), [b"{]\n"], [LONG_LINE])
    serializer = StapledPacketSerializer(PickleSerializer(), PickleSerializer())
    yield Entry("staple-oneshot", serializer, ["a"], small_json_values(), [], [])


ENTRIES = list(entries())
