from __future__ import annotations

import copy
import errno
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given, strategies as st

from easynetwork import exceptions
from easynetwork.exceptions import (
    BaseProtocolParseError,
    DatagramProtocolParseError,
    DeserializeError,
    IncrementalDeserializeError,
    LimitOverrunError,
    PacketConversionError,
    StreamProtocolParseError,
)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("BusyResourceError", RuntimeError),
        ("ClientClosedError", ConnectionError),
        ("ServerClosedError", RuntimeError),
        ("ServerAlreadyRunning", RuntimeError),
        ("DeserializeError", Exception),
        ("IncrementalDeserializeError", DeserializeError),
        ("LimitOverrunError", IncrementalDeserializeError),
        ("PacketConversionError", Exception),
        ("BaseProtocolParseError", Exception),
        ("EndOfStreamError", ConnectionAbortedError),
        ("ProtocolCrashedError", RuntimeError),
        ("DatagramProtocolParseError", BaseProtocolParseError),
        ("StreamProtocolParseError", BaseProtocolParseError),
        ("TypedAttributeLookupError", LookupError),
        ("UnsupportedOperation", NotImplementedError),
    ],
)
def test_base_class(name: str, base: type[Exception]) -> None:
    """Each error is what the standard library would call it."""
    assert getattr(exceptions, name).__base__ is base
    assert name in exceptions.__all__


def test_nothing_else_is_exported() -> None:
    """The page of errors has the errors of the table above on it."""
    assert len(exceptions.__all__) == 15


@pytest.mark.parametrize("same", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_end_of_stream_survives_processes(same: Any) -> None:
    """An end of stream is the same in another process."""
    error = same(exceptions.EndOfStreamError(errno.ECONNABORTED, "message"))
    assert type(error) is exceptions.EndOfStreamError
    assert (error.errno, error.strerror) == (errno.ECONNABORTED, "message")


def test_typed_attribute_lookup_error_is_the_one_of_anyio() -> None:
    """Whoever catches anyio's error catches ours."""
    assert exceptions.TypedAttributeLookupError is anyio.TypedAttributeLookupError


@pytest.mark.parametrize("error_type", [DeserializeError, PacketConversionError])
def test_error_info(error_type: type[DeserializeError | PacketConversionError]) -> None:
    """Information for debugging is optional."""
    assert error_type("message").error_info is None
    assert error_type("message", {"data": b"x"}).error_info == {"data": b"x"}
    assert str(error_type("message", {"data": b"x"})) == "message"


def test_remaining_data_is_a_copy() -> None:
    """An error that is kept does not change when the receive buffer is used again."""
    buffer = bytearray(b"bad|next")
    error = IncrementalDeserializeError("message", memoryview(buffer)[4:], "info")
    parse_error = StreamProtocolParseError(memoryview(buffer)[4:], error)
    buffer[:] = b"x" * 100

    assert error.remaining_data == parse_error.remaining_data == b"next"
    assert error.error_info == "info"


@pytest.mark.parametrize("data", [None, "text", 5, [98]])
def test_remaining_data_is_bytes(data: Any) -> None:
    """Nothing else is taken for bytes, numbers least of all."""
    with pytest.raises(TypeError, match="bytes-like"):
        IncrementalDeserializeError("message", data)
    with pytest.raises(TypeError, match="bytes-like"):
        LimitOverrunError("message", data, 0)
    with pytest.raises(TypeError, match="bytes-like"):
        StreamProtocolParseError(data, PacketConversionError("reason"))


@pytest.mark.parametrize(
    ("buffer", "consumed", "separator", "remaining_data", "missing"),
    [
        pytest.param(b"abcdef", 4, b"", b"ef", 0, id="no separator"),
        pytest.param(b"abcdef", 9, b"", b"", 3, id="some is missing"),
        pytest.param(b"abcd\r\nef", 4, b"\r\n", b"ef", 0, id="separator right there"),
        pytest.param(b"abcd\r\n\r\nef", 4, b"\r\n", b"\r\nef", 0, id="only one is dropped"),
        pytest.param(b"abcd\r\nef", 2, b"\r\n", b"ef", 0, id="separator further on"),
        pytest.param(b"abcdef", 2, b"\r\n", b"", None, id="no separator in there"),
        pytest.param(b"abcdef\r", 2, b"\r\n", b"\r", None, id="half a separator at the end"),
        pytest.param(b"abc\rdef", 2, b"\r\n", b"", None, id="half a separator in the middle"),
        pytest.param(b"abcdef", 6, b"\r\n", b"", None, id="all of it, and a separator"),
        pytest.param(b"abcdef", 6, b"", b"", None, id="all of it"),
        pytest.param(b"", 0, b"", b"", None, id="nothing"),
        pytest.param(b"x--", 1, b"---", b"--", None, id="two thirds"),
    ],
)
def test_limit_overrun(
    buffer: bytes, consumed: int, separator: bytes, remaining_data: bytes, missing: int | None
) -> None:
    """After an oversized packet, parsing goes on where it ends; or that is not known yet."""
    error = LimitOverrunError("message", bytearray(buffer), consumed, separator)

    assert error.remaining_data == remaining_data
    assert type(error.remaining_data) is bytes
    assert error.consumed == consumed
    assert error.separator == separator
    assert error.missing == missing
    assert error.error_info is None


@pytest.mark.parametrize(
    ("consumed", "end_is_known", "remaining_data", "missing"),
    [(3, True, b"", 0), (3, False, b"", None), (2, True, b"c", 0), (2, False, b"", None)],
)
def test_end_is_known(
    consumed: int, end_is_known: bool, remaining_data: bytes, missing: int | None
) -> None:
    """Whether a packet ends where what was received ends can be said."""
    error = LimitOverrunError("message", b"abc", consumed, end_is_known=end_is_known)

    assert error.remaining_data == remaining_data
    assert error.missing == missing


@given(
    buffer=st.text("ab", max_size=12).map(str.encode),
    separator=st.text("ab", min_size=1, max_size=4).map(str.encode),
)
def test_limit_overrun_keeps_the_beginning_of_a_separator(buffer: bytes, separator: bytes) -> None:
    """What is dropped never includes a separator, or its beginning, but for the packet's own."""
    error = LimitOverrunError("message", buffer, 0, separator)

    _, found, rest = buffer.partition(separator)
    if found:
        assert (error.remaining_data, error.missing) == (rest, 0)
    else:
        ends = (buffer[index:] for index in range(len(buffer) + 1))
        expected = next(end for end in ends if separator.startswith(end))
        assert (error.remaining_data, error.missing) == (expected, None)


@pytest.mark.parametrize("error", [DeserializeError("reason"), PacketConversionError("reason")])
def test_datagram_parse_error(error: DeserializeError | PacketConversionError) -> None:
    """A parse error tells its reason."""
    parse_error = DatagramProtocolParseError(error)

    assert parse_error.error is error
    assert str(parse_error) == "Error while parsing data: reason"


def test_stream_parse_error() -> None:
    """A stream's parse error also tells where to go on."""
    error = PacketConversionError("reason")
    parse_error = StreamProtocolParseError(b"next", error)

    assert parse_error.error is error
    assert parse_error.remaining_data == b"next"
    assert str(parse_error) == "Error while parsing data: reason"


# -- Copies ------------------------------------------------------------------------------------


class OwnError(LimitOverrunError):
    """A user's error, whose constructor takes other arguments."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit}", b"abc", 2)
        self.limit = limit


def new_errors() -> Iterator[Exception]:
    """Yield one of each class on the page, with all its attributes."""
    incremental = IncrementalDeserializeError("message", b"rest", {"data": b"x"})
    arguments: dict[str, tuple[Any, ...]] = {
        "DeserializeError": ("message", {"data": b"x"}),
        "IncrementalDeserializeError": ("message", b"rest", {"data": b"x"}),
        "LimitOverrunError": ("message", b"abc\r", 2, b"\r\n"),
        "PacketConversionError": ("message", ["info"]),
        "BaseProtocolParseError": (incremental,),
        "DatagramProtocolParseError": (PacketConversionError("message", 1),),
        "StreamProtocolParseError": (b"rest", LimitOverrunError("message", b"abc", 2)),
    }
    for name in exceptions.__all__:
        yield getattr(exceptions, name)(*arguments.get(name, ("message",)))
    yield OwnError(5)


def attributes(error: Any) -> Any:
    """Return all that an error has, comparable."""
    values = {
        name: attributes(value) if isinstance(value, Exception) else value
        for name, value in vars(error).items()
    }
    return type(error), str(error), error.args, values


WAYS = [
    copy.copy,
    copy.deepcopy,
    *(partial(lambda protocol, error: pickle.loads(pickle.dumps(error, protocol)), protocol)
      for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
]  # fmt: skip


@pytest.mark.parametrize("error", list(new_errors()), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", WAYS)
def test_copies(error: Exception, way: Callable[[Exception], Exception]) -> None:
    """An error survives with all its attributes, and its notes."""
    error.add_note("a note")

    other = way(error)

    assert other is not error
    assert attributes(other) == attributes(error)
    assert "a note" in other.__notes__


def test_copy_shares_and_deepcopy_does_not() -> None:
    """As for anything else."""
    error = DeserializeError("message", ["info"])

    assert copy.copy(error).error_info is error.error_info
    assert copy.deepcopy(error).error_info == error.error_info
    assert copy.deepcopy(error).error_info is not error.error_info


class Unpicklable:
    """Cannot be pickled, and may have no text."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    def __reduce__(self) -> Any:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        if self.text is None:
            raise RuntimeError("no")
        return self.text


class Unloadable:
    """Can be pickled, but not the other way round."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)

    def __repr__(self) -> str:
        return "Unloadable()"


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (Unpicklable("a text"), "a text"),
        (Unloadable(), "Unloadable()"),
        ({"inside": Unloadable()}, "{'inside': Unloadable()}"),
    ],
)
def test_unpicklable_error_info(info: Any, expected: str) -> None:
    """What cannot be pickled is shown; a copy has it as it is."""
    error = StreamProtocolParseError(b"rest", IncrementalDeserializeError("message", b"", info))

    other = pickle.loads(pickle.dumps(error))

    assert other.error.error_info == expected
    assert copy.copy(error).error.error_info is info
    error_info = pickle.loads(
        pickle.dumps(DeserializeError("message", Unpicklable(None)))
    ).error_info
    assert "Unpicklable object" in error_info
