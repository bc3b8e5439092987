"""Test what the page about tests says of its tools: conversations, servers, faults, virtual time.

The rest of the page is in `test_howto_testing`, which explains the quotations.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import logging
import re
import socket
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import AsyncGenerator, Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import pytest_asyncio.plugin

import easynetwork.testing
from docs._include.examples.howto.testing import store, thermometer
from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, Limits, StandaloneTCPNetworkServer
from easynetwork.servers.blocking import BlockingStreamRequestHandler
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from easynetwork.servers.threads_helper import NetworkServerThread
from easynetwork.testing import (
    Conversation,
    Faults,
    MemoryNetwork,
    RawConnection,
    converse,
    plugin,
    serve,
    virtual_time,
)
from tests.conftest import HAS_TRIO
from tests.docs.howto_support import DOCS, check_quotations
from tests.docs.virtual_support import LINES, Client, ending, virtual
from tests.testing.test_conversation import Shouter
from tests.times import PATIENCE
from tests.tls_peers import client_context, server_context

PAGE = (DOCS / "howto/testing.rst").read_text(encoding="utf-8")
FOLDER = DOCS / "_include/examples/howto/testing"
YEAR = 366 * 24 * 3600


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/testing.rst", globals())


class Echo(AsyncStreamRequestHandler[str, str], AsyncDatagramRequestHandler[str, str]):
    """Answers, and keeps its clients."""

    def __init__(self) -> None:
        self.clients: list[Any] = []

    async def on_connection(self, client: Client) -> None:
        self.clients.append(client)

    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        await client.send_packet((yield))


def stored(**values: str) -> store.Store:
    """Return the server of the page, with some values."""
    handler = store.Store()
    handler.values.update(values)
    return handler


# Introduction


@virtual
async def test_real_but_for_the_sockets() -> None:
    """No socket can be made meanwhile, and everything else is what a program uses.

    "easynetwork.testing runs your request handlers and clients on a network in memory. There is no
    socket, no port and no waiting. Only the sockets are replaced: the server, its sessions, the
    protocol object, TLS and the clients are the real ones."

    "Pass ssl to both ends, as with real sockets."
    """

    class NoSocket(socket.socket):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError("a socket")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", NoSocket)
        async with serve(Echo(), LINES, ssl=server_context()) as served:
            client = await served.connect(ssl=client_context(), server_hostname="localhost")
            assert isinstance(served.server, AsyncTCPNetworkServer)
            assert isinstance(client, AsyncTCPNetworkClient)
            await client.send_packet("hello")
            assert await client.recv_packet() == "hello"
            assert served.server.get_statistics().tls_handshakes == 1


@virtual
async def test_rare_situations() -> None:
    """All three of them, in no time.

    "So a test takes a few milliseconds, and can produce situations that are rare on real sockets: a
    packet that arrives in two parts, a server that dies in the middle of a response, a timeout of
    five minutes."

    "It has a server that stores values by their names, and functions that ask it"
    """
    start = time.perf_counter()
    async with serve(stored(colour="blue"), store.PROTOCOL) as served:
        parts = await served.connect(to_server=Faults(chunks=[7]))
        assert await store.lookup(parts, "colour") == "blue"
        dying = await served.connect(to_client=Faults(reset_after=2))
        with pytest.raises(ConnectionError):
            await store.lookup(dying, "colour")
        assert await parts.recv_packet() == "bye"
        assert anyio.current_time() >= 300
    assert time.perf_counter() - start < 1


def test_requirements() -> None:
    """The examples import nothing else, and anyio brings its plugin along.

    "These examples use the plugin of"

    "which is installed with easynetwork."

    "Install pytest and trio; one example also needs trustme, for its certificates."

    "They contain a certificate that the package trustme makes"
    """
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert any(line.startswith("anyio") for line in project["project"]["dependencies"])
    assert any(each.value.startswith("anyio.") for each in entry_points(group="pytest11"))
    imported: dict[str, set[str]] = {}
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                imported.setdefault(name.partition(".")[0], set()).add(file.name)
    own = {file.stem for file in FOLDER.glob("*.py")}
    others = imported.keys() - own - sys.stdlib_module_names
    assert others == {"anyio", "easynetwork", "pytest", "trustme"}
    assert imported["trustme"] == {"conftest.py"}


def test_without_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tools are imported anew where pytest cannot be imported.

    "The functions on this page also work without it, and without pytest."
    """
    monkeypatch.setattr(easynetwork, "testing", easynetwork.testing)
    monkeypatch.setitem(sys.modules, "pytest", None)
    for name in list(sys.modules):
        if name.startswith("easynetwork.testing"):
            monkeypatch.delitem(sys.modules, name)
    tools = importlib.import_module("easynetwork.testing")
    assert tools.converse is not converse

    async def main() -> None:
        async with tools.converse(store.Store(), store.PROTOCOL) as conversation:
            await conversation.expect("bye", timeout=301)

    anyio.run(main, backend_options=tools.virtual_time())
    with pytest.raises(ImportError):
        importlib.import_module("easynetwork.testing.plugin")


# Testing a request handler


@virtual
async def test_converse() -> None:
    """There is one client.

    "To test a handler line by line, talk to it with converse(). It serves the handler, and connects
    a client"

    "receives packets, and compares each of them with the expected one."

    "returns the next packet, whatever it is."
    """
    handler = Echo()
    async with converse(handler, LINES) as conversation:
        await conversation.send("one", "two", "three")
        await conversation.expect("one", "two")
        assert await conversation.receive() == "three"
        assert len(handler.clients) == 1
        await conversation.send("one", "two")
        with pytest.raises(AssertionError):
            await conversation.expect("one", "three")


@virtual
async def test_expect_nothing() -> None:
    """It waits for as long as it is told, or until something comes.

    "waits, and fails if a packet arrives."

    "Responses that nobody receives are no failure: use expect_nothing()."

    "In virtual time, this is a virtual second."
    """
    async with converse(Echo(), LINES) as conversation:
        start = anyio.current_time()
        await conversation.expect_nothing()
        assert anyio.current_time() - start == pytest.approx(1)
        await conversation.send("one")
        with pytest.raises(AssertionError, match="expected nothing, but got 'one'"):
            await conversation.expect_nothing()
        await conversation.send("one")


@virtual
async def test_ends() -> None:
    """A conversation tells one end from the other, and goes on after a half-close.

    "ends the stream to the server (a half-close)."

    "waits for the end of the connection."

    "the server must close it gracefully, with"

    "it must reset it, as it does when a handler raises an exception."

    "To expect one, use expect_end(reason="
    """

    class Last(Shouter):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            try:
                await client.send_packet((yield))
            except GeneratorExit:
                await client.send_packet("the end")
                raise

    for request, reason in ("bye", "closed"), ("crash", "reset"):
        async with converse(Shouter(), LINES) as conversation:
            await conversation.send(request)
            await conversation.expect_end(reason=reason)  # type: ignore[arg-type]
        other: Any = {"closed": "reset", "reset": "closed"}[reason]
        with pytest.raises(AssertionError):
            async with converse(Shouter(), LINES) as conversation:
                await conversation.send(request)
                await conversation.expect_end(reason=other)
    async with converse(Last(), LINES) as conversation:
        await conversation.send("one")
        await conversation.send_eof()
        await conversation.expect("one", "the end")
        await conversation.expect_end()


FAILURES: list[Callable[[Any], Any]] = [
    lambda conversation: conversation.expect("one"),
    lambda conversation: conversation.receive(),
    lambda conversation: conversation.expect_end(),
    lambda conversation: conversation.client.send_packet("crash"),
]


@pytest.mark.parametrize("number", range(len(FAILURES)))
@virtual
async def test_failures(number: int) -> None:
    """Nothing arrives, or the handler crashes.

    "All failures are an AssertionError."
    """
    failed = False
    try:
        async with converse(Shouter(), LINES) as conversation:
            await FAILURES[number](conversation)
    except AssertionError:
        failed = True
    assert failed


def test_forgotten_await() -> None:
    """Python warns of it, and a filter makes an error of the warning.

    "All of these methods are coroutines. To find a forgotten await, put filterwarnings = error into
    the configuration file of pytest."
    """
    methods = {name: value for name, value in vars(Conversation).items() if name[0] != "_"}
    del methods["check_log"]
    assert all(map(inspect.iscoroutinefunction, methods.values()))

    async def main() -> None:
        async with converse(Shouter(), LINES) as conversation:
            forgotten = conversation.send("one")
            with pytest.warns(RuntimeWarning, match="'Conversation.send' was never awaited"):
                del forgotten

    anyio.run(main)


# Testing a server with several clients


@virtual
async def test_serve() -> None:
    """Two clients know of each other through the server.

    "To test how clients affect each other, use serve(). It serves a handler, and served.connect()
    returns a new client, as often as you call it"

    "served.server is the server, and served.address is its address, which exists only in memory."
    """
    async with serve(stored(), store.PROTOCOL) as served:
        clients = [await served.connect() for _ in range(5)]
        assert len({client.get_local_address() for client in clients}) == 5
        await clients[0].send_packet("set colour blue")
        assert await clients[0].recv_packet() == "ok"
        assert await store.lookup(clients[4], "colour") == "blue"
        assert served.server.get_addresses() == (served.address,)
        assert served.server.is_serving()
        with pytest.raises(OSError), socket.socket() as sock:  # noqa: PT011 - no such host here
            sock.bind(served.address)


@virtual
async def test_keyword_arguments() -> None:
    """Each option may be passed, and nothing else.

    "Keyword arguments of serve() are those of AsyncTCPNetworkServer, and keyword arguments of
    served.connect() are those of AsyncTCPNetworkClient."
    """

    def options(cls: Any, *without: str) -> dict[str, Any]:
        parameters = inspect.signature(cls).parameters.values()
        found = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
        return {name: value for name, value in found.items() if name not in without}

    of_servers = options(AsyncTCPNetworkServer)
    assert "limits" in of_servers
    async with serve(Echo(), LINES, **of_servers) as served:
        of_clients = options(AsyncTCPNetworkClient)
        assert "max_recv_size" in of_clients
        client = await served.connect(**of_clients)
        await client.send_packet("hello")
        assert await client.recv_packet() == "hello"
        with pytest.raises(TypeError):
            await served.connect(nonsense=True)
    with pytest.raises(TypeError):
        async with serve(Echo(), LINES, nonsense=True):
            pass


@virtual
async def test_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """The block of serve() ends without an error, and its client has no timeout.

    "Unlike converse(), serve() does not fail if a handler raises an exception: the server logs it,
    as always. Nor does a client give up by itself: use a timeout, or virtual time"
    """
    async with serve(Shouter(), LINES) as served:
        client = await served.connect()
        await client.send_packet("crash")
        with pytest.raises(ConnectionError):
            await client.recv_packet()
        client = await served.connect()
        with anyio.move_on_after(YEAR) as scope:
            await client.recv_packet()
        assert scope.cancelled_caught
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert ["a bug" in str(error.exc_info) for error in errors] == [True]


@virtual
async def test_raw() -> None:
    """Bytes are sent, and their receipt is waited for.

    "To send what no client of this library sends, use connect(raw=True). You get a RawConnection,
    which sends and receives bytes. Send half a packet, and the rest when the server has read it"

    "anyio.wait_all_tasks_blocked() returns when the server has read what has arrived, and waits for
    more. Bytes that are still on their way, because of a latency, are not included."
    """
    async with serve(Echo(), LINES) as served:

        def received() -> int:
            return int(served.server.get_statistics().bytes_received)

        raw = await served.connect(raw=True)
        assert isinstance(raw, RawConnection)
        await raw.send(b"hel")
        assert received() == 0
        await anyio.wait_all_tasks_blocked()
        assert received() == 3
        await raw.send(b"lo\n")
        assert await raw.receive() == b"hello\n"
        late = await served.connect(raw=True, to_server=Faults(latency=60))
        await late.send(b"hello\n")
        await anyio.wait_all_tasks_blocked()
        assert received() == 6
        await anyio.sleep(60.1)
        assert received() == 12


def test_many_packets() -> None:
    """They are handled in turns, and there is a moment between two turns.

    "On asyncio, it may return before the handler has received all packets if more than 1,024 have
    arrived together." It does from Python 3.12 on.
    """

    async def received(number: int) -> int:
        async with serve(Echo(), LINES) as served:
            raw = await served.connect(raw=True)
            await raw.send(b"\n" * number)
            await anyio.wait_all_tasks_blocked()
            return int(served.server.get_statistics().packets_received)

    too_many = 1024 if sys.version_info >= (3, 12) else 1025
    for number, expected in (1024, 1024), (1025, too_many):
        assert anyio.run(received, number, backend_options=virtual_time()) == expected


@virtual
async def test_ends_of_raw_connections() -> None:
    """A half-close leaves the other direction open, a reset does not.

    "End the stream, and receive the last response (a half-close)"

    "Disconnect with a reset, in the middle of a packet"

    "reset(), close() and send_eof() are not coroutines."
    """
    handler = store.Store()
    async with serve(handler, store.PROTOCOL) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"set colour blue\n")
        raw.send_eof()
        assert await ending(raw) == r"end after b'ok\n'"
        raw = await served.connect(raw=True)
        await raw.send(b"set colour red\nset size ")
        raw.reset()
        await anyio.wait_all_tasks_blocked()
        assert handler.values.keys() == {"colour"}
        assert served.server.get_statistics().clients == 0
    for method in RawConnection.reset, RawConnection.close, RawConnection.send_eof:
        assert not inspect.iscoroutinefunction(method)


@virtual
async def test_raw_to_a_tls_server() -> None:
    """What the server takes for a handshake is not one.

    "A connection with raw=True sends bytes without TLS."
    """
    async with serve(Echo(), LINES, ssl=server_context()) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"hello\n")
        await ending(raw)
        assert served.server.get_statistics().tls_failures == 1


# Testing a client


@virtual
async def test_functions_of_clients() -> None:
    """The one takes a client, the other one takes a function that makes one.

    "To test a function that takes a client, pass it one of served.connect()."

    "Let it take a function that connects, as lookup_patiently() does: the program passes one that
    makes a client for a real address, and a test passes one that calls served.connect()."

    "To test that your program tries again, let only the first connection fail"

    "The function waits for a minute between its attempts, but the test does not"
    """
    async with serve(stored(colour="blue"), store.PROTOCOL) as served:
        assert await store.lookup(await served.connect(), "colour") == "blue"
        faults = [Faults(reset_after=2), None]

        async def connect() -> store.Client:
            return await served.connect(to_client=faults.pop(0))

        start, real = anyio.current_time(), time.perf_counter()
        assert await store.lookup_patiently(connect, "colour") == "blue"
        assert anyio.current_time() - start == pytest.approx(60)
        assert time.perf_counter() - real < 10


@virtual
async def test_patience_of_the_function() -> None:
    """The function gives up if no attempt succeeds.

    "After three attempts, the function raises TimeoutError."
    """
    async with serve(stored(colour="blue"), store.PROTOCOL) as served:
        faults = [Faults(reset_after=2)] * 4

        async def connect() -> store.Client:
            return await served.connect(to_client=faults.pop())

        with pytest.raises(TimeoutError, match="no answer in 3 attempts"):
            await store.lookup_patiently(connect, "colour")
        assert len(faults) == 1


@virtual
async def test_directions() -> None:
    """The response is cut off after each of its bytes; the request is not.

    "To cut a connection off, pass Faults for one direction: to_client is what the server sends.
    With reset_after, the connection is reset after this number of bytes. With
    pytest.mark.parametrize, this test tries it after each byte of the response"
    """
    response = b"error: no value\n"
    source = (FOLDER / "test_client.py").read_text(encoding="utf-8")
    assert f"range(len({response.decode()!r}))".replace("'", '"') in source
    handler = stored(colour="blue")
    async with serve(stored(), store.PROTOCOL) as served:
        for size in range(len(response) + 1):
            raw = await served.connect(raw=True, to_client=Faults(reset_after=size))
            await raw.send(b"get colour\n")
            await anyio.wait_all_tasks_blocked()
            received = await raw.receive() if size else b""
            assert received == response[:size]
            assert await ending(raw) == "reset"
    async with serve(handler, store.PROTOCOL) as served:
        raw = await served.connect(raw=True, to_server=Faults(reset_after=5))
        with pytest.raises(ConnectionError):
            await raw.send(b"set colour red\n")
            await raw.receive()
        assert handler.values == {"colour": "blue"}


@virtual
async def test_server_that_fails() -> None:
    """Three ways to have it fail.

    "To have the server itself fail, serve a handler that raises an exception. A subclass of your
    handler is enough"

    "To end all connections, call await served.server.shutdown(). To refuse new ones, call await
    served.server.server_close()."
    """

    class Crashing(store.Store):
        async def handle(self, client: Any) -> AsyncGenerator[float, str]:
            yield 300.0
            raise ValueError("a bug")

    async with serve(Crashing(), store.PROTOCOL) as served:
        with pytest.raises(ConnectionError):
            await store.lookup(await served.connect(), "colour")
    async with serve(stored(), store.PROTOCOL) as served:
        clients = [await served.connect() for _ in range(2)]
        await anyio.wait_all_tasks_blocked()
        await served.server.shutdown()
        for client in clients:
            with pytest.raises(ConnectionError):
                await client.recv_packet()
    async with serve(stored(), store.PROTOCOL) as served:
        await served.server.server_close()
        with pytest.raises(ConnectionRefusedError):
            await served.connect()


# Cutting and delaying bytes


@virtual
async def test_faults_of_a_network() -> None:
    """They concern both directions of each connection, but for one that has its own.

    "A real network may split the bytes of a packet, join the bytes of several packets, and deliver
    them late."

    "To make sure that your program does not depend on it, pass a MemoryNetwork with faults to
    converse() or serve()"

    "chunks=1 is the strictest test: every byte arrives by itself."

    "latency is the time from sending to arrival, in seconds."

    "The faults of a network apply to everything that is sent over it. To make one connection
    different, pass Faults with the same arguments to served.connect()"
    """
    arguments: dict[str, Any] = {"chunks": 1, "latency": 60}
    async with serve(Echo(), LINES, network=MemoryNetwork(**arguments)) as served:
        for faults, seconds, size in (None, 120, 1), (Faults(latency=5, chunks=2), 10, 2):
            for _ in range(2):
                raw = await served.connect(raw=True, to_server=faults, to_client=faults)
                start = anyio.current_time()
                await raw.send(b"hello\n")
                assert len(await raw.receive()) == size
                assert anyio.current_time() - start == pytest.approx(seconds)
    network = MemoryNetwork(latency=60)
    async with converse(Echo(), LINES, network=network) as conversation:
        await conversation.send("hello")
        await conversation.expect_nothing(timeout=119)
        await conversation.expect("hello", timeout=2)
    assert [field in Faults.__dataclass_fields__ for field in arguments] == [True, True]


@virtual
async def test_random_latency() -> None:
    """The times differ, and are between the numbers.

    "With two numbers, it is a random time between them."
    """
    times = []
    async with serve(Echo(), LINES) as served:
        client = await served.connect(to_client=Faults(latency=(10.0, 20.0)))
        for _ in range(20):
            start = anyio.current_time()
            await client.send_packet("hello")
            await client.recv_packet()
            times.append(anyio.current_time() - start)
    assert 10 <= min(times) < 13
    assert 17 < max(times) <= 20


def test_seed() -> None:
    """The same seed has the same faults, in chunks, latency and loss; another one has others.

    "seed decides all random choices."

    "With several seeds, as above, a test tries several sequences of faults."

    "Run the test again with this seed, and the network behaves as before."
    """

    async def seen(seed: int) -> list[Any]:
        network = MemoryNetwork(seed=seed, chunks=range(1, 4), latency=(0.1, 2.0), loss=0.5)
        found: list[Any] = []
        async with serve(Echo(), LINES, network=network) as served:
            raw = await served.connect(raw=True)
            await raw.send(b"hello world\n")
            size = 0
            while size < 12:
                size += len(await raw.receive())
                found.append((size, anyio.current_time()))
        datagrams: Any = DatagramProtocol(StringLineSerializer())
        async with serve(Echo(), datagrams, network=network) as others:
            client = await others.connect()
            for number in range(20):
                await client.send_packet(f"{number}")
            found += sorted([each async for each in client.iter_received_packets(timeout=10)])
        return found

    one, again, *others = (
        anyio.run(seen, seed, backend_options=virtual_time()) for seed in (1, 1, 2, 3, 4)
    )
    assert one == again
    assert all(one != other for other in others)


# Losing datagrams


@virtual
async def test_thermometer() -> None:
    """A client that did neither would not get all temperatures.

    "UDP may lose a datagram, deliver it twice, or deliver it after a later one. So a client repeats
    its request, and numbers it to find the response"

    "To test it, give the network a probability for each fault."

    "Here, it is in the marker of the fixture memory_network"
    """
    source = (FOLDER / "test_datagrams.py").read_text(encoding="utf-8")
    [marker] = re.findall(r"^@pytest.mark.memory_network\((.*)\)$", source, re.MULTILINE)
    faults: dict[str, Any] = {
        name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", marker)
    }
    assert faults == {"loss": 0.3, "duplicate": 0.3, "reorder": 0.3}
    protocol: Any = thermometer.PROTOCOL
    async with serve(
        thermometer.Thermometer(), protocol, network=MemoryNetwork(**faults)
    ) as served:
        client = await served.connect()
        for _ in range(20):
            assert await thermometer.measure(client) == 21.5
        with pytest.raises(TimeoutError):
            for _ in range(20):
                await thermometer.measure(client, attempts=1)
        raw = await served.connect(raw=True)
        received = []
        for number in range(100):
            await raw.send(f"{number}".encode())
        with anyio.move_on_after(10):
            while True:
                received.append(int((await raw.receive()).split()[0]))
        assert len(set(received)) < 100
        assert len(set(received)) < len(received)
        assert received != sorted(received)


@virtual
async def test_broadcast() -> None:
    """A client of the network does not get what is sent to all.

    "There is no broadcast and no multicast."
    """
    datagrams: Any = DatagramProtocol(StringLineSerializer())
    async with serve(Echo(), datagrams) as served:
        client = await served.connect()
        port = client.get_local_address().port
        for host in "255.255.255.255", "224.0.0.1", "198.51.100.1":
            await served.server.client_for((host, port)).send_packet(host)
        assert [each async for each in client.iter_received_packets(timeout=60)] == ["198.51.100.1"]


# Testing timeouts


def test_clock() -> None:
    """The clock stands still while a task works, and jumps when it waits.

    "To test a timeout of five minutes in milliseconds, mark the test with virtual_time"

    "In virtual time, the clock of the event loop stands still while any task can run. When all
    tasks wait, it jumps to the next timer. So the test sees the same times in each run, on a fast
    machine and on a slow one."

    "time.monotonic() and time.sleep() remain real."
    """
    noted: list[tuple[str, float]] = []

    async def work(delay: float) -> None:
        start = anyio.current_time()
        for _ in range(5):
            before = time.monotonic()
            time.sleep(0.001)  # noqa: ASYNC251 - a task that works
            assert time.monotonic() - before >= 0.001
            await anyio.lowlevel.checkpoint()
        noted.append((f"worked {delay}", anyio.current_time() - start))
        await anyio.sleep(delay)
        noted.append((f"slept {delay}", anyio.current_time() - start))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for delay in 300.0, 7.0:
                tasks.start_soon(work, delay)

    real = time.monotonic()
    for _ in range(2):
        anyio.run(main, backend_options=virtual_time())
    assert time.monotonic() - real < 10
    assert sorted(noted[:2]) == [("worked 300.0", 0), ("worked 7.0", 0)]
    assert [text for text, _ in noted[2:4]] == ["slept 7.0", "slept 300.0"]
    assert [seconds for _, seconds in noted[2:4]] == pytest.approx([7, 300])
    assert noted[4:] == noted[:4]


@pytest.mark.parametrize(
    "backend",
    ["asyncio", pytest.param("trio", marks=pytest.mark.skipif(not HAS_TRIO, reason="missing"))],
)
def test_what_is_virtual(backend: str) -> None:
    """Each of them takes five minutes, which take no time.

    "This applies to anyio.sleep(), asyncio.timeout(), trio.fail_after(), and all timeouts of this
    library."
    """

    async def wait_in_vain() -> None:
        if backend == "asyncio":
            async with asyncio.timeout(300):
                await asyncio.sleep(400)
        else:
            import trio

            try:
                with trio.fail_after(300):
                    await trio.sleep(400)
            except trio.TooSlowError:
                raise TimeoutError from None

    async def main() -> None:
        start = anyio.current_time()
        with pytest.raises(TimeoutError):
            await wait_in_vain()
        assert anyio.current_time() - start == pytest.approx(300)
        limits = Limits(idle_timeout=300)
        async with serve(Echo(), LINES, limits=limits) as served:
            start = anyio.current_time()
            assert await ending(await served.connect(raw=True)) == "end"
            assert anyio.current_time() - start == pytest.approx(300, abs=0.6)
            client = await served.connect(to_server=Faults(latency=1000))
            with pytest.raises(TimeoutError), client.backend().timeout(300):
                await client.recv_packet()
            assert anyio.current_time() - start == pytest.approx(600, abs=0.6)

    real = time.monotonic()
    anyio.run(main, backend=backend, backend_options=virtual_time(backend))
    assert time.monotonic() - real < 10


# The pytest plugin


TESTS = """
import asyncio, socket, threading
import anyio, anyio.to_thread, pytest, pytest_asyncio

kept = []

async def forgotten():
    await asyncio.sleep(10)

@pytest.mark.anyio
async def test_twice(anyio_backend_name):
    print(f"runs on {anyio_backend_name}")

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_task(anyio_backend):
    kept.append(asyncio.create_task(forgotten()))

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_idle_worker(anyio_backend):
    await anyio.to_thread.run_sync(len, "")
    await asyncio.to_thread(len, "")

def test_thread():
    threading.Thread(target=threading.Event().wait, args=(3,), name="mine", daemon=True).start()

def test_socket():
    kept.append(socket.create_server(("127.0.0.1", 0)))

@pytest.mark.memory_network(chunks=1)
def test_network(memory_network):
    assert repr(memory_network) == "MemoryNetwork(seed=0, chunks=1)"

@pytest.mark.virtual_time
def test_no_coroutine():
    pass

@pytest_asyncio.fixture
async def tasks():
    begun = asyncio.current_task()
    yield
    print(f"the fixture ends in the same task: {asyncio.current_task() is begun}")

@pytest.mark.asyncio
async def test_fixture(tasks):
    pass
"""

ONE = """
import pytest

@pytest.mark.anyio
async def test_once(anyio_backend_name):
    print(f"runs once on {anyio_backend_name}")
"""


def test_plugin(tmp_path: Path) -> None:
    """What tests leave behind is found, since the configuration file says so.

    "To find what a test leaves behind, run pytest with --easynetwork-leaks, or put
    easynetwork_leaks = true into its configuration file. A test then fails if a task, a thread or a
    file descriptor is left two seconds after its end."

    "A task is named with its coroutine, and a socket with its address. The idle worker threads of
    anyio, asyncio and trio do not count."

    "A marker: the faults of this fixture, for example chunks=1."

    "A marker for coroutine tests"

    "The setting in the configuration file is easynetwork_leaks."

    "With pytest-asyncio, the marker virtual_time needs version 1.4 or later, and serve() and
    converse() belong in the test, not in a fixture, because pytest-asyncio ends a fixture in
    another task than it began."

    "By default, anyio runs a test on asyncio and on trio. To run your tests only on the framework
    of your program, define the fixture anyio_backend in your conftest.py"
    """
    assert plugin._GRACE == 2
    files = {
        "pytest.ini": "[pytest]\neasynetwork_leaks = true\n"
        "asyncio_default_fixture_loop_scope = function\n",
        "conftest.py": 'pytest_plugins = ["easynetwork.testing.plugin"]\n'
        "import easynetwork.testing.plugin\neasynetwork.testing.plugin._GRACE = 0.1\n",
        "test_it.py": TESTS,
        "one/conftest.py": programs()[-1],
        "one/test_one.py": ONE,
    }
    (tmp_path / "one").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-rP", "-pno:cacheprovider", "-pno:xdist"]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    output = run.stdout
    left = re.findall(r"^The test has left behind:\n  (.*)$", output, re.MULTILINE)
    assert sorted(re.sub(r"0x\w+|\d+", "N", each) for each in left) == [
        "descriptor N: a socket, ('N.N.N.N', N)",
        "task 'Task-N': <coroutine object forgotten at N>",
        "thread 'mine'",
    ]
    assert "The marker virtual_time is for coroutine tests" in output
    backends = ["asyncio", "trio"] if HAS_TRIO else ["asyncio"]
    assert re.findall(r"^runs on (\w+)$", output, re.MULTILINE) == backends
    assert re.findall(r"^runs once on (\w+)$", output, re.MULTILINE) == ["asyncio"]
    assert "the fixture ends in the same task: False" in output
    assert "1.4 or later" in plugin._NOT_VIRTUAL
    has_hook = "def pytest_asyncio_loop_factories" in inspect.getsource(pytest_asyncio.plugin)
    number = tuple(map(int, pytest_asyncio.__version__.split(".")[:2]))
    assert has_hook is (number >= (1, 4))
    # A task fails the test itself, the others when all that the test used has been closed.
    passed = f"1 failed, {6 + len(backends)} passed"
    assert passed in output, output
    assert "3 errors in" in output, output


def programs() -> list[str]:
    """Return the programs that are on the page itself."""
    found = re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", PAGE)
    return [textwrap.dedent(program) for program in found]


# What is different from real sockets


def test_blocking_programs() -> None:
    """A blocking client and a standalone server meet at a port of this machine.

    "Start the server on port 0 in a NetworkServerThread, and let your blocking client connect to
    the port that the operating system has chosen"
    """
    protocol: Any = StreamProtocol(StringLineSerializer())
    with StandaloneTCPNetworkServer("127.0.0.1", 0, protocol, Echo()) as server:
        thread = NetworkServerThread(server)
        thread.start()
        try:
            [address] = server.get_addresses()
            assert address.port != 0
            with TCPNetworkClient(("127.0.0.1", address.port), protocol) as client:
                client.send_packet("hello")
                assert client.recv_packet() == "hello"
        finally:
            thread.join()


class BlockingEcho(BlockingStreamRequestHandler[str, str]):
    """Answers, and runs in a thread."""

    def handle(self, client: Any) -> None:
        client.send_packet(client.recv_packet())


def test_blocking_handlers() -> None:
    """A handler that blocks in a thread is served in memory.

    "(Blocking handlers work on the network in memory.)"
    """

    async def main() -> None:
        async with converse(BlockingEcho(), LINES) as conversation:
            await conversation.send("hello")
            await conversation.expect("hello")

    anyio.run(main)
