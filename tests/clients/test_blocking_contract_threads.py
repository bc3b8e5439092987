"""What all blocking clients promise to several threads, and to a child of the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from easynetwork.exceptions import ClientClosedError
from tests.clients.blocking_kinds import BLOCKING_KINDS, BlockingKind, Opened
from tests.clients.threads_support import (
    BlockingConverter,
    InThread,
    fork,
    wait_until,
    waits_for_lock,
    waits_for_socket,
)
from tests.times import PATIENCE


@pytest.fixture(params=BLOCKING_KINDS)
def kind(request: pytest.FixtureRequest) -> BlockingKind:
    """Return a kind of client."""
    return BLOCKING_KINDS[request.param]


@pytest.fixture
def opened(kind: BlockingKind) -> Iterator[Opened]:
    """Yield a connected client of some kind, which seldom looks around, and its other end."""
    with kind.open("127.0.0.1", retry_interval=3600) as client_and_peer:
        yield client_and_peer


def test_several_receivers(opened: Opened) -> None:
    """Each packet goes to one of the threads that wait."""
    client, peer = opened
    receivers = [waits_for_socket(client.recv_packet)]
    receivers += [waits_for_lock(client.recv_packet) for _ in range(3)]
    peer.send("one", "two", "three", "four")
    assert {receiver.result() for receiver in receivers} == {"one", "two", "three", "four"}


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


def test_close_wakes_up_receivers(opened: Opened) -> None:
    """Each thread that waits for a packet, or for another thread, is told at once."""
    client, _ = opened
    receivers = [waits_for_socket(client.recv_packet)]
    receivers += [waits_for_lock(client.recv_packet) for _ in range(3)]
    client.close()
    assert client.is_closed()
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
    receiver.waits_in("select")
    client.close()
    receiver.result()
    assert received == ["one", "two"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")
def test_fork(kind: BlockingKind) -> None:
    """A child can use the client although threads of its parent had all locks."""
    converter = BlockingConverter()
    with kind.open("127.0.0.1", converter) as (client, peer):
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
