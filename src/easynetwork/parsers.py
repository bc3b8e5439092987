"""Drive the generators of protocol objects, which users write, and check what they give back.

A parser takes one packet out of a stream. What it must not do (raise anything but parse errors,
return something else than a packet and bytes, use up nothing) is a `ProtocolCrashedError` that says
so. Without the last of these checks, a connection would go round in circles for ever.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any, Final, NamedTuple, NoReturn

from easynetwork.exceptions import DeserializeError, ProtocolCrashedError, StreamProtocolParseError
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol, raise_parse_error
from easynetwork.serializers.abc import overrides

PARSER_CHUNK: Final = 8 * 1024
"""The most bytes given to a generator at once. It returns what follows its packet, so each packet
costs a copy of what it was given: with all that waits, a peer that sends many small packets would
make their cost quadratic (measured: 135 ms for 1,024 packets of 128 KiB, 5 ms of 8 KiB)."""


class NeedData(Enum):
    """The type of `NEED_DATA`."""

    NEED_DATA = "NEED_DATA"


NEED_DATA: Final = NeedData.NEED_DATA
"""What is returned when no complete packet is at hand."""


class Source(NamedTuple):
    """What makes the generators of a protocol object; looked up once for all connections."""

    method: str
    """The method of the protocol object that all of this stands for."""
    start: Callable[..., Generator[Any, Any, tuple[Any, Any]]]
    is_serializer: bool
    """Whether `start` is the serializer's, because `method` is not overridden."""
    convert: Callable[[Any, bytes], Any] | None
    """What makes a packet of the result, given also the bytes that follow; None if the result is
    the packet. It is apart, so that the next packet is not lost if it fails."""


def chunk_source(protocol: StreamProtocol[Any, Any]) -> Source:
    """Return what makes the generators for `ChunkParser`."""
    method = "build_packet_from_chunks"
    if overrides(protocol, StreamProtocol, method):
        return Source(method, protocol.build_packet_from_chunks, False, None)
    start = protocol.serializer.incremental_deserialize
    return Source(method, start, True, _converter(protocol, method))


def buffer_source(protocol: BufferedStreamProtocol[Any, Any, Any]) -> Source:
    """Return what makes the generators for `BufferParser`."""
    method = "build_packet_from_buffer"
    if overrides(protocol, BufferedStreamProtocol, method):
        return Source(method, protocol.build_packet_from_buffer, False, None)
    start = protocol.serializer.buffered_incremental_deserialize
    return Source(method, start, True, _converter(protocol, method))


def _converter(
    protocol: StreamProtocol[Any, Any] | BufferedStreamProtocol[Any, Any, Any], method: str
) -> Callable[[Any, bytes], Any] | None:
    if protocol.converter is None:
        return None
    convert_received = protocol._convert_received

    def convert(dto: Any, remaining_data: bytes) -> Any:
        try:
            return convert_received(dto, remaining_data)
        except StreamProtocolParseError:
            raise
        except Exception as exc:
            raise crash(method) from exc

    return convert


class Parser(ABC):
    """Takes one packet out of a stream. Belongs to one connection."""

    __slots__ = ("_generator", "_sent", "_source", "_yielded")

    def __init__(self, source: Source, *arguments: Any) -> None:
        """Run a new generator, made with `arguments`, up to its first `yield`."""
        self._source = source
        self._sent = 0  # bytes that the generator got
        try:
            self._generator = source.start(*arguments)
            self._yielded: Any = next(self._generator)
        except StopIteration:
            raise ProtocolCrashedError(f"protocol.{source.method}() did not yield") from None
        except (Exception, GeneratorExit) as exc:
            raise crash(source.method) from exc

    @property
    def received(self) -> int:
        """How many bytes the generator has got."""
        return self._sent

    @abstractmethod
    def send(self, data: bytes) -> Any:
        """Return the result with the bytes that follow it, or `NEED_DATA`.

        Raises:
            StreamProtocolParseError: The data is not a packet. See `leftover_of`.
            ProtocolCrashedError: The generator misbehaved. Its position in the stream is unknown.
        """

    def leftover_of(self, exc: StreamProtocolParseError) -> bytes:
        """Return the bytes that follow what `exc` is about.

        Raises:
            ProtocolCrashedError: They are not bytes, or all that there is.
        """
        return self._following(exc.remaining_data, "raised an error with", exc)

    def _finished(self, result: Any) -> tuple[Any, bytes]:
        """Check what the generator returned."""
        if not (isinstance(result, tuple) and len(result) == 2):
            raise ProtocolCrashedError(
                f"protocol.{self._source.method}() returned {_shown(result)}, "
                "not a packet and the bytes that follow it"
            )
        return result[0], self._following(result[1], "returned a packet with")

    def _failed(self, exc: BaseException) -> NoReturn:
        """Raise what becomes of an exception that left the generator, as its method would."""
        method = self._source.method
        if not (self._source.is_serializer and isinstance(exc, (DeserializeError, RecursionError))):
            raise crash(method) from exc
        try:
            raise_parse_error(exc)
        except StreamProtocolParseError:
            raise
        except Exception as bug:
            raise crash(method) from bug

    def _following(
        self, data: Any, what: str, cause: StreamProtocolParseError | None = None
    ) -> bytes:
        method = self._source.method
        try:
            rest = data if type(data) is bytes else bytes(memoryview(data))
        except TypeError:
            raise ProtocolCrashedError(
                f"protocol.{method}() {what} {_shown(data)} in place of the bytes that follow it"
            ) from cause
        if len(rest) >= self._sent:
            raise ProtocolCrashedError(
                f"protocol.{method}() {what} {len(rest)} bytes that follow it, "
                f"but got only {self._sent}: it has to use up some of them"
            ) from cause
        return rest


class ChunkParser(Parser):
    """Feeds `StreamProtocol.build_packet_from_chunks`."""

    __slots__ = ()

    def send(self, data: bytes) -> Any:
        self._sent += len(data)
        try:
            self._generator.send(data)
        except StopIteration as stop:
            result = stop.value
            # As it should be, it is not looked at any further: this is done for each packet.
            if type(result) is tuple and len(result) == 2:
                rest = result[1]
                if type(rest) is bytes and len(rest) < self._sent:
                    return result
            return self._finished(result)
        except StreamProtocolParseError:
            raise
        except (Exception, GeneratorExit) as exc:
            self._failed(exc)
        return NEED_DATA


class BufferParser(Parser):
    """Feeds `BufferedStreamProtocol.build_packet_from_buffer`.

    The buffer lives as long as its packet: a packet may keep views of it, and an idle connection
    owns none.
    """

    __slots__ = ("_tail", "_view")

    def __init__(self, source: Source, create_buffer: Callable[[int], Any], sizehint: int) -> None:
        self._tail = b""  # bytes that were given to `send()`, but not to the generator
        try:
            buffer = create_buffer(sizehint)
        except Exception as exc:
            raise crash("create_buffer") from exc
        self._view = _writable_view(buffer)
        super().__init__(source, buffer)

    def send(self, data: bytes) -> Any:
        fed = 0
        while fed < len(data):
            room = self._room()
            nbytes = min(len(room), len(data) - fed)
            room[:nbytes] = data[fed : fed + nbytes]
            fed += nbytes
            self._sent += nbytes
            try:
                self._yielded = self._generator.send(nbytes)
            except StopIteration as stop:
                self._tail = data[fed:]
                return self._finished(stop.value)
            except StreamProtocolParseError:
                self._tail = data[fed:]
                raise
            except (Exception, GeneratorExit) as exc:
                self._tail = data[fed:]
                self._failed(exc)
        return NEED_DATA

    def _following(
        self, data: Any, what: str, cause: StreamProtocolParseError | None = None
    ) -> bytes:
        return super()._following(data, what, cause) + self._tail

    def _room(self) -> memoryview:
        size = len(self._view)
        try:
            start = 0 if self._yielded is None else operator.index(self._yielded)
        except TypeError:
            raise ProtocolCrashedError(
                f"protocol.{self._source.method}() yielded {_shown(self._yielded)}, "
                "not an index or None"
            ) from None
        if start >= size:
            raise ProtocolCrashedError("The start position is set to the end of the buffer")
        if start < -size:
            raise ProtocolCrashedError(
                f"The start position {start} is before the beginning of the buffer of {size} bytes"
            )
        return self._view[start:]


def crash(method: str) -> ProtocolCrashedError:
    """Return what is raised from an exception that `method` of a protocol object let out."""
    return ProtocolCrashedError(f"protocol.{method}() crashed")


def _writable_view(buffer: Any) -> memoryview:
    try:
        view = memoryview(buffer).cast("B")
    except (TypeError, ValueError) as exc:
        raise ProtocolCrashedError(
            f"protocol.create_buffer() returned {_shown(buffer)}, not a contiguous buffer"
        ) from exc
    if view.readonly:
        raise ProtocolCrashedError("protocol.create_buffer() returned a read-only buffer")
    if not view:
        raise ProtocolCrashedError("protocol.create_buffer() returned a null buffer")
    return view


def _shown(value: Any) -> str:
    """Name a wrong value by its type: its contents may be the peer's."""
    return "None" if value is None else f"a value of type {type(value).__name__}"
