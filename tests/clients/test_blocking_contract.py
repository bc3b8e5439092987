"""What all blocking clients promise alike, whatever transports their packets."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import selectors
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from easynetwork.addresses import IPv4SocketAddress, IPv6SocketAddress, SocketProxy
from easynetwork.clients import _waiting
from easynetwork.exceptions import ClientClosedError, ProtocolCrashedError
from tests.clients.async_tcp_support import address_of
from tests.clients.blocking_kinds import BLOCKING_KINDS, BlockingKind, CrashConverter, Opened, Peer
from tests.times import PATIENCE, SOON

NO_PORT = ("127.0.0.1", 9)

OPERATIONS: dict[str, Callable[[Any], object]] = {
    "recv_packet": lambda client: client.recv_packet(),
    "recv_packet at once": lambda client: client.recv_packet(timeout=0),
    "send_packet": lambda client: client.send_packet("hello"),
    "get_local_address": lambda client: client.get_local_address(),
    "get_remote_address": lambda client: client.get_remote_address(),
}


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
def host(request: pytest.FixtureRequest) -> str:
    """Return the address of the loopback interface in one of the families."""
    return str(request.param)


@pytest.fixture(params=BLOCKING_KINDS)
def kind(request: pytest.FixtureRequest) -> BlockingKind:
    """Return a kind of client."""
    return BLOCKING_KINDS[request.param]


@pytest.fixture
def opened(kind: BlockingKind, host: str) -> Iterator[Opened]:
    """Yield a connected client of some kind, which seldom looks around, and its other end."""
    with kind.open(host, retry_interval=3600) as client_and_peer:
        yield client_and_peer


def deliver(client: Any, peer: Peer, packet: str) -> None:
    """Send a packet, and wait until the client's end of the connection has it."""
    peer.send(packet)
    with selectors.DefaultSelector() as selector:
        selector.register(client.fileno(), selectors.EVENT_READ)
        assert selector.select(PATIENCE)


# -- Arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [None, "localhost:80", ("localhost",), ("localhost", "80"), 3])
def test_wrong_address(kind: BlockingKind, address: Any) -> None:
    """An argument that is neither an address nor a socket is refused; a note says why."""
    with pytest.raises(TypeError, match=r"^Invalid arguments\n") as caught:
        kind.new(address)
    expected = f"Expected an address, (host, port), or a connected socket; got {address!r}"
    assert caught.value.__notes__ == [expected]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"retry_interval": 0}, ValueError, "^retry_interval must be a strictly positive float$"),
        ({"retry_interval": -1}, ValueError, "^retry_interval must be a strictly positive float$"),
        ({"retry_interval": math.nan}, ValueError, "^retry_interval must be a strictly positive "),
        ({"no_such_option": 1}, TypeError, "no_such_option"),
    ],
)
def test_wrong_common_options(
    kind: BlockingKind, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Wrong options are refused before anything is tried."""
    with pytest.raises(error, match=message):
        kind.new(NO_PORT, **options)


def test_wrong_protocol(kind: BlockingKind) -> None:
    """An object that is not a protocol object of this kind is refused."""
    with pytest.raises(TypeError, match=r"^Expected a \w+Protocol"):
        kind.client_class(NO_PORT, object())


def test_socket_that_is_not_connected(kind: BlockingKind, host: str) -> None:
    """It is refused and closed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind.socket_type)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        kind.new(sock)
    assert sock.fileno() == -1


def test_socket_of_another_type(kind: BlockingKind) -> None:
    """It is refused and closed."""
    other = {socket.SOCK_DGRAM, socket.SOCK_STREAM} - {kind.socket_type}
    sock = socket.socket(type=other.pop())
    message = f"^Only this type of socket is supported: {kind.socket_type.name}$"
    with pytest.raises(ValueError, match=message):
        kind.new(sock)
    assert sock.fileno() == -1


def test_socket_of_another_family(kind: BlockingKind) -> None:
    """It is refused and closed."""
    sock, other = socket.socketpair(type=kind.socket_type)
    with other, pytest.raises(ValueError, match="^Only these families are supported: AF_INET, AF"):
        kind.new(sock)
    assert sock.fileno() == -1


@pytest.mark.parametrize("name", ["x" * 64, "nowhere.invalid"])
def test_unknown_host(kind: BlockingKind, name: str) -> None:
    """A host that does not exist is named."""
    with pytest.raises(socket.gaierror, match=f"cannot resolve '{name}': "):
        kind.new((name, 9))


# -- Connecting --------------------------------------------------------------------------------


def test_the_client_is_connected_when_it_is_made(opened: Opened, host: str) -> None:
    """Both ends know each other's address."""
    client, peer = opened
    address_type = IPv6SocketAddress if ":" in host else IPv4SocketAddress
    assert client.get_local_address() == address_type(*peer.socket.getpeername())
    assert client.get_local_address().port > 0
    assert client.get_remote_address() == address_type(*peer.address)
    assert repr(client) == f"<{type(client).__name__} endpoint={client.get_remote_address()}>"
    assert not client.is_closed()


def test_address_as_a_list(kind: BlockingKind) -> None:
    """An address may be a list."""
    with kind.target("127.0.0.1") as target:
        with kind.new([*address_of(target)]) as client:
            assert client.get_remote_address() == address_of(target)


@pytest.mark.parametrize("timeout", [None, 0.0, 5.0])
def test_from_socket(kind: BlockingKind, host: str, timeout: float | None) -> None:
    """A client can be made of a connected socket, in any mode; the socket belongs to it."""
    with kind.target(host) as target:
        sock = socket.socket(target.family, kind.socket_type)
        sock.connect(target.getsockname())
        sock.settimeout(timeout)
        with kind.new(sock) as client:
            peer = kind.peer_of(target, client)
            with peer.socket:
                assert client.fileno() == sock.fileno()
                peer.send("hello")
                assert client.recv_packet(timeout=PATIENCE) == "hello"
                with pytest.raises(TimeoutError):
                    client.recv_packet(timeout=0)
        assert sock.fileno() == -1


# -- Packets -----------------------------------------------------------------------------------


def test_round_trip(opened: Opened) -> None:
    """A packet leaves as its bytes, and bytes come back as a packet."""
    client, peer = opened
    client.send_packet("hello")
    assert peer.receive() == "hello"
    peer.send("world")
    assert client.recv_packet() == "world"


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


# -- Time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, math.inf, 5, 0.5, 0])
def test_timeouts(opened: Opened, timeout: float | None) -> None:
    """With any timeout, or none, an operation that need not wait is done."""
    client, peer = opened
    deliver(client, peer, "hello")
    client.send_packet("world", timeout=timeout)
    assert peer.receive() == "world"
    assert client.recv_packet(timeout=timeout) == "hello"


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


def test_waits_are_sliced(kind: BlockingKind, host: str) -> None:
    """A wait that is made of many short ones is as long as one."""
    with kind.open(host, retry_interval=0.0001) as (client, peer):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0.02)
        assert time.monotonic() - start >= 0.02
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


def test_iterate_for_a_time(opened: Opened) -> None:
    """With a timeout, the iterator ends when it has passed."""
    client, peer = opened
    peer.send("one", "two")
    assert list(client.iter_received_packets(timeout=SOON)) == ["one", "two"]


# -- The socket --------------------------------------------------------------------------------


def test_socket(kind: BlockingKind, opened: Opened) -> None:
    """The socket can be looked at; it is the same object each time, closed with the client."""
    client, peer = opened
    assert isinstance(client.socket, SocketProxy)
    assert client.socket is client.socket
    assert client.socket.type == kind.socket_type
    assert client.socket.getsockname() == peer.socket.getpeername()
    assert client.socket.fileno() == client.fileno()
    client.close()
    assert client.socket.fileno() == -1


@pytest.mark.parametrize("operation", ["recv_packet", "recv_packet at once", "send_packet"])
def test_descriptor_closed_by_other_code(opened: Opened, operation: str) -> None:
    """A descriptor that is not there any more is an error with an explanation."""
    client, _ = opened
    os.close(client.fileno())
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
        OPERATIONS[operation](client)
    assert caught.value.errno == errno.EBADF
    assert caught.value.__notes__ == ["The socket file descriptor was closed unexpectedly."]


# -- The end -----------------------------------------------------------------------------------


def test_slots(opened: Opened) -> None:
    """A client has no `__dict__`, and can be weakly referenced."""
    client, _ = opened
    assert not hasattr(client, "__dict__")
    assert weakref.ref(client)() is client


def test_with(opened: Opened) -> None:
    """`with` gives the client and closes it, whatever is raised."""
    client, _ = opened
    with pytest.raises(ZeroDivisionError), client as entered:
        assert entered is client
        assert not client.is_closed()
        raise ZeroDivisionError
    assert client.is_closed()


def test_close(opened: Opened) -> None:
    """A packet that was sent arrives; no operation can be done any more."""
    client, peer = opened
    endpoint = client.get_remote_address()
    client.send_packet("bye")
    peer.send("read", "unread")
    assert client.recv_packet() == "read"
    assert client.fileno() >= 0
    with contextlib.suppress(OSError):  # a datagram socket is not shut down by one side
        peer.socket.shutdown(socket.SHUT_WR)
    for _ in range(2):
        client.close()
        assert client.is_closed()
        assert client.fileno() == -1
    assert peer.receive() == "bye"
    for operation in OPERATIONS.values():
        with pytest.raises(ClientClosedError, match=r"^Closed client$"):
            operation(client)
    assert client.socket.fileno() == -1
    assert repr(client) == f"<{type(client).__name__} endpoint={endpoint}>"


def test_forgotten(kind: BlockingKind, host: str) -> None:
    """A client that is forgotten open says so, and closes its socket."""
    with kind.target(host) as target:
        clients = [kind.new(address_of(target))]
        descriptor = clients[0].fileno()
        message = rf"^unclosed client <{kind.client_class.__name__} endpoint="
        with pytest.warns(ResourceWarning, match=message):
            clients.clear()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(descriptor)
