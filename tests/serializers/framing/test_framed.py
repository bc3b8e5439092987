from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from easynetwork.exceptions import (
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
)
from easynetwork.serializers.abc import (
    FixedSizeFraming,
    Framing,
    LengthPrefixFraming,
    SeparatorFraming,
)
from easynetwork.serializers.framing import FramedPacketSerializer


class Frames(FramedPacketSerializer[bytes, bytes, Any]):
    """A user's serializer: a framing, and what is in a frame."""

    def __init__(self, framing: Framing) -> None:
        super().__init__()
        self._framing = framing

    def framing(self) -> Framing:
        return self._framing

    def serialize_frame(self, packet: bytes, /) -> bytes:
        return packet + b"|"

    def deserialize(self, data: bytes, /) -> bytes:
        if data == b"bad":
            raise DeserializeError("no packet", {"data": data})
        return data


def finish(parser: Generator[Any, Any, tuple[bytes, bytes]], *chunks: bytes) -> Any:
    """Send chunks to a generator; return what it returns."""
    next(parser)
    try:
        for chunk in chunks:
            parser.send(chunk)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it wants more")


@pytest.mark.parametrize(
    ("framing", "sizehint", "size"),
    [
        (SeparatorFraming(b"|", 100), 10, 100),
        (SeparatorFraming(b"||", 1), 10, 3),
        (FixedSizeFraming(50), 10, 50),
        (FixedSizeFraming(50), 70, 70),
        (LengthPrefixFraming("u8", 100), 10, 10),
    ],
)
def test_buffer(framing: Framing, sizehint: int, size: int) -> None:
    """The size of the buffer depends on the framing."""
    assert memoryview(Frames(framing).create_deserializer_buffer(sizehint)).nbytes == size


def test_generators() -> None:
    """Both generators find a frame and what follows it, however the stream is cut."""
    serializer = Frames(SeparatorFraming(b"|", 100))
    assert list(serializer.incremental_serialize(b"ab")) == [b"ab|"]
    assert finish(serializer.incremental_deserialize(), b"a", b"b|c") == (b"ab", b"c")
    buffer = serializer.create_deserializer_buffer(0)
    parser = serializer.buffered_incremental_deserialize(buffer)
    next(parser)
    buffer[:2] = b"ab"
    assert parser.send(2) == 0
    buffer[:2] = b"|c"
    with pytest.raises(StopIteration) as stop:
        parser.send(2)
    assert stop.value.value == (b"ab", b"c")


def test_bad_packet() -> None:
    """What follows a bad packet, or one that is too long, is not lost."""
    serializer = Frames(SeparatorFraming(b"|", 3))
    with pytest.raises(IncrementalDeserializeError, match="no packet$") as bad:
        finish(serializer.incremental_deserialize(), b"bad|more")
    assert (bad.value.remaining_data, bad.value.error_info) == (b"more", {"data": b"bad"})
    with pytest.raises(LimitOverrunError, match="longer than limit") as long:
        finish(serializer.incremental_deserialize(), b"long|more")
    assert long.value.remaining_data == b"more"


@pytest.mark.parametrize("name", ["incremental_serialize", "serialize", "framing"])
def test_receives_frames(name: str) -> None:
    """Only the generator that parses stands in the way of receiving frames."""
    kind = type("Mine", (Frames,), {name: getattr(Frames, name)})
    other = type("Other", (Frames,), {"incremental_deserialize": lambda self: None})
    assert kind(FixedSizeFraming(1)).receives_frames(buffered=False)
    assert not other(FixedSizeFraming(1)).receives_frames(buffered=False)
    assert other(FixedSizeFraming(1)).receives_frames(buffered=True)


@pytest.mark.parametrize("name", ["buffered_incremental_deserialize", "create_deserializer_buffer"])
def test_receives_frames_through_buffers(name: str) -> None:
    """The same for the generator that is given a buffer, and for what makes it."""
    kind = type("Mine", (Frames,), {name: lambda self, argument: None})
    assert not kind(FixedSizeFraming(1)).receives_frames(buffered=True)
    assert kind(FixedSizeFraming(1)).receives_frames(buffered=False)


def test_sends_frames() -> None:
    """An overridden generator is asked for what is sent."""
    kind = type("Mine", (Frames,), {"incremental_serialize": lambda self, packet: iter([b"x"])})
    assert Frames(FixedSizeFraming(1)).sends_frames()
    assert not kind(FixedSizeFraming(1)).sends_frames()
