"""Bytes and the ancillary data that comes with them."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from easynetwork.addresses import SocketAncillary
from easynetwork.addresses._ancillary import DEFAULT_ANCILLARY_BUFSIZE, RawAncillary
from easynetwork.sockets.datagrams import DatagramCalls, new_datagram_calls
from easynetwork.sockets.messages import (
    AncillaryInbox,
    MessageReader,
    ReceivedDatagram,
    receive_message,
    too_long_for_ancillary,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="MSG_TRUNC asks for the length")
each_kind = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])

ROOM = DEFAULT_ANCILLARY_BUFSIZE
CUT_OFF = "^.*ancillary data was cut off: it is longer than the [0-9]+ bytes of its buffer, or the"

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def kind() -> socket.SocketKind:
    """Return the type of the sockets, unless a test has its own."""
    return socket.SOCK_DGRAM


@pytest.fixture
def pair(kind: socket.SocketKind) -> Iterator[Pair]:
    """Two non-blocking Unix sockets that are connected to each other."""
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


def send(sock: socket.socket, data: bytes, count: int) -> None:
    """Send bytes with some descriptors."""
    socket.send_fds(sock, [data], [sock.fileno()] * count)


def fds_of(messages: RawAncillary) -> list[int]:
    ancillary = SocketAncillary()
    ancillary.update_from_raw(messages)
    return list(ancillary.iter_fds())


def close(messages: RawAncillary) -> int:
    """Close descriptors; return how many there were."""
    numbers = fds_of(messages)
    for number in numbers:
        os.close(number)
    return len(numbers)


def count_open() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/dev/fd"))


# -- One message -------------------------------------------------------------------------------


@each_kind
def test_message(pair: Pair) -> None:
    """A message is its bytes, its ancillary data and its sender."""
    send(pair[1], b"hello", 2)
    view = memoryview(bytearray(10))
    message = receive_message(pair[0], view, ROOM)
    assert bytes(view[: message.nbytes]) == b"hello"
    assert not message.address  # it has no name
    assert message.error is None
    assert close(message.ancillary) == 2
    with pytest.raises(BlockingIOError):
        receive_message(pair[0], view, ROOM)


@each_kind
def test_message_without_ancillary_data(pair: Pair) -> None:
    """There may be none."""
    pair[1].send(b"hello")
    message = receive_message(pair[0], memoryview(bytearray(10)), ROOM)
    assert (message.nbytes, message.ancillary, message.error) == (5, [], None)


def test_empty_datagram(pair: Pair) -> None:
    """An empty datagram may have descriptors, too."""
    send(pair[1], b"", 1)
    message = receive_message(pair[0], memoryview(bytearray(10)), ROOM)
    assert message.nbytes == 0
    assert close(message.ancillary) == 1


@each_kind
def test_descriptors_are_not_inherited(pair: Pair) -> None:
    """A program that is started meanwhile does not get the descriptors."""
    send(pair[1], b"hello", 2)
    message = receive_message(pair[0], memoryview(bytearray(10)), ROOM)
    assert [os.get_inheritable(number) for number in fds_of(message.ancillary)] == [False, False]
    close(message.ancillary)


@each_kind
@pytest.mark.parametrize("room", [1, socket.CMSG_SPACE(4), socket.CMSG_SPACE(8)])
def test_ancillary_data_that_is_cut_off(pair: Pair, room: int) -> None:
    """It is an error that says so, and the descriptors that came are closed."""
    before = count_open()
    send(pair[1], b"hello", 5)
    view = memoryview(bytearray(10))
    message = receive_message(pair[0], view, room)
    assert bytes(view[: message.nbytes]) == b"hello"
    assert message.ancillary == []
    assert message.error is not None
    assert message.error.errno == errno.EMSGSIZE
    assert f"longer than the {room} bytes of its buffer" in str(message.error)
    assert count_open() == before


@linux_only
def test_no_descriptor_left(pair: Pair) -> None:
    """The kernel cuts ancillary data off as well if the process has too many open files."""
    import resource

    before = count_open()
    send(pair[1], b"hello", 5)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(number) for number in os.listdir("/proc/self/fd"))
    fillers: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        for _ in range(2):
            os.close(fillers.pop())
        message = receive_message(pair[0], memoryview(bytearray(10)), ROOM)
    finally:
        for number in fillers:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert message.ancillary == []
    assert "the process has no descriptor left (`ulimit -n`)" in str(message.error)
    assert count_open() == before


@linux_only
def test_message_that_is_cut_off(pair: Pair) -> None:
    """The length is that of the datagram, though it does not fit; nothing is written behind."""
    pair[1].send(b"x" * 1000)
    memory = bytearray(20)
    assert receive_message(pair[0], memoryview(memory)[:10], ROOM).nbytes == 1000
    assert memory == b"x" * 10 + bytes(10)


# -- A reader ----------------------------------------------------------------------------------


@each_kind
def test_reader(pair: Pair) -> None:
    """A reader returns bytes as a socket does, and hands over what came with them."""
    received: RawAncillary = []
    reader = MessageReader(pair[0], ROOM, received.extend)
    with pytest.raises(BlockingIOError):
        reader.recv(10)
    send(pair[1], b"hello", 1)
    assert reader.recv(10) == b"hello"
    send(pair[1], b"world", 2)
    view = memoryview(bytearray(10))
    assert reader.recv_into(view) == 5
    assert bytes(view[:5]) == b"world"
    assert reader.error is None
    assert close(received) == 3


def test_reader_at_the_end() -> None:
    """The end of a stream is no bytes, as for a socket."""
    one, other = socket.socketpair()
    with one:
        other.close()
        received: RawAncillary = []
        assert MessageReader(one, ROOM, received.extend).recv(10) == b""
        assert received == []


@each_kind
def test_reader_without_room(pair: Pair) -> None:
    """Ancillary data that is cut off is an error of the reader; the bytes are there."""
    received: RawAncillary = []
    reader = MessageReader(pair[0], 1, received.extend)
    send(pair[1], b"hello", 1)
    assert reader.recv(10) == b"hello"
    assert received == []
    with pytest.raises(OSError, match=CUT_OFF) as caught:
        raise reader.error or AssertionError
    assert caught.value.errno == errno.EMSGSIZE


@linux_only
def test_reader_of_a_long_datagram(pair: Pair) -> None:
    """A datagram that does not fit is an error; its descriptors are handed over to be closed."""
    received: RawAncillary = []
    reader = MessageReader(pair[0], ROOM, received.extend)
    send(pair[1], b"x" * 1000, 1)
    assert reader.recv(10) == b"x" * 10
    assert reader.error is not None
    assert "datagram of 1000 bytes does not fit into 10 bytes" in str(reader.error)
    assert close(received) == 1


# -- An inbox of datagrams ---------------------------------------------------------------------


class Inbox:
    """What receives the datagrams of a socket."""

    def __init__(self, sock: socket.socket, bufsize: int = ROOM) -> None:
        self.inbox = AncillaryInbox(sock, bufsize)
        self.calls = self.inbox.calls(new_datagram_calls(sock))
        self.view = memoryview(bytearray(100))

    def receive(self) -> ReceivedDatagram:
        nbytes, _ = self.calls.receive_from(self.view)
        assert self.calls.attach is not None
        datagram = self.calls.attach(self.view[:nbytes].tobytes())
        assert isinstance(datagram, ReceivedDatagram)
        return datagram


def test_inbox(pair: Pair) -> None:
    """A datagram is its bytes, with what came with it, which can be taken once."""
    inbox = Inbox(pair[0])
    send(pair[1], b"hello", 2)
    datagram = inbox.receive()
    assert datagram == b"hello"
    assert inbox.inbox.waiting == 2
    assert close(datagram.take()) == 2
    assert inbox.inbox.waiting == 0
    assert datagram.take() == []
    assert datagram == b"hello"


def test_inbox_of_datagrams_without(pair: Pair) -> None:
    """What came with one datagram is not that of the next one."""
    inbox = Inbox(pair[0])
    send(pair[1], b"with", 1)
    pair[1].send(b"without")
    pair[1].send(b"")
    datagrams = [inbox.receive() for _ in range(3)]
    assert datagrams == [b"with", b"without", b""]
    assert [close(datagram.take()) for datagram in datagrams] == [1, 0, 0]
    with pytest.raises(BlockingIOError):
        inbox.receive()


def forget(datagrams: list[ReceivedDatagram]) -> None:
    datagrams.clear()
    gc.collect()


def close_each(datagrams: list[ReceivedDatagram]) -> None:
    for datagram in datagrams:
        datagram.close()
        datagram.close()


@pytest.mark.parametrize("dispose", [forget, close_each])
def test_nothing_takes_it(pair: Pair, dispose: Callable[[Any], None]) -> None:
    """The descriptors of a datagram are closed with it, or when it is garbage."""
    before = count_open()
    inbox = Inbox(pair[0])
    for _ in range(3):
        send(pair[1], b"hello", 2)
    datagrams = [inbox.receive() for _ in range(3)]
    assert inbox.inbox.waiting == 6
    assert count_open() == before + 6
    dispose(datagrams)
    assert inbox.inbox.waiting == 0
    assert count_open() == before


def test_taken_descriptors_are_not_closed(pair: Pair) -> None:
    """Descriptors that were taken belong to the caller, whatever becomes of the datagram."""
    inbox = Inbox(pair[0])
    send(pair[1], b"hello", 1)
    datagram = inbox.receive()
    [number] = fds_of(datagram.take())
    datagram.close()
    del datagram
    os.close(number)  # an error if it is closed already


def test_bound(pair: Pair) -> None:
    """At most 256 descriptors wait. Those of further datagrams are closed; their bytes are not."""
    before = count_open()
    inbox = Inbox(pair[0])
    datagrams = []
    for count in (250, 6, 1):
        send(pair[1], b"%d" % count, count)
        datagrams.append(inbox.receive())
    assert datagrams == [b"250", b"6", b"1"]
    assert inbox.inbox.waiting == 256
    assert count_open() == before + 256
    with pytest.raises(OSError, match="descriptors were closed: 256 of earlier datagra") as caught:
        datagrams[2].take()
    assert caught.value.errno == errno.EMSGSIZE
    assert inbox.inbox.waiting == 256
    close(datagrams[1].take())
    send(pair[1], b"room again", 6)
    datagrams.append(inbox.receive())
    assert close(datagrams[3].take()) == 6
    datagrams[0].close()
    assert inbox.inbox.waiting == 0
    assert count_open() == before


def test_inbox_without_room(pair: Pair) -> None:
    """Ancillary data that was cut off is an error when it is taken, not of the datagram."""
    before = count_open()
    inbox = Inbox(pair[0], 1)
    for _ in range(2):
        send(pair[1], b"hello", 1)
        datagram = inbox.receive()
        assert datagram == b"hello"
        assert inbox.inbox.waiting == 0
    with pytest.raises(OSError, match=CUT_OFF):
        datagram.take()
    assert datagram.take() == []
    assert count_open() == before


@linux_only
def test_inbox_of_a_long_datagram(pair: Pair) -> None:
    """A datagram that does not fit is lost with its descriptors; the next one is not."""
    before = count_open()
    inbox = Inbox(pair[0])
    send(pair[1], b"x" * 101, 2)
    send(pair[1], b"next", 1)
    with pytest.raises(OSError, match="datagram of 101 bytes does not fit into 100 bytes"):
        inbox.receive()
    assert inbox.inbox.waiting == 0
    assert count_open() == before
    assert close(inbox.receive().take()) == 1


def test_inbox_leaves_other_calls(pair: Pair) -> None:
    """An inbox only receives: how to send is left as it is."""
    plain = DatagramCalls(len, len, print)  # type: ignore[arg-type]  # Nothing is called.
    calls = AncillaryInbox(pair[0], ROOM).calls(plain)
    assert (calls.receive, calls.send_to) == (plain.receive, plain.send_to)


# -- Sending -----------------------------------------------------------------------------------


def test_too_long_to_be_sent() -> None:
    """A packet that is longer than the send buffer is refused; the error says how much fits."""
    one, other = socket.socketpair()
    with one, other:
        limit = one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert too_long_for_ancillary(one, b"") is None
        assert too_long_for_ancillary(one, bytes(limit)) is None
        error = too_long_for_ancillary(one, bytes(limit + 1))
    assert error is not None
    assert error.errno == errno.EMSGSIZE
    assert f"packet of {limit + 1} bytes is too long to be sent with anc" in str(error)
    assert f": at most {limit} bytes fit" in str(error)
