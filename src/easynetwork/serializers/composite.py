"""Two serializers, one per direction, used as one.

Where both ends of a connection do not speak alike: for example, a client that sends JSON and
receives lines of text. What the pair can do is what both halves can: see `StapledPacketSerializer`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, Self, final

from easynetwork._typevars import Buffer, Received, Sent
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    AbstractPacketSerializer,
    BufferedIncrementalPacketSerializer,
    Framing,
    overrides,
    validated_serializer,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "StapledBufferedIncrementalPacketSerializer",
    "StapledIncrementalPacketSerializer",
    "StapledPacketSerializer",
]


class StapledPacketSerializer(AbstractPacketSerializer[Sent, Received]):
    """Serializes packets with one serializer, deserializes them with another one.

    To create one is to get the most that the two can do together: a
    `StapledIncrementalPacketSerializer` if both are incremental, a
    `StapledBufferedIncrementalPacketSerializer` if that which deserializes is also buffered.

    Args:
        sent_packet_serializer: What makes bytes of the packets that are sent.
        received_packet_serializer: What makes packets of the bytes that are received.

    Raises:
        TypeError: One of them is not a serializer, or cannot do what was explicitly asked for.
    """

    __slots__ = ("_received_packet_serializer", "_sent_packet_serializer")

    def __new__(
        cls,
        sent_packet_serializer: AbstractPacketSerializer[Sent, Any],
        received_packet_serializer: AbstractPacketSerializer[Any, Received],
    ) -> Self:
        for serializer in (sent_packet_serializer, received_packet_serializer):
            validated_serializer(serializer)
        best: type[Any] = StapledPacketSerializer
        if isinstance(sent_packet_serializer, AbstractIncrementalPacketSerializer):
            if isinstance(received_packet_serializer, BufferedIncrementalPacketSerializer):
                best = StapledBufferedIncrementalPacketSerializer
            elif isinstance(received_packet_serializer, AbstractIncrementalPacketSerializer):
                best = StapledIncrementalPacketSerializer
        if not issubclass(best, cls):
            raise TypeError(
                f"{sent_packet_serializer!r} and {received_packet_serializer!r} "
                f"make a {best.__name__}, not a {cls.__name__}"
            )
        return super().__new__(best)

    def __init__(
        self,
        sent_packet_serializer: AbstractPacketSerializer[Sent, Any],
        received_packet_serializer: AbstractPacketSerializer[Any, Received],
    ) -> None:
        super().__init__()
        self._sent_packet_serializer = sent_packet_serializer
        self._received_packet_serializer = received_packet_serializer

    def __getnewargs__(self) -> tuple[Any, Any]:
        return self._sent_packet_serializer, self._received_packet_serializer

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(sent_packet_serializer={self._sent_packet_serializer!r}, "
            f"received_packet_serializer={self._received_packet_serializer!r})"
        )

    @property
    @final
    def sent_packet_serializer(self) -> AbstractPacketSerializer[Sent, Any]:
        """What makes bytes of the packets that are sent."""
        return self._sent_packet_serializer

    @property
    @final
    def received_packet_serializer(self) -> AbstractPacketSerializer[Any, Received]:
        """What makes packets of the bytes that are received."""
        return self._received_packet_serializer

    @final
    def serialize(self, packet: Sent) -> bytes:
        """Delegate to `sent_packet_serializer`."""
        return self._sent_packet_serializer.serialize(packet)

    @final
    def deserialize(self, data: bytes) -> Received:
        """Delegate to `received_packet_serializer`."""
        return self._received_packet_serializer.deserialize(data)


class StapledIncrementalPacketSerializer(
    StapledPacketSerializer[Sent, Received], AbstractIncrementalPacketSerializer[Sent, Received]
):
    """Two incremental serializers. See `StapledPacketSerializer`."""

    __slots__ = ()

    _sent_packet_serializer: AbstractIncrementalPacketSerializer[Sent, Any]
    _received_packet_serializer: AbstractIncrementalPacketSerializer[Any, Received]

    @final
    def incremental_serialize(self, packet: Sent) -> Generator[bytes, None, None]:
        """Delegate to `sent_packet_serializer`."""
        yield from self._sent_packet_serializer.incremental_serialize(packet)

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Received, bytes]]:
        """Delegate to `received_packet_serializer`."""
        return (yield from self._received_packet_serializer.incremental_deserialize())

    @final
    def sends_frames(self) -> bool:
        """Delegate to `sent_packet_serializer`."""
        return bool(self._sent_packet_serializer.sends_frames())

    @final
    def serialize_frame(self, packet: Sent, /) -> bytes:
        """Delegate to `sent_packet_serializer`."""
        return self._sent_packet_serializer.serialize_frame(packet)

    @final
    def receives_frames(self, *, buffered: bool) -> bool:
        """Delegate to `received_packet_serializer`."""
        if overrides(self, StapledIncrementalPacketSerializer, "incremental_deserialize"):
            return False
        return bool(self._received_packet_serializer.receives_frames(buffered=buffered))

    def framing(self) -> Framing | None:
        """Delegate to `received_packet_serializer`."""
        return self._received_packet_serializer.framing()

    def deserialize_frame(self, frame: bytes, /) -> Received:
        """Delegate to `received_packet_serializer`."""
        return self._received_packet_serializer.deserialize_frame(frame)


@final
class StapledBufferedIncrementalPacketSerializer(
    StapledIncrementalPacketSerializer[Sent, Received],
    BufferedIncrementalPacketSerializer[Sent, Received, Buffer],
    Generic[Sent, Received, Buffer],
):
    """An incremental serializer and a buffered one. See `StapledPacketSerializer`."""

    __slots__ = ()

    _received_packet_serializer: BufferedIncrementalPacketSerializer[Any, Received, Buffer]

    def create_deserializer_buffer(self, sizehint: int, /) -> Buffer:
        """Delegate to `received_packet_serializer`."""
        return self._received_packet_serializer.create_deserializer_buffer(sizehint)

    def buffered_incremental_deserialize(
        self, buffer: Buffer, /
    ) -> Generator[int | None, int, tuple[Received, ReadableBuffer]]:
        """Delegate to `received_packet_serializer`."""
        serializer = self._received_packet_serializer
        return (yield from serializer.buffered_incremental_deserialize(buffer))
