"""Read and write the lengths of frames that have their length in front.

`LengthField.measure()` alone decides where a frame ends and what is wrong with it. It looks at the
length and not at the body, so asking again with each byte that arrives costs the same, however many
bytes there are.

Python's integers have no largest value: a length is compared, never allocated.
"""

from __future__ import annotations

import functools
import re
import struct
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final, TypeAlias

from easynetwork.exceptions import IncrementalDeserializeError, LimitOverrunError
from easynetwork.serializers.abc import LengthPrefixFraming

Frame: TypeAlias = bytes | IncrementalDeserializeError
"""A frame, or why there is none."""

Extent: TypeAlias = tuple[int | IncrementalDeserializeError, int]
"""Where the body begins, or why there is no frame; and where the next frame begins."""


@functools.lru_cache(maxsize=32)  # a program has few framings; a generator asks for each packet
def new_length_field(framing: LengthPrefixFraming) -> LengthField:
    """Return what reads and writes the lengths of `framing`."""
    if framing.length == "varint":
        return VarintField(framing)
    if framing.length == "netstring":
        return NetstringField(framing)
    return FixedWidthField(framing)


def _malformed(message: str, end: int) -> Extent:
    return IncrementalDeserializeError(message, b""), end


class LengthField(ABC):
    """One way to write a length, with what surrounds it."""

    __slots__ = ("_adjustment", "_framing", "_limit", "_offset")

    _trailer: ClassVar = 0  # bytes after the body

    def __init__(self, framing: LengthPrefixFraming) -> None:
        self._framing = framing
        self._limit = framing.limit
        self._adjustment = framing.adjustment
        self._offset = framing.offset

    def __reduce__(self) -> tuple[Any, ...]:
        return new_length_field, (self._framing,)

    @abstractmethod
    def measure(self, data: bytes | bytearray, at: int, stop: int) -> Extent | None:
        """Return where the frame that begins at `at` ends, given the bytes received up to `stop`.

        Returns:
            Its extent, of which some may be yet to come; None if its length is yet to come. It has
            an error in place of the body's beginning, without ``remaining_data``, if the frame is
            too long (`LimitOverrunError`; its end may be yet to come), or if there is no frame (the
            end is then after the malformed bytes, before `stop`).
        """

    @abstractmethod
    def write(self, length: int) -> bytes:
        """Return the bytes of `length`, which is not negative.

        Raises:
            ValueError: They are too few for it.
        """

    def split(self, data: bytes, at: int, frames: list[Frame], most: int) -> int:
        """Append to `frames` those that begin at `at` and are complete, or wrong, up to `most`.

        Returns:
            Where the next one begins; beyond `data` if the rest of a frame is to be skipped.
        """
        stop = len(data)
        trailer = self._trailer
        has_head = self._offset > 0
        while at < stop and len(frames) < most:
            extent = self.measure(data, at, stop)
            if extent is None:
                break
            start, end = extent
            if isinstance(start, IncrementalDeserializeError):
                frames.append(start)
            elif end > stop:
                break
            elif has_head:
                frames.append(self.frame(data, at, start, end))
            else:
                frames.append(data[start : end - trailer])
            at = end
        return at

    def frame(self, data: bytes | memoryview, at: int, start: int, end: int) -> bytes:
        """Return the frame of that extent."""
        body = data[start : end - self._trailer]
        return b"".join((data[at : at + self._offset], body)) if self._offset else bytes(body)

    def wrap(self, frame: bytes) -> bytes:
        """Return all that is sent for `frame`.

        Raises:
            ValueError: It cannot be sent with this kind of length.
        """
        offset = self._offset
        length = len(frame) - offset - self._adjustment
        if length < 0 or len(frame) < offset:
            at_least = offset + max(self._adjustment, 0)
            raise ValueError(f"A packet must have at least {at_least} bytes, got {frame!r}")
        if offset:
            return frame[:offset] + self.write(length) + frame[offset:]
        return self.write(length) + frame

    def _extent(self, at: int, start: int, length: int, stop: int) -> Extent:
        end = start + length + self._adjustment
        if end < start:
            message = f"Length {length} is less than the {-self._adjustment} bytes that it counts"
            return _malformed(message, start)
        size = self._offset + end - start
        if size > self._limit:
            return self._too_long(size, at, end, stop), end
        return start, end

    def _too_long(self, size: int, at: int, end: int, stop: int) -> LimitOverrunError:
        message = f"Packet of {size} bytes exceeds the limit of {self._limit}"
        error = LimitOverrunError(message, b"", end - at, end_is_known=True)
        error.missing = max(end - stop, 0)
        return error


class FixedWidthField(LengthField):
    """An integer of 8, 16, 32 or 64 bits."""

    __slots__ = ("_around", "_head", "_longest", "_name", "_pack", "_shortest", "_unpack")

    _CODES: Final = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}

    def __init__(self, framing: LengthPrefixFraming) -> None:
        super().__init__(framing)
        order = "<" if framing.byteorder == "little" else ">"
        code = self._CODES[framing.length]
        self._name = framing.length
        self._pack = struct.Struct(order + code).pack
        reader = struct.Struct(f"{order}{framing.offset}x{code}")
        self._unpack = reader.unpack_from
        self._head = reader.size
        # What `split()` needs, without an offset: all but the length that is written, and which
        # lengths are allowed.
        self._around = reader.size + framing.adjustment
        self._shortest = max(-framing.adjustment, 0)
        self._longest = framing.limit - framing.adjustment

    def measure(self, data: bytes | bytearray, at: int, stop: int) -> Extent | None:
        start = at + self._head
        if start > stop:
            return None
        return self._extent(at, start, self._unpack(data, at)[0], stop)

    def split(self, data: bytes, at: int, frames: list[Frame], most: int) -> int:
        # The same as below for frames with nothing special, in a loop that calls no function of
        # ours: half the time.
        if not self._offset:
            unpack, head, around = self._unpack, self._head, self._around
            shortest, longest = self._shortest, self._longest
            stop = len(data)
            last = stop - head
            while at <= last and len(frames) < most:
                (length,) = unpack(data, at)
                end = at + around + length
                if end > stop or not shortest <= length <= longest:
                    break
                frames.append(data[at + head : end])
                at = end
            if at == stop:
                return at
        return super().split(data, at, frames, most)

    def write(self, length: int) -> bytes:
        try:
            return self._pack(length)
        except struct.error:
            raise ValueError(f"Length {length} does not fit into {self._name}") from None


class VarintField(LengthField):
    """Seven bits a byte, the lowest ones first; all bytes but the last have the highest bit set."""

    __slots__ = ()

    # 10 bytes, for 64 bits: https://protobuf.dev/programming-guides/encoding/#varints.
    _MAX_BITS: Final = 70

    def measure(self, data: bytes | bytearray, at: int, stop: int) -> Extent | None:
        index = at + self._offset
        length = bits = 0
        while index < stop:
            byte = data[index]
            index += 1
            length |= (byte & 0x7F) << bits
            if byte < 0x80:
                return self._extent(at, index, length, stop)
            bits += 7
            if bits == self._MAX_BITS:
                return _malformed(f"Length does not end after {bits} bits", index)
        return None

    def write(self, length: int) -> bytes:
        data = bytearray()
        while length >= 0x80:
            data.append(length & 0x7F | 0x80)
            length >>= 7
        data.append(length)
        return bytes(data)


class NetstringField(LengthField):
    """Decimal digits and a colon before the body, a comma after it."""

    __slots__ = ()

    _trailer = 1

    # Enough for 64 bits, as the other lengths.
    _DIGITS: Final = re.compile(rb"[0-9]{0,20}")

    def measure(self, data: bytes | bytearray, at: int, stop: int) -> Extent | None:
        colon = self._DIGITS.match(data, at, stop).end()  # type: ignore[union-attr]  # "" matches
        if colon == stop:
            return None
        if colon == at or data[colon] != ord(":"):
            found = bytes(data[at : colon + 1])
            return _malformed(f"Netstring does not begin with a length: {found!r}", colon + 1)
        length = int(data[at:colon])
        end = colon + 1 + length + 1
        if length > self._limit:
            return self._too_long(length, at, end, stop), end
        if end <= stop:
            if data[at] == ord("0") and colon > at + 1:
                return _malformed("Netstring's length begins with 0", end)
            if data[end - 1] != ord(","):
                return _malformed("Netstring does not end with a comma", end)
        return colon + 1, end

    def write(self, length: int) -> bytes:
        return b"%d:" % length

    def wrap(self, frame: bytes) -> bytes:
        return super().wrap(frame) + b","
