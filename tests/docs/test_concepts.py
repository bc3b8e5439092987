"""Test the statements and the example of the page about concepts.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
import runpy
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import easynetwork
from docs._include.examples.concepts import call_sequence
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import (
    DeserializeError,
    PacketConversionError,
    StreamProtocolParseError,
)
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import (
    JSONSerializer,
    NetstringSerializer,
    PickleSerializer,
    StringLineSerializer,
    StructSerializer,
)
from easynetwork.servers import AsyncUDPNetworkServer, Limits
from easynetwork.servers.blocking import BlockingStreamRequestHandler
from easynetwork.servers.groups import ClientGroup
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    RecvParams,
)
from easynetwork.testing import converse, serve, virtual_time
from tests.docs.howto_support import (
    DOCS,
    Echo,
    Watched,
    WatchedDatagrams,
    check_quotations,
    complaints,
    connected,
    in_thread,
    serving,
    table,
    turned_away,
    visiting,
)
from tests.times import PATIENCE, SOON
from tests.tools import until

pytestmark = pytest.mark.anyio

PAGE = "concepts.rst"

Client = AsyncStreamClient[Any]
Requests = AsyncGenerator[Any, Any]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


def this_task() -> int:
    return anyio.get_current_task().id


def number_of_tasks() -> int:
    return len(anyio.get_running_tasks())


# The way of a packet


async def test_pieces() -> None:
    """Packets are what was sent, however the stream is cut.

    "The connection cuts the stream into packets. One read may return half a packet, or a hundred
    packets."

    "A socket delivers bytes."

    "Your request handler gets packets."
    """
    requests: list[str] = []

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            requests.append((yield))
            await client.send_packet("done")

    async with serving(Handler()) as server, connected(server) as peer:
        await peer.send_bytes(b"ha")
        await anyio.wait_all_tasks_blocked()
        assert requests == []
        assert await peer.ask("lf", *map(str, range(100))) == "done"
        await until(lambda: len(requests) == 101)
    assert requests == ["half", *map(str, range(100))]


@pytest.mark.parametrize(
    ("serializer", "packet", "data"),
    [
        (StringLineSerializer(), "hello", b"hello\n"),
        (NetstringSerializer(), b"hello", b"5:hello,"),
        (StructSerializer(">hh"), (1, 2), b"\0\1\0\2"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_ends(serializer: Any, packet: object, data: bytes) -> None:
    """Serializers find the ends of packets.

    "The serializer tells where a packet ends: at a newline, after a length, after a fixed size."
    """
    parser = serializer.incremental_deserialize()
    next(parser)
    with pytest.raises(StopIteration) as caught:
        parser.send(data + data)
    assert caught.value.value[0] == packet
    assert bytes(caught.value.value[1]) == data
    assert b"".join(serializer.incremental_serialize(packet)) == data


class Trip(AbstractPacketConverterComposite[Any, Any, Any, Any]):
    """Refuses numbers, and notes the task in which it converts."""

    def __init__(self) -> None:
        self.trip: list[tuple[str, object]] = []
        self.tasks: list[int] = []

    def create_from_dto_packet(self, packet: Any) -> Any:
        self.tasks.append(this_task())
        if isinstance(packet, int):
            raise PacketConversionError("a number")
        self.trip.append(("in", packet))
        return tuple(packet)

    def convert_to_dto_packet(self, obj: Any) -> Any:
        self.trip.append(("out", obj))
        return list(obj)


def test_own_layers() -> None:
    """The diagram has the layers that a program writes in another color.

    "You write the upper three, in blue, or choose them from what easynetwork has"
    """
    diagram = (DOCS / "_include/diagrams/packet.svg").read_text(encoding="utf-8")
    boxes = re.findall(r'class="(box[^"]*)"', diagram)
    assert boxes == ["box yours"] * 3 + ["box"] * 3


async def test_layers() -> None:
    """A request is decoded, then converted; a response the other way round.

    "The serializer makes a plain object of the bytes of one packet: a text, a list, a dictionary."

    "The converter makes an object of your own class of the plain object, and checks it."

    "The request handler gets the object as the value of its yield, and sends a response. The
    response passes the same layers in reverse order."

    "A serializer and a converter together are a protocol object."
    """
    converter = Trip()
    protocol = StreamProtocol(JSONSerializer(), converter)
    async with serving(Echo(), protocol) as server, connected(server) as peer:
        assert await peer.ask("[1, 2]") == "[1,2]"
    assert converter.trip == [("in", [1, 2]), ("out", (1, 2))]


async def test_layers_of_a_client() -> None:
    """A client converts and serializes as a server does.

    "A client has one, too, and its packets pass the same layers."
    """
    converter = Trip()
    async with serving(Echo(), StreamProtocol(JSONSerializer())) as server:
        address = server.get_addresses()[0][:2]
        protocol = StreamProtocol(JSONSerializer(), converter)
        async with AsyncTCPNetworkClient[Any, Any](address, protocol) as client:
            await client.send_packet((1, 2))
            assert await client.recv_packet() == (1, 2)
    assert converter.trip == [("out", (1, 2)), ("in", [1, 2])]


async def test_without_converter() -> None:
    """A serializer is enough.

    "It is optional: without a converter, the handler gets the plain object."
    """
    packets = []

    class Handler(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: Client) -> Requests:
            packets.append((yield))
            await client.send_packet(None)

    async with serving(Handler(), StreamProtocol(JSONSerializer())) as server:
        async with connected(server) as peer:
            assert await peer.ask('{"a": [1]}') == "null"
    assert packets == [{"a": [1]}]


async def test_refused_packets() -> None:
    """Errors of both parts are raised at the yield.

    "If the serializer or the converter refuses a packet, the error is raised where the handler
    waits for the packet. So all that can happen to a request happens at one place, the yield."
    """
    handler = Echo()
    async with serving(handler, StreamProtocol(JSONSerializer(), Trip())) as server:
        async with connected(server) as peer:
            assert await peer.ask("no JSON", "1", "[1]") == "[1]"
    assert [type(error) for error in handler.errors] == [StreamProtocolParseError] * 2
    first, second = (error.error for error in handler.errors)
    assert isinstance(first, DeserializeError)
    assert isinstance(second, PacketConversionError)


def test_datagrams_pass_less() -> None:
    """A serializer that cannot find an end will do, and there is no TLS.

    "A datagram passes neither TLS nor the connection, because it has its own end."

    "For datagrams that have to be encrypted. There is no TLS for datagrams (DTLS) here."
    """
    DatagramProtocol(PickleSerializer())
    with pytest.raises(TypeError, match="incremental"):
        StreamProtocol(PickleSerializer())  # type: ignore[call-overload]  # the point of it
    assert "ssl" not in inspect.signature(AsyncUDPNetworkServer).parameters


# The life of a connection


def console(command: str) -> str:
    """Return what the page shows below a command."""
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    [shown] = re.findall(rf"^   \$ python {command}\n((?:   .*\n)+)", text, re.MULTILINE)
    return re.sub("^   ", "", shown, flags=re.MULTILINE)


@pytest.mark.parametrize("kind", ["connection", "datagrams"])
async def test_call_sequence(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program prints the same lines on each event loop.

    "This program shows it."

    "Each method of its request handler, its serializer and its converter prints a line when it is
    called"

    "The same program shows it, with this request handler"

    "python call_sequence.py connection trio prints the same lines."

    "The second handle() begins as soon as the first one has returned, before there is a second
    request. So the code before the first yield is not the place to greet a client, which is what
    on_connection() is for."

    "Here, handle() begins after the client has sent something."
    """
    kinds = {"connection": socket.SOCK_STREAM, "datagrams": socket.SOCK_DGRAM}
    with socket.socket(type=kinds[kind]) as sock:
        sock.bind(("127.0.0.1", 0))  # the example's port may be in use
        monkeypatch.setattr(call_sequence, "ADDRESS", sock.getsockname())
    with anyio.fail_after(PATIENCE):
        await getattr(call_sequence, kind)()
    assert capsys.readouterr().out == console(f"call_sequence.py {kind}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["connection"], ("connection", "asyncio")),
        (["datagrams"], ("datagrams", "asyncio")),
        (["connection", "trio"], ("connection", "trio")),
    ],
)
def test_arguments_of_the_program(
    arguments: list[str], expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program runs one of its functions on an event loop, as its arguments say.

    "python call_sequence.py connection trio"
    """
    calls: list[tuple[str, str]] = []

    def run(func: Any, *, backend: str) -> None:
        calls.append((func.__name__, backend))

    monkeypatch.setattr(anyio, "run", run)
    monkeypatch.setattr(sys, "argv", [str(call_sequence.__file__), *arguments])
    runpy.run_path(sys.argv[0], run_name="__main__")
    assert calls == [expected]


class Tasks(Watched, Echo):
    """Notes the task of each method."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[int] = []

    async def on_connection(self, client: Client) -> None:
        self.calls.append("on_connection")
        self.tasks.append(this_task())

    async def handle(self, client: Client) -> Requests:
        self.calls.append("handle")
        self.tasks.append(this_task())
        try:
            packet = yield
        except GeneratorExit:
            self.calls.append("GeneratorExit")
            raise
        await client.send_packet(packet)

    async def on_disconnection(self, client: Client) -> None:
        self.tasks.append(this_task())
        await super().on_disconnection(client)


async def test_steps() -> None:
    """The server calls the methods in this order, in one task.

    "The server calls three methods of your request handler"

    "A client connects."

    "The server starts a task for it, and calls on_connection() there."

    "The server calls handle(), which runs up to its yield, and waits there."

    "A request arrives."

    "handle() resumes, sends a response, and returns."

    "The server calls handle() again."

    "The connection stays open."

    "The client disconnects."

    "The server closes the generator, which raises GeneratorExit at the yield. Then it calls
    on_disconnection(), and the task ends."

    "Each connection has one task, and everything that you write for this client runs there:
    on_connection(), each handle(), the decoding of requests, and on_disconnection()."

    "A new handle() for the next request is a new generator in the same task, not a new task."
    """
    handler, converter = Tasks(), Trip()
    async with serving(handler, StreamProtocol(JSONSerializer(), converter)) as server:
        await anyio.wait_all_tasks_blocked()
        before = number_of_tasks()
        async with connected(server) as peer:
            await until(lambda: handler.calls == ["on_connection", "handle"])
            assert number_of_tasks() == before + 1
            assert await peer.ask("[1]") == "[1]"
            await until(lambda: handler.calls[2:] == ["handle"])
            assert await peer.ask("[2]") == "[2]"
        await handler.gone.wait()
        await until(lambda: number_of_tasks() == before)
        assert this_task() not in handler.tasks
    assert handler.calls == [
        *("on_connection", "handle", "handle", "handle"),
        *("GeneratorExit", "on_disconnection"),
    ]
    assert len({*handler.tasks, *converter.tasks}) == 1


# Why handle() is a generator


async def test_keeps_its_place() -> None:
    """Local variables hold what a conversation has come to.

    "A conversation of several packets is written from top to bottom, with several yield expressions
    and local variables."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            first = yield
            second = yield
            await client.send_packet(f"{first} and {second}")

    async with serving(Handler()) as server, connected(server) as one, connected(server) as two:
        await one.send("salt")
        await two.send("Ada")
        assert await one.ask("pepper") == "salt and pepper"
        assert await two.ask("Grace") == "Ada and Grace"


async def test_drain() -> None:
    """A client between two requests is disconnected, one in the middle gets its response.

    "A handle() at its first yield is between two requests, so the server can disconnect the client
    without losing one when it drains."
    """
    release = anyio.Event()

    class Handler(Watched, Echo):
        async def handle(self, client: Client) -> Requests:
            packet = yield
            if packet == "work":
                self.calls.append("work")
                await release.wait()
            await client.send_packet(packet)

    handler = Handler()
    async with serving(handler) as server, connected(server) as idle, connected(server) as busy:
        assert await idle.ask("hello") == "hello"
        await busy.send("work")
        await until(lambda: "work" in handler.calls)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(lambda: server.shutdown(grace=PATIENCE))
            assert await idle.ending() == "end of the stream"
            release.set()
            assert await busy.receive() == "work"
            assert await busy.ending() == "end of the stream"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_limits_count_while_it_waits(backend: str) -> None:
    """A handler that works for a long time meets no limit, one that waits does.

    "It can apply limits to the time in which the handler waits, and to nothing else."
    """
    if backend == "trio":
        pytest.importorskip("trio")

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            packet = yield
            await anyio.sleep(3600)
            await client.send_packet(packet)

    async def main() -> None:
        protocol = StreamProtocol(StringLineSerializer())
        limits = Limits(idle_timeout=5, first_packet_timeout=5, packet_timeout=5)
        async with converse(Handler(), protocol, limits=limits) as conversation:
            await conversation.send("hello")
            await conversation.expect("hello", timeout=7200)
            await conversation.expect_end(timeout=60)

    anyio.run(main, backend=backend, backend_options=virtual_time(backend))


async def test_cleanup() -> None:
    """The end of the connection leaves the blocks that are open.

    "It is cleaned up. When the client has left, the server closes the generator: its finally blocks
    and with blocks run, and you do not check for the end of the stream."
    """
    left: list[str] = []

    class Handler(Watched, AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: Client) -> Requests:
            with contextlib.ExitStack() as stack:
                stack.callback(left.append, "with")
                try:
                    while True:
                        await client.send_packet((yield))
                finally:
                    left.append("finally")

    handler = Handler()
    async with serving(handler) as server:
        async with connected(server) as peer:
            assert await peer.ask("hello") == "hello"
        await handler.gone.wait()
        assert left == ["finally", "with"]


@pytest.mark.parametrize("timeout", [None, 0.01, RecvParams(timeout=0.01)], ids=repr)
async def test_yielded(timeout: Any) -> None:
    """A yield says how long to wait, and receives.

    "What you yield is how long to wait: nothing, a number of seconds, or a RecvParams object. What
    you get is the request."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            await client.send_packet(f"got {yield}")
            try:
                await client.send_packet(f"got {yield timeout}")
            except TimeoutError:
                await client.send_packet("too late")

    async with serving(Handler()) as server, connected(server) as peer:
        assert await peer.ask("hello") == "got hello"
        if timeout is None:
            assert await peer.ask("hello") == "got hello"
        else:
            assert await peer.receive() == "too late"


# When handle() runs again

ROWS = {
    row: (connection, datagrams)
    for row, connection, datagrams in table(PAGE, "handle()", "Connection", "Datagrams")
}


class Row:
    """A handler that does what a row of the table says, once it has got the request "go"."""

    def __init__(self, row: str) -> None:
        self.row = row
        self.begun = 0
        self.ended = 0

    async def handle(self, client: Any) -> Requests:
        self.begun += 1
        try:
            if self.row == "returns before its first yield" and self.begun == 1:
                return
            packet = yield
            if self.row == "has closed the client":
                await client.aclose()
            elif self.row == "raises an exception" and packet == "go":
                raise ZeroDivisionError
            while self.row.startswith(("loops", "waits")):
                await client.send_packet("ok")
                yield
            await client.send_packet("ok")
        finally:
            self.ended += 1


class ConnectionRow(Row, AsyncStreamRequestHandler[Any, Any]):
    async def on_disconnection(self, client: Client) -> None:
        self.row = "over"


class DatagramRow(Row, AsyncDatagramRequestHandler[Any, Any]):
    pass


@pytest.mark.parametrize("row", ROWS)
async def test_again_with_connection(row: str) -> None:
    """The table holds for connections.

    "runs again at once" "the connection is reset" "does not run again"
    "is closed, and does not run again" "the connection ends" "runs once for the whole connection"
    """
    handler = ConnectionRow(row)
    async with serving(handler) as server:
        if row == "returns before its first yield":
            assert ROWS[row][0] == "the connection is reset"
            assert await turned_away(server) == "connection reset"
            return
        async with connected(server) as peer:
            await peer.send("go")
            if row in ("has closed the client", "raises an exception"):
                end = await peer.ending()
                assert end.startswith(("end of the stream", "connection reset"))
            else:
                assert await peer.receive() == "ok"
                assert await peer.ask("again") == "ok"
                await anyio.wait_all_tasks_blocked()
        await until(lambda: handler.row == "over")
    runs = {
        "runs again at once": 3,
        "does not run again": 1,
        "is closed, and does not run again": 1,
        "the connection ends": 1,
        "runs once for the whole connection": 1,
    }
    assert handler.begun == handler.ended == runs[ROWS[row][0]]


@pytest.mark.parametrize("row", [row for row in ROWS if ROWS[row][1] != "cannot do so"])
async def test_again_with_datagrams(row: str) -> None:
    """The table holds for datagrams.

    "runs again when the client sends a datagram" "the datagram is discarded" "cannot do so"
    "goes on waiting, because UDP does not tell" "runs until you leave the loop"
    """
    assert not hasattr(AsyncDatagramClient, "aclose")
    handler = DatagramRow(row)
    async with serving(handler) as server:
        with visiting(server) as peer:
            peer.send("go")
            await until(lambda: handler.begun == 1)
            if row.startswith(("returns before", "raises")):
                await until(lambda: handler.ended == 1)
            else:
                assert await peer.receive() == "ok"
            await anyio.wait_all_tasks_blocked()
            assert handler.ended == (0 if row.startswith(("waits", "loops")) else 1)
            assert await peer.ask("again") == "ok"
        await anyio.wait_all_tasks_blocked()
        runs = {
            "runs again when the client sends a datagram": (2, 2),
            "the datagram is discarded": (2, 2),
            "goes on waiting, because UDP does not tell": (1, 0),
            "runs until you leave the loop": (1, 0),
        }
        assert (handler.begun, handler.ended) == runs[ROWS[row][1]]


async def test_one_at_a_time() -> None:
    """A client that sends many requests at once has them handled one by one.

    "For each client, at most one handle() runs at a time. Its requests are handled in the order in
    which they arrived."
    """
    running, most, requests = 0, 0, []

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            nonlocal running, most
            request = yield
            running += 1
            most = max(most, running)
            await anyio.lowlevel.checkpoint()
            requests.append(request)
            running -= 1
            await client.send_packet("done")

    async with serving(Handler()) as server, connected(server) as peer:
        assert await peer.ask(*"abcdefgh") == "done"
        await until(lambda: len(requests) == 8)
    assert requests == [*"abcdefgh"]
    assert most == 1


# The life of a datagram


def test_no_hooks() -> None:
    """Nothing tells that a client comes or leaves.

    "Datagrams have no connection, so nothing begins or ends: there is no on_connection() and no
    on_disconnection()."
    """
    assert not hasattr(AsyncDatagramRequestHandler, "on_connection")
    assert not hasattr(AsyncDatagramRequestHandler, "on_disconnection")


class DatagramWork(WatchedDatagrams):
    """Waits in each handle() until a test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.release = anyio.Event()
        self.requests: list[str] = []

    async def handle(self, client: AsyncDatagramClient[Any]) -> Requests:
        self.clients.append(client)
        self.requests.append((yield))
        await self.release.wait()
        self.requests.append((yield))
        await client.send_packet("done")


async def test_datagrams_wait() -> None:
    """A queue keeps them, in order, and there is a task meanwhile.

    "A datagram starts handle(), and is what its first yield returns"

    "While a handle() runs, further datagrams of the same client wait for it, in a queue. With
    a second yield, handle() gets the next one of them."

    "For datagrams, there is a task while a handle() runs."
    """
    handler = DatagramWork()
    async with serving(handler) as server:
        await anyio.wait_all_tasks_blocked()
        before = number_of_tasks()
        with visiting(server) as peer:
            peer.send("a", "b")
            await until(lambda: handler.requests == ["a"])
            await anyio.wait_all_tasks_blocked()
            assert number_of_tasks() == before + 1
            handler.release.set()
            assert await peer.receive() == "done"
            await until(lambda: number_of_tasks() == before)
    assert handler.requests == ["a", "b"]
    assert len(handler.clients) == 1


async def test_refused_datagram() -> None:
    """It never reaches the serializer.

    "A handle() that returns before its first yield refuses a datagram that was not even decoded."
    """
    converter = Trip()

    class Handler(WatchedDatagrams):
        async def handle(self, client: AsyncDatagramClient[Any]) -> Requests:
            self.clients.append(client)
            if len(self.clients) == 1:
                return
            await client.send_packet((yield))

    async with serving(Handler(), DatagramProtocol(JSONSerializer(), converter)) as server:
        with visiting(server) as peer:
            assert await peer.ask("[1]", "[2]") == "[2]"
    assert converter.trip == [("in", [2]), ("out", (2,))]


# Where the tasks are


async def test_turns() -> None:
    """Code between two waits is not interrupted, and all of it runs in one thread.

    "The server runs in one thread, with one event loop."

    "Code of one client runs in order, and needs no lock for data that belongs to the client."

    "Another client's code can run only where yours waits: at a yield or an await. Between two of
    them, no other coroutine changes data that clients share."
    """
    total, threads = 0, set()

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            nonlocal total
            yield
            threads.add(threading.get_ident())
            before = total
            time.sleep(0)  # noqa: ASYNC251 - only other threads may run now
            total = before + 1
            await client.send_packet("done")

    async with serving(Handler()) as server, connected(server) as one, connected(server) as two:
        for peer in one, two:
            await peer.send(*["count"] * 50)
        for peer in one, two:
            assert [await peer.receive() for _ in range(50)] == ["done"] * 50
    assert total == 100
    assert threads == {threading.get_ident()}


class Blocking(AsyncStreamRequestHandler[str, str]):
    """Blocks until another client has got a response, or for a short time."""

    other: Any = None

    def __init__(self) -> None:
        self.was_answered: bool | None = None

    def work(self) -> None:
        self.other.socket.sendall(b"hello\n")
        self.other.socket.settimeout(self.patience)
        try:
            self.was_answered = self.other.socket.recv(100) == b"hello\n"
        except TimeoutError:
            self.was_answered = False
        self.other.socket.settimeout(PATIENCE)

    patience = SOON

    async def handle(self, client: Client) -> Requests:
        request = yield
        if request == "block":
            self.work()
        await client.send_packet(request)


class InThread(Blocking):
    patience = PATIENCE

    async def handle(self, client: Client) -> Requests:
        request = yield
        if request == "block":
            await anyio.to_thread.run_sync(self.work)
        await client.send_packet(request)


class BlockingMethods(BlockingStreamRequestHandler[Any, Any]):
    patience = PATIENCE
    work = Blocking.work
    was_answered: bool | None = None
    other: Any = None

    def handle(self, client: Any) -> None:
        for request in client.packets():
            if request == "block":
                self.work()  # type: ignore[misc]  # a method of a class like this one
            client.send_packet(request)


@pytest.mark.parametrize("handler_class", [Blocking, InThread, BlockingMethods])
async def test_blocking(handler_class: type[Any]) -> None:
    """Blocking code in a coroutine keeps the others waiting; in a thread, it does not.

    "Blocking code stops all clients. While a handler calls time.sleep(), or computes for a second,
    no other client is served. Run such code in a thread, for example with
    anyio.to_thread.run_sync(), or write a blocking handler, whose methods run in a thread of their
    own."

    "For work that needs the processor all the time. The handler would stop all other clients."
    """
    handler = handler_class()
    async with serving(handler) as server, connected(server) as one, connected(server) as two:
        assert await two.ask("hello") == "hello"
        handler.other = two
        assert await one.ask("block") == "block"
        assert handler.was_answered is (handler_class is not Blocking)
        if handler_class is Blocking:
            assert await two.receive() == "hello"


async def test_context_variables() -> None:
    """A variable belongs to one connection.

    "A context variable that is set in on_connection() or handle() is visible in each later handle()
    of the connection, and to no other client."
    """
    greeted: ContextVar[bool] = ContextVar("greeted", default=False)
    name: ContextVar[str] = ContextVar("name", default="nobody")

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def on_connection(self, client: Client) -> None:
            assert not greeted.get()
            greeted.set(True)

        async def handle(self, client: Client) -> Requests:
            request = yield
            assert greeted.get()
            await client.send_packet(name.get())
            name.set(request)

    async with serving(Handler()) as server, connected(server) as one, connected(server) as two:
        assert await one.ask("Ada") == "nobody"
        assert await two.ask("Grace") == "nobody"
        assert await one.ask("x") == "Ada"
        assert await two.ask("x") == "Grace"


async def test_more_tasks() -> None:
    """A task of a client is cancelled when the client leaves.

    "More tasks for a client are started with client.start_soon(). They end with the connection"
    """
    tasks: list[str] = []

    class Handler(Watched, Echo):
        async def handle(self, client: Client) -> Requests:
            packet = yield
            client.start_soon(self.work)
            await client.send_packet(packet)

        async def work(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                tasks.append("ended")

    handler = Handler()
    async with serving(handler) as server:
        async with connected(server) as peer:
            assert await peer.ask("hello") == "hello"
            assert not tasks
        await handler.gone.wait()
        assert tasks == ["ended"]


async def test_exception(log: pytest.LogCaptureFixture) -> None:
    """A bug in a handler costs one client.

    "An exception ends one client. If it leaves handle(), the server logs it and ends the
    connection. The server and the other clients go on."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            request = yield
            await client.send_packet(str(1 / int(request)))

    async with serving(Handler()) as server, connected(server) as one, connected(server) as two:
        await one.send("0")
        assert await one.ending() == "connection reset"
        assert await two.ask("1") == "1.0"
        async with connected(server) as three:
            assert await three.ask("2") == "0.5"
    [record] = complaints(log)
    assert record.levelno == logging.ERROR


def test_several_processes() -> None:
    """Servers over IP can share a port.

    "Several processors need several processes: see reuse_port"
    """
    assert "reuse_port" in inspect.signature(AsyncUDPNetworkServer).parameters


# What back-pressure is


def is_writable(sock: socket.socket) -> bool:
    """Return whether a socket takes data within a short time."""
    sock.settimeout(SOON)
    try:
        return sock.send(b"x" * 999 + b"\n") > 0
    except TimeoutError:
        return False
    finally:
        sock.settimeout(PATIENCE)


async def test_client_that_sends_too_fast() -> None:
    """A client cannot send without end to a handler that works.

    "While handle() works, it does not ask for a request. When more than 64 KiB have arrived that
    it has not asked for, the server stops reading from this connection. The buffers of the
    operating system fill up, and then the client cannot send."

    "Back-pressure means that the sender waits, not the data"

    "easynetwork applies it in both directions, without any code of yours."
    """
    release = anyio.Event()

    class Handler(Watched, Echo):
        async def handle(self, client: Client) -> Requests:
            yield
            await release.wait()

    handler = Handler()
    async with serving(handler) as server, connected(server) as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await peer.send("hello")
        await until(lambda: len(handler.clients) == 1)
        with anyio.fail_after(PATIENCE):
            while await in_thread(lambda: is_writable(peer.socket)):
                pass
        [client] = handler.clients
        assert client.get_statistics().bytes_received <= 3 * 64 * 1024
        release.set()
        with anyio.fail_after(PATIENCE):
            while not await in_thread(lambda: is_writable(peer.socket)):
                pass


async def test_client_that_reads_too_slowly() -> None:
    """A handler waits for a client that does not read, and asks for nothing meanwhile.

    "If one side sends faster than the other side reads, data has to wait somewhere."

    "What the operating system does not take waits in the server. While more than 64 KiB wait for
    a client, client.send_packet() waits, and the handler with it. So the handler asks for no
    further request, and the client cannot send, either."

    "A client that takes nothing for 60 seconds is disconnected."
    """
    assert Limits().send_timeout == 60
    sent = 0

    class Handler(Watched, Echo):
        async def handle(self, client: Client) -> Requests:
            nonlocal sent
            yield
            while sent < 100 * 1024 * 1024:
                await client.send_packet("x" * 9_999)
                sent += 10_000

    handler = Handler()
    async with serving(handler) as server, connected(server, room=4096) as peer:
        await peer.send("hello", "more")
        await until(lambda: bool(handler.clients) and handler.clients[0].get_unsent_size() > 65536)
        await anyio.wait_all_tasks_blocked()
        [client] = handler.clients
        assert 65536 < client.get_unsent_size() <= 65536 + 10_000
        assert client.get_statistics().packets_received == 1
        before = sent
        assert before < 100 * 1024 * 1024
        await peer.receive_bytes(before)
        await until(lambda: sent > before)


def test_groups() -> None:
    """A group has two ways to treat slow clients, and waits for none.

    "A handler that sends to all clients must not wait for the slowest of them. A ClientGroup skips
    or resets a client for which too much waits"
    """
    for slow in "skip", "abort":
        ClientGroup[Any](slow=slow)
    assert not inspect.iscoroutinefunction(ClientGroup.broadcast)


async def test_too_many_datagrams() -> None:
    """Sending never fails, and some datagrams are dropped.

    "Datagrams have no back-pressure: the sender does not learn that the receiver is slow. The
    server keeps a few datagrams of each client, and drops the others"
    """
    handler = DatagramWork()
    async with serving(handler) as server:
        with visiting(server) as peer:
            for _ in range(10):
                peer.send(*["x"] * 20)
                await anyio.wait_all_tasks_blocked()
            await until(lambda: server.get_statistics().dropped > 0)
            handler.release.set()
            assert await peer.receive() == "done"


# When not to use easynetwork


def sources() -> Iterator[str]:
    for path in Path(easynetwork.__file__).parent.rglob("*.py"):
        yield path.read_text(encoding="utf-8")


def test_no_http() -> None:
    """No other protocol is in the library.

    "They are more than packets: use a library for this protocol. easynetwork contains no HTTP."
    """
    modules = r"^\s*(?:import|from) (?:http|urllib|h11|h2|websockets|grpc)\b"
    assert not [text for text in sources() if re.search(modules, text, re.MULTILINE)]


def test_one_line() -> None:
    """A program without the library sends a line to a server.

    "For a program that opens one connection, sends a line and ends. socket.create_connection() is
    enough."
    """
    lines: list[str] = []

    class Handler(Watched, AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            lines.append((yield))

    def send(address: tuple[str, int]) -> None:
        with socket.create_connection(address) as sock:
            sock.sendall(b"hello\n")

    async def main() -> None:
        handler = Handler()
        async with serving(handler) as server:
            await in_thread(lambda: send(server.get_addresses()[0][:2]))
            await handler.gone.wait()

    anyio.run(main)
    assert lines == ["hello"]


def test_no_storage() -> None:
    """Packets that wait when a server stops are not there when it starts again.

    "For queues that survive a restart, or that several machines share. What waits here waits in the
    memory of one process"
    """
    requests: list[str] = []

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            requests.append((yield))
            await anyio.sleep_forever()

    async def main() -> None:
        for number in range(2):
            async with serve(Handler(), StreamProtocol(StringLineSerializer())) as served:
                client = await served.connect()
                if number == 0:
                    for request in "in work", "waiting":
                        await client.send_packet(request)
                await anyio.sleep(1)

    anyio.run(main, backend_options=virtual_time())
    assert requests == ["in work"]


async def test_whole_packets() -> None:
    """A handler gets nothing before the last byte of a packet has arrived.

    "For packets that do not fit into memory. A packet is decoded as a whole."
    """
    requests: list[Any] = []

    class Handler(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: Client) -> Requests:
            requests.append((yield))
            await client.send_packet(None)

    async with serving(Handler(), StreamProtocol(JSONSerializer())) as server:
        async with connected(server) as peer:
            await peer.send_bytes(b'["a", "b", "c"')
            await anyio.wait_all_tasks_blocked()
            assert not requests
            await peer.send_bytes(b"]\n")
            assert await peer.receive() == "null"
