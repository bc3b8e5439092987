"""Packets with their length in front: how these are written, independently of the library.

`FORMATS` has one entry for each way that the tests go through.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

from hypothesis import strategies as st

from easynetwork.exceptions import DeserializeError, IncrementalDeserializeError, LimitOverrunError
from easynetwork.serializers.framing import LengthPrefixedPacketSerializer
from tests.serializers.framing.ways import checked

Read = tuple[int | str, int] | None
"""A length, or what is wrong with it, and how many bytes it has; None if it is incomplete."""


class Prefixed(LengthPrefixedPacketSerializer[bytes, bytes]):
    """Packets are bytes."""

    __slots__ = ()

    def serialize(self, packet: bytes, /) -> bytes:
        return packet

    def deserialize(self, data: bytes, /) -> bytes:
        return checked(data)


@dataclasses.dataclass(frozen=True)
class Format:
    """Options of a serializer, and what it should do."""

    length: Any
    byteorder: Literal["big", "little"] = "big"
    offset: int = 0
    adjustment: int = 0
    terminator: bytes | None = None
    max_digits: int | None = None

    def __str__(self) -> str:
        """Return the name of a test's parameter."""
        values = [value for value in dataclasses.astuple(self) if value is not None]
        return "-".join(map(str, values))

    def serializer(self, **options: Any) -> Prefixed:
        return Prefixed(**dataclasses.asdict(self), **options)

    @property
    def shortest(self) -> int:
        """The size of the smallest packet."""
        return self.offset + max(self.adjustment, 0)

    @property
    def largest(self) -> int:
        """The largest length that can be written, or that the tests write."""
        base, digits = 2, 64
        if self.length[0] == "u":
            digits = int(self.length[1:])
        elif self.max_digits is not None:
            base, digits = 128 if self.length == "varint" else 10, self.max_digits
        return int(base**digits) - 1

    @property
    def end_of_length(self) -> bytes:
        """What ends a length in digits."""
        return b":" if self.length == "netstring" else self.terminator or b" "

    def field(self, length: int) -> bytes:
        """Write a length."""
        if self.length in ("decimal", "netstring"):
            return str(length).encode() + self.end_of_length
        if self.length == "varint":
            digits = [length >> shift & 0x7F for shift in range(0, length.bit_length() or 1, 7)]
            return bytes(digit | 0x80 for digit in digits[:-1]) + bytes(digits[-1:])
        return length.to_bytes(int(self.length[1:]) // 8, self.byteorder)

    def declared(self, length: int) -> bytes:
        """Write a length, and any head in front of it."""
        return b"h" * self.offset + self.field(length)

    def wire(self, packet: bytes) -> bytes:
        """Write a packet."""
        head, body = packet[: self.offset], packet[self.offset :]
        end = b"," if self.length == "netstring" else b""
        return head + self.field(len(body) - self.adjustment) + body + end

    def read(self, data: bytes) -> Read:
        """Read a length at the beginning of `data`, one byte more at a time."""
        for size in range(1, len(data) + 1):
            read = getattr(self, f"_read_{self.length}", self._read_integer)(data[:size])
            if read is not None:
                return read, size
        return None

    def _read_integer(self, data: bytes) -> int | str | None:
        is_complete = len(data) == int(self.length[1:]) // 8
        return int.from_bytes(data, self.byteorder) if is_complete else None

    def _read_varint(self, data: bytes) -> int | str | None:
        if data[-1] < 0x80:
            return sum((byte & 0x7F) << 7 * index for index, byte in enumerate(data))
        most = self.max_digits or 10
        return f"Length does not end after {7 * most} bits" if len(data) == most else None

    def _read_decimal(self, data: bytes) -> int | str | None:
        end = data.lstrip(b"0123456789")
        size = len(data) - len(end)
        if not 1 <= size <= (self.max_digits or 20) or not self.end_of_length.startswith(end):
            return f"Packet has no valid length: {data!r}"
        return int(data[:size]) if end == self.end_of_length else None

    def _read_netstring(self, data: bytes) -> int | str | None:
        read = self._read_decimal(data)
        if not isinstance(read, str):
            return read
        return read.replace("Packet has no valid", "Netstring does not begin with a")

    def parsed(self, stream: bytes, limit: int) -> Iterator[Any]:
        """Parse a whole stream, in the simplest way."""
        while stream:
            head, rest = stream[: self.offset], stream[self.offset :]
            read = self.read(rest)
            if read is None:
                return
            length, used = read
            rest = rest[used:]
            if isinstance(length, str):
                yield IncrementalDeserializeError, length
            elif (size := length + self.adjustment) < 0:
                message = (
                    f"Length {length} is less than the {-self.adjustment} bytes that it counts"
                )
                yield IncrementalDeserializeError, message
            else:
                end = b"," if self.length == "netstring" else b""
                if (whole := self.offset + size) > limit:
                    yield LimitOverrunError, f"Packet of {whole} bytes exceeds the limit of {limit}"
                elif size + len(end) > len(rest):
                    return
                else:
                    begin = stream[self.offset : self.offset + 2]
                    yield self._parsed(begin, head + rest[:size], rest[size:].startswith(end))
                rest = rest[size + len(end) :]
            stream = rest

    def _parsed(self, begin: bytes, frame: bytes, ends_well: bool) -> Any:
        name = "Netstring" if self.length == "netstring" else "Packet"
        if self.length in ("decimal", "netstring") and begin[:1] == b"0" and begin[1:].isdigit():
            return IncrementalDeserializeError, f"{name}'s length begins with 0"
        if not ends_well:
            return IncrementalDeserializeError, "Netstring does not end with a comma"
        try:
            return checked(frame)
        except (DeserializeError, RecursionError) as exc:
            return IncrementalDeserializeError, f"Error when deserializing data: {exc}"

    def packets(self, max_size: int = 12) -> st.SearchStrategy[bytes]:
        return st.binary(min_size=self.shortest, max_size=max_size)


FORMATS = [
    *map(Format, ("u8", "u16", "u24", "u32", "u64", "varint", "decimal", "netstring")),
    *(Format(length, "little") for length in ("u16", "u24", "u32", "u64")),
    Format("u24", adjustment=6),  # HTTP/2
    Format("u24", "little", adjustment=1),  # MySQL
    Format("u24", offset=1),  # a handshake message of TLS
    Format("decimal", terminator=b"\n"),
    Format("decimal", terminator=b"ab", max_digits=3),
    Format("decimal", offset=1, adjustment=2, terminator=b"\r\n"),  # a bulk string of Redis
    Format("decimal", adjustment=-2, terminator=b":"),
    Format("varint", offset=1, max_digits=4),  # MQTT
    Format("netstring", max_digits=4),
    Format("u16", offset=3),
    Format("varint", offset=2),
    Format("u16", adjustment=-2),  # counts itself
    Format("u32", "little", offset=2, adjustment=-6),  # counts everything
    Format("u8", offset=1, adjustment=3),  # does not count the first 3 bytes of the body
    Format("u16", adjustment=2),
    Format("varint", adjustment=-1),
]
