"""The blocking UDP client, shared by threads, and by processes that fork."""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter

import pytest

from easynetwork.clients.udp import UDPNetworkClient
from easynetwork.exceptions import ClientClosedError
from tests.clients.threads_support import (
    InThread,
    wait_until,
    waits_for_lock,
    waits_for_socket,
)
from tests.clients.udp_support import (
    TEXT,
    Full,
    address_of,
    bound,
    connected_to,
    opened,
    send_unnoticed,
)
from tests.times import PATIENCE


class Untold(socket.socket):
    """A socket whose kernel wakes up nobody, as some do."""

    def shutdown(self, how: int, /) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))


# -- Several threads ---------------------------------------------------------------------------


def test_several_senders() -> None:
    """Packets of several threads arrive whole, those of each thread in order."""
    with opened() as (client, peer):

        def send(sender: str) -> None:
            for number in range(20):
                client.send_packet(f"{sender} {number}")

        senders = [InThread(send, sender) for sender in "abcd"]
        received = [peer.recv(100).decode().split() for _ in range(80)]
        for thread in senders:
            thread.result()
        for sender in "abcd":
            numbers = [number for name, number in received if name == sender]
            assert numbers == [*map(str, range(20))]


def test_receivers_under_load() -> None:
    """Nothing is lost or doubled between threads that receive as fast as they can."""
    with opened() as (client, peer):
        packets = [f"packet {number}" for number in range(2000)]
        received: list[str] = []

        def receive() -> None:
            for packet in client.iter_received_packets(timeout=None):
                received.append(packet)

        receivers = [InThread(receive) for _ in range(4)]
        for number, packet in enumerate(packets):
            wait_until(lambda number=number: len(received) > number - 50)  # type: ignore[misc]  # mypy cannot infer it
            peer.send(packet.encode())
        wait_until(lambda: len(received) == len(packets))
        client.close()
        for receiver in receivers:
            receiver.result()
        assert Counter(received) == Counter(packets)


def test_both_directions_at_once() -> None:
    """A thread can send while another one waits for a packet."""
    with opened() as (client, peer):
        receiver = waits_for_socket(client.recv_packet)
        client.send_packet("question", timeout=PATIENCE)
        assert peer.recv(100) == b"question"
        peer.send(b"answer")
        assert receiver.result() == "answer"


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


# -- Time limits -------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_time_for_the_lock_counts_when_sending(timeout: float) -> None:
    """A packet that waited in vain for another one to leave changes nothing."""
    with bound() as peer:
        sock = connected_to(peer, Full)
        with UDPNetworkClient(sock, TEXT) as client:
            sender = InThread(client.send_packet, "first")
            wait_until(lambda: sock.refused)
            with pytest.raises(TimeoutError):
                client.send_packet("late", timeout=timeout)
            sock.room = True
            sender.result()
            client.send_packet("in time", timeout=PATIENCE)
            assert [peer.recv(100), peer.recv(100)] == [b"first", b"in time"]


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


def test_close_waits_for_senders() -> None:
    """A packet that is being sent is sent; later ones are not."""
    with bound() as peer:
        sock = connected_to(peer, Full)
        client = UDPNetworkClient(sock, TEXT)
        sender = InThread(client.send_packet, "first")
        wait_until(lambda: sock.refused)
        closer = waits_for_lock(client.close)
        assert not client.is_closed()
        sock.room = True
        sender.result()
        closer.result()
        assert peer.recv(100) == b"first"
        with pytest.raises(ClientClosedError):
            client.send_packet("second")


def test_close_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A datagram that does not leave is not waited for any longer."""
    monkeypatch.setattr("easynetwork.clients._blocking_client.CLOSE_TIMEOUT", 0.1)
    monkeypatch.setattr("easynetwork.clients._blocking_client.SENDER_INTERVAL", 0.1)
    with bound() as peer:
        sock = connected_to(peer, Full)
        client = UDPNetworkClient(sock, TEXT, retry_interval=3600)
        sender = InThread(client.send_packet, "first")
        wait_until(lambda: sock.refused)
        InThread(client.close).result()
        assert client.is_closed()
        with pytest.raises(ClientClosedError):
            sender.result()
        assert client.socket.fileno() == -1


def test_close_at_any_moment() -> None:
    """Whichever moment a client is closed at, its descriptor is closed, and by one thread only."""
    for _ in range(30):
        with opened(retry_interval=3600) as (client, peer):
            for _ in range(20):
                peer.send(b"hello")
            receivers = [
                InThread(list, client.iter_received_packets(timeout=None)) for _ in range(2)
            ]
            closers = [InThread(client.close) for _ in range(2)]
            for thread in (*closers, *receivers):
                assert set(thread.result() or ()) <= {"hello"}
            assert client.socket.fileno() == -1


# -- Forking -----------------------------------------------------------------------------------
