"""The calls of datagram sockets, and the source that an address may have."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from easynetwork.addresses import (
    IPv4SocketAddress,
    IPv6SocketAddress,
    UnixSocketAddress,
    new_socket_address,
)
from easynetwork.sockets.datagrams import (
    ask_for_sources,
    asked_address,
    is_of_this_machine,
    new_datagram_calls,
    remote_address,
)
from tests.times import PATIENCE

# What the socket module says of a client's address, and what of the source: one case per family.
IPV4: Any = ("192.0.2.1", 9)
SOURCE_IPV4 = bytes(4) + bytes([127, 0, 0, 2]) + bytes(4)
IPV6: Any = ("2001:db8::1", 9, 0, 0)
SOURCE_IPV6 = socket.inet_pton(socket.AF_INET6, "fe80::2") + (7).to_bytes(4, sys.byteorder)


def udp_socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    ask_for_sources(sock, host)
    sock.bind((host, 0))
    return sock


@pytest.mark.parametrize(
    ("address", "source", "asked"),
    [
        (IPV4, SOURCE_IPV4, IPv4SocketAddress("127.0.0.2", 80)),
        (IPV6, SOURCE_IPV6, IPv6SocketAddress("fe80::2", 80, 0, 7)),
    ],
    ids=["ipv4", "ipv6"],
)
def test_source(address: Any, source: bytes, asked: Any) -> None:
    """An address with a source consists of two addresses of the socket module."""
    assert remote_address((*address, source)) == address
    local_address = type(asked)("0.0.0.0", 80)
    assert asked_address((*address, source), local_address) == asked
    assert asked_address(address, local_address) is local_address


@pytest.mark.parametrize("address", [IPV4, IPV6, "/run/name", b"\0name", "", None])
def test_no_source(address: Any) -> None:
    """Addresses of all families, without a source, are what they are."""
    assert remote_address(address) == address
    local_address = UnixSocketAddress()
    assert asked_address(address, local_address) is local_address


@pytest.mark.skipif(sys.platform != "linux", reason="needs IP_PKTINFO, and 127.0.0.0/8")
@pytest.mark.parametrize(
    ("wildcard", "hosts"),
    [("0.0.0.0", ["127.0.0.1", "127.0.0.2"]), ("::", ["::1"])],
    ids=["ipv4", "ipv6"],
)
def test_wildcard(wildcard: str, hosts: list[str]) -> None:
    """On a wildcard address, what was received can be answered from where it was sent to."""
    with udp_socket(wildcard) as sock, udp_socket(hosts[0]) as peer:
        calls = new_datagram_calls(sock)
        port = sock.getsockname()[1]
        local_address: Any = new_socket_address(sock.getsockname(), sock.family)
        view = memoryview(bytearray(100))
        for host in hosts * 2:
            peer.sendto(b"hello", (host, port))
            nbytes, address = calls.receive_from(view)
            assert view[:nbytes] == b"hello"
            assert remote_address(address) == peer.getsockname()
            assert str(asked_address(address, local_address)) == f"('{host}', {port})"
            calls.send_to(b"hello", address)
            assert peer.recvfrom(100)[1][:2] == (host, port)
            calls.send_to(b"from anywhere", peer.getsockname())
            assert peer.recv(100) == b"from anywhere"


@pytest.mark.skipif(sys.platform != "linux", reason="needs IP_PKTINFO, and 127.0.0.0/8")
@pytest.mark.parametrize("asked", ["127.0.0.2", "127.255.255.255"])
def test_both_families(asked: str) -> None:
    """A socket for both families answers over IPv4, too: from another address for a broadcast."""
    with udp_socket("::") as sock, udp_socket("127.0.0.1") as peer:
        calls = new_datagram_calls(sock)
        port = sock.getsockname()[1]
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        peer.sendto(b"hello", (asked, port))
        _, address = calls.receive_from(memoryview(bytearray(100)))
        local_address = IPv6SocketAddress("::", port)
        assert asked_address(address, local_address) == (f"::ffff:{asked}", port, 0, 0)
        calls.send_to(b"hello", address)
        source = "127.0.0.1" if asked.endswith("255") else asked
        assert peer.recvfrom(100) == (b"hello", (source, port))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_address(host: str) -> None:
    """On a single address there is no source, and the socket's own methods do the work."""
    with udp_socket(host) as sock:
        plain = (sock.recvfrom_into, sock.recv_into, sock.sendto)
        assert new_datagram_calls(sock)[:3] == plain


def test_errors() -> None:
    """Errors of a socket with sources are what they would be without: they say what to do."""
    with udp_socket("0.0.0.0") as sock:
        sock.setblocking(False)
        calls = new_datagram_calls(sock)
        with pytest.raises(BlockingIOError):
            calls.receive_from(memoryview(bytearray(100)))
        with pytest.raises(OSError, match="too long"):
            calls.send_to(bytes(70_000), ("127.0.0.1", 9, SOURCE_IPV4))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.3"])
def test_own_machine(host: str) -> None:
    """Addresses of the loopback network are this machine's, and so are those of its interfaces."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    assert is_of_this_machine((host, 9), family)


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "198.51.100.7", "255.255.255.255", "2001:db8::1", "::ffff:192.0.2.1"]
)
def test_other_machine(host: str) -> None:
    """Others are not, whether there is a route to them or none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    assert not is_of_this_machine((host, 9), family)
