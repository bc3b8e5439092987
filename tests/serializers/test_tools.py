from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import weakref
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easynetwork.exceptions import LimitOverrunError
from easynetwork.serializers.tools import (
    DEFAULT_MAX_DEPTH,
    DEFAULT_SERIALIZER_LIMIT,
    GeneratorStreamReader,
    check_encoding,
    check_limit,
    check_max_depth,
    config_options,
    import_extra,
)
from tests.tools import assert_linear, byte_by_byte, cuts, every_cut

Read = Callable[[GeneratorStreamReader], Generator[None, bytes, bytes]]


def run(reader: GeneratorStreamReader, read: Read, *chunks: bytes) -> bytes:
    """Send chunks to one reading method, all of which it has to need; return what it read."""
    reading = read(reader)
    try:
        next(reading)
        for chunk in chunks:
            reading.send(chunk)
    except StopIteration as stop:
        result: bytes = stop.value
        return result
    raise AssertionError("The method wants more data")


# -- Options -----------------------------------------------------------------------------------


def test_default_limit() -> None:
    """The default limit is 64 KiB."""
    assert DEFAULT_SERIALIZER_LIMIT == 65536


def test_check_limit() -> None:
    """A limit is at least one byte."""
    assert check_limit(1) == 1
    with pytest.raises(ValueError, match=r"^limit must be a positive integer$"):
        check_limit(0)


def test_check_max_depth() -> None:
    """A depth is at least one container."""
    assert check_max_depth(1) == 1
    with pytest.raises(ValueError, match=r"^max_depth must be a positive integer$"):
        check_max_depth(0)


def test_default_max_depth() -> None:
    """What is as deep as that can be handled without a thought of its depth."""
    deep: Any = []
    for _ in range(DEFAULT_MAX_DEPTH - 1):
        deep = [deep]

    assert copy.deepcopy(deep) == deep
    assert json.loads(json.dumps(deep)) == deep
    assert pickle.loads(pickle.dumps(deep)) == deep
    assert len(repr(deep)) == 2 * DEFAULT_MAX_DEPTH


@dataclasses.dataclass
class Config:
    """Any configuration."""

    one: int = 1
    two: Any = None


def test_config_options() -> None:
    """A configuration is its fields, as they are."""
    value = Config()

    assert config_options("test", Config(2, value), Config) == {"one": 2, "two": value}
    assert config_options("test", None, Config) == {"one": 1, "two": None}
    with pytest.raises(TypeError, match=r"^Invalid test config: expected Config, got dict$"):
        config_options("test", {}, Config)


def test_import_extra() -> None:
    """What is missing is named, with what to do about it."""
    assert import_extra("json", "whatever") is json
    with pytest.raises(
        ModuleNotFoundError, match="^extra dependencies are missing. Consider adding 'extra' extra"
    ) as caught:
        import_extra("no_such_module", "extra")
    assert caught.value.name == "no_such_module"
    assert caught.value.__notes__ == ['Example: pip install "easynetwork[extra]"']


@pytest.mark.parametrize(
    ("encoding", "errors"), [("martian", "strict"), ("hex", "strict"), ("utf-8", "forgive")]
)
def test_check_encoding(encoding: str, errors: str) -> None:
    """Neither an unknown encoding, nor one not for text, nor an unknown error handler goes by."""
    check_encoding("utf-8", "replace")
    with pytest.raises(LookupError):
        check_encoding(encoding, errors)


# -- Reader ------------------------------------------------------------------------------------


def test_read_all() -> None:
    """All that is there is read at once, and only once."""
    reader = GeneratorStreamReader(bytearray(b"data"))

    assert reader.read_all() == b"data"
    assert reader.read_all() == b""


def test_read_what_is_there() -> None:
    """What is there is read without waiting, up to the size."""
    reader = GeneratorStreamReader(b"abcdef")

    assert run(reader, lambda r: r.read(4)) == b"abcd"
    assert run(reader, lambda r: r.read(4)) == b"ef"


def test_read_waits_for_one_byte() -> None:
    """If nothing is there, one chunk is enough; what is too much stays there."""
    reader = GeneratorStreamReader()

    assert run(reader, lambda r: r.read(4), b"a") == b"a"
    assert run(reader, lambda r: r.read(4), b"abcdef") == b"abcd"
    assert reader.read_all() == b"ef"


def test_read_exactly() -> None:
    """A number of bytes is waited for; what is too much stays there."""
    reader = GeneratorStreamReader(b"a")

    assert run(reader, lambda r: r.read_exactly(4), b"b", b"cde") == b"abcd"
    assert run(reader, lambda r: r.read_exactly(1)) == b"e"


@pytest.mark.parametrize("read", [GeneratorStreamReader.read, GeneratorStreamReader.read_exactly])
def test_read_nothing(read: Callable[..., Any]) -> None:
    """To read nothing, there is nothing to wait for."""
    assert run(GeneratorStreamReader(), lambda r: read(r, 0)) == b""
    assert run(GeneratorStreamReader(b"data"), lambda r: read(r, 0)) == b""


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda r: r.read(-1), "size must not be < 0"),
        (lambda r: r.read_exactly(-1), "n must not be < 0"),
        (lambda r: r.read_until(b"|", 0), "limit must be a positive integer"),
        (lambda r: r.read_until(b"", 10), "Empty separator"),
    ],
)
def test_wrong_arguments(read: Read, message: str) -> None:
    """Wrong arguments are refused before anything is waited for."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        run(GeneratorStreamReader(), read)


@pytest.mark.parametrize(("keep_end", "expected"), [(True, b"abc\r\n"), (False, b"abc")])
def test_read_until(keep_end: bool, expected: bytes) -> None:
    """The bytes before a separator are found however they are cut; what follows stays there."""

    def read(reader: GeneratorStreamReader) -> Generator[None, bytes, bytes]:
        return reader.read_until(b"\r\n", 10, keep_end=keep_end)

    for chunks in every_cut(b"abc\r\n"):
        reader = GeneratorStreamReader()
        assert run(reader, read, *chunks[:-1], chunks[-1] + b"d\r") == expected
        assert run(reader, read, b"\n") == b"d\r\n"[: None if keep_end else 1]


def test_read_until_keeps_the_end_by_default() -> None:
    """Nothing is lost unless it is asked for."""
    assert run(GeneratorStreamReader(b"abc|d"), lambda r: r.read_until(b"|", 10)) == b"abc|"


@given(st.data())
def test_read_until_limit(data: st.DataObject) -> None:
    """A separator is accepted up to the limit and not beyond, however the stream is cut."""
    separator = data.draw(st.sampled_from([b"|", b"\r\n", b"---"]))
    limit = data.draw(st.integers(1, 20))
    size = data.draw(st.integers(0, 25))
    chunks = data.draw(cuts(b"x" * size + separator))
    reader = GeneratorStreamReader()

    def read(reader: GeneratorStreamReader) -> Generator[None, bytes, bytes]:
        return reader.read_until(separator, limit)

    if size <= limit:
        assert run(reader, read, *chunks) == b"x" * size + separator
    else:
        with pytest.raises(LimitOverrunError):
            run(reader, read, *chunks)


def test_limit_error_before_the_separator() -> None:
    """Without a separator, no more is kept than the limit and a separator not complete yet."""
    reader = GeneratorStreamReader()
    message = r"^Separator is not found, and chunk exceed the limit$"
    with pytest.raises(LimitOverrunError, match=message) as caught:
        run(reader, lambda r: r.read_until(b"\r\n", 4), b"abcd\r", b"\r")

    assert caught.value.consumed == 5
    assert caught.value.remaining_data == b"\r"
    assert reader.read_all() == b"abcd\r\r"


def test_limit_error_at_the_separator() -> None:
    """With a separator too far, what follows it is what remains."""
    reader = GeneratorStreamReader(b"abcde\r\nnext")
    message = r"^Separator is found, but chunk is longer than limit$"
    with pytest.raises(LimitOverrunError, match=message) as caught:
        run(reader, lambda r: r.read_until(b"\r\n", 4))

    assert caught.value.consumed == 5
    assert caught.value.remaining_data == b"next"
    assert reader.read_all() == b"abcde\r\nnext"


@pytest.mark.parametrize("separator", [b"|", b"\r\n"])
def test_cost_of_read_until(separator: bytes) -> None:
    """A byte costs the same however much is there already."""

    def work(size: int) -> None:
        data = b"\r" * size + separator
        run(GeneratorStreamReader(), lambda r: r.read_until(separator, size), *byte_by_byte(data))

    assert_linear(work, 20_000)


def test_slots() -> None:
    """A reader is small, and can be referred to weakly."""
    reader = GeneratorStreamReader()

    assert not hasattr(reader, "__dict__")
    assert weakref.ref(reader)() is reader
