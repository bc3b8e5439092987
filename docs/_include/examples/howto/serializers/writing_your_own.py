"""Serializers of your own: one-shot, with a base class, incremental, buffered."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from easynetwork.exceptions import (
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
)
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    AbstractPacketSerializer,
    BufferedIncrementalPacketSerializer,
)
from easynetwork.serializers.framing import AutoSeparatedPacketSerializer
from easynetwork.serializers.tools import GeneratorStreamReader
from easynetwork.testing import check_serializer


@dataclass(frozen=True)
class Reading:
    sensor: str
    celsius: float


class ReadingSerializer(AbstractPacketSerializer[Reading, Reading]):
    """A sensor and its temperature: ``kitchen 21.5``."""

    def serialize(self, packet: Reading) -> bytes:
        return f"{packet.sensor} {packet.celsius}".encode()

    def deserialize(self, data: bytes) -> Reading:
        try:
            sensor, celsius = data.decode().rsplit(" ", 1)
            return Reading(sensor, float(celsius))
        except ValueError as exc:
            raise DeserializeError(f"Not a reading: {exc}") from exc


class ReadingLineSerializer(
    ReadingSerializer,
    AutoSeparatedPacketSerializer[Reading, Reading],
):
    """The same format, with one reading per line."""

    def __init__(self) -> None:
        super().__init__(separator=b"\n", limit=1000)


@dataclass(frozen=True)
class Message:
    name: str
    body: bytes


HEADER_LIMIT = 100
BODY_LIMIT = 1000


def parse_header(header: bytes) -> tuple[str, int]:
    name, size = header.decode().rsplit(" ", 1)
    if not (size := size.removesuffix("\n")).isdecimal():
        raise ValueError(f"{size!r} is not a size")
    return name, int(size)


class MessageSerializer(AbstractIncrementalPacketSerializer[Message, Message]):
    """A line with a name and a size, followed by that number of bytes."""

    def incremental_serialize(self, packet: Message) -> Generator[bytes, None, None]:
        if "\n" in packet.name:
            raise ValueError(f"A name is one line, but not this: {packet.name!r}")
        yield f"{packet.name} {len(packet.body)}\n".encode()
        yield packet.body

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Message, bytes]]:
        reader = GeneratorStreamReader()

        header = yield from reader.read_until(b"\n", HEADER_LIMIT, ends_packet=False)
        try:
            name, size = parse_header(header)
        except ValueError as exc:
            raise IncrementalDeserializeError(f"Header: {exc}", reader.read_all()) from exc

        if size > BODY_LIMIT:
            raise reader.new_limit_error("The body is too large", size)
        body = yield from reader.read_exactly(size)

        return Message(name, body), reader.read_all()


class BufferedMessageSerializer(
    MessageSerializer,
    BufferedIncrementalPacketSerializer[Message, Message, bytearray],
):
    """The same format, parsed in the buffer that receives the bytes."""

    def create_deserializer_buffer(self, sizehint: int) -> bytearray:
        return bytearray(HEADER_LIMIT + 1 + BODY_LIMIT)

    def buffered_incremental_deserialize(
        self,
        buffer: bytearray,
    ) -> Generator[int, int, tuple[Message, memoryview]]:
        view = memoryview(buffer)
        received = 0

        while (newline := buffer.find(b"\n", 0, min(received, HEADER_LIMIT + 1))) < 0:
            if received > HEADER_LIMIT:
                raise LimitOverrunError("No end of line", view[:received], received)
            received += yield received
        start = newline + 1
        try:
            name, size = parse_header(view[:start].tobytes())
        except ValueError as exc:
            rest = view[start:received]
            raise IncrementalDeserializeError(f"Header: {exc}", rest) from exc

        end = start + size
        if size > BODY_LIMIT:
            message = "The body is too large"
            raise LimitOverrunError(message, view[:received], end, end_is_known=True)
        while received < end:
            received += yield received

        return Message(name, view[start:end].tobytes()), view[end:received]


def test_readings() -> None:
    readings = [Reading("kitchen", 21.5), Reading("living room", -3.0)]

    check_serializer(
        ReadingSerializer(),
        readings,
        garbage=[b"kitchen", b"kitchen warm", b"\xff 21.5"],
    )
    check_serializer(
        ReadingLineSerializer(),
        readings,
        malformed=[b"kitchen\n", b"kitchen warm\n"],
        oversized=[b"x" * 1001],
    )


def test_messages() -> None:
    for serializer in MessageSerializer(), BufferedMessageSerializer():
        check_serializer(
            serializer,
            [Message("greeting", b"hello\n"), Message("nothing", b"")],
            malformed=[b"\n", b"greeting\n", b"greeting -1\n"],
            oversized=[b"x" * 101, b"greeting 1001\n"],
        )
