"""What serializers are built with: a reader for generators, and common options and limits.

`GeneratorStreamReader` collects chunks and hands out what is asked for. All its waiting is a bare
``yield``, so an `incremental_deserialize()` reads like blocking code, with ``yield from`` in place
of the blocking.

What is received lies in one bytearray. Taking from its front is cheap, appending too, and a search
for a separator goes on where it stopped: the cost of a byte does not depend on how the stream is
cut.
"""

from __future__ import annotations

import codecs
import dataclasses
import functools
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

from easynetwork.exceptions import LimitOverrunError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "DEFAULT_MAX_DEPTH",
    "DEFAULT_SERIALIZER_LIMIT",
    "GeneratorStreamReader",
    "check_encoding",
    "config_options",
    "keeps_bytes",
    "validated_limit",
    "validated_max_depth",
    "validated_positive",
]

DEFAULT_SERIALIZER_LIMIT: Final = 65536
"""The most bytes of one packet, if nothing else is said: as for `asyncio.StreamReader`."""

DEFAULT_MAX_DEPTH: Final = 128
"""How many containers of a packet may be inside each other, if nothing else is said: as in Rust's
serde_json. An object that deep can be compared, shown, copied and sent on within Python's own limit
of 1,000 calls inside each other; `copy.deepcopy()` needs most, 2 for each container."""


def validated_limit(limit: int) -> int:
    """Return `limit`, a number of bytes.

    Raises:
        TypeError: `limit` is not an integer. (With NaN, there would be no limit.)
        ValueError: `limit` is not positive.
    """
    return validated_positive("limit", limit)


def validated_positive(name: str, value: int) -> int:
    """Return `value`, the argument called `name`.

    Raises:
        TypeError: `value` is not an integer.
        ValueError: `value` is not positive.
    """
    if not isinstance(value, int):
        raise TypeError(f"{name} must be a positive integer, not {value!r}")
    if value <= 0:
        raise ValueError(f"{name} must be a positive integer")
    return value


def validated_max_depth(max_depth: int) -> int:
    """Return `max_depth`, a number of containers inside each other.

    Raises:
        TypeError: `max_depth` is not an integer.
        ValueError: `max_depth` is not positive.
    """
    return validated_positive("max_depth", max_depth)


def config_options(name: str, config: object, config_class: type[Any]) -> dict[str, Any]:
    """Return the fields of a configuration object as keyword arguments.

    Args:
        name: What is configured, for the error's message.
        config: An instance of `config_class`, or None for the defaults.
        config_class: A dataclass.

    Raises:
        TypeError: `config` is something else.
    """
    if config is None:
        config = config_class()
    elif not isinstance(config, config_class):
        raise TypeError(
            f"Invalid {name} config: expected {config_class.__name__}, got {type(config).__name__}"
        )
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config_class)}


def check_encoding(encoding: str, errors: str) -> None:
    """Make sure that text can be encoded this way, now and not when the first packet is there.

    Raises:
        LookupError: There is no such text encoding, or no such way to handle errors.
    """
    "a".encode(encoding)
    codecs.lookup_error(errors)


_ASCII_IS_ITSELF: Final = ("utf-8", "ascii", "iso8859-1")


@functools.lru_cache(maxsize=32)  # Few encodings are in use, and to try one takes milliseconds.
def keeps_bytes(encoding: str, characters: str) -> bool:
    """Whether these ASCII characters can be found in encoded text by looking for their bytes.

    Each one has to be encoded as its ASCII code, and no other character may have that byte in it.
    """
    if codecs.lookup(encoding).name in _ASCII_IS_ITSELF:
        return True
    code = characters.encode("ascii")
    try:
        # There may be a byte order mark: it comes first.
        if ("a" + characters).encode(encoding) != "a".encode(encoding) + code:
            return False
        if ("a".encode(encoding) + code).decode(encoding) != "a" + characters:
            return False
        others = _other_characters().encode(encoding, "ignore")
    except UnicodeError:
        return False
    return len(others.translate(None, code)) == len(others)


def _other_characters() -> str:
    """Return all characters that are not ASCII, and few of those that need a surrogate pair."""
    # Not a constant: that would be a third of the time to import a server (measured).
    codes = (*range(0x80, 0xD800), *range(0xE000, 0x10000), 0x10000, 0x10FFFF)
    return "".join(map(chr, codes))


class GeneratorStreamReader:
    """Reads from a stream inside a generator that is sent the chunks.

    Args:
        initial_bytes: What has already been received.

    All reading methods but `read_all()` are generators: ``data = yield from reader.read(1024)``.
    Bytes already here are used first. An exception leaves them where they are.
    """

    __slots__ = ("__weakref__", "_buffer", "_start")

    def __init__(self, initial_bytes: ReadableBuffer = b"") -> None:
        self._buffer: bytes | bytearray = bytes(initial_bytes)
        self._start = 0  # where the bytes begin that have not been read

    def read_all(self) -> bytes:
        """Return what has been received and not been read, without waiting."""
        return self._take(len(self._buffer) - self._start)

    def read(self, size: int) -> Generator[None, bytes, bytes]:
        """Read at least one byte, waiting if there is none, and at most `size`.

        Raises:
            ValueError: `size` is negative.
        """
        if size < 0:
            raise ValueError("size must not be < 0")
        while size and self._start == len(self._buffer):
            self._append((yield))
        return self._take(size)

    def read_exactly(self, n: int) -> Generator[None, bytes, bytes]:
        """Read `n` bytes, waiting until all of them are there.

        Raises:
            ValueError: `n` is negative.
        """
        if n < 0:
            raise ValueError("n must not be < 0")
        while len(self._buffer) - self._start < n:
            self._append((yield))
        return self._take(n)

    def read_until(
        self, separator: bytes, limit: int, *, keep_end: bool = True, ends_packet: bool = True
    ) -> Generator[None, bytes, bytes]:
        """Read everything before `separator`, waiting until it is there, and the separator.

        Args:
            separator: What to look for.
            limit: The most bytes before `separator`.
            keep_end: Whether the result includes the separator.
            ends_packet: Whether the packet ends with this separator. If there are more than `limit`
                bytes before it, all up to the separator is dropped then. If the separator ends only
                a part of the packet, the end of the packet is unknown.

        Raises:
            LimitOverrunError: There are more than `limit` bytes before `separator`.
            TypeError: `limit` is not an integer.
            ValueError: `limit` is not positive, or `separator` is empty.
        """
        if type(limit) is not int or limit < 1:
            validated_limit(limit)
        if not separator:
            raise ValueError("Empty separator")
        while (index := self._buffer.find(separator, self._start)) < 0:
            yield from self._read_for(separator, limit, ends_packet=ends_packet)
        start = self._start
        if index - start > limit:
            message = "Separator is found, but chunk is longer than limit"
            raise self._overrun(message, index - start, separator if ends_packet else b"")
        self._start = end = index + len(separator)
        return self._slice(start, end if keep_end else index)

    def _read_for(
        self, separator: bytes, limit: int, *, ends_packet: bool
    ) -> Generator[None, bytes, None]:
        """Read until there is a separator, which there is not so far."""
        offset = 0  # no separator begins before it, counted from what has not been read
        while True:
            offset = max(offset, len(self._buffer) - self._start + 1 - len(separator))
            if offset > limit:
                message = "Separator is not found, and chunk exceed the limit"
                raise self._overrun(message, offset, separator if ends_packet else b"")
            self._append((yield))
            if self._buffer.find(separator, self._start + offset) >= 0:
                return

    def new_limit_error(
        self, message: str, size: int | None = None, separator: bytes = b""
    ) -> LimitOverrunError:
        """Return the error to raise for a packet that is too large.

        What has been read from this reader belongs to the packet, and need not be counted.

        Args:
            message: What happened.
            size: How many bytes of the packet follow what has been read, received or not. None if
                that is not known.
            separator: What ends the packet, if its size is not known.

        Raises:
            ValueError: `size` is negative, or there are both `size` and `separator`.
        """
        if size is None:
            return self._overrun(message, 0, separator)
        if separator:
            raise ValueError("A packet of known size does not end with a separator")
        return LimitOverrunError(message, self._unread(), size, end_is_known=True)

    def _overrun(self, message: str, scanned: int, separator: bytes) -> LimitOverrunError:
        return LimitOverrunError(message, self._unread(), scanned, separator, end_is_known=False)

    def _unread(self) -> memoryview:
        return memoryview(self._buffer)[self._start :]

    def _append(self, chunk: bytes) -> None:
        if self._start == len(self._buffer) and type(chunk) is bytes:
            self._buffer = chunk  # the usual case, which copies nothing
        else:
            if isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._unread())
            else:
                del self._buffer[: self._start]
            self._buffer += chunk
        self._start = 0

    def _take(self, size: int) -> bytes:
        start = self._start
        self._start = end = min(start + size, len(self._buffer))
        return self._slice(start, end)

    def _slice(self, start: int, end: int) -> bytes:
        buffer = self._buffer
        if type(buffer) is bytes:
            return buffer[start:end]
        return bytes(memoryview(buffer)[start:end])  # one copy, not two
