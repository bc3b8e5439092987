"""Test the statements and the examples of the page about stopping and restarting.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. What a drain does is tested in `tests/conformance/test_draining.py`, and restarts are tested
in `tests/test_supervised.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import sniffio
from anyio.abc import TaskGroup

from docs._include.examples.howto.stopping import jobs
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import (
    AsyncTCPNetworkServer,
    CloseReason,
    StandaloneTCPNetworkServer,
    run,
)
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
)
from easynetwork.servers.running import EXIT_STUCK
from easynetwork.servers.threads_helper import NetworkServerThread
from easynetwork.testing import MemoryNetwork, serve, virtual_time
from easynetwork.testing._memory.servers import MemoryTCPServer
from tests.docs.howto_support import check_quotations, connected, serving
from tests.docs.virtual_support import virtual
from tests.networks import own_network
from tests.times import PATIENCE
from tests.tls_peers import server_context

FOLDER = Path(jobs.__file__).parent


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/stopping.rst", globals())


def run_program(arguments: list[str], question: str, port: int) -> tuple[str, int, str]:
    """Start a program, ask one question, and send it SIGTERM meanwhile.

    Returns:
        The answer, the exit status and the log.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=FOLDER,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    sock = socket.create_connection(("localhost", port), PATIENCE)
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            with sock, sock.makefile() as file:
                sock.sendall(f"{question}\n".encode())
                assert process.stderr is not None
                log = ""
                while "Accepted new connection" not in log:  # it does not serve at once
                    line = process.stderr.readline()
                    assert line, log
                    log += line
                process.send_signal(signal.SIGTERM)
                answer = file.read()
            log += process.stderr.read()
            process.wait(PATIENCE)
        finally:
            process.kill()
    return answer, process.returncode, log


@pytest.mark.in_turn
@pytest.mark.skipif(os.name != "posix", reason="sends signals of POSIX")
def test_program() -> None:
    """The program answers what has arrived, and ends without a traceback.

    "serves until the process gets SIGTERM or SIGINT (Control-C)"

    "There is no traceback."

    "The log says at the start, at the end and every 5 seconds between how many clients are left."
    """
    answer, status, log = run_program(["jobs.py"], "laundry", 9000)
    assert (answer, status) == ("laundry is done\n", 0)
    assert "Traceback" not in log
    assert "Draining for at most 10 seconds, clients left: 1" in log
    assert log.count("Drained, clients left: 0") == 2


@pytest.mark.in_turn
@pytest.mark.skipif(os.name != "posix", reason="sends signals of POSIX")
def test_grace_is_over() -> None:
    """The program ends as well when a handler works for longer than its grace.

    "grace is how many seconds that may take, 10 by default."

    "The exit status is 0, also if the grace was too short for some clients. The log says how many."
    """
    assert inspect.signature(run).parameters["grace"].default == 10
    program = (
        "import logging, jobs",
        "logging.basicConfig(level=20)",
        "jobs.run(jobs.new_job_server, grace=0.1)",
    )
    answer, status, log = run_program(["-c", "; ".join(program)], "laundry", 9000)
    assert (answer, status) == ("", 0)
    assert "Traceback" not in log
    assert "Not drained, clients left: 1" in log


@pytest.mark.in_turn
@pytest.mark.skipif(os.name != "posix", reason="sends signals of POSIX")
def test_health() -> None:
    """The port for health checks stays open while the other server drains.

    "If it asks another port, that one has to stay open while the server drains."
    """
    process = subprocess.Popen(
        [sys.executable, "health.py"],
        cwd=FOLDER,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    def ask(port: int, question: str) -> socket.socket:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                sock = socket.create_connection(("localhost", port), PATIENCE)
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            else:
                sock.sendall(f"{question}\n".encode())
                return sock

    def health() -> str:
        with ask(9002, "?") as sock:
            return sock.recv(100).decode()

    with process:
        try:
            assert health() == "healthy\n"
            with ask(9000, "laundry") as job:
                time.sleep(0.1)  # the request should have been read
                process.send_signal(signal.SIGTERM)
                while health() == "healthy\n":
                    time.sleep(0.01)
                assert health() == "draining\n"
                assert job.recv(100) == b"laundry is done\n"
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@pytest.mark.anyio
async def test_endless_handler() -> None:
    """A handler that sends without being asked ends by itself.

    "It should ask client.is_draining() now and then, as ClockRequestHandler above does."
    """

    class Handler(jobs.ClockRequestHandler):
        interval = 0.01

    async with serving(Handler()) as server, connected(server) as peer:
        await peer.send("start")
        assert await peer.receive() == "tick"
        with anyio.fail_after(PATIENCE / 2):
            await server.shutdown(grace=PATIENCE)
        while (line := await peer.receive()) == "tick":
            pass
        assert line == "connect again"


@virtual
@pytest.mark.parametrize(
    ("handler_class", "line", "times"),
    [
        (jobs.JobRequestHandler, b"start is done\n", [2]),
        (jobs.ClockRequestHandler, b"tick\n", [0, 1, 2]),
    ],
)
async def test_pace(handler_class: type[Any], line: bytes, times: list[int]) -> None:
    """The two handlers have something to do while their server stops.

    "JobRequestHandler works two seconds for each request. ClockRequestHandler sends a line every
    second."
    """
    async with serve(handler_class(), LINES) as served:
        client = await served.connect(raw=True)
        begin = anyio.current_time()
        await client.send(b"start\n")
        for seconds in times:
            assert await client.receive() == line
            assert anyio.current_time() - begin == pytest.approx(seconds)


def test_exit_status() -> None:
    """The page names the exit status of a process with a stubborn handler.

    "The process then ends with exit status 70 (EXIT_STUCK), and the log names the handler."
    """
    assert EXIT_STUCK == 70


# Running servers as a program

LINES: Any = StreamProtocol(StringLineSerializer())


class Job(AsyncStreamRequestHandler[str, str]):
    """Has a request, which takes some seconds; then `meanwhile` is called. Notes what ends when."""

    def __init__(self, seconds: float, meanwhile: Callable[[], object] = bool) -> None:
        self.seconds = seconds
        self.meanwhile = meanwhile
        self.events: list[tuple[str, float]] = []

    def new_server(self) -> Any:
        return MemoryTCPServer(MemoryNetwork(), LINES, self)

    def note(self, event: str) -> None:
        self.events.append((event, round(anyio.current_time(), 1)))

    async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
        address = server.get_addresses()[0].for_connection()
        connection = server._network.connect(address, None, None, None)
        exit_stack.callback(connection.close)
        exit_stack.callback(self.note, "stopped")
        connection.send(b"begin\n")

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        self.note((yield))
        await anyio.sleep(1)
        self.meanwhile()
        await anyio.sleep(self.seconds)
        self.note("done")


def send_sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


posix = pytest.mark.skipif(os.name != "posix", reason="sends signals of POSIX")


@posix
def test_signals() -> None:
    """The first signal drains all servers together, the second one stops what is left.

    "Pass a function for each server. run() calls them in the event loop, opens all ports"

    "Then it drains all servers at the same time, which is what the next section is about, and
    returns."

    "The second signal stops the servers at once."
    """

    def signal_twice() -> None:
        send_sigterm()
        asyncio.get_running_loop().call_later(5, send_sigterm)

    short, medium, long = Job(2), Job(3, signal_twice), Job(60)
    servers = [job.new_server for job in (short, medium, long)]
    run(*servers, grace=30, runner_options=virtual_time())
    assert short.events == [("begin", 0), ("done", 3), ("stopped", 3)]
    assert medium.events == [("begin", 0), ("done", 4), ("stopped", 4)]
    assert long.events == [("begin", 0), ("stopped", 6)]


def test_failing_server() -> None:
    """One server that fails is the end of all.

    "If a server fails, for example because its port is in use, the others are stopped, and its
    exception is raised."
    """

    class Failing(Job):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            await anyio.sleep(2)
            raise LookupError("no service")

    job = Job(60)
    with pytest.raises(LookupError, match="no service"):
        run(job.new_server, Failing(0).new_server, runner_options=virtual_time())
    assert job.events == [("begin", 0), ("stopped", 2)]
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        in_use = partial(AsyncTCPNetworkServer[str, str], "127.0.0.1", port, LINES, job)
        with pytest.raises(OSError, match="Address already in use"):
            run(partial(AsyncTCPNetworkServer, "127.0.0.1", 0, LINES, job), in_use)


@posix
def test_stuck(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The process ends a second after the grace; here it does not, and the handler is let go.

    "If a request handler still runs one second after its cancellation, nothing can end it. The
    process then ends with exit status 70 (EXIT_STUCK), and the log names the handler. Set the
    timeout of your process manager to the grace plus two seconds or more, so that it does not kill
    the process before."
    """

    class Stubborn(Job):
        released = anyio.Event()

        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            yield
            send_sigterm()
            with anyio.CancelScope(shield=True):
                await self.released.wait()

        def end_process(self, status: int) -> None:
            self.note(f"exit status {status}")
            self.released.set()

    handler = Stubborn(0)
    monkeypatch.setattr("easynetwork.servers.running.os._exit", handler.end_process)
    monkeypatch.setattr("easynetwork.servers.running.logging.shutdown", bool)
    run(handler.new_server, grace=5, runner_options=virtual_time())
    assert ("exit status 70", 6) in handler.events
    assert "Still running 1.0 seconds after being cancelled" in caplog.text
    assert "client ('" in caplog.text


@pytest.mark.parametrize("loop", ["trio", "uvloop"])
def test_loops(loop: str) -> None:
    """A program may choose its event loop.

    "backend="trio" runs the servers on trio."

    "they run on uvloop."
    """
    module = pytest.importorskip(loop)
    found: list[str] = []

    def look() -> Any:
        found.append(sniffio.current_async_library())
        if loop == "uvloop":
            found.append(type(asyncio.get_running_loop()).__module__)
        raise LookupError

    options: dict[str, Any] = {"backend": "trio"}
    if loop == "uvloop":
        options = {"runner_options": {"loop_factory": module.new_event_loop}}
    with pytest.raises(LookupError):
        run(look, **options)
    assert found == (["trio"] if loop == "trio" else ["asyncio", "uvloop"])


# Draining


class Worker(AsyncStreamRequestHandler[str, str]):
    """Answers as a request says; notes what is raised where it waits for one.

    Attributes:
        greets: Whether the first packet of a client is received before all requests.
    """

    def __init__(self) -> None:
        self.greets = False
        self.calls: list[str] = []
        self.raised: list[str] = []

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        if self.greets:
            await client.send_packet(await client.recv_packet())

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        try:
            request = yield
        except BaseException as exc:
            self.raised.append(type(exc).__name__)
            raise
        self.calls.append(request)
        match request:
            case "converse":
                await client.send_packet("go on")
                while True:
                    await client.send_packet((yield))
            case "receive":
                await client.send_packet("go on")
                await client.send_packet(await client.recv_packet())
            case _:
                await anyio.sleep(float(request))
                await client.send_packet("done")


async def rest_of(connection: Any) -> bytes:
    """Return what a connection receives until its end."""
    found = b""
    while data := await connection.receive():
        found += data
    return found


def drain(
    *requests: bytes,
    grace: float | None = 10,
    later: Sequence[tuple[float, bytes]] = (),
    handler: Worker | None = None,
    silent_before: float = 0.01,
) -> tuple[float, bytes, CloseReason]:
    """Shut a server down that has a client in memory.

    Args:
        *requests: What the client has sent before.
        grace: That of the shutdown; None for one without.
        later: What it sends after some seconds more.
        handler: The handler.
        silent_before: Seconds from the last request to the shutdown.

    Returns:
        How many seconds it takes, what the client receives, and why it was disconnected.
    """
    found: list[tuple[float, bytes, CloseReason]] = []

    async def main() -> None:
        async with serve(handler or Worker(), LINES) as served, anyio.create_task_group() as tasks:
            connection = await served.connect(raw=True)
            for request in requests:
                await connection.send(request)
            await anyio.sleep(silent_before)

            async def go_on() -> None:
                for seconds, data in later:
                    await anyio.sleep(seconds)
                    await connection.send(data)

            tasks.start_soon(go_on)
            shutdown = served.server.shutdown
            seconds = await timed(shutdown() if grace is None else shutdown(grace=grace))
            received = await rest_of(connection)
            [reason] = served.server.get_statistics().closed
            found.append((seconds, received, reason))

    anyio.run(main, backend_options=virtual_time())
    return found[0]


DRAINED, STOPPED = CloseReason.DRAINED, CloseReason.STOPPED


def test_grace() -> None:
    """With a grace, what is at work is finished, if it takes no longer.

    "A server that is stopped by shutdown() without an argument cancels all request handlers. await
    server.shutdown(grace=10) lets the clients finish before that, for at most 10 seconds"

    "When the last client has left, or the grace is over, the server stops. What still runs is
    cancelled then"

    "CloseReason.DRAINED is the reason of connections that ended in this way."
    """
    assert drain(b"5\n", grace=None) == (0, b"", STOPPED)
    assert drain(b"5\n") == (5, b"done\n", DRAINED)
    assert drain(b"9.9\n") == (9.9, b"done\n", DRAINED)
    assert drain(b"20\n") == (10, b"", STOPPED)


def test_between_two_requests() -> None:
    """A client that asks for nothing is ended at once, but for one that has just come.

    "A client between two requests is disconnected at once. handle() gets GeneratorExit at its first
    yield, as if the client had left. A client that has just connected has a second to send its
    first request."
    """
    handler = Worker()
    assert drain(b"0\n", handler=handler, silent_before=2) == (0, b"done\n", DRAINED)
    assert handler.raised == ["GeneratorExit"]
    assert drain(silent_before=2) == (0, b"", DRAINED)
    assert drain() == (1, b"", DRAINED)
    assert drain(later=[(0.9, b"0\n")]) == (0.9, b"done\n", DRAINED)


def test_requests_that_arrived() -> None:
    """All that has arrived is answered.

    "A request that has arrived is answered, and so are those that the client has sent after it.
    Then the client is disconnected."
    """
    assert drain(b"1\n2\n", b"3\n") == (6, b"done\n" * 3, DRAINED)
    assert drain(b"1\n", later=[(0.5, b"1\n")]) == (2, b"done\n" * 2, DRAINED)


@pytest.mark.parametrize("where", ["converse", "receive", "on_connection", "half a packet"])
def test_conversations(where: str) -> None:
    """A client that has something to say may say it.

    "A client in a conversation is left alone while it speaks: one for which handle() waits at
    a later yield, or in recv_packet(), one in on_connection(), and one in the middle of a packet.
    When nothing comes from it for a second, and nothing waits to be sent to it, it is
    disconnected."
    """
    begin = {"on_connection": b"", "half a packet": b"0"}.get(where, f"{where}\n".encode())
    quiet, speaking = Worker(), Worker()
    quiet.greets = speaking.greets = where == "on_connection"
    assert drain(begin, handler=quiet, silent_before=2)[::2] == (1, DRAINED)
    speech = [(0.9, b"0"), (0.9, b"0"), (0.9, b"\n")]
    seconds, received, reason = drain(begin, handler=speaking, later=speech)
    assert 2.7 <= seconds <= 3.7
    assert received.endswith((b"00\n", b"done\n"))
    assert reason is DRAINED


def test_conversation_with_unsent_data() -> None:
    """A client that has yet to read what was sent to it is not silent.

    "When nothing comes from it for a second, and nothing waits to be sent to it, it is
    disconnected."
    """

    class Sending(Worker):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            yield
            client.try_send_packet("x" * 1_000_000)
            yield

    async def main() -> None:
        async with serve(Sending(), LINES) as served, anyio.create_task_group() as tasks:
            connection = await served.connect(raw=True)
            await connection.send(b"go\n")
            await anyio.sleep(1)

            async def read_late() -> None:
                await anyio.sleep(4)
                assert len(await rest_of(connection)) == 1_000_001

            tasks.start_soon(read_late)
            start = anyio.current_time()
            await served.server.shutdown(grace=10)
            assert 4 <= anyio.current_time() - start <= 5.1

    anyio.run(main, backend_options=virtual_time())


def test_new_connections() -> None:
    """What waits in the backlog is served, what comes later is refused.

    "The server accepts the connections that wait in its backlog, and closes its listening sockets.
    New connections are refused, so that clients can try another machine."

    "A load balancer that checks the port itself notices a drain, because its connections are
    refused."

    "server.is_draining() is true from the call of shutdown() to the end of serve_forever()."
    """

    async def main() -> None:
        async with serve(Worker(), LINES) as served, anyio.create_task_group() as tasks:
            connections = [await served.connect(raw=True) for _ in range(3)]
            for connection in connections:
                await connection.send(b"2\n")
            assert not served.server.is_draining()
            tasks.start_soon(partial(served.server.shutdown, grace=10))
            await anyio.sleep(1)
            assert served.server.is_draining()
            assert not served.server.is_serving()
            with pytest.raises(ConnectionRefusedError):
                await served.connect()
            for connection in connections:
                assert await rest_of(connection) == b"done\n"
            await served.server.shutdown()
            assert not served.server.is_draining()

    anyio.run(main, backend_options=virtual_time())


def test_handshakes() -> None:
    """A handshake is not waited for.

    "TLS handshakes that are not complete are dropped."
    """

    async def main() -> None:
        async with serve(Worker(), LINES, ssl=server_context()) as served:
            connection = await served.connect(raw=True)
            await anyio.sleep(0.1)
            assert served.server.get_statistics().clients == 1
            assert await timed(served.server.shutdown(grace=10)) == 0
            with pytest.raises(ConnectionResetError):
                await connection.receive()

    anyio.run(main, backend_options=virtual_time())


def test_datagrams() -> None:
    """What has arrived is answered, nothing else.

    "A server of datagrams answers what has arrived, and takes nothing more."
    """

    class Handler(AsyncDatagramRequestHandler[str, str]):
        async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
            request = yield
            await anyio.sleep(1)
            await client.send_packet(request)

    async def main() -> None:
        protocol: Any = DatagramProtocol(StringLineSerializer())
        async with serve(Handler(), protocol) as served, anyio.create_task_group() as tasks:
            client = await served.connect(raw=True)
            await client.send(b"one")
            await client.send(b"two")
            tasks.start_soon(partial(served.server.shutdown, grace=10))
            await anyio.sleep(0.5)
            with contextlib.suppress(OSError):
                await client.send(b"three")
            assert [await client.receive(), await client.receive()] == [b"one", b"two"]
            with anyio.move_on_after(20) as waiting, contextlib.suppress(OSError):
                await client.receive()
                raise AssertionError
            assert waiting.cancelled_caught or anyio.current_time() < 20

    anyio.run(main, backend_options=virtual_time())


def test_stubborn_handler(caplog: pytest.LogCaptureFixture) -> None:
    """shutdown() does not wait for ever for what ignores its cancellation.

    "What still runs is cancelled then, and one second later shutdown() returns in any case."
    """

    class Stubborn(Worker):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            yield
            with anyio.CancelScope(shield=True):
                await released.wait()

    async def main() -> None:
        async with serve(Stubborn(), LINES) as served:
            connection = await served.connect(raw=True)
            await connection.send(b"go\n")
            await anyio.sleep(0.1)
            assert await timed(served.server.shutdown(grace=3)) == 4
            released.set()

    released = anyio.Event()
    anyio.run(main, backend_options=virtual_time())
    assert "Still running" in caplog.text


async def timed(awaitable: Coroutine[Any, Any, object]) -> float:
    """Return how many seconds something takes, rounded to tenths."""
    start = anyio.current_time()
    await awaitable
    return round(anyio.current_time() - start, 1)


def test_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A drain says how far it is.

    "The log says at the start, at the end and every 5 seconds between how many clients are left."
    """
    caplog.set_level(logging.INFO)
    assert drain(b"12\n", grace=20)[0] == 12
    lines = [message for message in caplog.messages if "clients left" in message]
    assert lines == [
        "Draining for at most 20 seconds, clients left: 1",
        *["Still draining, clients left: 1"] * 2,
        "Drained, clients left: 0",
    ]


def test_requests_without_end() -> None:
    """A handler that does not look is only ended by the end of the grace.

    "A handler that sends without being asked is at work all the time."
    """

    class Clock(Worker):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            yield
            while True:
                client.try_send_packet("tick")
                await anyio.sleep(1)

    seconds, _, reason = drain(b"go\n", handler=Clock())
    assert (seconds, reason) == (10, STOPPED)


@pytest.mark.parametrize("way", ["shutdown()", "join()"])
def test_standalone(way: str) -> None:
    """Standalone servers drain, too.

    "The method shutdown(grace=10) of a standalone server, and thread.join(grace=10) of
    a NetworkServerThread, do the same."
    """
    handler = Worker()
    with StandaloneTCPNetworkServer("127.0.0.1", 0, LINES, handler) as server:
        thread = NetworkServerThread(server)
        thread.start()
        address = server.get_addresses()[0].for_connection()
        with socket.create_connection(address, PATIENCE) as sock:
            sock.sendall(b"0.05\n")
            until_blocking(lambda: bool(handler.calls))
            if way == "shutdown()":
                server.shutdown(grace=PATIENCE)
            else:
                thread.join(grace=PATIENCE)
            assert sock.recv(100) == b"done\n"
        thread.join()


def until_blocking(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_serving_again() -> None:
    """A server that has drained is as good as new.

    "After a drain, serve_forever() may be called again. It opens the ports again."
    """

    async def main() -> None:
        network = MemoryNetwork()
        async with MemoryTCPServer[str, str](network, LINES, Worker()) as server:
            for _ in range(2):
                async with anyio.create_task_group() as tasks:
                    is_up = anyio.Event()
                    tasks.start_soon(partial(server.serve_forever, is_up_event=is_up))
                    await is_up.wait()
                    assert server.is_listening()
                    await server.shutdown(grace=10)
                assert not server.is_listening()

    anyio.run(main, backend_options=virtual_time())


@posix
def test_both_servers_in_run() -> None:
    """All servers of a program refuse connections at the same time.

    "Then do not pass both servers to run(), which drains them together"
    """
    servers: list[Any] = []
    states: list[bool] = []

    def look() -> None:
        send_sigterm()
        asyncio.get_running_loop().call_later(0.5, lambda: states.append(servers[0].is_serving()))

    class Health(Job):
        def new_server(self) -> Any:
            servers.append(super().new_server())
            return servers[0]

    run(Job(2, look).new_server, Health(2).new_server, runner_options=virtual_time())
    assert states == [False]


# Restarting without refusing connections


class Version(AsyncStreamRequestHandler[str, str]):
    """Says which version of the program has answered."""

    def __init__(self, number: int) -> None:
        self.number = number

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        await client.send_packet(f"{(yield)} {self.number}")


async def start(tasks: TaskGroup, server: Any) -> Any:
    """Have a task serve, and return the server when it is up."""
    is_up = anyio.Event()
    tasks.start_soon(partial(server.serve_forever, is_up_event=is_up))
    await is_up.wait()
    return server


async def ask(address: Any) -> str:
    async with AsyncTCPNetworkClient[str, str](address, LINES) as client:
        await client.send_packet("version")
        return await client.recv_packet()


@posix
def test_one_socket() -> None:
    """Two versions accept from one socket; when one has gone, the other goes on.

    "To replace a program, start the next version first, and send SIGTERM to the last one when the
    next one serves. Both must be able to listen on the same port."

    "A process that does not restart binds the socket and passes it to each version"

    "Connections wait in one backlog, from which both versions accept. The version that drains
    closes only its own descriptor, so no connection is refused, and no request fails."
    """

    async def main() -> None:
        last, following = (
            AsyncTCPNetworkServer.from_sockets([bound.dup()], LINES, Version(number))
            for number in (1, 2)
        )
        address = bound.getsockname()
        async with last, following, anyio.create_task_group() as tasks:
            await start(tasks, last)
            assert await ask(address) == "version 1"
            await start(tasks, following)
            found: list[str] = []
            async with anyio.create_task_group() as visits:

                async def visit() -> None:
                    found.append(await ask(address))

                for _ in range(10):
                    visits.start_soon(visit)
                visits.start_soon(partial(last.shutdown, grace=PATIENCE))
            assert len(found) == 10
            assert {*found} <= {"version 1", "version 2"}
            assert await ask(address) == "version 2"
            await following.shutdown()

    with socket.create_server(("127.0.0.1", 0)) as bound:
        anyio.run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="what SO_REUSEPORT does differs")
def test_reuse_port() -> None:
    """Each version has a socket of its own.

    "With reuse_port=True, each version has a socket of its own at the same port, and the kernel
    distributes the connections."
    """

    async def main() -> None:
        async with anyio.create_task_group() as tasks, contextlib.AsyncExitStack() as stack:
            servers: list[Any] = []
            port = 0
            for number in 1, 2:
                server = AsyncTCPNetworkServer(
                    "127.0.0.1", port, LINES, Version(number), reuse_port=True
                )
                servers.append(await start(tasks, await stack.enter_async_context(server)))
                address = server.get_addresses()[0].for_connection()
                port = address[1]
            found = {await ask(address) for _ in range(40)}
            assert found == {"version 1", "version 2"}
            await servers[0].shutdown(grace=PATIENCE)
            assert await ask(address) == "version 2"
            await servers[1].shutdown()

    anyio.run(main)


def reusable(kind: socket.SocketKind, port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


@pytest.mark.skipif(sys.platform != "linux", reason="what SO_REUSEPORT does differs")
def test_what_waits_in_a_socket() -> None:
    """What nobody has taken from a socket is lost with it, though another one has its port.

    "Each socket has its own backlog. A connection that arrives between the last accept(2) of
    a drain and the close(2) after it is reset."

    "Datagrams that wait in the socket of the old version when it is closed are lost."
    """
    if MIGRATION.exists() and MIGRATION.read_text() != "0\n":
        pytest.skip("this machine migrates connections")
    with pytest.raises(ConnectionResetError):
        close_with_backlog()
    with contextlib.ExitStack() as stack:
        old = reusable(socket.SOCK_DGRAM)
        address = old.getsockname()
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sender.sendto(b"lost", address)
        new = stack.enter_context(reusable(socket.SOCK_DGRAM, address[1]))
        old.close()
        sender.sendto(b"next", address)
        new.settimeout(PATIENCE)
        assert new.recv(100) == b"next"


def test_migration() -> None:
    """The kernel can give away what waits in a backlog.

    "On Linux, sysctl net.ipv4.tcp_migrate_req=1 has the kernel give such connections to the other
    socket (Linux 5.14 and newer)."
    """
    with own_network():
        try:
            MIGRATION.write_text("1")
        except OSError as exc:
            pytest.skip(f"net.ipv4.tcp_migrate_req cannot be set here: {exc}")
        close_with_backlog()


MIGRATION = Path("/proc/sys/net/ipv4/tcp_migrate_req")


def close_with_backlog() -> None:
    """Close a socket in whose backlog a client waits, and wait until another one serves it."""
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(reusable(socket.SOCK_STREAM))
        old.listen()
        address = old.getsockname()
        client = stack.enter_context(socket.create_connection(address, PATIENCE))
        new = stack.enter_context(reusable(socket.SOCK_STREAM, address[1]))
        new.listen()
        old.close()
        client.sendall(b"hello")
        new.settimeout(PATIENCE)
        with new.accept()[0] as accepted:
            assert accepted.recv(5) == b"hello"


def test_request_at_the_last_moment() -> None:
    """A request to which there is no answer was not read.

    "Clients that keep their connection see the end of the stream when the server drains, and have
    to connect again. A client may send a request at the very moment at which the server disconnects
    it. Such a request was not read. So a client can send it again over a new connection. If the
    grace is over while a handler works on a request, the client sees the same end."
    """
    assert drain(b"20\n") == (10, b"", STOPPED)

    async def main() -> None:
        network = MemoryNetwork(latency=0.1)
        async with serve(Worker(), LINES, network=network) as served:
            client = await served.connect()
            await client.send_packet("0")
            assert await client.recv_packet() == "done"
            await anyio.sleep(2)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(served.server.shutdown, grace=10))
                await client.send_packet("0")  # it arrives when the server has disconnected it
            with pytest.raises(ConnectionAbortedError):
                await client.recv_packet()
            assert served.server.get_statistics().packets_received == 1
            assert served.server.get_statistics().closed == {DRAINED: 1}

    anyio.run(main, backend_options=virtual_time())
