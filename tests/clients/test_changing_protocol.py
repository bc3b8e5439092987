"""Clients that go on with another protocol: `set_protocol()`, of all kinds of clients."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import chain, cycle, product
from typing import Any, TypeAlias

import anyio
import pytest

from easynetwork.clients import AsyncTCPNetworkClient, AsyncUDPNetworkClient, UDPNetworkClient
from easynetwork.exceptions import (
    BusyResourceError,
    ClientClosedError,
    StreamProtocolParseError,
    UnsupportedOperation,
)
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from tests.clients.async_tcp_support import address_of, listening
from tests.clients.changes_support import LF, Kind, read_all, read_exactly, receiving, wait_until
from tests.clients.threads_support import InThread
from tests.conformance.changes_support import RAW, SAMPLES, Number, lines
from tests.conftest import BACKENDS
from tests.decoding import GeneratorBufferedProtocol, GeneratorStreamProtocol, MakeProtocol
from tests.times import MS, PATIENCE

MOMENT = 5 * MS
CRLF: StreamProtocol[Any, Any] = StreamProtocol(lines("CRLF"))
NUMBERS: StreamProtocol[Any, Any] = StreamProtocol(Number())
Opened: TypeAlias = tuple[Any, socket.socket]

LOOPS: list[Any] = [pytest.param(None, id="blocking"), *BACKENDS]
each_generator = pytest.mark.parametrize(
    "make", [GeneratorStreamProtocol, GeneratorBufferedProtocol]
)


@pytest.fixture(params=["tcp", "unix"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LOOPS)
def kind(request: pytest.FixtureRequest, family: str) -> Kind:
    """Return a kind of client."""
    return Kind(family, request.param)


@pytest.fixture
def opened(kind: Kind) -> Iterator[Opened]:
    """Yield a client and its other end."""
    with kind.open() as client_and_peer:
        yield client_and_peer


def wait_for_bytes(client: Any, size: int) -> None:
    """Have the current protocol look at so many bytes, which are less than a packet."""
    while len(client.client._decoder) < size:
        with pytest.raises(TimeoutError):
            client.receive(timeout=MOMENT)


EACH_PAIR = [*chain.from_iterable(product(SAMPLES, SAMPLES))]


@pytest.mark.in_turn
@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("family", ["tcp"])
def test_each_pair(opened: Opened, is_cut: bool) -> None:
    """The next packet begins where the last one ends, in whatever framing, both ways."""
    client, peer = opened
    names = cycle(EACH_PAIR)
    stream = b"".join(SAMPLES[name].data for name in EACH_PAIR)

    def send() -> None:
        if not is_cut:
            return peer.sendall(stream)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for value in stream:
            peer.sendall(bytes([value]))

    sending = InThread(send)
    for name in EACH_PAIR:
        client.set_protocol(SAMPLES[next(names)].protocol)
        assert client.receive() == SAMPLES[name].packet
        client.send(SAMPLES[name].packet)
    assert read_exactly(peer, len(stream)) == stream
    sending.result()


def test_to_and_from_raw(opened: Opened) -> None:
    """Without packets, all that has arrived is one, and bytes are sent as they are."""
    client, peer = opened
    peer.sendall(b"one\nraw\n")
    assert client.receive() == "one"
    client.set_protocol(RAW)
    assert client.receive() == b"raw\n"
    client.send(bytes(range(256)))
    assert read_exactly(peer, 256) == bytes(range(256))
    client.set_protocol(CRLF)
    peer.sendall(b"two\n\r\n")
    assert client.receive() == "two\n"


def test_half_a_packet_of_a_framing(opened: Opened) -> None:
    """It is the beginning of whatever comes."""
    client, peer = opened
    peer.sendall(b"one\nhalfab")
    assert client.receive() == "one"
    wait_for_bytes(client, 6)
    client.set_protocol(NUMBERS)
    assert client.receive() == int.from_bytes(b"half", "big")
    wait_for_bytes(client, 2)
    client.set_protocol(CRLF)
    peer.sendall(b"\nc\r\n")
    assert client.receive() == "ab\nc"


@each_generator
def test_half_a_packet_of_a_generator(opened: Opened, make: MakeProtocol) -> None:
    """It cannot be had back: nothing changes."""
    client, peer = opened
    client.set_protocol(make(lines()))
    peer.sendall(b"half")
    wait_for_bytes(client, 4)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the beginning of the next packet"):
            client.set_protocol(NUMBERS)
    client.send("still a line")
    assert read_exactly(peer, 13) == b"still a line\n"
    peer.sendall(b"\0\n\0\0\0\1")
    assert client.receive() == "half\0"
    client.set_protocol(NUMBERS)
    assert client.receive() == 1


def test_overlong_packet(opened: Opened) -> None:
    """Its bytes are gone once its error is raised, and not before."""
    client, peer = opened
    client.set_protocol(StreamProtocol(lines(limit=100)))
    peer.sendall(b"one\n" + b"x" * 200)
    assert client.receive() == "one"
    client.set_protocol(LF)
    peer.sendall(b"\n" + b"y" * 200)
    assert client.receive() == "x" * 200
    client.set_protocol(StreamProtocol(lines(limit=100)))
    with pytest.raises(StreamProtocolParseError):
        client.receive()
    client.set_protocol(NUMBERS)
    peer.sendall(b"yy\n\0\0\0\1")
    assert client.receive() == 1


@pytest.mark.parametrize(
    "wrong",
    [None, "lines", StreamProtocol, StringLineSerializer(), DatagramProtocol(lines())],
    ids=lambda wrong: type(wrong).__name__,
)
@pytest.mark.parametrize("family", ["tcp"])
def test_wrong_type(opened: Opened, wrong: Any) -> None:
    """What is not a stream protocol changes nothing."""
    client, peer = opened
    with pytest.raises(TypeError):
        client.set_protocol(wrong)
    peer.sendall(b"one\n")
    assert client.receive() == "one"


def test_busy(opened: Opened) -> None:
    """While another task or thread waits for a packet, nothing changes."""
    client, peer = opened
    thread = receiving(client)
    with pytest.raises(BusyResourceError):
        client.set_protocol(NUMBERS)
    peer.sendall(b"one\n\0\0\0\1")
    assert thread.result() == "one"
    client.set_protocol(NUMBERS)
    assert client.receive() == 1


def test_closed(opened: Opened) -> None:
    """A closed client speaks no protocol any more."""
    client, _ = opened
    client.close()
    with pytest.raises(ClientClosedError):
        client.set_protocol(NUMBERS)


# -- Blocking clients --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind("tcp", None), Kind("unix", None)], ids=["tcp", "unix"])
def test_busy_sender(kind: Kind) -> None:
    """A packet of another thread that has not left yet is one of the old protocol."""
    with kind.open() as (client, peer):
        client.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        large = "x" * 700_000
        sending = InThread(client.send, large).waits_in("select")
        with pytest.raises(BusyResourceError):
            client.set_protocol(NUMBERS)
        assert read_exactly(peer, len(large) + 1) == large.encode() + b"\n"
        sending.result()
        client.set_protocol(NUMBERS)
        client.send(1)
        assert read_exactly(peer, 4) == b"\0\0\0\1"


@pytest.mark.parametrize("operation", ["set_protocol", "start_tls"])
def test_packet_given_back(operation: str) -> None:
    """A packet that an interrupted `recv_packet()` has given back is of the old protocol.

    It is the next one to be returned. Until then, nothing can change: in clear text, it would be
    taken for one that was encrypted.
    """
    with Kind("tcp", None).open() as (client, peer):
        peer.sendall(b"one\n\0\0\0\1")
        client.client._given_back.append(client.receive())
        with pytest.raises(RuntimeError, match="was interrupted"):
            if operation == "set_protocol":
                client.set_protocol(NUMBERS)
            else:
                client.start_tls(server_hostname="localhost")
        assert client.receive() == "one"
        client.set_protocol(NUMBERS)
        assert client.receive() == 1


# -- Asynchronous clients ----------------------------------------------------------------------


@pytest.mark.anyio
async def test_before_it_is_connected() -> None:
    """A client may change its protocol before it connects, and not while it does."""
    with anyio.fail_after(PATIENCE), listening() as listener:
        client: Any = AsyncTCPNetworkClient(address_of(listener), LF)
        with pytest.raises(TypeError):
            client.set_protocol(None)
        client.set_protocol(NUMBERS)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.wait_connected)
            while not client._connecting.locked():
                await anyio.lowlevel.checkpoint()
            with pytest.raises(BusyResourceError):
                client.set_protocol(LF)
        async with client:
            peer, _ = listener.accept()
            with peer:
                await client.send_packet(1)
                peer.sendall(b"\0\0\0\2")
                assert await client.recv_packet() == 2
                assert peer.recv(10) == b"\0\0\0\1"


@pytest.mark.parametrize("loop", BACKENDS)
def test_senders_that_wait(loop: Any) -> None:
    """What waits for its turn across the change is encoded by the old protocol."""
    with Kind("tcp", loop).open() as (client, peer):
        client.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        large = "x" * 700_000
        first = InThread(client.send, large)
        wait_until(lambda: client.client._transport.congested)
        threads = [first]
        for count, (packet, protocol) in enumerate([("a", CRLF), ("b", NUMBERS), (1, LF)], 1):
            threads.append(InThread(client.send, packet))
            wait_until(lambda: client.client._transport._queued == count)  # noqa: B023 - called here
            client.set_protocol(protocol)
        threads.append(InThread(client.send, "c"))
        wait_until(lambda: client.client._transport._queued == 4)
        expected = b"a\nb\r\n\0\0\0\1c\n"
        assert read_exactly(peer, len(large) + 1 + len(expected))[len(large) + 1 :] == expected
        for thread in threads:
            thread.result()
        client.close()
        assert read_all(peer) == b""


# -- Clients without a connection --------------------------------------------------------------


@pytest.mark.anyio
async def test_no_connection() -> None:
    """Datagrams have neither."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        protocol = DatagramProtocol(lines())
        async with AsyncUDPNetworkClient[str, str](sock.getsockname(), protocol) as client:
            with pytest.raises(UnsupportedOperation):
                client.set_protocol(LF)
            with pytest.raises(UnsupportedOperation):
                await client.start_tls()
        with UDPNetworkClient[str, str](sock.getsockname(), protocol) as blocking:
            with pytest.raises(UnsupportedOperation):
                blocking.set_protocol(LF)
            with pytest.raises(UnsupportedOperation):
                blocking.start_tls()
