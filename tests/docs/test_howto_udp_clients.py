"""The how-to page for UDP clients: what it says of its examples is what they do.

What stands in quotation marks in a docstring is what the page says, word for word (the first test
sees to that), and the test would fail if it were wrong. The functions are the page's.

On the loopback interface, datagrams arrive, and in the order in which they were sent.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
import sniffio

from docs._include.examples.howto.udp_clients import (
    asynchronous,
    blocking,
    simple_client_asyncio,
    simple_client_blocking,
    simple_client_trio,
)
from docs._include.examples.howto.udp_servers.simple_request_handler import GreetingRequestHandler
from easynetwork.clients import AsyncUDPNetworkClient
from easynetwork.exceptions import (
    ClientClosedError,
    DatagramProtocolParseError,
    ProtocolCrashedError,
)
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
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
from tests.docs.howto_support import Lines, check_quotations, in_thread, serving
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

each_variant = variants(blocking, asynchronous)

PROTOCOL: DatagramProtocol[str, str] = blocking.protocol


def test_quotations() -> None:
    """The page says what the tests quote; each test quotes something."""
    check_quotations("howto/udp_clients.rst", globals())


class Server:
    """The other end: a plain socket that answers whoever wrote last."""

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
    """Make a client of a server that knows it."""
    with server() as peer:
        async with open_client(client_class, peer.address, protocol) as client:
            peer.client = client.get_local_address()
            yield client, peer


# Introduction


@each_variant
async def test_program(examples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole program is greeted.

    "It tells the server of udp_servers a name, and prints the greeting"

    "It prints Hello, Zoë!. If no answer comes within five seconds, it ends with an exception."
    """
    variant = program(
        simple_client_blocking, simple_client_asyncio, simple_client_trio, examples=examples
    )
    async with serving(GreetingRequestHandler()) as greeter:
        await call(variant.main, *greeter.get_addresses()[0])
        assert capsys.readouterr().out == "Hello, Zoë!\n"


# Make A Client


@each_variant
async def test_make_client(examples: Any) -> None:
    """The client sends from where it is told to.

    "local_address is where datagrams come from."

    "get_local_address() and get_remote_address() return the two ends, with a host and a port."

    "To try again, make another client."
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
    """To connect sends nothing, and only that address counts.

    "That sends nothing. It only fixes the address: what you send goes there, and what anybody else
    sends to you is ignored, by the operating system. So a client can be made, and connected,
    although nobody listens."

    "The client is connected when it is made."
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
    """The first address that will do is used.

    "If the host has several addresses, the first one that there is a route to is used, in the
    order of the system's resolver."

    "If the server has only one kind of address, say so: family is socket.AF_INET or
    socket.AF_INET6."
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


async def test_async_connects_later() -> None:
    """An asynchronous client connects when it is told to, or when it has to.

    "The constructor does not touch the network. The client connects by async with, by
    wait_connected(), or by the first operation that needs the socket."
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
    """A client must know its framework from the beginning.

    "It runs on the framework of the coroutine that makes it. Outside of coroutines, name one
    with the backend argument."
    """
    address = ("127.0.0.1", 9000)
    with pytest.raises(anyio.NoEventLoopError):
        AsyncUDPNetworkClient(address, PROTOCOL)
    assert AsyncUDPNetworkClient(address, PROTOCOL, "trio").backend().name == "trio"


@each_variant
async def test_cannot_connect(examples: Any) -> None:
    """A client that cannot be made says why.

    "If it cannot be done, OSError is raised: socket.gaierror if the name cannot be resolved or has
    no address of that family, another one if the local address is taken, say."
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
    """A failed attempt is not the end of a client.

    "The client is as new then. To try again, call wait_connected() again."
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
    """A connected socket will do, and is closed in the end.

    "Instead of an address, you can give a connected UDP socket. It belongs to the client then,
    which closes it"
    """
    async with serving(GreetingRequestHandler()) as greeter:
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.connect(greeter.get_addresses()[0])
        assert await call(examples.greet_over, sock) == "Hello, Zoë!"
        assert sock.fileno() == -1


# Sending And Receiving


@each_variant
async def test_time_out(examples: Any) -> None:
    """Nobody waits for ever.

    "recv_packet() waits for the next datagram and returns its packet."

    "A recv_packet() that is cancelled loses nothing."

    "Both methods have a timeout argument, in seconds"
    """
    own = "" if is_blocking(examples.Client) else f"_{sniffio.current_async_library()}"
    async with pair(examples.Client) as (client, peer):
        for name in {"wait_for_news", f"wait_for_news{own}"}:
            wait_for_news = getattr(examples, name)
            assert await call(wait_for_news, client, patience=0.02) == "no news"
            peer.send(b"one", b"two")
            assert await call(wait_for_news, client) == "one"
            assert await call(wait_for_news, client) == "two"


def test_blocking_time_out() -> None:
    """A thread need not wait at all.

    "0 does not wait, and None, the default, sets no limit."
    """
    with server() as peer, blocking.Client(peer.address, PROTOCOL) as client:
        start = time.monotonic()
        client.send_packet("hello", timeout=0)
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0)
        assert time.monotonic() - start < 1


# Ask Again


@each_variant
async def test_ask_again(examples: Any) -> None:
    """A lost datagram is sent again, a late answer is dropped.

    "When no answer comes, you cannot know what got lost: the question, or the answer. Ask again.
    But then two answers may come, and the second one must not pass for the answer to your next
    question."

    "here it drops the late answers"
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
    """The loop takes what comes in time, and does not tell why it ends.

    "iter_received_packets() iterates over the packets that arrive in a given time"

    "0, the default, stands for what has already been received, None for no limit. The loop ends,
    without an exception, at the first OSError: when the time is up, when the client is closed,
    when there is an error to report."
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
    """Have the socket learn that nobody listens, behind the client's back."""
    with socket.socket(fileno=socket.dup(client.socket.fileno())) as sock:
        sock.send(b"anybody there?")


@each_variant
async def test_body_does_not_count(examples: Any) -> None:
    """The loop's body may take its time.

    "The timeout is for all packets together, but only the time spent waiting counts, not what the
    loop's body takes."
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


# What Is Not A Packet


@each_variant
async def test_parse_error(examples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not a packet is skipped.

    "If a datagram is not a packet, recv_packet() raises DatagramProtocolParseError. Its error
    attribute says why. The datagram is gone, and the next one is not concerned"
    """
    async with pair(examples.Client) as (client, peer):
        peer.send(b"\xff\xfe", b"hello")
        assert await call(examples.receive_text, client) == "hello"
    assert capsys.readouterr().out.startswith("Skipped what is not text: 'utf-8' codec can't")


@each_variant
async def test_parse_error_in_loop(examples: Any) -> None:
    """A loop can be begun again.

    "iter_received_packets() raises it, too, which ends your loop. Another loop, over the same
    iterator or a new one, goes on."
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
    """A bug in a converter has its own error, and ends nothing.

    "A serializer or converter that fails in a way it should not is reported as a
    ProtocolCrashedError, a subclass of RuntimeError, and its own exception is the __cause__. That
    goes for send_packet() as well, and then nothing was sent."
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


# What Errors Mean


@each_variant
async def test_refused(examples: Any) -> None:
    """That nobody listens is news of an earlier datagram, and the end of nothing.

    "An OSError says something about one datagram. It does not end anything: you may go on with the
    same client."

    "Nobody listens at that port. It is the answer of the other host to an earlier datagram, and
    whichever operation comes next raises it, recv_packet() as well. If that is send_packet(), its
    own packet may not have been sent. (On your own machine, the answer is there at once, so that it
    is about this very packet.)"
    """
    with server() as peer:
        pass
    async with open_client(examples.Client, peer.address, PROTOCOL) as client:
        refused = "nobody listens at that port, or nobody did before"
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
    """A datagram has a limit.

    "The packet is too long for a datagram, and was not sent. The limit is 65,507 bytes over IPv4,
    and 20 bytes more over IPv6."
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


# Close The Client


@each_variant
async def test_closed(examples: Any) -> None:
    """Closing wakes up who waits, and nothing works any more.

    "The server is not told: UDP does not know that a client goes."

    "Closing is final. If you wait for a packet meanwhile, or use the client later,
    ClientClosedError is raised. It is a ConnectionError, and so an OSError. You may close a client
    several times."
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


@each_variant
async def test_leave(examples: Any) -> None:
    """The end of the block is the end of the client.

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
    """A client that nobody closes complains.

    "If you forget to, you get a ResourceWarning."
    """
    with server() as peer:
        address = peer.address
        assert await warns_when_forgotten(examples.Client, PROTOCOL, address, lambda: None)


# Several Threads, Several Tasks


@each_variant
async def test_crowd(examples: Any) -> None:
    """Many may use one client.

    "All methods may be called by any thread, at any time."

    "One may receive while another one sends. Several may send at once, and several may receive at
    once: each packet goes to one of them."
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


# Addresses And Socket Options


@each_variant
async def test_make_room(examples: Any) -> None:
    """A larger burst fits.

    "The socket attribute gives access to the options of the socket, but not to its data. What you
    have not received yet, the operating system keeps. When it has no more room, it drops datagrams
    without telling anybody. If answers come in bursts, make room"

    "The operating system may give you less than you ask for."
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
    """A thread that sends does not keep others from the socket's options.

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
    """What is not connected has no socket and no addresses.

    "Before the client is connected, socket raises AttributeError, and the addresses raise
    OSError."
    """
    client = AsyncUDPNetworkClient(("127.0.0.1", 9000), PROTOCOL)
    with pytest.raises(AttributeError):
        client.socket.fileno()
    for get_address in client.get_local_address, client.get_remote_address:
        with pytest.raises(OSError, match="not connected"):
            get_address()
