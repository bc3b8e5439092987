r"""Lines that LF, CR or CRLF ends, and a last line that only the end of the stream ends."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from easynetwork.codec import packet_encoder
from easynetwork.decoder import StreamDecoder
from easynetwork.exceptions import DeserializeError, LimitOverrunError
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from tests.decoding import PROTOCOLS, MakeProtocol, new_decoder, outcomes, taken
from tests.tools import every_cut

TOO_LONG = LimitOverrunError

framed_protocols = pytest.mark.parametrize("make", PROTOCOLS[::2])


def kinds(found: list[Any]) -> list[Any]:
    """Name an error by its class: its text tells how much had arrived."""
    return [outcome[0] if isinstance(outcome, tuple) else outcome for outcome in found]


@framed_protocols
def test_every_cut(make: MakeProtocol) -> None:
    """The same lines and errors come out, however the stream is cut, also inside a CRLF."""
    protocol = make(StringLineSerializer("any", limit=8))
    stream = b"LF\nCR\rCRLF\r\n\n\r\r\nx\r\r"
    stream += b"too long for it\rb\r\ntoo long for it\r\nc\ntoo long for it\nd\n"
    lines: list[Any] = ["LF", "CR", "CRLF", "", "", "", "x", ""]
    lines += [TOO_LONG, "b", TOO_LONG, "c", TOO_LONG, "d"]
    pairs = itertools.combinations(range(1, len(stream)), 2)
    thirds = ([stream[:one], stream[one:two], stream[two:]] for one, two in pairs)

    for chunks in itertools.chain(every_cut(stream), thirds):
        assert kinds(outcomes(protocol, chunks)) == lines, chunks


@framed_protocols
def test_line_is_complete_at_once(make: MakeProtocol) -> None:
    """A client that ends lines with CR is answered without another byte."""
    decoder = new_decoder(make(StringLineSerializer("any")))
    decoder.feed(b"PING\r")
    assert list(taken(decoder)) == ["PING"]
    decoder.feed(b"\nPONG\r")
    assert list(taken(decoder)) == ["PONG"]


@pytest.mark.parametrize("line", ["text\n", "text\r", "text\r\n"])
def test_ends_are_kept(line: str) -> None:
    """With `keep_end`, a line shows how it ended, as far as that had arrived."""
    decoder = new_decoder(StreamProtocol(StringLineSerializer("any", keep_end=True, limit=4)))
    decoder.feed(line.encode() + b"\n")
    assert list(taken(decoder)) == ([line, "\n"] if line != "text\r" else ["text\r\n"])


def test_sends_crlf() -> None:
    """CRLF ends a line that is sent, unless it has an end."""
    encode = packet_encoder(StreamProtocol(StringLineSerializer("any")))
    assert [encode(line) for line in ("a", "b\n", "c\r", "d\r\n")] == [
        b"a\r\n",
        b"b\n",
        b"c\r",
        b"d\r\n",
    ]
    assert StringLineSerializer("any").separator == b"\r\n"


def test_datagrams() -> None:
    """In a datagram, all ends of lines at the end are dropped."""
    protocol = DatagramProtocol(StringLineSerializer("any"))
    assert protocol.build_packet_from_datagram(b"text\r\n\n\r") == "text"
    with pytest.raises(DeserializeError):
        StringLineSerializer("any").deserialize(b"\xff\n")


def test_full_batch() -> None:
    """More lines than one batch has: none is lost."""
    decoder = new_decoder(StreamProtocol(StringLineSerializer("any")))
    decoder.feed(b"a\r\n" * 3000 + b"rest")
    assert list(taken(decoder)) == ["a"] * 3000
    decoder.feed(b"\r")
    assert list(taken(decoder)) == ["rest"]


# -- The end of the stream ---------------------------------------------------------------------


def fed(protocol: Any, data: bytes) -> StreamDecoder:
    decoder = new_decoder(protocol)
    decoder.feed(data)
    return decoder


@pytest.mark.parametrize("newline", ["LF", "CR", "CRLF", "any"])
@pytest.mark.parametrize("make", [StreamProtocol, BufferedStreamProtocol])
def test_unterminated(newline: Any, make: MakeProtocol) -> None:
    """What follows the last end of line is a line, too, once."""
    serializer = StringLineSerializer(newline, allow_unterminated=True)
    decoder = fed(make(serializer), b"one" + serializer.separator + b"two")
    assert list(taken(decoder)) == ["one"]
    assert decoder.end_of_stream()
    assert list(taken(decoder)) == ["two"]
    assert not decoder.end_of_stream()


def test_unterminated_and_not_allowed() -> None:
    """By default, it is an incomplete packet."""
    decoder = fed(StreamProtocol(StringLineSerializer()), b"two")
    assert not decoder.end_of_stream()
    assert len(decoder) == 3


@pytest.mark.parametrize("data", [b"one\n", b"one\r", b"one\r\n"])
def test_nothing_unterminated(data: bytes) -> None:
    """There is no line without a byte."""
    decoder = fed(StreamProtocol(StringLineSerializer("any", allow_unterminated=True)), data)
    list(taken(decoder))
    assert not decoder.end_of_stream()


def test_unterminated_and_too_long() -> None:
    """The limit holds for the last line as well."""
    protocol = StreamProtocol(StringLineSerializer("CRLF", limit=4, allow_unterminated=True))
    decoder = fed(protocol, b"12345")  # so far, the last byte could have been a CR
    assert decoder.end_of_stream()
    assert kinds(list(taken(decoder))) == [TOO_LONG]
    assert not decoder.end_of_stream()


@pytest.mark.parametrize("newline", ["LF", "any"])
def test_rest_of_a_line_that_is_too_long(newline: Any) -> None:
    """It is none of its own."""
    protocol = StreamProtocol(StringLineSerializer(newline, limit=4, allow_unterminated=True))
    decoder = fed(protocol, b"12345")
    assert kinds(list(taken(decoder))) == [TOO_LONG]
    decoder.feed(b"678")
    assert not decoder.end_of_stream()
    assert list(taken(decoder)) == []


def test_another_protocol_after_the_last_line() -> None:
    """What the end of the stream has completed is not parsed again."""
    protocol = StreamProtocol(StringLineSerializer(allow_unterminated=True))
    decoder = fed(protocol, b"last")
    assert decoder.end_of_stream()
    assert decoder.unread() == (b"last", None)
    assert decoder.take() == "last"
    assert decoder.unread() == (b"", None)
