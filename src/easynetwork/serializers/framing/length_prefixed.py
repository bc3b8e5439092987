"""Packets with their length in front."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, final

from easynetwork._typevars import Received, Sent
from easynetwork.serializers.abc import LengthFormat, LengthPrefixFraming
from easynetwork.serializers.framing._lengths import new_length_field
from easynetwork.serializers.framing.framed import FramedPacketSerializer
from easynetwork.serializers.tools import DEFAULT_SERIALIZER_LIMIT

__all__ = ["LengthPrefixedPacketSerializer"]


class LengthPrefixedPacketSerializer(FramedPacketSerializer[Sent, Received, memoryview]):
    """Packets have their length in front, or close to their beginning.

    Only in a stream: a datagram has its own length.

    Args:
        length: How the length is written, see `LengthFormat`.
        byteorder: The order of the bytes of a length of fixed width.
        offset: How many of the bytes that `serialize()` returns come before the length, as a
            message's type may do; `deserialize()` gets them back in their place.
        adjustment: What to add to the length that is written to get the number of bytes after it.
            Negative if the length counts itself, or what comes before it.
        terminator: What ends a ``"decimal"`` length: a space by default.
        max_digits: The most digits of a ``"decimal"`` or ``"netstring"`` length, or the most bytes
            of a ``"varint"``.
        limit: The most bytes of a packet, the length itself not counted.
        debug: Whether errors carry ``error_info``.
        **kwargs: For the next class in the method resolution order.

    `LengthPrefixFraming` describes these arguments, and how oversized and malformed lengths are
    handled.

    Raises:
        ValueError: An option is out of its range, or cannot be combined with `length`.
    """

    __slots__ = ("_field", "_framing")

    def __init__(
        self,
        length: LengthFormat = "u32",
        *,
        byteorder: Literal["big", "little"] = "big",
        offset: int = 0,
        adjustment: int = 0,
        terminator: bytes | None = None,
        max_digits: int | None = None,
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        debug: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(debug=debug, **kwargs)
        self._framing = LengthPrefixFraming(
            *(length, limit, byteorder, offset, adjustment),
            terminator=terminator,
            max_digits=max_digits,
        )
        self._field = new_length_field(self._framing)

    @property
    @final
    def buffer_limit(self) -> int:
        """The most bytes of a packet, the length itself not counted."""
        return self._framing.limit

    @abstractmethod
    def serialize(self, packet: Sent, /) -> bytes:
        """Return the bytes of `packet`, without its length."""
        raise NotImplementedError

    @abstractmethod
    def deserialize(self, data: bytes, /) -> Received:
        """Make a packet of `data`, which is without its length.

        Raises:
            DeserializeError: `data` is not a packet.
        """
        raise NotImplementedError

    @final
    def framing(self) -> LengthPrefixFraming:
        """Return where a packet ends."""
        return self._framing

    @final
    def serialize_frame(self, packet: Sent, /) -> bytes:
        """Return the bytes of `packet` with their length.

        Raises:
            ValueError: The length does not fit into its field, or there are too few bytes for
                `offset` and `adjustment`.
        """
        return self._field.wrap(self.serialize(packet))
