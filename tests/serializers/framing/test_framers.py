"""Frames with their length in front, cut by chunks: as the generators do, and no dearer.

How other framings are cut is tested with what decodes them.
"""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from easynetwork import decoder as decoder_module
from easynetwork.codec import new_decoder_factory
from easynetwork.decoder import FramedDecoder, GeneratorDecoder, StreamDecoder
from easynetwork.exceptions import LimitOverrunError, StreamProtocolParseError
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.framing import framers as framers_module
from easynetwork.serializers.framing.framers import MAX_BATCH
from tests.conftest import EXAMPLES
from tests.decoding import PROTOCOLS, MakeProtocol, Protocol, new_decoder, outcomes, taken
from tests.serializers.framing.lengths import FORMATS, Format
from tests.serializers.framing.ways import BAD_WORD, TOO_DEEP
from tests.tools import byte_by_byte, cuts, every_cut

each_format = pytest.mark.parametrize("kind", FORMATS, ids=str)
some_formats = pytest.mark.parametrize(
    "kind",
    [
        *map(Format, ("u24", "u32", "varint", "decimal", "netstring")),
        Format("u16", offset=3),
    ],
    ids=str,
)
each_protocol = pytest.mark.parametrize("make", PROTOCOLS)

LIMIT = 20


def too_long(size: int) -> tuple[type[Exception], str]:
    return LimitOverrunError, f"Packet of {size} bytes exceeds the limit of {LIMIT}"


def fed_first(protocol: Protocol, chunks: Iterable[bytes]) -> list[Any]:
    """Feed everything, then take everything."""
    decoder = new_decoder(protocol)
    for chunk in chunks:
        decoder.feed(chunk)
    return list(taken(decoder))


# -- However the bytes are cut -----------------------------------------------------------------


@pytest.mark.in_turn
@each_protocol
@each_format
def test_every_cut(kind: Format, make: MakeProtocol) -> None:
    """Whole, byte by byte, split anywhere once or twice: the same packets and errors come out."""
    pad = b"p" * kind.shortest
    packets = [pad + word for word in (b"a", b"is bad", b"x" * 40, b"", b"is deep", b"last")]
    stream = b"".join(map(kind.wire, packets))
    size = len(packets[2])
    expected = [packets[0], BAD_WORD, too_long(size), packets[3], TOO_DEEP, packets[5]]
    protocol = make(kind.serializer(limit=LIMIT))

    for data in (stream, stream + kind.wire(pad + b"trailing")[:-1]):
        positions = itertools.combinations(range(1, len(data), 5), 2)
        thirds = ([data[:one], data[one:two], data[two:]] for one, two in positions)
        for chunks in itertools.chain(every_cut(data), thirds):
            assert outcomes(protocol, chunks) == expected, chunks
            assert fed_first(protocol, chunks) == expected, chunks


def test_which_is_the_shortcut() -> None:
    """The test above compares two different things."""
    kinds = [type(new_decoder(make(FORMATS[0].serializer()))) for make in PROTOCOLS]
    assert kinds == [FramedDecoder, GeneratorDecoder] * 2


def pieces(kind: Format) -> st.SearchStrategy[bytes]:
    """Parts of streams: packets, some too long or cut short, lengths of any size, and garbage."""
    packet = kind.packets(LIMIT + 10).map(kind.wire)
    return st.one_of(
        packet,
        packet.map(lambda data: data[:-1]),
        st.integers(0, kind.largest).map(kind.declared),
        st.integers(0, LIMIT * 2).map(kind.declared),
        st.binary(max_size=30),
        st.text("0123456789:, \r\nab", max_size=30).map(str.encode),
        st.integers(0, 30).map(lambda length: b"h" * kind.offset + b"0" + kind.field(length)),
    )


@pytest.mark.in_turn
@each_format
@given(data=st.data())
@settings(max_examples=EXAMPLES * 2 // 3)
def test_same_however_cut(kind: Format, data: st.DataObject) -> None:
    """Whatever the stream and its chunks, with and without the shortcut: what a model says."""
    stream = b"".join(data.draw(st.lists(pieces(kind), max_size=6)))
    serializer = kind.serializer(limit=LIMIT)

    found = list(kind.parsed(stream, LIMIT))

    assert outcomes(StreamProtocol(serializer), [stream] if stream else []) == found
    for make in PROTOCOLS:
        assert outcomes(make(serializer), data.draw(cuts(stream))) == found
        assert fed_first(make(serializer), data.draw(cuts(stream))) == found


@each_protocol
def test_knows_what_is_unused(make: MakeProtocol) -> None:
    """A decoder is true while it holds bytes that no packet has used; what it skips, it forgets."""
    decoder = new_decoder(make(Format("u16").serializer(limit=LIMIT)))
    decoder.feed(b"\0\x01a\0")
    assert decoder.take() == b"a"
    assert decoder
    decoder.feed(b"\xffsome of it")
    assert list(taken(decoder)) == [too_long(255)]
    assert not decoder

    decoder.clear()

    assert not decoder


# -- What is too long --------------------------------------------------------------------------


@each_protocol
@each_format
def test_limit(kind: Format, make: MakeProtocol) -> None:
    """A packet of the limit is accepted; one byte more is an error, and costs only itself."""
    packets = [b"x" * size for size in (LIMIT - 1, LIMIT, LIMIT + 1, LIMIT)]
    expected = [*packets[:2], too_long(LIMIT + 1), packets[3]]
    protocol = make(kind.serializer(limit=LIMIT))

    assert outcomes(protocol, [b"".join(map(kind.wire, packets))]) == expected
    assert outcomes(protocol, map(kind.wire, packets)) == expected


@each_protocol
@each_format
def test_skipping(kind: Format, make: MakeProtocol) -> None:
    """The error is there with the length; then nothing is heard until the packet has passed."""
    decoder = new_decoder(make(kind.serializer(limit=LIMIT)))
    body = b"\0\x01" * 100
    packet = kind.wire(body)
    length = len(packet) - len(body)

    decoder.feed(packet[: length + kind.offset])
    assert list(taken(decoder)) == [too_long(200)]

    for byte in byte_by_byte(packet[length + kind.offset :]):
        decoder.feed(byte)
        assert list(taken(decoder)) == []
        assert not decoder
    decoder.feed(kind.wire(b"x" * LIMIT))
    assert list(taken(decoder)) == [b"x" * LIMIT]


@each_protocol
@pytest.mark.parametrize("size", [1000, 1024, 8192, 30_000])
def test_skipping_in_one_chunk(make: MakeProtocol, size: int) -> None:
    """A packet may be skipped in more pieces than it has come in."""
    kind = Format("u16")
    decoder = new_decoder(make(kind.serializer(limit=LIMIT)))

    decoder.feed(kind.wire(b"\0" * size) + kind.wire(b"next"))

    assert list(taken(decoder)) == [too_long(size), b"next"]


@each_protocol
def test_skipping_while_nobody_takes(make: MakeProtocol) -> None:
    """What is to be skipped may come while packets in front of it wait."""
    decoder = new_decoder(make(Format("u8").serializer(limit=LIMIT)))

    decoder.feed(b"\x01a\x15" + b"\x14" * 5)
    decoder.feed(b"\x14" * 6)
    decoder.feed(b"\x14" * 10 + b"\x01b\x01")
    assert list(taken(decoder)) == [b"a", too_long(21), b"b"]
    decoder.feed(b"c\x01d\x15" + b"\x14" * 5)
    decoder.feed(b"\x14" * 6)
    assert list(taken(decoder)) == [b"c", b"d", too_long(21)]
    assert not decoder
    decoder.feed(b"\x14" * 10 + b"\x01e")
    assert list(taken(decoder)) == [b"e"]


@each_protocol
def test_clear_while_skipping(make: MakeProtocol) -> None:
    """What a decoder is told to forget is what is here, not what is wrong with what comes."""
    decoder = new_decoder(make(Format("u8").serializer(limit=LIMIT)))
    decoder.feed(b"\x15" + b"\x14" * 10)
    assert list(taken(decoder)) == [too_long(21)]

    decoder.clear()

    assert not decoder
    decoder.feed(b"\x14" * 11 + b"\x01a")
    assert list(taken(decoder)) == [b"a"]


@each_protocol
def test_connections_skip_for_themselves(make: MakeProtocol) -> None:
    """What one connection has to skip is no other's business."""
    new_connection = new_decoder_factory(make(Format("u8").serializer(limit=LIMIT)), 1024)
    one, other = new_connection(), new_connection()

    one.feed(b"\x15")
    other.feed(b"\x01")
    assert list(taken(one)) == [too_long(21)]
    other.feed(b"a")
    assert list(taken(other)) == [b"a"]


@each_protocol
@pytest.mark.parametrize(
    ("kind", "length"),
    [
        (Format("u32"), 2**31),
        (Format("u64", "little"), 2**63),
        (Format("u32", "little", offset=2, adjustment=-6), 2**32 - 1),
        (Format("varint"), 2**63),
        (Format("decimal", terminator=b"\r\n"), 2**64 - 1),
        (Format("netstring"), 2**64 - 1),
    ],
    ids=str,
)
def test_huge_lengths_cost_nothing(kind: Format, length: int, make: MakeProtocol) -> None:
    """A length that nobody has the memory for is refused at once; what follows is not kept."""
    decoder = new_decoder(make(kind.serializer()))
    junk = b"x" * 65536
    tracemalloc.start()
    try:
        decoder.feed(kind.declared(length))
        [(error, _)] = taken(decoder)
        assert error is LimitOverrunError
        for _ in range(20):
            decoder.feed(junk)
            assert list(taken(decoder)) == []
        # A few copies of a chunk; of 1.3 MB, or of a length, there is no trace.
        assert tracemalloc.get_traced_memory()[1] < 400_000
    finally:
        tracemalloc.stop()


def test_error_attributes() -> None:
    """An error knows the packet's size; it is the reason, and the cause, of what is raised."""
    decoder = new_decoder(StreamProtocol[Any, Any](Format("u16").serializer(limit=LIMIT)))
    decoder.feed(b"\x01\x00abc")

    with pytest.raises(StreamProtocolParseError) as info:
        decoder.take()

    assert isinstance(info.value.error, LimitOverrunError)
    assert info.value.error is info.value.__cause__
    assert info.value.error.consumed == 258
    assert info.value.remaining_data == b""


# -- Batches -----------------------------------------------------------------------------------


def batches(decoder: StreamDecoder) -> Iterator[list[Any]]:
    """Take what there is between two turns of an event loop."""
    yield list(iter(decoder.take, NEED_DATA))
    while decoder.refill():
        yield list(iter(decoder.take, NEED_DATA))


@each_protocol
@some_formats
@pytest.mark.parametrize("extra", [-1, 0, 1, MAX_BATCH])
def test_batches(kind: Format, make: MakeProtocol, extra: int) -> None:
    """After so many packets of one chunk, the event loop gets a turn; then they go on in order."""
    decoder = new_decoder(make(kind.serializer()))
    packets = [b"%08d" % number for number in range(MAX_BATCH + extra)]
    tail = kind.wire(b"the tail")
    decoder.feed(b"".join(map(kind.wire, packets)) + tail[:5])

    found = list(batches(decoder))

    assert list(itertools.chain(*found)) == packets
    assert max(map(len, found)) <= MAX_BATCH
    decoder.feed(tail[5:])
    assert list(taken(decoder)) == [b"the tail"]


@each_protocol
def test_batches_of_errors(make: MakeProtocol) -> None:
    """An error counts as a packet does."""
    decoder = new_decoder(make(Format("u8").serializer(limit=1)))
    decoder.feed(b"\x02ab" * (MAX_BATCH + 1) + b"\x01c")
    for _ in range(MAX_BATCH):
        with pytest.raises(StreamProtocolParseError):
            decoder.take()

    assert decoder.take() is NEED_DATA
    assert decoder.refill()
    with pytest.raises(StreamProtocolParseError):
        decoder.take()
    assert decoder.take() == b"c"


# -- Cost --------------------------------------------------------------------------------------


class Work:
    """Counts the bytes that a decoder and its framer copy or look for a length in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        work = self

        class CountedBytes(bytes):
            def __new__(cls, data: Any) -> CountedBytes:
                work.count += len(data)
                return super().__new__(cls, data)

            def __getitem__(self, key: Any) -> Any:
                item = super().__getitem__(key)
                work.count += 1 if isinstance(item, int) else len(item)
                return item

        class CountedBytearray(bytearray):
            def __init__(self, data: Any) -> None:
                work.count += len(data)
                super().__init__(data)

            def __iadd__(self, data: Any) -> Any:  # type: ignore[misc]  # counts, and that is all
                work.count += len(data)
                return super().__iadd__(data)

            def __getitem__(self, key: Any) -> Any:
                item = super().__getitem__(key)
                work.count += 1 if isinstance(item, int) else len(item)
                return item

        self.bytes = CountedBytes
        for module in (framers_module, decoder_module):
            monkeypatch.setattr(module, "bytes", CountedBytes, raising=False)
        monkeypatch.setattr(decoder_module, "bytearray", CountedBytearray, raising=False)

    def per_byte(self, kind: Format, data: bytes, size: int) -> float:
        """Return the work for each byte of `data`, fed in pieces of `size` bytes."""
        decoder = new_decoder(BufferedStreamProtocol[Any, Any, Any](kind.serializer()))
        assert isinstance(decoder, FramedDecoder)
        chunks = [self.bytes(data[start : start + size]) for start in range(0, len(data), size)]
        self.count = 0
        for chunk in chunks:
            decoder.feed(chunk)
            for packet in taken(decoder):
                assert isinstance(packet, bytes)
        assert not decoder
        return self.count / len(data)


@pytest.mark.in_turn
@some_formats
@pytest.mark.parametrize(("size", "count"), [(65536, 1), (1000, 100), (20, 4000)])
def test_work_does_not_depend_on_the_pieces(
    kind: Format, size: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte at a time costs about as much work per byte as 64 KiB at a time.

    About: each byte that arrives is a reason to look at the length again, some bytes of it.
    """
    work = Work(monkeypatch)
    data = kind.wire(b"a" * size) * count

    in_bulk = work.per_byte(kind, data, 65536)

    assert 1 <= in_bulk <= 6
    assert work.per_byte(kind, data, 1) <= in_bulk + 8
