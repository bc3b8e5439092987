"""Test details of the page about TCP clients, each with one kind of client, mostly in memory.

The rest of the page is in `test_howto_tcp_clients`, which explains the quotations.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import select
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.tcp_clients import asynchronous, blocking
from easynetwork import clients
from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.exceptions import ProtocolCrashedError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers.framing import AutoSeparatedPacketSerializer
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from easynetwork.testing import serve
from tests.clients.threads_support import InThread, wait_until
from tests.clients.unix_support import fill
from tests.docs.client_support import silent
from tests.docs.howto_support import DOCS, check_quotations
from tests.docs.virtual_support import LINES, Client, FragileSerializer, virtual
from tests.times import SOON
from tests.tls_peers import TLSSocket, authority, client_context, server_context

YEAR = 366 * 24 * 3600
PROTOCOL: StreamProtocol[str, str] = blocking.protocol


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/tcp_clients.rst", globals())


class Echo(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        await client.send_packet((yield))


@contextlib.contextmanager
def connected(
    protocol: Any = PROTOCOL, *, room: int | None = None, **options: Any
) -> Iterator[tuple[Any, socket.socket]]:
    """Connect a blocking client to a socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if room is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        with TCPNetworkClient[Any, Any](listener.getsockname(), protocol, **options) as client:
            with listener.accept()[0] as peer:
                yield client, peer


# Introduction


def test_two_clients() -> None:
    """The package has two classes for it.

    "There are two clients for TCP"
    """
    found = [name for name in dir(clients) if "TCP" in name]
    assert sorted(found) == ["AsyncTCPNetworkClient", "TCPNetworkClient"]


def test_without_a_framework() -> None:
    """A blocking client works where no event loop runs, with two threads.

    "It is for programs without async, with one thread or many."
    """
    with connected() as (client, peer):
        receiver = InThread(client.recv_packet).waits_for_socket()
        client.send_packet("hello")
        assert peer.recv(100) == b"hello\n"
        peer.sendall(b"bye\n")
        assert receiver.result() == "bye"


@pytest.mark.anyio
async def test_each_framework() -> None:
    """A task waits for a packet, and another one makes it come.

    "It runs on every asynchronous framework. While one task waits, other tasks run."
    """
    received: list[str] = []

    async def receive() -> None:
        received.append(await client.recv_packet())

    async with serve(Echo(), LINES) as served:
        client = await served.connect()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            assert received == []
            await client.send_packet("hello")
    assert received == ["hello"]


@pytest.mark.parametrize("examples", [blocking, asynchronous])
def test_shared_protocol(examples: Any) -> None:
    """The protocol object of a module is that of all its functions.

    "The functions are in blocking.py and asynchronous.py, with all imports."

    "All functions of a module share a protocol object, and Client is an alias for a client that
    sends and receives text"
    """
    uses = [name for name, value in vars(examples).items() if isinstance(value, StreamProtocol)]
    assert uses == ["protocol"]
    assert inspect.getsource(examples).count("StreamProtocol(") == 1
    assert examples.Client.__origin__ in (TCPNetworkClient, AsyncTCPNetworkClient)
    assert examples.Client.__args__ == (str, str)
    page = (DOCS / "howto/tcp_clients.rst").read_text(encoding="utf-8")
    name = examples.__name__.rpartition(".")[2]
    shown = re.findall(rf"/{name}\.py\n +:pyobject: (\w+)", page)
    assert len(shown) > 10
    assert set(shown) <= vars(examples).keys()


# Creating a client


@pytest.mark.parametrize("client_class", [TCPNetworkClient, AsyncTCPNetworkClient])
def test_arguments(client_class: Any) -> None:
    """All others have a default.

    "A client needs the address of the server and a protocol object"

    "Only the first two arguments are required."
    """
    parameters = list(inspect.signature(client_class).parameters.values())
    required = [each.name for each in parameters if each.default is inspect.Parameter.empty]
    assert required == ["address", "protocol"] == [each.name for each in parameters[:2]]
    with pytest.raises(TypeError):
        client_class(("127.0.0.1", 9000))


def test_name_or_number() -> None:
    """Both lead to the same server.

    "The address is a host and a port. The host can be a name or a numeric address."

    "It is seldom needed: by default, the operating system chooses the address."
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for host in "localhost", "127.0.0.1":
            with TCPNetworkClient((host, port), PROTOCOL) as client, listener.accept()[0] as peer:
                assert client.get_remote_address() == ("127.0.0.1", port)
                assert client.get_local_address() == peer.getpeername()
                assert client.get_local_address().port != 0


def test_time_to_connect() -> None:
    """The server does not respond, and each way to wait for it ends.

    "To limit the time, put wait_connected(), or the whole async with, into a timeout of your
    framework."
    """

    async def main() -> None:
        with silent() as address:
            client = AsyncTCPNetworkClient(address, PROTOCOL)
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.01):
                    await client.wait_connected()
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.01):
                    async with client:
                        pass
            await client.aclose()

    anyio.run(main)


def test_options_of_the_socket() -> None:
    """An option that is set before the socket connects is still set.

    "Instead of an address, you can pass a connected TCP socket, for example one that needs special
    options before it connects"
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        sock.connect(listener.getsockname())
        with TCPNetworkClient(sock, PROTOCOL) as client, listener.accept()[0] as peer:
            assert client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == size
            client.send_packet("hello")
            assert peer.recv(100) == b"hello\n"


# Encrypting the connection


@virtual
async def test_both_use_tls() -> None:
    """A client without TLS gets nothing from a server with TLS.

    "If the server uses TLS, the client must use it, too."
    """
    async with serve(Echo(), LINES, ssl=server_context()) as served:
        client = await served.connect()
        await client.send_packet("hello")
        with pytest.raises(ConnectionError):
            await client.recv_packet()
        client = await served.connect(ssl=client_context(), server_hostname="localhost")
        await client.send_packet("hello")
        assert await client.recv_packet() == "hello"


@virtual
async def test_certificate_of_the_client() -> None:
    """The server requires a certificate, and the context has one.

    "If the server requires a certificate from its clients, load it into the same context, as shown
    in tcp_servers."
    """
    demanding = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert("localhost").configure_cert(demanding)
    authority().configure_trust(demanding)
    demanding.verify_mode = ssl.CERT_REQUIRED
    context = ssl.create_default_context()
    authority().configure_trust(context)
    async with serve(Echo(), LINES, ssl=demanding) as served:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client = await served.connect(ssl=context, server_hostname="localhost")
            await client.send_packet("hello")
            await client.recv_packet()
        authority().issue_cert("zoe@example.com").configure_cert(context)
        client = await served.connect(ssl=context, server_hostname="localhost")
        await client.send_packet("hello")
        assert await client.recv_packet() == "hello"


# Reconnecting


@virtual
async def test_lost_while_disconnected() -> None:
    """A server sends its news to all clients.

    "Packets that the server sends while the client is not connected are lost."
    """
    async with serve(Echo(), LINES) as served:

        async def publish(news: str) -> None:
            for each in served.server.get_clients():
                await each.send_packet(news)
            await anyio.wait_all_tasks_blocked()

        client = await served.connect()
        await anyio.wait_all_tasks_blocked()
        await publish("first")
        assert await client.recv_packet() == "first"
        await client.aclose()
        await anyio.wait_all_tasks_blocked()
        await publish("second")
        client = await served.connect()
        await anyio.wait_all_tasks_blocked()
        await publish("third")
        assert await client.recv_packet() == "third"


def test_server_that_disappears() -> None:
    """The client has no limit of its own, and leaves those of the operating system as they are.

    "If the server disappears without closing the connection, for example because its host loses
    power, the client does not notice this for hours: on Linux, for more than two hours by default."

    "To detect this earlier, set the options of probe_when_idle() before the inner loop."
    """
    names = "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"

    def options(sock: Any) -> list[int]:
        return [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]

    with connected() as (client, _):
        assert client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        with socket.socket() as fresh:
            idle, interval, count = usual = options(fresh)
        assert options(client.socket) == usual
        if usual == [7200, 75, 9]:  # of Linux, unless this system has others
            assert 2 * 3600 < idle + interval * count < 3 * 3600
        blocking.probe_when_idle(client)
        idle, interval, count = options(client.socket)
        assert idle + interval * count == 90


@virtual
async def test_silence() -> None:
    """Nor does an asynchronous client have one.

    "the client does not notice this for hours"
    """
    async with serve(Echo(), LINES) as served:
        client = await served.connect()
        with anyio.move_on_after(YEAR) as scope:
            await client.recv_packet()
        assert scope.cancelled_caught


# Sending and receiving


@virtual
async def test_send_and_receive() -> None:
    """All packets go over the connection that was made first.

    "A client sends packets over one connection and receives packets from it."

    "recv_packet() waits for a packet and returns it."
    """

    class Slow(Echo):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            request = yield
            await anyio.sleep(60)
            await client.send_packet(request)

    async with serve(Slow(), LINES) as served:
        client = await served.connect()
        for text in "one", "two":
            await client.send_packet(text)
            start = anyio.current_time()
            assert await client.recv_packet() == text
            assert anyio.current_time() - start == pytest.approx(60)
        assert served.server.get_statistics().accepted == 1


def test_sent_is_not_received() -> None:
    """The peer resets the connection before it has read anything.

    "When send_packet() returns, the server may not have received the packet yet. Only a response
    shows that it has."
    """
    with connected() as (client, peer):
        client.send_packet("hello")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        with pytest.raises(ConnectionAbortedError):
            client.recv_packet()


def test_timeout_argument() -> None:
    """It is what the methods of the other client do not have.

    "Both methods have a timeout argument"

    "Use a timeout of your framework"
    """
    for client_class, has_one in (TCPNetworkClient, True), (AsyncTCPNetworkClient, False):
        for method in client_class.send_packet, client_class.recv_packet:
            assert ("timeout" in inspect.signature(method).parameters) is has_one


@contextlib.contextmanager
def congested(*, tls: bool) -> Iterator[Any]:
    """Connect a blocking client whose socket has no room for anything to send."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.connect(listener.getsockname())
        with listener.accept()[0] as peer:
            options: dict[str, Any] = {}
            if tls:
                handshake = InThread(TLSSocket(peer, server_context(), None).do_handshake)
                options = {"ssl": client_context(), "server_hostname": "localhost"}
            client = TCPNetworkClient[str, str](sock, PROTOCOL, **options)
            if tls:
                handshake.result()
            while select.select([], [client], [], 0.05)[1]:
                fill(client, b"x" * 1000)
            try:
                yield client
            finally:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                peer.close()
                client.close()


@contextlib.contextmanager
def interrupted(
    function: str, error: type[BaseException], outcome: type[BaseException] | None = None
) -> Iterator[None]:
    """Raise an exception in a signal handler when this thread is in a function.

    Args:
        function: Its name.
        error: What is raised.
        outcome: What leaves the block; the same by default.
    """

    def handle(*_: Any) -> None:
        raise error

    def strike() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        wait_until(lambda: sys._current_frames()[thread].f_code.co_name == function)
        signal.pthread_kill(thread, signal.SIGALRM)

    thread = threading.get_ident()
    before = signal.signal(signal.SIGALRM, handle)
    try:
        with pytest.raises(outcome or error):
            striker = InThread(strike)
            yield
        striker.result()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_part_of_a_packet() -> None:
    """A small packet is not sent at all, a large one is sent in part.

    "If send_packet() times out, it may have sent a part of its packet. Then no other packet can
    follow, because the server would read it as the rest of the first packet, so every further
    send_packet() raises ConnectionAbortedError. If nothing has been sent, you can try again."
    """
    with congested(tls=False) as client:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                client.send_packet("small", timeout=0)
    with connected(room=4096) as (client, peer):
        with pytest.raises(TimeoutError):
            client.send_packet("x" * 10_000_000, timeout=0.01)
        for _ in range(2):
            with pytest.raises(ConnectionAbortedError):
                client.send_packet("small")
        peer.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_interrupted_sending(tls: bool) -> None:
    """There is no room for a small packet, but TLS has encrypted it before it is known.

    "With TLS, a packet that has been encrypted counts as sent."

    "The same applies if Control-C, or another exception of a signal handler, interrupts
    send_packet()."
    """
    with congested(tls=tls) as client:
        with interrupted("select", KeyboardInterrupt):
            client.send_packet("small")
        with pytest.raises(ConnectionAbortedError if tls else TimeoutError):
            client.send_packet("small", timeout=0)


class AlarmError(Exception):
    """Another exception of a signal handler."""


class SlowSerializer(AutoSeparatedPacketSerializer[bytes, bytes]):
    """Works on the first packet for as long as it takes to be interrupted."""

    __slots__ = ("is_interrupted",)

    def __init__(self) -> None:
        super().__init__(b"\n")
        self.is_interrupted = False

    def serialize(self, packet: bytes) -> bytes:
        return packet

    def deserialize(self, data: bytes) -> bytes:
        try:
            while not self.is_interrupted:
                time.sleep(0.001)
        finally:
            self.is_interrupted = True
        return data


class SlowGenerator(SlowSerializer):
    """Does the same in a generator, which cannot go on after an exception."""

    __slots__ = ()

    def incremental_deserialize(self) -> Any:
        return (yield from super().incremental_deserialize())


def test_interrupted_receiving() -> None:
    """Each exception arrives while the serializer works. Frames can be deserialized again.

    "If such an exception interrupts recv_packet() while it reads or parses data, the data may be
    lost. Then every further recv_packet() raises ConnectionAbortedError. Derive the exception of a
    signal handler from BaseException, like KeyboardInterrupt: an Exception that is raised in the
    serializer counts as an error of the serializer, and one packet is lost."
    """
    for serializer in SlowSerializer(), SlowGenerator():
        with connected(StreamProtocol(serializer)) as (client, peer):
            peer.sendall(b"slow\nhello\n")
            with interrupted("deserialize", KeyboardInterrupt):
                client.recv_packet()
            if type(serializer) is SlowSerializer:
                assert [client.recv_packet(), client.recv_packet()] == [b"slow", b"hello"]
            else:
                for _ in range(2):
                    with pytest.raises(ConnectionAbortedError):
                        client.recv_packet()
    with connected(StreamProtocol(SlowSerializer())) as (client, peer):
        peer.sendall(b"slow\nhello\n")
        with interrupted("deserialize", AlarmError, ProtocolCrashedError):
            client.recv_packet()
        assert client.recv_packet() == b"hello"


def test_order_of_except_clauses() -> None:
    """The first clause that fits is chosen.

    "TimeoutError is a subclass of OSError. If you catch both, put except TimeoutError first."
    """
    with connected() as (client, _):
        for first, second in (OSError, TimeoutError), (TimeoutError, OSError):
            try:
                client.recv_packet(timeout=0)
            except first:
                chosen = first
            except second:
                chosen = second
            assert chosen is first


def test_error_in_the_serializer() -> None:
    """Nothing of what follows is received.

    "After an error in the serializer, the client may discard all further data, because it cannot
    find the beginning of the next packet."
    """
    protocol: StreamProtocol[bytes, bytes] = StreamProtocol(FragileSerializer())
    with connected(protocol) as (client, peer):
        peer.sendall(b"good")
        assert client.recv_packet() == b"good"
        peer.sendall(b"trap")
        with pytest.raises(ProtocolCrashedError):
            client.recv_packet()
        peer.sendall(b"good")
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0.02)


# Closing


def test_close_waits_for_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's system has no room for all data until the server reads.

    "On Linux, a blocking client then also waits until the server's operating system has
    acknowledged all data."
    """
    monkeypatch.setattr("easynetwork.clients._waiting.LINGER_TIME", 0.001)
    with connected(room=4096) as (client, peer):
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
        client.send_packet("x" * 100_000)
        peer.sendall(b"news\n")
        closer = InThread(client.close).waits_in("select")
        time.sleep(SOON)
        assert closer.is_waiting()
        while peer.recv(100_000)[-1:] != b"\n":
            pass
        closer.result()


@pytest.mark.parametrize(("options", "seconds"), [({}, 30), ({"ssl_shutdown_timeout": 5}, 5)])
@virtual
async def test_time_to_close_tls(options: dict[str, Any], seconds: float) -> None:
    """The server does not read.

    "With TLS, ssl_shutdown_timeout replaces the limit of 30 seconds."
    """

    class Deaf(Echo):
        async def on_connection(self, client: Client) -> None:
            await anyio.sleep(1000)

    async with serve(Deaf(), LINES, ssl=server_context()) as served:
        tls: dict[str, Any] = {"ssl": client_context(), "server_hostname": "localhost"}
        client = await served.connect(**tls, **options)
        with anyio.move_on_after(1):
            await client.send_packet("x" * 1_000_000)
        start = anyio.current_time()
        await client.aclose()
        assert anyio.current_time() - start == pytest.approx(seconds, abs=1.1)


# Sharing a client


@virtual
async def test_own_responses() -> None:
    """Two tasks ask at the same time; without a lock, the wrong one gets the first response.

    "But nothing in a packet says which request it responds to. If each thread or task must get the
    responses to its own requests, hold a lock from the request to the response, or use a separate
    client for each thread or task."
    """

    async def ask(client: Any, lock: Any, name: str, pause: float) -> None:
        async with lock:
            await client.send_packet(name)
            await anyio.sleep(pause)
            responses[name] = await client.recv_packet()

    async with serve(Echo(), LINES) as served:
        shared = await served.connect()
        for client_of, lock, is_right in (
            ((shared, shared), contextlib.nullcontext(), False),
            ((shared, shared), anyio.Lock(), True),
            ((await served.connect(), await served.connect()), contextlib.nullcontext(), True),
        ):
            responses: dict[str, str] = {}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, client_of[0], lock, "one", 1.0)
                tasks.start_soon(ask, client_of[1], lock, "two", 0.5)
            assert (responses == {"one": "one", "two": "two"}) is is_right
