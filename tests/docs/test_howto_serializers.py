"""The how-to page for serializers: what it says of its examples is what they do.

What stands in quotation marks in a docstring is what the page says, word for word (the first test
sees to that), and the test would fail if it were wrong.
"""

from __future__ import annotations

import bz2
import socket
import timeit
import tracemalloc
import zlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from docs._include.examples.howto.serializers import combinations, compare_formats
from docs._include.examples.howto.serializers import writing_your_own as examples
from docs._include.examples.howto.serializers.writing_your_own import Message, Reading
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.codec import new_decoder_factory
from easynetwork.decoder import FramedDecoder, GeneratorDecoder
from easynetwork.exceptions import (
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers import (
    Base64EncoderSerializer,
    BZ2CompressorSerializer,
    CBORSerializer,
    JSONSerializer,
    LengthPrefixedSerializer,
    MessagePackSerializer,
    NamedTupleStructSerializer,
    NetstringSerializer,
    PickleSerializer,
    StapledPacketSerializer,
    StringLineSerializer,
    StructSerializer,
    ZlibCompressorSerializer,
)
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    BufferedIncrementalPacketSerializer,
)
from easynetwork.serializers.framing import (
    AutoSeparatedPacketSerializer,
    FileBasedPacketSerializer,
    FixedSizePacketSerializer,
    LengthPrefixedPacketSerializer,
)
from easynetwork.serializers.tools import GeneratorStreamReader
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
)
from easynetwork.testing import check_serializer
from tests.decoding import outcomes
from tests.docs.howto_support import check_quotations, connected, in_thread, serving, visiting

pytestmark = pytest.mark.anyio

READING = Reading("living room", 21.5)


class Echo(AsyncStreamRequestHandler[Any, Any]):
    """Sends back what it receives, and remembers what is not a packet."""

    def __init__(self) -> None:
        self.errors: list[Any] = []

    async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
        try:
            packet = yield
        except StreamProtocolParseError as exc:
            self.errors.append(exc.error)
        else:
            await client.send_packet(packet)


class DatagramEcho(AsyncDatagramRequestHandler[Any, Any]):
    async def handle(self, client: AsyncDatagramClient[Any]) -> AsyncGenerator[None, Any]:
        packet = yield
        await client.send_packet(packet)


class Trap:
    """When its pickle is accepted, something happens."""

    sprung = 0

    def __reduce__(self) -> Any:
        return spring, ()


def spring() -> None:
    Trap.sprung += 1


async def check_served(protocol: Any, packet: Any) -> None:
    """Check that a packet comes back over a real connection."""
    async with serving(Echo(), protocol) as server:
        host, port = server.get_addresses()[0][:2]
        async with AsyncTCPNetworkClient((host, port), protocol) as client:
            await client.send_packet(packet)
            assert await client.recv_packet() == packet


def test_quotations() -> None:
    """What the tests quote is what the page says; each test quotes something."""
    check_quotations("howto/serializers.rst", globals())


# Choosing One


def test_pickle() -> None:
    """The program is run, although its result is not a packet.

    "To accept a pickle is to run the program that is in it."

    "datagrams only, unless something is around it"
    """
    serializer = PickleSerializer()
    sprung = Trap.sprung
    with pytest.raises(DeserializeError):
        serializer.deserialize(serializer.serialize(Trap()) + b"extra")
    assert Trap.sprung == sprung + 1
    assert not isinstance(serializer, AbstractIncrementalPacketSerializer)


def test_json() -> None:
    """JSON has its limits.

    "has no type for bytes or times; keys are text"
    """
    for packet in b"bytes", datetime.now(UTC):
        with pytest.raises(TypeError):
            JSONSerializer().serialize(packet)
    assert JSONSerializer().deserialize(JSONSerializer().serialize({1: 2})) == {"1": 2}


def test_lines() -> None:
    """So have lines.

    "ASCII by default; a newline that you send ends the packet; in UTF-16 and EBCDIC there is no
    such newline"
    """
    serializer = StringLineSerializer()
    with pytest.raises(UnicodeEncodeError):
        serializer.serialize("Zoë")
    protocol = StreamProtocol(serializer)
    sent = b"".join(protocol.generate_chunks("one\ntwo"))
    assert outcomes(protocol, [sent, b"\n"]) == ["one", "two", ""]
    for encoding in "utf-16", "cp037":
        with pytest.raises(ValueError, match="cannot be found"):
            StringLineSerializer(encoding=encoding)


def test_msgpack() -> None:
    """And MessagePack.

    "integers of 64 bits; keys are text or bytes, unless you allow others"
    """
    serializer = MessagePackSerializer()
    assert serializer.deserialize(serializer.serialize({"a": b"bytes"})) == {"a": b"bytes"}
    with pytest.raises(OverflowError):
        serializer.serialize(2**64)
    with pytest.raises(DeserializeError):
        serializer.deserialize(serializer.serialize({1: 2}))


def test_cbor() -> None:
    """CBOR can do more.

    "what JSON carries, and bytes, times, sets, large integers"

    "keys are no containers, unless you allow them"
    """
    serializer = CBORSerializer()
    packet = [b"bytes", datetime(2025, 1, 1, tzinfo=UTC), {1, 2}, 2**1000, {1: None}]
    assert serializer.deserialize(serializer.serialize(packet)) == packet
    keyed = serializer.serialize({(1, 2): 3})
    with pytest.raises(DeserializeError):
        serializer.deserialize(keyed)
    assert CBORSerializer(strict_map_key=False).deserialize(keyed) == {(1, 2): 3}


def test_netstring() -> None:
    """A netstring's cost, and none where there is a datagram.

    "3 bytes or more for each packet"

    "over UDP, packets are sent as they are"
    """
    serializer = NetstringSerializer()
    assert len(serializer.serialize_frame(b"hello")) == len(b"hello") + 3
    assert DatagramProtocol(serializer).make_datagram(b"hello") == b"hello"


def test_sizes() -> None:
    """The order of the table's sizes is that of the reasons given.

    "Binary formats are shorter, but not by much if the names of the fields travel with each
    packet."

    "a little shorter than JSON"

    "the fewest bytes"
    """
    reading = compare_formats.Reading("kitchen", 7, 21.5)
    sizes = {
        name: len(serializer.serialize(reading._asdict()))
        for name, serializer in compare_formats.FORMATS.items()
    }
    assert sizes["JSON"] * 0.8 < sizes["MessagePack"] <= sizes["CBOR"] < sizes["JSON"]
    assert len(compare_formats.STRUCTURE.serialize(reading)) < min(sizes.values())


def test_time() -> None:
    """No format is several times slower than the fastest one.

    "JSON, MessagePack and CBOR need about as much as each other for a small packet."
    """

    def cost(serializer: Any) -> float:
        packet = {"sensor": "kitchen", "number": 7, "celsius": 21.5}
        data = serializer.serialize(packet)
        work = lambda: (serializer.serialize(packet), serializer.deserialize(data))  # noqa: E731  # for timeit
        return min(timeit.repeat(work, number=200, repeat=20))

    costs = [cost(each()) for each in (JSONSerializer, MessagePackSerializer, CBORSerializer)]
    assert max(costs) < 3 * min(costs)


# What Is Limited

STREAMS: list[AbstractIncrementalPacketSerializer[Any, Any]] = [
    JSONSerializer(),
    StringLineSerializer(),
    MessagePackSerializer(),
    CBORSerializer(),
    NetstringSerializer(),
    Base64EncoderSerializer(JSONSerializer()),
    ZlibCompressorSerializer(JSONSerializer()),
    LengthPrefixedSerializer(JSONSerializer()),
]


@pytest.mark.parametrize("serializer", STREAMS, ids=lambda each: type(each).__name__)
def test_size(serializer: Any) -> None:
    """A packet that is longer by default is refused.

    "limit bytes for each packet in a stream, 65,536 by default"

    "What is beyond the limit is an ordinary parse error."

    "A packet that is too large is one error, a LimitOverrunError, which is raised as soon as the
    limit is passed. No byte of that packet is ever parsed as another one."

    "With separators and lengths (lines, JSON in lines, base64, netstrings, length prefixes), the
    rest of the packet is dropped as it arrives, and the packets that follow it are received as
    usual."

    "Otherwise (JSON without lines, MessagePack, CBOR, compressors), the end is unknown, and
    everything that the peer still sends is dropped."

    "for compressors, limit is the size after decompression"
    """
    assert serializer.buffer_limit == 65_536
    large = type(STREAMS[5]), type(STREAMS[6]), type(STREAMS[7])
    packet: Any = "x" * 70_000
    if isinstance(serializer, NetstringSerializer):
        packet = packet.encode()
    elif not isinstance(serializer, (*large, StringLineSerializer)):
        packet = [packet]
    frame = serializer.serialize_frame(packet)
    chunks = [frame[start : start + 4096] for start in range(0, len(frame), 4096)]
    following = serializer.serialize_frame(b"a" if isinstance(packet, bytes) else "a")
    outcome, *rest = outcomes(StreamProtocol(serializer), [*chunks, following])
    assert LimitOverrunError.__name__ in repr(outcome)
    assert len(rest) == (0 if serializer.framing() is None else 1)


@pytest.mark.parametrize(
    "serializer", [JSONSerializer(), MessagePackSerializer(), CBORSerializer()]
)
def test_depth(serializer: Any) -> None:
    """128 lists inside each other, not one more.

    "max_depth arrays or objects inside each other in JSON, MessagePack and CBOR, 128 by default"
    """
    packet: list[Any] = [0]
    for _ in range(127):
        packet = [packet]
    assert serializer.deserialize(serializer.serialize(packet)) == packet
    with pytest.raises(DeserializeError):
        serializer.deserialize(serializer.serialize([packet]))


def test_expansion() -> None:
    """A bomb is not made.

    "What is beyond it is not even made."
    """
    bomb = ZlibCompressorSerializer(JSONSerializer(), limit=10**9).serialize("x" * 10**7)
    tracemalloc.start()
    try:
        with pytest.raises(DeserializeError):
            ZlibCompressorSerializer(JSONSerializer()).deserialize(bomb)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_integers() -> None:
    """Numbers that would take Python long are refused.

    "JSON has at most as many digits as Python converts (4,300 by default), CBOR about as many."
    """
    assert JSONSerializer().deserialize(b"9" * 4300) == 10**4300 - 1
    with pytest.raises(DeserializeError):
        JSONSerializer().deserialize(b"9" * 4301)
    assert CBORSerializer().deserialize(CBORSerializer().serialize(10**4200)) == 10**4200
    with pytest.raises(DeserializeError):
        CBORSerializer().deserialize(CBORSerializer().serialize(10**4400))


def test_declared_length() -> None:
    """A length is refused as soon as it is there.

    "A length in front of a packet is compared with it before any of the packet is kept."
    """
    protocol = StreamProtocol(LengthPrefixedSerializer(JSONSerializer()))
    [error] = outcomes(protocol, [b"\x7f\xff\xff\xff"])
    assert LimitOverrunError.__name__ in repr(error)


def test_limit_of_a_buffer() -> None:
    """The same line, with and without a buffer.

    "Give the same serializer to a BufferedStreamProtocol, and lines have to fit with their end,
    and one byte more, into limit."
    """
    serializer = StringLineSerializer(limit=10)
    line, shorter = "x" * 10, "x" * 8
    data = [f"{line}\n{shorter}\n".encode()]
    assert outcomes(StreamProtocol(serializer), data) == [line, shorter]
    error, packet = outcomes(BufferedStreamProtocol(serializer), data)
    assert LimitOverrunError.__name__ in repr(error)
    assert packet == shorter
    [error] = outcomes(BufferedStreamProtocol(serializer), [b"xxxxxxxxx\n"])
    assert LimitOverrunError.__name__ in repr(error)


def test_debug() -> None:
    """Errors carry data only if they are asked to.

    "With debug=True, the errors of a serializer carry the received data as error_info."
    """
    for debug in False, True:
        with pytest.raises(DeserializeError) as caught:
            StringLineSerializer(debug=debug).deserialize(b"\xff")
        assert caught.value.error_info == ({"data": b"\xff"} if debug else None)


# Around A Serializer

COMBINATIONS: dict[str, Any] = {
    "signed": combinations.signed,
    "compressed": combinations.compressed,
    "prefixed": combinations.prefixed,
    "pickles": combinations.pickles,
}


@pytest.mark.parametrize("name", COMBINATIONS)
async def test_combination(name: str) -> None:
    """Each combination that the page shows works in a stream, with a buffer and without.

    "What is inside may be any serializer, and is used for whole packets only"
    """
    packet = [{"sensor": "kitchen", "number": 7}]
    check_serializer(COMBINATIONS[name], [packet])
    await check_served(StreamProtocol(COMBINATIONS[name]), packet)
    await check_served(BufferedStreamProtocol(COMBINATIONS[name]), packet)


def test_signature() -> None:
    """What was not signed is not even looked at.

    "With a key, it also signs it, and refuses what was not signed with the same key before the
    serializer inside has seen it"

    "Create the key once, with generate_key(), and give it to both ends by another way."
    """
    ours, theirs = (
        Base64EncoderSerializer(PickleSerializer(), checksum=Base64EncoderSerializer.generate_key())
        for _ in range(2)
    )
    sprung = Trap.sprung
    with pytest.raises(DeserializeError):
        ours.deserialize(theirs.serialize(Trap()))
    assert Trap.sprung == sprung
    ours.deserialize(ours.serialize(Trap()))
    assert Trap.sprung == sprung + 1


def test_base64() -> None:
    """What base64 costs, and what it does not prove.

    "makes a line of text of each packet, 4 characters for 3 bytes"

    "one that was recorded can be sent again"

    "With checksum=True there is no key, which finds damage, but no malice."
    """
    assert len(Base64EncoderSerializer(NetstringSerializer()).serialize(b"x" * 300)) == 400
    recorded = combinations.signed.serialize("open the door")
    assert [combinations.signed.deserialize(recorded) for _ in range(2)] == ["open the door"] * 2
    one, other = (Base64EncoderSerializer(JSONSerializer(), checksum=True) for _ in range(2))
    data = one.serialize("hello")
    assert other.deserialize(data) == "hello"
    with pytest.raises(DeserializeError):
        other.deserialize(data.replace(data[1:2], b"_", 1))


def test_compression() -> None:
    """Compression pays for large packets.

    "a list of a hundred readings in JSON shrinks to less than a tenth, a single one grows"
    """
    reading = compare_formats.Reading("kitchen", 7, 21.5)._asdict()
    many = [{**reading, "number": number} for number in range(100)]
    plain = JSONSerializer()
    assert len(combinations.compressed.serialize(many)) * 10 < len(plain.serialize(many))
    assert len(combinations.compressed.serialize(reading)) > len(plain.serialize(reading))


def test_bzip2() -> None:
    """A small packet, a lot of work.

    "with bzip2, half as many bytes make you decompress 64 KiB"
    """
    data = b'"%s"' % (b"x" * 65_534)
    by_bzip2, by_zlib = bz2.compress(data), zlib.compress(data, 9)
    assert BZ2CompressorSerializer(JSONSerializer()).deserialize(by_bzip2) == data[1:-1].decode()
    assert ZlibCompressorSerializer(JSONSerializer()).deserialize(by_zlib) == data[1:-1].decode()
    assert 0.4 < len(by_bzip2) / len(by_zlib) < 0.6


async def test_damage() -> None:
    """Damaged data costs what follows it, but not with a length in front.

    "Damaged data has no end that could be found: all that has been received and not been read is
    lost with it. If your connections should survive that, put a length in front, as prefixed does."
    """
    good = combinations.compressed.serialize([1])
    lost = outcomes(StreamProtocol(combinations.compressed), [b"damaged" + good, good])
    assert len(lost) == 2
    assert lost[1] == [1]
    handler = Echo()
    async with serving(handler, StreamProtocol(combinations.prefixed)) as server:
        async with connected(server) as peer:
            frame = combinations.prefixed.serialize_frame([1])
            await peer.send_bytes(b"\0\0\0\x07damaged" + frame)
            receive = partial(peer.socket.recv, len(frame), socket.MSG_WAITALL)
            assert await in_thread(receive) == frame
    assert [type(error) for error in handler.errors] == [IncrementalDeserializeError]


def test_length() -> None:
    """Any one-shot serializer becomes one for a stream.

    "makes a stream of anything, one-shot serializers included"
    """
    for length in "u8", "u16", "u32", "u64", "varint", "netstring":
        serializer = LengthPrefixedSerializer(examples.ReadingSerializer(), length)
        check_serializer(serializer, [READING])


async def test_stapled() -> None:
    """A client and a server, each with its own order of the two.

    "sends with its first serializer and receives with its second one. It can do what both halves
    can, and becomes an object of the class that fits."
    """
    protocol = StreamProtocol(combinations.of_server)
    async with serving(Echo(), protocol) as server:
        host, port = server.get_addresses()[0][:2]
        of_client = StreamProtocol(combinations.of_client)
        async with AsyncTCPNetworkClient((host, port), of_client) as client:
            await client.send_packet("hello")
            assert await client.recv_packet() == "hello"
        async with connected(server) as peer:
            assert await peer.ask("hello") == '"hello"'
    stapled = StapledPacketSerializer(StringLineSerializer(), JSONSerializer())
    assert type(stapled) is type(combinations.of_client)


# Writing Your Own


async def test_one_shot() -> None:
    """The first serializer serves a peer over UDP.

    "This one writes a reading as kitchen 21.5"

    "This is a one-shot serializer, and all that UDP needs."
    """
    protocol = DatagramProtocol(examples.ReadingSerializer())
    async with serving(DatagramEcho(), protocol) as server:
        with visiting(server) as peer:
            assert await peer.ask("kitchen 21.5") == "kitchen 21.5"


async def test_lines_of_readings() -> None:
    """The second one does it in a stream.

    "It is a buffered serializer, it takes the fast way through servers and clients, it has a
    limit, and it refuses to send a reading with a newline in it. After a line of nonsense, the
    next line is received as usual."
    """
    serializer = examples.ReadingLineSerializer()
    assert isinstance(serializer, BufferedIncrementalPacketSerializer)
    assert serializer.buffer_limit == 1000
    with pytest.raises(ValueError, match="separator found"):
        serializer.serialize_frame(Reading("living\nroom", 21.5))
    handler = Echo()
    for protocol in StreamProtocol(serializer), BufferedStreamProtocol(serializer):
        assert isinstance(new_decoder_factory(protocol, 1024)(), FramedDecoder)
        async with serving(handler, protocol) as server, connected(server) as peer:
            assert await peer.ask("nonsense", "kitchen 21.5") == "kitchen 21.5"
    assert len(handler.errors) == 2


def test_base_classes() -> None:
    """The base classes that the table names want what it says.

    "The first three want the two methods of before, and nothing else."
    """
    wanted = {"serialize", "deserialize"}
    bases = AutoSeparatedPacketSerializer, FixedSizePacketSerializer, LengthPrefixedPacketSerializer
    for base in bases:
        assert base.__abstractmethods__ == wanted
    assert FileBasedPacketSerializer.__abstractmethods__ != wanted
    assert issubclass(StructSerializer, FixedSizePacketSerializer)
    assert issubclass(NamedTupleStructSerializer, FixedSizePacketSerializer)


@pytest.mark.parametrize(
    "protocol",
    [
        StreamProtocol(examples.MessageSerializer()),
        StreamProtocol(examples.BufferedMessageSerializer()),
        BufferedStreamProtocol(examples.BufferedMessageSerializer()),
    ],
    ids=["incremental", "buffered, in chunks", "buffered"],
)
async def test_messages(protocol: Any) -> None:
    """The serializers by hand serve a peer that sends what is right, wrong and too large.

    "a line with a name and a size, then as many bytes as it says"

    "The reader knows what it has read, so tell it only how much of the packet follows; the rest is
    dropped as it arrives."

    "A serializer that is written by hand costs a generator for each packet."
    """
    assert isinstance(new_decoder_factory(protocol, 1024)(), GeneratorDecoder)
    await check_served(protocol, Message("greeting", b"hello"))
    handler = Echo()
    async with serving(handler, protocol) as server, connected(server) as peer:
        good = "last 3", "bye"
        assert await peer.ask("bad", "large 5000", "x" * 4000, "y" * 998, "ok 0") == "ok 0"
        await peer.send_bytes("\n".join(good).encode())
        assert await peer.receive() == good[0]
    assert [type(error) for error in handler.errors] == [
        IncrementalDeserializeError,
        LimitOverrunError,
    ]


def test_messages_as_datagrams() -> None:
    """The base class makes the other two methods.

    "serialize() and deserialize() are made of these two generators by the base class, so it works
    for datagrams, too."
    """
    protocol = DatagramProtocol(examples.MessageSerializer())
    message = Message("greeting", b"hello")
    assert protocol.make_datagram(message) == b"greeting 5\nhello"
    assert protocol.build_packet_from_datagram(b"greeting 5\nhello") == message


def test_buffers() -> None:
    """Each packet has a buffer, which holds the longest one.

    "This buffer has room for the longest packet that is allowed."

    "Expect a buffer to be created for each packet, and make it no larger than it has to be."
    """
    buffers = []

    class Counting(examples.BufferedMessageSerializer):
        def create_deserializer_buffer(self, sizehint: int) -> bytearray:
            buffers.append(super().create_deserializer_buffer(sizehint))
            return buffers[-1]

    name = "n" * (examples.HEADER_LIMIT - len(" 1000"))
    longest = Message(name, b"x" * examples.BODY_LIMIT)
    serializer = Counting()
    data = b"".join(serializer.incremental_serialize(longest))
    assert outcomes(BufferedStreamProtocol(serializer), [data * 3]) == [longest] * 3
    assert [len(buffer) for buffer in buffers] == [len(data)] * 3


# Testing It


@pytest.mark.parametrize("test", [examples.test_readings, examples.test_messages])
def test_kit(test: Any) -> None:
    """The tests that the page shows pass.

    "whole packets, byte by byte, cut in two at any position, with others behind them, damaged, too
    large"
    """
    test()


class _Forgetful(examples.MessageSerializer):
    """Loses what follows a packet."""

    def incremental_deserialize(self) -> Any:
        packet, _ = yield from super().incremental_deserialize()
        return packet, b""


class _Careless(examples.BufferedMessageSerializer):
    """Looks at what is behind the received bytes."""

    def buffered_incremental_deserialize(self, buffer: bytearray) -> Any:
        received = 0
        while b"\n" not in buffer:
            received += yield received
        header, _, rest = bytes(buffer).partition(b"\n")
        return Message(header.decode(), b""), rest


class _Plain(examples.MessageSerializer):
    """Does not tell what follows a bad packet."""

    def incremental_deserialize(self) -> Any:
        try:
            return (yield from super().incremental_deserialize())
        except IncrementalDeserializeError as exc:
            raise DeserializeError(str(exc)) from exc


@pytest.mark.parametrize("serializer", [_Forgetful(), _Careless(), _Plain()])
def test_kit_finds(serializer: Any) -> None:
    """What the page warns of is found.

    "Return what follows the packet, together with the packet."

    "(A plain DeserializeError counts as a bug here.)"

    "Look at nothing behind received"

    "If a promise is broken, it raises AssertionError and says what was sent, and what came"
    """
    messages = [Message("greeting", b"hello"), Message("nothing", b"")]
    with pytest.raises(AssertionError):
        check_serializer(serializer, messages, malformed=[b"bad\n"])


class _WrongEnd(examples.MessageSerializer):
    """Takes the end of the first line for the end of a message that is too large."""

    def incremental_deserialize(self) -> Any:
        reader = GeneratorStreamReader()
        header = yield from reader.read_until(b"\n", examples.HEADER_LIMIT)
        parser = super().incremental_deserialize()
        next(parser)
        try:
            parser.send(header + reader.read_all())
            while True:
                parser.send((yield))
        except StopIteration as stop:
            return stop.value


def test_kit_finds_wrong_ends() -> None:
    """What becomes of the rest of a message is checked, too.

    "this newline does not end a message"

    "oversized must be one error, and no byte of it may become part of a packet, however it is cut"
    """
    messages = [Message("greeting", b"hello\n")]
    check_serializer(examples.MessageSerializer(), messages, oversized=[b"x" * 200])
    with pytest.raises(AssertionError, match="not .*, one error, and what follows"):
        check_serializer(_WrongEnd(), messages, oversized=[b"x" * 200])


def test_no_progress() -> None:
    """A parser that uses up nothing is stopped.

    "A parser that returns, or gives back with an error, all that it got would be run again for
    ever: that is a ProtocolCrashedError"
    """

    class Endless(examples.MessageSerializer):
        def incremental_deserialize(self) -> Any:
            data = yield
            return Message("", b""), data

    with pytest.raises(ProtocolCrashedError):
        outcomes(StreamProtocol(Endless()), [b"greeting 5\n"])
