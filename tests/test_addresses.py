from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anyio import TypedAttributeSet

from easynetwork.addresses import (
    INETSocketAttribute,
    IPv4SocketAddress,
    IPv6SocketAddress,
    ISocket,
    SocketAttribute,
    SocketProxy,
    SupportsSocketOptions,
    TLSAttribute,
    disable_socket_linger,
    enable_socket_linger,
    get_socket_linger,
    get_socket_linger_struct,
    new_socket_address,
    set_tcp_keepalive,
    set_tcp_nodelay,
    socket_linger,
)


@contextlib.contextmanager
def tcp_connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection on loopback."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        yield client, server


# -- Addresses ---------------------------------------------------------------------------------


def test_ipv4_address() -> None:
    """An IPv4 address is the tuple of the socket module, with names."""
    address = new_socket_address(("127.0.0.1", 9000), socket.AF_INET)

    assert isinstance(address, IPv4SocketAddress)
    assert address == ("127.0.0.1", 9000)
    assert (address.host, address.port) == address.for_connection() == ("127.0.0.1", 9000)
    assert str(address) == "('127.0.0.1', 9000)"


def test_ipv6_address() -> None:
    """An IPv6 address shows and connects like an IPv4 one."""
    address = new_socket_address(("::1", 9000, 1, 2), socket.AF_INET6)

    assert isinstance(address, IPv6SocketAddress)
    assert address == ("::1", 9000, 1, 2)
    assert (address.flowinfo, address.scope_id) == (1, 2)
    assert IPv6SocketAddress("::1", 9000).for_connection() == ("::1", 9000)
    assert str(IPv6SocketAddress("::1", 9000)) == "('::1', 9000)"
    assert IPv6SocketAddress("::1", 9000) == ("::1", 9000, 0, 0)


def test_ipv6_zone() -> None:
    """An address of one link shows, and connects with, the interface that it belongs to."""
    address = IPv6SocketAddress("fe80::1", 9000, 0, 2)
    assert address.for_connection() == ("fe80::1%2", 9000)
    assert str(address) == "('fe80::1%2', 9000)"
    assert IPv6SocketAddress("fe80::1%eth0", 9000, 0, 2).for_connection() == ("fe80::1%eth0", 9000)
    infos = socket.getaddrinfo(*address.for_connection(), type=socket.SOCK_STREAM)
    assert infos[0][4] == address


@pytest.mark.parametrize("address_class", [IPv4SocketAddress, IPv6SocketAddress])
def test_address_is_escaped(
    address_class: type[IPv4SocketAddress | IPv6SocketAddress],
) -> None:
    """A host name cannot forge a line of the log."""
    assert str(address_class("x\n\x1b[2J", 1)) == r"('x\n\x1b[2J', 1)"


def test_unknown_family() -> None:
    """Only Internet addresses have names here."""
    with pytest.raises(ValueError, match="Unsupported address family"):
        new_socket_address(("x", 1), -1)


# -- Sockets -----------------------------------------------------------------------------------


def test_isocket() -> None:
    """Sockets, proxies of them, but not anything, are sockets."""
    with socket.socket() as sock:
        for obj in (sock, SocketProxy(sock)):
            assert isinstance(obj, ISocket)
            assert isinstance(obj, SupportsSocketOptions)
    assert not isinstance(object(), SupportsSocketOptions)
    assert not isinstance(object(), ISocket)


def test_proxy_forwards() -> None:
    """The proxy knows all that the socket tells."""
    with tcp_connection() as (client, server):
        proxy = SocketProxy(client)

        assert proxy.family is socket.AF_INET
        assert proxy.type is socket.SOCK_STREAM
        assert proxy.proto == client.proto
        assert proxy.fileno() == client.fileno()
        assert proxy.get_inheritable() is client.get_inheritable()
        assert proxy.getsockname() == server.getpeername()
        assert proxy.getpeername() == server.getsockname()


def test_proxy_options() -> None:
    """Options can be read and written through the proxy, in all forms."""
    with socket.socket() as sock:
        proxy = SocketProxy(sock)
        proxy.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        assert proxy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0

        proxy.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, struct.pack("i", 0))

        assert proxy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 4) == struct.pack("i", 0)


@pytest.mark.parametrize("name", ["send", "recv", "close", "shutdown", "detach", "setblocking"])
def test_proxy_hides(name: str) -> None:
    """Nobody reads, writes or closes behind the transport's back."""
    with socket.socket() as sock:
        assert not hasattr(SocketProxy(sock), name)


def test_proxy_is_final() -> None:
    """The proxy cannot be subclassed."""
    with pytest.raises(TypeError, match="SocketProxy is final"):
        type("Sub", (SocketProxy,), {})


def test_proxy_slots() -> None:
    """The proxy is small, and can be referred to weakly."""
    with socket.socket() as sock:
        proxy = SocketProxy(sock)

        assert not hasattr(proxy, "__dict__")
        assert weakref.ref(proxy)() is proxy


def test_proxy_lock_and_runner() -> None:
    """Each method is run by the runner, while the lock is held; properties need neither."""
    lock = threading.Lock()
    calls = []

    def run(func: Callable[[], Any]) -> Any:
        assert lock.locked()
        calls.append(func)
        return func()

    with socket.socket() as sock:
        proxy = SocketProxy(sock, lock=lambda: lock, runner=run)
        proxy.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert proxy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        assert proxy.fileno() == sock.fileno()
        assert len(calls) == 3

        assert proxy.family is socket.AF_INET
        assert (proxy.type, proxy.proto) == (sock.type, sock.proto)
        assert len(calls) == 3

    assert not lock.locked()


def test_proxy_of_unknown_kind() -> None:
    """A family or type that Python has no name for is a number."""

    class Odd(socket.socket):
        family = 4242  # type: ignore[assignment]  # That is the point.
        type = 4243  # type: ignore[assignment]  # As above.

    with Odd() as sock:
        proxy = SocketProxy(sock)

        assert (proxy.family, proxy.type) == (4242, 4243)
        assert "family=4242, type=4243" in repr(proxy)


def test_proxy_repr() -> None:
    """The representation tells what there is to tell, connected, unconnected or closed."""
    with tcp_connection() as (client, _):
        proxy = SocketProxy(client)
        connected = (
            f"<SocketProxy fd={client.fileno()}, family=AF_INET, type=SOCK_STREAM, "
            f"proto={client.proto}, laddr={client.getsockname()}, raddr={client.getpeername()}>"
        )
        assert repr(proxy) == connected
    with socket.socket() as sock:
        assert "raddr" not in repr(SocketProxy(sock))
    assert (
        repr(SocketProxy(sock)) == "<SocketProxy fd=-1, family=AF_INET, type=SOCK_STREAM, proto=0>"
    )


# -- Typed attributes --------------------------------------------------------------------------


def test_inet_attributes_are_socket_attributes() -> None:
    """What is asked by one set of keys is found by the other."""
    for name in ("socket", "family", "sockname", "peername"):
        assert getattr(INETSocketAttribute, name) is getattr(SocketAttribute, name)


@pytest.mark.parametrize("attributes", [SocketAttribute, INETSocketAttribute, TLSAttribute])
def test_attribute_sets_are_those_of_anyio(attributes: type) -> None:
    """Anything that knows anyio's typed attributes knows ours."""
    assert issubclass(attributes, TypedAttributeSet)


def test_tls_attributes() -> None:
    """There is one key for each thing to know of a TLS connection."""
    keys = {
        TLSAttribute.sslcontext,
        TLSAttribute.peercert,
        TLSAttribute.cipher,
        TLSAttribute.compression,
        TLSAttribute.alpn_protocol,
        TLSAttribute.standard_compatible,
        TLSAttribute.tls_version,
    }

    assert len(keys) == 7


# -- Options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "level", "option"),
    [
        (set_tcp_nodelay, socket.IPPROTO_TCP, socket.TCP_NODELAY),
        (set_tcp_keepalive, socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    ],
)
def test_tcp_option(
    function: Callable[[SupportsSocketOptions, bool], None], level: int, option: int
) -> None:
    """TCP's options can be switched on and off, and tell when they cannot."""
    with socket.socket() as sock:
        function(sock, True)
        assert sock.getsockopt(level, option) != 0
        function(sock, False)
        assert sock.getsockopt(level, option) == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        function(sock, True)


class RecordingSocket(socket.socket):
    """A socket that keeps the arguments of each `setsockopt()`."""

    def __init__(self) -> None:
        super().__init__()
        self.options_set: list[tuple[Any, ...]] = []

    def setsockopt(self, *args: Any) -> None:
        self.options_set.append(args)
        super().setsockopt(*args)


@pytest.mark.parametrize(
    ("function", "constant"),
    [(set_tcp_nodelay, "TCP_NODELAY"), (set_tcp_keepalive, "SO_KEEPALIVE")],
)
def test_tcp_option_unknown_to_the_platform(
    function: Callable[[SupportsSocketOptions, bool], None],
    constant: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the platform does not know an option, nothing is done."""
    monkeypatch.delattr(socket, constant)
    with RecordingSocket() as sock:
        function(sock, True)
        assert sock.options_set == []


def test_linger() -> None:
    """Lingering can be switched on, read and switched off."""
    with socket.socket() as sock:
        assert get_socket_linger(sock) == socket_linger(enabled=False, timeout=0)
        enable_socket_linger(sock, 7)
        assert get_socket_linger(sock) == (True, 7)
        disable_socket_linger(sock)
        assert not get_socket_linger(sock).enabled


@pytest.mark.parametrize(("platform", "layout"), [("linux", "@ii"), ("win32", "@HH")])
def test_linger_struct(platform: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option has the layout of the platform's ``struct linger``."""
    monkeypatch.setattr(sys, "platform", platform)

    assert get_socket_linger_struct().format == layout
