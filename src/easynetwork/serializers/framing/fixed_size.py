"""Packets of one size."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, final

from easynetwork._typevars import Received, Sent
from easynetwork.serializers.abc import FixedSizeFraming
from easynetwork.serializers.framing.framed import FramedPacketSerializer

__all__ = ["FixedSizePacketSerializer"]


class FixedSizePacketSerializer(FramedPacketSerializer[Sent, Received, memoryview]):
    """All packets have the same size.

    Args:
        size: The size of a packet in bytes.
        debug: Whether errors carry ``error_info``.
        **kwargs: For the next class in the method resolution order.

    Raises:
        ValueError: `size` is not positive.
    """

    __slots__ = ("_framing",)

    def __init__(self, size: int, *, debug: bool = False, **kwargs: Any) -> None:
        super().__init__(debug=debug, **kwargs)
        self._framing = FixedSizeFraming(int(size))

    @property
    @final
    def packet_size(self) -> int:
        """The size of a packet in bytes."""
        return self._framing.size

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
