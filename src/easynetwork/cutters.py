"""Split chunks of a byte stream into frames.

There is one class for each framing (`easynetwork.serializers.abc`). A cutter gets a chunk that
begins where a frame does, and returns all complete frames with the bytes that follow them. The
caller keeps those, and appends the next bytes to them. A frame that is too long or malformed is an
error in its place among the frames.

No byte of a frame that is too long is ever part of another one. The error is there as soon as the
limit is passed; the rest of the frame is dropped as it arrives (`Overrun`).
"""

from __future__ import annotations

__all__ = [
    "MAX_BATCH",
    "Cutter",
    "FixedSizeCutter",
    "Frame",
    "LengthPrefixCutter",
    "Overrun",
    "SeparatorCutter",
]

from abc import ABC, abstractmethod
from typing import Final

from easynetwork.exceptions import IncrementalDeserializeError, LimitOverrunError
from easynetwork.serializers.abc import FixedSizeFraming, SeparatorFraming
from easynetwork.serializers.framing import Frame, LengthField

MAX_BATCH: Final = 1024
"""Packets cut before the event loop gets a turn.

A chunk of 64 KiB can hold 65,536 empty lines. At 1 to 10 microseconds of handler each, that many
would stop every other connection for half a second; a thousand cost a few milliseconds.
"""


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


class Cutter(ABC):
    """Splits a stream the way of one framing; shared by connections unless it says otherwise."""

    __slots__ = ()

    @abstractmethod
    def cut(self, data: bytes) -> tuple[list[Frame], bytes]:
        """Return at most `MAX_BATCH` frames in order, and the bytes that follow them."""

    @abstractmethod
    def resume(self, data: bytes | bytearray, scanned: int) -> tuple[list[Frame], bytes]:
        """Like `cut()`, but assume that `data[:scanned]` contains no complete frame.

        If there is still none, return ``([], b"")``; in that case `data` stays with the caller, and
        bytes of an oversized frame may have been deleted from its front.
        """


class SeparatorCutter(Cutter):
    """Splits after each separator.

    Belongs to one connection: it drops the bytes of a frame that is too long as they come.
    """

    __slots__ = ("_keep_end", "_limit", "_overrun", "_separator")

    def __init__(self, framing: SeparatorFraming, *, buffered: bool) -> None:
        self._separator = framing.separator
        self._keep_end = framing.keep_end
        # A buffered serializer parses inside a buffer of `limit` bytes, which has to hold the
        # separator too: what its generator would refuse is refused here.
        reserve = 1 + len(framing.separator) if buffered else 0
        self._limit = max(framing.limit - reserve, 0)
        self._overrun: Overrun | None = None  # while the end of a frame that is too long is missing

    def cut(self, data: bytes, most: int = MAX_BATCH) -> tuple[list[Frame], bytes]:
        if self._overrun is not None:
            end = self._overrun.end_in(data)
            if end is None:
                return [], b""
            self._overrun = None
            data = data[end:]
        separator = self._separator
        frames: list[Frame] = data.split(separator, most)  # type: ignore[assignment]  # bytes only, so far
        rest: bytes = frames.pop()  # type: ignore[assignment]  # as above
        if len(data) > self._limit:
            frames = [self._check(frame) for frame in frames]  # type: ignore[arg-type]  # as above
            if len(frames) < most and (offset := len(rest) + 1 - len(separator)) > self._limit:
                message = "Separator is not found, and chunk exceed the limit"
                error = LimitOverrunError(message, rest, offset, separator)
                frames.append(error)
                self._overrun = Overrun(None, separator, error.remaining_data)
                rest = b""
        if self._keep_end:
            frames = [f + separator if isinstance(f, bytes) else f for f in frames]
        return frames, rest

    def _check(self, frame: bytes) -> Frame:
        if len(frame) <= self._limit:
            return frame
        message = "Separator is found, but chunk is longer than limit"
        return LimitOverrunError(message, frame + self._separator, len(frame), self._separator)

    def resume(self, data: bytes | bytearray, scanned: int) -> tuple[list[Frame], bytes]:
        if self._overrun is not None:
            # None of `data` has been scanned: `cut()` keeps nothing of such a frame.
            at = self._overrun.end_in(data)
            if isinstance(data, bytearray):
                del data[:at]
            if at is None:
                return [], b""
            self._overrun = None
        separator = self._separator
        overlap = len(separator) - 1
        end = data.find(separator, max(scanned - overlap, 0))
        if end < 0:
            return self.cut(bytes(data)) if len(data) - overlap > self._limit else ([], b"")
        # A large frame is copied once here, not twice.
        first = self._check(bytes(memoryview(data)[:end]))
        if self._keep_end and isinstance(first, bytes):
            first += separator
        frames, rest = self.cut(bytes(memoryview(data)[end + len(separator) :]), MAX_BATCH - 1)
        frames.insert(0, first)
        return frames, rest


class FixedSizeCutter(Cutter):
    """Cuts after so many bytes."""

    __slots__ = ("_size",)

    def __init__(self, framing: FixedSizeFraming) -> None:
        self._size = framing.size

    def cut(self, data: bytes) -> tuple[list[Frame], bytes]:
        size = self._size
        end = min(len(data) // size, MAX_BATCH) * size
        return [data[start : start + size] for start in range(0, end, size)], data[end:]

    def resume(self, data: bytes | bytearray, scanned: int) -> tuple[list[Frame], bytes]:
        return self.cut(bytes(data)) if len(data) >= self._size else ([], b"")


class LengthPrefixCutter(Cutter):
    """Cuts where a length says.

    Belongs to one connection: it drops the bytes of a frame that is too long as they come.
    """

    __slots__ = ("_field", "_skip")

    def __init__(self, field: LengthField) -> None:
        self._field = field
        self._skip = 0  # bytes yet to come of a frame that is too long

    def cut(self, data: bytes) -> tuple[list[Frame], bytes]:
        return self._split(data, self._skip, [])

    def resume(self, data: bytes | bytearray, scanned: int) -> tuple[list[Frame], bytes]:
        if self._skip and isinstance(data, bytearray):
            dropped = min(self._skip, len(data))
            del data[:dropped]
            self._skip -= dropped
        extent = self._field.measure(data, 0, len(data))
        if extent is None:
            return [], b""
        start, end = extent
        if isinstance(start, IncrementalDeserializeError):
            return self.cut(bytes(data))
        if end > len(data):
            return [], b""
        view = memoryview(data)  # A large frame is copied once here, not twice.
        return self._split(bytes(view[end:]), 0, [self._field.frame(view, 0, start, end)])

    def _split(self, data: bytes, at: int, frames: list[Frame]) -> tuple[list[Frame], bytes]:
        end = self._field.split(data, at, frames, MAX_BATCH)
        rest = data[end:]
        self._skip = 0 if rest else end - len(data)
        return frames, rest
