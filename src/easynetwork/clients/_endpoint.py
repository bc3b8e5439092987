"""What UDP endpoints have in common: how they are made, and the addresses of their packets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from easynetwork._arguments import (
    parse_numeric_address,
    validated_local_address,
    validated_reuse_port,
)
from easynetwork.addresses import IPv4SocketAddress, IPv6SocketAddress
from easynetwork.clients._target import check_family, check_kind
from easynetwork.exceptions import DatagramProtocolParseError
from easynetwork.sockets.datagrams import remote_address


def validated_binding(
    local_address: object, reuse_address: bool, reuse_port: bool, broadcast: bool
) -> tuple[str, int, list[int]]:
    """Return the host and port to bind a socket to, and the options that have to be on.

    Raises:
        TypeError: `local_address` is not an address.
        ValueError: There is no such port, or ports cannot be shared on this platform.
    """
    host, port = validated_local_address(local_address) or ("", 0)
    options = [socket.SO_REUSEPORT] if validated_reuse_port(reuse_port) else []
    options += [socket.SO_REUSEADDR] if reuse_address else []
    options += [socket.SO_BROADCAST] if broadcast else []
    return host or "0.0.0.0", port, options


def prepare_socket(sock: object) -> None:
    """Make sure that this is a UDP socket that is not connected, and bind it if it is not bound.

    Raises:
        TypeError: It is something else.
        ValueError: It is of another kind, or connected.
        OSError: It is closed.
    """
    if not isinstance(sock, socket.socket):
        raise TypeError(f"Expected a UDP socket, got {sock!r}")
    check_family(sock.family)
    check_kind(sock, socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        raise ValueError(f"The socket is connected, to {sock.getpeername()}")
    if sock.getsockname()[1] == 0:
        sock.bind(("", 0))


def destination(address: object, local_address: object) -> Any:
    """Return where to send as the socket module has it.

    Args:
        address: See `parse_numeric_address`, also for errors.
        local_address: That of the socket.

    Raises:
        ValueError: The address is of another family than the socket.
    """
    family, raw_address = parse_numeric_address(address)
    if (family == socket.AF_INET6) != isinstance(local_address, IPv6SocketAddress):
        raise ValueError(f"A socket on {local_address} cannot send to {address!r}")
    return raw_address


def pair_builder(build: Callable[[bytes], Any]) -> Callable[[tuple[bytes, Any]], Any]:
    """Return a function that makes a packet, and its sender's address, of what was received.

    Args:
        build: Makes a packet of a datagram.
    """

    def build_pair(received: tuple[bytes, Any]) -> tuple[Any, Any]:
        raw_address = remote_address(received[1])
        address_class = IPv4SocketAddress if len(raw_address) == 2 else IPv6SocketAddress
        sender_address = address_class(*raw_address)
        try:
            return build(received[0]), sender_address
        except DatagramProtocolParseError as exc:
            exc.sender_address = sender_address
            raise

    return build_pair
