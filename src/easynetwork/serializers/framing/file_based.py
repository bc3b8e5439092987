"""Formats whose libraries read a packet from a file, and stop after it.

Only the library can tell where a packet ends, and it cannot be stopped in the middle: with each
chunk, it tries again from the packet's first byte, until it no longer runs into the end of the
file. A packet in many pieces is therefore read many times over. Choose a framing (a length in front
of each packet) for packets that are large; a format that can find the end of a packet without
reading it overrides `incremental_deserialize()`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from io import SEEK_END, BytesIO
from typing import IO, Any, final

from easynetwork._typevars import Received, Sent
from easynetwork.exceptions import DeserializeError, IncrementalDeserializeError, LimitOverrunError
from easynetwork.serializers.abc import BufferedIncrementalPacketSerializer, overrides
from easynetwork.serializers.framing.framed import parse_in_buffer
from easynetwork.serializers.tools import DEFAULT_SERIALIZER_LIMIT, validated_limit

__all__ = ["FileBasedPacketSerializer"]


class FileBasedPacketSerializer(BufferedIncrementalPacketSerializer[Sent, Received, memoryview]):
    """Packets are written to files and read from files, which are in memory.

    Args:
        expected_load_error: What `load_from_file()` raises if the data is invalid. A RecursionError
            is expected anyway.
        limit: The most bytes of a packet that comes over a stream.
        debug: Whether errors carry ``error_info``, a dictionary: the ``data`` that is not a packet,
            or the ``packet`` and the ``extra`` bytes after it.
        **kwargs: For the next class in the method resolution order.

    Raises:
        ValueError: `limit` is not positive.
    """

    __slots__ = ("_debug", "_expected_errors", "_limit")

    def __init__(
        self,
        expected_load_error: type[Exception] | tuple[type[Exception], ...],
        *,
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        debug: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(expected_load_error, tuple):
            expected_load_error = (expected_load_error,)
        self._expected_errors: tuple[type[Exception], ...] = (*expected_load_error, RecursionError)
        self._limit = validated_limit(limit)
        self._debug = bool(debug)

    @property
    @final
    def buffer_limit(self) -> int:
        """The most bytes of a packet that comes over a stream."""
        return self._limit

    @property
    @final
    def debug(self) -> bool:
        """Whether errors carry ``error_info``."""
        return self._debug

    @abstractmethod
    def dump_to_file(self, packet: Sent, file: IO[bytes], /) -> None:
        """Write the bytes of `packet` to `file`."""
        raise NotImplementedError

    @abstractmethod
    def load_from_file(self, file: IO[bytes], /) -> Received:
        """Read one packet from `file`, and nothing that follows it.

        Raises:
            EOFError: The end of the file is reached before the end of the packet.
            Exception: As given to the constructor: the data is not a packet. What follows the bytes
                that have been read is taken for the next one; if none have, all is dropped.
        """
        raise NotImplementedError

    def serialize(self, packet: Sent) -> bytes:
        """Return what `dump_to_file()` writes."""
        file = BytesIO()
        self.dump_to_file(packet, file)
        return file.getvalue()

    def deserialize(self, data: bytes) -> Received:
        """Make a packet of what is all of a file.

        Only datagrams come here. What concerns streams too is for `load_from_file()` to do.

        Raises:
            DeserializeError: `data` is invalid, too short, or followed by something else.
        """
        file = BytesIO(data)
        info = {"data": data} if self._debug else None
        try:
            packet = self.load_from_file(file)
        except EOFError as exc:
            raise DeserializeError("Missing data to create packet", info) from exc
        except self._expected_errors as exc:
            raise DeserializeError(str(exc), info) from exc
        if extra := file.read():
            raise DeserializeError(
                "Extra data caught", {"packet": packet, "extra": extra} if self._debug else None
            )
        return packet

    @final
    def sends_frames(self) -> bool:
        """Whether `incremental_serialize()` is not overridden."""
        return not overrides(self, FileBasedPacketSerializer, "incremental_serialize")

    def serialize_frame(self, packet: Sent, /) -> bytes:
        """Return what `serialize()` returns."""
        return self.serialize(packet)

    def incremental_serialize(self, packet: Sent) -> Generator[bytes, None, None]:
        """Yield what `serialize()` returns, if it is anything."""
        if data := self.serialize(packet):
            yield data

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Received, bytes]]:
        """Parse the next packet, from its first byte again with each chunk."""
        file = BytesIO()
        while True:
            chunk = yield
            # What is beyond the limit may belong to the next packets: it is kept apart.
            room = self._limit - file.seek(0, SEEK_END)
            file.write(chunk[:room])
            beyond = chunk[room:]
            file.seek(0)
            try:
                packet = self.load_from_file(file)
            except EOFError as exc:
                if beyond:
                    data = file.getvalue() + beyond
                    message = "chunk exceeded buffer limit"
                    raise LimitOverrunError(message, data, len(data)) from exc
            except self._expected_errors as exc:
                # If nothing was read, reading it again would fail again, for ever.
                remaining_data = file.read() + beyond if file.tell() else b""
                info = {"data": file.getvalue() + beyond} if self._debug else None
                message = f"Deserialize error: {exc}"
                raise IncrementalDeserializeError(message, remaining_data, info) from exc
            else:
                return packet, file.read() + beyond

    def create_deserializer_buffer(self, sizehint: int, /) -> memoryview:
        """Allocate a buffer of `sizehint` bytes, or `buffer_limit` if that is less."""
        return memoryview(bytearray(min(sizehint, self._limit)))

    def buffered_incremental_deserialize(
        self, buffer: memoryview, /
    ) -> Generator[int, int, tuple[Received, bytes]]:
        """Parse the next packet."""
        return parse_in_buffer(self.incremental_deserialize(), buffer)
