"""The asynchronous TCP client as an object: how it is made, its states, what it tells of itself."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from easynetwork.addresses import IPv4SocketAddress, IPv6SocketAddress, SocketProxy
from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
from easynetwork.servers import AsyncTCPNetworkServer
from tests.clients.async_tcp_support import (
    LINES,
    Accepted,
    Client,
    address_of,
    connected,
    each_family,
    each_protocol,
    listening,
    until,
)
from tests.conformance.support import Echo, serving
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

OPERATIONS: dict[str, Callable[[Client], Any]] = {
    "wait_connected": lambda client: client.wait_connected(),
    "send_packet": lambda client: client.send_packet("packet"),
    "recv_packet": lambda client: client.recv_packet(),
    "async with": lambda client: client.__aenter__(),
}


# -- Constructors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"protocol": "json"}, TypeError, "Expected a StreamProtocol or a BufferedStreamProt"),
        ({"backend": 3}, TypeError, "Expected either a string literal or a backend instance"),
        ({"backend": "curio"}, NotImplementedError, "'curio' is not a known backend"),
        ({"backend": None}, anyio.NoEventLoopError, "async"),
        ({"max_recv_size": 0}, ValueError, "'max_recv_size' must be a strictly positive integer"),
        ({"max_recv_size": -1}, ValueError, "'max_recv_size' must be a strictly positive integer"),
        ({"max_recv_size": 1.5}, ValueError, "'max_recv_size' must be a strictly positive integer"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("target", ["address", "socket"])
def test_arguments(
    target: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What cannot be used is refused at once; a socket is closed then."""
    with listening() as listener, socket.create_connection(listener.getsockname()) as sock:
        arguments = {"protocol": LINES, "backend": "asyncio", **options}
        with pytest.raises(error, match=message):
            AsyncTCPNetworkClient(sock if target == "socket" else ("host", 1), **arguments)
        assert (sock.fileno() == -1) is (target == "socket")


@pytest.mark.parametrize("delay", [-1.0, float("nan")])
def test_happy_eyeballs_delay(delay: float) -> None:
    """The time until the next attempt is a time."""
    with pytest.raises(ValueError, match="Invalid delay"):
        AsyncTCPNetworkClient(("host", 1), LINES, "asyncio", happy_eyeballs_delay=delay)


def test_no_datagram_socket() -> None:
    """Only a stream socket will do; another one is closed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 9))
        with pytest.raises(ValueError, match="Only this type of socket is supported: SOCK_STREAM"):
            AsyncTCPNetworkClient(sock, LINES, "asyncio")
        assert sock.fileno() == -1


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_made_outside_an_event_loop(name: Any) -> None:
    """With a backend, a client can be made before any event loop runs, without any I/O."""

    async def talk(peer: Callable[[], Accepted]) -> str:
        with anyio.fail_after(PATIENCE):
            async with client:
                with contextlib.closing(peer()) as accepted:
                    await client.send_packet("question")
                    accepted.send(await accepted.receive() + "!")
                    return await client.recv_packet()

    with listening() as listener:
        client: Client = AsyncTCPNetworkClient(address_of(listener), LINES, name)
        assert client.backend().name == name
        assert client.backend().bootstrap(talk, lambda: Accepted(listener)) == "question!"


# -- States ------------------------------------------------------------------------------------


@each_family
async def test_connected(host: str) -> None:
    """A connected client knows both ends, and shows its socket, the same object each time."""
    async with connected(host=host) as (client, peer):
        new_address = IPv6SocketAddress if ":" in host else IPv4SocketAddress
        assert client.is_connected()
        assert not client.is_closing()
        assert client.get_local_address() == new_address(*peer.address)
        assert client.get_remote_address() == new_address(*peer.socket.getsockname())
        assert repr(client) == f"<AsyncTCPNetworkClient endpoint={client.get_remote_address()}>"
        assert isinstance(client.socket, SocketProxy)
        assert client.socket is client.socket
        assert client.socket.getpeername() == peer.socket.getsockname()


async def test_socket_options() -> None:
    """Small packets leave at once, and an idle connection is probed."""
    async with connected() as (client, _):
        assert client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_broken_state() -> None:
    """A client that lost its connection is not closed: it is still connected, to that address."""
    async with connected() as (client, peer):
        addresses = client.get_local_address(), client.get_remote_address()
        peer.reset()
        with pytest.raises(ConnectionAbortedError):
            await client.recv_packet()
        assert client.is_connected()
        assert not client.is_closing()
        assert (client.get_local_address(), client.get_remote_address()) == addresses


@pytest.mark.parametrize("operation", ["send_packet", "recv_packet", "send_eof", "iterate"])
async def test_connects_by_itself(operation: str) -> None:
    """Whoever needs the connection makes it."""

    async def use(client: Client) -> Any:
        match operation:
            case "send_packet":
                await client.send_packet("packet")
            case "recv_packet":
                return await client.recv_packet()
            case "send_eof":
                await client.send_eof()
            case "iterate":
                return [packet async for packet in client.iter_received_packets(timeout=None)]

    results: list[Any] = []

    async def run(client: Client) -> None:
        results.append(await use(client))

    with anyio.fail_after(PATIENCE), listening() as listener:
        async with AsyncTCPNetworkClient(address_of(listener), LINES) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run, client)
                with contextlib.closing(await anyio.to_thread.run_sync(Accepted, listener)) as peer:
                    peer.send("packet")
                    peer.send_eof()
            assert client.is_connected()
    expected = {"recv_packet": "packet", "iterate": ["packet"]}.get(operation)
    assert results == [expected]


# -- A socket that was given -------------------------------------------------------------------


@each_family
@pytest.mark.parametrize("timeout", [None, 0.0, 5.0])
async def test_given_socket(host: str, timeout: float | None) -> None:
    """A client takes over a connected socket, in whatever mode it is."""
    with anyio.fail_after(PATIENCE), listening(host) as listener:
        sock = socket.create_connection(address_of(listener))
        sock.settimeout(timeout)
        name = sock.getsockname()
        client: Client = AsyncTCPNetworkClient(sock, LINES, max_recv_size=10)
        assert not client.is_connected()
        with pytest.raises(AttributeError, match="Socket not connected"):
            _ = client.socket
        with contextlib.closing(Accepted(listener)) as peer:
            async with client:
                assert client.get_local_address() == name
                assert client.socket.getsockname() == name
                assert client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                await client.send_packet("question")
                assert await peer.ask("answer") == "question"
                assert await client.recv_packet() == "answer"
            assert await peer.rest() == ("", "EOF")


async def test_given_socket_never_blocks() -> None:
    """A blocking socket does not block the event loop when its peer does not read."""
    with anyio.fail_after(PATIENCE), listening() as listener:
        sock = socket.create_connection(address_of(listener))
        async with AsyncTCPNetworkClient(sock, LINES) as client:
            with contextlib.closing(Accepted(listener)) as peer:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.send_packet, "x" * 16_000_000)
                    await anyio.wait_all_tasks_blocked()
                    assert len(await peer.receive()) == 16_000_000


async def test_given_socket_lost_before_it_is_used() -> None:
    """A connection that ended before the client began to use it is an `OSError`."""
    with anyio.fail_after(PATIENCE), listening() as listener:
        with socket.create_connection(listener.getsockname()) as sock:
            client = AsyncTCPNetworkClient(sock, LINES)
            Accepted(listener).reset()
            with pytest.raises(OSError):  # noqa: PT011 - what it says is the system's affair
                while await client.recv_packet():
                    pass
            await client.aclose()
            assert sock.fileno() == -1


# -- An object among others --------------------------------------------------------------------


async def test_context_manager_ends_the_stream() -> None:
    """Leaving `async with` sends the end of the stream, whatever is raised."""
    with listening() as listener:
        with pytest.raises(ZeroDivisionError):
            async with AsyncTCPNetworkClient(address_of(listener), LINES):
                raise ZeroDivisionError
        with contextlib.closing(Accepted(listener)) as peer:
            assert await peer.rest() == ("", "EOF")


async def test_send_eof_of_a_closed_client() -> None:
    """A closed client has sent the end of its stream: to send it again does nothing."""
    async with connected() as (client, _):
        await client.aclose()
        await client.send_eof()
        assert client.is_closing()


async def test_forgotten() -> None:
    """A client that is open when it is thrown away says so."""
    messages: list[str] = []

    def collect() -> None:
        gc.collect()
        messages.extend(str(warning.message) for warning in caught)
        caught.clear()  # a warning holds on to what it warns of

    def is_closed(descriptor: int) -> bool:
        collect()
        try:
            os.fstat(descriptor)
        except OSError:
            return True
        return False

    with anyio.fail_after(PATIENCE), listening() as listener:
        with warnings.catch_warnings(record=True, action="always") as caught:
            client = AsyncTCPNetworkClient(address_of(listener), LINES)
            await client.wait_connected()
            name, descriptor = repr(client), client.socket.fileno()
            with contextlib.closing(Accepted(listener)) as peer:
                await anyio.wait_all_tasks_blocked()  # nobody remembers how it connected
                del client
                collect()
                text = f"unclosed client {name} (and cannot be closed synchronously)"
                assert messages[0] == text
                peer.reset()  # makes the event loop drop what it has of the connection
                await until(lambda: is_closed(descriptor))


@pytest.mark.parametrize("state", ["new", "connected", "lost", "refused"])
async def test_not_forgotten(state: str) -> None:
    """A client that has nothing to close can be thrown away."""
    if state == "refused":
        with pytest.raises(TypeError):
            AsyncTCPNetworkClient(("host", 1), None)  # type: ignore[arg-type]  # a mistake
    else:
        with listening() as listener:
            client = AsyncTCPNetworkClient(address_of(listener), LINES)
            if state != "new":
                await client.wait_connected()
                Accepted(listener).reset()
            if state == "lost":
                with pytest.raises(ConnectionAbortedError):
                    await client.recv_packet()
            await client.aclose()
            del client
    gc.collect()  # a warning would be an error


# -- All together ------------------------------------------------------------------------------


@each_protocol
async def test_with_a_server(protocol_class: Any) -> None:
    """Clients and servers of the library understand each other."""
    protocol = protocol_class(LINES.serializer)
    server = AsyncTCPNetworkServer("127.0.0.1", 0, protocol, Echo())
    async with serving(server):
        address = server.get_addresses()[0]
        async with AsyncTCPNetworkClient(address.for_connection(), protocol) as client:
            for packet in ("one", "two", "x" * 1_000_000):
                await client.send_packet(packet)
                assert await client.recv_packet() == packet
            await client.send_eof()
            assert [packet async for packet in client.iter_received_packets(timeout=None)] == []
