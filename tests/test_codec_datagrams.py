"""How a datagram protocol object is driven: as if by its own methods, whoever has written them."""

from __future__ import annotations

from typing import Any

import pytest

from easynetwork.codec import datagram_builder, datagram_encoder
from easynetwork.converter import AbstractPacketConverter
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    DeserializeError,
    PacketConversionError,
    ProtocolCrashedError,
)
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.serializers.abc import AbstractPacketSerializer


class Serializer(AbstractPacketSerializer[Any, Any]):
    """Does to certain packets and datagrams what a test is about."""

    __slots__ = ()

    def serialize(self, packet: Any, /) -> bytes:
        return str(packet).encode("ascii")

    def deserialize(self, data: bytes, /) -> Any:
        match data:
            case b"bad":
                raise DeserializeError("bad data")
            case b"strange":
                raise PacketConversionError("strange data")
            case b"deep":
                return self.deserialize(data)
            case b"bug":
                raise LookupError("a bug")
        return data.decode()


class Number(AbstractPacketConverter[int, str]):
    """Numbers, but for 13."""

    __slots__ = ()

    def create_from_dto_packet(self, packet: str) -> int:
        if packet == "13":
            raise PacketConversionError("unlucky")
        return int(packet)

    def convert_to_dto_packet(self, obj: int) -> str:
        return str(obj + 0)


PLAIN: Any = DatagramProtocol(Serializer())
CONVERTED: Any = DatagramProtocol(Serializer(), Number())

each_protocol = pytest.mark.parametrize("protocol", [PLAIN, CONVERTED], ids=["plain", "converted"])


@each_protocol
def test_build(protocol: Any) -> None:
    """A datagram becomes what the protocol object makes of it."""
    assert datagram_builder(protocol)(b"5") == protocol.build_packet_from_datagram(b"5")


@each_protocol
def test_encode(protocol: Any) -> None:
    """And back."""
    assert datagram_encoder(protocol)(5) == protocol.make_datagram(5) == b"5"


@pytest.mark.parametrize(
    ("protocol", "datagram"),
    [
        (PLAIN, b"bad"),
        (PLAIN, b"deep"),
        (PLAIN, b"strange"),
        (CONVERTED, b"bad"),
        (CONVERTED, b"13"),
    ],
)
def test_peers_fault(protocol: Any, datagram: bytes) -> None:
    """The peer's fault is the same parse error, with the same reason, as the protocol object's."""
    with pytest.raises(DatagramProtocolParseError) as ours:
        datagram_builder(protocol)(datagram)
    with pytest.raises(DatagramProtocolParseError) as theirs:
        protocol.build_packet_from_datagram(datagram)
    assert str(ours.value) == str(theirs.value)
    for error in ours.value, theirs.value:
        assert error.__cause__ is error.error
    assert type(ours.value.error) is type(theirs.value.error)
    assert type(ours.value.error.__cause__) is type(theirs.value.error.__cause__)


@each_protocol
def test_crash(protocol: Any) -> None:
    """Anything else is the protocol object's, both ways."""
    with pytest.raises(
        RuntimeError, match=r"^protocol.build_packet_from_datagram\(\) crash"
    ) as info:
        datagram_builder(protocol)(b"bug")
    assert isinstance(info.value.__cause__, LookupError)
    with pytest.raises(ProtocolCrashedError, match=r"^protocol.make_datagram\(\) crashed$") as info:
        datagram_encoder(protocol)("é")
    assert info.value.__cause__ is not None


def test_overridden() -> None:
    """A subclass that overrides the methods is honoured."""

    class Protocol(DatagramProtocol[Any, Any]):
        __slots__ = ()

        def make_datagram(self, packet: Any) -> bytes:
            return b"<" + super().make_datagram(packet) + b">"

        def build_packet_from_datagram(self, datagram: bytes) -> Any:
            if datagram == b"bad":
                raise DeserializeError("not what this method may raise")
            return super().build_packet_from_datagram(datagram.strip(b"<>"))

    protocol = Protocol(StringLineSerializer())
    assert datagram_encoder(protocol)("a") == b"<a>"
    assert datagram_builder(protocol)(b"<a>") == "a"
    with pytest.raises(ProtocolCrashedError, match="crashed"):
        datagram_builder(protocol)(b"bad")
    with pytest.raises(DatagramProtocolParseError):
        datagram_builder(protocol)(b"<\xff>")


class Sends(AbstractPacketSerializer[Any, Any]):
    """Sends what it is told to."""

    __slots__ = ()

    def serialize(self, packet: Any) -> Any:
        return packet

    def deserialize(self, data: bytes) -> Any:
        return data


class Traced(DatagramProtocol[Any, Any]):
    """A user's protocol."""

    __slots__ = ()

    def make_datagram(self, packet: Any) -> bytes:
        return super().make_datagram(packet)


@pytest.mark.parametrize("make", [DatagramProtocol, Traced])
def test_datagrams_of_no_bytes(make: Any) -> None:
    """What is not bytes is not sent; what is like bytes is copied; nothing is a datagram, too."""
    encode = datagram_encoder(make(Sends()))
    for packet in ("text", 5, None, [98]):
        with pytest.raises(ProtocolCrashedError) as info:
            encode(packet)
        assert str(info.value) == (
            f"make_datagram() returned a value of type {type(packet).__name__}, not bytes"
        )
    assert encode(bytearray(b"a")) == encode(memoryview(b"a")) == b"a"
    assert type(encode(bytearray(b"a"))) is bytes
    assert encode(b"") == b""
