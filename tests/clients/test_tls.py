"""Clients that speak TLS, blocking and asynchronous, with servers of the standard library.

All tests run with all clients: `Async` calls an asynchronous client from the test's thread.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

import anyio.from_thread
import pytest
import trustme

from easynetwork._tls_options import new_client_tls
from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.exceptions import ClientClosedError, UnsupportedOperation
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from tests.times import PATIENCE, SOON
from tests.tls_peers import (
    VERSIONS,
    TLSSocket,
    authority,
    client_context,
    new_client_context,
    new_server_context,
    server_context,
)

# Seconds. Nothing here takes a tenth of it, unless something hangs.

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)

Serving: TypeAlias = Callable[[ssl.SSLSocket], object]
each_version = pytest.mark.parametrize("version", VERSIONS)


class Server:
    """A thread that serves one connection after the other, until the block is left.

    Attributes:
        address: Where it listens.
        errors: What went wrong with its connections.
    """

    def __init__(self, serve: Serving, context: ssl.SSLContext | None = None) -> None:
        self._serve = serve
        self._context = context or server_context()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, name="server")
        self.address = ("localhost", self._listener.getsockname()[1])
        self.errors: list[Exception] = []

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                sock, _ = self._listener.accept()
                sock.settimeout(PATIENCE)
                try:
                    with sock, self._start_tls(sock) as tls_sock:
                        self._serve(tls_sock)
                except Exception as exc:
                    self.errors.append(exc)

    def _start_tls(self, sock: socket.socket) -> ssl.SSLSocket:
        return self._context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)


def echo(sock: ssl.SSLSocket) -> None:
    """Send back what comes, until the client says goodbye; then say goodbye."""
    while data := sock.recv(1 << 16):
        sock.sendall(data)
    sock.unwrap()


class Client(Protocol):
    """What both kinds of clients can do, for a thread."""

    def send(self, packet: str) -> None: ...
    def fill(self) -> None: ...  # send until nobody takes any more
    def receive(self) -> str: ...
    def send_eof(self) -> None: ...
    def close(self) -> None: ...


class Blocking:
    """A blocking client."""

    def __init__(self, target: Any, **options: Any) -> None:
        self.client = TCPNetworkClient[str, str](target, protocol(), **options)

    def send(self, packet: str) -> None:
        self.client.send_packet(packet, timeout=PATIENCE)

    def fill(self) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                self.client.send_packet("x" * 1000, timeout=0)

    def receive(self) -> str:
        return self.client.recv_packet(timeout=PATIENCE)

    def send_eof(self) -> None:
        self.client.send_eof()

    def close(self) -> None:
        self.client.close()


class Async:
    """An asynchronous client, called through a portal into its event loop."""

    def __init__(
        self, portal: anyio.from_thread.BlockingPortal, target: Any, **options: Any
    ) -> None:
        self._portal = portal

        async def connect() -> AsyncTCPNetworkClient[str, str]:
            client = AsyncTCPNetworkClient[str, str](target, protocol(), **options)
            try:
                await client.wait_connected()
            except BaseException:
                await client.aclose()
                raise
            return client

        self.client = self._call(connect)

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        async def call() -> Any:
            with anyio.fail_after(PATIENCE):
                return await function(*args)

        return self._portal.call(call)

    def send(self, packet: str) -> None:
        self._call(self.client.send_packet, packet)

    def fill(self) -> None:
        async def send() -> None:
            with anyio.move_on_after(SOON):
                while True:
                    await self.client.send_packet("x" * 1000)

        self._call(send)

    def receive(self) -> str:
        packet: str = self._call(self.client.recv_packet)
        return packet

    def send_eof(self) -> None:
        self._call(self.client.send_eof)

    def close(self) -> None:
        self._call(self.client.aclose)


def protocol() -> StreamProtocol[str, str]:
    return StreamProtocol(StringLineSerializer(limit=1 << 24))


Connect: TypeAlias = Callable[..., Client]
KINDS = {
    "blocking": None,
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


@pytest.fixture(params=KINDS)
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Return what connects a client of some kind; it is closed at the end."""
    if request.param == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    with contextlib.ExitStack() as stack:
        kind: Callable[..., Client] = Blocking
        if (loop := KINDS[request.param]) is not None:
            portal = stack.enter_context(anyio.from_thread.start_blocking_portal(*loop))
            kind = lambda *args, **options: Async(portal, *args, **options)  # noqa: E731 - short

        def connect(target: Any, **options: Any) -> Client:
            client = kind(target, **{"ssl": client_context(), **options})
            stack.callback(client.close)
            return client

        yield connect


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Return what starts a server; it is stopped, behind the clients, at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda *args: stack.enter_context(Server(*args))


Start: TypeAlias = Callable[..., Server]


# -- Packets -----------------------------------------------------------------------------------


@each_version
def test_packets(start: Start, connect: Connect, version: ssl.TLSVersion) -> None:
    """Packets of any size go there and back."""
    server = start(echo, server_context(version))
    client = connect(server.address)
    for packet in ["hello", "x" * 100_000, "goodbye"]:
        client.send(packet)
        assert client.receive() == packet


def test_many_packets(start: Start, connect: Connect) -> None:
    """Many packets that come together are told apart."""
    server = start(echo)
    client = connect(server.address)
    packets = [f"packet {number}" for number in range(500)]
    for packet in packets:
        client.send(packet)
    assert [client.receive() for _ in packets] == packets


def test_greeting(start: Start, connect: Connect) -> None:
    """What the server sends together with the end of the handshake is not lost."""

    def serve(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"welcome\nto my service\n")
        echo(sock)

    server = start(serve)
    client = connect(server.address)
    assert [client.receive(), client.receive()] == ["welcome", "to my service"]


def test_connected_socket(start: Start, connect: Connect) -> None:
    """A socket that is already connected can speak TLS as well."""
    server = start(echo)
    sock = socket.create_connection(("127.0.0.1", server.address[1]))
    client = connect(sock, server_hostname="localhost")
    client.send("hello")
    assert client.receive() == "hello"


# -- Who is at the other end -------------------------------------------------------------------


def test_default_context(start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssl=True` stands for the default context, of which no end is a clean one by itself."""
    context = new_client_context()
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF  # as some Pythons do by default
    monkeypatch.setattr(ssl, "create_default_context", lambda: context)
    server = start(echo)
    client = connect(server.address, ssl=True)
    client.send("hello")
    assert client.receive() == "hello"
    assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF
    assert context.check_hostname


def test_unknown_authority(start: Start, connect: Connect) -> None:
    """A server whose certificate nobody vouches for is not talked to, and told so."""
    server = start(echo)
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(server.address, ssl=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(server.address, ssl=True)
    wait_until(lambda: len(server.errors) == 2)
    assert "UNKNOWN_CA" in str(server.errors[0])


def test_expired(start: Start, connect: Connect) -> None:
    """Nor is one whose certificate was good once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("localhost", not_after=LONG_AGO).configure_cert(context)
    server = start(echo, context)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        connect(server.address)


def context_for(hostname: str, asked_for: list[str | None] | None = None) -> ssl.SSLContext:
    """Return the context of a server with another name, and note which names are asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(hostname).configure_cert(context)
    if asked_for is not None:
        context.sni_callback = lambda _, name, __: asked_for.append(name)
    return context


def test_hostname(start: Start, connect: Connect) -> None:
    """The certificate has to be the host's, or that of the name that was given."""
    asked_for: list[str | None] = []
    server = start(echo, context_for("example.com", asked_for))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        connect(server.address)
    client = connect(server.address, server_hostname="example.com")
    client.send("hello")
    assert client.receive() == "hello"
    assert asked_for == ["localhost", "example.com"]


@pytest.mark.parametrize("name", ["localhost.", "127.0.0.1", "::1%lo", "::1%1", "::1"])
def test_name_to_verify(start: Start, connect: Connect, name: str) -> None:
    """The dot at the end of a name, and the zone of an address, are in no certificate."""
    asked_for: list[str | None] = []
    context = new_server_context()
    context.sni_callback = lambda _, name, __: asked_for.append(name)
    server = start(echo, context)
    client = connect(server.address, server_hostname=name)
    client.send("hello")
    assert client.receive() == "hello"
    assert asked_for == ["localhost" if name == "localhost." else None]


@pytest.mark.parametrize("host", ["localhost.", "localhost"])
def test_host_with_a_dot(host: str) -> None:
    """So a host may be asked for by its full name."""
    options = new_client_tls(client_context(), host, None, (None, None, None))
    assert options is not None
    assert options.server_hostname == "localhost"


def test_no_hostname(start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty name stands for no name at all."""
    context = new_client_context()
    monkeypatch.setattr(ssl, "create_default_context", lambda: context)
    asked_for: list[str | None] = []
    server = start(echo, context_for("example.com", asked_for))
    client = connect(server.address, ssl=True, server_hostname="")
    client.send("hello")
    assert client.receive() == "hello"
    assert asked_for == [None]


@each_version
def test_client_certificate(start: Start, connect: Connect, version: ssl.TLSVersion) -> None:
    """A server that asks for a certificate gets it."""
    context = new_server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    authority().configure_trust(context)

    def serve(sock: ssl.SSLSocket) -> None:
        certificate: Any = sock.getpeercert()
        sock.sendall(f"{certificate['subjectAltName']}\n".encode())
        echo(sock)

    server = start(serve, context)
    mine = new_client_context()
    authority().issue_cert("me@example.com").configure_cert(mine)
    client = connect(server.address, ssl=mine)
    assert client.receive() == "(('email', 'me@example.com'),)"


def test_refused_by_the_server(start: Start, connect: Connect) -> None:
    """Where only the server knows that the handshake failed (TLS 1.3), the client learns why."""
    context = new_server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(context)
    server = start(echo, context)
    mine = new_client_context()
    trustme.CA().issue_cert("me@example.com").configure_cert(mine)
    client = connect(server.address, ssl=mine)
    with pytest.raises(ConnectionAbortedError) as info:
        client.receive()
    assert isinstance(info.value.__cause__, ssl.SSLError)
    assert "UNKNOWN_CA" in str(info.value.__cause__)


# -- Handshakes that fail ----------------------------------------------------------------------


@contextlib.contextmanager
def without_tls(serve: Callable[[socket.socket], object]) -> Iterator[tuple[str, int]]:
    """Serve one connection that has nothing to do with TLS."""

    def run() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(PATIENCE)
            serve(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run, name="server")
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            thread.join()


def test_handshake_timeout(connect: Connect) -> None:
    """A server that does not answer is not waited for any longer."""
    with without_tls(lambda sock: wait_for_end(sock)) as address:
        with pytest.raises(TimeoutError, match=f"TLS handshake took longer than {SOON:g} seconds"):
            connect(address, ssl_handshake_timeout=SOON)


def wait_for_end(sock: socket.socket) -> None:
    """Receive everything, and be content with any end."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(1 << 16):
            pass


def leave(sock: socket.socket) -> None:
    """Read a little, and leave."""
    sock.recv(1 << 16)


def reset(sock: socket.socket) -> None:
    """Read a little, and leave rudely."""
    sock.recv(1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("how", [leave, reset])
def test_server_that_leaves(connect: Connect, how: Any) -> None:
    """A server that leaves before the end of the handshake ends the connection."""
    with without_tls(how) as address:
        with pytest.raises(ConnectionError):
            connect(address)


def test_server_without_tls(connect: Connect) -> None:
    """A server that speaks something else is not understood."""

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"220 localhost ESMTP\r\n")
        wait_for_end(sock)

    with without_tls(serve) as address:
        with pytest.raises(ssl.SSLError, match="(?i)wrong.version"):
            connect(address)


# -- Ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_standard", [True, False])
def test_clean_end(start: Start, connect: Connect, is_standard: bool) -> None:
    """A server that says goodbye has sent everything."""
    server = start(lambda sock: (sock.sendall(b"bye\n"), sock.unwrap()))
    client = connect(server.address, ssl_standard_compatible=is_standard)
    assert client.receive() == "bye"
    for _ in range(2):
        with pytest.raises(ConnectionAbortedError, match="end-of-stream") as info:
            client.receive()
        assert not isinstance(info.value.__cause__, ssl.SSLError)


@pytest.mark.parametrize("is_standard", [True, False])
def test_truncation(start: Start, connect: Connect, is_standard: bool) -> None:
    """One that does not may not have; who cares can see it."""
    server = start(lambda sock: (sock.sendall(b"bye\n"), sock.shutdown(socket.SHUT_WR)))
    client = connect(server.address, ssl_standard_compatible=is_standard)
    assert client.receive() == "bye"
    for _ in range(2):
        with pytest.raises(ConnectionAbortedError) as info:
            client.receive()
        assert isinstance(info.value.__cause__, ssl.SSLEOFError) == is_standard


def test_broken_record(start: Start, connect: Connect) -> None:
    """What breaks the rules of TLS breaks the connection, for sending too."""

    def serve(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"good\n")
        with socket.socket(fileno=sock.detach()) as raw:
            raw.settimeout(PATIENCE)
            raw.sendall(b"\x17\x03\x03\0\x20" + bytes(32))
            wait_for_end(raw)

    server = start(serve)
    client = connect(server.address)
    assert client.receive() == "good"
    for _ in range(2):
        with pytest.raises(ConnectionAbortedError) as info:
            client.receive()
        assert "BAD_RECORD_MAC" in str(info.value.__cause__)
    for _ in range(2):
        with pytest.raises(ConnectionAbortedError) as info:
            client.send("hello")
        assert "BAD_RECORD_MAC" in str(info.value.__cause__)
    client.close()


@pytest.mark.parametrize("is_standard", [True, False])
def test_close(start: Start, connect: Connect, is_standard: bool) -> None:
    """The server sees a clean end, if that was agreed upon; what was sent before has arrived."""
    received: list[bytes] = []

    def serve(sock: ssl.SSLSocket) -> None:
        while data := sock.recv(1 << 16):
            received.append(data)

    server = start(serve)
    client = connect(server.address, ssl_standard_compatible=is_standard)
    client.send("x" * 1_000_000)
    client.close()
    client.close()
    for operation in (client.receive, lambda: client.send("hello")):
        with pytest.raises(ClientClosedError):
            operation()
    wait_until(lambda: len(b"".join(received)) == 1_000_001)
    if not is_standard:
        wait_until(lambda: server.errors != [])
        assert isinstance(server.errors[0], ssl.SSLEOFError)


def test_close_before_the_tickets_come(connect: Connect) -> None:
    """What a server of TLS 1.3 sends unasked, late, does not make it lose what was sent to it."""
    is_closing, received = threading.Event(), bytearray()

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        server = TLSSocket(sock, server_context(), hostname=None)
        server.fill()
        with contextlib.suppress(ssl.SSLWantReadError):
            server.object.do_handshake()
        server.flush()  # all that the client needs
        is_closing.wait(PATIENCE)
        time.sleep(SOON)  # for the client to leave, if it would
        while data := server.recv(1 << 16):
            received.extend(data)

    with without_tls(serve) as address:
        client = connect(address, server_hostname="localhost")
        client.send("x" * 300_000)
        is_closing.set()
        client.close()
    assert received == b"x" * 300_000 + b"\n"


def test_close_in_the_middle_of_a_record(connect: Connect) -> None:
    """Nor does what a server is still sending."""
    is_closing, received = threading.Event(), bytearray()

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        server = TLSSocket(sock, server_context(), hostname=None)
        server.do_handshake()
        record = server.encrypt(b"greeting\n" + b"x" * 9000)
        other_record = server.encrypt(b"x" * 9000)
        sock.sendall(record + other_record[:4000])
        is_closing.wait(PATIENCE)
        time.sleep(SOON)  # for the client to leave, if it would
        sock.sendall(other_record[4000:])
        while data := server.recv(1 << 16):
            received.extend(data)

    with without_tls(serve) as address:
        client = connect(address, server_hostname="localhost")
        assert client.receive() == "greeting"
        client.send("x" * 300_000)
        is_closing.set()
        client.close()
    assert received == b"x" * 300_000 + b"\n"


def test_close_with_a_server_that_does_not_read(start: Start, connect: Connect) -> None:
    """It is not waited for any longer than was agreed upon."""
    is_over = threading.Event()
    server = start(lambda sock: is_over.wait(PATIENCE))
    client = connect(server.address, ssl_shutdown_timeout=SOON)
    try:
        client.fill()
        begin = time.monotonic()
        client.close()
        assert time.monotonic() - begin < 5
    finally:
        is_over.set()


def test_close_after_a_reset(connect: Connect) -> None:
    """A connection that the server has reset ends at once, whatever was not sent."""
    is_full = threading.Event()

    def serve(sock: socket.socket) -> None:
        server = TLSSocket(sock, server_context(), hostname=None)
        server.do_handshake()
        sock.sendall(server.encrypt(b"greeting\nunread"))
        assert is_full.wait(PATIENCE)
        reset(sock)

    with without_tls(serve) as address:
        client = connect(address, server_hostname="localhost")
        assert client.receive() == "greeting"
        client.fill()
        is_full.set()
        with pytest.raises(ConnectionAbortedError):
            client.receive()
        begin = time.monotonic()
        client.close()
        assert time.monotonic() - begin < 5


def test_send_eof(start: Start, connect: Connect) -> None:
    """TLS has no such thing; nothing has happened. A closed client does not care."""
    server = start(echo)
    client = connect(server.address)
    with pytest.raises(UnsupportedOperation, match="^SSL/TLS API does not support sending EOF.$"):
        client.send_eof()
    client.send("hello")
    assert client.receive() == "hello"
    client.close()
    client.send_eof()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a state that nobody announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)


# -- Arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        *("server_hostname", "ssl_handshake_timeout", "ssl_shutdown_timeout"),
        "ssl_standard_compatible",
    ],
)
@pytest.mark.parametrize("off", [None, False])
def test_option_without_tls(connect: Connect, option: str, off: Any) -> None:
    """Options of TLS go with TLS."""
    with pytest.raises(ValueError, match=f"^{option} is only meaningful with ssl$"):
        connect(("localhost", 1), **{"ssl": off, option: ""})


@pytest.mark.parametrize("wrong", ["certificate.pem", object(), 1])
def test_wrong_context(connect: Connect, wrong: Any) -> None:
    """A context is a context."""
    with pytest.raises(TypeError, match="^Expected an ssl.SSLContext object, got "):
        connect(("localhost", 1), ssl=wrong)


def test_context_of_a_server(connect: Connect) -> None:
    """A context that no client can use is refused."""
    context = new_server_context()
    with pytest.raises(ValueError, match="Cannot create a client socket"):
        connect(("localhost", 1), ssl=context)


@pytest.mark.parametrize("option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("wrong", [-1, float("nan")])
def test_wrong_timeout(connect: Connect, option: str, wrong: float) -> None:
    """A time-out is a number of seconds."""
    with pytest.raises(ValueError, match="^Invalid delay: "):
        connect(("localhost", 1), **{option: wrong})


def test_nobody_to_check(start: Start, connect: Connect) -> None:
    """It has to be known whose certificate to expect; nothing is sent before it is."""
    match = "^You must set server_hostname when using ssl without a host$"
    with pytest.raises(ValueError, match=match):
        connect(("", 1))
    with pytest.raises(ValueError, match="^check_hostname requires server_hostname$"):
        connect(("localhost", 1), server_hostname="")

    server = start(echo)
    sock = socket.create_connection(("127.0.0.1", server.address[1]))
    with pytest.raises(ValueError, match=match):
        connect(sock)
    assert sock.fileno() == -1


# -- Threads, with a blocking client -----------------------------------------------------------


@pytest.fixture
def blocking(start: Start) -> Iterator[TCPNetworkClient[str, str]]:
    """Return a blocking client of a server that echoes."""
    server = start(echo)
    with TCPNetworkClient[str, str](server.address, protocol(), ssl=client_context()) as client:
        yield client


def test_two_threads(blocking: TCPNetworkClient[str, str]) -> None:
    """One thread sends while another one receives, and TLS does not mind."""
    packets = [f"{number}:{'x' * (number * 97 % 3000)}" for number in range(3000)]

    def send() -> None:
        for packet in packets:
            blocking.send_packet(packet)

    sender = threading.Thread(target=send)
    sender.start()
    assert [blocking.recv_packet(timeout=PATIENCE) for _ in packets] == packets
    sender.join()


def test_many_threads(blocking: TCPNetworkClient[str, str]) -> None:
    """Several threads may send, and several receive: packets stay in one piece."""
    received: list[str] = []

    def send(name: str) -> None:
        for number in range(200):
            blocking.send_packet(f"{name} {number} {'x' * 1000}")

    def receive() -> None:
        for _ in range(200):
            received.append(blocking.recv_packet(timeout=PATIENCE))

    threads = [threading.Thread(target=send, args=(name,)) for name in "abc"]
    threads += [threading.Thread(target=receive) for _ in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {f"{name} {number} {'x' * 1000}" for name in "abc" for number in range(200)}
    assert set(received) == expected
    assert len(received) == len(expected)


def test_close_while_receiving(blocking: TCPNetworkClient[str, str]) -> None:
    """A thread that receives is woken up when another one closes the client."""
    errors: list[Exception] = []

    def receive() -> None:
        try:
            blocking.recv_packet()
        except Exception as exc:
            errors.append(exc)

    receiver = threading.Thread(target=receive)
    receiver.start()
    wait_until(lambda: receiver.is_alive())
    blocking.close()
    receiver.join(PATIENCE)
    assert [type(exc) for exc in errors] == [ClientClosedError]


def test_receive_what_is_there(blocking: TCPNetworkClient[str, str]) -> None:
    """A time-out of 0 takes what has come, and loses nothing of what has not."""
    with pytest.raises(TimeoutError):
        blocking.recv_packet(timeout=0)
    blocking.send_packet("hello")
    blocking.send_packet("you")
    assert blocking.recv_packet(timeout=PATIENCE) == "hello"
    wait_until(lambda: list(blocking.iter_received_packets(timeout=0)) == ["you"])


def test_time_to_send_is_up(start: Start) -> None:
    """A packet that could not begin to leave has not; behind one that has, nothing can be sent."""
    is_over = threading.Event()
    server = start(lambda sock: is_over.wait(PATIENCE))
    with TCPNetworkClient[str, str](server.address, protocol(), ssl=client_context()) as client:
        try:
            with pytest.raises(TimeoutError):
                client.send_packet("x" * 20_000_000, timeout=SOON)
            with pytest.raises(ConnectionAbortedError, match="Only a part of an earlier packet"):
                client.send_packet("y")
        finally:
            is_over.set()


def test_no_time_to_send(start: Start) -> None:
    """A packet for which there was no room can be sent later."""
    is_reading, received = threading.Event(), bytearray()

    def serve(sock: ssl.SSLSocket) -> None:
        is_reading.wait(PATIENCE)
        while data := sock.recv(1 << 16):
            received.extend(data)

    server = start(serve)
    with TCPNetworkClient[str, str](server.address, protocol(), ssl=client_context()) as client:
        sent = 0
        try:
            while True:
                client.send_packet("x" * 999, timeout=0)
                sent += 1
        except TimeoutError:
            pass
        finally:
            is_reading.set()
        client.send_packet("y" * 999)
    wait_until(lambda: len(received) == 1000 * (sent + 1))
