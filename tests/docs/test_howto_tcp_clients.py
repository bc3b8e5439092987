"""Test the statements and the examples of the page about TCP clients.

A sentence in quotation marks in a docstring is a word-for-word quotation of the page (the first
test checks this), and the test fails if the sentence is wrong. The tests call the functions of the
page.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import sniffio
import trustme

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
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
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
    """Check that the page contains all quotations, and that each test quotes it."""
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
    """The complete program prints the greeting and disconnects.

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


# Creating a client


@each_variant
async def test_make_client(examples: Any) -> None:
    """The client connects from its local address.

    "local_address is the address that the connection comes from."

    "get_local_address() and get_remote_address() return the addresses of the two ends of the
    connection, each with a host and a port."
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
    """An asynchronous client does not connect in its constructor.

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
    """The constructor of a client needs a running framework or the name of one.

    "The client runs on the framework of the coroutine that creates it. Outside of coroutines, name
    a framework with the backend argument."
    """
    address = ("127.0.0.1", 9000)
    with pytest.raises(anyio.NoEventLoopError):
        AsyncTCPNetworkClient(address, PROTOCOL)
    assert AsyncTCPNetworkClient(address, PROTOCOL, "trio").backend().name == "trio"


@each_variant
async def test_order_of_addresses(examples: Any, resolver: Any) -> None:
    """The client tries IPv6 and IPv4 addresses alternately.

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
    """The timeout of a blocking client applies to each address.

    "The client tries the next address when the previous one has failed."

    "It applies to each address, and does not include the time to look up the name."
    """
    with silent() as one, silent() as other, socket.create_server(("127.0.0.1", 0)) as listener:
        resolver(one, other, listener.getsockname())
        start = time.monotonic()
        client = await in_thread(
            lambda: blocking.Client(("example", 80), PROTOCOL, connect_timeout=0.1)
        )
        assert time.monotonic() - start > 0.19
        assert client.get_remote_address() == listener.getsockname()
        client.close()


@pytest.mark.in_turn
async def test_happy_eyeballs(resolver: Any) -> None:
    """An asynchronous client tries the next address before the previous one has failed.

    "the client tries the next address after 0.25 seconds, or at once if the previous one has
    failed, while earlier attempts continue. The first attempt that succeeds wins."

    "Use happy_eyeballs_delay to change the delay, as above to 0.1 seconds; with math.inf, the
    client tries one address after the other."

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
        assert await time_to_connect(None) > 0.24
        assert 0.009 < await time_to_connect(0.01) < 0.25
        with pytest.raises(TimeoutError):
            await time_to_connect(math.inf, limit=0.3)
        resolver(sock.getsockname(), listener.getsockname())
        assert await time_to_connect(math.inf) < 0.25


# Using a connected socket


@each_variant
async def test_take_over(examples: Any) -> None:
    """A client accepts a connected socket, and closes it in every case.

    "Instead of an address, you can pass a connected TCP socket"

    "The client takes over sock and closes it, even if the constructor fails. If the socket is not
    connected, OSError is raised. If it is an ssl.SSLSocket, TypeError is raised."
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


# Encrypting the connection


@each_variant
async def test_encrypt(examples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client trusts only the authorities of the operating system.

    "The client trusts the certificate authorities that the operating system trusts. If the server
    cannot prove that it is the host that you asked for, connecting raises
    ssl.SSLCertVerificationError."

    "If the name in the certificate differs from the host in the address, pass the name as
    server_hostname."

    "A connected socket has no host name, so it requires server_hostname."
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


# Trusting a private authority


@each_variant
async def test_private_authority(
    examples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client trusts the authority in the file, and no other one.

    "If your own certificate authority has signed the server's certificate, pass an ssl.SSLContext
    instead of True. The argument cafile is a file with the authority's certificate, in PEM format"

    "This context trusts only the authorities in the file, and still compares the name in the
    certificate with the host. To trust the authorities of the operating system as well, create the
    context without cafile, and call context.load_verify_locations("
    """
    monkeypatch.chdir(tmp_path)
    mine, systems = trustme.CA(), trustme.CA()
    mine.cert_pem.write_to_path("authority.pem")
    systems.cert_pem.write_to_path("system.pem")
    monkeypatch.setenv("SSL_CERT_FILE", "system.pem")
    both = ssl.create_default_context()
    both.load_verify_locations("authority.pem")

    async def check_trusted(authority: trustme.CA, *, is_private: bool) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        async with serving(GreetingRequestHandler(), ssl=context) as server:
            address = "localhost", server.get_addresses()[0].port
            trusting, other = examples.greet_with_authority, examples.greet_in_private
            if not is_private:
                trusting, other = other, trusting
            assert await call(trusting, *address) == "Hello, Zoë!"
            with pytest.raises(ssl.SSLCertVerificationError):
                await call(other, *address)
            with pytest.raises(ssl.SSLCertVerificationError, match="127.0.0.1"):
                await call(trusting, "127.0.0.1", address[1])
            client_class = examples.Client.__origin__
            async with open_client(client_class, address, PROTOCOL, ssl=both) as client:
                await call(client.send_packet, "Zoë")
                assert await receive(client) == "Hello, Zoë!"

    await check_trusted(mine, is_private=True)
    await check_trusted(systems, is_private=False)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@each_variant
async def test_self_signed(examples: Any, tmp_path: Path) -> None:
    """A self-signed certificate is trusted if it is in the file.

    "If the server has a self-signed certificate, pass the file of this certificate as cafile: it is
    its own authority."
    """
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"]
    subprocess.run([*command, *files, *subject], capture_output=True, check=True)  # noqa: ASYNC221
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with serving(GreetingRequestHandler(), ssl=context) as server:
        address = "localhost", server.get_addresses()[0].port
        greeting = await call(examples.greet_with_authority, *address, authority=str(certificate))
        assert greeting == "Hello, Zoë!"


# Handling connection errors


@each_variant
async def test_status(examples: Any) -> None:
    """A client that cannot connect raises an error for the reason.

    "If the client cannot connect, it raises an OSError. The class of the error gives the reason"

    "No program listens at the port."

    "The name cannot be resolved: the host does not exist, or no DNS server responded."

    "TimeoutError The host did not respond."

    "For example, there is no route to the host. Put this except clause last: the other classes are
    subclasses of OSError."
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert await call(examples.status, *listener.getsockname()) == "up"
    with deaf() as sock:
        assert await call(examples.status, *sock.getsockname()) == "no program listens at that port"
    assert await call(examples.status, "nowhere.invalid", 80) == "there is no such host"
    with silent() as address:
        assert await call(examples.status, *address, patience=0.01) == "no answer"
    outcome = await call(examples.status, "255.255.255.255", 80)
    assert outcome.startswith("out of reach: ")
    for kind in ConnectionRefusedError, socket.gaierror, TimeoutError:
        assert issubclass(kind, OSError)


@each_variant
async def test_reasons(examples: Any, resolver: Any) -> None:
    """One error reports the errors of all addresses.

    "If all addresses of a host failed for the same reason, the error has the class for this reason.
    Otherwise, it is an OSError that lists the reasons. The __cause__ is an ExceptionGroup with the
    error of each address."
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


# Trying again


@each_variant
async def test_try_again(examples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The client connects to a server that starts after the first attempts.

    "While a server restarts, it refuses connections. Wait longer after each failed attempt, and do
    not catch the error of the last attempt"

    "A blocking client always has a connection, so each attempt creates a new TCPNetworkClient."

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


# Reconnecting


class Newspaper(AsyncStreamRequestHandler[str, str]):
    """Sends its news to each client that connects. Without news, it closes the connection."""

    def __init__(self, news: str = "") -> None:
        self.news = news

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        if self.news:
            await client.send_packet(self.news)
        else:
            await client.aclose()

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        yield


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port of this host that refuses connections, and at which only a server can listen."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@each_variant
async def test_reconnect(
    examples: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client connects to a server that starts late, and again after the server's restart.

    "This function prints all packets that it receives, and connects again whenever the connection
    has ended"

    "The delay begins with half a second, and doubles after each attempt, up to longest_delay. A
    server that is down for an hour does not cause thousands of attempts. When it is up again, the
    next attempt follows within longest_delay seconds."

    "Each pause is a random part of the delay, from one half of it to all of it (jitter). Without
    this, all clients of a server that restarts would connect again at the same time."

    "The delay starts over at first_delay when a packet has arrived, not when the client has
    connected. So if the server accepts each connection and closes it at once, the delay still
    grows."

    "The loop over iter_received_packets() ends without an exception when the connection has ended
    for any reason. An invalid packet raises StreamProtocolParseError, which ends the function"
    """
    is_over = anyio.Event()
    lines: list[str] = []
    parts: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        parts.append((low, high))
        return high

    monkeypatch.setattr(examples.random, "uniform", uniform)

    async def printed(line: str, count: int = 1) -> None:
        """Wait until the client has printed such a line, counted from the last call."""
        start = len(lines)

        def is_printed() -> bool:
            lines.extend(capsys.readouterr().out.splitlines())
            return sum(line in each for each in lines[start:]) >= count

        await until(is_printed)

    # Bytes that are not valid UTF-8 end the client's function.
    latin = StreamProtocol(StringLineSerializer(encoding="latin-1"))

    async def follow() -> None:
        options = {"first_delay": 0.01, "longest_delay": 0.03}
        with pytest.raises(StreamProtocolParseError):
            await call(examples.follow_news, "127.0.0.1", port, **options)
        is_over.set()

    with anyio.fail_after(PATIENCE), reserved_port() as port:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(follow)
            await printed("Next attempt", 4)
            async with serving(Newspaper(), latin, port=port):
                await printed("Disconnected", 2)
            for news in "first", "second":
                async with serving(Newspaper(news), latin, port=port):
                    await printed(news)
                await printed("Next attempt")
            async with serving(Newspaper("not UTF-8: \xff"), latin, port=port):
                await is_over.wait()

    refused = f"cannot connect to '127.0.0.1', port {port}: Connection refused"
    pauses = [line.removeprefix("Next attempt in ") for line in lines if "Next" in line]
    assert lines[0].startswith("Not connected: ")
    assert lines[0].endswith(refused)
    assert pauses[:4] == ["0.01 seconds", "0.02 seconds", "0.03 seconds", "0.03 seconds"]
    assert lines[lines.index("Disconnected") + 1] == "Next attempt in 0.03 seconds"
    for news in "first", "second":
        after = lines.index(news) + 1
        assert lines[after : after + 2] == ["Disconnected", "Next attempt in 0.01 seconds"]
    assert set(parts) == {(0.5, 1.0)}


# Sending and receiving


@each_variant
async def test_packets(examples: Any) -> None:
    """Packets are complete and in order, however the stream is split.

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
    """send_packet() waits only while much data waits to be sent.

    "usually returns at once: bytes that the operating system does not accept yet are sent in the
    background. While more than 64 KiB wait to be sent, send_packet() waits, too: first for its
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
    """A cancelled send_packet() sends no partial packet, and the client can still be used.

    "If send_packet() is cancelled, it sends its whole packet or nothing. If it is cancelled before
    its turn, it sends nothing. If it is cancelled after its turn, the packet is still sent. In both
    cases, you can still use the client."
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
    """Connect a client to a peer. The buffers between them are small."""
    async with pair(client_class, PROTOCOL, room=4096) as (client, peer):
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        yield client, peer


async def read_all(client: Any, peer: Peer) -> str:
    """Close a client while the peer reads to the end; return how the connection ends."""
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(close, client)
        ending = await peer.ending()
    return ending


class Text(SimpleNamespace):
    """A packet that the converter of the tests accepts. It fails with all others."""


@each_variant
async def test_crash(examples: Any) -> None:
    """A bug in a converter raises its own error, and the client can still be used.

    "If the protocol object cannot encode a packet, send_packet() raises ProtocolCrashedError, a
    subclass of RuntimeError. Its __cause__ is the original exception. Nothing has been sent, and
    you can still use the client."

    "If a serializer or converter raises an unexpected exception, recv_packet() raises
    ProtocolCrashedError, a subclass of RuntimeError. Its __cause__ is the original exception."
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


# Timeouts


@each_variant
async def test_timeout(examples: Any) -> None:
    """A timeout loses no data.

    "If recv_packet() times out, no data is lost: if a part of a packet has arrived, the next call
    waits for the rest."

    "Use a timeout of your framework, for example asyncio.timeout() or trio.fail_after(), or
    client.backend().timeout(), which works with both"
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
async def test_blocking_timeout() -> None:
    """The timeout includes the time spent waiting for other threads.

    "The timeout is in seconds. It applies to the whole packet, and includes the time spent waiting
    for other threads. A timeout of 0 does not wait, and None, the default, sets no timeout."
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
async def test_blocking_partial_packet() -> None:
    """No packet can follow a packet that was sent only in part.

    "every further send_packet() raises ConnectionAbortedError. If nothing has been sent, you can
    try again."

    "send_packet() returns when the operating system has accepted the whole packet. If the server
    does not read, this can take any length of time."
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

    "After that, or if it is cancelled, it resets the connection, and data that has not been sent is
    lost."
    """
    async with narrow_pair(AsyncTCPNetworkClient) as (client, peer):
        with anyio.move_on_after(0.02):
            await client.send_packet("x" * 1_000_000)
        with anyio.move_on_after(0.02):
            await client.aclose()
        assert await peer.ending() == "connection reset"


async def test_close_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """aclose() has a time limit if the peer does not read.

    "Leaving the async with block calls aclose(). It waits until all data is sent, for at most 30
    seconds."
    """
    assert CLOSE_TIMEOUT == 30
    monkeypatch.setattr("easynetwork.backends.stream_transport.CLOSE_TIMEOUT", 0.1)
    async with narrow_pair(AsyncTCPNetworkClient) as (client, peer):
        with anyio.fail_after(5):
            async with client:
                with anyio.move_on_after(0.02):
                    await client.send_packet("x" * 1_000_000)
        assert await peer.ending() == "connection reset"


# Receiving several packets


@each_variant
async def test_several_packets(examples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The loop gets the packets that arrive in time.

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
    """The loop does not wait by default.

    "With 0, the default, the loop gets only packets that have already been received; with None,
    there is no limit."
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        assert await packets(client) == []
        await peer.send("one", "two")
        assert await packets(client) == ["one", "two"]
        await peer.send("three")
        peer.socket.shutdown(socket.SHUT_WR)
        assert await packets(client, timeout=None) == ["three"]


@pytest.mark.in_turn
@each_variant
async def test_body_does_not_count(examples: Any) -> None:
    """The time spent in the loop's body does not count.

    "The timeout applies to all packets together. Only the time spent waiting counts, not the time
    spent in the loop's body."

    "You can leave the loop at any time. The next recv_packet() returns the first packet that the
    loop did not get."
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
    """The loop ends without an exception, and recv_packet() raises the reason.

    "The loop ends without an exception at the first OSError: when the time is up, when the
    connection has ended, or when the client is closed. To find out the reason, call recv_packet()
    with a timeout after the loop. If the connection has ended, each call raises the error again."
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


# Handling invalid packets


@each_variant
async def test_parse_error(examples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """An invalid packet raises an error, and the client receives the next one.

    "If the received bytes are not a valid packet, recv_packet() raises StreamProtocolParseError.
    Its error attribute gives the reason. The connection stays open, and the next call continues
    after the invalid packet"
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        await peer.send_bytes(b"\xff\xfe\nhello\n")
        assert await call(examples.receive_text, client) == "hello"
    assert capsys.readouterr().out.startswith(
        "Skipped a line that is not text: 'utf-8' codec can't"
    )


@each_variant
async def test_parse_error_in_loop(examples: Any) -> None:
    """A new loop continues after an invalid packet.

    "iter_received_packets() raises this error, too, which ends your loop. To continue, start
    another loop over the same iterator or a new one."
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


# When the server closes the connection


@each_variant
async def test_end(examples: Any) -> None:
    """The client receives the packets that arrived before the end of the stream.

    "After the server has closed the connection, recv_packet() first returns the packets that
    arrived before. Then it raises EndOfStreamError, a subclass of ConnectionAbortedError. A packet
    that has arrived only in part is discarded."

    "The client stays open until you close it."

    "After a connection has ended, close the client and create another one: a client cannot connect
    a second time."
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
    """A reset raises another error than the end of the stream.

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
async def test_send_after_end(examples: Any) -> None:
    """Sending after the end of the connection raises an error, but not at once.

    "The first calls of send_packet() after the end may return without an error."

    "Later calls raise ConnectionAbortedError."

    "Its __cause__ is the error of the operating system."
    """
    async with pair(examples.Client, PROTOCOL) as (client, peer):
        peer.close()
        await call(client.send_packet, "into the void")
        with pytest.raises(ConnectionAbortedError) as caught:
            while True:
                await call(client.send_packet, "hello")
                await anyio.sleep(0.001)
        assert isinstance(caught.value.__cause__, (ConnectionResetError, BrokenPipeError))


# Closing the client


@only_blocking
async def test_blocking_close_waits_for_sender() -> None:
    """close() lets another thread finish sending its packet.

    "Leaving the with block calls close(). It waits for a thread that is sending, for at most 30
    seconds."
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
async def test_sent_packets_arrive(examples: Any) -> None:
    """Packets that were sent before closing arrive.

    "If the connection is not reset, the packets that you have sent still arrive."
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
    """A closing client continues to read for a moment if the server is sending.

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
    """Closing a client interrupts a waiting call and makes later calls fail.

    "If a call is waiting for a packet, or if you use the client later, ClientClosedError is raised.
    This is a subclass of ConnectionError, and so of OSError. You can close a client several times."
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
    """A client that is garbage-collected before it is closed causes a warning.

    "If you never close it, you get a ResourceWarning."
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset() -> None:
            Peer(listener.accept()[0]).reset()

        address = listener.getsockname()
        assert await warns_when_forgotten(examples.Client, PROTOCOL, address, reset)


# Closing one direction


@each_variant
async def test_send_eof(examples: Any) -> None:
    """The client receives a response after it has ended its stream.

    "In some protocols, the end of the stream marks the end of the request."

    "send_eof() ends the stream that you send (a half-close)."

    "You can still receive"

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
    """A server of easynetwork closes the connection at the end of the stream.

    "A server written with easynetwork treats this as the end of the connection, and closes its
    side, too."
    """
    async with serving(GreetingRequestHandler()) as server:
        address = server.get_addresses()[0]
        async with open_client(examples.Client, address, PROTOCOL) as client:
            await call(client.send_eof)
            with pytest.raises(ConnectionAbortedError, match="end-of-stream"):
                await receive(client)


# Sharing a client between threads or tasks


@each_variant
async def test_chat(examples: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Messages arrive while a user types.

    "One thread or task can receive while another one sends. This function sends the messages that a
    user types. Meanwhile, the program prints the messages that arrive"

    "print_news() iterates over all packets without a timeout (timeout=None). Closing the client
    ends the loop"
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
    """Several threads or tasks can use one client.

    "Several threads or tasks can send at the same time: packets are never mixed. Several can
    receive at the same time: each packet goes to one of them."

    "Any thread can call any method, at any time."
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


# Addresses and socket options


@each_variant
async def test_socket_options(examples: Any) -> None:
    """The socket gives access to its options, but not to its data.

    "The socket attribute gives access to the options of the socket, but not to its data."

    "Two options are already set: SO_KEEPALIVE, which the options in this function require, and
    TCP_NODELAY, which sends small packets at once."

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
    """close() resets the connection if another thread cannot finish sending.

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


async def test_blocking_socket_does_not_wait() -> None:
    """A thread that is sending does not block other threads that use the socket's options.

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

    "Before the client is connected, socket raises AttributeError, and get_local_address() and
    get_remote_address() raise OSError."
    """
    client = AsyncTCPNetworkClient(("127.0.0.1", 9000), PROTOCOL)
    with pytest.raises(AttributeError):
        client.socket.fileno()
    for get_address in client.get_local_address, client.get_remote_address:
        with pytest.raises(OSError, match="not connected"):
            get_address()
