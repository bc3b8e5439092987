"""What only blocking clients for Unix datagrams have."""

from __future__ import annotations

import errno
import math
import os
import socket
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from easynetwork.addresses import SCMCredentials, SocketAncillary, SocketCredential
from easynetwork.clients.unix_datagram import UnixDatagramClient
from easynetwork.exceptions import ClientClosedError, DatagramProtocolParseError
from tests.clients.threads_support import fork, waits_for_lock, waits_for_socket
from tests.clients.udp_support import NOT_A_PACKET, TEXT
from tests.clients.unix_support import Descriptors, ancillary_of, fill, named, receive_fds
from tests.times import PATIENCE

Client = UnixDatagramClient[str, str]
Pair = tuple[Client, socket.socket]

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux does this")
with_and_without = pytest.mark.parametrize("has_ancillary", [False, True])


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Return a client that seldom looks around, and its peer, which is connected to it."""
    with named(socket.SOCK_DGRAM) as peer:
        with Client(peer.getsockname(), TEXT, retry_interval=3600) as client:
            peer.connect(client.socket.getsockname())
            yield client, peer


@pytest.fixture
def ancillary(pipe: Descriptors, has_ancillary: bool) -> SocketAncillary | None:
    """Return a descriptor to send, or none."""
    return ancillary_of(pipe.reading) if has_ancillary else None


def drain(peer: socket.socket, count: int) -> None:
    """Receive as many datagrams, and forget them."""
    for _ in range(count):
        peer.recv(1 << 18)


def check_received(peer: socket.socket, packet: bytes, pipe: Descriptors, count: int) -> None:
    """Assert that a packet arrives next, with as many copies of a descriptor."""
    data, descriptors = receive_fds(peer)
    assert data == packet
    assert len(descriptors) == count
    for number in descriptors:
        pipe.check(number)


# -- Names -------------------------------------------------------------------------------------


@linux_only
def test_name_of_linux() -> None:
    """Without a local path, the client has an abstract name, to which the peer answers."""
    with named(socket.SOCK_DGRAM) as peer, Client(peer.getsockname(), TEXT) as client:
        assert client.get_local_name().as_abstract_name()
        client.send_packet("hello")
        data, address = peer.recvfrom(100)
        assert (data, address) == (b"hello", client.get_local_name().as_raw())
        peer.sendto(b"world", address)
        assert client.recv_packet(timeout=PATIENCE) == "world"


def test_no_name_of_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system chooses none, a local path is needed."""
    monkeypatch.setattr(sys, "platform", "darwin")
    message = "^local_path parameter is required on this platform and cannot be an empty string."
    with pytest.raises(ValueError, match=message) as caught:
        Client("/run/server", TEXT)
    assert caught.value.__notes__ == ["Automatic socket bind is not supported."]


def test_local_path_of_a_conversation(folder: str) -> None:
    """The peer answers to the path of the client."""
    path = f"{folder}/client"
    with named(socket.SOCK_DGRAM) as peer:
        with Client(peer.getsockname(), TEXT, local_path=path) as client:
            client.send_packet("hello")
            assert peer.recvfrom(100) == (b"hello", path)
            peer.sendto(b"world", path)
            assert client.recv_packet(timeout=PATIENCE) == "world"
        with pytest.raises(FileNotFoundError):
            peer.sendto(b"late", path)


@linux_only
def test_strangers(pair: Pair) -> None:
    """The kernel refuses what others send to a connected client."""
    client, _ = pair
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        with pytest.raises(PermissionError):
            stranger.sendto(b"stranger", client.socket.getsockname())


# -- Datagrams ---------------------------------------------------------------------------------


@with_and_without
def test_lengths(pair: Pair, has_ancillary: bool) -> None:
    """Datagrams arrive whole, both ways, empty ones and those of 200,000 bytes as well."""
    client, peer = pair
    options: Any = {"ancillary_data": SocketAncillary()} if has_ancillary else {}
    for length in (0, 1, 0, 65_536, 200_000, 0):
        client.send_packet("x" * length, **options)
        assert peer.recv(1 << 18) == b"x" * length
        peer.send(b"y" * length)
        assert client.recv_packet(timeout=PATIENCE, **options) == "y" * length


@with_and_without
def test_several_lengths(pair: Pair, has_ancillary: bool) -> None:
    """Each datagram is received alone, however long the next one is."""
    client, peer = pair
    options: Any = {"ancillary_data": SocketAncillary()} if has_ancillary else {}
    lengths = [1, 20_000, 0, 3, 0]
    for length in lengths:
        peer.send(b"x" * length)
    for length in lengths:
        assert client.recv_packet(timeout=0, **options) == "x" * length
    with pytest.raises(TimeoutError):
        client.recv_packet(timeout=0, **options)


@with_and_without
def test_too_long(
    pair: Pair, pipe: Descriptors, ancillary: SocketAncillary | None, has_ancillary: bool
) -> None:
    """A datagram that is longer than the send buffer is an error, and nothing is sent."""
    client, peer = pair
    length = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) + 1
    with pytest.raises(OSError, match=f"datagram of {length} bytes is too long: ") as caught:
        client.send_packet("x" * length, ancillary_data=ancillary)
    assert caught.value.errno == errno.EMSGSIZE
    client.send_packet("short", ancillary_data=ancillary)
    check_received(peer, b"short", pipe, has_ancillary)


@with_and_without
def test_peer_that_is_gone(pair: Pair, ancillary: SocketAncillary | None) -> None:
    """Sending to a peer that is gone is refused; then the kernel has disconnected the socket."""
    client, peer = pair
    peer.close()
    with pytest.raises(ConnectionRefusedError):
        client.send_packet("hello", ancillary_data=ancillary)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        client.send_packet("hello", ancillary_data=ancillary)
    # From now on, the kernel would deliver what any other process sends.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for received in None, SocketAncillary():
            stranger.sendto(b"forged", client.socket.getsockname())
            with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
                client.recv_packet(ancillary_data=received)


# -- A peer that does not read -----------------------------------------------------------------


@with_and_without
@pytest.mark.parametrize("is_connected", [False, True])
def test_send_waits(
    pipe: Descriptors, ancillary: SocketAncillary | None, has_ancillary: bool, is_connected: bool
) -> None:
    """Sending waits until the peer reads; then all packets arrive, in order.

    What is full is the queue of the peer, or, if that is connected to the client, the buffer of the
    client.
    """
    with named(socket.SOCK_DGRAM) as peer:
        with Client(peer.getsockname(), TEXT, retry_interval=3600) as client:
            if is_connected:
                peer.connect(client.socket.getsockname())
            count = fill(client, b"xxxxxxxxxx") // 10
            senders = [waits_for_socket(client.send_packet, "a", ancillary_data=ancillary)]
            senders += [waits_for_lock(client.send_packet, "b", ancillary_data=ancillary)]
            assert all(sender.is_waiting() for sender in senders)
            drain(peer, count)
            for packet in (b"a", b"b"):
                check_received(peer, packet, pipe, has_ancillary)
            for sender in senders:
                sender.result()


@with_and_without
@pytest.mark.parametrize("timeout", [0, 0.01])
def test_send_timeout(
    pair: Pair,
    pipe: Descriptors,
    ancillary: SocketAncillary | None,
    has_ancillary: bool,
    timeout: float,
) -> None:
    """If the peer does not read in time, nothing is sent."""
    client, peer = pair
    count = fill(client, b"xxxxxxxxxx") // 10
    for _ in range(2):
        with pytest.raises(TimeoutError) as caught:
            client.send_packet("late", timeout=timeout, ancillary_data=ancillary)
        assert caught.value.errno == errno.ETIMEDOUT
    drain(peer, count)
    client.send_packet("hello", timeout=timeout, ancillary_data=ancillary)
    check_received(peer, b"hello", pipe, has_ancillary)


def test_close_waits_for_a_send(pair: Pair, pipe: Descriptors) -> None:
    """A packet that waits for the peer is sent before the client closes."""
    client, peer = pair
    count = fill(client, b"xxxxxxxxxx") // 10
    sender = waits_for_socket(
        client.send_packet, "hello", ancillary_data=ancillary_of(pipe.reading)
    )
    closer = waits_for_lock(client.close)
    assert not client.is_closed()
    drain(peer, count)
    check_received(peer, b"hello", pipe, 1)
    sender.result()
    closer.result()


def test_close_gives_up(hurry: None, pair: Pair, pipe: Descriptors) -> None:
    """A peer that does not read is not waited for for ever; the thread that sends is told."""
    client, peer = pair
    count = fill(client, b"xxxxxxxxxx") // 10
    sender = waits_for_socket(client.send_packet, "lost", ancillary_data=ancillary_of(pipe.reading))
    client.close()
    with pytest.raises(ClientClosedError):
        sender.result()
    assert client.socket.fileno() == -1
    drain(peer, count)
    peer.setblocking(False)
    with pytest.raises((BlockingIOError, ConnectionError)):
        peer.recv(1)


# -- Sending ancillary data --------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 0, PATIENCE, math.inf])
def test_send(pair: Pair, pipe: Descriptors, timeout: float | None) -> None:
    """Descriptors arrive with the packet; they may be closed as soon as it is sent."""
    client, peer = pair
    copies = [os.dup(pipe.reading) for _ in range(3)]
    client.send_packet("hello", timeout=timeout, ancillary_data=ancillary_of(*copies))
    for number in copies:
        os.close(number)
    check_received(peer, b"hello", pipe, 3)
    for ancillary in (None, SocketAncillary()):
        client.send_packet("without", ancillary_data=ancillary)
        check_received(peer, b"without", pipe, 0)


def test_closed_descriptor(pair: Pair, pipe: Descriptors) -> None:
    """A closed descriptor is an error, nothing is sent, and the client can still be used."""
    client, peer = pair
    closed = os.dup(pipe.reading)
    os.close(closed)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
        client.send_packet("lost", ancillary_data=ancillary_of(pipe.reading, closed))
    assert caught.value.errno == errno.EBADF
    assert not hasattr(caught.value, "__notes__")  # the socket's descriptor is open
    client.send_packet("hello", ancillary_data=ancillary_of(pipe.reading))
    check_received(peer, b"hello", pipe, 1)


@linux_only
def test_credentials(pair: Pair) -> None:
    """Credentials are sent, and received if the socket asks for them."""
    client, peer = pair
    me = SocketCredential(os.getpid(), os.getuid(), os.getgid())
    sent, received = SocketAncillary(), SocketAncillary()
    sent.add_creds([me._replace(pid=0)])
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    peer.sendmsg([b"hello"], sent.as_raw())
    assert client.recv_packet(ancillary_data=received) == "hello"
    [message] = received.messages()
    assert isinstance(message, SCMCredentials)
    assert list(message.credentials) == [me]


def test_two_clients(folder: str, pipe: Descriptors) -> None:
    """Descriptors go from one client to another one, and back."""
    one, other = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    one.bind(f"{folder}/one")
    other.bind(f"{folder}/other")
    one.connect(f"{folder}/other")
    other.connect(f"{folder}/one")
    with Client(one, TEXT) as first, Client(other, TEXT) as second:
        for sender, receiver in ((first, second), (second, first)):
            ancillary = SocketAncillary()
            sender.send_packet("take", ancillary_data=ancillary_of(pipe.reading))
            assert receiver.recv_packet(ancillary_data=ancillary) == "take"
            [number] = ancillary.iter_fds()
            pipe.check(number)


# -- Receiving ancillary data ------------------------------------------------------------------


def test_receive(pair: Pair, pipe: Descriptors) -> None:
    """Descriptors that come with a packet are added to the object, and are the caller's."""
    client, peer = pair
    ancillary = SocketAncillary()
    for packet, count in (("one", 2), ("", 1), ("three", 0)):
        socket.send_fds(peer, [packet.encode()], [pipe.reading] * count)
    for packet, count in (("one", 2), ("", 3), ("three", 3)):
        assert client.recv_packet(ancillary_data=ancillary) == packet
        assert len(list(ancillary.iter_fds())) == count
    numbers = list(ancillary.iter_fds())
    assert not any(map(os.get_inheritable, numbers))
    for number in numbers:
        pipe.check(number)


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_receive_later(pair: Pair, pipe: Descriptors, timeout: float | None) -> None:
    """The same if the client has to wait. Each thread gets a packet with what came with it."""
    client, peer = pair
    ancillary = [SocketAncillary() for _ in range(3)]
    receivers = []
    for each, waits in zip(ancillary, (waits_for_socket, *[waits_for_lock] * 2), strict=True):
        receivers.append(waits(client.recv_packet, timeout=timeout, ancillary_data=each))
    for count in range(3):
        socket.send_fds(peer, [b"%d" % count], [pipe.reading] * count)
    for each, receiver in zip(ancillary, receivers, strict=True):
        numbers = list(each.iter_fds()) if (count := int(receiver.result())) else []
        assert len(numbers) == count
        for number in numbers:
            pipe.check(number)


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_receive_timeout(pair: Pair, pipe: Descriptors, timeout: float) -> None:
    """If nothing arrives in time, nothing is lost."""
    client, peer = pair
    ancillary = SocketAncillary()
    with pytest.raises(TimeoutError) as caught:
        client.recv_packet(timeout=timeout, ancillary_data=ancillary)
    assert caught.value.errno == errno.ETIMEDOUT
    socket.send_fds(peer, [b"hello"], [pipe.reading])
    assert client.recv_packet(timeout=timeout, ancillary_data=ancillary) == "hello"
    [number] = ancillary.iter_fds()
    pipe.check(number)


def test_not_asked_for(pair: Pair, pipe: Descriptors) -> None:
    """Descriptors that are not asked for are closed; those of the next packet are not lost."""
    client, peer = pair
    ancillary = SocketAncillary()
    for packet in (b"one", b"two", b"three"):
        socket.send_fds(peer, [packet], [pipe.reading])
    assert client.recv_packet() == "one"
    assert client.recv_packet(ancillary_data=ancillary) == "two"
    [number] = ancillary.iter_fds()
    pipe.check(number)


def test_bad_packet(pair: Pair, pipe: Descriptors) -> None:
    """What comes with something that is not a packet is added, too: the caller has to close it."""
    client, peer = pair
    ancillary = SocketAncillary()
    socket.send_fds(peer, [NOT_A_PACKET], [pipe.reading])
    socket.send_fds(peer, [b"good"], [pipe.reading])
    with pytest.raises(DatagramProtocolParseError):
        client.recv_packet(ancillary_data=ancillary)
    assert client.recv_packet(ancillary_data=ancillary) == "good"
    numbers = list(ancillary.iter_fds())
    assert len(numbers) == 2
    for number in numbers:
        pipe.check(number)


def test_cut_off(pair: Pair, pipe: Descriptors) -> None:
    """Ancillary data that is longer than its buffer is an error, and the packet is lost."""
    client, peer = pair
    ancillary = SocketAncillary()
    receive = partial(
        client.recv_packet, ancillary_data=ancillary, ancillary_bufsize=socket.CMSG_SPACE(4)
    )
    socket.send_fds(peer, [b"a"], [pipe.reading] * 5)
    socket.send_fds(peer, [b"b"], [pipe.reading])
    with pytest.raises(OSError, match="ancillary data was cut off") as caught:
        receive()
    assert caught.value.errno == errno.EMSGSIZE
    assert receive() == "b"
    [number] = ancillary.iter_fds()
    pipe.check(number)


def test_ancillary_data_that_cannot_be_parsed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is the cause of an error; the client goes on."""
    client, peer = pair

    def crash(self: SocketAncillary, messages: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(SocketAncillary, "update_from_raw", crash)
    peer.send(b"one")
    peer.send(b"two")
    message = r"^ancillary_data_received\(\) crashed$"
    with pytest.raises(RuntimeError, match=message) as caught:
        client.recv_packet(ancillary_data=SocketAncillary())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert client.recv_packet(timeout=PATIENCE) == "two"


def test_sizes(pair: Pair) -> None:
    """A size without an object is an error, and so is one that is not strictly positive."""
    client, peer = pair
    with pytest.raises(ValueError, match="^ancillary_bufsize is only meaningful with ancillary_da"):
        client.recv_packet(ancillary_bufsize=100)
    wrong: Any
    for wrong in (0, -1, 1.5, "x"):
        with pytest.raises(ValueError, match="^ancillary_bufsize must be a strictly positive inte"):
            client.recv_packet(ancillary_data=SocketAncillary(), ancillary_bufsize=wrong)
    peer.send(b"hello")
    assert client.recv_packet() == "hello"


def test_close_while_receiving(pair: Pair) -> None:
    """A thread that waits is told when the client is closed."""
    client, _ = pair
    receive = partial(client.recv_packet, ancillary_data=SocketAncillary())
    receiver = waits_for_socket(receive)
    client.close()
    with pytest.raises(ClientClosedError):
        receiver.result()
    with pytest.raises(ClientClosedError):
        receive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")
def test_fork(pair: Pair, pipe: Descriptors) -> None:
    """A child can send descriptors over its parent's client."""
    client, peer = pair
    receiver = waits_for_socket(client.recv_packet, ancillary_data=SocketAncillary())
    child = fork(
        partial(client.send_packet, "from the child", ancillary_data=ancillary_of(pipe.reading))
    )
    check_received(peer, b"from the child", pipe, 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    peer.send(b"to the parent")
    assert receiver.result() == "to the parent"
