"""Test the statements and the examples of the page about UDP clients.

A sentence in quotation marks in a docstring is a word-for-word quotation of the page (the first
test checks this), and the test fails if the sentence is wrong. The tests call the functions of the
page.

On the loopback interface, datagrams arrive in the order in which they were sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ipaddress
import runpy
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import sniffio
import trio

from docs._include.examples.howto.udp_clients import (
    asynchronous,
    blocking,
    discovery_broadcast,
    discovery_multicast,
    simple_client_asyncio,
    simple_client_blocking,
    simple_client_trio,
)
from docs._include.examples.howto.udp_servers.multicast_request_handler import (
    MulticastRequestHandler,
)
from docs._include.examples.howto.udp_servers.simple_request_handler import GreetingRequestHandler
from easynetwork import clients
from easynetwork.addresses import IPv4SocketAddress, SocketAddress
from easynetwork.clients import (
    AsyncUDPNetworkClient,
    AsyncUDPNetworkEndpoint,
    UDPNetworkClient,
    UDPNetworkEndpoint,
)
from easynetwork.exceptions import (
    ClientClosedError,
    DatagramProtocolParseError,
    ProtocolCrashedError,
)
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import StandaloneUDPNetworkServer
from easynetwork.servers.threads_helper import NetworkServerThread
from easynetwork.testing import MemoryNetwork, serve, virtual_time
from tests.clients.threads_support import InThread
from tests.docs.client_support import (
    call,
    close,
    deaf,
    is_blocking,
    open_client,
    packets,
    program,
    receive,
    variants,
    warns_when_forgotten,
)
from tests.docs.howto_support import DOCS, Lines, check_quotations, in_thread, serving
from tests.times import PATIENCE, SOON

pytestmark = pytest.mark.anyio

each_variant = variants(blocking, asynchronous)

both_kinds = pytest.mark.parametrize(
    ("anyio_backend", "examples"),
    [(("asyncio", {}), blocking), (("asyncio", {}), asynchronous)],
    ids=["blocking", "asyncio"],
)

once = pytest.mark.parametrize("anyio_backend", ["asyncio"])

EXAMPLES = DOCS / "_include/examples/howto/udp_clients"
PROTOCOL: DatagramProtocol[str, str] = blocking.protocol


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/udp_clients.rst", globals())


class Server:
    """A plain socket that sends to the address from which it last received a datagram."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.address = sock.getsockname()
        self.client: Any = None

    async def receive(self) -> str:
        data, self.client = await in_thread(lambda: self.socket.recvfrom(65536))
        return data.decode()

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.socket.sendto(datagram, self.client)


@contextlib.contextmanager
def server() -> Iterator[Server]:
    with deaf(socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        yield Server(sock)


@contextlib.asynccontextmanager
async def pair(client_class: Any, protocol: Any = PROTOCOL) -> AsyncIterator[tuple[Any, Server]]:
    """Create a server and a client. The server can send before the client has sent a request."""
    with server() as peer:
        async with open_client(client_class, peer.address, protocol) as client:
            peer.client = client.get_local_address()
            yield client, peer


# Introduction


@each_variant
async def test_program(examples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The complete program prints the greeting.

    "It sends a name to the server of udp_servers and prints the greeting"

    "It prints Hello, Zoë!."

    "This is a complete program."
    """
    variant = program(
        simple_client_blocking, simple_client_asyncio, simple_client_trio, examples=examples
    )
    async with serving(GreetingRequestHandler()) as greeter:
        await call(variant.main, *greeter.get_addresses()[0])
        assert capsys.readouterr().out == "Hello, Zoë!\n"


@each_variant
async def test_program_without_server(examples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The complete program gives up.

    "If no response arrives within five seconds, it ends with an exception."
    """
    variant = program(
        simple_client_blocking, simple_client_asyncio, simple_client_trio, examples=examples
    )
    timeouts: list[float | None] = []

    def soon(function: Callable[[float], Any]) -> Callable[[float], Any]:
        def replacement(seconds: float) -> Any:
            timeouts.append(seconds)
            return function(0.01)

        return replacement

    class Client(UDPNetworkClient[str, str]):
        def recv_packet(self, *, timeout: float | None = None) -> str:
            timeouts.append(timeout)
            return super().recv_packet(timeout=0.01)

    if variant is simple_client_blocking:
        monkeypatch.setattr(variant, "UDPNetworkClient", Client)
    elif variant is simple_client_asyncio:
        monkeypatch.setattr(asyncio, "timeout", soon(asyncio.timeout))
    else:
        monkeypatch.setattr(trio, "fail_after", soon(trio.fail_after))
    with server() as peer, pytest.raises((TimeoutError, trio.TooSlowError)):
        await call(variant.main, *peer.address)
    assert timeouts == [5]


@once
async def test_faults() -> None:
    """The client gets what arrives, and no error for what does not.

    "UDP guarantees nothing else: a datagram can be lost, duplicated or reordered without notice."
    """
    for fault, arrived in ("loss", []), ("duplicate", ["Hello, Zoë!"] * 4):
        faults: Any = {fault: 1.0}
        network = MemoryNetwork(**faults)
        async with serve(GreetingRequestHandler(), PROTOCOL, network=network) as served:
            client = await served.connect()
            await client.send_packet("Zoë")
            await anyio.wait_all_tasks_blocked()
            assert await packets(client) == arrived


@both_kinds
async def test_waiting(examples: Any) -> None:
    """A blocking client keeps its thread, the other one only its task.

    "UDPNetworkClient blocks the thread that waits."

    "AsyncUDPNetworkClient is for coroutines, on every asynchronous framework. While one task waits,
    other tasks run."
    """
    async with pair(examples.Client) as (client, peer):
        waiting = threading.Event()

        async def respond_soon() -> None:
            await anyio.wait_all_tasks_blocked()
            waiting.set()
            peer.send(b"hello")

        if is_blocking(client):
            assert not inspect.iscoroutinefunction(client.recv_packet)
            waiter = InThread(client.recv_packet, timeout=PATIENCE).waits_for_socket()
            peer.send(b"hello")
            assert waiter.result() == "hello"
        else:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(respond_soon)
                assert await client.recv_packet() == "hello"
            assert waiting.is_set()


def test_alias() -> None:
    """The functions of the page have one type of client.

    "All functions of a module share a protocol object, and Client is an alias for a client that
    sends and receives text"
    """
    for module, client_class in (
        (blocking, UDPNetworkClient),
        (asynchronous, AsyncUDPNetworkClient),
    ):
        assert client_class[str, str] == module.Client
        assert isinstance(module.protocol, DatagramProtocol)


@both_kinds
async def test_protocol(examples: Any) -> None:
    """The protocol object decides what the bytes mean.

    "A protocol object encodes the packets that you send and decodes those that you receive."
    """
    latin: Any = DatagramProtocol(StringLineSerializer(encoding="latin-1"))
    async with pair(examples.Client, latin) as (client, peer):
        await call(client.send_packet, "Zoë")
        assert (await in_thread(lambda: peer.socket.recv(100))) == b"Zo\xeb"
        peer.send(b"\xe9")
        assert await receive(client) == "é"


# Creating a client


@each_variant
async def test_make_client(examples: Any) -> None:
    """The client sends from its local address.

    "local_address is the address that datagrams are sent from."

    "get_local_address() and get_remote_address() return the two addresses, each with a host and a
    port."

    "To try again, create another client."

    "A client needs the address to send to and a protocol object"
    """
    with server() as peer:
        client = await call(examples.make_client, *peer.address)
        assert client.get_local_address().host == "127.0.0.1"
        assert client.get_remote_address() == peer.address
        await call(client.send_packet, "hello")
        assert await peer.receive() == "hello"
        assert client.get_local_address() == peer.client
        await close(client)
    with pytest.raises(socket.gaierror):
        await call(examples.make_client, "::1", 9)


@each_variant
async def test_connected(examples: Any) -> None:
    """Connecting sends nothing, and datagrams from other addresses are ignored.

    "Connecting sends nothing."

    "It only sets the remote address: the socket sends your datagrams to this address, and the
    operating system ignores datagrams from all other addresses. So you can create and connect a
    client even if no server listens at the address."

    "The client is connected as soon as it is created."

    "A UDP client sends packets to one address and receives packets from this address."

    "UDP has no connections, but a UDP socket can be connected."

    "A client talks to one address."
    """
    async with pair(examples.Client) as (client, peer):
        with deaf(socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"psst", client.get_local_address())
        peer.send(b"hello")
        assert await receive(client) == "hello"
        peer.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.socket.recv(1)
    async with open_client(examples.Client, peer.address, PROTOCOL) as client:
        assert client.get_remote_address() == peer.address


@each_variant
async def test_addresses_of_host(examples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client uses the first address that has a route and the right family.

    "If the host has several addresses, the client uses the first address that has a route, in the
    order of the system's resolver."

    "If the server has addresses of only one family, pass this family: family is socket.AF_INET or
    socket.AF_INET6."

    "The client cannot find out whether the server listens at this address or at another one."
    """
    families = {
        "255.255.255.255": socket.AF_INET,  # may not be sent to, unless an option says so
        "::1": socket.AF_INET6,
        "127.0.0.1": socket.AF_INET,
        "127.0.0.2": socket.AF_INET,
    }
    infos = [
        (family, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", (host, 9))
        for host, family in families.items()
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: infos)
    expected = {socket.AF_UNSPEC: "::1", socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
    for family, host in expected.items():
        async with open_client(examples.Client, ("example", 9), PROTOCOL, family=family) as client:
            assert client.get_remote_address().host == host


def test_arguments() -> None:
    """The other arguments have defaults.

    "Only the first two arguments are required."
    """
    for client_class in UDPNetworkClient, AsyncUDPNetworkClient:
        parameters = list(inspect.signature(client_class).parameters.values())
        required = [parameter.default is inspect.Parameter.empty for parameter in parameters]
        assert required == [True, True, *[False] * (len(required) - 2)]


@both_kinds
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_hosts(examples: Any, host: str) -> None:
    """A name is resolved, and the operating system chooses the other address.

    "The address is a host and a port. The host can be a name or a numeric address."

    "It is seldom needed: by default, the operating system chooses the address."
    """
    with server() as peer:
        address = (host, peer.address[1])
        options = {"family": socket.AF_INET}
        async with open_client(examples.Client, address, PROTOCOL, **options) as client:
            assert client.get_remote_address() == peer.address
            local_address = client.get_local_address()
            assert local_address.host == "127.0.0.1"
            assert local_address.port


def test_constructor_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constructor waits for the resolver.

    "The constructor blocks only to resolve a name."
    """
    is_asked, goes_on = threading.Event(), threading.Event()
    getaddrinfo = socket.getaddrinfo

    def slow(*args: Any, **kwargs: Any) -> Any:
        is_asked.set()
        assert goes_on.wait(PATIENCE)
        return getaddrinfo("127.0.0.1", *args[1:], **kwargs)

    with server() as peer:
        blocking.Client(peer.address, PROTOCOL).close()
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        thread = InThread(blocking.Client, ("example", peer.address[1]), PROTOCOL)
        assert is_asked.wait(PATIENCE)
        thread.waits_for_lock()
        goes_on.set()
        client = thread.result()
        assert client.get_remote_address() == peer.address
        client.close()


async def test_async_connects_later() -> None:
    """An asynchronous client does not connect in its constructor.

    "The constructor does not use the network. The client connects when it enters async with, when
    you call wait_connected(), or at the first operation that needs the socket."
    """
    with server() as peer:
        client = AsyncUDPNetworkClient(peer.address, PROTOCOL)
        assert not client.is_connected()
        await client.send_packet("hello")
        assert client.is_connected()
        assert await peer.receive() == "hello"
        await client.aclose()
        async with AsyncUDPNetworkClient(peer.address, PROTOCOL) as client:
            assert client.is_connected()


def test_backend() -> None:
    """The constructor of a client needs a running framework or the name of one.

    "The client runs on the framework of the coroutine that creates it. Outside of coroutines, name
    a framework with the backend argument."
    """
    address = ("127.0.0.1", 9000)
    with pytest.raises(anyio.NoEventLoopError):
        AsyncUDPNetworkClient(address, PROTOCOL)
    assert AsyncUDPNetworkClient(address, PROTOCOL, "trio").backend().name == "trio"


@each_variant
async def test_cannot_connect(examples: Any) -> None:
    """A client that cannot connect raises an error for the reason.

    "If the client cannot connect, OSError is raised: socket.gaierror if the name cannot be resolved
    or has no address of that family, and another OSError if, for example, the local address is in
    use."
    """

    async def connect(*args: Any, **kwargs: Any) -> None:
        async with open_client(examples.Client, *args, PROTOCOL, **kwargs):
            pass

    with server() as peer, server() as other:
        with pytest.raises(socket.gaierror):
            await connect(("nowhere.invalid", 9))
        with pytest.raises(socket.gaierror):
            await connect(peer.address, family=socket.AF_INET6)
        with pytest.raises(OSError, match="in use"):
            await connect(peer.address, local_address=other.address)
    assert issubclass(socket.gaierror, OSError)


async def test_try_again() -> None:
    """An asynchronous client can connect after a failed attempt.

    "The client is then in the same state as a new client. To try again, call wait_connected()
    again."
    """
    with server() as peer:
        with server() as other:
            client = AsyncUDPNetworkClient(peer.address, PROTOCOL, local_address=other.address)
            with pytest.raises(OSError, match="in use"):
                await client.wait_connected()
        await client.wait_connected()
        assert client.get_local_address() == other.address
        await client.aclose()


@each_variant
async def test_take_over(examples: Any) -> None:
    """A client accepts a connected socket, and closes it.

    "Instead of an address, you can pass a connected UDP socket, here sock. The client takes over
    the socket and closes it"
    """
    async with serving(GreetingRequestHandler()) as greeter:
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.connect(greeter.get_addresses()[0])
        assert await call(examples.greet_over, sock) == "Hello, Zoë!"
        assert sock.fileno() == -1


# Sending and receiving


@each_variant
async def test_timeout(examples: Any) -> None:
    """A wait can have a timeout, and loses no datagram.

    "recv_packet() waits for the next datagram and returns its packet."

    "If recv_packet() is cancelled, no datagram is lost."

    "Both methods have a timeout argument, in seconds"

    "Use a timeout of your framework, for example asyncio.timeout() or trio.fail_after(), or
    client.backend().timeout(), which works with both"

    "Always set a timeout, because the datagram may be lost."
    """
    own = "" if is_blocking(examples.Client) else f"_{sniffio.current_async_library()}"
    async with pair(examples.Client) as (client, peer):
        for name in {"wait_for_news", f"wait_for_news{own}"}:
            wait_for_news = getattr(examples, name)
            assert await call(wait_for_news, client, patience=0.02) == "no news"
            peer.send(b"one", b"two")
            assert await call(wait_for_news, client) == "one"
            assert await call(wait_for_news, client) == "two"


@both_kinds
async def test_sent(examples: Any) -> None:
    """A packet is one datagram, and the operating system has it, whoever receives it.

    "send_packet() sends one packet as one datagram. When it returns, the operating system has
    accepted the datagram. This does not mean that the server has received it."
    """
    async with pair(examples.Client) as (client, peer):
        await call(client.send_packet, "one")
        await call(client.send_packet, "two")
        peer.socket.setblocking(False)
        assert peer.socket.recv(100) == b"one"
        await call(client.send_packet, "three")
        peer.socket.close()  # with two of them


def test_timeout_is_an_os_error() -> None:
    """So the first clause that fits gets it.

    "TimeoutError is a subclass of OSError. If you catch both, put except TimeoutError first."
    """
    assert issubclass(TimeoutError, OSError)


def test_blocking_timeout() -> None:
    """A blocking client does not wait if the timeout is 0.

    "A timeout of 0 does not wait, and None, the default, sets no timeout."
    """
    with server() as peer, blocking.Client(peer.address, PROTOCOL) as client:
        start = time.monotonic()
        client.send_packet("hello", timeout=0)
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0)
        assert time.monotonic() - start < 1


# Repeating a request


@each_variant
async def test_ask_again(examples: Any) -> None:
    """A lost request is sent again, and a late response is discarded.

    "If no response arrives, you cannot know whether the request or the response was lost."

    "Send the request again."

    "Then two responses may arrive, and the client must not take the second one for the response to
    its next request."

    "In this function, the loop discards late responses."

    "So a UDP client differs from a TCP client in two ways. It never waits without a timeout, and it
    may have to send a request again."

    "So begin each request with a number when you pass it to send_packet(), and let the server
    repeat the number in its response"
    """
    async with pair(examples.Client) as (client, peer):

        async def forgetful() -> None:
            await peer.receive()
            question = ""
            while question != "Who are you?":
                number, _, question = (await peer.receive()).partition(" ")
                answer = f"{number} {answers[question]}".encode()
                peer.send(answer, answer)

        answers = {"What time is it?": "noon", "Who are you?": "Zoe"}
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(forgetful)
            assert await call(examples.ask, client, "What time is it?", patience=0.05) == "noon"
            assert await call(examples.ask, client, "Who are you?") == "Zoe"
        with pytest.raises(TimeoutError, match="no answer in 2 attempts"):
            await call(examples.ask, client, "Are you there?", attempts=2, patience=0.01)


@each_variant
async def test_iteration(examples: Any) -> None:
    """The loop gets the packets that arrive in time, and ends without an exception.

    "iter_received_packets() iterates over the packets that arrive in a given time"

    "With 0, the default, the loop gets only packets that have already been received; with None,
    there is no limit. The loop ends without an exception at the first OSError: when the time is up,
    when the client is closed, or when there is a network error to report."
    """
    async with pair(examples.Client) as (client, peer):
        assert await packets(client) == []
        peer.send(b"one", b"two")
        assert await packets(client) == ["one", "two"]
        peer.send(b"three")
        assert await packets(client, timeout=0.02) == ["three"]
        peer.socket.close()
        await send_in_vain(client)
        assert await packets(client, timeout=None) == []
        await close(client)
        assert await packets(client, timeout=None) == []


async def send_in_vain(client: Any) -> None:
    """Send a datagram to a closed port with a duplicate of the client's socket."""
    with socket.socket(fileno=socket.dup(client.socket.fileno())) as sock:
        sock.send(b"anybody there?")


@pytest.mark.in_turn
@each_variant
async def test_body_does_not_count(examples: Any) -> None:
    """The time spent in the loop's body does not count.

    "The timeout applies to all packets together. Only the time spent waiting counts, not the time
    spent in the loop's body."
    """
    async with pair(examples.Client) as (client, peer):
        peer.send(b"one", b"two")
        received = []
        if is_blocking(client):
            for packet in client.iter_received_packets(timeout=0.1):
                time.sleep(0.2)  # noqa: ASYNC251 - nothing else runs
                received.append(packet)
        else:
            async for packet in client.iter_received_packets(timeout=0.1):
                await anyio.sleep(0.2)
                received.append(packet)
        assert received == ["one", "two"]


@both_kinds
async def test_errors_of_ask(examples: Any) -> None:
    """The first version of the function lets errors out.

    "ask() does not catch network errors and invalid datagrams: the following sections describe
    these errors."
    """
    async with pair(examples.Client) as (client, peer):
        peer.send(b"\xff")
        with pytest.raises(DatagramProtocolParseError):
            await call(examples.ask, client, "Who are you?")
        peer.socket.close()
        await send_in_vain(client)
        with pytest.raises(ConnectionRefusedError):
            await call(examples.ask, client, "Who are you?")


# Surviving a restart of the server


@contextlib.contextmanager
def restarted(peer: Server) -> Iterator[Server]:
    """Close a server's socket, if it is open, and create a server with the same address."""
    peer.socket.close()
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(peer.address)
        sock.settimeout(PATIENCE)
        yield Server(sock)


async def respond(peer: Server, response: str) -> str:
    """Receive a request, send a response with its number, and return the request."""
    number, _, request = (await peer.receive()).partition(" ")
    peer.send(f"{number} {response}".encode())
    return request


@each_variant
async def test_server_is_down(examples: Any) -> None:
    """All attempts are used, and each takes its time.

    "It sends the request again until a response arrives or all attempts are used up"

    "Each attempt that gets no response takes patience seconds."

    "All attempts together must take longer than a restart of your server."
    """
    with server() as peer:
        pass
    async with open_client(examples.Client, peer.address, PROTOCOL) as client:
        start = time.monotonic()
        with pytest.raises(TimeoutError, match="no answer in 3 attempts"):
            await call(examples.ask_despite_restart, client, "Who?", attempts=3, patience=0.05)
        assert time.monotonic() - start > 0.14


@each_variant
async def test_restart_before_request(examples: Any) -> None:
    """An error from an earlier datagram does not end the function.

    "Then the client can get a ConnectionRefusedError, which concerns an earlier datagram. With
    contextlib.suppress(), this version of ask() counts such a datagram as lost."

    "If send_packet() raises the error, the request may not have been sent. It is sent again in the
    next attempt."

    "While a server restarts, no program listens at its port."
    """
    async with pair(examples.Client) as (client, peer), anyio.create_task_group() as task_group:
        task_group.start_soon(respond, peer, "Zoe")
        assert await call(examples.ask_despite_restart, client, "Who are you?") == "Zoe"
        peer.socket.close()
        await send_in_vain(client)
        with restarted(peer) as peer:
            task_group.start_soon(respond, peer, "noon")
            ask = examples.ask_despite_restart
            options = {"attempts": 1000, "patience": 0.02}
            assert await call(ask, client, "What time is it?", **options) == "noon"


@each_variant
async def test_error_while_waiting(examples: Any) -> None:
    """An error that arrives during an attempt does not end this attempt.

    "If recv_packet() raises the error, the function continues to wait, because the error can
    concern a datagram of an earlier attempt, and the response to this one can still arrive. By
    contrast, the loop in ask() above ends at this error, before patience seconds have passed."
    """

    async def fail_and_respond() -> None:
        number, _, _ = (await peer.receive()).partition(" ")
        peer.socket.close()
        await send_in_vain(client)
        await anyio.sleep(SOON)
        with restarted(peer) as new_peer:
            new_peer.client = peer.client
            new_peer.send(f"{number} Zoe".encode())

    for ask in examples.ask_despite_restart, examples.ask:
        async with pair(examples.Client) as (client, peer), anyio.create_task_group() as task_group:
            task_group.start_soon(fail_and_respond)
            options = {"attempts": 1, "patience": PATIENCE}
            if ask is examples.ask_despite_restart:
                assert await call(ask, client, "Who are you?", **options) == "Zoe"
            else:
                start = time.monotonic()
                with pytest.raises(TimeoutError, match="no answer in 1 attempts"):
                    await call(ask, client, "Who are you?", **options)
                assert time.monotonic() - start < PATIENCE


@each_variant
async def test_restart_after_request(examples: Any) -> None:
    """A request that the server has received before its restart is sent to the new server.

    "It sends the request again until a response arrives or all attempts are used up"

    "Repeat only requests that the server may process twice, because it may have received both
    datagrams."
    """
    requests = []

    async def restart() -> None:
        requests.append((await peer.receive()).partition(" ")[2])
        peer.socket.close()
        await anyio.sleep(SOON)  # the attempts are refused
        with restarted(peer) as new_peer:
            requests.append(await respond(new_peer, "Zoe"))

    async with pair(examples.Client) as (client, peer), anyio.create_task_group() as task_group:
        task_group.start_soon(restart)
        ask = examples.ask_despite_restart
        answer = await call(ask, client, "Who are you?", attempts=1000, patience=0.02)
    assert answer == "Zoe"
    assert requests == ["Who are you?"] * 2


@each_variant
async def test_restart_of_closed_client(examples: Any) -> None:
    """The function does not hide that the client is closed.

    "Other errors leave the function: for example, ClientClosedError if the client is closed."
    """
    async with pair(examples.Client) as (client, _):
        await close(client)
        with pytest.raises(ClientClosedError):
            await call(examples.ask_despite_restart, client, "Who are you?")


# Handling invalid datagrams


@each_variant
async def test_parse_error(examples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """An invalid datagram raises an error, and the client receives the next one.

    "If a datagram is not a valid packet, recv_packet() raises DatagramProtocolParseError. Its error
    attribute gives the reason. The datagram is discarded; later datagrams are unaffected"
    """
    async with pair(examples.Client) as (client, peer):
        peer.send(b"\xff\xfe", b"hello")
        assert await call(examples.receive_text, client) == "hello"
    assert capsys.readouterr().out.startswith(
        "Skipped a datagram that is not text: 'utf-8' codec can't"
    )


@each_variant
async def test_parse_error_in_loop(examples: Any) -> None:
    """A new loop continues after an invalid datagram.

    "iter_received_packets() raises this error, too, which ends your loop. To continue, start
    another loop over the same iterator or a new one."
    """
    async with pair(examples.Client) as (client, peer):
        peer.send(b"\xff", b"one", b"\xff", b"two")
        iterator = client.iter_received_packets(timeout=0.2)
        advance = iterator.__next__ if is_blocking(client) else iterator.__anext__
        with pytest.raises(DatagramProtocolParseError):
            await call(advance)
        assert await call(advance) == "one"
        with pytest.raises(DatagramProtocolParseError):
            await packets(client)
        assert await packets(client) == ["two"]


@each_variant
async def test_crash(examples: Any) -> None:
    """A bug in a converter raises its own error, and the client can still be used.

    "If a serializer or converter raises an unexpected exception, you get a ProtocolCrashedError, a
    subclass of RuntimeError, and the original exception is its __cause__. This applies to
    send_packet() as well; in this case nothing was sent."
    """
    protocol: Any = DatagramProtocol(StringLineSerializer(), Lines(str))
    async with pair(examples.Client, protocol) as (client, peer):
        with pytest.raises(ProtocolCrashedError) as caught:
            await call(client.send_packet, "no attribute text")
        assert isinstance(caught.value.__cause__, AttributeError)
        peer.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.socket.recv(1)
        peer.send(b"trap", b"hello")
        with pytest.raises(ProtocolCrashedError) as caught:
            await receive(client)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert await receive(client) == "hello"


# Handling network errors


@each_variant
async def test_refused(examples: Any) -> None:
    """The operation after a refused datagram raises the error, and the client can still be used.

    "An OSError concerns one datagram. After the except clause, you can continue to use the client"

    "No program listens at the port. The remote host reports this for an earlier datagram, and the
    next operation raises the error, whether it is send_packet() or recv_packet(). If it is
    send_packet(), its own packet may not have been sent. (On your own machine, the error is
    reported immediately, so it concerns the packet that you are sending.)"
    """
    with server() as peer:
        pass
    async with open_client(examples.Client, peer.address, PROTOCOL) as client:
        refused = "no program listens at that port, now or earlier"
        assert await call(examples.send, client, "hello") == refused
        await send_in_vain(client)
        with pytest.raises(ConnectionRefusedError):
            await receive(client)
        await send_in_vain(client)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(peer.address)
            sock.settimeout(PATIENCE)
            assert await call(examples.send, client, "not sent") == refused
            assert await call(examples.send, client, "hello") == "sent"
            assert sock.recv(100) == b"hello"


@each_variant
async def test_too_long(examples: Any) -> None:
    """The length of a datagram is limited.

    "The packet is too long for a datagram and was not sent. The limit is 65,507 bytes over IPv4,
    and 20 bytes more over IPv6."

    "Each packet is a datagram, which arrives whole or not at all."
    """
    for host, limit in ("127.0.0.1", 65_507), ("::1", 65_527):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((host, 0))
            sock.settimeout(PATIENCE)
            address = sock.getsockname()[:2]
            async with open_client(examples.Client, address, PROTOCOL) as client:
                assert await call(examples.send, client, "x" * (limit + 1)) == "too long"
                assert await call(examples.send, client, "x" * limit) == "sent"
                assert len(sock.recv(65536)) == limit


# Closing the client


@each_variant
async def test_closed(examples: Any) -> None:
    """Closing a client interrupts a waiting call and makes later calls fail.

    "The server gets no notice, because UDP does not signal that a client goes."

    "Closing is final."

    "If a call is waiting for a packet, or if you use the client later, ClientClosedError is raised.
    This is a subclass of ConnectionError, and so of OSError. You can close a client several times."
    """
    async with pair(examples.Client) as (client, peer):
        async with anyio.create_task_group() as task_group:

            @task_group.start_soon
            async def wait() -> None:
                with pytest.raises(ClientClosedError):
                    await receive(client)

            await anyio.sleep(0.02)
            await close(client)
        await close(client)
        for use in receive(client), call(client.send_packet, "x"), call(client.get_local_address):
            with pytest.raises(ClientClosedError):
                await use
        peer.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.socket.recv(1)
    assert issubclass(ClientClosedError, ConnectionError)


@both_kinds
async def test_last_packet(examples: Any) -> None:
    """A server gets what is sent before, and nothing of the end.

    "If the server has to know, send it a packet before you close the client."
    """
    async with pair(examples.Client) as (client, peer):
        await call(client.send_packet, "goodbye")
        await close(client)
        assert await peer.receive() == "goodbye"
        peer.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.socket.recv(1)


def test_group() -> None:
    """The group of the example is in the range of local scopes.

    "The addresses from 239.255.0.0 to 239.255.255.255 are for uses of your own"
    """
    local_scope = ipaddress.ip_network("239.255.0.0/16")  # RFC 2365, section 6.1
    assert (str(local_scope[0]), str(local_scope[-1])) == ("239.255.0.0", "239.255.255.255")
    assert ipaddress.ip_address(discovery_multicast.GROUP) in local_scope


@each_variant
async def test_leave(examples: Any) -> None:
    """The end of the block closes the client.

    "Leaving the with block calls close()."

    "Leaving the async with block calls aclose()."
    """
    with server() as peer:
        client = examples.Client(peer.address, PROTOCOL)
        if is_blocking(client):
            with client:
                pass
            assert client.is_closed()
        else:
            async with client:
                pass
            assert client.is_closing()


@each_variant
async def test_forgotten(examples: Any) -> None:
    """A client that is garbage-collected before it is closed causes a warning.

    "If you never close it, you get a ResourceWarning."
    """
    with server() as peer:
        address = peer.address
        assert await warns_when_forgotten(examples.Client, PROTOCOL, address, lambda: None)


# Sharing a client between threads or tasks


@each_variant
async def test_crowd(examples: Any) -> None:
    """Several threads or tasks can use one client.

    "Any thread can call any method, at any time."

    "One thread or task can receive while another one sends. Several can send at the same time, and
    several can receive at the same time: each packet goes to one of them."

    "It is for programs without async, with one thread or many."
    """
    async with pair(examples.Client) as (client, peer):
        letters = "abcdefgh"
        received: list[str] = []

        async def receive_one() -> None:
            received.append(await receive(client))

        async with anyio.create_task_group() as task_group:
            for letter in letters:
                task_group.start_soon(receive_one)
                task_group.start_soon(call, client.send_packet, letter * 10_000)
            datagrams = [await peer.receive() for _ in letters]
            peer.send(*(letter.encode() for letter in letters))
        assert sorted(datagrams) == [letter * 10_000 for letter in letters]
        assert sorted(received) == [*letters]


@both_kinds
async def test_response_for_somebody_else(examples: Any) -> None:
    """A packet goes to the one that waits first, whoever has sent the request.

    "But a response can go to one that did not send the request, and ask() above discards responses
    to other requests. Use a separate client for each thread or task."
    """
    async with pair(examples.Client) as (client, peer), anyio.create_task_group() as task_group:
        taken: list[str] = []

        async def take() -> None:
            taken.append(await receive(client))

        if is_blocking(client):
            taker = InThread(lambda: taken.append(client.recv_packet(timeout=PATIENCE)))
            taker.waits_for_socket()
        else:
            task_group.start_soon(take)
            await anyio.wait_all_tasks_blocked()
        task_group.start_soon(respond, peer, "Zoe")
        with pytest.raises(TimeoutError, match="no answer"):
            await call(examples.ask, client, "Who are you?", attempts=1, patience=SOON)
        peer.send(b"0 another request")
        with pytest.raises(TimeoutError, match="no answer"):
            await call(examples.ask, client, "Who?", attempts=1, patience=0.01)
        if is_blocking(client):
            taker.result()
    assert [text.partition(" ")[2] for text in taken] == ["Zoe"]


# Addresses and socket options


@each_variant
async def test_make_room(examples: Any) -> None:
    """A larger receive buffer holds a larger burst.

    "The socket attribute gives access to the options of the socket, but not to its data. The
    operating system keeps datagrams that you have not received yet in a receive buffer. When this
    buffer is full, the operating system drops datagrams without notice. If responses arrive in
    bursts, enlarge the buffer"

    "The operating system may set a smaller size than the one that you pass."
    """
    async with pair(examples.Client) as (client, peer):
        assert not hasattr(client.socket, "recv")
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        burst = [b"x" * 1000] * 20
        peer.send(*burst)
        assert len(await packets(client)) < 20
        await call(examples.make_room_for_bursts, client)
        peer.send(*burst)
        assert len(await packets(client)) == 20


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_socket_does_not_wait() -> None:
    """A thread that is sending does not block other threads that use the socket's options.

    "The methods of socket do not wait for a thread that is sending."
    """
    is_sending, goes_on = threading.Event(), threading.Event()

    class Slow(Lines):
        def convert_to_dto_packet(self, obj: str) -> str:
            is_sending.set()
            assert goes_on.wait(PATIENCE)
            return obj

    protocol: Any = DatagramProtocol(StringLineSerializer(), Slow(str))
    async with pair(blocking.Client, protocol) as (client, peer):
        sender = InThread(client.send_packet, "hello")
        assert await in_thread(lambda: is_sending.wait(PATIENCE))
        address = await in_thread(client.socket.getsockname)
        goes_on.set()
        sender.result()
        assert await peer.receive() == "hello"
        assert address == client.get_local_address()


async def test_not_yet_connected() -> None:
    """A client that is not connected has no socket and no addresses.

    "Before the client is connected, socket raises AttributeError, and get_local_address() and
    get_remote_address() raise OSError."
    """
    client = AsyncUDPNetworkClient(("127.0.0.1", 9000), PROTOCOL)
    with pytest.raises(AttributeError):
        client.socket.fileno()
    for get_address in client.get_local_address, client.get_remote_address:
        with pytest.raises(OSError, match="not connected"):
            get_address()


@pytest.mark.skipif(sys.platform != "linux", reason="the file is Linux's")
def test_limit_of_the_system() -> None:
    """Linux gives no more than this, and counts its own bookkeeping twice (socket(7)).

    "On Linux, net.core.rmem_max is the limit."
    """
    limit = int(Path("/proc/sys/net/core/rmem_max").read_text())
    with server() as peer, blocking.Client(peer.address, PROTOCOL) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**30)
        assert client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * limit


# Talking to several addresses


class Discovered:
    """A server on all interfaces in another thread, with its own event loop."""

    def __init__(self, handler: Any) -> None:
        protocol: DatagramProtocol[str, str] = DatagramProtocol(
            StringLineSerializer(encoding="utf-8")
        )
        self.server = StandaloneUDPNetworkServer("", 0, protocol, handler)

    def __enter__(self) -> int:
        self.thread = NetworkServerThread(self.server)
        self.thread.start()
        return self.server.get_addresses()[0].port

    def __exit__(self, *exc_info: object) -> None:
        self.thread.join()
        self.server.server_close()


def test_discovery_by_broadcast() -> None:
    """The recipe finds a server on all interfaces.

    "Without broadcast=True, send_packet_to() raises PermissionError."

    "it must only listen on all interfaces"

    "To find the servers of a network, send one request to its broadcast address, and collect the
    responses with recv_packet_from() for a second:"

    "The server needs nothing special: it must only listen on all interfaces, so give the server of
    udp_servers the host"
    """
    with Discovered(GreetingRequestHandler()) as port:
        find_servers = discovery_broadcast.find_servers
        found = asyncio.run(find_servers("127.255.255.255", port, SOON))
        assert found == {("127.0.0.1", port): "Hello, Zoë!"}
    with UDPNetworkEndpoint(PROTOCOL) as endpoint, pytest.raises(PermissionError):
        endpoint.send_packet_to("Zoë", ("127.255.255.255", port))


def test_other_responses(capsys: pytest.CaptureFixture[str]) -> None:
    """A datagram that is not a response does not end the search.

    "If a datagram is not a valid packet, the DatagramProtocolParseError has the attribute
    sender_address."
    """

    def disturb(sock: socket.socket) -> None:
        _, sender = sock.recvfrom(100)
        sock.sendto(b"\xff", sender)
        sock.sendto("Zoë".encode(), sender)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        thread = threading.Thread(target=disturb, args=(sock,))
        thread.start()
        found = asyncio.run(discovery_broadcast.find_servers(host, port, SOON))
        thread.join()
    assert found == {(host, port): "Zoë"}
    assert f"Not a server: ({host!r}, {port})" in capsys.readouterr().out


def test_discovery_by_multicast() -> None:
    """The recipe finds a server that has joined the group.

    "Only machines that have joined a multicast group receive what is sent to its address,
    so other machines are not disturbed"

    "The socket option IP_MULTICAST_IF sets the interface"
    """
    for handler, answers in (
        (MulticastRequestHandler("127.0.0.1"), ["Hello, Zoë!"]),
        (GreetingRequestHandler(), []),
    ):
        with Discovered(handler) as port:
            found = asyncio.run(discovery_multicast.find_servers(port, SOON, "127.0.0.1"))
        assert list(found.values()) == answers


@pytest.mark.parametrize("name", ["discovery_broadcast", "discovery_multicast"])
def test_discovery_ends(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs do not wait for longer, even if no server responds.

    "collect the responses with recv_packet_from() for a second"
    """

    class Silent(AsyncUDPNetworkEndpoint[str, str]):
        async def send_packet_to(self, *_: Any) -> None:
            pass

        async def recv_packet_from(self, **_: Any) -> Any:
            await anyio.sleep_forever()

        async def __anext__(self) -> Any:
            await anyio.sleep_forever()

    def run(search: Coroutine[Any, Any, Any]) -> Any:
        async def measured() -> Any:
            begin = anyio.current_time()
            found = await search
            seconds.append(anyio.current_time() - begin)
            return found

        return anyio.run(measured, backend_options=virtual_time())

    seconds: list[float] = []
    monkeypatch.setattr(clients, "AsyncUDPNetworkEndpoint", Silent)
    monkeypatch.setattr(asyncio, "run", run)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert seconds == [pytest.approx(1)]


@each_variant
async def test_ask_all(examples: Any) -> None:
    """It returns one response for each server, and ignores strangers.

    "This function sends one request to several servers, and returns the response of each"
    """
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(Discovered(GreetingRequestHandler())) for _ in range(3)]
        addresses: set[SocketAddress] = {IPv4SocketAddress("127.0.0.1", port) for port in ports}
        found = await call(examples.ask_all, addresses, "Zoë")
    assert found == dict.fromkeys(addresses, "Hello, Zoë!")


def test_several_addresses() -> None:
    """Endpoints send to any address and receive from any.

    "By default, an endpoint uses a random port on all IPv4 interfaces."

    "There is no error if nobody listens at an address."

    "Anybody can send packets to an endpoint, so check the addresses that it returns."
    """
    with UDPNetworkEndpoint(PROTOCOL) as one, UDPNetworkEndpoint(PROTOCOL) as other:
        port = one.get_local_address().port
        assert one.get_local_address() == ("0.0.0.0", port)
        other.send_packet_to("hello", ("127.0.0.1", port))
        packet, address = one.recv_packet_from(timeout=PATIENCE)
        assert (packet, address) == ("hello", ("127.0.0.1", other.get_local_address().port))
        with deaf(socket.SOCK_DGRAM) as gone:
            nowhere = gone.getsockname()
        for _ in range(2):
            one.send_packet_to("hello", nowhere)


@once
async def test_async_endpoint() -> None:
    """An endpoint receives pairs until it is closed.

    "AsyncUDPNetworkEndpoint, and its blocking twin UDPNetworkEndpoint, send packets to any address
    and receive packets from any address, over one socket. send_packet_to() takes the address as a
    second argument, and recv_packet_from() returns a pair, here response and sender: the packet and
    its sender's address. You can also iterate over an endpoint to receive such pairs until it is
    closed."
    """
    async with AsyncUDPNetworkEndpoint(PROTOCOL, local_address=("127.0.0.1", 0)) as endpoint:
        address = endpoint.get_local_address()
        with server() as one, server() as other:
            for peer in one, other:
                await endpoint.send_packet_to("hello", peer.address)
                assert await peer.receive() == "hello"
                assert peer.client == address
                peer.send(b"one")
                assert await endpoint.recv_packet_from() == ("one", peer.address)
            for peer in one, other:
                peer.send(b"two")
            pairs = []
            async for packet, sender in endpoint:
                pairs.append((packet, sender))
                if len(pairs) == 2:
                    await endpoint.aclose()
            assert pairs == [("two", one.address), ("two", other.address)]


def test_timeouts_of_endpoint() -> None:
    """A blocking endpoint has timeouts, and takes numeric hosts.

    "The methods of the blocking endpoint have a timeout argument."

    "Use local_address=("::", 0) for IPv6. The addresses that you send to must have numeric hosts."
    """
    with UDPNetworkEndpoint(PROTOCOL, local_address=("::", 0)) as endpoint:
        port = endpoint.get_local_address().port
        endpoint.send_packet_to("hello", ("::1", port), timeout=0)
        assert endpoint.recv_packet_from(timeout=PATIENCE) == ("hello", ("::1", port, 0, 0))
        with pytest.raises(TimeoutError):
            endpoint.recv_packet_from(timeout=0)
        with pytest.raises(ValueError, match="numeric host"):
            endpoint.send_packet_to("hello", ("localhost", port))


def test_multicast_stays_here() -> None:
    """The operating system lets packets pass no router.

    "Packets do not leave it, unless you raise the socket option IP_MULTICAST_TTL."
    """
    with UDPNetworkEndpoint(PROTOCOL) as endpoint:
        assert endpoint.socket.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 1
