"""The blocking TCP client, one thread at a time."""

from __future__ import annotations

import errno
import ipaddress
import math
import os
import select
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from easynetwork._tuning import LINGER_TIME
from easynetwork.clients import _waiting
from easynetwork.clients.tcp import TCPNetworkClient
from easynetwork.exceptions import (
    EndOfStreamError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers.abc import AbstractIncrementalPacketSerializer
from easynetwork.serializers.line import StringLineSerializer
from tests.clients.conftest import Lines, Pair
from tests.times import PATIENCE, SOON

LINES: Lines = StreamProtocol(StringLineSerializer())
# More than the kernel keeps for a `narrow` connection.
LARGE = "x" * 1_000_000


class Endless(AbstractIncrementalPacketSerializer[Any, Any]):
    """A packet that never ends: each chunk makes the peer send more."""

    __slots__ = ("peer",)

    peer: socket.socket

    def incremental_serialize(self, packet: Any, /) -> Iterator[bytes]:  # type: ignore[override]  # a generator is not needed
        return iter(())

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Any, bytes]]:
        for _ in range(1000):
            yield
            self.peer.sendall(b"x")
        raise AssertionError("endless")


class Mute(StringLineSerializer):
    """Has nothing to send."""

    __slots__ = ()

    def incremental_serialize(self, packet: Any, /) -> Iterator[bytes]:  # type: ignore[override]  # a generator is not needed
        return iter(())


def reset(sock: socket.socket) -> None:
    """Close a connection so that its peer gets a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def send(peer: socket.socket, data: bytes, *, to: TCPNetworkClient[str, str]) -> None:
    """Send bytes, and wait until they are there."""
    peer.sendall(data)
    select.select([to.fileno()], [], [], 5)


def fill(client: TCPNetworkClient[str, str]) -> int:
    """Leave no room for anything of the client's. Return how many bytes its peer can read first."""
    sent = 0
    with socket.socket(fileno=os.dup(client.fileno())) as sock:
        # The kernel makes room as long as it gets rid of something: acknowledgements take 40 ms.
        while select.select([], [sock], [], 0.2)[1]:
            with suppress(BlockingIOError):
                while True:
                    sent += sock.send(b"x" * 1000)
    return sent


def read_all(sock: socket.socket) -> bytes:
    """Return everything until the end of the stream."""
    with sock.makefile("rb") as stream:
        return stream.read()


@pytest.fixture
def refused() -> Iterator[int]:
    """A port of the loopback addresses that nobody listens on."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        yield sock.getsockname()[1]


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A listening socket that answers nobody: its backlog is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener


@pytest.fixture
def resolve_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that decides which addresses the host named `several` has."""
    getaddrinfo = socket.getaddrinfo

    def resolve_to(*addresses: tuple[str, int]) -> None:
        def resolve(host: Any, port: Any, **options: Any) -> list[Any]:
            names = addresses if host == "several" else [(host, port)]
            return [info for name in names for info in getaddrinfo(*name, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    return resolve_to


# -- Connecting --------------------------------------------------------------------------------


def test_refused(listener: socket.socket) -> None:
    """A connection that is refused is a ConnectionRefusedError that says where."""
    host, port = listener.getsockname()[:2]
    listener.close()
    reason = os.strerror(errno.ECONNREFUSED)
    with pytest.raises(ConnectionRefusedError) as caught:
        TCPNetworkClient((host, port), LINES)
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.strerror == f"cannot connect to '{host}', port {port}: {reason}"


def test_all_addresses_refused(refused: int, resolve_to: Callable[..., None]) -> None:
    """If all addresses fail alike, so does the client; the cause has each of them."""
    resolve_to(("127.0.0.1", refused), ("::1", refused))
    with pytest.raises(ConnectionRefusedError) as caught:
        TCPNetworkClient(("several", refused), LINES)
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    errors = caught.value.__cause__.exceptions
    assert [type(error) for error in errors] == [ConnectionRefusedError] * 2
    assert "'::1'" in str(errors[0])
    assert "'127.0.0.1'" in str(errors[1])


def test_addresses_fail_differently(refused: int, resolve_to: Callable[..., None]) -> None:
    """If they do not, it is an OSError that says everything."""
    resolve_to(("127.0.0.1", refused), ("::1", refused))
    with pytest.raises(OSError, match="cannot connect to 'several', port 9: ") as caught:
        TCPNetworkClient(("several", 9), LINES, local_address=("127.0.0.1", 0))
    assert type(caught.value) is OSError
    assert "no matching local address with family=" in str(caught.value)
    assert os.strerror(errno.ECONNREFUSED) in str(caught.value)


def test_next_address(
    listener: socket.socket, refused: int, resolve_to: Callable[..., None]
) -> None:
    """An address that does not answer is followed by the next one."""
    host, port = listener.getsockname()[:2]
    resolve_to(("127.0.0.1", refused), ("::1", refused), (host, port))
    with TCPNetworkClient(("several", 9), LINES) as client:
        assert client.get_remote_address().port == port


def test_connect_timeout(silent: socket.socket) -> None:
    """A peer that does not answer is a TimeoutError that says which."""
    port = silent.getsockname()[1]
    with pytest.raises(
        TimeoutError, match=f"cannot connect to '127.0.0.1', port {port}: "
    ) as caught:
        TCPNetworkClient(("127.0.0.1", port), LINES, connect_timeout=0.01)
    assert caught.value.errno == errno.ETIMEDOUT


def test_connect_timeout_is_for_each_address(
    listener: socket.socket, silent: socket.socket, resolve_to: Callable[..., None]
) -> None:
    """An address that takes too long leaves the next one all its time."""
    resolve_to(silent.getsockname(), listener.getsockname()[:2])
    with TCPNetworkClient(("several", 9), LINES, connect_timeout=0.01) as client:
        assert client.get_remote_address().port == listener.getsockname()[1]


def test_socket_options(pair: Pair) -> None:
    """Small packets leave at once, idle connections are probed."""
    client, _ = pair
    assert client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


# -- Wrong arguments ---------------------------------------------------------------------------


def test_ipv6_tuple(listener: socket.socket) -> None:
    """An address of the socket module is an address, also one of four items."""
    address = listener.getsockname()
    local: Any = (*address[:1], 0, *address[2:])
    with TCPNetworkClient(address, LINES, local_address=local) as client:
        assert client.get_remote_address() == address


def test_zone(link_local: tuple[str, int, int, int]) -> None:
    """An address of one link is connected to on that link, however it is given."""
    host, _, _, scope_id = link_local
    name = socket.if_indextoname(scope_id)
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as listening:
        listening.bind(link_local)
        listening.listen()
        port = listening.getsockname()[1]
        targets: list[Any] = [(f"{host}%{zone}", port) for zone in (name, scope_id)]
        for target in (*targets, (host, port, 0, scope_id)):
            with TCPNetworkClient(target, LINES) as client:
                assert client.get_remote_address() == (host, port, 0, scope_id)
                again = client.get_remote_address().for_connection()
            with TCPNetworkClient(again, LINES) as client:
                assert str(client.get_remote_address()) == f"('{host}%{scope_id}', {port})"


@pytest.fixture
def link_local() -> tuple[str, int, int, int]:
    """An address of this machine that is valid on one link; what is sent there stays here."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        lines = []
    for fields in map(str.split, lines):
        if fields[3] == "20":  # link-local
            return str(ipaddress.IPv6Address(int(fields[0], 16))), 0, 0, int(fields[1], 16)
    pytest.skip("no link-local address on this machine")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_recv_size": 0}, ValueError, "^'max_recv_size' must be a strictly positive integer$"),
        ({"max_recv_size": 1.5}, ValueError, "^'max_recv_size' must be a strictly positive integ"),
        ({"connect_timeout": -1}, ValueError, "^Invalid delay: negative value$"),
        ({"connect_timeout": math.nan}, ValueError, r"^Invalid delay: NaN \(not a number\)$"),
    ],
)
def test_wrong_options_of_tcp(
    refused: int, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Options that only TCP has are refused, if they are wrong, before anything is tried."""
    with pytest.raises(error, match=message):
        TCPNetworkClient(("127.0.0.1", refused), LINES, **options)


def ssl_socket() -> socket.socket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context.wrap_socket(socket.socket(), server_hostname="localhost")


def test_ssl_socket() -> None:
    """A socket of the ssl module is refused and closed."""
    sock = ssl_socket()
    with pytest.raises(TypeError, match=r"^ssl.SSLSocket instances are forbidden$"):
        TCPNetworkClient(sock, LINES)
    assert sock.fileno() == -1


# -- Packets -----------------------------------------------------------------------------------


def test_packets_of_one_chunk(pair: Pair) -> None:
    """Packets that have been received are given without asking the socket."""
    client, peer = pair
    peer.sendall(b"one\ntwo\nthree\n")
    assert client.recv_packet() == "one"
    reset(peer)
    assert [client.recv_packet(timeout=0), client.recv_packet()] == ["two", "three"]
    with pytest.raises(ConnectionAbortedError):
        client.recv_packet()


def test_a_packet_in_many_chunks(connect: Callable[..., Pair]) -> None:
    """A packet may be larger than what is taken at a time; without waiting, too."""
    client, peer = connect(max_recv_size=16)
    peer.sendall(b"a" * 1000 + b"\n" + b"b" * 1000 + b"\n")
    assert client.recv_packet(timeout=0) == "a" * 1000
    assert client.recv_packet(timeout=0) == "b" * 1000


def test_receive_timeout_keeps_what_arrived(pair: Pair) -> None:
    """A time-out loses nothing: a later call completes the packet."""
    client, peer = pair
    peer.sendall(b"hel")
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError) as caught:
            client.recv_packet(timeout=timeout)
        assert caught.value.errno == errno.ETIMEDOUT
    peer.sendall(b"lo\n")
    assert client.recv_packet(timeout=0) == "hello"


def test_a_peer_cannot_stretch_the_time(listener: socket.socket) -> None:
    """A peer that sends bit by bit, and always another bit in time, does not hold the client up."""
    serializer = Endless()
    with TCPNetworkClient(listener.getsockname()[:2], StreamProtocol(serializer)) as client:
        serializer.peer, _ = listener.accept()
        with serializer.peer:
            send(serializer.peer, b"x", to=client)
            with pytest.raises(TimeoutError):
                client.recv_packet(timeout=0)


def test_iterate_over_a_part_of_a_packet(pair: Pair) -> None:
    """An iterator that ends in the middle of a packet leaves its beginning to the next one."""
    client, peer = pair
    send(peer, b"one\ntwo\nthr", to=client)
    assert list(client.iter_received_packets()) == ["one", "two"]
    send(peer, b"ee\nfour\n", to=client)
    assert list(client.iter_received_packets(timeout=0)) == ["three", "four"]


def test_iterate_until_the_end(pair: Pair) -> None:
    """Without limit, the iterator ends with the connection, also after a bad packet."""
    client, peer = pair
    peer.sendall(b"one\n\xff\ntwo\nincomp")
    peer.close()
    packets = client.iter_received_packets(timeout=None)
    assert next(packets) == "one"
    with pytest.raises(StreamProtocolParseError):
        next(packets)
    assert list(packets) == ["two"]
    client.close()
    assert list(client.iter_received_packets()) == []


# -- A peer that does not read -----------------------------------------------------------------


@pytest.mark.parametrize("lines", [StreamProtocol], indirect=True)
def test_send_timeout_before_the_packet(narrow: Pair) -> None:
    """A packet that did not leave at all changes nothing."""
    client, peer = narrow
    sent = fill(client)
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError) as caught:
            client.send_packet("late", timeout=timeout)
        assert caught.value.errno == errno.ETIMEDOUT
    with peer.makefile("rb") as stream:
        assert len(stream.read(sent)) == sent
        client.send_packet("in time", timeout=5)
        assert stream.readline() == b"in time\n"


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_send_timeout_inside_the_packet(narrow: Pair, timeout: float) -> None:
    """A packet that left in part is the last one: the peer never sees another behind it."""
    client, peer = narrow
    with pytest.raises(TimeoutError) as caught:
        client.send_packet(LARGE, timeout=timeout)
    assert caught.value.errno == errno.ETIMEDOUT
    for _ in range(2):
        with pytest.raises(
            ConnectionAbortedError, match="Only a part of an earlier packet"
        ) as again:
            client.send_packet("next")
        assert again.value.errno == errno.ECONNABORTED
    peer.sendall(b"hello\n")
    assert client.recv_packet() == "hello"
    client.close()
    received = read_all(peer)
    assert 0 < len(received) < len(LARGE)
    assert set(received) == {ord("x")}


class Interruption(BaseException):
    """What a signal makes of the main thread."""


def test_send_interrupted(narrow: Pair) -> None:
    """An exception that comes from outside, in the middle of a packet, makes that one the last."""
    client, peer = narrow

    def interrupt(*_: object) -> None:
        raise Interruption

    previous = signal.signal(signal.SIGUSR1, interrupt)
    interrupter = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    interrupter.start()
    with pytest.raises(Interruption):
        client.send_packet(LARGE)
    signal.signal(signal.SIGUSR1, previous)
    interrupter.join()
    with pytest.raises(ConnectionAbortedError, match="Only a part of an earlier packet"):
        client.send_packet("next")
    client.close()
    assert set(read_all(peer)) == {ord("x")}


def test_nothing_to_send(listener: socket.socket) -> None:
    """A packet without bytes is refused, and the client goes on."""
    with TCPNetworkClient(listener.getsockname()[:2], StreamProtocol(Mute())) as client:
        with pytest.raises(ProtocolCrashedError, match="yielded no bytes"):
            client.send_packet("", timeout=0)
        assert not client.is_closed()


# -- The end of the connection -----------------------------------------------------------------


def test_end_of_stream(pair: Pair) -> None:
    """The peer's end is an error for whoever receives, each time; half a packet is none."""
    client, peer = pair
    peer.sendall(b"hello\nwor")
    peer.shutdown(socket.SHUT_WR)
    assert client.recv_packet() == "hello"
    for timeout in (None, 0):
        with pytest.raises(EndOfStreamError, match="(end-of-stream)") as caught:
            client.recv_packet(timeout=timeout)
        assert caught.value.errno == errno.ECONNABORTED
    assert not client.is_closed()
    client.send_packet("still here")
    assert peer.recv(100) == b"still here\n"


def test_reset(pair: Pair) -> None:
    """A connection that breaks is the same error, with what happened as its cause."""
    client, peer = pair
    reset(peer)
    with pytest.raises(ConnectionAbortedError) as caught:
        client.recv_packet(timeout=5)
    assert caught.value.errno == errno.ECONNABORTED
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    with pytest.raises(ConnectionAbortedError) as caught:  # the kernel says it only once
        client.recv_packet(timeout=5)
    assert not isinstance(caught.value, EndOfStreamError)
    assert not client.is_closed()


def test_send_to_nobody(pair: Pair) -> None:
    """Sending to a peer that has closed fails within a few packets."""
    client, peer = pair
    peer.close()

    def send_some() -> None:
        for _ in range(5):
            client.send_packet("hello", timeout=5)
            select.select([client.fileno()], [], [], 5)

    with pytest.raises(ConnectionAbortedError) as caught:
        send_some()
    assert caught.value.errno == errno.ECONNABORTED
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_send_eof(pair: Pair) -> None:
    """The client can say that it has no more to say, and still listen."""
    client, peer = pair
    client.send_packet("bye")
    client.send_eof()
    client.send_eof()
    assert read_all(peer) == b"bye\n"
    with pytest.raises(RuntimeError, match=r"^send_eof\(\) has been called earlier$"):
        client.send_packet("hello")
    peer.sendall(b"hello\n")
    assert client.recv_packet() == "hello"


def test_send_eof_to_nobody(pair: Pair) -> None:
    """It is no error if the connection is gone, or the client closed."""
    client, peer = pair
    reset(peer)
    with pytest.raises(ConnectionAbortedError):
        client.recv_packet(timeout=5)
    client.send_eof()
    client.close()
    client.send_eof()


# -- Closing -----------------------------------------------------------------------------------


def test_close_does_not_wait_for_a_peer_that_is_silent(pair: Pair) -> None:
    """A peer that neither sends nor leaves has no say."""
    client, peer = pair
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < LINGER_TIME
    assert peer.recv(100) == b""


@pytest.mark.parametrize("chunk", [b"unread\n", b"one\nunread\n", b"one\nunread"])
def test_close_waits_for_a_peer_that_sends(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, chunk: bytes
) -> None:
    """A peer that sends and does not leave is waited for, for a time."""
    monkeypatch.setattr(_waiting, "LINGER_TIME", 0.05)
    client, peer = pair
    send(peer, chunk, to=client)
    if b"one" in chunk:
        assert client.recv_packet() == "one"
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start > 0.049
    assert client.socket.fileno() == -1


def test_close_after_a_reset(narrow: Pair) -> None:
    """A connection that the peer has reset ends at once, whatever was not sent."""
    client, peer = narrow
    send(peer, b"one\nunread", to=client)
    assert client.recv_packet() == "one"
    with pytest.raises(TimeoutError):
        client.send_packet(LARGE, timeout=5 * SOON)  # until the kernel takes no more
    reset(peer)
    with pytest.raises(ConnectionAbortedError):
        client.recv_packet(timeout=PATIENCE)
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < LINGER_TIME


def test_send_eof_of_a_closed_client(pair: Pair) -> None:
    """A closed client has ended its stream: to do so again does nothing."""
    client, _ = pair
    client.close()
    client.send_eof()
