"""Where a JSON document ends, if documents follow each other without lines.

See `easynetwork.serializers.json`. Compiled patterns jump from one significant byte to the next,
and a scan goes on where the last chunk ended: each byte is looked at once, however the stream is
cut.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final

from easynetwork.exceptions import IncrementalDeserializeError, LimitOverrunError

TOO_DEEP: Final = "The document is nested too deeply"
WHITE_SPACE: Final = " \t\n\r"  # RFC 8259, section 2.
STRUCTURE: Final = WHITE_SPACE + '"\\[]{}'
_WHITE_SPACE_BYTES: Final = WHITE_SPACE.encode()
_QUOTE: Final = ord('"')

# As much as there is of a string's inside, without a backslash whose second byte is yet to come.
_INSIDE: Final = rb'(?:[^"\\]++|\\.)*+'
_STRING_INSIDE: Final = re.compile(_INSIDE, re.DOTALL)
# What may be skipped between the brackets of a document, by the document's first byte: everything
# but brackets of the same kind, and a string that is not complete yet. (Whether brackets of the
# other kind match, the decoder will tell. A document that is a string has no brackets.)
_INSIGNIFICANT: Final = {
    ord("{"): re.compile(rb'(?:[^"{}]++|"%s")*+' % _INSIDE, re.DOTALL),
    ord("["): re.compile(rb'(?:[^"\[\]]++|"%s")*+' % _INSIDE, re.DOTALL),
    _QUOTE: re.compile(rb""),
}
_NOT_PLAIN: Final = re.compile(rb"[^\x20-\x7e]")


def read_document(
    limit: int, max_depth: int, byte_order_mark: bytes
) -> Generator[None, bytes, tuple[bytes, bytes]]:
    """Read one document; return it and what follows, without the white space around it.

    Raises:
        IncrementalDeserializeError: The document is nested too deeply. All of it is dropped.
        LimitOverrunError: The document has more than `limit` bytes. Where it ends is not said, even
            if that is at hand: what comes next must not depend on how the stream was cut.
    """
    buffer = bytearray()
    while not buffer:
        buffer += (yield).lstrip(_WHITE_SPACE_BYTES)
    if byte_order_mark and buffer[0] == byte_order_mark[0]:
        yield from _skip_mark(buffer, byte_order_mark)
    if buffer[0] in _INSIGNIFICANT:
        end = yield from _find_closer(buffer, limit, max_depth)
    else:
        end = yield from _find_plain_end(buffer, limit)
    if end > limit:
        message = "JSON object's end frame is found, but chunk is longer than limit"
        raise LimitOverrunError(message, buffer, end, end_is_known=False)
    return bytes(buffer[:end]), bytes(buffer[end:].lstrip(_WHITE_SPACE_BYTES))


def _skip_mark(buffer: bytearray, mark: bytes) -> Generator[None, bytes, None]:
    """Remove a byte order mark from the front of `buffer`, and leave what follows it, if any."""
    while len(buffer) < len(mark) and mark.startswith(bytes(buffer)):
        buffer += yield
    if buffer.startswith(mark):
        buffer[:] = buffer[len(mark) :].lstrip(_WHITE_SPACE_BYTES)
        while not buffer:
            buffer += (yield).lstrip(_WHITE_SPACE_BYTES)


def _find_closer(buffer: bytearray, limit: int, max_depth: int) -> Generator[None, bytes, int]:
    """Return the index after the bracket or quote that matches the first byte.

    Raises:
        IncrementalDeserializeError: Brackets are nested too deeply. No part of the document may be
            taken for another one, so its end is found first.
    """
    insignificant = _INSIGNIFICANT[buffer[0]]
    depth = deepest = 0
    in_string = False
    offset = 0
    while True:
        skip = _STRING_INSIDE if in_string else insignificant
        offset = skip.match(buffer, offset).end()  # type: ignore[union-attr]  # "" matches too.
        if offset == len(buffer) or (in_string and buffer[offset] != _QUOTE):
            yield from _receive(buffer, limit)
            continue
        byte = buffer[offset]
        offset += 1
        if byte == _QUOTE:
            in_string = not in_string
        elif byte == buffer[0]:
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
        if depth == 0 and not in_string:
            if deepest > max_depth and offset <= limit:
                rest = buffer[offset:].lstrip(_WHITE_SPACE_BYTES)
                raise IncrementalDeserializeError(f"JSON decode error: {TOO_DEEP}", rest)
            return offset


def _find_plain_end(buffer: bytearray, limit: int) -> Generator[None, bytes, int]:
    """Return the index of the first byte that no number or word has in it.

    If that is the very first one, there is no document here: let the decoder see everything.
    """
    offset = 0
    while not (end := _NOT_PLAIN.search(buffer, offset)):
        offset = len(buffer)
        yield from _receive(buffer, limit)
    return end.start() or len(buffer)


def _receive(buffer: bytearray, limit: int) -> Generator[None, bytes, None]:
    if len(buffer) > limit:
        raise LimitOverrunError(
            "JSON object's end frame is not found, and chunk exceed the limit", buffer, len(buffer)
        )
    buffer += yield
