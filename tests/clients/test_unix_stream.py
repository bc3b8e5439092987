"""What only blocking clients for Unix streams have."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from easynetwork.addresses import (
    SCMCredentials,
    SocketAncillary,
    SocketCredential,
    UnixCredentials,
)
from easynetwork.clients.unix_stream import UnixStreamClient
from easynetwork.exceptions import ClientClosedError, EndOfStreamError, UnsupportedOperation
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.line import StringLineSerializer
from tests.clients.threads_support import InThread, fork, waits_for_lock, waits_for_socket
from tests.clients.unix_support import (
    Descriptors,
    ancillary_of,
    fill,
    named,
    receive_all,
    receive_fds,
)
from tests.times import PATIENCE
from tests.tls_peers import client_context, server_context

Client = UnixStreamClient[str, str]
Pair = tuple[Client, socket.socket]

LINES: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(limit=1 << 20))
BUFFERED: BufferedStreamProtocol[str, str, Any] = BufferedStreamProtocol(
    StringLineSerializer(limit=1 << 20)
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="credentials are Linux's")
each_protocol = pytest.mark.parametrize("protocol", [LINES, BUFFERED], ids=["chunks", "buffer"])


@pytest.fixture
def protocol() -> Any:
    """Return the protocol object, unless a test has its own."""
    return LINES


@pytest.fixture
def pair(protocol: Any) -> Iterator[Pair]:
    """Return a client that seldom looks around, and its peer, a plain blocking socket."""
    with named() as listener:
        with UnixStreamClient(listener.getsockname(), protocol, retry_interval=3600) as client:
            with listener.accept()[0] as peer:
                peer.settimeout(PATIENCE)
                yield client, peer


# -- Connecting --------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_connect_timeout(folder: str, timeout: float) -> None:
    """A server that accepts no connection in time is an error that names it. Nothing is left."""
    with named(backlog=0) as listener, socket.socket(socket.AF_UNIX) as blocker:
        path = listener.getsockname()
        blocker.connect(path)
        start = time.monotonic()
        with pytest.raises(TimeoutError, match=f"Connect call failed {path}: ") as caught:
            Client(path, LINES, connect_timeout=timeout, local_path=f"{folder}/client")
        assert caught.value.errno == errno.ETIMEDOUT
        assert time.monotonic() - start >= timeout
    assert os.listdir(folder) == []


@pytest.mark.parametrize("timeout", [None, PATIENCE, math.inf])
def test_full_backlog(timeout: float | None) -> None:
    """Connecting waits while the server accepts no connection."""
    with named(backlog=0) as listener, socket.socket(socket.AF_UNIX) as blocker:
        blocker.connect(listener.getsockname())
        connecting = InThread(Client, listener.getsockname(), LINES, connect_timeout=timeout)
        connecting.waits_in("connect_unix_blocking")
        assert connecting.is_waiting()
        listener.accept()[0].close()
        with connecting.result() as client, listener.accept()[0] as peer:
            client.send_packet("hello")
            assert peer.recv(100) == b"hello\n"


@pytest.mark.parametrize(
    ("timeout", "message"),
    [(-1, "^Invalid delay: negative value$"), (math.nan, "^Invalid delay: NaN")],
)
def test_wrong_connect_timeout(folder: str, timeout: float, message: str) -> None:
    """A wrong timeout is refused, and nothing is bound."""
    with named() as listener, pytest.raises(ValueError, match=message):
        Client(
            listener.getsockname(), LINES, connect_timeout=timeout, local_path=f"{folder}/client"
        )
    assert os.listdir(folder) == []


def test_no_name(pair: Pair) -> None:
    """A client has no name, unless it is given one."""
    client, peer = pair
    assert client.get_local_name().is_unnamed()
    assert peer.getpeername() == ""


@linux_only
def test_credentials(pair: Pair) -> None:
    """The credentials are those of the process that listens."""
    client, _ = pair
    expected = UnixCredentials(os.getpid(), os.geteuid(), os.getegid())
    assert client.get_peer_credentials() == expected
    assert client.get_peer_credentials() == expected
    client.close()
    with pytest.raises(ClientClosedError):
        client.get_peer_credentials()


# -- TLS ---------------------------------------------------------------------------------------


def serve_tls(listener: socket.socket) -> None:
    """Echo, until the client says goodbye."""
    with listener.accept()[0] as sock:
        sock.settimeout(PATIENCE)
        with server_context().wrap_socket(sock, server_side=True) as tls:
            with contextlib.suppress(OSError):
                while data := tls.recv(1 << 16):
                    tls.sendall(data)


def test_tls() -> None:
    """TLS needs the name of the server; then it can be used, but not with ancillary data."""
    with named() as listener:
        server = InThread(serve_tls, listener)
        options: Any = {"ssl": client_context(), "server_hostname": "localhost"}
        with Client(listener.getsockname(), LINES, **options) as client:
            client.send_packet("hello")
            assert client.recv_packet(timeout=PATIENCE) == "hello"
            message = "^This transport does not have ancillary data support.$"
            with pytest.raises(UnsupportedOperation, match=message):
                client.send_packet("lost", ancillary_data=ancillary_of(0))
            with pytest.raises(UnsupportedOperation, match=message):
                client.recv_packet(ancillary_data=SocketAncillary())
            client.send_packet("world")
            assert client.recv_packet(timeout=PATIENCE) == "world"
        server.result()


def test_tls_without_a_name() -> None:
    """A path is not the name in a certificate."""
    message = "^You must set server_hostname when using ssl without a host$"
    for context in (True, client_context()):
        with pytest.raises(ValueError, match=message):
            Client("/run/server", LINES, ssl=context)
    with pytest.raises(ValueError, match="^server_hostname is only meaningful with ssl$"):
        Client("/run/server", LINES, server_hostname="localhost")


def close_next(listener: socket.socket) -> None:
    with listener.accept()[0] as sock:
        sock.recv(1 << 16)


def test_tls_that_fails(folder: str) -> None:
    """The path of a client is removed when the handshake fails."""
    with named() as listener:
        server = InThread(close_next, listener)
        with pytest.raises(ConnectionError):
            Client(
                listener.getsockname(),
                LINES,
                local_path=f"{folder}/client",
                ssl=client_context(),
                server_hostname="localhost",
            )
        server.result()
    assert os.listdir(folder) == []


# -- Sending ancillary data --------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 0, PATIENCE, math.inf])
def test_send(pair: Pair, pipe: Descriptors, timeout: float | None) -> None:
    """Descriptors arrive with the packet; they may be closed as soon as it is sent."""
    client, peer = pair
    copies = [os.dup(pipe.reading) for _ in range(3)]
    client.send_packet("hello", timeout=timeout, ancillary_data=ancillary_of(*copies))
    for number in copies:
        os.close(number)
    data, descriptors = receive_fds(peer)
    assert data == b"hello\n"
    assert len(descriptors) == 3
    for number in descriptors:
        pipe.check(number)
    client.send_packet("without")
    assert receive_fds(peer) == (b"without\n", [])


def test_send_nothing(pair: Pair) -> None:
    """Ancillary data may be empty."""
    client, peer = pair
    client.send_packet("hello", ancillary_data=SocketAncillary())
    assert receive_fds(peer) == (b"hello\n", [])


def test_two_clients(pipe: Descriptors) -> None:
    """Descriptors go from one client to another one, and back."""
    one, other = socket.socketpair()
    with Client(one, LINES) as first, Client(other, BUFFERED) as second:
        for sender, receiver in ((first, second), (second, first)):
            ancillary = SocketAncillary()
            sender.send_packet("take", ancillary_data=ancillary_of(pipe.reading))
            assert receiver.recv_packet(ancillary_data=ancillary) == "take"
            [number] = ancillary.iter_fds()
            pipe.check(number)


@linux_only
def test_credentials_both_ways() -> None:
    """Credentials are sent, and received if the socket asks for them."""
    me = SocketCredential(os.getpid(), os.getuid(), os.getgid())
    sent, received = SocketAncillary(), SocketAncillary()
    sent.add_creds([me._replace(pid=0)])
    one, other = socket.socketpair()
    with Client(one, LINES) as client, Client(other, LINES) as receiver:
        receiver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        client.send_packet("hello", ancillary_data=sent)
        assert receiver.recv_packet(ancillary_data=received) == "hello"
    [message] = received.messages()
    assert isinstance(message, SCMCredentials)
    assert list(message.credentials) == [me]


def test_closed_descriptor(pair: Pair, pipe: Descriptors) -> None:
    """A closed descriptor is an error, nothing is sent, and the client can still be used."""
    client, peer = pair
    closed = os.dup(pipe.reading)
    os.close(closed)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
        client.send_packet("lost", ancillary_data=ancillary_of(pipe.reading, closed))
    assert caught.value.errno == errno.EBADF
    assert not hasattr(caught.value, "__notes__")
    client.send_packet("hello", ancillary_data=ancillary_of(pipe.reading))
    data, [number] = receive_fds(peer)
    assert data == b"hello\n"
    pipe.check(number)


def test_packet_that_is_too_long(pair: Pair, pipe: Descriptors) -> None:
    """A packet that is longer than the send buffer is an error, and nothing is sent."""
    client, peer = pair
    limit = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    message = f"packet of {limit + 1} bytes is too long to be sent with ancillary data: at most"
    with pytest.raises(OSError, match=message) as caught:
        client.send_packet("x" * limit, ancillary_data=ancillary_of(pipe.reading))
    assert caught.value.errno == errno.EMSGSIZE
    client.send_packet("hello", ancillary_data=ancillary_of(pipe.reading))
    data, [number] = receive_fds(peer)
    assert data == b"hello\n"
    pipe.check(number)


def test_longest_packet(pair: Pair, pipe: Descriptors) -> None:
    """A packet as long as the send buffer arrives whole, though the kernel takes it in pieces."""
    client, peer = pair
    limit = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    packet = "x" * (limit - 1)
    sender = InThread(client.send_packet, packet, ancillary_data=ancillary_of(pipe.reading))
    data, [number] = receive_fds(peer, 1)
    pipe.check(number)
    assert data + receive_all(peer, limit - 1) == f"{packet}\n".encode()
    sender.result()
    client.send_packet("next")
    assert peer.recv(100) == b"next\n"


def test_wrong_arguments(pair: Pair) -> None:
    """Nothing is sent of what cannot be turned into bytes."""
    client, peer = pair
    with pytest.raises(OverflowError):
        client.send_packet("lost", ancillary_data=ancillary_of(1 << 40))
    with pytest.raises(RuntimeError, match="crashed"):
        client.send_packet(3, ancillary_data=ancillary_of(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative value"):
        client.send_packet("lost", timeout=-1, ancillary_data=ancillary_of(0))
    client.send_packet("hello")
    assert peer.recv(100) == b"hello\n"


# -- A peer that does not read -----------------------------------------------------------------


def test_send_waits(pair: Pair, pipe: Descriptors) -> None:
    """Sending waits until the peer reads. Packets of other threads wait for their turn."""
    client, peer = pair
    size = fill(client, b"x" * 1000)
    senders = [waits_for_socket(client.send_packet, "a", ancillary_data=ancillary_of(pipe.reading))]
    senders += [waits_for_lock(client.send_packet, "b")]
    assert all(sender.is_waiting() for sender in senders)
    receive_all(peer, size)
    data, [number] = receive_fds(peer)
    assert data + (b"" if len(data) > 2 else receive_all(peer, 2)) == b"a\nb\n"
    pipe.check(number)
    for sender in senders:
        sender.result()


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_send_timeout(pair: Pair, pipe: Descriptors, timeout: float) -> None:
    """If the peer does not read in time, nothing is sent, and the next packet is whole."""
    client, peer = pair
    size = fill(client, b"x" * 1000)
    for _ in range(2):
        with pytest.raises(TimeoutError) as caught:
            client.send_packet("late", timeout=timeout, ancillary_data=ancillary_of(pipe.reading))
        assert caught.value.errno == errno.ETIMEDOUT
    receive_all(peer, size)
    client.send_packet("hello", timeout=0, ancillary_data=ancillary_of(pipe.reading))
    data, [number] = receive_fds(peer)
    assert data == b"hello\n"
    pipe.check(number)


def test_send_timeout_in_a_packet(pair: Pair, pipe: Descriptors) -> None:
    """If only a part was sent in time, nothing can follow it: the client says so."""
    client, peer = pair
    limit = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    packet = "x" * (limit - 1)
    client.send_packet("x" * 100_000)
    with pytest.raises(TimeoutError):
        client.send_packet(packet, timeout=0, ancillary_data=ancillary_of(pipe.reading))
    with pytest.raises(ConnectionAbortedError, match="Only a part of an earlier packet was sent"):
        client.send_packet("next", ancillary_data=ancillary_of(pipe.reading))
    with pytest.raises(ConnectionAbortedError, match="Only a part of an earlier packet was sent"):
        client.send_packet("next")
    peer.shutdown(socket.SHUT_WR)


def test_close_waits_for_a_send(pair: Pair, pipe: Descriptors) -> None:
    """A packet that waits for the peer is sent before the client closes."""
    client, peer = pair
    size = fill(client, b"x" * 1000)
    sender = waits_for_socket(
        client.send_packet, "hello", ancillary_data=ancillary_of(pipe.reading)
    )
    closer = waits_for_lock(client.close)
    receive_all(peer, size)
    data, [number] = receive_fds(peer)
    assert data == b"hello\n"
    pipe.check(number)
    sender.result()
    closer.result()
    assert peer.recv(1) == b""


def test_close_gives_up(hurry: None, pair: Pair, pipe: Descriptors) -> None:
    """A peer that does not read is not waited for for ever; the thread that sends is told."""
    client, peer = pair
    size = fill(client, b"x" * 1000)
    sender = waits_for_socket(client.send_packet, "lost", ancillary_data=ancillary_of(pipe.reading))
    client.close()
    with pytest.raises(ClientClosedError):
        sender.result()
    assert client.socket.fileno() == -1
    assert len(receive_all(peer, size)) == size
    with contextlib.suppress(ConnectionResetError):
        assert peer.recv(1) == b""


def test_close_does_not_wait_for_the_reader(pair: Pair) -> None:
    """What was sent is with the peer, whether or not that reads it before the client closes."""
    client, peer = pair
    peer.sendall(b"one\ntwo\n")
    assert client.recv_packet() == "one"
    client.send_packet("bye")
    peer.shutdown(socket.SHUT_WR)
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < PATIENCE / 2
    assert peer.recv(100) == b"bye\n"
    assert peer.recv(100) == b""


def test_peer_that_leaves(pair: Pair, pipe: Descriptors) -> None:
    """A thread that waits for the peer is told when the peer leaves."""
    client, peer = pair
    fill(client, b"x" * 1000)
    sender = waits_for_socket(client.send_packet, "lost", ancillary_data=ancillary_of(pipe.reading))
    peer.close()
    with pytest.raises(ConnectionAbortedError):
        sender.result()


def test_no_more_sending(pair: Pair, pipe: Descriptors) -> None:
    """After the end of the stream, nothing is sent."""
    client, peer = pair
    client.send_eof()
    with pytest.raises(RuntimeError, match="has been called earlier"):
        client.send_packet("late", ancillary_data=ancillary_of(pipe.reading))
    assert peer.recv(1) == b""


def test_peer_that_has_left(pair: Pair, pipe: Descriptors) -> None:
    """Nor to a peer that has left."""
    client, peer = pair
    peer.close()
    for _ in range(2):
        with pytest.raises(ConnectionAbortedError):
            client.send_packet("late", ancillary_data=ancillary_of(pipe.reading))


# -- Receiving ancillary data ------------------------------------------------------------------


@each_protocol
def test_receive(pair: Pair, pipe: Descriptors) -> None:
    """Descriptors that come with a packet are added to the object, and are the caller's."""
    client, peer = pair
    ancillary = SocketAncillary()
    for packet, count in (("one", 2), ("two", 1), ("three", 0)):
        socket.send_fds(peer, [f"{packet}\n".encode()], [pipe.reading] * count)
        assert client.recv_packet(ancillary_data=ancillary) == packet
    numbers = list(ancillary.iter_fds())
    assert len(numbers) == 3
    assert not any(map(os.get_inheritable, numbers))
    for number in numbers:
        pipe.check(number)


@each_protocol
@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_receive_later(pair: Pair, pipe: Descriptors, timeout: float | None) -> None:
    """The same if the client has to wait for the packet."""
    client, peer = pair
    ancillary = SocketAncillary()
    receiver = waits_for_socket(client.recv_packet, timeout=timeout, ancillary_data=ancillary)
    socket.send_fds(peer, [b"hello\n"], [pipe.reading])
    assert receiver.result() == "hello"
    [number] = ancillary.iter_fds()
    pipe.check(number)


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_receive_timeout(pair: Pair, pipe: Descriptors, timeout: float) -> None:
    """If nothing arrives in time, nothing is lost."""
    client, peer = pair
    ancillary = SocketAncillary()
    with pytest.raises(TimeoutError) as caught:
        client.recv_packet(timeout=timeout, ancillary_data=ancillary)
    assert caught.value.errno == errno.ETIMEDOUT
    socket.send_fds(peer, [b"hello\n"], [pipe.reading])
    assert client.recv_packet(timeout=timeout, ancillary_data=ancillary) == "hello"
    [number] = ancillary.iter_fds()
    pipe.check(number)


@each_protocol
def test_packet_that_is_here(pair: Pair, pipe: Descriptors) -> None:
    """A packet that is here already is returned without ancillary data, which waits."""
    client, peer = pair
    ancillary = SocketAncillary()
    peer.sendall(b"a\nb\nc\n")
    assert client.recv_packet() == "a"
    socket.send_fds(peer, [b"d\n"], [pipe.reading])
    for packet in "bc":
        assert client.recv_packet(timeout=0, ancillary_data=ancillary) == packet
        assert list(ancillary.iter_fds()) == []
    assert client.recv_packet(ancillary_data=ancillary) == "d"
    [number] = ancillary.iter_fds()
    pipe.check(number)


@each_protocol
def test_partial_packet(pair: Pair, pipe: Descriptors) -> None:
    """One read is all: a packet that is not complete then is an error, and its bytes are kept."""
    client, peer = pair
    ancillary = SocketAncillary()
    for part in (b"h", b"el"):
        socket.send_fds(peer, [part], [pipe.reading])
        with pytest.raises(EOFError, match="^Received partial packet data$"):
            client.recv_packet(ancillary_data=ancillary)
    socket.send_fds(peer, [b"lo\nwor"], [pipe.reading])
    assert client.recv_packet(ancillary_data=ancillary) == "hello"
    peer.sendall(b"ld\n")
    assert client.recv_packet() == "world"
    numbers = list(ancillary.iter_fds())
    assert len(numbers) == 3
    for number in numbers:
        pipe.check(number)


def test_not_asked_for(pair: Pair, pipe: Descriptors) -> None:
    """Descriptors that are not asked for are closed; so are those that nothing has received."""
    client, peer = pair
    for packet in ("one", "two", "three"):
        socket.send_fds(peer, [f"{packet}\n".encode()], [pipe.reading])
    for packet in ("one", "two"):
        assert client.recv_packet() == packet
    peer.shutdown(socket.SHUT_WR)


def test_cut_off(pair: Pair, pipe: Descriptors) -> None:
    """Ancillary data that is longer than its buffer is an error. The packet is kept."""
    client, peer = pair
    ancillary = SocketAncillary()
    receive: Callable[[], str] = partial(
        client.recv_packet, ancillary_data=ancillary, ancillary_bufsize=socket.CMSG_SPACE(4)
    )
    socket.send_fds(peer, [b"a\n"], [pipe.reading] * 5)
    with pytest.raises(OSError, match="ancillary data was cut off") as caught:
        receive()
    assert caught.value.errno == errno.EMSGSIZE
    assert client.recv_packet() == "a"
    socket.send_fds(peer, [b"b\n"], [pipe.reading])
    assert receive() == "b"
    [number] = ancillary.iter_fds()
    pipe.check(number)


def test_ancillary_data_that_cannot_be_parsed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is the cause of an error; the packet is kept."""
    client, peer = pair

    def crash(self: SocketAncillary, messages: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(SocketAncillary, "update_from_raw", crash)
    peer.sendall(b"hello\n")
    message = r"^ancillary_data_received\(\) crashed$"
    with pytest.raises(RuntimeError, match=message) as caught:
        client.recv_packet(ancillary_data=SocketAncillary())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert client.recv_packet() == "hello"


def test_sizes(pair: Pair) -> None:
    """A size without an object is an error, and so is one that is not strictly positive."""
    client, peer = pair
    with pytest.raises(ValueError, match="^ancillary_bufsize is only meaningful with ancillary_da"):
        client.recv_packet(ancillary_bufsize=100)
    wrong: Any
    for wrong in (0, -1, 1.5, "x"):
        with pytest.raises(ValueError, match="^ancillary_bufsize must be a strictly positive inte"):
            client.recv_packet(ancillary_data=SocketAncillary(), ancillary_bufsize=wrong)
    peer.sendall(b"hello\n")
    assert client.recv_packet() == "hello"


@pytest.mark.parametrize("way", ["peer", "client"])
def test_end(pair: Pair, way: str) -> None:
    """A thread that waits is told when the peer ends the stream, or the client is closed."""
    client, peer = pair
    receive = partial(client.recv_packet, ancillary_data=SocketAncillary())
    receiver = waits_for_socket(receive)
    (peer if way == "peer" else client).close()
    error = EndOfStreamError if way == "peer" else ClientClosedError
    with pytest.raises(error):
        receiver.result()
    with pytest.raises(error):
        receive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")
def test_fork(pair: Pair, pipe: Descriptors) -> None:
    """A child can send descriptors over its parent's client."""
    client, peer = pair
    receiver = waits_for_socket(client.recv_packet, ancillary_data=SocketAncillary())
    child = fork(
        partial(client.send_packet, "from the child", ancillary_data=ancillary_of(pipe.reading))
    )
    data, [number] = receive_fds(peer)
    assert data == b"from the child\n"
    pipe.check(number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    peer.sendall(b"to the parent\n")
    assert receiver.result() == "to the parent"
