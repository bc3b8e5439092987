"""The how-to page for TCP clients: what it says of its examples is what they do.

What stands in quotation marks in a docstring is what the page says, word for word (the first test
sees to that), and the test would fail if it were wrong. The functions are the page's.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import sniffio

from docs._include.examples.howto.tcp_clients import (
    asynchronous,
    blocking,
    simple_client_asyncio,
    simple_client_blocking,
    simple_client_trio,
)
from docs._include.examples.howto.tcp_servers.simple_request_handler import GreetingRequestHandler
from easynetwork._tuning import CLOSE_TIMEOUT
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.exceptions import (
    ClientClosedError,
    EndOfStreamError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from tests.clients.threads_support import InThread
from tests.docs.client_support import (
    call,
    close,
    deaf,
    is_blocking,
    open_client,
    packets,
    pair,
    program,
    receive,
    silent,
    variants,
    warns_when_forgotten,
)
from tests.docs.howto_support import (
    Lines,
    Peer,
    check_quotations,
    in_thread,
    serving,
    until,
)
from tests.times import PATIENCE
from tests.tls_peers import new_client_context, new_server_context

pytestmark = pytest.mark.anyio

each_variant = variants(blocking, asynchronous)
only_blocking = pytest.mark.parametrize("anyio_backend", ["asyncio"])

PROTOCOL: StreamProtocol[str, str] = blocking.protocol


def test_quotations() -> None:
    """The page says what the tests quote; each test quotes something."""
    check_quotations("howto/tcp_clients.rst", globals())


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets the addresses of every host, in the resolver's order."""

    def set_addresses(*addresses: tuple[Any, ...]) -> None:
        infos = [
            (
                socket.AF_INET6 if ":" in address[0] else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                address,
            )
            for address in addresses
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: infos)

    return set_addresses


# Introduction


@each_variant
async def test_program(
    examples: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The whole program is greeted, and leaves.

    "It sends a name to the server of tcp_servers, and prints the greeting"

    "The first highlighted line connects, and disconnects at the end of the block. The program
    prints Hello, Zoë!."
    """
    caplog.set_level(logging.INFO, "easynetwork")
    variant = program(
        simple_client_blocking, simple_client_asyncio, simple_client_trio, examples=examples
    )
    async with serving(GreetingRequestHandler()) as server:
        await call(variant.main, *server.get_addresses()[0])
        assert capsys.readouterr().out == "Hello, Zoë!\n"
        await until(lambda: "disconnected" in caplog.text)


# Make A Client


@each_variant
async def test_make_client(examples: Any) -> None:
    """The client comes from where it is told to.

    "local_address is the address that the connection comes from."

    "get_local_address() and get_remote_address() return the two ends of the connection, with a
    host and a port."
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = await call(examples.make_client, *listener.getsockname())
        sock, address = listener.accept()
        with sock:
            assert client.get_local_address() == address
            assert client.get_local_address().host == "127.0.0.1"
            assert client.get_remote_address().port == listener.getsockname()[1]
        await close(client)


@only_blocking
async def test_blocking_connects_at_once() -> None:
    """The constructor of a blocking client connects.

    "The constructor connects, and blocks until the client is connected."

    "A blocking client always has a connection"
    """
    with deaf() as sock, pytest.raises(ConnectionRefusedError):
        blocking.Client(sock.getsockname(), PROTOCOL)


async def test_async_connects_later() -> None:
    """An asynchronous client connects when it is told to, or when it has to.

    "The constructor does not use the network. async with, wait_connected(), or the first operation
    that needs the connection connects the client. Tasks that need it at the same time share one
    attempt."
    """
    with deaf() as listener:
        client = AsyncTCPNetworkClient(listener.getsockname(), PROTOCOL)
        listener.listen()
        listener.setblocking(False)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(client.send_packet, "one")
            task_group.start_soon(client.send_packet, "two")
        assert client.is_connected()
        with listener.accept()[0], pytest.raises(BlockingIOError):
            listener.accept()
        await client.aclose()
        async with AsyncTCPNetworkClient(listener.getsockname(), PROTOCOL) as client:
            assert client.is_connected()


def test_backend() -> None:
    """A client must know its framework from the beginning.

    "The client uses the framework of the coroutine that creates it. Outside coroutines, name one
    with the backend argument."
    """
    address = ("127.0.0.1", 9000)
    with pytest.raises(anyio.NoEventLoopError):
        AsyncTCPNetworkClient(address, PROTOCOL)
    assert AsyncTCPNetworkClient(address, PROTOCOL, "trio").backend().name == "trio"


@each_variant
async def test_order_of_addresses(examples: Any, resolver: Any) -> None:
    """Families alternate.

    "If a name has several addresses, the client tries them in turn, IPv6 and IPv4 alternately,
    beginning with IPv6, until one responds"
    """
    with deaf() as one, deaf() as other:
        ports = one.getsockname()[1], other.getsockname()[1]
        addresses = [(host, port) for port in ports for host in ("::1", "127.0.0.1")]
        resolver(*sorted(addresses, key=lambda address: address[0]))
        with pytest.raises(OSError, match="cannot connect to 'example'") as caught:
            async with open_client(examples.Client, ("example", 80), PROTOCOL):
                pass
        assert isinstance(caught.value.__cause__, ExceptionGroup)
        for error, address in zip(caught.value.__cause__.exceptions, addresses, strict=True):
            assert str(address) in str(error)


@only_blocking
async def test_connect_timeout(resolver: Any) -> None:
    """A thread waits for each address.

    "The client tries the next address when the previous one has failed."

    "It applies to each address, and does not include the time to look up the name."
    """
    with silent() as one, silent() as other, socket.create_server(("127.0.0.1", 0)) as listener:
        resolver(one, other, listener.getsockname())
        start = time.monotonic()
        client = await in_thread(
            lambda: blocking.Client(("example", 80), PROTOCOL, connect_timeout=0.1)
        )
        assert time.monotonic() - start >= 0.2
        assert client.get_remote_address() == listener.getsockname()
        client.close()


async def test_happy_eyeballs(resolver: Any) -> None:
    """A task tries the next address before the first one has failed.

    "the client tries the next address after 0.25 seconds, or at once if the previous one has
    failed, while earlier attempts continue. The first attempt that succeeds wins."

    "Use happy_eyeballs_delay to change the delay; with math.inf, the client tries one address after
    the other."

    "client.backend().timeout() works on every framework."
    """

    async def time_to_connect(delay: float | None, limit: float = PATIENCE) -> float:
        client = AsyncTCPNetworkClient(("example", 80), PROTOCOL, happy_eyeballs_delay=delay)
        start = anyio.current_time()
        try:
            with client.backend().timeout(limit):
                await client.wait_connected()
            assert client.get_remote_address() == listener.getsockname()
            return anyio.current_time() - start
        finally:
            await client.aclose()

    with silent() as address, deaf() as sock, socket.create_server(("127.0.0.1", 0)) as listener:
        resolver(address, listener.getsockname())
        assert await time_to_connect(None) >= 0.25
        assert 0.01 <= await time_to_connect(0.01) < 0.25
        with pytest.raises(TimeoutError):
            await time_to_connect(math.inf, limit=0.3)
        resolver(sock.getsockname(), listener.getsockname())
        assert await time_to_connect(math.inf) < 0.25


# Take Over A Socket


@each_variant
async def test_take_over(examples: Any) -> None:
    """A connected socket will do, and is closed in any case.

    "Instead of an address, you can pass a connected TCP socket"

    "The client takes over the socket and closes it, even if the constructor fails. A socket that is
    not connected raises OSError. An ssl.SSLSocket raises TypeError."
    """
    async with serving(GreetingRequestHandler()) as server:
        sock = socket.create_connection(server.get_addresses()[0])
        assert await call(examples.greet_over, sock) == "Hello, Zoë!"
        assert sock.fileno() == -1
    sock = socket.socket()
    with pytest.raises(OSError, match="not connected"):
        await call(examples.greet_over, sock)
    assert sock.fileno() == -1
    with_tls = ssl.create_default_context().wrap_socket(socket.socket(), server_hostname="example")
    with pytest.raises(TypeError):
        await call(examples.greet_over, with_tls)
    assert with_tls.fileno() == -1


# Encrypt The Connection


@each_variant
async def test_encrypt(examples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client trusts the system's authorities, and no others.

    "The client trusts the authorities that the operating system trusts. If the server cannot prove
    that it is the host you asked for, connecting raises ssl.SSLCertVerificationError."

    "server_hostname is the name that the certificate must have, if it differs from the host in the
    address."

    "A connected socket has no host name, so server_hostname is required."
    """
    context = new_client_context()
    async with serving(GreetingRequestHandler(), ssl=new_server_context()) as server:
        port = server.get_addresses()[0].port
        with pytest.raises(ssl.SSLCertVerificationError):
            await call(examples.greet_in_private, "localhost", port)
        monkeypatch.setattr(ssl, "create_default_context", lambda: context)
        assert await call(examples.greet_in_private, "localhost", port) == "Hello, Zoë!"
        options = {"ssl": True, "server_hostname": "example.com"}
        with pytest.raises(ssl.SSLCertVerificationError, match="example.com"):
            async with open_client(
                examples.Client.__origin__, ("localhost", port), PROTOCOL, **options
            ):
                pass
        sock = socket.create_connection(("127.0.0.1", port))
        with pytest.raises(ValueError, match="must set server_hostname"):
            async with open_client(examples.Client.__origin__, sock, PROTOCOL, ssl=True):
                pass


# When It Cannot Connect


@each_variant
async def test_status(examples: Any) -> None:
    """Each way to fail has its class.

    "If the client cannot connect, it raises an OSError, whose class says why"

    "No server listens at that port."

    "The name cannot be resolved: the host does not exist, or no DNS server responded."

    "The host did not respond."

    "For example, there is no route to the host. Put this clause last: the other classes are
    subclasses of OSError."
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert await call(examples.status, *listener.getsockname()) == "up"
    with deaf() as sock:
        assert await call(examples.status, *sock.getsockname()) == "nobody listens at that port"
    assert await call(examples.status, "nowhere.invalid", 80) == "there is no such host"
    with silent() as address:
        assert await call(examples.status, *address, patience=0.01) == "no answer"
    outcome = await call(examples.status, "255.255.255.255", 80)
    assert outcome.startswith("out of reach: ")
    for kind in ConnectionRefusedError, socket.gaierror, TimeoutError:
        assert issubclass(kind, OSError)


@each_variant
async def test_reasons(examples: Any, resolver: Any) -> None:
    """One error stands for all.

    "If all addresses of a host failed in the same way, the error has that class. Otherwise, it is
    an OSError that lists the reasons. The __cause__ is an ExceptionGroup with the error of each
    address."
    """

    async def reason(*addresses: tuple[Any, ...]) -> OSError:
        resolver(*addresses)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the test looks at what it is
            async with open_client(examples.Client, ("example", 80), PROTOCOL):
                pass
        assert isinstance(caught.value.__cause__, ExceptionGroup)
        assert len(caught.value.__cause__.exceptions) == len(addresses)
        return caught.value

    with deaf() as one, deaf() as other:
        refused = await reason(one.getsockname(), other.getsockname())
        assert type(refused) is ConnectionRefusedError
        mixed = await reason(one.getsockname(), ("255.255.255.255", 80))
        assert type(mixed) is OSError
        assert all(host in str(mixed) for host in ("127.0.0.1", "255.255.255.255"))


# Try Again


@each_variant
async def test_try_again(examples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that comes up in time is reached.

    "A server that is restarting refuses connections for a moment. Wait longer after each attempt,
    and do not catch the error of the last one"

    "After a failed attempt, call wait_connected() again."
    """
    with deaf() as sock:

        def delays() -> Iterator[float]:
            yield 0.0
            yield 0.0
            sock.listen()
            yield 0.0

        host, port = sock.getsockname()
        with pytest.raises(ConnectionRefusedError):
            await call(examples.connect_patiently, host, port, delays=[0.0])
        line = f"cannot connect to '{host}', port {port}: Connection refused. Next attempt in 0.0"
        assert line in capsys.readouterr().out
        client = await call(examples.connect_patiently, host, port, delays=delays())
        assert capsys.readouterr().out.count("\n") == 2
        await close(client)


# Sending And Receiving


@each_variant
async def test_packets(examples: Any) -> None:
    """Packets are whole and in order, however they arrive.

    "A packet is received whole or not at all, and packets arrive in the order in which they were
    sent."
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        await call(client.send_packet, "one")
        await call(client.send_packet, "two")
        assert [await peer.receive(), await peer.receive()] == ["one", "two"]
        await peer.send_bytes(b"three\nfo")
        assert await receive(client) == "three"
        with pytest.raises(TimeoutError):
            await receive(client, timeout=0.01)
        await peer.send_bytes(b"ur\nfive\n")
        assert [await receive(client), await receive(client)] == ["four", "five"]


async def test_async_send() -> None:
    """A task that sends waits only if much is waiting.

    "usually returns at once: bytes that the operating system does not take yet are sent in the
    background. While more than 64 KiB wait to be sent, send_packet() waits as well: first for its
    turn, in the order of the calls, and then, after it has handed over its packet, until the server
    has read enough."
    """
    packet = "x" * 60_000
    async with narrow_pair(AsyncTCPNetworkClient) as (client, peer):
        with anyio.move_on_after(5) as in_background:
            await client.send_packet(packet)
        assert not in_background.cancelled_caught
        with anyio.move_on_after(0.05) as waiting:
            for _ in range(10):
                await client.send_packet(packet)
        assert waiting.cancelled_caught
        assert await peer.receive() == packet
        await read_all(client, peer)


async def test_async_cancelled_send() -> None:
    """Whatever cancels a task that sends, packets are whole, and the client goes on.

    "A send_packet() that is cancelled sends its whole packet or nothing. If it is cancelled before
    its turn, it has sent nothing. If it is cancelled after its turn, it still sends its packet. In
    both cases, you can still use the client."
    """
    long = "x" * 1_000_000
    async with narrow_pair(AsyncTCPNetworkClient) as (client, peer):
        for packet in long, "before its turn", "again before its turn":
            with anyio.move_on_after(0.02) as scope:
                await client.send_packet(packet)
            assert scope.cancelled_caught
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(client.send_packet, "in its turn")
            assert await peer.receive() == long
            assert await peer.receive() == "in its turn"


@contextlib.asynccontextmanager
async def narrow_pair(client_class: Any) -> AsyncIterator[tuple[Any, Peer]]:
    """Connect a client to a peer; little fits on the way between them."""
    async with pair(client_class, PROTOCOL, room=4096) as (client, peer):
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        yield client, peer


async def read_all(client: Any, peer: Peer) -> str:
    """Close a client; return how the connection ends for the peer, who reads to the end."""
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(close, client)
        ending = await peer.ending()
    return ending


class Text(SimpleNamespace):
    """A packet for the converter of the tests, which fails with anything else."""


@each_variant
async def test_crash(examples: Any) -> None:
    """A bug in a converter has its own error, and ends nothing.

    "If the protocol object cannot encode a packet, ProtocolCrashedError is raised, a subclass of
    RuntimeError. Its __cause__ is the original exception. Nothing has been sent, and the client can
    still be used."

    "If a serializer or converter raises an unexpected exception, recv_packet() raises
    ProtocolCrashedError, a subclass of RuntimeError. The __cause__ is the original exception."
    """
    assert issubclass(ProtocolCrashedError, RuntimeError)
    protocol: Any = StreamProtocol(StringLineSerializer(), Lines(str))
    async with pair(examples.Client, protocol) as (client, peer):
        with pytest.raises(ProtocolCrashedError) as caught:
            await call(client.send_packet, "not a Text")
        assert isinstance(caught.value.__cause__, AttributeError)
        await call(client.send_packet, Text(text="hello"))
        assert await peer.receive() == "Text hello"
        await peer.send("trap", "hello")
        with pytest.raises(ProtocolCrashedError) as caught:
            await receive(client)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert await receive(client) == "hello"


# Time-outs


@each_variant
async def test_time_out(examples: Any) -> None:
    """A timeout loses no data.

    "A recv_packet() that times out loses nothing: if a part of a packet has arrived, the next call
    waits for the rest."
    """
    own = "" if is_blocking(examples.Client) else f"_{sniffio.current_async_library()}"
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        for name in {"wait_for_news", f"wait_for_news{own}"}:
            wait_for_news = getattr(examples, name)
            await peer.send_bytes(b"hel")
            assert await call(wait_for_news, client, patience=0.02) == "no news"
            await peer.send_bytes(b"lo\n")
            assert await call(wait_for_news, client) == "hello"


@only_blocking
async def test_blocking_time_out() -> None:
    """The argument limits everything that the call waits for.

    "It is the number of seconds for the whole packet, and includes the time spent waiting for other
    threads. 0 does not wait. None, the default, sets no limit."
    """
    async with pair(blocking.Client, PROTOCOL) as (client, peer):
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0)
        other = InThread(client.recv_packet).waits_in("select")
        with pytest.raises(TimeoutError):
            await in_thread(lambda: client.recv_packet(timeout=0.02))
        await peer.send("hello")
        assert other.result() == "hello"


@only_blocking
async def test_blocking_torn_packet() -> None:
    """A packet that was sent in part is the last one.

    "every further send_packet() raises ConnectionAbortedError. If nothing has been sent, you can
    try again."

    "send_packet() returns when the operating system has the whole packet. This can take any length
    of time if the server does not read."
    """
    async with narrow_pair(blocking.Client) as (client, peer):
        sender = InThread(client.send_packet, "x" * 1_000_000).waits_in("select")
        with pytest.raises(TimeoutError):
            await in_thread(lambda: client.send_packet("again", timeout=0.02))
        assert await peer.receive() == "x" * 1_000_000
        sender.result()
        client.send_packet("again")
        assert await peer.receive() == "again"
        with pytest.raises(TimeoutError):
            await in_thread(lambda: client.send_packet("x" * 1_000_000, timeout=0.02))
        with pytest.raises(ConnectionAbortedError):
            client.send_packet("after")


async def test_cancelled_close() -> None:
    """Cancelling aclose() resets the connection.

    "After that, or if it is cancelled, the connection is reset, and what was not sent yet is lost."
    """
    async with narrow_pair(AsyncTCPNetworkClient) as (client, peer):
        with anyio.move_on_after(0.02):
            await client.send_packet("x" * 1_000_000)
        with anyio.move_on_after(0.02):
            await client.aclose()
        assert await peer.ending() == "connection reset"


async def test_close_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing does not wait for ever for a peer that does not read.

    "Leaving the async with block calls aclose(). It waits until everything is sent, for 30 seconds
    at most."
    """
    assert CLOSE_TIMEOUT == 30
    monkeypatch.setattr("easynetwork.backends.stream_transport.CLOSE_TIMEOUT", 0.1)
    async with narrow_pair(AsyncTCPNetworkClient) as (client, peer):
        with anyio.fail_after(5):
            async with client:
                with anyio.move_on_after(0.02):
                    await client.send_packet("x" * 1_000_000)
        assert await peer.ending() == "connection reset"


# Several Packets


@each_variant
async def test_several_packets(examples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The loop takes what comes in time.

    "iter_received_packets() iterates over the packets that arrive in a given time"
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        async with anyio.create_task_group() as task_group:

            @task_group.start_soon
            async def answer() -> None:
                assert await peer.receive() == "backlog"
                await peer.send("one", "two")
                peer.socket.shutdown(socket.SHUT_WR)

            await call(examples.print_backlog, client, patience=PATIENCE)
    assert capsys.readouterr().out == "one\ntwo\n"


@each_variant
async def test_already_received(examples: Any) -> None:
    """By default the loop does not wait.

    "0, the default, yields the packets that have already been received. None sets no limit."
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        assert await packets(client) == []
        await peer.send("one", "two")
        assert await packets(client) == ["one", "two"]
        await peer.send("three")
        peer.socket.shutdown(socket.SHUT_WR)
        assert await packets(client, timeout=None) == ["three"]


@each_variant
async def test_body_does_not_count(examples: Any) -> None:
    """The loop's body may take its time.

    "The timeout applies to all packets together. Only the time spent waiting counts, not the time
    spent in the loop's body."

    "You can leave the loop at any time. The next recv_packet() returns the first packet that you
    did not take."
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        await peer.send("one", "two", "three")
        if is_blocking(client):
            for packet in client.iter_received_packets(timeout=0.1):
                time.sleep(0.2)  # noqa: ASYNC251 - nothing else runs
                if packet == "two":
                    break
        else:
            async for packet in client.iter_received_packets(timeout=0.1):
                await anyio.sleep(0.2)
                if packet == "two":
                    break
        assert packet == "two"
        assert await receive(client) == "three"


@each_variant
async def test_end_of_iteration(examples: Any) -> None:
    """The loop does not tell why it ends, the client does.

    "The loop ends without an exception at the first OSError: when the time is up, when the
    connection has ended, or when the client is closed. To know the reason, call recv_packet() with
    a timeout after the loop. It raises the error of a connection that has ended each time."
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        assert await packets(client, timeout=0.01) == []
        with pytest.raises(TimeoutError):
            await receive(client, timeout=0.01)
        peer.close()
        assert await packets(client, timeout=None) == []
        for _ in range(2):
            with pytest.raises(ConnectionAbortedError):
                await receive(client)
        await close(client)
        assert await packets(client, timeout=None) == []
        with pytest.raises(ClientClosedError):
            await receive(client)


# What Is Not A Packet


@each_variant
async def test_parse_error(examples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Invalid packets are skipped.

    "If the received bytes are not a packet, recv_packet() raises StreamProtocolParseError. Its
    error attribute says why. The connection stays open, and the next call continues after the
    invalid packet"
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        await peer.send_bytes(b"\xff\xfe\nhello\n")
        assert await call(examples.receive_text, client) == "hello"
    assert capsys.readouterr().out.startswith("Skipped what is not text: 'utf-8' codec can't")


@each_variant
async def test_parse_error_in_loop(examples: Any) -> None:
    """A loop can be begun again.

    "iter_received_packets() raises this error, too, and the loop ends. A new loop, over the same
    iterator or a new one, continues."
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        await peer.send_bytes(b"\xff\none\n\xff\ntwo\n")
        iterator = client.iter_received_packets(timeout=0.2)
        advance = iterator.__next__ if is_blocking(client) else iterator.__anext__
        with pytest.raises(StreamProtocolParseError):
            await call(advance)
        assert await call(advance) == "one"
        with pytest.raises(StreamProtocolParseError):
            await packets(client)
        assert await packets(client) == ["two"]


# When The Other End Closes


@each_variant
async def test_end(examples: Any) -> None:
    """Packets that came before the end are received before it.

    "After the server has closed the connection, recv_packet() first returns the packets that
    arrived before. Then it raises EndOfStreamError, a subclass of ConnectionAbortedError. A packet
    that has arrived only in part is lost."

    "The client does not close itself: close it."

    "a client cannot connect a second time"
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        await peer.send_bytes(b"one\ntwo\nthr")
        peer.close()
        assert [await receive(client), await receive(client)] == ["one", "two"]
        for _ in range(2):
            with pytest.raises(EndOfStreamError):
                await receive(client)
        assert issubclass(EndOfStreamError, ConnectionAbortedError)
        assert not (client.is_closed() if is_blocking(client) else client.is_closing())
        if not is_blocking(client):
            await client.wait_connected()
            with pytest.raises(ConnectionAbortedError):
                await receive(client)


@each_variant
async def test_reset(examples: Any) -> None:
    """A reset is not the end of the stream.

    "If the connection has ended in another way, for example by a reset, recv_packet() raises
    ConnectionAbortedError itself."
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        peer.reset()
        for _ in range(2):
            with pytest.raises(ConnectionAbortedError) as caught:
                await receive(client)
            assert type(caught.value) is ConnectionAbortedError


@each_variant
async def test_send_to_nobody(examples: Any) -> None:
    """Sending raises an error after the end, but not at once.

    "The first calls of send_packet() after the end may seem to succeed. Later calls raise
    ConnectionAbortedError, for every error of the operating system. The original error is the
    __cause__."
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        peer.close()
        await call(client.send_packet, "into the void")
        with pytest.raises(ConnectionAbortedError) as caught:
            while True:
                await call(client.send_packet, "hello")
                await anyio.sleep(0.001)
        assert isinstance(caught.value.__cause__, (ConnectionResetError, BrokenPipeError))


# Close The Client


@only_blocking
async def test_blocking_close_waits_for_sender() -> None:
    """A packet is sent to its end.

    "Leaving the with block calls close(). It waits for a thread that is sending, for 30 seconds at
    most."
    """
    async with narrow_pair(blocking.Client) as (client, peer):
        sender = InThread(client.send_packet, "x" * 1_000_000).waits_in("select")
        with contextlib.ExitStack() as stack:
            closer = InThread(stack.enter_context(client).close).waits_for_lock()
            assert await peer.receive() == "x" * 1_000_000
            sender.result()
            closer.result()
        assert client.is_closed()
        assert await peer.ending() == "end of the stream"


@each_variant
async def test_what_was_sent_arrives(examples: Any) -> None:
    """What was sent before closing arrives.

    "Otherwise, the packets that you have sent still arrive."
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        size = 100_000
        async with anyio.create_task_group() as task_group:

            @task_group.start_soon
            async def send_and_close() -> None:
                await call(client.__enter__ if is_blocking(client) else client.__aenter__)
                for _ in range(50):
                    await call(client.send_packet, "x" * size)
                leave = client.__exit__ if is_blocking(client) else client.__aexit__
                await call(leave, None, None, None)

            for _ in range(50):
                assert len(await peer.receive()) == size
            assert await peer.ending() == "end of the stream"


@only_blocking
async def test_linger() -> None:
    """A client that closes goes on reading for a moment.

    "closing can take up to a second longer if the server is sending data that you have not
    received"
    """

    async def time_to_close(client_class: Any) -> None:
        async with pair(client_class, PROTOCOL) as (client, peer):
            await peer.send("by the way")
            if not is_blocking(client):
                assert await receive(client) == "by the way"
                await peer.send_bytes(b"and")
                assert await packets(client, timeout=0.02) == []
            start = time.monotonic()
            await close(client)
            assert 0.9 < time.monotonic() - start < 2

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(time_to_close, blocking.Client)
        task_group.start_soon(time_to_close, asynchronous.Client)


@each_variant
async def test_closed(examples: Any) -> None:
    """Closing wakes up waiting tasks, and no operation works any more.

    "A closed client cannot be used again. If another thread or task waits for a packet when you
    close the client, or if you use it later, ClientClosedError is raised. It is a subclass of
    ConnectionError, and so of OSError. You can close a client several times."
    """
    async with pair(examples.Client, PROTOCOL) as (client, _):
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
    assert issubclass(ClientClosedError, ConnectionError)


@each_variant
async def test_forgotten(examples: Any) -> None:
    """A client that is not closed warns.

    "If you do not close it, you get a ResourceWarning."
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset() -> None:
            Peer(listener.accept()[0]).reset()

        address = listener.getsockname()
        assert await warns_when_forgotten(examples.Client, PROTOCOL, address, reset)


# Close One Direction


@each_variant
async def test_send_eof(examples: Any) -> None:
    """The end of the request is not the end of the responses.

    "In some protocols, the end of the stream marks the end of the request. send_eof() ends the
    stream that you send. You can still receive"

    "After send_eof(), send_packet() raises RuntimeError."
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        async with anyio.create_task_group() as task_group:

            @task_group.start_soon
            async def count() -> None:
                lines = 0
                while await peer.receive():
                    lines += 1
                await peer.send(str(lines))

            assert await call(examples.count_lines, client, ["a", "b", "c"]) == 3
        with pytest.raises(RuntimeError, match="send_eof"):
            await call(client.send_packet, "d")


@each_variant
async def test_send_eof_to_our_server(examples: Any) -> None:
    """Our servers close the connection at the end of the stream.

    "A server written with easynetwork treats this as the end of the connection, and closes its side
    as well."
    """
    async with serving(GreetingRequestHandler()) as server:
        address = server.get_addresses()[0]
        async with open_client(examples.Client, address, PROTOCOL) as client:
            await call(client.send_eof)
            with pytest.raises(ConnectionAbortedError, match="end-of-stream"):
                await receive(client)


# Several Threads, Several Tasks


@each_variant
async def test_chat(examples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Messages arrive while a user types.

    "One thread or task can receive while another one sends. Here, a user types messages while the
    program prints those that arrive"

    "print_news() iterates over all packets without a timeout. Closing the client ends the loop"
    """

    def blocking_messages() -> Iterator[str]:
        yield "hello"
        while capsys.readouterr().out != "news\n":
            time.sleep(0.001)
        yield "bye"

    async def async_messages() -> AsyncIterator[str]:
        yield "hello"
        while capsys.readouterr().out != "news\n":
            await anyio.sleep(0.001)
        yield "bye"

    async with pair(examples.Client, PROTOCOL) as (client, peer):
        messages: Any = blocking_messages if is_blocking(client) else async_messages
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(call, examples.chat, client, messages())
            assert await peer.receive() == "hello"
            await peer.send("news")
            assert await peer.receive() == "bye"
            assert await peer.ending() == "end of the stream"


@each_variant
async def test_crowd(examples: Any) -> None:
    """Many threads or tasks may use one client.

    "Several threads or tasks can send at once: packets are never mixed. Several can receive at
    once: each packet goes to one of them."

    "Any thread can call all methods at any time."
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        letters = "abcdefgh"
        received: list[str] = []

        async def receive_one() -> None:
            received.append(await receive(client))

        async with anyio.create_task_group() as task_group:
            for letter in letters:
                task_group.start_soon(call, client.send_packet, letter * 200_000)
                task_group.start_soon(receive_one)
            lines = [await peer.receive() for _ in letters]
            await peer.send(*letters)
        assert sorted(lines) == [letter * 200_000 for letter in letters]
        assert sorted(received) == [*letters]


# Addresses And Socket Options


@each_variant
async def test_socket_options(examples: Any) -> None:
    """The options are accessible, the data is not.

    "The socket attribute gives access to the options of the socket, but not to its data."

    "Two options are already set: SO_KEEPALIVE, which these options need, and TCP_NODELAY, so that
    small packets are sent at once."

    "This function detects within a minute and a half that the server has disappeared without
    closing the connection"
    """
    async with pair(examples.Client, PROTOCOL) as (client, _):
        assert not hasattr(client.socket, "recv")
        await call(examples.probe_when_idle, client)

        def option(name: str, level: int = socket.IPPROTO_TCP) -> Any:
            return client.socket.getsockopt(level, getattr(socket, name))

        assert option("SO_KEEPALIVE", socket.SOL_SOCKET)
        assert option("TCP_NODELAY")
        probing = option("TCP_KEEPINTVL") * option("TCP_KEEPCNT")
        assert option("TCP_KEEPIDLE") + probing == 90


@only_blocking
async def test_blocking_close_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing gives up waiting for a packet that does not leave.

    "After that, it resets the connection, and the thread gets a ClientClosedError."
    """
    assert CLOSE_TIMEOUT == 30
    monkeypatch.setattr("easynetwork.clients._blocking_client.CLOSE_TIMEOUT", 0.1)
    async with narrow_pair(blocking.Client) as (client, peer):
        sender = InThread(client.send_packet, "x" * 1_000_000).waits_in("select")
        InThread(client.close).result()
        with pytest.raises(ClientClosedError):
            sender.result()
        with pytest.raises(ConnectionResetError):
            await peer.receive()


async def test_blocking_socket_waits_for_nobody() -> None:
    """The socket can be looked at while a packet is being sent.

    "The methods of socket do not wait for a thread that is sending."
    """
    async with narrow_pair(blocking.Client) as (client, peer):
        sender = InThread(client.send_packet, "x" * 1_000_000).waits_in("select")
        assert InThread(client.socket.getsockname).result() == client.get_local_address()
        assert sender.is_waiting()
        assert await peer.receive() == "x" * 1_000_000
        sender.result()


async def test_not_yet_connected() -> None:
    """A client that is not connected has no socket and no addresses.

    "Before the client is connected, socket raises AttributeError, and the addresses raise
    OSError."
    """
    client = AsyncTCPNetworkClient(("127.0.0.1", 9000), PROTOCOL)
    with pytest.raises(AttributeError):
        client.socket.fileno()
    for get_address in client.get_local_address, client.get_remote_address:
        with pytest.raises(OSError, match="not connected"):
            get_address()
