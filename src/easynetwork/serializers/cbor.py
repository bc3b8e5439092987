"""CBOR (RFC 8949), by the library `cbor2`.

Most packets come in one piece and have text for keys: those go to the library at once. For the
others, `_skim()` finds the end of the packet: it steps from the head of one item to the next one,
without making any object, and goes on where it stopped when more bytes come. So each byte is looked
at a fixed number of times, however the stream is cut, and a packet that is not valid does not take
the following ones with it.

CBOR has values that are small when sent and large, or slow, when received. Some are therefore not
read as the library would read them:

* A map key or an element of a set is text, bytes or a plain number, for whose hashes nobody can
  choose values that collide; see `strict_map_key`.
* Integers of any size (tags 2 and 3) have at most as many digits as Python would read from text,
  4,300 (`sys.int_info`). To compute with more, or to show them, takes time that grows with the
  square of their size.
* References to what was sent before make, of a few bytes, a tree of millions of branches, or one
  that contains itself. They are understood only by who would send them: to shared values (tag 29)
  with `value_sharing`, to strings (tag 25) with `string_referencing`.
* Regular expressions (tag 35) and MIME messages (tag 36) are tags like any unknown one: compiling a
  pattern of ten characters can take milliseconds.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import sys
from collections.abc import Callable, Generator
from enum import Enum, auto
from functools import partial
from io import BytesIO
from typing import IO, Any, Final, Literal, NoReturn, final

from easynetwork.serializers._gate import send_when_complete
from easynetwork.serializers.framing import FileBasedPacketSerializer
from easynetwork.serializers.tools import (
    DEFAULT_MAX_DEPTH,
    DEFAULT_SERIALIZER_LIMIT,
    check_max_depth,
    config_options,
    import_extra,
)

__all__ = ["CBORDecoderConfig", "CBOREncoderConfig", "CBORSerializer"]

# Major types (RFC 8949, section 3.1).
_STRINGS: Final = (2, 3)
_ARRAY: Final = 4
_MAP: Final = 5
_TAG: Final = 6
_SPECIAL: Final = 7
_CONTAINERS: Final = (_ARRAY, _MAP, _TAG)

# Tags (https://www.iana.org/assignments/cbor-tags).
_POSITIVE_INTEGER: Final = 2
_NEGATIVE_INTEGER: Final = 3
_SHARED_STRING: Final = 25
_SHARED_VALUE: Final = 29
_REGULAR_EXPRESSION: Final = 35
_MIME_MESSAGE: Final = 36
_SET_TAG: Final = 258

_MAX_INTEGER_SIZE: Final = int(sys.int_info.default_max_str_digits * math.log2(10) / 8)


@dataclasses.dataclass(kw_only=True, slots=True, weakref_slot=True)
class CBOREncoderConfig:
    """How to write CBOR: the options of ``cbor2.CBOREncoder`` of the same names."""

    datetime_as_timestamp: bool = False
    timezone: datetime.tzinfo | None = None
    value_sharing: bool = False
    default: Callable[..., Any] | None = None
    canonical: bool = False
    date_as_datetime: bool = False
    string_referencing: bool = False


@dataclasses.dataclass(kw_only=True, slots=True, weakref_slot=True)
class CBORDecoderConfig:
    """How to read CBOR: the options of ``cbor2.CBORDecoder`` of the same names."""

    object_hook: Callable[..., Any] | None = None
    tag_hook: Callable[..., Any] | None = None
    str_errors: Literal["strict", "ignore", "replace", "backslashreplace", "surrogateescape"] = (
        "strict"
    )


class CBORSerializer(FileBasedPacketSerializer[Any, Any]):
    """Packets are CBOR data items. Needs the extra ``cbor``.

    Args:
        encoder_config: How to write CBOR.
        decoder_config: How to read CBOR.
        limit: The most bytes of a packet that comes over a stream.
        max_depth: How many arrays, maps and tags may be inside each other in a received packet.
        strict_map_key: Whether all keys of maps and elements of sets have to be text, bytes,
            floats, integers of at most 64 bits, booleans or None. If not, a peer can choose keys
            whose hashes are equal, and make a map of n of them cost n ** 2.
        debug: Whether errors carry ``error_info``, a dictionary: the ``data`` that is not a packet,
            or the ``packet`` and the ``extra`` bytes behind it.

    Raises:
        ModuleNotFoundError: The library is not installed.
        TypeError: A configuration is of the wrong class.
        ValueError: `limit` or `max_depth` is not positive, or the library refuses an option.
    """

    __slots__ = ("_cbor2", "_dump", "_load", "_max_depth", "_strict_map_key")

    def __init__(
        self,
        encoder_config: CBOREncoderConfig | None = None,
        decoder_config: CBORDecoderConfig | None = None,
        *,
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        max_depth: int = DEFAULT_MAX_DEPTH,
        strict_map_key: bool = True,
        debug: bool = False,
    ) -> None:
        self._cbor2 = cbor2 = import_extra("cbor2", "cbor")
        encoder_options = config_options("encoder", encoder_config, CBOREncoderConfig)
        decoder_options = config_options("decoder", decoder_config, CBORDecoderConfig)
        super().__init__((cbor2.CBORDecodeError, ValueError), limit=limit, debug=debug)
        semantic_decoders = _semantic_decoders(
            cbor2,
            tag_hook=decoder_options["tag_hook"],
            shared_values=encoder_options["value_sharing"],
            shared_strings=encoder_options["string_referencing"],
        )
        self._dump: Callable[[Any, IO[bytes]], None] = partial(cbor2.dump, **encoder_options)
        self._load: Callable[..., Any] = partial(
            cbor2.load,
            **decoder_options,
            semantic_decoders=semantic_decoders,
            max_depth=check_max_depth(max_depth),
        )
        self._max_depth = max_depth
        self._strict_map_key = bool(strict_map_key)
        # Raises what is wrong with the options.
        cbor2.CBOREncoder(BytesIO(), **encoder_options)
        cbor2.CBORDecoder(BytesIO(), **decoder_options)

    @final
    def dump_to_file(self, packet: Any, file: IO[bytes], /) -> None:
        """Write `packet` to `file`."""
        self._dump(packet, file)

    @final
    def load_from_file(self, file: IO[bytes], /) -> Any:
        """Read one packet from `file`; leave it behind the packet, even if that is not valid.

        Raises:
            EOFError: The end of the file is reached before the end of the packet.
            Exception: The data is not a packet. If it is not known where it ends, all is read.
        """
        start = file.tell()
        try:
            return self._load(file, strict_hashable_types=self._strict_map_key)
        except self._cbor2.CBORDecodeError:
            file.seek(start)
            data = file.read()
            end = self._find_end(data)
            file.seek(start + end)
            if not self._strict_map_key:
                raise
        # Not a packet; or one with plain numbers for keys, for which the library is too strict.
        return self._load(BytesIO(data[:end]))

    @final
    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Any, bytes]]:
        """Parse the next packet."""
        parser = super().incremental_deserialize()
        return send_when_complete(parser, self._new_detector, self.buffer_limit)

    def _new_detector(self) -> Callable[[bytes], bool]:
        skimmer = self._new_skimmer()

        def may_end(chunk: bytes) -> bool:
            try:
                skimmer.send(chunk)
            except (StopIteration, ValueError):
                return True
            return False

        return may_end

    def _find_end(self, data: bytes) -> int:
        try:
            self._new_skimmer().send(data)
        except StopIteration as stop:
            end: int = stop.value
            return end
        raise EOFError("Missing data")

    def _new_skimmer(self) -> Generator[None, bytes, int]:
        skimmer = _skim(self._max_depth, self._strict_map_key)
        next(skimmer)
        return skimmer


# -- What is read in another way than the library would ----------------------------------------


def _semantic_decoders(
    cbor2: Any, *, tag_hook: Callable[..., Any] | None, shared_values: bool, shared_strings: bool
) -> dict[int, Callable[[Any, bool], Any]]:
    """Return what makes values of certain tags.

    Each is called with the tagged value, and whether the result has to be immutable.
    """

    def integer(value: Any, immutable: bool) -> int:
        if not isinstance(value, bytes):
            raise cbor2.CBORDecodeError("An integer of any size has to be a byte string")
        if len(value) > _MAX_INTEGER_SIZE:
            raise cbor2.CBORDecodeError(f"An integer has more than {_MAX_INTEGER_SIZE} bytes")
        return int.from_bytes(value)

    def negative_integer(value: Any, immutable: bool) -> int:
        return -1 - integer(value, immutable)

    def unknown(number: int, value: Any, immutable: bool) -> Any:
        tag = cbor2.CBORTag(number, value)
        return tag if tag_hook is None else tag_hook(tag, immutable)

    def refused(option: str, value: Any, immutable: bool) -> NoReturn:
        raise cbor2.CBORDecodeError(f"References are not understood without {option!r}")

    decoders: dict[int, Callable[[Any, bool], Any]] = {
        _POSITIVE_INTEGER: integer,
        _NEGATIVE_INTEGER: negative_integer,
        _REGULAR_EXPRESSION: partial(unknown, _REGULAR_EXPRESSION),
        _MIME_MESSAGE: partial(unknown, _MIME_MESSAGE),
    }
    if not shared_values:
        decoders[_SHARED_VALUE] = partial(refused, "value_sharing")
    if not shared_strings:
        decoders[_SHARED_STRING] = partial(refused, "string_referencing")
    return decoders


# -- Where a packet ends -----------------------------------------------------------------------


class _Kind(Enum):
    """What an item is in: which of its items are hashed?"""

    PLAIN = auto()
    MAP = auto()  # every other one
    SET = auto()  # all
    SET_TAG = auto()  # those of the array that follows


def _skim(max_depth: int, strict_map_key: bool) -> Generator[None, bytes, int]:
    """Return the size of a packet that is sent in chunks, as soon as all of it is there.

    Raises:
        ValueError: There is no telling where it ends, it is nested too deeply, or what is hashed is
            not plain.
    """
    data = bytearray()
    position = 0
    outer: list[tuple[int, _Kind]] = []
    # The innermost container. How many of its items are to come; if that is not known, how many
    # were there, as a negative number.
    missing, kind = 1, _Kind.PLAIN
    while True:
        while (head := _read_head(data, position)) is None:
            data += yield
        major, value, position = head
        if strict_map_key and not _may_be_there(major, value, missing, kind):
            raise ValueError("A map key or an element of a set is neither text, bytes nor a number")
        is_empty = value == 0 and major != _TAG
        if (major in _CONTAINERS and not is_empty) or (major in _STRINGS and value is None):
            outer.append((missing, kind))
            missing, kind = _open(major, value, kind)
            if len(outer) > max_depth and major in _CONTAINERS:
                raise ValueError(f"Containers are nested more than {max_depth} deep")
            continue
        if major in _STRINGS:
            position += value or 0
        elif major == _SPECIAL and value is None:
            if missing > 0:
                raise ValueError("A break that ends nothing")
            missing, kind = outer.pop()
        missing -= 1
        while missing == 0:
            if not outer:
                while len(data) < position:
                    data += yield
                return position
            missing, kind = outer.pop()
            missing -= 1


def _read_head(data: bytearray, position: int) -> tuple[int, int | None, int] | None:
    """Read the head of an item (RFC 8949, section 3).

    Returns:
        The major type, the value or length (None if indefinite), and the position behind; None if
        it is not complete.

    Raises:
        ValueError: It is not the head of an item.
    """
    if position >= len(data):
        return None
    major, info = divmod(data[position], 32)
    position += 1
    if info < 24:
        return major, info, position
    if info == 31 and major in (*_STRINGS, _ARRAY, _MAP, _SPECIAL):
        return major, None, position
    if info > 27:
        raise ValueError(f"An item begins with {data[position - 1]:#x}")
    end = position + (1 << info - 24)
    return (major, int.from_bytes(data[position:end]), end) if end <= len(data) else None


def _open(major: int, value: int | None, kind: _Kind) -> tuple[int, _Kind]:
    """Return how many items are missing in a container that begins, and what they are in."""
    if major == _TAG:
        in_set = value == _SET_TAG or kind is _Kind.SET_TAG
        return 1, _Kind.SET_TAG if in_set else _Kind.PLAIN
    if major == _MAP:
        return 2 * (value or 0), _Kind.MAP
    return value or 0, _Kind.SET if kind is _Kind.SET_TAG else _Kind.PLAIN


def _may_be_there(major: int, value: int | None, missing: int, kind: _Kind) -> bool:
    """Return whether an item is plain, or in a place where it does not have to be."""
    if major not in _CONTAINERS or kind is _Kind.PLAIN:
        return True
    if kind is _Kind.SET_TAG:
        return major != _TAG or value != _SHARED_VALUE
    is_hashed = kind is _Kind.SET or missing % 2 == 0
    return not is_hashed or (major == _TAG and value == _SHARED_STRING)
