"""What the base classes of this package share: the last step of each way to parse."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar

from easynetwork.exceptions import DeserializeError, IncrementalDeserializeError
from easynetwork.serializers.abc import AbstractIncrementalPacketSerializer

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

T = TypeVar("T")
Remaining = TypeVar("Remaining", bound="ReadableBuffer")


def parse_frame(
    serializer: AbstractIncrementalPacketSerializer[Any, T], frame: bytes, remaining_data: Remaining
) -> tuple[T, Remaining]:
    """Finish a generator: make a packet of its frame, whatever the outcome keep what follows it."""
    try:
        return serializer.deserialize_frame(frame), remaining_data
    except IncrementalDeserializeError as exc:
        exc.remaining_data = bytes(remaining_data)
        raise


def frame_error(exc: DeserializeError | RecursionError) -> IncrementalDeserializeError:
    """Return what `deserialize_frame()` raises where `deserialize()` raised `exc`."""
    message = f"Error when deserializing data: {exc}"
    return IncrementalDeserializeError(message, b"", getattr(exc, "error_info", None))


def parse_in_buffer(
    parser: Generator[None, bytes, T], buffer: memoryview
) -> Generator[int, int, T]:
    """Run a generator that is sent chunks on what is received into `buffer`, each time all of it.

    For packets that may be larger than a buffer: the parser keeps what it needs of them.
    """
    next(parser)
    while True:
        received = yield 0
        try:
            parser.send(bytes(buffer[:received]))
        except StopIteration as stop:
            result: T = stop.value
            return result
