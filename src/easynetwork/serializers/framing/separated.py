"""Packets that end with a separator."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, final

from easynetwork._typevars import Received, Sent
from easynetwork.serializers.abc import SeparatorFraming
from easynetwork.serializers.framing.framed import FramedPacketSerializer
from easynetwork.serializers.tools import DEFAULT_SERIALIZER_LIMIT

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["AutoSeparatedPacketSerializer", "strip_separators"]


def strip_separators(data: bytes, separator: bytes) -> bytes:
    """Return `data` without the separators at its end, however many: a peer sends nothing else."""
    end = len(data)
    run = separator
    while data.endswith(run, 0, end):
        end -= len(run)
        run += run
    while len(run) > len(separator):  # Fewer are left than are in it.
        run = run[: len(run) // 2]
        if data.endswith(run, 0, end):
            end -= len(run)
    return data[:end]


class AutoSeparatedPacketSerializer(FramedPacketSerializer[Sent, Received, bytearray]):
    """Packets end with a separator.

    Args:
        separator: The bytes between packets.
        incremental_serialize_check_separator: Whether to look for separators in what `serialize()`
            returns: those at its end are removed, one in the middle is an error. Without the check,
            data that ends with the separator is sent as it is.
        limit: The most bytes before a separator. When received into a buffer
            (`BufferedStreamProtocol`), the separator and one more byte have to fit in as well.
        debug: Whether errors carry ``error_info``.
        **kwargs: For the next class in the method resolution order.

    Raises:
        TypeError: `separator` is not a bytes-like object, or `limit` is not an integer.
        ValueError: `separator` is empty, or `limit` is not positive.
    """

    __slots__ = ("_check_separator", "_framing")

    def __init__(
        self,
        separator: ReadableBuffer,
        *,
        incremental_serialize_check_separator: bool = True,
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        debug: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(debug=debug, **kwargs)
        self._framing = SeparatorFraming(bytes(memoryview(separator)), limit)
        self._check_separator = bool(incremental_serialize_check_separator)

    @property
    @final
    def separator(self) -> bytes:
        """The bytes between packets."""
        return self._framing.separator

    @property
    @final
    def buffer_limit(self) -> int:
        """The most bytes before a separator."""
        return self._framing.limit

    @abstractmethod
    def serialize(self, packet: Sent, /) -> bytes:
        """Return the bytes of `packet`, without separator."""
        raise NotImplementedError

    @abstractmethod
    def deserialize(self, data: bytes, /) -> Received:
        """Make a packet of `data`, which has no separator.

        Raises:
            DeserializeError: `data` is not a packet.
        """
        raise NotImplementedError

    @final
    def framing(self) -> SeparatorFraming:
        """Return where a packet ends."""
        return self._framing

    @final
    def serialize_frame(self, packet: Sent, /) -> bytes:
        """Return the bytes of `packet` and a separator.

        Raises:
            ValueError: There is a separator inside the packet.
        """
        data = self.serialize(packet)
        separator = self._framing.separator
        if self._check_separator:
            data = strip_separators(data, separator)
            if separator in data:
                raise ValueError(
                    f"{separator!r} separator found in serialized packet {packet!r} "
                    "which was not at the end"
                )
        elif data.endswith(separator):
            return data
        return data + separator
