"""Netstrings: byte strings with their length in front, ``5:hello,``.

See https://cr.yp.to/proto/netstrings.txt. Nothing is tolerated that is not said there: no zeros in
front of a length, no white space, no other byte than a comma after a packet.
"""

from __future__ import annotations

from easynetwork.serializers.framing import LengthPrefixedPacketSerializer
from easynetwork.serializers.tools import DEFAULT_SERIALIZER_LIMIT

__all__ = ["NetstringSerializer"]


class NetstringSerializer(LengthPrefixedPacketSerializer[bytes, bytes]):
    """Packets are `bytes`, sent as netstrings.

    A datagram has its own length: there, packets are sent as they are. For other packets than
    `bytes`, give ``"netstring"`` to `LengthPrefixedSerializer`.

    Args:
        limit: The most bytes of a packet.
        debug: Whether errors carry ``error_info``.

    `LengthPrefixFraming` describes how oversized and malformed netstrings are handled.

    Raises:
        ValueError: `limit` is not positive.
    """

    __slots__ = ()

    def __init__(self, *, limit: int = DEFAULT_SERIALIZER_LIMIT, debug: bool = False) -> None:
        super().__init__("netstring", limit=limit, debug=debug)

    def serialize(self, packet: bytes) -> bytes:
        """Return `packet`."""
        return packet

    def deserialize(self, data: bytes) -> bytes:
        """Return `data`."""
        return data
