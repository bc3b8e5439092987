from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given, strategies as st

from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers import (
    Base64EncoderSerializer,
    LengthPrefixedSerializer,
    RawSerializer,
    ZlibCompressorSerializer,
)
from easynetwork.serializers.abc import NoFraming
from tests.decoding import PROTOCOLS, MakeProtocol, new_decoder, outcomes
from tests.tools import cuts

each_protocol = pytest.mark.parametrize("make", PROTOCOLS)


def test_whole_packets() -> None:
    """Bytes are what they are, both ways; an empty packet has no bytes."""
    serializer = RawSerializer()

    for packet in b"hello\n", b"\0\xff", b"":
        assert serializer.serialize(packet) == packet
        assert serializer.deserialize(packet) == packet
        assert b"".join(serializer.incremental_serialize(packet)) == packet


def test_options() -> None:
    """It has no framing, and cannot find fault with anything."""
    assert isinstance(RawSerializer().framing(), NoFraming)
    assert not RawSerializer().debug
    assert RawSerializer(debug=True).debug
    with pytest.raises(TypeError):
        RawSerializer(limit=1)


@each_protocol
@given(data=st.data(), stream=st.binary(min_size=1, max_size=100))
def test_chunks(make: MakeProtocol, data: st.DataObject, stream: bytes) -> None:
    """Whatever has arrived is a packet; no byte is lost, and none is kept back."""
    chunks = data.draw(cuts(stream))

    assert outcomes(make(RawSerializer()), chunks) == chunks


@each_protocol
def test_chunks_that_wait(make: MakeProtocol) -> None:
    """What arrives before it is asked for arrives in order, in pieces that are never empty."""
    decoder = new_decoder(make(RawSerializer()))
    for chunk in b"one", b"two", b"three" * 10_000:
        decoder.feed(chunk)

    found = []
    while decoder.at_hand or decoder.refill():
        if (packet := decoder.take()) is not NEED_DATA:
            assert type(packet) is bytes
            assert packet
            found.append(packet)

    assert b"".join(found) == b"onetwo" + b"three" * 10_000
    assert decoder.take() is NEED_DATA
    assert len(decoder) == 0


@each_protocol
def test_packets_are_independent(make: MakeProtocol) -> None:
    """A packet keeps its bytes, whatever arrives later."""
    decoder = new_decoder(make(RawSerializer()))
    decoder.feed(b"one")
    packet = decoder.take()
    decoder.feed(b"two")
    decoder.take()

    assert packet == b"one"


def test_datagrams() -> None:
    """A datagram is a packet, even an empty one."""
    protocol = DatagramProtocol(RawSerializer())

    for packet in b"hello", b"":
        assert protocol.make_datagram(packet) == packet
        assert protocol.build_packet_from_datagram(packet) == packet


@pytest.mark.parametrize(
    "wrapped",
    [
        Base64EncoderSerializer(RawSerializer()),
        LengthPrefixedSerializer(RawSerializer(), "u16"),
        ZlibCompressorSerializer(RawSerializer()),
    ],
    ids=lambda wrapped: type(wrapped).__name__,
)
def test_wrapped(wrapped: Any) -> None:
    """In another serializer, its packets begin and end somewhere, and may be empty."""
    protocol = StreamProtocol(wrapped)
    packets = [b"one\r\n", b"", b"\0"]
    stream = b"".join(b"".join(protocol.generate_chunks(packet)) for packet in packets)

    assert outcomes(protocol, [stream]) == packets
    assert outcomes(protocol, [stream[i : i + 1] for i in range(len(stream))]) == packets


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))]
)
@pytest.mark.parametrize("protocol_class", [StreamProtocol, BufferedStreamProtocol])
def test_copies(copied: Any, protocol_class: Any) -> None:
    """It can be copied and pickled, as all serializers and their protocols."""
    protocol = copied(protocol_class(RawSerializer()))

    assert outcomes(protocol, [b"one", b"two"]) == [b"one", b"two"]
