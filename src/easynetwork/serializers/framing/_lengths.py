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
from easynetwork.serializers.abc import MAX_DIGITS, LengthPrefixFraming

Frame: TypeAlias = bytes | IncrementalDeserializeError
"""A frame, or why there is none."""

Extent: TypeAlias = tuple[int | IncrementalDeserializeError, int]
"""Where the body begins, or why there is no frame; and where the next frame begins."""

_from_bytes: Final = int.from_bytes  # to look it up for each length costs a quarter more


@functools.lru_cache(maxsize=32)  # a program has few framings; a generator asks for each packet
def new_length_field(framing: LengthPrefixFraming) -> LengthField:
    """Return what reads and writes the lengths of `framing`."""
    if framing.length == "varint":
        return VarintField(framing)
    if framing.length == "decimal":
        return DecimalField(framing)
    if framing.length == "netstring":
        return NetstringField(framing)
    return FixedWidthField(framing)


def _malformed(message: str, end: int) -> Extent:
    return IncrementalDeserializeError(message, b""), end


class LengthField(ABC):
    """One way to write a length, with what surrounds it."""

    __slots__ = ("_adjustment", "_framing", "_limit", "_max_digits", "_offset")

    _trailer: ClassVar = 0  # bytes after the body

    def __init__(self, framing: LengthPrefixFraming) -> None:
        self._framing = framing
        self._limit = framing.limit
        self._adjustment = framing.adjustment
        self._offset = framing.offset
        self._max_digits = framing.max_digits or MAX_DIGITS.get(framing.length, 0)

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
            ValueError: It needs more bytes than there may be.
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
        size = length + self._adjustment
        if size < 0:
            message = f"Length {length} is less than the {-self._adjustment} bytes that it counts"
            return _malformed(message, start)
        end = start + size + self._trailer
        if (size := size + self._offset) > self._limit:
            return self._too_long(size, at, end, stop), end
        return start, end

    def _checked(self, length: int, digits: bytes) -> bytes:
        if len(digits) > self._max_digits:
            raise ValueError(f"Length {length} does not fit into max_digits={self._max_digits}")
        return digits

    def _too_long(self, size: int, at: int, end: int, stop: int) -> LimitOverrunError:
        message = f"Packet of {size} bytes exceeds the limit of {self._limit}"
        error = LimitOverrunError(message, b"", end - at, end_is_known=True)
        error.missing = max(end - stop, 0)
        return error


class FixedWidthField(LengthField):
    """An integer of 8, 16, 24, 32 or 64 bits."""

    __slots__ = ("_around", "_head", "_longest", "_order", "_shortest", "_unpack", "_width")

    _CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}

    def __init__(self, framing: LengthPrefixFraming) -> None:
        super().__init__(framing)
        self._order = framing.byteorder
        self._width = int(framing.length[1:]) // 8
        self._head = framing.offset + self._width
        order = "<" if framing.byteorder == "little" else ">"
        code = self._CODES.get(self._width)  # `struct` has none for 24 bits
        reader = f"{order}{framing.offset}x{code}"
        self._unpack = struct.Struct(reader).unpack_from if code else None
        # What `split()` needs, without an offset: all but the length that is written, and which
        # lengths are allowed.
        self._around = self._head + framing.adjustment
        self._shortest = max(-framing.adjustment, 0)
        self._longest = framing.limit - framing.adjustment

    def measure(self, data: bytes | bytearray, at: int, stop: int) -> Extent | None:
        start = at + self._head
        if start > stop:
            return None
        if self._unpack is not None:
            return self._extent(at, start, self._unpack(data, at)[0], stop)
        length = _from_bytes(data[start - self._width : start], self._order)
        return self._extent(at, start, length, stop)

    def split(self, data: bytes, at: int, frames: list[Frame], most: int) -> int:
        # The same as below for frames with nothing special, in a loop that calls no function of
        # ours: half the time. `from_bytes()` for all widths would cost 15% more.
        if not self._offset:
            unpack, head, around = self._unpack, self._head, self._around
            shortest, longest = self._shortest, self._longest
            stop = len(data)
            last = stop - head
            while at <= last and len(frames) < most:
                if unpack is not None:
                    (length,) = unpack(data, at)
                else:
                    length = _from_bytes(data[at : at + head], self._order)
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
            return length.to_bytes(self._width, self._order)
        except OverflowError:
            message = f"Length {length} does not fit into {self._framing.length}"
            raise ValueError(message) from None


class VarintField(LengthField):
    """Seven bits a byte, the lowest ones first; all bytes but the last have the highest bit set."""

    __slots__ = ()

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
            if bits == 7 * self._max_digits:
                return _malformed(f"Length does not end after {bits} bits", index)
        return None

    def write(self, length: int) -> bytes:
        data, rest = bytearray(), length
        while rest >= 0x80:
            data.append(rest & 0x7F | 0x80)
            rest >>= 7
        data.append(rest)
        return self._checked(length, bytes(data))


class DecimalField(LengthField):
    """Decimal digits and a terminator before the body."""

    __slots__ = ("_digits", "_length", "_terminator")

    _default_terminator: ClassVar = b" "
    _name: ClassVar = "Packet"
    _complaint: ClassVar = "Packet has no valid length"

    def __init__(self, framing: LengthPrefixFraming) -> None:
        super().__init__(framing)
        self._terminator = framing.terminator or self._default_terminator
        most = self._max_digits
        self._digits = re.compile(b"[0-9]{0,%d}" % most)
        self._length = re.compile(b"([0-9]{1,%d})%b" % (most, re.escape(self._terminator)))

    def measure(self, data: bytes | bytearray, at: int, stop: int) -> Extent | None:
        begin = at + self._offset
        match = self._length.match(data, begin, stop)
        if match is None:
            return self._no_length(data, begin, stop)
        extent = start, end = self._extent(at, match.end(), int(match[1]), stop)
        if end <= stop and isinstance(start, int):
            if data[begin] == ord("0") and match.end(1) > begin + 1:
                return _malformed(f"{self._name}'s length begins with 0", end)
            if self._trailer and data[end - 1] != ord(","):
                return _malformed(f"{self._name} does not end with a comma", end)
        return extent

    def _no_length(self, data: bytes | bytearray, begin: int, stop: int) -> Extent | None:
        """Return None if the length is yet to come, or an error after its first wrong byte."""
        digits = end = self._digits.match(data, begin, stop).end()  # type: ignore[union-attr]  # "" matches
        for byte in self._terminator:
            if end == stop:
                break
            end += 1
            if digits == begin or data[end - 1] != byte:
                return _malformed(f"{self._complaint}: {bytes(data[begin:end])!r}", end)
        return None

    def write(self, length: int) -> bytes:
        return self._checked(length, b"%d" % length) + self._terminator


class NetstringField(DecimalField):
    """Decimal digits and a colon before the body, a comma after it."""

    __slots__ = ()

    _trailer = 1
    _default_terminator = b":"
    _name = "Netstring"
    _complaint = "Netstring does not begin with a length"

    def wrap(self, frame: bytes) -> bytes:
        return super().wrap(frame) + b","
