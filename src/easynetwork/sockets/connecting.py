"""Sockets before a transport takes them: names resolved, connections made.

Written once for every loop, with plain non-blocking sockets and anyio's waits.
"""

from __future__ import annotations

__all__ = [
    "AddressInfo",
    "bind_error",
    "check_connected",
    "connect_call_error",
    "connect_tcp",
    "connection_error",
    "interleave",
    "new_client_socket",
    "resolve",
    "resolve_blocking",
    "start_connecting",
    "tune_tcp",
]

import errno
import itertools
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import anyio

from easynetwork._forks import take_descriptor
from easynetwork.addresses import set_tcp_keepalive, set_tcp_nodelay

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


def bind_error(exc: OSError, address: tuple[Any, ...]) -> OSError:
    """Return an error of bind(2) with the address in its text."""
    return OSError(
        exc.errno, f"error while attempting to bind on address {address[:2]}: {exc.strerror}"
    )


# -- connecting


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
        _close_all(connected)
        raise
    if not connected:
        raise connection_error(host, port, errors)
    _close_all(connected[1:])
    return connected[0]


def _close_all(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def interleave(infos: Sequence[AddressInfo]) -> list[AddressInfo]:
    """Order addresses so that families take turns, IPv6 first (RFC 8305, section 4)."""
    by_family = [
        [info for info in infos if info[0] == socket.AF_INET6],
        [info for info in infos if info[0] != socket.AF_INET6],
    ]
    rows = itertools.zip_longest(*by_family)
    return [info for row in rows for info in row if info is not None]


def new_client_socket(
    info: AddressInfo, local: Sequence[AddressInfo] | None = None
) -> socket.socket:
    """Return a non-blocking socket for an address, bound if `local` addresses are given.

    Raises:
        OSError: It cannot be made or bound.
    """
    family, kind, proto, _, _ = info
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        if local is not None:
            _bind_to_one_of(sock, local)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_to_one_of(sock: socket.socket, local: Sequence[AddressInfo]) -> None:
    error = OSError(f"no matching local address with family={sock.family!r} found")
    for family, _, _, _, address in local:
        if family == sock.family:
            try:
                return sock.bind(address)
            except OSError as exc:
                error = bind_error(exc, address)
    raise error


async def _finish_connecting(sock: socket.socket, address: tuple[Any, ...]) -> None:
    try:
        take_descriptor(sock)
        if not start_connecting(sock, address):
            await anyio.wait_writable(sock)
            check_connected(sock, address)
    except BaseException:
        sock.close()
        raise


def start_connecting(sock: socket.socket, address: tuple[Any, ...]) -> bool:
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
        raise connect_call_error(error, address)
    return True


def check_connected(sock: socket.socket, address: tuple[Any, ...]) -> None:
    """Make sure that a socket has been connected.

    Raises:
        OSError: It could not be connected.
    """
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise connect_call_error(error, address)


def connect_call_error(error: int, address: tuple[Any, ...]) -> OSError:
    """Return the error of one attempt to connect."""
    return OSError(error, f"Connect call failed {address[:2]}: {os.strerror(error)}")


def connection_error(host: str, port: int, errors: Sequence[OSError]) -> OSError:
    """Return the one error that stands for all attempts to connect.

    Args:
        host: What was asked for.
        port: What was asked for.
        errors: Why each attempt failed; at least one.

    Returns:
        If all attempts failed alike, an error of that kind (`ConnectionRefusedError`, say);
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
