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
    "FramedDecoder",
    "GeneratorDecoder",
    "StreamDecoder",
]

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from easynetwork.cutters import MAX_BATCH, Cutter, Frame, Overrun
from easynetwork.exceptions import (
    LimitOverrunError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.parsers import NEED_DATA, Parser


class StreamDecoder(ABC):
    """Takes packets out of one stream. Belongs to one connection; not thread-safe.

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

    def __len__(self) -> int:
        """Return how many bytes of the peer are here that no packet has used, at least."""
        return len(self._rest) + sum(len(frame) for frame in self.frames if type(frame) is bytes)

    def __bool__(self) -> bool:
        """Whether there are any."""
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
                after them; if it is not known where they end, it gets nothing any more.
            ProtocolCrashedError: The protocol object misbehaved. If it raised an exception of
                another kind, that is the cause. The next call gets the next packet, if it is known
                where that begins, and otherwise nothing any more.
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
    """Packets are found by the protocol object's own generators, one for each packet.

    After a `ProtocolCrashedError` of a generator it is unknown where the next packet begins, and
    everything that still arrives is dropped. After one of a converter, that is known.
    """

    __slots__ = ("_budget", "_convert", "_leftover", "_new_parser", "_overrun", "_parser")

    def __init__(
        self, new_parser: Callable[[], Parser], convert: Callable[[Any, bytes], Any] | None
    ) -> None:
        super().__init__()
        self._new_parser = new_parser
        self._convert = convert  # see `easynetwork.parsers.Source`
        self._parser: Parser | None = None
        self._leftover = b""  # what the last generator did not need; before `_rest`
        self._budget = MAX_BATCH
        self._overrun: Overrun | None = None  # while bytes are dropped that belong to no packet

    def __len__(self) -> int:
        # A parser stays only while it has half a packet.
        parsed = 0 if self._parser is None else self._parser.received
        return len(self._leftover) + len(self._rest) + parsed

    def __bool__(self) -> bool:
        return len(self) > 0

    def clear(self) -> None:
        super().clear()
        self._leftover = b""
        self._parser = None

    def feed(self, data: bytes) -> bool:
        if self._overrun is not None:
            data = self._drop(self._overrun, data)
        if data:
            self._append(data)
        return True

    def refill(self) -> bool:
        self._budget = MAX_BATCH
        return bool(self._leftover or self._rest)

    def take(self) -> Any:
        while self._budget and (self._leftover or self._rest):
            self._budget -= 1
            try:
                parser, self._parser = self._parser or self._new_parser(), None
                result = parser.send(self._next_chunk())
            except StreamProtocolParseError as exc:
                self._skip(parser, exc)
                raise
            except ProtocolCrashedError:
                self._drop_rest(Overrun(None))
                raise
            if result is not NEED_DATA:
                packet, self._leftover = result
                if self._convert is not None:
                    return self._convert(packet, self._leftover)
                return packet
            self._parser = parser
        return NEED_DATA

    def _skip(self, parser: Parser, exc: StreamProtocolParseError) -> None:
        """Go on after what is wrong, or drop the part of it that has yet to arrive."""
        try:
            self._leftover = parser.leftover_of(exc)
        except ProtocolCrashedError:
            self._drop_rest(Overrun(None))
            raise
        error = exc.error
        if isinstance(error, LimitOverrunError) and error.missing != 0:
            self._drop_rest(Overrun(error.missing, error.separator))

    def _drop_rest(self, overrun: Overrun) -> None:
        """Drop what is at hand, too, in one go: each byte is looked at once."""
        self._overrun = overrun
        leftover, self._leftover = self._leftover, b""
        self._leftover = self._drop(overrun, leftover)
        if self._overrun is not None:
            rest, self._rest = self._rest, b""
            self._rest = bytearray(self._drop(overrun, bytes(rest)))

    def _drop(self, overrun: Overrun, data: bytes) -> bytes:
        end = overrun.end_in(data)
        if end is None:
            return b""
        self._overrun = None
        return data[end:]

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
