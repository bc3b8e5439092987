"""The asynchronous UDP endpoint: packets from and to any address."""

from __future__ import annotations

import errno
import math
import socket
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest

from easynetwork.addresses import (
    IPv4SocketAddress,
    IPv6SocketAddress,
    SocketProxy,
    new_socket_address,
)
from easynetwork.backends import ensure_backend
from easynetwork.clients import AsyncUDPNetworkEndpoint
from easynetwork.exceptions import (
    ClientClosedError,
    DatagramProtocolParseError,
    ProtocolCrashedError,
)
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from tests.clients.udp_support import NOT_A_PACKET, TEXT, bound, each_family
from tests.networks import LINK, own_network, wait_for_address
from tests.times import PATIENCE, SOON

pytestmark = pytest.mark.anyio

Endpoint: TypeAlias = AsyncUDPNetworkEndpoint[str, str]
Operation: TypeAlias = Callable[[Endpoint], Awaitable[object]]

OPERATIONS: dict[str, Operation] = {
    "aenter": lambda endpoint: endpoint.__aenter__(),
    "send": lambda endpoint: endpoint.send_packet_to("hello", ("127.0.0.1", 9)),
    "recv": lambda endpoint: endpoint.recv_packet_from(),
}

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.0.0/8 on loopback")


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
    return AsyncUDPNetworkEndpoint(TEXT, local_address=(host, 0), **options)


@pytest.fixture
async def endpoint(anyio_backend: object) -> AsyncIterator[Endpoint]:
    async with on() as endpoint:
        yield endpoint


@pytest.fixture
def peer() -> Any:
    with bound() as peer:
        yield peer


# -- packets


@each_family
async def test_any_peer(host: str) -> None:
    """Packets go to several peers and come from several peers, over one socket."""
    async with on(host) as endpoint:
        with bound(host) as one, bound(host) as other:
            for number, peer in enumerate((one, other, one)):
                await endpoint.send_packet_to(f"to {number}", peer.getsockname()[:2])
                data, sender = peer.recvfrom(100)
                assert data == f"to {number}".encode()
                assert new_socket_address(sender, peer.family) == endpoint.get_local_address()
                peer.sendto(b"from %d" % number, sender)
                packet, address = await endpoint.recv_packet_from()
                assert packet == f"from {number}"
                assert address == peer.getsockname()
                assert type(address) is type(endpoint.get_local_address())


async def test_responses(peer: socket.socket) -> None:
    """An address that was received can be answered as it is, in all its forms."""
    async with on() as endpoint, on() as other:
        await other.send_packet_to("hello", endpoint.get_local_address())
        _, address = await endpoint.recv_packet_from()
        forms: list[Any] = [address, tuple(address), address.for_connection()]
        for form in forms:
            await endpoint.send_packet_to("hello", form)
            assert await other.recv_packet_from() == ("hello", endpoint.get_local_address())


async def test_iteration(endpoint: Endpoint, peer: socket.socket) -> None:
    """`async for` yields pairs, raises what is wrong with a datagram, and ends with the socket."""
    address = endpoint.get_local_address()
    for datagram in (b"one", NOT_A_PACKET, b"two"):
        peer.sendto(datagram, address)
    received = []
    while not endpoint.is_closing():
        try:
            async for packet, sender in endpoint:
                assert sender == peer.getsockname()
                received.append(packet)
                if packet == "two":
                    await endpoint.aclose()
        except DatagramProtocolParseError:
            received.append("error")
    assert received == ["one", "error", "two"]
    assert [pair async for pair in endpoint] == []


@each_family
async def test_parse_error(host: str) -> None:
    """An error tells the sender; the next datagram is not affected."""
    async with on(host) as endpoint:
        with bound(host) as peer:
            for datagram in (NOT_A_PACKET, b"next"):
                peer.sendto(datagram, endpoint.get_local_address())
            with pytest.raises(DatagramProtocolParseError) as caught:
                await endpoint.recv_packet_from()
            assert caught.value.sender_address == peer.getsockname()
            expected = IPv6SocketAddress if ":" in host else IPv4SocketAddress
            assert type(caught.value.sender_address) is expected
            assert (await endpoint.recv_packet_from())[0] == "next"


async def test_bugs(endpoint: Endpoint, peer: socket.socket) -> None:
    """A bug of the protocol object is raised as such, and disturbs nothing else."""
    peer.sendto(b"crash", endpoint.get_local_address())
    with pytest.raises(ProtocolCrashedError):
        await endpoint.recv_packet_from()
    with pytest.raises(ProtocolCrashedError):
        await endpoint.send_packet_to("crash", peer.getsockname())
    await endpoint.send_packet_to("fine", peer.getsockname())
    assert peer.recv(100) == b"fine"


async def test_cancellation_loses_nothing(endpoint: Endpoint, peer: socket.socket) -> None:
    """A receiver that is cancelled leaves its packet, and the address, to the next one."""
    for number in range(20):
        with anyio.move_on_after(0.001 * (number % 3)):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, math.inf)
                tasks.start_soon(endpoint.recv_packet_from)
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        peer.sendto(b"%d" % number, endpoint.get_local_address())
        assert await endpoint.recv_packet_from() == (f"{number}", peer.getsockname())


async def test_receivers_take_turns(endpoint: Endpoint, peer: socket.socket) -> None:
    """Several tasks may receive: each packet goes to one, in the order in which they asked."""
    received: dict[int, str] = {}

    async def receive(number: int) -> None:
        received[number] = (await endpoint.recv_packet_from())[0]

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(receive, number)
            await anyio.wait_all_tasks_blocked()
        for number in range(3):
            peer.sendto(b"%d" % number, endpoint.get_local_address())
    assert received == {0: "0", 1: "1", 2: "2"}


async def test_nothing_is_buffered(endpoint: Endpoint, peer: socket.socket) -> None:
    """Datagrams that are not asked for wait in the kernel, which drops what is too much."""
    for _ in range(5000):
        peer.sendto(b"x" * 1000, endpoint.get_local_address())
    count = 0
    with anyio.move_on_after(SOON):
        async for _ in endpoint:
            count += 1
    assert 0 < count < 5000


async def test_no_room(peer: socket.socket) -> None:
    """Sending waits while the kernel has no room, and other senders wait for their turn."""
    sock = Narrow(socket.AF_INET, socket.SOCK_DGRAM)
    async with AsyncUDPNetworkEndpoint.from_socket(sock, TEXT) as endpoint:
        async with anyio.create_task_group() as tasks:
            for packet in ("one", "two"):
                tasks.start_soon(endpoint.send_packet_to, packet, peer.getsockname())
                while not sock.refused:
                    await anyio.lowlevel.checkpoint()
            sock.room = True
        assert [peer.recv(100), peer.recv(100)] == [b"one", b"two"]


async def test_dead_peer(endpoint: Endpoint, peer: socket.socket) -> None:
    """A peer that is gone is no error, and does not disturb others."""
    with bound() as gone:
        address = gone.getsockname()
    for _ in range(3):
        await endpoint.send_packet_to("hello", address)
    await endpoint.send_packet_to("hello", peer.getsockname())
    assert peer.recv(100) == b"hello"


async def test_too_long(endpoint: Endpoint, peer: socket.socket) -> None:
    """A packet that no datagram can hold is refused with its length."""
    with pytest.raises(OSError, match="datagram of 70000 bytes is too long") as caught:
        await endpoint.send_packet_to("x" * 70_000, peer.getsockname())
    assert caught.value.errno == errno.EMSGSIZE


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        (("localhost", 9), ValueError, "numeric host"),
        (("::1", 9), ValueError, "cannot send to"),
        (("127.0.0.1", 0), ValueError, "port 0"),
        ("127.0.0.1", TypeError, "a host and a port"),
    ],
)
async def test_no_address(
    endpoint: Endpoint, address: Any, error: type[Exception], message: str
) -> None:
    """Names, other families and other objects are refused."""
    with pytest.raises(error, match=message):
        await endpoint.send_packet_to("hello", address)


async def test_link_local() -> None:
    """Addresses that are only valid on a link have their zone, in all notations."""
    with own_network(*LINK):
        number = socket.if_nametoindex("link0")
        wait_for_address(("fe80::1", 1, 0, number))
        async with on("fe80::1%link0") as endpoint, on("::") as other:
            address = endpoint.get_local_address()
            assert address.for_connection()[0] == f"fe80::1%{number}"
            forms: list[Any] = [address, tuple(address), ("fe80::1%link0", address.port)]
            for form in forms:
                await other.send_packet_to("hello", form)
                packet, sender = await endpoint.recv_packet_from()
                assert packet == "hello"
                assert isinstance(sender, IPv6SocketAddress)
                assert sender.scope_id == number
                assert str(sender) == f"('fe80::1%{number}', {sender.port})"
                await endpoint.send_packet_to("hello", sender.for_connection())
                assert await other.recv_packet_from() == ("hello", address)


# -- broadcast and multicast


@linux_only
async def test_broadcast() -> None:
    """With `broadcast`, packets reach all sockets on the port; without, it is not permitted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        port = sock.getsockname()[1]
    async with (
        AsyncUDPNetworkEndpoint(TEXT, local_address=("", port), reuse_address=True) as one,
        AsyncUDPNetworkEndpoint(TEXT, local_address=("", port), reuse_address=True) as other,
        on(broadcast=True) as sender,
    ):
        await sender.send_packet_to("hello", ("127.255.255.255", port))
        for endpoint in (one, other):
            assert await endpoint.recv_packet_from() == ("hello", sender.get_local_address())
    async with on() as sender:
        with pytest.raises(PermissionError):
            await sender.send_packet_to("hello", ("127.255.255.255", port))


@linux_only
async def test_multicast() -> None:
    """A group is joined by a socket option, and receives what is sent to it."""
    interface = socket.inet_aton("127.0.0.1")
    async with AsyncUDPNetworkEndpoint(TEXT, backend=None) as member, on() as sender:
        membership = socket.inet_aton("239.255.0.1") + interface
        member.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        sender.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
        port = member.get_local_address().port
        await sender.send_packet_to("hello", ("239.255.0.1", port))
        assert await member.recv_packet_from() == ("hello", sender.get_local_address())


# -- the socket


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_bound_when_needed(operation: str) -> None:
    """The socket is bound by the first operation that needs it, and not before."""
    endpoint = on()
    assert "partially initialized" in repr(endpoint)
    with pytest.raises(OSError, match="not connected"):
        endpoint.get_local_address()
    with pytest.raises(AttributeError):
        _ = endpoint.socket
    with anyio.move_on_after(SOON if operation == "recv" else PATIENCE):
        await OPERATIONS[operation](endpoint)
    address = endpoint.get_local_address()
    assert address.host == "127.0.0.1"
    assert address.port
    assert str(address.port) in repr(endpoint)
    assert isinstance(endpoint.socket, SocketProxy)
    assert endpoint.socket is endpoint.socket
    assert type(endpoint.backend()) is type(ensure_backend(None))
    await endpoint.aclose()


@pytest.mark.parametrize(
    ("local_address", "host"),
    [
        (None, "0.0.0.0"),
        (("", 0), "0.0.0.0"),
        (("::", 0), "::"),
        (("::1", 0, 0, 0), "::1"),
        (("localhost", 0), None),
    ],
)
async def test_local_address(local_address: Any, host: str | None) -> None:
    """The local address decides the family; all IPv4 interfaces by default."""
    endpoint: Endpoint = AsyncUDPNetworkEndpoint(TEXT, local_address=local_address)
    async with endpoint:
        assert endpoint.get_local_address().host in ([host] if host else ["127.0.0.1", "::1"])


async def test_address_in_use(endpoint: Endpoint) -> None:
    """An address that cannot be bound is named; the endpoint can be tried again, and closed."""
    address = endpoint.get_local_address()
    other: Endpoint = AsyncUDPNetworkEndpoint(TEXT, local_address=address.for_connection())
    for _ in range(2):
        with pytest.raises(OSError, match=str(address.port)) as caught:
            await other.recv_packet_from()
        assert caught.value.errno == errno.EADDRINUSE
    await endpoint.aclose()
    async with other:
        assert other.get_local_address() == address


async def test_unknown_host() -> None:
    """A name that nothing knows is an error when the socket is bound."""
    endpoint: Endpoint = AsyncUDPNetworkEndpoint(TEXT, local_address=("nowhere.invalid", 0))
    with pytest.raises(socket.gaierror, match=r"nowhere\.invalid"):
        await endpoint.__aenter__()
    await endpoint.aclose()


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="needs SO_REUSEPORT")
async def test_options() -> None:
    """Each option of the constructor is one of the socket."""
    names = ("reuse_address", "reuse_port", "broadcast")
    options = (socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_BROADCAST)
    for chosen in (*names, None):
        chosen_options: dict[str, Any] = {chosen: True} if chosen else {}
        async with on(**chosen_options) as endpoint:
            for name, option in zip(names, options, strict=True):
                value = endpoint.socket.getsockopt(socket.SOL_SOCKET, option)
                assert bool(value) == (name == chosen)


async def test_no_reuse_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform without the option says so at once."""
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    with pytest.raises(ValueError, match="reuse_port not supported"):
        on(reuse_port=True)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"local_address": ("127.0.0.1", 65_536)}, ValueError),
        ({"local_address": "127.0.0.1"}, TypeError),
        ({"protocol": StringLineSerializer()}, TypeError),
        ({"backend": "nothing"}, NotImplementedError),
    ],
)
async def test_wrong_arguments(options: dict[str, Any], error: type[Exception]) -> None:
    """Arguments are checked at once."""
    with pytest.raises(error):
        AsyncUDPNetworkEndpoint(**{"protocol": TEXT, **options})


# -- sockets of the caller


@each_family
@pytest.mark.parametrize("is_bound", [True, False])
async def test_from_socket(host: str, is_bound: bool) -> None:
    """A socket belongs to the endpoint, and is bound if it was not."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    if is_bound:
        sock.bind((host, 0))
    endpoint: Endpoint = AsyncUDPNetworkEndpoint.from_socket(sock, TEXT)
    with bound(host) as peer:
        peer.sendto(b"early", (host, sock.getsockname()[1]))  # waits in the kernel
        async with endpoint:
            assert endpoint.socket.fileno() == sock.fileno()
            assert await endpoint.recv_packet_from() == ("early", peer.getsockname())
    assert sock.fileno() == -1


async def test_unused_socket() -> None:
    """A socket is closed with an endpoint that was never used."""
    sock = bound()
    endpoint: Endpoint = AsyncUDPNetworkEndpoint.from_socket(sock, TEXT)
    await endpoint.aclose()
    assert sock.fileno() == -1
    with pytest.raises(ClientClosedError):
        await endpoint.recv_packet_from()


async def test_socket_with_ancillary_data(peer: socket.socket) -> None:
    """A socket whose destinations are asked for is an endpoint like any other (Linux)."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    sock.bind(("0.0.0.0", 0))
    async with AsyncUDPNetworkEndpoint.from_socket(sock, TEXT) as endpoint:
        peer.sendto(b"hello", ("127.0.0.1", endpoint.get_local_address().port))
        packet, address = await endpoint.recv_packet_from()
        assert (packet, address) == ("hello", peer.getsockname())
        await endpoint.send_packet_to("hello", address)
        assert peer.recv(100) == b"hello"


def wrong_sockets() -> dict[str, tuple[Callable[[], Any], type[Exception]]]:
    def connected() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", 9))
        return sock

    def closed() -> socket.socket:
        sock = bound()
        sock.close()
        return sock

    return {
        "connected": (connected, ValueError),
        "stream": (lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM), ValueError),
        "closed": (closed, OSError),
        "none": (lambda: None, TypeError),
        **(
            {"unix": (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), ValueError)}
            if hasattr(socket, "AF_UNIX")
            else {}
        ),
    }


@pytest.mark.parametrize("name", wrong_sockets())
async def test_wrong_socket(name: str) -> None:
    """Only UDP sockets without a peer are taken; others are closed."""
    new_socket, error = wrong_sockets()[name]
    sock = new_socket()
    with pytest.raises(error):
        AsyncUDPNetworkEndpoint.from_socket(sock, TEXT)
    assert sock is None or sock.fileno() == -1


async def test_wrong_arguments_with_a_socket() -> None:
    """The socket is closed, too, if something else is wrong."""
    sock = bound()
    with pytest.raises(TypeError):
        AsyncUDPNetworkEndpoint.from_socket(sock, StringLineSerializer())  # type: ignore[arg-type]
    assert sock.fileno() == -1


# -- closing


async def test_close_wakes_receivers(endpoint: Endpoint) -> None:
    """Closing tells tasks that receive, and ends iterations."""
    ended: list[str] = []

    async def receive() -> None:
        with pytest.raises(ClientClosedError):
            await endpoint.recv_packet_from()
        ended.append("receive")

    async def iterate() -> None:
        async for _ in endpoint:
            pass
        ended.append("iterate")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        tasks.start_soon(iterate)
        await anyio.wait_all_tasks_blocked()
        await endpoint.aclose()
    assert sorted(ended) == ["iterate", "receive"]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_closed(endpoint: Endpoint, operation: str) -> None:
    """After it was closed, nothing can be done with it, but to close it again."""
    assert not endpoint.is_closing()
    for _ in range(2):
        await endpoint.aclose()
        assert endpoint.is_closing()
    with pytest.raises(ClientClosedError):
        await OPERATIONS[operation](endpoint)
    with pytest.raises(ClientClosedError):
        endpoint.get_local_address()


async def test_object(endpoint: Endpoint) -> None:
    """It can be referred to weakly, and has no attributes but its own."""
    assert weakref.ref(endpoint)() is endpoint
    assert not hasattr(endpoint, "__dict__")


async def test_subclass_of_no_client() -> None:
    """It has no peer, so it has none of the methods that need one."""
    for name in ("send_packet", "recv_packet", "get_remote_address", "iter_received_packets"):
        assert not hasattr(AsyncUDPNetworkEndpoint, name)


def test_types() -> None:
    """The types of packets are those of the protocol object."""
    protocol: DatagramProtocol[str, str] = TEXT
    endpoint = AsyncUDPNetworkEndpoint(protocol, backend="asyncio")
    assert isinstance(endpoint, AsyncUDPNetworkEndpoint)
