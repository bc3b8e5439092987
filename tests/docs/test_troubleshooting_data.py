"""The page with all messages: those about data that cannot be decoded, and about serializers.

Each test provokes messages, and does what the page says of them. See `message_support`.
"""

from __future__ import annotations

import collections
import contextlib
import inspect
import zlib
from collections.abc import AsyncGenerator, Generator
from typing import IO, Any

import anyio
import pytest

from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    DeserializeError,
    LimitOverrunError,
    PacketConversionError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers import (
    Base64EncoderSerializer,
    JSONSerializer,
    LengthPrefixedSerializer,
    NamedTupleStructSerializer,
    NetstringSerializer,
    RawSerializer,
    StapledPacketSerializer,
    StringLineSerializer,
    StructSerializer,
    ZlibCompressorSerializer,
)
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    AbstractPacketSerializer,
)
from easynetwork.serializers.composite import StapledBufferedIncrementalPacketSerializer
from easynetwork.serializers.framing import (
    AutoSeparatedPacketSerializer,
    FileBasedPacketSerializer,
    FixedSizePacketSerializer,
    LengthPrefixedPacketSerializer,
)
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.testing import check_serializer, serve, virtual_time
from tests.docs.howto_support import check_quotations
from tests.docs.message_support import Seen

PAGE = "troubleshooting.rst"


def test_quotations() -> None:
    """Whatever the tests quote is what the page says."""
    check_quotations(PAGE, globals())


class Sizes(FileBasedPacketSerializer[bytes, bytes]):
    """A byte says how many follow it. Refuses those that begin with "!"."""

    def __init__(self, limit: int = 1000) -> None:
        super().__init__(KeyError, limit=limit)

    def dump_to_file(self, packet: bytes, file: IO[bytes]) -> None:
        file.write(bytes([len(packet)]) + packet)

    def load_from_file(self, file: IO[bytes]) -> bytes:
        size = file.read(1)
        packet = file.read(size[0]) if size else b""
        if not size or len(packet) < size[0]:
            raise EOFError
        if packet.startswith(b"!"):
            raise KeyError(packet)
        return packet


class Converter(AbstractPacketConverterComposite[Any, Any, Any, Any]):
    """Raises an exception."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def create_from_dto_packet(self, packet: Any) -> Any:
        raise self.error

    def convert_to_dto_packet(self, obj: Any) -> Any:
        raise self.error


def error_of_stream(serializer: Any, data: bytes, converter: Any = None) -> Any:
    """Return the error of data that a stream protocol refuses."""
    parser = StreamProtocol(serializer, converter).build_packet_from_chunks()
    next(parser)
    with pytest.raises(StreamProtocolParseError) as caught:
        parser.send(data)
    return caught.value.error


def error_of_datagram(serializer: Any, data: bytes, converter: Any = None) -> Any:
    """Return the error of a datagram that is refused."""
    with pytest.raises(DatagramProtocolParseError) as caught:
        DatagramProtocol(serializer, converter).build_packet_from_datagram(data)
    return caught.value.error


# -- data that cannot be decoded


def test_limits() -> None:
    """A packet that is too large.

    LimitOverrunError: "Separator is not found, and chunk exceed the limit"

    LimitOverrunError: "Separator is found, but chunk is longer than limit"

    LimitOverrunError: "JSON object's end frame is found, but chunk is longer than limit"

    LimitOverrunError: "JSON object's end frame is not found, and chunk exceed the limit"

    "LimitOverrunError: chunk exceeded buffer limit"

    LimitOverrunError: "Packet of ... bytes exceeds the limit of ..."

    "The packet is too large, or its end is missing. The limit of the serializer is 64 KiB by
    default. Raise it if your packets are larger"
    """
    seen = Seen()
    lines, documents = StringLineSerializer(limit=10), JSONSerializer(limit=10, use_lines=False)
    text, document = b"x" * 20, b'{"a": "%b' % (b"x" * 20)
    for serializer, data in [
        (lines, text),
        (lines, text + b"\n"),
        (documents, document + b'"}'),
        (documents, document),
        (Sizes(10), b"\xff" + text),
        (NetstringSerializer(limit=10), b"20:"),
    ]:
        seen.note(error_of_stream(serializer, data))
    seen.check(test_limits)
    for cls in StringLineSerializer, JSONSerializer, NetstringSerializer, LengthPrefixedSerializer:
        assert inspect.signature(cls).parameters["limit"].default == 64 * 1024
    larger = StreamProtocol(StringLineSerializer(limit=30)).build_packet_from_chunks()
    next(larger)
    with pytest.raises(StopIteration):
        larger.send(text + b"\n")


class Recursive(StringLineSerializer):
    """Cannot read what is nested."""

    def deserialize(self, data: bytes) -> Any:  # type: ignore[misc]  # it is final
        raise RecursionError

    def incremental_deserialize(self) -> Any:
        yield
        raise RecursionError


def test_nested_data() -> None:
    """Data that is nested too deeply for a parser.

    LimitOverrunError: "Data is nested too deeply"

    DeserializeError: "Data is nested too deeply"

    PacketConversionError: "Data is nested too deeply"

    IncrementalDeserializeError: "JSON decode error:" "The document is nested too deeply"

    "For example, a list in a list in a list, a thousand times."
    """
    seen = Seen()
    seen.note(error_of_stream(Recursive(), b"x\n"))
    seen.note(error_of_datagram(Recursive(), b"x"))
    for error_of in error_of_stream, error_of_datagram:
        seen.note(error_of(StringLineSerializer(), b"x\n", Converter(RecursionError())))
    nested = b"[" * 1000 + b"]" * 1000
    seen.note(error_of_stream(JSONSerializer(use_lines=False), nested))
    seen.check(test_nested_data)


def test_json() -> None:
    """What is not JSON.

    IncrementalDeserializeError: "JSON decode error: ..."

    IncrementalDeserializeError: "JSON decode error:" "Expecting value: line 1 column 1 (char 0)"

    IncrementalDeserializeError: "Unicode decode error: ..."

    "The data is not JSON, or not in this encoding. The rest of the text is Python's, with the
    position."
    """
    seen = Seen()
    for data in b"\n", b'{"a": x}\n', b'"\xe4"\n', b"GET / HTTP/1.1\n":
        seen.note(error_of_stream(JSONSerializer(), data))
    assert "(char 6)" in seen.messages[1]
    assert "position 1" in seen.messages[2]
    seen.check(test_json)


Person = collections.namedtuple("Person", ["name"])


def test_wrong_data() -> None:
    """What a serializer does not make of any packet.

    IncrementalDeserializeError: "Deserialize error: ..."

    IncrementalDeserializeError: "Error when deserializing data: ..."

    DeserializeError: "Invalid value: ..."

    DeserializeError: "Invalid token"

    DeserializeError: "UnicodeError when building packet from unpacked struct value: ..."

    "The bytes are not what the serializer makes of a packet. With a signature, Invalid token also
    stands for a wrong key."
    """
    seen = Seen()
    people = NamedTupleStructSerializer(Person, {"name": "4s"})
    seen.note(error_of_stream(Sizes(), b"\1!"))
    seen.note(error_of_stream(people, b"\xff\xff\xff\xff"))
    seen.note(error_of_datagram(people, b"\xff\xff\xff\xff"))
    seen.note(error_of_datagram(StructSerializer("H"), b"\0"))
    key, other = (Base64EncoderSerializer.generate_key() for _ in range(2))
    signed = Base64EncoderSerializer(RawSerializer(), checksum=key)
    token = signed.serialize(b"hello")
    assert signed.deserialize(token) == b"hello"
    seen.note(error_of_datagram(signed, token[:-4]))
    seen.note(error_of_datagram(Base64EncoderSerializer(RawSerializer(), checksum=other), token))
    seen.check(test_wrong_data)


def test_size_of_datagrams() -> None:
    """Too few or too many bytes.

    DeserializeError: "Missing data to create packet"

    DeserializeError: "Extra data caught"

    "A datagram, or a frame, has too few or too many bytes."
    """
    seen = Seen()
    for data in b"\5hell", b"\5hello!":
        seen.note(error_of_datagram(Sizes(), data))
    framed = LengthPrefixedSerializer(Sizes(), "u8")
    for data, message in zip((b"\5\5hell", b"\7\5hello!"), seen.messages, strict=True):
        assert str(error_of_stream(framed, data)).endswith(message.partition(": ")[2])
    seen.check(test_size_of_datagrams)


def test_compressed_data() -> None:
    """What cannot be decompressed.

    DeserializeError: "Compressed data ended before the end-of-stream marker was reached"

    DeserializeError: "Trailing data error"

    IncrementalDeserializeError: "Decompression error: ..."

    IncrementalDeserializeError: "Error while deserializing decompressed data: ..."

    "The data is not compressed, or in another format, or it is corrupt."
    """
    seen = Seen()
    serializer, data = ZlibCompressorSerializer(Sizes()), zlib.compress(b"\5hello")
    seen.note(error_of_datagram(serializer, data[:-1]))
    seen.note(error_of_datagram(serializer, data + b"!"))
    for wrong in b"hello", data[:-1] + b"!", b"BZh9" + data:
        seen.note(error_of_stream(serializer, wrong))
    seen.note(error_of_stream(serializer, zlib.compress(b"\1!")))
    seen.check(test_compressed_data)


def test_error_of_a_handler() -> None:
    """A handler gets the same error as is in the log.

    "These are the texts after sent invalid data: in the log, and of the attribute error of
    StreamProtocolParseError and DatagramProtocolParseError. If you did not expect them, the two
    sides have different serializers, or one side speaks another protocol: a browser, for example,
    sends HTTP, or TLS."
    """
    handler = Catching()
    run(handler, StreamProtocol(JSONSerializer()), b"GET / HTTP/1.1\r\n")
    assert isinstance(handler.error, StreamProtocolParseError)
    assert str(handler.error.error).startswith("JSON decode error: Expecting value")
    run(handler, StreamProtocol(JSONSerializer()), b"\x16\x03\x01\x02\x00\x01\n")
    assert str(handler.error.error).startswith("JSON decode error: Expecting value")


class Catching(AsyncStreamRequestHandler[Any, Any]):
    """Keeps what is raised at its yield. A packet is sent back, and so is the cause of an error."""

    def __init__(self) -> None:
        self.error: Any = None

    async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
        try:
            await client.send_packet((yield))
        except Exception as exc:
            self.error = exc


def run(handler: Any, protocol: Any, data: bytes) -> bytes:
    """Send data to a server in memory; return what comes back."""
    received = b""

    async def main() -> None:
        nonlocal received
        async with serve(handler, protocol) as served:
            connection = await served.connect(raw=True)
            await connection.send(data)
            connection.send_eof()
            with anyio.move_on_after(1):
                received += await connection.receive()

    anyio.run(main, backend_options=virtual_time())
    return received


# -- packets that cannot be sent


class Framed(AutoSeparatedPacketSerializer[bytes, bytes]):
    def __init__(self) -> None:
        super().__init__(b";")

    def serialize(self, packet: bytes) -> bytes:
        return packet

    def deserialize(self, data: bytes) -> bytes:
        return data


class Fixed(FixedSizePacketSerializer[bytes, bytes]):
    def serialize(self, packet: bytes) -> bytes:
        return packet

    def deserialize(self, data: bytes) -> bytes:
        return data


class Headed(LengthPrefixedPacketSerializer[bytes, bytes]):
    def serialize(self, packet: bytes) -> bytes:
        return packet

    def deserialize(self, data: bytes) -> bytes:
        return data


CANNOT_BE_SENT: list[tuple[Any, Any]] = [
    (Fixed(4), b"hello"),
    (Framed(), b"hello; world"),
    (LengthPrefixedSerializer(RawSerializer(), "u8"), b"x" * 256),
    (LengthPrefixedSerializer(RawSerializer(), "decimal", max_digits=1), b"x" * 10),
    (Headed("u8", offset=2), b"x"),
    (NamedTupleStructSerializer(Person, {"name": "4s"}), Person("Augusta")),
]


def test_packets_that_cannot_be_sent() -> None:
    """send_packet() refuses a packet.

    "ValueError: serialized data size does not meet expectation"

    "ValueError: ... separator found in serialized packet ... which was not at the end"

    ValueError: "Length ... does not fit into ..."

    ValueError: "Length ... does not fit into max_digits=..."

    ValueError: "A packet must have at least ... bytes, got ..."

    "ValueError: ...: ... bytes do not fit into a field of ..."

    "send_packet() got a packet that this serializer cannot send. For example, a text is longer than
    its field of a struct."

    "Nothing was sent."

    "It is the cause of this one."
    """
    seen = Seen()

    class Handler(Catching):
        def __init__(self, packet: Any) -> None:
            super().__init__()
            self.packet = packet

        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
            with contextlib.suppress(StreamProtocolParseError):
                yield
            with pytest.raises(ProtocolCrashedError) as caught:
                await client.send_packet(self.packet)
            assert caught.value.__cause__ is not None
            seen.note(caught.value.__cause__)
            assert client.get_statistics().bytes_sent == 0

    for serializer, packet in CANNOT_BE_SENT:
        assert run(Handler(packet), StreamProtocol(serializer), b"\0\0\0\0;\n") == b""
    seen.check(test_packets_that_cannot_be_sent)


def test_newline_in_a_line() -> None:
    """A text with a newline is more than one line.

    "StringLineSerializer does not look for newlines: the first one in a text ends the packet."
    """

    class Handler(Catching):
        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
            await client.send_packet((yield) + "\nworld")

    assert run(Handler(), StreamProtocol(StringLineSerializer()), b"hello\n") == b"hello\nworld\n"


# -- serializers that do not follow the rules


class Chunks(StreamProtocol[Any, Any]):
    """Parses with a generator of the test."""

    def __init__(self, parse: Any) -> None:
        super().__init__(StringLineSerializer())
        self.parse = parse

    def build_packet_from_chunks(self) -> Any:
        return self.parse()


class Buffers(BufferedStreamProtocol[Any, Any, Any]):
    """Parses with a generator of the test, in its buffer."""

    def __init__(self, buffer: Any, yielded: Any = None) -> None:
        super().__init__(StringLineSerializer())
        self.buffer, self.yielded = buffer, yielded

    def create_buffer(self, sizehint: int) -> Any:
        return self.buffer

    def build_packet_from_buffer(self, buffer: Any) -> Any:
        yield self.yielded
        return "packet", b""


def parse_nothing() -> Generator[None, bytes, Any]:
    return None
    yield


def parse_without_rest() -> Generator[None, bytes, Any]:
    yield
    return "packet"


def parse_with_wrong_rest() -> Generator[None, bytes, Any]:
    yield
    return "packet", "rest"


def parse_for_ever() -> Generator[None, bytes, Any]:
    data = yield
    return "packet", data


def parse_with_error() -> Generator[None, bytes, Any]:
    data = yield
    raise StreamProtocolParseError(data, LimitOverrunError("too long", b"", 0))


def parse_badly() -> Generator[None, bytes, Any]:
    yield
    raise ZeroDivisionError


def test_crashes() -> None:
    """What a protocol object does wrong, as a handler gets it.

    "ProtocolCrashedError: protocol...() crashed"

    "A serializer or a converter raised an exception that is not for invalid data."

    "ProtocolCrashedError: protocol...() did not yield"

    "ProtocolCrashedError: protocol...() returned ..., not a packet and the bytes that follow it"

    "ProtocolCrashedError: protocol...() ... ... in place of the bytes that follow it"

    "ProtocolCrashedError: protocol...() ... ... bytes that follow it, but got only ...: it has to
    use up some of them"

    "ProtocolCrashedError: protocol...() yielded ..., not an index or None"

    "ProtocolCrashedError: protocol.create_buffer() returned ..., not a contiguous buffer"

    "ProtocolCrashedError: protocol.create_buffer() returned a read-only buffer"

    "ProtocolCrashedError: protocol.create_buffer() returned a null buffer"

    ProtocolCrashedError: "The start position is set to the end of the buffer"

    ProtocolCrashedError: "The start position ... is before the beginning of the buffer of ...
    bytes"

    "A serializer of your own does not follow its base class."
    """
    seen = Seen()
    for protocol in (
        *map(Chunks, (parse_nothing, parse_without_rest, parse_with_wrong_rest)),
        *map(Chunks, (parse_for_ever, parse_with_error, parse_badly)),
        *map(Buffers, ("text", b"read-only", bytearray())),
        *(Buffers(bytearray(8), yielded) for yielded in ("start", 8, -9)),
        StreamProtocol(StringLineSerializer(), Converter(ZeroDivisionError())),
    ):
        handler = Catching()
        run(handler, protocol, b"hello\n")
        seen.note(handler.error)
    seen.check(test_crashes)
    assert isinstance(seen.errors[-1].__cause__, ZeroDivisionError)


def test_error_for_invalid_data() -> None:
    """What a converter should raise.

    "If a client's data can trigger it, raise DeserializeError or PacketConversionError in its
    place."
    """
    handler = Catching()
    protocol: Any = StreamProtocol(
        StringLineSerializer(), Converter(PacketConversionError("unknown command"))
    )
    run(handler, protocol, b"hello\n")
    assert isinstance(handler.error, StreamProtocolParseError)
    assert str(handler.error.error) == "unknown command"

    class Refusing(Framed):
        def deserialize(self, data: bytes) -> bytes:
            raise DeserializeError("unknown command")

    run(handler, StreamProtocol(Refusing()), b"hello;")
    assert isinstance(handler.error, StreamProtocolParseError)


class Returning(StreamProtocol[Any, Any]):
    """Sends what the test says."""

    def __init__(self, chunks: Any) -> None:
        super().__init__(StringLineSerializer())
        self.chunks = chunks

    def generate_chunks(self, packet: Any) -> Any:
        return self.chunks


class Number(Framed):
    def serialize_frame(self, packet: Any) -> Any:  # type: ignore[misc]  # it is final
        return 42


def test_wrong_bytes() -> None:
    """What a protocol object makes of a packet is not bytes.

    "ProtocolCrashedError: protocol.generate_chunks() yielded no bytes, which no peer can receive as
    a packet"

    "ProtocolCrashedError: ... a value of type ..., not bytes"
    """
    seen = Seen()
    for protocol, data in (Returning([]), b"hello\n"), (StreamProtocol(Number()), b"hello;"):
        handler = Catching()
        assert run(handler, protocol, data) == b""
        seen.note(handler.error)
    seen.check(test_wrong_bytes)


class Incremental(AbstractIncrementalPacketSerializer[Any, Any]):
    """Parses with a generator of the test."""

    def __init__(self, parse: Any) -> None:
        super().__init__()
        self.parse = parse

    def incremental_serialize(self, packet: Any) -> Any:
        yield packet

    def incremental_deserialize(self) -> Any:
        return self.parse()


def raise_wrong_error() -> Generator[None, bytes, Any]:
    yield
    raise DeserializeError("invalid")


def test_wrong_serializers() -> None:
    """What a serializer does wrong.

    RuntimeError: "DeserializeError raised instead of IncrementalDeserializeError"

    "RuntimeError: self.incremental_deserialize() generator did not yield"

    "TypeError: ...framing() must return a SeparatorFraming, a FixedSizeFraming, a
    LengthPrefixFraming or NoFraming, not ..."

    "UnsupportedOperation: ... does not receive frames"

    "TypeError: ... and ... make a ..., not a ..."

    "The two serializers of a pair must support streams in the same way"
    """
    seen = Seen()
    handler = Catching()
    run(handler, StreamProtocol(Incremental(raise_wrong_error)), b"hello")
    seen.note(handler.error.__cause__)
    seen.calls(Incremental(parse_nothing).deserialize, b"hello")
    seen.calls(Incremental(parse_nothing).deserialize_frame, b"hello")

    class Unframed(Framed):
        def framing(self) -> Any:  # type: ignore[misc]  # it is final
            return None

    async def main() -> None:
        async with serve(Catching(), StreamProtocol(Unframed())):
            pass

    seen.runs(main)
    lines: AbstractPacketSerializer[Any, Any] = StringLineSerializer()
    pair: Any = StapledBufferedIncrementalPacketSerializer
    seen.calls(pair, lines, Incremental(parse_nothing))
    assert isinstance(StapledPacketSerializer(lines, lines), pair)
    seen.check(test_wrong_serializers)


def test_check_serializer() -> None:
    """There is a function that checks the rules.

    "howto/serializers has the rules, and check_serializer() checks them."
    """
    check_serializer(StringLineSerializer(), ["hello", "world"])
    with pytest.raises(AssertionError):
        check_serializer(Incremental(parse_for_ever), [b"hello", b"world"])


def test_encodings() -> None:
    """Where characters have more than one byte each.

    ValueError: "Lines cannot be told apart in ..." "For datagrams, or inside a wrapper, set
    use_lines=False"

    ValueError: "The end of a JSON document cannot be found in ..." "For a stream, use UTF-8, or a
    wrapper such as LengthPrefixedSerializer"

    ValueError: "The ends of lines (...) cannot be found in ..."

    "In encodings such as UTF-16, the bytes of a newline are also a part of other characters. Use
    UTF-8, or a length before the data."
    """
    seen = Seen()
    assert "\n".encode("utf-16-le") in "Ċ\x00".encode("utf-16-be")
    seen.calls(StringLineSerializer, encoding="utf-16")
    seen.calls(JSONSerializer, encoding="utf-16")
    documents = JSONSerializer(encoding="utf-16", use_lines=False)
    seen.calls(documents.framing)
    seen.check(test_encodings)
    assert documents.deserialize(documents.serialize({"a": 1})) == {"a": 1}
    for serializer, packet in [
        (LengthPrefixedSerializer(documents), {"a": "Ċ"}),
        (JSONSerializer(encoding="utf-8"), {"a": "Ċ"}),
        (StringLineSerializer(encoding="utf-8"), "Ċ"),
    ]:
        check_serializer(serializer, [packet, packet])
