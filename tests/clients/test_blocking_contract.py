"""What all blocking clients promise alike, whatever transports their packets."""

from __future__ import annotations

import errno
import math
import os
import socket
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from easynetwork.addresses import SocketProxy
from easynetwork.exceptions import ClientClosedError
from tests.clients.async_tcp_support import address_of
from tests.clients.blocking_kinds import BlockingKind, IPKind, Opened
from tests.times import PATIENCE

OPERATIONS: dict[str, Callable[[Any], object]] = {
    "recv_packet": lambda client: client.recv_packet(),
    "recv_packet at once": lambda client: client.recv_packet(timeout=0),
    "send_packet": lambda client: client.send_packet("hello"),
}


# -- Arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [None, "localhost:80", ("localhost",), ("localhost", "80"), 3])
def test_wrong_address(ip_kind: IPKind, address: Any) -> None:
    """An argument that is neither an address nor a socket is refused; a note says why."""
    with pytest.raises(TypeError, match=r"^Invalid arguments\n") as caught:
        ip_kind.new(address)
    expected = f"Expected an address, (host, port), or a connected socket; got {address!r}"
    assert caught.value.__notes__ == [expected]


@pytest.mark.parametrize("local", [80, "localhost", ("localhost", "80"), ("localhost",)])
def test_wrong_local_address(ip_kind: IPKind, local: Any) -> None:
    """A local address that is not an address is refused."""
    with pytest.raises(TypeError, match="^local_address: Expected a host and a port, got "):
        ip_kind.new(ip_kind.family.nowhere, local_address=local)


each_wrong_option = pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"protocol": object()}, TypeError, "^Expected .* object, got <object object at"),
        ({"retry_interval": 0}, ValueError, "^retry_interval must be a strictly positive float$"),
        ({"retry_interval": -1}, ValueError, "^retry_interval must be a strictly positive float$"),
        ({"retry_interval": math.nan}, ValueError, "^retry_interval must be a strictly positive "),
    ],
)


@each_wrong_option
def test_wrong_options(
    kind: BlockingKind, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Wrong options are refused before anything is tried."""
    with pytest.raises(error, match=message):
        kind.new(kind.family.nowhere, **options)


@each_wrong_option
def test_wrong_options_with_a_socket(
    kind: BlockingKind, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Wrong options are refused, and the socket is closed: it belongs to the client already."""
    with kind.target("127.0.0.1") as target, kind.connected_socket(target) as sock:
        with pytest.raises(error, match=message):
            kind.new(sock, **options)
        assert sock.fileno() == -1


def test_wrong_protocol(kind: BlockingKind) -> None:
    """The error names the classes of protocol objects that this kind accepts."""
    with pytest.raises(TypeError, match=f"^Expected {kind.expected_protocols} object, got <object"):
        kind.client_class(kind.family.nowhere, object())


def test_option_that_does_not_exist(kind: BlockingKind) -> None:
    """Python itself refuses it, so that a socket stays the caller's."""
    with kind.target("127.0.0.1") as target, kind.connected_socket(target) as sock:
        for address_or_socket in (kind.family.nowhere, sock):
            with pytest.raises(TypeError, match="no_such_option"):
                kind.new(address_or_socket, no_such_option=1)
        assert sock.fileno() >= 0


def test_options_of_an_address_with_a_socket(kind: BlockingKind, host: str) -> None:
    """Options that say how to connect are refused, and the socket is closed; a note says why."""
    with kind.target(host) as target:
        for name, value in kind.options_of_addresses.items():
            with kind.connected_socket(target) as sock:
                with pytest.raises(TypeError) as caught:
                    kind.new(sock, **{name: value})
                assert sock.fileno() == -1
            assert str(caught.value) == "Invalid arguments"
            [note] = caught.value.__notes__
            assert note == f"Only meaningful with an address, not with a socket: {name}"


def test_socket_that_is_not_connected(kind: BlockingKind, host: str) -> None:
    """It is refused and closed."""
    sock = kind.family.new_socket(kind.socket_type, host)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        kind.new(sock)
    assert sock.fileno() == -1


def test_socket_of_another_type(kind: BlockingKind) -> None:
    """It is refused and closed."""
    other = {socket.SOCK_DGRAM, socket.SOCK_STREAM} - {kind.socket_type}
    sock = kind.family.new_socket(other.pop())
    message = f"^Only this type of socket is supported: {kind.socket_type.name}$"
    with pytest.raises(ValueError, match=message):
        kind.new(sock)
    assert sock.fileno() == -1


def test_socket_of_another_family(kind: BlockingKind) -> None:
    """It is refused and closed."""
    sock, other = kind.family.strangers(kind.socket_type)
    message = f"^Only these families are supported: {kind.family.names}$"
    with other, pytest.raises(ValueError, match=message):
        kind.new(sock)
    assert sock.fileno() == -1


@pytest.mark.parametrize("name", ["x" * 64, "nowhere.invalid"])
def test_unknown_host(ip_kind: IPKind, name: str) -> None:
    """A host that does not exist is named."""
    with pytest.raises(socket.gaierror, match=f"cannot resolve '{name}': "):
        ip_kind.new((name, 9))


# -- Connecting --------------------------------------------------------------------------------


def test_the_client_is_connected_when_it_is_made(kind: BlockingKind, opened: Opened) -> None:
    """Both ends know each other's address."""
    client, peer = opened
    local, remote = (getattr(client, getter)() for getter in kind.family.getters)
    for address, expected in (local, peer.socket.getpeername()), (remote, peer.address):
        assert address == kind.family.typed(expected)
        assert type(address) is type(kind.family.typed(expected))
    assert repr(client) == f"<{type(client).__name__} endpoint={remote}>"
    assert not client.is_closed()


def test_address_as_a_list(ip_kind: IPKind) -> None:
    """An address may be a list."""
    with ip_kind.target("127.0.0.1") as target:
        with ip_kind.new([*address_of(target)]) as client:
            assert client.get_remote_address() == address_of(target)


def test_host_name(ip_kind: IPKind) -> None:
    """A host may have a name."""
    with ip_kind.target_of_both_families() as target:
        port = target.getsockname()[1]
        with ip_kind.new(("localhost", port)) as client:
            address = client.get_remote_address()
            assert (address.host, address.port) in [("127.0.0.1", port), ("::1", port)]


def test_local_address(ip_kind: IPKind, host: str) -> None:
    """The client has the address that it was told to have."""
    with ip_kind.target(host) as free:
        address = address_of(free)
    with ip_kind.open(host, local_address=address) as (client, peer):
        assert client.get_local_address()[:2] == peer.socket.getpeername()[:2] == address
        client.send_packet("hello")
        assert peer.receive() == "hello"


def test_local_host(ip_kind: IPKind, host: str) -> None:
    """The port of the local address may be left to the kernel."""
    with ip_kind.open(host, local_address=(host, 0)) as (client, peer):
        assert client.get_local_address().host == host
        assert client.get_local_address() == peer.socket.getpeername()


def test_local_address_in_use(ip_kind: IPKind, host: str) -> None:
    """An address that cannot be bound is named."""
    with ip_kind.target(host) as target:
        host, port = address = address_of(target)
        with pytest.raises(OSError, match=f"cannot connect to '{host}', port {port}: ") as caught:
            ip_kind.new(address, local_address=address)
    assert caught.value.errno == errno.EADDRINUSE
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    [error] = caught.value.__cause__.exceptions
    assert f"error while attempting to bind on address ('{host}', {port})" in str(error)


@pytest.mark.parametrize("timeout", [None, 0.0, 5.0])
def test_from_socket(kind: BlockingKind, host: str, timeout: float | None) -> None:
    """A client can be made of a connected socket, in any mode; the socket belongs to it."""
    with kind.target(host) as target:
        sock = kind.connected_socket(target)
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
    """A descriptor that is not there any more is an error with an explanation, each time."""
    client, _ = opened
    os.close(client.fileno())
    for name in (operation, "recv_packet", "send_packet"):
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
            OPERATIONS[name](client)
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


def test_close(kind: BlockingKind, opened: Opened) -> None:
    """A packet that was sent arrives, and then nothing; no operation can be done any more."""
    client, peer = opened
    name = repr(client)
    client.send_packet("bye")
    peer.send("read", "unread")
    assert client.recv_packet() == "read"
    assert client.fileno() >= 0
    peer.leave()
    for _ in range(2):
        client.close()
        assert client.is_closed()
        assert client.fileno() == -1
    assert peer.receive() == "bye"
    assert peer.rest() == []
    getters = [getattr(client, getter) for getter in kind.family.getters]
    for operation in (*(partial(each, client) for each in OPERATIONS.values()), *getters):
        with pytest.raises(ClientClosedError, match=r"^Closed client$"):
            operation()
    assert client.socket.fileno() == -1
    assert repr(client) == name


def test_forgotten(kind: BlockingKind, host: str) -> None:
    """A client that is forgotten open says so, and closes its socket."""
    with kind.target(host) as target:
        clients = [kind.new(kind.family.address_of(target))]
        descriptor = clients[0].fileno()
        message = rf"^unclosed client <{kind.client_class.__name__} endpoint="
        with pytest.warns(ResourceWarning, match=message):
            clients.clear()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(descriptor)
