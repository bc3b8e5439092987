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

# Bytes: enough for what the strategies make up.
LIMIT = 1_000
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
DEEP = LIMIT * b"["
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
    newlines: list[tuple[Literal["LF", "CR", "CRLF"], str]]
    newlines = [("LF", "\n"), ("CR", "\r"), ("CRLF", "\r\n")]
    for newline, end in newlines:
        text = ascii_lines(end).filter(bool)
        bad = [f"é{end}".encode()]
        for keep_end in False, True:
            serializer = StringLineSerializer(newline, keep_end=keep_end, limit=LIMIT)
            suffix = end if keep_end else ""
            name = f"line-{newline}{'-ends' if keep_end else ''}"
            packets = [line + suffix for line in ("a", "two words", " ")]
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
    yield Entry(
        "namedtuple",
        NamedTupleStructSerializer(Point, formats),
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

    packets = [*packets, {1: 2, 2.5: None}, {1, 2, "a"}, 2**80, -(2**80)]
    packets += [datetime(2024, 1, 2, tzinfo=UTC), uuid.UUID(int=1), Fraction(1, 3)]
    long_array, long_bytes = b"\x9a\xff\xff\xff\xff" + b"\1" * LIMIT, b"\x5a\xff" + b"\xff" * LIMIT
    deep = b"\x81" * LIMIT
    bad = [b"\x61\xff", b"\xc0\x01", b"\xd8\x1d\x00", b"\xa1\x01\x61\xff"]
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
    ]
    for number, option in enumerate(options):
        encoder = Base64EncoderSerializer(inner, **option, limit=LIMIT)
        bad = [data + encoder.separator for data in (b"*", b"A", b"eyB9+/-_", b"e30=e30=")]
        packets = JSON_PACKETS[:3]
        yield Entry(f"base64-{number}", encoder, packets, values, bad, [b"A" * (LIMIT + 2)])
    serializer: Serializer
    bomb = b'"' + b"x" * LIMIT + b'"'
    for level in None, 0:
        serializer = ZlibCompressorSerializer(inner, compress_level=level, limit=LIMIT)
        bad, bombs = [zlib.compress(b"[}")], [zlib.compress(bomb)]
        yield Entry(f"zlib-{level}", serializer, JSON_PACKETS[:2], values, bad, bombs)
    for level in None, 1:
        serializer = BZ2CompressorSerializer(inner, compress_level=level, limit=LIMIT)
        bad, bombs = [bz2.compress(b"[}")], [bz2.compress(bomb)]
        yield Entry(f"bz2-{level}", serializer, JSON_PACKETS[:2], values, bad, bombs)


def lengths() -> Iterator[Entry]:
    """Lengths in front of packets."""
    inner = JSONSerializer()
    for length in get_args(LengthFormat):
        serializer = LengthPrefixedSerializer(inner, length, limit=LIMIT)
        bad = [serializer.serialize_frame("bad").replace(b'"', b"'")]
        yield Entry(f"length-{length}", serializer, JSON_PACKETS, small_json_values(), bad, [])
    packets = [b"a", b"hello, world", b"\0"]
    yield Entry(
        "netstring", NetstringSerializer(limit=LIMIT), packets, st.binary(max_size=50), [], []
    )


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
