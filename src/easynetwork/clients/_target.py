"""What a client is made with: an address to connect to, or a socket that is connected."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Collection, Mapping

from easynetwork._arguments import parse_address, parse_unix_path, validated_unix_path
from easynetwork.addresses import UnixSocketAddress
from easynetwork.sockets.closing import close_on_error


def validated_target(
    target: object, options: Mapping[str, object], kind: socket.SocketKind = socket.SOCK_STREAM
) -> tuple[str, int] | socket.socket:
    """Return the address to connect to, or the connected socket.

    Args:
        target: What the client's user gave. See `parse_address`.
        options: The arguments that only make sense with an address; None for each that is
            not in use.
        kind: What a socket has to be: `socket.SOCK_STREAM` or `socket.SOCK_DGRAM`.

    Raises:
        TypeError: It is something else, or the options do not go with it. A socket is closed then,
            and in the following cases.
        ValueError: There is no such port, or the socket is not one of TCP, or of UDP.
        OSError: The socket is not connected.
    """
    with close_on_error(target):
        given = [name for name, value in options.items() if value is not None]
        if isinstance(target, socket.socket) and not given:
            check_family(target.family)
            _check_socket(target, kind)
            return target
        address = parse_address(target)
        if address is None:
            raise _wrong_arguments(target, given)
        return address


def _wrong_arguments(target: object, given: Collection[str]) -> TypeError:
    error = TypeError("Invalid arguments")
    if isinstance(target, socket.socket):
        error.add_note(f"Only meaningful with an address, not with a socket: {', '.join(given)}")
    else:
        error.add_note(f"Expected an address, (host, port), or a connected socket; got {target!r}")
    return error


def check_family(family: int) -> None:
    """Make sure that a family is one of the Internet.

    Raises:
        ValueError: It is another one.
    """
    if family not in (socket.AF_INET, socket.AF_INET6):
        raise ValueError("Only these families are supported: AF_INET, AF_INET6")


def _check_socket(sock: socket.socket, kind: socket.SocketKind) -> None:
    check_kind(sock, kind)
    sock.getpeername()  # ENOTCONN if it is not connected


def check_kind(sock: socket.socket, kind: socket.SocketKind) -> None:
    """Make sure that a socket is of a certain type.

    Raises:
        TypeError: It does TLS.
        ValueError: It is of another type.
    """
    if isinstance(sock, ssl.SSLSocket):
        raise TypeError("ssl.SSLSocket instances are forbidden")
    if sock.type != kind:
        raise ValueError(f"Only this type of socket is supported: {kind.name}")


def validated_unix_target(
    target: object, options: Mapping[str, object], kind: socket.SocketKind
) -> UnixSocketAddress | socket.socket:
    """Return the address to connect to, or the connected Unix socket: see `validated_target`.

    Raises:
        TypeError: It is something else, or the options do not go with it.
        ValueError: The path is empty, or the socket is of another family or type.
        OSError: The socket is not connected.
    """
    with close_on_error(target):
        given = [name for name, value in options.items() if value is not None]
        if isinstance(target, socket.socket):
            if given:
                raise _wrong_arguments(target, given)
            if target.family != socket.AF_UNIX:
                raise ValueError("Only these families are supported: AF_UNIX")
            _check_socket(target, kind)
            return target
        address = parse_unix_path(target)
        if address.is_unnamed():
            raise ValueError("path cannot be an empty string: it names no server")
        return address


def validated_unix_datagram_target(
    target: object, local_path: object, name: str
) -> tuple[UnixSocketAddress | socket.socket, UnixSocketAddress | None]:
    """Return the address to connect to, or the connected socket, which must have a name.

    Args:
        target: What the client's user gave.
        local_path: The client's argument.
        name: The client's class.

    Raises:
        ValueError: The socket has no name. Otherwise as `validated_unix_target`.
    """
    result = validated_unix_target(target, {"local_path": local_path}, socket.SOCK_DGRAM)
    if not isinstance(result, socket.socket):
        return result, validated_unix_path("" if local_path is None else local_path, "local_path")
    if not result.getsockname():
        raise ValueError(f"{name} requires the socket to be named.")
    return result, None


def validated_udp_target(
    target: object, local_address: tuple[str, int] | None, family: int
) -> tuple[str, int] | socket.socket:
    """Return the address to connect to, or the connected socket: see `validated_target`.

    Raises:
        ValueError: Also if the family is not one of the Internet.
    """
    options = {"local_address": local_address, "family": family or None}
    if family != socket.AF_UNSPEC:
        check_family(family)
    return validated_target(target, options, socket.SOCK_DGRAM)
