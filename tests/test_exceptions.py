from __future__ import annotations

import copy
import errno
import pickle
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        ("DatagramProtocolParseError", BaseProtocolParseError),
        ("StreamProtocolParseError", BaseProtocolParseError),
        ("TypedAttributeLookupError", LookupError),
        ("UnsupportedOperation", NotImplementedError),
        ("EndOfStreamError", ConnectionAbortedError),
    ],
)
def test_base_class(name: str, base: type[Exception]) -> None:
    """Each error is what the standard library would call it."""
    assert getattr(exceptions, name).__base__ is base
    assert name in exceptions.__all__


def test_nothing_else_is_exported() -> None:
    """The page of errors has the fourteen errors on it."""
    assert len(exceptions.__all__) == 14


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


@pytest.mark.parametrize(
    ("buffer", "consumed", "separator", "remaining_data"),
    [
        pytest.param(b"abcdef", 4, b"", b"ef", id="no separator"),
        pytest.param(b"abcd\r\nef", 4, b"\r\n", b"ef", id="separator right there"),
        pytest.param(b"abcd\r\n\r\nef", 4, b"\r\n", b"\r\nef", id="only one is dropped"),
        pytest.param(b"abcd\r\nef", 2, b"\r\n", b"\r\nef", id="separator further on"),
        pytest.param(b"abcdef", 2, b"\r\n", b"", id="no separator in there"),
        pytest.param(b"abcdef\r", 2, b"\r\n", b"\r", id="half a separator at the end"),
        pytest.param(b"abc\rdef", 2, b"\r\n", b"", id="half a separator in the middle"),
        pytest.param(b"abcdef", 6, b"\r\n", b"", id="everything consumed"),
        pytest.param(b"x--", 1, b"---", b"--", id="two thirds"),
    ],
)
def test_limit_overrun_remaining_data(
    buffer: bytes, consumed: int, separator: bytes, remaining_data: bytes
) -> None:
    """After an oversized packet, parsing goes on where its separator is, or may be."""
    error = LimitOverrunError("message", bytearray(buffer), consumed, separator)

    assert error.remaining_data == remaining_data
    assert type(error.remaining_data) is bytes
    assert error.consumed == consumed
    assert error.error_info is None


@given(
    buffer=st.text("ab", max_size=12).map(str.encode),
    separator=st.text("ab", min_size=1, max_size=4).map(str.encode),
)
def test_limit_overrun_remaining_data_is_as_long_as_possible(
    buffer: bytes, separator: bytes
) -> None:
    """What is dropped never includes the beginning of a separator, but for the packet's own."""
    remaining_data = LimitOverrunError("message", buffer, 0, separator).remaining_data

    if buffer.startswith(separator):
        assert remaining_data == buffer[len(separator) :]
    else:
        starts = (buffer[index:] for index in range(len(buffer)))
        expected = (rest for rest in starts if rest[: len(separator)] == separator[: len(rest)])
        assert remaining_data == next(expected, b"")


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
