from __future__ import annotations

import socket
import sys

import pytest

from easynetwork.sockets.closing import (
    close_all,
    close_on_error,
    construct_or_close,
    get_unacknowledged_size,
)


@pytest.fixture
def sockets() -> list[socket.socket]:
    """Two sockets, which are closed by the test."""
    return [socket.socket(), socket.socket()]


def test_close_all(sockets: list[socket.socket]) -> None:
    close_all(sockets)
    assert [sock.fileno() for sock in sockets] == [-1, -1]


def test_close_on_error(sockets: list[socket.socket]) -> None:
    """Sockets stay open if the block succeeds; what is no socket is left alone."""
    with close_on_error(*sockets, ("localhost", 80)):
        pass
    assert all(sock.fileno() >= 0 for sock in sockets)
    with pytest.raises(KeyboardInterrupt), close_on_error(*sockets, ("localhost", 80)):
        raise KeyboardInterrupt
    assert [sock.fileno() for sock in sockets] == [-1, -1]


def test_construct_or_close(sockets: list[socket.socket]) -> None:
    """A socket is closed if its owner cannot be made."""

    def make(sock: socket.socket, number: int) -> float:
        return 1 / number

    good, bad = sockets
    with good:
        assert construct_or_close(make, good, 2) == 0.5
        assert good.fileno() >= 0
    with pytest.raises(ZeroDivisionError):
        construct_or_close(make, bad, 0)
    assert bad.fileno() == -1


def test_unacknowledged_by_a_unix_socket() -> None:
    """What was sent over a Unix socket has arrived, whether or not the peer has read it."""
    one, other = socket.socketpair()
    with one, other:
        one.send(b"hello")
        assert get_unacknowledged_size(one) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="SIOCOUTQ is Linux's")
def test_unacknowledged() -> None:
    """Bytes that the peer's system has no room for are not acknowledged."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as sock, listener.accept()[0]:
            assert get_unacknowledged_size(sock) == 0
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    sock.send(bytes(1 << 18))
            assert get_unacknowledged_size(sock) > 0
    assert get_unacknowledged_size(sock) == 0
