from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from easynetwork.exceptions import IncrementalDeserializeError, LimitOverrunError
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers.abc import LengthPrefixFraming
from easynetwork.serializers.netstring import NetstringSerializer
from tests.decoding import PROTOCOLS, MakeProtocol, outcomes
from tests.tools import byte_by_byte, cuts, every_cut

each_protocol = pytest.mark.parametrize("make", PROTOCOLS)


def test_properties() -> None:
    """A serializer shows its options."""
    serializer = NetstringSerializer(limit=100, debug=True)

    assert serializer.framing() == LengthPrefixFraming("netstring", 100)
    assert serializer.buffer_limit == 100
    assert serializer.debug is True
    assert NetstringSerializer().buffer_limit == 65536
    assert NetstringSerializer().debug is False
    assert not hasattr(serializer, "__dict__")


def test_wrong_limit() -> None:
    """A packet may have at least one byte."""
    with pytest.raises(ValueError, match=r"^limit must be a positive integer$"):
        NetstringSerializer(limit=0)


@pytest.mark.parametrize(
    ("packet", "data"), [(b"hello world!", b"12:hello world!,"), (b"", b"0:,"), (b",", b"1:,,")]
)
def test_serialize(packet: bytes, data: bytes) -> None:
    """Packets are written as the specification's examples are."""
    assert NetstringSerializer().serialize_frame(packet) == data


def test_datagram() -> None:
    """A datagram has its own length."""
    protocol = DatagramProtocol(NetstringSerializer())

    assert protocol.make_datagram(b"hello") == b"hello"
    assert protocol.build_packet_from_datagram(b"hello") == b"hello"


@each_protocol
def test_every_cut(make: MakeProtocol) -> None:
    """The same packets and errors come out however the stream is cut."""
    expected = [
        b"hello",
        (IncrementalDeserializeError, "Netstring does not end with a comma"),
        (IncrementalDeserializeError, "Netstring's length begins with 0"),
        (LimitOverrunError, "Packet of 21 bytes exceeds the limit of 20"),
        (IncrementalDeserializeError, "Netstring does not begin with a length: b'\\n'"),
        b"",
        b"12:",
    ]
    stream = b"5:hello,2:ab!02:ab,21:" + b"x" * 21 + b",\n0:,3:12:,"
    protocol = make(NetstringSerializer(limit=20))

    for chunks in every_cut(stream + b"1:"):
        assert outcomes(protocol, chunks) == expected, chunks


@each_protocol
@given(data=st.data())
def test_by_hypothesis(make: MakeProtocol, data: st.DataObject) -> None:
    """Packets of any bytes survive any cut."""
    protocol = make(NetstringSerializer())
    packets = data.draw(st.lists(st.binary(max_size=20), max_size=8))
    stream = b"".join(chunk for packet in packets for chunk in protocol.generate_chunks(packet))

    assert outcomes(protocol, data.draw(cuts(stream))) == packets


@each_protocol
def test_other_protocols(make: MakeProtocol) -> None:
    """Whoever speaks something else gets errors, whatever it is."""
    for hello in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"):
        found = outcomes(make(NetstringSerializer()), byte_by_byte(hello))
        assert len(found) >= 5
        assert {type(outcome) for outcome in found} == {tuple}
