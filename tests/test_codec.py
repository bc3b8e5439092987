from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Any

import pytest

from easynetwork.codec import codec_of, new_decoder_factory, packet_encoder
from easynetwork.converter import AbstractPacketConverter
from easynetwork.decoder import FramedDecoder, GeneratorDecoder, StreamDecoder
from easynetwork.exceptions import (
    DeserializeError,
    IncrementalDeserializeError,
    PacketConversionError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.serializers.abc import (
    FixedSizeFraming,
    LengthPrefixFraming,
    SeparatorFraming,
)
from easynetwork.serializers.framing import (
    AutoSeparatedPacketSerializer,
    FixedSizePacketSerializer,
    FramedPacketSerializer,
    LengthPrefixedPacketSerializer,
)
from tests.decoding import PROTOCOLS, MakeProtocol, Protocol, new_decoder, outcomes

LINES = StringLineSerializer()


class Loud(Exception):  # noqa: N818  # not an error: proof that a method was called
    """Raised by the methods that a test's subclass overrides."""


def loud(*args: Any) -> Any:
    raise Loud


def subclass(base: type, *names: str) -> Any:
    """Return a subclass in which the methods of those names raise `Loud`."""
    return type(f"My{base.__name__}", (base,), {"__slots__": ()} | dict.fromkeys(names, loud))


def assert_is_called(protocol: Protocol, data: bytes = b"a\n") -> None:
    """Assert that parsing comes to a method that `subclass()` has put into a protocol object."""
    with pytest.raises(ProtocolCrashedError, match="crashed") as info:
        outcomes(protocol, [data])
    assert isinstance(info.value.__cause__, Loud)


# -- Which decoder -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [
        (StreamProtocol(LINES), FramedDecoder),
        (BufferedStreamProtocol(LINES), FramedDecoder),
        (StreamProtocol(JSONSerializer()), FramedDecoder),
        (StreamProtocol(JSONSerializer(use_lines=False)), GeneratorDecoder),
        (subclass(StreamProtocol)(LINES), FramedDecoder),
        (subclass(BufferedStreamProtocol)(LINES), FramedDecoder),
        (StreamProtocol(subclass(StringLineSerializer)()), FramedDecoder),
        (subclass(StreamProtocol, "generate_chunks")(LINES), FramedDecoder),
        (StreamProtocol(subclass(StringLineSerializer, "incremental_serialize")()), FramedDecoder),
    ],
)
def test_decoder(protocol: Protocol, kind: type[StreamDecoder]) -> None:
    """Whoever knows where packets end, and overrides nothing that parses, gets the fast decoder."""
    assert isinstance(new_decoder(protocol), kind)


@pytest.mark.parametrize("base", [StreamProtocol, BufferedStreamProtocol])
def test_overridden_serializer(base: Callable[[Any], Protocol]) -> None:
    """What a serializer's subclass overrides is called, whichever method it is."""
    parser = (
        "incremental_deserialize" if base is StreamProtocol else "buffered_incremental_deserialize"
    )
    for name in (parser, "deserialize_frame"):
        assert_is_called(base(subclass(StringLineSerializer, name)()))


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (StreamProtocol, "build_packet_from_chunks"),
        (BufferedStreamProtocol, "build_packet_from_buffer"),
        (BufferedStreamProtocol, "create_buffer"),
    ],
)
def test_overridden_protocol(base: type, name: str) -> None:
    """What a protocol's subclass overrides is called."""
    assert_is_called(subclass(base, name)(LINES))


@pytest.mark.parametrize(
    ("base", "argument"),
    [
        (AutoSeparatedPacketSerializer, b"\n"),
        (FixedSizePacketSerializer, 2),
        (LengthPrefixedPacketSerializer, "varint"),
    ],
)
def test_overridden_one_shot(base: type, argument: Any) -> None:
    """Subclasses of the framing serializers are parsed by their `deserialize()`."""
    serializer = type("Mine", (base,), {"serialize": loud, "deserialize": loud})
    for make in PROTOCOLS:
        assert_is_called(make(serializer(argument)), b"\1\n")


class ReversingSerializer(StringLineSerializer):
    """Overrides where a frame ends, and what it means."""

    __slots__ = ()

    def framing(self) -> SeparatorFraming:
        return SeparatorFraming(b";", 10)

    def deserialize_frame(self, frame: bytes, /) -> str:
        return frame.decode()[::-1]


@pytest.mark.parametrize("make", PROTOCOLS)
def test_overridden_frames(make: MakeProtocol) -> None:
    """A serializer that overrides its frames is asked for frames, and its generators follow."""
    protocol = make(ReversingSerializer())
    is_fast = make in (StreamProtocol, BufferedStreamProtocol)
    assert isinstance(new_decoder(protocol), FramedDecoder) is is_fast
    assert outcomes(protocol, [b"ab;c", b"d;"]) == ["ba", "dc"]


@pytest.mark.parametrize("name", ["framing", "deserialize_frame"])
@pytest.mark.parametrize("base", [StreamProtocol, BufferedStreamProtocol])
def test_overriding_frames_costs_nothing(base: Callable[[Any], Protocol], name: str) -> None:
    """Neither method alone makes the generators necessary."""
    override = {name: getattr(StringLineSerializer, name)}
    serializer = type("Mine", (StringLineSerializer,), override)()
    assert isinstance(new_decoder(base(serializer)), FramedDecoder)


class FixedSizeFrames(FramedPacketSerializer[bytes, bytes, memoryview]):
    """Frames of two bytes."""

    __slots__ = ()

    def serialize_frame(self, packet: bytes, /) -> bytes:
        return packet

    def framing(self) -> FixedSizeFraming:
        return FixedSizeFraming(2)

    def deserialize_frame(self, frame: bytes, /) -> bytes:
        return frame


@pytest.mark.parametrize("make", PROTOCOLS)
def test_users_own_frames(make: MakeProtocol) -> None:
    """A user's serializer may say where its packets end; it needs nothing else."""
    assert outcomes(make(FixedSizeFrames()), [b"a", b"bcd", b"e"]) == [b"ab", b"cd"]
    assert packet_encoder(make(FixedSizeFrames()))(b"ab") == b"ab"


class BareProtocol(StreamProtocol[str, str]):
    """Needs nothing of its base class but to be one."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def generate_chunks(self, packet: str) -> Generator[bytes, None, None]:
        yield packet.encode()
        yield b"."

    def build_packet_from_chunks(self) -> Generator[None, bytes, tuple[str, bytes]]:
        data = yield
        while b"." not in data:
            data += yield
        packet, _, remaining = data.partition(b".")
        return packet.decode(), remaining


class BareBufferedProtocol(BufferedStreamProtocol[str, str, bytearray]):
    """The same with a buffer."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def create_buffer(self, sizehint: int) -> bytearray:
        return bytearray(3)

    def generate_chunks(self, packet: str) -> Generator[bytes, None, None]:
        yield packet.encode() + b"."

    def build_packet_from_buffer(
        self, buffer: bytearray
    ) -> Generator[int, int, tuple[str, memoryview]]:
        received = yield 0
        while (end := buffer.find(b".", 0, received)) < 0:
            received += yield received
        return buffer[:end].decode(), memoryview(buffer)[end + 1 : received]


@pytest.mark.parametrize("make", [BareProtocol, BareBufferedProtocol])
def test_bare_protocol(make: Callable[[], Protocol]) -> None:
    """A protocol that overrides everything needs no serializer, and no constructor."""
    protocol = make()
    assert outcomes(protocol, [b"ab.c", b"d.e.", b"f"]) == ["ab", "cd", "e"]
    assert packet_encoder(protocol)("ab") == b"ab."


# -- Frames to packets -------------------------------------------------------------------------


class IntConverter(AbstractPacketConverter[int, str]):
    """Numbers as text. It is false, as anything that has a length of 0 would be."""

    __slots__ = ()

    def __len__(self) -> int:
        return 0

    def create_from_dto_packet(self, packet: str, /) -> int:
        if packet == "deep":
            return self.create_from_dto_packet(packet)
        if packet == "bug":
            raise KeyError(packet)
        if not packet.isdigit():
            raise PacketConversionError("not a number")
        return int(packet)

    def convert_to_dto_packet(self, obj: int, /) -> str:
        return str(obj + 0)


each_protocol = pytest.mark.parametrize("make", PROTOCOLS)


@each_protocol
def test_converter(make: Callable[..., Protocol]) -> None:
    """A converter is asked whichever way a packet takes; its complaints are parse errors."""
    protocol = make(StringLineSerializer(), IntConverter())

    assert outcomes(protocol, [b"1\nx\ndeep\n2\n"]) == [
        1,
        (PacketConversionError, "not a number"),
        (PacketConversionError, "Data is nested too deeply"),
        2,
    ]


@each_protocol
def test_converter_bug(make: Callable[..., Protocol]) -> None:
    """Any other exception of a converter is a bug; the next packet is fine.

    But not with a protocol object of the user's: there, nobody knows where that begins.
    """
    decoder = new_decoder(make(StringLineSerializer(), IntConverter()))
    decoder.feed(b"bug\n")
    with pytest.raises(
        ProtocolCrashedError, match=r"^protocol.build_packet_from_\w+\(\) crashed$"
    ) as info:
        decoder.take()
    assert isinstance(info.value.__cause__, KeyError)
    decoder.feed(b"3\n")
    assert decoder.take() == (NEED_DATA if make in PROTOCOLS[1::2] else 3)


class DeepSerializer(AutoSeparatedPacketSerializer[str, str]):
    """Lets out what a serializer should not."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        super().__init__(b"\n")
        self.error = error

    def serialize(self, packet: str, /) -> bytes:
        raise self.error

    def deserialize(self, data: bytes, /) -> str:
        raise self.error


@each_protocol
def test_serializer_bug(make: MakeProtocol) -> None:
    """Any exception but parse errors is the serializer's bug."""
    with pytest.raises(
        ProtocolCrashedError, match=r"^protocol.build_packet_from_\w+\(\) crashed$"
    ) as info:
        outcomes(make(DeepSerializer(KeyError("oops"))), [b"a\n"])
    assert isinstance(info.value.__cause__, KeyError)


ERRORS: list[Exception] = [
    DeserializeError("plain"),
    IncrementalDeserializeError("incremental", b""),
    PacketConversionError("conversion"),
    StreamProtocolParseError(b"", IncrementalDeserializeError("parse", b"")),
    KeyError("bug"),
]


class RaisingLines(StringLineSerializer):
    """Raises in a frame what a test is about."""

    __slots__ = ("error",)

    error: Exception

    def deserialize_frame(self, frame: bytes, /) -> str:
        raise self.error


class RaisingConverter(IntConverter):
    """The same for a converter."""

    __slots__ = ("error",)

    error: Exception

    def create_from_dto_packet(self, packet: str, /) -> int:
        raise self.error


def final_errors(protocol: Protocol) -> list[tuple[type, str]]:
    """Return what comes out for a line: an exception, its cause, the cause of that and so on."""
    decoder = new_decoder(protocol)
    decoder.feed(b"a\n")
    with pytest.raises(Exception) as info:  # noqa: PT011  # Which one is what is compared.
        decoder.take()
    assert not decoder
    errors = []
    exc: BaseException | None = info.value
    while exc is not None:
        errors.append((type(exc), re.sub("chunks|buffer", "", str(exc))))
        exc = exc.__cause__
    return errors


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("raising", ["serializer", "converter"])
def test_same_errors(raising: str, error: Exception) -> None:
    """Whose fault it is depends on who raises what, never on the way the packet takes."""
    arguments: tuple[Any, ...]
    if raising == "serializer":
        serializer = RaisingLines()
        serializer.error = error
        arguments = (serializer,)
    else:
        converter = RaisingConverter()
        converter.error = error
        arguments = (LINES, converter)
    all_protocols: Any = PROTOCOLS
    for shortcut, generators in zip(all_protocols[::2], all_protocols[1::2], strict=True):
        assert isinstance(new_decoder(shortcut(*arguments)), FramedDecoder)
        assert final_errors(shortcut(*arguments)) == final_errors(generators(*arguments))


@each_protocol
def test_serializer_recursion(make: MakeProtocol) -> None:
    """Data that exhausts the stack is the peer's fault."""
    found = outcomes(make(DeepSerializer(RecursionError("too deep"))), [b"a\n"])
    assert found == [(IncrementalDeserializeError, "Error when deserializing data: too deep")]


class DeepFrames(FixedSizeFrames):
    """Exhausts the stack on both ways."""

    __slots__ = ()

    def deserialize_frame(self, frame: bytes, /) -> bytes:
        return self.deserialize_frame(frame)


@pytest.mark.parametrize("make", PROTOCOLS[:2])
def test_recursion(make: MakeProtocol) -> None:
    """The same for serializers that leave it to the library."""
    decoder = new_decoder(make(DeepFrames()))
    decoder.feed(b"ab")
    with pytest.raises(StreamProtocolParseError) as info:
        decoder.take()
    assert str(info.value.error) == "Data is nested too deeply"
    assert isinstance(info.value.error.__cause__, RecursionError)


@each_protocol
def test_error_belongs_to_its_packet(make: MakeProtocol) -> None:
    """A parse error has its reason as attribute and as cause."""
    decoder = new_decoder(make(StringLineSerializer(debug=True)))
    decoder.feed(b"\xff\n")
    with pytest.raises(StreamProtocolParseError) as info:
        decoder.take()
    assert info.value.__cause__ is info.value.error
    assert isinstance(info.value.error, DeserializeError)
    assert info.value.error.error_info == {"data": b"\xff"}


# -- Packets to bytes --------------------------------------------------------------------------


class ChunkedSerializer(StringLineSerializer):
    """Sends one character at a time, in whatever is like bytes."""

    __slots__ = ()

    def incremental_serialize(self, packet: str, /) -> Generator[Any, None, None]:
        for kind, character in zip((bytes, bytearray, memoryview), packet, strict=False):
            yield kind(character.encode())


@each_protocol
@pytest.mark.parametrize(
    ("serializer", "packet", "data"),
    [
        (StringLineSerializer(), "abc", b"abc\n"),
        (StringLineSerializer("CRLF"), "abc\r\n", b"abc\r\n"),
        (StringLineSerializer(), "", b"\n"),
        (ChunkedSerializer(), "abc", b"abc"),
    ],
)
def test_encoder(make: MakeProtocol, serializer: Any, packet: str, data: bytes) -> None:
    """A packet's bytes are what `generate_chunks()` yields, joined."""
    protocol = make(serializer)
    encoded = packet_encoder(protocol)(packet)
    assert type(encoded) is bytes
    assert encoded == data == b"".join(protocol.generate_chunks(packet))


@each_protocol
def test_encoder_converts(make: Callable[..., Protocol]) -> None:
    """A packet goes through the converter first."""
    assert packet_encoder(make(StringLineSerializer(), IntConverter()))(12) == b"12\n"


@pytest.mark.parametrize(
    "protocol",
    [
        StreamProtocol(subclass(StringLineSerializer, "serialize_frame")()),
        StreamProtocol(subclass(StringLineSerializer, "incremental_serialize")()),
        subclass(StreamProtocol, "generate_chunks")(LINES),
        subclass(BufferedStreamProtocol, "generate_chunks")(LINES),
        StreamProtocol(DeepSerializer(Loud())),
        StreamProtocol(LINES, subclass(IntConverter, "convert_to_dto_packet")()),
    ],
)
def test_overridden_encoding(protocol: Protocol) -> None:
    """What a subclass overrides is called; its exceptions are said to be its own."""
    with pytest.raises(
        ProtocolCrashedError, match=r"^protocol.generate_chunks\(\) crashed$"
    ) as info:
        packet_encoder(protocol)("a")
    assert isinstance(info.value.__cause__, Loud)


@each_protocol
def test_encoder_crash(make: Callable[..., Protocol]) -> None:
    """A packet of the wrong type is reported; the next one is fine."""
    encode = packet_encoder(make(StringLineSerializer(), IntConverter()))
    with pytest.raises(
        ProtocolCrashedError, match=r"^protocol.generate_chunks\(\) crashed$"
    ) as info:
        encode("not a number")
    assert isinstance(info.value.__cause__, TypeError)
    assert encode(1) == b"1\n"


class Sends(StringLineSerializer):
    """Sends what a test says."""

    __slots__ = ("chunk",)

    def __init__(self, chunk: Any) -> None:
        super().__init__()
        self.chunk = chunk

    def serialize_frame(self, packet: str, /) -> Any:
        return self.chunk


@each_protocol
@pytest.mark.parametrize("chunk", ["text", None, 5, [98]])
def test_encoder_of_no_bytes(make: MakeProtocol, chunk: Any) -> None:
    """What is not bytes is not sent; a number is not as many zeros."""
    with pytest.raises(ProtocolCrashedError) as info:
        packet_encoder(make(Sends(chunk)))("a")
    assert str(info.value) == (
        f"serialize_frame() returned a value of type {type(chunk).__name__}, not bytes"
    )

    class Chunks(Sends):
        def incremental_serialize(self, packet: str) -> Generator[Any, None, None]:
            yield self.chunk

    with pytest.raises(
        ProtocolCrashedError, match=r"^protocol.generate_chunks\(\) crashed"
    ) as info:
        packet_encoder(make(Chunks(chunk)))("a")
    assert isinstance(info.value.__cause__, TypeError)


@each_protocol
@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_encoder_copies(make: MakeProtocol, kind: Any) -> None:
    """What is like bytes cannot change any more, while it waits to be sent."""
    data = bytearray(b"a")

    encoded = packet_encoder(make(Sends(kind(data))))("a")
    data[0] = 0

    assert type(encoded) is bytes
    assert encoded == b"a"


@each_protocol
def test_encoder_of_nothing(make: MakeProtocol) -> None:
    """A packet that no peer could receive is not lost in silence."""
    with pytest.raises(ProtocolCrashedError) as info:
        packet_encoder(make(Sends(b"")))("a")
    assert str(info.value) == (
        "protocol.generate_chunks() yielded no bytes, which no peer can receive as a packet"
    )


# -- What is checked before anything is served -------------------------------------------------


class Framed(StringLineSerializer):
    """Says what a test says about its frames."""

    __slots__ = ("answer",)

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def framing(self) -> Any:
        return self.answer()


@pytest.mark.parametrize("make", [StreamProtocol, BufferedStreamProtocol])
@pytest.mark.parametrize(
    ("answer", "error_type", "message"),
    [
        (lambda: b"\n", TypeError, r"Framed.framing\(\) must return a SeparatorFraming, .* b'\\n'"),
        (lambda: 5, TypeError, r"Framed.framing\(\) must return a SeparatorFraming, .* not 5"),
        (lambda: SeparatorFraming("\n", 10), TypeError, r"separator must be bytes, not '\\n'"),  # type: ignore[arg-type]
        (lambda: SeparatorFraming(10, 10), TypeError, "separator must be bytes, not 10"),  # type: ignore[arg-type]
        (lambda: SeparatorFraming(b"\n", 1.5), TypeError, "limit must be a positive integer"),  # type: ignore[arg-type]
        (lambda: SeparatorFraming(b"\n", 0), ValueError, "limit must be a positive integer"),
        (lambda: FixedSizeFraming("5"), TypeError, "size must be a positive integer, not '5'"),  # type: ignore[arg-type]
        (
            lambda: LengthPrefixFraming("u8", 10, offset=None),  # type: ignore[arg-type]
            TypeError,
            "offset must be an integer, not None",
        ),
        (
            lambda: LengthPrefixFraming("u8", 10, adjustment=0.5),  # type: ignore[arg-type]
            TypeError,
            "adjustment must be an integer, not 0.5",
        ),
        (
            lambda: LengthPrefixFraming("decimal", 10, terminator=" "),  # type: ignore[arg-type]
            TypeError,
            "terminator must be bytes, not ' '",
        ),
        (
            lambda: LengthPrefixFraming("varint", 10, max_digits=0.5),  # type: ignore[arg-type]
            TypeError,
            "max_digits must be a positive integer, not 0.5",
        ),
    ],
)
def test_framing_that_is_none(
    make: MakeProtocol, answer: Any, error_type: type[Exception], message: str
) -> None:
    """Nonsense is refused when a server or a client is made; the peer does not have to wait."""
    with pytest.raises(error_type, match=message):
        new_decoder_factory(make(Framed(answer)), 1024)


def test_separators_that_are_none() -> None:
    """So it is for those of the base class: a number is not as many zeros."""
    serializer = type(
        "Mine", (AutoSeparatedPacketSerializer,), {"serialize": loud, "deserialize": loud}
    )
    for separator in ("\n", 5, None):
        with pytest.raises(TypeError):
            serializer(separator)
    assert serializer(bytearray(b"|")).separator == b"|"


# -- Remembered --------------------------------------------------------------------------------


def test_codec_is_remembered() -> None:
    """A protocol object that is used again is not examined again."""
    protocol = StreamProtocol(StringLineSerializer())
    assert codec_of(protocol, 10) is codec_of(protocol, 10)
    assert codec_of(protocol, 10) is not codec_of(StreamProtocol(StringLineSerializer()), 10)


def test_codec_of_what_is_not_hashable() -> None:
    """A protocol object need not be hashable; what is none is refused."""

    class Unhashable(StreamProtocol[str, str]):
        __hash__ = None  # type: ignore[assignment]

    protocol = Unhashable(StringLineSerializer())
    assert codec_of(protocol, 10).protocol is protocol
    no_protocol: Any = []
    with pytest.raises(TypeError, match="^Expected a StreamProtocol or a BufferedStreamProtocol"):
        codec_of(no_protocol, 10)
