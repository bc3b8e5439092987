from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from easynetwork.codec import new_decoder_factory
from easynetwork.exceptions import (
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
)
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, LengthPrefixedSerializer
from easynetwork.serializers.abc import BufferedIncrementalPacketSerializer, SeparatorFraming
from easynetwork.serializers.framing.framed import parse_in_buffer
from easynetwork.serializers.json import JSONDecoderConfig, JSONEncoderConfig
from tests.tools import (
    Failure,
    Parser,
    assert_linear,
    byte_by_byte,
    check_every_cut,
    cuts,
    every_cut,
    feed,
    json_values,
    parse_one,
    through_frames,
)

NOT_FOUND = (
    LimitOverrunError,
    "JSON object's end frame is not found, and chunk exceed the limit",
)
FOUND = (
    LimitOverrunError,
    "JSON object's end frame is found, but chunk is longer than limit",
)

every_line_parser = pytest.mark.parametrize(
    "way",
    [
        pytest.param(lambda serializer: serializer.incremental_deserialize, id="chunks"),
        pytest.param(through_frames, id="frames"),
    ],
)
Way = Callable[[Any], Callable[[], Parser]]


def expecting_value(position: int) -> Failure:
    """The error of a line that has something else than JSON at `position`."""
    where = f"line 1 column {position + 1} (char {position})"
    return IncrementalDeserializeError, f"JSON decode error: Expecting value: {where}"


def bare(**options: Any) -> JSONSerializer:
    """A serializer for documents that follow each other."""
    return JSONSerializer(use_lines=False, **options)


def test_properties() -> None:
    """A serializer shows its options."""
    serializer = JSONSerializer(limit=100, debug=True)

    assert serializer.buffer_limit == 100
    assert serializer.debug is True
    assert serializer.framing() == SeparatorFraming(b"\n", 100)
    assert JSONSerializer().buffer_limit == 65536
    assert JSONSerializer().debug is False
    assert not hasattr(serializer, "__dict__")


def test_no_frames_without_lines() -> None:
    """Only lines tell where a document ends without a look at it."""
    assert bare().framing() is None


@pytest.mark.parametrize(
    ("options", "error_type", "message"),
    [
        ({"limit": 0}, ValueError, "limit must be a positive integer"),
        ({"max_depth": 0}, ValueError, "max_depth must be a positive integer"),
        ({"encoding": "martian"}, LookupError, "unknown encoding: martian"),
        ({"unicode_errors": "forgive"}, LookupError, "unknown error handler name 'forgive'"),
        (
            {"encoder_config": JSONDecoderConfig()},
            TypeError,
            "Invalid encoder config: expected JSONEncoderConfig, got JSONDecoderConfig",
        ),
        (
            {"decoder_config": {}},
            TypeError,
            "Invalid decoder config: expected JSONDecoderConfig, got dict",
        ),
    ],
)
def test_wrong_options(options: dict[str, Any], error_type: type[Exception], message: str) -> None:
    """Wrong options are refused at construction."""
    with pytest.raises(error_type, match=f"^{message}$"):
        JSONSerializer(**options)


# -- Configuration -----------------------------------------------------------------------------


def test_default_configuration() -> None:
    """The defaults are those of the json module."""
    assert dataclasses.asdict(JSONEncoderConfig()) == {
        "skipkeys": False,
        "check_circular": True,
        "ensure_ascii": True,
        "allow_nan": True,
        "default": None,
    }
    assert dataclasses.asdict(JSONDecoderConfig()) == {
        "object_hook": None,
        "parse_int": None,
        "parse_float": None,
        "parse_constant": None,
        "object_pairs_hook": None,
        "strict": True,
    }


def test_encoder_configuration() -> None:
    """Documents are written as configured."""
    config = JSONEncoderConfig(skipkeys=True, ensure_ascii=False, default=repr)
    serializer = JSONSerializer(config)

    assert serializer.serialize({"é": 1j, (): 2}) == '{"é":"1j"}'.encode()
    assert JSONSerializer().serialize("é") == b'"\\u00e9"'
    with pytest.raises(ValueError, match="Out of range"):
        JSONSerializer(JSONEncoderConfig(allow_nan=False)).serialize(math.nan)


def test_decoder_configuration() -> None:
    """Documents are read as configured."""
    config = JSONDecoderConfig(parse_int=str, parse_float=str, parse_constant=str, strict=False)
    assert JSONSerializer(decoder_config=config).deserialize(b'[1,2.5,NaN,"\t"]') == [
        "1",
        "2.5",
        "NaN",
        "\t",
    ]
    config = JSONDecoderConfig(object_hook=list)
    assert JSONSerializer(None, config).deserialize(b'{"a":1}') == ["a"]
    config = JSONDecoderConfig(object_pairs_hook=tuple)
    assert JSONSerializer(None, config).deserialize(b'{"a":1}') == (("a", 1),)


# -- One-shot ----------------------------------------------------------------------------------


def test_serialize() -> None:
    """A document has no white space that it does not need."""
    assert JSONSerializer().serialize({"a": [1, None]}) == b'{"a":[1,null]}'


def test_serialize_error() -> None:
    """What cannot be sent is the sender's error, unchanged."""
    circular: list[Any] = []
    circular.append(circular)
    for packet, error_type in (object(), TypeError), (circular, ValueError):
        with pytest.raises(error_type):
            JSONSerializer().serialize(packet)
        with pytest.raises(error_type):
            JSONSerializer().serialize_frame(packet)
        with pytest.raises(error_type):
            list(JSONSerializer().incremental_serialize(packet))
    with pytest.raises(UnicodeEncodeError):
        JSONSerializer(JSONEncoderConfig(ensure_ascii=False), encoding="ascii").serialize("é")


@given(json_values())
def test_round_trip(value: Any) -> None:
    """What is sent is what is received."""
    serializer = JSONSerializer()

    assert serializer.deserialize(serializer.serialize(value)) == value


@pytest.mark.parametrize("data", [b"[1]", b"[1]\n", b"\r\n [1] \t\n"])
def test_white_space_around(data: bytes) -> None:
    """White space around a document means nothing."""
    assert JSONSerializer().deserialize(data) == [1]


def test_encoding() -> None:
    """Text that is not UTF-8 can be had, if both sides agree."""
    serializer = JSONSerializer(JSONEncoderConfig(ensure_ascii=False), encoding="latin-1")

    assert serializer.serialize("é") == b'"\xe9"'
    assert serializer.deserialize(b'"\xe9"') == "é"
    assert JSONSerializer(unicode_errors="replace").deserialize(b'"\xff"') == "\ufffd"


@pytest.mark.parametrize(
    ("data", "message", "info"),
    [
        (
            b"\xff",
            "Unicode decode error: 'utf-8' codec can't decode byte 0xff in position 0: "
            "invalid start byte",
            {"data": b"\xff"},
        ),
        (
            b"",
            "JSON decode error: Expecting value: line 1 column 1 (char 0)",
            {"document": "", "position": 0, "lineno": 1, "colno": 1},
        ),
        (
            b"[1,\n2,]x",
            None,
            {"document": "[1,\n2,]x", "position": 6, "lineno": 2, "colno": 3},
        ),
        (
            b" 1 2 ",
            "JSON decode error: Extra data: line 1 column 2 (char 1)",
            {"document": "1 2", "position": 1, "lineno": 1, "colno": 2},
        ),
    ],
)
def test_deserialize_error(data: bytes, message: str | None, info: dict[str, Any]) -> None:
    """What is not a document is an error, with details for whoever debugs."""
    with pytest.raises(DeserializeError) as caught:
        JSONSerializer(debug=True).deserialize(data)
    assert type(caught.value) is DeserializeError
    assert isinstance(caught.value.__cause__, ValueError)
    if message is not None:
        assert str(caught.value) == message
    if sys.version_info < (3, 13) or message is not None:  # 3.13 points at the trailing comma.
        assert caught.value.error_info == info

    with pytest.raises(DeserializeError) as caught:
        JSONSerializer().deserialize(data)
    assert caught.value.error_info is None


@pytest.mark.parametrize("data", [b"", b" \t", b"\r\n"])
def test_nothing(data: bytes) -> None:
    """No document is an error like any other, but spared the decoder's exception."""
    with pytest.raises(json.JSONDecodeError) as by_decoder:
        json.loads("")
    with pytest.raises(IncrementalDeserializeError) as caught:
        JSONSerializer().deserialize_frame(data)
    assert str(caught.value) == f"JSON decode error: {by_decoder.value}"
    assert caught.value.remaining_data == b""
    assert caught.value.error_info is None
    assert caught.value.__cause__ is None
    with pytest.raises(DeserializeError, match="^JSON decode error: Expecting value: line 1 "):
        JSONSerializer().deserialize(data)


def hostile_documents() -> dict[str, bytes]:
    """Documents that Python's decoder does not refuse with an error of its own."""
    return {
        "nested arrays": b"[" * 200_000 + b"]" * 200_000,
        "nested objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
        "never closed": b"[" * 200_000,
        "a bit too deep": b'[{"a":' * 64 + b"[1]" + b"}]" * 64,
        "huge number": b"1" * 5_000,
        "huge number inside": b'{"a":[-' + b"9" * 5_000 + b"]}",
    }


@pytest.mark.parametrize("name", hostile_documents())
def test_hostile_documents(name: str) -> None:
    """Whatever a peer sends is an ordinary error, and the next document is not concerned."""
    data = hostile_documents()[name]
    serializer = JSONSerializer(limit=10_000_000, debug=True)
    with pytest.raises(DeserializeError, match=r"^JSON decode error: ") as caught:
        serializer.deserialize(data)
    assert caught.value.error_info["document"] == data.decode()
    assert caught.value.error_info["position"] is None

    with pytest.raises(IncrementalDeserializeError, match=r"^JSON decode error: "):
        serializer.deserialize_frame(data)
    with pytest.raises(IncrementalDeserializeError, match=r"^JSON decode error: ") as incremental:
        parse_one(serializer.incremental_deserialize(), data + b"\n[1]\n")
    assert incremental.value.remaining_data == b"[1]\n"


@pytest.mark.parametrize("name", ["huge number", "huge number inside", "a bit too deep"])
def test_hostile_bare_documents(name: str) -> None:
    """The same without lines."""
    data = hostile_documents()[name]
    parser = bare(limit=10_000_000).incremental_deserialize()
    with pytest.raises(IncrementalDeserializeError, match=r"^JSON decode error: ") as caught:
        parse_one(parser, data + b"\n[1]\n")

    assert caught.value.remaining_data == b"[1]\n"


@pytest.mark.parametrize("name", ["nested arrays", "nested objects"])
def test_deep_bare_documents(name: str) -> None:
    """Without lines, what is too deep ends where it does: no part of it is a document."""
    data = hostile_documents()[name]
    parser = bare(limit=10_000_000).incremental_deserialize()
    with pytest.raises(IncrementalDeserializeError, match=f"^{TOO_DEEP}$") as caught:
        parse_one(parser, data + b" [1]")

    assert caught.value.remaining_data == b"[1]"


# -- Depth -------------------------------------------------------------------------------------

TOO_DEEP = "JSON decode error: The document is nested too deeply"


def deep(depth: int) -> bytes:
    """A document of arrays and objects inside each other."""
    return (
        b'[{"a":' * (depth // 2)
        + b"[1]" * (depth % 2)
        + b"1" * (1 - depth % 2)
        + (b"}]" * (depth // 2))
    )


@pytest.mark.parametrize("use_lines", [True, False])
@pytest.mark.parametrize("max_depth", [1, 2, 3, 128, 500])
def test_depth(use_lines: bool, max_depth: int) -> None:
    """So many containers may be inside each other, and not one more."""
    serializer = JSONSerializer(use_lines=use_lines, max_depth=max_depth)
    assert serializer.deserialize(deep(max_depth)) == json.loads(deep(max_depth))
    assert JSONSerializer().deserialize(deep(128)) == json.loads(deep(128))
    for too_deep in max_depth + 1, max_depth + 2:
        with pytest.raises(DeserializeError, match=f"^{TOO_DEEP}$"):
            serializer.deserialize(deep(too_deep))
        outcomes, _ = feed(serializer.incremental_deserialize, [deep(too_deep) + b"\n"])
        assert outcomes[0] == (IncrementalDeserializeError, TOO_DEEP)


def test_strings_hide_nothing() -> None:
    """Brackets behind a string count, whatever the string ends with."""
    for string in r'"\\"', r'"\""', r'"\\\""', '"]]]"', '"{}"':
        document = f"[{string},[1],[1],[[1]]]".encode()
        assert json.loads(document)
        with pytest.raises(DeserializeError, match=f"^{TOO_DEEP}$"):
            JSONSerializer(max_depth=2).deserialize(document)


def test_wide_is_not_deep() -> None:
    """Any number of containers may be beside each other, and any number of brackets in strings."""
    serializer = JSONSerializer(max_depth=2)
    text = r"[[[{{{\\" + r"\"[[[\\\"[["
    for document in (
        b"[" + b"[]," * 1000 + b"{}]",
        b'{"a":{},"b":[],"[[[":"{{{"}',
        f'["{text}",[],"{text}{text}",[]]'.encode(),
        f'["{text}]]]",["{text}"],"]]]{text}",{{"{text}":1}}]'.encode(),
    ):
        assert serializer.deserialize(document) == json.loads(document)


@given(json_values(), st.integers(1, 8))
def test_depth_by_hypothesis(value: Any, max_depth: int) -> None:
    """How deep a document is does not depend on what is in its strings."""

    def depth(value: Any) -> int:
        if isinstance(value, dict):
            value = list(value.values())
        return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

    document = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
    serializer = JSONSerializer(max_depth=max_depth, unicode_errors="surrogatepass")
    if depth(value) <= max_depth:
        assert serializer.deserialize(document) == value
    else:
        with pytest.raises(DeserializeError, match=f"^{TOO_DEEP}$"):
            serializer.deserialize(document)


# -- Lines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet", [{"a": 1}, [1], "a", 1, None, True])
def test_serialize_line(packet: Any) -> None:
    """Each document is a line."""
    data = json.dumps(packet, separators=(",", ":")).encode() + b"\n"

    assert list(JSONSerializer().incremental_serialize(packet)) == [data]
    assert JSONSerializer().serialize_frame(packet) == data


@every_line_parser
def test_lines(way: Way) -> None:
    """The same packets and errors come out however the stream is cut, and an error hurts nobody."""
    check_every_cut(
        way(JSONSerializer()),
        b'{"a":1}\n\n[}\r\n"\xc3\xa9"\r\n 12 \nnull\n',
        [{"a": 1}, expecting_value(0), expecting_value(1), "é", 12, None],
        trailing=b"[1]",
    )


@every_line_parser
@given(st.data())
def test_lines_by_hypothesis(way: Way, data: st.DataObject) -> None:
    """What is sent is what is received, however the stream is cut."""
    serializer = JSONSerializer()
    packets = data.draw(st.lists(json_values(), max_size=4))
    stream = b"".join(map(serializer.serialize_frame, packets))

    assert feed(way(serializer), data.draw(cuts(stream))) == (packets, b"")


@every_line_parser
def test_line_error(way: Way) -> None:
    """What follows a bad line is in the error; the line itself only if it was asked for."""
    with pytest.raises(IncrementalDeserializeError, match=r"^Unicode decode error: ") as caught:
        parse_one(way(JSONSerializer(debug=True))(), b"\xff\n[1]\n")
    assert caught.value.remaining_data == b"[1]\n"
    assert caught.value.error_info == {"data": b"\xff"}


def test_line_limit() -> None:
    """A line is as long as the limit at most."""
    too_long = (LimitOverrunError, "Separator is found, but chunk is longer than limit")
    parser = JSONSerializer(limit=5).incremental_deserialize

    assert feed(parser, [b"12345\n123456\n1\n"]) == ([12345, too_long, 1], b"")


# -- Without lines -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "data"),
    [({"a": 1}, b'{"a":1}'), ([1], b"[1]"), ("a", b'"a"'), (1, b"1\n"), (None, b"null\n")],
)
def test_serialize_bare(packet: Any, data: bytes) -> None:
    """A document that does not tell its own end has a newline behind it."""
    assert list(bare().incremental_serialize(packet)) == [data]
    assert bare().serialize_frame(packet) == data


@pytest.mark.parametrize(
    ("document", "packet"),
    [
        (b"{}", {}),
        (b"[]", []),
        (b'""', ""),
        (b'{"a":{"b":[{"c":{}}]}}', {"a": {"b": [{"c": {}}]}}),
        (b'[[],[{"a":[]}]]', [[], [{"a": []}]]),
        (b'{"}":"{","\\"":"\\\\"}', {"}": "{", '"': "\\"}),
        (b'["]","\\"]","\\\\",[]]', ["]", '"]', "\\", []]),
        (b'"\\"\\\\\\n\\u0022 "', '"\\\n" '),
        (b'"{["', "{["),
        (b'{"a"\n:\t"\xc3\xa9" }', {"a": "é"}),
    ],
)
def test_bare(document: bytes, packet: Any) -> None:
    """A document ends where it is closed, however the stream is cut."""
    check_every_cut(bare().incremental_deserialize, document * 2, [packet] * 2, trailing=b"[")


@pytest.mark.parametrize(
    ("document", "packet"), [(b"1\n", 1), (b"-2.5e1 \n", -25), (b"null\r", None), (b"true\t", True)]
)
def test_plain(document: bytes, packet: Any) -> None:
    """A number or a word ends with the first byte that cannot be part of it."""
    check_every_cut(bare().incremental_deserialize, document * 2, [packet] * 2, trailing=b"12 ")


def test_bare_mixed() -> None:
    """Documents of all kinds follow each other, with white space or without."""
    stream = b' {"a":1}[2]"3"\r\n\t4\n5\n\n{"6":7} [8]\n'

    for chunks in every_cut(stream):
        outcomes, unused = feed(bare().incremental_deserialize, chunks)
        assert outcomes == [{"a": 1}, [2], "3", 4, 5, {"6": 7}, [8]]
        assert unused.strip() == b""


def test_bare_white_space_is_swallowed() -> None:
    """White space behind a document belongs to it, as far as it is there."""
    for document in (b"{}", b"[]", b'""', b"0"):
        remaining_data = parse_one(bare().incremental_deserialize(), document + b" \t\r\n[1")[1]
        assert remaining_data == b"[1"


def test_bare_white_space_is_dropped() -> None:
    """A peer that sends nothing but white space is not a document that grows."""
    parser = bare(limit=10).incremental_deserialize()
    next(parser)
    for _ in range(100):
        parser.send(b" \t\r\n" * 10)
    with pytest.raises(StopIteration) as stop:
        parser.send(b"    [12345678]")
    assert stop.value.value == ([12345678], b"")


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"[1}] [2]", "JSON decode error: Expecting ',' delimiter: line 1 column 3 (char 2)"),
        (b'{"a"} [2]', "JSON decode error: Expecting ':' delimiter: line 1 column 5 (char 4)"),
        (b'"\\x" [2]', "JSON decode error: Invalid \\escape: line 1 column 2 (char 1)"),
        (b"nil\n[2]", "JSON decode error: Expecting value: line 1 column 1 (char 0)"),
        (b"}\n[2]", "JSON decode error: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_bare_error(stream: bytes, message: str) -> None:
    """A document that is closed but not valid is an error, and the next one is not concerned."""
    for chunks in every_cut(stream):
        outcomes, _ = feed(bare().incremental_deserialize, chunks)
        assert outcomes == [(IncrementalDeserializeError, message), [2]]


def test_bare_not_text() -> None:
    """Where no document can begin, everything there is goes with the error."""
    with pytest.raises(IncrementalDeserializeError, match=r"^Unicode decode error: ") as caught:
        parse_one(bare(debug=True).incremental_deserialize(), b"\xff[1]")

    assert caught.value.error_info == {"data": b"\xff[1]"}
    assert caught.value.remaining_data == b""


@given(st.data())
def test_bare_by_hypothesis(data: st.DataObject) -> None:
    """What is sent is what is received, however the stream is cut."""
    serializer = bare(
        encoder_config=JSONEncoderConfig(ensure_ascii=data.draw(st.booleans())),
        unicode_errors="surrogatepass",
    )
    packets = data.draw(st.lists(json_values(), max_size=4))
    stream = b"".join(map(serializer.serialize_frame, packets))
    outcomes, unused = feed(serializer.incremental_deserialize, data.draw(cuts(stream)))

    assert outcomes == packets
    assert unused.strip() == b""


@given(data=st.text('[]{}"\\ a1\n', max_size=20).map(str.encode), cut=st.data())
def test_bare_garbage_by_hypothesis(data: bytes, cut: st.DataObject) -> None:
    """Whatever is sent, the same comes out however it is cut."""
    parser = bare(limit=1000).incremental_deserialize

    expected, expected_unused = feed(parser, [data] if data else [])
    outcomes, unused = feed(parser, cut.draw(cuts(data)))
    assert outcomes == expected
    assert unused.strip() == expected_unused.strip()


@given(st.data())
def test_bare_limit(data: st.DataObject) -> None:
    """Whether a document is too long does not depend on how the stream is cut."""
    limit = data.draw(st.integers(2, 20))
    size = data.draw(st.integers(2, 25))
    document = data.draw(
        st.sampled_from([b"[%s]", b'"%s"', b"1%s1\n"]).map(lambda d: d % (b"1" * (size - 2)))
    )
    space = b" " * data.draw(st.integers(0, 30))
    outcomes, _ = feed(bare(limit=limit).incremental_deserialize, data.draw(cuts(space + document)))

    if size <= limit:
        assert outcomes == [json.loads(document)]
    else:
        assert outcomes[0] in (FOUND, NOT_FOUND)


def test_bare_limit_errors() -> None:
    """After an oversized document, nothing is known, wherever the stream was cut."""
    for data, error in {
        b"[1234][1]": FOUND,
        b"[12345": NOT_FOUND,
        b"123456\n1\n": FOUND,
        b"123456": NOT_FOUND,
    }.items():
        with pytest.raises(LimitOverrunError) as caught:
            parse_one(bare(limit=5).incremental_deserialize(), data)
        assert (LimitOverrunError, str(caught.value)) == error
        assert caught.value.remaining_data == b""
        assert caught.value.missing is None


@pytest.mark.parametrize(
    ("opener", "inside"),
    [
        pytest.param(b"[", b"1,", id="array"),
        pytest.param(b"[", b"[", id="nested"),
        pytest.param(b'"', b"a", id="string"),
        pytest.param(b'"', b"\\\\", id="escapes"),
        pytest.param(b'{"a":"', b'\\"}', id="quotes"),
        pytest.param(b"", b"1", id="number"),
    ],
)
@pytest.mark.cost
def test_bare_cost(opener: bytes, inside: bytes) -> None:
    """A byte costs the same however much is there already."""

    def work(size: int) -> None:
        feed(bare(limit=10**9).incremental_deserialize, chunks[size])

    chunks = {
        size: byte_by_byte(opener + inside * (size // len(inside))) for size in (10_000, 40_000)
    }
    assert_linear(work, 10_000)


# -- Encodings, and byte order marks -----------------------------------------------------------

MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("use_lines", [True, False])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("debug", [True, False])
def test_byte_order_mark(use_lines: bool, encoding: str, debug: bool) -> None:
    """It may come before a document, with or without white space, and is no part of that."""
    serializer = JSONSerializer(use_lines=use_lines, encoding=encoding, debug=debug)
    for document, packet in {
        b"[1]": [1],
        b'"x"': "x",
        b"12": 12,
        b'{"a":"\\ufeff"}': {"a": "\ufeff"},
    }.items():
        assert serializer.deserialize(MARK + document) == packet
        stream = MARK + b" " * use_lines + document + b"\n" + document + b"\n"
        for chunks in every_cut(stream):
            assert feed(serializer.incremental_deserialize, chunks)[0] == [packet, packet]


@pytest.mark.parametrize("use_lines", [True, False])
def test_no_document_behind_a_byte_order_mark(use_lines: bool) -> None:
    """There is one mark at most, and it is no document."""
    serializer = JSONSerializer(use_lines=use_lines)
    for data in (
        MARK,
        MARK + b" ",
        MARK * 2 + b"[1]",
        MARK * 1000,
        (MARK + b" ") * 2 + b"[1]",
        b"\xef\xbb[1]",
    ):
        with pytest.raises(DeserializeError, match=r"decode error"):
            serializer.deserialize(data)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "cp037", "utf-7"])
def test_encoding_of_lines(encoding: str) -> None:
    """Where a newline is not that byte, and that byte nothing else, there are no lines."""
    if encoding != "utf-7":
        with pytest.raises(ValueError, match=f"^Lines cannot be told apart in '{encoding}'"):
            JSONSerializer(encoding=encoding)
    serializer = JSONSerializer(encoding=encoding, use_lines=False)

    # As datagrams, and in a wrapper, documents may be in any encoding.
    assert serializer.deserialize(serializer.serialize(["é"])) == ["é"]
    wrapped = LengthPrefixedSerializer(serializer)
    assert parse_one(wrapped.incremental_deserialize(), wrapped.serialize_frame([1]))[0] == [1]
    message = f"^The end of a JSON document cannot be found in '{encoding}'"
    with pytest.raises(ValueError, match=message):
        new_decoder_factory(StreamProtocol(serializer), 1024)
    with pytest.raises(ValueError, match=message):
        next(serializer.incremental_deserialize())


@pytest.mark.parametrize("encoding", ["shift_jis", "gbk", "big5"])
def test_brackets_inside_of_characters(encoding: str) -> None:
    """In these, the second byte of a character may be a bracket, but never a newline."""
    JSONSerializer(encoding=encoding)
    with pytest.raises(ValueError, match="^The end of a JSON document cannot be found"):
        JSONSerializer(encoding=encoding, use_lines=False).framing()


class BufferedJSON(JSONSerializer, BufferedIncrementalPacketSerializer[Any, Any, bytearray]):
    """A user's: it receives into a buffer, and marks what came that way."""

    def create_deserializer_buffer(self, sizehint: int, /) -> bytearray:
        return bytearray(sizehint)

    def buffered_incremental_deserialize(self, buffer: bytearray, /) -> Generator[int, int, Any]:
        packet, rest = yield from parse_in_buffer(
            self.incremental_deserialize(), memoryview(buffer)
        )
        return ("buffered", packet), rest


def test_users_own_buffered_generator() -> None:
    """A subclass that receives into a buffer is parsed by its own generator."""
    protocol: Any = BufferedStreamProtocol(BufferedJSON())
    decoder = new_decoder_factory(protocol, 1024)()
    decoder.feed(b"1\n2\n")
    assert [decoder.take(), decoder.take()] == [("buffered", 1), ("buffered", 2)]


@pytest.mark.parametrize("use_lines", [True, False])
def test_users_own_framing(use_lines: bool) -> None:
    """A subclass that overrides where a document ends is parsed alike in both ways."""

    class Semicolons(JSONSerializer):
        def framing(self) -> SeparatorFraming:
            return SeparatorFraming(b";", 100)

    serializer = Semicolons(use_lines=use_lines)
    decoder = new_decoder_factory(StreamProtocol(serializer), 1024)()
    decoder.feed(b"1;2;\n3;")
    assert [decoder.take() for _ in range(3)] == [1, 2, 3]
    assert parse_one(serializer.incremental_deserialize(), b"1;2;") == (1, b"2;")
