"""JSON documents (RFC 8259), one a line or one after the other.

With `use_lines`, the default, a packet is a line: its end is found without looking at the JSON.

Without, the end of a document has to be found by its structure (`read_document()`): an object ends
at the closing brace that matches the first one, an array and a string alike, anything else at the
first byte that cannot be part of it. That is all that is checked here; whether what is in between
is JSON is the decoder's business.

A byte order mark in front of a document is skipped, as RFC 8259, section 8.1, allows.

Peers send anything. What is nested too deeply, or a number too long, is a decode error too. How
deeply a document is nested is known before it is decoded (`_check_depth()`).
"""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Callable, Generator
from functools import partial
from itertools import accumulate
from json import JSONDecodeError, JSONDecoder, JSONEncoder
from typing import Any, Final, final

from easynetwork.exceptions import DeserializeError, IncrementalDeserializeError
from easynetwork.serializers._json_documents import STRUCTURE, TOO_DEEP, WHITE_SPACE, read_document
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    SeparatorFraming,
    overrides,
)
from easynetwork.serializers.framing.framed import parse_frame, read_frame
from easynetwork.serializers.framing.framers import new_framer
from easynetwork.serializers.tools import (
    DEFAULT_MAX_DEPTH,
    DEFAULT_SERIALIZER_LIMIT,
    check_encoding,
    config_options,
    keeps_bytes,
    validated_limit,
    validated_max_depth,
)

__all__ = ["JSONDecoderConfig", "JSONEncoderConfig", "JSONSerializer"]


@dataclasses.dataclass(kw_only=True, slots=True, weakref_slot=True)
class JSONEncoderConfig:
    """How to write JSON: the options of `json.JSONEncoder` of the same names."""

    skipkeys: bool = False
    check_circular: bool = True
    ensure_ascii: bool = True
    allow_nan: bool = True
    default: Callable[[Any], Any] | None = None


@dataclasses.dataclass(kw_only=True, slots=True, weakref_slot=True)
class JSONDecoderConfig:
    """How to read JSON: the options of `json.JSONDecoder` of the same names."""

    object_hook: Callable[[dict[str, Any]], Any] | None = None
    parse_int: Callable[[str], Any] | None = None
    parse_float: Callable[[str], Any] | None = None
    parse_constant: Callable[[str], Any] | None = None
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
    strict: bool = True


class JSONSerializer(AbstractIncrementalPacketSerializer[Any, Any]):
    """Packets are JSON documents.

    Args:
        encoder_config: How to write JSON.
        decoder_config: How to read JSON.
        encoding: The encoding of the documents. Over a stream, the bytes of ASCII characters have
            to be the same in it, and stand for nothing else: UTF-16 is for datagrams, and for
            wrappers that find the end of a packet.
        unicode_errors: What to do with characters and bytes that `encoding` does not know; see
            :ref:`error handlers <error-handlers>`.
        limit: The most bytes of a document.
        use_lines: Whether each document is one line. If not, documents may follow each other
            without anything in between, and be spread over several lines; to find their ends costs
            more.
        max_depth: How many arrays and objects may be inside each other in a received document.
        debug: Whether errors carry ``error_info``, a dictionary: the received ``data`` if it is not
            text, otherwise the ``document`` and the ``position``, ``lineno`` and ``colno`` in it of
            what is wrong (None if that cannot be told).

    Documents are sent without any optional white space.

    Raises:
        LookupError: `encoding` or `unicode_errors` is unknown.
        TypeError: A configuration is of the wrong class.
        ValueError: `limit` or `max_depth` is not positive; or lines cannot be told apart in
            `encoding`.
    """

    __slots__ = (
        *("_byte_order_mark", "_debug", "_encode", "_encoding", "_framing"),
        *("_has_structure", "_limit", "_max_depth", "_raw_decode", "_unicode_errors"),
    )

    def __init__(
        self,
        encoder_config: JSONEncoderConfig | None = None,
        decoder_config: JSONDecoderConfig | None = None,
        *,
        encoding: str = "utf-8",
        unicode_errors: str = "strict",
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        use_lines: bool = True,
        max_depth: int = DEFAULT_MAX_DEPTH,
        debug: bool = False,
    ) -> None:
        super().__init__()
        encoder_options = config_options("encoder", encoder_config, JSONEncoderConfig)
        decoder_options = config_options("decoder", decoder_config, JSONDecoderConfig)
        check_encoding(encoding, unicode_errors)
        if use_lines and not keeps_bytes(encoding, "\n"):
            raise ValueError(
                f"Lines cannot be told apart in {encoding!r}. For datagrams, or inside a wrapper, "
                "set use_lines=False"
            )
        is_utf8 = codecs.lookup(encoding).name.startswith("utf-8")
        # Whether the end of a document can be found in a stream.
        self._has_structure = keeps_bytes(encoding, STRUCTURE)
        self._byte_order_mark = codecs.BOM_UTF8 if is_utf8 else b""
        self._encode = JSONEncoder(**encoder_options, separators=(",", ":")).encode
        self._raw_decode = _Decoder(**decoder_options).raw_decode
        self._encoding = encoding
        self._unicode_errors = unicode_errors
        self._limit = validated_limit(limit)
        self._max_depth = validated_max_depth(max_depth)
        self._framing = SeparatorFraming(b"\n", limit) if use_lines else None
        self._debug = bool(debug)

    @property
    @final
    def buffer_limit(self) -> int:
        """The most bytes of a document."""
        return self._limit

    @property
    @final
    def debug(self) -> bool:
        """Whether errors carry ``error_info``."""
        return self._debug

    @final
    def serialize(self, packet: Any) -> bytes:
        """Return the document of `packet`."""
        return self._encode(packet).encode(self._encoding, self._unicode_errors)

    @final
    def deserialize(self, data: bytes) -> Any:
        """Make a packet of one document, maybe with white space around it.

        Raises:
            DeserializeError: `data` is not text, or not a JSON document.
        """
        try:
            return self.deserialize_frame(data)
        except IncrementalDeserializeError as exc:
            raise DeserializeError(str(exc), exc.error_info) from exc.__cause__

    @final
    def sends_frames(self) -> bool:
        """Whether `incremental_serialize()` is not overridden."""
        return not overrides(self, JSONSerializer, "incremental_serialize")

    @final
    def receives_frames(self, *, buffered: bool) -> bool:
        """Whether a document is a line, and `incremental_deserialize()` is not overridden.

        Raises:
            ValueError: The end of a document cannot be found in the encoding.
        """
        if buffered or overrides(self, JSONSerializer, "incremental_deserialize"):
            return False  # a generator that is given a buffer is a subclass's own
        return self.framing() is not None

    def framing(self) -> SeparatorFraming | None:
        """Return where a line ends; None without `use_lines`.

        Raises:
            ValueError: The end of a document cannot be found in the encoding.
        """
        if self._framing is None and not self._has_structure:
            raise ValueError(
                f"The end of a JSON document cannot be found in {self._encoding!r}. For a stream, "
                "use UTF-8, or a wrapper such as LengthPrefixedSerializer"
            )
        return self._framing

    def serialize_frame(self, packet: Any, /) -> bytes:
        """Return the document of `packet`, and a newline where a receiver needs one."""
        data = self._encode(packet).encode(self._encoding, self._unicode_errors)
        if self._framing is None and data.startswith((b"{", b"[", b'"')):
            return data
        return data + b"\n"

    def deserialize_frame(self, frame: bytes, /) -> Any:
        """Make a packet of one document, maybe with white space around it."""
        try:
            document = frame.decode(self._encoding, self._unicode_errors).strip(WHITE_SPACE)
        except UnicodeError as exc:
            info = {"data": frame} if self._debug else None
            raise IncrementalDeserializeError(f"Unicode decode error: {exc}", b"", info) from exc
        if not document and not self._debug:
            # What a peer can send most of: it is spared the decoder's own exception.
            raise IncrementalDeserializeError(_NOTHING, b"")
        while True:
            try:
                # Two brackets' count costs little, and tells of most documents that they are not
                # deep.
                if document.count("[") + document.count("{") > self._max_depth:
                    _check_depth(document, self._max_depth)
                packet, end = self._raw_decode(document)
                if end != len(document):
                    raise JSONDecodeError("Extra data", document, end)
                return packet
            except (ValueError, RecursionError) as exc:
                # ValueError: not JSON, too deep, or an integer of more digits than Python converts.
                # A byte order mark is looked for only here: most documents have none.
                rest = document[1:].lstrip(WHITE_SPACE)
                if document[:1] == _BYTE_ORDER_MARK != rest[:1]:
                    document = rest
                    continue
                info = _error_info(document, exc) if self._debug else None
                raise IncrementalDeserializeError(f"JSON decode error: {exc}", b"", info) from exc

    def incremental_serialize(self, packet: Any) -> Generator[bytes, None, None]:
        """Yield what `serialize_frame()` returns."""
        yield self.serialize_frame(packet)

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Any, bytes]]:
        """Parse the next document."""
        framing = self.framing()
        if framing is None:
            document, remaining_data = yield from read_document(
                self._limit, self._max_depth, self._byte_order_mark
            )
        else:
            framer = new_framer(framing, buffered=False)
            document, remaining_data = yield from read_frame(framer)
        return parse_frame(self, document, remaining_data)


class _Decoder(JSONDecoder):
    """A decoder that can be pickled."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._options = options

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(_Decoder, **self._options), ()


def _error_info(document: str, exc: Exception) -> dict[str, Any]:
    return {
        "document": document,
        "position": getattr(exc, "pos", None),
        "lineno": getattr(exc, "lineno", None),
        "colno": getattr(exc, "colno", None),
    }


# -- How deeply a document is nested -----------------------------------------------------------

_NOTHING: Final = "JSON decode error: Expecting value: line 1 column 1 (char 0)"
_BYTE_ORDER_MARK: Final = "\ufeff"
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = [(byte in b"[{") - (byte in b"]}") for byte in range(256)]


def _check_depth(document: str, max_depth: int) -> None:
    """Make sure that no more than `max_depth` brackets are open at once, those in strings apart.

    If the document is not valid, the brackets after the first error may be counted wrong.

    Raises:
        ValueError: The document is nested more deeply.
    """
    # Backslashes are in strings only, where they come in pairs or before a single character.
    unescaped = document.replace("\\\\", "").replace('\\"', "")
    outside = "".join(unescaped.split('"')[::2]).encode("ascii", "replace")
    steps = map(_STEPS.__getitem__, outside.translate(None, _NO_BRACKETS))
    if max(accumulate(steps), default=0) > max_depth:
        raise ValueError(TOO_DEEP)
