"""The blocking UDP client, shared by threads."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from easynetwork.clients.udp import UDPNetworkClient
from easynetwork.exceptions import ClientClosedError
from tests.clients.threads_support import waits_for_socket
from tests.clients.udp_support import TEXT, address_of, bound, connected_to, opened, send_unnoticed
from tests.times import PATIENCE


class Untold(socket.socket):
    """A socket whose kernel wakes up nobody, as some do."""

    def shutdown(self, how: int, /) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))


# -- Several threads ---------------------------------------------------------------------------


def test_dead_peer_while_receiving() -> None:
    """A thread that waits hears that nobody listens, and can wait again."""
    with opened() as (client, peer):
        address = address_of(peer)
        receiver = waits_for_socket(client.recv_packet)
        peer.close()
        send_unnoticed(client, b"anybody there?")
        with pytest.raises(ConnectionRefusedError):
            receiver.result()
        receiver = waits_for_socket(client.recv_packet)
        with bound(*address) as peer:
            peer.sendto(b"hello", client.get_local_address())
            assert receiver.result() == "hello"


# -- Closing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_close_without_the_kernel(timeout: float | None) -> None:
    """Should the kernel not wake up a receiver, it looks by itself after a while."""
    with bound() as peer:
        client = UDPNetworkClient(connected_to(peer, Untold), TEXT, retry_interval=0.01)
        receiver = waits_for_socket(client.recv_packet, timeout=timeout)
        client.close()
        with pytest.raises(ClientClosedError, match=r"^Closed client$"):
            receiver.result()
        assert client.socket.fileno() == -1
