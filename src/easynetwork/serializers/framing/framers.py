"""Split chunks of a byte stream into frames.

There is one framer for each framing (`easynetwork.serializers.abc`). It gets a chunk that begins
where a frame does, and returns all complete frames with the bytes that follow them. The caller
keeps those, and appends the next bytes to them. A frame that is too long or malformed is an error
in its place among the frames.

No byte of a frame that is too long is ever part of another one. The error is there as soon as the
limit is passed; the caller drops the rest of the frame as it arrives, by an `Overrun`. So framers
have no state, and all connections share one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, TypeAlias

from easynetwork.exceptions import IncrementalDeserializeError, LimitOverrunError
from easynetwork.serializers.abc import (
    FixedSizeFraming,
    Framing,
    LengthPrefixFraming,
    NoFraming,
    SeparatorFraming,
)
from easynetwork.serializers.framing._lengths import Frame, LengthField, new_length_field

MAX_BATCH: Final = 1024
"""Frames split off before the event loop gets a turn.

A chunk of 64 KiB can hold 65,536 empty lines. At 1 to 10 microseconds of handler each, that many
would stop every other connection for half a second; a thousand cost a few milliseconds.
"""

Split: TypeAlias = tuple[list[Frame], bytes | None]
"""Frames, and the bytes that follow them; None while the rest of the last frame is dropped."""


class Overrun:
    """Drops the rest of a frame that is too long, as it arrives. Belongs to one connection.

    Args:
        missing: How many bytes to drop; None to drop all up to the end of the next `separator`, or
            everything if that is empty.
        separator: What ends the frame.
        beginning: What may be the beginning of a separator: bytes of the frame, already dropped.
    """

    __slots__ = ("_beginning", "_missing", "_separator")

    def __init__(self, missing: int | None, separator: bytes = b"", beginning: bytes = b"") -> None:
        self._missing = missing
        self._separator = separator
        self._beginning = beginning

    @property
    def is_endless(self) -> bool:
        """Whether everything is dropped."""
        return self._missing is None and not self._separator

    @property
    def is_in_frame(self) -> bool:
        """Whether more of the frame has to come."""
        return True

    def cut(self, data: bytes) -> tuple[bytes, Overrun | None]:
        """Return what follows the frame in `data`, and what is still to be dropped."""
        end = self.end_in(data)
        return (b"", self) if end is None else (data[end:], None)

    def end_in(self, data: bytes | bytearray) -> int | None:
        """Return where the frame ends in `data`, the next bytes; None if all of them belong to it.

        Each byte is looked at once, and none is kept but the beginning of a separator.
        """
        if self._missing is not None:
            if self._missing <= len(data):
                return self._missing
            self._missing -= len(data)
            return None
        separator = self._separator
        if not separator:
            return None
        at_hand = len(self._beginning)
        if at_hand:
            # A separator that is cut: it ends in the first bytes.
            edge = self._beginning + data[: len(separator) - 1]
            index = edge.find(separator)
            if index >= 0:
                return index + len(separator) - at_hand
        index = data.find(separator)
        if index >= 0:
            return index + len(separator)
        overlap = len(separator) - 1
        self._beginning = (self._beginning + data[-overlap:])[-overlap:] if overlap else b""
        return None


class LineOverrun(Overrun):
    """Drops the rest of a line that LF, CR or CRLF ends, or only the LF of a CRLF that was cut.

    Args:
        is_in_line: Whether the line's end is yet to come.
    """

    __slots__ = ("_is_in_line",)

    is_endless = False

    def __init__(self, *, is_in_line: bool) -> None:
        self._is_in_line = is_in_line

    @property
    def is_in_frame(self) -> bool:
        return self._is_in_line

    def end_in(self, data: bytes | bytearray) -> int | None:
        start = 0
        if self._is_in_line:
            ends = [end for end in (data.find(b"\n"), data.find(b"\r")) if end >= 0]
            if not ends:
                return None
            start = min(ends) + 1
            if data.startswith(b"\n", start - 1):
                return start
            self._is_in_line = False
        return start + data.startswith(b"\n", start) if start < len(data) else None


class Framer(ABC):
    """Splits a stream by one framing. Has no state: shared by connections."""

    __slots__ = ()

    @abstractmethod
    def split_frames(self, data: bytes, most: int = MAX_BATCH) -> Split:
        """Split a chunk.

        Args:
            data: The chunk; a frame begins where it begins.
            most: The most frames to split off.

        Returns:
            The frames in order, and the bytes that follow them. In place of the latter None if the
            last frame is a `LimitOverrunError` and its end is yet to come.
        """

    @abstractmethod
    def resume(self, data: bytes | bytearray, scanned: int, most: int = MAX_BATCH) -> Split:
        """Do what `split_frames()` does, given that `data[:scanned]` contains no complete frame.

        If there is still none, return no frames; in that case, `data` stays with the caller.
        """

    def overrun_after(self, frame: Frame) -> Overrun:
        """Return what drops the rest of the last frame of a chunk, which is yet to come."""
        assert isinstance(frame, LimitOverrunError)
        return Overrun(frame.missing, frame.separator, frame.remaining_data)

    def last_frames(self, rest: bytes) -> list[Frame]:
        """Return the frame, if it is one, that the end of the stream ends.

        Args:
            rest: The bytes that follow all others.
        """
        return []


def new_framer(framing: Framing, *, buffered: bool) -> Framer:
    """Return the framer of a framing.

    Args:
        framing: Where a frame ends.
        buffered: Whether the limits are those of a serializer's buffer.
    """
    match framing:
        case LengthPrefixFraming():
            return LengthPrefixFramer(new_length_field(framing))
        case SeparatorFraming(any_newline=True):
            return LineFramer(framing, buffered=buffered)
        case SeparatorFraming():
            return SeparatorFramer(framing, buffered=buffered)
        case NoFraming():
            return WholeFramer()
        case _:
            return FixedSizeFramer(framing)


class SeparatorFramer(Framer):
    """Splits after each separator."""

    __slots__ = ("_ends_with_stream", "_keep_end", "_limit", "_separator")

    def __init__(self, framing: SeparatorFraming, *, buffered: bool) -> None:
        self._separator = framing.separator
        self._keep_end = framing.keep_end
        self._ends_with_stream = framing.ends_with_stream
        # A buffer of `limit` bytes has to hold the separator and one byte more.
        reserve = 1 + len(framing.separator) if buffered else 0
        self._limit = max(framing.limit - reserve, 0)

    def split_frames(self, data: bytes, most: int = MAX_BATCH) -> Split:
        separator = self._separator
        frames: list[Frame] = data.split(separator, most)  # type: ignore[assignment]  # bytes only, so far
        rest: bytes | None = frames.pop()  # type: ignore[assignment]  # as above
        if len(data) > self._limit:
            frames = [self._check(frame) for frame in frames]  # type: ignore[arg-type]  # as above
            # Where no separator begins in the rest of the chunk: at `offset`, one may.
            if len(frames) < most and (offset := len(rest) + 1 - len(separator)) > self._limit:  # type: ignore[arg-type]  # as above
                message = "Separator is not found, and chunk exceed the limit"
                frames.append(LimitOverrunError(message, rest, offset, separator))  # type: ignore[arg-type]  # as above
                rest = None
        if self._keep_end:
            frames = [f + separator if isinstance(f, bytes) else f for f in frames]
        return frames, rest

    def _check(self, frame: bytes) -> Frame:
        if len(frame) <= self._limit:
            return frame
        message = "Separator is found, but chunk is longer than limit"
        return LimitOverrunError(message, frame + self._separator, len(frame), self._separator)

    def resume(self, data: bytes | bytearray, scanned: int, most: int = MAX_BATCH) -> Split:
        separator = self._separator
        overlap = len(separator) - 1
        end = data.find(separator, max(scanned - overlap, 0))
        if end < 0:
            is_too_long = len(data) - overlap > self._limit
            return self.split_frames(bytes(data), most) if is_too_long else ([], b"")
        # A large frame is copied once here, not twice.
        first = self._check(bytes(memoryview(data)[:end]))
        if self._keep_end and isinstance(first, bytes):
            first += separator
        following = bytes(memoryview(data)[end + len(separator) :])
        if most == 1:
            return [first], following
        frames, rest = self.split_frames(following, most - 1)
        frames.insert(0, first)
        return frames, rest

    def last_frames(self, rest: bytes) -> list[Frame]:
        if not self._ends_with_stream:
            return []
        return [rest if len(rest) <= self._limit else _too_long_line(rest)]


class LineFramer(SeparatorFramer):
    """Splits after each LF, CR or CRLF.

    A CR ends its line at once, whether or not an LF will follow. If one does, it is dropped.
    """

    __slots__ = ()

    def split_frames(self, data: bytes, most: int = MAX_BATCH) -> Split:
        lines = data.splitlines(keepends=True)
        rest: bytes | None = b""
        if len(lines) > most:
            lines = lines[:most]
            rest = data[sum(map(len, lines)) :]
        elif not data.endswith((b"\n", b"\r")):
            rest = lines.pop()
        elif data.endswith(b"\r"):
            rest = None
        frames: list[Frame] = lines if self._keep_end else [line.rstrip(b"\r\n") for line in lines]  # type: ignore[assignment]  # bytes only, so far
        if len(data) > self._limit:
            frames = [self._check(frame) for frame in frames]  # type: ignore[arg-type]  # as above
            if rest and len(frames) < most and len(rest) > self._limit:
                message = "Separator is not found, and chunk exceed the limit"
                frames.append(LimitOverrunError(message, rest, len(rest), b"\n"))
                rest = None
        return frames, rest

    def _check(self, frame: bytes) -> Frame:
        line = frame.rstrip(b"\r\n") if self._keep_end else frame
        return frame if len(line) <= self._limit else _too_long_line(line)

    def resume(self, data: bytes | bytearray, scanned: int, most: int = MAX_BATCH) -> Split:
        is_complete = data.find(b"\n", scanned) >= 0 or data.find(b"\r", scanned) >= 0
        if is_complete or len(data) > self._limit:
            return self.split_frames(bytes(data), most)
        return [], b""

    def overrun_after(self, frame: Frame) -> Overrun:
        is_in_line = isinstance(frame, LimitOverrunError) and frame.missing != 0
        return LineOverrun(is_in_line=is_in_line)


def _too_long_line(line: bytes) -> LimitOverrunError:
    message = "Separator is found, but chunk is longer than limit"
    return LimitOverrunError(message, line, len(line), end_is_known=True)


class FixedSizeFramer(Framer):
    """Splits after so many bytes."""

    __slots__ = ("_size",)

    def __init__(self, framing: FixedSizeFraming) -> None:
        self._size = framing.size

    def split_frames(self, data: bytes, most: int = MAX_BATCH) -> Split:
        size = self._size
        end = min(len(data) // size, most) * size
        return [data[start : start + size] for start in range(0, end, size)], data[end:]

    def resume(self, data: bytes | bytearray, scanned: int, most: int = MAX_BATCH) -> Split:
        return self.split_frames(bytes(data), most) if len(data) >= self._size else ([], b"")


class WholeFramer(Framer):
    """Makes one frame of whatever has arrived."""

    __slots__ = ()

    def split_frames(self, data: bytes, most: int = MAX_BATCH) -> Split:
        return [data], b""

    def resume(self, data: bytes | bytearray, scanned: int, most: int = MAX_BATCH) -> Split:
        return [bytes(data)], b""


class LengthPrefixFramer(Framer):
    """Splits where a length says."""

    __slots__ = ("_field",)

    def __init__(self, field: LengthField) -> None:
        self._field = field

    def split_frames(self, data: bytes, most: int = MAX_BATCH) -> Split:
        frames: list[Frame] = []
        return frames, self._split(data, frames, most)

    def resume(self, data: bytes | bytearray, scanned: int, most: int = MAX_BATCH) -> Split:
        extent = self._field.measure(data, 0, len(data))
        if extent is None:
            return [], b""
        start, end = extent
        if isinstance(start, IncrementalDeserializeError):
            return self.split_frames(bytes(data), most)
        if end > len(data):
            return [], b""
        view = memoryview(data)  # A large frame is copied once here, not twice.
        frames: list[Frame] = [self._field.frame(view, 0, start, end)]
        return frames, self._split(bytes(view[end:]), frames, most)

    def _split(self, data: bytes, frames: list[Frame], most: int) -> bytes | None:
        end = self._field.split(data, 0, frames, most)
        return None if end > len(data) else data[end:]
