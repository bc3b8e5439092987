"""Packets that end with a separator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar, final

from easynetwork.exceptions import DeserializeError, LimitOverrunError
from easynetwork.serializers.abc import BufferedIncrementalPacketSerializer, SeparatorFraming
from easynetwork.serializers.framing._frames import frame_error, parse_frame
from easynetwork.serializers.tools import DEFAULT_SERIALIZER_LIMIT, GeneratorStreamReader

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "AutoSeparatedPacketSerializer",
    "new_separated_buffer",
    "read_separated_frame",
    "strip_separators",
]

Sent = TypeVar("Sent", contravariant=True)
Received = TypeVar("Received", covariant=True)


def new_separated_buffer(framing: SeparatorFraming) -> bytearray:
    """Allocate a buffer for `read_separated_frame()`, never too small for an empty frame.

    (If it were, half a separator would be an error again and again, without any progress.)
    """
    return bytearray(max(framing.limit, len(framing.separator) + 1))


def read_separated_frame(
    buffer: bytearray, framing: SeparatorFraming
) -> Generator[int, int, tuple[bytes, memoryview]]:
    """Receive into `buffer` up to a separator; return the frame and a view of what follows.

    A frame has to fit in the buffer with its separator and one byte more. Whether it is accepted
    does not depend on how the stream is cut: as soon as a separator that is yet to come would be
    too far, it is looked for no longer.

    Raises:
        LimitOverrunError: The frame does not fit.
    """
    separator = framing.separator
    last_index = len(buffer) - 1 - len(separator)
    received = 0
    offset = 0  # No separator begins before it.
    while True:
        received += yield received
        index = buffer.find(separator, offset, received)
        if index >= 0:
            break
        offset = max(0, received + 1 - len(separator))
        if offset > last_index:
            raise LimitOverrunError(
                "Separator is not found, and chunk exceed the limit",
                memoryview(buffer)[:received],
                offset,
                separator,
            )
    view = memoryview(buffer)[:received]
    if index > last_index:
        raise LimitOverrunError(
            "Separator is found, but chunk is longer than limit", view, index, separator
        )
    end = index + len(separator)
    return bytes(view[: end if framing.keep_end else index]), view[end:]


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


class AutoSeparatedPacketSerializer(BufferedIncrementalPacketSerializer[Sent, Received, bytearray]):
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

    __slots__ = ("_check_separator", "_debug", "_framing")

    def __init__(
        self,
        separator: ReadableBuffer,
        *,
        incremental_serialize_check_separator: bool = True,
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        debug: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._framing = SeparatorFraming(bytes(memoryview(separator)), limit)
        self._check_separator = bool(incremental_serialize_check_separator)
        self._debug = bool(debug)

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

    @property
    @final
    def debug(self) -> bool:
        """Whether errors carry ``error_info``."""
        return self._debug

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

    @final
    def deserialize_frame(self, frame: bytes, /) -> Received:
        """Make a packet of what was before a separator."""
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
        """Parse the bytes up to the next separator."""
        reader = GeneratorStreamReader()
        framing = self._framing
        frame = yield from reader.read_until(framing.separator, framing.limit, keep_end=False)
        return parse_frame(self, frame, reader.read_all())

    @final
    def create_deserializer_buffer(self, sizehint: int, /) -> bytearray:
        """Allocate a buffer of `buffer_limit` bytes."""
        return new_separated_buffer(self._framing)

    @final
    def buffered_incremental_deserialize(
        self, buffer: bytearray, /
    ) -> Generator[int, int, tuple[Received, memoryview]]:
        """Parse the bytes up to the next separator."""
        frame, remaining_data = yield from read_separated_frame(buffer, self._framing)
        return parse_frame(self, frame, remaining_data)
