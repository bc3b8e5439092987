"""What hostile peers send costs in proportion to its size, however the stream is cut.

Each case is the worst that is known of its kind: what takes the most time for its bytes, or took
more than that before something was done about it. Limits are set so high that they do not help.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import (
    Base64EncoderSerializer,
    CBORSerializer,
    JSONSerializer,
    MessagePackSerializer,
    StringLineSerializer,
    StructSerializer,
    ZlibCompressorSerializer,
)
from tests.decoding import outcomes
from tests.tools import assert_linear, byte_by_byte

LIMIT = 2**24

JSON = JSONSerializer(limit=LIMIT)
BARE = JSONSerializer(limit=LIMIT, use_lines=False)
CBOR = CBORSerializer(limit=LIMIT)
LOOSE_CBOR = CBORSerializer(limit=LIMIT, max_depth=LIMIT)
MSGPACK = MessagePackSerializer(limit=LIMIT)
ZLIB = ZlibCompressorSerializer(StringLineSerializer(), limit=LIMIT)


class Case(NamedTuple):
    name: str
    serializer: Any
    make: Callable[[int], bytes]
    """Makes so many bytes, about."""


def cbor(major_type: int, length: int, contents: bytes) -> bytes:
    return bytes([major_type << 5 | 26]) + length.to_bytes(4) + contents


CASES = [
    Case("lines", StringLineSerializer(limit=LIMIT), lambda size: b"\n" * size),
    Case("struct", StructSerializer("B"), lambda size: b"x" * size),
    Case("json-open", JSON, lambda size: b"[" * size + b"\n"),
    Case("json-brackets", JSON, lambda size: b"[" + b"[]," * (size // 3) + b"1]\n"),
    Case("json-quotes", JSON, lambda size: b"[" + b'"",' * (size // 3) + b"[]" * 200 + b"]\n"),
    Case("json-digits", JSON, lambda size: b"1" * size + b"\n"),
    Case("json-fraction", JSON, lambda size: b"1." + b"1" * size + b"\n"),
    Case("bare-open", BARE, lambda size: b"[" * size),
    Case("bare-escapes", BARE, lambda size: b'"' + b'\\"' * (size // 2)),
    Case("bare-garbage", BARE, lambda size: b"]\n" * (size // 2)),
    Case("cbor-items", CBOR, lambda size: cbor(4, size, b"\1" * size)),
    Case("cbor-chunks", CBOR, lambda size: b"\x5f" + b"\x40" * size),
    Case("cbor-numbers-as-keys", CBOR, lambda size: b"\xbf" + b"\x01\x02" * (size // 2)),
    Case("cbor-array-as-key", CBOR, lambda size: b"\xa1\x9f" + b"\1" * size),
    Case("cbor-nested", LOOSE_CBOR, lambda size: b"\x81" * size),
    Case("cbor-bytes", CBOR, lambda size: cbor(2, size, bytes(size))),
    Case("cbor-integer", CBOR, lambda size: b"\xc4\x82\x01\xc2" + cbor(2, size, b"\xff" * size)),
    Case("cbor-expression", CBOR, lambda size: b"\xd8\x23" + cbor(3, size, b"a" * size)),
    Case("cbor-garbage", CBOR, lambda size: b"\xff" * size),
    Case("msgpack-items", MSGPACK, lambda size: b"\xdd\0\xff\xff\xff" + b"\1" * size),
    Case("msgpack-nested", MSGPACK, lambda size: b"\x91" * size),
    Case("msgpack-bytes", MSGPACK, lambda size: b"\xc6" + size.to_bytes(4) + b"\x90" * size),
    Case("msgpack-garbage", MSGPACK, lambda size: b"\xc1" * size),
    Case(
        "base64", Base64EncoderSerializer(JSON, checksum=True), lambda size: b"\r\n" * (size // 2)
    ),
    Case("zlib-empty", ZLIB, lambda size: b"\x78\x9c" + b"\0\0\0\xff\xff" * (size // 5)),
    Case("zlib-stored", ZLIB, lambda size: zlib.compress(bytes(size), 0)),
    Case("zlib-garbage", ZLIB, lambda size: b"x" * size),
]


def in_chunks(data: bytes) -> list[bytes]:
    """As a connection delivers a lot at once."""
    return [data[start : start + 4096] for start in range(0, len(data), 4096)]


@pytest.mark.parametrize(
    ("cut", "size"), [(in_chunks, 8_000), (byte_by_byte, 2_500)], ids=["chunks", "bytes"]
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cost(case: Case, cut: Callable[[bytes], list[bytes]], size: int) -> None:
    """A byte costs the same however many there are."""
    chunks = {n: cut(case.make(n)) for n in (size, 4 * size)}

    assert_linear(lambda n: outcomes(StreamProtocol(case.serializer), chunks[n]), size)
