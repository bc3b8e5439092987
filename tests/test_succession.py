"""One decoder succeeds another: every byte is used once, whatever the framings and the chunks."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings, strategies as st

from easynetwork.decoder import StreamDecoder
from easynetwork.exceptions import ProtocolCrashedError, StreamProtocolParseError
from easynetwork.parsers import NEED_DATA
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.serializers.framing import FixedSizePacketSerializer
from tests.decoding import PROTOCOLS, MakeProtocol, Script, new_decoder
from tests.serializers.framing.lengths import Format
from tests.tools import cuts

LIMIT = 12
ERROR = "an error"


class FixedSize(FixedSizePacketSerializer[bytes, bytes]):
    """Packets of four bytes."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(4)

    def serialize(self, packet: bytes, /) -> bytes:
        return packet

    def deserialize(self, data: bytes, /) -> bytes:
        return data


class Framing(NamedTuple):
    """A framing: how the library knows it, and, in the plainest terms, how it works."""

    serializer: Any
    separator: bytes = b""
    size: int = 0
    byteorder: Any = None  # of a length of two bytes
    any_newline: bool = False

    def next_outcome(self, data: bytes, limit: int) -> tuple[Any, bytes | None] | None:
        """Return the first packet, or `ERROR`, with what follows; None if it is yet to come.

        None in place of what follows: that, too, belongs to an error.
        """
        if self.any_newline:
            line = re.match(rb"([^\r\n]*)(\r\n|\r|\n)", data)
            if line:
                return (line[1] if len(line[1]) <= limit else ERROR), data[line.end() :]
            return (ERROR, None) if len(data) > limit else None
        if self.separator:
            frame, end, rest = data.partition(self.separator)
            if end:
                return (frame if len(frame) <= limit else ERROR), rest
            is_too_long = len(data) - len(self.separator) + 1 > limit
            return (ERROR, None) if is_too_long else None
        if self.size:
            return (data[: self.size], data[self.size :]) if len(data) >= self.size else None
        if len(data) < 2:
            return None
        length, body = int.from_bytes(data[:2], self.byteorder), data[2:]
        if length > LIMIT:
            return ERROR, (body[length:] if length <= len(body) else None)
        return (body[:length], body[length:]) if length <= len(body) else None


def lines(newline: Any, separator: bytes) -> Framing:
    serializer = StringLineSerializer(newline, encoding="latin-1", limit=LIMIT)
    return Framing(serializer, separator=separator, any_newline=newline == "any")


FRAMINGS = {
    "lines": lines("LF", b"\n"),
    "CRLF": lines("CRLF", b"\r\n"),
    "any": lines("any", b"\r\n"),
    "fixed": Framing(FixedSize(), size=4),
    "u16": Framing(Format("u16").serializer(limit=LIMIT), byteorder="big"),
    "u16le": Framing(Format("u16", "little").serializer(limit=LIMIT), byteorder="little"),
}


class Stage(NamedTuple):
    """A protocol, and how many packets or errors it is used for."""

    framing: str
    make: MakeProtocol
    packets: int

    @property
    def limit(self) -> int:
        """The most bytes of a line. If it is received into a buffer, its end has to fit in, too."""
        is_buffered = self.make in PROTOCOLS[2:]
        return LIMIT - is_buffered * (1 + len(FRAMINGS[self.framing].separator))

    def new_decoder(self) -> StreamDecoder:
        return new_decoder(self.make(FRAMINGS[self.framing].serializer))


def expected(stages: list[Stage], stream: bytes) -> list[Any]:
    """Return what the stages make of a stream that is there as a whole."""
    found: list[Any] = []
    rest: bytes | None = stream
    for stage in stages:
        for _ in range(stage.packets):
            framing = FRAMINGS[stage.framing]
            outcome = None if rest is None else framing.next_outcome(rest, stage.limit)
            if outcome is None:
                return found
            found.append(outcome[0])
            rest = outcome[1]
    return found


def taken(decoder: StreamDecoder) -> Iterator[Any]:
    """Take packets and errors, one at a time, until more data is needed."""
    while True:
        try:
            packet = decoder.take()
        except StreamProtocolParseError:
            yield ERROR
            continue
        if packet is not NEED_DATA:
            yield packet.encode("latin-1") if isinstance(packet, str) else bytes(packet)
        elif not decoder.refill():
            return


stages = st.lists(
    st.builds(Stage, st.sampled_from([*FRAMINGS]), st.sampled_from(PROTOCOLS), st.integers(0, 3)),
    min_size=1,
    max_size=4,
).filter(
    # A generator does not know that the LF which it begins with is the end of a CRLF.
    lambda chosen: not any(s.framing == "any" and s.make in PROTOCOLS[1::2] for s in chosen)
)
streams = st.lists(
    st.sampled_from(
        [b"\n", b"\r\n", b"\r", b"a", b"bcd", b"\0\3", b"\3\0", b"\0\0", b"\0\x20", b"x" * 14]
    ),
    max_size=16,
).map(b"".join)


@given(stages=stages, stream=streams, data=st.data())
@settings(max_examples=400)
def test_succession(stages: list[Stage], stream: bytes, data: st.DataObject) -> None:
    """Each decoder begins where the packet or the error ends after which it took over."""
    stages = [*stages, Stage("lines", PROTOCOLS[0], 99)]
    upcoming = iter(stages)
    stage = next(upcoming)
    decoder, left = stage.new_decoder(), stage.packets
    found: list[Any] = []
    chunks = data.draw(cuts(stream))
    for number, chunk in enumerate(chunks):
        decoder.feed(chunk)
        if number < len(chunks) - 1 and data.draw(st.booleans(), "wait for more"):
            continue
        while True:
            while not left:
                stage = next(upcoming)
                successor = stage.new_decoder()
                successor.succeed(decoder)
                decoder, left = successor, stage.packets
            outcome = next(taken(decoder), None)
            if outcome is None:
                break
            found.append(outcome)
            left -= 1
    assert found == expected(stages, stream)


@pytest.mark.parametrize("make", PROTOCOLS[1::2])
def test_half_a_packet_of_a_generator(make: MakeProtocol) -> None:
    """What a generator has got cannot be had back; what it has not looked at can."""
    decoder = new_decoder(make(FRAMINGS["lines"].serializer))
    decoder.feed(b"one\ntwo")
    assert decoder.unread() == (b"one\ntwo", None)
    assert list(taken(decoder)) == [b"one"]

    with pytest.raises(RuntimeError, match="has got the beginning of the next packet"):
        new_decoder(StreamProtocol(StringLineSerializer())).succeed(decoder)

    decoder.feed(b"\nthree")
    assert decoder.take() == "two"
    assert decoder.unread() == (b"three", None)


def test_after_a_crash() -> None:
    """A generator that failed has left it open where the next packet begins."""

    def parse(buffer: Any = None) -> Generator[None, bytes, Any]:
        yield
        raise ValueError

    decoder = new_decoder(StreamProtocol(Script(parse)))
    decoder.feed(b"something")
    with pytest.raises(ProtocolCrashedError):
        decoder.take()

    with pytest.raises(RuntimeError, match="not known where the next packet begins"):
        decoder.unread()


def test_idle_decoder_keeps_nothing() -> None:
    """When the last frame of a chunk has been taken, nothing refers to the chunk."""
    decoder = new_decoder(StreamProtocol(StringLineSerializer()))
    decoder.feed(b"one\ntwo\n")
    assert list(taken(decoder)) == [b"one", b"two"]
    held = [getattr(decoder, name) for name in ("_chunk", "_rest", "at_hand")]
    assert held == [b"", b"", []]
