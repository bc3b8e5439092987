"""What all asynchronous clients promise alike, whatever transports their packets."""

from __future__ import annotations

import contextlib
import errno
import math
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.backends import new_builtin_backend
from easynetwork.exceptions import ClientClosedError
from tests.clients.async_kinds import ASYNC_KINDS, AsyncKind
from tests.clients.async_tcp_support import Outcomes
from tests.clients.families import IP
from tests.times import PATIENCE, SOON

pytestmark = pytest.mark.anyio

CLOSED = "^Client is closing, or is already closed$"

OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "wait_connected": lambda client: client.wait_connected(),
    "send_packet": lambda client: client.send_packet("packet"),
    "recv_packet": lambda client: client.recv_packet(),
    "async with": lambda client: client.__aenter__(),
}


@pytest.fixture(params=ASYNC_KINDS)
def kind(request: pytest.FixtureRequest) -> AsyncKind:
    """Return a kind of client."""
    return ASYNC_KINDS[request.param]


@pytest.fixture(params=[name for name, kind in ASYNC_KINDS.items() if isinstance(kind.family, IP)])
def ip_kind(request: pytest.FixtureRequest) -> AsyncKind:
    """Return a kind of client over IP.

    The address of a Unix socket has no host and no port: any text is a path. The tests of one kind
    say which paths are refused.
    """
    return ASYNC_KINDS[request.param]


@pytest.fixture(params=[name for name, kind in ASYNC_KINDS.items() if kind.takes_sockets])
def socket_kind(request: pytest.FixtureRequest) -> AsyncKind:
    """Return a kind of client that takes sockets. Those in memory connect by themselves."""
    return ASYNC_KINDS[request.param]


# -- Arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", ("127.0.0.1",), ("127.0.0.1", "80"), (b"127.0.0.1", 80), (1, 2, 3), None, 3],
    ids=repr,
)
def test_neither_address_nor_socket(ip_kind: AsyncKind, address: Any) -> None:
    """The first argument is a host and a port, or a socket."""
    with pytest.raises(TypeError, match="^Invalid arguments\n"):
        ip_kind.new(address, "asyncio")


@pytest.mark.parametrize("port", [-1, 65536, 70_000])
def test_port_out_of_range(ip_kind: AsyncKind, port: int) -> None:
    """A port that does not exist is an error."""
    with pytest.raises(ValueError, match=f"^port must be between 0 and 65535, got {port}$"):
        ip_kind.new(("127.0.0.1", port), "asyncio")


def test_options_of_an_address_with_a_socket(socket_kind: AsyncKind) -> None:
    """An option that tells how to connect does not go with a socket, which is closed."""
    for name, value in socket_kind.options_of_addresses.items():
        with socket_kind.listening() as listener, socket_kind.connected_socket(listener) as sock:
            with pytest.raises(TypeError, match="^Invalid arguments\n"):
                socket_kind.new(sock, "asyncio", **{name: value})
            assert sock.fileno() == -1


def test_socket_of_another_family(socket_kind: AsyncKind) -> None:
    """A socket of a family that the client is not for is refused and closed."""
    left, right = socket_kind.family.strangers(socket_kind.socket_type)
    message = f"^Only these families are supported: {socket_kind.family.names}$"
    with left, right:
        with pytest.raises(ValueError, match=message):
            socket_kind.new(left, "asyncio")
        assert left.fileno() == -1


def test_no_tls_socket(socket_kind: AsyncKind) -> None:
    """A socket that encrypts is refused and closed."""
    context = ssl.create_default_context()
    with contextlib.ExitStack() as stack:
        plain, other = socket_kind.family.streams()
        stack.enter_context(other)
        sock = stack.enter_context(
            context.wrap_socket(plain, do_handshake_on_connect=False, server_hostname="localhost")
        )
        with pytest.raises(TypeError, match="^ssl.SSLSocket instances are forbidden$"):
            socket_kind.new(sock, "asyncio")
        assert sock.fileno() == -1


def test_no_unconnected_socket(socket_kind: AsyncKind) -> None:
    """A socket that is not connected is refused and closed, even if it has an address."""
    with socket_kind.listening() as listener:
        with pytest.raises(OSError, match="not connected") as caught:
            socket_kind.new(listener, "asyncio")
        assert caught.value.errno == errno.ENOTCONN
        assert listener.fileno() == -1


async def test_backend(kind: AsyncKind, anyio_backend: Any) -> None:
    """By default the backend is the framework that is running; a given one is used as it is."""
    name = "trio" if anyio_backend[0] == "trio" else "asyncio"
    assert kind.new(kind.family.nowhere).backend().name == name
    backend = new_builtin_backend(name)
    assert kind.new(kind.family.nowhere, backend).backend() is backend


# -- States ------------------------------------------------------------------------------------


async def test_new(kind: AsyncKind) -> None:
    """Before it is connected, a client has neither a socket nor addresses."""
    client = kind.new(kind.family.nowhere)
    assert not client.is_connected()
    assert not client.is_closing()
    assert repr(client) == f"<{kind.client_class.__name__} (partially initialized)>"
    with pytest.raises(AttributeError, match="^Socket not connected$"):
        _ = client.socket
    for getter in kind.family.getters:
        with pytest.raises(OSError, match="not connected") as caught:
            getattr(client, getter)()
        assert caught.value.errno == errno.ENOTCONN
        assert not isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_closed(kind: AsyncKind, name: str) -> None:
    """Each operation that needs the connection raises that the client is closed."""
    async with kind.connected() as (client, _):
        await client.aclose()
        for _ in range(2):
            with pytest.raises(ClientClosedError, match=CLOSED):
                await OPERATIONS[name](client)


async def test_closed_state(kind: AsyncKind) -> None:
    """A closed client was connected once, keeps its name, and forgets its addresses."""
    client: Any
    async with kind.connected() as (client, _):
        name, proxy = repr(client), client.socket
        await client.aclose()
        await client.aclose()
        assert client.is_connected()
        assert client.is_closing()
        assert repr(client) == name
        assert client.socket is proxy
        assert proxy.fileno() == -1
        for getter in kind.family.getters:
            with pytest.raises(ClientClosedError, match=CLOSED):
                getattr(client, getter)()


async def test_context_manager(kind: AsyncKind) -> None:
    """`async with` connects, returns the client, and closes it, whatever is raised."""
    with kind.listening() as listener:
        client = kind.new(kind.family.address_of(listener))
        with pytest.raises(ZeroDivisionError):
            async with client as entered:
                assert entered is client
                assert client.is_connected()
                raise ZeroDivisionError
        assert client.is_closing()
        assert client.socket.fileno() == -1


async def test_wait_connected_again(kind: AsyncKind) -> None:
    """To connect a connected client does nothing."""
    client: Any
    async with kind.connected() as (client, _):
        proxy = client.socket
        await client.wait_connected()
        await client.wait_connected()
        assert client.socket is proxy


async def test_given_socket_closed_before_it_is_used(socket_kind: AsyncKind) -> None:
    """A client that never connected closes the socket that it was given."""
    with socket_kind.listening() as listener, socket_kind.connected_socket(listener) as sock:
        client = socket_kind.new(sock)
        await client.aclose()
        assert sock.fileno() == -1
        assert client.is_closing()
        assert not client.is_connected()


async def test_slots(kind: AsyncKind) -> None:
    """A client can be weakly referenced, and has no `__dict__`."""
    client = kind.new(kind.family.nowhere)
    assert weakref.ref(client)() is client
    assert not hasattr(client, "__dict__")


# -- Several tasks -----------------------------------------------------------------------------


@pytest.mark.parametrize("cancelled", range(3))
async def test_who_leaves_the_queue_takes_nothing(kind: AsyncKind, cancelled: int) -> None:
    """When a task that waits for its turn is cancelled, the others get the packets."""
    received: list[tuple[int, str]] = []
    scopes = [anyio.CancelScope() for _ in range(3)]

    async def receive(task: int) -> None:
        with scopes[task]:
            received.append((task, await client.recv_packet()))

    async with kind.connected() as (client, peer), anyio.create_task_group() as tasks:
        for task in range(3):
            tasks.start_soon(receive, task)
            await anyio.wait_all_tasks_blocked()
        scopes[cancelled].cancel()
        await anyio.wait_all_tasks_blocked()
        peer.send("a", "b")
    others = [task for task in range(3) if task != cancelled]
    assert received == list(zip(others, ["a", "b"], strict=True))


async def test_receiving_does_not_hold_up_sending(kind: AsyncKind) -> None:
    """A task may send while another one waits for a packet."""
    outcomes = Outcomes()
    async with kind.connected() as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(outcomes.of, client.recv_packet)
        await anyio.wait_all_tasks_blocked()
        await client.send_packet("question")
        assert await peer.receive() == "question"
        peer.send("answer")
    assert outcomes.all == ["answer"]


async def test_iterator_behind_another_task(kind: AsyncKind) -> None:
    """An iterator waits for its turn, but not longer than its timeout."""
    outcomes = Outcomes()
    async with kind.connected() as (client, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(outcomes.of, client.recv_packet)
        await anyio.wait_all_tasks_blocked()
        for timeout in (0, SOON):
            iterator = client.iter_received_packets(timeout=timeout)
            assert [packet async for packet in iterator] == []
        assert outcomes.all == []
        peer.send("a", "b")
        assert await anext(client.iter_received_packets(timeout=PATIENCE)) == "b"
    assert outcomes.all == ["a"]


@pytest.mark.parametrize("timeout", [-1, -0.001, -math.inf])
async def test_negative_time(kind: AsyncKind, timeout: float) -> None:
    """With a negative timeout there are no packets; the next call receives them."""
    async with kind.connected() as (client, peer):
        peer.deliver("a", "b")
        for packet in ("a", "b"):
            iterator = client.iter_received_packets(timeout=timeout)
            assert [packet async for packet in iterator] == []
            with pytest.raises(StopAsyncIteration):
                await anext(iterator)
            assert await client.recv_packet() == packet


# -- Closing -----------------------------------------------------------------------------------


async def test_close_while_receiving(kind: AsyncKind) -> None:
    """When another task closes the client, each task that waits for a packet is told."""
    outcomes = Outcomes()
    async with kind.connected() as (client, peer), anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(outcomes.of, client.recv_packet)
        await anyio.wait_all_tasks_blocked()
        # On asyncio, the loop may learn of an end of stream only after the close.
        tasks.start_soon(client.aclose)
        await anyio.lowlevel.checkpoint()
        peer.leave()
    assert outcomes.types() == [ClientClosedError] * 3
    assert {str(error) for error in outcomes.all} == {"Client is closing, or is already closed"}


async def test_close_forgets_packets(kind: AsyncKind) -> None:
    """A closed client has no more packets, even if they had arrived."""
    async with kind.connected() as (client, peer):
        peer.deliver("a", "b")
        assert await client.recv_packet() == "a"
        peer.deliver("c")
        await anyio.wait_all_tasks_blocked()  # the client has received it
        peer.leave()
        await client.aclose()
        with pytest.raises(ClientClosedError):
            await client.recv_packet()
