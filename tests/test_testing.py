"""The kit finds what is wrong: here is one serializer for each thing that can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any

import pytest

from easynetwork.exceptions import DeserializeError, IncrementalDeserializeError, LimitOverrunError
from easynetwork.serializers import JSONSerializer, StapledPacketSerializer, StringLineSerializer
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    AbstractPacketSerializer,
    BufferedIncrementalPacketSerializer,
    SeparatorFraming,
)
from easynetwork.serializers.tools import GeneratorStreamReader
from easynetwork.testing import check_serializer

Parser = Generator[None, bytes, tuple[str, bytes]]


class OneShot(AbstractPacketSerializer[str, str]):
    """As it should be: digits."""

    def serialize(self, packet: str, /) -> bytes:
        return packet.encode()

    def deserialize(self, data: bytes, /) -> str:
        if not data.isdigit():
            raise DeserializeError("Not digits")
        return data.decode()


class Digits(BufferedIncrementalPacketSerializer[str, str, bytearray]):
    """As it should be: digits, and a full stop behind them; no more than ten."""

    def serialize(self, packet: str) -> bytes:
        return packet.encode()

    def deserialize(self, data: bytes) -> str:
        return OneShot().deserialize(data)

    def incremental_serialize(self, packet: str, /) -> Generator[bytes, None, None]:
        yield packet.encode()
        yield b"."

    def incremental_deserialize(self) -> Parser:
        data = b""
        while b"." not in data:
            if len(data) > 10:
                raise LimitOverrunError("Too many digits", data, len(data), b".")
            data += yield
        frame, _, remaining_data = data.partition(b".")
        return self.parse(frame, remaining_data), remaining_data

    def parse(self, frame: bytes, remaining_data: bytes) -> str:
        if len(frame) > 10:
            raise LimitOverrunError("Too many digits", remaining_data, 0, end_is_known=True)
        if not frame.isdigit():
            raise IncrementalDeserializeError("Not digits", remaining_data)
        return frame.decode()

    def create_deserializer_buffer(self, sizehint: int, /) -> bytearray:
        return bytearray(11)

    def buffered_incremental_deserialize(
        self, buffer: bytearray, /
    ) -> Generator[int, int, tuple[str, bytes]]:
        end = 0
        while (index := buffer.find(b".", 0, end)) < 0:
            if end == len(buffer):
                raise LimitOverrunError("Too many digits", buffer, end, b".")
            end += yield end
        remaining_data = bytes(buffer[index + 1 : end])
        return self.parse(bytes(buffer[:index]), remaining_data), remaining_data


def check(serializer: Any, **options: Any) -> None:
    options = {"malformed": [b"x.", b"."], "oversized": [b"1" * 20, b"1" * 20 + b"."], **options}
    check_serializer(serializer, ["1", "23", "4567890"], **options)


@pytest.mark.parametrize("serializer", [OneShot(), Digits()])
def test_good(serializer: Any) -> None:
    """What is as it should be passes."""
    check(serializer)


def test_packets_are_needed() -> None:
    """Without a packet, nothing would be checked."""
    with pytest.raises(ValueError, match="^There is nothing to check without packets$"):
        check_serializer(OneShot(), [])


def test_received() -> None:
    """What comes out may be something else than what went in."""
    stapled = StapledPacketSerializer(JSONSerializer(), StringLineSerializer())

    check_serializer(stapled, [[1], {}], received=["[1]", "{}"])
    with pytest.raises(AssertionError, match=r"gave '\[1\]', not '\[2\]'$"):
        check_serializer(stapled, [[1]], received=["[2]"])


def test_equal() -> None:
    """What equality is can be said."""
    with pytest.raises(AssertionError, match=r"^deserialize\(b'NaN'\) gave nan, not nan$"):
        check_serializer(JSONSerializer(), [math.nan])
    check_serializer(
        JSONSerializer(), [math.nan], equal=lambda one, other: repr(one) == repr(other)
    )


# -- One-shot ----------------------------------------------------------------------------------


class NotBytes(OneShot):
    def serialize(self, packet: str, /) -> Any:
        return bytearray(packet.encode())


class Other(OneShot):
    def deserialize(self, data: bytes, /) -> str:
        return super().deserialize(data)[::-1]


class Crash(OneShot):
    def deserialize(self, data: bytes, /) -> str:
        return str(int(data))


class CrashOnNothing(OneShot):
    def deserialize(self, data: bytes, /) -> str:
        return super().deserialize(data) if data[0] else ""


@pytest.mark.parametrize(
    ("serializer", "message"),
    [
        (NotBytes(), "serialize('1') returned bytearray(b'1')"),
        (Other(), "deserialize(b'23') gave '32', not '23'"),
        (Crash(), "deserialize(b'') raised ValueError(\"invalid literal for int() with base 10"),
        (CrashOnNothing(), "deserialize(b'') raised IndexError('index out of range')"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bad_one_shot(serializer: Any, message: str) -> None:
    """The error says what was called, and what happened."""
    with pytest.raises(AssertionError) as caught:
        check(serializer)
    assert str(caught.value).startswith(message)


def test_garbage() -> None:
    """What the user knows to be dangerous is tried too."""

    class Magic(OneShot):
        def deserialize(self, data: bytes, /) -> str:
            return str(1 / 0) if data == b"magic" else super().deserialize(data)

    check(Magic())
    with pytest.raises(AssertionError, match=r"^deserialize\(b'magic'\) raised ZeroDivisionError"):
        check(Magic(), garbage=[b"magic"])


# -- Streams -----------------------------------------------------------------------------------


class NoBytes(Digits):
    def incremental_serialize(self, packet: str, /) -> Generator[bytes, None, None]:
        yield b""


class OtherFrame(Digits):
    def serialize_frame(self, packet: str, /) -> bytes:
        return packet.encode() + b".."


class LosesRest(Digits):
    def incremental_deserialize(self) -> Parser:
        packet, _ = yield from super().incremental_deserialize()
        return packet, b""


class WaitsForMore(Digits):
    def incremental_deserialize(self) -> Parser:
        packet, remaining_data = yield from super().incremental_deserialize()
        return packet, remaining_data or (yield)


class KeepsState(Digits):
    data = b""

    def incremental_deserialize(self) -> Parser:
        while b"." not in self.data:
            if len(self.data) > 10:
                data, self.data = self.data, b""
                raise LimitOverrunError("Too many digits", data, len(data))
            self.data += yield
        (frame, _, remaining_data), self.data = self.data.partition(b"."), b""
        return self.parse(frame, remaining_data), remaining_data


class PlainError(Digits):
    def parse(self, frame: bytes, remaining_data: bytes) -> str:
        if not frame.isdigit():
            raise DeserializeError("Not digits")
        return super().parse(frame, remaining_data)


class OtherError(Digits):
    def parse(self, frame: bytes, remaining_data: bytes) -> str:
        return str(int(frame))


class DropsAll(Digits):
    def parse(self, frame: bytes, remaining_data: bytes) -> str:
        return super().parse(frame, remaining_data if frame.isdigit() else b"")


class NoProgress(Digits):
    def parse(self, frame: bytes, remaining_data: bytes) -> str:
        if not frame.isdigit():
            raise IncrementalDeserializeError("Not digits", frame + b"." + remaining_data)
        return super().parse(frame, remaining_data)


class AcceptsAll(Digits):
    def parse(self, frame: bytes, remaining_data: bytes) -> str:
        return frame.decode(errors="replace")


class NoLimit(Digits):
    def incremental_deserialize(self) -> Parser:
        data = b""
        while b"." not in data:
            data += yield
        frame, _, remaining_data = data.partition(b".")
        return self.parse(frame, remaining_data), remaining_data


class LimitsChunks(Digits):
    """Its limit is that of a chunk."""

    def incremental_deserialize(self) -> Parser:
        data = b""
        while b"." not in data:
            chunk = yield
            if len(chunk) > 15:
                raise LimitOverrunError("Too many digits", chunk, len(chunk))
            data += chunk
        frame, _, remaining_data = data.partition(b".")
        return self.parse(frame, remaining_data), remaining_data


class ForgetsBeginning(Digits):
    """It takes a chunk to begin with a packet, unless it is a single byte."""

    def incremental_deserialize(self) -> Parser:
        data = b""
        while b"." not in data:
            chunk = yield
            data = data + chunk if len(chunk) == 1 else chunk
        frame, _, remaining_data = data.partition(b".")
        return self.parse(frame, remaining_data), remaining_data


class CrashOnByte(Digits):
    """It crashes if a certain byte comes alone, behind others."""

    def crashes(self, chunk: bytes, previous: bytes) -> bool:
        return chunk == b"\xff" and bool(previous)

    def incremental_deserialize(self) -> Parser:
        parser = super().incremental_deserialize()
        next(parser)
        chunk = b""
        while True:
            previous, chunk = chunk, (yield)
            assert not self.crashes(chunk, previous)
            try:
                parser.send(chunk)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # It is what is declared.


class CrashOnBytes(CrashOnByte):
    """It crashes if that byte comes with others."""

    def crashes(self, chunk: bytes, previous: bytes) -> bool:
        return b"\xff" in chunk and len(chunk) > 1


class SmallBuffer(Digits):
    """It forgets that the buffer may be full."""

    def buffered_incremental_deserialize(self, buffer: bytearray, /) -> Any:
        end = 0
        while (index := buffer.find(b".", 0, end)) < 0:
            end += yield end
        remaining_data = bytes(buffer[index + 1 : end])
        return self.parse(bytes(buffer[:index]), remaining_data), remaining_data


class TrustsBuffer(Digits):
    """It takes what is in the buffer for what was received."""

    def buffered_incremental_deserialize(self, buffer: bytearray, /) -> Any:
        end = yield 0
        while (index := buffer.find(b".")) < 0:
            if end == len(buffer):
                raise LimitOverrunError("Too many digits", buffer, end)
            end += yield end
        remaining_data = bytes(buffer[index + 1 : end])
        return self.parse(bytes(buffer[:index]), remaining_data), remaining_data


class OtherShortcut(Digits):
    """Its frames are not those of its generator."""

    def framing(self) -> SeparatorFraming:
        return SeparatorFraming(b".", 10)

    def receives_frames(self, *, buffered: bool) -> bool:
        return not buffered

    def deserialize_frame(self, frame: bytes, /) -> str:
        return self.parse(frame.replace(b"\xff", b"0"), b"")


class DeliversTail(Digits):
    """It takes what it got for all of a packet that is too large."""

    def incremental_deserialize(self) -> Parser:
        data = b""
        while b"." not in data:
            if len(data) > 10:
                raise LimitOverrunError("Too many digits", data, len(data), end_is_known=True)
            data += yield
        frame, _, remaining_data = data.partition(b".")
        return self.parse(frame, remaining_data), remaining_data


class KnowsSometimes(Digits):
    """It does not say what ends a packet that is too large."""

    def incremental_deserialize(self) -> Parser:
        data = b""
        while b"." not in data:
            if len(data) > 10:
                raise LimitOverrunError("Too many digits", data, len(data))
            data += yield
        frame, _, remaining_data = data.partition(b".")
        return self.parse(frame, remaining_data), remaining_data


class TwoErrors(Digits):
    """It gives back what is too large in parts."""

    def incremental_deserialize(self) -> Parser:
        data = b""
        while b"." not in data:
            if len(data) > 10:
                raise LimitOverrunError("Too many digits", data, 5)
            data += yield
        frame, _, remaining_data = data.partition(b".")
        return self.parse(frame, remaining_data), remaining_data


BAD: list[tuple[Callable[[], Any], str]] = [
    (NoBytes, "incremental_serialize('1') yielded no bytes, which nobody can receive"),
    (OtherFrame, "incremental_serialize('1') yielded b'1.', but serialize_frame() returned b'1..'"),
    (LosesRest, "In chunks: [b'1.23.4567890.'] gave ['1'], not ['1', '23', '4567890']"),
    (WaitsForMore, "In chunks: [b'1.'] gave [], not ['1']"),
    (KeepsState, "In chunks: two streams at a time, byte by byte, gave ["),
    (PlainError, "In chunks: b'1.x.1.' in chunks, the last one b'1.x.1.', gave ['1'], "),
    (OtherError, "In chunks: b'1.x.1.' in chunks, the last one b'1.x.1.', gave ['1'], "),
    (DropsAll, "In chunks: [b'1.x.1.'] gave ['1', Refusal("),
    (NoProgress, "In chunks: b'1.x.1.' in chunks, the last one b'1.x.1.', gave ['1'], then "),
    (AcceptsAll, "In chunks: [b'1.x.1.'] gave ['1', 'x', '1'], not '1', an error, '1'"),
    (NoLimit, "In chunks: [b'11111111111111111111'] gave [], not exactly one error"),
    (
        LimitsChunks,
        "In chunks: [b'1', b'1', b'1', b'1', b'1', b'1', b'1', b'1', b'1', b'1', b'1', b'",
    ),
    (ForgetsBeginning, "In chunks: [b'1', b'.23.4567890.'] gave ["),
    (CrashOnByte, "In chunks: b'2\\xff' in chunks, the last one b'\\xff', gave [], then raised"),
    (CrashOnBytes, "In chunks: b'\\xff3' in chunks, the last one b'\\xff3', gave [], then raised"),
    (DeliversTail, "In chunks: ["),
    (KnowsSometimes, "In chunks: ["),
    (TwoErrors, "In chunks: [b'11111111111111111111'] gave [Refusal("),
    (SmallBuffer, "In a buffer with size hint 1: b'11111111111111111111' in chunks, the last one "),
    (TrustsBuffer, "In a used buffer: "),
]


@pytest.mark.parametrize(("serializer_class", "message"), BAD)
def test_bad_stream(serializer_class: Any, message: str) -> None:
    """The error says in which way, what was sent, what came of it, and what should have."""
    with pytest.raises(AssertionError) as caught:
        check(serializer_class())
    assert str(caught.value).startswith(message)


class Sized(AbstractIncrementalPacketSerializer[str, str]):
    """Two digits, and as many characters as they say; where its error counts from, a test says."""

    def __init__(self, new_error: Callable[[GeneratorStreamReader, int], Exception]) -> None:
        self.new_error = new_error

    def incremental_serialize(self, packet: str) -> Generator[bytes, None, None]:
        yield b"%02d" % len(packet) + packet.encode()

    def incremental_deserialize(self) -> Parser:
        reader = GeneratorStreamReader()
        head = yield from reader.read_exactly(2)
        if not head.isdigit():
            raise IncrementalDeserializeError("No size", reader.read_all())
        if int(head) > 10:
            raise self.new_error(reader, int(head))
        body = yield from reader.read_exactly(int(head))
        try:
            return body.decode("ascii"), reader.read_all()
        except UnicodeError as exc:
            raise IncrementalDeserializeError("No text", reader.read_all()) from exc


def check_sized(new_error: Callable[[GeneratorStreamReader, int], Exception]) -> None:
    check_serializer(Sized(new_error), ["a", "bc", ""], oversized=[b"20" + b"x" * 20])


def test_right_place() -> None:
    """The reader knows where it ends; or the error says that nobody does."""
    check_sized(lambda reader, size: reader.new_limit_error("Too large", size))
    check_sized(
        lambda reader, size: LimitOverrunError(
            "Too large", reader.read_all(), size, end_is_known=True
        )
    )
    check_sized(lambda reader, _: reader.new_limit_error("Too large"))
    check_sized(
        lambda reader, _: LimitOverrunError("Too large", data := reader.read_all(), len(data))
    )


@pytest.mark.parametrize(
    "new_error",
    [
        lambda reader, size: reader.new_limit_error("Too large", size + 2),
        lambda reader, size: reader.new_limit_error("Too large", size - 2),
        lambda reader, size: LimitOverrunError("Too large", reader.read_all(), size),
        lambda reader, size: LimitOverrunError("Too large", b"", size),
        lambda reader, _: LimitOverrunError("Too large", reader.read_all(), 0, end_is_known=True),
    ],
)
def test_wrong_place(new_error: Callable[[GeneratorStreamReader, int], Exception]) -> None:
    """Who counts from another place is told so, before a peer makes something of it."""
    with pytest.raises(AssertionError, match=r"^In chunks: .*, not "):
        check_sized(new_error)


def test_bad_shortcut() -> None:
    """A shortcut does not lead anywhere else, not even where nobody means to go."""
    with pytest.raises(AssertionError, match=r"^In frames: .* gave \['0.*, but in chunks \[Ref"):
        check_serializer(OtherShortcut(), ["1", "2"])


def test_one_packet() -> None:
    """One packet is enough to see what happens to the next one."""
    check_serializer(Digits(), ["123"])
    with pytest.raises(
        AssertionError, match=r"^In chunks: .* gave \['123', .*\], not \['123', '123'\]$"
    ):
        check_serializer(LosesRest(), ["123"])


def test_long_packets_are_shown_in_part() -> None:
    """A message can be read."""
    with pytest.raises(AssertionError) as caught:
        check_serializer(StringLineSerializer(), ["x" * 5_000 + "\n" + "x" * 5_000])
    assert len(str(caught.value)) < 1_000
