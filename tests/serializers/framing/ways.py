"""What the tests of framings share: packets that are bytes, and the ways to parse them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from easynetwork.exceptions import DeserializeError, IncrementalDeserializeError
from tests.tools import Parser, through_buffer, through_frames

Way = Callable[[Any], Callable[[], Parser]]

through_chunks = pytest.param(lambda serializer: serializer.incremental_deserialize, id="chunks")
with_a_buffer = pytest.param(through_buffer, id="buffer")
each_generator = pytest.mark.parametrize("way", [through_chunks, with_a_buffer])
every_way = pytest.mark.parametrize(
    "way", [through_chunks, with_a_buffer, pytest.param(through_frames, id="frames")]
)

BAD_WORD = (IncrementalDeserializeError, "Error when deserializing data: bad word")
TOO_DEEP = (IncrementalDeserializeError, "Error when deserializing data: too deep")


def checked(data: bytes) -> bytes:
    """What the tests' serializers make of data: itself, unless it is one of the bad words."""
    if b"bad" in data:
        raise DeserializeError("bad word", {"data": data})
    if b"deep" in data:
        raise RecursionError("too deep")
    return data


def check_keyword_arguments(serializer_class: Any, *arguments: Any) -> None:
    """Assert that arguments of other classes are handed on, and refused if nobody knows them."""

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    class NamedSerializer(serializer_class, Named):
        pass

    new_serializer: Any = NamedSerializer

    assert new_serializer(*arguments, name="x").name == "x"
    with pytest.raises(TypeError):
        serializer_class(*arguments, name="x")


def check_error_info(serializer: Any) -> None:
    """Assert that the information that `deserialize()` gives is not lost."""
    with pytest.raises(IncrementalDeserializeError) as caught:
        serializer.deserialize_frame(b"bad")
    assert caught.value.error_info == {"data": b"bad"}
    assert type(caught.value.__cause__) is DeserializeError
    with pytest.raises(IncrementalDeserializeError) as caught:
        serializer.deserialize_frame(b"deep")
    assert caught.value.error_info is None
    assert type(caught.value.__cause__) is RecursionError
