"""Typed attributes: the keys for ``extra()`` of clients and transports."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from anyio import TypedAttributeSet, typed_attribute

from easynetwork.addresses._inet import SocketAddress
from easynetwork.addresses._proxies import ISocket, SocketProxy
from easynetwork.addresses._unix import AnySocketAddress, UnixSocketAddress

if TYPE_CHECKING:
    import ssl


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


class UNIXSocketAttribute(SocketAttribute):
    """`SocketAttribute` of a Unix socket: the same keys, the values more precisely typed."""

    __slots__ = ()

    sockname: UnixSocketAddress
    peername: UnixSocketAddress


def socket_attributes(
    sock: ISocket, local_address: AnySocketAddress, address: AnySocketAddress | None
) -> dict[Any, Callable[[], Any]]:
    """Return what `extra_attributes` has to say of a socket; no peer name if it has no peer."""
    attributes: dict[Any, Callable[[], Any]] = {
        SocketAttribute.socket: lambda: SocketProxy(sock),
        SocketAttribute.family: lambda: sock.family,
        SocketAttribute.sockname: lambda: local_address,
    }
    if address is not None:
        attributes[SocketAttribute.peername] = lambda: address
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
