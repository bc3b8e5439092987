"""Serializer + converter = protocol object: all that a client or a server knows of a format.

Outwards, a packet goes through the converter and then the serializer; inwards, the other way round.
On the way in, whatever a peer sends ends in a packet or in one parse error
(`StreamProtocolParseError`, `DatagramProtocolParseError`). That includes data nested so deeply that
parsing it exhausts the stack: a RecursionError on the way in is the peer's fault. All other
exceptions are bugs of the serializer or the converter, and pass through; servers and clients turn
them into a `ProtocolCrashedError`.

Protocol objects are immutable, and shared by all the connections of a client or a server. Their
methods may be overridden.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeAlias, TypeVar, overload

from easynetwork._typevars import Buffer, Received, Sent
from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
    PacketConversionError,
    StreamProtocolParseError,
)
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    AbstractPacketSerializer,
    BufferedIncrementalPacketSerializer,
    overrides,
    validated_serializer,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "AnyStreamProtocolType",
    "BufferedStreamProtocol",
    "DatagramProtocol",
    "StreamProtocol",
    "check_datagram_protocol",
    "check_stream_protocol",
]

# Constructors only: these objects pass between the serializer and the converter and nowhere else.
SentDTO = TypeVar("SentDTO")
ReceivedDTO = TypeVar("ReceivedDTO")
Serializer = TypeVar("Serializer", bound=AbstractPacketSerializer[Any, Any])

_TOO_DEEP: Final = "Data is nested too deeply"
_MISSING: Final = object()


class _BaseProtocol(Generic[Sent, Received, Serializer]):
    """The base class of the three protocols: a serializer, and maybe a converter."""

    __slots__ = ("__weakref__", "_converter", "_serializer")

    def __init__(
        self,
        serializer: Serializer,
        converter: AbstractPacketConverterComposite[Sent, Received, Any, Any] | None,
    ) -> None:
        if converter is not None and not isinstance(converter, AbstractPacketConverterComposite):
            raise TypeError(f"Expected a converter instance, got {converter!r}")
        _check_initialized(serializer)
        _check_initialized(converter)
        self._serializer: Serializer = serializer
        self._converter = converter

    @property
    def serializer(self) -> Serializer:
        """The serializer given to the constructor."""
        return self._serializer

    @property
    def converter(self) -> AbstractPacketConverterComposite[Sent, Received, Any, Any] | None:
        """The converter given to the constructor."""
        return self._converter

    def _to_dto(self, packet: Sent) -> Any:
        return packet if self._converter is None else self._converter.convert_to_dto_packet(packet)

    def _from_dto(self, dto: Any) -> Received:
        """Convert a received packet. What is the peer's fault is a PacketConversionError."""
        if self._converter is None:
            received: Received = dto
            return received
        try:
            return self._converter.create_from_dto_packet(dto)
        except RecursionError as exc:
            raise PacketConversionError(_TOO_DEEP) from exc

    def _convert_received(self, dto: Any, remaining_data: ReadableBuffer) -> Received:
        """Convert a packet that was received over a stream.

        Raises:
            StreamProtocolParseError: The packet cannot be converted.
        """
        try:
            return self._from_dto(dto)
        except PacketConversionError as exc:
            raise StreamProtocolParseError(remaining_data, exc) from exc


def _check_initialized(obj: object) -> None:
    """Make sure that the constructors of the library's classes have run.

    What is wrapped in `obj` is looked into as well.

    Raises:
        TypeError: A subclass did not call ``super().__init__()``.
    """
    for cls in type(obj).__mro__:
        if cls.__module__.partition(".")[0] != __package__:
            continue
        slots = [name for name in vars(cls).get("__slots__", ()) if not name.startswith("__")]
        for value in (getattr(obj, name, _MISSING) for name in slots):
            if value is _MISSING:
                raise TypeError(
                    f"{type(obj).__name__}.__init__() did not call super().__init__(), "
                    f"which {cls.__name__} needs"
                )
            if isinstance(value, (AbstractPacketSerializer, AbstractPacketConverterComposite)):
                _check_initialized(value)


def _check_protocol(protocol: object, base: type, *methods: str) -> None:
    """Make sure that a protocol object has what those of its methods need that are ours.

    Raises:
        TypeError: A subclass did not call ``super().__init__()``, and has not overridden them all.
    """
    if not all(overrides(protocol, base, method) for method in methods):
        _check_initialized(protocol)


def raise_parse_error(exc: DeserializeError | RecursionError) -> NoReturn:
    """Raise what a stream protocol makes of `exc`, an error of its serializer.

    Raises:
        StreamProtocolParseError: The peer's fault.
        RuntimeError: The serializer's bug: it did not tell where the next packet begins.
    """
    if isinstance(exc, RecursionError):
        # It is unknown where the packet ends, unless a framing has found that.
        error: DeserializeError = LimitOverrunError(_TOO_DEEP, b"", 0)
        error.__cause__ = exc
    else:
        error = exc
    if not isinstance(error, IncrementalDeserializeError):
        raise RuntimeError(
            "DeserializeError raised instead of IncrementalDeserializeError"
        ) from error
    raise StreamProtocolParseError(error.remaining_data, error) from error


class StreamProtocol(_BaseProtocol[Sent, Received, AbstractIncrementalPacketSerializer[Any, Any]]):
    """Sends and receives packets over a stream.

    Args:
        serializer: Finds packets in the stream.
        converter: Makes the program's objects of what `serializer` reads, and back. Without one,
            packets are what `serializer` works with.

    Raises:
        TypeError: `serializer` is not incremental, or `converter` is not a converter.
    """

    __slots__ = ()

    @overload
    def __init__(
        self,
        serializer: AbstractIncrementalPacketSerializer[Sent, Received],
        converter: None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        serializer: AbstractIncrementalPacketSerializer[SentDTO, ReceivedDTO],
        converter: AbstractPacketConverterComposite[Sent, Received, SentDTO, ReceivedDTO],
    ) -> None: ...

    def __init__(
        self,
        serializer: AbstractIncrementalPacketSerializer[Any, Any],
        converter: AbstractPacketConverterComposite[Sent, Received, Any, Any] | None = None,
    ) -> None:
        if not isinstance(serializer, AbstractIncrementalPacketSerializer):
            raise TypeError(f"Expected an incremental serializer instance, got {serializer!r}")
        super().__init__(serializer, converter)

    def generate_chunks(self, packet: Sent) -> Generator[bytes, None, None]:
        """Yield the bytes of `packet`. Exceptions propagate."""
        yield from self._serializer.incremental_serialize(self._to_dto(packet))

    def build_packet_from_chunks(self) -> Generator[None, bytes, tuple[Received, bytes]]:
        """Return a generator that parses one packet.

        The generator is advanced to its first ``yield``, then sent chunks (never empty); it returns
        the packet and the bytes that follow it.

        Raises:
            StreamProtocolParseError: The data is not a packet; ``remaining_data`` is what follows
                it.
            RuntimeError: The serializer raised a plain `DeserializeError`, which is a bug.
        """
        try:
            dto, remaining_data = yield from self._serializer.incremental_deserialize()
        except (DeserializeError, RecursionError) as exc:
            raise_parse_error(exc)
        return self._convert_received(dto, remaining_data), remaining_data


class BufferedStreamProtocol(
    _BaseProtocol[Sent, Received, BufferedIncrementalPacketSerializer[Any, Any, Buffer]],
    Generic[Sent, Received, Buffer],
):
    """Sends and receives packets over a stream that is put into the serializer's buffer.

    Args:
        serializer: Finds packets in the stream.
        converter: As for `StreamProtocol`.

    Raises:
        TypeError: `serializer` is not buffered, or `converter` is not a converter.
    """

    __slots__ = ()

    @overload
    def __init__(
        self,
        serializer: BufferedIncrementalPacketSerializer[Sent, Received, Buffer],
        converter: None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        serializer: BufferedIncrementalPacketSerializer[SentDTO, ReceivedDTO, Buffer],
        converter: AbstractPacketConverterComposite[Sent, Received, SentDTO, ReceivedDTO],
    ) -> None: ...

    def __init__(
        self,
        serializer: BufferedIncrementalPacketSerializer[Any, Any, Buffer],
        converter: AbstractPacketConverterComposite[Sent, Received, Any, Any] | None = None,
    ) -> None:
        if not isinstance(serializer, BufferedIncrementalPacketSerializer):
            raise TypeError(
                f"Expected a buffered incremental serializer instance, got {serializer!r}"
            )
        super().__init__(serializer, converter)

    def create_buffer(self, sizehint: int) -> Buffer:
        """Allocate the buffer of one stream; `sizehint` is how many bytes suit the transport."""
        return self._serializer.create_deserializer_buffer(sizehint)

    def generate_chunks(self, packet: Sent) -> Generator[bytes, None, None]:
        """Yield the bytes of `packet`. Exceptions propagate."""
        yield from self._serializer.incremental_serialize(self._to_dto(packet))

    def build_packet_from_buffer(
        self, buffer: Buffer
    ) -> Generator[int | None, int, tuple[Received, ReadableBuffer]]:
        """Return a generator that parses one packet out of `buffer`.

        Each ``yield`` tells where in `buffer` the next bytes are to be written (None: at the
        beginning; negative: counted from the end) and gives back how many were. The generator
        returns the packet and the bytes that follow it, maybe as a view of `buffer`.

        Raises:
            StreamProtocolParseError: The data is not a packet; ``remaining_data`` is what follows
                it.
            RuntimeError: The serializer raised a plain `DeserializeError`, which is a bug.
        """
        try:
            dto, remaining_data = yield from self._serializer.buffered_incremental_deserialize(
                buffer
            )
        except (DeserializeError, RecursionError) as exc:
            raise_parse_error(exc)
        return self._convert_received(dto, remaining_data), remaining_data


AnyStreamProtocolType: TypeAlias = (
    StreamProtocol[Sent, Received] | BufferedStreamProtocol[Sent, Received, Any]
)
"""What everything that works on a stream accepts."""


def check_stream_protocol(protocol: object) -> None:
    """Make sure that `protocol` is a `StreamProtocol` or a `BufferedStreamProtocol`.

    Raises:
        TypeError: It is neither, or the constructors of its base classes were not called.
    """
    if not isinstance(protocol, (StreamProtocol, BufferedStreamProtocol)):
        raise TypeError(
            f"Expected a StreamProtocol or a BufferedStreamProtocol object, got {protocol!r}"
        )
    if isinstance(protocol, StreamProtocol):
        _check_protocol(protocol, StreamProtocol, "generate_chunks", "build_packet_from_chunks")
    else:
        methods = ("generate_chunks", "create_buffer", "build_packet_from_buffer")
        _check_protocol(protocol, BufferedStreamProtocol, *methods)


class DatagramProtocol(_BaseProtocol[Sent, Received, AbstractPacketSerializer[Any, Any]]):
    """Sends and receives packets as datagrams, one packet each.

    Args:
        serializer: Any serializer: a datagram has its own end.
        converter: As for `StreamProtocol`.

    Raises:
        TypeError: `serializer` is not a serializer, or `converter` is not a converter.
    """

    __slots__ = ()

    @overload
    def __init__(
        self, serializer: AbstractPacketSerializer[Sent, Received], converter: None = None
    ) -> None: ...

    @overload
    def __init__(
        self,
        serializer: AbstractPacketSerializer[SentDTO, ReceivedDTO],
        converter: AbstractPacketConverterComposite[Sent, Received, SentDTO, ReceivedDTO],
    ) -> None: ...

    def __init__(
        self,
        serializer: AbstractPacketSerializer[Any, Any],
        converter: AbstractPacketConverterComposite[Sent, Received, Any, Any] | None = None,
    ) -> None:
        super().__init__(validated_serializer(serializer), converter)

    def make_datagram(self, packet: Sent) -> bytes:
        """Return the bytes of `packet`. Exceptions propagate."""
        if self._converter is not None:
            return self._serializer.serialize(self._converter.convert_to_dto_packet(packet))
        return self._serializer.serialize(packet)

    def build_packet_from_datagram(self, datagram: bytes) -> Received:
        """Make a packet of `datagram`.

        Raises:
            DatagramProtocolParseError: The datagram is not a packet.
        """
        try:
            try:
                received = self._serializer.deserialize(datagram)
            except RecursionError as exc:
                raise DeserializeError(_TOO_DEEP) from exc
            return received if self._converter is None else self._from_dto(received)
        except (DeserializeError, PacketConversionError) as exc:
            raise DatagramProtocolParseError(exc) from exc


def check_datagram_protocol(protocol: object) -> None:
    """Make sure that `protocol` is a `DatagramProtocol`.

    Raises:
        TypeError: It is something else, or the constructors of its base classes were not called.
    """
    if not isinstance(protocol, DatagramProtocol):
        raise TypeError(f"Expected a DatagramProtocol object, got {protocol!r}")
    _check_protocol(protocol, DatagramProtocol, "make_datagram", "build_packet_from_datagram")
