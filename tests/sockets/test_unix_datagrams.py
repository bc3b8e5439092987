"""How datagrams are received whole, or not at all."""

from __future__ import annotations

import builtins
import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from easynetwork.sockets import datagrams
from easynetwork.sockets.datagrams import (
    DatagramCalls,
    explain_unix,
    get_next_size,
    is_unix,
    largest_datagram,
    new_datagram_calls,
    too_long,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="MSG_TRUNC asks for the length")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two non-blocking Unix datagram sockets that are connected to each other."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


def by_receive(calls: DatagramCalls, view: memoryview) -> int:
    return calls.receive(view)


def by_receive_from(calls: DatagramCalls, view: memoryview) -> int:
    return calls.receive_from(view)[0]


each_way = pytest.mark.parametrize("receive", [by_receive, by_receive_from])
Receive = Callable[[DatagramCalls, memoryview], int]
Pair = tuple[socket.socket, socket.socket]


# -- Receiving ---------------------------------------------------------------------------------


@each_way
def test_what_fits(pair: Pair, receive: Receive) -> None:
    """A datagram may be as long as the buffer, or empty."""
    calls = new_datagram_calls(pair[0])
    view = memoryview(bytearray(10))
    for datagram in (b"", b"x", b"0123456789", b""):
        pair[1].send(datagram)
        nbytes = receive(calls, view)
        assert bytes(view[:nbytes]) == datagram
    with pytest.raises(BlockingIOError):
        receive(calls, view)


@linux_only
@each_way
@pytest.mark.parametrize("size", [11, 100_000])
def test_what_does_not_fit(pair: Pair, receive: Receive, size: int) -> None:
    """A longer one is an error that says how long it is, and only that datagram is lost."""
    calls = new_datagram_calls(pair[0])
    memory = bytearray(20)
    pair[1].send(b"x" * size)
    pair[1].send(b"next")
    with pytest.raises(OSError, match=f"datagram of {size} bytes does not fit into 10") as caught:
        receive(calls, memoryview(memory)[:10])
    assert caught.value.errno == errno.EMSGSIZE
    assert memory[10:] == bytes(10)  # nothing was written behind the buffer
    assert receive(calls, memoryview(memory)[:10]) == 4


def test_sender() -> None:
    """With the datagram comes the name of its sender, None or empty if that has none."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind("")
        receiver.settimeout(5)
        calls = new_datagram_calls(receiver)
        view = memoryview(bytearray(10))
        sender.sendto(b"hello", receiver.getsockname())
        nbytes, address = calls.receive_from(view)
        assert (bytes(view[:nbytes]), address or "") == (b"hello", "")
        sender.bind("")
        sender.sendto(b"world", receiver.getsockname())
        nbytes, address = calls.receive_from(view)
        assert (bytes(view[:nbytes]), address) == (b"world", sender.getsockname())
        sender.settimeout(5)
        calls.send_to(b"answer", address)
        assert sender.recv(10) == b"answer"


def test_no_ancillary_data(pair: Pair) -> None:
    """Plain calls have none to attach."""
    assert new_datagram_calls(pair[0]).attach is None


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_internet_sockets(family: socket.AddressFamily) -> None:
    """UDP's buffer is as long as UDP's longest datagram, and the socket's own methods will do."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        calls = new_datagram_calls(sock)
        assert not is_unix(sock)
        assert calls == DatagramCalls(sock.recvfrom_into, sock.recv_into, sock.sendto)
    assert largest_datagram(family) == 65_536


# -- Looking at the next one -------------------------------------------------------------------


@linux_only
def test_next_size(pair: Pair) -> None:
    """The length of the next datagram is known before it is received, and it stays there."""
    for datagram in (b"x", b"xyz", b"x" * 100_000):
        pair[1].send(datagram)
    for size in (1, 3, 100_000):
        assert get_next_size(pair[0], 10) == size
        assert get_next_size(pair[0], 1 << 20) == size
        assert len(pair[0].recv(1 << 20)) == size


@linux_only
def test_next_size_of_an_empty_one(pair: Pair) -> None:
    """For an empty datagram it is 1: to receive 0 bytes would leave it there."""
    pair[1].send(b"")
    pair[1].send(b"next")
    size = get_next_size(pair[0], 10)
    assert size == 1
    assert pair[0].recv(size) == b""
    assert pair[0].recv(10) == b"next"


@linux_only
def test_no_next_one(pair: Pair) -> None:
    """If nothing has arrived, there is nothing to look at."""
    with pytest.raises(BlockingIOError):
        get_next_size(pair[0], 10)


def test_system_that_cannot_tell(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system cannot tell, it is the largest one that there may be."""
    monkeypatch.setattr(datagrams, "MSG_TRUNC", 0)
    assert get_next_size(pair[0], 1234) == 1234


# -- The largest one ---------------------------------------------------------------------------


@pytest.fixture
def wmem_max(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """Return a function that says what the system's file contains, or how opening it fails."""
    content: list[Any] = []
    plain_open = builtins.open

    def fake_open(path: Any, *args: Any, **options: Any) -> Any:
        if path != "/proc/sys/net/core/wmem_max":
            return plain_open(path, *args, **options)
        if isinstance(content[-1], OSError):
            raise content[-1]
        return plain_open(content[-1], *args, **options)

    monkeypatch.setattr(builtins, "open", fake_open)
    datagrams._largest_unix_datagram.cache_clear()
    yield content.append
    datagrams._largest_unix_datagram.cache_clear()


@pytest.mark.parametrize(
    ("text", "size"),
    [("212992\n", 425_984), ("4194304\n", 8_388_608), ("4096\n", 65_536), ("?\n", 425_984)],
)
def test_largest_unix_datagram(
    wmem_max: Callable[[Any], None], tmp_path: Any, text: str, size: int
) -> None:
    """It is twice the largest send buffer that a process may ask for, or Linux's default."""
    file = tmp_path / "wmem_max"
    file.write_text(text)
    wmem_max(file)
    assert largest_datagram(socket.AF_UNIX) == size


def test_largest_unix_datagram_without_proc(wmem_max: Callable[[Any], None]) -> None:
    """Where the system does not say it, Linux's default is taken."""
    wmem_max(FileNotFoundError())
    assert largest_datagram(socket.AF_UNIX) == 425_984


@linux_only
def test_full_send_buffer_is_received(pair: Pair) -> None:
    """The longest datagram that fits into a send buffer of the usual size is received whole."""
    size = largest_datagram(socket.AF_UNIX)
    length = pair[1].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - 32  # the kernel's own
    assert pair[1].send(bytes(length)) == length
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        pair[1].send(bytes(length + 1))
    assert new_datagram_calls(pair[0]).receive(memoryview(bytearray(size))) == length


# -- Errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "name"),
    [("/run/server\n", r"/run/server\n"), (b"/run/server", "/run/server"), ("\0name", "@name")],
)
def test_error_of_sending(address: str | bytes, name: str) -> None:
    """An error of sending names the receiver and the reason, and keeps its class."""
    error = explain_unix(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), address)
    assert isinstance(error, ConnectionRefusedError)
    assert error.errno == errno.ECONNREFUSED
    assert error.strerror == f"Cannot send a datagram to {name}: Connection refused"


@pytest.mark.parametrize("address", ["", b""])
def test_error_of_sending_to_nowhere(address: str | bytes) -> None:
    """A socket without a name cannot be sent to, whatever the kernel says."""
    error = explain_unix(OSError(errno.ENOTCONN, "not connected"), address)
    assert error.errno == errno.EINVAL
    assert error.strerror == "Cannot send a datagram to an unnamed address."


@pytest.mark.parametrize(
    ("family", "length", "why"),
    [
        (socket.AF_INET, 65_508, "at most 65507 bytes fit"),
        (socket.AF_INET6, 65_528, "at most 65527 bytes fit"),
        (socket.AF_INET, 65_507, "the system does not send it whole"),
        (socket.AF_UNIX, 1 << 20, "the system does not send it whole"),
    ],
)
def test_too_long(family: int, length: int, why: str) -> None:
    """The error says how long the datagram is, and how long it may be, if that is known."""
    error = too_long(bytes(length), family)
    assert error.errno == errno.EMSGSIZE
    assert error.strerror == f"datagram of {length} bytes is too long: {why}"
