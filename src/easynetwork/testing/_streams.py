"""How `check_serializer` takes packets out of streams, in each way in which a server would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from easynetwork.codec import generator_decoder_factory, new_decoder_factory
from easynetwork.decoder import DecoderFactory, GeneratorDecoder, StreamDecoder
from easynetwork.exceptions import LimitOverrunError, StreamProtocolParseError
from easynetwork.parsers import NEED_DATA, BufferParser, buffer_source
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    BufferedIncrementalPacketSerializer,
)

_MOST_CUTS: Final = 100
"""A longer stream is not cut at every position, but at so many, spread over it."""

_CHUNK: Final = 4096
"""Bytes that are sent at once. (A decoder gives a generator no more than 8 KiB at a time.)"""

_MOST_SHOWN: Final = 200
"""Characters of bytes or packets in a message."""

Equal: TypeAlias = Callable[[Any, Any], bool]


def check_stream(
    serializer: AbstractIncrementalPacketSerializer[Any, Any],
    frames: list[bytes],
    expected: list[Any],
    malformed: list[bytes],
    garbage: list[bytes],
    oversized: list[bytes],
    equal: Equal,
) -> None:
    """Check what `check_serializer` says of incremental serializers.

    Args:
        serializer: What to check.
        frames: What is sent of each packet.
        expected: The packets that come out of `frames`.
        malformed: As for `check_serializer`.
        garbage: As for `check_serializer`.
        oversized: As for `check_serializer`.
        equal: As for `check_serializer`.
    """
    for way in _ways(serializer):
        _check_packets(way, frames, expected, equal)
        _check_two_streams(way, frames, expected, equal)
        for data in malformed:
            _check_malformed(way, frames[0], data, expected[0], equal)
        for data in oversized:
            _check_oversized(way, frames[0], data, expected[0], equal)
        for data in garbage:
            _parse(way, _whole(data))
            _parse(way, _byte_by_byte(data))
        if way.original is not None:
            for data in (*garbage, *oversized):
                _check_same(way, way.original, data, equal)


# -- Ways to cut -------------------------------------------------------------------------------


def _whole(data: bytes) -> list[bytes]:
    return [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]


def _byte_by_byte(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def _cuts(data: bytes) -> Iterator[list[bytes]]:
    yield _whole(data)
    yield _byte_by_byte(data)
    for position in range(1, len(data), 1 + len(data) // _MOST_CUTS):
        yield [data[:position], data[position:]]


# -- Streams -----------------------------------------------------------------------------------


class Refusal(NamedTuple):
    """An error, comparable."""

    kind: type[Exception]
    message: str


def _refusal(error: Exception) -> Refusal:
    # Whether the end of a packet that is too large was seen depends on the cuts, and so does the
    # message.
    return Refusal(type(error), "" if isinstance(error, LimitOverrunError) else str(error))


class _Way(NamedTuple):
    """A way to take packets out of a stream."""

    name: str
    new_decoder: DecoderFactory
    original: _Way | None = None
    """What this one is a shortcut for."""


def _ways(serializer: AbstractIncrementalPacketSerializer[Any, Any]) -> Iterator[_Way]:
    chunked = StreamProtocol(serializer)
    way = _Way("In chunks", generator_decoder_factory(chunked, _CHUNK))
    yield way
    if serializer.receives_frames(buffered=False):
        yield _Way("In frames", new_decoder_factory(chunked, _CHUNK), way)
    if not isinstance(serializer, BufferedIncrementalPacketSerializer):
        return
    buffered = BufferedStreamProtocol(serializer)
    yield _Way("In a buffer with size hint 1", generator_decoder_factory(buffered, 1))
    yield _Way("In a used buffer", lambda: _with_used_buffer(buffered))
    way = _Way("In a buffer", generator_decoder_factory(buffered, _CHUNK))
    yield way
    if serializer.receives_frames(buffered=True):
        yield _Way("In frames, buffered", new_decoder_factory(buffered, _CHUNK), way)


def _with_used_buffer(protocol: BufferedStreamProtocol[Any, Any, Any]) -> StreamDecoder:
    """Return a decoder that gives all packets the same buffer, with whatever is in it."""
    buffer = protocol.create_buffer(_CHUNK)
    source = buffer_source(protocol)
    new_parser = partial(BufferParser, source, lambda _: buffer, _CHUNK)
    return GeneratorDecoder(new_parser, source.convert)


class _Stream:
    """Takes packets out of one stream; remembers them and the errors between them."""

    __slots__ = ("_decoder", "_name", "_sent", "outcomes")

    def __init__(self, way: _Way) -> None:
        self._name = way.name
        self._decoder = way.new_decoder()
        self._sent = b""
        self.outcomes: list[Any] = []

    def send(self, chunk: bytes) -> None:
        self._sent += chunk
        try:
            self._decoder.feed(chunk)
            while not self._take() or self._decoder.refill():
                # Anything that comes out has used up a byte at least.
                if len(self.outcomes) > len(self._sent):
                    raise RuntimeError("The parser does not end")
        except Exception as exc:
            because = f", because of {exc.__cause__!r}" if exc.__cause__ else ""
            raise AssertionError(
                f"{self._name}: {shown(self._sent)} in chunks, the last one {shown(chunk)}, "
                f"gave {shown(self.outcomes)}, then raised {exc!r}{because}"
            ) from exc

    def _take(self) -> bool:
        """Take one packet or error; return whether there is none."""
        try:
            packet = self._decoder.take()
        except StreamProtocolParseError as exc:
            packet = _refusal(exc.error)
        if packet is NEED_DATA:
            return True
        self.outcomes.append(packet)
        return False


def _parse(way: _Way, chunks: list[bytes]) -> list[Any]:
    """Return the packets and the errors that come out of a stream."""
    stream = _Stream(way)
    for chunk in chunks:
        stream.send(chunk)
    return stream.outcomes


def _check_outcomes(way: _Way, chunks: list[bytes], expected: list[Any], equal: Equal) -> None:
    outcomes = _parse(way, chunks)
    require(
        are_equal(outcomes, expected, equal),
        f"{way.name}: {shown(chunks)} gave {shown(outcomes)}, not {shown(expected)}",
    )


def _check_packets(way: _Way, frames: list[bytes], expected: list[Any], equal: Equal) -> None:
    for frame, packet in zip(frames, expected, strict=True):
        _check_outcomes(way, _whole(frame), [packet], equal)
        _check_outcomes(way, _byte_by_byte(frame), [packet], equal)
    stream = b"".join(frames)
    for chunks in _cuts(stream):
        _check_outcomes(way, chunks, expected, equal)
    if beginning := frames[0][:-1]:
        chunks = [*_whole(stream + beginning), frames[0][-1:]]
        _check_outcomes(way, chunks, [*expected, expected[0]], equal)


def _check_two_streams(way: _Way, frames: list[bytes], expected: list[Any], equal: Equal) -> None:
    ahead, behind = _Stream(way), _Stream(way)
    last = b""
    for chunk in (*_byte_by_byte(b"".join(frames)), b""):
        for stream, part in (ahead, chunk), (behind, last):
            if part:
                stream.send(part)
        last = chunk
    for stream in ahead, behind:
        require(
            are_equal(stream.outcomes, expected, equal),
            f"{way.name}: two streams at a time, byte by byte, "
            f"gave {shown(stream.outcomes)}, not {shown(expected)}",
        )


def _check_malformed(way: _Way, frame: bytes, data: bytes, packet: Any, equal: Equal) -> None:
    error = None
    for chunks in _cuts(frame + data + frame):
        outcomes = _parse(way, chunks)
        if error is None and len(outcomes) == 3 and isinstance(outcomes[1], Refusal):
            error = outcomes[1]
        require(
            error is not None and are_equal(outcomes, [packet, error, packet], equal),
            f"{way.name}: {shown(chunks)} gave {shown(outcomes)}, "
            f"not {shown(packet)}, {error or 'an error'}, {shown(packet)}",
        )


def _check_oversized(way: _Way, frame: bytes, data: bytes, packet: Any, equal: Equal) -> None:
    """Check that there is one error, and that what follows does not depend on the cuts."""
    following = None
    for chunks in _cuts(data):
        outcomes = _parse(way, chunks)
        require(
            len(outcomes) == 1 and isinstance(outcomes[0], Refusal),
            f"{way.name}: {shown(chunks)} gave {shown(outcomes)}, not exactly one error",
        )
    for chunks in _cuts(frame + data + frame + frame):
        outcomes = _parse(way, chunks)
        is_first = following is None
        following = len(outcomes) - 2 if following is None else following
        is_right = len(outcomes) >= 2 and isinstance(outcomes[1], Refusal)
        is_right = is_right and are_equal(
            outcomes[:1] + outcomes[2:], [packet] * (1 + following), equal
        )
        expected = f"not {shown(packet)}, one error, and what follows the packet that is too large"
        if not is_first:
            expected += f", which was {following} more before, when cut in another way"
        require(is_right, f"{way.name}: {shown(chunks)} gave {shown(outcomes)}, {expected}")


def _check_same(way: _Way, original: _Way, data: bytes, equal: Equal) -> None:
    for chunks in _whole(data), _byte_by_byte(data):
        outcomes, expected = (_parse(each, chunks) for each in (way, original))
        require(
            are_equal(outcomes, expected, equal),
            f"{way.name}: {shown(chunks)} gave {shown(outcomes)}, "
            f"but {original.name.lower()} {shown(expected)}",
        )


# -- Verdicts ----------------------------------------------------------------------------------


def are_equal(outcomes: list[Any], expected: list[Any], equal: Equal) -> bool:
    return len(outcomes) == len(expected) and all(
        one == other if Refusal in (type(one), type(other)) else equal(one, other)
        for one, other in zip(outcomes, expected, strict=True)
    )


def require(promise: bool, message: str) -> None:
    if not promise:
        raise AssertionError(message)


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text)} characters)"
