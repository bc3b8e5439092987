from __future__ import annotations

import weakref
from collections.abc import Generator
from typing import Any

import pytest

from easynetwork.exceptions import (
    DeserializeError,
    IncrementalDeserializeError,
    UnsupportedOperation,
)
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    AbstractPacketSerializer,
    BufferedIncrementalPacketSerializer,
    FixedSizeFraming,
    LengthPrefixFraming,
    SeparatorFraming,
)
from tests.tools import check_every_cut


class Netstring(AbstractIncrementalPacketSerializer[bytes, bytes]):
    """Only what is abstract is defined: ``5:hello,``. Sees to it that no chunk is empty."""

    __slots__ = ()

    def incremental_serialize(self, packet: bytes, /) -> Generator[bytes, None, None]:
        yield b"%d:" % len(packet)
        yield packet
        yield b","

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[bytes, bytes]]:
        data = b""
        while b":" not in data:
            data += yield from self.chunk()
        size, _, data = data.partition(b":")
        while len(data) <= int(size):
            data += yield from self.chunk()
        packet, end, remaining_data = data[: int(size)], data[int(size)], data[int(size) + 1 :]
        if end != ord(","):
            raise IncrementalDeserializeError("no comma", remaining_data)
        return packet, remaining_data

    def chunk(self) -> Generator[None, bytes, bytes]:
        chunk = yield
        assert chunk
        return chunk


@pytest.mark.parametrize(
    "serializer_class",
    [
        AbstractPacketSerializer,
        AbstractIncrementalPacketSerializer,
        BufferedIncrementalPacketSerializer,
    ],
)
def test_abstract(serializer_class: type) -> None:
    """An interface is not a serializer yet."""
    with pytest.raises(TypeError, match="abstract"):
        serializer_class()


def test_slots() -> None:
    """Serializers are small, and can be referred to weakly."""
    serializer = Netstring()

    assert not hasattr(serializer, "__dict__")
    assert weakref.ref(serializer)() is serializer


def test_incremental() -> None:
    """The generator gives the same packets and errors however the stream is cut."""
    no_comma = (IncrementalDeserializeError, "no comma")

    check_every_cut(
        Netstring().incremental_deserialize, b"2:ab,1:c;0:,", [b"ab", no_comma, b""], trailing=b"12"
    )


def test_serialize() -> None:
    """One-shot serialization joins the chunks."""
    assert Netstring().serialize(b"hello") == b"5:hello,"


def test_deserialize() -> None:
    """One-shot deserialization sends everything to the generator."""
    assert Netstring().deserialize(b"5:hello,") == b"hello"


@pytest.mark.parametrize("data", [b"", b"5:hel"])
def test_deserialize_missing_data(data: bytes) -> None:
    """Too little data is an error, even if there is none at all."""
    with pytest.raises(DeserializeError, match=r"^Missing data to create packet$") as caught:
        Netstring().deserialize(data)
    assert caught.value.error_info == {"data": data}


def test_deserialize_extra_data() -> None:
    """Too much data is an error."""
    with pytest.raises(DeserializeError, match=r"^Extra data caught$") as caught:
        Netstring().deserialize(b"5:hello,1:")
    assert caught.value.error_info == {"packet": b"hello", "extra": b"1:"}


def test_deserialize_invalid_data() -> None:
    """What the generator raises is an error of one-shot deserialization as it is."""
    with pytest.raises(IncrementalDeserializeError, match="no comma"):
        Netstring().deserialize(b"1:a;")


def test_deserialize_without_yield() -> None:
    """A generator that does not wait for data is a bug."""

    class Hasty(Netstring):
        def incremental_deserialize(self) -> Generator[None, bytes, tuple[bytes, bytes]]:
            return b"", b""
            yield

    message = r"^self\.incremental_deserialize\(\) generator did not yield$"
    with pytest.raises(RuntimeError, match=message):
        Hasty().deserialize(b"data")


def test_frames_are_optional() -> None:
    """A serializer without frames has no framing, but gives all the bytes of a packet."""
    serializer = Netstring()

    assert serializer.framing() is None
    assert serializer.serialize_frame(b"hello") == b"5:hello,"
    with pytest.raises(UnsupportedOperation, match="^Netstring does not receive frames$"):
        serializer.deserialize_frame(b"hello")


@pytest.mark.parametrize(
    "framing", [SeparatorFraming(b"\n", 100), FixedSizeFraming(5), LengthPrefixFraming("u8", 100)]
)
def test_framing_is_immutable(framing: Any) -> None:
    """A framing is a value: shared, compared, never changed."""
    name = framing.__slots__[0]
    with pytest.raises(AttributeError):
        setattr(framing, name, getattr(framing, name))
    assert not hasattr(framing, "__dict__")
    assert weakref.ref(framing)() is framing
    assert SeparatorFraming(b"\n", 100) == SeparatorFraming(b"\n", 100, keep_end=False)


@pytest.mark.parametrize(
    "options",
    [
        {"length": "u12"},
        {"byteorder": "middle"},
        {"offset": -1},
        {"limit": 0},
        {"terminator": b" "},
        {"max_digits": 4},
    ],
)
def test_framing_is_valid(options: dict[str, Any]) -> None:
    """What is told of a length makes sense."""
    with pytest.raises(ValueError, match=next(iter(options))):
        LengthPrefixFraming(**{"length": "u8", "limit": 100, **options})


def test_framing_with_separator_is_valid() -> None:
    """So does what is told of a separator."""
    with pytest.raises(ValueError, match="^Empty separator$"):
        SeparatorFraming(b"", 100)
    with pytest.raises(ValueError, match="^limit must be a positive integer$"):
        SeparatorFraming(b"\n", 0)


@pytest.mark.parametrize("size", [0, -1])
def test_framing_with_size_is_valid(size: int) -> None:
    """And what is told of a size."""
    with pytest.raises(ValueError, match="^size must be a positive integer$"):
        FixedSizeFraming(size)
