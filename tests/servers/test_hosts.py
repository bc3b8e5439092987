"""Which addresses are one host's."""

from __future__ import annotations

import pytest

from easynetwork.addresses import IPv4SocketAddress, IPv6SocketAddress, UnixSocketAddress
from easynetwork.servers._core.hosts import host_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (IPv4SocketAddress("192.0.2.1", 5), ("192.0.2.1", 6)),
        (IPv4SocketAddress("192.0.2.1", 5), ("::ffff:192.0.2.1", 6, 0, 0)),
        (IPv6SocketAddress("2001:db8::1", 5), ("2001:db8::ffff:0:0:1", 6, 0, 0, b"source")),
        (IPv6SocketAddress("fe80::1", 5, 0, 2), ("fe80::1%2", 6)),
    ],
)
def test_same(one: object, other: object) -> None:
    """An IPv4 address is a host, however it is written, and so is an IPv6 network of 64 bits."""
    assert host_of(one) == host_of(other) is not None


def test_different() -> None:
    """Other addresses are other hosts; those of Unix sockets are none."""
    addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1", "::ffff:192.0.2.3"]
    assert len({host_of((address, 5)) for address in addresses}) == len(addresses)
    assert host_of(UnixSocketAddress()) is None
    assert host_of("/run/name") is None
