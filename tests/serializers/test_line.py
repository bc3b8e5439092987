from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import pytest
from hypothesis import given, strategies as st

from easynetwork.exceptions import (
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
)
from easynetwork.serializers import StringLineSerializer
from easynetwork.serializers.abc import SeparatorFraming
from tests.tools import (
    Parser,
    ascii_lines,
    check_every_cut,
    cuts,
    feed,
    parse_one,
    through_buffer,
    through_frames,
)

Way = Callable[[Any], Callable[[], Parser]]
Newline = Literal["LF", "CR", "CRLF"]

every_way = pytest.mark.parametrize(
    "way",
    [
        pytest.param(lambda serializer: serializer.incremental_deserialize, id="chunks"),
        pytest.param(through_buffer, id="buffer"),
        pytest.param(through_frames, id="frames"),
    ],
)
every_newline = pytest.mark.parametrize(
    ("newline", "separator"), [("LF", b"\n"), ("CR", b"\r"), ("CRLF", b"\r\n")]
)


@every_newline
def test_properties(newline: Newline, separator: bytes) -> None:
    """A serializer shows its options."""
    serializer = StringLineSerializer(
        newline, encoding="utf-8", unicode_errors="replace", limit=100, keep_end=True, debug=True
    )

    assert serializer.separator == separator
    assert serializer.encoding == "utf-8"
    assert serializer.unicode_errors == "replace"
    assert serializer.buffer_limit == 100
    assert serializer.keep_end is True
    assert serializer.debug is True
    assert serializer.framing() == SeparatorFraming(separator, 100, keep_end=True)
    assert not hasattr(serializer, "__dict__")


def test_default_properties() -> None:
    """By default, lines are ASCII and end with a line feed."""
    serializer = StringLineSerializer()

    assert serializer.separator == b"\n"
    assert (serializer.encoding, serializer.unicode_errors) == ("ascii", "strict")
    assert serializer.buffer_limit == 65536
    assert serializer.keep_end is False
    assert serializer.debug is False


@pytest.mark.parametrize(
    ("options", "error_type", "message"),
    [
        ({"newline": "LFCR"}, ValueError, "Invalid newline: expected .*, got 'LFCR'"),
        ({"newline": "\n"}, ValueError, "Invalid newline: expected .*"),
        ({"limit": 0}, ValueError, "limit must be a positive integer"),
        ({"encoding": "martian"}, LookupError, "unknown encoding: martian"),
        ({"unicode_errors": "forgive"}, LookupError, "unknown error handler name 'forgive'"),
    ],
)
def test_wrong_options(options: dict[str, Any], error_type: type[Exception], message: str) -> None:
    """Wrong options are refused at construction."""
    with pytest.raises(error_type, match=f"^{message}$"):
        StringLineSerializer(**options)


# -- One-shot ----------------------------------------------------------------------------------


def test_serialize() -> None:
    """As a datagram, a line has no end."""
    assert StringLineSerializer().serialize("hello") == b"hello"
    assert StringLineSerializer().serialize("hello\n") == b"hello\n"


@pytest.mark.parametrize(
    ("keep_end", "data", "packet"),
    [
        (False, b"hello", "hello"),
        (False, b"hello\r\n", "hello"),
        (False, b"hello\r\n\r\n", "hello"),
        (False, b"hello\n\r\n", "hello\n"),
        (False, b"\r\n", ""),
        (False, b"", ""),
        (True, b"hello\r\n\r\n", "hello\r\n\r\n"),
    ],
)
def test_deserialize(keep_end: bool, data: bytes, packet: str) -> None:
    """As a datagram, a line may have any number of ends, which are removed or kept."""
    assert StringLineSerializer("CRLF", keep_end=keep_end).deserialize(data) == packet


@pytest.mark.parametrize(("newline", "end"), [("LF", b"\n"), ("CR", b"\r"), ("CRLF", b"\r\n")])
@pytest.mark.cost
def test_many_ends(newline: Newline, end: bytes) -> None:
    """To remove as many ends of line as a datagram can have costs about what to read it does."""
    serializer = StringLineSerializer(newline)
    data = end * (65_536 // len(end))
    assert serializer.deserialize(b"a" + data) == "a"

    def cost() -> float:
        start = time.process_time()
        serializer.deserialize(data)
        return time.process_time() - start

    assert min(cost() for _ in range(10)) < 0.000_3


@pytest.mark.parametrize(("debug", "info"), [(False, None), (True, {"data": b"\xff"})])
def test_deserialize_error(debug: bool, info: Any) -> None:
    """What is not text is an error."""
    with pytest.raises(DeserializeError, match="'ascii' codec can't decode byte") as caught:
        StringLineSerializer(debug=debug).deserialize(b"\xff\n")

    assert type(caught.value) is DeserializeError
    assert isinstance(caught.value.__cause__, UnicodeDecodeError)
    assert caught.value.error_info == info


# -- Streams -----------------------------------------------------------------------------------


@every_newline
@pytest.mark.parametrize("keep_end", [False, True])
def test_serialize_frame(newline: Newline, separator: bytes, keep_end: bool) -> None:
    """A line is sent with one end, an empty one too."""
    serializer = StringLineSerializer(newline, keep_end=keep_end)
    for packet, chunks in {
        "hello": [b"hello" + separator],
        "hello" + separator.decode(): [b"hello" + separator],
        separator.decode(): [separator],
        "": [separator],
    }.items():
        assert list(serializer.incremental_serialize(packet)) == chunks
        assert serializer.serialize_frame(packet) == b"".join(chunks)


def test_serialize_error() -> None:
    """What cannot be sent is the sender's error, unchanged."""
    with pytest.raises(UnicodeEncodeError):
        StringLineSerializer().serialize_frame("é")
    with pytest.raises(UnicodeEncodeError):
        list(StringLineSerializer().incremental_serialize("é"))
    assert StringLineSerializer(encoding="latin-1").serialize_frame("é") == b"\xe9\n"
    assert StringLineSerializer(unicode_errors="replace").serialize_frame("é") == b"?\n"


@every_way
@every_newline
@pytest.mark.parametrize("keep_end", [False, True])
def test_parse(way: Way, newline: Newline, separator: bytes, keep_end: bool) -> None:
    """The same lines and errors come out however the stream is cut, and an error hurts nobody."""
    serializer = StringLineSerializer(newline, encoding="utf-8", keep_end=keep_end)
    stream = separator.join(["é".encode(), b"", b"\xff", b"last", b""])
    end = separator.decode() if keep_end else ""
    message = "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
    not_text = (IncrementalDeserializeError, message)

    check_every_cut(
        way(serializer), stream, ["é" + end, end, not_text, "last" + end], trailing=b"more"
    )


@every_way
@given(st.data())
def test_parse_by_hypothesis(way: Way, data: st.DataObject) -> None:
    """What is sent as lines is received as the same lines, however the stream is cut."""
    serializer = StringLineSerializer("CRLF")
    lines = data.draw(st.lists(ascii_lines("\r\n").filter(bool)))
    stream = b"".join(map(serializer.serialize_frame, lines))

    assert feed(way(serializer), data.draw(cuts(stream))) == (lines, b"")


@every_way
@pytest.mark.parametrize(("debug", "info"), [(False, None), (True, {"data": b"\xff"})])
def test_parse_error_info(way: Way, debug: bool, info: Any) -> None:
    """Bad data is in the error only if it was asked for, what follows always."""
    with pytest.raises(IncrementalDeserializeError) as caught:
        parse_one(way(StringLineSerializer(debug=debug))(), b"\xff\nnext\n")

    assert caught.value.error_info == info
    assert caught.value.remaining_data == b"next\n"
    assert isinstance(caught.value.__cause__, UnicodeDecodeError)


def test_limit() -> None:
    """A line is as long as the limit at most; in a buffer, its end and a byte more fit in too."""
    serializer = StringLineSerializer(limit=10, keep_end=True)
    too_long = (LimitOverrunError, "Separator is found, but chunk is longer than limit")
    for new_parser, most in (
        (serializer.incremental_deserialize, 10),
        (through_buffer(serializer), 8),
    ):
        stream = b"x" * most + b"\n" + b"x" * (most + 1) + b"\nend\n"
        assert feed(new_parser, [stream])[0] == ["x" * most + "\n", too_long, "end\n"]
    assert len(serializer.create_deserializer_buffer(1)) == 10


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp037", "punycode"])
def test_encodings_without_lines(encoding: str) -> None:
    """An end of line that could not be found is refused at once."""
    message = rf"^The ends of lines \(LF\) cannot be found in '{encoding}'$"
    with pytest.raises(ValueError, match=message):
        StringLineSerializer(encoding=encoding)


@pytest.mark.parametrize(
    ("newline", "encoding"),
    [
        ("LF", "shift_jis"),
        ("CRLF", "gb18030"),
        ("CR", "cp037"),
        ("LF", "utf-8-sig"),
        ("LF", "utf-7"),
    ],
)
def test_encodings_with_lines(newline: Newline, encoding: str) -> None:
    """All others work. EBCDIC has ASCII's carriage return, but another line feed."""
    serializer = StringLineSerializer(newline, encoding=encoding)
    lines = ["a", "", "éß" if encoding.startswith(("utf", "cp")) else "日本", "z"]
    stream = b"".join(map(serializer.serialize_frame, lines))

    check_every_cut(serializer.incremental_deserialize, stream, lines)
