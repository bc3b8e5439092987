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
import importlib
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
    "check_limit",
    "check_max_depth",
    "config_options",
    "import_extra",
]

DEFAULT_SERIALIZER_LIMIT: Final = 65536
"""The most bytes of one packet, if nothing else is said: as for `asyncio.StreamReader`."""

DEFAULT_MAX_DEPTH: Final = 128
"""How many containers of a packet may be inside each other, if nothing else is said: as in Rust's
serde_json. An object that deep can be compared, shown, copied and sent on within Python's own limit
of 1,000 calls inside each other; `copy.deepcopy()` needs most, 2 for each container."""


def check_limit(limit: int) -> int:
    """Return `limit`, a number of bytes.

    Raises:
        ValueError: `limit` is not positive.
    """
    if limit <= 0:
        raise ValueError("limit must be a positive integer")
    return limit


def check_max_depth(max_depth: int) -> int:
    """Return `max_depth`, a number of containers inside each other.

    Raises:
        ValueError: `max_depth` is not positive.
    """
    if max_depth <= 0:
        raise ValueError("max_depth must be a positive integer")
    return max_depth


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


def import_extra(module: str, extra: str) -> Any:
    """Import a library that only one format needs.

    Args:
        module: The library's module.
        extra: The extra of easynetwork that installs it.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        error = ModuleNotFoundError(
            f"{extra} dependencies are missing. Consider adding {extra!r} extra", name=exc.name
        )
        error.add_note(f'Example: pip install "easynetwork[{extra}]"')
        raise error from exc


def check_encoding(encoding: str, errors: str) -> None:
    """Make sure that text can be encoded this way, now and not when the first packet is there.

    Raises:
        LookupError: There is no such text encoding, or no such way to handle errors.
    """
    "a".encode(encoding)
    codecs.lookup_error(errors)


class GeneratorStreamReader:
    """Reads from a stream inside a generator that is sent the chunks.

    Args:
        initial_bytes: What has already been received.

    All reading methods but `read_all()` are generators: ``data = yield from reader.read(1024)``.
    Bytes already here are used first. An exception leaves them where they are.
    """

    __slots__ = ("__weakref__", "_buffer")

    def __init__(self, initial_bytes: ReadableBuffer = b"") -> None:
        self._buffer = bytearray(initial_bytes)

    def read_all(self) -> bytes:
        """Return what has been received and not been read, without waiting."""
        return self._take(len(self._buffer))

    def read(self, size: int) -> Generator[None, bytes, bytes]:
        """Read at least one byte, waiting if there is none, and at most `size`.

        Raises:
            ValueError: `size` is negative.
        """
        if size < 0:
            raise ValueError("size must not be < 0")
        while size and not self._buffer:
            self._buffer += yield
        return self._take(size)

    def read_exactly(self, n: int) -> Generator[None, bytes, bytes]:
        """Read `n` bytes, waiting until all of them are there.

        Raises:
            ValueError: `n` is negative.
        """
        if n < 0:
            raise ValueError("n must not be < 0")
        while len(self._buffer) < n:
            self._buffer += yield
        return self._take(n)

    def read_until(
        self, separator: bytes, limit: int, *, keep_end: bool = True
    ) -> Generator[None, bytes, bytes]:
        """Read everything before `separator`, waiting until it is there, and the separator.

        Args:
            separator: What to look for.
            limit: The most bytes before `separator`.
            keep_end: Whether the result includes the separator.

        Raises:
            LimitOverrunError: There are more than `limit` bytes before `separator`.
            ValueError: `limit` is not positive, or `separator` is empty.
        """
        check_limit(limit)
        if not separator:
            raise ValueError("Empty separator")
        buffer = self._buffer
        offset = 0  # No separator begins before it.
        while (index := buffer.find(separator, offset)) < 0:
            offset = max(0, len(buffer) + 1 - len(separator))
            if offset > limit:
                raise LimitOverrunError(
                    "Separator is not found, and chunk exceed the limit", buffer, offset, separator
                )
            buffer += yield
        if index > limit:
            raise LimitOverrunError(
                "Separator is found, but chunk is longer than limit", buffer, index, separator
            )
        data = self._take(index + len(separator))
        return data if keep_end else data[:index]

    def _take(self, size: int) -> bytes:
        data = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return data
