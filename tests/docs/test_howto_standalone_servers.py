"""Test the statements and the examples of the page about standalone servers.

A sentence in quotation marks in a docstring is a word-for-word quotation of the page (the first
test checks this), and the test fails if the sentence is wrong. The tests use the handlers of the
page; where a test needs more, it defines a subclass.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import logging
import multiprocessing
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
import sniffio
import trio

from docs._include.examples.howto.advanced.standalone_servers import (
    blocking_work,
    calls_from_threads,
)
from docs._include.examples.howto.tcp_servers.standalone import server as tcp_example
from docs._include.examples.howto.udp_servers.standalone import server as udp_example
from easynetwork.exceptions import ServerClosedError
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.servers import (
    AsyncTCPNetworkServer,
    AsyncUDPNetworkServer,
    StandaloneTCPNetworkServer,
    StandaloneUDPNetworkServer,
)
from easynetwork.servers.groups import ClientGroup
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
from tests.times import PATIENCE, SOON

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
    """Each test quotes the page, and the page contains each quotation."""
    check_quotations(PAGE, globals())


# The programs


@contextlib.contextmanager
def program(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a server of the page while a block runs. The block begins when the server is ready."""
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
    """Return the response of the server on the port of the examples."""
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
    """Each program serves until Control-C is pressed, then exits with status 0.

    "This program is a complete server, a StandaloneTCPNetworkServer or a
    StandaloneUDPNetworkServer. It receives a name and sends back a greeting:"

    "serve_forever() then raises KeyboardInterrupt, which the program above suppresses."

    "Nothing else changes, neither in the server nor in its clients."

    "Control-C stops the server if it runs in the main thread."
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
    """The program logs the lines that the page shows.

    "The logger is that of the asynchronous server, which the standalone server runs internally."

    "Then stop nc, and press Control-C to stop the server. The log of the TCP server looks like
    this"
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
    """The line numbers in the text are right for both programs.

    "They are checked on line 26"

    "No socket is opened before line 27."
    """
    for folder, name in (TCP_FOLDER, "TCP"), (UDP_FOLDER, "UDP"):
        lines = (folder / "server.py").read_text(encoding="utf-8").splitlines()
        assert lines[25].strip().startswith(f"with Standalone{name}NetworkServer(")
        assert lines[26].strip() == "server.serve_forever()"


def test_traceback(tmp_path: Path) -> None:
    """Control-C is an exception for a program that does not catch it.

    "If you do not catch it, the program ends with a traceback."
    """
    text = (TCP_FOLDER / "server.py").read_text(encoding="utf-8")
    path = tmp_path / "server.py"
    path.write_text(text.replace("(KeyboardInterrupt)", "()").replace("9000", "0"))
    with program(path) as process:
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == -signal.SIGINT
    assert "\nTraceback (most recent call last):\n" in errors
    assert errors.endswith("\nKeyboardInterrupt\n")


def test_signal() -> None:
    """A signal stops the program.

    "When a process manager sends SIGTERM to this program, the program ends with exit status 0."

    "You can also call it in a signal handler, as this function in stop_on_signal.py does"
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
    """Each request gets a response.

    "One thread serves all clients, and each client has its own task."
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
    """All clients are served in the thread that runs `serve_forever()`.

    "serve_forever() blocks the thread that calls it. All clients are served in this thread."

    "You can call them from any other thread, at any time."

    "The server creates its own event loop and runs it in a thread"

    "The other methods are for other threads, for example to stop the server or to get its
    addresses."

    "All clients share one thread."
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
    """The constructors check their arguments, and open no sockets.

    "an invalid argument raises an exception there, not when the server starts."

    "The arguments are those of the asynchronous server, in the same order, and runner_options."
    """
    for new_server in tcp_server, udp_server:
        with pytest.raises(TypeError):
            new_server(no_such_option=1)
        with pytest.raises(TypeError):
            new_server(handler=tcp_example.GreetingRequestHandler)
        assert new_server().get_sockets() == ()
    for standalone, asynchronous in (
        (StandaloneTCPNetworkServer, AsyncTCPNetworkServer),
        (StandaloneUDPNetworkServer, AsyncUDPNetworkServer),
    ):
        names = [*inspect.signature(standalone).parameters]
        names.remove("runner_options")
        assert names == [*inspect.signature(asynchronous).parameters]


def test_no_async() -> None:
    """Everything but the handler is ordinary code.

    "The code that runs a standalone server does not need async or await."

    "The request handler does not change: it is a class with an asynchronous handle() method"

    "Only the code around the server is ordinary, blocking Python."
    """
    for example, server_class in (
        (tcp_example, StandaloneTCPNetworkServer),
        (udp_example, StandaloneUDPNetworkServer),
    ):
        handler_class: Any = example.GreetingRequestHandler
        assert inspect.isasyncgenfunction(handler_class.handle)
        assert not {"async", "await"} & {*inspect.getsource(example.main).split()}
        methods = inspect.getmembers(server_class, inspect.isfunction)
        assert methods
        assert not [name for name, method in methods if inspect.iscoroutinefunction(method)]


def test_frameworks() -> None:
    """Asyncio is the default.

    "By default, the server uses the event loop of asyncio."

    "The backend argument selects the asynchronous framework."

    "The handler runs on the framework that you select."
    """

    class Handler(tcp_example.GreetingRequestHandler):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            yield
            await client.send_packet(sniffio.current_async_library())

    for backend, expected in (None, "asyncio"), ("asyncio", "asyncio"), ("trio", "trio"):
        server = tcp_server(Handler(), **({"backend": backend} if backend else {}))
        with serving(server), connected(server) as peer:
            assert peer.ask("what are you?") == expected


def test_protocol_objects() -> None:
    """A server takes both kinds of protocol objects, of which one needs another serializer.

    "A TCP server accepts any protocol object for streams. If your serializer is a buffered
    serializer, you can use a BufferedStreamProtocol."
    """
    handler = tcp_example.GreetingRequestHandler()
    buffered: Any = BufferedStreamProtocol(StringLineSerializer())
    for protocol in buffered, StreamProtocol(StringLineSerializer()):
        server = StandaloneTCPNetworkServer("127.0.0.1", 0, protocol, handler)
        with serving(server), connected(server) as peer:
            assert peer.ask("Zoe") == "Hello, Zoe!"
    unbuffered: Any = JSONSerializer()
    with pytest.raises(TypeError):
        BufferedStreamProtocol(unbuffered)


def test_running_again() -> None:
    """Each run opens new sockets, until the server is closed.

    "serve_forever() opens the sockets, serves clients, and closes the sockets before it returns.
    You can then call it again. With port 0, each run uses another free port. At the end of its
    block, the with statement closes the server permanently. After that, serve_forever() raises
    ServerClosedError."
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
    """The options of the constructor and of `serve_forever()` are merged.

    "the options are passed to asyncio.Runner or to trio.run()."

    "They are added to the options of the constructor, and replace those with the same name."

    "You can also pass options to serve_forever()."

    "The backend argument selects the asynchronous framework."
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
    """The same handler runs on every framework.

    "If it uses only the client, client.backend() or anyio, it runs on every framework."
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


# Stopping the server


@each_loop
def test_shutdown(loop: str) -> None:
    """`shutdown()` disconnects the clients, and releases the resources of the server.

    "the clients are disconnected, the exit stack of service_init() is unwound, the sockets are
    closed, and serve_forever() ends."

    "It returns when the server has stopped, and serve_forever() returns, too."

    "stops the server from any thread. It does not wait, so you can call it even in a request
    handler."

    "You can stop the server in three ways. The effect is always the same"

    "shutdown() stops the server from another thread."
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
    """`shutdown()` returns when its timeout expires, even if the server still runs.

    "The timeout argument limits how many seconds it waits."
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
    """After `server_close()`, the server serves only the clients that are already connected.

    "The server then accepts no new clients, but serves the connected clients until they disconnect.
    When the last client has disconnected, serve_forever() returns. A UDP server has no connections,
    so it stops immediately."

    "To let the connected clients finish, call server_close() from another thread instead."
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


def test_grace() -> None:
    """A client whose request is being handled gets its response.

    "With grace=10, the clients may finish first"
    """
    gate, is_busy = threading.Event(), threading.Event()

    class Handler(tcp_example.GreetingRequestHandler):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            yield
            is_busy.set()
            await anyio.to_thread.run_sync(gate.wait, PATIENCE)
            await client.send_packet("finished")

    server = tcp_server(Handler())
    with serving(server), connected(server) as peer:
        peer.send("hello")
        assert is_busy.wait(PATIENCE)
        stop = in_thread(server.shutdown, grace=10)
        with pytest.raises(TimeoutError):
            stop.result(SOON)
        gate.set()
        assert peer.receive() == "finished"
        stop.result(PATIENCE)


def test_waiting_for_oneself() -> None:
    """Methods that wait for the server's thread raise an error in that thread.

    "shutdown() without timeout=0 and server_close() wait for the thread that serves the clients. If
    you call them in that thread, they raise RuntimeError."
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


# Running the server in the background


def test_background_thread() -> None:
    """The methods of the thread start and stop the server.

    "start() returns when the server is ready to accept clients. join() stops the server and waits
    until the thread has ended."

    "Python does not exit before this thread has ended, and the thread does not end before the
    server is stopped."

    "A standalone server needs its own thread. Use NetworkServerThread to create it"

    "Make sure that join() is always called: put it in a finally block, as above."
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
    """The error is the one that the page shows, in the thread that starts the server, too.

    "If the port is in use, serve_forever() raises an OSError that ends with Address already in use"

    "If the server cannot start, start() raises the exception, and the thread ends. For example, if
    the port is already in use, it raises an OSError that contains the address:"

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
            with pytest.raises(OSError, match="Address already in use$"):
                second.serve_forever()
    assert f"{type(caught.value).__name__}: {caught.value}" == (
        f"OSError: [Errno {errno.EADDRINUSE}] "
        "error while attempting to bind on address ('127.0.0.1', 9000): Address already in use"
    )


def test_ports_in_use() -> None:
    """All errors are raised together.

    "If several addresses are in use, it raises an ExceptionGroup of such errors."
    """
    protocol = StreamProtocol(StringLineSerializer())
    handler = tcp_example.GreetingRequestHandler()
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = one.getsockname()[1]
        stack.enter_context(socket.create_server(("::1", port), family=socket.AF_INET6))
        server = StandaloneTCPNetworkServer(["127.0.0.1", "::1"], port, protocol, handler)
        with pytest.raises(ExceptionGroup) as caught:
            NetworkServerThread(server).start()
    assert [exc.errno for exc in caught.value.exceptions if isinstance(exc, OSError)] == (
        [errno.EADDRINUSE] * 2
    )


def test_later_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """`threading.excepthook()` reports an exception that ends a running server.

    "If an exception ends the server later, it is reported like an exception in any other thread: by
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


# Running blocking code in a handler


class Gate:
    """Replaces the slow function: blocks until the gate is open, and counts running calls."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.begun = threading.Semaphore(0)
        self.busy = self.most_busy = 0
        self.threads: set[str] = set()
        self._lock = threading.Lock()

    def work(self, password: str) -> dict[str, Any]:
        with self._lock:
            self.busy += 1
            self.threads.add(threading.current_thread().name)
            self.most_busy = max(self.most_busy, self.busy)
        self.begun.release()
        assert self.is_open.wait(PATIENCE)
        with self._lock:
            self.busy -= 1
        return {"password": password}


class QuickToo(blocking_work.KeyRequestHandler):
    """Responds to `ping` immediately, without starting a thread."""

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
    """A handler that blocks the event loop delays the responses to all other clients.

    "While handle() computes, calls time.sleep() or waits for a database driver that is not
    asynchronous, no other client is served:"
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
    """At most two threads work at the same time, while the server serves other clients.

    "In this program, at most two of them run at the same time: this is the limit of self.limiter.
    Other requests wait until a thread is free, and do not block the event loop while they wait."

    "The threads are worker threads of anyio."
    """
    gate = Gate()
    monkeypatch.setattr(blocking_work, "derive_key", gate.work)
    handler = QuickToo(max_threads=2)
    assert handler.limiter.total_tokens == 2
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
    if loop != "trio":  # which names them after the task that waits
        assert gate.threads == {"AnyIO worker thread"}


@each_loop
def test_not_a_password(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """The example rejects requests that are valid JSON but not a password.

    "Run such code in another thread with anyio.to_thread.run_sync(), and await the result:"
    """
    server = tcp_server(blocking_work.KeyRequestHandler(1), **loop_options(loop))
    with serving(server), connected(server) as peer:
        for request in "{}", "[]", "1", "null":
            assert peer.ask(request) == '{"error":"expected a password"}'
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_default_threads() -> None:
    """`run_in_thread()` of the backend uses the default limit of anyio.

    "It uses the default limit of anyio: 40 threads for the whole event loop."

    "If you do not need your own limit, call client.backend().run_in_thread(func, args) instead."
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
    """`shutdown()` waits until the work in a thread is complete.

    "A thread cannot be interrupted. If the client disconnects while the thread is working, the work
    is still completed. If the server stops, shutdown() waits for the thread for one second"
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
    """`shutdown()` returns after one second, even if the work is not complete.

    "If the server stops, shutdown() waits for the thread for one second, and serve_forever()
    returns when the work is complete."

    "The server then logs one error that names the client, shutdown() returns, and serve_forever()
    returns when the handler has ended."

    "If a handler ignores its cancellation, shutdown() waits for the handler for one second."
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
    """The server does not wait for a thread that may be abandoned.

    "With abandon_on_cancel=True, neither of them waits: the thread continues in the background, and
    its result is discarded."
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


def test_other_processes() -> None:
    """Other processes have none of the server's sockets, however they were started.

    "Processes that you start while the server runs do not keep connections or ports open that the
    server closes. This is true for every start method of multiprocessing."
    """
    code = """
import multiprocessing, socket, time
from docs._include.examples.howto.tcp_servers.standalone.server import *
from easynetwork.servers.threads_helper import NetworkServerThread

protocol = StreamProtocol(StringLineSerializer())
server = StandaloneTCPNetworkServer("127.0.0.1", 0, protocol, GreetingRequestHandler())
thread = NetworkServerThread(server)
thread.start()
address = server.get_addresses()[0].for_connection()
with socket.create_connection(address, timeout=10) as client:
    client.sendall(b"Zoe\\n")
    assert client.recv(100) == b"Hello, Zoe!\\n"
    processes = [
        multiprocessing.get_context(method).Process(
            target=time.sleep, args=(100,), daemon=True
        )
        for method in multiprocessing.get_all_start_methods()
    ]
    for process in processes:
        process.start()
    thread.join()
    try:
        print(client.recv(100))
    except ConnectionResetError:
        print(b"")
socket.create_server(address).close()
for process in processes:
    print(process.is_alive())
    process.kill()
    process.join()
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(
        command,
        cwd=DOCS.parent,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    methods = multiprocessing.get_all_start_methods()
    assert done.stdout == "b''\n" + "True\n" * len(methods), done.stderr


def test_work_in_c() -> None:
    """The function of the example releases the interpreter lock.

    "The function above spends its time in C code, and other threads run in the meantime."
    """
    work = in_thread(blocking_work.derive_key, "secret")
    turns = 0
    while not work.done():
        turns += 1
    assert turns > 1000  # close to 0 if the function held the interpreter lock


# Calling into the event loop


@each_loop
def test_news(loop: str) -> None:
    """The handler sends news from clients and from other threads to all clients.

    "because only the thread of the event loop may call them. Use a portal, which
    create_threads_portal() returns:"

    "Its call() method runs a function in the thread of the event loop, awaits it if it is
    a coroutine function, and returns its result. If the function raises an exception, call() raises
    it, too."
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
    """A client that has disconnected gets no news, and the others still do.

    "Another thread of your program may need to send packets to the clients."
    """
    handler = calls_from_threads.NewsRequestHandler()
    server = tcp_server(handler, **loop_options(loop))
    with serving(server), connected(server) as stays:
        with connected(server) as leaves:
            assert leaves.ask("hello") == "hello"
        wait_until(lambda: handler.publish("news") == 1)
        stays.receive()


def test_broadcast_never_waits() -> None:
    """A client that does not read does not hold up the thread that publishes.

    "The function here is ClientGroup.broadcast(), which sends to all clients and never waits"
    """
    assert not inspect.iscoroutinefunction(ClientGroup.broadcast)
    handler = calls_from_threads.NewsRequestHandler()
    server = tcp_server(handler)
    with serving(server), connected(server) as slow, connected(server) as other:
        assert other.ask("hello") == "hello"
        assert slow.receive() == "hello"
        counts = [handler.publish("x" * 1_000_000) for _ in range(20)]
        assert counts[0] == 2
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.shutdown(timeout=0)


@each_loop
def test_portal_without_waiting(loop: str) -> None:
    """`start_task_soon()` returns before the function has ended.

    "start_task_soon() does not wait until the function has ended. It returns
    a concurrent.futures.Future."
    """
    handler = calls_from_threads.NewsRequestHandler()
    server = tcp_server(handler, **loop_options(loop))
    with serving(server):
        forever = handler.portal.start_task_soon(anyio.sleep_forever)
        assert isinstance(forever, Future)
        assert not forever.done()
        assert (
            handler.portal.start_task_soon(handler.clients.broadcast, "news").result(PATIENCE) == 0
        )
    assert forever.cancelled()  # the server does not wait for it


@each_loop
def test_call_from_a_worker(loop: str) -> None:
    """A worker thread of anyio can call into the event loop without a portal.

    "Code that runs in a worker thread of anyio does not need a portal. It can call
    anyio.from_thread.run(), which does the same as call()."
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
    """A portal works only in other threads, and only while the server runs.

    "The portal is open from service_init() until the server stops."

    "A portal raises RuntimeError if it is closed, or if it is used in the thread of the event
    loop."

    "In that thread, await the coroutine function directly."
    """

    class Handler(calls_from_threads.NewsRequestHandler):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            news = yield
            with pytest.raises(RuntimeError):
                self.portal.call(client.send_packet, news)
            await client.send_packet("refused")

    handler = Handler()
    server = tcp_server(handler, **loop_options(loop))
    with serving(server), connected(server) as peer:
        assert peer.ask("news") == "refused"
        assert handler.publish("news") == 1
    with pytest.raises(RuntimeError):
        handler.publish("news")
