"""How long the kernel waits for a peer that says nothing."""

from __future__ import annotations

import socket
import sys

import pytest

from easynetwork.sockets.patience import limit_silence, unacknowledged
from tests.robustness.peers import wait_until

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="options of Linux's tcp(7)")


def options(sock: socket.socket) -> list[int]:
    return [
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        *(
            sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        ),
    ]


@on_linux
def test_accepted_connections_inherit() -> None:
    """What is set on a listening socket holds for the connections that it accepts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        limit_silence(listening, 60, 30)
        with socket.create_connection(listening.getsockname()):
            connection, _ = listening.accept()
            with connection:
                assert options(connection) == [1, 60, 30, 3, 42_500]


@on_linux
def test_silent_peers_come_first() -> None:
    """A long time to send does not keep silent peers, as the kernel would have it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        limit_silence(listening, 10, 60)
        assert options(listening) == [1, 10, 5, 3, 0]


@on_linux
def test_left_to_the_system() -> None:
    """None changes nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        before = options(listening)
        limit_silence(listening, None, None)
        assert options(listening) == before


@on_linux
@pytest.mark.parametrize("seconds", [0.01, 1e12])
def test_out_of_range(seconds: float) -> None:
    """What the system does not take is left as it was."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        limit_silence(listening, seconds, seconds)
        assert options(listening)[0] == 1


def test_not_tcp() -> None:
    """A socket of another kind has no such options."""
    left, right = socket.socketpair()
    with left, right:
        limit_silence(left, 60, 60)


@on_linux
def test_unacknowledged() -> None:
    """What the peer has acknowledged is not counted any more."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sender = socket.create_connection(listening.getsockname())
        with sender, listening.accept()[0] as receiver:
            sender.setblocking(False)
            sent = 0
            while True:
                try:
                    sent += sender.send(bytes(100_000))
                except BlockingIOError:
                    break
            waiting = unacknowledged(sender)
            assert waiting > 0
            receiver.settimeout(10)
            received = 0
            while received < sent:
                received += len(receiver.recv(1 << 20))
            wait_until(lambda: unacknowledged(sender) == 0)
        assert unacknowledged(sender) == 0  # it is closed
