"""Packets with their length in front: how these are written, independently of the library.

`FORMATS` has one entry for each way that the tests go through.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from hypothesis import strategies as st

from easynetwork.serializers.framing import LengthPrefixedPacketSerializer
from tests.serializers.framing.ways import checked


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

    def __str__(self) -> str:
        """Return the name of a test's parameter."""
        return "-".join(str(value) for value in dataclasses.astuple(self))

    def serializer(self, **options: Any) -> Prefixed:
        return Prefixed(**dataclasses.asdict(self), **options)

    @property
    def shortest(self) -> int:
        """The size of the smallest packet."""
        return self.offset + max(self.adjustment, 0)

    @property
    def largest(self) -> int:
        """The largest length that can be written."""
        return 2 ** int(self.length[1:]) - 1 if self.length[0] == "u" else 2**64 - 1

    def field(self, length: int) -> bytes:
        """Write a length."""
        if self.length == "netstring":
            return f"{length}:".encode()
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

    def packets(self, max_size: int = 12) -> st.SearchStrategy[bytes]:
        return st.binary(min_size=self.shortest, max_size=max_size)


FORMATS = [
    *map(Format, ("u8", "u16", "u32", "u64", "varint", "netstring")),
    *(Format(length, "little") for length in ("u16", "u32", "u64")),
    Format("u16", offset=3),
    Format("varint", offset=2),
    Format("u16", adjustment=-2),  # counts itself
    Format("u32", "little", offset=2, adjustment=-6),  # counts everything
    Format("u8", offset=1, adjustment=3),  # does not count the first 3 bytes of the body
    Format("u16", adjustment=2),
    Format("varint", adjustment=-1),
]
