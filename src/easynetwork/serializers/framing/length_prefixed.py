"""Packets with their length in front."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import Any, Literal, TypeVar, final

from easynetwork.exceptions import DeserializeError
from easynetwork.serializers.abc import (
    BufferedIncrementalPacketSerializer,
    LengthFormat,
    LengthPrefixFraming,
)
from easynetwork.serializers.framing._frames import frame_error, parse_frame, parse_in_buffer
from easynetwork.serializers.framing._lengths import new_length_field, read_frame
from easynetwork.serializers.tools import DEFAULT_SERIALIZER_LIMIT

__all__ = ["LengthPrefixedPacketSerializer"]

Sent = TypeVar("Sent", contravariant=True)
Received = TypeVar("Received", covariant=True)


class LengthPrefixedPacketSerializer(
    BufferedIncrementalPacketSerializer[Sent, Received, memoryview]
):
    """Packets have their length in front, or close to their beginning.

    Only in a stream: a datagram has its own length.

    Args:
        length: How the length is written, see `LengthFormat`.
        byteorder: The order of the bytes of a length of fixed width.
        offset: How many of the bytes that `serialize()` returns come before the length, as a
            message's type may do; `deserialize()` gets them back in their place.
        adjustment: What to add to the length that is written to get the number of bytes behind it.
            Negative if the length counts itself, or what comes before it.
        limit: The most bytes of a packet, the length itself not counted.
        debug: Whether errors carry ``error_info``.
        **kwargs: For the next class in the method resolution order.

    What else there is to know about these, and what happens when a peer's length is beyond the
    limit or none at all, is said by `LengthPrefixFraming`.

    Raises:
        ValueError: An option is out of its range, or cannot be combined with ``"netstring"``.
    """

    __slots__ = ("_debug", "_field", "_framing")

    def __init__(
        self,
        length: LengthFormat = "u32",
        *,
        byteorder: Literal["big", "little"] = "big",
        offset: int = 0,
        adjustment: int = 0,
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        debug: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._framing = LengthPrefixFraming(length, limit, byteorder, offset, adjustment)
        self._field = new_length_field(self._framing)
        self._debug = bool(debug)

    @property
    @final
    def buffer_limit(self) -> int:
        """The most bytes of a packet, the length itself not counted."""
        return self._framing.limit

    @property
    @final
    def debug(self) -> bool:
        """Whether errors carry ``error_info``."""
        return self._debug

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

    @final
    def deserialize_frame(self, frame: bytes, /) -> Received:
        """Make a packet of its bytes without their length."""
        try:
            return self.deserialize(frame)
        except (DeserializeError, RecursionError) as exc:
            raise frame_error(exc) from exc

    @final
    def incremental_serialize(self, packet: Sent) -> Generator[bytes, None, None]:
        """Yield what `serialize_frame()` returns."""
        yield self.serialize_frame(packet)

    @final
    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Received, bytes]]:
        """Parse a length, and as many bytes as it says."""
        frame, remaining_data = yield from read_frame(self._field)
        return parse_frame(self, frame, remaining_data)

    @final
    def create_deserializer_buffer(self, sizehint: int, /) -> memoryview:
        """Allocate a buffer of `sizehint` bytes, whatever a packet's size: it need not fit in."""
        return memoryview(bytearray(sizehint))

    @final
    def buffered_incremental_deserialize(
        self, buffer: memoryview, /
    ) -> Generator[int, int, tuple[Received, bytes]]:
        """Parse a length, and as many bytes as it says."""
        return parse_in_buffer(self.incremental_deserialize(), buffer)
