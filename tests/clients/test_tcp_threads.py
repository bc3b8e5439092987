"""The blocking TCP client, shared by threads."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from easynetwork.clients.tcp import TCPNetworkClient
from easynetwork.exceptions import ClientClosedError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers.line import StringLineSerializer
from tests.clients.conftest import Lines, Pair
from tests.clients.threads_support import (
    BlockingConverter,
    InThread,
    wait_until,
    waits_for_lock,
    waits_for_socket,
)
from tests.times import PATIENCE, SOON

LINES: Lines = StreamProtocol(StringLineSerializer())
LARGE = "x" * 1_000_000  # more than the kernel keeps for a `narrow` connection


def read_all(sock: socket.socket) -> bytes:
    """Return everything until the end of the stream."""
    with sock.makefile("rb") as stream:
        return stream.read()


# -- Several threads ---------------------------------------------------------------------------


def test_end_of_stream_under_load(pair: Pair) -> None:
    """Each of several threads that receive comes to the end of the stream; no packet is lost."""
    client, peer = pair
    packets = [f"packet {number}" for number in range(5000)]

    def receive() -> list[str]:
        return list(client.iter_received_packets(timeout=None))

    receivers = [InThread(receive) for _ in range(4)]
    peer.sendall("".join(f"{packet}\n" for packet in packets).encode())
    peer.shutdown(socket.SHUT_WR)
    received = [packet for receiver in receivers for packet in receiver.result()]
    assert Counter(received) == Counter(packets)


# -- Time limits -------------------------------------------------------------------------------


def test_the_lock_and_the_packet_share_the_time(pair: Pair) -> None:
    """What a thread waited for another one is not there any more for its own packet."""
    client, peer = pair
    first = waits_for_socket(client.recv_packet)
    start = time.monotonic()
    second = waits_for_lock(client.recv_packet, timeout=10 * SOON)
    wait_until(lambda: time.monotonic() >= start + 8 * SOON)
    peer.sendall(b"hello\nwor")
    assert first.result() == "hello"
    with pytest.raises(TimeoutError):
        second.result()
    # Time that begins again with the lock would end after 18 of these.
    assert 10 * SOON <= time.monotonic() - start < 16 * SOON
    peer.sendall(b"ld\n")
    assert client.recv_packet() == "world"


def test_all_parts_of_a_packet_share_the_time(pair: Pair) -> None:
    """A peer that sends now and then does not make a thread wait longer."""
    client, peer = pair
    stop = threading.Event()

    def trickle() -> int:
        count = 0
        while not stop.wait(0.005):
            peer.sendall(b"x")
            count += 1
        return count

    trickling = InThread(trickle)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        client.recv_packet(timeout=0.1)
    assert time.monotonic() - start < PATIENCE
    stop.set()
    count = trickling.result()
    peer.sendall(b"\n")
    assert client.recv_packet() == "x" * count


# -- Closing -----------------------------------------------------------------------------------


def test_close_loses_nothing(pair: Pair) -> None:
    """What was sent arrives although the peer goes on sending what nobody reads."""
    client, peer = pair
    peer.sendall(b"unread\n")
    client.send_packet(LARGE, timeout=PATIENCE)
    closer = waits_for_socket(client.close)
    peer.sendall(b"unread, too\n")
    assert read_all(peer) == LARGE.encode() + b"\n"
    peer.close()
    closer.result()


def test_close_loses_nothing_while_another_thread_receives(pair: Pair) -> None:
    """What was sent arrives although the peer sends to a client that has just been closed."""
    client, peer = pair
    receiver = waits_for_socket(client.recv_packet)
    client.send_packet(LARGE, timeout=PATIENCE)
    closer = InThread(client.close)
    with pytest.raises(ClientClosedError):
        receiver.result()
    peer.sendall(b"too late\n")
    assert read_all(peer) == LARGE.encode() + b"\n"
    closer.result()


def test_send_eof_waits_for_senders(narrow: Pair) -> None:
    """The end comes behind the packet that is being sent."""
    client, peer = narrow
    sender = waits_for_socket(client.send_packet, LARGE)
    ender = waits_for_lock(client.send_eof)
    assert read_all(peer) == LARGE.encode() + b"\n"
    sender.result()
    ender.result()


def test_inspection_waits_for_nobody(narrow: Pair) -> None:
    """The socket can be looked at, and its options set, while a packet does not leave."""
    client, peer = narrow
    sender = waits_for_socket(client.send_packet, LARGE)
    for inspect in (client.socket.getsockname, client.get_local_address):
        assert InThread(inspect).result() == peer.getpeername()
    assert client.get_remote_address() == peer.getsockname()
    assert client.fileno() == client.socket.fileno() >= 0
    assert "laddr" in repr(client.socket)
    InThread(client.socket.setsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY, 0).result()
    assert sender.is_waiting()
    with peer.makefile("rb") as stream:
        assert stream.readline() == LARGE.encode() + b"\n"
    sender.result()


# -- Peers that do not read --------------------------------------------------------------------


def test_close_that_gives_up_resets_the_connection(
    hurry: None, connect: Callable[..., Pair]
) -> None:
    """The peer gets an error, and does not take the beginning of the packet for everything."""
    client, peer = connect(retry_interval=3600)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sender = waits_for_socket(client.send_packet, LARGE)
    InThread(client.close).result()
    with pytest.raises(ClientClosedError):
        sender.result()
    with pytest.raises(ConnectionResetError):
        read_all(peer)


def test_reset_while_another_thread_closes(narrow: Pair) -> None:
    """A peer that does not read is not waited for any longer, and gets an error."""
    client, peer = narrow
    peer.sendall(b"unread\n")
    with pytest.raises(TimeoutError):
        client.send_packet(LARGE, timeout=5 * SOON)  # until the kernel takes no more
    closer = InThread(client.close).waits_in("select", "end_stream")
    start = time.monotonic()
    client._reset()
    closer.result()
    assert time.monotonic() - start < 1
    with pytest.raises(ConnectionResetError):
        read_all(peer)


def test_close_gives_up_a_serializer(hurry: None, listener: socket.socket) -> None:
    """Nor is a serializer that does not return; its thread closes the socket in the end."""
    converter = BlockingConverter()
    protocol = StreamProtocol(StringLineSerializer(), converter)
    client = TCPNetworkClient(listener.getsockname()[:2], protocol)
    sender = InThread(client.send_packet, "block").waits_in("wait")
    InThread(client.close).result()
    assert client.is_closed()
    converter.go_on.set()
    with pytest.raises(ClientClosedError):
        sender.result()
    assert client.socket.fileno() == -1


def test_send_eof_gives_up(hurry: None, narrow: Pair) -> None:
    """The end cannot be sent past a packet that does not leave. Nothing has changed then."""
    client, peer = narrow
    sender = waits_for_socket(client.send_packet, LARGE)
    with pytest.raises(TimeoutError, match="Another thread is still sending a packet"):
        InThread(client.send_eof).result()
    received = InThread(read_all, peer)
    sender.result()
    client.send_packet("hello")
    client.send_eof()
    assert received.result() == LARGE.encode() + b"\nhello\n"
