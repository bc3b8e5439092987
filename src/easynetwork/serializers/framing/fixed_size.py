"""Packets of one size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import Any, TypeVar, final

from easynetwork.exceptions import DeserializeError
from easynetwork.serializers.abc import BufferedIncrementalPacketSerializer, FixedSizeFraming
from easynetwork.serializers.framing._frames import frame_error, parse_frame
from easynetwork.serializers.tools import GeneratorStreamReader

__all__ = ["FixedSizePacketSerializer"]

Sent = TypeVar("Sent", contravariant=True)
Received = TypeVar("Received", covariant=True)


class FixedSizePacketSerializer(BufferedIncrementalPacketSerializer[Sent, Received, memoryview]):
    """All packets have the same size.

    Args:
        size: The size of a packet in bytes.
        debug: Whether errors carry ``error_info``.
        **kwargs: For the next class in the method resolution order.

    Raises:
        ValueError: `size` is not positive.
    """

    __slots__ = ("_debug", "_framing")

    def __init__(self, size: int, *, debug: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._framing = FixedSizeFraming(int(size))
        self._debug = bool(debug)

    @property
    @final
    def packet_size(self) -> int:
        """The size of a packet in bytes."""
        return self._framing.size

    @property
    @final
    def debug(self) -> bool:
        """Whether errors carry ``error_info``."""
        return self._debug

    @abstractmethod
    def serialize(self, packet: Sent, /) -> bytes:
        """Return the `packet_size` bytes of `packet`."""
        raise NotImplementedError

    @abstractmethod
    def deserialize(self, data: bytes, /) -> Received:
        """Make a packet of `data`.

        Raises:
            DeserializeError: `data` is not a packet. It may have another size than `packet_size` if
                it was received as a datagram.
        """
        raise NotImplementedError

    @final
    def framing(self) -> FixedSizeFraming:
        """Return where a packet ends."""
        return self._framing

    @final
    def serialize_frame(self, packet: Sent, /) -> bytes:
        """Return the bytes of `packet`.

        Raises:
            ValueError: `serialize()` returned more or fewer bytes than it has to.
        """
        data = self.serialize(packet)
        if len(data) != self._framing.size:
            raise ValueError("serialized data size does not meet expectation")
        return data

    @final
    def deserialize_frame(self, frame: bytes, /) -> Received:
        """Make a packet of `packet_size` bytes."""
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
        """Parse the next `packet_size` bytes."""
        reader = GeneratorStreamReader()
        frame = yield from reader.read_exactly(self._framing.size)
        return parse_frame(self, frame, reader.read_all())

    @final
    def create_deserializer_buffer(self, sizehint: int, /) -> memoryview:
        """Allocate a buffer of `sizehint` bytes, or `packet_size` if that is more."""
        return memoryview(bytearray(max(self._framing.size, sizehint)))

    @final
    def buffered_incremental_deserialize(
        self, buffer: memoryview, /
    ) -> Generator[int, int, tuple[Received, memoryview]]:
        """Parse the next `packet_size` bytes."""
        size = self._framing.size
        received = 0
        while received < size:
            received += yield received
        return parse_frame(self, bytes(buffer[:size]), buffer[size:received])
