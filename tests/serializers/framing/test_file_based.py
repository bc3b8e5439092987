from __future__ import annotations

from collections.abc import Callable, Generator
from typing import IO, Any

import pytest
from hypothesis import given, strategies as st

from easynetwork.exceptions import (
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
)
from easynetwork.serializers.framing import FileBasedPacketSerializer
from tests.decoding import PROTOCOLS, MakeProtocol, outcomes
from tests.serializers.framing.ways import Way, check_keyword_arguments, each_generator
from tests.tools import check_every_cut, cuts, feed, parse_one, through_buffer

NOT_A_WORD = (IncrementalDeserializeError, "Deserialize error: not a word")
TOO_DEEP = (IncrementalDeserializeError, "Deserialize error: too deep")
TOO_LONG = (LimitOverrunError, "chunk exceeded buffer limit")


class Words(FileBasedPacketSerializer[bytes, bytes]):
    """``<word>``: what else a file may begin with is a mistake of one byte."""

    __slots__ = ()

    def __init__(self, errors: Any = ValueError, **options: Any) -> None:
        super().__init__(errors, **options)

    def dump_to_file(self, packet: bytes, file: IO[bytes], /) -> None:
        if packet:
            file.write(b"<")
            file.write(packet + b">")

    def load_from_file(self, file: IO[bytes], /) -> bytes:
        if file.read(1) != b"<":
            raise ValueError("not a word")
        word = b""
        while not word.endswith(b">"):
            byte = file.read(1)
            if not byte:
                raise EOFError
            if byte == b"(":
                raise RecursionError("too deep")
            word += byte
        return word[:-1]


def test_properties() -> None:
    """A serializer shows its options."""
    serializer = Words(limit=100, debug=True)

    assert serializer.buffer_limit == 100
    assert serializer.debug is True
    assert serializer.framing() is None
    assert Words().buffer_limit == 65536
    assert Words().debug is False
    assert not hasattr(serializer, "__dict__")


@pytest.mark.parametrize("limit", [0, -1])
def test_wrong_limit(limit: int) -> None:
    """A packet may have at least one byte."""
    with pytest.raises(ValueError, match=r"^limit must be a positive integer$"):
        Words(limit=limit)


def test_keyword_arguments_go_on() -> None:
    """Arguments of other classes are handed on, and refused if nobody knows them."""
    check_keyword_arguments(Words, ValueError)


# -- All at once -------------------------------------------------------------------------------


@pytest.mark.parametrize(("packet", "chunks"), [(b"abc", [b"<abc>"]), (b"", [])])
def test_serialize(packet: bytes, chunks: list[bytes]) -> None:
    """What was written is sent in one piece; nothing is sent if nothing was written."""
    assert list(Words().incremental_serialize(packet)) == chunks
    assert Words().serialize_frame(packet) == b"".join(chunks)
    assert Words().serialize(packet) == b"".join(chunks)


def test_deserialize() -> None:
    """A packet is read from what is all of a file."""
    assert Words().deserialize(b"<abc>") == b"abc"


DESERIALIZE_ERRORS: list[tuple[bytes, str, type[Exception] | None, Any]] = [
    (b"<ab", "Missing data to create packet", EOFError, {"data": b"<ab"}),
    (b"ab>", "not a word", ValueError, {"data": b"ab>"}),
    (b"<((", "too deep", RecursionError, {"data": b"<(("}),
    (b"<a><b>", "Extra data caught", None, {"packet": b"a", "extra": b"<b>"}),
]


@pytest.mark.parametrize(("data", "message", "cause", "info"), DESERIALIZE_ERRORS)
def test_deserialize_error(
    data: bytes, message: str, cause: type[Exception] | None, info: Any
) -> None:
    """What is not exactly one packet is an error, which shows the data if it was asked to."""
    for debug in (False, True):
        with pytest.raises(DeserializeError) as caught:
            Words(debug=debug).deserialize(data)
        assert type(caught.value) is DeserializeError
        assert str(caught.value) == message
        assert caught.value.error_info == (info if debug else None)
        assert cause is None or isinstance(caught.value.__cause__, cause)


@pytest.mark.parametrize("errors", [KeyError, (), (KeyError, TypeError)])
def test_unexpected_error(errors: Any) -> None:
    """Any other exception than those expected is a bug, and passes through."""
    with pytest.raises(ValueError, match=r"^not a word$"):
        Words(errors).deserialize(b"abc")
    with pytest.raises(ValueError, match=r"^not a word$"):
        feed(Words(errors).incremental_deserialize, [b"abc"])


# -- In a stream -------------------------------------------------------------------------------


@each_generator
def test_every_cut(way: Way) -> None:
    """The same packets and errors come out however the stream is cut."""
    expected = [b"a", b"", NOT_A_WORD, TOO_DEEP, NOT_A_WORD, b"last"]

    check_every_cut(way(Words()), b"<a><>!<b(><last>", expected, trailing=b"<tra")


@each_generator
@given(st.data())
def test_by_hypothesis(way: Way, data: st.DataObject) -> None:
    """Packets survive any cut."""
    words = st.binary(max_size=8).map(lambda word: word.translate(None, b"(>"))
    packets = data.draw(st.lists(words))
    stream = b"".join(b"<%b>" % packet for packet in packets)

    assert feed(way(Words()), data.draw(cuts(stream))) == (packets, b"")


def test_error_info() -> None:
    """An error shows all that was received, if it was asked to."""
    for debug, info in ((True, {"data": b"<a(b>"}), (False, None)):
        with pytest.raises(IncrementalDeserializeError) as caught:
            parse_one(Words(debug=debug).incremental_deserialize(), b"<a(b>")
        assert caught.value.remaining_data == b"b>"
        assert caught.value.error_info == info
        assert isinstance(caught.value.__cause__, RecursionError)


class Rewinding(Words):
    """Forgets, when it fails, that it has read anything."""

    __slots__ = ()

    def load_from_file(self, file: IO[bytes], /) -> bytes:
        try:
            return super().load_from_file(file)
        except ValueError:
            file.seek(0)
            raise


@pytest.mark.parametrize("make", PROTOCOLS)
def test_no_progress(make: MakeProtocol) -> None:
    """If it is not known how much is wrong, all that is here is dropped, not read for ever."""
    assert outcomes(make(Rewinding()), [b"abc", b"<d>"]) == [NOT_A_WORD, b"d"]


@each_generator
@given(st.data())
def test_limit(way: Way, data: st.DataObject) -> None:
    """A packet of the limit is accepted, whatever follows it; one byte more is not."""
    limit = data.draw(st.integers(2, 12))
    size = data.draw(st.integers(limit - 1, limit + 1))
    packet = b"x" * (size - 2) if size > 2 else b""
    stream = b"<%b>" % packet
    chunks = data.draw(cuts(stream + data.draw(st.sampled_from([b"", b"<", b"<y>"]))))

    found, _ = feed(way(Words(limit=limit)), chunks)

    assert found[0] == (packet if len(stream) <= limit else TOO_LONG)


@each_generator
def test_chunk_beyond_the_limit(way: Way) -> None:
    """Packets within the limit may come in a chunk that is beyond it."""
    stream = b"<ab>!<cd><e"

    assert feed(way(Words(limit=4)), [stream]) == ([b"ab", NOT_A_WORD, b"cd"], b"<e")


def test_limit_error() -> None:
    """Everything received goes with a packet that is too long."""
    with pytest.raises(LimitOverrunError) as caught:
        parse_one(Words(limit=4).incremental_deserialize(), b"<123456")

    assert caught.value.consumed == 7
    assert caught.value.remaining_data == b""


@pytest.mark.parametrize(("sizehint", "size"), [(1, 1), (100, 100), (1000, 500)])
def test_buffer(sizehint: int, size: int) -> None:
    """The buffer is as large as suits the transport, and no larger than the limit."""
    buffer = Words(limit=500).create_deserializer_buffer(sizehint)

    assert len(buffer) == size
    assert not buffer.readonly


def test_packet_larger_than_the_buffer() -> None:
    """A packet need not fit into the buffer."""
    assert feed(through_buffer(Words(), sizehint=2), [b"<abcdef><g>"]) == ([b"abcdef", b"g"], b"")


class OneShot(Words):
    """Finds the end of a packet in its own way."""

    __slots__ = ()

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[bytes, bytes]]:
        data = yield
        return data, b""


@pytest.mark.parametrize(
    "new_parser", [OneShot().incremental_deserialize, through_buffer(OneShot())]
)
def test_overridden_parser(new_parser: Callable[[], Any]) -> None:
    """A format that need not try is parsed by its own generator, with a buffer too."""
    assert feed(new_parser, [b"a", b"b"]) == ([b"a", b"b"], b"")
