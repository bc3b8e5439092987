"""Sockets for servers: bound to every address of every host.

With port 0, all of them get the same random port: users read one port and connect to any host.
"""

from __future__ import annotations

__all__ = ["open_tcp_listeners", "open_udp_sockets"]

import errno
import functools
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from easynetwork.backends.sockets import AddressInfo, bind_error, resolve

_Bind: TypeAlias = Callable[[socket.socket, tuple[Any, ...]], None]

_SAME_PORT_ATTEMPTS: Final = 20
"""How often a random port is drawn until it is free for all families: each draw rarely fails."""


async def open_tcp_listeners(
    hosts: Sequence[str | None], port: int, *, backlog: int, reuse_port: bool
) -> list[socket.socket]:
    """Open a non-blocking listening socket on every address of every host.

    Args:
        hosts: Names or numeric addresses; None stands for all interfaces.
        port: The port.
        backlog: Connections that may wait to be accepted.
        reuse_port: Whether other processes may bind the port as well.

    Raises:
        ExceptionGroup: Addresses that cannot be bound, or names that cannot be resolved.
        OSError: There is no address to listen on.
    """
    bind = functools.partial(_listen, backlog=backlog, reuse_port=reuse_port)
    return await _open(hosts, port, socket.SOCK_STREAM, bind)


async def open_udp_sockets(
    hosts: Sequence[str | None], port: int, *, reuse_port: bool
) -> list[socket.socket]:
    """Do what `open_tcp_listeners` does, for datagrams.

    `SO_REUSEADDR` is left off: it would let another process bind the same port, and take datagrams
    away, without anybody's consent (socket(7)).
    """
    return await _open(
        hosts, port, socket.SOCK_DGRAM, functools.partial(_bind, reuse_port=reuse_port)
    )


def _listen(
    sock: socket.socket, address: tuple[Any, ...], *, backlog: int, reuse_port: bool
) -> None:
    if os.name == "posix" and sys.platform != "cygwin":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _bind(sock, address, reuse_port=reuse_port)
    sock.listen(backlog)


def _bind(sock: socket.socket, address: tuple[Any, ...], *, reuse_port: bool) -> None:
    sock.setblocking(False)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(address)


async def _open(
    hosts: Sequence[str | None], port: int, kind: socket.SocketKind, bind: _Bind
) -> list[socket.socket]:
    infos: dict[AddressInfo, None] = {}
    errors: list[OSError] = []
    for host in hosts:
        try:
            infos.update(dict.fromkeys(await resolve(host, port, kind, passive=True)))
        except OSError as exc:
            errors.append(exc)
    if errors:
        raise ExceptionGroup("Error when trying to create listeners", errors)
    for attempts_left in reversed(range(_SAME_PORT_ATTEMPTS if port == 0 else 1)):
        try:
            return _bind_all(list(infos), bind)
        except ExceptionGroup as group:
            taken, others = group.split(_is_address_in_use)
            if not attempts_left or taken is None or others is not None:
                raise
    raise AssertionError("unreachable")


def _is_address_in_use(exc: BaseException) -> bool:
    return isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE


def _bind_all(infos: Sequence[AddressInfo], bind: _Bind) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    errors: list[OSError] = []
    try:
        for family, kind, proto, _, address in infos:
            if sockets and address[1] == 0:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sock = socket.socket(family, kind, proto)
            except OSError:
                continue  # this machine does not have that family
            sockets.append(sock)
            try:
                bind(sock, address)
            except OSError as exc:
                errors.append(bind_error(exc, address))
        if errors:
            raise ExceptionGroup("Error when trying to create listeners", errors)
        if not sockets:
            raise OSError("empty listeners list")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
