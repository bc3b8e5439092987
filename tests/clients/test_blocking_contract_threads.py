"""What all blocking clients promise to several threads, and to a child of the process."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from easynetwork.exceptions import ClientClosedError
from tests.clients.blocking_kinds import BlockingKind, Congested, Opened
from tests.clients.threads_support import (
    BlockingConverter,
    InThread,
    fork,
    wait_until,
    waits_for_lock,
    waits_for_socket,
)
from tests.times import PATIENCE, STUCK


@pytest.fixture
def congested(kind: BlockingKind, host: str) -> Iterator[Congested]:
    """Yield a client whose kernel does not take `kind.long` at once, and its other end."""
    with kind.congested(host, retry_interval=3600) as client_and_peer:
        yield client_and_peer


# -- Sending and receiving ---------------------------------------------------------------------


def test_several_senders(kind: BlockingKind, congested: Congested) -> None:
    """Packets of several threads arrive whole, those of each thread in order."""
    client, peer, make_room = congested
    make_room()
    count = min(kind.burst // 4, 50)
    growth = len(kind.long) // 5000  # so that some packets do not leave at once
    packets = {
        sender: [f"{sender} {number} " + sender * number * growth for number in range(count)]
        for sender in "abcd"
    }

    def send(sender: str) -> None:
        for packet in packets[sender]:
            client.send_packet(packet)

    senders = [InThread(send, sender) for sender in packets]
    received = [peer.receive() for _ in range(4 * count)]
    for thread in senders:
        thread.result()
    client.close()
    assert peer.rest() == []
    for sender in packets:
        assert [packet for packet in received if packet[0] == sender] == packets[sender]


def test_several_receivers(opened: Opened) -> None:
    """Each packet goes to one of the threads that wait."""
    client, peer = opened
    receivers = [waits_for_socket(client.recv_packet)]
    receivers += [waits_for_lock(client.recv_packet) for _ in range(3)]
    peer.send("one", "two", "three", "four")
    assert {receiver.result() for receiver in receivers} == {"one", "two", "three", "four"}


def test_receivers_under_load(kind: BlockingKind, opened: Opened) -> None:
    """Nothing is lost, doubled or torn between threads that receive as fast as they can."""
    client, peer = opened
    packets = [f"packet {number}" for number in range(5000)]
    received: list[str] = []

    def receive() -> None:
        for packet in client.iter_received_packets(timeout=None):
            received.append(packet)

    receivers = [InThread(receive) for _ in range(4)]
    step = kind.burst // 2
    for start in range(0, len(packets), step):
        wait_until(lambda start=start: len(received) >= start - step)  # type: ignore[misc]  # mypy cannot infer it
        peer.send(*packets[start : start + step])
    wait_until(lambda: len(received) == len(packets))
    client.close()
    for receiver in receivers:
        receiver.result()
    assert Counter(received) == Counter(packets)


def test_receiving_does_not_hold_up_sending(opened: Opened) -> None:
    """A thread can send while another one waits for a packet."""
    client, peer = opened
    receiver = waits_for_socket(client.recv_packet)
    client.send_packet("question", timeout=PATIENCE)
    assert peer.receive() == "question"
    assert receiver.is_waiting()
    peer.send("answer")
    assert receiver.result() == "answer"


@pytest.mark.in_turn
def test_sending_does_not_hold_up_receiving(kind: BlockingKind, congested: Congested) -> None:
    """A thread can receive while another one cannot get rid of its packet."""
    client, peer, make_room = congested
    sender = waits_for_socket(client.send_packet, kind.long)
    peer.send("hello")
    assert client.recv_packet(timeout=PATIENCE) == "hello"
    assert sender.is_waiting()
    make_room()
    assert peer.receive() == kind.long
    sender.result()
    client.close()
    assert peer.rest() == []


# -- Time limits -------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_time_for_the_lock_counts_when_sending(
    kind: BlockingKind, congested: Congested, timeout: float
) -> None:
    """A packet that waited in vain for another one to leave changes nothing."""
    client, peer, make_room = congested
    sender = waits_for_socket(client.send_packet, kind.long)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        client.send_packet("late", timeout=timeout)
    assert time.monotonic() - start < STUCK
    assert sender.is_waiting()
    make_room()
    assert peer.receive() == kind.long
    sender.result()
    client.send_packet("in time", timeout=PATIENCE)
    assert peer.receive() == "in time"
    client.close()
    assert peer.rest() == []


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_time_for_the_lock_counts_when_receiving(opened: Opened, timeout: float) -> None:
    """A thread does not wait longer for another thread than for a packet."""
    client, peer = opened
    receiver = waits_for_socket(client.recv_packet)
    # Both return while the other thread still waits: else they would wait for it for ever.
    with pytest.raises(TimeoutError):
        client.recv_packet(timeout=timeout)
    assert list(client.iter_received_packets(timeout=timeout)) == []
    assert receiver.is_waiting()
    peer.send("hello")
    assert receiver.result() == "hello"


# -- Closing -----------------------------------------------------------------------------------


def test_close_wakes_up_receivers(opened: Opened) -> None:
    """Each thread that waits for a packet, or for another thread, is told at once."""
    client, peer = opened
    receivers = [waits_for_socket(client.recv_packet)]
    receivers += [waits_for_lock(client.recv_packet) for _ in range(3)]
    client.close()
    assert client.is_closed()
    assert peer.rest() == []
    for receiver in receivers:
        with pytest.raises(ClientClosedError, match=r"^Closed client$"):
            receiver.result()
    assert client.socket.fileno() == -1


def test_close_ends_iteration(opened: Opened) -> None:
    """A loop over packets in another thread ends without an error."""
    client, peer = opened
    received: list[str] = []

    def receive() -> None:
        for packet in client.iter_received_packets(timeout=None):
            received.append(packet)

    receiver = InThread(receive)
    peer.send("one", "two")
    wait_until(lambda: received == ["one", "two"])
    receiver.waits_for_socket()
    client.close()
    receiver.result()
    assert received == ["one", "two"]


def test_close_waits_for_senders(kind: BlockingKind, congested: Congested) -> None:
    """A packet that is being sent is sent to its end; later ones are not sent."""
    client, peer, make_room = congested
    sender = waits_for_socket(client.send_packet, kind.long)
    closer = waits_for_lock(client.close)
    assert not client.is_closed()
    assert closer.is_waiting()
    make_room()
    assert peer.receive() == kind.long
    sender.result()
    closer.result()
    with pytest.raises(ClientClosedError):
        client.send_packet("hello")
    assert peer.rest() == []


@pytest.mark.in_turn
def test_close_gives_up(hurry: None, kind: BlockingKind, congested: Congested) -> None:
    """A packet that does not leave is not waited for any longer, and all threads are told."""
    client, _, _ = congested
    sender = waits_for_socket(client.send_packet, kind.long)
    waiting = waits_for_lock(client.send_packet, "next")
    receiver = waits_for_socket(client.recv_packet)
    InThread(client.close).result()
    assert client.is_closed()
    for thread in (sender, waiting, receiver):
        with pytest.raises(ClientClosedError):
            thread.result()
    assert client.socket.fileno() == -1


def test_several_closers(opened: Opened) -> None:
    """Any number of threads may close, while others receive."""
    client, _ = opened
    receivers = [InThread(client.recv_packet) for _ in range(3)]
    closers = [InThread(client.close) for _ in range(5)]
    for closer in closers:
        closer.result()
    for receiver in receivers:
        with pytest.raises(ClientClosedError):
            receiver.result()
    assert client.socket.fileno() == -1


@pytest.mark.in_turn
def test_close_at_any_moment(kind: BlockingKind, host: str) -> None:
    """Whichever moment a client is closed at, its descriptor is closed, and by one thread only."""
    for _ in range(30):
        with kind.open(host, retry_interval=3600) as (client, peer):
            peer.send(*["hello"] * min(kind.burst, 100))
            receivers = [
                InThread(list, client.iter_received_packets(timeout=None)) for _ in range(2)
            ]
            peer.leave()
            closers = [InThread(client.close) for _ in range(2)]
            for thread in (*closers, *receivers):
                assert set(thread.result() or ()) <= {"hello"}
            assert client.socket.fileno() == -1


# -- Forking -----------------------------------------------------------------------------------


@pytest.mark.in_turn
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")
def test_fork(kind: BlockingKind, host: str) -> None:
    """A child can use the client although threads of its parent had all locks."""
    converter = BlockingConverter()
    with kind.open(host, converter) as (client, peer):
        peer.send("block")
        threads = [
            InThread(client.recv_packet).waits_in("wait"),
            InThread(client.send_packet, "block").waits_in("wait"),
        ]
        child = fork(talk_to_parent, client)
        assert peer.receive() == "from the child"
        peer.send("to the child")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        converter.go_on.set()
        assert [thread.result() for thread in threads] == ["block", None]
        assert peer.receive() == "block"


def talk_to_parent(client: Any) -> None:
    client.send_packet("from the child", timeout=PATIENCE)
    assert client.recv_packet(timeout=PATIENCE) == "to the child"
