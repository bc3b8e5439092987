"""What comes out of a stream, and what that costs, however the stream is cut."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from easynetwork import decoder as decoder_module
from easynetwork.decoder import FramedDecoder, GeneratorDecoder
from easynetwork.exceptions import (
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
    StreamProtocolParseError,
)
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.serializers.abc import AbstractIncrementalPacketSerializer
from easynetwork.serializers.framing import FixedSizePacketSerializer, framers as framers_module
from easynetwork.serializers.framing.framers import MAX_BATCH
from tests.decoding import (
    PROTOCOLS,
    GeneratorBufferedProtocol,
    GeneratorStreamProtocol,
    MakeProtocol,
    Protocol,
    Serializer,
    is_applicable,
    new_decoder,
    outcomes,
    taken,
)
from tests.tools import byte_by_byte, cuts, every_cut, failure, json_values, whole


class NumberSerializer(FixedSizePacketSerializer[int, int]):
    """Numbers of four digits."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(4)

    def serialize(self, packet: int, /) -> bytes:
        return b"%04d" % packet

    def deserialize(self, data: bytes, /) -> int:
        if not data.isdigit():
            raise DeserializeError("not a number")
        return int(data)


class CountedSerializer(AbstractIncrementalPacketSerializer[bytes, bytes]):
    """A byte that counts those behind it: only a generator can tell where that ends."""

    __slots__ = ()

    def incremental_serialize(self, packet: bytes, /) -> Generator[bytes, None, None]:
        yield bytes([len(packet)])
        yield packet

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[bytes, bytes]]:
        data = yield
        while len(data) <= data[0]:
            data += yield
        end = 1 + data[0]
        if data[1:end] == b"bad":
            raise IncrementalDeserializeError("bad is bad", data[end:])
        return data[1:end], data[end:]


def error(message: str) -> tuple[type[Exception], str]:
    return IncrementalDeserializeError, message


# The serializer; a stream; what it says; the beginning of one more packet.
STREAMS: dict[str, tuple[Serializer, bytes, list[Any], bytes]] = {
    "json-lines": (
        JSONSerializer(),
        b'{"id":[1,"\\n"]}\n\n 2 \nx\n"\xc3\xa9"\n',
        [
            {"id": [1, "\n"]},
            error("JSON decode error: Expecting value: line 1 column 1 (char 0)"),
            2,
            error("JSON decode error: Expecting value: line 1 column 1 (char 0)"),
            "é",
        ],
        b'{"id"',
    ),
    "bare-json": (
        JSONSerializer(use_lines=False),
        b'{"id":["]"]}[{}] "a\\"b"\n\n12 \n[x]true\n',
        [
            {"id": ["]"]},
            [{}],
            'a"b',
            12,
            error("JSON decode error: Expecting value: line 1 column 2 (char 1)"),
            True,
        ],
        b'{"id"',
    ),
    "LF": (StringLineSerializer(), b"a\n\nbc\r\nd\n", ["a", "", "bc\r", "d"], b"e"),
    "CR": (StringLineSerializer("CR"), b"a\r\rbc\n\rd\r", ["a", "", "bc\n", "d"], b"e"),
    "CRLF": (
        StringLineSerializer("CRLF"),
        b"a\r\n\r\nb\nc\rd\r\r\n",
        ["a", "", "b\nc\rd\r"],
        b"e\r",
    ),
    "keep-end": (
        StringLineSerializer("CRLF", keep_end=True),
        b"a\r\n\r\nb\r\r\n",
        ["a\r\n", "\r\n", "b\r\r\n"],
        b"e\r",
    ),
    "fixed-size": (
        NumberSerializer(),
        b"00010022spam9999",
        [1, 22, error("Error when deserializing data: not a number"), 9999],
        b"123",
    ),
    "generator-only": (
        CountedSerializer(),
        b"\0\3abc\1\0\3bad\2\1\1",
        [b"", b"abc", b"\0", error("bad is bad"), b"\1\1"],
        b"\3ba",
    ),
}

each_stream = pytest.mark.parametrize(
    ("protocol", "data", "expected", "trailing"),
    [
        pytest.param(make(serializer), data, expected, trailing, id=f"{name}-{make.__name__}")
        for name, (serializer, data, expected, trailing) in STREAMS.items()
        for make in PROTOCOLS
        if is_applicable(make, serializer)
    ],
)
each_protocol = pytest.mark.parametrize("make", PROTOCOLS)
each_unbuffered = pytest.mark.parametrize("make", [StreamProtocol, GeneratorStreamProtocol])


# -- However the bytes are cut -----------------------------------------------------------------


@each_stream
def test_every_cut(protocol: Protocol, data: bytes, expected: list[Any], trailing: bytes) -> None:
    """Whole, byte by byte, split anywhere once or twice: the same packets and errors come out."""
    for stream in (data, data + trailing):
        positions = itertools.combinations(range(1, len(stream)), 2)
        thirds = ([stream[:one], stream[one:two], stream[two:]] for one, two in positions)
        for chunks in itertools.chain(every_cut(stream), thirds):
            assert outcomes(protocol, chunks) == expected, chunks


@each_stream
def test_fed_before_taken(
    protocol: Protocol, data: bytes, expected: list[Any], trailing: bytes
) -> None:
    """Several chunks may come before anybody takes a packet."""
    for chunks in every_cut(data + trailing):
        decoder = new_decoder(protocol)
        for chunk in chunks:
            decoder.feed(chunk)
        assert list(taken(decoder)) == expected, chunks


@each_stream
def test_knows_what_is_unused(
    protocol: Protocol, data: bytes, expected: list[Any], trailing: bytes
) -> None:
    """A decoder is true while it holds bytes that no packet has used, until it forgets them."""
    decoder = new_decoder(protocol)
    assert not decoder
    decoder.feed(data)
    assert decoder
    assert list(taken(decoder)) == expected
    assert not decoder
    decoder.feed(trailing)
    assert list(taken(decoder)) == []
    assert decoder

    decoder.clear()

    assert not decoder
    decoder.feed(data)
    assert list(taken(decoder)) == expected


@each_protocol
@given(data=st.data())
@settings(max_examples=30)
def test_lines_come_back(make: MakeProtocol, data: st.DataObject) -> None:
    """Lines of any kind arrive as they were sent, in any number of pieces."""
    newline: Any = data.draw(st.sampled_from(["LF", "CR", "CRLF"]))
    keep_end = data.draw(st.booleans())
    serializer = StringLineSerializer(newline, encoding="utf-8", keep_end=keep_end)
    text = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))
    lines = data.draw(st.lists(text, max_size=8))
    end = serializer.separator.decode()
    stream = "".join(line + end for line in lines).encode()

    found = outcomes(make(serializer), data.draw(cuts(stream)))

    assert found == [line + end if keep_end else line for line in lines]


@each_unbuffered
@pytest.mark.parametrize("use_lines", [True, False])
@given(data=st.data())
@settings(max_examples=15)
def test_json_comes_back(make: MakeProtocol, use_lines: bool, data: st.DataObject) -> None:
    """JSON documents arrive as they were sent, in any number of pieces."""
    protocol = make(JSONSerializer(use_lines=use_lines))
    values = data.draw(st.lists(json_values(), max_size=8))
    stream = b"".join(chunk for value in values for chunk in protocol.generate_chunks(value))

    assert outcomes(protocol, data.draw(cuts(stream))) == values


# -- The shortcut is only a shortcut -----------------------------------------------------------

BUFFERED = [
    pytest.param(StringLineSerializer(limit=8), id="LF"),
    pytest.param(StringLineSerializer("CRLF", limit=8), id="CRLF"),
    pytest.param(StringLineSerializer("CRLF", limit=8, keep_end=True), id="keep-end"),
    pytest.param(StringLineSerializer("CRLF", limit=1), id="smallest-limit"),
    pytest.param(NumberSerializer(), id="fixed-size"),
]


@pytest.mark.parametrize(
    "serializer", [*BUFFERED, pytest.param(JSONSerializer(limit=8), id="json-lines")]
)
@given(data=st.data())
@settings(max_examples=60)
def test_same_as_chunk_generator(serializer: Any, data: st.DataObject) -> None:
    """With and without the shortcut, the same chunks give the same packets, errors and texts."""
    stream = data.draw(st.binary(max_size=40) | st.text("a1\r\n", max_size=60).map(str.encode))
    chunks = data.draw(cuts(stream))

    shortcut = outcomes(StreamProtocol(serializer), chunks)

    assert shortcut == outcomes(GeneratorStreamProtocol(serializer), chunks)


@pytest.mark.parametrize("serializer", BUFFERED)
@given(data=st.data())
@settings(max_examples=60)
def test_same_as_buffer_generator(serializer: Any, data: st.DataObject) -> None:
    """The same with a buffer, but for the text of the error of a line that is too long."""
    stream = data.draw(st.text("a1\xff\r\n", max_size=60)).encode("latin-1")
    chunks = data.draw(cuts(stream))

    shortcut = outcomes(BufferedStreamProtocol(serializer), chunks)

    generators = outcomes(GeneratorBufferedProtocol(serializer), chunks)
    # A generator does not see more than its buffer, and so not whether there is a separator.
    assert [NOT_FOUND if outcome == FOUND else outcome for outcome in shortcut] == [
        NOT_FOUND if outcome == FOUND else outcome for outcome in generators
    ]


def test_which_is_the_shortcut() -> None:
    """The tests above compare two different things."""
    serializer = StringLineSerializer()
    kinds = [type(new_decoder(make(serializer))) for make in PROTOCOLS]
    assert kinds == [FramedDecoder, GeneratorDecoder] * 2


@each_unbuffered
def test_error_attributes(make: MakeProtocol) -> None:
    """An oversized line's error says how many bytes are gone; behind it, the stream goes on."""
    decoder = new_decoder(make(StringLineSerializer("CRLF", limit=4)))
    decoder.feed(b"12345\r\nnext\r\n")

    with pytest.raises(StreamProtocolParseError) as info:
        decoder.take()

    assert isinstance(info.value.error, LimitOverrunError)
    assert info.value.error is info.value.__cause__
    assert info.value.error.consumed == 5
    assert list(taken(decoder)) == ["next"]


# -- Limits ------------------------------------------------------------------------------------

FOUND = (LimitOverrunError, "Separator is found, but chunk is longer than limit")
NOT_FOUND = (LimitOverrunError, "Separator is not found, and chunk exceed the limit")


@each_protocol
@pytest.mark.parametrize("newline", ["LF", "CRLF"])
def test_line_limit(make: MakeProtocol, newline: Any) -> None:
    """A line of exactly the limit is accepted, one byte more is not, and costs only itself."""
    serializer = StringLineSerializer(newline, limit=16)
    end = serializer.separator
    # A buffer has to hold the line's end and one byte more.
    is_buffered = make in (BufferedStreamProtocol, GeneratorBufferedProtocol)
    longest = 16 - len(end) - 1 if is_buffered else 16
    lines = [size * b"a" for size in (longest - 1, longest, longest + 1, 1)]
    expected = [(longest - 1) * "a", longest * "a", FOUND, "a"]
    protocol = make(serializer)

    assert outcomes(protocol, [b"".join(line + end for line in lines)]) == expected
    assert outcomes(protocol, [line + end for line in lines]) == expected
    # Byte by byte, it is refused before its end is there.
    found = outcomes(protocol, byte_by_byte(lines[2] + end + b"a" + end))
    assert found == [NOT_FOUND, "a"]


@each_protocol
def test_no_separator(make: MakeProtocol) -> None:
    """What never ends is refused once, when the limit is passed."""
    decoder = new_decoder(make(StringLineSerializer("CRLF", limit=16)))

    found: list[Any] = []
    for _ in range(1000):
        decoder.feed(b"a" * 10)
        found += taken(decoder)

    assert found == [NOT_FOUND]


TOO_LONG = "JSON object's end frame is found, but chunk is longer than limit"
ENDLESS = "JSON object's end frame is not found, and chunk exceed the limit"


@pytest.mark.parametrize(
    ("document", "chunks", "expected"),
    [
        (b"[1,2,34]", whole, [1, 2, 34]),
        (b"[1,2,345]", whole, (LimitOverrunError, TOO_LONG)),
        (b"[1,2,34]", byte_by_byte, [1, 2, 34]),
        (b"[1,2,3456", byte_by_byte, (LimitOverrunError, ENDLESS)),
    ],
)
def test_bare_json_limit(
    document: bytes, chunks: Callable[[bytes], list[bytes]], expected: Any
) -> None:
    """A document of exactly the limit is accepted, one byte more is not."""
    protocol = StreamProtocol[Any, Any](JSONSerializer(use_lines=False, limit=8))
    assert outcomes(protocol, chunks(document)) == [expected]


# -- Hostile peers -----------------------------------------------------------------------------

KIB_64 = 64 * 1024
HOSTILE = {
    "separators": b"\n" * KIB_64,
    "brackets": b"[" * KIB_64,
    "nested": b"[" * 20_000 + b"]" * 20_000 + b"\n",
    "quotes": b'"' * 8192,
    "backslashes": b'["' + b"\\" * 8192,
    "digits": b"9" * 8192 + b"\n",
    "nul": bytes(8192),
    "random": random.Random(6).randbytes(8192),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("serializer", [entry[0] for entry in STREAMS.values()], ids=STREAMS)
def test_hostile_input(serializer: Any, data: bytes) -> None:
    """Whatever a peer sends ends in packets and parse errors, never in anything else."""
    makes: list[MakeProtocol] = [StreamProtocol, BufferedStreamProtocol]
    for make in makes:
        if is_applicable(make, serializer):
            decoder = new_decoder(make(serializer))
            for chunk in (data[:1], data[1:5000], data[5000:]):
                decoder.feed(chunk)
                for _ in taken(decoder):
                    pass


# -- Batches -----------------------------------------------------------------------------------


@each_unbuffered
@pytest.mark.parametrize("extra", [-1, 0, 1, MAX_BATCH])
def test_batches(make: MakeProtocol, extra: int) -> None:
    """After so many packets of one chunk, the event loop gets a turn; then they go on in order."""
    decoder = new_decoder(make(StringLineSerializer()))
    lines = [str(number) for number in range(MAX_BATCH + extra)]
    decoder.feed("\n".join([*lines, "tail"]).encode())

    batches = [list(iter(decoder.take, NEED_DATA))]
    while decoder.refill():
        batches.append(list(iter(decoder.take, NEED_DATA)))

    assert list(itertools.chain(*batches)) == lines
    assert max(map(len, batches)) <= MAX_BATCH
    assert decoder.take() is NEED_DATA
    decoder.feed(b"\n")
    assert list(taken(decoder)) == ["tail"]


@each_unbuffered
def test_oversized_line_behind_a_full_batch(make: MakeProtocol) -> None:
    """A batch that is full ends before what is wrong with the rest."""
    protocol = make(StringLineSerializer(limit=4))

    found = outcomes(protocol, [b"\n" * MAX_BATCH + b"12345", b"\na\n"])

    assert found == [""] * MAX_BATCH + [NOT_FOUND, "a"]


def test_frames_at_hand() -> None:
    """A packet can be looked at before it is taken, for as long as frames are at hand."""
    decoder = new_decoder(StreamProtocol[Any, Any](StringLineSerializer()))
    assert decoder.feed(b"1\n\xff\n3\n4")

    found: list[Any] = []
    while decoder.at_hand:
        for _ in range(2):
            try:
                found.append(decoder.peek())
            except StreamProtocolParseError as exc:
                found.append(failure(exc.error)[0])
        decoder.skip()

    assert found == ["1", "1", IncrementalDeserializeError, IncrementalDeserializeError, "3", "3"]
    assert decoder.peek() is decoder.take() is NEED_DATA
    decoder.skip()
    assert not decoder.feed(b"2")
    assert decoder.feed(b"\n")
    assert decoder.take() == "42"


@each_protocol
def test_error_at_its_packet(make: MakeProtocol) -> None:
    """What is wrong with a packet is raised where that packet would be taken, not earlier."""
    decoder = new_decoder(make(StringLineSerializer()))
    decoder.feed(b"a\n\xff\nb\n")

    assert decoder.take() == "a"
    with pytest.raises(StreamProtocolParseError, match="'ascii' codec can't decode"):
        decoder.take()
    assert decoder.take() == "b"
    assert decoder.take() is NEED_DATA


# -- Cost --------------------------------------------------------------------------------------


class Work:
    """Counts the bytes that a framed decoder copies and looks at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        work = self

        class CountedBytes(bytes):
            def __new__(cls, data: Any) -> CountedBytes:
                work.count += len(data)
                return super().__new__(cls, data)

            def split(self, *args: Any) -> list[bytes]:
                work.count += 2 * len(self)  # looked at and copied
                return super().split(*args)

        class CountedBytearray(bytearray):
            def __init__(self, data: Any) -> None:
                work.count += len(data)
                super().__init__(data)

            def __iadd__(self, data: Any) -> Any:  # type: ignore[misc]  # counts, and that is all
                work.count += len(data)
                return super().__iadd__(data)

            def find(self, *args: Any) -> int:
                index = super().find(*args)
                work.count += (index if index >= 0 else len(self)) - args[1]
                return index

        self.bytes = CountedBytes
        for module in (framers_module, decoder_module):
            monkeypatch.setattr(module, "bytes", CountedBytes, raising=False)
        monkeypatch.setattr(decoder_module, "bytearray", CountedBytearray, raising=False)

    def per_byte(self, data: bytes, size: int) -> float:
        """Return the work for each byte of `data`, fed in pieces of `size` bytes."""
        decoder = new_decoder(StreamProtocol[Any, Any](StringLineSerializer()))
        assert isinstance(decoder, FramedDecoder)
        pieces = [self.bytes(data[start : start + size]) for start in range(0, len(data), size)]
        self.count = 0
        packets = 0
        for piece in pieces:
            decoder.feed(piece)
            packets += sum(1 for _ in taken(decoder))
        assert packets == data.count(b"\n")
        return self.count / len(data)


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("line", "count"),
    [(KIB_64 - 1, 2), (KIB_64, 2), (1000, 200), (20, 5000), (0, 20_000)],
)
def test_work_does_not_depend_on_the_pieces(
    line: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte at a time costs at most three times as much work per byte as 64 KiB at a time."""
    work = Work(monkeypatch)
    data = (b"a" * line + b"\n") * count

    in_bulk = work.per_byte(data, KIB_64)

    assert in_bulk >= 2, "nothing was counted"
    assert work.per_byte(data, 1) <= 3 * in_bulk
