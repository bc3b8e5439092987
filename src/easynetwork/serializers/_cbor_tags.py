"""Read the tagged values of CBOR that are not read as the library would read them.

See `easynetwork.serializers.cbor` for the reasons. All of it can be pickled: there are no closures.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn

# Tags (https://www.iana.org/assignments/cbor-tags).
_POSITIVE_INTEGER: Final = 2
_NEGATIVE_INTEGER: Final = 3
SHARED_STRING: Final = 25
SHARED_VALUE: Final = 29
_REGULAR_EXPRESSION: Final = 35
_MIME_MESSAGE: Final = 36

_MAX_INTEGER_SIZE: Final = int(sys.int_info.default_max_str_digits * math.log2(10) / 8)


def semantic_decoders(
    cbor2: Any, *, tag_hook: Callable[..., Any] | None, shared_values: bool, shared_strings: bool
) -> dict[int, Callable[[Any, bool], Any]]:
    """Return what makes values of certain tags.

    Each is called with the tagged value, and whether the result has to be immutable.
    """
    error = cbor2.CBORDecodeError
    decoders: dict[int, Callable[[Any, bool], Any]] = {
        _POSITIVE_INTEGER: partial(_read_integer, error),
        _NEGATIVE_INTEGER: partial(_read_negative_integer, error),
        _REGULAR_EXPRESSION: partial(_read_unknown, cbor2.CBORTag, tag_hook, _REGULAR_EXPRESSION),
        _MIME_MESSAGE: partial(_read_unknown, cbor2.CBORTag, tag_hook, _MIME_MESSAGE),
    }
    if not shared_values:
        decoders[SHARED_VALUE] = partial(_refuse_reference, error, "value_sharing")
    if not shared_strings:
        decoders[SHARED_STRING] = partial(_refuse_reference, error, "string_referencing")
    return decoders


def _read_integer(error: type[Exception], value: Any, immutable: bool) -> int:
    if not isinstance(value, bytes):
        raise error("An integer of any size has to be a byte string")
    if len(value) > _MAX_INTEGER_SIZE:
        raise error(f"An integer has more than {_MAX_INTEGER_SIZE} bytes")
    return int.from_bytes(value)


def _read_negative_integer(error: type[Exception], value: Any, immutable: bool) -> int:
    return -1 - _read_integer(error, value, immutable)


def _read_unknown(
    new_tag: Any, tag_hook: Callable[..., Any] | None, number: int, value: Any, immutable: bool
) -> Any:
    tag = new_tag(number, value)
    return tag if tag_hook is None else tag_hook(tag, immutable)


def _refuse_reference(error: type[Exception], option: str, value: Any, immutable: bool) -> NoReturn:
    raise error(f"References are refused unless {option!r} is set")
