"""The asynchronous TCP client as an object: how it is made, its states, what it tells of itself."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import ssl
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from easynetwork.addresses import IPv4SocketAddress, IPv6SocketAddress, SocketProxy
from easynetwork.backends import new_builtin_backend
from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
from easynetwork.exceptions import ClientClosedError
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
    "address",
    ["127.0.0.1", ("127.0.0.1",), ("127.0.0.1", "80"), (b"127.0.0.1", 80), (1, 2, 3), None, 3],
    ids=repr,
)
def test_neither_address_nor_socket(address: Any) -> None:
    """The first argument is a host and a port, or a socket."""
    with pytest.raises(TypeError, match="^Invalid arguments\n"):
        AsyncTCPNetworkClient(address, LINES, "asyncio")


@pytest.mark.parametrize("port", [-1, 65536, 70_000])
def test_port_out_of_range(port: int) -> None:
    """A port that does not exist is not taken for another one."""
    with pytest.raises(ValueError, match=f"^port must be between 0 and 65535, got {port}$"):
        AsyncTCPNetworkClient(("127.0.0.1", port), LINES, "asyncio")


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


@pytest.mark.parametrize("option", [{"local_address": ("", 0)}, {"happy_eyeballs_delay": 1.0}])
def test_options_of_an_address_with_a_socket(option: Any) -> None:
    """What tells how to connect does not go with a socket, which is closed."""
    with listening() as listener, socket.create_connection(listener.getsockname()) as sock:
        with pytest.raises(TypeError, match="^Invalid arguments\n"):
            AsyncTCPNetworkClient(sock, LINES, "asyncio", **option)
        assert sock.fileno() == -1


def test_no_datagram_socket() -> None:
    """Only a stream socket will do; another one is closed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 9))
        with pytest.raises(ValueError, match="Only this type of socket is supported: SOCK_STREAM"):
            AsyncTCPNetworkClient(sock, LINES, "asyncio")
        assert sock.fileno() == -1


def test_no_unix_socket() -> None:
    """Only an Internet socket will do; another one is closed."""
    left, right = socket.socketpair()
    with left, right:
        with pytest.raises(ValueError, match="^Only these families are supported: AF_INET, AF_I"):
            AsyncTCPNetworkClient(left, LINES, "asyncio")
        assert left.fileno() == -1


def test_no_tls_socket() -> None:
    """A socket that encrypts is refused, and closed."""
    context = ssl.create_default_context()
    with listening() as listener, socket.create_connection(listener.getsockname()) as sock:
        with context.wrap_socket(
            sock, do_handshake_on_connect=False, server_hostname="localhost"
        ) as tls_socket:
            with pytest.raises(TypeError, match="^ssl.SSLSocket instances are forbidden$"):
                AsyncTCPNetworkClient(tls_socket, LINES, "asyncio")
            assert tls_socket.fileno() == -1


def test_no_unconnected_socket() -> None:
    """A socket has to be connected; otherwise it is closed."""
    with socket.socket() as sock:
        with pytest.raises(OSError, match="not connected") as caught:
            AsyncTCPNetworkClient(sock, LINES, "asyncio")
        assert caught.value.errno == errno.ENOTCONN
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


async def test_backend(anyio_backend: Any) -> None:
    """By default, the backend is the framework that is running; a given one is used as it is."""
    name = "trio" if anyio_backend[0] == "trio" else "asyncio"
    assert AsyncTCPNetworkClient(("host", 1), LINES).backend().name == name
    backend = new_builtin_backend(name)
    assert AsyncTCPNetworkClient(("host", 1), LINES, backend).backend() is backend


# -- States ------------------------------------------------------------------------------------


async def test_new() -> None:
    """Before it is connected, a client has neither a socket nor addresses."""
    client = AsyncTCPNetworkClient(("host", 1), LINES)
    assert not client.is_connected()
    assert not client.is_closing()
    assert repr(client) == "<AsyncTCPNetworkClient (partially initialized)>"
    with pytest.raises(AttributeError, match="^Socket not connected$"):
        _ = client.socket
    for get in (client.get_local_address, client.get_remote_address):
        with pytest.raises(OSError, match="not connected") as caught:
            get()
        assert caught.value.errno == errno.ENOTCONN
        assert not isinstance(caught.value, ConnectionError)


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


@pytest.mark.parametrize("name", OPERATIONS)
async def test_closed(name: str) -> None:
    """Whatever needs the connection says that the client is closed."""
    async with connected() as (client, _):
        await client.aclose()
        for _ in range(2):
            with pytest.raises(ClientClosedError) as caught:
                await OPERATIONS[name](client)
            assert str(caught.value) == "Client is closing, or is already closed"


async def test_closed_state() -> None:
    """A closed client was connected once, keeps its name, and forgets its addresses."""
    async with connected() as (client, _):
        name, proxy = repr(client), client.socket
        await client.aclose()
        await client.aclose()
        assert client.is_connected()
        assert client.is_closing()
        assert repr(client) == name
        assert client.socket is proxy
        for get in (client.get_local_address, client.get_remote_address):
            with pytest.raises(ClientClosedError, match="Client is closing, or is already closed"):
                get()
        await client.send_eof()  # nothing to be done, and no error


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


async def test_context_manager() -> None:
    """`async with` connects, gives the client, and closes it, whatever is raised."""
    with listening() as listener:
        client = AsyncTCPNetworkClient(address_of(listener), LINES)
        with pytest.raises(ZeroDivisionError):
            async with client as entered:
                assert entered is client
                assert client.is_connected()
                raise ZeroDivisionError
        assert client.is_closing()
        with contextlib.closing(Accepted(listener)) as peer:
            assert await peer.rest() == ("", "EOF")


async def test_wait_connected_again() -> None:
    """To connect a connected client does nothing."""
    async with connected() as (client, _):
        proxy = client.socket
        await client.wait_connected()
        await client.wait_connected()
        assert client.socket is proxy


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


async def test_given_socket_closed_before_it_is_used() -> None:
    """A client that never connected closes the socket that it was given."""
    with listening() as listener, socket.create_connection(listener.getsockname()) as sock:
        client = AsyncTCPNetworkClient(sock, LINES)
        await client.aclose()
        assert sock.fileno() == -1
        assert client.is_closing()
        assert not client.is_connected()


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


async def test_slots() -> None:
    """A client can be weakly referenced, and has no `__dict__`."""
    client = AsyncTCPNetworkClient(("host", 1), LINES)
    assert weakref.ref(client)() is client
    assert not hasattr(client, "__dict__")


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
            AsyncTCPNetworkClient(("host", 1), None)  # type: ignore[call-overload]  # a mistake
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
