"""Socket addresses, attributes of sockets, and a proxy that gives limited access to a socket.

* `IPv4SocketAddress`, `IPv6SocketAddress`: the tuples of the socket module, with named fields.
  Their `str()` shows a host as `repr()` does: a name that a peer chose never reaches a log raw.
* `SocketProxy`: the socket of a transport, with its options and addresses, but without methods to
  read, write or close: only the transport does that.
* `SocketAttribute`, `INETSocketAttribute`, `TLSAttribute`: keys for ``extra()`` of clients and
  transports.
"""

from __future__ import annotations

import contextlib
import functools
import socket as _socket
import struct
import sys
from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Any,
    NamedTuple,
    NoReturn,
    Protocol,
    TypeAlias,
    TypeVar,
    final,
    overload,
    runtime_checkable,
)

from anyio import TypedAttributeSet, typed_attribute

if TYPE_CHECKING:
    import ssl
    from enum import IntEnum

    from _typeshed import ReadableBuffer

__all__ = [
    "INETSocketAttribute",
    "IPv4SocketAddress",
    "IPv6SocketAddress",
    "ISocket",
    "SocketAddress",
    "SocketAttribute",
    "SocketProxy",
    "SupportsSocketOptions",
    "TLSAttribute",
    "disable_socket_linger",
    "enable_socket_linger",
    "get_socket_linger",
    "get_socket_linger_struct",
    "new_socket_address",
    "set_tcp_keepalive",
    "set_tcp_nodelay",
    "socket_linger",
]

T = TypeVar("T")

# -- Addresses ---------------------------------------------------------------------------------


class IPv4SocketAddress(NamedTuple):
    """Where an IPv4 socket is: an address (or a host name) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"({self.host!r}, {self.port})"

    def for_connection(self) -> tuple[str, int]:
        """Return the (host, port) pair that a client connects to."""
        return self.host, self.port


class IPv6SocketAddress(NamedTuple):
    """Where an IPv6 socket is; the last two fields are those of RFC 3493, section 3.3.

    An address that is only valid on one link has the number of the network interface in `scope_id`.
    In the pair of host and port that number is the zone of the host: ``fe80::1%2`` (RFC 4007,
    section 11).
    """

    host: str
    port: int
    flowinfo: int = 0
    scope_id: int = 0

    def __str__(self) -> str:
        host, port = self.for_connection()
        return f"({host!r}, {port})"

    def for_connection(self) -> tuple[str, int]:
        """Return the (host, port) pair that a client connects to, with the zone if there is one."""
        if self.scope_id and "%" not in self.host:
            return f"{self.host}%{self.scope_id}", self.port
        return self.host, self.port


SocketAddress: TypeAlias = IPv4SocketAddress | IPv6SocketAddress
"""An address of an Internet socket."""


def new_socket_address(addr: tuple[Any, ...], family: int) -> SocketAddress:
    """Give names to an address of the socket module.

    Args:
        addr: What ``getsockname()``, ``getpeername()``, ``accept()``, ... return.
        family: The family of that socket.

    Raises:
        ValueError: `family` is neither ``AF_INET`` nor ``AF_INET6``.
    """
    if family == _socket.AF_INET:
        return IPv4SocketAddress(*addr)
    if family == _socket.AF_INET6:
        return IPv6SocketAddress(*addr)
    raise ValueError(f"Unsupported address family {family!r}")


# -- Sockets -----------------------------------------------------------------------------------


@runtime_checkable
class SupportsSocketOptions(Protocol):
    """Something whose socket options can be read and written, as those of `socket.socket`."""

    @overload
    def getsockopt(self, level: int, optname: int, /) -> int: ...
    @overload
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...
    def getsockopt(self, level: int, optname: int, buflen: int = ..., /) -> int | bytes:
        """Read an option."""

    @overload
    def setsockopt(self, level: int, optname: int, value: int | ReadableBuffer, /) -> None: ...
    @overload
    def setsockopt(self, level: int, optname: int, value: None, optlen: int, /) -> None: ...
    def setsockopt(
        self, level: int, optname: int, value: int | ReadableBuffer | None, optlen: int = ..., /
    ) -> None:
        """Write an option."""


@runtime_checkable
class ISocket(SupportsSocketOptions, Protocol):
    """The part of `socket.socket` that neither moves data nor ends the socket."""

    @property
    def family(self) -> int:
        """The address family."""

    @property
    def type(self) -> int:
        """The socket type."""

    @property
    def proto(self) -> int:
        """The protocol number."""

    def fileno(self) -> int:
        """Return the file descriptor, -1 once the socket is closed."""

    def get_inheritable(self) -> bool:
        """Tell whether child processes inherit the file descriptor."""

    def getpeername(self) -> Any:
        """Return the address of the other end."""

    def getsockname(self) -> Any:
        """Return the address of this end."""


@final
class SocketProxy:
    """Access to a socket that a transport reads, writes and closes.

    Has the methods and properties of `ISocket`, and no others.

    Args:
        socket: The socket.
        lock: Called before each method call; what it returns is held during the call. Makes the
            proxy as thread-safe as the owner of `socket` needs it to be.
        runner: Called with a function without arguments for each method call, and returns what that
            function returns: runs the call in another thread, for instance.

    The properties are constant during a socket's life: they need neither.
    """

    __slots__ = ("__weakref__", "_lock", "_runner", "_socket")

    def __init__(
        self,
        socket: ISocket,
        *,
        lock: Callable[[], contextlib.AbstractContextManager[Any]] | None = None,
        runner: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        self._socket = socket
        self._lock = contextlib.nullcontext if lock is None else lock
        self._runner = runner

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("SocketProxy is final: it cannot be subclassed")

    def __repr__(self) -> str:
        fields = {
            "fd": self.fileno(),
            "family": getattr(self.family, "name", self.family),
            "type": getattr(self.type, "name", self.type),
            "proto": self.proto,
        }
        for name, get_address in ("laddr", self.getsockname), ("raddr", self.getpeername):
            with contextlib.suppress(OSError):
                fields[name] = get_address()
        return f"<SocketProxy {', '.join(f'{name}={value}' for name, value in fields.items())}>"

    def _run(self, func: Callable[..., T], *args: Any) -> T:
        if args:
            func = functools.partial(func, *args)
        with self._lock():
            if self._runner is None:
                return func()
            result: T = self._runner(func)
            return result

    @property
    def family(self) -> int:
        """The address family; a `socket.AddressFamily` if Python knows it."""
        return _enum_member(_socket.AddressFamily, self._socket.family)

    @property
    def type(self) -> int:
        """The socket type; a `socket.SocketKind` if Python knows it."""
        return _enum_member(_socket.SocketKind, self._socket.type)

    @property
    def proto(self) -> int:
        return self._socket.proto

    def fileno(self) -> int:
        return self._run(self._socket.fileno)

    def get_inheritable(self) -> bool:
        return self._run(self._socket.get_inheritable)

    def getpeername(self) -> Any:
        return self._run(self._socket.getpeername)

    def getsockname(self) -> Any:
        return self._run(self._socket.getsockname)

    @overload
    def getsockopt(self, level: int, optname: int, /) -> int: ...
    @overload
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...
    def getsockopt(self, *args: int) -> int | bytes:
        return self._run(self._socket.getsockopt, *args)

    @overload
    def setsockopt(self, level: int, optname: int, value: int | ReadableBuffer, /) -> None: ...
    @overload
    def setsockopt(self, level: int, optname: int, value: None, optlen: int, /) -> None: ...
    def setsockopt(self, *args: Any) -> None:
        self._run(self._socket.setsockopt, *args)


def _enum_member(enum_class: type[IntEnum], value: int) -> int:
    try:
        return enum_class(value)
    except ValueError:
        return value


# -- Typed attributes --------------------------------------------------------------------------


class SocketAttribute(TypedAttributeSet):
    """Attributes of any socket; see :meth:`anyio.TypedAttributeProvider.extra`."""

    __slots__ = ()

    socket: ISocket = typed_attribute()
    """The socket itself, as a `SocketProxy`."""
    family: int = typed_attribute()
    """The address family."""
    sockname: Any = typed_attribute()
    """The address of this end."""
    peername: Any = typed_attribute()
    """The address of the other end."""


class INETSocketAttribute(SocketAttribute):
    """`SocketAttribute` of an Internet socket: the same keys, the values more precisely typed."""

    __slots__ = ()

    sockname: SocketAddress
    peername: SocketAddress


def socket_attributes(
    sock: ISocket, local_address: SocketAddress, address: SocketAddress | None
) -> dict[Any, Callable[[], Any]]:
    """Return what `extra_attributes` has to say of a socket; no peer name if it has no peer."""
    attributes: dict[Any, Callable[[], Any]] = {
        INETSocketAttribute.socket: lambda: SocketProxy(sock),
        INETSocketAttribute.family: lambda: sock.family,
        INETSocketAttribute.sockname: lambda: local_address,
    }
    if address is not None:
        attributes[INETSocketAttribute.peername] = lambda: address
    return attributes


class TLSAttribute(TypedAttributeSet):
    """Attributes of a TLS connection; see the methods of the same names of `ssl.SSLObject`."""

    __slots__ = ()

    sslcontext: ssl.SSLContext = typed_attribute()
    """The context that the connection was made with."""
    peercert: dict[str, Any] = typed_attribute()
    """The peer's certificate."""
    cipher: tuple[str, str, int] = typed_attribute()
    """The cipher in use: name, version of TLS that defines it, number of secret bits."""
    compression: str = typed_attribute()
    """The compression algorithm in use."""
    alpn_protocol: str = typed_attribute()
    """What both sides want to speak over the connection (RFC 7301)."""
    standard_compatible: bool = typed_attribute()
    """Whether the connection ends with TLS's closing handshake (RFC 8446, 6.1)."""
    tls_version: str = typed_attribute()
    """The version of TLS in use."""


# -- Options -----------------------------------------------------------------------------------
# All raise OSError if the socket is closed or has no such option.


def set_tcp_nodelay(sock: SupportsSocketOptions, state: bool) -> None:
    """Send small segments at once (True), or gather them (False; RFC 896, Nagle's algorithm).

    Does nothing where the platform does not know the option.
    """
    if hasattr(_socket, "TCP_NODELAY"):
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, bool(state))


def set_tcp_keepalive(sock: SupportsSocketOptions, state: bool) -> None:
    """Have the kernel probe idle connections (RFC 9293, 3.8.4), or not.

    Does nothing where the platform does not know the option.
    """
    if hasattr(_socket, "SO_KEEPALIVE"):
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, bool(state))


class socket_linger(NamedTuple):  # noqa: N801  # C calls it "struct linger".
    """What ``close()`` does with data that is not sent yet.

    If enabled, it waits for at most `timeout` seconds, and then resets the connection; a timeout of
    0 resets it at once. If disabled, the kernel goes on sending by itself. See
    :manpage:`socket(7)`.
    """

    enabled: bool
    timeout: int


def get_socket_linger_struct() -> struct.Struct:
    """Return the layout of the SO_LINGER option: two ints, on Windows two unsigned shorts."""
    return struct.Struct("@HH" if sys.platform == "win32" else "@ii")


def get_socket_linger(sock: SupportsSocketOptions) -> socket_linger:
    """Read the SO_LINGER option."""
    layout = get_socket_linger_struct()
    value = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, layout.size)
    enabled, timeout = layout.unpack(value)
    return socket_linger(bool(enabled), timeout)


def enable_socket_linger(sock: SupportsSocketOptions, timeout: int) -> None:
    """Have ``close()`` wait for at most `timeout` seconds, then reset the connection."""
    value = get_socket_linger_struct().pack(True, timeout)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, value)


def disable_socket_linger(sock: SupportsSocketOptions) -> None:
    """Let the kernel send unsent data in the background after ``close()``, which is the default."""
    value = get_socket_linger_struct().pack(False, 0)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, value)
