"""What all blocking clients promise alike, whatever transports their packets.

A further kind of client is one more function in `KINDS`.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from easynetwork.clients.tcp import TCPNetworkClient
from easynetwork.clients.udp import UDPNetworkClient
from easynetwork.exceptions import ClientClosedError
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers.line import StringLineSerializer
from tests.clients import udp_support as udp
from tests.clients.async_tcp_support import address_of, listening
from tests.clients.threads_support import InThread, wait_until, waits_for_lock, waits_for_socket
from tests.times import SOON

Send: TypeAlias = Callable[..., object]
Opened: TypeAlias = tuple[Any, Send]


@contextlib.contextmanager
def open_tcp(protocol_class: Any, host: str) -> Iterator[Opened]:
    """Yield a TCP client, and a function with which its peer sends packets."""
    protocol = protocol_class(StringLineSerializer())
    with listening(host) as listener:
        with TCPNetworkClient(address_of(listener), protocol, retry_interval=3600) as client:
            peer, _ = listener.accept()
            with peer:
                yield client, lambda *packets: peer.sendall("\n".join([*packets, ""]).encode())


@contextlib.contextmanager
def open_udp(host: str) -> Iterator[Opened]:
    """Yield a UDP client, and a function with which its peer sends packets."""
    with udp.opened(host, retry_interval=3600) as (client, peer):
        yield client, lambda *packets: [peer.send(packet.encode()) for packet in packets]


KINDS: dict[str, Callable[[str], contextlib.AbstractContextManager[Opened]]] = {
    "TCP": lambda host: open_tcp(StreamProtocol, host),
    "TCP-buffered": lambda host: open_tcp(BufferedStreamProtocol, host),
    "UDP": open_udp,
}


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
def host(request: pytest.FixtureRequest) -> str:
    """Return the address of the loopback interface in one of the families."""
    return str(request.param)


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, host: str) -> Iterator[Opened]:
    """Yield a connected client of some kind, and a function with which its peer sends."""
    with KINDS[request.param](host) as client_and_send:
        yield client_and_send


@pytest.mark.parametrize("client_class", [TCPNetworkClient, UDPNetworkClient])
@pytest.mark.parametrize("address", [None, "localhost:80", ("localhost",), ("localhost", "80"), 3])
def test_wrong_address(client_class: Any, address: Any) -> None:
    """An argument that is neither an address nor a socket is refused; a note says why."""
    is_tcp = client_class is TCPNetworkClient
    protocol = StreamProtocol(StringLineSerializer()) if is_tcp else udp.TEXT
    with pytest.raises(TypeError, match=r"^Invalid arguments\n") as caught:
        client_class(address, protocol)
    expected = f"Expected an address, (host, port), or a connected socket; got {address!r}"
    assert caught.value.__notes__ == [expected]


def test_slots(opened: Opened) -> None:
    """A client has no `__dict__`, and can be weakly referenced."""
    client, _ = opened
    assert not hasattr(client, "__dict__")
    assert weakref.ref(client)() is client


def test_iterate_for_a_time(opened: Opened) -> None:
    """With a timeout, the iterator ends when it has passed."""
    client, send = opened
    send("one", "two")
    assert list(client.iter_received_packets(timeout=SOON)) == ["one", "two"]


def test_several_receivers(opened: Opened) -> None:
    """Each packet goes to one of the threads that wait."""
    client, send = opened
    receivers = [waits_for_socket(client.recv_packet)]
    receivers += [waits_for_lock(client.recv_packet) for _ in range(3)]
    send("one", "two", "three", "four")
    assert {receiver.result() for receiver in receivers} == {"one", "two", "three", "four"}


def test_close_wakes_up_receivers(opened: Opened) -> None:
    """Each thread that waits for a packet, or for another thread, is told at once."""
    client, _ = opened
    receivers = [waits_for_socket(client.recv_packet)]
    receivers += [waits_for_lock(client.recv_packet) for _ in range(3)]
    client.close()
    assert client.is_closed()
    for receiver in receivers:
        with pytest.raises(ClientClosedError, match=r"^Closed client$"):
            receiver.result()
    assert client.socket.fileno() == -1


def test_close_ends_iteration(opened: Opened) -> None:
    """A loop over packets in another thread ends without an error."""
    client, send = opened
    received: list[str] = []

    def receive() -> None:
        for packet in client.iter_received_packets(timeout=None):
            received.append(packet)

    receiver = InThread(receive)
    send("one", "two")
    wait_until(lambda: received == ["one", "two"])
    receiver.waits_in("select")
    client.close()
    receiver.result()
    assert received == ["one", "two"]
