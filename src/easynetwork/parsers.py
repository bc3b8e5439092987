"""Drive the generators of protocol objects, which users write, and check what they give back.

A parser takes one packet out of a stream. What it must not do (raise anything but parse errors,
return something else than a packet and bytes, use up nothing) is a `ProtocolCrashedError` that says
so. Without the last of these checks, a connection would go round in circles for ever.
"""

from __future__ import annotations

__all__ = ["NEED_DATA", "BufferParser", "ChunkParser", "Parser"]

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any, Final

from easynetwork.exceptions import (
    PacketConversionError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.abc import definer


class NeedData(Enum):
    """The type of `NEED_DATA`."""

    NEED_DATA = "NEED_DATA"


NEED_DATA: Final = NeedData.NEED_DATA
"""What is returned when no complete packet is at hand."""


class Parser(ABC):
    """Takes one packet out of a stream. Belongs to one connection.

    Attributes:
        convert: What makes a packet of the result, given also the bytes that follow; None if the
            result is the packet. It is apart, so that the next packet is not lost if it fails.
    """

    __slots__ = ("_generator", "_method", "_sent", "_tail", "convert")

    convert: Callable[[Any, bytes], Any] | None
    _generator: Generator[Any, Any, tuple[Any, Any]]
    _method: str
    _sent: int  # bytes that the generator got
    _tail: bytes  # bytes that were given to `send()`, but not to the generator

    def _start(
        self,
        protocol: StreamProtocol[Any, Any] | BufferedStreamProtocol[Any, Any, Any],
        method: str,
        *arguments: Any,
    ) -> Any:
        """Run a new generator up to its first `yield`; return what that yields."""
        self._method = method
        self._sent = 0
        self._tail = b""
        self.convert = None
        try:
            if definer(protocol, method) in (StreamProtocol, BufferedStreamProtocol):
                self._generator = protocol._read_dto(*arguments)
                if protocol.converter is not None:
                    self.convert = new_converter(protocol, method)
            else:
                self._generator = getattr(protocol, method)(*arguments)
            return next(self._generator)
        except StopIteration:
            raise ProtocolCrashedError(f"protocol.{method}() did not yield") from None
        except (Exception, GeneratorExit) as exc:
            raise crash(method) from exc

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
                f"protocol.{self._method}() returned {_shown(result)}, "
                "not a packet and the bytes that follow it"
            )
        return result[0], self._following(result[1], "returned a packet with")

    def _following(
        self, data: Any, what: str, cause: StreamProtocolParseError | None = None
    ) -> bytes:
        try:
            rest = data if type(data) is bytes else bytes(memoryview(data))
        except TypeError:
            raise ProtocolCrashedError(
                f"protocol.{self._method}() {what} {_shown(data)} "
                "in place of the bytes that follow it"
            ) from cause
        if len(rest) >= self._sent:
            raise ProtocolCrashedError(
                f"protocol.{self._method}() {what} {len(rest)} bytes that follow it, "
                f"but got only {self._sent}: it has to use up some of them"
            ) from cause
        return rest + self._tail if self._tail else rest


class ChunkParser(Parser):
    """Feeds `StreamProtocol.build_packet_from_chunks`."""

    __slots__ = ()

    def __init__(self, protocol: StreamProtocol[Any, Any]) -> None:
        self._start(protocol, "build_packet_from_chunks")

    def send(self, data: bytes) -> Any:
        self._sent += len(data)
        try:
            self._generator.send(data)
        except StopIteration as stop:
            return self._finished(stop.value)
        except StreamProtocolParseError:
            raise
        except (Exception, GeneratorExit) as exc:
            raise crash(self._method) from exc
        return NEED_DATA


class BufferParser(Parser):
    """Feeds `BufferedStreamProtocol.build_packet_from_buffer`.

    The buffer lives as long as its packet: a packet may keep views of it, and an idle connection
    owns none.
    """

    __slots__ = ("_at", "_view")

    def __init__(self, protocol: BufferedStreamProtocol[Any, Any, Any], sizehint: int) -> None:
        try:
            buffer = protocol.create_buffer(sizehint)
        except Exception as exc:
            raise crash("create_buffer") from exc
        self._view = _writable_view(buffer)
        self._at = self._start(protocol, "build_packet_from_buffer", buffer)

    def send(self, data: bytes) -> Any:
        fed = 0
        while fed < len(data):
            room = self._room()
            nbytes = min(len(room), len(data) - fed)
            room[:nbytes] = data[fed : fed + nbytes]
            fed += nbytes
            self._sent += nbytes
            try:
                self._at = self._generator.send(nbytes)
            except StopIteration as stop:
                self._tail = data[fed:]
                return self._finished(stop.value)
            except StreamProtocolParseError:
                self._tail = data[fed:]
                raise
            except (Exception, GeneratorExit) as exc:
                raise crash(self._method) from exc
        return NEED_DATA

    def _room(self) -> memoryview:
        size = len(self._view)
        try:
            start = 0 if self._at is None else operator.index(self._at)
        except TypeError:
            raise ProtocolCrashedError(
                f"protocol.{self._method}() yielded {_shown(self._at)}, not an index or None"
            ) from None
        if start >= size:
            raise ProtocolCrashedError("The start position is set to the end of the buffer")
        if start < -size:
            raise ProtocolCrashedError(
                f"The start position {start} is before the beginning of the buffer of {size} bytes"
            )
        return self._view[start:]


def new_converter(
    protocol: StreamProtocol[Any, Any] | BufferedStreamProtocol[Any, Any, Any], method: str
) -> Callable[[Any, bytes], Any]:
    """Return what makes a packet of what a serializer read, and of errors what `method` would."""
    from_dto = protocol._from_dto

    def convert(dto: Any, remaining_data: bytes) -> Any:
        try:
            return from_dto(dto)
        except PacketConversionError as exc:
            raise StreamProtocolParseError(remaining_data, exc) from exc
        except StreamProtocolParseError:
            raise
        except Exception as exc:
            raise crash(method) from exc

    return convert


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
