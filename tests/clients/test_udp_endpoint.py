"""The blocking UDP endpoint: packets from and to any address."""

from __future__ import annotations

import errno
import gc
import itertools
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import pytest

from easynetwork.addresses import IPv6SocketAddress
from easynetwork.clients import UDPNetworkEndpoint
from easynetwork.exceptions import (
    ClientClosedError,
    DatagramProtocolParseError,
    ProtocolCrashedError,
)
from easynetwork.serializers import StringLineSerializer
from tests.clients.udp_support import NOT_A_PACKET, TEXT, bound, each_family, wait_until
from tests.networks import LINK, own_network, wait_for_address
from tests.times import PATIENCE, SOON

Endpoint: TypeAlias = UDPNetworkEndpoint[str, str]

OPERATIONS: dict[str, Callable[[Endpoint], object]] = {
    "send": lambda endpoint: endpoint.send_packet_to("hello", ("127.0.0.1", 9)),
    "recv": lambda endpoint: endpoint.recv_packet_from(timeout=PATIENCE),
    "address": lambda endpoint: endpoint.get_local_address(),
}


class Narrow(socket.socket):
    """A socket that the kernel takes nothing from until `room` is set: see `Full`."""

    room = False
    refused = False

    def sendto(self, data: Any, *args: Any) -> int:
        if not self.room:
            self.refused = True
            raise BlockingIOError
        return super().sendto(data, *args)


def on(host: str = "127.0.0.1", **options: Any) -> Endpoint:
    return UDPNetworkEndpoint(TEXT, local_address=(host, 0), **options)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with on(retry_interval=3600) as endpoint:
        yield endpoint


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with bound() as peer:
        yield peer


# -- packets


@each_family
def test_any_peer(host: str) -> None:
    """Packets go to several peers and come from several peers, over one socket."""
    with on(host) as endpoint, bound(host) as one, bound(host) as other:
        for number, peer in enumerate((one, other, one)):
            endpoint.send_packet_to(f"to {number}", peer.getsockname()[:2], timeout=PATIENCE)
            data, sender = peer.recvfrom(100)
            assert data == f"to {number}".encode()
            assert sender == endpoint.get_local_address()
            peer.sendto(b"from %d" % number, sender)
            packet, address = endpoint.recv_packet_from(timeout=PATIENCE)
            assert packet == f"from {number}"
            assert address == peer.getsockname()
            assert type(address) is type(endpoint.get_local_address())


def test_iteration(endpoint: Endpoint, peer: socket.socket) -> None:
    """`for` yields pairs, raises what is wrong with a datagram, and ends with the socket."""
    for datagram in (b"one", NOT_A_PACKET, b"two"):
        peer.sendto(datagram, endpoint.get_local_address())
    received = []
    while not endpoint.is_closed():
        try:
            for packet, sender in endpoint:
                assert sender == peer.getsockname()
                received.append(packet)
                if packet == "two":
                    endpoint.close()
        except DatagramProtocolParseError:
            received.append("error")
    assert received == ["one", "error", "two"]
    assert list(endpoint) == []


@each_family
def test_parse_error(host: str) -> None:
    """An error tells the sender; the next datagram is not affected."""
    with on(host) as endpoint, bound(host) as peer:
        for datagram in (NOT_A_PACKET, b"next"):
            peer.sendto(datagram, endpoint.get_local_address())
        with pytest.raises(DatagramProtocolParseError) as caught:
            endpoint.recv_packet_from(timeout=PATIENCE)
        assert caught.value.sender_address == peer.getsockname()
        assert endpoint.recv_packet_from(timeout=PATIENCE)[0] == "next"


def test_bugs(endpoint: Endpoint, peer: socket.socket) -> None:
    """A bug of the protocol object is raised as such, and disturbs nothing else."""
    peer.sendto(b"crash", endpoint.get_local_address())
    with pytest.raises(ProtocolCrashedError):
        endpoint.recv_packet_from(timeout=PATIENCE)
    with pytest.raises(ProtocolCrashedError):
        endpoint.send_packet_to("crash", peer.getsockname())
    endpoint.send_packet_to("fine", peer.getsockname())
    assert peer.recv(100) == b"fine"


@pytest.mark.parametrize("timeout", [0, SOON])
def test_timeouts(endpoint: Endpoint, peer: socket.socket, timeout: float) -> None:
    """A receiver gives up in time, and what arrives later is not lost."""
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        endpoint.recv_packet_from(timeout=timeout)
    assert time.monotonic() - start >= timeout
    peer.sendto(b"late", endpoint.get_local_address())
    assert endpoint.recv_packet_from(timeout=PATIENCE) == ("late", peer.getsockname())


@pytest.mark.parametrize("timeout", [-1, math.nan])
def test_wrong_timeouts(endpoint: Endpoint, timeout: float) -> None:
    """What is not a time is refused."""
    with pytest.raises(ValueError, match="delay"):
        endpoint.recv_packet_from(timeout=timeout)
    with pytest.raises(ValueError, match="delay"):
        endpoint.send_packet_to("hello", ("127.0.0.1", 9), timeout=timeout)


def test_no_room(peer: socket.socket) -> None:
    """Sending waits while the kernel has no room."""
    sock = Narrow(socket.AF_INET, socket.SOCK_DGRAM)
    with UDPNetworkEndpoint.from_socket(sock, TEXT) as endpoint:
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(endpoint.send_packet_to, "hello", peer.getsockname())
            wait_until(lambda: sock.refused)
            sock.room = True
            sending.result(PATIENCE)
        assert peer.recv(100) == b"hello"


def test_too_long(endpoint: Endpoint, peer: socket.socket) -> None:
    """A packet that no datagram can hold is refused with its length."""
    with pytest.raises(OSError, match="datagram of 70000 bytes is too long") as caught:
        endpoint.send_packet_to("x" * 70_000, peer.getsockname())
    assert caught.value.errno == errno.EMSGSIZE


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (("localhost", 9), ValueError),
        (("::1", 9), ValueError),
        (("127.0.0.1", 0), ValueError),
        ("127.0.0.1", TypeError),
    ],
)
def test_no_address(endpoint: Endpoint, address: Any, error: type[Exception]) -> None:
    """Names, other families and other objects are refused."""
    with pytest.raises(error):
        endpoint.send_packet_to("hello", address)


def test_link_local() -> None:
    """Addresses that are only valid on a link have their zone."""
    with own_network(*LINK):
        number = socket.if_nametoindex("link0")
        wait_for_address(("fe80::1", 1, 0, number))
        with on("fe80::1%link0") as endpoint, on("::") as other:
            other.send_packet_to("hello", ("fe80::1%link0", endpoint.get_local_address().port))
            _, sender = endpoint.recv_packet_from(timeout=PATIENCE)
            assert isinstance(sender, IPv6SocketAddress)
            assert sender.scope_id == number
            endpoint.send_packet_to("hello", sender)
            address = endpoint.get_local_address()
            assert other.recv_packet_from(timeout=PATIENCE) == ("hello", address)


@pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.0.0/8 on loopback")
def test_broadcast() -> None:
    """With `broadcast`, packets reach the network; without, it is not permitted."""
    with on("", reuse_address=True) as endpoint:
        where = ("127.255.255.255", endpoint.get_local_address().port)
        with on(broadcast=True) as sender:
            sender.send_packet_to("hello", where)
            expected = ("hello", sender.get_local_address())
            assert endpoint.recv_packet_from(timeout=PATIENCE) == expected
        with on() as sender, pytest.raises(PermissionError):
            sender.send_packet_to("hello", where)


# -- threads


def test_threads(endpoint: Endpoint, peer: socket.socket) -> None:
    """Threads may send and receive at the same time; each packet goes to one of them."""
    count = 50

    def echo() -> None:
        for _ in range(4 * count):
            data, sender = peer.recvfrom(100)
            peer.sendto(data, sender)

    def ask(number: int) -> list[str]:
        received = []
        for index in range(count):
            endpoint.send_packet_to(f"{number} {index}", peer.getsockname(), timeout=PATIENCE)
            received.append(endpoint.recv_packet_from(timeout=PATIENCE)[0])
        return received

    with ThreadPoolExecutor(5) as pool:
        pool.submit(echo)
        answers = [*itertools.chain(*pool.map(ask, range(4)))]
    assert sorted(answers) == sorted(f"{n} {i}" for n in range(4) for i in range(count))


def test_close_wakes_receivers(endpoint: Endpoint) -> None:
    """Closing tells a thread that receives at once, although the socket has no peer."""
    ended: list[bool] = []

    def receive() -> None:
        started.set()
        with pytest.raises(ClientClosedError):
            endpoint.recv_packet_from()
        ended.append(True)

    started = threading.Event()
    thread = threading.Thread(target=receive)
    thread.start()
    started.wait()
    time.sleep(SOON)
    endpoint.close()
    thread.join(PATIENCE)
    assert ended == [True]
    assert endpoint.fileno() == -1


# -- the socket


@pytest.mark.parametrize(
    ("local_address", "host"), [(None, "0.0.0.0"), (("", 0), "0.0.0.0"), (("::", 0), "::")]
)
def test_local_address(local_address: Any, host: str) -> None:
    """The local address decides the family; all IPv4 interfaces by default. It is bound at once."""
    with UDPNetworkEndpoint(TEXT, local_address=local_address) as endpoint:
        address = endpoint.get_local_address()
        assert (address.host, bool(address.port)) == (host, True)
        assert repr(endpoint) == f"<UDPNetworkEndpoint endpoint={address}>"
        assert endpoint.socket.fileno() == endpoint.fileno()
        assert not hasattr(endpoint, "__dict__")


def test_address_in_use(endpoint: Endpoint) -> None:
    """An address that cannot be bound is named."""
    address = endpoint.get_local_address()
    with pytest.raises(OSError, match=str(address.port)) as caught:
        UDPNetworkEndpoint(TEXT, local_address=address.for_connection())
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"local_address": ("127.0.0.1", 65_536)}, ValueError),
        ({"local_address": "127.0.0.1"}, TypeError),
        ({"local_address": ("nowhere.invalid", 0)}, socket.gaierror),
        ({"protocol": StringLineSerializer()}, TypeError),
        ({"retry_interval": 0}, ValueError),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception]) -> None:
    """Arguments are checked."""
    with pytest.raises(error):
        UDPNetworkEndpoint(**{"protocol": TEXT, **options})


@each_family
def test_from_socket(host: str) -> None:
    """A socket belongs to the endpoint, and is bound if it was not."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    with UDPNetworkEndpoint.from_socket(sock, TEXT) as endpoint, bound(host) as peer:
        peer.sendto(b"hello", (host, endpoint.get_local_address().port))
        assert endpoint.recv_packet_from(timeout=PATIENCE) == ("hello", peer.getsockname())
    assert sock.fileno() == -1


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        (socket.SOCK_STREAM, {}, ValueError),
        (socket.SOCK_DGRAM, {"protocol": None}, TypeError),
        (socket.SOCK_DGRAM, {"retry_interval": -1}, ValueError),
    ],
)
def test_wrong_socket(
    kind: socket.SocketKind, options: dict[str, Any], error: type[Exception]
) -> None:
    """A socket is closed if no endpoint can be made with it."""
    sock = socket.socket(socket.AF_INET, kind)
    with pytest.raises(error):
        UDPNetworkEndpoint.from_socket(sock, **{"protocol": TEXT, **options})
    assert sock.fileno() == -1


def test_connected_socket() -> None:
    """A socket that has a peer is for a client."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", 9))
    with pytest.raises(ValueError, match=r"connected, to \('127.0.0.1', 9\)"):
        UDPNetworkEndpoint.from_socket(sock, TEXT)
    assert sock.fileno() == -1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_closed(endpoint: Endpoint, operation: str) -> None:
    """After it was closed, nothing can be done with it, but to close it again."""
    for _ in range(2):
        endpoint.close()
        assert endpoint.is_closed()
    with pytest.raises(ClientClosedError):
        OPERATIONS[operation](endpoint)


def test_forgotten() -> None:
    """An endpoint that is never closed is a warning."""
    endpoint = on()
    assert os.fstat(endpoint.fileno())
    with pytest.warns(ResourceWarning, match="unclosed"):  # noqa: PT031 - both are needed
        del endpoint
        gc.collect()


def test_no_client() -> None:
    """It has no peer, so it has none of the methods that need one."""
    for name in ("send_packet", "recv_packet", "get_remote_address", "iter_received_packets"):
        assert not hasattr(UDPNetworkEndpoint, name)
