"""The asynchronous UDP client as an object: how it is made, how it connects, its states."""

from __future__ import annotations

import errno
import gc
import itertools
import socket
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.addresses import IPv4SocketAddress, IPv6SocketAddress, SocketProxy
from easynetwork.clients.async_udp import AsyncUDPNetworkClient
from easynetwork.exceptions import ClientClosedError
from tests.clients.async_tcp_support import Outcomes
from tests.clients.udp_support import (
    TEXT,
    AsyncClient,
    address_of,
    bound,
    connected,
    connected_to,
    each_family,
    resolving_to,
)
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

OPERATIONS: dict[str, Callable[[AsyncClient], Any]] = {
    "wait_connected": lambda client: client.wait_connected(),
    "send_packet": lambda client: client.send_packet("packet"),
    "recv_packet": lambda client: client.recv_packet(),
    "async with": lambda client: client.__aenter__(),
}
each_operation = pytest.mark.parametrize("name", OPERATIONS)

CLOSED = "^Client is closing, or is already closed$"


@pytest.fixture(params=["address", "socket"])
def new_client(request: pytest.FixtureRequest) -> Callable[[socket.socket], AsyncClient]:
    """Return a function that makes a client of a peer."""

    def make(peer: socket.socket) -> AsyncClient:
        match request.param:
            case "address":
                return AsyncUDPNetworkClient(address_of(peer), TEXT)
            case _:
                return AsyncUDPNetworkClient(connected_to(peer), TEXT)

    return make


def is_new(client: AsyncClient) -> bool:
    """Whether a client is as if nobody had tried to connect it."""
    return not client.is_connected() and not client.is_closing()


async def let_run(turns: int) -> None:
    """Let other tasks take some steps."""
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()


# -- Constructors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"protocol": "json"}, TypeError, "Expected a DatagramProtocol object, got 'json'"),
        ({"backend": 3}, TypeError, "Expected either a string literal or a backend instance"),
        ({"backend": "curio"}, NotImplementedError, "'curio' is not a known backend"),
        ({"backend": None}, anyio.NoEventLoopError, "async"),
        ({"family": socket.AF_UNIX}, ValueError, "Only these families are supported: AF_INET, AF_"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("target", ["address", "socket"])
def test_arguments(
    target: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What cannot be used is refused at once; a socket is closed then."""
    with bound() as peer, connected_to(peer) as sock:
        arguments = {"protocol": TEXT, "backend": "asyncio", **options}
        with pytest.raises(error, match=message):
            AsyncUDPNetworkClient(sock if target == "socket" else ("host", 1), **arguments)
        assert (sock.fileno() == -1) is (target == "socket")


def test_no_stream_socket() -> None:
    """Only a datagram socket will do; another one is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as sock:
            with pytest.raises(ValueError, match="^Only this type of socket is supported: SOCK_DG"):
                AsyncUDPNetworkClient(sock, TEXT, "asyncio")
            assert sock.fileno() == -1


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_made_outside_an_event_loop(name: Any) -> None:
    """With a backend, a client can be made before any event loop runs, without any I/O."""

    async def talk(peer: socket.socket) -> str:
        with anyio.fail_after(PATIENCE):
            async with client:
                await client.send_packet("question")
                question, address = peer.recvfrom(100)
                peer.sendto(question + b"!", address)
                return await client.recv_packet()

    with bound() as peer:
        client: AsyncClient = AsyncUDPNetworkClient(address_of(peer), TEXT, name)
        assert client.backend().name == name
        assert client.backend().bootstrap(talk, peer) == "question!"


# -- States ------------------------------------------------------------------------------------


@each_family
async def test_connected(host: str) -> None:
    """A connected client knows both ends, and shows its socket; its peer has not heard of it."""
    async with connected(host) as (client, peer):
        new_address = IPv6SocketAddress if ":" in host else IPv4SocketAddress
        assert client.is_connected()
        assert not client.is_closing()
        assert client.get_local_address() == new_address(*peer.getpeername())
        assert client.get_local_address().port > 0
        assert client.get_remote_address() == new_address(*peer.getsockname())
        assert repr(client) == f"<AsyncUDPNetworkClient endpoint={client.get_remote_address()}>"
        assert isinstance(client.socket, SocketProxy)
        assert client.socket is client.socket
        assert client.socket.getpeername() == peer.getsockname()
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)


async def test_sending_connects() -> None:
    """Who sends need not connect before."""
    with bound() as peer:
        client = AsyncUDPNetworkClient(address_of(peer), TEXT)
        await client.send_packet("hello")
        assert client.is_connected()
        assert peer.recvfrom(100) == (b"hello", client.get_local_address())
        await client.aclose()


@pytest.mark.parametrize("operation", ["receive", "iterate"])
async def test_receiving_connects(operation: str) -> None:
    """Who receives need not connect before."""
    outcomes = Outcomes()
    with anyio.fail_after(PATIENCE), bound() as peer:
        client = AsyncUDPNetworkClient(address_of(peer), TEXT)
        iterator = client.iter_received_packets(timeout=None)
        async with anyio.create_task_group() as tasks:
            receive = client.recv_packet if operation == "receive" else iterator.__anext__
            tasks.start_soon(outcomes.of, receive)
            await anyio.wait_all_tasks_blocked()
            assert client.is_connected()
            peer.sendto(b"hello", client.get_local_address())
        await client.aclose()
    assert outcomes.all == ["hello"]


# -- A socket that was given -------------------------------------------------------------------


@each_family
@pytest.mark.parametrize("timeout", [None, 0.0, 5.0])
async def test_given_socket(host: str, timeout: float | None) -> None:
    """A client takes over a connected socket, in whatever mode it is, and what it has received."""
    with anyio.fail_after(PATIENCE), bound(host) as peer:
        sock = connected_to(peer)
        sock.settimeout(timeout)
        peer.connect(sock.getsockname())
        peer.send(b"early")
        client: AsyncClient = AsyncUDPNetworkClient(sock, TEXT)
        assert is_new(client)
        async with client:
            assert client.get_local_address() == peer.getpeername()
            assert await client.recv_packet() == "early"
            await client.send_packet("hello")
            assert peer.recv(100) == b"hello"
            assert [packet async for packet in client.iter_received_packets()] == []
        assert sock.fileno() == -1


# -- Connecting --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_family(monkeypatch: pytest.MonkeyPatch, family: int) -> None:
    """Of a host that has addresses of both families, the right one is used."""
    resolving_to(monkeypatch, ("127.0.0.1", 9), ("::1", 9), ("127.0.0.1", 9))
    async with AsyncUDPNetworkClient(("several", 80), TEXT, family=family) as client:
        assert client.socket.family == family


@each_family
async def test_local_address(host: str) -> None:
    """The client sends from the address that it was told."""
    with bound(host) as free:
        address = address_of(free)
    with bound(host) as peer:
        async with AsyncUDPNetworkClient(address_of(peer), TEXT, local_address=address) as client:
            await client.send_packet("hello")
            assert peer.recvfrom(10)[1][:2] == address


@each_operation
async def test_try_again_after_a_failure(name: str) -> None:
    """A client that failed to connect is as new, says why, and can try again."""
    with anyio.fail_after(PATIENCE), bound() as peer, bound() as other:
        address, local = address_of(peer), address_of(other)
        client = AsyncUDPNetworkClient(address, TEXT, local_address=local)
        for _ in range(2):
            with pytest.raises(OSError, match="cannot connect to '127.0.0.1', port ") as caught:
                await OPERATIONS[name](client)
            assert caught.value.errno == errno.EADDRINUSE
            assert isinstance(caught.value.__cause__, ExceptionGroup)
            assert caught.value.__cause__.message == "Could not create the UDP socket"
            assert is_new(client)
        assert [packet async for packet in client.iter_received_packets(timeout=None)] == []
        other.close()
        async with client:
            assert client.get_local_address() == local


async def test_forbidden() -> None:
    """If the system refuses to connect, so does the client, with an error of that class."""
    client = AsyncUDPNetworkClient(("255.255.255.255", 9), TEXT)
    with pytest.raises(PermissionError, match="cannot connect to '255.255.255.255', port 9: "):
        await client.wait_connected()
    assert is_new(client)


@each_operation
async def test_unknown_host(name: str) -> None:
    """A name that nobody knows is the resolver's error, which names it."""
    client = AsyncUDPNetworkClient(("nowhere.invalid", 80), TEXT)
    with anyio.fail_after(PATIENCE), pytest.raises(socket.gaierror, match="'nowhere.invalid'"):
        await OPERATIONS[name](client)
    assert is_new(client)


async def test_one_attempt(new_client: Callable[[socket.socket], AsyncClient]) -> None:
    """Whatever needs the socket at the same time waits for the same attempt."""
    outcomes = Outcomes()
    with anyio.fail_after(PATIENCE), bound() as peer:
        async with new_client(peer) as client, anyio.create_task_group() as tasks:
            for name in ("wait_connected", "wait_connected", "send_packet", "recv_packet"):
                tasks.start_soon(outcomes.of, lambda name=name: OPERATIONS[name](client))
            await anyio.wait_all_tasks_blocked()
            packet, address = peer.recvfrom(100)
            peer.sendto(packet, address)
        assert sorted(outcomes.all, key=str) == [None, None, None, "packet"]


async def test_close_before_connecting(
    new_client: Callable[[socket.socket], AsyncClient],
) -> None:
    """A client that was closed before it was connected never will be."""
    with bound() as peer:
        client = new_client(peer)
        await client.aclose()
        await client.aclose()
        for name in OPERATIONS:
            with pytest.raises(ClientClosedError, match=CLOSED):
                await OPERATIONS[name](client)
        assert client.is_closing()
        assert not client.is_connected()


async def test_close_at_any_moment(new_client: Callable[[socket.socket], AsyncClient]) -> None:
    """However far the attempt has come, closing leaves no socket open."""
    is_in_time = False
    with anyio.fail_after(PATIENCE), bound() as peer:
        for turns in itertools.count():
            client = new_client(peer)
            outcomes = Outcomes()
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(outcomes.of, client.wait_connected)
                await let_run(turns)
                await client.aclose()
            is_in_time = outcomes.all == [None, None]
            for each in outcomes.all:
                assert each is None or type(each) is ClientClosedError
            if client.is_connected():
                assert client.socket.fileno() == -1
            if is_in_time:
                break


async def test_cancel_at_any_moment(new_client: Callable[[socket.socket], AsyncClient]) -> None:
    """However far the attempt has come, after a cancellation it can be tried again."""
    is_in_time = False
    with anyio.fail_after(PATIENCE), bound() as peer:
        for turns in itertools.count():
            client = new_client(peer)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.wait_connected)
                await let_run(turns)
                is_in_time = client.is_connected()
                tasks.cancel_scope.cancel()
            assert not client.is_closing()
            await client.send_packet("packet")
            assert peer.recv(100) == b"packet"
            await client.aclose()
            if is_in_time:
                break


# -- An object among others --------------------------------------------------------------------


async def test_forgotten() -> None:
    """A client that is open when it is thrown away says so."""
    with anyio.fail_after(PATIENCE), bound() as peer:
        with warnings.catch_warnings(record=True, action="always") as caught:
            client = AsyncUDPNetworkClient(address_of(peer), TEXT)
            await client.wait_connected()
            name = repr(client)
            await anyio.wait_all_tasks_blocked()  # nobody remembers how it connected
            del client
            gc.collect()
            messages = [str(warning.message) for warning in caught]
            caught.clear()  # a warning holds on to what it warns of
            gc.collect()
        assert messages[0] == f"unclosed client {name} (and cannot be closed synchronously)"


@pytest.mark.parametrize("state", ["new", "connected", "refused"])
async def test_not_forgotten(state: str) -> None:
    """A client that has nothing to close can be thrown away."""
    if state == "refused":
        with pytest.raises(TypeError):
            AsyncUDPNetworkClient(("host", 1), None)  # type: ignore[arg-type]  # a mistake
    else:
        with bound() as peer:
            client = AsyncUDPNetworkClient(address_of(peer), TEXT)
            if state == "connected":
                await client.wait_connected()
                await client.aclose()
            del client
    gc.collect()  # a warning would be an error
