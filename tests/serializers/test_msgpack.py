from __future__ import annotations

import dataclasses
import sys
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from hypothesis import given

from easynetwork.exceptions import (
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
)
from easynetwork.serializers import MessagePackSerializer
from easynetwork.serializers.framing import FileBasedPacketSerializer
from easynetwork.serializers.msgpack import MessagePackerConfig, MessageUnpackerConfig
from tests.serializers.catalogue import msgpack_values
from tests.tools import byte_by_byte, check_every_cut, every_cut, feed, parse_one


def refusal(data: bytes, **options: Any) -> str:
    """Assert that `data` is refused, as a datagram and in a stream; return the reason."""
    serializer = MessagePackSerializer(limit=10**6, debug=True, **options)
    with pytest.raises(DeserializeError) as caught:
        serializer.deserialize(data)
    assert caught.value.error_info == {"data": data}
    with pytest.raises(IncrementalDeserializeError) as incremental:
        parse_one(serializer.incremental_deserialize(), data)
    assert str(incremental.value) == f"Deserialize error: {caught.value}"
    return str(caught.value)


# -- Options -----------------------------------------------------------------------------------


def test_properties() -> None:
    """A serializer shows its options."""
    serializer = MessagePackSerializer(limit=100, debug=True)

    assert isinstance(serializer, FileBasedPacketSerializer)
    assert serializer.buffer_limit == 100
    assert serializer.debug is True
    assert MessagePackSerializer().buffer_limit == 65536
    assert MessagePackSerializer().debug is False
    assert serializer.framing() is None
    assert not hasattr(serializer, "__dict__")


def test_default_configuration() -> None:
    """The defaults are those of the library."""
    assert dataclasses.asdict(MessagePackerConfig()) == {
        "default": None,
        "use_single_float": False,
        "use_bin_type": True,
        "datetime": False,
        "strict_types": False,
        "unicode_errors": "strict",
    }
    assert dataclasses.asdict(MessageUnpackerConfig()) == {
        "raw": False,
        "use_list": True,
        "timestamp": 0,
        "strict_map_key": True,
        "unicode_errors": "strict",
        "object_hook": None,
        "object_pairs_hook": None,
        "ext_hook": None,
    }


def test_packer_configuration() -> None:
    """Packets are written as configured."""
    config = MessagePackerConfig(default=repr, use_single_float=True, datetime=True)
    packet = [1.5, ..., datetime(2024, 1, 2, tzinfo=UTC)]

    assert MessagePackSerializer(config).serialize(packet) == msgpack.packb(
        packet, default=repr, use_single_float=True, datetime=True
    )


def test_unpacker_configuration() -> None:
    """Packets are read as configured."""

    def deserialize(packet: Any, **options: Any) -> Any:
        serializer = MessagePackSerializer(None, MessageUnpackerConfig(**options))
        data: bytes = msgpack.packb(packet, datetime=True)
        result = serializer.deserialize(data)
        assert feed(serializer.incremental_deserialize, byte_by_byte(data))[0] == [result]
        return result

    moment = datetime(2024, 1, 2, tzinfo=UTC)
    assert deserialize([{"a": 1}], use_list=False, object_hook=list) == (["a"],)
    assert deserialize({"a": 1}, object_pairs_hook=tuple) == (("a", 1),)
    assert deserialize({1: "a"}, strict_map_key=False, raw=True) == {1: b"a"}
    assert deserialize(moment, timestamp=3) == moment
    assert deserialize(moment) == msgpack.Timestamp.from_datetime(moment)
    assert deserialize(msgpack.ExtType(5, b"x")) == msgpack.ExtType(5, b"x")
    assert deserialize(msgpack.ExtType(5, b"x"), ext_hook=lambda *ext: ext) == (5, b"x")


@pytest.mark.parametrize(
    ("options", "error_type", "message"),
    [
        ({"limit": 0}, ValueError, "limit must be a positive integer"),
        ({"max_depth": 0}, ValueError, "max_depth must be a positive integer"),
        (
            {"packer_config": MessageUnpackerConfig()},
            TypeError,
            "Invalid packer config: expected MessagePackerConfig, got MessageUnpackerConfig",
        ),
        (
            {"unpacker_config": {}},
            TypeError,
            "Invalid unpacker config: expected MessageUnpackerConfig, got dict",
        ),
    ],
)
def test_wrong_options(options: Any, error_type: type[Exception], message: str) -> None:
    """Wrong options are refused at construction."""
    with pytest.raises(error_type, match=f"^{message}$"):
        MessagePackSerializer(**options)


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library, the error names what to install."""
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        MessagePackSerializer()
    assert str(caught.value) == (
        'msgpack is not installed. To install it: pip install "msgpack>=1.1"'
    )
    assert caught.value.name == "msgpack"


# -- Packets -----------------------------------------------------------------------------------


@given(msgpack_values())
def test_agrees_with_library(value: Any) -> None:
    """The bytes are those of the library, and read alike, in one piece or in many."""
    serializer = MessagePackSerializer()
    data = msgpack.packb(value)

    assert serializer.serialize(value) == data
    assert serializer.deserialize(data) == msgpack.unpackb(data) == value
    assert feed(serializer.incremental_deserialize, byte_by_byte(data)) == ([value], b"")


def test_stream() -> None:
    """A packet ends where it ends, however the stream is cut."""
    packets = [{"a": [1, 2.5, None]}, [], "é", b"\x90" * 40, -1, [[[]]]]

    check_every_cut(
        MessagePackSerializer().incremental_deserialize,
        b"".join(map(msgpack.packb, packets)),
        packets,
        trailing=b"\x92\x01",
    )


def test_serialize_error() -> None:
    """What cannot be sent is the sender's error, unchanged."""
    for packet, error_type in (object(), TypeError), (2**64, OverflowError):
        with pytest.raises(error_type):
            MessagePackSerializer().serialize(packet)


# -- Errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xc1", "Invalid token"),
        (b"\x92\x01\xc1", "Invalid token"),
        (b"\xa1\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"\x81\x01\x02", "int is not allowed for map key when strict_map_key=True"),
        (b"\x91" * 129 + b"\x01", "The packet is nested too deeply"),
        (b"\x81\xa1a" * 129 + b"\x01", "The packet is nested too deeply"),
        (b"\x91" * 10_000 + b"\x01", "The packet is nested too deeply"),
        (b"\xd7\xff" + b"\xff" * 8, "nanoseconds must be"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    """What is not valid, or too deep, is an ordinary error that says why."""
    assert refusal(data).startswith(reason)


def test_hook_without_message() -> None:
    """An exception that says nothing is an invalid token."""

    def refuse(code: int, data: bytes) -> None:
        raise KeyError

    config = MessageUnpackerConfig(ext_hook=refuse)
    assert refusal(b"\xd4\x05\x00", unpacker_config=config) == "Invalid token"


def test_depth() -> None:
    """So many containers may be inside each other; what only looks like one does not count."""
    serializer = MessagePackSerializer(
        None, MessageUnpackerConfig(strict_map_key=False, use_list=False), max_depth=3
    )
    packet: Any
    for packet in (((1,),),), {"a": {"b": ({},)}}, b"\x91" * 9, ("\N{GREEK SMALL LETTER PI}",) * 9:
        data = serializer.serialize(packet)
        assert serializer.deserialize(data) == packet
    for packet in ((((1,),),),), {"a": {"b": ({1: 2},)}}, {(((1,),),): 2}:
        with pytest.raises(DeserializeError, match="^The packet is nested too deeply$"):
            serializer.deserialize(serializer.serialize(packet))


@pytest.mark.parametrize("packet", [b"\xa1\xff", b"\x82\x01\x02\xa1a\x03", b"\x91" * 129 + b"\x01"])
def test_next_packet_is_not_concerned(packet: bytes) -> None:
    """A packet whose values are wrong ends where it says that it ends."""
    parser = MessagePackSerializer().incremental_deserialize
    for chunks in every_cut(b"\x01" + packet + b"\x91\x02\x03"):
        outcomes, unused = feed(parser, chunks)
        assert [outcomes[0], *outcomes[2:]] == [1, [2], 3]
        assert outcomes[1][0] is IncrementalDeserializeError
        assert unused == b""


def test_not_a_packet() -> None:
    """Where no end can be told, all that is there is dropped."""
    with pytest.raises(IncrementalDeserializeError) as caught:
        parse_one(MessagePackSerializer().incremental_deserialize(), b"\x92\x01\xc1\x01")
    assert caught.value.remaining_data == b""
    assert caught.value.error_info is None


@pytest.mark.parametrize("data", [b"", b"\x92\x01", b"\xcd\x00", b"\xa2a", b"\xdd\x7f\xff\xff\xff"])
def test_missing_data(data: bytes) -> None:
    """A part of a packet is not a datagram, and waits for the rest in a stream."""
    with pytest.raises(DeserializeError, match="^Missing data to create packet$") as caught:
        MessagePackSerializer(debug=True).deserialize(data)
    assert caught.value.error_info == {"data": data}
    assert feed(MessagePackSerializer().incremental_deserialize, byte_by_byte(data)) == ([], data)


def test_extra_data() -> None:
    """A datagram is one packet and nothing behind it."""
    with pytest.raises(DeserializeError, match="^Extra data caught$") as caught:
        MessagePackSerializer(debug=True).deserialize(b"\x01\x02\x03")
    assert caught.value.error_info == {"packet": 1, "extra": b"\x02\x03"}


def test_limit() -> None:
    """Whether a packet is too large does not depend on how the stream is cut."""
    serializer = MessagePackSerializer(limit=20)
    fits, too_large = msgpack.packb("x" * 19), msgpack.packb("x" * 20)
    for chunks in every_cut(fits + b"\x01" * 20):
        assert feed(serializer.incremental_deserialize, chunks)[0] == ["x" * 19, *[1] * 20]
    for chunks in every_cut(too_large):
        outcomes, _ = feed(serializer.incremental_deserialize, chunks)
        assert outcomes[0] == (LimitOverrunError, "chunk exceeded buffer limit")


def test_declared_lengths_cost_nothing() -> None:
    """Arrays that are said to be long are not allocated before their items are there."""
    data = b"\xdc\xff\xff" * 500 + b"\x01" * 64_000
    serializer = MessagePackSerializer(limit=10**6)
    tracemalloc.start()
    try:
        with pytest.raises(DeserializeError, match="^Missing data"):
            serializer.deserialize(data)
        assert feed(serializer.incremental_deserialize, [data[:1000], data[1000:]])[0] == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(data)
