"""What all blocking clients promise about packets, and about the time that they take."""

from __future__ import annotations

import errno
import math
import selectors
import time
from typing import Any

import pytest

from easynetwork.clients import _waiting
from easynetwork.exceptions import DeserializeError, ProtocolCrashedError
from tests.clients.blocking_kinds import BlockingKind, CrashConverter, Opened
from tests.times import PATIENCE, SOON

NOT_A_PACKET = b"\xff"

# -- Packets -----------------------------------------------------------------------------------


def test_round_trip(opened: Opened) -> None:
    """A packet leaves as its bytes, and bytes come back as a packet."""
    client, peer = opened
    client.send_packet("hello")
    assert peer.receive() == "hello"
    peer.send("world")
    assert client.recv_packet() == "world"
    client.close()
    assert peer.rest() == []


def test_order(kind: BlockingKind, opened: Opened) -> None:
    """Packets that have arrived come out one by one, in order."""
    client, peer = opened
    packets = [str(number) for number in range(kind.burst)]
    peer.deliver(client, *packets)
    assert [client.recv_packet(timeout=PATIENCE) for _ in packets] == packets


def test_bad_packet(kind: BlockingKind, opened: Opened) -> None:
    """Bytes that are not a packet are an error; the packets around them arrive."""
    client, peer = opened
    peer.send_bytes(b"one", NOT_A_PACKET, b"two")
    assert client.recv_packet() == "one"
    with pytest.raises(kind.parse_error) as caught:
        client.recv_packet()
    assert isinstance(caught.value.error, DeserializeError)
    assert client.recv_packet() == "two"


def test_protocol_crash(kind: BlockingKind, host: str) -> None:
    """An exception of the protocol object is the cause of an error; the client goes on."""
    with kind.open(host, CrashConverter()) as (client, peer):
        peer.send("crash", "hello")
        message = rf"^protocol\.{kind.deserializing}\(\) crashed$"
        with pytest.raises(ProtocolCrashedError, match=message) as caught:
            client.recv_packet()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert client.recv_packet() == "hello"
        message = rf"^protocol\.{kind.serializing}\(\) crashed$"
        with pytest.raises(ProtocolCrashedError, match=message) as caught:
            client.send_packet("crash")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        client.send_packet("hello")
        assert peer.receive() == "hello"
        client.close()
        assert peer.rest() == []


# -- Iterators ---------------------------------------------------------------------------------


def test_iterate_over_what_is_there(opened: Opened) -> None:
    """By default, the iterator gives what has been received, also if only the kernel knows."""
    client, peer = opened
    assert list(client.iter_received_packets()) == []
    peer.deliver(client, "one", "", "three")
    assert list(client.iter_received_packets()) == ["one", "", "three"]
    peer.deliver(client, "four")
    assert list(client.iter_received_packets(timeout=0)) == ["four"]


def test_iterate_for_a_time(opened: Opened) -> None:
    """With a timeout, the iterator ends when it has passed."""
    client, peer = opened
    peer.send("one", "two")
    assert list(client.iter_received_packets(timeout=SOON)) == ["one", "two"]


def test_errors_while_iterating(kind: BlockingKind, host: str) -> None:
    """Bad packets do not end an iterator; to close the client does."""
    with kind.open(host, CrashConverter()) as (client, peer):
        peer.send_bytes(b"one", NOT_A_PACKET, b"crash", b"two")
        packets = client.iter_received_packets(timeout=None)
        assert next(packets) == "one"
        with pytest.raises(kind.parse_error):
            next(packets)
        with pytest.raises(ProtocolCrashedError, match="crashed"):
            next(packets)
        assert next(packets) == "two"
        peer.leave()
        client.close()
        assert list(packets) == []
        assert list(client.iter_received_packets()) == []


# -- Time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, math.inf, 5, 0.5, 0])
def test_timeouts(opened: Opened, timeout: float | None) -> None:
    """With any timeout, or none, an operation that need not wait is done."""
    client, peer = opened
    peer.deliver(client, "hello")
    client.send_packet("world", timeout=timeout)
    assert peer.receive() == "world"
    assert client.recv_packet(timeout=timeout) == "hello"


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_receive_timeout(opened: Opened, timeout: float) -> None:
    """When no packet has come in time, that is a TimeoutError; the client goes on."""
    client, peer = opened
    with pytest.raises(TimeoutError) as caught:
        client.recv_packet(timeout=timeout)
    assert caught.value.errno == errno.ETIMEDOUT
    peer.send("hello")
    assert client.recv_packet() == "hello"


@pytest.mark.parametrize(
    ("timeout", "message"),
    [
        (-1, r"^Invalid delay: negative value$"),
        (-math.inf, r"^Invalid delay: negative value$"),
        (math.nan, r"^Invalid delay: NaN \(not a number\)$"),
    ],
)
def test_wrong_timeouts(opened: Opened, timeout: float, message: str) -> None:
    """An invalid timeout is refused, and nothing happens."""
    client, peer = opened
    peer.send("hello")
    with pytest.raises(ValueError, match=message):
        client.recv_packet(timeout=timeout)
    with pytest.raises(ValueError, match=message):
        client.send_packet("refused", timeout=timeout)
    with pytest.raises(ValueError, match=message):
        client.iter_received_packets(timeout=timeout)
    assert client.recv_packet() == "hello"
    client.send_packet("accepted")
    assert peer.receive() == "accepted"
    client.close()
    assert peer.rest() == []


def test_waits_are_sliced(kind: BlockingKind, host: str) -> None:
    """A wait that is made of many short ones is as long as one."""
    with kind.open(host, retry_interval=0.0001) as (client, peer):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0.02)
        assert time.monotonic() - start > 0.019
        peer.send("hello")
        assert client.recv_packet(timeout=PATIENCE) == "hello"


def test_spurious_wake_up(kind: BlockingKind, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel says that a socket is readable, and then it is not, the client waits again."""
    lies = [True]

    class Liar(selectors.SelectSelector):
        def select(self, timeout: float | None = None) -> Any:
            return lies.pop() if lies else super().select(timeout)

    monkeypatch.setattr(_waiting, "_Selector", Liar)
    with kind.open(host) as (client, peer):
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0.01)
        assert not lies
        peer.send("hello")
        assert client.recv_packet() == "hello"
