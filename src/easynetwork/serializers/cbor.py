"""CBOR (RFC 8949), by the library `cbor2`.

Most packets come in one piece and have text for keys: those go to the library at once. For the
others, `_skim()` finds the end of the packet: it steps from the head of one item to the next one,
without making any object, and goes on where it stopped when more bytes come. So each byte is looked
at a fixed number of times, however the stream is cut, and a packet that is not valid does not take
the following ones with it.

CBOR has values that are small when sent and large, or slow, when received. Some are therefore not
read as the library would read them:

* Map keys and set elements must be text or bytes (whose hashes are randomised) or plain
  numbers, at most 1,000 per container: number hashes are predictable, so a peer could make each
  collide with all others. See `strict_map_key`.
* Integers of any size (tags 2 and 3) have at most as many digits as Python would read from text,
  4,300 (`sys.int_info`). To compute with more, or to show them, takes time that grows with the
  square of their size.
* References to what was sent before make, of a few bytes, a tree of millions of branches, or one
  that contains itself. They are accepted only if the encoder options enable them: to shared values
  (tag 29) with `value_sharing`, to strings (tag 25) with `string_referencing`.
* Regular expressions (tag 35) and MIME messages (tag 36) are tags like any unknown one: compiling a
  pattern of ten characters can take milliseconds.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Generator
from enum import Enum, auto
from functools import partial
from io import BytesIO
from typing import IO, Any, Final, Literal, NamedTuple, final

from easynetwork._extras import requiring
from easynetwork.exceptions import IncrementalDeserializeError, LimitOverrunError
from easynetwork.serializers._cbor_tags import SHARED_STRING, SHARED_VALUE, semantic_decoders
from easynetwork.serializers.framing import FileBasedPacketSerializer
from easynetwork.serializers.tools import (
    DEFAULT_MAX_DEPTH,
    DEFAULT_SERIALIZER_LIMIT,
    config_options,
    validated_max_depth,
)

__all__ = ["CBORDecoderConfig", "CBOREncoderConfig", "CBORSerializer"]

# Major types (RFC 8949, section 3.1).
_STRINGS: Final = (2, 3)
_ARRAY: Final = 4
_MAP: Final = 5
_TAG: Final = 6
_SPECIAL: Final = 7
_CONTAINERS: Final = (_ARRAY, _MAP, _TAG)
_WITHOUT_LENGTH: Final = (*_STRINGS, _ARRAY, _MAP, _SPECIAL)
_BREAK: Final = (_SPECIAL, None)

# A tag, as those in `_cbor_tags`.
_SET_TAG: Final = 258

_MOST_NUMBERS: Final = 1_000
"""Numbers that are hashed in one container. Their hashes are known, and so is the order in which
CPython looks for a free place: n chosen ones cost n ** 2 (measured: 5,400 cost 15 ms)."""


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
    """Packets are CBOR data items. Needs the package ``cbor2``.

    Args:
        encoder_config: How to write CBOR.
        decoder_config: How to read CBOR.
        limit: The most bytes of a packet that comes over a stream.
        max_depth: How many arrays, maps and tags may be inside each other in a received packet.
        strict_map_key: Whether all keys of maps and elements of sets have to be text, bytes, or
            plain numbers: floats, integers of at most 64 bits, booleans or None, at most 1,000 of
            them in one map or set. If not, a peer can choose keys that collide, and make a map of n
            of them cost n ** 2.
        debug: Whether errors carry ``error_info``, a dictionary: the ``data`` that is not a packet,
            or the ``packet`` and the ``extra`` bytes after it.

    Raises:
        ModuleNotFoundError: The package is not installed.
        TypeError: A configuration is of the wrong class.
        ValueError: `limit` or `max_depth` is not positive, or the library refuses an option.
    """

    __slots__ = ("_decode_error", "_dump", "_load", "_max_depth", "_strict_map_key")

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
        with requiring("cbor2", "cbor2>=6.2.1"):
            import cbor2  # optional dependency
        self._decode_error = cbor2.CBORDecodeError
        encoder_options = config_options("encoder", encoder_config, CBOREncoderConfig)
        decoder_options = config_options("decoder", decoder_config, CBORDecoderConfig)
        super().__init__((cbor2.CBORDecodeError, ValueError), limit=limit, debug=debug)
        decoders = semantic_decoders(
            cbor2,
            tag_hook=decoder_options["tag_hook"],
            shared_values=encoder_options["value_sharing"],
            shared_strings=encoder_options["string_referencing"],
        )
        self._dump: Callable[[Any, IO[bytes]], None] = partial(cbor2.dump, **encoder_options)
        self._load: Callable[..., Any] = partial(
            cbor2.load,
            **decoder_options,
            semantic_decoders=decoders,
            max_depth=validated_max_depth(max_depth),
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
        """Read one packet from `file`; leave it after the packet, even if that is not valid.

        Raises:
            EOFError: The end of the file is reached before the end of the packet.
            Exception: The data is not a packet. If it is not known where it ends, all is read.
        """
        start = file.tell()
        try:
            return self._load(file, strict_hashable_types=self._strict_map_key)
        except self._decode_error:
            file.seek(start)
            data = file.read()
            try:
                self._new_skimmer().send(data)
                raise EOFError("Missing data")
            except StopIteration as stop:
                extent: _Extent = stop.value
            file.seek(start + extent.size)
            if not (extent.refusal or extent.is_too_strict):
                raise
        return self._load_again(data, extent)

    def _load_again(self, data: bytes, extent: _Extent) -> Any:
        if extent.refusal:
            raise ValueError(extent.refusal)
        return self._load(BytesIO(data[: extent.size]))

    @final
    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Any, bytes]]:
        """Parse the next packet."""
        chunk = yield
        file = BytesIO(chunk[: self.buffer_limit])
        error: Exception | None = None
        try:
            packet = self._load(file, strict_hashable_types=self._strict_map_key)
            return packet, file.read() + chunk[self.buffer_limit :]
        except self._expected_errors as exc:
            error = exc.with_traceback(None)  # With it, there would be a cycle.
        skimmer = self._new_skimmer()
        data = bytearray()
        try:
            while True:
                # What is beyond the limit may belong to the next packets.
                room = self.buffer_limit - len(data)
                data += chunk
                skimmer.send(chunk[:room])
                if len(chunk) > room:
                    raise LimitOverrunError("chunk exceeded buffer limit", data, len(data))
                chunk = yield
                error = None
        except StopIteration as stop:
            extent: _Extent = stop.value
        except ValueError as exc:
            raise self._invalid(exc, data, self.buffer_limit) from exc
        try:
            if error and not (extent.refusal or extent.is_too_strict):
                raise error
            return self._load_again(bytes(data), extent), bytes(data[extent.size :])
        except self._expected_errors as exc:
            raise self._invalid(exc, data, extent.size) from exc
        finally:
            error = None

    def _invalid(self, exc: Exception, data: bytearray, end: int) -> IncrementalDeserializeError:
        info = {"data": bytes(data)} if self.debug else None
        return IncrementalDeserializeError(f"Deserialize error: {exc}", data[end:], info)

    def _new_skimmer(self) -> Generator[None, bytes, _Extent]:
        skimmer = _skim(self._max_depth, self._strict_map_key)
        next(skimmer)
        return skimmer


# -- Where a packet ends -----------------------------------------------------------------------


class _Extent(NamedTuple):
    """What is known of a packet that was skimmed."""

    size: int
    refusal: str | None
    """Why it is not read, valid or not."""
    is_too_strict: bool
    """Whether the library refuses hashed items that are accepted here."""


class _Kind(Enum):
    """What an item is in: which of its items are hashed?"""

    PLAIN = auto()
    MAP = auto()  # every other one
    SET = auto()  # all
    SET_TAG = auto()  # those of the array that follows


def _skim(max_depth: int, strict_map_key: bool) -> Generator[None, bytes, _Extent]:
    """Return the extent of a packet that is sent in chunks, as soon as all of it is there.

    A refused packet is skimmed to its end, so that what is read next does not depend on how the
    stream was split. A level of nesting takes no more memory than an empty array does, and a valid
    packet may have as many empty arrays as it has bytes.

    Raises:
        ValueError: There is no telling where it ends.
    """
    data = bytearray()
    position = 0
    refusal, is_too_strict = None, False
    outer: list[tuple[int, _Kind, int]] = []
    # The innermost container. How many of its items are to come; if that is not known, how many
    # were there, as a negative number. And how many of them were not strings, but hashed.
    missing, kind, numbers = 1, (plain := _Kind.PLAIN), 0
    while True:
        while (head := _read_head(data, position)) is None:
            data += yield
        major, value, position = head
        if strict_map_key and kind is not plain and _is_hashed(head, missing, kind):
            numbers += 1
            is_too_strict = True
            refusal = refusal or _why_not_hashed(major, value, kind, numbers)
        is_empty = value == 0 and major != _TAG
        if (major in _CONTAINERS and not is_empty) or (major in _STRINGS and value is None):
            outer.append((missing, kind, numbers))
            missing, kind, numbers = *_open(major, value, kind), 0
            if len(outer) > max_depth + (major in _STRINGS):
                refusal = refusal or f"Containers are nested more than {max_depth} deep"
            continue
        if major in _STRINGS:
            position += value or 0
        elif major == _SPECIAL and value is None:
            if missing > 0:
                raise ValueError("Unexpected break: no container of unknown length is open")
            missing, kind, numbers = outer.pop()
        missing -= 1
        while missing == 0:
            if not outer:
                while len(data) < position:
                    data += yield
                return _Extent(position, refusal, is_too_strict)
            missing, kind, numbers = outer.pop()
            missing -= 1


def _read_head(data: bytearray, position: int) -> tuple[int, int | None, int] | None:
    """Read the head of an item (RFC 8949, section 3).

    Returns:
        The major type, the value or length (None if indefinite), and the position after it; None if
        it is not complete.

    Raises:
        ValueError: It is not the head of an item.
    """
    if position >= len(data):
        return None
    first = data[position]
    major, info = first >> 5, first & 31
    position += 1
    if info < 24:
        return major, info, position
    if info == 31 and major in _WITHOUT_LENGTH:
        return major, None, position
    if info > 27:
        raise ValueError(f"An item begins with {first:#x}")
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


def _is_hashed(head: tuple[int, int | None, int], missing: int, kind: _Kind) -> bool:
    """Return whether an item in a place that is not plain is no string, and is (or has) a key."""
    if head[0] in _STRINGS or head[:2] == _BREAK:
        return False
    return kind is not _Kind.MAP or missing % 2 == 0


def _why_not_hashed(major: int, value: int | None, kind: _Kind, numbers: int) -> str | None:
    """Return why an item that is no string is not hashed, or not looked into for a set's."""
    if kind is _Kind.SET_TAG:
        accepted = major != _TAG or value != SHARED_VALUE
    else:
        accepted = major not in _CONTAINERS or (major == _TAG and value == SHARED_STRING)
    if not accepted:
        return "A map key or an element of a set is neither text, bytes nor a number"
    if numbers > _MOST_NUMBERS:
        return f"A map or a set has more than {_MOST_NUMBERS} numbers for keys or elements"
    return None
