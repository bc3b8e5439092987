from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given, settings, strategies as st

from easynetwork.exceptions import DeserializeError, IncrementalDeserializeError, LimitOverrunError
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.serializers.abc import AbstractPacketSerializer, LengthFormat, LengthPrefixFraming
from easynetwork.serializers.wrapper.length_prefixed import LengthPrefixedSerializer
from tests.decoding import PROTOCOLS, MakeProtocol, outcomes
from tests.tools import cuts, every_cut, json_values

each_protocol = pytest.mark.parametrize("make", PROTOCOLS)


class Numbers(AbstractPacketSerializer[int, int]):
    """Works with datagrams only."""

    __slots__ = ()

    def serialize(self, packet: int, /) -> bytes:
        return b"%d" % packet

    def deserialize(self, data: bytes, /) -> int:
        if not data.isdigit():
            raise DeserializeError("not a number", {"data": data})
        return int(data)


def test_properties() -> None:
    """A serializer shows its options."""
    options: dict[str, Any] = {"byteorder": "little", "offset": 1, "adjustment": -2}
    serializer = LengthPrefixedSerializer(Numbers(), "u16", **options, limit=100, debug=True)

    assert serializer.framing() == LengthPrefixFraming("u16", 100, **options)
    assert serializer.buffer_limit == 100
    assert serializer.debug is True
    decimal = LengthPrefixedSerializer(Numbers(), "decimal", terminator=b"\n", max_digits=5)
    expected = LengthPrefixFraming("decimal", 65536, terminator=b"\n", max_digits=5)
    assert decimal.framing() == expected
    default = LengthPrefixedSerializer(Numbers())
    assert default.framing() == LengthPrefixFraming("u32", 65536)
    assert default.debug is False
    assert not hasattr(serializer, "__dict__")


@pytest.mark.parametrize("serializer", [None, "json", JSONSerializer])
def test_no_serializer(serializer: Any) -> None:
    """There has to be something inside."""
    with pytest.raises(TypeError, match=r"^Expected a serializer instance, got "):
        LengthPrefixedSerializer(serializer)


def test_wrong_options() -> None:
    """Wrong options are refused at construction."""
    with pytest.raises(ValueError, match=r"^offset must not be negative$"):
        LengthPrefixedSerializer(Numbers(), offset=-1)
    with pytest.raises(ValueError, match=r"^terminator is only for the length 'decimal'$"):
        LengthPrefixedSerializer(Numbers(), terminator=b" ")
    with pytest.raises(ValueError, match=r"^max_digits is not for the length 'u16'$"):
        LengthPrefixedSerializer(Numbers(), "u16", max_digits=2)


@pytest.mark.parametrize(
    ("length", "data"),
    [
        ("u8", b"\x03202"),
        ("u16", b"\x00\x03202"),
        ("u24", b"\x00\x00\x03202"),
        ("decimal", b"3 202"),
        ("netstring", b"3:202,"),
    ],
)
def test_serialize(length: Any, data: bytes) -> None:
    """A packet is what is inside makes of it, with its length."""
    assert LengthPrefixedSerializer(Numbers(), length).serialize_frame(202) == data


@pytest.mark.parametrize("length", ["u24", "u32", "varint", "decimal", "netstring"])
@each_protocol
def test_every_cut(make: MakeProtocol, length: Any) -> None:
    """The same packets and errors come out however the stream is cut."""
    protocol = make(LengthPrefixedSerializer(Numbers(), length, limit=9))
    lines = LengthPrefixedSerializer(StringLineSerializer(), length)
    texts = ["1", "", "x", "1234567890", "23"]
    expected = [
        1,
        (IncrementalDeserializeError, "Error when deserializing data: not a number"),
        (IncrementalDeserializeError, "Error when deserializing data: not a number"),
        (LimitOverrunError, "Packet of 10 bytes exceeds the limit of 9"),
        23,
    ]

    for chunks in every_cut(b"".join(map(lines.serialize_frame, texts))):
        assert outcomes(protocol, chunks) == expected, chunks


@each_protocol
@given(data=st.data())
@settings(max_examples=15)
def test_incremental_serializer_inside(make: MakeProtocol, data: st.DataObject) -> None:
    """Of a serializer that finds the end of a packet itself, only the contents are used."""
    protocol = make(LengthPrefixedSerializer(JSONSerializer()))
    values = data.draw(st.lists(json_values(), max_size=5))
    chunks = [b"".join(protocol.generate_chunks(value)) for value in values]

    assert not any(chunk.endswith(b"\n") for chunk in chunks)
    assert outcomes(protocol, data.draw(cuts(b"".join(chunks)))) == values


def test_datagram() -> None:
    """A datagram has its own length."""
    for length in get_args(LengthFormat):
        protocol = DatagramProtocol(LengthPrefixedSerializer(Numbers(), length))

        assert protocol.make_datagram(12) == b"12"
        assert protocol.build_packet_from_datagram(b"12") == 12


def test_error_info() -> None:
    """What the serializer inside says of bad data is not lost."""
    with pytest.raises(IncrementalDeserializeError) as caught:
        LengthPrefixedSerializer(Numbers()).deserialize_frame(b"x")
    assert caught.value.error_info == {"data": b"x"}
