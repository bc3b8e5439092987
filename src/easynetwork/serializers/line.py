"""Lines of text.

A packet is a `str`: one line, without its end unless ``keep_end`` is set. An empty line is a packet
too.

A line that was sent with the end-of-line inside arrives as several lines: check what you send.

With ``newline="any"``, a line that ends with CR is complete at once, and an LF that comes next is
dropped. A subclass that overrides a parsing method cannot know that, and gets an empty line if the
two arrive apart.
"""

from __future__ import annotations

from typing import Final, Literal, final

from easynetwork.exceptions import DeserializeError, IncrementalDeserializeError
from easynetwork.serializers.abc import SeparatorFraming
from easynetwork.serializers.framing.framed import FramedPacketSerializer
from easynetwork.serializers.framing.separated import strip_separators
from easynetwork.serializers.tools import DEFAULT_SERIALIZER_LIMIT, check_encoding, keeps_bytes

__all__ = ["StringLineSerializer"]

_SEPARATORS: Final = {"LF": b"\n", "CR": b"\r", "CRLF": b"\r\n", "any": b"\r\n"}


class StringLineSerializer(FramedPacketSerializer[str, str, bytearray]):
    r"""Packets are lines of text.

    Args:
        newline: What ends a line: ``"LF"`` (``\n``), ``"CR"`` (``\r``) or ``"CRLF"`` (``\r\n``).
            With ``"any"``, each of them ends a received line, and CRLF is sent.
        encoding: The encoding of the text. The line's end has to be the same bytes in it as in
            ASCII, and stand for nothing else: not so in UTF-16, for example.
        unicode_errors: What to do with characters and bytes that `encoding` does not know; see
            :ref:`error handlers <error-handlers>`.
        limit: The most bytes of a line, its end not counted. When received into a buffer
            (`BufferedStreamProtocol`), the line's end and one more byte have to fit in as well.
        keep_end: Whether received packets include the line's end.
        allow_unterminated: Whether bytes after the last line's end are a line, too, when the stream
            ends in good order. If TLS was cut off, they are not.
        debug: Whether errors carry ``error_info``: a dictionary with the received ``data``.

    Raises:
        LookupError: `encoding` or `unicode_errors` is unknown.
        ValueError: `newline` is unknown, or cannot be found in `encoding`; or `limit` is not
            positive.
    """

    __slots__ = ("_encoding", "_ends", "_framing", "_separator", "_unicode_errors")

    def __init__(
        self,
        newline: Literal["LF", "CR", "CRLF", "any"] = "LF",
        *,
        encoding: str = "ascii",
        unicode_errors: str = "strict",
        limit: int = DEFAULT_SERIALIZER_LIMIT,
        keep_end: bool = False,
        allow_unterminated: bool = False,
        debug: bool = False,
    ) -> None:
        super().__init__(debug=debug)
        if newline not in _SEPARATORS:
            names = ", ".join(map(repr, _SEPARATORS))
            raise ValueError(f"Invalid newline: expected one of {names}, got {newline!r}")
        check_encoding(encoding, unicode_errors)
        if not keeps_bytes(encoding, _SEPARATORS[newline].decode()):
            raise ValueError(f"The ends of lines ({newline}) cannot be found in {encoding!r}")
        self._framing = SeparatorFraming(
            *(_SEPARATORS[newline], limit, bool(keep_end), newline == "any"),
            ends_with_stream=bool(allow_unterminated),
        )
        self._encoding = encoding
        self._unicode_errors = unicode_errors
        # Looked up once: this is asked for each line that is sent.
        self._separator = self._framing.separator
        self._ends = (b"\n", b"\r") if self._framing.any_newline else self._separator

    @property
    @final
    def separator(self) -> bytes:
        """What ends a line that is sent."""
        return self._framing.separator

    @property
    @final
    def buffer_limit(self) -> int:
        """The most bytes of a line."""
        return self._framing.limit

    @property
    @final
    def keep_end(self) -> bool:
        """Whether received packets include the line's end."""
        return self._framing.keep_end

    @property
    @final
    def encoding(self) -> str:
        """The encoding of the text."""
        return self._encoding

    @property
    @final
    def unicode_errors(self) -> str:
        """What is done with what `encoding` does not know."""
        return self._unicode_errors

    @final
    def serialize(self, packet: str) -> bytes:
        """Return `packet` encoded, and nothing more: no end is added to the line."""
        return packet.encode(self._encoding, self._unicode_errors)

    @final
    def deserialize(self, data: bytes) -> str:
        """Return `data` decoded, without any end of line unless `keep_end` is set.

        Raises:
            DeserializeError: `data` cannot be decoded.
        """
        separator = self._framing.separator
        if self._framing.any_newline and not self._framing.keep_end:
            data = data.rstrip(b"\r\n")
        elif data.endswith(separator) and not self._framing.keep_end:
            data = strip_separators(data, separator)
        try:
            return self.deserialize_frame(data)
        except IncrementalDeserializeError as exc:
            raise DeserializeError(str(exc), exc.error_info) from exc.__cause__

    def framing(self) -> SeparatorFraming:
        """Return where a line ends."""
        return self._framing

    def serialize_frame(self, packet: str, /) -> bytes:
        """Return `packet` with its end of line, unless it has one already."""
        data = packet.encode(self._encoding, self._unicode_errors)
        return data if data.endswith(self._ends) else data + self._separator

    def deserialize_frame(self, frame: bytes, /) -> str:
        """Make a packet of one line."""
        try:
            return frame.decode(self._encoding, self._unicode_errors)
        except UnicodeError as exc:
            info = {"data": frame} if self._debug else None
            raise IncrementalDeserializeError(str(exc), b"", info) from exc
