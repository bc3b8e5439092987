"""The how-to page for standalone servers: what it says of its examples is what they do.

What stands in quotation marks in a docstring is what the page says, word for word (the first test
sees to that), and the test would fail if it were wrong. The handlers are the page's; where a test
needs more than they do, it derives a class from them.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from docs._include.examples.howto.advanced.standalone_servers import (
    blocking_work,
    calls_from_threads,
)
from docs._include.examples.howto.tcp_servers.standalone import server as tcp_example
from docs._include.examples.howto.udp_servers.standalone import server as udp_example
from easynetwork.exceptions import ServerClosedError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.servers import StandaloneTCPNetworkServer, StandaloneUDPNetworkServer
from easynetwork.servers.threads_helper import NetworkServerThread
from tests.clients.threads_support import wait_until
from tests.docs.howto_support import (
    DOCS,
    answers_of_program,
    check_quotations,
    shorten_stop,
    without_addresses,
)
from tests.servers.standalone_support import each_loop, loop_options
from tests.times import PATIENCE

PAGE = "howto/advanced/standalone_servers.rst"
EXAMPLES = DOCS / "_include/examples/howto"
TCP_FOLDER = EXAMPLES / "tcp_servers/standalone"
UDP_FOLDER = EXAMPLES / "udp_servers/standalone"
ADVANCED = EXAMPLES / "advanced/standalone_servers"

each_program = pytest.mark.parametrize(
    "path",
    [
        TCP_FOLDER / "server.py",
        TCP_FOLDER / "server_buffered.py",
        TCP_FOLDER / "server_trio.py",
        TCP_FOLDER / "server_uvloop.py",
        UDP_FOLDER / "server.py",
    ],
    ids=lambda path: f"{path.parts[-3]}-{path.stem}",
)


def test_quotations() -> None:
    """The page says what the tests quote; each test quotes something."""
    check_quotations(PAGE, globals())


# The programs


@contextlib.contextmanager
def program(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a server of the page; it is up when the block begins."""
    with subprocess.Popen(
        [sys.executable, path.name],
        cwd=path.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "Start serving" in line, line + process.communicate()[1]
            yield process
        finally:
            process.kill()


def greeting(kind: socket.SocketKind) -> str:
    """Return the answer of the server on the port of the examples."""
    infos = socket.getaddrinfo("localhost", 9000, type=kind)
    with socket.socket(infos[0][0], kind) as visitor:
        visitor.settimeout(PATIENCE)
        visitor.connect(infos[0][4])
        visitor.sendall("Zoë\n".encode() if kind == socket.SOCK_STREAM else "Zoë".encode())
        return visitor.recv(4096).decode().rstrip("\n")


def kind_of(path: Path) -> socket.SocketKind:
    return socket.SOCK_DGRAM if path.parts[-3] == "udp_servers" else socket.SOCK_STREAM


@each_program
def test_programs(path: Path) -> None:
    """Each program serves until Control-C is pressed, and ends like a program that has succeeded.

    "This program is a whole server. Give it a name, and it greets you:"

    "serve_forever() then raises KeyboardInterrupt, which ends the program if you do not catch it,
    as in the program above."

    "Nothing else changes, and clients do not notice."
    """
    with program(path) as process:
        assert greeting(kind_of(path)) == "Hello, Zoë!"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert output == ""
    assert "Traceback" not in errors
    assert errors.endswith(":Server stopped\n")


def test_log() -> None:
    """The log is that of the page.

    "The logger is that of the asynchronous server, which does the work."
    """
    page = (DOCS / PAGE).read_text(encoding="utf-8")
    expected = re.findall(r"^ +(INFO:.*)$", page, re.MULTILINE)
    with program(TCP_FOLDER / "server.py") as process:
        assert process.stderr is not None
        greeting(socket.SOCK_STREAM)
        lines = [process.stderr.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        lines += process.communicate(timeout=PATIENCE)[1].splitlines()
    assert [without_addresses(line) for line in lines] == [
        without_addresses(line) for line in expected[1:]
    ]


def test_lines_of_the_program() -> None:
    """The lines that the text counts are those that it means.

    "They are checked on line 26"

    "Nothing is opened before line 27."
    """
    for folder, name in (TCP_FOLDER, "TCP"), (UDP_FOLDER, "UDP"):
        lines = (folder / "server.py").read_text(encoding="utf-8").splitlines()
        assert lines[25].strip().startswith(f"with Standalone{name}NetworkServer(")
        assert lines[26].strip() == "server.serve_forever()"


def test_signal() -> None:
    """A process manager can stop a program.

    "This program ends with status 0 when a process manager sends it a SIGTERM."
    """
    for signum in signal.SIGTERM, signal.SIGINT:
        with program(ADVANCED / "stop_on_signal.py") as process:
            assert greeting(socket.SOCK_STREAM) == "Hello, Zoë!"
            process.send_signal(signum)
            output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert output == ""
        assert errors.endswith(":Server stopped\n")


def test_background_programs() -> None:
    """The programs get an answer to each request.

    "One thread serves all clients, each in a task of its own."
    """
    for folder in TCP_FOLDER, UDP_FOLDER:
        answers = answers_of_program(folder)
        assert len(answers) == 3
        assert len({answer["thread"] for answer in answers}) == 1
        assert len({answer["task"] for answer in answers}) == 3


# The servers


def tcp_server(handler: Any = None, **options: Any) -> StandaloneTCPNetworkServer[Any, Any]:
    handler = handler or tcp_example.GreetingRequestHandler()
    serializer: Any = StringLineSerializer()
    if isinstance(handler, blocking_work.KeyRequestHandler):
        serializer = JSONSerializer()
    protocol: StreamProtocol[Any, Any] = StreamProtocol(serializer)
    return StandaloneTCPNetworkServer("127.0.0.1", 0, protocol, handler, **options)


def udp_server(handler: Any = None, **options: Any) -> StandaloneUDPNetworkServer[Any, Any]:
    handler = handler or udp_example.GreetingRequestHandler()
    protocol = DatagramProtocol(StringLineSerializer())
    return StandaloneUDPNetworkServer("127.0.0.1", 0, protocol, handler, **options)


@contextlib.contextmanager
def serving(server: Any) -> Iterator[NetworkServerThread]:
    """Serve in a thread while a block runs."""
    thread = NetworkServerThread(server)
    try:
        thread.start()
        yield thread
    finally:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextlib.contextmanager
def connected(server: Any) -> Iterator[Peer]:
    """Connect a peer to a TCP server."""
    with socket.create_connection(server.get_addresses()[0], timeout=PATIENCE) as sock:
        with sock.makefile("rb") as stream:
            yield Peer(sock, stream)


class Peer:
    """A client without our library."""

    def __init__(self, sock: socket.socket, stream: Any) -> None:
        self.socket = sock
        self._stream = stream

    def send(self, line: str) -> None:
        self.socket.sendall(f"{line}\n".encode())

    def receive(self) -> str:
        """Return the next line; "" at the end of the stream."""
        line: bytes = self._stream.readline()
        return line.decode().rstrip("\n")

    def ask(self, line: str) -> str:
        self.send(line)
        return self.receive()


def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
    """Call a function in a thread of its own."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=call).start()
    return future


def test_threads() -> None:
    """The server and its clients have a thread.

    "serve_forever() blocks the thread that calls it. All clients are served there."

    "They may be called by any thread, at any time."
    """
    threads = set()

    class Handler(tcp_example.GreetingRequestHandler):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            threads.add(threading.current_thread())
            async with contextlib.aclosing(super().handle(client)) as generator:
                await anext(generator)
                with contextlib.suppress(StopAsyncIteration):
                    await generator.asend((yield))

    server = tcp_server(Handler())
    assert server.get_addresses() == ()
    with serving(server) as thread:
        for _ in range(2):
            with connected(server) as peer:
                assert peer.ask("Zoe") == "Hello, Zoe!"
        assert threads == {thread}
        assert in_thread(server.is_serving).result(PATIENCE) is True
    assert server.is_serving() is False


def test_construction() -> None:
    """Constructors check, and open nothing.

    "a bad one raises an exception there, not when it is time to serve."
    """
    for new_server in tcp_server, udp_server:
        with pytest.raises(TypeError):
            new_server(no_such_option=1)
        with pytest.raises(TypeError):
            new_server(handler=tcp_example.GreetingRequestHandler)
        assert new_server().get_sockets() == ()


def test_running_again() -> None:
    """Each run opens sockets.

    "serve_forever() opens the sockets, serves, and closes the sockets before it returns. You may
    call it again then, and with port 0, each run gets another free port. The with statement closes
    the server for good."
    """
    for new_server in tcp_server, udp_server:
        with new_server() as server, contextlib.ExitStack() as stack:
            ports = set()
            for _ in range(2):
                with serving(server):
                    (address,) = server.get_addresses()
                    (sock,) = server.get_sockets()
                occupant = stack.enter_context(socket.socket(sock.family, sock.type))
                occupant.bind(address)  # free again, but not for the next run
                ports.add(address.port)
            assert len(ports) == 2
        with pytest.raises(ServerClosedError):
            server.serve_forever()


def test_runner_options() -> None:
    """The options of both calls are merged.

    "The options go to asyncio.Runner or to trio.run():"

    "They are added to those of the constructor, and win if both have the same."
    """

    class Note(trio.abc.Instrument):
        is_noted = False

        def before_run(self) -> None:
            self.is_noted = True

    notes = [Note(), Note()]
    options = {"instruments": notes[:1], "restrict_keyboard_interrupt_to_checkpoints": True}
    server = tcp_server(backend="trio", runner_options=options)
    is_up = threading.Event()
    run = in_thread(
        server.serve_forever, is_up_event=is_up, runner_options={"instruments": notes[1:]}
    )
    assert is_up.wait(PATIENCE)
    server.shutdown()
    run.result(PATIENCE)
    assert [note.is_noted for note in notes] == [False, True]


@each_loop
def test_one_handler_for_all_loops(loop: str) -> None:
    """A handler need not know what it runs on.

    "If it only uses the client, client.backend() or anyio, it runs on all of them."
    """

    class Handler(tcp_example.GreetingRequestHandler):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            name = yield
            await client.backend().coro_yield()
            await anyio.lowlevel.checkpoint()
            await client.send_packet(f"Hello, {name}!")

    server = tcp_server(Handler(), **loop_options(loop))
    with serving(server), connected(server) as peer:
        assert peer.ask("Zoe") == "Hello, Zoe!"


# Stop The Server


@each_loop
def test_shutdown(loop: str) -> None:
    """A server that is shut down leaves nothing behind.

    "the clients are disconnected, what service_init() started is undone, the sockets are closed,
    and serve_forever() is over."

    "It returns when the server has stopped, and so does serve_forever()."

    "in any thread. It does not wait at all, so even a request handler may call it."
    """
    undone: list[bool] = []

    class Handler(tcp_example.GreetingRequestHandler):
        async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
            exit_stack.callback(undone.append, True)

        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            yield
            server.shutdown(timeout=0)
            await anyio.sleep_forever()

    server = tcp_server(Handler(), **loop_options(loop))
    run = in_thread(server.serve_forever)
    wait_until(server.is_serving)
    with connected(server) as peer:
        server.shutdown()
        run.result(PATIENCE)
        assert undone == [True]
        assert server.get_sockets() == ()
        with contextlib.suppress(ConnectionResetError):
            assert peer.receive() == ""
    with serving(server) as thread, connected(server) as peer:
        peer.send("stop")
        threading.Thread.join(thread, PATIENCE)
        assert not thread.is_alive()


def test_shutdown_timeout() -> None:
    """Nobody has to wait for ever.

    "You may limit how many seconds it waits, with its timeout argument."
    """
    gate, is_busy = threading.Event(), threading.Event()

    class Handler(tcp_example.GreetingRequestHandler):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            yield
            is_busy.set()
            gate.wait(PATIENCE)

    server = tcp_server(Handler())
    with serving(server) as thread, connected(server) as peer:
        peer.send("hello")
        assert is_busy.wait(PATIENCE)
        server.shutdown(timeout=0.01)
        assert thread.is_alive()
        gate.set()


def test_close() -> None:
    """server_close() lets those finish who are there.

    "From then on nobody can connect, but those who are connected are served until they leave. When
    the last one has left, serve_forever() returns. A UDP server knows no connections: it stops at
    once."
    """
    server = tcp_server()
    with serving(server) as thread:
        with connected(server) as peer:
            assert peer.ask("Ann") == "Hello, Ann!"
            (address,) = server.get_addresses()
            server.server_close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address.for_connection())
            assert peer.ask("Zoe") == "Hello, Zoe!"
        threading.Thread.join(thread, PATIENCE)
        assert not thread.is_alive()
    datagrams = udp_server()
    with serving(datagrams) as thread:
        datagrams.server_close()
        threading.Thread.join(thread, PATIENCE)
        assert not thread.is_alive()


def test_waiting_for_oneself() -> None:
    """A thread cannot wait for itself.

    "shutdown() without timeout=0 and server_close() wait for the thread that serves. In that thread
    itself, they raise RuntimeError."
    """

    class Handler(tcp_example.GreetingRequestHandler):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            yield
            for call in server.shutdown, lambda: server.shutdown(timeout=1), server.server_close:
                with pytest.raises(RuntimeError):
                    call()
            await client.send_packet("still here")

    server = tcp_server(Handler())
    with serving(server), connected(server) as peer:
        assert peer.ask("hello") == "still here"


# Run Server In Background


def test_background_thread() -> None:
    """The thread's methods start and stop the server.

    "start() returns when the server is ready for clients. join() stops the server and waits for the
    thread."

    "Python does not end a program before its threads have ended, and this thread does not end
    before you stop the server."
    """
    server = tcp_server()
    thread = NetworkServerThread(server)
    thread.start()
    assert server.is_serving()
    assert not thread.daemon
    with connected(server) as peer:
        assert peer.ask("Zoe") == "Hello, Zoe!"
    thread.join()
    assert not thread.is_alive()


def test_port_in_use() -> None:
    """The error is that of the page.

    "If the server cannot start, start() raises the reason, and the thread is over. That the port is
    taken, for instance, is an OSError that names the address:"

    "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 9000): Address
    already in use"
    """
    protocol = StreamProtocol(StringLineSerializer())
    handler = tcp_example.GreetingRequestHandler()
    with StandaloneTCPNetworkServer("127.0.0.1", 9000, protocol, handler) as first:
        with serving(first):
            second = StandaloneTCPNetworkServer("127.0.0.1", 9000, protocol, handler)
            thread = NetworkServerThread(second)
            with pytest.raises(OSError, match="^") as caught:
                thread.start()
            assert not thread.is_alive()
    assert f"{type(caught.value).__name__}: {caught.value}" == (
        f"OSError: [Errno {errno.EADDRINUSE}] "
        "error while attempting to bind on address ('127.0.0.1', 9000): Address already in use"
    )


def test_later_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while the server is up goes the way of all threads' errors.

    "An exception that ends the server later is reported like that of any other thread: by
    threading.excepthook()."
    """
    reports: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reports.append(args.exc_value))
    trouble = threading.Event()

    class Handler(tcp_example.GreetingRequestHandler):
        async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
            tasks = await exit_stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(self.fail)

        async def fail(self) -> None:
            await anyio.to_thread.run_sync(trouble.wait, PATIENCE)
            raise LookupError("a bug in the task")

    with serving(tcp_server(Handler())) as thread:
        trouble.set()
        threading.Thread.join(thread, PATIENCE)
    (error,) = reports
    assert error.exceptions[0].args == ("a bug in the task",)


# Do Blocking Work In A Handler


class Gate:
    """Stands for the slow work: lasts until it is opened, and counts."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.begun = threading.Semaphore(0)
        self.busy = self.most_busy = 0
        self._lock = threading.Lock()

    def work(self, password: str) -> dict[str, Any]:
        with self._lock:
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        self.begun.release()
        assert self.is_open.wait(PATIENCE)
        with self._lock:
            self.busy -= 1
        return {"password": password}


class QuickToo(blocking_work.KeyRequestHandler):
    """Answers one request at once, without any work."""

    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        async with contextlib.aclosing(super().handle(client)) as generator:
            await anext(generator)
            request = yield
            if request == "ping":
                await client.send_packet({"password": "none"})
                return
            with contextlib.suppress(StopAsyncIteration):
                await generator.asend(request)


def test_blocking_handler() -> None:
    """A handler that blocks holds up everybody.

    "While handle() computes, sleeps with time.sleep() or waits for a database driver that is not
    asynchronous, nobody else is served:"
    """
    gate, is_busy = threading.Event(), threading.Event()

    class Handler(tcp_example.GreetingRequestHandler):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            if (yield) == "work":
                is_busy.set()
                gate.wait(PATIENCE)
            await client.send_packet("done")

    server = tcp_server(Handler())
    with serving(server), connected(server) as one, connected(server) as other:
        one.send("work")
        assert is_busy.wait(PATIENCE)
        other.send("ping")
        other.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            other.socket.recv(1)
        gate.set()
        other.socket.settimeout(PATIENCE)
        assert other.socket.recv(5) == b"done\n"


@each_loop
def test_bounded_threads(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example works in two threads, and serves others meanwhile.

    "Here there are at most two of them, because the limiter of line 29 admits no more. The other
    requests wait for their turn, and they do so without blocking anybody."
    """
    line = (ADVANCED / "blocking_work.py").read_text(encoding="utf-8").splitlines()[28]
    assert "CapacityLimiter(max_threads)" in line
    gate = Gate()
    monkeypatch.setattr(blocking_work, "derive_key", gate.work)
    handler = QuickToo(max_threads=2)
    server = tcp_server(handler, **loop_options(loop))
    with serving(server), contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connected(server)) for _ in range(5)]
        for peer in peers[:2]:
            peer.send('"secret"')
            assert gate.begun.acquire(timeout=PATIENCE)
        for peer in peers[2:4]:
            peer.send('"secret"')
        wait_until(lambda: handler.limiter.statistics().tasks_waiting == 2)
        assert peers[4].ask('"ping"') == '{"password":"none"}'
        assert gate.busy == 2
        gate.is_open.set()
        assert [peer.receive() for peer in peers[:4]] == ['{"password":"secret"}'] * 4
    assert gate.most_busy == 2


@each_loop
def test_not_a_password(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is JSON and no password is refused; it does not crash the function in the thread.

    "Send such work to another thread, and await the result:"
    """
    server = tcp_server(blocking_work.KeyRequestHandler(1), **loop_options(loop))
    with serving(server), connected(server) as peer:
        for request in "{}", "[]", "1", "null":
            assert peer.ask(request) == '{"error":"expected a password"}'
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_default_threads() -> None:
    """The backend's door to threads has a limit, too.

    "does the same. The limit is anyio's then: 40 threads for the whole event loop."
    """
    limits = []

    class Handler(tcp_example.GreetingRequestHandler):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            name = yield
            limits.append(anyio.to_thread.current_default_thread_limiter().total_tokens)
            threads = await client.backend().run_in_thread(threading.current_thread)
            await client.send_packet(f"{name}: {threads.name}")

    server = tcp_server(Handler())
    with serving(server), connected(server) as peer:
        assert peer.ask("thread") == "thread: AnyIO worker thread"
    assert limits == [40]


@each_loop
def test_shutdown_waits_for_work(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a thread is done to its end.

    "A thread cannot be interrupted. If the client leaves meanwhile, the work is done to its end
    first. If the server stops, shutdown() waits for it for one second"
    """
    gate = Gate()
    monkeypatch.setattr(blocking_work, "derive_key", gate.work)
    server = tcp_server(blocking_work.KeyRequestHandler(1), **loop_options(loop))
    with serving(server), connected(server) as peer:
        peer.send('"secret"')
        assert gate.begun.acquire(timeout=PATIENCE)
        server.shutdown(timeout=0.01)
        assert gate.busy == 1
        stop = in_thread(server.shutdown)
        gate.is_open.set()
        stop.result(PATIENCE)
        assert gate.busy == 0


@each_loop
def test_shutdown_waits_a_second(
    loop: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Work that takes too long does not keep shutdown() from returning.

    "If the server stops, shutdown() waits for it for one second, and serve_forever() may take until
    the work is done."

    "then the log names its client, shutdown() returns, and serve_forever() follows when the handler
    has ended."
    """
    shorten_stop(monkeypatch)
    gate = Gate()
    monkeypatch.setattr(blocking_work, "derive_key", gate.work)
    server = tcp_server(blocking_work.KeyRequestHandler(1), **loop_options(loop))
    with serving(server) as thread, connected(server) as peer:
        peer.send('"secret"')
        assert gate.begun.acquire(timeout=PATIENCE)
        server.shutdown()
        assert gate.busy == 1
        [error] = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert error.levelno == logging.ERROR
        assert str(peer.socket.getsockname()) in error.getMessage()
        gate.is_open.set()
        threading.Thread.join(thread, PATIENCE)
        assert not thread.is_alive()
    wait_until(lambda: not gate.busy)


@each_loop
def test_abandoned_work(loop: str) -> None:
    """The server does not wait for it.

    "With abandon_on_cancel=True, neither of them waits. The thread goes on alone, and its result is
    lost."
    """
    gate = Gate()

    class Handler(tcp_example.GreetingRequestHandler):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            name = yield
            await client.backend().run_in_thread(gate.work, name, abandon_on_cancel=True)

    server = tcp_server(Handler(), **loop_options(loop))
    with serving(server), connected(server) as peer:
        peer.send("secret")
        assert gate.begun.acquire(timeout=PATIENCE)
        server.shutdown()
        assert gate.busy == 1
        gate.is_open.set()
    wait_until(lambda: not gate.busy)


def test_work_in_c() -> None:
    """The example's function does not keep the interpreter for itself.

    "The function above spends its time in C, and lets others run meanwhile."
    """
    work = in_thread(blocking_work.derive_key, "secret")
    turns = 0
    while not work.done():
        turns += 1
    assert turns > 1000  # it would get next to none if that held the interpreter's lock


# Call Into The Event Loop


@each_loop
def test_news(loop: str) -> None:
    """The handler of the page tells all clients, whoever has the news.

    "Its call() runs a function in the thread of the event loop, awaits it if it is a coroutine
    function, and returns its result. If the function raises an exception, so does call()."
    """
    handler = calls_from_threads.NewsRequestHandler()
    server = tcp_server(handler, **loop_options(loop))
    with serving(server) as thread, connected(server) as one:
        assert one.ask("one") == "one"
        with connected(server) as other:
            assert [other.ask("other"), one.receive()] == ["other", "other"]
            assert handler.publish("from a thread") == 2
            assert [peer.receive() for peer in (one, other)] == ["from a thread"] * 2
        assert handler.portal.call(threading.current_thread) is thread
        with pytest.raises(ZeroDivisionError):
            handler.portal.call(lambda: 1 / 0)


@each_loop
def test_news_after_a_departure(loop: str) -> None:
    """A client that has left is told nothing, and holds up nobody.

    "a thread of yours has something for the clients."
    """
    handler = calls_from_threads.NewsRequestHandler()
    server = tcp_server(handler, **loop_options(loop))
    with serving(server), connected(server) as stays:
        with connected(server) as leaves:
            assert leaves.ask("hello") == "hello"
        wait_until(lambda: handler.publish("news") == 1)
        stays.receive()


@each_loop
def test_portal_without_waiting(loop: str) -> None:
    """A call can be left alone.

    "start_task_soon() does not wait for the end. It returns a concurrent.futures.Future."
    """
    handler = calls_from_threads.NewsRequestHandler()
    server = tcp_server(handler, **loop_options(loop))
    with serving(server):
        forever = handler.portal.start_task_soon(anyio.sleep_forever)
        assert isinstance(forever, Future)
        assert not forever.done()
        assert handler.portal.start_task_soon(handler.tell_all, "news").result(PATIENCE) == 0
    assert forever.cancelled()  # the server does not wait for it


@each_loop
def test_call_from_a_worker(loop: str) -> None:
    """The threads that anyio made know the way back.

    "A function that already runs in one of the threads of the previous section needs no portal.
    There, anyio.from_thread.run() does what call() does."
    """

    class Handler(tcp_example.GreetingRequestHandler):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            name = yield
            await anyio.to_thread.run_sync(anyio.from_thread.run, client.send_packet, name)

    server = tcp_server(Handler(), **loop_options(loop))
    with serving(server), connected(server) as peer:
        assert peer.ask("hello") == "hello"


@each_loop
def test_portal_errors(loop: str) -> None:
    """A portal is for other threads, while the server runs.

    "The portal is open from service_init() until the server stops."

    "A portal raises RuntimeError when it is closed, and when it is used in the thread of the event
    loop."
    """

    class Handler(calls_from_threads.NewsRequestHandler):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            news = yield
            with pytest.raises(RuntimeError):
                self.publish(news)
            await client.send_packet("refused")

    handler = Handler()
    server = tcp_server(handler, **loop_options(loop))
    with serving(server), connected(server) as peer:
        assert peer.ask("news") == "refused"
        assert handler.publish("news") == 1
    with pytest.raises(RuntimeError):
        handler.publish("news")
