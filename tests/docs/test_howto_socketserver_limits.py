"""Test what the page about socketserver says about TLS, limits, errors and the log.

As in `test_howto_socketserver`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import logging
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from docs._include.examples.howto.socketserver import (
    four_servers,
    own_servers,
    request_handlers,
    server_options,
    tls_server,
)
from easynetwork import _tls_options
from easynetwork.clients import TCPNetworkClient
from easynetwork.socketserver import (
    ForkingMixIn,
    TCPServer,
    ThreadingMixIn,
    ThreadingTCPServer,
    UDPServer,
)
from tests.docs.howto_support import DOCS, check_quotations
from tests.docs.socketserver_support import (
    EXAMPLES,
    LOCAL,
    Peer,
    connected,
    entries,
    in_background,
    noting,
    output_of,
    running,
    serving,
)
from tests.times import PATIENCE, SOON
from tests.tls_peers import client_context, server_context

PAGE = (DOCS / "howto/socketserver.rst").read_text(encoding="utf-8")
GRACE = 1.0
"""Seconds between the two measures that server_close() takes."""


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/socketserver.rst", globals())


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


# Encrypting connections with SSL/TLS


def ask_with_tls(address: Any, text: str) -> str:
    """Ask a server over TLS, with a client of the library."""
    with TCPNetworkClient(
        address,
        four_servers.STREAM,
        ssl=client_context(),
        server_hostname="localhost",
    ) as client:
        client.send_packet(text)
        return client.recv_packet(timeout=PATIENCE)


def test_tls_with_threads(log: pytest.LogCaptureFixture) -> None:
    """A client that does not complete its handshake disturbs no other client.

    "The handler does not change"

    "The handshake is a part of setup(), so it runs in the handler's thread or process: a client
    that is slow or silent does not delay other clients. It fails after ssl_handshake_timeout
    seconds, by default 60."

    "Pass an ssl.SSLContext with a certificate to the server."
    """
    assert _tls_options._HANDSHAKE_TIMEOUT == 60
    timeout = 10 * SOON
    server = ThreadingTCPServer(
        LOCAL, tls_server.EchoRequestHandler, ssl=server_context(), ssl_handshake_timeout=timeout
    )
    begin = time.monotonic()
    with serving(server), connected(server.server_address) as silent:
        assert ask_with_tls(server.server_address, "hello") == "hello"
        assert not silent.hears()
        assert silent.ending() in ("connection reset", "end of the stream")
        assert time.monotonic() - begin >= timeout
        assert ask_with_tls(server.server_address, "hello again") == "hello again"
    assert entries(log) == [("DEBUG", False)]


def test_handshake_in_setup() -> None:
    """A client that leaves before the handshake has seen nothing but setup().

    "With TLS, it also does the handshake."
    """
    calls: list[str] = []
    handler_class = noting(tls_server.EchoRequestHandler, calls)
    with TCPServer(LOCAL, handler_class, ssl=server_context()) as server:
        with connected(server.server_address):
            pass
        server.handle_request()
    assert calls == ["setup"]


def test_tls_without_threads() -> None:
    """Without threads, it does.

    "A server without threads does the handshake in serve_forever(), and can serve no other client
    meanwhile."
    """
    server = TCPServer(LOCAL, tls_server.EchoRequestHandler, ssl=server_context())
    with serving(server), connected(server.server_address) as silent:
        with in_background(ask_with_tls, server.server_address, "hello") as answer:
            with pytest.raises(TimeoutError):
                answer.result(SOON)
            silent.close()
            assert answer.result(PATIENCE) == "hello"


@pytest.mark.parametrize(
    "handler_class",
    [
        socketserver.StreamRequestHandler,
        request_handlers.EchoDatagramHandler,
        lambda *args: tls_server.EchoRequestHandler(*args),
    ],
)
def test_tls_needs_classes(handler_class: Any) -> None:
    """Neither another server nor another handler can do it.

    "TLS needs a server class of easynetwork.socketserver and a subclass of StreamPacketHandler.
    With another handler class, the constructor raises TypeError."
    """
    with pytest.raises(TypeError, match="ssl needs a subclass of StreamPacketHandler"):
        TCPServer(LOCAL, handler_class, ssl=server_context())
    standard_class: Any = socketserver.TCPServer
    with pytest.raises(TypeError, match="ssl"):
        standard_class(LOCAL, tls_server.EchoRequestHandler, ssl=server_context())


# Limiting threads and processes


def test_default_limits() -> None:
    """There are limits without any argument.

    "A ThreadingMixIn handles at most 1,000 requests at the same time."

    "A ForkingMixIn has at most 40 children at the same time, as in socketserver."
    """
    mix_in: Any = ThreadingMixIn
    assert mix_in.max_threads == 1000
    assert ForkingMixIn.max_children == socketserver.ForkingMixIn.max_children == 40


def test_max_threads(log: pytest.LogCaptureFixture) -> None:
    """The server accepts no more clients than it has threads, and tells so once.

    "The class attribute max_threads changes this limit."

    "While all threads are busy, the server does not accept connections. New clients wait in the
    backlog of the socket, and the log contains a warning: All 50 threads are busy: clients wait."
    """
    server = server_options.BoundedServer(LOCAL, four_servers.GreetingStreamHandler)
    check_max_threads(server, 50, log)


def test_max_threads_argument(log: pytest.LogCaptureFixture) -> None:
    """An argument limits one server.

    "Both are also arguments of the constructor. An argument overrides the attribute for this server
    object"
    """
    server = server_options.server_with_bounds(LOCAL, four_servers.GreetingStreamHandler)
    check_max_threads(server, 10, log)


def check_max_threads(server: Any, count: int, log: pytest.LogCaptureFixture) -> None:
    """Check that a server serves a number of clients at the same time, and not one more."""
    with serving(server), ExitStack() as stack:
        *peers, last = [
            stack.enter_context(connected(server.server_address)) for _ in range(count + 2)
        ]
        last_but_one = peers.pop()
        for peer in peers:
            assert peer.ask("Zoe") == "Hello, Zoe!"
        for peer in last_but_one, last:
            peer.send("Bob")
        assert not last_but_one.hears()
        peers[7].close()
        assert last_but_one.receive() == "Hello, Bob!"
        assert not last.hears()
        peers[8].close()
        assert last.receive() == "Hello, Bob!"
    [record] = [record for record in log.records if record.levelno > logging.DEBUG]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"All {count} threads are busy: clients wait"


def test_shutdown_of_busy_server() -> None:
    """A server whose threads are busy can be shut down.

    "shutdown() still works."
    """
    handler_class = four_servers.GreetingStreamHandler
    with serving(ThreadingTCPServer(LOCAL, handler_class, max_threads=1)) as server:
        with connected(server.server_address) as peer, connected(server.server_address) as waiting:
            assert peer.ask("Zoe") == "Hello, Zoe!"
            waiting.send("Bob")
            assert not waiting.hears()
            with in_background(server.shutdown) as shutdown:
                shutdown.result(PATIENCE)
            assert peer.ask("Zoe") == "Hello, Zoe!"


def test_server_close_waits() -> None:
    """Without a timeout, closing waits for the threads.

    "server_close() waits for the threads that are still working."
    """
    with ThreadingTCPServer(LOCAL, four_servers.GreetingStreamHandler) as server:
        with connected(server.server_address) as peer:
            peer.send("Zoe")
            server.handle_request()
            with in_background(server.server_close) as closing:
                with pytest.raises(TimeoutError):
                    closing.result(SOON)
                assert peer.receive() == "Hello, Zoe!"
                peer.close()
                closing.result(PATIENCE)


@pytest.mark.parametrize(("name", "value"), [("daemon_threads", True), ("block_on_close", False)])
def test_server_close_does_not_wait(name: str, value: bool) -> None:
    """Two attributes of the standard library's mix-in keep it from waiting.

    "If daemon_threads is true or block_on_close is false, server_close() does not wait, and the
    threads go on."
    """
    server_class: Any = type("Server", (ThreadingTCPServer,), {name: value})
    with server_class(LOCAL, four_servers.GreetingStreamHandler) as server:
        with connected(server.server_address) as peer:
            server.handle_request()
            assert peer.ask("Zoe") == "Hello, Zoe!"
            server.server_close()
            assert peer.ask("Zoe") == "Hello, Zoe!"
            peer.socket.shutdown(socket.SHUT_WR)
            assert peer.ending() == "end of the stream"


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], ThreadingTCPServer]:
    """Return the class of the page, whose server has less than five seconds for its threads."""
    assert server_options.BoundedServer.close_timeout == 5
    monkeypatch.setattr(server_options.BoundedServer, "close_timeout", SOON)
    return partial(server_options.BoundedServer, LOCAL)


def close(server: Any, peer: Peer) -> float:
    """Close a server that has a client; return how many seconds it took."""
    begin = time.monotonic()
    with in_background(server.server_close) as closing:
        try:
            closing.result(PATIENCE)
        except TimeoutError:
            peer.close()
            raise
    return time.monotonic() - begin


def test_close_timeout(bounded: Any, log: pytest.LogCaptureFixture) -> None:
    """Closing resets the connections whose handlers have not ended in time.

    "The class attribute close_timeout limits how many seconds server_close() waits."

    "With close_timeout = 5.0, it waits for at most five seconds. It then resets the connections
    that are still open, and waits one more second for their threads."
    """
    with bounded(four_servers.GreetingStreamHandler) as server:
        with connected(server.server_address) as peer:
            server.handle_request()
            assert peer.ask("Zoe") == "Hello, Zoe!"
            assert close(server, peer) >= SOON
            # The end of the stream may overtake the reset while the handler's thread wakes up.
            assert peer.ending() in ("connection reset", "end of the stream")
    assert {level for level, _ in entries(log)} <= {"DEBUG"}


def test_close_timeout_argument() -> None:
    """An argument limits one server.

    "Both are also arguments of the constructor. An argument overrides the attribute for this server
    object"
    """
    handler_class = four_servers.GreetingStreamHandler
    with server_options.BoundedServer(LOCAL, handler_class, close_timeout=SOON) as server:
        with connected(server.server_address) as peer:
            server.handle_request()
            assert peer.ask("Zoe") == "Hello, Zoe!"
            assert SOON <= close(server, peer) < 5


def test_thread_of_server_close(bounded: Any) -> None:
    """The thread that closes the server does so itself.

    "server_close() itself waits, in the thread that calls it."
    """
    with bounded(four_servers.GreetingStreamHandler) as server:
        with connected(server.server_address) as peer:
            server.handle_request()
            assert peer.ask("Zoe") == "Hello, Zoe!"
            count = threading.active_count()
            with in_background(close, server, peer) as closing:  # that is two threads
                with pytest.raises(TimeoutError):
                    closing.result(SOON / 2)
                assert threading.active_count() <= count + 2
                closing.result(2 * PATIENCE)


def test_thread_that_does_not_end(bounded: Any) -> None:
    """Closing does not wait for a thread that ignores its connection.

    "It then resets the connections that are still open, and waits one more second for their
    threads."
    """
    over = threading.Event()

    class Handler(four_servers.GreetingStreamHandler):
        def handle(self) -> None:
            over.wait(PATIENCE)

    with bounded(Handler) as server, connected(server.server_address) as peer:
        server.handle_request()
        try:
            assert SOON + GRACE <= close(server, peer) < PATIENCE / 2
            assert peer.ending() == "connection reset"
        finally:
            over.set()


REPORTING = "tests.docs.socketserver_program:ReportingRequestHandler"
SIGNALLED = "tests.docs.socketserver_program:SignalledRequestHandler"


def test_max_children() -> None:
    """The server has no more than eight children.

    "The class attribute max_children changes this limit."

    "It does the same, and it limits how many children run at the same time"

    "In your programs, use ForkingMixIn instead."
    """
    server = f"{EXAMPLES}.server_options:ForkingServer"
    with running(server, REPORTING, LOCAL) as program, ExitStack() as stack:
        *peers, last = [stack.enter_context(connected(program.address)) for number in range(9)]
        pids = {peer.ask("hello") for peer in peers}
        assert len(pids) == 8
        last.send("hello")
        assert not last.hears()
        peers[3].close()
        assert last.receive() not in pids


def test_close_timeout_of_processes() -> None:
    """Closing sends signals to the children that have not ended in time.

    "When the close_timeout is over, the children get SIGTERM, and one second later SIGKILL"
    """
    assert server_options.ForkingServer.max_children == 8
    assert server_options.ForkingServer.close_timeout == 5
    server = f"{EXAMPLES}.server_options:ForkingServer"
    with running(server, SIGNALLED, LOCAL, close_timeout=SOON) as program:
        with connected(program.address) as peer:
            assert peer.receive().isdigit()
            begin = time.monotonic()
            program.interrupt()
            assert peer.receive() == "SIGTERM"
            asked = time.monotonic()
            assert asked - begin >= SOON
            assert peer.ending() == "end of the stream"
            assert GRACE - SOON < time.monotonic() - asked < PATIENCE


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ThreadingTCPServer", {"max_threads": 50}),
        ("ThreadingTCPServer", {"close_timeout": 5.0}),
        ("ThreadingTCPServer", {"ssl": None}),
        ("ForkingTCPServer", {"close_timeout": 5.0}),
    ],
)
def test_arguments_of_standard_classes(name: str, options: dict[str, float]) -> None:
    """The classes of the standard library have no limits.

    "The classes of socketserver have neither max_threads nor close_timeout: they start any number
    of threads, and server_close() waits without a limit."

    "They add TLS, bounded threads, a time limit for closing"
    """
    assert not hasattr(getattr(socketserver, name), next(iter(options)))
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        getattr(socketserver, name)(LOCAL, four_servers.GreetingStreamHandler, **options)


# Errors and logs

ROWS = dict(re.findall(r"^ +\* - (.+)\n +- ``([A-Z]+)``\n +- .+$", PAGE, re.MULTILINE))
HAS_TRACEBACK = {
    text: entry == "with a traceback"
    for text, entry in re.findall(r"^ +\* - (.+)\n +- ``[A-Z]+``\n +- (.+)$", PAGE, re.MULTILINE)
}


class Failing(four_servers.GreetingStreamHandler):
    """Fails in the way that the client wants."""

    timeout = PATIENCE

    def handle(self) -> None:
        packet = self.recv_packet(timeout=self.timeout)
        if packet == "connection":
            raise ConnectionResetError("of another connection")
        if packet == "more":
            self.recv_packet()
        raise LookupError(packet)


class Impatient(Failing):
    timeout = SOON


def send(text: str) -> Callable[[Peer], object]:
    return lambda peer: peer.send(text)


def leave(peer: Peer) -> None:
    peer.send("more")
    peer.close()


def leave_rudely(peer: Peer) -> None:
    peer.send("more")
    peer.reset()


def say_nothing(peer: Peer) -> None:
    pass


COUNTING = request_handlers.CountingRequestHandler
BUG, INVALID, TLS, GONE = ROWS


@pytest.mark.parametrize(
    ("row", "handler_class", "options", "provoke"),
    [
        pytest.param(BUG, Failing, {}, send("a bug"), id="bug"),
        pytest.param(BUG, Failing, {}, send("connection"), id="other connection"),
        pytest.param(INVALID, COUNTING, {}, send("invalid"), id="invalid data"),
        pytest.param(TLS, Failing, {"ssl": True}, send("no TLS"), id="no TLS"),
        pytest.param(GONE, Failing, {}, leave, id="left"),
        pytest.param(GONE, Failing, {}, leave_rudely, id="reset"),
        pytest.param(GONE, Impatient, {}, say_nothing, id="silent"),
        pytest.param(GONE, Failing, {"ssl": True}, Peer.close, id="left before the handshake"),
    ],
)
def test_errors(
    row: str, handler_class: Any, options: Any, provoke: Any, log: pytest.LogCaptureFixture
) -> None:
    """Each error is logged as the table says, and the server goes on.

    "An exception that a handler does not catch ends this request only: the server goes on. The
    exception is passed to handle_error()."

    "In the servers of this module, it writes to the logger easynetwork.socketserver. This table is
    for packet handlers on these servers"

    "This server counts all exceptions that its handlers do not catch: invalid data and clients that
    have disconnected count, too."

    "So a handler does not have to catch ConnectionError or TimeoutError of its client."
    """
    if "ssl" in options:
        options = {"ssl": server_context()}
    with serving(own_servers.ErrorCountingServer(LOCAL, handler_class, **options)) as server:
        for count in 1, 2:
            with connected(server.server_address) as peer:
                provoke(peer)
                if peer.socket.fileno() != -1:
                    assert peer.ending() in ("end of the stream", "connection reset")
                wait_until(partial(has_errors, server, count))
    assert entries(log)[0] == (ROWS[row], HAS_TRACEBACK[row])
    assert [level for level, _ in entries(log)] == [ROWS[row]] * 2


def has_errors(server: Any, count: int) -> bool:
    return bool(server.errors == count)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a state that nothing announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_table() -> None:
    """The table has the rows that the tests provoke.

    "A bug in your handler"
    "The client has sent data that is not a packet"
    "The TLS connection has failed"
    "The client has disconnected, or a timeout has passed"
    """
    assert list(ROWS.values()) == ["ERROR", "WARNING", "WARNING", "DEBUG"]
    assert list(HAS_TRACEBACK.values()) == [True, False, False, False]
    quotations = re.findall(r'"(.+)"', str(test_table.__doc__))
    assert list(ROWS) == quotations


def test_traceback_of_standard_class(capsys: pytest.CaptureFixture[str]) -> None:
    """The server of the standard library prints.

    "In socketserver, this method prints a traceback."
    """
    with serving(socketserver.TCPServer(LOCAL, Failing)) as server:
        with connected(server.server_address) as peer:
            peer.send("a bug")
            assert peer.ending() == "end of the stream"
    printed = capsys.readouterr().err
    assert "Traceback (most recent call last):" in printed
    assert "LookupError: a bug" in printed


class Reading(socketserver.StreamRequestHandler):
    """Reads the bytes of a client."""

    def handle(self) -> None:
        self.wfile.write(self.rfile.readline())
        self.rfile.readline()


def test_standard_handler(log: pytest.LogCaptureFixture) -> None:
    """The server does not know of the sockets of such a handler.

    "Handlers of socketserver on the servers of this module: a broken connection is an ERROR with a
    traceback."

    "The module has two parts, which you can use separately"

    "Other combinations of servers and handlers log differently"

    "The server does not know which socket has broken: that of the client, or another one that your
    handler uses."
    """
    with serving(own_servers.ErrorCountingServer(LOCAL, Reading)) as server:
        with connected(server.server_address) as peer:
            assert peer.ask("hello") == "hello"
            peer.reset()
            wait_until(partial(has_errors, server, 1))
    assert entries(log) == [("ERROR", True)]


def test_standard_server(capsys: pytest.CaptureFixture[str]) -> None:
    """The servers of the standard library do not know whose fault it is.

    "Packet handlers on the servers of socketserver: each exception is printed with a traceback, as
    always with these servers."
    """
    with serving(socketserver.TCPServer(LOCAL, Failing)) as server:
        with connected(server.server_address) as peer:
            leave_rudely(peer)
        with connected(server.server_address) as peer:
            peer.send("a bug")
            assert peer.ending() == "end of the stream"
    printed = capsys.readouterr().err
    assert printed.count("Exception occurred during processing of request from") == 2
    assert printed.count("Traceback (most recent call last):") >= 2


class Exiting(four_servers.GreetingStreamHandler):
    def handle(self) -> None:
        self.recv_packet()
        raise self.server.exit_class  # type: ignore[attr-defined]


@pytest.mark.parametrize("exit_class", [SystemExit, KeyboardInterrupt])
def test_exit_without_threads(exit_class: Any, log: pytest.LogCaptureFixture) -> None:
    """A handler can end its server.

    "Two exceptions are different:"

    "SystemExit and KeyboardInterrupt."

    "In a server without threads, they end serve_forever(), as in socketserver."
    """
    servers: list[Any] = [TCPServer(LOCAL, Exiting), socketserver.TCPServer(LOCAL, Exiting)]
    for server in servers:
        server.exit_class = exit_class
        with server, connected(server.server_address) as peer:
            peer.send("stop")
            with pytest.raises(exit_class):
                server.serve_forever()
            assert peer.ending() == "end of the stream"
    assert log.records == []


@pytest.mark.parametrize("exit_class", [SystemExit, KeyboardInterrupt])
def test_exit_in_thread(exit_class: Any, log: pytest.LogCaptureFixture) -> None:
    """A handler in a thread cannot.

    "In a thread, they are passed to handle_error(), which logs them, and they end this request
    only."
    """
    server: Any = ThreadingTCPServer(LOCAL, Exiting)
    server.exit_class = exit_class
    with serving(server):
        for _ in range(2):
            with connected(server.server_address) as peer:
                peer.send("stop")
                assert peer.ending() == "end of the stream"
    assert [level for level, _ in entries(log)] == ["ERROR"] * 2


def test_no_descriptor() -> None:
    """A process without descriptors serves when it has some again, and does not spin.

    "If the process has no file descriptor left (EMFILE), the server cannot accept connections. It
    logs one WARNING, and tries again every 0.1 seconds."
    """
    program = f"""
import logging, resource, socket, threading, time
from {EXAMPLES}.four_servers import GreetingStreamHandler
from easynetwork.socketserver import TCPServer

class Server(TCPServer):
    attempts = 0
    def get_request(self):
        self.attempts += 1
        return super().get_request()

logging.basicConfig(level=logging.DEBUG, format="%(levelname)s")
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
with Server(("127.0.0.1", 0), GreetingStreamHandler) as server:
    with socket.create_connection(server.server_address, timeout={PATIENCE}) as client:
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        time.sleep(0.5)
        assert 0 < server.attempts < 20, server.attempts
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.sendall(b"Zoe\\n")
        print(client.recv(100).decode(), end="", flush=True)
    server.shutdown()
"""
    assert output_of(program) == "WARNING\nHello, Zoe!\n"


def test_errors_in_threads() -> None:
    """Two threads can be in handle_error().

    "With threads, several of them may be in handle_error() at the same time"
    """
    both = threading.Barrier(2)
    met: list[int] = []

    class Server(ThreadingMixIn, own_servers.ErrorCountingServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            super().handle_error(request, client_address)
            met.append(both.wait(PATIENCE))

    with serving(Server(LOCAL, Failing)) as server:
        with connected(server.server_address) as first, connected(server.server_address) as second:
            for peer in first, second:
                peer.send("a bug")
            for peer in first, second:
                assert peer.ending() == "end of the stream"
    assert sorted(met) == [0, 1]


def test_errors_in_processes() -> None:
    """A child counts for itself.

    "With processes, each child counts in its own copy of the server, and the server's counter does
    not change."
    """
    program = f"""
import os, socket
from {EXAMPLES}.own_servers import ErrorCountingServer, EchoRequestHandler
from easynetwork.socketserver import ForkingMixIn

class Server(ForkingMixIn, ErrorCountingServer):
    def handle_error(self, request, client_address):
        super().handle_error(request, client_address)
        os.write(1, f"{{os.getpid() == parent}} {{self.errors}}\\n".encode())

parent = os.getpid()
with Server(("127.0.0.1", 0), EchoRequestHandler) as server:
    for _ in range(2):
        socket.create_connection(server.server_address).close()
        server.handle_request()
print(server.errors)
"""
    assert output_of(program) == "False 1\nFalse 1\n0\n"


def test_limited_log(log: pytest.LogCaptureFixture) -> None:
    """Many errors make few entries.

    "If many entries have the same cause, the log is limited: a client cannot flood it."

    "a log that clients cannot flood"
    """

    class Handler(request_handlers.EchoDatagramHandler):
        def handle(self) -> None:
            if self.packet == "crash":
                raise LookupError("on demand")
            super().handle()

        def handle_invalid(self, exc: Any) -> None:
            super(request_handlers.EchoDatagramHandler, self).handle_invalid(exc)

    with serving(UDPServer(LOCAL, Handler)) as server:
        with connected(server.server_address, "UDPServer") as peer:
            for text in "invalid", '"crash"':
                log.clear()
                for _ in range(100):
                    peer.send(text)
                    assert peer.ask("1") == "1"  # so that no datagram gets lost
                assert 0 < len(log.records) < 50
                assert sum(bool(record.exc_info) for record in log.records) == (text != "invalid")


def test_log_of_processes() -> None:
    """What a child logs is not limited by what others have logged.

    "With a ForkingMixIn, each process has its own limit, so every connection can add a line or a
    traceback."
    """
    program = f"""
import logging, socket
from {EXAMPLES}.own_servers import EchoRequestHandler
from easynetwork.socketserver import ForkingTCPServer

class Handler(EchoRequestHandler):
    def handle(self):
        raise LookupError("on demand")

logging.basicConfig()
with ForkingTCPServer(("127.0.0.1", 0), Handler) as server:
    for _ in range(20):
        with socket.create_connection(server.server_address, timeout={PATIENCE}) as client:
            server.handle_request()
            assert client.recv(1) == b""
"""
    assert output_of(program).count("LookupError: on demand") == 20


def test_handle_error(log: pytest.LogCaptureFixture) -> None:
    """A server can count the errors, and look at them.

    "To do more, override handle_error(). During the call, sys.exception() returns the exception."
    """
    seen: list[BaseException | None] = []

    class Server(own_servers.ErrorCountingServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            super().handle_error(request, client_address)
            seen.append(sys.exception())

    with serving(Server(LOCAL, Failing)) as server:
        for text in "one", "two":
            with connected(server.server_address) as peer:
                peer.send(text)
                assert peer.ending() == "end of the stream"
    assert server.errors == 2
    assert [str(exc) for exc in seen] == ["one", "two"]
    assert len(log.records) == 2
