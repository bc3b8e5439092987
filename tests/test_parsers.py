"""What users' parsers do wrong is said in a sentence, once, and never makes a connection spin."""

from __future__ import annotations

import gc
import re
from array import array
from collections.abc import Callable, Generator
from typing import Any

import pytest

from easynetwork.converter import AbstractPacketConverter
from easynetwork.exceptions import (
    IncrementalDeserializeError,
    LimitOverrunError,
    PacketConversionError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from tests.decoding import (
    PROTOCOLS,
    GeneratorStreamProtocol,
    MakeProtocol,
    Protocol,
    Script,
    is_applicable,
    new_decoder,
    taken,
)

ParserGenerator = Generator[Any, Any, Any]

either_way = pytest.mark.parametrize(
    ("make", "method"),
    [
        (StreamProtocol, "build_packet_from_chunks"),
        (BufferedStreamProtocol, "build_packet_from_buffer"),
    ],
)


def crash_of(protocol: Protocol, data: bytes = b"ab") -> ProtocolCrashedError:
    """Return what is raised for some bytes; assert that it is raised once."""
    decoder = new_decoder(protocol)
    decoder.feed(data)
    with pytest.raises(ProtocolCrashedError) as info:
        decoder.take()
    assert decoder.take() is NEED_DATA
    assert not decoder.refill()
    assert not decoder
    decoder.feed(b"SHUTDOWN")
    assert decoder.take() is NEED_DATA
    assert not decoder
    return info.value


def returns(result: Any) -> Callable[..., ParserGenerator]:
    """Return a parser that returns that as soon as it gets anything."""

    def parse(*_: Any) -> ParserGenerator:
        yield
        return result

    return parse


def raises(new_error: Callable[[], BaseException]) -> Callable[..., ParserGenerator]:
    """Return a parser that raises that as soon as it gets anything."""

    def parse(*_: Any) -> ParserGenerator:
        yield
        raise new_error()

    return parse


# -- Exceptions --------------------------------------------------------------------------------


@either_way
def test_crash(make: MakeProtocol, method: str) -> None:
    """An exception that is no parse error says so; the stream has no known place to go on."""

    def parse(*buffer: bytearray) -> ParserGenerator:
        received = yield
        data = bytes(buffer[0][:received]) if buffer else received
        if data.startswith(b"!"):
            raise KeyError("oops")
        return data[:1], data[1:]

    decoder = new_decoder(make(Script(parse)))
    decoder.feed(b"a!b")
    assert decoder.take() == b"a"

    with pytest.raises(ProtocolCrashedError, match=rf"^protocol\.{method}\(\) crashed$") as info:
        decoder.take()

    assert isinstance(info.value.__cause__, KeyError)
    assert not decoder
    decoder.feed(b"c")
    assert decoder.take() is NEED_DATA


@either_way
@pytest.mark.parametrize("error", [KeyError("oops"), GeneratorExit("oops"), StopIteration(1)])
def test_kinds_of_crashes(make: MakeProtocol, method: str, error: BaseException) -> None:
    """None of them looks like anything else."""
    crash = crash_of(make(Script(raises(lambda: error))))

    assert str(crash) == f"protocol.{method}() crashed"
    assert error in (crash.__cause__, crash.__cause__ and crash.__cause__.__cause__)


@either_way
def test_crash_before_the_first_yield(make: MakeProtocol, method: str) -> None:
    """A generator that does not come to its first yield has crashed, too."""

    def parse(*_: Any) -> ParserGenerator:
        raise KeyError("oops")
        yield

    crash = crash_of(make(Script(parse)))

    assert str(crash) == f"protocol.{method}() crashed"
    assert isinstance(crash.__cause__, KeyError)


@either_way
@pytest.mark.parametrize("nonsense", [None, 5])
def test_no_generator(make: MakeProtocol, method: str, nonsense: Any) -> None:
    """What is not even a generator is said to have crashed."""
    crash = crash_of(make(Script(lambda *_: nonsense)))

    assert str(crash) == f"protocol.{method}() crashed"
    assert isinstance(crash.__cause__, (TypeError, AttributeError))


@either_way
def test_did_not_yield(make: MakeProtocol, method: str) -> None:
    """A generator that returns before it got anything is told so."""

    def parse(*_: Any) -> ParserGenerator:
        return "packet", b""
        yield

    assert str(crash_of(make(Script(parse)))) == f"protocol.{method}() did not yield"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (StreamProtocol, "build_packet_from_chunks"),
        (BufferedStreamProtocol, "build_packet_from_buffer"),
        (BufferedStreamProtocol, "create_buffer"),
    ],
)
def test_method_that_raises(make: Any, name: str) -> None:
    """So it is for the methods of the protocol object."""

    def oops(*_: Any) -> Any:
        raise KeyError(name)

    crash = crash_of(type("Mine", (make,), {name: oops})(StringLineSerializer()))

    assert str(crash) == f"protocol.{name}() crashed"
    assert isinstance(crash.__cause__, KeyError)


# -- Results -----------------------------------------------------------------------------------


@either_way
@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (None, "None"),
        ("packet", "a value of type str"),
        (("packet",), "a value of type tuple"),
        (("packet", b"", b""), "a value of type tuple"),
        (["packet", b""], "a value of type list"),
        (5, "a value of type int"),
    ],
)
def test_no_pair(make: MakeProtocol, method: str, result: Any, shown: str) -> None:
    """A generator returns a packet and bytes, nothing else."""
    assert str(crash_of(make(Script(returns(result))))) == (
        f"protocol.{method}() returned {shown}, not a packet and the bytes that follow it"
    )


@either_way
@pytest.mark.parametrize(
    ("rest", "shown"),
    [
        (None, "None"),
        ("b", "a value of type str"),
        (1, "a value of type int"),
        ([98], "a value of type list"),
    ],
)
def test_no_bytes(make: MakeProtocol, method: str, rest: Any, shown: str) -> None:
    """What follows a packet is bytes; a number is not as many zeros."""
    in_place = f"{shown} in place of the bytes that follow it"
    crash = crash_of(make(Script(returns(("packet", rest)))))
    assert str(crash) == f"protocol.{method}() returned a packet with {in_place}"

    def error() -> Exception:
        error = IncrementalDeserializeError("bad", b"")
        error.remaining_data = rest
        return error

    crash = crash_of(make(Script(raises(error))))
    assert str(crash) == f"protocol.{method}() crashed"
    assert isinstance(crash.__cause__, TypeError)

    def parse_error() -> Exception:
        error = StreamProtocolParseError(b"", IncrementalDeserializeError("bad", b""))
        error.remaining_data = rest
        return error

    crash = crash_of(make(Script(raises(parse_error))))
    assert str(crash) == f"protocol.{method}() raised an error with {in_place}"


@either_way
@pytest.mark.parametrize("rest", [b"ab", b"abc", b"xy", bytearray(b"ab"), memoryview(b"ab")])
def test_no_progress(make: MakeProtocol, method: str, rest: Any) -> None:
    """A parser that uses up nothing would be run again for ever."""
    followed = f"{len(rest)} bytes that follow it, but got only 2: it has to use up some of them"
    crash = crash_of(make(Script(returns(("packet", rest)))))
    assert str(crash) == f"protocol.{method}() returned a packet with {followed}"

    crash = crash_of(make(Script(raises(lambda: IncrementalDeserializeError("bad", rest)))))
    assert str(crash) == f"protocol.{method}() raised an error with {followed}"
    assert isinstance(crash.__cause__, StreamProtocolParseError)

    crash = crash_of(
        make(Script(raises(lambda: LimitOverrunError("large", rest, 0, end_is_known=True))))
    )
    assert str(crash) == f"protocol.{method}() raised an error with {followed}"


@either_way
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: array("B", data)])
def test_progress(make: MakeProtocol, method: str, kind: Any) -> None:
    """One byte is enough, and the rest may be in whatever is like bytes."""

    def parse(*buffer: bytearray) -> ParserGenerator:
        received = yield
        data = bytes(buffer[0][:received]) if buffer else received
        if data.startswith(b"!"):
            raise IncrementalDeserializeError("bad", kind(data[1:]))
        return data[:1], kind(data[1:])

    decoder = new_decoder(make(Script(parse)))
    decoder.feed(b"ab!c!")
    assert list(taken(decoder)) == [
        b"a",
        b"b",
        bad := (IncrementalDeserializeError, "bad"),
        b"c",
        bad,
    ]


@either_way
def test_negative_size(make: MakeProtocol, method: str) -> None:
    """A packet of less than nothing is a mistake in counting."""
    crash = crash_of(make(Script(raises(lambda: LimitOverrunError("large", b"ab", -1)))))

    assert str(crash) == f"protocol.{method}() crashed"
    assert str(crash.__cause__) == "consumed must not be negative"


# -- Buffers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (b"0123", "protocol.create_buffer() returned a read-only buffer"),
        (bytearray(), "protocol.create_buffer() returned a null buffer"),
        (array("i"), "protocol.create_buffer() returned a null buffer"),
        (5, "protocol.create_buffer() returned a value of type int, not a contiguous buffer"),
        ("text", "protocol.create_buffer() returned a value of type str, not a contiguous buffer"),
        (
            memoryview(bytearray(8))[::2],
            "protocol.create_buffer() returned a value of type memoryview, not a contiguous buffer",
        ),
    ],
)
def test_unusable_buffer(buffer: Any, message: str) -> None:
    """A buffer that cannot be written to is refused."""
    assert str(crash_of(BufferedStreamProtocol(Script(returns(None), buffer)))) == message


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (4, "The start position is set to the end of the buffer"),
        (5, "The start position is set to the end of the buffer"),
        (2**70, "The start position is set to the end of the buffer"),
        (-5, "The start position -5 is before the beginning of the buffer of 4 bytes"),
        (
            "1",
            "protocol.build_packet_from_buffer() yielded a value of type str, not an index or None",
        ),
        (
            1.0,
            "protocol.build_packet_from_buffer() yielded a value of type float, "
            "not an index or None",
        ),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_wrong_start(start: Any, message: str, is_first: bool) -> None:
    """A generator gets bytes inside of its buffer only."""

    def parse(buffer: Any) -> ParserGenerator:
        if not is_first:
            yield 0
        yield start

    protocol = BufferedStreamProtocol[Any, Any, Any](Script(parse, bytearray(4)))
    decoder = new_decoder(protocol)
    if not is_first:
        decoder.feed(b"x")
        assert decoder.take() is NEED_DATA
    decoder.feed(b"ab")
    with pytest.raises(ProtocolCrashedError, match=f"^{re.escape(message)}$"):
        decoder.take()
    assert decoder.take() is NEED_DATA


# -- Converters --------------------------------------------------------------------------------


class BadConverter(AbstractPacketConverter[Any, Any]):
    """Has a bug, which one text finds."""

    __slots__ = ()

    def create_from_dto_packet(self, packet: Any) -> Any:
        if packet == "bug":
            raise KeyError("oops")
        if packet == "zero":
            raise PacketConversionError("zero")
        return packet

    def convert_to_dto_packet(self, obj: Any) -> Any:
        return obj


def test_converter_crash() -> None:
    """It is known where the next packet begins, if only the converter had a bug."""
    serializer = JSONSerializer(use_lines=False)
    decoder = new_decoder(StreamProtocol(serializer, BadConverter()))
    decoder.feed(b'[1]"bug"[2]"zero"[3]')
    assert decoder.take() == [1]
    with pytest.raises(ProtocolCrashedError, match=r"crashed$") as info:
        decoder.take()
    assert isinstance(info.value.__cause__, KeyError)
    assert list(taken(decoder)) == [[2], (PacketConversionError, "zero"), [3]]

    decoder = new_decoder(GeneratorStreamProtocol(serializer, BadConverter()))
    decoder.feed(b'[1]"zero"[2]"bug"[3]')
    assert decoder.take() == [1]
    with pytest.raises(StreamProtocolParseError, match="zero"):
        decoder.take()
    assert decoder.take() == [2]
    with pytest.raises(ProtocolCrashedError):
        decoder.take()
    assert decoder.take() is NEED_DATA


# -- Garbage -----------------------------------------------------------------------------------

FAULTS: dict[str, tuple[Any, bytes]] = {
    "crash": (Script(raises(lambda: KeyError("oops"))), b"ab"),
    "no-pair": (Script(returns(5)), b"ab"),
    "no-progress": (Script(returns((1, b"ab"))), b"ab"),
    "error-without-progress": (
        Script(raises(lambda: IncrementalDeserializeError("bad", b"ab"))),
        b"ab",
    ),
    "oversized": (StringLineSerializer(limit=4), b"x" * 20 + b"\n"),
    "endless": (StringLineSerializer(limit=4), b"x" * 20),
    "bad-line": (StringLineSerializer(), b"\xff\n"),
    "bad-json": (JSONSerializer(use_lines=False), b"{]}"),
    "deep-json": (JSONSerializer(use_lines=False, max_depth=1), b"[[]]"),
    "large-json": (JSONSerializer(use_lines=False, limit=5), b"[1,2,3]"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("make", PROTOCOLS)
def test_no_reference_cycles(name: str, make: MakeProtocol) -> None:
    """Errors go away by themselves, with what the peer sent."""
    serializer, data = FAULTS[name]
    if not is_applicable(make, serializer):
        make = StreamProtocol
    protocol = make(serializer)

    def fail() -> None:
        decoder = new_decoder(protocol)
        decoder.feed(data)
        try:
            decoder.take()
        except (StreamProtocolParseError, ProtocolCrashedError):
            return
        raise AssertionError("nothing was raised")

    fail()
    gc.collect()
    gc.disable()
    try:
        gc.set_debug(gc.DEBUG_SAVEALL)
        fail()
        gc.collect()
        assert gc.garbage == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
