"""Test what the page for those who come from another library says about running programs.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. The programs and the names are in `test_coming_from`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from twisted.internet import defer, interfaces
from twisted.internet.testing import StringTransport
from twisted.protocols import basic

from docs._include.examples.coming_from import protocol_server
from easynetwork._tls_options import _HANDSHAKE_TIMEOUT
from easynetwork._tuning import HIGH_WATER
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.exceptions import (
    EndOfStreamError,
    LimitOverrunError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import (
    JSONSerializer,
    LengthPrefixedSerializer,
    NetstringSerializer,
    StringLineSerializer,
)
from easynetwork.serializers.framing import AutoSeparatedPacketSerializer
from easynetwork.serializers.tools import DEFAULT_SERIALIZER_LIMIT
from easynetwork.servers import (
    AsyncTCPNetworkServer,
    CloseReason,
    Limits,
    StandaloneTCPNetworkServer,
)
from easynetwork.servers._core import fault_log
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.testing import converse, serve, virtual_time
from tests.docs.howto_support import (
    Echo,
    check_quotations,
    complaints,
    connected,
    serving,
    table,
    turned_away,
    until,
)
from tests.times import MS, PATIENCE, SOON
from tests.tools import feed

pytestmark = pytest.mark.anyio

PAGE = "coming_from.rst"
REPOSITORY = Path(__file__).resolve().parents[2]
LINES: Any = StreamProtocol(StringLineSerializer(encoding="utf-8"))

Client = AsyncStreamClient[str]
Requests = AsyncGenerator[float | None, str]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


class Handler(AsyncStreamRequestHandler[str, str]):
    """Does what a test wants with each request, and notes what it is told of the end."""

    def __init__(self, work: Any = None, timeout: float | None = None) -> None:
        self.work = work
        self.timeout = timeout
        self.reasons: list[Any] = []

    async def handle(self, client: Client) -> Requests:
        request = yield self.timeout
        await self.work(client, request)

    async def on_disconnection(self, client: Client) -> None:
        self.reasons.append(client.close_reason)


def raising(error: BaseException) -> Handler:
    """Return a handler that raises an exception at each request."""

    async def work(client: Client, request: str) -> None:
        raise error

    return Handler(work)


async def ending_after(handler: Handler, request: str = "hello", **options: Any) -> str:
    """Serve a handler; return how a connection ends after a request."""
    async with serving(handler, LINES, **options) as server, connected(server) as peer:
        await peer.send(request)
        ending = await peer.ending()
        await until(lambda: handler.reasons)
        return ending


# asyncio streams


async def test_requests() -> None:
    """A generator serves one request.

    "handle() ends after a request, and is called again for the next one."
    """
    calls: list[str] = []

    class Counting(Echo):
        def handle(self, client: Any) -> Any:
            calls.append("handle")
            return super().handle(client)

    async with serving(Counting()) as server, connected(server) as peer:
        for number in range(1, 4):
            assert await peer.ask("hello") == "hello"
            while len(calls) < number + 1:
                await anyio.lowlevel.checkpoint()
            assert len(calls) == number + 1


def test_conversations() -> None:
    """Two handlers count the requests of each client, and a third one asks twice.

    "For a conversation, yield several times. Data that belongs to a connection is in a dictionary
    with the client as key, or in the local variables of a handle() with a loop."
    """

    class WithDictionary(AsyncStreamRequestHandler[str, str]):
        def __init__(self) -> None:
            self.counts: dict[Client, int] = {}

        async def handle(self, client: Client) -> Requests:
            yield None
            self.counts[client] = self.counts.get(client, 0) + 1
            await client.send_packet(str(self.counts[client]))

    class WithLoop(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            count = 0
            while True:
                yield None
                count += 1
                await client.send_packet(str(count))

    class Conversation(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            yield None
            await client.send_packet("1")
            yield None
            await client.send_packet("2")

    async def main() -> None:
        for handler in WithDictionary(), WithLoop(), Conversation():
            async with serve(handler, LINES) as served:
                one, other = await served.connect(), await served.connect()
                for expected in "1", "2":
                    for client in one, other:
                        await client.send_packet("hello")
                        assert await client.recv_packet() == expected

    anyio.run(main, backend_options=virtual_time())


async def test_slow_client() -> None:
    """What is sent is bounded, whatever the handler wants to send.

    "send_packet() waits while more than 64 KiB wait for the client. There is no drain() that you
    can forget."

    "It returns when the transport has the data and no more than 64 KiB wait. It does not wait for
    an empty buffer."
    """
    assert HIGH_WATER == 64 * 1024
    unsent: list[int] = []

    async def work(client: Client, request: str) -> None:
        while True:
            await client.send_packet("x" * 9_999)
            unsent.append(client.get_unsent_size())

    async with serve(Handler(work), LINES) as served:
        connection = await served.connect(raw=True)
        await connection.send(b"go\n")
        await anyio.wait_all_tasks_blocked()
        assert 0 < max(unsent) <= HIGH_WATER


@pytest.mark.asyncio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_long_lines(anyio_backend: str) -> None:
    """The end of a long line looks like a line to asyncio.

    "After readline() has raised ValueError for a line that is too long, it can return the end of
    this line as the next line. Here, no byte of such a line is parsed."

    "One error, and no byte of the packet is parsed."
    """
    data = b"x" * 80, b"delete all\nnext\n"
    reader = asyncio.StreamReader(limit=50)
    reader.feed_data(data[0])
    with pytest.raises(ValueError, match="limit"):
        await asyncio.wait_for(reader.readline(), PATIENCE)
    reader.feed_data(data[1])
    assert await reader.readline() == b"delete all\n"

    handler = Echo()
    protocol: Any = StreamProtocol(StringLineSerializer(limit=50))
    async with serve(handler, protocol) as served:
        connection = await served.connect(raw=True)
        for chunk in data:
            await connection.send(chunk)
        assert await connection.receive() == b"next\n"
    (error,) = handler.errors
    assert isinstance(error, StreamProtocolParseError)
    assert isinstance(error.error, LimitOverrunError)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_incomplete_lines(anyio_backend: str) -> None:
    """The last line has no end.

    "At the end of the stream, readline() returns an incomplete line. Here, a handler never gets it,
    unless you pass allow_unterminated=True to the serializer."
    """
    reader = asyncio.StreamReader()
    reader.feed_data(b"half")
    reader.feed_eof()
    assert await reader.readline() == b"half"

    requests: list[str] = []

    async def work(client: Client, request: str) -> None:
        requests.append(request)

    for allow in False, True:
        serializer = StringLineSerializer(allow_unterminated=allow)
        handler = Handler(work)
        async with serve(handler, StreamProtocol(serializer)) as served:
            connection = await served.connect(raw=True)
            await connection.send(b"half")
            connection.close()
            while not handler.reasons:
                await anyio.lowlevel.checkpoint()
        assert requests == (["half"] if allow else [])


def test_limits() -> None:
    """The defaults are those of the page about limits.

    "Limits. start_server() has no limits for its clients. Here, limits hold by default, for example
    for the number of clients."

    "Limits. Twisted has no limits for the number of clients. Here, limits hold by default."

    "Servers have limits by default: for clients, for slow packets, for data that nobody reads, and
    for datagrams."
    """
    limits = Limits()
    assert limits.max_clients == "auto"
    assert limits.packet_timeout
    assert limits.send_timeout
    for theirs in asyncio.start_server, asyncio.AbstractEventLoop.create_server:
        assert not re.search("client|max", str([*inspect.signature(theirs).parameters][1:]))
    twisted: Any = interfaces.IReactorTCP
    listen = twisted["listenTCP"].getSignatureString()
    assert listen == "(port, factory, backlog=50, interface='')"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_class_of_servers(anyio_backend: str) -> None:
    """What listens for streams and for protocols is the same object, without limits of its own.

    "See the list for streams above, which holds here, too, as do its points about limits and about
    stopping."
    """
    loop = asyncio.get_running_loop()
    for_protocols = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    for_streams = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with for_protocols, for_streams:
        assert type(for_protocols) is type(for_streams)


async def test_errors(log: pytest.LogCaptureFixture) -> None:
    """A bug is logged once with its traceback, however many clients meet it.

    "Here, the client is reset, and of many exceptions of the same kind, one per minute is logged
    with its traceback."

    "The connection is reset."

    "The log gets one ERROR with a traceback."
    """
    assert fault_log._TRACEBACK_INTERVAL == 60
    handler = raising(ZeroDivisionError("a bug"))
    async with serving(handler, LINES) as server:
        for _ in range(3):
            async with connected(server) as peer:
                await peer.send("hello")
                assert await peer.ending() == "connection reset"
    assert [record.levelname for record in complaints(log)].count("ERROR") == len(complaints(log))
    assert len([record for record in log.records if record.exc_info]) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_errors_in_asyncio(anyio_backend: str) -> None:
    """Each client makes a report.

    "If an exception leaves the callback, asyncio logs a traceback for each client."
    """
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        raise ZeroDivisionError

    async with await asyncio.start_server(fail, "127.0.0.1", 0) as server:
        for count in 1, 2, 3:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            while len(reports) < count:
                gc.collect()  # Python 3.11 reports when the task is forgotten
                await anyio.lowlevel.checkpoint()
    assert all(isinstance(report["exception"], ZeroDivisionError) for report in reports)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_stopping(anyio_backend: str) -> None:
    """A server of asyncio that is closed still has its clients.

    "Server.close() leaves the connected clients alone. server.shutdown() cancels their handlers"
    """

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()
        await writer.wait_closed()
        done.set()

    done = asyncio.Event()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"before\n")
    assert await reader.readline() == b"before\n"
    server.close()
    writer.write(b"after\n")
    assert await reader.readline() == b"after\n"
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(done.wait(), PATIENCE)

    async with serving(Echo()) as ours, connected(ours) as peer:
        assert await peer.ask("before") == "before"
        await ours.shutdown()
        assert await peer.ending() in ("end of the stream", "connection reset")


def test_both_ways_to_stop() -> None:
    """A handler that works is cancelled, or may finish.

    "server.shutdown() cancels their handlers, and server.shutdown(grace=10) lets them finish first"
    """
    outcomes: list[str] = []

    async def work(client: Client, request: str) -> None:
        try:
            await anyio.sleep(5)
        except anyio.get_cancelled_exc_class():
            outcomes.append("cancelled")
            raise
        outcomes.append("finished")

    async def main() -> None:
        for options in {}, {"grace": 10}:
            async with serve(Handler(work), LINES) as served:
                client = await served.connect()
                await client.send_packet("hello")
                await anyio.sleep(1)
                await served.server.shutdown(**options)

    anyio.run(main, backend_options=virtual_time())
    assert outcomes == ["cancelled", "finished"]


# asyncio.Protocol


def test_order_of_protocols() -> None:
    """The response that takes less time is sent first.

    "A callback cannot wait, so responses that take long are sent by tasks, in any order."
    """
    sent: list[str] = []

    class Answering(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            self.tasks = [
                asyncio.ensure_future(self.answer(line)) for line in data.decode().split()
            ]

        async def answer(self, line: str) -> None:
            await asyncio.sleep(1 if line == "slow" else 0)
            sent.append(line)

    async def main() -> None:
        protocol = Answering()
        protocol.data_received(b"slow\nfast\n")
        assert not sent  # it has returned before there was an answer
        await asyncio.gather(*protocol.tasks)

    anyio.run(main, backend_options=virtual_time())
    assert sent == ["fast", "slow"]


async def test_order() -> None:
    """Responses come in order, though the first takes longer.

    "handle() can wait, and the next request of the same client is delivered after it has returned.
    So responses have the order of the requests."

    "Other clients are served in the meantime."

    "Here, the next request of the same client is delivered when handle() has returned."
    """

    async def work(client: Client, request: str) -> None:
        if request == "slow":
            await anyio.sleep(SOON)
        if request == "wait":
            await free.wait()
        await client.send_packet(request)

    free = anyio.Event()

    async with serving(Handler(work), LINES) as server:
        async with connected(server) as peer, connected(server) as other:
            assert await peer.ask("slow", "fast") == "slow"
            assert await peer.receive() == "fast"
            await peer.send("wait", "after")
            assert await other.ask("fast") == "fast"
            free.set()
            assert await peer.receive() == "wait"
            assert await peer.receive() == "after"


async def test_reading() -> None:
    """A client that sends while its handler works has to wait.

    "While handle() works, the server stops reading from a client that has more than 64 KiB waiting
    for it."
    """
    free = anyio.Event()

    async def work(client: Client, request: str) -> None:
        await free.wait()
        await client.aclose()

    sent = 0
    async with serve(Handler(work), LINES) as served:
        connection = await served.connect(raw=True)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def flood() -> None:
                    nonlocal sent
                    while True:
                        await connection.send(b"x" * 999 + b"\n")
                        sent += 1000

                group.start_soon(flood)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        assert HIGH_WATER < sent < 10 * HIGH_WATER
        free.set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_errors_of_protocols(anyio_backend: str) -> None:
    """Each connection makes a report.

    "After an exception in data_received(), asyncio logs a traceback for each connection."
    """
    reports: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reports.append(context))

    class Failing(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    async with await loop.create_server(Failing, "127.0.0.1", 0) as server:
        for count in 1, 2, 3:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            assert len(reports) == count


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_protocol_beside(anyio_backend: str) -> None:
    """A protocol of asyncio and a server of ours are in one loop.

    "An asyncio.Protocol works in the same way, with loop.create_server()."

    "A server of easynetwork is a coroutine in your event loop, beside everything else that runs
    there."
    """
    loop = asyncio.get_running_loop()
    room: set[protocol_server.Chat] = set()
    async with await loop.create_server(lambda: protocol_server.Chat(room), "127.0.0.1", 0) as old:
        async with serving(Echo()) as new, connected(new) as peer:
            reader, writer = await asyncio.open_connection(*old.sockets[0].getsockname())
            assert await reader.readline() == b"1 in the room\n"
            assert await peer.ask("hello") == "hello"
            writer.close()
            await writer.wait_closed()
            await until(lambda: not room)


# Twisted


def test_order_of_twisted() -> None:
    """Twisted calls without waiting.

    "lineReceived() cannot wait, so the next line may arrive before the Deferred of the last one has
    its result."
    """
    waiting: list[defer.Deferred[None]] = []

    class Waiting(basic.LineReceiver):
        def lineReceived(self, line: bytes) -> None:  # noqa: N802 - Twisted's name
            waiting.append(defer.Deferred())

    receiver = Waiting()
    receiver.makeConnection(StringTransport())
    receiver.dataReceived(b"one\r\ntwo\r\n")
    assert [deferred.called for deferred in waiting] == [False, False]


def test_twisted_keeps_everything() -> None:
    """A transport of Twisted takes what it is given.

    "Without a producer, Twisted keeps everything that a client does not read."
    """
    receiver, transport = basic.LineReceiver(), StringTransport()
    receiver.makeConnection(transport)
    for _ in range(1000):
        receiver.sendLine(b"x" * 1000)
    assert len(transport.value()) > 1_000_000
    assert transport.producer is None


def test_limits_of_lines() -> None:
    """Both defaults are as the page says.

    "The limit of Twisted is 16,384 bytes by default, and the connection is closed. Here, the limit
    is 65,536 bytes. The connection is closed, too, if you do not catch the error."
    """
    assert basic.LineReceiver.MAX_LENGTH == 16_384
    assert DEFAULT_SERIALIZER_LIMIT == 65_536
    receiver, transport = basic.LineReceiver(), StringTransport()
    receiver.makeConnection(transport)
    receiver.dataReceived(b"x" * 20_000)
    assert transport.disconnecting


def test_wire_format() -> None:
    """What Twisted sends is received.

    "Lines, length prefixes and netstrings are the same, so a Twisted client can talk to a server of
    easynetwork."
    """
    lines = StringLineSerializer(newline="CRLF")
    inner = StringLineSerializer()
    kinds: list[tuple[type[Any], str, Any, Any]] = [
        (basic.LineReceiver, "sendLine", lines, "hello"),
        (basic.Int32StringReceiver, "sendString", LengthPrefixedSerializer(inner, "u32"), "hello"),
        (basic.Int16StringReceiver, "sendString", LengthPrefixedSerializer(inner, "u16"), "hello"),
        (basic.Int8StringReceiver, "sendString", LengthPrefixedSerializer(inner, "u8"), "hello"),
        (basic.NetstringReceiver, "sendString", NetstringSerializer(), b"hello"),
    ]
    for kind, method, serializer, packet in kinds:
        receiver, transport = kind(), StringTransport()
        receiver.makeConnection(transport)
        getattr(receiver, method)(b"hello")
        packets, rest = feed(serializer.incremental_deserialize, [transport.value()])
        assert (packets, rest) == ([packet], b"")


# Published releases


async def test_task_group() -> None:
    """One error is a group, too.

    "They come in an ExceptionGroup, also if there is only one."
    """
    caught: list[BaseException] = []

    async def work(client: Client, request: str) -> None:
        try:
            async with client.backend().create_task_group():
                raise ZeroDivisionError
        except* ZeroDivisionError as exc:
            caught.append(exc)
        await client.send_packet("done")

    async with converse(Handler(work), LINES) as conversation:
        await conversation.send("hello")
        await conversation.expect("done")
    assert isinstance(caught[0], ExceptionGroup)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
async def test_yielded_timeout(timeout: float) -> None:
    """A wrong timeout is the handler's fault, and raised there.

    "A number is a timeout in seconds. A negative number or NaN raises ValueError at the yield."
    """

    class Wrong(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            try:
                yield timeout
            except ValueError:
                await client.send_packet("wrong")
            await client.aclose()

    async with serving(Wrong()) as server, connected(server) as peer:
        assert await peer.ending() == r"end of the stream after b'wrong\n'"


async def test_parse_error(log: pytest.LogCaptureFixture) -> None:
    """What was sent before arrives.

    "The connection is closed after what was sent has arrived. The log gets one WARNING without a
    traceback."

    "An error that the client causes is one line."
    """

    async def work(client: Client, request: str) -> None:
        await client.send_packet(request)

    async with serving(Handler(work), LINES) as server, connected(server) as peer:
        await peer.send_bytes(b"hello\n\xff\n")
        assert await peer.ending() == r"end of the stream after b'hello\n'"
    (record,) = complaints(log)
    assert (record.levelname, record.exc_info) == ("WARNING", None)


async def test_timeout(log: pytest.LogCaptureFixture) -> None:
    """It is how one writes an idle limit.

    "The TimeoutError of a yield leaves a handler"

    "The connection is closed."

    "Apart from the line disconnected, nothing is logged above DEBUG."
    """
    handler = Handler(timeout=1 * MS)
    async with serving(handler, LINES) as server:
        assert await turned_away(server) == "end of the stream"
        await until(lambda: handler.reasons)
    assert handler.reasons == [CloseReason.IDLE_TIMEOUT]
    assert not [
        record
        for record in log.records
        if record.levelno > logging.DEBUG and "timeout" in record.getMessage().lower()
    ]
    assert not complaints(log)


@pytest.mark.parametrize(
    "error", [ConnectionError("a database"), SystemExit(1)], ids=["ConnectionError", "SystemExit"]
)
async def test_bugs(error: BaseException, log: pytest.LogCaptureFixture) -> None:
    """They are logged, and end one client.

    "It is silent only if it is an error of this client. The ConnectionError of a database driver is
    logged as a bug."

    "It ends this client, and is logged as a bug."

    "The server goes on."
    """

    async def work(client: Client, request: str) -> None:
        if request == "fail":
            raise error
        await client.send_packet(request)

    async with serving(Handler(work), LINES) as server:
        async with connected(server) as peer, connected(server) as other:
            await peer.send("fail")
            assert await peer.ending() == "connection reset"
            assert await other.ask("hello") == "hello"
    assert [record.levelname for record in complaints(log)] == ["ERROR"]


async def test_last_packet() -> None:
    """A handler that has failed can say so.

    "It is false after an exception of the handler, so that you can send a last packet."
    """

    class Goodbye(Handler):
        async def on_disconnection(self, client: Client) -> None:
            assert not client.is_closing()
            await client.send_packet("sorry")

    async def work(client: Client, request: str) -> None:
        raise ZeroDivisionError

    async with serving(Goodbye(work), LINES) as server, connected(server) as peer:
        assert await peer.ask("hello") == "sorry"


def test_remaining_data() -> None:
    """The packet that follows is not in the error's data, and is delivered anyway.

    "Do not use remaining_data to continue."
    """
    handler = Echo()
    protocol: Any = StreamProtocol(StringLineSerializer(limit=50))

    async def main() -> None:
        async with serve(handler, protocol) as served:
            connection = await served.connect(raw=True)
            await connection.send(b"x" * 80 + b"\nnext\n")
            assert await connection.receive() == b"next\n"
            with pytest.raises(TimeoutError), anyio.fail_after(1):
                await connection.receive()

    anyio.run(main, backend_options=virtual_time())
    (error,) = handler.errors
    assert error.remaining_data == error.error.remaining_data == b""


def test_lost_connection() -> None:
    """A client does not connect a second time; a new one does.

    "Reconnecting clients. A client that has lost its connection cannot connect again. Create a new
    client, as the section about reconnecting in howto/tcp_clients does."
    """

    class Aborting(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            if (yield None) == "abort":
                client.abort()
            else:
                await client.send_packet("hello")

    async def main() -> None:
        async with serve(Aborting(), LINES) as served:
            client = await served.connect()
            await client.send_packet("abort")
            with pytest.raises(ConnectionError):
                await client.recv_packet()
            await client.wait_connected()
            with pytest.raises(ConnectionError):
                await client.send_packet("hello")
            with pytest.raises(ConnectionError):
                await client.recv_packet()
            again = await served.connect()
            await again.send_packet("hello")
            assert await again.recv_packet() == "hello"

    anyio.run(main, backend_options=virtual_time())


def test_nested_json() -> None:
    """It is invalid data, not an error of the interpreter.

    "It is a parse error like others, not a RecursionError."
    """
    from easynetwork.exceptions import DeserializeError

    with pytest.raises(DeserializeError):
        JSONSerializer().deserialize(b"[" * 50_000)


async def test_failed_connection() -> None:
    """A client that was refused connects when the server is there.

    "If all attempts have failed alike, their error is raised, for example ConnectionRefusedError.
    The client can try again."
    """
    async with serving(Echo()) as server:
        address = server.get_addresses()[0][:2]
    client: AsyncTCPNetworkClient[str, str] = AsyncTCPNetworkClient(address, LINES)
    try:
        with pytest.raises(ConnectionRefusedError):
            await client.wait_connected()
        async with serving(Echo(), port=address[1]):
            await client.wait_connected()
            await client.send_packet("hello")
            assert await client.recv_packet() == "hello"
            await client.aclose()
    finally:
        await client.aclose()


async def test_arguments() -> None:
    """What the constructors say.

    "Wrong arguments raise an exception in the constructor, not in serve_forever()."

    "All address families have the same port."

    "1,024 by default."
    """
    wrong: Any = {"colour": "red"}
    with pytest.raises(TypeError):
        StandaloneTCPNetworkServer("127.0.0.1", 0, LINES, Echo(), **wrong)
    with contextlib.suppress(OSError):
        async with AsyncTCPNetworkServer(None, 0, LINES, Echo()) as server:
            assert len({address[1] for address in server.get_addresses()}) == 1
    assert "1,024" in str(AsyncTCPNetworkServer.__init__.__doc__ or "") + str(
        AsyncTCPNetworkServer.__doc__
    )


async def test_addresses() -> None:
    """A service can tell others where it is.

    "They are filled from the activation of the server until it is closed, so also in
    service_init()."
    """
    seen: list[Any] = []

    class Telling(Echo):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            seen.extend(server.get_addresses())

    async with serving(Telling()) as server:
        assert seen == list(server.get_addresses()) != []
        assert server.get_sockets()
    assert not server.get_addresses()
    assert not server.get_sockets()


@pytest.mark.parametrize("how", ["aclose", "abort"])
async def test_end_of_a_connection(how: str) -> None:
    """What a client does not get is what it was meant not to get.

    "What was sent arrives if the client leaves, your handler closes it, or the server stops. It can
    be lost after an exception of the handler, a refusal, or client.abort()."
    """

    class Closing(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            yield None
            async with anyio.create_task_group() as group:
                group.start_soon(client.send_packet, "x" * 5_000_000)
                await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            if how == "abort":
                client.abort()
            else:
                await client.aclose()

    async with serving(Closing(), LINES) as server, connected(server, room=4096) as peer:
        await peer.send("hello")
        if how == "abort":
            assert await peer.ending() == "connection reset"
        else:
            assert await peer.receive() == "x" * 5_000_000
            assert await peer.ending() == "end of the stream"


def test_deadlines() -> None:
    """There is a default for each.

    "Each wait has a deadline: for sending, for closing, for a TLS handshake."
    """
    assert Limits().send_timeout
    assert Limits().close_timeout
    assert _HANDSHAKE_TIMEOUT


async def test_stuck_handler() -> None:
    """Clients that are in the middle of a request may finish it.

    "It returns within about a second, whatever a handler does. shutdown(grace=10) lets clients
    finish first."
    """
    began = anyio.Event()

    async def work(client: Client, request: str) -> None:
        began.set()
        await anyio.sleep(SOON)
        await client.send_packet("finished")

    async with serving(Handler(work), LINES) as server, connected(server) as peer:
        await peer.send("hello")
        await began.wait()
        await server.shutdown(grace=10)
        assert await peer.receive() == "finished"


def test_classes_of_errors() -> None:
    """Whoever caught the base classes still catches them.

    "The end of a stream is an EndOfStreamError, a bug in a serializer a ProtocolCrashedError."

    "Both are subclasses of what was raised before"

    "ConnectionAbortedError and RuntimeError."
    """

    class Broken(AutoSeparatedPacketSerializer[str, str]):
        def serialize(self, packet: str) -> bytes:
            return packet.encode()

        def deserialize(self, data: bytes) -> str:
            raise ZeroDivisionError

    async def main() -> None:
        async with serve(Echo(), LINES) as served:
            client = await served.connect(protocol=StreamProtocol(Broken(b"\n")))
            await client.send_packet("hello")
            with pytest.raises(ProtocolCrashedError):
                await client.recv_packet()
            other = await served.connect()
            await served.server.shutdown()
            with pytest.raises(EndOfStreamError):
                await other.recv_packet()

    anyio.run(main, backend_options=virtual_time())
    assert issubclass(EndOfStreamError, ConnectionAbortedError)
    assert issubclass(ProtocolCrashedError, RuntimeError)


async def test_attributes_of_clients() -> None:
    """Slots save memory.

    "You cannot add attributes to them: they have slots."

    "Use a dictionary with the client as key."
    """
    errors: list[str] = []

    async def work(client: Any, request: str) -> None:
        try:
            client.name = request
        except AttributeError as exc:
            errors.append(str(exc))
        names = {client: request}
        await client.send_packet(names[client])

    async with converse(Handler(work), LINES) as conversation:
        await conversation.send("Ada")
        await conversation.expect("Ada")
    assert len(errors) == 1


ELSEWHERE = {
    "A cancellation that is not the server's own": (
        "tests/conformance/sessions/test_crashes.py::test_foreign_cancellation"
    ),
    "Context variables": "tests/conformance/test_service_init.py::test_context_of_the_service",
    "iter_received_packets(timeout=0)": "tests/clients/test_abc.py::",
    "A process without descriptors": (
        "tests/conformance/test_accepting.py::test_out_of_descriptors"
    ),
    "The end of a TLS connection": "tests/conformance/test_tls.py::test_truncation",
    "A missing package": "tests/test_extras.py::",
    "A host name of which": "tests/conformance/test_listening.py::test_partial_name",
    "shutdown()": "tests/conformance/test_uncooperative.py::",
}


def test_elsewhere() -> None:
    """Other tests of the library check these rows.

    "It is logged as a bug, and the client is reset."

    "Variables that service_init() sets are visible in the handlers of all clients."

    "It yields the packets that have arrived, in all clients."

    "The server stops accepting, logs one line, and resumes by itself."

    "The server listens on the others, and logs a warning."

    "On a server, and between two packets: an ordinary disconnection. In a packet, and in clients:
    an error, if ssl_standard_compatible is true."

    "The error names the package that is missing, for example msgpack."
    """
    subjects = [row[0] for row in table(PAGE, "Subject", "Here")]
    assert len(subjects) == len(set(subjects)) == 29
    for subject, place in ELSEWHERE.items():
        assert [name for name in subjects if name.startswith(subject)], subject
        file, _, name = place.partition("::")
        source = (REPOSITORY / file).read_text(encoding="utf-8")
        assert re.search(rf"^(?:async )?def {name or 'test_'}", source, re.MULTILINE), place


# The exceptions in the tables


async def test_exceptions() -> None:
    """Each counterpart of another library's exception is raised where the tables say.

    "GeneratorExit at a yield, EndOfStreamError in client.recv_packet()"

    "limit of the serializer, StreamProtocolParseError" "StreamProtocolParseError at the yield"
    """
    found: list[type[BaseException]] = []
    over = anyio.Event()

    class Noting(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            try:
                if (yield None) == "receive":
                    while True:
                        await client.recv_packet()
            except BaseException as exc:
                found.append(type(exc))
                over.set()
                raise

    rows = {
        left: right
        for name in ("asyncio streams", "Twisted")
        for left, right in table(PAGE, name, "easynetwork")
    }
    protocol: Any = StreamProtocol(StringLineSerializer(limit=50))
    for data, expected, left in (
        (b"", GeneratorExit, "StreamReader.at_eof(), asyncio.IncompleteReadError"),
        (b"receive\n", EndOfStreamError, "StreamReader.at_eof(), asyncio.IncompleteReadError"),
        (b"x" * 80, StreamProtocolParseError, "limit, asyncio.LimitOverrunError"),
        (b"x" * 80, StreamProtocolParseError, "LineReceiver.lineLengthExceeded()"),
    ):
        over = anyio.Event()
        async with serve(Noting(), protocol) as served:
            connection = await served.connect(raw=True)
            if data:
                await connection.send(data)
            await anyio.wait_all_tasks_blocked()
            if len(data) < 80:
                connection.close()
            await over.wait()
        assert found.pop() is expected
        assert expected.__name__ in rows[left]
