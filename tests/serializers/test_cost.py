"""What hostile peers send costs in proportion to its size, and little more than honest packets.

Each case is the worst that is known of its kind: what takes the most time for its bytes, or took
more than that before something was done about it. The processor time of three sizes is measured,
each a few times, and a line is fitted to it. What it may rise by, for each byte:

* what as many packets cost, valid and as small as possible, by the same decoder, cut likewise; if
  byte by byte, of two bytes at least, as what is cut has to be, and with as many chunks;
* 5 microseconds for each error, which is a packet too: its exceptions, with what they carry;
* 3 nanoseconds for each byte that has to be decompressed, up to the limit (zlib takes 1 to 2,
  bzip2 2 to 3);
* 1 microsecond.

And twice as many bytes take no more than twice the time (1.6 times that, so that a noisy machine
does not matter; a quadratic cost would be 2 times that).

To see the figures: ``pytest tests/serializers/test_cost.py -rP | grep us/B``.
"""

from __future__ import annotations

import bz2
import functools
import gc
import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import cbor2
import pytest

from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import (
    Base64EncoderSerializer,
    BZ2CompressorSerializer,
    CBORSerializer,
    JSONSerializer,
    LengthPrefixedSerializer,
    MessagePackSerializer,
    NetstringSerializer,
    StringLineSerializer,
    StructSerializer,
    ZlibCompressorSerializer,
)
from tests.decoding import (
    GeneratorBufferedProtocol,
    GeneratorStreamProtocol,
    MakeProtocol,
    is_applicable,
    new_decoder,
)
from tests.serializers.chosen import chosen_numbers

pytestmark = pytest.mark.cost

LIMIT: Final = 2**17  # So high that it does not help.
EACH_BYTE: Final = 1.0  # Microseconds, as all that follows.
EACH_ERROR: Final = 5.0
EACH_DECOMPRESSED: Final = 0.003
REFERENCE: Final = 0.001  # Seconds that `slowness()` measured where these were set.
MOST_GROWTH: Final = 1.6
ENOUGH: Final = 1_500.0  # What the largest size should take.
SIZES: Final = (2_000, 64_000)  # The largest one is in this range, and at least 4 times the unit.
ATTEMPTS: Final = 5


class Decoder(NamedTuple):
    name: str
    serializer: Any
    packet: bytes
    """The smallest valid one."""
    cut_packet: bytes
    """The smallest valid one of two bytes or more."""
    long_packet: bytes
    """One of a few dozen bytes."""


class Case(NamedTuple):
    decoder: Decoder
    label: str
    make: Callable[[int], bytes]
    """Makes so many bytes, about."""
    decompressed: float = 0.0
    """How many bytes each byte stands for, if it is compressed."""
    is_tried_twice: bool = False
    """Whether the library refuses the packet, with an exception, before it is read after all."""
    chunk_size: int = 0
    """How many bytes come at once, if they do not come one by one. If 0, so many that the smallest
    size comes in a few chunks: a packet in one chunk may be read in another way."""


def cbor(major_type: int, length: int, contents: bytes) -> bytes:
    return bytes([major_type << 5 | 26]) + length.to_bytes(4) + contents


def numbers(bits: int, count: int) -> bytes:
    """Return a CBOR map whose keys collide."""
    keys = chosen_numbers(bits, count)
    return cbor(5, len(keys), b"".join(cbor2.dumps(key) + b"\0" for key in keys))


def again(*units: bytes) -> Iterator[tuple[str, Callable[[int], bytes]]]:
    """Yield what sends something over and over again."""
    for unit in units:
        label = repr(unit)[2:-1]
        label = label if len(label) <= 20 else f"{label[:17]}..."
        yield label, lambda size, unit=unit: unit * max(size // len(unit), 1)  # type: ignore[misc]  # A default.


def cases() -> Iterator[Case]:
    yield from cases_of_texts()
    yield from cases_of_lengths()
    yield from cases_of_objects()
    yield from cases_of_wrappers()


def cases_of_texts() -> Iterator[Case]:
    """Lines, JSON and structures."""
    text = b"x" * 40
    decoder = Decoder("lines", StringLineSerializer(limit=LIMIT), b"\n", b"x\n", text + b"\n")
    for label, make in again(b"\n", b"\xff\n", b"x"):
        yield Case(decoder, label, make)
    decoder = decoder._replace(name="lines-short", serializer=StringLineSerializer(limit=1))
    for label, make in again(b"xx\n", b"x"):
        yield Case(decoder, label, make)
    serializer = StringLineSerializer("CRLF", limit=LIMIT)
    decoder = Decoder("lines-CRLF", serializer, b"\r\n", b"\r\n", text + b"\r\n")
    for label, make in again(b"\r\n", b"\r", b"\xff\r\n", b"\r\r\n"):
        yield Case(decoder, label, make)
    decoder = Decoder("struct", StructSerializer("B"), b"x", b"x", b"x")
    yield Case(decoder, "x", lambda size: b"x" * size)
    quoted = b'"%s"\n' % text
    decoder = Decoder("json", JSONSerializer(limit=LIMIT), b"1\n", b"1\n", quoted)
    for label, make in again(b"\n", b"\xff\n", b"{]\n", b"[" * 1000 + b"\n", b"1" * 4_300 + b"\n"):
        yield Case(decoder, label, make)
    yield Case(decoder, "open", lambda size: b"[" * size + b"\n")
    yield Case(decoder, "brackets", lambda size: b"[" + b"[]," * (size // 3) + b"1]\n")
    yield Case(decoder, "quotes", lambda size: b"[" + b'"",' * (size // 3) + b"[]" * 200 + b"]\n")
    yield Case(decoder, "digits", lambda size: b"1" * size + b"\n")
    yield Case(decoder, "fraction", lambda size: b"1." + b"1" * size + b"\n")
    bare = JSONSerializer(limit=LIMIT, use_lines=False)
    decoder = Decoder("json-bare", bare, b"[]", b"[]", quoted)
    for label, make in again(b"]\n", b"{}]", b'""', b"0\n", b" ", b"["):
        yield Case(decoder, label, make)
    yield Case(decoder, "escapes", lambda size: b'"' + b'\\"' * (size // 2))
    yield Case(decoder, "strings", lambda size: b"{" + b'""' * (size // 2))


def cases_of_lengths() -> Iterator[Case]:
    """Netstrings, and lengths in front of lines."""
    text = b"x" * 40
    serializer = NetstringSerializer(limit=LIMIT)
    decoder = Decoder("netstring", serializer, b"0:,", b"0:,", b"40:%s," % text)
    for label, make in again(b":", b"x", b"0:x", b"00:,", b"1", b"99999999999:", b"1" * 21):
        yield Case(decoder, label, make)
    yield Case(decoder, "long", lambda size: b"%d:%s," % (size, b"x" * size))
    lines = StringLineSerializer()

    def prefixed(packet: bytes, *units: bytes, **options: Any) -> Iterator[Case]:
        serializer = LengthPrefixedSerializer(lines, **{"limit": LIMIT, **options})
        name = "-".join(map(str, options.values()))
        size = options.get("limit", 40)
        cut_packet, long_packet = (serializer.serialize_frame("x" * n) for n in (1, size))
        decoder = Decoder(name, serializer, packet, cut_packet, long_packet)
        for label, make in again(*units):
            yield Case(decoder, label, make)

    yield from prefixed(b"\0", b"\1\xff", length="u8")
    yield from prefixed(b"\0", b"\2xx", b"\xff", length="u8", limit=1)
    yield from prefixed(b"\0\2", b"\0\0", b"\0\2", length="u16", adjustment=-2)
    yield from prefixed(b"a\0", b"\xff\0", length="u8", offset=1)
    yield from prefixed(b"a\0\0", b"\xff\0\0", length="u16", byteorder="little", offset=1)
    yield from prefixed(b"\0\0\0", b"\0\0\1", b"\xff\xff\xff", length="u24")
    yield from prefixed(b"\0\0\0", b"\0", b"\xff\xff\xff", length="u24", limit=1)
    yield from prefixed(b"0 ", b" ", b"0 x", b"00 ", b"1", b"99999999999 ", length="decimal")
    yield from prefixed(b"0\r\n", b"\r", b"0\r", b"1", length="decimal", terminator=b"\r\n")
    yield from prefixed(b"\0", b"\xff", b"\x80" * 9 + b"\0", b"\1\xff", length="varint")


def cases_of_objects() -> Iterator[Case]:
    """CBOR and MessagePack."""
    serializer: Any = CBORSerializer(limit=LIMIT)
    decoder = Decoder("cbor", serializer, b"\0", b"\x18\x18", serializer.serialize(bytes(40)))
    units = [b"\xff", b"\x1c", b"\xc2\0", b"\x61\xff", b"\xa1\x80\0", b"\xd8\x1d\0"]
    units += [b"\x5f", b"\x81", b"\x81" * 129 + b"\0", numbers(11, 990)]
    for label, make in again(*units):
        yield Case(decoder, label, make)
    _, number_as_key = next(again(b"\xa1\0\0"))
    yield Case(decoder, "number-as-key", number_as_key, is_tried_twice=True)
    _, too_many = next(again(numbers(12, 2_700)))
    yield Case(decoder, "numbers", too_many)
    yield Case(decoder, "items", lambda size: cbor(4, size, b"\1" * size))
    yield Case(decoder, "wrong-end", lambda size: cbor(4, size, b"\1" * (size - 1) + b"\x61\xff"))
    yield Case(decoder, "chunks", lambda size: b"\x5f" + b"\x40" * size)
    yield Case(decoder, "open-map", lambda size: b"\xbf" + b"\x01\x02" * (size // 2))
    yield Case(decoder, "array-as-key", lambda size: b"\xa1\x9f" + b"\1" * size)
    yield Case(decoder, "bytes", lambda size: cbor(2, size, bytes(size)))
    yield Case(decoder, "integer", lambda size: b"\xc4\x82\1\xc2" + cbor(2, size, b"\xff" * size))
    yield Case(decoder, "expression", lambda size: b"\xd8\x23" + cbor(3, size, b"a" * size))
    serializer = CBORSerializer(limit=LIMIT, max_depth=LIMIT)
    decoder = decoder._replace(name="cbor-loose", serializer=serializer)
    yield Case(decoder, "nested", lambda size: b"\x81" * size)

    serializer = MessagePackSerializer(limit=LIMIT)
    long_packet = serializer.serialize(bytes(40))
    decoder = Decoder("msgpack", serializer, b"\0", b"\xcc\x80", long_packet)
    units = [b"\xa1\xff", b"\xc1", b"\x91", b"\x81\1\2", b"\xd4\xff\0", b"\x91" * 129 + b"\0"]
    for label, make in again(*units):
        yield Case(decoder, label, make)
    yield Case(decoder, "items", lambda size: b"\xdd" + size.to_bytes(4) + b"\1" * size)
    yield Case(decoder, "declared", lambda size: b"\xdd\0\xff\xff\xff" + b"\1" * size)
    yield Case(decoder, "bytes", lambda size: b"\xc6" + size.to_bytes(4) + b"\x90" * size)


def cases_of_wrappers() -> Iterator[Case]:
    """What is in something else: lines, which fail with the last byte."""
    lines = StringLineSerializer()
    serializer: Any
    for checksum in False, True:
        serializer = Base64EncoderSerializer(lines, checksum=checksum, limit=LIMIT)
        packet = serializer.serialize_frame("a") if checksum else b"\r\n"
        long_packet = serializer.serialize_frame("x" * 30)
        decoder = Decoder(f"base64-{checksum}", serializer, packet, packet, long_packet)
        for label, make in again(b"\r\n", b"*\r\n", b"/w==\r\n", b"AAAA\r\n"):
            yield Case(decoder, label, make)
    for name, serializer, compress in (
        ("zlib", ZlibCompressorSerializer(lines), lambda data: zlib.compress(data, 9)),
        ("bz2", BZ2CompressorSerializer(lines), bz2.compress),
    ):
        decoder = Decoder(name, serializer, *[compress(b"")] * 3)
        for label, inside in (
            ("bad", b"\xff"),
            ("full", b"\n" * 65_536),
            ("full-CRLF", b"\r\n" * 32_768),
            ("wrong-end", b"a" * 65_535 + b"\xff"),
            ("bomb", bytes(1_000_000)),
            ("bomb-of-blocks", b"ab" * 450_000),
        ):
            unit = compress(inside)
            decompressed = min(len(inside), 65_536) / len(unit)
            # An error drops what came with it: what costs most is one packet at a time.
            yield Case(decoder, label, next(again(unit))[1], decompressed, chunk_size=len(unit))
        for label, make in again(compress(b"")[:4], b"x"):
            yield Case(decoder, label, make)
        if name == "zlib":
            yield Case(
                decoder, "empty blocks", lambda n: b"\x78\x9c" + b"\0\0\0\xff\xff" * (n // 5)
            )
            yield Case(decoder, "stored", lambda n: zlib.compress(bytes(n), 0))


# -- Measuring ---------------------------------------------------------------------------------


class Sample(NamedTuple):
    """What some bytes cost."""

    size: int
    time: float
    outcomes: int
    errors: int


WAYS: Final[dict[str, MakeProtocol]] = {
    "frames": StreamProtocol,
    "generators": GeneratorStreamProtocol,
    "buffer": GeneratorBufferedProtocol,
}
CUTS: Final = ("chunks", "bytes")


def measured(
    case: Case, way: str, cut: str, size: int, chunk_size: int, repeats: int = 3
) -> Sample:
    protocol = WAYS[way](case.decoder.serializer)
    data = case.make(size)
    step = (case.chunk_size or chunk_size) if cut == "chunks" else 1
    chunks = [data[start : start + step] for start in range(0, len(data), step)]
    times = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            decoder = new_decoder(protocol)
            start = time.process_time()
            packets, errors = consumed(decoder, chunks)
            times.append(time.process_time() - start)
    finally:
        gc.enable()
    return Sample(len(data), min(times) * 1e6, packets + errors, errors)


def consumed(decoder: Any, chunks: list[bytes]) -> tuple[int, int]:
    """Take all there is, as a server does; return how many packets and errors there were."""
    packets = errors = 0
    for chunk in chunks:
        is_ready = decoder.feed(chunk)
        while is_ready:
            try:
                while decoder.take() is not NEED_DATA:
                    packets += 1
                is_ready = decoder.refill()
            except StreamProtocolParseError:
                errors += 1
    return packets, errors


def samples(case: Case, way: str, cut: str) -> list[Sample]:
    """Measure three sizes, each twice the one before."""
    size = SIZES[0] // 4
    probe = measured(case, way, cut, size, size // 4, repeats=1)
    largest = ENOUGH * probe.size / probe.time
    unit = len(case.make(1))
    largest = max(min(max(largest, SIZES[0]), SIZES[1]), 4 * unit)
    sizes = [largest / 4, largest / 2, largest]
    return [measured(case, way, cut, int(size), int(largest) // 16) for size in sizes]


def slowness() -> float:
    """Return how many times slower this machine is now than the one that the bounds are for."""

    def time_of_work() -> float:
        start = time.process_time()
        [str(number) for number in range(20_000)]
        return time.process_time() - start

    return max(min(time_of_work() for _ in range(3)) / REFERENCE, 1.0)


def slope(points: list[Sample]) -> float:
    fit = statistics.linear_regression([p.size for p in points], [p.time for p in points])
    return fit.slope


@functools.cache
def cost_of_packet(decoder: Decoder, packet: bytes, way: str, cut: str, attempt: int) -> float:
    case = Case(decoder, "baseline", next(again(packet))[1])
    return slope(samples(case, way, cut)) * len(packet)


def baseline(decoder: Decoder, way: str, cut: str, sample: Sample, attempt: int) -> float:
    """Return what as many packets cost, and as many chunks."""
    cost = functools.partial(cost_of_packet, decoder, way=way, attempt=attempt)
    packet = decoder.packet if sample.outcomes > 0.9 * sample.size else decoder.cut_packet
    if cut == "chunks":
        return cost(decoder.packet, cut=cut) * sample.outcomes
    long_packet = decoder.long_packet
    feed = (cost(long_packet, cut=cut) - cost(long_packet, cut="chunks")) / len(long_packet)
    left = sample.size - sample.outcomes * len(packet)
    return cost(packet, cut=cut) * sample.outcomes + max(feed * left, 0.0)


def pairs() -> Iterator[Any]:
    for case in cases():
        for way, make in WAYS.items():
            has_frames = case.decoder.serializer.framing() is not None
            if is_applicable(make, case.decoder.serializer) and (has_frames or way != "frames"):
                for cut in ["bytes"] if way == "buffer" else CUTS:
                    name = f"{case.decoder.name}|{case.label}|{way}|{cut}"
                    yield pytest.param(case, way, cut, id=name)


@pytest.mark.parametrize(("case", "way", "cut"), list(pairs()))
def test_cost(case: Case, way: str, cut: str) -> None:
    """A byte costs the same however many there are, and hardly more than that of a packet."""
    for attempt in range(ATTEMPTS):
        slow = slowness() if attempt else 1.0
        points = samples(case, way, cut)
        each = [point.time / point.size for point in points]
        largest = points[-1]
        exceptions = largest.errors + case.is_tried_twice * largest.outcomes
        allowed = (
            baseline(case.decoder, way, cut, largest, attempt) + EACH_ERROR * slow * exceptions
        )
        allowed += EACH_DECOMPRESSED * slow * case.decompressed * largest.size
        above = (slope(points) - allowed / largest.size) / slow
        growth = each[2] / each[1]
        if above <= EACH_BYTE and growth <= MOST_GROWTH:
            break
    name = f"{case.decoder.name:12} {case.label:22} {way:10} {cut:6}"
    shown = " ".join(f"{value:6.3f}" for value in each)
    print(
        f"{name} {largest.size:7} B: {shown} us/B, slope {slope(points):6.3f}, above {above:6.3f}"
    )
    assert above <= EACH_BYTE
    assert growth <= MOST_GROWTH
