"""Any serializer's packets, with their length in front."""

from __future__ import annotations

from typing import Literal

from easynetwork._typevars import Received, Sent
from easynetwork.serializers.abc import AbstractPacketSerializer, LengthFormat, validated_serializer
from easynetwork.serializers.framing import LengthPrefixedPacketSerializer
from easynetwork.serializers.tools import DEFAULT_SERIALIZER_LIMIT

__all__ = ["LengthPrefixedSerializer"]


class LengthPrefixedSerializer(LengthPrefixedPacketSerializer[Sent, Received]):
    """Packets are another serializer's, sent with their length in front.

    This makes a stream of what only works with datagrams, and is cheaper than finding the end of a
    packet by its contents.

    Args:
        serializer: Makes the bytes of one packet, and a packet of these; only its ``serialize()``
            and ``deserialize()`` are used.
        length: How the length is written, see `LengthFormat`.
        byteorder: As for `LengthPrefixedPacketSerializer`.
        offset: Likewise.
        adjustment: Likewise.
        terminator: Likewise.
        max_digits: Likewise.
        limit: The most bytes of a packet, the length itself not counted.
        debug: Whether errors carry ``error_info``.

    Raises:
        TypeError: `serializer` is not a serializer.
        ValueError: An option is out of its range, or cannot be combined with `length`.
    """

    __slots__ = ("_serializer",)

    def __init__(
        self,
        serializer: AbstractPacketSerializer[Sent, Received],
        length: LengthFormat = "u32",
        *,
        byteorder: Literal["big", "little"] = "big",
        offset: int = 0,
        adjustment: int = 0,
        terminator: bytes | None = None,
        max_digits: int | None = None,
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        debug: bool = False,
    ) -> None:
        super().__init__(
            length,
            byteorder=byteorder,
            offset=offset,
            adjustment=adjustment,
            terminator=terminator,
            max_digits=max_digits,
            limit=limit,
            debug=debug,
        )
        self._serializer = validated_serializer(serializer)

    def serialize(self, packet: Sent) -> bytes:
        """Return the bytes of `packet`, without their length."""
        return self._serializer.serialize(packet)

    def deserialize(self, data: bytes) -> Received:
        """Make a packet of `data`, which is without its length.

        Raises:
            DeserializeError: `data` is not a packet.
        """
        return self._serializer.deserialize(data)
