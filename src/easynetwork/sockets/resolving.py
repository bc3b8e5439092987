"""Names to addresses."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import anyio

from easynetwork.addresses._unix import typed_address

AddressInfo: TypeAlias = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""What getaddrinfo(3) says of one address: family, type, protocol, name, and the address itself."""


async def resolve(
    host: str | None, port: int, kind: socket.SocketKind, *, passive: bool = False
) -> list[AddressInfo]:
    """Return the addresses of a host and port, in the order of preference, without duplicates.

    Numeric hosts are resolved on the spot, names by the loop's resolver.

    Args:
        host: A name or a numeric address; None for all interfaces, or for the loopback interface.
        port: The port.
        kind: `socket.SOCK_STREAM` or `socket.SOCK_DGRAM`.
        passive: Whether to bind to the addresses rather than to connect to them.

    Raises:
        socket.gaierror: The name is unknown, or the resolver does not answer.
    """
    flags = socket.AI_PASSIVE | socket.AI_ADDRCONFIG if passive else 0
    infos: list[Any]
    try:
        infos = socket.getaddrinfo(
            host, port, type=kind, flags=flags | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    except (socket.gaierror, UnicodeError):
        with _resolving(host):
            infos = await anyio.getaddrinfo(host, port, type=kind, flags=flags)
    return _distinct(infos, host)


def resolve_blocking(host: str, port: int, kind: socket.SocketKind) -> list[AddressInfo]:
    """Do what `resolve` does, to connect, for a thread that may wait."""
    with _resolving(host):
        infos = socket.getaddrinfo(host, port, type=kind)
    return _distinct(infos, host)


@contextmanager
def _resolving(host: str | None) -> Iterator[None]:
    try:
        yield
    except socket.gaierror as exc:
        raise socket.gaierror(exc.errno, f"cannot resolve {host!r}: {exc.strerror}") from exc
    except UnicodeError as exc:  # not even a name
        raise socket.gaierror(socket.EAI_NONAME, f"cannot resolve {host!r}: {exc}") from exc


def _distinct(infos: list[Any], host: str | None) -> list[AddressInfo]:
    if not infos:
        raise OSError(f"getaddrinfo({host!r}) returned empty list")
    return list(dict.fromkeys(infos))


def interleave(infos: Sequence[AddressInfo]) -> list[AddressInfo]:
    """Order addresses so that families take turns, IPv6 first (RFC 8305, section 4)."""
    ipv6 = [info for info in infos if info[0] == socket.AF_INET6]
    others = [info for info in infos if info[0] != socket.AF_INET6]
    rows = itertools.zip_longest(ipv6, others)
    return [info for row in rows for info in row if info is not None]


def bind_error(exc: OSError, family: int, address: Any) -> OSError:
    """Return an error of bind(2) with the address in its text."""
    where = typed_address(address, family)
    return OSError(exc.errno, f"error while attempting to bind on address {where}: {exc.strerror}")
