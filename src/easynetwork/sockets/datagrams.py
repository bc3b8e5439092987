"""Datagram sockets before an endpoint takes them: connected to one peer.

To connect a datagram socket sends nothing, and never waits: from then on, the kernel drops what
anybody else sends, and reports what became of earlier datagrams. So once names are resolved there
is one way for programs that wait and for those that must not. And since an attempt says nothing
about the peer, the resolver's order of addresses is kept (RFC 6724): the first one that there is a
route to wins.
"""

from __future__ import annotations

__all__ = ["connect_udp", "connect_udp_blocking"]

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from easynetwork.sockets.connecting import (
    connection_error,
    new_client_socket,
    resolve,
    resolve_blocking,
    start_connecting,
)

_DGRAM = socket.SOCK_DGRAM


async def connect_udp(
    host: str,
    port: int,
    *,
    local_address: tuple[str, int] | None = None,
    family: int = socket.AF_UNSPEC,
) -> socket.socket:
    """Return a non-blocking socket that is connected to the first address of a host that will do.

    Args:
        host: A name or a numeric address.
        port: The port.
        local_address: What to bind the socket to before; None to let the kernel choose.
        family: `socket.AF_INET` or `socket.AF_INET6`, to use only addresses of that family.

    Raises:
        OSError: No address could be connected to: see `connection_error`.
        socket.gaierror: A name is unknown, or the host has no address of that family.
    """
    infos = await resolve(host, port, _DGRAM)
    local = None if local_address is None else await resolve(*local_address, _DGRAM)
    return _connect(host, port, infos, local, family)


def connect_udp_blocking(
    host: str,
    port: int,
    *,
    local_address: tuple[str, int] | None = None,
    family: int = socket.AF_UNSPEC,
) -> socket.socket:
    """Do what `connect_udp` does, for a thread that may wait for the resolver."""
    infos = resolve_blocking(host, port, _DGRAM)
    local = None if local_address is None else resolve_blocking(*local_address, _DGRAM)
    return _connect(host, port, infos, local, family)


def _connect(
    host: str, port: int, infos: Sequence[Any], local: Sequence[Any] | None, family: int
) -> socket.socket:
    if family != socket.AF_UNSPEC:
        infos = [info for info in infos if info[0] == family]
        if not infos:
            name = socket.AddressFamily(family).name
            raise socket.gaierror(
                socket.EAI_NONAME, f"cannot resolve {host!r}: no address of family {name}"
            )
    errors: list[OSError] = []
    for info in infos:
        try:
            return _new_connected_socket(info, local)
        except OSError as exc:
            errors.append(exc)
    raise connection_error(host, port, errors) from ExceptionGroup(
        "Could not create the UDP socket", errors
    )


def _new_connected_socket(info: Any, local: Sequence[Any] | None) -> socket.socket:
    sock = new_client_socket(info, local)
    try:
        start_connecting(sock, info[4])
    except BaseException:
        sock.close()
        raise
    if local is not None:
        _forget_what_arrived(sock)
    return sock


def _forget_what_arrived(sock: socket.socket) -> None:
    """Drop what came after the socket was bound and before it was connected: from anybody."""
    with suppress(OSError):  # nothing is left
        while True:
            sock.recv(1)
