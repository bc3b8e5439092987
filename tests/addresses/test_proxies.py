from __future__ import annotations

import contextlib
import socket
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from easynetwork.addresses import (
    ISocket,
    SocketProxy,
    SupportsSocketOptions,
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
