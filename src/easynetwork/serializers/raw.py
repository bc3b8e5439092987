"""Bytes as they come, without packets in them."""

from __future__ import annotations

from easynetwork.serializers.abc import NoFraming
from easynetwork.serializers.framing.framed import FramedPacketSerializer

__all__ = ["RawSerializer"]


class RawSerializer(FramedPacketSerializer[bytes, bytes, memoryview]):
    """Packets are `bytes`: whatever has arrived, and whatever is to be sent.

    Where a packet ends says nothing: a peer may receive what was sent in other pieces. This is for
    a part of a conversation that is a plain stream, such as a file or a tunnel; see
    `AsyncStreamClient.set_protocol()`. A received packet is never empty, and an empty one cannot be
    sent over a connection.

    Args:
        debug: Has no effect: whatever is received is a packet.
    """

    __slots__ = ()

    def framing(self) -> NoFraming:
        """Return that there is none."""
        return NoFraming()

    def serialize(self, packet: bytes) -> bytes:
        """Return `packet`."""
        return packet

    def deserialize(self, data: bytes) -> bytes:
        """Return `data`."""
        return data

    def serialize_frame(self, packet: bytes, /) -> bytes:
        """Return `packet`."""
        return packet

    def deserialize_frame(self, frame: bytes, /) -> bytes:
        """Return `frame`."""
        return frame
