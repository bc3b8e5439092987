from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from easynetwork.addresses import (
    SupportsSocketOptions,
    disable_socket_linger,
    enable_socket_linger,
    get_socket_linger,
    get_socket_linger_struct,
    set_tcp_keepalive,
    set_tcp_nodelay,
    socket_linger,
)


@pytest.mark.parametrize(
    ("function", "level", "option"),
    [
        (set_tcp_nodelay, socket.IPPROTO_TCP, socket.TCP_NODELAY),
        (set_tcp_keepalive, socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    ],
)
def test_tcp_option(
    function: Callable[[SupportsSocketOptions, bool], None], level: int, option: int
) -> None:
    """TCP's options can be switched on and off, and tell when they cannot."""
    with socket.socket() as sock:
        function(sock, True)
        assert sock.getsockopt(level, option) != 0
        function(sock, False)
        assert sock.getsockopt(level, option) == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        function(sock, True)


class RecordingSocket(socket.socket):
    """A socket that keeps the arguments of each `setsockopt()`."""

    def __init__(self) -> None:
        super().__init__()
        self.options_set: list[tuple[Any, ...]] = []

    def setsockopt(self, *args: Any) -> None:
        self.options_set.append(args)
        super().setsockopt(*args)


@pytest.mark.parametrize(
    ("function", "constant"),
    [(set_tcp_nodelay, "TCP_NODELAY"), (set_tcp_keepalive, "SO_KEEPALIVE")],
)
def test_tcp_option_unknown_to_the_platform(
    function: Callable[[SupportsSocketOptions, bool], None],
    constant: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the platform does not know an option, nothing is done."""
    monkeypatch.delattr(socket, constant)
    with RecordingSocket() as sock:
        function(sock, True)
        assert sock.options_set == []


def test_linger() -> None:
    """Lingering can be switched on, read and switched off."""
    with socket.socket() as sock:
        assert get_socket_linger(sock) == socket_linger(enabled=False, timeout=0)
        enable_socket_linger(sock, 7)
        assert get_socket_linger(sock) == (True, 7)
        disable_socket_linger(sock)
        assert not get_socket_linger(sock).enabled


@pytest.mark.parametrize(("platform", "layout"), [("linux", "@ii"), ("win32", "@HH")])
def test_linger_struct(platform: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option has the layout of the platform's ``struct linger``."""
    monkeypatch.setattr(sys, "platform", platform)

    assert get_socket_linger_struct().format == layout
