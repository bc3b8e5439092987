from __future__ import annotations

import gc
import struct
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from easynetwork.exceptions import IncrementalDeserializeError, LimitOverrunError
from easynetwork.serializers.abc import LengthFormat, LengthPrefixFraming
from easynetwork.serializers.framing.framers import new_framer
from tests.serializers.framing.lengths import FORMATS, Format, Prefixed
from tests.serializers.framing.ways import (
    BAD_WORD,
    TOO_DEEP,
    Way,
    check_error_info,
    check_keyword_arguments,
    each_generator,
)
from tests.tools import check_every_cut, cuts, feed, parse_one, through_buffer

each_format = pytest.mark.parametrize("kind", FORMATS, ids=str)


def test_properties() -> None:
    """A serializer shows its options."""
    serializer = Prefixed("u16", byteorder="little", offset=2, adjustment=-4, limit=100, debug=True)

    assert serializer.buffer_limit == 100
    assert serializer.debug is True
    assert serializer.framing() == LengthPrefixFraming("u16", 100, "little", 2, -4)
    assert Prefixed().framing() == LengthPrefixFraming("u32", 65536, "big", 0, 0)
    decimal = Prefixed("decimal", terminator=b"\n", max_digits=5).framing()
    assert decimal == LengthPrefixFraming("decimal", 65536, terminator=b"\n", max_digits=5)
    allowed: list[tuple[LengthFormat, int]] = [("varint", 10), ("decimal", 20), ("netstring", 20)]
    for length, most in allowed:
        assert Prefixed(length, max_digits=most).framing().max_digits == most
    assert Prefixed().debug is False
    assert not hasattr(serializer, "__dict__")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit must be a positive integer"),
        (
            {"length": "u12"},
            "Invalid length: expected one of 'u8', 'u16', 'u24', 'u32', 'u64', 'varint', "
            "'decimal', 'netstring', got 'u12'",
        ),
        (
            {"byteorder": "<"},
            "Invalid byteorder: expected one of 'big', 'little', got '<'",
        ),
        ({"offset": -1}, "offset must not be negative"),
        (
            {"length": "netstring", "offset": 1},
            "A netstring has neither offset nor adjustment",
        ),
        (
            {"length": "netstring", "adjustment": -1},
            "A netstring has neither offset nor adjustment",
        ),
        ({"terminator": b" "}, "terminator is only for the length 'decimal'"),
        (
            {"length": "netstring", "terminator": b":"},
            "terminator is only for the length 'decimal'",
        ),
        (
            {"length": "decimal", "terminator": b""},
            "terminator must not be empty, nor begin with a digit",
        ),
        (
            {"length": "decimal", "terminator": b"0 "},
            "terminator must not be empty, nor begin with a digit",
        ),
        ({"max_digits": 4}, "max_digits is not for the length 'u32'"),
        ({"length": "u24", "max_digits": 3}, "max_digits is not for the length 'u24'"),
        ({"length": "varint", "max_digits": 0}, "max_digits must be a positive integer"),
        ({"length": "varint", "max_digits": 11}, "max_digits must be at most 10 for 'varint'"),
        ({"length": "decimal", "max_digits": 21}, "max_digits must be at most 20 for 'decimal'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    """Wrong options are refused at construction."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        Prefixed(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terminator": " "}, "terminator must be bytes, not ' '"),
        ({"terminator": bytearray(b" ")}, r"terminator must be bytes, not bytearray\(b' '\)"),
        ({"max_digits": "4"}, "max_digits must be a positive integer, not '4'"),
    ],
)
def test_options_of_wrong_types(options: dict[str, Any], message: str) -> None:
    """So are options of other types."""
    with pytest.raises(TypeError, match=f"^{message}$"):
        Prefixed("decimal", **options)


def test_keyword_arguments_go_on() -> None:
    """Arguments of other classes are handed on, and refused if nobody knows them."""
    check_keyword_arguments(Prefixed, "u8")


def test_error_info_is_copied() -> None:
    """The information that `deserialize()` gives is not lost."""
    check_error_info(Prefixed())


# -- Sending -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "packet", "data"),
    [
        (Format("u8"), b"abc", b"\x03abc"),
        (Format("u16"), b"abc", b"\x00\x03abc"),
        (Format("u32"), b"", b"\x00\x00\x00\x00"),
        (Format("u32", "little"), b"abc", b"\x03\x00\x00\x00abc"),
        (Format("u64"), b"abc", b"\x00\x00\x00\x00\x00\x00\x00\x03abc"),
        (Format("varint"), b"x" * 127, b"\x7f" + b"x" * 127),
        (Format("varint"), b"x" * 128, b"\x80\x01" + b"x" * 128),
        (Format("varint"), b"x" * 300, b"\xac\x02" + b"x" * 300),  # The example of protobuf's docs.
        # The example of the MQTT specification (5.0, 1.5.5) for a length of 321.
        (Format("varint", max_digits=4), b"x" * 321, b"\xc1\x02" + b"x" * 321),
        # A PING of HTTP/2 (RFC 9113, 6.7): the length does not count the 6 bytes after it.
        (
            Format("u24", adjustment=6),
            b"\x06\0\0\0\0\0" + b"8 octets",
            b"\0\0\x08\x06\0\0\0\0\0" + b"8 octets",
        ),
        (Format("u24", "little", adjustment=1), b"\0\x01", b"\x01\0\0\0\x01"),  # MySQL's COM_QUIT.
        (Format("u24", offset=1), b"\x0e", b"\x0e\0\0\0"),  # ServerHelloDone of TLS 1.2.
        (Format("decimal"), b"<34>1 - - - - - -", b"17 <34>1 - - - - - -"),  # RFC 6587, 3.4.1.
        (Format("decimal"), b"", b"0 "),
        (Format("decimal", terminator=b"\n"), b"5\n", b"2\n5\n"),
        (
            Format("decimal", offset=1, adjustment=2, terminator=b"\r\n"),
            b"$hello\r\n",
            b"$5\r\nhello\r\n",  # The example of Redis' documentation.
        ),
        (Format("netstring"), b"hello world!", b"12:hello world!,"),  # D. J. Bernstein's.
        (Format("netstring"), b"", b"0:,"),  # Likewise.
        # The examples of Netty's documentation, "HELLO, WORLD" with different headers.
        (Format("u16"), b"HELLO, WORLD", b"\x00\x0cHELLO, WORLD"),
        (Format("u16", adjustment=-2), b"HELLO, WORLD", b"\x00\x0eHELLO, WORLD"),
        (
            Format("u32", offset=2),
            b"\xca\xfeHELLO, WORLD",
            b"\xca\xfe\x00\x00\x00\x0cHELLO, WORLD",
        ),
        (
            Format("u32", adjustment=2),
            b"\xca\xfeHELLO, WORLD",
            b"\x00\x00\x00\x0c\xca\xfeHELLO, WORLD",
        ),
        (
            Format("u16", offset=1, adjustment=1),
            b"\xca\xfeHELLO, WORLD",
            b"\xca\x00\x0c\xfeHELLO, WORLD",
        ),
        (
            Format("u16", offset=1, adjustment=-3),
            b"\xca\xfeHELLO, WORLD",
            b"\xca\x00\x10\xfeHELLO, WORLD",
        ),
    ],
    ids=str,
)
def test_serialize(kind: Format, packet: bytes, data: bytes) -> None:
    """A packet is sent with its length where the options say."""
    serializer = kind.serializer()

    assert serializer.serialize_frame(packet) == data
    assert list(serializer.incremental_serialize(packet)) == [data]
    assert parse_one(serializer.incremental_deserialize(), data) == (packet, b"")
    assert serializer.serialize(packet) == packet


@each_format
@given(st.data())
@settings(max_examples=40)
def test_round_trip(kind: Format, data: st.DataObject) -> None:
    """A packet is written as an independent implementation does."""
    packet = data.draw(kind.packets(300))
    if len(packet) - kind.offset - kind.adjustment <= kind.largest:
        assert kind.serializer().serialize_frame(packet) == kind.wire(packet)


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        (Format("u8"), 256, "Length 256 does not fit into u8"),
        (Format("u16"), 65536, "Length 65536 does not fit into u16"),
        (Format("u24"), 2**24, "Length 16777216 does not fit into u24"),
        (Format("varint", max_digits=1), 128, "Length 128 does not fit into max_digits=1"),
        (Format("varint", max_digits=2), 2**14, "Length 16384 does not fit into max_digits=2"),
        (Format("decimal", max_digits=3), 1000, "Length 1000 does not fit into max_digits=3"),
        (Format("netstring", max_digits=2), 100, "Length 100 does not fit into max_digits=2"),
        (Format("u8", adjustment=-1), 255, "Length 256 does not fit into u8"),
        (Format("u8", offset=2), 1, "A packet must have at least 2 bytes, got b'x'"),
        (Format("u8", offset=2, adjustment=-9), 1, "A packet must have at least 2 bytes"),
        (Format("u8", offset=1, adjustment=2), 2, "A packet must have at least 3 bytes"),
    ],
    ids=str,
)
def test_serialize_error(kind: Format, size: int, message: str) -> None:
    """A packet whose length cannot be written is not sent; one byte less or more can be."""
    serializer = kind.serializer()
    with pytest.raises(ValueError, match=f"^{message}"):
        serializer.serialize_frame(b"x" * size)
    with pytest.raises(ValueError, match=f"^{message}"):
        list(serializer.incremental_serialize(b"x" * size))
    other = size + 1 if size < kind.shortest else size - 1
    assert serializer.serialize_frame(b"x" * other) == kind.wire(b"x" * other)


# -- Receiving ---------------------------------------------------------------------------------


@each_generator
@each_format
def test_every_cut(kind: Format, way: Way) -> None:
    """The same packets and errors come out however the stream is cut, and an error hurts nobody."""
    pad = b"p" * kind.shortest
    packets = [pad + word for word in (b"a", b"", b"is bad", b"is deep", b"l" * 200)]
    stream = b"".join(map(kind.wire, packets))
    expected = [packets[0], packets[1], BAD_WORD, TOO_DEEP, packets[4]]

    check_every_cut(way(kind.serializer()), stream, expected, trailing=kind.wire(pad + b"tr")[:-1])


@pytest.mark.in_turn
@each_generator
@each_format
@given(st.data())
@settings(max_examples=40)
def test_by_hypothesis(kind: Format, way: Way, data: st.DataObject) -> None:
    """Packets of any bytes survive any cut."""
    packets = data.draw(st.lists(kind.packets()))
    chunks = data.draw(cuts(b"".join(map(kind.wire, packets))))

    assert feed(way(kind.serializer()), chunks) == (packets, b"")


@each_generator
@each_format
def test_limit(kind: Format, way: Way) -> None:
    """A packet of the limit is accepted; one byte more is an error, and costs only itself."""
    new_parser = way(kind.serializer(limit=20))
    packets = [b"x" * size for size in (19, 20, 21, 20)]
    too_long = (LimitOverrunError, "Packet of 21 bytes exceeds the limit of 20")

    found, _ = feed(new_parser, [b"".join(map(kind.wire, packets))])

    assert found == [*packets[:2], too_long, packets[3]]


@each_generator
@each_format
def test_limit_error(kind: Format, way: Way) -> None:
    """As soon as a length is there, it is refused: the error says how many bytes to skip."""
    with pytest.raises(LimitOverrunError) as caught:
        parse_one(way(kind.serializer(limit=20))(), kind.wire(b"x" * 100)[:50])

    assert caught.value.consumed == len(kind.wire(b"x" * 100))
    assert caught.value.remaining_data == b""
    assert caught.value.error_info is None


@each_generator
@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind.largest > 2**31], ids=str)
def test_huge_length(kind: Format, way: Way) -> None:
    """A length is a number: it is refused, however large."""
    for length in {2**31, 2**32 - 1, min(2**63, kind.largest), kind.largest}:
        size = kind.offset + length + kind.adjustment
        too_long = (LimitOverrunError, f"Packet of {size} bytes exceeds the limit of 65536")

        check_every_cut(way(kind.serializer()), kind.declared(length), [too_long])


@pytest.mark.parametrize(
    ("kind", "data", "message", "remaining_data"),
    [
        (
            Format("u16", adjustment=-2),
            b"\x00\x01abc",
            "Length 1 is less than the 2 bytes that it counts",
            b"abc",
        ),
        (
            Format("u8", offset=1, adjustment=-2),
            b"h\x01abc",
            "Length 1 is less than the 2 bytes that it counts",
            b"abc",
        ),
        (Format("varint"), b"\x80" * 11 + b"a", "Length does not end after 70 bits", b"\x80a"),
        (Format("varint", offset=1), b"\xff" * 12, "Length does not end after 70 bits", b"\xff"),
        (Format("varint", max_digits=4), b"\xff" * 5, "Length does not end after 28 bits", b"\xff"),
        (Format("decimal"), b"<34>1", "Packet has no valid length: b'<'", b"34>1"),
        (Format("decimal"), b" 1 a", "Packet has no valid length: b' '", b"1 a"),
        (Format("decimal"), b"-1 a", "Packet has no valid length: b'-'", b"1 a"),
        (Format("decimal"), b"1:a2 ", "Packet has no valid length: b'1:'", b"a2 "),
        (
            Format("decimal", max_digits=3),
            b"1234 ",
            "Packet has no valid length: b'1234'",
            b" ",
        ),
        (
            Format("decimal", terminator=b"\r\n"),
            b"1\n\n",
            r"Packet has no valid length: b'1\n'",
            b"\n",
        ),
        (
            Format("decimal", terminator=b"\r\n"),
            b"1\ra",
            r"Packet has no valid length: b'1\ra'",
            b"",
        ),
        (
            Format("decimal", terminator=b"\r\n"),
            b"\r\n1",
            r"Packet has no valid length: b'\r'",
            b"\n1",
        ),
        (Format("decimal", offset=1), b"$$1 a", "Packet has no valid length: b'$'", b"1 a"),
        (Format("decimal"), b"03 abc4 ", "Packet's length begins with 0", b"4 "),
        (Format("decimal"), b"00 4 ", "Packet's length begins with 0", b"4 "),
        (
            Format("decimal", adjustment=-2),
            b"1 abc",
            "Length 1 is less than the 2 bytes that it counts",
            b"abc",
        ),
        (
            Format("netstring"),
            b"abc",
            "Netstring does not begin with a length: b'a'",
            b"bc",
        ),
        (
            Format("netstring"),
            b":,1:a,",
            "Netstring does not begin with a length: b':'",
            b",1:a,",
        ),
        (Format("netstring"), b"-1:a,", "Netstring does not begin with a length: b'-'", b"1:a,"),
        (Format("netstring"), b"1 :a,", "Netstring does not begin with a length: b'1 '", b":a,"),
        (
            Format("netstring"),
            b"1" * 21 + b":",
            "Netstring does not begin with a length: b'111111111111111111111'",
            b":",
        ),
        (Format("netstring"), b"3:abcd4:", "Netstring does not end with a comma", b"4:"),
        (Format("netstring"), b"03:abc,4:", "Netstring's length begins with 0", b"4:"),
        (Format("netstring"), b"00:,4:", "Netstring's length begins with 0", b"4:"),
        (Format("netstring"), b"0:a4:", "Netstring does not end with a comma", b"4:"),
    ],
    ids=str,
)
def test_no_length(kind: Format, data: bytes, message: str, remaining_data: bytes) -> None:
    """What is no length is an error, behind which parsing goes on."""
    serializer = kind.serializer()
    for new_parser in (serializer.incremental_deserialize, through_buffer(serializer)):
        with pytest.raises(IncrementalDeserializeError) as caught:
            parse_one(new_parser(), data)
        assert type(caught.value) is IncrementalDeserializeError
        assert str(caught.value) == message
        assert caught.value.remaining_data == remaining_data


def test_errors_are_freed() -> None:
    """An error takes what was received with it at once: no cycle has to be found first."""
    parser = Prefixed("netstring").incremental_deserialize
    gc.collect()
    gc.disable()
    try:
        assert len(feed(parser, [b":" * 20])[0]) == 20
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("data", [b"\x80\x00", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"])
def test_varint_with_too_many_bytes(data: bytes) -> None:
    """A varint may be longer than it has to be, as Protocol Buffers allow."""
    assert feed(Prefixed("varint").incremental_deserialize, [data]) == ([b""], b"")


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind.length[0] == "u"], ids=str)
def test_frames_call_nothing(kind: Format) -> None:
    """To split a chunk calls no function of Python per frame, unless there is an `offset`."""
    framer = new_framer(kind.serializer().framing(), buffered=False)
    calls: list[str] = []

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            calls.append(frame.f_code.co_qualname)

    data = kind.wire(b"x" * 20) * 100
    sys.setprofile(profile)
    try:
        frames, rest = framer.split_frames(data)
    finally:
        sys.setprofile(None)
    assert (frames, rest) == ([b"x" * 20] * 100, b"")
    assert (len(calls) < 10) is (kind.offset == 0), calls


@pytest.mark.parametrize("code", ["B", "H", "I", "Q"])
@pytest.mark.parametrize("order", [">", "<"])
def test_struct(code: str, order: str) -> None:
    """The lengths of fixed width are those of `struct`."""
    length: Any = {"B": "u8", "H": "u16", "I": "u32", "Q": "u64"}[code]
    serializer = Prefixed(length, byteorder="big" if order == ">" else "little")

    assert serializer.serialize_frame(b"x" * 201) == struct.pack(order + code, 201) + b"x" * 201


@pytest.mark.parametrize("sizehint", [1, 100])
def test_buffer(sizehint: int) -> None:
    """The buffer is as large as suits the transport; a packet need not fit in."""
    serializer = Prefixed()
    buffer = serializer.create_deserializer_buffer(sizehint)
    assert len(buffer) == sizehint
    assert not buffer.readonly

    packet = b"x" * 1000
    found = feed(through_buffer(serializer, sizehint), [serializer.serialize_frame(packet) + b"\0"])
    assert found == ([packet], b"\0")
