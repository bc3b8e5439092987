"""What a client is made with: an address to connect to, or a socket that is connected."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from easynetwork.backends._checks import check_port


@contextmanager
def owned(target: object) -> Iterator[None]:
    """Close `target` if it is a socket and the block fails: the client owns it from now on."""
    try:
        yield
    except BaseException:
        if isinstance(target, socket.socket):
            target.close()
        raise


def check_target(
    target: object, address_options: Collection[str]
) -> tuple[str, int] | socket.socket:
    """Return the address to connect to, or the connected socket.

    Args:
        target: What the client's user gave.
        address_options: The arguments in use that only make sense with an address.

    Raises:
        TypeError: It is something else, or the options do not go with it. A socket is closed then,
            and in the following cases.
        ValueError: There is no such port, or the socket is not one of TCP.
        OSError: The socket is not connected.
    """
    with owned(target):
        match target:
            case (str(host), int(port)):
                return host, check_port(port)
            case socket.socket() if not address_options:
                _check_socket(target)
                return target
        raise TypeError("Invalid arguments")


def _check_socket(sock: socket.socket) -> None:
    if isinstance(sock, ssl.SSLSocket):
        raise TypeError("ssl.SSLSocket instances are forbidden")
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise ValueError("Only these families are supported: AF_INET, AF_INET6")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError("Only this type of socket is supported: SOCK_STREAM")
    sock.getpeername()  # ENOTCONN if it is not connected
