"""Check that the examples of the how-to page for serializers do what the page says.

Text in quotation marks in a docstring is quoted from the page, word for word (the first test checks
that), and the test fails if the quoted sentence is wrong.
"""

from __future__ import annotations

import base64
import bz2
import dataclasses
import logging
import re
import shutil
import socket
import sys
import timeit
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime
from functools import partial
from typing import Any, get_args

import anyio
import pytest

from docs._include.examples.howto.serializers import (
    binary_format,
    combinations,
    compare_formats,
    writing_your_own as examples,
)
from docs._include.examples.howto.serializers.writing_your_own import Message, Reading
from docs.values import with_values
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.codec import new_decoder_factory
from easynetwork.decoder import FramedDecoder, GeneratorDecoder
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
    PacketConversionError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.parsers import NEED_DATA
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
    AbstractPacketSerializer,
    BufferedIncrementalPacketSerializer,
    FixedSizeFraming,
    LengthFormat,
)
from easynetwork.serializers.framing import (
    AutoSeparatedPacketSerializer,
    FileBasedPacketSerializer,
    FixedSizePacketSerializer,
    FramedPacketSerializer,
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
from tests.docs.howto_support import (
    DOCS,
    Peer,
    check_quotations,
    connected,
    in_thread,
    serving,
    visiting,
)
from tests.times import PATIENCE
from tests.tools import byte_by_byte

pytestmark = pytest.mark.anyio

READING = Reading("living room", 21.5)


class Echo(AsyncStreamRequestHandler[Any, Any]):
    """Sends each packet back, and records the errors of data that is not a packet."""

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
    """Counts how often its pickle was loaded."""

    sprung = 0

    def __reduce__(self) -> Any:
        return spring, ()


def spring() -> None:
    Trap.sprung += 1


class Plain(AbstractPacketSerializer[bytes, bytes]):
    """Packets are bytes."""

    def serialize(self, packet: bytes) -> bytes:
        return packet

    def deserialize(self, data: bytes) -> bytes:
        return data


async def check_served(protocol: Any, packet: Any) -> None:
    """Check that a packet comes back over a real connection."""
    async with serving(Echo(), protocol) as server:
        host, port = server.get_addresses()[0][:2]
        async with AsyncTCPNetworkClient((host, port), protocol) as client:
            await client.send_packet(packet)
            assert await client.recv_packet() == packet


def test_quotations() -> None:
    """Each test quotes the page, word for word."""
    check_quotations("howto/serializers.rst", globals())


# Choosing a serializer

EVERY_KIND: list[tuple[AbstractPacketSerializer[Any, Any], Any]] = [
    (JSONSerializer(), {"celsius": 21.5}),
    (StringLineSerializer(), "hello"),
    (StructSerializer("!Hd"), (7, 21.5)),
    (MessagePackSerializer(), {"celsius": 21.5}),
    (CBORSerializer(), {"celsius": 21.5}),
    (NetstringSerializer(), b"hello"),
    (PickleSerializer(), READING),
]


@pytest.mark.parametrize(
    ("serializer", "packet"), EVERY_KIND, ids=[type(each).__name__ for each, _ in EVERY_KIND]
)
def test_there_and_back(serializer: AbstractPacketSerializer[Any, Any], packet: Any) -> None:
    """Each serializer of the table does both.

    "A serializer converts a packet to bytes and back."
    """
    data = serializer.serialize(packet)
    assert type(data) is bytes
    assert serializer.deserialize(data) == packet


@pytest.mark.parametrize(
    ("serializer_class", "name"), [(MessagePackSerializer, "msgpack"), (CBORSerializer, "cbor2")]
)
def test_missing_package(serializer_class: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the command that the page gives.

    "If a package is missing, creating the serializer raises ModuleNotFoundError."
    """
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        serializer_class()
    command = re.findall(rf'pip install "{name}[^"]*"', str(caught.value))
    assert command
    page = (DOCS / "howto" / "serializers.rst").read_text(encoding="utf-8")
    assert f"``{command[0]}``" in with_values(page)


def test_pickle() -> None:
    """A pickle's code is executed although the data is rejected.

    "Accepting a pickle executes the code that it contains."

    "datagrams only, unless another serializer wraps it"
    """
    serializer = PickleSerializer()
    sprung = Trap.sprung
    with pytest.raises(DeserializeError):
        serializer.deserialize(serializer.serialize(Trap()) + b"extra")
    assert Trap.sprung == sprung + 1
    assert not isinstance(serializer, AbstractIncrementalPacketSerializer)


def test_json() -> None:
    """JSON carries neither bytes nor times, and makes text of keys.

    "no type for bytes or times; keys are text"
    """
    for packet in b"bytes", datetime.now(UTC):
        with pytest.raises(TypeError):
            JSONSerializer().serialize(packet)
    assert JSONSerializer().deserialize(JSONSerializer().serialize({1: 2})) == {"1": 2}


def test_lines() -> None:
    """Text must be ASCII, a newline splits it, and some encodings are refused.

    "ASCII by default; a newline in the text ends the packet; UTF-16 and EBCDIC are refused, because
    they encode the newline as other bytes"
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
    """MessagePack carries bytes, but neither larger integers nor other keys.

    "integers of at most 64 bits; keys are text or bytes, unless you allow others"
    """
    serializer = MessagePackSerializer()
    assert serializer.deserialize(serializer.serialize({"a": b"bytes"})) == {"a": b"bytes"}
    with pytest.raises(OverflowError):
        serializer.serialize(2**64)
    with pytest.raises(DeserializeError):
        serializer.deserialize(serializer.serialize({1: 2}))


def test_cbor() -> None:
    """CBOR carries more types, and containers as keys only with an option.

    "the types of JSON, and bytes, times, sets, large integers"

    "keys cannot be containers, unless you allow them"
    """
    serializer = CBORSerializer()
    packet = [b"bytes", datetime(2025, 1, 1, tzinfo=UTC), {1, 2}, 2**1000, {1: None}]
    assert serializer.deserialize(serializer.serialize(packet)) == packet
    keyed = serializer.serialize({(1, 2): 3})
    with pytest.raises(DeserializeError):
        serializer.deserialize(keyed)
    assert CBORSerializer(strict_map_key=False).deserialize(keyed) == {(1, 2): 3}


def test_netstring() -> None:
    """A netstring adds bytes to a packet in a stream, but not to a datagram.

    "at least 3 more bytes per packet"

    "over UDP, packets are sent unchanged"
    """
    serializer = NetstringSerializer()
    assert len(serializer.serialize_frame(b"hello")) == len(b"hello") + 3
    assert DatagramProtocol(serializer).make_datagram(b"hello") == b"hello"


def test_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    """The sizes of the table are in the order that the page describes.

    "Binary formats are shorter, but not by much if each packet contains the names of its fields."

    "a little shorter than JSON"

    "the fewest bytes"

    "This program, part of compare_formats.py, serializes one reading of a thermometer and a list of
    a hundred readings"
    """
    compare_formats.main()
    columns = [line.split()[-2:] for line in capsys.readouterr().out.splitlines()]
    assert columns[0] == ["a", "hundred"]
    reading = compare_formats.Reading("kitchen", 7, 21.5)
    sizes = {
        name: len(serializer.serialize(reading._asdict()))
        for name, serializer in compare_formats.FORMATS.items()
    }
    assert sizes["JSON"] * 0.8 < sizes["MessagePack"] <= sizes["CBOR"] < sizes["JSON"]
    assert len(compare_formats.STRUCTURE.serialize(reading)) < min(sizes.values())
    many = [{**reading._asdict(), "number": number} for number in range(100)]
    assert columns[1] == [str(sizes["JSON"]), str(len(JSONSerializer().serialize(many)))]


def test_time() -> None:
    """No format is several times slower than the fastest one.

    "JSON, MessagePack and CBOR take about the same time for a small packet."
    """

    def cost(serializer: Any) -> float:
        packet = {"sensor": "kitchen", "number": 7, "celsius": 21.5}
        data = serializer.serialize(packet)
        work = lambda: (serializer.serialize(packet), serializer.deserialize(data))  # noqa: E731  # for timeit
        return min(timeit.repeat(work, number=200, repeat=20))

    costs = [cost(each()) for each in (JSONSerializer, MessagePackSerializer, CBORSerializer)]
    assert max(costs) < 3 * min(costs)


# Limits

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
    """A packet beyond the default limit is refused with one error.

    "at most limit bytes per packet received from a stream, 65,536 by default"

    "A peer can send any data, so each serializer limits the cost of a packet. A packet beyond a
    limit is an ordinary parse error."

    "Packets that you send are not checked: the other end refuses them if they exceed its limit."

    "A packet that is too large causes exactly one error, a LimitOverrunError, which is raised as
    soon as the limit is exceeded. No byte of that packet is ever parsed as part of another packet."

    "What happens next depends on how the serializer finds the end of a packet"

    "With separators and lengths (lines, JSON in lines, base64, netstrings, length prefixes), the
    rest of the packet is discarded as it arrives, and the packets that follow it are received as
    usual."

    "With other formats (JSON without lines, MessagePack, CBOR, compressors), the end is unknown,
    and everything that the peer sends afterwards is discarded."

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
    """128 nested lists are accepted, 129 are not.

    "at most max_depth nested arrays or objects in JSON, MessagePack and CBOR, 128 by default"
    """
    packet: list[Any] = [0]
    for _ in range(127):
        packet = [packet]
    assert serializer.deserialize(serializer.serialize(packet)) == packet
    with pytest.raises(DeserializeError):
        serializer.deserialize(serializer.serialize([packet]))


def test_expansion() -> None:
    """A decompression bomb takes no memory.

    "Data beyond the limit is not decompressed."
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
    """Integers that Python would convert slowly are refused.

    "in JSON, at most as many digits as Python converts (4,300 by default); in CBOR, about as many"
    """
    assert JSONSerializer().deserialize(b"9" * 4300) == 10**4300 - 1
    with pytest.raises(DeserializeError):
        JSONSerializer().deserialize(b"9" * 4301)
    assert CBORSerializer().deserialize(CBORSerializer().serialize(10**4200)) == 10**4200
    with pytest.raises(DeserializeError):
        CBORSerializer().deserialize(CBORSerializer().serialize(10**4400))


def test_declared_length() -> None:
    """A length that is too large is refused before the packet arrives.

    "A length prefix is checked before any byte of the packet is kept."
    """
    protocol = StreamProtocol(LengthPrefixedSerializer(JSONSerializer()))
    [error] = outcomes(protocol, [b"\x7f\xff\xff\xff"])
    assert LimitOverrunError.__name__ in repr(error)


def test_surviving() -> None:
    """With a length prefix, the packets that follow an oversized one are received.

    "If your connections must survive an oversized packet,"
    """
    inner = JSONSerializer(use_lines=False, limit=10)
    for serializer, survives in (inner, False), (LengthPrefixedSerializer(inner, limit=10), True):
        large, small = (serializer.serialize_frame(["x" * size]) for size in (20, 1))
        error, *packets = outcomes(StreamProtocol(serializer), [large, small])
        assert LimitOverrunError.__name__ in repr(error)
        assert packets == ([["x"]] if survives else [])


@pytest.mark.parametrize("limit", [100_000, 200_000])
def test_unfinished(limit: int) -> None:
    """A packet without an end occupies as much memory as the limit allows.

    "Set limit to the size that your packets need. A peer that never completes its packet can make
    your program keep that many bytes."
    """
    decoder = new_decoder_factory(StreamProtocol(StringLineSerializer(limit=limit)), 1024)()
    tracemalloc.start()
    try:
        for _ in range(limit // 1000):
            decoder.feed(b"x" * 1000)
        assert 0.9 * limit < tracemalloc.get_traced_memory()[0] < 1.5 * limit
        decoder.feed(b"x")
        with pytest.raises(StreamProtocolParseError):
            decoder.take()
        assert tracemalloc.get_traced_memory()[0] < 0.1 * limit
    finally:
        tracemalloc.stop()


def test_limit_of_a_buffer() -> None:
    """The longest line is shorter with a buffer than without.

    "If you pass a line-based serializer to a BufferedStreamProtocol, a line, its end and one more
    byte must fit into limit."
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


async def test_debug_log(caplog: pytest.LogCaptureFixture) -> None:
    """A server's log says what is wrong, without the line; a handler has it.

    "Servers do not log it, but your own code may. Leave it off if user data must not reach the
    log."
    """
    infos: list[Any] = []

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            try:
                yield
            except StreamProtocolParseError as exc:
                infos.append(exc.error.error_info)
                raise

    caplog.set_level(logging.DEBUG, "easynetwork")
    protocol = StreamProtocol(StringLineSerializer(debug=True))
    async with serving(Handler(), protocol) as server, connected(server) as peer:
        await peer.send_bytes(b"secret\xff\n")
        assert await peer.ending() == "end of the stream"
    assert infos == [{"data": b"secret\xff"}]
    assert "sent invalid data" in caplog.text
    assert "secret" not in caplog.text


def test_debug() -> None:
    """Errors contain data only with this option.

    "With debug=True, the errors of a serializer contain the received data as error_info."
    """
    for debug in False, True:
        with pytest.raises(DeserializeError) as caught:
            StringLineSerializer(debug=debug).deserialize(b"\xff")
        assert caught.value.error_info == ({"data": b"\xff"} if debug else None)


# Combining serializers

COMBINATIONS: dict[str, Any] = {
    "signed": combinations.signed,
    "compressed": combinations.compressed,
    "prefixed": combinations.prefixed,
    "pickles": combinations.pickles,
}


@pytest.mark.parametrize("name", COMBINATIONS)
async def test_combination(name: str) -> None:
    """Each combination on the page works in a stream, with a buffer and without.

    "The inner serializer can be of any kind and handles only whole packets"
    """
    packet = [{"sensor": "kitchen", "number": 7}]
    check_serializer(COMBINATIONS[name], [packet])
    await check_served(StreamProtocol(COMBINATIONS[name]), packet)
    await check_served(BufferedStreamProtocol(COMBINATIONS[name]), packet)


def test_signature() -> None:
    """The inner serializer does not parse a packet with another signature.

    "With a key, it also signs the packet. It rejects a packet that was not signed with the same key
    before the inner serializer parses it"

    "Create the key once, with generate_key(), and copy it to both ends over another channel."
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
    """Base64 takes a third more bytes; a signature is valid again; a checksum needs no key.

    "encodes each packet as a line of text, with 4 characters for 3 bytes"

    "A signature does not encrypt the packet and does not contain a time: a recorded packet can be
    sent again."

    "checksum=True uses no key: it detects corruption, but not tampering."
    """
    assert len(Base64EncoderSerializer(NetstringSerializer()).serialize(b"x" * 300)) == 400
    recorded = combinations.signed.serialize("open the door")
    assert [combinations.signed.deserialize(recorded) for _ in range(2)] == ["open the door"] * 2
    assert b"open the door" in base64.urlsafe_b64decode(recorded)
    assert combinations.signed.serialize("open the door") == recorded
    one, other = (Base64EncoderSerializer(JSONSerializer(), checksum=True) for _ in range(2))
    data = one.serialize("hello")
    assert other.deserialize(data) == "hello"
    with pytest.raises(DeserializeError):
        other.deserialize(data.replace(data[1:2], b"_", 1))


def test_limit_of_a_compressor() -> None:
    """The example raises the limit: a packet that compresses well may be large.

    "The packets of the example may have 1,000,000 bytes before compression."
    """
    compressor, text = combinations.compressed, "x" * (1_000_000 - len('""'))
    assert compressor.deserialize(compressor.serialize(text)) == text
    with pytest.raises(DeserializeError):
        compressor.deserialize(compressor.serialize(f"{text}x"))


def test_compression() -> None:
    """Compression makes large packets shorter and small packets longer.

    "compress each packet separately, so compression only helps for large packets: a list of a
    hundred readings in JSON shrinks to less than a tenth, a single reading grows"

    "When you combine serializers, compress first (inside) and encode afterwards (outside)."
    """
    reading = compare_formats.Reading("kitchen", 7, 21.5)._asdict()
    many = [{**reading, "number": number} for number in range(100)]
    plain = JSONSerializer()
    assert len(combinations.compressed.serialize(many)) * 10 < len(plain.serialize(many))
    assert len(combinations.compressed.serialize(reading)) > len(plain.serialize(reading))
    for compressor in ZlibCompressorSerializer, BZ2CompressorSerializer:
        serializer = compressor(plain)
        frame = serializer.serialize_frame(reading)
        assert serializer.serialize_frame(reading) == frame
        assert outcomes(StreamProtocol(serializer), [frame, frame]) == [reading] * 2
    inside = Base64EncoderSerializer(ZlibCompressorSerializer(plain)).serialize(many)
    outside = ZlibCompressorSerializer(Base64EncoderSerializer(plain)).serialize(many)
    assert len(inside) < len(outside)


def test_bzip2() -> None:
    """A packet compressed with bzip2 has half the bytes for the same result.

    "Prefer zlib if you do not trust your peers: with bzip2, a peer needs half as many bytes to make
    your program decompress 64 KiB"
    """
    data = b'"%s"' % (b"x" * 65_534)
    by_bzip2, by_zlib = bz2.compress(data), zlib.compress(data, 9)
    assert BZ2CompressorSerializer(JSONSerializer()).deserialize(by_bzip2) == data[1:-1].decode()
    assert ZlibCompressorSerializer(JSONSerializer()).deserialize(by_zlib) == data[1:-1].decode()
    assert 0.4 < len(by_bzip2) / len(by_zlib) < 0.6


async def test_damage() -> None:
    """Data that follows a corrupt packet is lost, except with a length prefix.

    "If a compressed packet is corrupt, its end cannot be found, and all data that was received but
    not yet parsed is lost with it. If your connections must survive that, add a length prefix, as
    prefixed does."
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
    """A one-shot serializer works in a stream with each kind of length.

    "With LengthPrefixedSerializer, any serializer works in a stream, including one-shot
    serializers."

    "The length is an integer of 8, 16, 24, 32 or 64 bits ("

    "in either byte order, a"
    """
    lengths = get_args(LengthFormat)
    assert set(lengths) - {"varint", "decimal", "netstring"} == {
        f"u{bits}" for bits in (8, 16, 24, 32, 64)
    }
    for length in lengths:
        serializer = LengthPrefixedSerializer(examples.ReadingSerializer(), length)
        frame = serializer.serialize_frame(READING)
        assert outcomes(StreamProtocol(serializer), byte_by_byte(frame * 2)) == [READING] * 2
        if length.startswith("u"):
            data = serializer.serialize(READING)
            for byteorder in "big", "little":
                prefixed = LengthPrefixedSerializer(Plain(), length, byteorder=byteorder)
                size = int(length[1:]) // 8
                assert prefixed.serialize_frame(data) == len(data).to_bytes(size, byteorder) + data


def syslog(**options: Any) -> LengthPrefixedSerializer[str, str]:
    """Return the serializer for syslog messages, maybe with other options."""
    lines = StringLineSerializer(encoding="utf-8")
    return LengthPrefixedSerializer(lines, **{"length": "decimal", "max_digits": 5, **options})


async def test_syslog() -> None:
    """The length is where RFC 6587 wants it, and may not be longer than the option says.

    "length ends with a space, or with another terminator."

    "so that a message can contain newlines"

    "max_digits limits the digits of a decimal length, or the bytes of a varint. A longer length is
    an error, for the sender, too."
    """
    await check_served(StreamProtocol(syslog()), "<13>1 - - backup - - - two\nlines")
    assert syslog(terminator=b"\n").serialize_frame("hello") == b"5\nhello"
    limited = syslog(length="varint", max_digits=1), syslog(max_digits=2)
    for serializer, most in zip(limited, (127, 99), strict=True):
        assert serializer.serialize_frame("x" * most)
        with pytest.raises(ValueError, match="max_digits"):
            serializer.serialize_frame("x" * (most + 1))
    found = outcomes(StreamProtocol(syslog(max_digits=2)), [b"5 hello100 "])
    assert found[0] == "hello"
    assert [type(outcome) for outcome in found[1:]] == [tuple, tuple]


@pytest.mark.skipif(shutil.which("logger") is None, reason="logger is not installed")
async def test_logger() -> None:
    """A server understands what logger sends.

    "Programs that send syslog messages over TCP use it"

    "so that a message can contain newlines"

    "A server with this serializer receives what logger --tcp --octet-count sends."
    """
    sent, received = anyio.create_memory_object_stream[str](10)

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            sent.send_nowait((yield))

    text = "The disk is almost full.\nFree: 2 %"
    with sent, received:
        async with serving(Handler(), StreamProtocol(syslog())) as server:
            host, port = server.get_addresses()[0][:2]
            command = ["logger", "--tcp", "--octet-count", "-n", str(host), "-P", str(port), text]
            await anyio.run_process(command)
            with anyio.fail_after(PATIENCE):
                message = await received.receive()
    assert message.startswith("<13>")
    assert message.endswith(text)


FRAMES = {
    # A PING (RFC 9113, 6.7).
    "HTTP/2": (b"\6\0\0\0\0\0" + b"8 octets", b"\0\0\x08\6\0\0\0\0\0" + b"8 octets"),
    "TLS, handshake messages": (b"\x14finished", b"\x14\0\0\x08finished"),
    "MySQL": (b"\0\3select 1", b"\x09\0\0\0\3select 1"),
    "PostgreSQL, after the start-up": (b"Qselect 1\0", b"Q\0\0\0\x0dselect 1\0"),
    # The smallest length of 3 bytes: MQTT 5.0, 1.5.5.
    "MQTT": (b"\x30" + b"x" * 16_384, b"\x30\x80\x80\x01" + b"x" * 16_384),
    "Redis, bulk strings": (b"$hello\r\n", b"$5\r\nhello\r\n"),
}


def test_arguments() -> None:
    """The arguments in the table write the frames of these protocols.

    "If the length in your protocol counts its own bytes, or follows other fields, use adjustment
    and offset"

    "These are the arguments for some well-known protocols"
    """
    page = (DOCS / "howto" / "serializers.rst").read_text(encoding="utf-8")
    rows = dict(re.findall(r'^   \* - (.+)\n     - ``(".+)``$', page, re.MULTILINE))
    assert rows.keys() == FRAMES.keys()
    for name, (packet, frame) in FRAMES.items():
        options = {"inner": Plain(), "make": LengthPrefixedSerializer}
        serializer = eval(f"make(inner, {rows[name]})", options)
        assert serializer.serialize_frame(packet) == frame
        assert outcomes(StreamProtocol(serializer), [frame]) == [packet]


async def test_stapled() -> None:
    """A client and a server combine the same two serializers in opposite order.

    "sends with its first serializer and receives with its second one. It supports what both
    serializers support: its constructor returns an instance of the matching subclass."
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


# Writing your own serializer


async def test_one_shot() -> None:
    """A UDP server works with the one-shot serializer.

    "The simplest serializer has two methods. This one writes a reading as kitchen 21.5"

    "This is a one-shot serializer, which is sufficient for UDP."
    """
    protocol = DatagramProtocol(examples.ReadingSerializer())
    async with serving(DatagramEcho(), protocol) as server:
        with visiting(server) as peer:
            assert await peer.ask("kitchen 21.5") == "kitchen 21.5"
    assert AbstractPacketSerializer.__abstractmethods__ == {"serialize", "deserialize"}


def test_errors_of_one_shot() -> None:
    """Invalid data is a DeserializeError, another exception is not taken for one.

    "Raise DeserializeError for all invalid data. Any other exception counts as a bug of the
    serializer. Here, ValueError covers all possible errors: bytes that are not text, a missing
    space, an invalid number."
    """

    class Careless(examples.ReadingSerializer):
        def deserialize(self, data: bytes) -> Reading:
            sensor, celsius = data.decode().rsplit(" ", 1)
            return Reading(sensor, float(celsius))

    careful = DatagramProtocol(examples.ReadingSerializer())
    for data in b"\xff 21.5", b"kitchen", b"kitchen warm":
        with pytest.raises(DatagramProtocolParseError) as caught:
            careful.build_packet_from_datagram(data)
        assert type(caught.value.error) is DeserializeError
        assert isinstance(caught.value.error.__cause__, ValueError)
        frame = bytes([len(data)]) + data
        protocol = StreamProtocol(LengthPrefixedSerializer(Careless(), "u8"))
        with pytest.raises(ProtocolCrashedError):
            outcomes(protocol, [frame])


def test_end_is_needed() -> None:
    """A stream's protocol object refuses a serializer that cannot find the end.

    "In a stream, the receiver must be able to find the end of each packet."
    """
    with pytest.raises(TypeError):
        StreamProtocol(examples.ReadingSerializer())  # type: ignore[call-overload]  # on purpose


async def test_lines_of_readings() -> None:
    """A TCP server works with the serializer for lines, and survives an invalid line.

    "ReadingSerializer already has both, so this class is complete"

    "It is a buffered serializer, it uses the fast path of servers and clients, it has a limit, and
    it refuses to send a reading that contains a newline. After an invalid line, the next line is
    received as usual."
    """
    serializer = examples.ReadingLineSerializer()
    assert not {"serialize", "deserialize"} & vars(examples.ReadingLineSerializer).keys()
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
    """The base classes in the table have the abstract methods that the page names.

    "The first three need only the methods serialize() and deserialize()."
    """
    wanted = {"serialize", "deserialize"}
    bases = AutoSeparatedPacketSerializer, FixedSizePacketSerializer, LengthPrefixedPacketSerializer
    for base in bases:
        assert base.__abstractmethods__ == wanted
    assert FileBasedPacketSerializer.__abstractmethods__ != wanted
    assert issubclass(StructSerializer, FixedSizePacketSerializer)
    assert issubclass(NamedTupleStructSerializer, FixedSizePacketSerializer)


def binary(packet: binary_format.Packet) -> bytes:
    """Return the frame of a packet in the binary format."""
    return b"".join(binary_format.protocol.generate_chunks(packet))


async def read_binary(peer: Peer) -> binary_format.Packet:
    """Return the next packet in the binary format that a peer receives."""
    size = await in_thread(lambda: peer.socket.recv(2, socket.MSG_WAITALL))
    body_size = int.from_bytes(size, "big")
    body = await in_thread(lambda: peer.socket.recv(body_size, socket.MSG_WAITALL))
    (packet,) = outcomes(binary_format.protocol, [size + body])
    assert isinstance(packet, binary_format.Packet)
    return packet


async def test_binary_format() -> None:
    """A server receives good frames, and responds to bad and oversized frames with an error.

    "The handler catches the StreamProtocolParseError of an invalid frame and responds with an
    error, and the connection stays open"

    "After a frame with a wrong CRC or an unknown type, the next frame is received as usual. If a
    frame is longer than limit, the handler gets one error as soon as the length has arrived. The
    rest of this frame is discarded as it arrives, and the next frame is received as usual, too."
    """
    good = binary_format.Reading(7, 21.5)
    wrong_crc = binary(good)[:-1] + b"\0"
    unknown_type = binary_format.FrameSerializer().serialize_frame((9, b""))
    bad = {wrong_crc: "The CRC is wrong", unknown_type: "Unknown type 9"}
    protocol = binary_format.protocol
    async with serving(binary_format.ReadingHandler(), protocol) as server:
        async with connected(server) as peer:
            await peer.send_bytes(binary(good))
            assert await read_binary(peer) == binary_format.Accepted(7)
            for data, reason in bad.items():
                await peer.send_bytes(data + binary(good))
                rejected = await read_binary(peer)
                assert isinstance(rejected, binary_format.Rejected)
                assert reason in rejected.reason
                assert await read_binary(peer) == binary_format.Accepted(7)
            await peer.send_bytes((1025).to_bytes(2, "big"))
            rejected = await read_binary(peer)
            assert isinstance(rejected, binary_format.Rejected)
            assert "1025 bytes exceeds the limit of 1024" in rejected.reason
            await peer.send_bytes((binary(good) * 61)[:1025] + binary(good))
            assert await read_binary(peer) == binary_format.Accepted(7)


def test_binary_layout() -> None:
    """A frame has the fields of the table, and the options of the base class change them.

    "The serializer checks the frame: it converts a pair of a type and a body to bytes and back."

    "The converter converts these pairs to dataclasses and back"

    "The base class writes and reads the length, so serialize() returns the bytes after the length,
    and deserialize() receives them."

    "In this format, all integers are big-endian"

    "the number of bytes that follow"

    "the CRC-32 of the type and the body"

    "If the length in your format counts only the body, add adjustment=5: the number of bytes that
    it does not count. If the type comes before the length, add offset=1."
    """

    def frame(**options: Any) -> bytes:
        class Serializer(binary_format.FrameSerializer):
            def __init__(self) -> None:
                LengthPrefixedPacketSerializer.__init__(self, "u16", **options)

        serializer = Serializer()
        check_serializer(serializer, [(3, b"hello"), (1, b"")], malformed=[])
        return serializer.serialize_frame((3, b"hello"))

    crc = zlib.crc32(b"\3hello").to_bytes(4, "big")
    assert frame() == b"\0\x0a" + b"\3hello" + crc
    assert frame() == binary(binary_format.Rejected("hello"))
    assert binary_format.FrameSerializer().serialize((3, b"hello")) == b"\3hello" + crc
    assert binary_format.FrameSerializer().deserialize(b"\3hello" + crc) == (3, b"hello")
    converter = binary_format.PacketConverter()
    for packet in binary_format.Reading(7, 21.5), binary_format.Rejected("hello"):
        assert dataclasses.is_dataclass(packet)
        assert converter.create_from_dto_packet(converter.convert_to_dto_packet(packet)) == packet
    assert frame(adjustment=5) == b"\0\5" + b"\3hello" + crc
    assert frame(offset=1) == b"\3" + b"\0\x09" + b"hello" + crc


def test_binary_errors() -> None:
    """Invalid data raises the two errors, and a wrong length makes the next frames unreadable.

    "For invalid data, the serializer raises DeserializeError, and the converter raises
    PacketConversionError. Any other exception counts as a bug."

    "The CRC does not cover the length. After a wrong length, the parser cannot find the beginning
    of the next frame. If your peers can send wrong lengths, close the connection after an error."
    """
    serializer = binary_format.FrameSerializer()
    for data in b"", b"\1", b"\0\0\0\0", b"\1\0\0\0\0":
        with pytest.raises(DeserializeError):
            serializer.deserialize(data)
    for content in (1, b"\0"), (2, b"123"), (3, b"\xff"), (0, b""):
        with pytest.raises(PacketConversionError):
            binary_format.PacketConverter().create_from_dto_packet(content)
    frames = binary(binary_format.Accepted(7)) * 3
    wrong = outcomes(binary_format.protocol, [b"\0\x08" + frames[2:]])
    assert not any(isinstance(outcome, binary_format.Packet) for outcome in wrong)
    good = binary(binary_format.Accepted(7))

    class BrokenSerializer(binary_format.FrameSerializer):
        def deserialize(self, data: bytes) -> binary_format.Content:
            raise IndexError

    class BrokenConverter(binary_format.PacketConverter):
        def create_from_dto_packet(self, packet: binary_format.Content) -> binary_format.Packet:
            raise IndexError

    for protocol in (
        StreamProtocol(BrokenSerializer(), binary_format.PacketConverter()),
        StreamProtocol(binary_format.FrameSerializer(), BrokenConverter()),
    ):
        with pytest.raises(ProtocolCrashedError):
            outcomes(protocol, [good])


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
    """Servers with the serializers by hand receive good, bad and oversized messages.

    "A message is a line with a name and a size, followed by that number of bytes"

    "The reader counts the bytes that it has read, so pass only the number of bytes of this packet
    that follow them; the rest is discarded as it arrives."

    "A serializer that parses by hand needs a generator for each packet"
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


def test_first_line() -> None:
    """The function for the first line gives both parts; the class has the fields.

    "The class Message has the fields name and body. This function parses the first line"
    """
    assert [field.name for field in dataclasses.fields(Message)] == ["name", "body"]
    assert examples.parse_header(b"living room 5\n") == ("living room", 5)
    for line in b"greeting\n", b"greeting -1\n", b"\xff 5\n":
        with pytest.raises(ValueError):  # noqa: PT011  # its message is not the page's subject
            examples.parse_header(line)


def test_two_generators() -> None:
    """The pieces and the chunks may have any size.

    "Derive from AbstractIncrementalPacketSerializer and write two generators"

    "incremental_serialize() yields the bytes of a packet, in as many pieces as you like."

    "incremental_deserialize() parses one packet."

    "A bare yield in such a generator receives the next bytes from the peer, in chunks of any size."
    """
    generators = "incremental_serialize", "incremental_deserialize"
    assert AbstractIncrementalPacketSerializer.__abstractmethods__ == set(generators)

    class InBytes(examples.MessageSerializer):
        def incremental_serialize(self, packet: Message) -> Generator[bytes, None, None]:
            yield from (bytes([byte]) for byte in b"".join(super().incremental_serialize(packet)))

    message = Message("greeting", b"hello")
    plain, in_bytes = (
        list(StreamProtocol(each).generate_chunks(message))
        for each in (examples.MessageSerializer(), InBytes())
    )
    assert len(plain) < len(in_bytes)
    data = b"".join(plain)
    assert b"".join(in_bytes) == data

    started: list[list[bytes]] = []

    class Noting(examples.MessageSerializer):
        def incremental_deserialize(self) -> Generator[None, bytes, tuple[Message, bytes]]:
            started.append([])
            parser = super().incremental_deserialize()
            next(parser)
            try:
                while True:
                    started[-1].append((yield))
                    parser.send(started[-1][-1])
            except StopIteration as stop:
                result: tuple[Message, bytes] = stop.value
                return result

    chunks = [data[:1], data[1:], data]
    assert outcomes(StreamProtocol(Noting()), chunks) == [message] * 2
    assert started == [chunks[:2], chunks[2:]]


def test_reader() -> None:
    """The reader gives what it was asked for, however the bytes arrive.

    "Here, a GeneratorStreamReader collects these chunks, so that the code reads like a blocking
    program: read a line, then read a number of bytes."
    """

    def parse() -> Generator[None, bytes, tuple[bytes, bytes, bytes]]:
        reader = GeneratorStreamReader()
        line = yield from reader.read_until(b"\n", 100)
        body = yield from reader.read_exactly(5)
        return line, body, reader.read_all()

    data = b"greeting 5\nhellomore"
    for size in 1, 7, len(data):
        parser = parse()
        next(parser)
        with pytest.raises(StopIteration) as stopped:
            for start in range(0, len(data), size):
                parser.send(data[start : start + size])
        line, body, rest = stopped.value.value
        assert (line, body) == (b"greeting 5\n", b"hello")
        assert b"more".startswith(rest)


def test_rule_of_sizes() -> None:
    """A size is refused at once, and the error says how much of the packet there still is.

    "Check a size before you wait for that many bytes. new_limit_error() creates the error for a
    packet that is too large."

    "If you do not know that number, everything that the peer sends afterwards is discarded. The
    argument ends_packet=False has the same effect for a first line that is too long, because this
    newline does not end a message."
    """
    protocol = StreamProtocol(examples.MessageSerializer())
    [error] = outcomes(protocol, [b"large 5000\n"])
    assert error[0] is LimitOverrunError
    assert type(GeneratorStreamReader().new_limit_error("Too large", 5000)) is LimitOverrunError
    rest = b"x" * 5000 + b"ok 0\n"
    assert outcomes(protocol, [b"large 5000\n", rest])[1:] == [Message("ok", b"")]
    assert len(outcomes(protocol, [b"x" * 200 + b"\n", b"ok 0\n" * 2])) == 1

    class Parser(examples.MessageSerializer):
        ends_packet = True
        size: int | None = None

        def incremental_deserialize(self) -> Generator[None, bytes, tuple[Message, bytes]]:
            reader = GeneratorStreamReader()
            line = yield from reader.read_until(b"\n", 100, ends_packet=self.ends_packet)
            if line == b"large\n":
                raise reader.new_limit_error("Too large", self.size)
            return Message("line", line), reader.read_all()

    def received(data: bytes) -> list[Any]:
        return outcomes(StreamProtocol(Parser()), [data])[1:]

    assert received(b"large\nbody\nok\n") == []
    Parser.size = len(b"body\n")
    assert received(b"large\nbody\nok\n") == [Message("line", b"ok\n")]
    assert received(b"x" * 200 + b"\nok\n") == [Message("line", b"ok\n")]
    Parser.ends_packet = False
    assert received(b"x" * 200 + b"\nok\n") == []


def test_rule_of_state() -> None:
    """Two connections share the serializer, not the generators; state on `self` is mixed up.

    "Keep no state on self. All connections share the serializer, and each packet has its own
    generator."
    """

    class Stateful(examples.MessageSerializer):
        def __init__(self) -> None:
            self.reader = GeneratorStreamReader()

        def incremental_deserialize(self) -> Generator[None, bytes, tuple[Message, bytes]]:
            header = yield from self.reader.read_until(b"\n", 100)
            name, size = examples.parse_header(header)
            body = yield from self.reader.read_exactly(size)
            return Message(name, body), self.reader.read_all()

    def received(serializer: examples.MessageSerializer) -> list[Any]:
        protocol = StreamProtocol(serializer)
        one, other = (new_decoder_factory(protocol, 1024)() for _ in range(2))
        packets = []
        for decoder, data in (one, b"one 3\na"), (other, b"other 3\nx"), (one, b"bc"):
            decoder.feed(data)
            packets.append(decoder.take())
        return packets

    assert received(examples.MessageSerializer())[-1] == Message("one", b"abc")
    assert received(Stateful())[-1] != Message("one", b"abc")


def test_messages_as_datagrams() -> None:
    """A datagram protocol works with the incremental serializer.

    "The base class implements serialize() and deserialize() with these two generators, so the
    serializer also works for datagrams."
    """
    protocol = DatagramProtocol(examples.MessageSerializer())
    message = Message("greeting", b"hello")
    assert protocol.make_datagram(message) == b"greeting 5\nhello"
    assert protocol.build_packet_from_datagram(b"greeting 5\nhello") == message


def test_buffers() -> None:
    """A buffer is created for each packet, and has room for the longest one.

    "A buffered serializer provides the buffer into which received bytes are written, and parses
    them there. You can pass it to a BufferedStreamProtocol. It is an incremental serializer with
    two more methods"

    "This bytearray has room for the longest valid packet."

    "Expect a new buffer for each packet, and make it no larger than necessary."
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
    assert buffers == [data] * 3
    added = BufferedIncrementalPacketSerializer.__abstractmethods__
    assert added - AbstractIncrementalPacketSerializer.__abstractmethods__ == {
        "create_deserializer_buffer",
        "buffered_incremental_deserialize",
    }


class Frames(examples.MessageSerializer, BufferedIncrementalPacketSerializer[Any, Any, Any]):
    """Packets of 4 bytes, in a buffer of 8; notes what its generators are sent."""

    start = 0
    buffer: bytearray | None = None

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, bytes]] = []

    def create_deserializer_buffer(self, sizehint: int) -> bytearray:
        return bytearray(8) if self.buffer is None else self.buffer

    def buffered_incremental_deserialize(self, buffer: bytearray) -> Generator[int, int, Any]:
        received = 0
        while received < 4:
            index = self.start + received
            number = yield index
            self.sent.append((index, number, bytes(buffer)))
            received += number
        return bytes(buffer[:4]), memoryview(buffer)[4:received]


def test_buffer_rules() -> None:
    """The generator says where to write, and is told how much was written.

    "Each yield gives the index at which the next bytes are written; its value is the number of
    bytes that were written."

    "The index must lie inside the buffer."
    """
    serializer = Frames()
    protocol = BufferedStreamProtocol(serializer)
    assert outcomes(protocol, [b"a", b"bcde"]) == [b"abcd"]
    assert serializer.sent == [
        (0, 1, b"a" + bytes(7)),
        (1, 4, b"abcde" + bytes(3)),
        (0, 1, b"e" + bytes(7)),
    ]
    serializer.start = 8
    with pytest.raises(ProtocolCrashedError):
        outcomes(protocol, [b"a"])


def test_used_buffer() -> None:
    """A buffer that a serializer gives twice has the bytes of the packet before.

    "Read no bytes beyond received: a new buffer is full of zeros, but a reused buffer contains old
    bytes."

    "The bytes that follow the packet can be a view of the buffer. They are copied before the buffer
    is used again."
    """
    serializer = Frames()
    assert outcomes(BufferedStreamProtocol(serializer), [b"abcdefgh"]) == [b"abcd", b"efgh"]
    assert serializer.sent[0][2] == b"abcdefgh"
    serializer.buffer = bytearray(8)
    data = [b"abcdefgh", b"ijkl"]
    assert outcomes(BufferedStreamProtocol(serializer), data) == [b"abcd", b"efgh", b"ijkl"]
    assert serializer.sent[-2:] == [(0, 4, b"efghefgh"), (0, 4, b"ijklefgh")]


def test_overrun() -> None:
    """The error tells how much of the packet is yet to come.

    "If a packet is too large, pass to LimitOverrunError the received part of the buffer, and the
    number of bytes of the packet, counted from its beginning. If you know that more bytes of the
    packet follow, this number is larger than the number of received bytes. If both numbers are
    equal, the end of the packet is unknown, unless you add end_is_known=True."
    """
    received = memoryview(bytearray(b"large"))
    assert LimitOverrunError("Too large", received, 3).remaining_data == b"ge"
    assert LimitOverrunError("Too large", received, 8).missing == 3
    assert LimitOverrunError("Too large", received, 5).missing is None
    assert LimitOverrunError("Too large", received, 5, end_is_known=True).missing == 0


class Blocks(FramedPacketSerializer[bytes, bytes, Any]):
    """Packets of 4 bytes, without a generator of its own."""

    def framing(self) -> FixedSizeFraming:
        return FixedSizeFraming(4)

    def serialize(self, packet: bytes) -> bytes:
        return packet

    serialize_frame = serialize

    def deserialize(self, data: bytes) -> bytes:
        return data


class BlocksByHand(Blocks):
    def incremental_deserialize(self) -> Generator[None, bytes, tuple[bytes, bytes]]:
        return (yield from super().incremental_deserialize())


class Shouting(examples.ReadingLineSerializer):
    def deserialize_frame(self, data: Any) -> Reading:
        return super().deserialize_frame(bytes(data).upper())


def test_fast_path() -> None:
    """The base classes for frames run no generator; a class that overrides one does.

    "A serializer that parses by hand needs a generator for each packet, as does
    a FileBasedPacketSerializer. The other three base classes do not. They derive from
    FramedPacketSerializer: their method framing() describes the end of a packet, and servers and
    clients split whole chunks into frames without running any generator. Your own class can do the
    same: derive it from FramedPacketSerializer, or override framing(), serialize_frame() or
    deserialize_frame() of one of these three classes."

    "If a class overrides a generator of these classes, that generator parses the packets, and
    a packet costs several times as much."
    """
    bases = AutoSeparatedPacketSerializer, FixedSizePacketSerializer, LengthPrefixedPacketSerializer
    assert all(issubclass(base, FramedPacketSerializer) for base in bases)
    assert not issubclass(FileBasedPacketSerializer, FramedPacketSerializer)
    assert issubclass(CBORSerializer, FileBasedPacketSerializer)

    def decoder(serializer: Any) -> Any:
        return new_decoder_factory(StreamProtocol(serializer), 1024)()

    for serializer in Blocks(), Shouting(), examples.ReadingLineSerializer():
        assert isinstance(decoder(serializer), FramedDecoder)
    for by_hand in BlocksByHand(), CBORSerializer(), examples.MessageSerializer():
        assert isinstance(decoder(by_hand), GeneratorDecoder)
    assert outcomes(StreamProtocol(Shouting()), [b"kitchen 21.5\n"]) == [Reading("KITCHEN", 21.5)]

    def cost(serializer: Any) -> float:
        parser, data = decoder(serializer), b"data" * 100

        def work() -> None:
            parser.feed(data)
            packets = [parser.take()]
            while (packet := parser.take()) is not NEED_DATA or parser.refill():
                packets.append(packet)
            assert packets[0] == packets[99] == b"data"

        return min(timeit.repeat(work, number=5, repeat=10))

    assert cost(BlocksByHand()) > 2 * cost(Blocks())


# Testing your serializer


@pytest.mark.parametrize("test", [examples.test_readings, examples.test_messages])
def test_kit(test: Any) -> None:
    """The tests on the page pass.

    "packets that arrive whole, byte by byte, split in two at any position, followed by others,
    corrupted, too large"
    """
    test()


@pytest.mark.parametrize(
    ("module", "test"),
    [(examples, "test_readings"), (examples, "test_messages"), (binary_format, "test_frames")],
)
def test_oversized(module: Any, test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests of the page call too large is so by its last byte.

    "oversized must result in exactly one error"
    """
    refused = []

    def check(serializer: Any, packets: Any, oversized: Any = (), **options: Any) -> None:
        for data in oversized:
            assert outcomes(StreamProtocol(serializer), [data[:-1]]) == []
            refused.extend(outcomes(StreamProtocol(serializer), [data]))

    monkeypatch.setattr(module, "check_serializer", check)
    getattr(module, test)()
    assert refused


def test_kit_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the binary format sees hundreds of bad frames.

    "check_serializer(), described at the end of this page, tests the serializer with many such
    frames"
    """
    refused = []

    class Noting(binary_format.FrameSerializer):
        def deserialize(self, data: bytes) -> binary_format.Content:
            try:
                return super().deserialize(data)
            except DeserializeError as exc:
                refused.append(str(exc))
                raise

    monkeypatch.setattr(binary_format, "FrameSerializer", Noting)
    binary_format.test_frames()
    assert refused.count("The CRC is wrong") > 100
    assert refused.count("The frame is too short") > 10


class _Forgetful(examples.MessageSerializer):
    """Loses the bytes that follow a packet."""

    def incremental_deserialize(self) -> Any:
        packet, _ = yield from super().incremental_deserialize()
        return packet, b""


class _Careless(examples.BufferedMessageSerializer):
    """Reads bytes of the buffer beyond the received ones."""

    def buffered_incremental_deserialize(self, buffer: bytearray) -> Any:
        received = 0
        while b"\n" not in buffer:
            received += yield received
        header, _, rest = bytes(buffer).partition(b"\n")
        return Message(header.decode(), b""), rest


class _Plain(examples.MessageSerializer):
    """Raises an error without the bytes that follow a bad packet."""

    def incremental_deserialize(self) -> Any:
        try:
            return (yield from super().incremental_deserialize())
        except IncrementalDeserializeError as exc:
            raise DeserializeError(str(exc)) from exc


@pytest.mark.parametrize("serializer", [_Forgetful(), _Careless(), _Plain()])
def test_kit_finds(serializer: Any) -> None:
    """`check_serializer()` detects the mistakes that the page warns of.

    "A network can split a stream at any position, and a peer can send invalid data.
    check_serializer() tests all of this"

    "Return the packet together with the bytes that follow it. They are the beginning of the next
    packet."

    "For a bad packet, raise IncrementalDeserializeError with the bytes that follow this packet. (A
    plain DeserializeError counts as a bug here.)"

    "Read no bytes beyond received"

    "If a check fails, check_serializer() raises AssertionError with the sent data and the result"
    """
    messages = [Message("greeting", b"hello"), Message("nothing", b"")]
    with pytest.raises(AssertionError):
        check_serializer(serializer, messages, malformed=[b"bad\n"])


class _Greedy(examples.MessageSerializer):
    """Takes the bytes that follow a bad packet for a part of it."""

    def incremental_deserialize(self) -> Any:
        try:
            return (yield from super().incremental_deserialize())
        except LimitOverrunError:
            raise
        except IncrementalDeserializeError as exc:
            raise IncrementalDeserializeError(str(exc), b"") from exc


class _Crashing(examples.MessageSerializer):
    """Raises an error of another type for one first line."""

    def incremental_deserialize(self) -> Any:
        message, rest = yield from super().incremental_deserialize()
        if message.name == "crash":
            raise ZeroDivisionError
        return message, rest


def test_kit_options() -> None:
    """What is malformed must cost no other packet; garbage may be a packet.

    "malformed is data that is not a packet but has the end of one: the packets before and after it
    must be received. garbage can result in packets or in parse errors, but in no other exception."
    """
    messages = [Message("greeting", b"hello")]
    check_serializer(_Greedy(), messages)
    with pytest.raises(AssertionError):
        check_serializer(_Greedy(), messages, malformed=[b"bad\n"])
    with pytest.raises(AssertionError):
        check_serializer(examples.MessageSerializer(), messages, malformed=[b"fine 0\n"])
    check_serializer(_Crashing(), messages, garbage=[b"fine 0\n", b"bad\n"])
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        check_serializer(_Crashing(), messages, garbage=[b"crash 0\n"])


class _WrongEnd(examples.MessageSerializer):
    """Ends an oversized message at the end of its first line."""

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
    """`check_serializer()` detects that the rest of an oversized message becomes a packet.

    "this newline does not end a message"

    "oversized must result in exactly one error, and no byte of it may become part of a packet,
    wherever it is split."
    """
    messages = [Message("greeting", b"hello\n")]
    check_serializer(examples.MessageSerializer(), messages, oversized=[b"x" * 200])
    with pytest.raises(AssertionError, match="not .*, one error, and what follows"):
        check_serializer(_WrongEnd(), messages, oversized=[b"x" * 200])


def test_no_progress() -> None:
    """A parser that consumes no byte is stopped.

    "Consume at least one byte. A parser that leaves all received bytes, in its result or in an
    error, would run again forever: this raises a ProtocolCrashedError, as does any exception of
    another type."
    """

    class Endless(examples.MessageSerializer):
        def incremental_deserialize(self) -> Any:
            data = yield
            return Message("", b""), data

    class EndlessErrors(examples.MessageSerializer):
        def incremental_deserialize(self) -> Any:
            data = yield
            raise IncrementalDeserializeError("bad", data)

    for serializer in Endless(), EndlessErrors(), _Crashing():
        with pytest.raises(ProtocolCrashedError):
            outcomes(StreamProtocol(serializer), [b"crash 0\n"])
