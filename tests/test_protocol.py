from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Generator
from typing import Any

import pytest

from easynetwork.converter import AbstractPacketConverter, StapledPacketConverter
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    DeserializeError,
    IncrementalDeserializeError,
    PacketConversionError,
    StreamProtocolParseError,
)
from easynetwork.protocol import (
    BufferedStreamProtocol,
    DatagramProtocol,
    StreamProtocol,
    check_datagram_protocol,
    check_stream_protocol,
)
from easynetwork.serializers import (
    JSONSerializer,
    LengthPrefixedSerializer,
    StapledPacketSerializer,
    StringLineSerializer,
)
from easynetwork.serializers.abc import (
    AbstractPacketSerializer,
    BufferedIncrementalPacketSerializer,
)
from tests.tools import check_every_cut, parse_one


class IntConverter(AbstractPacketConverter[int, str]):
    """Numbers as text. Two words stand for what a converter can do wrong."""

    __slots__ = ()

    def create_from_dto_packet(self, packet: str, /) -> int:
        if packet == "recursion":
            return self.create_from_dto_packet(packet)
        if packet == "bug":
            raise KeyError(packet)
        try:
            return int(packet)
        except ValueError as exc:
            raise PacketConversionError("not a number", packet) from exc

    def convert_to_dto_packet(self, obj: int, /) -> str:
        return str(obj)


class Misbehaving(BufferedIncrementalPacketSerializer[Any, Any, bytearray]):
    """Raises what it is told to, whenever it is asked to parse."""

    __slots__ = ("make_error",)

    def __init__(self, make_error: Callable[[], Exception]) -> None:
        self.make_error = make_error

    def deserialize(self, data: bytes, /) -> Any:
        raise self.make_error()

    def incremental_serialize(self, packet: Any, /) -> Generator[bytes, None, None]:
        raise self.make_error()
        yield b""

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Any, bytes]]:
        yield
        raise self.make_error()

    def create_deserializer_buffer(self, sizehint: int, /) -> bytearray:
        return bytearray(sizehint)

    def buffered_incremental_deserialize(
        self, buffer: bytearray, /
    ) -> Generator[None, int, tuple[Any, bytes]]:
        yield
        raise self.make_error()


class OneShot(AbstractPacketSerializer[Any, Any]):
    """A serializer for datagrams only."""

    __slots__ = ()

    def serialize(self, packet: Any, /) -> bytes:
        return json.dumps(packet).encode()

    def deserialize(self, data: bytes, /) -> Any:
        return json.loads(data)


AnyStream = type[StreamProtocol[Any, Any]] | type[BufferedStreamProtocol[Any, Any, Any]]

both_streams = pytest.mark.parametrize("protocol_class", [StreamProtocol, BufferedStreamProtocol])


def parse(protocol: StreamProtocol[Any, Any] | BufferedStreamProtocol[Any, Any, Any], data: bytes):
    """Parse one packet out of `data`; return it and what follows."""
    if isinstance(protocol, StreamProtocol):
        return parse_one(protocol.build_packet_from_chunks(), data)
    buffer = protocol.create_buffer(1024)
    parser = protocol.build_packet_from_buffer(buffer)
    start = next(parser) or 0
    memoryview(buffer)[start : start + len(data)] = data
    try:
        parser.send(len(data))
    except StopIteration as stop:
        packet, remaining = stop.value
        return packet, bytes(remaining)
    raise AssertionError("The parser wants more data")


# -- Construction ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol_class", "serializer", "message"),
    [
        (DatagramProtocol, object(), "Expected a serializer instance, got "),
        (StreamProtocol, OneShot(), "Expected an incremental serializer instance, got "),
        (
            BufferedStreamProtocol,
            JSONSerializer(),
            "Expected a buffered incremental serializer instance, got ",
        ),
    ],
)
def test_wrong_serializer(protocol_class: Any, serializer: object, message: str) -> None:
    """A protocol refuses a serializer that cannot do what it needs."""
    with pytest.raises(TypeError) as caught:
        protocol_class(serializer)
    assert str(caught.value) == f"{message}{serializer!r}"


@pytest.mark.parametrize(
    "protocol_class", [DatagramProtocol, StreamProtocol, BufferedStreamProtocol]
)
def test_wrong_converter(protocol_class: Any) -> None:
    """A protocol refuses a converter that is none, even a class of converters."""
    with pytest.raises(TypeError) as caught:
        protocol_class(StringLineSerializer(), IntConverter)
    assert str(caught.value) == f"Expected a converter instance, got {IntConverter!r}"


@pytest.mark.parametrize(
    "protocol_class", [DatagramProtocol, StreamProtocol, BufferedStreamProtocol]
)
def test_parts(protocol_class: Any) -> None:
    """A protocol shows what it is made of, cannot be changed, and can be referred to weakly."""
    serializer, converter = StringLineSerializer(), IntConverter()
    protocol = protocol_class(serializer, converter)

    assert protocol.serializer is serializer
    assert protocol.converter is converter
    assert protocol_class(serializer).converter is None
    with pytest.raises(AttributeError):
        protocol.serializer = serializer
    assert not hasattr(protocol, "__dict__")
    assert weakref.ref(protocol)() is protocol


def test_check_stream_protocol() -> None:
    """Both stream protocols are stream protocols, nothing else is."""
    check_stream_protocol(StreamProtocol(JSONSerializer()))
    check_stream_protocol(BufferedStreamProtocol(StringLineSerializer()))
    protocol = DatagramProtocol(JSONSerializer())
    with pytest.raises(TypeError) as caught:
        check_stream_protocol(protocol)
    assert str(caught.value) == (
        f"Expected a StreamProtocol or a BufferedStreamProtocol object, got {protocol!r}"
    )


# -- Datagrams ---------------------------------------------------------------------------------


def test_datagram() -> None:
    """A datagram is one packet, without any framing."""
    protocol = DatagramProtocol(StringLineSerializer())

    assert protocol.make_datagram("hello") == b"hello"
    assert protocol.build_packet_from_datagram(b"hello") == "hello"


def test_datagram_with_converter() -> None:
    """A packet goes through the converter on its way out and in."""
    protocol = DatagramProtocol(StringLineSerializer(), IntConverter())

    assert protocol.make_datagram(42) == b"42"
    assert protocol.build_packet_from_datagram(b"42") == 42


@pytest.mark.parametrize(
    ("datagram", "error_type"),
    [(b"\xff", DeserializeError), (b"x", PacketConversionError)],
)
def test_bad_datagram(datagram: bytes, error_type: type[Exception]) -> None:
    """Whoever finds that a datagram is bad, it is a parse error with the reason in it."""
    protocol = DatagramProtocol(StringLineSerializer(), IntConverter())
    with pytest.raises(DatagramProtocolParseError) as caught:
        protocol.build_packet_from_datagram(datagram)

    assert isinstance(caught.value.error, error_type)
    assert caught.value.__cause__ is caught.value.error


def test_datagram_recursion() -> None:
    """Data nested too deeply is the peer's fault."""
    serializer = Misbehaving(lambda: RecursionError("too deep"))
    with pytest.raises(DatagramProtocolParseError) as caught:
        DatagramProtocol(serializer).build_packet_from_datagram(b"x")
    assert isinstance(caught.value.error, DeserializeError)
    assert isinstance(caught.value.error.__cause__, RecursionError)

    protocol = DatagramProtocol(StringLineSerializer(), IntConverter())
    with pytest.raises(DatagramProtocolParseError) as caught:
        protocol.build_packet_from_datagram(b"recursion")
    assert isinstance(caught.value.error, PacketConversionError)
    assert isinstance(caught.value.error.__cause__, RecursionError)


def test_datagram_bugs() -> None:
    """A bug of the serializer or of the converter is not blamed on the peer."""
    with pytest.raises(ZeroDivisionError):
        DatagramProtocol(Misbehaving(ZeroDivisionError)).build_packet_from_datagram(b"x")
    protocol = DatagramProtocol(StringLineSerializer(), IntConverter())
    with pytest.raises(KeyError):
        protocol.build_packet_from_datagram(b"bug")


# -- Streams -----------------------------------------------------------------------------------


@both_streams
def test_stream(protocol_class: AnyStream) -> None:
    """A packet is sent with its framing, and received with what follows it."""
    protocol = protocol_class(StringLineSerializer())

    assert list(protocol.generate_chunks("hello")) == [b"hello\n"]
    assert parse(protocol, b"hello\nwor") == ("hello", b"wor")


@both_streams
def test_stream_with_converter(protocol_class: AnyStream) -> None:
    """A packet goes through the converter on its way out and in."""
    protocol = protocol_class(StringLineSerializer(), IntConverter())

    assert list(protocol.generate_chunks(42)) == [b"42\n"]
    assert parse(protocol, b"42\n43") == (42, b"43")


def test_stream_cut() -> None:
    """The same packets and errors come out however the stream is cut."""
    protocol = StreamProtocol(StringLineSerializer(), IntConverter())
    not_a_number = (StreamProtocolParseError, "Error while parsing data: not a number")

    check_every_cut(
        protocol.build_packet_from_chunks, b"1\nx\n22\n", [1, not_a_number, 22], trailing=b"3"
    )


@both_streams
@pytest.mark.parametrize(
    ("data", "error_type"),
    [(b"\xff\nnext", IncrementalDeserializeError), (b"x\nnext", PacketConversionError)],
)
def test_bad_packet(protocol_class: AnyStream, data: bytes, error_type: type[Exception]) -> None:
    """A bad packet is a parse error with the reason, and what follows, in it."""
    protocol = protocol_class(StringLineSerializer(), IntConverter())
    with pytest.raises(StreamProtocolParseError) as caught:
        parse(protocol, data)

    assert isinstance(caught.value.error, error_type)
    assert caught.value.__cause__ is caught.value.error
    assert caught.value.remaining_data == b"next"


@both_streams
def test_serializer_recursion(protocol_class: AnyStream) -> None:
    """Data nested too deeply for the serializer is the peer's fault, and all of it is lost."""
    protocol = protocol_class(Misbehaving(lambda: RecursionError("too deep")))
    with pytest.raises(StreamProtocolParseError) as caught:
        parse(protocol, b"x")

    assert isinstance(caught.value.error, IncrementalDeserializeError)
    assert isinstance(caught.value.error.__cause__, RecursionError)
    assert caught.value.remaining_data == b""


@both_streams
def test_converter_recursion(protocol_class: AnyStream) -> None:
    """Data nested too deeply for the converter is the peer's fault; the next packet is safe."""
    protocol = protocol_class(StringLineSerializer(), IntConverter())
    with pytest.raises(StreamProtocolParseError) as caught:
        parse(protocol, b"recursion\nnext")

    assert isinstance(caught.value.error, PacketConversionError)
    assert isinstance(caught.value.error.__cause__, RecursionError)
    assert caught.value.remaining_data == b"next"


@both_streams
def test_plain_deserialize_error(protocol_class: AnyStream) -> None:
    """A stream's serializer has to tell where the next packet begins."""
    protocol = protocol_class(Misbehaving(lambda: DeserializeError("bad")))
    message = "^DeserializeError raised instead of IncrementalDeserializeError$"
    with pytest.raises(RuntimeError, match=message) as caught:
        parse(protocol, b"x")

    assert isinstance(caught.value.__cause__, DeserializeError)


@both_streams
def test_stream_bugs(protocol_class: AnyStream) -> None:
    """A bug of the serializer or of the converter is not blamed on the peer."""
    with pytest.raises(ZeroDivisionError):
        parse(protocol_class(Misbehaving(ZeroDivisionError)), b"x")
    with pytest.raises(ZeroDivisionError):
        list(protocol_class(Misbehaving(ZeroDivisionError)).generate_chunks("x"))
    with pytest.raises(KeyError):
        parse(protocol_class(StringLineSerializer(), IntConverter()), b"bug\n")


def test_remaining_data_outlives_the_buffer() -> None:
    """A parse error that is kept does not change when the buffer is used again."""
    protocol = BufferedStreamProtocol(StringLineSerializer(), IntConverter())
    buffer = protocol.create_buffer(1024)
    parser = protocol.build_packet_from_buffer(buffer)
    next(parser)
    buffer[:6] = b"x\nnext"
    with pytest.raises(StreamProtocolParseError) as caught:
        parser.send(6)
    buffer[:6] = b"------"

    assert caught.value.remaining_data == b"next"


# -- Constructors that were not called ---------------------------------------------------------


def forgetful(base: Any, *arguments: Any) -> Any:
    """Return an object of a subclass whose constructor does not call that of the base class."""
    names = {"__init__": lambda self, *_: None, "__slots__": ()}
    return type("Forgetful", (base,), names)(*arguments)


FORGOT = r"^Forgetful.__init__\(\) did not call super\(\).__init__\(\), which \w+ needs$"


@pytest.mark.parametrize("base", [StreamProtocol, BufferedStreamProtocol, DatagramProtocol])
def test_protocol_without_constructor(base: Any) -> None:
    """It is said when a server or a client is made, not while it serves."""
    check: Any = check_datagram_protocol if base is DatagramProtocol else check_stream_protocol
    with pytest.raises(TypeError, match=FORGOT):
        check(forgetful(base))
    check(base(StringLineSerializer()))


def test_protocol_that_overrides_some() -> None:
    """What is not overridden needs the constructor."""

    class Mine(StreamProtocol[Any, Any]):
        def __init__(self) -> None:
            pass

        def generate_chunks(self, packet: Any) -> Generator[bytes, None, None]:
            yield b""

    with pytest.raises(TypeError, match=r"^Mine.__init__\(\) did not call"):
        check_stream_protocol(Mine())


@pytest.mark.parametrize("make", [StreamProtocol, BufferedStreamProtocol, DatagramProtocol])
def test_serializer_without_constructor(make: Any) -> None:
    """So it is for a serializer, and for what is inside of one."""
    with pytest.raises(TypeError, match=FORGOT):
        make(forgetful(StringLineSerializer))
    with pytest.raises(TypeError, match=FORGOT):
        make(LengthPrefixedSerializer(forgetful(StringLineSerializer)))
    with pytest.raises(TypeError, match=FORGOT):
        make(StapledPacketSerializer(StringLineSerializer(), forgetful(StringLineSerializer)))


def test_converter_without_constructor() -> None:
    """So it is for a converter that has one."""
    with pytest.raises(TypeError, match=FORGOT):
        StreamProtocol(StringLineSerializer(), forgetful(StapledPacketConverter, None, None))


def test_attributes_of_the_users_own() -> None:
    """What a user's class has, it may set when it likes."""

    class Mine(StringLineSerializer):
        __slots__ = ("later",)

    check_stream_protocol(StreamProtocol(Mine()))
