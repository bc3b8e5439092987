"""What the contracts of the clients have to know of the addresses of their sockets."""

from __future__ import annotations

import abc
import socket
from typing import Any, ClassVar

from easynetwork.addresses import UnixSocketAddress, new_socket_address
from tests.clients import unix_support as unix
from tests.clients.async_tcp_support import address_of


class Family(abc.ABC):
    """A family of sockets.

    Attributes:
        names: How errors name the families that a client accepts.
        nowhere: The address of a server that nothing connects to.
        getters: The methods of a client that return this end's address and the peer's.
    """

    names: ClassVar[str]
    nowhere: ClassVar[Any]
    getters: ClassVar[tuple[str, str]]

    @abc.abstractmethod
    def address_of(self, sock: socket.socket) -> Any:
        """Return where a socket is bound, as a client takes it."""

    @abc.abstractmethod
    def typed(self, address: Any) -> Any:
        """Return what a client says of an address of the socket module."""

    @abc.abstractmethod
    def new_socket(self, kind: socket.SocketKind, host: str = "127.0.0.1") -> socket.socket:
        """Return a socket that is not connected, and otherwise as a client needs it."""

    @abc.abstractmethod
    def strangers(self, kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
        """Return two sockets of another family that are connected to each other."""

    @abc.abstractmethod
    def streams(self) -> tuple[socket.socket, socket.socket]:
        """Return two stream sockets of this family that are connected to each other."""


class IP(Family):
    """IPv4 and IPv6."""

    names = "AF_INET, AF_INET6"
    nowhere: ClassVar = ("127.0.0.1", 9)
    getters = ("get_local_address", "get_remote_address")

    def address_of(self, sock: socket.socket) -> Any:
        return address_of(sock)

    def typed(self, address: Any) -> Any:
        return new_socket_address(address, socket.AF_INET if len(address) == 2 else socket.AF_INET6)

    def new_socket(self, kind: socket.SocketKind, host: str = "127.0.0.1") -> socket.socket:
        return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)

    def strangers(self, kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
        return socket.socketpair(socket.AF_UNIX, kind)

    def streams(self) -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock = socket.create_connection(listener.getsockname())
            return sock, listener.accept()[0]


class Unix(Family):
    """Unix sockets. A datagram socket has a name, because its peer could not answer otherwise."""

    names = "AF_UNIX"
    nowhere = "/nowhere/server.sock"
    getters = ("get_local_name", "get_peer_name")

    def address_of(self, sock: socket.socket) -> Any:
        return sock.getsockname()

    def typed(self, address: Any) -> Any:
        return UnixSocketAddress.from_raw(address)

    def new_socket(self, kind: socket.SocketKind, host: str = "127.0.0.1") -> socket.socket:
        if kind == socket.SOCK_DGRAM:
            return unix.named(kind)
        return socket.socket(socket.AF_UNIX, kind)

    def strangers(self, kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
        if kind == socket.SOCK_STREAM:
            return IP().streams()
        one, other = (socket.socket(socket.AF_INET, kind) for _ in range(2))
        one.bind(("127.0.0.1", 0))
        other.connect(one.getsockname())
        one.connect(other.getsockname())
        return one, other

    def streams(self) -> tuple[socket.socket, socket.socket]:
        return socket.socketpair()
