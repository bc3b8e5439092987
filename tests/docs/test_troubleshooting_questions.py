"""The page with all messages: its answers to common questions.

See also `test_troubleshooting`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork.clients import TCPNetworkClient
from easynetwork.exceptions import ClientClosedError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import (
    JSONSerializer,
    LengthPrefixedSerializer,
    RawSerializer,
    StringLineSerializer,
    StructSerializer,
)
from easynetwork.servers import Limits, StandaloneTCPNetworkServer
from easynetwork.servers.blocking import BlockingClient, BlockingStreamRequestHandler
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
)
from easynetwork.servers.statistics import CloseReason
from easynetwork.servers.threads_helper import NetworkServerThread
from easynetwork.testing import MemoryNetwork, serve
from tests.clients.threads_support import wait_until
from tests.docs.howto_support import check_quotations
from tests.docs.memory_support import LINES, Obedient, Stage, play
from tests.times import PATIENCE

PAGE = "troubleshooting.rst"
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())


def test_quotations() -> None:
    """Whatever the tests quote is what the page says."""
    check_quotations(PAGE, globals())


class Echo(AsyncStreamRequestHandler[Any, Any]):
    async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
        await client.send_packet((yield))


class DatagramEcho(AsyncDatagramRequestHandler[Any, Any]):
    async def handle(self, client: AsyncDatagramClient[Any]) -> AsyncGenerator[None, Any]:
        await client.send_packet((yield))


# -- why does the handler run again?


def test_runs_of_a_handler() -> None:
    """How often methods of a handler are called.

    "When it returns, the server calls it again, and the next yield waits for the next request of
    the same client."

    "What belongs to a client has to outlive one run:"

    "Write a loop around the yield, and one run of handle() lasts as long as the connection"

    "To do something once for each client, for example to send a greeting, use on_connection()."
    """

    class Counting(Obedient):
        def __init__(self, loops: bool) -> None:
            super().__init__()
            self.loops = loops
            self.runs = 0

        async def on_connection(self, client: AsyncStreamClient[str]) -> None:
            await client.send_packet("welcome")

        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            self.runs += 1
            count = 0
            while True:
                request = yield
                count += 1
                await client.send_packet(f"{request} {count}")
                if not self.loops:
                    break

    for loops, runs, answers in (False, 4, b"a 1\nb 1\nc 1\n"), (True, 1, b"a 1\nb 2\nc 3\n"):
        handler = Counting(loops)
        stage = Stage(handler)
        stage.play((b"a\nb\nc\n", 1, "read"))
        assert stage.received == b"welcome\n" + answers
        assert handler.runs == runs


# -- why is nothing received?


def answers_of(server: Any, *pieces: bytes) -> list[bytes]:
    """Return what has come back a second after each of several pieces was sent."""
    found: list[bytes] = []

    async def main() -> None:
        async with serve(Echo(), StreamProtocol(server)) as served:
            connection = await served.connect(raw=True)
            for piece in pieces:
                await connection.send(piece)
                found.append(b"")
                with anyio.move_on_after(1):
                    found[-1] = await connection.receive()

    play(main)
    return found


def test_incomplete_packets() -> None:
    """The serializer says where a packet ends.

    "The client has sent data, and the handler does not go on: the packet is not complete."

    "The protocol object decides where a packet ends. With StringLineSerializer, JSONSerializer and
    other serializers for lines, it ends with a newline, and without one the server waits for the
    rest of the line."

    "The client and the server need the same serializer with the same options, for example the same
    newline."

    "With a fixed size or a length before the data, a wrong size has the same effect."
    """
    lines, documents = StringLineSerializer(), JSONSerializer()
    assert answers_of(lines, b"hello", b"\n") == [b"", b"hello\n"]
    assert answers_of(documents, b"[1]", b"\n") == [b"", b"[1]\n"]
    assert answers_of(StringLineSerializer("CRLF"), b"hello\n", b"\r\n") == [b"", b"hello\n\r\n"]
    assert answers_of(StructSerializer("4s"), b"hel", b"l") == [b"", b"hell"]
    prefixed = LengthPrefixedSerializer(RawSerializer(), "u8")
    assert answers_of(prefixed, b"\6hello", b"!") == [b"", b"\6hello!"]


def test_packet_timeout() -> None:
    """Half a packet is not waited for without end.

    "packet_timeout closes the connection after a minute"
    """
    for seconds, closed in (59, {}), (61, {CloseReason.PACKET_TIMEOUT: 1}):
        stage = Stage()
        stage.play((b"hello", seconds))
        assert stage.statistics.closed == closed
    assert Limits().packet_timeout == 60


def test_complete_datagrams() -> None:
    """A datagram is a packet, or lost.

    "Datagrams are complete, so nothing waits."

    "UDP loses datagrams without an error."
    """

    async def main(network: MemoryNetwork, is_answered: bool) -> None:
        async with serve(DatagramEcho(), DATAGRAMS, network=network) as served:
            peer = await served.connect()
            await peer.send_packet("hello")
            with anyio.move_on_after(100) as scope:
                assert await peer.recv_packet() == "hello"
            assert scope.cancelled_caught != is_answered

    play(partial(main, MemoryNetwork(), True))
    play(partial(main, MemoryNetwork(loss=1.0), False))


# -- why is the address in use, or the connection refused?


@pytest.mark.skipif(shutil.which("ss") is None, reason="ss is not installed")
def test_programs_that_listen() -> None:
    """A tool shows what listens.

    "These commands show the programs that listen: On Linux: ss -ltnp"
    """
    with socket.create_server(("127.0.0.1", 0)) as sock:
        shown = subprocess.run(["ss", "-ltnp"], capture_output=True, encoding="utf-8", check=True)
        port = sock.getsockname()[1]
        [line] = [line for line in shown.stdout.splitlines() if f"127.0.0.1:{port} " in line]
        assert "users:" in line


@pytest.mark.skipif(shutil.which("lsof") is None, reason="lsof is not installed")
def test_programs_that_listen_on_macos() -> None:
    """The tool of macOS, which other systems have as well, shows what listens.

    "On macOS: lsof -nP -iTCP -sTCP:LISTEN"
    """
    command = ["lsof", "-nP", "-iTCP", "-sTCP:LISTEN"]
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    [line] = [line for line in done.stdout.splitlines() if f":{port} " in line]
    assert line.split()[1] == str(os.getpid())
    assert line.endswith("(LISTEN)")


@pytest.mark.skipif(sys.platform != "win32", reason="that of Windows has other options")
def test_programs_that_listen_on_windows() -> None:
    """The tool of Windows shows what listens, and the process.

    "On Windows: netstat -ano"
    """
    with socket.create_server(("127.0.0.1", 0)) as sock:
        done = subprocess.run(["netstat", "-ano"], capture_output=True, text=True, check=True)
        port = sock.getsockname()[1]
    lines = [line.split() for line in done.stdout.splitlines() if f"127.0.0.1:{port} " in line]
    assert [line[-1] for line in lines if "LISTENING" in line] == [str(os.getpid())]


# -- what is the difference between a reset and a clean end?


def test_what_is_lost() -> None:
    """A reset overtakes what was sent before it.

    "An end of the stream says that the other side has sent everything. A reset says that the
    connection broke: something may be lost."
    """
    for end, count in ("close", 3), ("reset", 0):
        stage = Stage(network=MemoryNetwork(latency=0.1))
        stage.play((b"one\ntwo\nthree\n", end, 1))
        assert stage.statistics.packets_received == count


# -- why does the program not end?


@pytest.mark.parametrize("how", ["shutdown", "cancel"])
def test_end_of_serve_forever(how: str) -> None:
    """Two things end a server.

    "The server still serves. serve_forever() returns when shutdown() is called in another task or
    thread, or when its task is cancelled."
    """

    async def main() -> None:
        async with serve(Echo(), LINES) as served, anyio.create_task_group() as tasks:
            server = served.server
            await server.shutdown()
            is_up, ended = anyio.Event(), anyio.Event()

            async def run() -> None:
                try:
                    await server.serve_forever(is_up_event=is_up)
                finally:
                    ended.set()

            scope = anyio.CancelScope()

            async def run_in_scope() -> None:
                with scope:
                    await run()

            tasks.start_soon(run_in_scope)
            await is_up.wait()
            await anyio.sleep(1000)
            assert not ended.is_set()
            if how == "shutdown":
                await server.shutdown()
            else:
                scope.cancel()
            await ended.wait()

    play(main)


def test_threads_at_exit() -> None:
    """Threads keep a program.

    "Python waits at exit for all threads that are not daemon threads, and asyncio.run() for the
    calls in asyncio.to_thread(), which nothing can interrupt."
    """
    code = (
        "import threading, time\n"
        "def end(seconds): time.sleep(seconds); print(seconds, flush=True)\n"
        "for seconds, is_daemon in (0.02, False), (60, True):\n"
        "    threading.Thread(target=end, args=(seconds,), daemon=is_daemon).start()\n"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
    assert done.stdout == b"0.02\n"
    released = threading.Event()
    ends: list[str] = []

    def work() -> None:
        released.wait(PATIENCE)
        ends.append("thread")

    async def main() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.to_thread(work)
        ends.append("cancelled")
        threading.Timer(0.01, released.set).start()

    asyncio.run(main())
    assert ends == ["cancelled", "thread"]


def test_server_threads() -> None:
    """The thread of a server ends the server.

    "Join a NetworkServerThread, which shuts its server down."
    """
    with StandaloneTCPNetworkServer("127.0.0.1", 0, LINES, Echo()) as server:
        thread = NetworkServerThread(server)
        thread.start()
        assert server.is_serving()
        thread.join()
        assert not thread.is_alive()
        assert not server.is_serving()


def test_waiting_clients() -> None:
    """A client that waits.

    "A client is not closed. A thread that waits in recv_packet() without a timeout waits as long as
    the connection is open. Pass a timeout, or close the client in another thread."
    """
    errors: list[BaseException] = []

    def receive() -> None:
        try:
            client.recv_packet()
        except ConnectionError as exc:
            errors.append(exc)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = TCPNetworkClient[str, str](listener.getsockname(), LINES)
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0.001)
        thread = threading.Thread(target=receive)
        thread.start()
        wait_until(lambda: client._locks.receiving.is_taken)
        thread.join(0.01)
        assert thread.is_alive()
        client.close()
        thread.join(PATIENCE)
    assert [type(error) for error in errors] == [ClientClosedError]


# -- why do all clients wait while one is served?


class Blocks(Obedient):
    """Calls a function that blocks."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        yield
        time.sleep(0.01)  # noqa: ASYNC251 - what the page warns of
        await client.send_packet("done")


class InThread(Obedient):
    """Calls it in a thread."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        yield
        await anyio.to_thread.run_sync(time.sleep, 0.01)
        await client.send_packet("done")


class Blocking(BlockingStreamRequestHandler[str, str]):
    """Has a thread for each client."""

    def handle(self, client: BlockingClient[str, str]) -> None:
        client.recv_packet()
        time.sleep(0.01)
        client.send_packet("done")


@pytest.mark.parametrize("handler", [Blocks(), InThread(), Blocking()], ids=type)
def test_blocked_loop(handler: Any) -> None:
    """The event loop stands still while a handler blocks, and goes on while a thread does.

    "A handler calls a function that blocks, for example time.sleep() or a query of a database, and
    the event loop stands still."

    "Call the function in a thread, or write a blocking handler."
    """
    turns = 0

    async def main() -> None:
        nonlocal turns
        async with serve(handler, LINES) as served, anyio.create_task_group() as tasks:
            connection = await served.connect(raw=True)

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            await connection.send(b"hello\n")
            tasks.start_soon(count)
            assert await connection.receive() == b"done\n"
            tasks.cancel_scope.cancel()

    anyio.run(main)
    assert turns < 30 if isinstance(handler, Blocks) else turns > 30
