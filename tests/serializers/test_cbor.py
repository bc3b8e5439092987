from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gc
import io
import random
import re
import sys
import time
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import Any

import cbor2
import pytest
from hypothesis import given, strategies as st

from easynetwork.exceptions import (
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
)
from easynetwork.serializers import CBORSerializer
from easynetwork.serializers.cbor import CBORDecoderConfig, CBOREncoderConfig, _Extent, _skim
from easynetwork.serializers.framing import FileBasedPacketSerializer
from tests.serializers.catalogue import cbor_values
from tests.serializers.chosen import chosen_numbers
from tests.tools import byte_by_byte, check_every_cut, every_cut, feed, parse_one

PRIME = sys.hash_info.modulus  # What an integer's hash is the remainder of.


def array(*items: bytes) -> bytes:
    return bytes([0x9A]) + len(items).to_bytes(4) + b"".join(items)


def refusal(data: bytes, **options: Any) -> str:
    """Assert that `data` is refused, with or without more of it to come; return the reason."""
    serializer = CBORSerializer(limit=10**6, debug=True, **options)
    with pytest.raises(DeserializeError) as caught:
        serializer.deserialize(data)
    assert caught.value.error_info == {"data": data}
    with pytest.raises(IncrementalDeserializeError, match="^Deserialize error: ") as incremental:
        parse_one(serializer.incremental_deserialize(), data)
    assert str(incremental.value) == f"Deserialize error: {caught.value}"
    return str(caught.value)


# -- Options -----------------------------------------------------------------------------------


def test_properties() -> None:
    """A serializer shows its options."""
    serializer = CBORSerializer(limit=100, debug=True)

    assert isinstance(serializer, FileBasedPacketSerializer)
    assert serializer.buffer_limit == 100
    assert serializer.debug is True
    assert CBORSerializer().buffer_limit == 65536
    assert CBORSerializer().debug is False
    assert serializer.framing() is None
    assert not hasattr(serializer, "__dict__")


def test_default_configuration() -> None:
    """The defaults are those of the library."""
    assert dataclasses.asdict(CBOREncoderConfig()) == {
        "datetime_as_timestamp": False,
        "timezone": None,
        "value_sharing": False,
        "default": None,
        "canonical": False,
        "date_as_datetime": False,
        "string_referencing": False,
    }
    assert dataclasses.asdict(CBORDecoderConfig()) == {
        "object_hook": None,
        "tag_hook": None,
        "str_errors": "strict",
    }


def test_encoder_configuration() -> None:
    """Packets are written as configured."""
    moment = datetime.datetime(2024, 1, 2)
    config = CBOREncoderConfig(datetime_as_timestamp=True, timezone=datetime.UTC, canonical=True)

    assert CBORSerializer(config).serialize({"b": moment, "a": 1}) == cbor2.dumps(
        {"b": moment, "a": 1},
        datetime_as_timestamp=True,
        timezone=datetime.UTC,
        canonical=True,
    )
    config = CBOREncoderConfig(default=lambda encoder, value: encoder.encode(repr(value)))
    assert CBORSerializer(config).serialize(...) == cbor2.dumps("Ellipsis")


def test_decoder_configuration() -> None:
    """Packets are read as configured."""
    config = CBORDecoderConfig(
        object_hook=lambda value, immutable: sorted(value),
        tag_hook=lambda tag, immutable: (tag.tag, tag.value),
        str_errors="replace",
    )
    serializer = CBORSerializer(None, config)

    assert serializer.deserialize(cbor2.dumps({"b": 1, "a": 2})) == ["a", "b"]
    assert serializer.deserialize(cbor2.dumps(cbor2.CBORTag(6000, "x"))) == (6000, "x")
    assert serializer.deserialize(cbor2.dumps(re.compile("x"))) == (35, "x")
    assert serializer.deserialize(b"\x61\xff") == "\ufffd"


@pytest.mark.parametrize(
    ("options", "error_type", "message"),
    [
        ({"limit": 0}, ValueError, "^limit must be a positive integer$"),
        ({"max_depth": 0}, ValueError, "^max_depth must be a positive integer$"),
        (
            {"encoder_config": CBORDecoderConfig()},
            TypeError,
            "^Invalid encoder config: expected CBOREncoderConfig, got CBORDecoderConfig$",
        ),
        (
            {"decoder_config": {}},
            TypeError,
            "^Invalid decoder config: expected CBORDecoderConfig, got dict$",
        ),
        ({"decoder_config": CBORDecoderConfig(str_errors="forgive")}, ValueError, "str_errors"),  # type: ignore[arg-type]  # What this is about.
        ({"encoder_config": CBOREncoderConfig(timezone=1)}, TypeError, "timezone"),  # type: ignore[arg-type]  # Likewise.
    ],
)
def test_wrong_options(options: Any, error_type: type[Exception], message: str) -> None:
    """Wrong options are refused at construction."""
    with pytest.raises(error_type, match=message):
        CBORSerializer(**options)


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library, the error names what to install."""
    monkeypatch.setitem(sys.modules, "cbor2", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        CBORSerializer()
    assert str(caught.value) == (
        'cbor2 is not installed. To install it: pip install "cbor2>=6.2.1"'
    )
    assert caught.value.name == "cbor2"


# -- What is understood ------------------------------------------------------------------------


@given(cbor_values())
def test_agrees_with_library(value: Any) -> None:
    """The bytes are those of the library, and read alike, in one piece or in many."""
    serializer = CBORSerializer()
    data = cbor2.dumps(value)

    assert serializer.serialize(value) == data
    assert serializer.deserialize(data) == cbor2.loads(data) == value
    assert feed(serializer.incremental_deserialize, byte_by_byte(data)) == ([value], b"")


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**64) - 1,
        2**14_000,
        Decimal("1.5e-7"),
        Fraction(-1, 3),
        uuid.UUID(int=5),
        datetime.datetime(2024, 1, 2, 3, 4, 5, 6, datetime.UTC),
        datetime.date(2024, 1, 2),
        {1: {2.5: {None: {True: {b"a": "b"}}}}},
        {-(2**64): 0, 2**64 - 1: 0},
        {1, "a", b"b", None},
        cbor2.undefined,
        cbor2.CBORTag(6000, "x"),
    ],
)
def test_types(value: Any) -> None:
    """What CBOR has a type for survives."""
    serializer = CBORSerializer()
    data = serializer.serialize(value)

    check_every_cut(serializer.incremental_deserialize, data, [value], trailing=b"\x82\x01")


def test_indefinite_lengths() -> None:
    """Containers and strings may be open-ended."""
    stream = b"\x9f\x01\xbf\x01\x5f\x41a\x40\x41b\xff\xff\x7f\x61c\xff\x9f\xff\xff\xf5"

    check_every_cut(
        CBORSerializer().incremental_deserialize,
        stream,
        [[1, {1: b"ab"}, "c", []], True],
        trailing=b"\x9f",
    )


def test_references() -> None:
    """Who sends references understands them."""
    shared = ["abcd", "abcd"]
    config = CBOREncoderConfig(value_sharing=True, string_referencing=True)
    serializer = CBORSerializer(config)
    first, second = serializer.deserialize(serializer.serialize([shared, shared]))

    assert first == shared
    assert first is second
    assert serializer.deserialize(serializer.serialize([{"abcd": {1: 2}}, {"abcd": 5}])) == [
        {"abcd": {1: 2}},
        {"abcd": 5},
    ]


def test_strings_as_keys_by_reference() -> None:
    """A reference to a string may be a key, even where the library is too strict."""
    serializer = CBORSerializer(CBOREncoderConfig(string_referencing=True))
    value = [{"abcd": 1}, {"abcd": 1, 5: 6}]

    assert serializer.deserialize(serializer.serialize(value)) == value


# -- What is not ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"\xc2\x59\x06\xfa" + b"\xff" * 1786, "more than 1785 bytes", id="integer"),
        pytest.param(b"\xc3\x59\x06\xfa" + b"\xff" * 1786, "more than 1785 bytes", id="negative"),
        pytest.param(b"\xc4\x82\x01\xc2\x59\x06\xfa" + b"\xff" * 1786, "1785", id="decimal"),
        pytest.param(b"\xc2\x80", "has to be a byte string", id="integer-array"),
        pytest.param(array(b"\xd8\x1c\x80", b"\xd8\x1d\x00"), "'value_sharing'", id="shared"),
        pytest.param(b"\xd8\x1c\x81\xd8\x1d\x00", "'value_sharing'", id="cycle"),
        pytest.param(
            b"\xd9\x01\x00" + array(b"\x63abc", b"\xd8\x19\x00"), "'string_ref", id="strings"
        ),
        pytest.param(b"\xa1\x82\x01\x02\x03", "neither text, bytes nor a number", id="array-key"),
        pytest.param(b"\xa1\xa0\x03", "neither text, bytes nor a number", id="map-key"),
        pytest.param(b"\xa1\xc2\x41\x01\x03", "neither text, bytes nor a number", id="tag-key"),
        pytest.param(b"\xbf\x01\x02\x80\x02\xff", "neither text", id="open-map-key"),
        pytest.param(b"\xd9\x01\x02\x82\x01\x80", "neither text", id="array-in-set"),
        pytest.param(b"\xd9\x01\x02\x9f\x01\x80\xff", "neither text", id="array-in-open-set"),
        pytest.param(b"\xd9\x01\x02\xd8\x1c\x82\x01\x80", "neither text", id="tagged-set"),
        pytest.param(b"\x81" * 129 + b"\x01", "nest", id="arrays"),
        pytest.param(b"\xa1\x61a" * 129 + b"\x01", "nest", id="maps"),
        pytest.param(b"\xc6" * 129 + b"\x01", "nest", id="tags"),
        pytest.param(b"\x9f" * 129 + b"\xff" * 129, "nest", id="open-arrays"),
        pytest.param(b"\x5f" * 130 + b"\xff" * 130, "nest", id="open-strings"),
        pytest.param(b"\xa1\x01" * 129 + b"\x01", "nest", id="maps-of-numbers"),
        pytest.param(b"\x1c", "begins with 0x1c", id="reserved"),
        pytest.param(b"\x1f", "begins with 0x1f", id="open-integer"),
        pytest.param(b"\xff", "Unexpected break: ", id="break"),
        pytest.param(b"\x81\xff", "Unexpected break: ", id="break-in-array"),
        pytest.param(b"\x61\xff", "text string", id="text"),
        pytest.param(b"\xc0\x60", "datetime", id="moment"),
        pytest.param(b"\xa1\x01\xd8\x25\x41\x00", "UUID", id="uuid-by-number"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    """What is not valid, or costs more than it should, is an ordinary error."""
    assert reason in refusal(data)


def test_shared_set() -> None:
    """What is not plain does not get into a set by reference."""
    # First an array with a list in it, then a set of that array's items, behind a plain number.
    data = array(b"\xd8\x1c\x82\x01\x80", b"\xa1\x01\xd9\x01\x02\xd8\x1d\x00")

    assert "neither text" in refusal(data, encoder_config=CBOREncoderConfig(value_sharing=True))


def test_depth() -> None:
    """As many containers as allowed may be inside each other, however they come."""
    serializer = CBORSerializer(max_depth=3)
    for data in (
        b"\x81\x81\x81\x01",
        b"\x81\xa1\x01\xc6\x01",
        b"\x9f\x9f\x9f\x7f\x60\xff\xff\xff\xff",
    ):
        check_every_cut(serializer.incremental_deserialize, data, [cbor2.loads(data)])
    for chunks in every_cut(b"\x81\xa1\x01\x81\x81\x01"):
        outcomes, _ = feed(serializer.incremental_deserialize, chunks)
        assert "nested more than 3 deep" in outcomes[0][1]


@pytest.mark.parametrize(
    ("data", "tag"),
    [(cbor2.dumps(re.compile("x")), 35), (b"\xd8\x24\x61x", 36)],
    ids=["expression", "message"],
)
def test_unknown_tags(data: bytes, tag: int) -> None:
    """Regular expressions and messages arrive as tags: making them could cost too much."""
    assert CBORSerializer().deserialize(data) == cbor2.CBORTag(tag, "x")


def test_not_strict() -> None:
    """Any key is accepted if it has to be."""
    value = {(1, 2): frozenset([3]), Fraction(1, 2): {2**100, (1,)}}
    data = cbor2.dumps(value)

    assert CBORSerializer(strict_map_key=False).deserialize(data) == value
    refusal(data)


def test_colliding_keys() -> None:
    """Keys of equal hashes, of which there are any number, are refused before they are compared."""
    keys = [PRIME * factor for factor in range(2**10, 2**10 + 2_000)]
    assert len(set(map(hash, keys))) == 1

    refusal(cbor2.dumps(dict.fromkeys(keys)))


def hashed(numbers: list[int], *, in_set: bool = False, is_open: bool = False) -> bytes:
    """Return a map with those keys, or a set of those elements; with a string in it as well."""
    items = [cbor2.dumps(number) for number in numbers]
    items = [b"\x60", *items] if in_set else [item + b"\0" for item in (b"\x60", *items)]
    count = len(items).to_bytes(4)
    head = (b"\x9f" if is_open else b"\x9a" + count) if in_set else b""
    head = head or (b"\xbf" if is_open else b"\xba" + count)
    return (b"\xd9\x01\x02" if in_set else b"") + head + b"".join(items) + b"\xff" * is_open


@pytest.mark.parametrize("is_open", [False, True], ids=["counted", "open"])
@pytest.mark.parametrize("in_set", [False, True], ids=["map", "set"])
def test_numbers(in_set: bool, is_open: bool) -> None:
    """A thousand numbers may be hashed in one container, among any number of strings."""
    serializer = CBORSerializer(limit=10**6)
    data = hashed(list(range(1_000)), in_set=in_set, is_open=is_open)
    assert len(serializer.deserialize(data)) == 1_001
    assert len(serializer.deserialize(array(data, data))) == 2
    strings: set[Any] = {str(number) for number in range(5_000)}
    assert len(serializer.deserialize(cbor2.dumps(dict.fromkeys({1, *strings})))) == 5_001
    assert serializer.deserialize(cbor2.dumps({1, *strings})) == {1, *strings}
    numbers = list(range(5_000))
    assert serializer.deserialize(cbor2.dumps([numbers, {1: numbers}])) == [numbers, {1: numbers}]

    data = hashed(list(range(1_001)), in_set=in_set, is_open=is_open)
    assert "more than 1000 numbers" in refusal(data)
    outcomes, unused = feed(serializer.incremental_deserialize, byte_by_byte(data + b"\x05"))
    assert [outcome[0] for outcome in outcomes[:-1]] == [IncrementalDeserializeError]
    assert (outcomes[-1], unused) == (5, b"")
    data = hashed(list(range(2_000)), in_set=in_set, is_open=is_open)
    serializer = CBORSerializer(limit=10**6, strict_map_key=False)
    assert len(serializer.deserialize(data)) == 2_001


def test_open_map_of_strings() -> None:
    """What ends an open map is no key of it."""
    value: dict[Any, None] = {str(number): None for number in range(3_000)}
    items = cbor2.dumps(value)[3:]

    assert CBORSerializer().deserialize(b"\xbf" + items + b"\xff") == value
    serializer = CBORSerializer(limit=10**6)
    with_number = b"\xbf\x01\xf6" + items + b"\xff"
    assert serializer.deserialize(with_number) == {1: None, **value}


@pytest.mark.cost
def test_chosen_numbers() -> None:
    """Numbers that a peer has chosen cost no more than others."""
    serializer = CBORSerializer()

    def cost(numbers: list[int]) -> float:
        data = hashed(numbers)
        times = []
        for _ in range(5):
            start = time.process_time()
            with contextlib.suppress(DeserializeError):
                serializer.deserialize(data)
            times.append(time.process_time() - start)
        return min(times)

    chosen = chosen_numbers(13, 5_400)
    assert cost(chosen) < 2 * cost(random.Random(1).sample(range(max(chosen)), len(chosen)))


# -- Errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"\x61\xff", "Deserialize error: error decoding text string"),
        (b"\x82\xc0\x01\x05", "Deserialize error: error decoding string-form datetime"),
        (b"\xa2\x01\x61\xff\x02\x02", "Deserialize error: error decoding text string"),
    ],
)
def test_next_packet_is_not_concerned(packet: bytes, message: str) -> None:
    """A packet whose values are wrong ends where it says that it ends."""
    serializer = CBORSerializer()
    for chunks in every_cut(b"\x01" + packet + b"\x81\x02\x03"):
        outcomes, unused = feed(serializer.incremental_deserialize, chunks)
        assert [outcomes[0], *outcomes[2:]] == [1, [2], 3]
        assert outcomes[1][0] is IncrementalDeserializeError
        assert outcomes[1][1].startswith(message)
        assert unused == b""


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(b"\xa1\x80\x01", id="key"),
        pytest.param(b"\xd9\x01\x02\x82\xa1\x01\x02\x03", id="element"),
        pytest.param(b"\x81" * 5 + b"\x01", id="arrays"),
        pytest.param(b"\x9f" * 5 + b"\xff" * 5, id="open-arrays"),
        pytest.param(b"\x9f\x9f\x5f\x5f\x41\xff\xff\xff\xff\xff", id="open-strings"),
    ],
)
def test_refused_packet_has_an_end(packet: bytes) -> None:
    """What is refused for what it is, not for how it is written, ends where it says as well."""
    serializer = CBORSerializer(max_depth=3)
    for chunks in every_cut(b"\x01" + packet + b"\x81\x02\x03"):
        outcomes, unused = feed(serializer.incremental_deserialize, chunks)
        assert [outcomes[0], *outcomes[2:]] == [1, [2], 3], chunks
        assert outcomes[1][0] is IncrementalDeserializeError
        assert unused == b""


@pytest.mark.parametrize("data", [b"\xc2\x00", b"\xa1\x80\x00", b"\x1c", b"\x41" * 50])
def test_errors_are_freed(data: bytes) -> None:
    """An error takes what was received with it at once: no cycle has to be found first."""
    parser = CBORSerializer(limit=10).incremental_deserialize
    for chunks in [data], [data[:1], data[1:]]:
        gc.collect()
        gc.disable()
        try:
            feed(parser, [chunk for chunk in chunks if chunk])
            with contextlib.suppress(DeserializeError):
                CBORSerializer().deserialize(data)
            assert gc.collect() == 0
        finally:
            gc.enable()


def test_not_a_packet() -> None:
    """Where no end can be told, all that is there is dropped."""
    with pytest.raises(IncrementalDeserializeError) as caught:
        parse_one(CBORSerializer(debug=True).incremental_deserialize(), b"\x82\x01\x1c\x01")
    assert caught.value.remaining_data == b""
    assert caught.value.error_info == {"data": b"\x82\x01\x1c\x01"}


@pytest.mark.parametrize(
    "data", [b"", b"\x82\x01", b"\x18", b"\x62a", b"\x9f", b"\x5a\x7f\xff\xff\xff"]
)
def test_missing_data(data: bytes) -> None:
    """A part of a packet is not a datagram, and waits for the rest in a stream."""
    with pytest.raises(DeserializeError, match="^Missing data to create packet$") as caught:
        CBORSerializer(debug=True).deserialize(data)
    assert caught.value.error_info == {"data": data}
    assert feed(CBORSerializer().incremental_deserialize, byte_by_byte(data)) == ([], data)


def test_extra_data() -> None:
    """A datagram is one packet and nothing behind it."""
    with pytest.raises(DeserializeError, match="^Extra data caught$") as caught:
        CBORSerializer(debug=True).deserialize(b"\x01\x02\x03")
    assert caught.value.error_info == {"packet": 1, "extra": b"\x02\x03"}


def test_serialize_error() -> None:
    """What cannot be sent is the sender's error, unchanged."""
    with pytest.raises(cbor2.CBOREncodeError):
        CBORSerializer().serialize(object())


def test_limit() -> None:
    """Whether a packet is too large does not depend on how the stream is cut."""
    serializer = CBORSerializer(limit=20)
    fits, too_large = cbor2.dumps(b"x" * 19), cbor2.dumps(b"x" * 20)
    for chunks in every_cut(fits + b"\x01" * 20):
        assert feed(serializer.incremental_deserialize, chunks)[0] == [b"x" * 19, *[1] * 20]
    for chunks in every_cut(too_large):
        outcomes, _ = feed(serializer.incremental_deserialize, chunks)
        assert outcomes[0] == (LimitOverrunError, "chunk exceeded buffer limit")


# -- Where a packet ends -----------------------------------------------------------------------


def skimmed(data: bytes) -> int | str | None:
    """Return the size of a packet, None if there is more to come, or what is wrong."""
    skimmer = _skim(128, strict_map_key=False)
    next(skimmer)
    try:
        for byte in byte_by_byte(data):
            skimmer.send(byte)
    except StopIteration as stop:
        extent: _Extent = stop.value
        assert extent.refusal is None
        return extent.size
    except ValueError as exc:
        return str(exc)
    return None


HEADS = st.sampled_from(
    b"\x00\x18\x19\x1b\x20\x41\x43\x5f\x62\x7f\x80\x81\x82\x9f\xa0\xa1\xbf\xc0\xc1\xc2\xd8\xd9"
    b"\xf4\xf6\xf9\xfb\xff\x1c\xfc\x01\x02"
)


@given(st.lists(HEADS | st.integers(0, 255), min_size=1, max_size=12).map(bytes))
def test_skimming_agrees_with_library(data: bytes) -> None:
    """Where the library finds a packet, or its beginning, so does the skimmer."""
    file = io.BytesIO(data)
    try:
        cbor2.load(file)
    except cbor2.CBORDecodeEOF:
        assert skimmed(data) is None
    except cbor2.CBORDecodeError:
        pass
    else:
        assert skimmed(data) == file.tell()
