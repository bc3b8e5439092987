from __future__ import annotations

import bz2
import lzma
import random
import shutil
import subprocess
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings, strategies as st

from easynetwork.exceptions import (
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
)
from easynetwork.serializers import (
    BZ2CompressorSerializer,
    JSONSerializer,
    NetstringSerializer,
    ZlibCompressorSerializer,
)
from easynetwork.serializers.wrapper.compressor import (
    AbstractCompressorSerializer,
    CompressorInterface,
    DecompressorInterface,
)
from tests.tools import (
    byte_by_byte,
    check_every_cut,
    cuts,
    every_cut,
    feed,
    parse_one,
    through_buffer,
)

RAW = NetstringSerializer()  # One-shot, its packets are the bytes themselves.


class XZSerializer(AbstractCompressorSerializer[Any, Any]):
    """A user's serializer, of another format of the standard library."""

    __slots__ = ()

    def __init__(self, serializer: Any, **options: Any) -> None:
        super().__init__(serializer, lzma.LZMAError, **options)

    def new_compressor_stream(self) -> CompressorInterface:
        return lzma.LZMACompressor(preset=0)

    def new_decompressor_stream(self) -> DecompressorInterface:
        return lzma.LZMADecompressor()


class Format(NamedTuple):
    serializer_class: Any
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]
    """By somebody else than `serializer_class`."""


FORMATS = [
    Format(ZlibCompressorSerializer, lambda data: zlib.compress(data, 9), zlib.decompress),
    Format(BZ2CompressorSerializer, bz2.compress, bz2.decompress),
    Format(XZSerializer, lambda data: lzma.compress(data, preset=0), lzma.decompress),
]
each_format = pytest.mark.parametrize("format_", FORMATS, ids=["zlib", "bz2", "xz"])


# -- Options -----------------------------------------------------------------------------------


@each_format
def test_properties(format_: Format) -> None:
    """A serializer shows its options."""
    serializer = format_.serializer_class(RAW, limit=100, debug=True)

    assert serializer.buffer_limit == 100
    assert serializer.debug is True
    assert format_.serializer_class(RAW).buffer_limit == 65536
    assert format_.serializer_class(RAW).debug is False
    assert serializer.framing() is None
    assert len(serializer.create_deserializer_buffer(10)) == 10


@pytest.mark.parametrize("serializer_class", [ZlibCompressorSerializer, BZ2CompressorSerializer])
def test_slots(serializer_class: Any) -> None:
    """Serializers are small."""
    assert not hasattr(serializer_class(RAW), "__dict__")


@each_format
def test_wrong_options(format_: Format) -> None:
    """Wrong options are refused at construction."""
    with pytest.raises(TypeError, match="^Expected a serializer instance, got 1$"):
        format_.serializer_class(1)
    with pytest.raises(ValueError, match="^limit must be a positive integer$"):
        format_.serializer_class(RAW, limit=0)


@pytest.mark.parametrize(
    ("serializer_class", "level"),
    [
        (ZlibCompressorSerializer, 10),
        (BZ2CompressorSerializer, 0),
        (BZ2CompressorSerializer, 10),
    ],
)
def test_wrong_level(serializer_class: Any, level: int) -> None:
    """A level that does not exist is refused at construction."""
    with pytest.raises(ValueError):  # noqa: PT011  # The text is the library's.
        serializer_class(RAW, compress_level=level)


def test_levels() -> None:
    """The best compression is the default; another level can be chosen."""
    data = b"some text, some more text, and text" * 10

    zlib_levels = {
        level: ZlibCompressorSerializer(RAW, compress_level=level) for level in range(10)
    }
    for level, serializer in zlib_levels.items():
        assert serializer.serialize(data) == zlib.compress(data, level)
    assert ZlibCompressorSerializer(RAW).serialize(data) == zlib.compress(data, 9)
    for level in range(1, 10):
        serializer = BZ2CompressorSerializer(RAW, compress_level=level)  # type: ignore[assignment]  # The other class.
        assert serializer.serialize(data) == bz2.compress(data, level)
    assert BZ2CompressorSerializer(RAW).serialize(data) == bz2.compress(data, 9)


# -- Packets -----------------------------------------------------------------------------------


@each_format
@given(packets=st.lists(st.binary(), min_size=1, max_size=3), data=st.data())
def test_round_trip(format_: Format, packets: list[bytes], data: st.DataObject) -> None:
    """The streams are those of the library, one for each packet, however they are cut."""
    serializer = format_.serializer_class(RAW)
    for packet in packets:
        assert format_.decompress(serializer.serialize(packet)) == packet
        assert serializer.serialize_frame(packet) == serializer.serialize(packet)
        assert len(list(serializer.incremental_serialize(packet))) == 2
        assert serializer.deserialize(format_.compress(packet)) == packet
    chunks = data.draw(cuts(b"".join(map(format_.compress, packets))))
    for parser in serializer.incremental_deserialize, through_buffer(serializer, sizehint=3):
        assert feed(parser, chunks) == (packets, b"")


def run(command: str, data: bytes) -> bytes:
    """Return what a program makes of its input."""
    program, *arguments = command.split()
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return subprocess.run([program, *arguments], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("program", "serializer_class"), [("bzip2", BZ2CompressorSerializer), ("xz", XZSerializer)]
)
def test_agrees_with_program(program: str, serializer_class: Any) -> None:
    """Other programs understand what is sent, and are understood."""
    packet = b"some text, " * 100
    serializer = serializer_class(RAW)

    assert run(f"{program} -d", serializer.serialize(packet)) == packet
    assert serializer.deserialize(run(program, packet)) == packet


def test_agrees_with_gzip() -> None:
    """What gzip has between its header and its trailer (RFC 1952) is between zlib's (RFC 1950)."""
    packet = b"some text, " * 100
    serializer = ZlibCompressorSerializer(RAW)
    check = zlib.adler32(packet).to_bytes(4)
    zipped = run("gzip -n", packet)
    header, trailer = zipped[:10], zipped[-8:]

    assert serializer.deserialize(b"\x78\x9c" + zipped[10:-8] + check) == packet
    sent = serializer.serialize(packet)
    assert sent.endswith(check)
    assert run("gzip -d", header + sent[2:-4] + trailer) == packet


# -- Errors ------------------------------------------------------------------------------------


@each_format
def test_not_compressed(format_: Format) -> None:
    """What is not compressed is an error; in a stream, nobody knows where it ends."""
    serializer = format_.serializer_class(RAW, debug=True)
    with pytest.raises(DeserializeError) as caught:
        serializer.deserialize(b"not compressed")
    assert str(caught.value) == str(caught.value.__cause__)
    assert caught.value.error_info == {"data": b"not compressed"}
    with pytest.raises(IncrementalDeserializeError, match="^Decompression error: ") as incremental:
        parse_one(serializer.incremental_deserialize(), b"not compressed")
    assert incremental.value.remaining_data == b""
    assert incremental.value.error_info == {"data": b"not compressed"}

    with pytest.raises(DeserializeError) as caught:
        format_.serializer_class(RAW).deserialize(b"not compressed")
    assert caught.value.error_info is None


@each_format
def test_incomplete(format_: Format) -> None:
    """A datagram is a whole stream."""
    data = format_.compress(b"hello")
    for size in range(len(data)):
        with pytest.raises(
            DeserializeError,
            match="^Compressed data ended before the end-of-stream marker was reached$",
        ) as caught:
            format_.serializer_class(RAW, debug=True).deserialize(data[:size])
        assert caught.value.error_info == {"data": data[:size]}


@each_format
def test_trailing_data(format_: Format) -> None:
    """A datagram is a stream and nothing behind it, not even another stream."""
    data = format_.compress(b"hello")
    for extra in b"x", data:
        with pytest.raises(DeserializeError, match="^Trailing data error$") as caught:
            format_.serializer_class(RAW, debug=True).deserialize(data + extra)
        assert caught.value.error_info == {"decompressed_data": b"hello", "extra": extra}
        with pytest.raises(DeserializeError) as caught:
            format_.serializer_class(RAW).deserialize(data + extra)
        assert caught.value.error_info is None


@each_format
def test_inner_error(format_: Format) -> None:
    """What the serializer inside refuses is refused for its reason, and the next one is found."""
    serializer = format_.serializer_class(JSONSerializer(debug=True))
    data = format_.compress(b"}")
    with pytest.raises(DeserializeError, match="^JSON decode error: ") as caught:
        serializer.deserialize(data)
    assert caught.value.error_info["document"] == "}"
    reason = "Error while deserializing decompressed data: JSON decode error: "
    with pytest.raises(IncrementalDeserializeError, match=f"^{reason}") as incremental:
        parse_one(serializer.incremental_deserialize(), data + b"rest")
    assert incremental.value.remaining_data == b"rest"
    assert incremental.value.error_info["document"] == "}"


# -- Limit -------------------------------------------------------------------------------------


@each_format
def test_limit(format_: Format) -> None:
    """A packet is as large as the limit at most, however the stream is cut."""
    serializer = format_.serializer_class(RAW, limit=100)
    fits, too_large = format_.compress(b"x" * 100), format_.compress(b"x" * 101)
    message = "Decompressed data is larger than the limit, 100 bytes"
    assert serializer.deserialize(fits) == b"x" * 100
    with pytest.raises(DeserializeError, match=f"^{message}$"):
        serializer.deserialize(too_large)
    check_every_cut(serializer.incremental_deserialize, fits * 2, [b"x" * 100] * 2)
    for chunks in every_cut(too_large):
        outcomes, _ = feed(serializer.incremental_deserialize, chunks)
        assert outcomes[0] == (LimitOverrunError, message)


@each_format
def test_bomb(format_: Format) -> None:
    """What stands for a thousand times as many bytes is not decompressed to these."""
    data = format_.compress(bytes(50_000_000))
    serializer = format_.serializer_class(RAW)
    is_bz2 = format_.serializer_class is BZ2CompressorSerializer
    message = "Invalid data stream" if is_bz2 else "larger than the limit"
    tracemalloc.start()
    try:
        with pytest.raises(DeserializeError, match=message):
            serializer.deserialize(data)
        with pytest.raises(IncrementalDeserializeError, match=message) as caught:
            parse_one(serializer.incremental_deserialize(), data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.remaining_data == b""
    # Some copies of 64 KiB and of the data. (The libraries' own memory is not counted.)
    assert peak < 1_000_000 + 3 * len(data)


def repeated(draw: st.DrawFn) -> bytes:
    """Bytes of the sizes that matter to bzip2: close to its blocks', and to the limit."""
    size = draw(st.sampled_from([0, 1, 65_536, 79_999, 80_000, 99_980, 160_001, 250_000]))
    seed, unit = draw(st.integers(0, 3)), draw(st.sampled_from([b"", b"a", b"aaaabbbb", b"abc"]))
    return (unit * size)[:size] if unit else random.Random(seed).randbytes(size)


@settings(max_examples=25, deadline=None)
@given(
    packet=st.composite(repeated)(),
    level=st.integers(1, 9),
    above=st.sampled_from([0, 1, 100_000]),
    cut=st.integers(0, 6),
)
def test_bz2_blocks(packet: bytes, level: int, above: int, cut: int) -> None:
    """Whatever the level it was compressed with, a packet within the limit is decompressed."""
    serializer = BZ2CompressorSerializer(RAW, limit=max(len(packet), 1) + above)
    data = bz2.compress(packet, level)

    assert serializer.deserialize(data) == packet
    for chunks in [*byte_by_byte(data[:6]), data[6:] + b"B"], [data[:cut], data[cut:] + b"B"]:
        nonempty = [chunk for chunk in chunks if chunk]
        assert feed(serializer.incremental_deserialize, nonempty) == ([packet], b"B")


@pytest.mark.parametrize("cut", range(7))
@pytest.mark.cost
def test_bz2_bomb_costs_nothing(cut: int) -> None:
    """A few bytes do not make the decompressor prepare for 900 kB, nor decompress them."""
    serializer = BZ2CompressorSerializer(RAW)

    def cost(data: bytes) -> float:
        start = time.process_time()
        for _ in range(20):
            chunks = [chunk for chunk in (data[:cut], data[cut:]) if chunk]
            feed(serializer.incremental_deserialize, chunks)
        return time.process_time() - start

    bomb, valid = bz2.compress(b"ab" * 450_000), bz2.compress(b"ab" * 32_768)
    assert min(cost(bomb) for _ in range(3)) < min(cost(valid) for _ in range(3))


def test_endless_stream() -> None:
    """A stream of empty blocks, which has no end, does not grow in memory."""
    parser = ZlibCompressorSerializer(RAW).incremental_deserialize()
    next(parser)
    parser.send(zlib.compress(b"")[:2])
    empty_block = b"\x00\x00\x00\xff\xff"
    tracemalloc.start()
    try:
        for _ in range(200):
            parser.send(empty_block * 1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    parser.close()
    assert peak < 100_000
