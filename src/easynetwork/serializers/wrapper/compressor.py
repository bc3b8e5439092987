"""Fewer bytes: each packet is a compressed stream of its own, which tells where it ends.

A few bytes can stand for a thousand times as many (zlib), or for a million times as many (bzip2).
No more is ever decompressed than a packet may have: the bytes after that are not even made, and
the packet is refused. Only decompressed bytes are kept while the end of a stream is yet to come.

A bzip2 decompressor cannot stop in the middle of a block, and allocates as much as the header says
that the largest one needs: 4 MB for 900 kB (bzip2's manual, section 2.4), and milliseconds, for a
packet of 50 bytes. It is therefore shown a header that says no more than a packet within the limit
can need (`_SmallBlocks`): 500 kB of memory at the default limit. Even so, half as many bytes as
with zlib make it work for the whole limit: prefer zlib for peers that you do not trust.
"""

from __future__ import annotations

import bz2
import zlib
from abc import abstractmethod
from collections.abc import Generator
from typing import Final, Protocol, final

from easynetwork._typevars import Received, Sent
from easynetwork.exceptions import DeserializeError, IncrementalDeserializeError, LimitOverrunError
from easynetwork.serializers.abc import (
    AbstractPacketSerializer,
    BufferedIncrementalPacketSerializer,
    overrides,
    validated_serializer,
)
from easynetwork.serializers.framing.framed import parse_in_buffer
from easynetwork.serializers.tools import DEFAULT_SERIALIZER_LIMIT, validated_limit

__all__ = [
    "AbstractCompressorSerializer",
    "BZ2CompressorSerializer",
    "CompressorInterface",
    "DecompressorInterface",
    "ZlibCompressorSerializer",
]


class CompressorInterface(Protocol):
    """Compresses one stream, as `zlib.compressobj()` and `bz2.BZ2Compressor` do."""

    @abstractmethod
    def compress(self, data: bytes, /) -> bytes:
        """Return compressed bytes, if there are any yet."""
        raise NotImplementedError

    @abstractmethod
    def flush(self) -> bytes:
        """Return the compressed bytes that are left, the end of the stream among them."""
        raise NotImplementedError


class DecompressorInterface(Protocol):
    """Decompresses one stream, as `zlib.decompressobj()` and `bz2.BZ2Decompressor` do."""

    @abstractmethod
    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return at most `max_length` decompressed bytes, always positive.

        If there are more, the decompressor is not used again.
        """
        raise NotImplementedError

    @property
    @abstractmethod
    def eof(self) -> bool:
        """Whether the end of the stream was reached."""
        raise NotImplementedError

    @property
    @abstractmethod
    def unused_data(self) -> bytes:
        """The bytes that were given after the end of the stream."""
        raise NotImplementedError


class AbstractCompressorSerializer(BufferedIncrementalPacketSerializer[Sent, Received, memoryview]):
    """Compresses the packets of another serializer; subclasses tell how.

    Args:
        serializer: What makes bytes of a packet and back.
        expected_decompress_error: What a decompressor raises if the data is invalid.
        limit: The most bytes of a packet, decompressed.
        debug: Whether errors carry ``error_info``, a dictionary: the ``data`` that is invalid, or
            the ``decompressed_data`` and the ``extra`` bytes after a datagram's stream.

    Raises:
        TypeError: `serializer` is not a serializer.
        ValueError: `limit` is not positive.
    """

    __slots__ = ("_debug", "_expected_errors", "_limit", "_serializer")

    def __init__(
        self,
        serializer: AbstractPacketSerializer[Sent, Received],
        expected_decompress_error: type[Exception] | tuple[type[Exception], ...],
        *,
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        debug: bool = False,
    ) -> None:
        super().__init__()
        self._serializer = validated_serializer(serializer)
        self._expected_errors = expected_decompress_error
        self._limit = validated_limit(limit)
        self._debug = bool(debug)

    @property
    @final
    def buffer_limit(self) -> int:
        """The most bytes of a packet, decompressed."""
        return self._limit

    @property
    @final
    def debug(self) -> bool:
        """Whether errors carry ``error_info``."""
        return self._debug

    @abstractmethod
    def new_compressor_stream(self) -> CompressorInterface:
        """Return what compresses one packet."""
        raise NotImplementedError

    @abstractmethod
    def new_decompressor_stream(self) -> DecompressorInterface:
        """Return what decompresses one packet."""
        raise NotImplementedError

    @final
    def sends_frames(self) -> bool:
        """Whether `incremental_serialize()` is not overridden."""
        return not overrides(self, AbstractCompressorSerializer, "incremental_serialize")

    @final
    def incremental_serialize(self, packet: Sent) -> Generator[bytes, None, None]:
        """Yield the compressed bytes of `packet`, then those kept by the compressor for the end."""
        data = self._serializer.serialize(packet)
        compressor = self.new_compressor_stream()
        yield compressor.compress(data)
        yield compressor.flush()

    @final
    def deserialize(self, data: bytes) -> Received:
        """Make a packet of one compressed stream.

        Raises:
            DeserializeError: `data` is invalid, too short, followed by something else, or larger
                than the limit when decompressed; or the serializer refuses what is in it.
        """
        decompressor = self.new_decompressor_stream()
        info = {"data": data} if self._debug else None
        try:
            decompressed = decompressor.decompress(data, self._limit + 1)
        except self._expected_errors as exc:
            raise DeserializeError(str(exc), info) from exc
        if len(decompressed) > self._limit:
            raise DeserializeError(self._too_large(), info)
        if not decompressor.eof:
            raise DeserializeError(
                "Compressed data ended before the end-of-stream marker was reached", info
            )
        if extra := decompressor.unused_data:
            if self._debug:
                info = {"decompressed_data": decompressed, "extra": extra}
            raise DeserializeError("Trailing data error", info)
        return self._serializer.deserialize(decompressed)

    @final
    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Received, bytes]]:
        """Parse the next stream."""
        decompressor = self.new_decompressor_stream()
        decompressed = bytearray()
        while not decompressor.eof:
            chunk = yield
            try:
                # One byte too many is enough to know.
                room = self._limit + 1 - len(decompressed)
                decompressed += decompressor.decompress(chunk, room)
            except self._expected_errors as exc:
                info = {"data": chunk} if self._debug else None
                raise IncrementalDeserializeError(f"Decompression error: {exc}", b"", info) from exc
            if len(decompressed) > self._limit:
                raise LimitOverrunError(self._too_large(), chunk, len(chunk))
        remaining_data = decompressor.unused_data
        try:
            return self._serializer.deserialize(bytes(decompressed)), remaining_data
        except (DeserializeError, RecursionError) as exc:
            message = f"Error while deserializing decompressed data: {exc}"
            info = getattr(exc, "error_info", None)
            raise IncrementalDeserializeError(message, remaining_data, info) from exc

    @final
    def create_deserializer_buffer(self, sizehint: int, /) -> memoryview:
        """Allocate a buffer of `sizehint` bytes."""
        return memoryview(bytearray(sizehint))

    @final
    def buffered_incremental_deserialize(
        self, buffer: memoryview, /
    ) -> Generator[int, int, tuple[Received, bytes]]:
        """Parse the next stream."""
        return parse_in_buffer(self.incremental_deserialize(), buffer)

    def _too_large(self) -> str:
        return f"Decompressed data is larger than the limit, {self._limit} bytes"


class _SmallBlocks:
    """A `bz2.BZ2Decompressor` for packets of at most `limit` bytes.

    The fourth byte of a stream is a digit, the largest size of its blocks in units of 100 kB. If
    it is more than such a packet can need, a smaller one is put in its place; a block that is
    larger all the same is an error. A block has at most 5 bytes for 4 of the packet: runs of 4
    equal bytes are followed by a count.
    """

    __slots__ = ("_decompressor", "_most", "_received")

    _LEVEL_AT: Final = 3

    def __init__(self, limit: int) -> None:
        self._decompressor = bz2.BZ2Decompressor()
        self._most = b"%d" % min(9, 1 + limit * 5 // 4 // 100_000)
        self._received = 0

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        at = self._LEVEL_AT - self._received
        self._received += len(data)
        if 0 <= at < len(data) and self._most < data[at : at + 1] <= b"9":
            data = data[:at] + self._most + data[at + 1 :]
        return self._decompressor.decompress(data, max_length)

    @property
    def eof(self) -> bool:
        return self._decompressor.eof

    @property
    def unused_data(self) -> bytes:
        return self._decompressor.unused_data


class BZ2CompressorSerializer(AbstractCompressorSerializer[Sent, Received]):
    """Compresses the packets of another serializer with bzip2.

    Args:
        serializer: What makes bytes of a packet and back.
        compress_level: From 1 to 9, the size of a block in units of 100 kB. 9 if None.
        limit: The most bytes of a packet, decompressed.
        debug: As for `AbstractCompressorSerializer`.

    Raises:
        TypeError: `serializer` is not a serializer.
        ValueError: `compress_level` is out of its range, or `limit` is not positive.
    """

    __slots__ = ("_compress_level",)

    def __init__(
        self,
        serializer: AbstractPacketSerializer[Sent, Received],
        *,
        compress_level: int | None = None,
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        debug: bool = False,
    ) -> None:
        super().__init__(serializer, OSError, limit=limit, debug=debug)
        self._compress_level = 9 if compress_level is None else compress_level
        self.new_compressor_stream()  # Raises what is wrong with the level.

    @final
    def new_compressor_stream(self) -> CompressorInterface:
        """Return a compressor of the given level, a `bz2.BZ2Compressor`."""
        return bz2.BZ2Compressor(self._compress_level)

    @final
    def new_decompressor_stream(self) -> DecompressorInterface:
        """Return a decompressor, which knows any level.

        It has memory for no more than `limit`; what needs more is invalid data to it.
        """
        return _SmallBlocks(self.buffer_limit)


class ZlibCompressorSerializer(AbstractCompressorSerializer[Sent, Received]):
    """Compresses the packets of another serializer in zlib's format (RFC 1950).

    Args:
        serializer: What makes bytes of a packet and back.
        compress_level: From 0 (not at all) to 9 (most), or -1 for zlib's own default. 9 if None.
        limit: The most bytes of a packet, decompressed.
        debug: As for `AbstractCompressorSerializer`.

    Raises:
        TypeError: `serializer` is not a serializer.
        ValueError: `compress_level` is out of its range, or `limit` is not positive.
    """

    __slots__ = ("_compress_level",)

    def __init__(
        self,
        serializer: AbstractPacketSerializer[Sent, Received],
        *,
        compress_level: int | None = None,
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        debug: bool = False,
    ) -> None:
        super().__init__(serializer, zlib.error, limit=limit, debug=debug)
        self._compress_level = zlib.Z_BEST_COMPRESSION if compress_level is None else compress_level
        self.new_compressor_stream()  # Raises what is wrong with the level.

    @final
    def new_compressor_stream(self) -> CompressorInterface:
        """Return a compressor of the given level, a `zlib.compressobj()`."""
        return zlib.compressobj(self._compress_level)

    @final
    def new_decompressor_stream(self) -> DecompressorInterface:
        """Return a decompressor, which knows any level, a `zlib.decompressobj()`."""
        return zlib.decompressobj()
