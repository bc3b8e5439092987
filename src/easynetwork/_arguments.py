"""Check the arguments that servers and clients have in common."""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, Final

from easynetwork.addresses import IPv6SocketAddress, UnixSocketAddress
from easynetwork.addresses._ancillary import DEFAULT_ANCILLARY_BUFSIZE

_DEFAULT_MAX_RECV_SIZE: Final = 64 * 1024
"""Bytes taken from one connection per turn of the loop: decisive for throughput up to about this
size, and small enough that one connection does not hold up the others."""

_DEFAULT_BACKLOG: Final = 1024
"""With 100, half of 1,000 clients that connect at once have to try again, a second later. The
kernel's own limit applies as well (listen(2): somaxconn)."""


def validated_max_recv_size(max_recv_size: object) -> int:
    """Return the most bytes to take from a connection at once.

    Raises:
        ValueError: It is not a strictly positive integer.
    """
    if max_recv_size is None:
        return _DEFAULT_MAX_RECV_SIZE
    return strictly_positive(max_recv_size, "'max_recv_size'")


def strictly_positive(number: object, name: str) -> int:
    """Return a number.

    Raises:
        ValueError: It is not a strictly positive integer.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number <= 0:
        raise ValueError(f"{name} must be a strictly positive integer")
    return number


def validated_delay(seconds: float | None) -> float:
    """Return how long to wait; infinity for None.

    Raises:
        ValueError: It is negative or not a number.
    """
    if seconds is None:
        return math.inf
    if math.isnan(seconds):
        raise ValueError("Invalid delay: NaN (not a number)")
    if seconds < 0:
        raise ValueError("Invalid delay: negative value")
    return seconds


def validated_runner_options(options: object) -> Mapping[str, Any]:
    """Return the options of what runs an event loop; nothing for None.

    Raises:
        TypeError: They are not a mapping.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError(f"Expected a mapping as runner_options, got {options!r}")
    return dict(options)


def parse_address(address: object) -> tuple[str, int] | None:
    """Return the host and port of an address; None if it is none.

    Args:
        address: Two items, host and port. Or the four of an IPv6 address of the socket module: the
            scope id becomes the zone of the host, the flow information is not used.

    Raises:
        ValueError: There is no such port.
    """
    match address:
        case (str(host), int(port)):
            return host, validated_port(port)
        case (str(host), int(port), int(), int(scope_id)):
            return IPv6SocketAddress(host, validated_port(port), 0, scope_id).for_connection()
    return None


def parse_numeric_address(address: object) -> tuple[int, Any]:
    """Return the family of an address to send datagrams to, and how the socket module has it.

    Args:
        address: See `parse_address`. The host has to be numeric: a name may take long to resolve.

    Raises:
        TypeError: It is not an address.
        ValueError: The host is a name, or datagrams cannot be sent to that port.
    """
    parsed = parse_address(address)
    if parsed is None:
        raise TypeError(f"Expected a host and a port, got {address!r}")
    host, port = parsed
    if port == 0:
        raise ValueError("Nothing can be sent to port 0 (RFC 768)")
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    except (socket.gaierror, UnicodeError) as exc:
        raise ValueError(f"Expected a numeric host, got {host!r}") from exc
    return infos[0][0], infos[0][4]


def validated_local_address(address: object) -> tuple[str, int] | None:
    """Return the argument `local_address` as `parse_address` does; None for None.

    Raises:
        TypeError: It is not an address.
        ValueError: There is no such port.
    """
    parsed = parse_address(address)
    if parsed is None and address is not None:
        raise TypeError(f"local_address: Expected a host and a port, got {address!r}")
    return parsed


def validated_port(port: object) -> int:
    """Return a port number.

    Raises:
        TypeError: It is not an integer.
        ValueError: There is no such port. (The resolver would take it modulo 65,536.)
    """
    if not isinstance(port, int):
        raise TypeError(f"Expected a port number, got {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be between 0 and 65535, got {port}")
    return port


def validated_hosts(host: str | Sequence[str] | None) -> list[str | None]:
    """Return the hosts to listen on; None stands for all interfaces.

    Raises:
        TypeError: It is neither a host name, None, nor a sequence of these.
    """
    given: object = host  # whatever the annotation says
    hosts = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not all(item is None or isinstance(item, str) for item in hosts):
        raise TypeError(f"Expected a host name or a sequence of host names, got {host!r}")
    return [str(item) if item else None for item in hosts]


def validated_backlog(backlog: object) -> int:
    """Return how many connections may wait to be accepted.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is not strictly positive.
    """
    if backlog is None:
        return _DEFAULT_BACKLOG
    if not isinstance(backlog, int):
        raise TypeError(f"Expected an integer as backlog, got {backlog!r}")
    if backlog < 1:
        raise ValueError("backlog should be strictly positive")
    return backlog


def validated_reuse_port(reuse_port: bool) -> bool:
    """Return whether to share the port.

    Raises:
        ValueError: The platform cannot.
    """
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("reuse_port not supported by socket module")
    return bool(reuse_port)


def validated_unix_path(path: object, argument: str = "path") -> UnixSocketAddress:
    """Return the address of a Unix socket to bind; unnamed for one that Linux chooses (unix(7)).

    Args:
        path: A path, or text or bytes that begin with NUL: an abstract name (Linux).
        argument: Its name, for the error.

    Raises:
        TypeError: It is something else.
        ValueError: It is empty, and the platform chooses no names; or a path has a NUL inside.
    """
    address = parse_unix_path(path)
    if address.is_unnamed() and sys.platform != "linux":
        error = ValueError(
            f"{argument} parameter is required on this platform and cannot be an empty string."
        )
        error.add_note("Automatic socket bind is not supported.")
        raise error
    return address


def validated_local_path(path: object) -> UnixSocketAddress | None:
    """Return the argument `local_path` as `validated_unix_path` does; None for None."""
    return None if path is None else validated_unix_path(path, "local_path")


def parse_unix_path(path: object) -> UnixSocketAddress:
    """Return the address of a Unix socket: see `validated_unix_path`."""
    match path:
        case UnixSocketAddress():
            return path
        case str() | bytes():
            return UnixSocketAddress.from_raw(path)
        case os.PathLike():
            return UnixSocketAddress.from_pathname(path)
    raise TypeError(f"Expected a str object or an os.PathLike object, got {path!r}")


def validated_mode(mode: object, address: UnixSocketAddress) -> int | None:
    """Return the permissions of a path; None if there are none to set.

    Raises:
        TypeError: They are not an integer.
        ValueError: There is no such mode, or the address is no path.
    """
    if mode is None:
        return None
    if not isinstance(mode, int):
        raise TypeError(f"Expected an integer as mode, got {mode!r}")
    if not 0 <= mode <= 0o7777:
        raise ValueError(f"mode must be between 0 and 0o7777, got {mode:#o}")
    check_has_path("mode", address)
    return mode


def check_has_path(argument: str, address: UnixSocketAddress) -> None:
    """Make sure that an address is a path, because an argument has no meaning otherwise.

    Raises:
        ValueError: It is an abstract name, or none.
    """
    if address.as_pathname() is None:
        raise ValueError(f"{argument} is only meaningful with a path")


def validated_ancillary_bufsize(ancillary_bufsize: object) -> int:
    """Return the most bytes of ancillary data that are received at once.

    Raises:
        ValueError: It is not a strictly positive integer.
    """
    if ancillary_bufsize is None:
        return DEFAULT_ANCILLARY_BUFSIZE
    return strictly_positive(ancillary_bufsize, "ancillary_bufsize")


def check_plain_methods(cls: type, *names: str) -> None:
    """Make sure that methods of a handler's class can be called in a thread.

    Raises:
        TypeError: One is a coroutine function or a generator function: a call would do nothing.
    """
    for name in names:
        method = getattr(cls, name, None)
        if iscoroutinefunction(method) or isgeneratorfunction(method) or isasyncgenfunction(method):
            raise TypeError(f"{cls.__name__}.{name}() must be a plain method, not {method!r}")
