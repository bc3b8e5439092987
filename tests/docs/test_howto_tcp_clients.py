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

    "It tells the server of tcp_servers a name, and prints the greeting"

    "The first highlighted line connects, and disconnects at the end of the block. It prints
    Hello, Zoë!."
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

    "local_address is where the connection comes from."

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
    """A blocking client is connected or is none.

    "The client is connected when it is made: the constructor connects, and blocks until that is
    done."

    "There is no client without a connection"
    """
    with deaf() as sock, pytest.raises(ConnectionRefusedError):
        blocking.Client(sock.getsockname(), PROTOCOL)


async def test_async_connects_later() -> None:
    """An asynchronous client connects when it is told to, or when it has to.

    "The constructor does not touch the network. The client connects by async with, by
    wait_connected(), or by the first operation that needs the connection. Tasks that need it at
    the same time share one attempt."
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

    "It runs on the framework of the coroutine that makes it. Outside of coroutines, name one
    with the backend argument."
    """
    address = ("127.0.0.1", 9000)
    with pytest.raises(anyio.NoEventLoopError):
        AsyncTCPNetworkClient(address, PROTOCOL)
    assert AsyncTCPNetworkClient(address, PROTOCOL, "trio").backend().name == "trio"


@each_variant
async def test_order_of_addresses(examples: Any, resolver: Any) -> None:
    """Families alternate.

    "If it has several addresses, they are tried in turn, IPv6 and IPv4 alternately, beginning
    with IPv6, until one answers"
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

    "One after the other: the next one is tried when the one before has failed."

    "It is for each address, and does not include the time to look up the name."
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

    "the next one is tried after 0.25 seconds, or at once if the one before has failed, while
    those before go on. The first one that is connected wins."

    "happy_eyeballs_delay is another delay, and math.inf tries one after the other."

    "client.backend().timeout() is one that works on all of them."
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

    "Instead of an address, you can give a connected TCP socket"

    "The socket belongs to the client then, which closes it, even if it cannot be made. A socket
    that is not connected raises OSError, and one with TLS TypeError."
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
    """The client believes whom the system's authorities believe, and nobody else.

    "It trusts the authorities that the operating system trusts. A server that cannot prove to be
    the host that was asked for is not talked to: ssl.SSLCertVerificationError is raised."

    "server_hostname says whose certificate to expect, if that is not the host in the address."

    "With a connected socket there is no such host, so it is needed."
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

    "What is raised is an OSError, and its class says why"

    "Nobody listens at that port."

    "The name cannot be resolved: there is no such host, or nobody who could say."

    "There was no answer, neither a good one nor a bad one."

    "There is no route to the host, for example. Keep it last: the others are subclasses of it."
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

    "If all addresses of a host failed alike, you get an error of that class, otherwise an OSError
    that lists the reasons. The __cause__ is an ExceptionGroup with the error of each address."
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

    "A server that is being restarted refuses connections for a moment. Wait longer after each
    attempt, and end with one whose error you let out"

    "After a failed attempt, the client is as new. Call wait_connected() again."
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

    "usually returns at once: what the operating system does not take yet is sent in the
    background. But while more than 64 KiB wait in this way, so does send_packet(): first for its
    turn, first come, first served, then, with its packet handed over, until the other end has read
    enough."
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

    "A send_packet() that is cancelled sends its whole packet or nothing. Cancelled before its turn,
    it has sent nothing. Cancelled after its turn, it still sends its packet. In both cases, you can
    still use the client."
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

    "If the protocol object cannot make bytes of a packet, ProtocolCrashedError is raised, a
    subclass of RuntimeError. Its __cause__ is what went wrong. Nothing was sent then, and the
    client can still be used."

    "A serializer or converter that fails in a way it should not is reported as a
    ProtocolCrashedError, a subclass of RuntimeError, and its own exception is the __cause__."
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
    """Who is tired of waiting has not lost anything.

    "A recv_packet() that ran out of time loses nothing: if a part of a packet has arrived, the next
    call waits for the rest."
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

    "It is the number of seconds for the whole packet, and includes the time that other threads
    need for theirs. 0 does not wait, and None, the default, sets no limit."
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

    "every further send_packet() raises ConnectionAbortedError then. If nothing had been sent,
    you may try again."

    "send_packet() returns when the operating system has the whole packet. If the other end does
    not read, that can take as long as it likes."
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

    "0, the default, stands for what has already been received, None for no limit."
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

    "The timeout is for all packets together, but only the time spent waiting counts, not what the
    loop's body takes."

    "You may leave the loop whenever you like. What you did not take waits for the next
    recv_packet()."
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

    "The loop ends, without an exception, at the first OSError: when the time is up, when the
    connection has ended, when the client is closed. If you have to know which, call recv_packet()
    after the loop, with a limit. It raises the error of a connection that has ended, again and
    again."
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
    """What is not a packet is skipped.

    "If what arrives is not a packet, recv_packet() raises StreamProtocolParseError. Its error
    attribute says why. The connection is still there, and the next call continues after the bad
    packet"
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        await peer.send_bytes(b"\xff\xfe\nhello\n")
        assert await call(examples.receive_text, client) == "hello"
    assert capsys.readouterr().out.startswith("Skipped what is not text: 'utf-8' codec can't")


@each_variant
async def test_parse_error_in_loop(examples: Any) -> None:
    """A loop can be begun again.

    "iter_received_packets() raises it, too, which ends your loop. Another loop, over the same
    iterator or a new one, goes on."
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
    """What came before the end is received before it.

    "When the other end has closed the connection, recv_packet() first returns the packets that
    arrived before, then it raises EndOfStreamError, a subclass of ConnectionAbortedError. A packet
    of which only a part has arrived is lost."

    "The client does not close itself."

    "its client cannot be connected again"
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

    "If the connection has ended in another way, by a reset, for example, it is
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
    """The end shows when one sends, but not at once.

    "the first packets after the end may seem to be sent. Then ConnectionAbortedError is raised here
    as well, whatever the operating system's own error was. That one is the __cause__."
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

    "Otherwise, what you have sent still arrives."
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
    """Who talks to a client that closes is listened to for a moment.

    "closing can take up to a second longer, if the other end is in the middle of sending
    something that you did not ask for"
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
    """Closing wakes up who waits, and nothing works any more.

    "Closing is final. If you wait for a packet meanwhile, or use the client later,
    ClientClosedError is raised. It is a ConnectionError, and so an OSError. You may close a client
    several times."
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
    """A client that nobody closes complains.

    "If you forget to, you get a ResourceWarning."
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset() -> None:
            Peer(listener.accept()[0]).reset()

        address = listener.getsockname()
        assert await warns_when_forgotten(examples.Client, PROTOCOL, address, reset)


# Close One Direction


@each_variant
async def test_send_eof(examples: Any) -> None:
    """The end of a question is not that of the answer.

    "Some protocols use the end of the stream as a full stop: it says that the question is
    complete. send_eof() ends what you send. You can still receive"

    "After it, send_packet() raises RuntimeError."
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
    """Our servers do not talk to who is leaving.

    "A server made with easynetwork takes this for the end of the connection: it closes its side,
    too."
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
    """News arrive while somebody types.

    "One may receive while another one sends. Here, somebody types messages, and whatever arrives
    meanwhile is printed"

    "print_news() is a loop over all packets, without a limit. Closing the client ends it"
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
    """Many may use one client.

    "Several may send at once: packets are never mixed. Several may receive at once: each packet
    goes to one of them."

    "All methods may be called by any thread, at any time."
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
    """The options are there, the data is not.

    "The socket attribute gives access to the options of the socket, but not to its data."

    "Two options are already set: SO_KEEPALIVE, without which these would do nothing, and
    TCP_NODELAY, so that small packets are sent at once."

    "Here is how to notice, within a minute and a half, that the other end is gone without a word"
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
    """A packet that does not leave is not waited for any longer.

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
    """What is not connected has no socket and no addresses.

    "Before the client is connected, socket raises AttributeError, and the addresses raise
    OSError."
    """
    client = AsyncTCPNetworkClient(("127.0.0.1", 9000), PROTOCOL)
    with pytest.raises(AttributeError):
        client.socket.fileno()
    for get_address in client.get_local_address, client.get_remote_address:
        with pytest.raises(OSError, match="not connected"):
            get_address()
