"""Sockets for servers: bound to every address of every host.

With port 0, all of them get the same random port: users read one port and connect to any host.

A name often stands for an address that this machine does not have: "localhost" for ::1, in a
container without IPv6. The host is then served on its other addresses. At least one
address of each host must be bound; a numeric host has only one.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from easynetwork.sockets.closing import close_all, close_on_error
from easynetwork.sockets.datagrams import ask_for_sources
from easynetwork.sockets.resolving import AddressInfo, bind_error, resolve

_Bind: TypeAlias = Callable[[socket.socket, tuple[Any, ...]], None]

_SAME_PORT_ATTEMPTS: Final = 20
"""How often a random port is drawn until it is free for all families: each draw rarely fails."""

_UNAVAILABLE_ERRNOS: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}
"""bind(2), socket(2): this machine does not have the address, or the whole family."""


class SocketSource:
    """Where the sockets of a server come from. Here, it has none."""

    __slots__ = ()

    async def open(self) -> list[socket.socket]:
        """Return non-blocking sockets to serve on. The caller closes them."""
        return []

    def close(self) -> None:
        """Let go of sockets that are open whether the server has opened them or not.

        Called when the server is closed. May be called several times.
        """


@dataclass(frozen=True, slots=True)
class HostSockets(SocketSource):
    """A socket on every address of every host, bound when the server is activated.

    An address that this machine does not have is left out if its host has another one.

    Attributes:
        hosts: Names or numeric addresses; None stands for all interfaces.
        port: The port.
        kind: The type of the sockets.
        bind: Binds one of them: `bind_listener` or `bind_udp_server`, with its options.
        logger: Gets one INFO line if addresses are left out.
    """

    hosts: Sequence[str | None]
    port: int
    kind: socket.SocketKind
    bind: _Bind
    logger: logging.Logger

    async def open(self) -> list[socket.socket]:
        """Bind the sockets.

        Raises:
            OSError: An address cannot be bound, or a name cannot be resolved, or there is no host.
            ExceptionGroup: Several addresses cannot be bound, or several names cannot be resolved:
                an `OSError` for each.
        """
        hosts = await _resolve_all(self.hosts, self.port, self.kind)
        for _ in range(_SAME_PORT_ATTEMPTS if self.port == 0 else 1):
            sockets, failures = _bind_all(dict.fromkeys(itertools.chain(*hosts)), self.bind)
            left_out = _dispensable(hosts, failures)
            errors = [error for info, error in failures.items() if info not in left_out]
            if not errors:
                if left_out:
                    reasons = "; ".join(str(failures[info]) for info in left_out)
                    message = "Addresses that this machine does not have are left out: %s"
                    self.logger.info(message, reasons)
                return sockets
            close_all(sockets)
            if any(error.errno != errno.EADDRINUSE for error in errors):
                break
        raise _combined(errors)


def bind_udp(infos: Iterable[AddressInfo], options: Iterable[int]) -> socket.socket:
    """Return a non-blocking UDP socket that is bound to the first address that will do.

    Args:
        infos: The addresses, at least one.
        options: The options to turn on before, for example `socket.SO_BROADCAST`.

    Raises:
        OSError: No address can be bound.
    """

    def bind(sock: socket.socket, address: tuple[Any, ...]) -> None:
        for option in options:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        _bind(sock, address, reuse_port=False)

    for info in infos:
        try:
            return _new_bound_socket(info, info[4], bind)
        except OSError as exc:
            error = bind_error(exc, info[0], info[4])
    raise error


def bind_listener(
    sock: socket.socket, address: tuple[Any, ...], *, backlog: int, reuse_port: bool
) -> None:
    """Bind a socket and listen.

    Args:
        sock: The socket.
        address: The address.
        backlog: Connections that may wait to be accepted.
        reuse_port: Whether other processes may bind the port as well.
    """
    # On POSIX it allows to bind a port again whose old connections are in TIME_WAIT (socket(7)). On
    # Windows and Cygwin it would let another process take the port while this one listens.
    if os.name == "posix" and sys.platform != "cygwin":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _bind(sock, address, reuse_port=reuse_port)
    sock.listen(backlog)


def bind_udp_server(sock: socket.socket, address: tuple[Any, ...], *, reuse_port: bool) -> None:
    """Bind a socket of a server for datagrams.

    `SO_REUSEADDR` is left off: it would let another process bind the same port, and take datagrams
    away, without being asked for permission (socket(7)).
    """
    ask_for_sources(sock, address[0])
    _bind(sock, address, reuse_port=reuse_port)


def _bind(sock: socket.socket, address: tuple[Any, ...], *, reuse_port: bool) -> None:
    sock.setblocking(False)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        # Otherwise "::" includes IPv4 on Linux, and binding "0.0.0.0" as well fails (ipv6(7)).
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(address)


async def _resolve_all(
    names: Sequence[str | None], port: int, kind: socket.SocketKind
) -> list[list[AddressInfo]]:
    """Return the addresses of each host."""
    hosts: list[list[AddressInfo]] = []
    errors: list[OSError] = []
    for name in names:
        try:
            hosts.append(await resolve(name, port, kind, passive=True))
        except OSError as exc:
            errors.append(exc)
    if errors or not hosts:
        raise _combined(errors)
    return hosts


def _bind_all(
    infos: Iterable[AddressInfo], bind: _Bind
) -> tuple[list[socket.socket], dict[AddressInfo, OSError]]:
    """Return the sockets that could be bound, and why other addresses could not."""
    sockets: list[socket.socket] = []
    failures: dict[AddressInfo, OSError] = {}
    try:
        for info in infos:
            address = info[4]
            if sockets and address[1] == 0:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sockets.append(_new_bound_socket(info, address, bind))
            except OSError as exc:
                failures[info] = bind_error(exc, info[0], address)
    except BaseException:
        close_all(sockets)
        raise
    return sockets, failures


def _dispensable(
    hosts: Sequence[Sequence[AddressInfo]], failures: Mapping[AddressInfo, OSError]
) -> list[AddressInfo]:
    """Return the addresses that this machine does not have, and that no host depends on."""
    missing = [info for info, exc in failures.items() if exc.errno in _UNAVAILABLE_ERRNOS]
    needed = {info for host in hosts if set(host) <= set(missing) for info in host}
    return [info for info in missing if info not in needed]


def _new_bound_socket(info: AddressInfo, address: tuple[Any, ...], bind: _Bind) -> socket.socket:
    sock = socket.socket(*info[:3])
    with close_on_error(sock):
        bind(sock, address)
    return sock


def _combined(errors: Sequence[OSError]) -> OSError | ExceptionGroup[OSError]:
    """Return what to raise for all errors: the error itself if there is only one."""
    if not errors:
        return OSError("empty listeners list")
    if len(errors) == 1:
        return errors[0]
    return ExceptionGroup("Error when trying to create listeners", errors)
