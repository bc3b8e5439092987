"""A packet that is too large is one error, and no byte of it is ever parsed as another packet.

Otherwise, whoever writes a text that a program sends on could hide a command in it.
"""

from __future__ import annotations

import bz2
import itertools
import tracemalloc
import zlib
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from easynetwork.exceptions import LimitOverrunError, StreamProtocolParseError
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import (
    BZ2CompressorSerializer,
    CBORSerializer,
    JSONSerializer,
    MessagePackSerializer,
    NetstringSerializer,
    StringLineSerializer,
    ZlibCompressorSerializer,
)
from easynetwork.serializers.abc import AbstractIncrementalPacketSerializer
from easynetwork.serializers.framing import AutoSeparatedPacketSerializer
from easynetwork.serializers.framing.framers import MAX_BATCH, Overrun
from easynetwork.serializers.tools import GeneratorStreamReader
from tests.decoding import PROTOCOLS, MakeProtocol, is_applicable, new_decoder, outcomes, taken
from tests.tools import assert_linear, byte_by_byte, cuts, every_cut

each_protocol = pytest.mark.parametrize("make", PROTOCOLS)
OVERRUN = "too large"


def seen(found: list[Any]) -> list[Any]:
    """Return outcomes, whatever the message of an oversized packet's error: it is of two kinds."""
    return [
        OVERRUN if isinstance(item, tuple) and item[0] is LimitOverrunError else item
        for item in found
    ]


# -- Up to a separator -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "serializer", "command"),
    [
        pytest.param(make, serializer, command, id=f"{name}-{make.__name__}")
        for name, serializer, command in [
            ("LF", StringLineSerializer(), b"SHUTDOWN now\n"),
            ("CRLF", StringLineSerializer("CRLF"), b"SHUTDOWN now\r\n"),
            ("JSON", JSONSerializer(), b'"SHUTDOWN now"\n'),
        ]
        for make in PROTOCOLS
        if is_applicable(make, serializer)
    ],
)
def test_hidden_command(make: MakeProtocol, serializer: Any, command: bytes) -> None:
    """With the default limit, a line of 70 kB with a command far inside is one error."""
    sent = serializer.serialize_frame("hello")
    for size in (65_530, 65_536, 65_537, 65_600, 70_000):
        text = b"x" * size
        for chunks in (
            [text, command, sent],
            [text[:60_000], text[60_000:], command + sent],
            [text, *byte_by_byte(command + sent)],
            [text + command + sent],
        ):
            assert seen(outcomes(make(serializer), chunks)) == [OVERRUN, "hello"]


class Separated(AutoSeparatedPacketSerializer[bytes, bytes]):
    """Bytes between separators."""

    __slots__ = ()

    def serialize(self, packet: bytes) -> bytes:
        return packet

    def deserialize(self, data: bytes) -> bytes:
        return data


def separated(stream: bytes, separator: bytes, limit: int) -> list[Any]:
    """Return what has to come out, found in the plainest way."""
    *frames, rest = stream.split(separator)
    found: list[Any] = [frame if len(frame) <= limit else OVERRUN for frame in frames]
    return found + [OVERRUN] * (len(rest) + 1 - len(separator) > limit)


@each_protocol
@pytest.mark.parametrize("separator", [b"-", b"--", b"a-a", b"-a-a"])
@given(data=st.data())
@settings(max_examples=60)
def test_separators(make: MakeProtocol, separator: bytes, data: st.DataObject) -> None:
    """Whatever the stream and its chunks: each frame is a packet or one error."""
    limit = data.draw(st.integers(1, 12))
    stream = data.draw(st.text("-ab", max_size=60)).encode()
    serializer = Separated(separator, limit=limit)
    if make in PROTOCOLS[2:]:  # In a buffer, the separator has to fit in, and one byte more.
        size = max(limit, len(separator) + 1)
        limit = size - 1 - len(separator)

    found = outcomes(make(serializer), data.draw(cuts(stream)))

    assert seen(found) == separated(stream, separator, limit)


@each_protocol
def test_endless_line(make: MakeProtocol) -> None:
    """A line that never ends is one error, and nothing of it is kept."""
    decoder = new_decoder(make(StringLineSerializer("CRLF", limit=16)))
    junk = b"x" * 65_536
    found: list[Any] = []
    tracemalloc.start()
    try:
        for _ in range(50):
            decoder.feed(junk)
            found += taken(decoder)
        assert tracemalloc.get_traced_memory()[1] < 600_000
    finally:
        tracemalloc.stop()

    assert seen(found) == [OVERRUN]
    assert not decoder
    decoder.feed(b"\r\nnext\r\n")
    assert list(taken(decoder)) == ["next"]


@each_protocol
def test_while_nobody_takes(make: MakeProtocol) -> None:
    """The rest of a line may come while the packets before it wait."""
    decoder = new_decoder(make(StringLineSerializer("CRLF", limit=16)))
    for chunk in (b"a\r\n" + b"x" * 30, b"SHUTDOWN", b"\r", b"\nb\r\nc", b"\r\n"):
        decoder.feed(chunk)

    assert seen(list(taken(decoder))) == ["a", OVERRUN, "b", "c"]


@each_protocol
@pytest.mark.parametrize("count", [MAX_BATCH - 1, MAX_BATCH, MAX_BATCH + 1])
def test_behind_a_batch(make: MakeProtocol, count: int) -> None:
    """An error counts as a packet does, and a batch that is full ends before it."""
    decoder = new_decoder(make(StringLineSerializer(limit=8)))
    decoder.feed(b"\n" * count + b"x" * 20 + b"\n" + b"a\n" * MAX_BATCH)
    found: list[Any] = []
    is_ready = True
    while is_ready:
        batch = []
        try:
            for packet in iter(decoder.take, NEED_DATA):
                batch.append(packet)  # What came before an error counts.
        except StreamProtocolParseError:
            batch.append(OVERRUN)
            found += batch
            continue
        assert len(batch) <= MAX_BATCH
        found += batch
        is_ready = decoder.refill()

    assert found == [""] * count + [OVERRUN] + ["a"] * MAX_BATCH


@each_protocol
def test_clear(make: MakeProtocol) -> None:
    """What a decoder is told to forget is what is here, not what is wrong with what comes."""
    decoder = new_decoder(make(StringLineSerializer(limit=8)))
    decoder.feed(b"x" * 20)
    assert seen(list(taken(decoder))) == [OVERRUN]

    decoder.clear()

    decoder.feed(b"SHUTDOWN\nnext\n")
    assert list(taken(decoder)) == ["next"]


@each_protocol
def test_connections_apart(make: MakeProtocol) -> None:
    """The line of one connection is no other's."""
    protocol = make(StringLineSerializer(limit=8))
    one, other = new_decoder(protocol), new_decoder(protocol)
    one.feed(b"x" * 20)
    assert seen(list(taken(one))) == [OVERRUN]
    other.feed(b"a\n")
    assert list(taken(other)) == ["a"]


# -- To an end that nobody knows ---------------------------------------------------------------


class Unlimited(AbstractIncrementalPacketSerializer[bytes, bytes]):
    """A user's serializer, whose packets end with a full stop, and have at most ten bytes.

    As in many a program, its error says that all it got belongs to the packet.
    """

    __slots__ = ()

    def incremental_serialize(self, packet: bytes) -> Generator[bytes, None, None]:
        yield packet + b"."

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[bytes, bytes]]:
        data = b""
        while b"." not in data[:11]:
            if len(data) > 10:
                raise LimitOverrunError("Too long", data, len(data))
            data += yield
        packet, _, rest = data.partition(b".")
        return packet, rest


UNKNOWN_END: dict[str, tuple[Any, bytes, bytes]] = {
    "array": (
        JSONSerializer(use_lines=False, limit=20),
        b"[1]",
        b'["' + b"x" * 30 + b'", "a", [2]]',
    ),
    "number": (JSONSerializer(use_lines=False, limit=20), b"[1]", b"1" * 30 + b' "a" [2] '),
    "cbor": (CBORSerializer(limit=20), b"\1", b"\x58\x40" + b"\1" * 64),
    "msgpack": (MessagePackSerializer(limit=20), b"\1", b"\xc4\x40" + b"\1" * 64),
    "zlib": (
        ZlibCompressorSerializer(StringLineSerializer(), limit=20),
        zlib.compress(b"a"),
        zlib.compress(b"x" * 30),
    ),
    "bz2": (
        BZ2CompressorSerializer(StringLineSerializer(), limit=20),
        bz2.compress(b"a"),
        bz2.compress(b"x" * 30),
    ),
    "own": (Unlimited(), b"a.", b"x" * 20 + b".a."),
}


@pytest.mark.parametrize(
    ("make", "serializer", "frame", "oversized"),
    [
        pytest.param(make, *case, id=f"{name}-{make.__name__}")
        for name, case in UNKNOWN_END.items()
        for make in PROTOCOLS
        if is_applicable(make, case[0])
    ],
)
def test_unknown_end(make: MakeProtocol, serializer: Any, frame: bytes, oversized: bytes) -> None:
    """After the error, nothing is received any more, and nothing is kept."""
    protocol = make(serializer)
    [packet] = outcomes(protocol, [frame])
    for chunks in every_cut(frame + oversized + frame * 3):
        decoder = new_decoder(protocol)
        found: list[Any] = []
        for chunk in chunks:
            decoder.feed(chunk)
            found += taken(decoder)
        assert seen(found) == [packet, OVERRUN], chunks
        assert not decoder


@pytest.mark.parametrize("make", PROTOCOLS[:2])
@pytest.mark.parametrize(
    "document", [b'[[["SHUTDOWN"]]]', b'{"a":{"b":{"c":"SHUTDOWN"}}}', b'[[["]"," SHUTDOWN "]]]']
)
def test_deep_document(make: MakeProtocol, document: bytes) -> None:
    """A document that is too deep is known to end where it does: its inside is no document."""
    protocol = make(JSONSerializer(use_lines=False, max_depth=2))
    for chunks in every_cut(b"[1]" + document + b"[2]"):
        first, error, last = outcomes(protocol, chunks)
        assert (first, last) == ([1], [2])
        assert error[1] == "JSON decode error: The document is nested too deeply"


@pytest.mark.parametrize("make", PROTOCOLS[:2])
def test_exhausted_stack(make: MakeProtocol) -> None:
    """What exhausts the stack ends nobody knows where."""

    class Recursive(Unlimited):
        __slots__ = ()

        def incremental_deserialize(self) -> Generator[None, bytes, tuple[bytes, bytes]]:
            if (yield)[:1] == b"[":
                raise RecursionError
            return b"packet", b""

    assert seen(outcomes(make(Recursive()), [b"1", b"[", b"SHUTDOWN"])) == [b"packet", OVERRUN]


# -- To an end that a parser knows -------------------------------------------------------------


class Counted(AbstractIncrementalPacketSerializer[bytes, bytes]):
    """Two digits and as many bytes, ten at most; the reader tells what was read."""

    __slots__ = ()

    def incremental_serialize(self, packet: bytes) -> Generator[bytes, None, None]:
        yield b"%02d" % len(packet) + packet

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[bytes, bytes]]:
        reader = GeneratorStreamReader()
        size = int((yield from reader.read_exactly(2)))
        if size > 10:
            raise reader.new_limit_error("Too long", size)
        return (yield from reader.read_exactly(size)), reader.read_all()


class CountedLater(Counted):
    """The same, but the error comes after the bytes; and is made by hand."""

    __slots__ = ()

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[bytes, bytes]]:
        data = b""
        while len(data) < 2 or len(data) < 2 + int(data[:2]):
            data += yield
        end = 2 + int(data[:2])
        if end > 12:
            raise LimitOverrunError("Too long", data, end, end_is_known=True)
        return data[2:end], data[end:]


@pytest.mark.parametrize("make", PROTOCOLS[:2])
@pytest.mark.parametrize("serializer", [Counted(), CountedLater()])
def test_known_size(make: MakeProtocol, serializer: Any) -> None:
    """What follows the packet is received, however the stream is cut."""
    stream = b"01a" + b"20" + b"01b02cc" * 2 + b"xxxxxx" + b"01d"
    positions = itertools.combinations(range(1, len(stream)), 2)
    thirds = ([stream[:one], stream[one:two], stream[two:]] for one, two in positions)
    for chunks in itertools.chain(every_cut(stream), thirds):
        assert seen(outcomes(make(serializer), chunks)) == [b"a", OVERRUN, b"d"]


@each_protocol
def test_known_size_of_a_netstring(make: MakeProtocol) -> None:
    """So it is where a framing knows."""
    for chunks in every_cut(b"1:a,20:1:b,1:c,1:d,xxxxxxxx,1:e,"):
        found = outcomes(make(NetstringSerializer(limit=10)), chunks)
        assert seen(found) == [b"a", OVERRUN, b"e"]


# -- What is dropped ---------------------------------------------------------------------------


def dropped(overrun: Overrun, chunks: list[bytes]) -> bytes | None:
    """Return what is left of some chunks; None if nothing is."""
    for number, chunk in enumerate(chunks):
        if (end := overrun.end_in(chunk)) is not None:
            return b"".join([chunk[end:], *chunks[number + 1 :]])
    return None


@given(data=st.data())
def test_overrun(data: st.DataObject) -> None:
    """The first separator ends it, though it may have begun before; or so many bytes do."""
    separator = data.draw(st.text("ab", min_size=1, max_size=4)).encode()
    size = data.draw(st.integers(0, len(separator) - 1))
    beginning = separator[:size]
    rest = data.draw(st.text("ab", max_size=20)).encode()
    chunks = data.draw(cuts(rest))
    _, found, expected = (beginning + rest).partition(separator)

    assert dropped(Overrun(None, separator, beginning), chunks) == (expected if found else None)
    assert dropped(Overrun(None), chunks) is None
    missing = data.draw(st.integers(1, 25))
    expected_rest = rest[missing:] if rest and missing <= len(rest) else None
    assert dropped(Overrun(missing), chunks) == expected_rest


def test_error_in_the_middle_of_a_separator() -> None:
    """An error that found half a separator is told the other half."""
    decoder = new_decoder(StreamProtocol[Any, Any](StringLineSerializer("CRLF", limit=4)))
    decoder.feed(b"123456\r")
    assert seen(list(taken(decoder))) == [OVERRUN]
    decoder.feed(b"\nnext\r\n")
    assert list(taken(decoder)) == ["next"]


# -- Cost --------------------------------------------------------------------------------------


def pieces(size: int, step: int) -> Iterator[bytes]:
    data = b"\r" * size
    return (data[start : start + step] for start in range(0, size, step))


@each_protocol
@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.cost
def test_cost(make: MakeProtocol, step: int) -> None:
    """A byte that is dropped costs the same however many are, and however they are cut."""

    def work(size: int) -> None:
        decoder = new_decoder(make(StringLineSerializer("CRLF", limit=8)))
        for piece in pieces(size, step):
            decoder.feed(piece)
            for _ in taken(decoder):
                pass

    assert_linear(work, 20_000 * min(step, 50))


@each_protocol
@pytest.mark.cost
def test_cost_at_once(make: MakeProtocol) -> None:
    """What waits is dropped in one go."""

    def work(size: int) -> None:
        decoder = new_decoder(make(StringLineSerializer("CRLF", limit=8)))
        for piece in pieces(size, 1000):
            decoder.feed(piece)
        assert seen(list(taken(decoder))) == [OVERRUN]

    assert_linear(work, 1_000_000)
