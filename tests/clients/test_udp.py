"""The blocking UDP client, one thread at a time."""

from __future__ import annotations

import errno
import selectors
import socket
import sys
import time
from typing import Any

import pytest

from easynetwork.clients import _waiting
from easynetwork.clients.udp import UDPNetworkClient
from easynetwork.exceptions import (
    DatagramProtocolParseError,
    PacketConversionError,
    ProtocolCrashedError,
)
from easynetwork.protocol import DatagramProtocol
from tests.clients.udp_support import (
    TEXT,
    Full,
    Text,
    address_of,
    bound,
    connected_to,
    each_family,
    opened,
    resolving_to,
    send_unnoticed,
)

LONGEST = {"127.0.0.1": 65_507, "::1": 65_527}


class Selector(selectors.SelectSelector):
    """Waits in vain until a socket is writable."""

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        return super().register(fileobj, events, data) if events == selectors.EVENT_READ else None


@pytest.fixture
def never_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no socket become writable: see `Full`."""
    monkeypatch.setattr(_waiting, "_Selector", Selector)


# -- Connecting --------------------------------------------------------------------------------


@each_family
def test_connecting_sends_nothing(host: str) -> None:
    """The peer does not notice that a client has connected."""
    with opened(host) as (_client, peer):
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_family(monkeypatch: pytest.MonkeyPatch, family: int) -> None:
    """Of a host that has addresses of both families, the right one is used."""
    resolving_to(monkeypatch, ("127.0.0.1", 9), ("::1", 9), ("127.0.0.1", 9))
    with UDPNetworkClient(("several", 80), TEXT, family=family) as client:
        assert client.socket.family == family
        expected = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        assert client.get_remote_address().host == expected


def test_forbidden() -> None:
    """If the system refuses to connect, so does the client, with an error of that class."""
    message = "cannot connect to '255.255.255.255', port 9: "
    with pytest.raises(PermissionError, match=message) as caught:
        UDPNetworkClient(("255.255.255.255", 9), TEXT)
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert caught.value.__cause__.message == "Could not create the UDP socket"


def test_host_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that knows the name and no address of it is an OSError."""
    resolving_to(monkeypatch)
    with pytest.raises(OSError, match=r"^getaddrinfo\('several'\) returned empty list$"):
        UDPNetworkClient(("several", 80), TEXT)


# -- Wrong arguments ---------------------------------------------------------------------------


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_out_of_range(port: int) -> None:
    """A port that does not exist is not taken for another one."""
    with pytest.raises(ValueError, match=f"^port must be between 0 and 65535, got {port}$"):
        UDPNetworkClient(("127.0.0.1", port), TEXT)


@pytest.mark.parametrize("target", ["address", "socket"])
def test_wrong_family(target: str) -> None:
    """A family that is not one of the Internet is refused; a socket is closed."""
    with bound() as peer, connected_to(peer) as sock:
        with pytest.raises(ValueError, match="^Only these families are supported: AF_INET, AF"):
            UDPNetworkClient(
                sock if target == "socket" else address_of(peer), TEXT, family=socket.AF_UNIX
            )
        assert (sock.fileno() == -1) is (target == "socket")


# -- Packets -----------------------------------------------------------------------------------


@each_family
def test_sizes(host: str) -> None:
    """A datagram may be empty, and as long as UDP can tell; each is one packet."""
    with opened(host) as (client, peer):
        for packet in ("", "x", "", "x" * LONGEST[host]):
            client.send_packet(packet)
            assert peer.recv(1 << 17) == packet.encode()
            peer.send(packet.encode())
            assert client.recv_packet(timeout=5) == packet


@each_family
def test_too_long(host: str) -> None:
    """A longer one is an error that says so; nothing was sent, and the client goes on."""
    with opened(host) as (client, peer):
        for length in (LONGEST[host] + 1, 1 << 20):
            with pytest.raises(OSError, match=f"datagram of {length} bytes is too long") as caught:
                client.send_packet("x" * length)
            assert caught.value.errno == errno.EMSGSIZE
        client.send_packet("short")
        assert peer.recv(100) == b"short"


@each_family
def test_strangers_are_ignored(host: str) -> None:
    """What others send is not received."""
    with opened(host) as (client, peer), bound(host) as stranger:
        stranger.sendto(b"stranger", client.get_local_address())
        peer.send(b"peer")
        stranger.sendto(b"stranger", client.get_local_address())
        assert client.recv_packet(timeout=5) == "peer"
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0.02)


def test_serializer_crash() -> None:
    """An exception of the serializer is the cause of an error; the client goes on."""
    with opened() as (client, peer):
        peer.send(b"crash")
        peer.send(b"good")
        message = r"^protocol\.build_packet_from_datagram\(\) crashed$"
        with pytest.raises(ProtocolCrashedError, match=message) as caught:
            client.recv_packet()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert client.recv_packet() == "good"
        with pytest.raises(
            ProtocolCrashedError, match=r"^protocol\.make_datagram\(\) crashed$"
        ) as caught:
            client.send_packet("crash")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        client.send_packet("good")
        assert peer.recv(100) == b"good"


def test_overridden_protocol() -> None:
    """What a user's protocol class does instead of the library's is done."""

    class Shouting(DatagramProtocol[str, str]):
        __slots__ = ()

        def make_datagram(self, packet: str) -> bytes:
            return super().make_datagram(packet.upper())

        def build_packet_from_datagram(self, datagram: bytes) -> str:
            if datagram == b"quiet":
                raise DatagramProtocolParseError(PacketConversionError("cannot hear you"))
            return super().build_packet_from_datagram(datagram) + "!"

    with opened(protocol=Shouting(Text())) as (client, peer):
        client.send_packet("hello")
        assert peer.recv(100) == b"HELLO"
        peer.send(b"hello")
        peer.send(b"quiet")
        assert client.recv_packet() == "hello!"
        with pytest.raises(DatagramProtocolParseError, match="cannot hear you"):
            client.recv_packet()


# -- A peer that is not there ------------------------------------------------------------------


@each_family
def test_dead_peer(host: str) -> None:
    """That nobody listens is an error of a send or of the receive; the client goes on."""
    with opened(host) as (client, peer):
        address = address_of(peer)
        peer.close()
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError) as caught:
                client.send_packet("anybody there?")
                client.recv_packet(timeout=5)
            assert caught.value.errno == errno.ECONNREFUSED
        assert not client.is_closed()
        with bound(*address) as peer:
            client.send_packet("and now?")
            assert peer.recvfrom(100) == (b"and now?", client.get_local_address())
            peer.sendto(b"yes", client.get_local_address())
            assert client.recv_packet(timeout=5) == "yes"


@pytest.mark.skipif(sys.platform != "linux", reason="others hear of it with the next operation")
def test_dead_peer_is_noticed_by_the_send() -> None:
    """On this machine, the packet that cannot arrive is the one that is an error; no other is."""
    with opened() as (client, peer):
        peer.close()
        with pytest.raises(ConnectionRefusedError):
            client.send_packet("anybody there?")
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0)


def test_dead_peer_is_noticed_by_the_receive() -> None:
    """Whoever waits for a packet hears of it otherwise, once."""
    with opened() as (client, peer):
        peer.close()
        send_unnoticed(client, b"anybody there?")
        with pytest.raises(ConnectionRefusedError) as caught:
            client.recv_packet(timeout=5)
        assert caught.value.errno == errno.ECONNREFUSED
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0)


# -- A network that is slow --------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_send_timeout(never_writable: None, timeout: float) -> None:
    """A packet that the kernel has no room for in time was not sent; the client goes on."""
    with bound() as peer:
        sock = connected_to(peer, Full)
        with UDPNetworkClient(sock, TEXT, retry_interval=0.001) as client:
            start = time.monotonic()
            with pytest.raises(TimeoutError) as caught:
                client.send_packet("late", timeout=timeout)
            assert caught.value.errno == errno.ETIMEDOUT
            assert time.monotonic() - start >= timeout
            sock.room = True
            client.send_packet("in time", timeout=timeout)
            assert peer.recv(100) == b"in time"
