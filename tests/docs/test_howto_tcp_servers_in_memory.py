"""Test what the page about TCP servers says of handlers, mostly in memory.

The rest of the page is in `test_howto_tcp_servers`, which explains the quotations.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import logging
import re
import socket
import socketserver
import threading
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.tcp_servers import request_handler_explanation as examples
from docs._include.examples.howto.tcp_servers.request_handler_explanation import Request, Response
from easynetwork.clients import TCPNetworkClient
from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import ProtocolCrashedError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, Limits, StandaloneTCPNetworkServer
from easynetwork.servers.groups import ClientGroup
from easynetwork.servers.handlers import AsyncStreamRequestHandler, INETClientAttribute
from easynetwork.servers.statistics import CloseReason
from easynetwork.servers.threads_helper import NetworkServerThread
from easynetwork.testing import RawConnection, serve
from tests.docs.howto_support import (
    DOCS,
    check_quotations,
    connected,
    in_thread,
    serving,
    until,
    words,
)
from tests.docs.virtual_support import LINES, Client, FragileSerializer, ending, virtual

PAGE = "howto/tcp_servers.rst"
FOLDER = DOCS / "_include/examples/howto/tcp_servers"
YEAR = 366 * 24 * 3600
WELCOME = b"Welcome!\n"

Requests = AsyncGenerator[float | None, str]


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


class Echo(AsyncStreamRequestHandler[str, str]):
    """Answers, and takes notes."""

    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.clients: list[Client] = []

    async def handle(self, client: Client) -> Requests:
        await client.send_packet((yield None))

    async def on_disconnection(self, client: Client) -> None:
        self.notes.append(client.close_reason)


class Noting(Echo):
    """Keeps its clients."""

    async def on_connection(self, client: Client) -> None:
        self.clients.append(client)


async def ask(connection: RawConnection, request: str) -> str:
    """Send a line and return the next one, if it arrives in one piece."""
    await connection.send(f"{request}\n".encode())
    return (await connection.receive()).decode().removesuffix("\n")


# Introduction


class Point:
    """An object of the program."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y


class PointConverter(AbstractPacketConverterComposite[Point, Point, Any, Any]):
    def create_from_dto_packet(self, packet: Any) -> Point:
        return Point(*packet)

    def convert_to_dto_packet(self, obj: Point) -> Any:
        return [obj.x, obj.y]


@virtual
async def test_messages() -> None:
    """The bytes arrive one by one, and the handler gets what the program works with.

    "A TCP connection carries a stream of bytes. Your program works with messages: lines of text,
    JSON documents or objects of your own classes. The easynetwork.servers module translates between
    the two. You write the code that responds to a request."
    """
    protocols: list[tuple[Any, bytes, type[Any]]] = [
        (LINES, b"hello\n", str),
        (StreamProtocol(JSONSerializer()), b'{"a":1}\n', dict),
        (StreamProtocol(JSONSerializer(), PointConverter()), b"[3,4]\n", Point),
    ]

    class Handler(Echo):
        async def handle(self, client: Any) -> AsyncGenerator[None, Any]:
            request = yield
            self.notes.append(type(request))
            await client.send_packet(request)

    for protocol, data, kind in protocols:
        handler = Handler()
        async with serve(handler, protocol) as served:
            raw = await served.connect(raw=True)
            for byte in data:
                await raw.send(bytes([byte]))
                await anyio.wait_all_tasks_blocked()
            assert await raw.receive() == data
            assert handler.notes == [kind]


def test_one_thread() -> None:
    """Two clients are served at the same time, in the thread of the loop.

    "The design follows socketserver in the standard library. A server object owns the sockets and
    passes each request to a handler object that you write. In easynetwork, the handler receives a
    decoded request instead of a socket, and it runs as a coroutine, so one thread serves all
    clients."

    "(By contrast, socketserver creates a BaseRequestHandler object for each request.)"
    """

    class Threads(Echo):
        async def handle(self, client: Client) -> Requests:
            request = yield None
            self.notes.append((threading.get_ident(), type(request)))
            await client.send_packet(request)

    class Standard(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            made.append(self)

    async def main() -> None:
        async with serve(handler, LINES) as served:
            connections = [await served.connect(raw=True) for _ in range(2)]
            for connection in connections:
                assert await ask(connection, "hello") == "hello"
            assert len(served.server.get_clients()) == 2

    handler = Threads()
    anyio.run(main)
    assert handler.notes[:2] == [(threading.get_ident(), str)] * 2
    made: list[Standard] = []
    with socketserver.TCPServer(("127.0.0.1", 0), Standard) as server:
        for _ in range(2):
            with socket.create_connection(server.socket.getsockname()):
                server.handle_request()
    assert made[0] is not made[1]


def test_three_steps() -> None:
    """A class, a server, and an await; a class without handle() cannot be used.

    "Creating a server takes three steps"

    "Write a subclass of AsyncStreamRequestHandler with a handle() method. This method receives the
    requests and sends the responses."

    "Pass it the address to listen on, a protocol object (which defines what a request looks like in
    bytes) and an instance of your class."

    "It serves clients until you stop the server."
    """
    with pytest.raises(TypeError, match="handle"):
        type("Empty", (AsyncStreamRequestHandler,), {})()

    async def main() -> None:
        is_up, stopped = anyio.Event(), anyio.Event()
        async with AsyncTCPNetworkServer("127.0.0.1", 0, LINES, Echo()) as server:
            async with anyio.create_task_group() as tasks:

                @tasks.start_soon
                async def run() -> None:
                    await server.serve_forever(is_up_event=is_up)
                    stopped.set()

                await is_up.wait()
                for _ in range(2):
                    async with connected(server) as peer:
                        assert await peer.ask("hello") == "hello"
                assert not stopped.is_set()
                await server.shutdown()
                await stopped.wait()

    anyio.run(main)


def test_program_without_coroutines() -> None:
    """A handler is a coroutine function in either server; the program need not have a loop.

    "With this server, you write coroutine functions. If the rest of your program is not
    asynchronous, use a standalone server."
    """
    protocol: Any = LINES
    with StandaloneTCPNetworkServer("127.0.0.1", 0, protocol, Echo()) as server:
        thread = NetworkServerThread(server)
        thread.start()
        try:
            address = server.get_addresses()[0]
            with TCPNetworkClient((address.host, address.port), protocol) as client:
                client.send_packet("hello")
                assert client.recv_packet() == "hello"
        finally:
            thread.join()

    class Plain(Echo):
        def handle(self, client: Client) -> Any:
            client.send_packet("hello")  # type: ignore[unused-coroutine]

    async def main() -> None:
        async with serve(Plain(), LINES) as served:
            assert await ending(await served.connect(raw=True)) == "reset"

    with pytest.warns(RuntimeWarning, match="never awaited"):
        anyio.run(main)


# Request handler objects


@virtual
async def test_suspended() -> None:
    """The handler notes what it does before and after the request.

    "The expression name = yield waits for the client's next request"

    "handle() is suspended there."

    "When a request arrives, handle() resumes, and the request is the value of the yield expression.
    The request is not bytes: the protocol object has already decoded them."
    """

    class Handler(Echo):
        async def handle(self, client: Client) -> Requests:
            self.notes.append("before")
            request = yield None
            self.notes.append(request)

    handler = Handler()
    async with serve(handler, LINES) as served:
        raw = await served.connect(raw=True)
        await anyio.sleep(YEAR)
        assert handler.notes == ["before"]
        await raw.send(b"hello\n")
        await anyio.wait_all_tasks_blocked()
        assert handler.notes == ["before", "hello", "before"]


@virtual
async def test_data_of_a_client() -> None:
    """Both ways keep the data of two clients apart.

    "Keep the data of a single client in a dictionary with the client as key, or in local variables
    of a handle() with a loop"
    """

    class InDictionary(Noting):
        counts: dict[Client, int] = {}  # noqa: RUF012 - one handler

        async def handle(self, client: Client) -> Requests:
            yield None
            self.counts[client] = self.counts.get(client, 0) + 1
            await client.send_packet(f"{self.counts[client]}")

    class InLoop(Noting):
        async def handle(self, client: Client) -> Requests:
            count = 0
            while True:
                yield None
                count += 1
                await client.send_packet(f"{count}")

    for handler in InDictionary(), InLoop():
        async with serve(handler, LINES) as served:
            one, other = await served.connect(raw=True), await served.connect(raw=True)
            answers = [await ask(connection, "x") for connection in (one, other, one, one, other)]
            assert answers == ["1", "1", "2", "3", "2"]


def test_kind_of_function() -> None:
    """Nothing in the program refers to the generator.

    "handle() contains a yield, which makes it an asynchronous generator. Your code never iterates
    over it: the server does, and runs your code between the iterations."
    """
    handlers = [
        value
        for value in vars(examples).values()
        if inspect.isclass(value) and issubclass(value, AsyncStreamRequestHandler)
    ]
    for handler in handlers:
        if not inspect.isabstract(handler):
            assert inspect.isasyncgenfunction(handler.handle)
    source = (FOLDER / "request_handler_explanation.py").read_text(encoding="utf-8")
    assert not re.search(r"async for|\.asend\(|anext\(|\.handle\(", source)


def test_classes_of_the_examples() -> None:
    """The module of the examples can be imported, as it is.

    "The handlers in the examples below are in"

    "with all imports. They share two small classes, Request and Response, which have a text
    attribute. BadRequest, InternalError and TimedOut are subclasses of Response."

    "The smallest handler has one yield and sends one response"
    """
    source = (FOLDER / "request_handler_explanation.py").read_text(encoding="utf-8")
    page = (DOCS / PAGE).read_text(encoding="utf-8")
    shown = set(re.findall(r"request_handler_explanation.py\n +:pyobject: (\w+)", page))
    assert len(shown) > 10
    assert shown <= vars(examples).keys()
    assert Request("x").text == Response("x").text == "x"
    for kind in examples.BadRequest, examples.InternalError, examples.TimedOut:
        assert issubclass(kind, Response)
    [handler] = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "MinimumRequestHandler"
    ]
    nodes = list(ast.walk(handler))
    assert len([node for node in nodes if isinstance(node, ast.Yield)]) == 1
    assert len([node for node in nodes if isinstance(node, ast.Await)]) == 1


@virtual
async def test_greetings() -> None:
    """The one greets before each request, the other one greets new clients.

    "One run of handle() handles one request, not one connection."

    "To greet new clients, use on_connection() instead."

    "Returning from handle() does not close the connection. To close it, call client.aclose() after
    the response"
    """

    class InHandle(Echo):
        async def handle(self, client: Client) -> Requests:
            await client.send_packet("Welcome!")
            if (yield None) == "bye":
                await client.aclose()

    class InHook(Echo):
        async def on_connection(self, client: Client) -> None:
            await client.send_packet("Welcome!")

        async def handle(self, client: Client) -> Requests:
            if (yield None) == "bye":
                await client.aclose()

    for handler, count in (InHandle(), 3), (InHook(), 1):
        async with serve(handler, LINES) as served:
            raw = await served.connect(raw=True)
            await raw.send(b"one\ntwo\n")
            await anyio.sleep(1)
            assert served.server.get_statistics().packets_sent == count
            assert handler.notes == []
            await raw.send(b"bye\n")
            assert await ending(raw) == f"end after {WELCOME * count!r}"
            await anyio.wait_all_tasks_blocked()
            assert handler.notes == [CloseReason.CLOSED]


@pytest.mark.parametrize("goes_on", [False, True], ids=["reads", "sends"])
def test_data_in_the_background(goes_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer reads when the server has done with the connection; before that, it may send more.

    "The operating system delivers the data that it has taken in the background. A client that goes
    on sending after that, and has not read everything, can lose the rest."
    """
    monkeypatch.setattr("easynetwork.backends.stream_transport.LINGER_TIME", 0.001)
    size = 400_000

    class Closing(Echo):
        async def handle(self, client: Client) -> Requests:
            yield None
            sock = client.extra(INETClientAttribute.socket)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * size)
            await client.send_packet("x" * (size - 1))
            assert client.get_unsent_size() == 0
            await client.aclose()

    async def main() -> None:
        handler = Closing()
        async with serving(handler) as server, connected(server, room=4096) as peer:
            await peer.send("hello")
            await until(lambda: handler.notes)
            with contextlib.suppress(ConnectionError):
                while goes_on:
                    await peer.send("more")
                    await anyio.sleep(0.001)
            received = 0
            with contextlib.suppress(ConnectionError):
                while data := await in_thread(lambda: peer.socket.recv(size)):
                    received += len(data)
            assert (received < size) if goes_on else (received == size)

    anyio.run(main)


@virtual
async def test_lost_data() -> None:
    """The handler crashes when it has sent more than the client has received.

    "The client gets a connection reset, and may lose data that it has not received yet."
    """

    class Crashing(Echo):
        async def handle(self, client: Client) -> Requests:
            yield None
            client.try_send_packet("x" * 1_000_000)
            raise LookupError("a bug")

    handler = Crashing()
    async with serve(handler, LINES) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"hello\n")
        await anyio.wait_all_tasks_blocked()
        size = 0
        with pytest.raises(ConnectionResetError):
            while data := await raw.receive():
                size += len(data)
        assert size < 1_000_000


# Error handling


@virtual
async def test_faults_of_clients(caplog: pytest.LogCaptureFixture) -> None:
    """The handler catches nothing.

    "Errors that the client causes are not crashes"
    """
    handler = Echo()
    protocol: Any = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    async with serve(handler, protocol, limits=Limits(idle_timeout=5)) as served:
        for data in b"\xff\n", b"x" * 100_000, b"hel", b"":
            raw = await served.connect(raw=True)
            await raw.send(data)
            if data == b"hel":
                raw.reset()
        await anyio.sleep(100)
        assert served.server.get_statistics().handler_errors == 0
        assert len(handler.notes) == 4
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@virtual
async def test_bug_in_a_serializer() -> None:
    """The handler waits for the next packet in vain.

    "Any other Exception Most likely a bug in the protocol object."

    "If the serializer raised it, the start of the next packet is unknown, and all data that follows
    may be discarded: close the connection."
    """

    class Handler(Echo):
        async def handle(self, client: Any) -> AsyncGenerator[float, Any]:
            try:
                self.notes.append((yield 5.0))
            except (ProtocolCrashedError, TimeoutError) as exc:
                self.notes.append(type(exc))

    handler = Handler()
    protocol: Any = StreamProtocol(FragileSerializer())
    async with serve(handler, protocol) as served:
        raw = await served.connect(raw=True)
        for data in b"good", b"trap", b"good":
            await raw.send(data)
            await anyio.sleep(1)
        await anyio.sleep(5)
        assert handler.notes == [b"good", ProtocolCrashedError, TimeoutError]


@virtual
async def test_error_of_another_client() -> None:
    """The first client's handler sends to a client that has reset its connection.

    "Catch it if handle() sends to another client: that client's error would count as a crash of
    this one's handle()."
    """

    class Telling(Noting):
        catches = False

        async def handle(self, client: Client) -> Requests:
            yield None
            try:
                await self.clients[1].send_packet("news")
            except ConnectionError:
                if not self.catches:
                    raise
            await client.send_packet("told")

        async def on_disconnection(self, client: Client) -> None:
            self.notes.append(client.close_reason)

    for catches in False, True:
        handler = Telling()
        handler.catches = catches
        async with serve(handler, LINES) as served:
            one, other = await served.connect(raw=True), await served.connect(raw=True)
            await anyio.wait_all_tasks_blocked()
            other.reset()
            await anyio.wait_all_tasks_blocked()
            await one.send(b"tell\n")
            if catches:
                assert await one.receive() == b"told\n"
            else:
                assert await ending(one) == "reset"
                assert handler.notes[-1] is CloseReason.HANDLER_ERROR
            assert served.server.get_statistics().handler_errors == (not catches)


@virtual
async def test_caught_exceptions(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A handler that swallows the exception leaves no trace; that of the page prints it.

    "If you catch Exception itself, log it, print it with traceback.print_exc(), or raise it again.
    A bug is hard to find if its only effect is a response to the client."
    """

    class Swallowing(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: Any) -> AsyncGenerator[None, Any]:
            try:
                yield
            except Exception:
                await client.send_packet(examples.InternalError())

    class Converter(AbstractPacketConverterComposite[Any, Any, Any, Any]):
        def create_from_dto_packet(self, packet: Any) -> Any:
            raise ZeroDivisionError("a bug")

        def convert_to_dto_packet(self, obj: Any) -> Any:
            return type(obj).__name__

    protocol: Any = StreamProtocol(StringLineSerializer(), Converter())
    handlers: list[tuple[Any, bool]] = [
        (Swallowing(), False),
        (examples.ErrorHandlingInRequestHandler(), True),
    ]
    for handler, is_printed in handlers:
        async with serve(handler, protocol) as served:
            raw = await served.connect(raw=True)
            assert await ask(raw, "hello") == "InternalError"
        assert ("ZeroDivisionError: a bug" in capsys.readouterr().err) is is_printed
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# Using several yields, timeouts


@virtual
async def test_many_yields() -> None:
    """One run receives all requests but the last, in a function or not.

    "The number of yield expressions in one run is not limited."

    "To move a part of such a conversation into a function, use recv_packet()"
    """

    class Adding(Echo):
        async def handle(self, client: Client) -> Requests:
            self.notes.append("run")
            total = 0
            for _ in range(1000):
                total += int((yield None))
            await client.send_packet(f"{total + await self.second(client)}")

        async def second(self, client: Client) -> int:
            return sum([int(await client.recv_packet()) for _ in range(1000)])

    handler = Adding()
    async with serve(handler, LINES) as served:
        raw = await served.connect(raw=True)
        assert await ask(raw, "\n".join(["1"] * 2000)) == "2000"
        await anyio.wait_all_tasks_blocked()
        assert handler.notes == ["run", "run"]


@virtual
async def test_bare_yield() -> None:
    """A client says nothing for a year, unless the server has a limit.

    "A bare yield waits until the client disconnects."

    "To disconnect all clients that are idle, whatever their handler waits for, give the server a
    limit"
    """

    class Handler(Echo):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            if (yield) == "wait elsewhere":
                await client.recv_packet()

    for limits in Limits(), Limits(idle_timeout=600):
        handler = Handler()
        async with serve(handler, LINES, limits=limits) as served:
            for first in b"", b"wait elsewhere\n":
                raw = await served.connect(raw=True)
                await raw.send(first)
            await anyio.sleep(YEAR)
            if limits.idle_timeout is None:
                assert handler.notes == []
                raw.send_eof()
                await anyio.wait_all_tasks_blocked()
                assert handler.notes == [CloseReason.PEER_CLOSED]
            else:
                assert handler.notes == [CloseReason.IDLE_TIMEOUT] * 2


def test_plain_with() -> None:
    """The others need `async with` on asyncio.

    "It uses a plain with."
    """
    handlers = {
        examples.TimeoutContextRequestHandlerWithClientBackend: False,
        examples.TimeoutContextRequestHandlerAsyncIO: True,
    }
    for handler, is_async in handlers.items():
        source = inspect.getsource(handler)
        assert ("async with" in source) is is_async
        assert " with " in source


# Crashes


class Crashing(Echo):
    """Crashes where a request says, or where it is told."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    async def on_connection(self, client: Client) -> None:
        self.crash("on_connection")

    async def handle(self, client: Client) -> Requests:
        request = yield None
        self.crash("handle")
        await client.send_packet(request)

    async def on_disconnection(self, client: Client) -> None:
        self.crash("on_disconnection")

    def crash(self, where: str) -> None:
        if where == self.where:
            raise LookupError("a bug")


@pytest.mark.parametrize("where", ["on_connection", "handle", "on_disconnection", "nowhere"])
@virtual
async def test_where_it_crashes(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each is one error in the log and in the statistics.

    "Apart from the exceptions described above, any exception that leaves handle() or one of the
    hooks described below is a bug in your code."
    """
    async with serve(Crashing(where), LINES) as served:
        raw = await served.connect(raw=True)
        with contextlib.suppress(ConnectionError):
            await raw.send(b"hello\n")
        await anyio.wait_all_tasks_blocked()
        raw.close()
        await anyio.wait_all_tasks_blocked()
        count = served.server.get_statistics().handler_errors
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == count == (where != "nowhere")


@virtual
async def test_system_exit(caplog: pytest.LogCaptureFixture) -> None:
    """A client sends the arguments of a command.

    "The following are crashes, too"

    "Exceptions that are not subclasses of Exception. For example, argparse raises SystemExit for
    invalid arguments."

    "Catch such an exception where it is raised."
    """

    class Commands(Echo):
        catches = False

        async def handle(self, client: Client) -> Requests:
            parser = argparse.ArgumentParser(prog="commands", add_help=False)
            parser.add_argument("--number", type=int)
            request = yield None
            try:
                arguments = parser.parse_args(request.split())
            except SystemExit:
                if not self.catches:
                    raise
                await client.send_packet("invalid")
            else:
                await client.send_packet(f"{arguments.number}")

    for catches in False, True:
        handler = Commands()
        handler.catches = catches
        async with serve(handler, LINES) as served:
            raw = await served.connect(raw=True)
            assert await ask(raw, "--number 5") == "5"
            await raw.send(b"--number five\n")
            if catches:
                assert await raw.receive() == b"invalid\n"
            else:
                assert await ending(raw) == "reset"
            assert served.server.get_statistics().handler_errors == (not catches)
            assert await ask(await served.connect(raw=True), "--number 5") == "5"
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)
    assert isinstance(record.exc_info[1].__cause__, SystemExit)


@virtual
async def test_flood_of_errors(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred clients trigger the same bug, and a hundred send what is not text.

    "A client can trigger the same bug again and again, or send many invalid requests. To keep the
    log small, the server limits what it logs"
    """
    protocol: Any = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    async with serve(Crashing("handle"), protocol) as served:
        for data in b"hello\n", b"\xff\n":
            for _ in range(100):
                raw = await served.connect(raw=True)
                await raw.send(data)
            await anyio.sleep(0.1)
        statistics = served.server.get_statistics()
        assert (statistics.handler_errors, statistics.invalid_packets) == (100, 100)
        assert statistics.suppressed_log_lines > 100  # of 200; a slow machine takes seconds
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(records) < 100
    assert len([record for record in records if record.exc_info]) == 1


# Client metadata, sending


@virtual
async def test_address() -> None:
    """The attributes have the address of the client.

    "The attributes of INETClientAttribute give you the client's address and other metadata"
    """
    handler: Any = examples.ClientExtraAttributesRequestHandler()

    class Converter(AbstractPacketConverterComposite[Any, Any, Any, Any]):
        def create_from_dto_packet(self, packet: Any) -> Any:
            return Request(packet)

        def convert_to_dto_packet(self, obj: Any) -> Any:
            return obj.text

    protocol: Any = StreamProtocol(StringLineSerializer(), Converter())
    async with serve(handler, protocol) as served:
        raw = await served.connect(raw=True, local_address=("192.0.2.7", 50_000))
        assert await ask(raw, "hello") == "192.0.2.7:50000 said hello"
        [client] = served.server.get_clients()
        assert client.extra(INETClientAttribute.local_address) == served.address
        assert client.extra(INETClientAttribute.socket).fileno() != -1


@virtual
async def test_sending() -> None:
    """The client does not read at first; the handler does not wait, until there is too much.

    "client.send_packet() usually returns immediately: data that the operating system does not
    accept yet is sent in the background. When send_packet() returns, the packet is being sent. This
    does not mean that the client has received it."

    "A slow client slows down your handler."

    "It can also send without waiting for a slow client."
    """

    class Handler(Noting):
        async def handle(self, client: Client) -> Requests:
            number = int((yield None))
            for _ in range(number):
                await client.send_packet("x" * 49_999)
            self.notes.append(anyio.current_time())

    handler = Handler()
    async with serve(handler, LINES) as served:
        raw = await served.connect(raw=True)
        start = anyio.current_time()
        await raw.send(b"3\n")
        await anyio.wait_all_tasks_blocked()
        [client] = handler.clients
        assert 0 < client.get_unsent_size() < 64 * 1024
        assert handler.notes == [start]
        assert client.try_send_packet("x" * 49_999)
        await raw.send(b"9\n")
        await anyio.sleep(30)
        assert handler.notes == [start]
        assert not client.try_send_packet("another one")
        now = anyio.current_time()
        assert now >= start + 30
        size = 0
        while size < 13 * 50_000:
            size += len(await raw.receive())
        assert anyio.current_time() == handler.notes[1] == now


@virtual
async def test_other_ways_to_send() -> None:
    """A task sends every minute; a group sends to all, and one of them does not read.

    "At any time, not only in response to a request, a task of the client can send"

    "A packet for many clients is sent with a ClientGroup, which does not wait for the slow ones"
    """
    group: ClientGroup[str] = ClientGroup()

    class Handler(Echo):
        async def on_connection(self, client: Client) -> None:
            group.add(client)
            client.start_soon(self.tick, client)

        async def tick(self, client: Client) -> None:
            await anyio.sleep(60)
            await client.send_packet("tick")

    async with serve(Handler(), LINES) as served:
        slow, quick = await served.connect(raw=True), await served.connect(raw=True)
        assert await quick.receive() == b"tick\n"
        start = anyio.current_time()
        for _ in range(20):
            group.broadcast("x" * 49_999)
            size = 0
            while size < 50_000:
                size += len(await quick.receive())
        assert anyio.current_time() == start
        assert (await slow.receive()).startswith(b"tick\n")


# Hooks


@virtual
async def test_failing_welcome(capsys: pytest.CaptureFixture[str]) -> None:
    """The client has left before it could be welcomed, and is not stored.

    "So the example sends the welcome message, which can fail, before it stores the client."
    """

    class Converter(AbstractPacketConverterComposite[Any, Any, Any, Any]):
        def create_from_dto_packet(self, packet: Any) -> Any:
            return Request(packet)

        def convert_to_dto_packet(self, obj: Any) -> Any:
            if obj.text == "Welcome!" and handler.fails:
                raise ConnectionResetError
            return obj.text

    class Handler(examples.ClientConnectionHooksRequestHandler):
        fails = False

    handler = Handler()
    protocol: Any = StreamProtocol(StringLineSerializer(), Converter())
    async with serve(handler, protocol) as served:
        await served.connect(raw=True)
        await anyio.wait_all_tasks_blocked()
        assert len(handler.connected) == 1
        handler.fails = True
        await served.connect(raw=True)
        await anyio.wait_all_tasks_blocked()
        assert len(handler.connected) == 1
    assert capsys.readouterr().out.count("is connected") == 1


# Server object


@virtual
async def test_reasons_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The lines have the texts of the reasons, which are all on the other page.

    "The text in parentheses is the reason why a connection ended"

    "watching lists all reasons."

    "The argument limits says how many clients the server accepts, and how slow they may be."
    """
    caplog.set_level(logging.INFO, "easynetwork")
    handler = Echo()
    limits = Limits(max_clients=1, packet_timeout=5, idle_timeout=None)
    async with serve(handler, LINES, limits=limits) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"hel")
        assert await ending(await served.connect(raw=True)) == "reset"
        start = anyio.current_time()
        assert await ending(raw) == "end"
        assert anyio.current_time() - start == pytest.approx(5, abs=0.6)
        raw = await served.connect(raw=True)
        assert await ask(raw, "hello") == "hello"
        raw.close()
        await anyio.wait_all_tasks_blocked()
    assert handler.notes == [CloseReason.PACKET_TIMEOUT, CloseReason.PEER_CLOSED]
    reasons = re.findall(r"disconnected \((.*?)(?:;.*)?\)", caplog.text)
    assert reasons == [reason.value for reason in handler.notes]
    watching = words("howto/watching.rst")
    assert all(reason.name in watching for reason in CloseReason)


def test_another_port() -> None:
    """The first server keeps its port until it has ended.

    "Stop this program, or use another port for your server."
    """

    async def start(port: int) -> int:
        async with AsyncTCPNetworkServer("127.0.0.1", port, LINES, Echo()) as server:
            return server.get_addresses()[0].port

    async def main() -> None:
        async with AsyncTCPNetworkServer("127.0.0.1", 0, LINES, Echo()) as server:
            port = server.get_addresses()[0].port
            with pytest.raises(OSError, match="in use"):
                await start(port)
            assert await start(0) != port
        assert await start(port) == port

    anyio.run(main)
