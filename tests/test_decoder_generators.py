"""Serializers and protocols that only have generators: their chunks and their buffers."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import pytest

from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from tests.decoding import MakeProtocol, Script, new_decoder, outcomes
from tests.tools import every_cut

BufferGenerator: TypeAlias = Generator[int | None, int, tuple[Any, Any]]


# -- Long chunks -------------------------------------------------------------------------------


def take_counted(*buffer: bytearray) -> Generator[Any, Any, tuple[bytes, bytes]]:
    """Parse, either way: four digits that count the bytes behind them."""
    data = b""
    while len(data) < 4 or len(data) < 4 + int(data[:4]):
        received = yield
        data += bytes(buffer[0][:received]) if buffer else received
    end = 4 + int(data[:4])
    return data[4:end], data[end:]


@pytest.mark.parametrize("make", [StreamProtocol, BufferedStreamProtocol])
def test_long_chunks(make: MakeProtocol) -> None:
    """Much more may come at once than a generator is given at once."""
    packets = [bytes([number % 256]) * (number * 997 % 10_000) for number in range(60)]
    stream = b"".join(b"%04d" % len(packet) + packet for packet in packets)
    protocol = make(Script(take_counted))

    assert outcomes(protocol, [stream]) == packets
    assert outcomes(protocol, [stream[:100_000], stream[100_000:]]) == packets
    assert outcomes(protocol, [stream + b"9999" + b"x" * 9_998, b"x"]) == [*packets, b"x" * 9_999]


@pytest.mark.parametrize("make", [StreamProtocol, BufferedStreamProtocol])
def test_small_packets_in_long_chunks(make: MakeProtocol) -> None:
    """What a small packet costs does not depend on how much waits behind it."""
    given = 0

    def parse(*buffer: bytearray) -> Generator[Any, Any, tuple[bytes, bytes]]:
        nonlocal given
        received = yield
        data = bytes(buffer[0][:received]) if buffer else received
        given += len(data)
        return data[:1], data[1:]

    size = 20_000
    assert len(outcomes(make(Script(parse)), [b"x" * size])) == size
    assert given <= size * 8192


# -- Buffers -----------------------------------------------------------------------------------


def take_two(start: int | None) -> Callable[[Any], BufferGenerator]:
    """Return a parser of packets of two bytes, the first received at `start` of the buffer."""

    def parse(buffer: Any) -> BufferGenerator:
        view = memoryview(buffer).cast("B")
        begin = (start or 0) % len(view)
        received = yield start
        while received < 2:
            received += yield begin + received
        return bytes(view[begin : begin + 2]), view[begin + 2 : begin + received]

    return parse


@pytest.mark.parametrize(
    ("buffer", "start"),
    [
        pytest.param(bytearray(10), None, id="none"),
        pytest.param(bytearray(10), 0, id="beginning"),
        pytest.param(bytearray(10), 7, id="inside"),
        pytest.param(bytearray(10), -3, id="negative"),
        pytest.param(memoryview(bytearray(2)), None, id="smallest"),
        pytest.param(array("Q", [0] * 2), 3, id="items-of-several-bytes"),
    ],
)
def test_buffer(buffer: Any, start: int | None) -> None:
    """Bytes are written where the generator says, into a buffer of any kind and size."""
    protocol = BufferedStreamProtocol[Any, Any, Any](Script(take_two(start), buffer))
    for chunks in every_cut(b"aabbccd"):
        assert outcomes(protocol, chunks) == [b"aa", b"bb", b"cc"]


def test_buffer_belongs_to_its_packet() -> None:
    """A packet may be a view of the buffer: the next packet gets another one."""

    def parse(buffer: bytearray) -> BufferGenerator:
        received = yield 0
        return memoryview(buffer)[:2], memoryview(buffer)[2:received]

    found = outcomes(BufferedStreamProtocol(Script(parse)), [b"aabbcc"])

    assert [bytes(packet) for packet in found] == [b"aa", b"bb", b"cc"]


def test_sizehint() -> None:
    """A buffer is made when bytes are there to be parsed, for as much as is received at once."""
    asked = []

    class AskedProtocol(BufferedStreamProtocol[Any, Any, Any]):
        __slots__ = ()

        def create_buffer(self, sizehint: int) -> Any:
            asked.append(sizehint)
            return super().create_buffer(sizehint)

    decoder = new_decoder(AskedProtocol(StringLineSerializer()), 1234)
    assert decoder.take() is NEED_DATA
    assert asked == []
    decoder.feed(b"a\n")
    assert decoder.take() == "a"
    assert asked == [1234]
