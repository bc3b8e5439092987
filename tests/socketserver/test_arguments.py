"""What is wrong with a server's arguments is said by the constructor, which leaves nothing open."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path
from typing import Any

import pytest

import easynetwork.socketserver as ours
from tests.socketserver.support import (
    DATAGRAMS,
    LINES,
    LOCALHOST,
    STREAM_SERVERS,
    Echo,
    EchoBytes,
    EchoDatagrams,
    address_for,
    named,
)
from tests.tls_peers import client_context, server_context

STREAMS = [*STREAM_SERVERS, "ForkingTCPServer", "ForkingUnixStreamServer"]
DATAGRAM_CLASSES = [
    *("UDPServer", "ThreadingUDPServer", "ForkingUDPServer"),
    *("UnixDatagramServer", "ThreadingUnixDatagramServer", "ForkingUnixDatagramServer"),
]
ALL = STREAMS + DATAGRAM_CLASSES
THREADING = [name for name in ALL if name.startswith("Threading")]


class NoProtocol(ours.StreamPacketHandler[str, str]):
    """A handler that uses the server's."""


class NoDatagramProtocol(ours.DatagramPacketHandler[str, str]):
    """A handler that uses the server's."""


class WrongProtocol(ours.StreamPacketHandler[str, str]):
    """A handler with the protocol object of the other type."""

    protocol = DATAGRAMS


class WrongDatagramProtocol(ours.DatagramPacketHandler[str, str]):
    """A handler with the protocol object of the other type."""

    protocol = LINES


def check_refused(
    name: str, error: type[Exception], message: str, *arguments: Any, **options: Any
) -> None:
    """Assert that a constructor raises an error, and makes no file.

    The fixture `no_leaks` sees a socket that is left, and unraisable warnings are errors.
    """
    with address_for(named(name)) as address:
        with pytest.raises(error, match=message) as caught:
            named(name)(address, *arguments, **options)
        del caught
        if isinstance(address, str):
            assert os.listdir(Path(address).parent) == []


def handler_for(name: str) -> Any:
    return Echo if name in STREAMS else EchoDatagrams


# -- handlers and protocol objects


@pytest.mark.parametrize("name", ALL)
def test_handler_is_no_class(name: str) -> None:
    for handler in None, "Echo", 3, LINES, object():
        check_refused(name, TypeError, "handler class", handler)


def test_handler_is_an_instance() -> None:
    check_refused("TCPServer", TypeError, "handler class", Echo.__new__(Echo))


@pytest.mark.parametrize("name", ALL)
def test_handler_of_the_other_type(name: str) -> None:
    handler = EchoDatagrams if name in STREAMS else Echo
    check_refused(name, TypeError, "Expected a .*Protocol", handler)


@pytest.mark.parametrize("name", ALL)
def test_no_protocol(name: str) -> None:
    handler = NoProtocol if name in STREAMS else NoDatagramProtocol
    check_refused(name, TypeError, "has no protocol object", handler)


@pytest.mark.parametrize("name", ALL)
def test_wrong_protocol_of_the_handler(name: str) -> None:
    handler = WrongProtocol if name in STREAMS else WrongDatagramProtocol
    check_refused(name, TypeError, "Expected a .*Protocol", handler)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("handler", ["packets", "bytes"])
def test_wrong_protocol_of_the_server(name: str, handler: str) -> None:
    handler_class = handler_for(name) if handler == "packets" else EchoBytes
    for protocol in (DATAGRAMS if name in STREAMS else LINES), type(LINES), "protocol":
        check_refused(name, TypeError, "Expected a .*Protocol", handler_class, protocol=protocol)


def test_handlers_that_are_accepted() -> None:
    """Any callable makes handlers, as in the standard module, and some need no protocol object."""
    for handler in functools.partial(NoProtocol), lambda *args: Echo(*args), EchoBytes:
        with ours.TCPServer(LOCALHOST, handler):
            pass


# -- TLS


@pytest.mark.parametrize("name", STREAMS)
def test_ssl_of_a_wrong_type(name: str) -> None:
    for context in True, False, "ssl", 1, object():
        check_refused(name, TypeError, "ssl.SSLContext", handler_for(name), ssl=context)


@pytest.mark.parametrize("name", STREAMS)
def test_ssl_for_clients(name: str) -> None:
    check_refused(name, ValueError, "ssl", handler_for(name), ssl=client_context())


def test_ssl_with_another_handler() -> None:
    message = "ssl needs a subclass of StreamPacketHandler"
    for handler in EchoBytes, ours.BaseRequestHandler, functools.partial(Echo):
        check_refused("TCPServer", TypeError, message, handler, ssl=server_context())


@pytest.mark.parametrize("option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
def test_ssl_timeouts(option: str) -> None:
    for value in -1, -math.inf, math.nan:
        options = {"ssl": server_context(), option: value}
        check_refused("TCPServer", ValueError, "Invalid delay", Echo, **options)
    check_refused(
        "TCPServer", TypeError, "real number", Echo, **{"ssl": server_context(), option: "5"}
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ssl_handshake_timeout", 5.0),
        ("ssl_shutdown_timeout", 5.0),
        ("ssl_standard_compatible", False),
    ],
)
def test_ssl_options_without_ssl(option: str, value: Any) -> None:
    check_refused("TCPServer", ValueError, "only meaningful with ssl", Echo, **{option: value})


# -- threads and processes


@pytest.mark.parametrize("name", THREADING)
def test_max_threads(name: str) -> None:
    for wrong in 0, -1, "5", 1.5, True, [5]:
        check_refused(name, ValueError, "max_threads", handler_for(name), max_threads=wrong)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [("max_threads", 0, "max_threads"), ("close_timeout", -1, "delay")],
)
def test_wrong_attributes(
    attribute: str, value: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attribute of the class is checked like an argument."""
    monkeypatch.setattr(ours.ThreadingTCPServer, attribute, value)
    check_refused("ThreadingTCPServer", ValueError, message, handler_for("ThreadingTCPServer"))


@pytest.mark.parametrize("name", [name for name in ALL if "ing" in name])
def test_close_timeout(name: str) -> None:
    for value in -1, -0.001, -math.inf, math.nan:
        check_refused(name, ValueError, "Invalid delay", handler_for(name), close_timeout=value)
    for wrong in "5", [5], object():
        check_refused(name, TypeError, "real number", handler_for(name), close_timeout=wrong)


@pytest.mark.parametrize("name", ["TCPServer", "UDPServer", "ForkingTCPServer"])
def test_unknown_options(name: str) -> None:
    for option in "max_threads", "close_timeuot":
        check_refused(name, TypeError, option, handler_for(name), **{option: 1})


@pytest.mark.parametrize("name", DATAGRAM_CLASSES)
def test_no_tls_for_datagrams(name: str) -> None:
    check_refused(name, TypeError, "ssl", EchoDatagrams, ssl=server_context())


# -- addresses


@pytest.mark.parametrize("name", ["TCPServer", "ThreadingTCPServer", "UDPServer"])
@pytest.mark.parametrize(
    ("address", "error"),
    [
        (("127.0.0.1", 70000), OverflowError),
        (("127.0.0.1", "80"), TypeError),
        ("127.0.0.1", TypeError),
        (("192.0.2.1", 0), OSError),
        (None, TypeError),
    ],
)
def test_address(name: str, address: Any, error: type[Exception]) -> None:
    """The errors are those of `bind()`, as in the standard module."""
    with pytest.raises(error):
        named(name)(address, handler_for(name))


@pytest.mark.parametrize("name", [name for name in ALL if "Unix" in name])
def test_path_in_a_folder_that_does_not_exist(name: str) -> None:
    with address_for(named(name)) as address, pytest.raises(FileNotFoundError):
        named(name)(f"{address}/server", handler_for(name))


@pytest.mark.parametrize("name", [name for name in ALL if "Unix" in name])
def test_path_that_exists(name: str) -> None:
    """The file of somebody else is left alone."""
    with address_for(named(name)) as address:
        Path(address).write_text("mine")
        with pytest.raises(OSError, match="in use"):
            named(name)(address, handler_for(name))
        assert Path(address).read_text() == "mine"
