from __future__ import annotations

import ast
import copy
import dataclasses
import encodings.aliases
import json
import math
import pickle
import tomllib
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from easynetwork.exceptions import LimitOverrunError
from easynetwork.serializers import tools
from easynetwork.serializers.tools import (
    DEFAULT_MAX_DEPTH,
    DEFAULT_SERIALIZER_LIMIT,
    GeneratorStreamReader,
    check_encoding,
    config_options,
    keeps_bytes,
    validated_limit,
    validated_max_depth,
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
    assert validated_limit(1) == 1
    with pytest.raises(ValueError, match=r"^limit must be a positive integer$"):
        validated_limit(0)


def test_check_max_depth() -> None:
    """A depth is at least one container."""
    assert validated_max_depth(1) == 1
    with pytest.raises(ValueError, match=r"^max_depth must be a positive integer$"):
        validated_max_depth(0)


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


@pytest.mark.parametrize("module", ["serializers/cbor", "serializers/msgpack", "backends/registry"])
def test_what_to_install(module: str) -> None:
    """The versions are those that are declared, and the package is never this one's name."""
    root = Path(__file__).resolve().parents[2]
    declared = tomllib.loads((root / "pyproject.toml").read_text())
    extras = declared["project"]["optional-dependencies"]
    source = (root / "src" / "easynetwork" / f"{module}.py").read_text()
    [requirement] = extras[{"registry": "trio"}.get(Path(module).name, Path(module).name)]

    assert f'"{requirement}"' in source


def test_nothing_names_the_distribution() -> None:
    """On the public index, the name of this package is another implementation of its API."""
    root = Path(__file__).resolve().parents[2]
    files = [*root.glob("src/**/*.py"), *root.glob("docs/**/*.rst"), root / "README.md"]
    found = [path for path in files if 'pip install "easynetwork' in path.read_text()]
    assert found == []


@pytest.mark.parametrize(("module", "package"), [("cbor", "cbor2"), ("msgpack", "msgpack")])
def test_imports_can_be_seen(module: str, package: str) -> None:
    """A tool that freezes programs finds what they import, in statements."""
    path = Path(tools.__file__).with_name(f"{module}.py")
    statements = [
        node for node in ast.walk(ast.parse(path.read_text())) if type(node) is ast.Import
    ]
    assert package in [alias.name for statement in statements for alias in statement.names]


@pytest.mark.parametrize("check", [validated_limit, validated_max_depth])
@pytest.mark.parametrize("value", [1.5, math.nan, math.inf, "10", None])
def test_no_integer(check: Any, value: Any) -> None:
    """What is no integer would be no limit."""
    with pytest.raises(TypeError, match="must be a positive integer, not"):
        check(value)


def text_encodings() -> Iterator[str]:
    for name in sorted(set(encodings.aliases.aliases.values())):
        try:
            "a".encode(name)
        except (LookupError, UnicodeError):
            continue
        yield name


@pytest.mark.in_turn
@pytest.mark.parametrize("encoding", list(text_encodings()))
def test_keeps_bytes(encoding: str) -> None:
    """Found by trying each character of the basic plane: does it have that byte in it?"""
    others: list[bytes] = []
    for character in '\n\r"':
        code = character.encode("ascii")
        expected = ("a" + character).encode(encoding) == "a".encode(encoding) + code
        if expected and not others:
            for codes in (range(0x80, 0x3000), range(0x3000, 0xD800), range(0xE000, 0x10000)):
                others.append("".join(map(chr, codes)).encode(encoding, "ignore"))
        expected = expected and not any(code in encoded for encoded in others)
        assert keeps_bytes(encoding, character) is expected, character


@pytest.mark.parametrize(
    ("encoding", "keeps"),
    [
        *(("utf-8", True), ("ascii", True), ("latin-1", True), ("cp1252", True), ("euc_jp", True)),
        *(("utf-8-sig", True), ("shift_jis", True), ("gb18030", True)),
        *(("utf-16", False), ("utf-16-be", False), ("utf-32-le", False), ("cp037", False)),
        *(("cp500", False), ("punycode", False), ("unicode_escape", False)),
    ],
)
def test_newlines(encoding: str, keeps: bool) -> None:
    """Which encodings have lines that can be told apart."""
    assert keeps_bytes(encoding, "\n") is keeps


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
    assert caught.value.separator == b"\r\n"
    assert caught.value.remaining_data == b"\r"
    assert caught.value.missing is None
    assert reader.read_all() == b"abcd\r\r"


@pytest.mark.parametrize("data", [b"abcde", b"abcde\r\nrest"])
def test_limit_error_of_a_part(data: bytes) -> None:
    """If the separator ends only a part of the packet, nobody knows where the packet ends."""
    reader = GeneratorStreamReader()
    with pytest.raises(LimitOverrunError) as caught:
        run(reader, lambda r: r.read_until(b"\r\n", 3, ends_packet=False), data)

    assert caught.value.separator == b""
    assert caught.value.remaining_data == b""
    assert caught.value.missing is None


@pytest.mark.parametrize(
    ("size", "separator", "remaining_data", "missing"),
    [
        (None, b"", b"", None),
        (0, b"", b"cdef|gh", 0),
        (3, b"", b"f|gh", 0),
        (7, b"", b"", 0),
        (10, b"", b"", 3),
        (None, b"|", b"gh", 0),
        (None, b"h|", b"h", None),
        (None, b";", b"", None),
    ],
)
def test_new_limit_error(
    size: int | None, separator: bytes, remaining_data: bytes, missing: int | None
) -> None:
    """The reader knows what was read, so that only what follows has to be counted."""
    reader = GeneratorStreamReader(b"abcdef|gh")
    assert run(reader, lambda r: r.read_exactly(2)) == b"ab"

    error = reader.new_limit_error("too large", size, separator)

    assert str(error) == "too large"
    assert error.remaining_data == remaining_data
    assert error.missing == missing
    assert reader.read_all() == b"cdef|gh"


def test_new_limit_error_of_two_minds() -> None:
    """A packet has one end."""
    with pytest.raises(ValueError, match="^A packet of known size does not end with a separator$"):
        GeneratorStreamReader().new_limit_error("too large", 5, b"|")
    with pytest.raises(ValueError, match="^consumed must not be negative$"):
        GeneratorStreamReader().new_limit_error("too large", -1)


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
@pytest.mark.cost
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
