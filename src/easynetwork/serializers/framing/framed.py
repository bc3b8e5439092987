"""Serializers whose framing tells where a packet ends.

A subclass says where a frame ends and what is in it. All ways to parse follow from that through one
framer: generators that are sent chunks, generators that receive into a buffer, and whole frames,
which servers and clients use because that is several times faster.
"""

from __future__ import annotations

__all__ = ["FramedPacketSerializer", "frame_error", "parse_frame", "parse_in_buffer", "read_frame"]

from abc import abstractmethod
from collections.abc import Generator
from typing import Any, cast, final

from easynetwork._typevars import _T, Buffer, Received, Sent
from easynetwork.exceptions import DeserializeError, IncrementalDeserializeError
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    BufferedIncrementalPacketSerializer,
    FixedSizeFraming,
    Framing,
    SeparatorFraming,
    overrides,
)
from easynetwork.serializers.framing.framers import Framer, new_framer


class FramedPacketSerializer(BufferedIncrementalPacketSerializer[Sent, Received, Buffer]):
    """The base class of serializers whose framing tells where a packet ends.

    Subclasses implement `framing()`, `serialize_frame()`, and `deserialize()` or
    `deserialize_frame()`. Overriding any of these in a subclass of a subclass costs nothing.

    Overriding a *generator* does: in a class that overrides `incremental_deserialize()`, packets
    are received by that generator, and in one that overrides `buffered_incremental_deserialize()`
    or `create_deserializer_buffer()`, by that one (`BufferedStreamProtocol`). A class that
    overrides `incremental_serialize()` sends what it yields. Each packet then costs several times
    as much.

    Args:
        debug: Whether errors carry ``error_info``.
        **kwargs: For the next class in the method resolution order.
    """

    __slots__ = ("_debug",)

    def __init__(self, *, debug: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._debug = bool(debug)

    @property
    @final
    def debug(self) -> bool:
        """Whether errors carry ``error_info``."""
        return self._debug

    @abstractmethod
    def framing(self) -> Framing:
        """Return where a frame ends. The answer must not change during the serializer's life."""
        raise NotImplementedError

    @abstractmethod
    def serialize_frame(self, packet: Sent, /) -> bytes:
        """Return all bytes that are sent for `packet`."""
        raise NotImplementedError

    def deserialize_frame(self, frame: bytes, /) -> Received:
        """Make a packet of one frame, by means of `deserialize()`.

        Raises:
            IncrementalDeserializeError: The frame is not a packet. Its ``remaining_data`` is empty:
                the bytes after the frame are the caller's business.
        """
        try:
            return self.deserialize(frame)
        except (DeserializeError, RecursionError) as exc:
            raise frame_error(exc) from exc

    @final
    def sends_frames(self) -> bool:
        """Whether `incremental_serialize()` is not overridden."""
        return not overrides(self, FramedPacketSerializer, "incremental_serialize")

    @final
    def receives_frames(self, *, buffered: bool) -> bool:
        """Whether the generator, or with `buffered` the other one, is not overridden."""
        names = ["incremental_deserialize"]
        if buffered:
            names = ["buffered_incremental_deserialize", "create_deserializer_buffer"]
        return not overrides(self, FramedPacketSerializer, *names)

    def incremental_serialize(self, packet: Sent) -> Generator[bytes, None, None]:
        """Yield what `serialize_frame()` returns."""
        yield self.serialize_frame(packet)

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Received, bytes]]:
        """Parse the next frame."""
        return self._parse_next(buffered=False)

    def create_deserializer_buffer(self, sizehint: int, /) -> Buffer:
        """Allocate a buffer for frames of this framing.

        It has as many bytes as the limit says if a frame ends with a separator; as one frame if all
        have the same size, but at least `sizehint`; and `sizehint` bytes if a frame has its length
        in front: such a frame need not fit in.
        """
        framing = self.framing()
        if isinstance(framing, SeparatorFraming):
            # At least an empty frame: otherwise, half a separator would be an error for ever.
            return cast("Buffer", bytearray(max(framing.limit, len(framing.separator) + 1)))
        size = framing.size if isinstance(framing, FixedSizeFraming) else 0
        return cast("Buffer", memoryview(bytearray(max(size, sizehint))))

    def buffered_incremental_deserialize(
        self, buffer: Buffer, /
    ) -> Generator[int, int, tuple[Received, bytes]]:
        """Parse the next frame."""
        return parse_in_buffer(self._parse_next(buffered=True), memoryview(buffer))

    def _parse_next(self, *, buffered: bool) -> Generator[None, bytes, tuple[Received, bytes]]:
        framer = new_framer(self.framing(), buffered=buffered)
        frame, remaining_data = yield from read_frame(framer)
        return parse_frame(self, frame, remaining_data)


def read_frame(framer: Framer) -> Generator[None, bytes, tuple[bytes, bytes]]:
    """Read one frame from the chunks that are sent; return it and the bytes that follow it.

    Raises:
        IncrementalDeserializeError: The frame is too long or malformed.
    """
    data = bytearray()
    scanned = 0
    while True:
        data += yield
        frames, rest = framer.resume(data, scanned, 1)
        if frames:
            break
        scanned = len(data)
    frame = frames.pop()
    if isinstance(frame, bytes):
        return frame, rest or b""
    if rest is not None:
        frame.remaining_data = rest
    try:
        raise frame
    finally:
        del frame  # Its traceback has this frame, which would have it.


def parse_frame(
    serializer: AbstractIncrementalPacketSerializer[Any, _T], frame: bytes, remaining_data: bytes
) -> tuple[_T, bytes]:
    """Finish a generator: make a packet of its frame, whatever the outcome keep what follows it."""
    try:
        return serializer.deserialize_frame(frame), remaining_data
    except IncrementalDeserializeError as exc:
        exc.remaining_data = remaining_data
        raise


def frame_error(exc: DeserializeError | RecursionError) -> IncrementalDeserializeError:
    """Return what `deserialize_frame()` raises where `deserialize()` raised `exc`."""
    message = f"Error when deserializing data: {exc}"
    return IncrementalDeserializeError(message, b"", getattr(exc, "error_info", None))


def parse_in_buffer(
    parser: Generator[None, bytes, _T], buffer: memoryview
) -> Generator[int, int, _T]:
    """Run a generator that is sent chunks on what is received into `buffer`, each time all of it.

    The parser keeps what it needs of a packet, which may be larger than the buffer.
    """
    next(parser)
    while True:
        received = yield 0
        try:
            parser.send(bytes(buffer[:received]))
        except StopIteration as stop:
            result: _T = stop.value
            return result
