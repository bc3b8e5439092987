"""MessagePack (https://msgpack.org), by the library `msgpack`.

A packet is skimmed before it is read: the library runs over it without making any object, which
tells where it ends, and goes on where it stopped when more bytes come. Only then are objects made,
of bytes that are known to be a whole packet. So what a peer declares (an array of 2 ** 31 items
inside another one) costs nothing until it is there. Bytes that are said to be one packet, with no
container of more than 15 items in it, have nothing to declare: those are read at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import IO, Any, Final, final

from easynetwork._extras import requiring
from easynetwork.serializers.framing import FileBasedPacketSerializer
from easynetwork.serializers.tools import (
    DEFAULT_MAX_DEPTH,
    DEFAULT_SERIALIZER_LIMIT,
    config_options,
    validated_max_depth,
)

__all__ = ["MessagePackSerializer", "MessagePackerConfig", "MessageUnpackerConfig"]

# The first bytes of all arrays and maps. (https://github.com/msgpack/msgpack/blob/master/spec.md)
_CONTAINERS: Final = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
# Those of arrays and maps that may have more than 15 items.
_LARGE_CONTAINERS: Final = bytes(range(0xDC, 0xE0))
_TOO_DEEP: Final = "The packet is nested too deeply"
_SKIM_SIZE: Final = 256
"""Bytes that are allocated to skim a packet; the library's default is a megabyte."""
_PACK_SIZE: Final = 256
"""Likewise to write one, at first; the library's default is 256 KiB, which takes longer to allocate
than most packets to write."""


@dataclasses.dataclass(kw_only=True, slots=True, weakref_slot=True)
class MessagePackerConfig:
    """How to write MessagePack: the options of ``msgpack.Packer`` of the same names."""

    default: Callable[[Any], Any] | None = None
    use_single_float: bool = False
    use_bin_type: bool = True
    datetime: bool = False
    strict_types: bool = False
    unicode_errors: str = "strict"


@dataclasses.dataclass(kw_only=True, slots=True, weakref_slot=True)
class MessageUnpackerConfig:
    """How to read MessagePack: the options of ``msgpack.Unpacker`` of the same names.

    Without `strict_map_key`, a peer can choose keys whose hashes are equal (time stamps, for
    example), and make a map of n of them cost n ** 2. If `ext_hook` is None, it is
    ``msgpack.ExtType``.
    """

    raw: bool = False
    use_list: bool = True
    timestamp: int = 0
    strict_map_key: bool = True
    unicode_errors: str = "strict"
    object_hook: Callable[[dict[Any, Any]], Any] | None = None
    object_pairs_hook: Callable[[list[tuple[Any, Any]]], Any] | None = None
    ext_hook: Callable[[int, bytes], Any] | None = None


class MessagePackSerializer(FileBasedPacketSerializer[Any, Any]):
    """Packets are MessagePack values. Needs the package ``msgpack``.

    Args:
        packer_config: How to write MessagePack.
        unpacker_config: How to read MessagePack.
        limit: The most bytes of a packet that comes over a stream.
        max_depth: How many arrays and maps may be inside each other in a received packet. (What
            hooks make of them is not looked into.)
        debug: Whether errors carry ``error_info``, a dictionary: the ``data`` that is not a packet,
            or the ``packet`` and the ``extra`` bytes after it.

    Raises:
        ModuleNotFoundError: The package is not installed.
        TypeError: A configuration is of the wrong class.
        ValueError: `limit` or `max_depth` is not positive.
    """

    __slots__ = (
        *("_max_depth", "_new_packer", "_out_of_data", "_stack_error"),
        *("_unpack", "_unpack_error", "_unpacker_class"),
    )

    def __init__(
        self,
        packer_config: MessagePackerConfig | None = None,
        unpacker_config: MessageUnpackerConfig | None = None,
        *,
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        max_depth: int = DEFAULT_MAX_DEPTH,
        debug: bool = False,
    ) -> None:
        with requiring("msgpack", "msgpack>=1.1"):
            import msgpack  # optional dependency
        packer_options = config_options("packer", packer_config, MessagePackerConfig)
        unpacker_options = config_options("unpacker", unpacker_config, MessageUnpackerConfig)
        if unpacker_options["ext_hook"] is None:
            unpacker_options["ext_hook"] = msgpack.ExtType
        super().__init__(Exception, limit=limit, debug=debug)
        self._unpacker_class = msgpack.Unpacker
        self._out_of_data = msgpack.OutOfData
        self._stack_error = msgpack.StackError
        self._unpack_error = msgpack.UnpackException
        self._new_packer = partial(msgpack.Packer, buf_size=_PACK_SIZE, **packer_options)
        self._unpack: Callable[[bytes], Any] = partial(msgpack.unpackb, **unpacker_options)
        self._max_depth = validated_max_depth(max_depth)

    @final
    def dump_to_file(self, packet: Any, file: IO[bytes], /) -> None:
        """Write `packet` to `file`."""
        file.write(self.serialize(packet))

    def serialize(self, packet: Any) -> bytes:
        """Return the bytes of `packet`."""
        data: bytes = self._new_packer().pack(packet)
        return data

    @final
    def deserialize(self, data: bytes) -> Any:
        """Make a packet of `data`.

        Raises:
            DeserializeError: `data` is invalid, too short, or followed by something else.
        """
        if len(data.translate(None, _LARGE_CONTAINERS)) == len(data):
            with suppress(Exception):  # It is found again, and explained.
                return self._read(data)
        return super().deserialize(data)

    @final
    def load_from_file(self, file: IO[bytes], /) -> Any:
        """Read one packet from `file`; leave it after the packet, even if that is not valid.

        Raises:
            EOFError: The end of the file is reached before the end of the packet.
            Exception: The data is not a packet.
        """
        try:
            start = file.tell()
            data = file.read()
            skimmer = self._new_skimmer(data)
            skimmer.skip()
            end = skimmer.tell()
            file.seek(start + end)
            return self._read(data[:end])
        except self._out_of_data as exc:
            raise EOFError("Missing data") from exc
        except self._stack_error as exc:
            raise ValueError(_TOO_DEEP) from exc
        except Exception as exc:
            if str(exc):
                raise
            raise ValueError("Invalid token") from exc

    def _read(self, packet: bytes) -> Any:
        result = self._unpack(packet)
        # Few packets have so many bytes that might begin a container.
        if len(packet) - len(packet.translate(None, _CONTAINERS)) > self._max_depth:
            _check_depth(result, self._max_depth)
        return result

    @final
    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Any, bytes]]:
        """Parse the next packet."""
        # The parser begins again with each chunk: the cost would grow with the square of their
        # number. So chunks are held back until they may complete the packet, but not the first
        # one: most packets come in one. From then on each byte is looked at once, by the skimmer.
        parser = super().incremental_deserialize()
        next(parser)
        try:
            chunk = yield
            parser.send(chunk)
            skimmer = self._new_skimmer(b"")
            complete = self._may_end(skimmer, chunk)
            size = len(chunk)
            while True:
                held = bytearray()
                while not held or not (complete or size > self.buffer_limit):
                    chunk = yield
                    complete = self._may_end(skimmer, chunk)
                    size += len(chunk)
                    held += chunk
                parser.send(bytes(held))
        except StopIteration as stop:
            result: tuple[Any, bytes] = stop.value
            return result

    def _may_end(self, skimmer: Any, chunk: bytes) -> bool:
        """Return whether a packet may be complete with a chunk: it is the parser that decides.

        Once it returned True, it does so again.
        """
        skimmer.feed(chunk)
        try:
            skimmer.skip()
        except self._out_of_data:
            return False
        except self._unpack_error:
            pass  # The parser will see it too.
        return True

    def _new_skimmer(self, data: bytes) -> Any:
        """Return an unpacker that is fed, however much there is: limits are checked elsewhere."""
        skimmer = self._unpacker_class(read_size=_SKIM_SIZE, max_buffer_size=0)
        skimmer.feed(data)
        return skimmer


def _check_depth(packet: Any, max_depth: int) -> None:
    level = [packet]
    for _ in range(max_depth + 1):
        level = [
            item
            for container in level
            if isinstance(container, (list, tuple, dict))
            for item in (chain(*container.items()) if isinstance(container, dict) else container)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)
