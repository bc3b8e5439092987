"""Bytes of a stream to packets, without touching a socket.

Strategy: whoever owns the connection calls `StreamDecoder.feed` with what the network delivered and
`StreamDecoder.take` when it wants a packet. Two decoders stand behind that pair.

* `FramedDecoder` serves serializers that say where a packet ends (`framing()`): a whole chunk is
  cut by one call into C, and each frame is parsed when it is taken, so that an error is raised at
  the packet that caused it, in order.
* `GeneratorDecoder` serves everything else, one generator of the protocol object for each packet.

The first is a shortcut for the second; `easynetwork.codec` knows when it may be taken.

Invariants: bytes are fed once and never looked at again except as part of a packet; the cost of a
byte does not depend on how the stream is cut into chunks; what waits here is bounded by what the
owner feeds, and at most `MAX_BATCH` packets are cut before the owner gives the event loop a turn.
"""

from __future__ import annotations

__all__ = [
    "MAX_BATCH",
    "NEED_DATA",
    "BufferParser",
    "ChunkParser",
    "FramedDecoder",
    "GeneratorDecoder",
    "StreamDecoder",
]

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any, Final

from easynetwork.cutters import MAX_BATCH, Cutter, Frame
from easynetwork.exceptions import LimitOverrunError, StreamProtocolParseError
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol


class NeedData(Enum):
    """The type of `NEED_DATA`."""

    NEED_DATA = "NEED_DATA"


NEED_DATA: Final = NeedData.NEED_DATA
"""What `StreamDecoder.take` returns when no complete packet is at hand."""


class StreamDecoder(ABC):
    """Cuts one stream. Belongs to one connection; not thread-safe.

    Attributes:
        frames: Frames cut and not yet taken, *last one first*. Whoever is in a hurry may take them
            with `build(frames.pop())` instead of `take()`. Always empty in a `GeneratorDecoder`.
        build: Turns one item of `frames` into a packet; raises what `take` raises.
    """

    __slots__ = ("_rest", "build", "frames")

    frames: list[Frame]
    build: Callable[[Frame], Any]

    def __init__(self) -> None:
        self.frames = []
        self._rest: bytes | bytearray = b""

    def __bool__(self) -> bool:
        """Whether bytes of the peer are here that no packet has used."""
        return bool(self.frames or self._rest)

    def clear(self) -> None:
        """Forget everything: what is here will not be read any more."""
        self.frames = []
        self._rest = b""

    def _append(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
        else:
            self._rest = bytearray(data)

    @abstractmethod
    def feed(self, data: bytes) -> bool:
        """Add bytes that arrived.

        Returns:
            Whether it is worth calling `take` now.
        """

    @abstractmethod
    def take(self) -> Any:
        """Return the next packet, or `NEED_DATA`.

        Raises:
            StreamProtocolParseError: The peer's bytes are not a packet. The next call goes on
                behind them.
            RuntimeError: The protocol object misbehaved: an exception of another kind (the cause).
        """

    @abstractmethod
    def refill(self) -> bool:
        """Prepare the next batch from bytes fed earlier.

        To be called after `NEED_DATA`, and to be followed by a turn of the event loop when it
        returns true: this is where a connection with a lot to say lets the others speak.

        Returns:
            Whether `take` has something to give without more data.
        """


class FramedDecoder(StreamDecoder):
    """Frames are cut in C, a chunk at a time."""

    __slots__ = ("_cut", "_cutter", "_scanned")

    frames: list[Frame]

    def __init__(self, cutter: Cutter, build: Callable[[Frame], Any]) -> None:
        super().__init__()
        self.build = build
        self._cutter = cutter
        self._cut = cutter.cut  # looked up once: this is done for every chunk
        self._scanned = 0  # bytes of `_rest` known to complete no frame

    def feed(self, data: bytes) -> bool:
        if self._rest or self.frames:
            self._append(data)
            return self.refill()
        frames, rest = self._cut(data)
        if rest:
            self._keep(rest, len(frames))
        frames.reverse()  # list.pop() takes from the end
        self.frames = frames
        return bool(frames)

    def take(self) -> Any:
        if not self.frames:
            return NEED_DATA
        return self.build(self.frames.pop())

    def refill(self) -> bool:
        if not self.frames and len(self._rest) > self._scanned:
            frames, rest = self._cutter.resume(self._rest, self._scanned)
            if frames:
                self._keep(rest, len(frames))
                frames.reverse()
                self.frames = frames
            else:
                self._scanned = len(self._rest)
        return bool(self.frames)

    def _keep(self, rest: bytes, frames_before: int) -> None:
        self._rest = bytearray(rest) if rest else b""
        self._scanned = len(rest) if frames_before < MAX_BATCH else 0


_PARSER_CHUNK: Final = 8 * 1024
"""The most bytes given to a generator at once. It returns what follows its packet, so each packet
costs a copy of what it was given: with all that waits, a peer who sends many small packets would
make their cost quadratic (measured: 135 ms for 1,024 packets of 128 KiB, 5 ms of 8 KiB)."""


class GeneratorDecoder(StreamDecoder):
    """Packets are found by the protocol object's own generators, one for each packet."""

    __slots__ = ("_budget", "_leftover", "_new_parser", "_parser", "_skip")

    def __init__(self, new_parser: Callable[[], _Parser]) -> None:
        super().__init__()
        self._new_parser = new_parser
        self._parser: _Parser | None = None
        self._leftover = b""  # what the last generator did not need; before `_rest`
        self._budget = MAX_BATCH
        self._skip = 0  # of the bytes that come next, how many belong to a packet that is too large

    def __bool__(self) -> bool:
        # A parser stays only while it has half a packet.
        return bool(self._leftover or self._rest or self._parser)

    def clear(self) -> None:
        super().clear()
        self._leftover = b""
        self._parser = None

    def feed(self, data: bytes) -> bool:
        self._append(data)
        return True

    def refill(self) -> bool:
        self._budget = MAX_BATCH
        return bool(self._leftover or self._rest)

    def take(self) -> Any:
        while self._budget and (self._leftover or self._rest):
            if self._skip:
                self._drop()
                continue
            parser, self._parser = self._parser or self._new_parser(), None
            self._budget -= 1
            try:
                result = parser.send(self._next_chunk())
            except StreamProtocolParseError as exc:
                self._leftover = bytes(exc.remaining_data)
                self._skip = parser.missing(exc)
                raise
            if result is not NEED_DATA:
                packet, leftover = result
                self._leftover = bytes(leftover)
                return packet
            self._parser = parser
        return NEED_DATA

    def _drop(self) -> None:
        chunk = self._next_chunk()
        self._leftover = chunk[self._skip :]
        self._skip = max(self._skip - len(chunk), 0)

    def _next_chunk(self) -> bytes:
        if self._leftover:
            chunk, self._leftover = self._leftover, b""
            return chunk
        chunk = bytes(self._rest[:_PARSER_CHUNK])
        if len(chunk) < len(self._rest):
            del self._rest[:_PARSER_CHUNK]  # type: ignore[union-attr]  # not empty: a bytearray
        else:
            self._rest = b""
        return chunk


class _Parser(ABC):
    """One packet's generator and what it needs to be fed."""

    __slots__ = ("_generator", "_sent")

    _generator: Generator[Any, Any, tuple[Any, Any]]
    _sent: int  # bytes that the generator got

    def missing(self, exc: StreamProtocolParseError) -> int:
        """Return how many bytes of the packet that `exc` is about are yet to come.

        There are some only if the packet is too large, and the generator knows how large.
        """
        consumed = exc.error.consumed if isinstance(exc.error, LimitOverrunError) else 0
        return max(consumed - self._sent, 0)

    def _prime(self, method: str) -> Any:
        try:
            return next(self._generator)
        except StopIteration:
            raise RuntimeError(f"protocol.{method}() did not yield") from None
        except Exception as exc:
            raise RuntimeError(f"protocol.{method}() crashed") from exc

    @abstractmethod
    def send(self, data: bytes) -> Any:
        """Return `(packet, leftover)` or `NEED_DATA`; raise what `StreamDecoder.take` raises."""


class ChunkParser(_Parser):
    """Feeds `StreamProtocol.build_packet_from_chunks`."""

    __slots__ = ()

    def __init__(self, protocol: StreamProtocol[Any, Any]) -> None:
        self._sent = 0
        self._generator = protocol.build_packet_from_chunks()
        self._prime("build_packet_from_chunks")

    def send(self, data: bytes) -> Any:
        self._sent += len(data)
        try:
            self._generator.send(data)
        except StopIteration as stop:
            return stop.value
        except StreamProtocolParseError:
            raise
        except Exception as exc:
            raise RuntimeError("protocol.build_packet_from_chunks() crashed") from exc
        return NEED_DATA


class BufferParser(_Parser):
    """Feeds `BufferedStreamProtocol.build_packet_from_buffer`.

    The buffer lives as long as its packet: a packet may keep views of it, and an idle connection
    owns none.
    """

    __slots__ = ("_start", "_view")

    def __init__(self, protocol: BufferedStreamProtocol[Any, Any, Any], sizehint: int) -> None:
        buffer = protocol.create_buffer(sizehint)
        self._view = memoryview(buffer).cast("B")
        if self._view.readonly:
            raise ValueError("protocol.create_buffer() returned a read-only buffer")
        if not self._view:
            raise ValueError("protocol.create_buffer() returned a null buffer")
        self._sent = 0
        self._generator = protocol.build_packet_from_buffer(buffer)
        self._start = self._prime("build_packet_from_buffer")

    def send(self, data: bytes) -> Any:
        fed = 0
        while fed < len(data):
            room = self._room()
            nbytes = min(len(room), len(data) - fed)
            room[:nbytes] = data[fed : fed + nbytes]
            fed += nbytes
            self._sent += nbytes
            try:
                self._start = self._generator.send(nbytes)
            except StopIteration as stop:
                packet, leftover = stop.value
                return packet, bytes(leftover) + data[fed:]
            except StreamProtocolParseError as exc:
                exc.remaining_data = bytes(exc.remaining_data) + data[fed:]
                raise
            except Exception as exc:
                raise RuntimeError("protocol.build_packet_from_buffer() crashed") from exc
        return NEED_DATA

    def _room(self) -> memoryview:
        room = self._view[self._start or 0 :]
        if not room:
            raise RuntimeError("The start position is set to the end of the buffer")
        return room
