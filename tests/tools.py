"""How the tests of serializers, protocols and decoders feed a parser.

A parser is what `incremental_deserialize()` returns: a generator that is sent chunks.
`through_buffer()` and `through_frames()` make one of the other two ways to parse, so that every
test can try all three.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeAlias

import anyio.lowlevel
from hypothesis import strategies as st

from easynetwork.exceptions import (
    IncrementalDeserializeError,
    StreamProtocolParseError,
)
from easynetwork.serializers.abc import (
    AbstractIncrementalPacketSerializer,
    BufferedIncrementalPacketSerializer,
    FixedSizeFraming,
    SeparatorFraming,
)

Parser: TypeAlias = Generator[None, bytes, tuple[Any, bytes]]
Failure: TypeAlias = tuple[type[Exception], str]
"""An error, comparable: its type and its message."""


# -- Ways to cut -------------------------------------------------------------------------------


def whole(data: bytes) -> list[bytes]:
    """Everything at once."""
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    """One byte at a time."""
    return [data[index : index + 1] for index in range(len(data))]


def split_everywhere(data: bytes) -> Iterator[list[bytes]]:
    """In two pieces, once for each position inside."""
    return ([data[:index], data[index:]] for index in range(1, len(data)))


def every_cut(data: bytes) -> Iterator[list[bytes]]:
    """All of the above."""
    yield whole(data)
    yield byte_by_byte(data)
    yield from split_everywhere(data)


# -- Feeding -----------------------------------------------------------------------------------


def feed(new_parser: Callable[[], Parser], chunks: Iterable[bytes]) -> tuple[list[Any], bytes]:
    """Parse a stream as a client or a server does: one parser a packet, leftovers first.

    Returns:
        The packets and failures in order, and the bytes that no packet has used.
    """
    outcomes: list[Any] = []
    parser = None
    unused = b""
    for chunk in chunks:
        pending = chunk
        while pending:
            if parser is None:
                parser = new_parser()
                next(parser)
                unused = b""
            unused += pending
            try:
                parser.send(pending)
            except StopIteration as stop:
                packet, pending = stop.value
                outcomes.append(packet)
            except (IncrementalDeserializeError, StreamProtocolParseError) as exc:
                outcomes.append(failure(exc))
                pending = exc.remaining_data
            else:
                break
            parser, unused = None, b""
    if parser is not None:
        parser.close()
    return outcomes, unused


def failure(exc: Exception) -> Failure:
    """Make an error comparable."""
    return type(exc), str(exc)


def check_every_cut(
    new_parser: Callable[[], Parser], data: bytes, expected: list[Any], *, trailing: bytes = b""
) -> None:
    """Assert that `data` gives `expected`, and leaves `trailing` behind it alone, however cut."""
    for chunks in every_cut(data + trailing):
        assert feed(new_parser, chunks) == (expected, trailing), chunks


def parse_one(parser: Parser, data: bytes) -> tuple[Any, bytes]:
    """Send `data` at once to a parser that needs no more; return what it returns."""
    next(parser)
    try:
        parser.send(data)
    except StopIteration as stop:
        packet, remaining = stop.value
        return packet, bytes(remaining)
    raise AssertionError("The parser wants more data")


# -- The other ways to parse -------------------------------------------------------------------


def through_buffer(
    serializer: BufferedIncrementalPacketSerializer[Any, Any, Any], sizehint: int = 1024
) -> Callable[[], Parser]:
    """Make parsers that receive into the serializer's buffer."""

    def new_parser() -> Parser:
        buffer = serializer.create_deserializer_buffer(sizehint)
        parser = serializer.buffered_incremental_deserialize(buffer)
        view = memoryview(buffer).cast("B")
        start = next(parser)
        while True:
            chunk = yield
            while chunk:
                room = view[start or 0 :]
                assert len(room) > 0, "No room left in the buffer"
                piece, chunk = chunk[: len(room)], chunk[len(room) :]
                room[: len(piece)] = piece
                try:
                    start = parser.send(len(piece))
                except StopIteration as stop:
                    packet, remaining = stop.value
                    return packet, bytes(remaining) + chunk
                except IncrementalDeserializeError as exc:
                    exc.remaining_data += chunk
                    raise

    return new_parser


def through_frames(
    serializer: AbstractIncrementalPacketSerializer[Any, Any],
) -> Callable[[], Parser]:
    """Make parsers that cut as `framing()` says, as simply as possible, without any limit."""
    framing = serializer.framing()

    def new_parser() -> Parser:
        data = b""
        while (end := end_of_frame(data)) is None:
            data += yield
        frame, remaining = data[:end], data[end:]
        if isinstance(framing, SeparatorFraming) and not framing.keep_end:
            frame = frame[: -len(framing.separator)]
        try:
            return serializer.deserialize_frame(frame), remaining
        except IncrementalDeserializeError as exc:
            exc.remaining_data += remaining  # There is none yet: frames know nothing of it.
            raise

    def end_of_frame(data: bytes) -> int | None:
        if isinstance(framing, FixedSizeFraming):
            return framing.size if len(data) >= framing.size else None
        assert isinstance(framing, SeparatorFraming)
        index = data.find(framing.separator)
        return index + len(framing.separator) if index >= 0 else None

    return new_parser


# -- Cost --------------------------------------------------------------------------------------


def assert_linear(work: Callable[[int], object], size: int) -> None:
    """Assert that `work(4 * size)` costs about four times as much as `work(size)`.

    The bound, 9, is halfway (by ratio) between four and the sixteen times of a quadratic cost.
    """

    def cost(size: int) -> float:
        start = time.process_time()
        work(size)
        return time.process_time() - start

    ratio = min(cost(4 * size) for _ in range(3)) / min(cost(size) for _ in range(3))
    assert ratio < 9


# -- Strategies --------------------------------------------------------------------------------


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` in non-empty pieces."""
    positions = draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=20))
    edges = [0, *sorted(position for position in positions if position < len(data)), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if start < end]


def json_values() -> st.SearchStrategy[Any]:
    """Anything that JSON can say and gives back equal."""
    scalars = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
    )
    return st.recursive(
        scalars,
        lambda values: (
            st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4)
        ),
        max_leaves=12,
    )


def ascii_lines(separator: str = "\n") -> st.SearchStrategy[str]:
    """Lines of ASCII text without `separator`'s characters."""
    characters = st.characters(max_codepoint=127, exclude_characters=separator)
    return st.text(characters, max_size=30)


# -- Waiting -----------------------------------------------------------------------------------


async def until(condition: Callable[[], object]) -> None:
    """Wait for a state that nothing announces."""
    while not condition():
        await anyio.lowlevel.checkpoint()
