"""Connect sockets to a peer: TCP, by the first address that answers, and UDP.

Written once for every loop, with plain non-blocking sockets and anyio's waits.

Connecting a datagram socket sends nothing and never waits: from then on, the kernel drops datagrams
from other peers, and reports what became of earlier ones. So once names are resolved there is one
way for blocking and asynchronous programs. Since an attempt says nothing about the peer, the
resolver's order of addresses is kept (RFC 6724): the first one that there is a route to wins.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anyio

from easynetwork._forks import take_descriptor
from easynetwork.addresses import set_tcp_keepalive, set_tcp_nodelay
from easynetwork.addresses._unix import typed_address
from easynetwork.sockets.closing import close_all, close_on_error
from easynetwork.sockets.resolving import (
    AddressInfo,
    bind_error,
    interleave,
    resolve,
    resolve_blocking,
)


async def connect_tcp(
    host: str,
    port: int,
    *,
    local_address: tuple[str, int] | None = None,
    happy_eyeballs_delay: float = 0.25,
) -> socket.socket:
    """Connect to the first address of a host that answers ("happy eyeballs", RFC 8305).

    Args:
        host: A name or a numeric address.
        port: The port.
        local_address: What to bind the socket to before; None to let the kernel choose.
        happy_eyeballs_delay: Seconds before the next address is tried while others are still being
            tried. RFC 8305, section 8, recommends 0.25. `math.inf` tries one after the other.

    Raises:
        OSError: No address could be connected to: see `connection_error`.
        socket.gaierror: A name is unknown.
    """
    infos = interleave(await resolve(host, port, socket.SOCK_STREAM))
    local = [] if local_address is None else await resolve(*local_address, socket.SOCK_STREAM)
    connected: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(info: AddressInfo, done: anyio.Event) -> None:
        try:
            sock = new_client_socket(info, local if local_address else None)
            await _finish_connecting(sock, info[4])
            connected.append(sock)
            attempts.cancel_scope.cancel()
        except OSError as exc:
            errors.append(exc)
        finally:
            done.set()

    try:
        async with anyio.create_task_group() as attempts:
            for info in infos:
                done = anyio.Event()
                attempts.start_soon(attempt, info, done)
                with anyio.move_on_after(happy_eyeballs_delay):
                    await done.wait()
    except BaseException:
        close_all(connected)
        raise
    if not connected:
        raise connection_error(host, port, errors)
    close_all(connected[1:])
    return connected[0]


def new_client_socket(
    info: AddressInfo, local: Sequence[AddressInfo] | None = None
) -> socket.socket:
    """Return a non-blocking socket for an address, bound if `local` addresses are given.

    Raises:
        OSError: It cannot be made or bound.
    """
    sock = socket.socket(*info[:3])
    with close_on_error(sock):
        sock.setblocking(False)
        if local is not None:
            _bind_to_one_of(sock, local)
    return sock


def _bind_to_one_of(sock: socket.socket, local: Sequence[AddressInfo]) -> None:
    error = OSError(f"no matching local address with family={sock.family!r} found")
    for family, _, _, _, address in local:
        if family == sock.family:
            try:
                return sock.bind(address)
            except OSError as exc:
                error = bind_error(exc, family, address)
    raise error


async def _finish_connecting(sock: socket.socket, address: tuple[Any, ...]) -> None:
    with close_on_error(sock):
        take_descriptor(sock)
        if not start_connecting(sock, address):
            await anyio.wait_writable(sock)
            check_connected(sock, address)


def start_connecting(sock: socket.socket, address: Any) -> bool:
    """Begin to connect a non-blocking socket.

    Returns:
        Whether it is connected. Otherwise, `check_connected` tells when the socket is writable.

    Raises:
        OSError: It cannot be connected.
    """
    error = sock.connect_ex(address)
    if error in (errno.EINPROGRESS, errno.EWOULDBLOCK):
        return False
    if error:
        raise connect_call_error(error, sock.family, address)
    return True


def check_connected(sock: socket.socket, address: tuple[Any, ...]) -> None:
    """Make sure that a socket has been connected.

    Raises:
        OSError: It could not be connected.
    """
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise connect_call_error(error, sock.family, address)


def raise_pending_error(sock: socket.socket) -> None:
    """Raise the pending error of a socket, which earlier datagrams caused, and clear it (SO_ERROR).

    Raises:
        OSError: `ConnectionRefusedError`, for example.
    """
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, os.strerror(error))


def connect_call_error(error: int, family: int, address: Any) -> OSError:
    """Return the error of one attempt to connect."""
    where = typed_address(address, family)
    return OSError(error, f"Connect call failed {where}: {os.strerror(error)}")


def connection_error(host: str, port: int, errors: Sequence[OSError]) -> OSError:
    """Return the one error that stands for all attempts to connect.

    Args:
        host: What was asked for.
        port: What was asked for.
        errors: Why each attempt failed; at least one.

    Returns:
        If all attempts failed alike, an error of that kind (`ConnectionRefusedError`, for example);
        otherwise an `OSError` that lists them. Its cause is the group of all attempts.
    """
    numbers = {error.errno for error in errors}
    if len(numbers) == 1 and (number := numbers.pop()) is not None:
        result = OSError(number, f"cannot connect to {host!r}, port {port}: {os.strerror(number)}")
    else:
        reasons = "; ".join(map(str, errors))
        result = OSError(f"cannot connect to {host!r}, port {port}: {reasons}")
    result.__cause__ = ExceptionGroup("create_connection() failed", errors)
    return result


def tune_tcp(sock: socket.socket) -> None:
    """Send small packets at once and probe idle connections, as far as the platform lets us."""
    with suppress(OSError):
        set_tcp_nodelay(sock, True)
        set_tcp_keepalive(sock, True)


async def connect_udp(
    host: str, port: int, *, local_address: tuple[str, int] | None, family: int
) -> socket.socket:
    """Return a non-blocking socket that is connected to the first address of a host that will do.

    Args:
        host: A name or a numeric address.
        port: The port.
        local_address: What to bind the socket to before; None to let the kernel choose.
        family: `socket.AF_INET` or `socket.AF_INET6`, to use only addresses of that family, or
            `socket.AF_UNSPEC`.

    Raises:
        OSError: No address could be connected to: see `connection_error`.
        socket.gaierror: A name is unknown, or the host has no address of that family.
    """
    infos = await resolve(host, port, socket.SOCK_DGRAM)
    local = None if local_address is None else await resolve(*local_address, socket.SOCK_DGRAM)
    return _connect(host, port, infos, local, family)


def connect_udp_blocking(
    host: str, port: int, *, local_address: tuple[str, int] | None, family: int
) -> socket.socket:
    """Do what `connect_udp` does, for a thread that may wait for the resolver."""
    infos = resolve_blocking(host, port, socket.SOCK_DGRAM)
    local = None if local_address is None else resolve_blocking(*local_address, socket.SOCK_DGRAM)
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
    with close_on_error(sock):
        start_connecting(sock, info[4])
    if local is not None:
        with suppress(OSError):  # nothing is left of what any peer sent before
            while True:
                sock.recv(1)
    return sock
