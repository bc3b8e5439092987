"""Test what the page about socketserver says about other servers.

As in `test_howto_socketserver`, a sentence in quotation marks in a docstring is a quotation of the
page. Many rows of the table are statements of the pages about the other servers, whose tests check
them.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.socketserver import (
    four_servers,
    greeting_blocking,
    greeting_packets,
)
from easynetwork import socketserver
from easynetwork.clients import TCPNetworkClient
from easynetwork.exceptions import ClientClosedError
from easynetwork.servers import StandaloneTCPNetworkServer
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.blocking import (
    BlockingClient,
    BlockingDatagramRequestHandler,
)
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)
from easynetwork.servers.limits import Limits
from easynetwork.servers.standalone_unix_stream import StandaloneUnixStreamServer
from easynetwork.servers.statistics import CloseReason
from easynetwork.servers.threads_helper import NetworkServerThread
from easynetwork.socketserver import ThreadingTCPServer
from tests.docs import unix_support
from tests.docs.howto_support import (
    check_quotations,
    complaints,
    connected as connected_async,
    in_thread,
    serving as serving_async,
    table,
    until,
)
from tests.docs.socketserver_support import FOLDER, LOCAL, connected, serving
from tests.docs.unix_support import needs, short_folder
from tests.times import PATIENCE, SOON

Client = BlockingClient[Any, Any]


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/socketserver.rst", globals())


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


# The programs

PROGRAMS = ("greeting_bytes", "greeting_packets", "greeting_async", "greeting_blocking")


@pytest.fixture
def reserved_port() -> Iterator[tuple[str, int]]:
    """Keep a port for a program: only a socket that reuses addresses can be bound to it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(LOCAL)
        yield sock.getsockname()


@contextlib.contextmanager
def started(text: str, folder: Path, address: tuple[str, int]) -> Iterator[subprocess.Popen[str]]:
    """Start a program of the page at another address, and wait until it listens."""
    host, port = address
    assert text.count('"localhost", 9000') == 1
    program = folder / "program.py"
    program.write_text(text.replace('"localhost", 9000', f'"{host}", {port}'), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-W", "error", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        try:
            deadline = time.monotonic() + 2 * PATIENCE
            while not listens(address):
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def running(text: str, folder: Path, address: tuple[str, int], output: str = "") -> Iterator[None]:
    """Run a program of the page while the block runs; check that Control-C ends it.

    Args:
        text: The program.
        folder: Where to save it.
        address: Where it should listen.
        output: What it should print.
    """
    with started(text, folder, address) as process:
        yield
        deadline = time.monotonic() + PATIENCE
        # A request that is being processed would be ended by Control-C: it must be over.
        while "socketserver" in text and threads_of(process) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE)[0] == output
        assert process.returncode == 0


@pytest.fixture(params=PROGRAMS)
def greeter(
    request: pytest.FixtureRequest, tmp_path: Path, reserved_port: tuple[str, int]
) -> Iterator[tuple[str, int]]:
    """Run one of the greeting programs."""
    text = (FOLDER / f"{request.param}.py").read_text(encoding="utf-8")
    with running(text, tmp_path, reserved_port):
        yield reserved_port


def listens(address: tuple[str, int]) -> bool:
    try:
        with connected(address):
            return True
    except ConnectionRefusedError:
        return False


def threads_of(process: subprocess.Popen[str]) -> int:
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


def test_same_program(greeter: tuple[str, int]) -> None:
    """The four programs answer the same bytes in the same way, several clients at a time.

    "Compare handle() in the same program, first with socketserver alone, then with packets, then
    with coroutines"

    "keep blocking handlers, and change only the server"
    """
    with connected(greeter) as first, connected(greeter) as second:
        assert first.ask("Zoe") == "Hello, Zoe!"
        second.socket.sendall("Zo\u00eb\nBob\n\nAnn".encode())
        for name in "Zo\u00eb", "Bob", "":
            assert second.receive() == f"Hello, {name}!"
        assert not second.hears()
        second.send("e")
        assert second.receive() == "Hello, Anne!"
        assert first.ask("Tim", "Tom") == "Hello, Tim!"
        first.socket.shutdown(socket.SHUT_WR)
        assert first.ending() == "end of the stream after b'Hello, Tom!\\n'"


def test_client_is_kept(greeter: tuple[str, int]) -> None:
    """A client of the library can ask all of them.

    "you can keep your protocol object and your clients"
    """
    protocol = greeting_packets.GreetingRequestHandler.protocol
    with TCPNetworkClient(greeter, protocol) as client:
        client.send_packet("Zoe")
        assert client.recv_packet(timeout=PATIENCE) == "Hello, Zoe!"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_threads() -> None:
    """A server with threads needs one for each client, others have one for all.

    "A thread for each connection is simple, but it has limits: thousands of clients that are mostly
    silent need thousands of threads. The other servers of this library serve all clients in one
    thread, and you can keep your protocol object and your clients."
    """
    count = 5
    handler_class = greeting_packets.GreetingRequestHandler
    with contextlib.ExitStack() as stack, serving(ThreadingTCPServer(LOCAL, handler_class)) as one:
        for _ in range(count):
            stack.enter_context(connected(one.server_address))
        await until(lambda: threads_of_requests() == count)
        stack.close()
    async with serving_async(Moved(set())) as server:
        before = {*threading.enumerate()}
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(connected(address_of(server)))
            await until(lambda: server.get_statistics().clients == count)
            assert before.issuperset(threading.enumerate())


def threads_of_requests() -> int:
    names = [thread.name for thread in threading.enumerate()]
    return sum("process_request_thread" in name for name in names)


@needs("nc")
def test_netcat(greeter: tuple[str, int]) -> None:
    """The programs can be tried by hand.

    "To try them, start one of them, and type names into nc localhost 9000."
    """
    host, port = greeter
    with subprocess.Popen(
        ["nc", host, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        bufsize=1,
    ) as netcat:
        assert netcat.stdin is not None
        assert netcat.stdout is not None
        try:
            for name in "Zoe", "Bob":
                netcat.stdin.write(f"{name}\n")
                assert netcat.stdout.readline() == f"Hello, {name}!\n"
        finally:
            netcat.kill()


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("greeting_bytes", None),
        ("greeting_packets", "connection reset"),
        ("greeting_async", "end of the stream"),
    ],
)
def test_interrupt(
    name: str, end: str | None, tmp_path: Path, reserved_port: tuple[str, int]
) -> None:
    """Control-C ends a program in another way if there is a client.

    "greeting_bytes.py waits until nc has disconnected. greeting_packets.py waits for one second,
    because its ThreadingTCPServer has close_timeout=1.0, then resets the connection.
    greeting_async.py ends at once."

    "Then press Control-C in the terminal of the server while nc is still connected."
    """
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    with started(text, tmp_path, reserved_port) as process:
        with connected(reserved_port) as peer:
            assert peer.ask("Zoe") == "Hello, Zoe!"
            # Control-C would end a request that the main thread has not yet passed to a thread.
            with connected(reserved_port) as other:
                other.socket.shutdown(socket.SHUT_WR)
                assert other.ending() == "end of the stream"
            process.send_signal(signal.SIGINT)
            begin = time.monotonic()
            if end is None:
                assert not peer.hears()
            else:
                assert peer.ending() in (end, "end of the stream")
                is_patient = name == "greeting_packets"
                assert (time.monotonic() - begin >= 0.9) == is_patient
        assert process.communicate(timeout=PATIENCE)[0] == ""
        assert process.returncode == 0


COUNTS = "0 requests of 127.0.0.1\n1 requests of 127.0.0.1\n"
"""What the handler that counts prints: before the test's client, another one only connects."""


@pytest.mark.parametrize(
    ("name", "question", "answer", "output"),
    [
        ("own_servers", "hello", "Administrator: hello", ""),
        ("request_handlers", "[1]", '{"number":1,"request":[1]}', COUNTS),
        ("server_options", "hello", "hello", ""),
    ],
)
def test_short_examples(
    name: str,
    question: str,
    answer: str,
    output: str,
    tmp_path: Path,
    reserved_port: tuple[str, int],
) -> None:
    """The files of the short examples can be tried, too.

    "The short examples on this page are in three files: server_options.py, own_servers.py
    and request_handlers.py. To try them, start one of these files. In another terminal, start nc
    localhost 9000 (for datagrams, nc -u localhost 9000), and type a line of text, or a JSON
    document for request_handlers.py."
    """
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    with running(text, tmp_path, reserved_port, output):
        with connected(reserved_port) as peer:
            assert peer.ask(question) == answer
            peer.socket.shutdown(socket.SHUT_WR)
            assert peer.ending() == "end of the stream"


def test_short_example_of_datagrams(tmp_path: Path) -> None:
    """Another handler takes a replacement.

    "The end of each file says which server and which handler it uses: replace them by those that
    you want to try."
    """
    text = (FOLDER / "request_handlers.py").read_text(encoding="utf-8")
    call, _, other = text.partition("    main(")[2].partition("  # or ")
    assert other == "main(UDPServer, EchoDatagramHandler)\n"
    assert call == "TCPServer, CountingRequestHandler)"
    program = tmp_path / "program.py"
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(LOCAL)
        address = host, port = sock.getsockname()
    text = text.replace(f"main({call}", other.rstrip()).replace(
        '"localhost", 9000', f'"{host}", {port}'
    )
    program.write_text(text, encoding="utf-8")
    with subprocess.Popen([sys.executable, "-W", "error", program]) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            with connected(address, "UDPServer") as peer:
                answer = ""
                while not answer:
                    assert time.monotonic() < deadline
                    with contextlib.suppress(ConnectionRefusedError):
                        answer = peer.ask("[1]")
                assert answer == "[1]"
        finally:
            process.kill()


def test_imports() -> None:
    """The programs use what the page says.

    "first with socketserver alone, then with packets, then with coroutines"

    "which needs no async either"
    """
    texts = [(FOLDER / f"{name}.py").read_text(encoding="utf-8") for name in PROGRAMS]
    assert ["easynetwork" in text for text in texts] == [False, True, True, True]
    assert ["async " in text for text in texts] == [False, False, True, False]


# Keeping blocking code

Greeter = greeting_blocking.GreetingRequestHandler


@contextlib.contextmanager
def standing_alone(handler: Any, **options: Any) -> Iterator[Any]:
    """Serve a handler in a thread while the block runs; the block gets the server."""
    server = StandaloneTCPNetworkServer(*LOCAL, four_servers.STREAM, handler, **options)
    with server:
        thread = NetworkServerThread(server, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            thread.join()


def address_of(server: Any) -> tuple[str, int]:
    host, port, *_ = server.get_addresses()[0]
    return host, port


@pytest.mark.anyio
async def test_servers_of_blocking_handlers(log: pytest.LogCaptureFixture) -> None:
    """Asynchronous servers serve them, too.

    "It works with all servers for connections"
    """
    handler: Any = Greeter(max_threads=50)
    async with serving_async(handler) as server, connected_async(server) as peer:
        assert await peer.ask("Zoe") == "Hello, Zoe!"
    with short_folder() as folder:
        path = folder / "greeting.sock"
        async with unix_support.serving(unix_support.new_server(path, handler)):
            with unix_support.connected(path) as peer:
                assert await peer.ask("Zoe") == "Hello, Zoe!"
    assert complaints(log) == []


def test_standalone_servers_of_blocking_handlers() -> None:
    """So do standalone servers, without async.

    "It works with all servers for connections, for example with StandaloneTCPNetworkServer, which
    needs no async either"
    """
    handler = Greeter(max_threads=50)
    with standing_alone(handler) as server, connected(address_of(server)) as peer:
        assert peer.ask("Zoe") == "Hello, Zoe!"
    with short_folder() as folder:
        path = str(folder / "greeting.sock")
        with StandaloneUnixStreamServer(path, four_servers.STREAM, handler) as unix_server:
            thread = NetworkServerThread(unix_server, daemon=True)
            thread.start()
            try:
                with connected(path, "UnixStreamServer") as peer:
                    assert peer.ask("Zoe") == "Hello, Zoe!"
            finally:
                thread.join()


class Noting(Greeter):
    """Notes what is called, and in which thread."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[tuple[str, object]] = []
        self.gone = threading.Semaphore(0)

    def note(self, name: str) -> None:
        self.calls.append((name, threading.get_ident()))

    def on_connection(self, client: Client) -> None:
        self.note("on_connection")

    def handle(self, client: Client) -> None:
        self.note("handle")
        super().handle(client)

    def on_disconnection(self, client: Client) -> None:
        self.note("on_disconnection")
        self.gone.release()


def test_blocking_hooks() -> None:
    """One object has all clients, each of which has a thread.

    "A BlockingStreamRequestHandler has ordinary methods, which run in a thread for each client, and
    get a BlockingClient."

    "There is one handler object for all clients."

    "setup() and finish() are called on_connection(client) and on_disconnection(client)."

    "In the other servers of this library, you cannot."

    "Keep the data of a client in local variables of handle(), not in attributes of self."
    """
    handler = Noting(max_threads=50)
    with standing_alone(handler) as server:
        with connected(address_of(server)) as first, connected(address_of(server)) as second:
            for peer in first, second:
                assert peer.ask("Zoe") == "Hello, Zoe!"
            for peer in first, second:
                peer.close()
                assert handler.gone.acquire(timeout=PATIENCE)
    names = [name for name, _ in handler.calls]
    assert names == [*["on_connection", "handle"] * 2, *["on_disconnection"] * 2]
    threads = [thread for _, thread in handler.calls]
    assert threads == [threads[0]] * 2 + [threads[2]] * 2 + [threads[0], threads[2]]
    assert threads[0] != threads[2]


def test_end_of_handle() -> None:
    """The end of handle() is the end of the connection.

    "When handle() returns, the connection is closed."
    """

    class Handler(Greeter):
        def handle(self, client: Client) -> None:
            client.send_packet(client.recv_packet())

    with standing_alone(Handler()) as server, connected(address_of(server)) as peer:
        assert peer.ask("Zoe") == "Zoe"
        assert peer.ending() == "end of the stream"


def test_limits_and_statistics() -> None:
    """Blocking handlers can do what asynchronous ones can.

    "Each client has set_limits(), get_statistics(), is_draining() and close_reason, as in
    asynchronous handlers"

    "If handle() returns before the client has left, close_reason is None."
    """

    class Handler(Noting):
        def handle(self, client: Client) -> None:
            client.set_limits(idle_timeout=None)
            assert not client.is_draining()
            assert client.get_statistics().packets_received == 0
            while (name := client.recv_packet()) != "return":
                client.send_packet(name)

        def on_disconnection(self, client: Client) -> None:
            reasons.append(client.close_reason)
            super().on_disconnection(client)

    reasons: list[CloseReason | None] = []
    handler = Handler(max_threads=50)
    with standing_alone(handler, limits=Limits(idle_timeout=PATIENCE)) as server:
        for last_words in "", "return":
            with connected(address_of(server)) as peer:
                assert peer.ask("Zoe") == "Zoe"
                if last_words:
                    peer.send(last_words)
                    assert peer.ending() == "end of the stream"
            assert handler.gone.acquire(timeout=PATIENCE)
    assert reasons == [CloseReason.PEER_CLOSED, None]


def test_crash() -> None:
    """An exception of a handler resets the connection.

    "If handle() raises an exception, the connection is reset. In a ThreadingTCPServer, it is closed
    in order: the client receives the data that has been sent, then the end of the stream."
    """

    class Handler(Greeter):
        def handle(self, client: Client) -> None:
            client.send_packet(client.recv_packet())
            raise LookupError("on demand")

    class PacketHandler(greeting_packets.GreetingRequestHandler):
        def handle(self) -> None:
            self.send_packet(self.recv_packet())
            raise LookupError("on demand")

    with standing_alone(Handler()) as server, connected(address_of(server)) as peer:
        assert peer.ask("Zoe") == "Zoe"
        assert peer.ending() == "connection reset"
    with serving(ThreadingTCPServer(LOCAL, PacketHandler)) as thread_server:
        with connected(thread_server.server_address) as peer:
            assert peer.ask("Zoe") == "Zoe"
            assert peer.ending() == "end of the stream"


def test_max_threads(log: pytest.LogCaptureFixture) -> None:
    """More clients than threads have to wait.

    "At most max_threads clients are served at the same time. More clients are accepted, and wait
    for their turn."
    """
    with standing_alone(Greeter(max_threads=2)) as server:
        address = address_of(server)
        with connected(address) as first, connected(address) as second, connected(address) as last:
            for peer in first, second:
                assert peer.ask("Zoe") == "Hello, Zoe!"
            last.send("Bob")
            assert not last.hears()
            assert second.ask("Zoe") == "Hello, Zoe!"
            first.close()
            assert last.receive() == "Hello, Bob!"
    assert [record.getMessage() for record in complaints(log)] == [
        "All 2 threads of the request handler are busy: clients wait"
    ]


def test_leaving_the_queue() -> None:
    """A client that has left before its turn is not served.

    "A client that leaves before its turn without having sent anything is not served."
    """
    handler = Noting(max_threads=1)
    with standing_alone(handler) as server:
        address = address_of(server)
        with connected(address) as first:
            assert first.ask("Zoe") == "Hello, Zoe!"
            with connected(address) as silent:
                silent.socket.shutdown(socket.SHUT_WR)
            with connected(address) as last:
                last.send("Bob")
                assert not last.hears()
                first.close()
                assert last.receive() == "Hello, Bob!"
            for _ in range(2):
                assert handler.gone.acquire(timeout=PATIENCE)
    assert [name for name, _ in handler.calls].count("handle") == 2


@pytest.mark.parametrize("way", ["recv_packet", "send_packet"])
def test_stop(way: str) -> None:
    """A handler that waits for its client learns that the server stops.

    "When the server stops, a handler that waits in recv_packet() gets a ClientClosedError at once,
    and one that waits in send_packet() gets it after half a second."
    """
    errors: list[Exception] = []

    class Handler(Greeter):
        def handle(self, client: Client) -> None:
            client.send_packet("ready")
            try:
                if way == "recv_packet":
                    client.recv_packet()
                while True:
                    client.send_packet("x" * 1_000_000)
            except Exception as exc:
                errors.append(exc)

    with standing_alone(Handler()) as server, connected(address_of(server)) as peer:
        assert peer.receive() == "ready"
        if way == "send_packet":
            assert peer.socket.recv(1) == b"x"
        server.shutdown()
    assert [type(exc) for exc in errors] == [ClientClosedError]


def test_stop_with_other_code() -> None:
    """A handler that waits for something else is not interrupted.

    "Other blocking code cannot be interrupted."
    """
    over, ended = threading.Event(), threading.Event()

    class Handler(Greeter):
        def handle(self, client: Client) -> None:
            client.send_packet("ready")
            over.wait(PATIENCE)
            ended.set()

    with standing_alone(Handler()) as server, connected(address_of(server)) as peer:
        assert peer.receive() == "ready"
        server.shutdown()
        assert not ended.is_set()
        over.set()
        assert ended.wait(PATIENCE)


@pytest.mark.anyio
async def test_blocking_datagrams() -> None:
    """Datagrams can be handled in threads, too.

    "For datagrams, there is BlockingDatagramRequestHandler."
    """
    threads: set[int] = {threading.get_ident()}

    class Handler(BlockingDatagramRequestHandler[str, str]):
        def handle(self, client: BlockingClient[str, str]) -> None:
            threads.add(threading.get_ident())
            client.send_packet(f"Hello, {client.recv_packet()}!")

    protocol = four_servers.DATAGRAM
    handler: Any = Handler()
    with short_folder() as folder:
        path = folder / "greeting.sock"
        async with unix_support.serving(AsyncUnixDatagramServer(path, protocol, handler)):
            with connected(str(path), "UnixDatagramServer") as peer:
                for _ in range(2):
                    assert await in_thread(partial(peer.ask, "Zoe")) == "Hello, Zoe!"
    assert len(threads) > 1


# From hooks to coroutines


class Moved(AsyncStreamRequestHandler[str, str]):
    """Does what the table says."""

    def __init__(self, refused: set[str]) -> None:
        self.refused = refused
        self.servers: list[Any] = []
        self.actions = 0
        self.tasks: set[int] = set()
        self.timeout = PATIENCE

    async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
        self.servers.append(server)
        tasks = await exit_stack.enter_async_context(anyio.create_task_group())
        exit_stack.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(self.service_actions)

    async def service_actions(self) -> None:
        while True:
            self.actions += 1
            await anyio.sleep(0.001)

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[float | None, str]:
        self.tasks.add(anyio.get_current_task().id)
        address = client.extra(INETClientAttribute.remote_address)
        if address.host in self.refused:
            return
        try:
            request = yield self.timeout
        except TimeoutError:
            await client.send_packet("too late")
            await client.aclose()
            return
        if request == "thread":
            request = str(await client.backend().run_in_thread(threading.get_ident))
            self.timeout = SOON
        await client.send_packet(request)


def test_names_in_rows() -> None:
    """The left column has names of the module: classes, their attributes and arguments.

    "This table shows what replaces each part of socketserver"
    """
    classes = [value for value in vars(socketserver).values() if inspect.isclass(value)]
    known = {cls.__name__ for cls in classes}
    for cls in classes:
        known.update(dir(cls), inspect.signature(cls).parameters)
    name = re.compile(r"(?:self\.)?(\w+)(?:\(.*\))?(?: (?:returns|in) .*)?")
    rows = table("howto/socketserver.rst", "socketserver", "Asynchronous server")
    parts = [name.fullmatch(part) for left, _ in rows for part in left.split(", ")]
    found = [part[1] for part in parts if part is not None]
    assert len(found) > len(rows)
    assert set(found) <= known


@pytest.mark.anyio
async def test_rows() -> None:
    """An asynchronous handler has what a program on the standard library has.

    "client.extra(INETClientAttribute.remote_address)"
    "the server argument of service_init()"
    "return in handle() before the first yield. The connection is reset, not closed in order"
    "For blocking code in this task, use client.backend().run_in_thread()"
    "yield 30 raises TimeoutError if the client sends nothing for 30 seconds"
    "A task that service_init() starts"
    "server.get_addresses()"
    "The arguments backlog and reuse_port"

    "This table shows what replaces each part of socketserver if you write an
    AsyncStreamRequestHandler for AsyncTCPNetworkServer"

    "The server creates a task for each client."
    """
    handler = Moved({"127.0.0.2"})
    async with serving_async(handler, backlog=1, reuse_port=True) as server:
        assert handler.servers == [server]
        async with connected_async(server) as peer:
            assert await peer.ask("hello") == "hello"
            assert len(handler.tasks) == 1
            async with connected_async(server) as other:
                assert await other.ask("hello") == "hello"
            assert len(handler.tasks) == 2
            assert int(await peer.ask("thread")) != threading.get_ident()
            assert await peer.receive() == "too late"
            assert await peer.ending() == "end of the stream"
        with connected(address_of(server), host="127.0.0.2") as refused:
            assert await in_thread(refused.ending) == "connection reset"
        await until(lambda: handler.actions > 3)
