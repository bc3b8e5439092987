"""The page with all messages: those in the log of a server.

Each test provokes messages, and does what the page says of them. See `message_support`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trustme

from easynetwork import _episode, socketserver as ours
from easynetwork.backends.asyncio import readiness
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import DatagramLimits, Limits, run
from easynetwork.servers._core import fault_log
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.blocking import BlockingClient, BlockingStreamRequestHandler
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    INETClientAttribute,
)
from easynetwork.testing import MemoryNetwork, RawConnection, serve, virtual_time
from easynetwork.testing._memory.servers import MemoryTCPServer
from tests.docs.howto_support import (
    DatagramEcho,
    Echo,
    check_quotations,
    connected,
    serving,
    until,
)
from tests.docs.memory_support import LINES, Obedient, Stage, play
from tests.docs.message_support import Seen
from tests.times import PATIENCE
from tests.tls_peers import authority, client_context, server_context

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the texts are those of Linux")

PAGE = "troubleshooting.rst"
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())


def test_quotations() -> None:
    """Whatever the tests quote is what the page says."""
    check_quotations(PAGE, globals())


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return the log, with all levels."""
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def level_of(log: pytest.LogCaptureFixture, text: str) -> str:
    """Return the level of the only line with a text."""
    [record] = [record for record in log.records if text in record.getMessage()]
    return record.levelname


# -- what is normal


def test_normal_lines(log: pytest.LogCaptureFixture) -> None:
    """A client that comes and leaves.

    INFO: "Start serving at ..."

    "These are its addresses, with the port that it got if you passed port 0."

    INFO: "Clients have ..."

    "The limits that are in force"

    "With the default limits, the level is DEBUG."

    INFO: "Accepted new connection (address = ...)"

    "INFO: ... disconnected (...)"

    "The reason is in parentheses, and how many bytes of an incomplete packet were dropped. Such a
    packet has lost its end, or its newline is missing."

    "With log_client_connection=False, the level is DEBUG."

    "The line Start serving at in the log of the server shows its addresses."
    """
    seen = Seen()
    Stage(limits=Limits(max_clients=7)).play((b"hello", "close"))
    texts = "Start serving at", "Clients have", "Accepted", "disconnected"
    seen.logged(log.records, *texts)
    seen.check(test_normal_lines)
    assert "(address = ('198.51.100.1', " in log.text
    assert "Clients have Limits(max_clients=7, " in log.text
    assert "; 5 bytes of an incomplete packet were dropped)" in log.text
    log.clear()
    Stage(log_client_connection=False).play((b"hello\n", "close"))
    assert [level_of(log, text) for text in texts] == ["INFO", "DEBUG", "DEBUG", "DEBUG"]

    async def main() -> None:
        async with serving(Echo()) as server:
            port = server.get_addresses()[0].port
            assert port != 0
            assert f"Start serving at ('127.0.0.1', {port})" in log.text

    anyio.run(main)


def test_unix_clients(unix_path: str, log: pytest.LogCaptureFixture) -> None:
    """A client of a Unix socket.

    "For a Unix socket, the first line also has the process, the user and the group of the client."
    """

    async def main() -> None:
        async with AsyncUnixStreamServer(unix_path, LINES, Echo()) as server:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve_forever)
                async with AsyncUnixStreamClient[str, str](unix_path, LINES):
                    await until(lambda: "Accepted" in log.text)
                await server.shutdown()

    anyio.run(main)
    assert f"), pid {os.getpid()}, uid {os.getuid()}, gid {os.getgid()}" in log.text


class Receiver(ours.StreamPacketHandler[Any, Any]):
    """Receives one packet."""

    protocol = LINES

    def handle(self) -> None:
        self.recv_packet()


def handle_once(handler: Any, data: bytes) -> None:
    """Have a server of `socketserver` serve one connection in this thread."""
    with ours.TCPServer(("127.0.0.1", 0), handler) as server:
        with socket.create_connection(server.socket.getsockname(), PATIENCE) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            server.handle_request()


def test_clients_that_go_away(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that leaves, or says nothing, is worth a line for those who look closely.

    "DEBUG: ... left before it was served: ..."

    "DEBUG: ... left during the TLS handshake: ..."

    "DEBUG: ... sent nothing for too long"

    "DEBUG: ... left ... bytes of an incomplete packet"

    "DEBUG: ... has left or is silent: ..."

    "A client went away, or did not speak."

    "The line about an incomplete packet is logged by easynetwork.socketserver."
    """
    seen = Seen()
    Stage(ssl=server_context()).play((b"\x16\x03\x01", "close"))
    Stage().play((b"patience 3\n", 4))
    handle_once(Receiver, b"hello")

    async def main() -> None:
        async with serving(Echo()) as server:
            monkeypatch.setattr(type(server.backend()), "wrap_stream_socket", refuse)
            async with connected(server):
                await until(lambda: "left before it was served" in log.text)

    def refuse(self: object, sock: socket.socket, *args: object) -> None:
        sock.close()
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    anyio.run(main)
    texts = "left before", "left during", "sent nothing", "left 5 bytes", "has left or is silent"
    seen.logged(log.records, *texts)
    seen.check(test_clients_that_go_away)
    [record] = [record for record in log.records if "left 5 bytes" in record.getMessage()]
    assert record.name == "easynetwork.socketserver"


def test_cancelled_task(log: pytest.LogCaptureFixture) -> None:
    """Other code cancels tasks.

    "INFO: ... is closed: its task was cancelled before it began"

    "Other code has cancelled the task of a client: a program that cancels all tasks of the event
    loop, for example."
    """

    def new_task(loop: Any, coroutine: Any, **options: Any) -> Any:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        if "StreamSession" in coroutine.__qualname__:
            task.cancel()
        return task

    async def main() -> None:
        async with serve(Obedient(), LINES) as served:
            asyncio.get_running_loop().set_task_factory(new_task)
            connection = await served.connect(raw=True)
            with pytest.raises(ConnectionResetError):
                await connection.receive()
            asyncio.get_running_loop().set_task_factory(None)

    play(main)
    seen = Seen()
    seen.logged(log.records, "was cancelled before it began")
    seen.check(test_cancelled_task)


def test_missing_alert(log: pytest.LogCaptureFixture) -> None:
    """A TLS client that does not say that nothing follows.

    "DEBUG: ... left without TLS's closing alert, as ... clients so far: if it was cut off, the end
    of what it sent is missing"
    """

    async def main() -> None:
        async with serve(Obedient(), LINES, ssl=server_context()) as served:
            client = await served.connect(
                ssl=client_context(), server_hostname="localhost", ssl_standard_compatible=False
            )
            await client.send_packet("hello")
            assert await client.recv_packet() == "hello"
            await client.aclose()
            await anyio.sleep(1)

    play(main)
    seen = Seen()
    seen.logged(log.records, "closing alert, as 1 clients")
    seen.check(test_missing_alert)


# -- clients at fault


class Answering(Obedient):
    """Answers to invalid data."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        try:
            yield
        except Exception:
            await client.send_packet("what?")


def test_invalid_data(log: pytest.LogCaptureFixture) -> None:
    """Data that is not a packet.

    "WARNING: ... sent invalid data: ..."

    "The handler did not catch a StreamProtocolParseError, and the client was disconnected, or
    a DatagramProtocolParseError. The rest of the line says what is wrong"

    "To answer instead, catch the exception"
    """
    answering = Stage(Answering())
    answering.play((b"\xff\n", "read"))
    assert answering.received == b"what?\n"
    assert "invalid data" not in log.text
    stage = Stage()
    stage.play((b"\xff\n", 1))
    assert stage.statistics.clients == 0

    async def main() -> None:
        protocol: Any = DatagramProtocol(StringLineSerializer())
        handler = Forwarding()
        async with serve(handler, protocol) as served:
            await (await served.connect(raw=True)).send(b"\xff")
            await anyio.sleep(0.1)

    play(main)
    seen = Seen()
    seen.logged(log.records, "sent invalid data: ")
    assert len(seen.messages) == 2
    assert ": IncrementalDeserializeError: 'utf-8' codec can't decode" in seen.messages[0]
    assert "'ascii' codec can't decode" in seen.messages[1]
    seen.check(test_invalid_data)


class Forwarding(AsyncDatagramRequestHandler[Any, Any]):
    """Sends datagrams back."""

    async def handle(self, client: AsyncDatagramClient[Any]) -> AsyncGenerator[None, Any]:
        await client.send_packet((yield))


def test_limits(log: pytest.LogCaptureFixture) -> None:
    """A client that reaches a limit.

    "INFO: ... is refused: ..."

    "INFO: ... is closed: ..."

    "INFO: ... is reset: ..."

    "The client reached a limit, and the rest of the line names it"

    "is refused: too many clients stands for max_clients and max_clients_per_host."
    """
    seen = Seen()
    for limits in Limits(max_clients=1), Limits(max_clients_per_host=1):
        log.clear()
        Stage(limits=limits).play((), (1,))
        seen.logged(log.records, " is refused: too many clients")
    log.clear()
    Stage(limits=Limits(idle_timeout=5)).play((b"hello\n", 6))
    seen.logged(log.records, " is closed: silent for too long")
    log.clear()
    Stage(limits=Limits(send_timeout=5)).play((b"flood\n", 6))
    seen.logged(log.records, " is reset: ")
    assert len(seen.messages) == 4
    seen.check(test_limits)


async def shake_hands(connection: RawConnection, context: ssl.SSLContext) -> Any:
    """Do a TLS handshake over a connection as bytes; return the TLS object and what it sends."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(received, sent, server_hostname="localhost")
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            await connection.send(sent.read())
            data = await connection.receive()
            if not data:
                raise ConnectionAbortedError from None
            received.write(data)
        except ssl.SSLError:
            await connection.send(sent.read())
            raise
    await connection.send(sent.read())
    return tls, sent


def demanding() -> ssl.SSLContext:
    """Return the context of a server that wants a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("localhost").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def of_old_version() -> ssl.SSLContext:
    return server_context(ssl.TLSVersion.TLSv1_2)


def old_client() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


CERTIFICATE_UNKNOWN = b"\x15\x03\x03\x00\x02\x02\x2e"  # an alert: RFC 5246, section 7.2


@pytest.mark.parametrize(
    ("reason", "server", "client"),
    [
        ("HTTP_REQUEST", server_context, b"GET / HTTP/1.1\r\n\r\n"),
        ("WRONG_VERSION_NUMBER", server_context, b"EHLO localhost\r\n"),
        ("TLSV1_ALERT_UNKNOWN_CA", server_context, ssl.create_default_context),
        ("SSLV3_ALERT_CERTIFICATE_UNKNOWN", of_old_version, CERTIFICATE_UNKNOWN),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", demanding, client_context),
        ("UNSUPPORTED_PROTOCOL", server_context, old_client),
    ],
)
def test_failed_handshakes(
    reason: str, server: Any, client: Any, log: pytest.LogCaptureFixture
) -> None:
    """Why a handshake has failed.

    WARNING: "Error in client task (during TLS handshake) of ...: ..."

    "The TLS handshake failed."

    "The reason is that of OpenSSL:"

    "HTTP_REQUEST, WRONG_VERSION_NUMBER The client does not speak TLS."

    "TLSV1_ALERT_UNKNOWN_CA, SSLV3_ALERT_CERTIFICATE_UNKNOWN The client does not trust the
    certificate of the server. A certificate that is not signed by a public authority has to be
    known to the client"

    "PEER_DID_NOT_RETURN_A_CERTIFICATE The server demands a certificate of the client, which has
    none."

    "UNSUPPORTED_PROTOCOL The client is too old for the versions of TLS that the server allows."
    """

    async def main() -> None:
        async with serve(Obedient(), LINES, ssl=server()) as served:
            connection = await served.connect(raw=True)
            if isinstance(client, bytes):
                if client is CERTIFICATE_UNKNOWN:
                    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
                    tls = client_context().wrap_bio(received, sent, server_hostname="localhost")
                    with pytest.raises(ssl.SSLWantReadError):
                        tls.do_handshake()
                    await connection.send(sent.read())
                    await anyio.sleep(1)
                await connection.send(client)
            else:
                with contextlib.suppress(OSError):
                    tls, _ = await shake_hands(connection, client())
                    tls.read()
            await anyio.sleep(1)
            assert served.server.get_statistics().tls_failures == 1

    play(main)
    seen = Seen()
    seen.logged(log.records, "during TLS handshake")
    assert f"[SSL: {reason}]" in seen.messages[0]
    seen.check(test_failed_handshakes)


def test_intermediate_certificates(tmp_path: Any) -> None:
    """A chain has to be complete.

    "Also pass the intermediate certificates to load_cert_chain()."
    """
    root = trustme.CA()
    leaf = root.create_child_ca().issue_cert("localhost")
    key, certificates = tmp_path / "key.pem", tmp_path / "certificates.pem"
    leaf.private_key_pem.write_to_path(key)
    own, *others = leaf.cert_chain_pems
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    root.configure_trust(client)
    outcomes: list[str] = []

    async def main() -> None:
        async with serve(Obedient(), LINES, ssl=context) as served:
            connection = await served.connect(raw=True)
            try:
                await shake_hands(connection, client)
                outcomes.append("trusted")
            except ssl.SSLCertVerificationError:
                outcomes.append("not trusted")

    for chain in [own], [own, *others]:
        certificates.write_bytes(b"".join(pem.bytes() for pem in chain))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates, key)
        play(main)
    assert outcomes == ["not trusted", "trusted"]


def test_broken_tls(log: pytest.LogCaptureFixture) -> None:
    """A record that is none.

    WARNING: "TLS connection of ... broke: ..."

    "The client sent something that is not allowed in TLS, or someone in the network changed data."
    """

    async def main() -> None:
        async with serve(Obedient(), LINES, ssl=server_context()) as served:
            connection = await served.connect(raw=True)
            tls, sent = await shake_hands(connection, client_context())
            tls.write(b"hello\n")
            record = bytearray(sent.read())
            record[-1] ^= 1
            await connection.send(bytes(record))
            await anyio.sleep(1)

    play(main)
    seen = Seen()
    seen.logged(log.records, "TLS connection of")
    seen.check(test_broken_tls)


class Slow(AsyncDatagramRequestHandler[str, str]):
    """Takes a second for a datagram, or waits for a second one."""

    def __init__(self, waits: bool = False, patience: float | None = None) -> None:
        self.waits, self.patience = waits, patience
        self.raised: list[BaseException] = []

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[float | None, str]:
        yield None
        if not self.waits:
            await anyio.sleep(1)
            return
        try:
            yield self.patience
        except TimeoutError as exc:
            self.raised.append(exc)


def send_datagrams(handler: Any, peers: int, each: int, pause: float = 0.01, **limits: int) -> Any:
    """Send datagrams to a server in memory, and return its statistics."""
    found: list[Any] = []

    async def main() -> None:
        options: dict[str, Any] = {"limits": DatagramLimits(**limits)}
        async with serve(handler, DATAGRAMS, **options) as served:
            for _ in range(peers):
                peer = await served.connect(raw=True)
                for _ in range(each):
                    await peer.send(b"hello")
                await anyio.sleep(pause)
            found.append(served.server.get_statistics())

    play(main)
    return found[0]


def test_dropped_datagrams(log: pytest.LogCaptureFixture) -> None:
    """More datagrams than are handled.

    WARNING: "Datagrams are dropped: ..." "No more is logged until none was dropped for ... seconds;
    get_statistics() counts them."

    "Clients send faster than the handler works, or too many of them send at the same time"
    """
    seen = Seen()
    assert send_datagrams(Slow(), 1, 10, max_waiting=3).dropped_by_count == 6
    seen.logged(log.records, "are dropped")
    log.clear()
    assert send_datagrams(Slow(), 5, 1, max_peers=2).dropped_by_peers == 3
    seen.logged(log.records, "are dropped")
    assert len(seen.messages) == 2
    assert "for 10 seconds" in seen.messages[0]
    seen.check(test_dropped_datagrams)


def test_evicted_peers(log: pytest.LogCaptureFixture) -> None:
    """Handlers that wait, and take all places.

    WARNING: "Peers are evicted: ... have a request handler running, and others want one." "No more
    is logged until none was evicted for ... seconds; get_statistics() counts them."

    "Handlers of datagrams wait for a second datagram that does not come, and all places are taken."

    "yield a timeout there, or raise max_peers"

    "TimeoutError: evicted: all places are taken, and another peer needs one"

    "A handler of datagrams waited, and its place was needed"
    """
    for handler, peers in (Slow(waits=True, patience=0.5), 1), (Slow(waits=True), 5):
        assert send_datagrams(handler, 5, 1, pause=1, max_peers=peers).evicted == 0
    assert "evicted" not in log.text
    handler = Slow(waits=True)
    assert send_datagrams(handler, 5, 1, pause=1, max_peers=2).evicted == 3
    seen = Seen()
    seen.logged(log.records, "are evicted")
    for error in handler.raised:
        seen.note(error)
    seen.check(test_evicted_peers)


def test_senders_without_a_name(unix_path: str, log: pytest.LogCaptureFixture) -> None:
    """A Unix socket that is not bound.

    WARNING: "A datagram received from an unbound UNIX datagram socket has been dropped."

    "Its sender has no name, so that nothing can be sent back"
    """

    async def main() -> None:
        server: Any = AsyncUnixDatagramServer(
            unix_path, DATAGRAMS, DatagramEcho(), unnamed_addresses_behavior="warn"
        )
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(partial(server.serve_forever, is_up_event=is_up))
            await is_up.wait()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                assert sock.getsockname() == ""
                sock.sendto(b"hello", unix_path)
            await until(lambda: "unbound" in log.text)
            await server.shutdown()

    anyio.run(main)
    seen = Seen()
    seen.logged(log.records, "unbound")
    seen.check(test_senders_without_a_name)


def test_unrelated_errors(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system reports what has become of earlier datagrams.

    DEBUG: "Unrelated error occurred on datagram reception: ..."

    WARNING: "Unrelated error occurred on datagram reception: ..."

    "The operating system reports an error of an earlier datagram, for example that its receiver is
    gone, or a datagram that did not fit into the buffer."

    "The server goes on."
    """
    from easynetwork.testing._memory.datagrams import MemoryDatagramSocket

    errors = [
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        OSError(errno.EMSGSIZE, "Message too long"),
    ]
    receive: Any = MemoryDatagramSocket.recvfrom

    def fail(self: Any, *args: Any) -> Any:
        if errors and self.getsockname()[0] == "192.0.2.1":
            raise errors.pop(0)
        return receive(self, *args)

    async def main() -> None:
        async with serve(Forwarding(), DATAGRAMS) as served:
            peer = await served.connect(raw=True)
            monkeypatch.setattr(MemoryDatagramSocket, "recvfrom", fail)
            await peer.send(b"hello")
            assert await peer.receive() == b"hello"

    play(main)
    seen = Seen()
    seen.logged(log.records, "Unrelated")
    seen.check(test_unrelated_errors)


def test_long_datagrams(log: pytest.LogCaptureFixture) -> None:
    """A datagram that is longer than it may be.

    "WARNING: ... sent more than ... bytes"

    "OSError: a datagram was longer than max_packet_size"

    "A server of easynetwork.socketserver dropped a datagram. max_packet_size of the server class is
    the limit."
    """

    class Handler(ours.DatagramPacketHandler[str, str]):
        protocol = DATAGRAMS

        def handle(self) -> None:
            raise AssertionError

    class Server(ours.UDPServer):
        max_packet_size = 10

    seen = Seen()
    with Server(("127.0.0.1", 0), Handler) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(2):
                sock.sendto(b"x" * 11, server.server_address)
        server.handle_request()
        seen.calls(server.get_request)
    seen.logged(log.records, "sent more than 10 bytes")
    seen.check(test_long_datagrams)


def test_lines_left_out(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than three lines in a second.

    "INFO: ... more problems with clients were not logged"

    "There were more than three lines about faults of clients in one second, and the rest was left
    out"

    "If there was a warning among them, the level is WARNING."
    """
    monkeypatch.setattr(fault_log, "time", Clock())
    Stage(limits=Limits(max_clients=1)).play(*[()] * 6)
    seen = Seen()
    seen.logged(log.records, "more problems")
    assert seen.messages == ["INFO: 2 more problems with clients were not logged"]
    seen.check(test_lines_left_out)
    log.clear()
    Stage().play(*[(b"\xff\n",)] * 4)
    assert level_of(log, "1 more problems") == "WARNING"


class Clock:
    """Stands for the module `time`: the test says what time it is."""

    now: float = 0

    def monotonic(self) -> float:
        return self.now


# -- handlers at fault


def test_bugs(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that leaves a handler.

    ERROR: "Exception occurred during processing of request from ..."

    "Your code raised an exception that it did not catch. The client was disconnected, and nothing
    else was affected. The traceback is in the log. It is there once per minute; in between, the
    exception follows on the same line."
    """
    clock = Clock()
    monkeypatch.setattr(fault_log, "time", clock)

    async def main() -> None:
        async with serve(Obedient(), LINES) as served:
            other = await served.connect()
            for clock.now in 0, 59, 61:
                connection = await served.connect(raw=True)
                await connection.send(b"raise\n")
                with pytest.raises(ConnectionResetError):
                    await connection.receive()
            await other.send_packet("hello")
            assert await other.recv_packet() == "hello"

    play(main)
    seen = Seen()
    seen.logged(log.records, "Exception occurred")
    seen.check(test_bugs)
    records = [record for record in log.records if "Exception occurred" in record.getMessage()]
    assert [record.exc_info is not None for record in records] == [True, False, True]
    assert records[1].getMessage().endswith(": LookupError: planted")


class Careless(Obedient):
    """Uses its client too late."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        request = yield
        if request == "close":
            await client.aclose()
            await client.send_packet("too late")

    async def on_disconnection(self, client: AsyncStreamClient[str]) -> None:
        if not client.is_closing():
            raise AssertionError
        await client.send_packet("bye")


def test_clients_that_are_closed(log: pytest.LogCaptureFixture) -> None:
    """A handler that uses a client after its end.

    WARNING: "There have been attempts to do operation on closed client ..."

    "The handler used a client after it had called client.aclose(). Return from handle() after
    that."

    WARNING: "ConnectionError raised in request_handler.on_disconnection() of ...: ..."

    "on_disconnection() tried to send to a client that has left. It cannot be reached any more: only
    clean up there."
    """
    Stage(Careless()).play((b"close\n", 1), (b"hello\n", "close"))
    seen = Seen()
    seen.logged(log.records, "closed client", "ConnectionError raised")
    seen.check(test_clients_that_are_closed)
    log.clear()
    Stage().play((b"close\n", 1))
    assert "closed client" not in log.text


class Background(Obedient):
    """Starts a task that ignores its cancellation, and fails at the end."""

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        client.start_soon(self.work)

    async def work(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1000)
            raise LookupError("too late")


def test_tasks_that_do_not_end(log: pytest.LogCaptureFixture) -> None:
    """A task of a handler that ignores its cancellation.

    WARNING: "Tasks of ... still run after they were cancelled: ..."

    ERROR: "Exception occurred in ..., after its client"

    "A task that client.start_soon() started did not end when its client did."
    """
    Stage(Background()).play((b"hello\n", "read", "close", 2000))
    seen = Seen()
    seen.logged(log.records, "still run after", "after its client")
    assert seen.messages[0].endswith(": task of client ('198.51.100.1', 49153)")
    seen.check(test_tasks_that_do_not_end)


def test_bug_of_the_library(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What must not happen.

    ERROR: "Unexpected exception in the task of ..."

    "A task of the server has failed."

    "This is a bug in easynetwork, or in a custom class that it calls: please report it, with the
    traceback."
    """

    async def fail(self: object) -> None:
        raise LookupError("planted")

    monkeypatch.setattr("easynetwork.servers._stream.session.StreamSession.run", fail)

    async def main() -> None:
        async with serve(Obedient(), LINES) as served:
            await served.connect(raw=True)
            await anyio.sleep(1)

    with contextlib.suppress(Exception):
        play(main)
    seen = Seen()
    seen.logged(log.records, "Unexpected exception")
    seen.check(test_bug_of_the_library)
    [record] = [record for record in log.records if "Unexpected" in record.getMessage()]
    assert record.exc_info is not None


class Threads(BlockingStreamRequestHandler[str, str]):
    """Echoes lines, in few threads."""

    def handle(self, client: BlockingClient[str, str]) -> None:
        for packet in client.packets():
            client.send_packet(packet)


def test_busy_threads(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """More clients than threads.

    WARNING: "All ... threads of the request handler are busy: clients wait"

    WARNING: "All ... threads are busy: clients wait"

    "More clients are connected than the blocking handler has threads: each client has one, also
    while it is silent. Raise max_threads, or make the handler faster. This line is logged once, and
    again after ten seconds in which no client had to wait."
    """
    seen = Seen()
    counts: list[int] = []
    handler: Any = Threads(max_threads=2)

    async def main() -> None:
        async with serving(handler) as server:
            async with connected(server), connected(server):
                for clock.now in 0, 9, 20:
                    async with connected(server):
                        await until(lambda: server.get_statistics().clients == 3)
                        await anyio.wait_all_tasks_blocked()
                        counts.append(log.text.count("are busy"))
                    await until(lambda: server.get_statistics().clients == 2)

    clock = Clock()
    with monkeypatch.context() as patched:
        patched.setattr(_episode, "time", clock)
        anyio.run(main)
    assert counts == [1, 1, 2]
    seen.logged(log.records, "threads of the request handler are busy")

    class Waiting(ours.StreamPacketHandler[str, str]):
        protocol = LINES

        def handle(self) -> None:
            self.send_packet(self.recv_packet())

    with running(ours.ThreadingTCPServer(("127.0.0.1", 0), Waiting, max_threads=1)) as server:
        with contextlib.ExitStack() as stack:
            first, other = (
                stack.enter_context(socket.create_connection(server.server_address, PATIENCE))
                for _ in range(2)
            )
            wait_for(lambda: "All 1 threads are busy" in log.text)
            for sock in first, other:
                sock.sendall(b"hello\n")
                assert sock.recv(10) == b"hello\n"
    seen.logged(log.records, "All 1 threads are busy")
    seen.check(test_busy_threads)


@contextlib.contextmanager
def running(server: Any) -> Iterator[Any]:
    """Run a server of `socketserver` in a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# -- the machine at its limit


def test_failing_accept(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system cannot accept.

    ERROR: "accept() failed: ..." "New connections wait until that is over."

    ERROR: "accept() failed: ..." "New connections are reset until that is over."

    WARNING: "accept() failed: ..." "New connections wait"

    "Too many open files means that the process has no descriptor left."
    """
    assert os.strerror(errno.EMFILE) == "Too many open files"
    failures: list[OSError] = []
    accept = socket.socket.accept

    def fail(self: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return accept(self)

    async def main(number: int) -> None:
        async with serving(Echo()) as server, connected(server) as first:
            assert await first.ask("hello") == "hello"
            failures.append(OSError(number, os.strerror(number)))
            async with connected(server) as peer:
                assert await peer.ask("hello") == "hello"

    monkeypatch.setattr(socket.socket, "accept", fail)
    monkeypatch.setattr("easynetwork.backends.socket_listener.PAUSE", 0.001)
    monkeypatch.setattr("easynetwork.socketserver._servers.PAUSE", 0.001)
    seen = Seen()
    for number, what in (errno.EMFILE, "are reset"), (errno.ENOMEM, "wait"):
        anyio.run(main, number)
        seen.logged(log.records, f"New connections {what} until that is over.")
        seen.messages[-1] = seen.messages[-1].partition(" Close what is not needed")[0]
    log.clear()
    failures.append(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    handle_once(Receiver, b"hello\n")
    seen.logged(log.records, "accept() failed")
    seen.check(test_failing_accept)


@pytest.mark.parametrize(
    ("backend", "max_clients", "is_said"),
    [("asyncio", None, True), ("asyncio", 2, False), ("trio", None, False)],
)
def test_loop_without_readers(
    backend: str,
    max_clients: int | None,
    is_said: bool,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An event loop as on Windows, which can watch fewer sockets than there are clients.

    "On Windows, some event loops of asyncio cannot watch more. Use trio, or lower max_clients."
    """

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(
                serving(Echo(), limits=Limits(max_clients=max_clients))
            )
            for _ in range(5):
                with contextlib.suppress(ConnectionError):
                    peer = await stack.enter_async_context(connected(server))
                    await peer.ask("hello")

    monkeypatch.setattr(readiness, "_watches", lambda loop: False)
    monkeypatch.setattr(readiness, "_watched", set())
    monkeypatch.setattr(readiness, "_MAX_SOCKETS", 4)
    anyio.run(main, backend=backend)
    assert any("can watch at most 4 sockets" in line for line in log.messages) is is_said


def test_descriptors_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of a limit depends on how many descriptors there may be.

    "Close what is not needed, raise the limit (ulimit -n, or LimitNOFILE= in a unit of systemd), or
    lower max_clients: by default, it leaves descriptors to the rest of your program."
    """
    resource = pytest.importorskip("resource")
    for descriptors in 100, 1000:
        monkeypatch.setattr(resource, "getrlimit", lambda _, count=descriptors: (count, count))
        found = Limits().in_force().max_clients
        assert isinstance(found, int)
        assert descriptors / 2 < found < descriptors


def test_lost_descriptor(log: pytest.LogCaptureFixture) -> None:
    """A descriptor that other code closes.

    OSError: "Other code has closed the connection's descriptor"

    "Your program called os.close() or closed a socket object whose descriptor was not its own."
    """

    class Thief(Obedient):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            yield
            os.close(client.extra(INETClientAttribute.socket).fileno())
            await client.send_packet("lost")

    async def main() -> None:
        async with serving(Thief()) as server, connected(server) as peer:
            await peer.send("hello")
            await until(lambda: "Exception occurred" in log.text)

    anyio.run(main)
    seen = Seen()
    [record] = [record for record in log.records if record.levelname == "ERROR"]
    assert record.exc_info
    assert record.exc_info[1] is not None
    seen.note(record.exc_info[1])
    seen.check(test_lost_descriptor)


# -- the end of a server


def test_draining(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that drains says how far it is.

    INFO: "Draining for at most ... seconds, clients left: ..."

    INFO: "Still draining, clients left: ..."

    INFO: "Drained, clients left: ..."

    INFO: "Not drained, clients left: ..."

    "shutdown(grace=...) waits for clients that have a request in work"

    "Clients that are left at the end are disconnected."

    INFO: "Server loop break, waiting for remaining tasks..."

    INFO: "Server stopped"

    ERROR: "Draining ends early"

    "Something failed while the server drained, and the traceback says what. The server stops all
    the same."
    """
    seen = Seen()
    stage = Stage()
    stage.play((b"work 7\n",), (b"work 100\n", "drain"))
    assert sum(stage.statistics.closed.values()) == 2
    texts = "Draining for", "Still draining", "Not drained", "Server loop break", "Server stopped"
    seen.logged(log.records, *texts)
    log.clear()
    stage.play((b"work 7\n", "drain"))
    seen.logged(log.records, "Drained")

    async def fail(*args: object) -> None:
        raise LookupError("planted")

    monkeypatch.setattr("easynetwork.servers._stream.service.StreamService.stop", fail)
    Stage().play((b"work 100\n", "drain"))
    seen.logged(log.records, "ends early")
    seen.check(test_draining)
    [record] = [record for record in log.records if "ends early" in record.getMessage()]
    assert record.exc_info


def test_order_of_the_end() -> None:
    """What ends first.

    "The server ends: handlers are cancelled, then the exit stack of service_init() is closed."
    """
    events: list[str] = []

    class Noting(Obedient):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            exit_stack.callback(events.append, "closed")

        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            yield
            try:
                await anyio.sleep_forever()
            except BaseException:
                events.append("cancelled")
                raise

    Stage(Noting()).play((b"hello\n", 1))
    assert events == ["cancelled", "closed"]


class Stubborn(Obedient):
    """Ignores its cancellation."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        yield
        with anyio.CancelScope(shield=True):
            await anyio.sleep(10)


class StuckThread(BlockingStreamRequestHandler[str, str]):
    """Does not end before the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.released = threading.Event(), threading.Event()

    def handle(self, client: BlockingClient[str, str]) -> None:
        self.begun.set()
        self.released.wait(PATIENCE)


def test_stuck_code(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that does not end.

    ERROR: "Still running ... seconds after being cancelled, and not waited for any longer: ..."

    "ERROR: ... request handlers are still running in their threads"

    ERROR: "Requests are still being handled after server_close()"

    "The code that is named did not end in time."
    """
    seen = Seen()
    Stage(Stubborn()).play((b"hello\n", 1))
    seen.logged(log.records, "Still running")
    assert "client ('" in seen.messages[0]
    handler: Any = StuckThread()

    async def main() -> None:
        async with serving(handler) as server, connected(server) as peer:
            await peer.send("hello")
            await anyio.to_thread.run_sync(handler.begun.wait, PATIENCE)
            await server.shutdown()
            handler.released.set()

    monkeypatch.setattr("easynetwork.servers._core.threads.STOP_TIMEOUT", 0.02)
    monkeypatch.setattr("easynetwork.servers._core.run.STOP_TIMEOUT", 0.02)
    monkeypatch.setattr("easynetwork.backends.asyncio.tasks.STOP_TIMEOUT", 0.02)
    anyio.run(main)
    seen.logged(log.records, "request handlers are still running in their threads")
    monkeypatch.setattr("easynetwork.socketserver._mixins._GRACE", 0.01)

    class Waiting(ours.StreamPacketHandler[str, str]):
        protocol = LINES

        def handle(self) -> None:
            begun.set()
            released.wait(PATIENCE)

    begun, released = threading.Event(), threading.Event()
    address = ("127.0.0.1", 0)
    with running(ours.ThreadingTCPServer(address, Waiting, close_timeout=0.01)) as server:
        with socket.create_connection(server.server_address, PATIENCE):
            assert begun.wait(PATIENCE)
            server.shutdown()
            server.server_close()
            seen.logged(log.records, "after server_close()")
            released.set()
    seen.check(test_stuck_code)


def test_end_of_the_process(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that keeps the process.

    ERROR: "Ending the process with status ...: request handlers still run"

    "run() ended the process by force after the line above."

    "run() then ends the process, with status 70."
    """
    released = anyio.Event()
    statuses: list[int] = []

    class Stuck(Obedient):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            address = server.get_addresses()[0].for_connection()
            connection = server._network.connect(address, None, None, None)
            exit_stack.callback(connection.close)
            connection.send(b"hello\n")

        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            yield
            os.kill(os.getpid(), signal.SIGTERM)
            with anyio.CancelScope(shield=True):
                await released.wait()

    def end_process(status: int) -> None:
        assert "Still running" in log.text
        statuses.append(status)
        released.set()

    monkeypatch.setattr("easynetwork.servers.running.os._exit", end_process)
    monkeypatch.setattr("easynetwork.servers.running.logging.shutdown", bool)
    new_server = partial(MemoryTCPServer[str, str], MemoryNetwork(), LINES, Stuck())
    run(new_server, grace=0, runner_options=virtual_time())
    assert statuses == [70]
    seen = Seen()
    seen.logged(log.records, "Ending the process")
    seen.check(test_end_of_the_process)


def test_path_that_cannot_be_removed(
    unix_path: str, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that stays.

    ERROR: "Unable to clean up listening Unix socket '...': ..."

    "The file of a Unix socket could not be deleted. Use unlink_stale=True, and the next server
    replaces it."
    """

    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    async def activate(*, fails: bool, **options: Any) -> None:
        async with AsyncUnixStreamServer(unix_path, LINES, Echo(), **options):
            if fails:
                patched.setattr(os, "unlink", refuse)

    with monkeypatch.context() as patched:
        anyio.run(partial(activate, fails=True))
    seen = Seen()
    seen.logged(log.records, "Unable to clean up")
    seen.check(test_path_that_cannot_be_removed)
    with pytest.raises(OSError, match="Address already in use"):
        anyio.run(partial(activate, fails=False))
    anyio.run(partial(activate, fails=False, unlink_stale=True))
