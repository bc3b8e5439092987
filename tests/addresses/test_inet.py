from __future__ import annotations

import socket

import pytest

from easynetwork.addresses import (
    IPv4SocketAddress,
    IPv6SocketAddress,
    new_socket_address,
)


def test_ipv4_address() -> None:
    """An IPv4 address is the tuple of the socket module, with names."""
    address = new_socket_address(("127.0.0.1", 9000), socket.AF_INET)

    assert isinstance(address, IPv4SocketAddress)
    assert address == ("127.0.0.1", 9000)
    assert (address.host, address.port) == address.for_connection() == ("127.0.0.1", 9000)
    assert str(address) == "('127.0.0.1', 9000)"


def test_ipv6_address() -> None:
    """An IPv6 address shows and connects like an IPv4 one."""
    address = new_socket_address(("::1", 9000, 1, 2), socket.AF_INET6)

    assert isinstance(address, IPv6SocketAddress)
    assert address == ("::1", 9000, 1, 2)
    assert (address.flowinfo, address.scope_id) == (1, 2)
    assert IPv6SocketAddress("::1", 9000).for_connection() == ("::1", 9000)
    assert str(IPv6SocketAddress("::1", 9000)) == "('::1', 9000)"
    assert IPv6SocketAddress("::1", 9000) == ("::1", 9000, 0, 0)


def test_ipv6_zone() -> None:
    """An address of one link shows, and connects with, the interface that it belongs to."""
    address = IPv6SocketAddress("fe80::1", 9000, 0, 2)
    assert address.for_connection() == ("fe80::1%2", 9000)
    assert str(address) == "('fe80::1%2', 9000)"
    assert IPv6SocketAddress("fe80::1%eth0", 9000, 0, 2).for_connection() == ("fe80::1%eth0", 9000)
    infos = socket.getaddrinfo(*address.for_connection(), type=socket.SOCK_STREAM)
    assert infos[0][4] == address


@pytest.mark.parametrize("address_class", [IPv4SocketAddress, IPv6SocketAddress])
def test_address_is_escaped(
    address_class: type[IPv4SocketAddress | IPv6SocketAddress],
) -> None:
    """A host name cannot forge a line of the log."""
    assert str(address_class("x\n\x1b[2J", 1)) == r"('x\n\x1b[2J', 1)"


def test_unknown_family() -> None:
    """Only Internet addresses have names here."""
    with pytest.raises(ValueError, match="Unsupported address family"):
        new_socket_address(("x", 1), -1)
