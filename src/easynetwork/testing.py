r"""For the tests of those who write serializers: does one keep its promises?

`check_serializer()` takes a serializer and some packets, and tries what a network and a peer may do
to them: cut the stream anywhere, send what is not a packet, send more than is allowed. It does so
in each way in which a server or a client would use the serializer, through the very code that they
use. It needs no test framework: it raises AssertionError and says what was sent, and what came.

    >>> from easynetwork.serializers import StringLineSerializer
    >>> from easynetwork.testing import check_serializer
    >>> check_serializer(
    ...     StringLineSerializer(limit=64),
    ...     ["hello", "world", " "],
    ...     malformed=[b"caf\xc3\xa9\n"],
    ...     oversized=[b"x" * 100],
    ... )

It takes milliseconds. To try more, give it packets that a tool such as Hypothesis makes up.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from easynetwork.codec import new_decoder_factory
from easynetwork.decoder import (
    NEED_DATA,
    BufferParser,
    ChunkParser,
    GeneratorDecoder,
    StreamDecoder,
)
from easynetwork.exceptions import DeserializeError, LimitOverrunError, StreamProtocolParseError
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    AbstractPacketSerializer,
    BufferedIncrementalPacketSerializer,
)

__all__ = ["check_serializer"]

_MOST_CUTS: Final = 100
"""A longer stream is not cut at every position, but at so many, spread over it."""

_MOST_SPOILT: Final = 10
"""The same for the bytes of a packet that are changed."""

_CHUNK: Final = 4096
"""Bytes that are sent at once. (A decoder gives a generator no more than 8 KiB at a time.)"""

_MOST_SHOWN: Final = 200
"""Characters of bytes or packets in a message."""

_NewDecoder: TypeAlias = Callable[[], StreamDecoder]
_Equal: TypeAlias = Callable[[Any, Any], bool]


def check_serializer(
    serializer: AbstractPacketSerializer[Any, Any],
    packets: Iterable[Any],
    *,
    received: Iterable[Any] | None = None,
    malformed: Iterable[bytes] = (),
    garbage: Iterable[bytes] = (),
    oversized: Iterable[bytes] = (),
    equal: _Equal = operator.eq,
) -> None:
    """Check that a serializer does what `easynetwork.serializers.abc` promises.

    Of any serializer:

    * What it made of a packet, it makes the packet of.
    * Of anything else (a part of a packet, one with other bytes in it, `malformed`, `garbage`), it
      makes some packet or raises `DeserializeError`, and nothing but that.

    Of an incremental one, moreover, with the generators that are sent chunks, with those that are
    given a buffer (if it has them), with new buffers and used ones, and with the shortcut through
    `framing()` (if it takes it):

    * Packets come out of the stream that they were sent in, as soon as their last byte is there:
      all at once, byte by byte, cut in two at any position, and with the beginning of another
      packet behind them.
    * Two streams at a time do not disturb each other: there is no state outside of the generators.
    * `malformed` is an error, and costs neither the packet before it nor the one behind it.
    * `garbage` ends in packets or in errors, and each of them uses up some of it.
    * `oversized` is refused.
    * The shortcut gives what the generators give, up to the first packet that is too large.

    Args:
        serializer: What to check.
        packets: What to send. At least one; none that is sent as no bytes at all.
        received: What comes out, if that is not equal to `packets`.
        malformed: What is not a packet, but known to end where it does, as a line of nonsense
            between two lines. For serializers that are not incremental, as `garbage`.
        garbage: What makes no sense. Some is made of `packets`, anyhow.
        oversized: What is more than the serializer's limit allows: a whole packet that is too
            large, or the beginning of one that is so far too large.
        equal: What tells whether a packet that came out is the one expected.

    Raises:
        AssertionError: One of these is not so.
        ValueError: There are no packets.
    """
    packets = list(packets)
    if not packets:
        raise ValueError("There is nothing to check without packets")
    expected = packets if received is None else list(received)
    malformed = list(malformed)
    samples = list(zip(packets, expected, strict=True))
    datagrams = [_check_one_shot(serializer, *sample, equal) for sample in samples]
    garbage = [b"", *garbage, *malformed, *_spoilt(datagrams)]
    for data in garbage:
        _call("deserialize", serializer.deserialize, data)
    if not isinstance(serializer, AbstractIncrementalPacketSerializer):
        return
    frames = [_check_incremental_serialize(serializer, packet) for packet in packets]
    garbage = list(dict.fromkeys([*garbage, *_spoilt(frames)]))
    oversized = list(oversized)
    for way in _ways(serializer):
        _check_packets(way, frames, expected, equal)
        _check_two_streams(way, frames, expected, equal)
        for data in malformed:
            _check_malformed(way, frames[0], data, expected[0], equal)
        for data in oversized:
            _check_oversized(way, data)
        for data in garbage:
            _parse(way, _whole(data))
            _parse(way, _byte_by_byte(data))
        if way.original is not None:
            for data in (*garbage, *oversized):
                _check_same(way, way.original, data, equal)


# -- Ways to cut, and to spoil -----------------------------------------------------------------


def _whole(data: bytes) -> list[bytes]:
    return [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]


def _byte_by_byte(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def _cuts(data: bytes) -> Iterator[list[bytes]]:
    yield _whole(data)
    yield _byte_by_byte(data)
    for position in range(1, len(data), 1 + len(data) // _MOST_CUTS):
        yield [data[:position], data[position:]]


def _spoilt(valid: list[bytes]) -> list[bytes]:
    """Return what is like valid data: shortened, with other bytes in it, with bytes behind it."""
    spoilt = []
    for data in valid:
        spoilt += [data + b"\0", data + data]
        for index in range(0, len(data), 1 + len(data) // _MOST_SPOILT):
            before, byte, behind = data[:index], data[index], data[index + 1 :]
            spoilt.append(before)
            spoilt += [before + bytes([other]) + behind for other in (0, 0xFF, byte ^ 1)]
    return spoilt


# -- One packet at a time ----------------------------------------------------------------------


class _Refusal(NamedTuple):
    """An error, comparable."""

    kind: type[Exception]
    message: str


def _check_one_shot(
    serializer: AbstractPacketSerializer[Any, Any], packet: Any, expected: Any, equal: _Equal
) -> bytes:
    data = serializer.serialize(packet)
    _require(type(data) is bytes, f"serialize({_shown(packet)}) returned {_shown(data)}")
    result = _call("deserialize", serializer.deserialize, data)
    _require(
        _are_equal([result], [expected], equal),
        f"deserialize({_shown(data)}) gave {_shown(result)}, not {_shown(expected)}",
    )
    return data


def _check_incremental_serialize(
    serializer: AbstractIncrementalPacketSerializer[Any, Any], packet: Any
) -> bytes:
    name = f"incremental_serialize({_shown(packet)})"
    chunks = list(serializer.incremental_serialize(packet))
    for chunk in chunks:
        _require(type(chunk) is bytes, f"{name} yielded {_shown(chunk)}")
    frame = b"".join(chunks)
    _require(bool(frame), f"{name} yielded no bytes, which nobody can receive")
    shortcut = serializer.serialize_frame(packet)
    _require(
        shortcut == frame,
        f"{name} yielded {_shown(frame)}, but serialize_frame() returned {_shown(shortcut)}",
    )
    return frame


def _call(name: str, function: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return function(data)
    except DeserializeError as exc:
        return _Refusal(type(exc), str(exc))
    except Exception as exc:
        raise AssertionError(f"{name}({_shown(data)}) raised {exc!r}") from exc


# -- Streams -----------------------------------------------------------------------------------


class _Way(NamedTuple):
    """A way to take packets out of a stream."""

    name: str
    new_decoder: _NewDecoder
    original: _Way | None = None
    """What this one is a shortcut for."""


class _UsedBuffer:
    """A protocol object that gives all packets the same buffer, with whatever is in it."""

    __slots__ = ("_buffer", "build_packet_from_buffer")

    def __init__(self, protocol: BufferedStreamProtocol[Any, Any, Any]) -> None:
        self._buffer = protocol.create_buffer(_CHUNK)
        self.build_packet_from_buffer = protocol.build_packet_from_buffer

    def create_buffer(self, sizehint: int) -> Any:
        return self._buffer


def _ways(serializer: AbstractIncrementalPacketSerializer[Any, Any]) -> Iterator[_Way]:
    chunked = StreamProtocol(serializer)
    way = _Way("In chunks", lambda: GeneratorDecoder(lambda: ChunkParser(chunked)))
    yield way
    if serializer.framing() is not None:
        yield _Way("In frames", new_decoder_factory(chunked, _CHUNK), way)
    if not isinstance(serializer, BufferedIncrementalPacketSerializer):
        return
    buffered = BufferedStreamProtocol(serializer)
    yield _Way("In a buffer with size hint 1", lambda: _decoder_of(buffered, 1))
    yield _Way("In a used buffer", lambda: _decoder_of(_UsedBuffer(buffered), _CHUNK))
    way = _Way("In a buffer", lambda: _decoder_of(buffered, _CHUNK))
    yield way
    if serializer.framing() is not None:
        yield _Way("In frames, buffered", new_decoder_factory(buffered, _CHUNK), way)


def _decoder_of(protocol: Any, sizehint: int) -> StreamDecoder:
    return GeneratorDecoder(lambda: BufferParser(protocol, sizehint))


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
                    raise RuntimeError("It goes on for ever")
        except Exception as exc:
            cause = exc.__cause__ or exc
            raise AssertionError(
                f"{self._name}: {_shown(self._sent)} in chunks, the last one {_shown(chunk)}, "
                f"gave {_shown(self.outcomes)}, then raised {cause!r}"
            ) from exc

    def _take(self) -> bool:
        """Take one packet or error; return whether there is none."""
        try:
            packet = self._decoder.take()
        except StreamProtocolParseError as exc:
            packet = _Refusal(type(exc.error), str(exc.error))
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


def _check_outcomes(way: _Way, chunks: list[bytes], expected: list[Any], equal: _Equal) -> None:
    outcomes = _parse(way, chunks)
    _require(
        _are_equal(outcomes, expected, equal),
        f"{way.name}: {_shown(chunks)} gave {_shown(outcomes)}, not {_shown(expected)}",
    )


def _check_packets(way: _Way, frames: list[bytes], expected: list[Any], equal: _Equal) -> None:
    for frame, packet in zip(frames, expected, strict=True):
        _check_outcomes(way, _whole(frame), [packet], equal)
        _check_outcomes(way, _byte_by_byte(frame), [packet], equal)
    stream = b"".join(frames)
    for chunks in _cuts(stream):
        _check_outcomes(way, chunks, expected, equal)
    if beginning := frames[0][:-1]:
        chunks = [*_whole(stream + beginning), frames[0][-1:]]
        _check_outcomes(way, chunks, [*expected, expected[0]], equal)


def _check_two_streams(way: _Way, frames: list[bytes], expected: list[Any], equal: _Equal) -> None:
    ahead, behind = _Stream(way), _Stream(way)
    last = b""
    for chunk in (*_byte_by_byte(b"".join(frames)), b""):
        for stream, part in (ahead, chunk), (behind, last):
            if part:
                stream.send(part)
        last = chunk
    for stream in ahead, behind:
        _require(
            _are_equal(stream.outcomes, expected, equal),
            f"{way.name}: two streams at a time, byte by byte, "
            f"gave {_shown(stream.outcomes)}, not {_shown(expected)}",
        )


def _check_malformed(way: _Way, frame: bytes, data: bytes, packet: Any, equal: _Equal) -> None:
    error = None
    for chunks in _cuts(frame + data + frame):
        outcomes = _parse(way, chunks)
        if error is None and len(outcomes) == 3 and isinstance(outcomes[1], _Refusal):
            error = outcomes[1]
        _require(
            error is not None and _are_equal(outcomes, [packet, error, packet], equal),
            f"{way.name}: {_shown(chunks)} gave {_shown(outcomes)}, "
            f"not {_shown(packet)}, {error or 'an error'}, {_shown(packet)}",
        )


def _check_oversized(way: _Way, data: bytes) -> None:
    for chunks in _whole(data), _byte_by_byte(data):
        outcomes = _parse(way, chunks)
        _require(
            bool(outcomes) and isinstance(outcomes[0], _Refusal),
            f"{way.name}: {_shown(chunks)} gave {_shown(outcomes)}, not an error",
        )


def _check_same(way: _Way, original: _Way, data: bytes, equal: _Equal) -> None:
    for chunks in _whole(data), _byte_by_byte(data):
        outcomes, expected = (_until_overrun(_parse(each, chunks)) for each in (way, original))
        _require(
            _are_equal(outcomes, expected, equal),
            f"{way.name}: {_shown(chunks)} gave {_shown(outcomes)}, "
            f"but {original.name.lower()} {_shown(expected)}",
        )


def _until_overrun(outcomes: list[Any]) -> list[Any]:
    """Leave out what is behind a packet that is too large: anything may be made of its rest."""
    for count, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, _Refusal) and issubclass(outcome.kind, LimitOverrunError):
            return outcomes[:count]
    return outcomes


# -- Verdicts ----------------------------------------------------------------------------------


def _are_equal(outcomes: list[Any], expected: list[Any], equal: _Equal) -> bool:
    return len(outcomes) == len(expected) and all(
        one == other if _Refusal in (type(one), type(other)) else equal(one, other)
        for one, other in zip(outcomes, expected, strict=True)
    )


def _require(promise: bool, message: str) -> None:
    if not promise:
        raise AssertionError(message)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text)} characters)"
