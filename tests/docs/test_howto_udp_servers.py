"""Test the statements and the examples of the page about UDP servers.

A sentence in quotation marks in a docstring is a word-for-word quotation of the page (the first
test checks this), and the test fails if the sentence is wrong. The tests use the handlers of the
page; where a test needs more, it defines a subclass.

On the loopback interface, datagrams arrive in the order in which they were sent. When a client has
a response, the server has received all datagrams that were sent before its request.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import inspect
import logging
import math
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import fields
from typing import Any

import anyio
import dns.flags
import dns.message
import pytest

from docs._include.examples.howto.udp_servers import request_handler_explanation as examples
from docs._include.examples.howto.udp_servers.multicast_request_handler import (
    GROUP,
    MulticastRequestHandler,
)
from docs._include.examples.howto.udp_servers.request_handler_explanation import Request, Response
from docs._include.examples.howto.udp_servers.simple_request_handler import GreetingRequestHandler
from easynetwork.clients import AsyncUDPNetworkEndpoint
from easynetwork.exceptions import ClientClosedError
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)
from easynetwork.servers.limits import DatagramLimits
from easynetwork.servers.statistics import DatagramStatistics
from easynetwork.testing import MemoryNetwork, serve as serve_in_memory
from tests.docs.howto_support import (
    DOCS,
    DatagramPeer,
    Lines,
    WatchedDatagrams,
    answers_of_program,
    check_log_of_program,
    check_quotations,
    check_reports,
    complaints,
    impatient,
    in_thread,
    of_framework,
    reporting,
    serving,
    shorten_stop,
    until,
    visiting,
)
from tests.docs.virtual_support import check_interval, serve_for
from tests.times import PATIENCE, SOON

pytestmark = pytest.mark.anyio

Client = AsyncDatagramClient[Response]
Handling = AsyncDatagramRequestHandler[Request, Response]
Requests = AsyncGenerator[None, Request]

FOLDER = DOCS / "_include/examples/howto/udp_servers"

once = pytest.mark.parametrize("anyio_backend", ["asyncio"])

# With it, the second datagram of the first client overtakes the first one.
SEED = 0

needs_loopback_network = pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.0.0/8")


def protocol() -> DatagramProtocol[Response, Request]:
    return DatagramProtocol(StringLineSerializer(), Lines(Request))


def serve(handler: Handling, **options: Any) -> Any:
    return serving(handler, protocol(), **options)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


class WatchedMinimum(WatchedDatagrams, examples.MinimumRequestHandler):
    pass


class WaitingRequestHandler(Handling):
    """Echoes requests, but holds the request "wait" until the test sets the event `go_on`."""

    def __init__(self) -> None:
        self.clients: list[Client] = []  # one for each call of handle()
        self.go_on = anyio.Event()

    async def handle(self, client: Client) -> AsyncGenerator[float | None, Request]:
        self.clients.append(client)
        request = yield None
        if request.text == "wait":
            await self.go_on.wait()
        await client.send_packet(Response(request.text))


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/udp_servers.rst", globals())


# Introduction


class Collecting(AsyncDatagramRequestHandler[str, str]):
    """Remembers the requests, and the threads in which it runs."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.threads: set[int] = set()

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        self.threads.add(threading.get_ident())
        self.requests.append((yield))
        await client.send_packet("received")


@once
async def test_messages() -> None:
    """What is sent at once is one request, whatever its size, and not joined with the next one.

    "UDP carries messages: a datagram arrives whole or not at all."

    "any host can send you one."
    """
    handler = Collecting()
    datagrams = ["x" * 60_000, "a", "b" * 1000]
    async with serving(handler) as server:
        with visiting(server) as peer, visiting(server) as other:
            for datagram in datagrams:
                peer.send(datagram)
            for _ in datagrams:
                assert await peer.receive() == "received"
            assert await other.ask("c") == "received"
    assert handler.requests == [*datagrams, "c"]


@once
@pytest.mark.parametrize(
    ("faults", "arrived"),
    [
        ({"loss": 1.0}, []),
        ({"duplicate": 1.0}, ["one", "one", "two", "two"]),
        ({"reorder": 0.5, "seed": SEED}, ["two", "one"]),
    ],
    ids=["lost", "duplicated", "reordered"],
)
async def test_faults(faults: Any, arrived: list[str], log: pytest.LogCaptureFixture) -> None:
    """The handler gets what arrives, and neither an error nor a warning.

    "A datagram can be lost, duplicated or reordered without notice"
    """
    handler = Collecting()
    text: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer())
    async with serve_in_memory(handler, text, network=MemoryNetwork(**faults)) as served:
        client = await served.connect(raw=True)
        await client.send(b"one")
        await client.send(b"two")
        await anyio.wait_all_tasks_blocked()
    assert handler.requests == arrived
    assert not complaints(log)


@once
async def test_three_steps() -> None:
    """A subclass, a server and one call are enough.

    "Write a subclass of AsyncDatagramRequestHandler with a handle() method. This method receives
    the requests and sends the responses."

    "Create an AsyncUDPNetworkServer."

    "Pass it the address to listen on, a protocol object (which defines what a request looks like in
    bytes) and an instance of your class."

    "Await serve_forever()."

    "It handles requests until you stop the server."

    "In easynetwork, the handler runs as a coroutine, so one thread serves all clients."
    """
    handler = Collecting()
    text: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer(encoding="latin-1"))
    async with (
        AsyncUDPNetworkServer("127.0.0.1", 0, text, handler) as server,
        anyio.create_task_group() as task_group,
    ):
        is_up = anyio.Event()
        task_group.start_soon(functools.partial(server.serve_forever, is_up_event=is_up))
        await is_up.wait()
        with visiting(server) as one, visiting(server) as other:
            for peer in one, other:
                peer.socket.send(b"Zo\xeb")
                assert await peer.receive() == "received"
        assert server.is_serving()
        await server.shutdown()
    assert handler.requests == ["Zoë"] * 2
    assert handler.threads == {threading.get_ident()}


@once
async def test_coroutine_functions(log: pytest.LogCaptureFixture) -> None:
    """A handler that is not asynchronous does not work with this server.

    "With this server, you write coroutine functions."

    "handle() contains a yield, which makes it an asynchronous generator. Your code never iterates
    over it: the server does, and runs your code between the iterations."
    """
    assert inspect.isasyncgenfunction(GreetingRequestHandler.handle)

    class Handler(WatchedDatagrams):
        def handle(self, client: Any) -> Any:
            self.clients.append(client)
            yield

    handler = Handler()
    async with serve(handler) as server:
        with visiting(server) as peer:
            peer.send("hello")
            await until(lambda: bool(complaints(log)))
    [record] = complaints(log)
    assert record.exc_info
    assert isinstance(record.exc_info[1], TypeError)


# Request handler objects


async def test_greeting() -> None:
    """The first example responds.

    "It receives a name and sends back a greeting"

    "The easynetwork.servers module decodes datagrams into requests and calls your code with them."

    "This is a complete request handler."
    """
    async with serving(GreetingRequestHandler()) as server:
        with visiting(server) as peer:
            assert await peer.ask("Zoë") == "Hello, Zoë!"


async def test_one_handler_for_all() -> None:
    """Two clients share one handler object.

    "All clients share one handler object: the one that you pass to the server."

    "So all clients share an attribute that you set on self."
    """
    handler = examples.CountingRequestHandler()
    async with serve(handler) as server:
        with visiting(server) as one, visiting(server) as other:
            await one.ask("hello")
            await other.ask("hello")
    assert handler.request_count == 2


def test_handlers_of_socketserver() -> None:
    """The standard library makes an object for each datagram.

    "(By contrast, socketserver creates a BaseRequestHandler object for each request.)"
    """
    made: list[object] = []

    class Handler(socketserver.BaseRequestHandler):
        def setup(self) -> None:
            made.append(self)

    with socketserver.UDPServer(("127.0.0.1", 0), Handler) as server:
        with contextlib.closing(DatagramPeer(server.server_address)) as peer:
            peer.send("one", "two")
            server.handle_request()
            server.handle_request()
    assert len({*made}) == 2


def test_classes_of_the_examples() -> None:
    """The examples share these classes.

    "They share two small classes, Request and Response, which have a text attribute. BadRequest,
    InternalError and TimedOut are subclasses of Response."
    """
    assert (Request("hello").text, Response("hello").text) == ("hello", "hello")
    kinds = (examples.BadRequest, examples.InternalError, examples.TimedOut)
    assert {kind.__base__ for kind in kinds} == {Response}


def test_no_connections() -> None:
    """A handler of datagrams has none of the methods of connections.

    "UDP handlers have no on_connection() and no on_disconnection() method, because UDP does not
    signal that a client comes or goes."
    """
    for name in "on_connection", "on_disconnection":
        assert hasattr(AsyncStreamRequestHandler, name)
        assert not hasattr(AsyncDatagramRequestHandler, name)


async def test_queue() -> None:
    """The server handles the requests of one client in order, and several clients concurrently.

    "Each client has at most one running handle(). Further datagrams from the same client wait in a
    queue and are handled in the order in which they arrived. Other clients do not wait: each client
    has its own handle() and its own queue."

    "It keeps the requests of each client in order"

    "So you can write handle() as if each client had a connection."
    """
    handler = WaitingRequestHandler()
    async with serve(handler) as server:
        with visiting(server) as peer, visiting(server) as other:
            peer.send("wait", "one", "two")
            assert await other.ask("hello") == "Response hello"
            assert len(handler.clients) == 2
            handler.go_on.set()
            answers = [await peer.receive() for _ in range(3)]
    assert answers == ["Response wait", "Response one", "Response two"]
    assert len(handler.clients) == 4


# Minimum requirements


async def test_life_of_a_request(log: pytest.LogCaptureFixture) -> None:
    """Each datagram has its own call of handle(), and only a datagram causes a call.

    "A datagram arrives from a client that has no running handle(). The server calls handle() in a
    task and runs it up to the yield."

    "handle() continues, sends a response and returns."

    "If more datagrams from this client have arrived in the meantime, the server calls handle()
    again for the next one. Otherwise the server keeps no state for this client until its next
    datagram arrives."

    "A silent client costs nothing, and the code before the first yield runs only when a datagram
    has arrived."

    "a task starts when a datagram arrives, and ends when no datagram of that client is left.
    Between the requests, no such task exists."

    "The smallest handler has one yield and sends one response"

    "The server handles a request with this handler as follows"

    "When a datagram arrives, the server calls handle() for that client, and the request is the
    value of the yield expression."
    """
    tasks: list[int] = []

    class Handler(WatchedMinimum):
        def handle(self, client: Client) -> Requests:
            tasks.append(anyio.get_current_task().id)
            return super().handle(client)

    handler = Handler()
    async with serve(handler) as server:
        others = {task.id for task in anyio.get_running_tasks()}
        with visiting(server) as peer, visiting(server):
            assert await peer.ask("one") == "Response one"
            await anyio.wait_all_tasks_blocked()
            assert {task.id for task in anyio.get_running_tasks()} == others
            assert len(handler.clients) == 1
            assert await peer.ask("two") == "Response two"
            assert len(handler.clients) == 2
    assert not others & {*tasks}
    assert not complaints(log)


async def test_first_yield_does_not_wait() -> None:
    """The request arrives before the first yield.

    "The yield does not wait, because the datagram has already arrived."

    "The first yield never waits."
    """

    class Handler(Handling):
        async def handle(self, client: Client) -> AsyncGenerator[float, Request]:
            request = yield 0
            await client.send_packet(Response(request.text))

    async with serve(Handler()) as server:
        with visiting(server) as peer:
            assert await peer.ask("hello") == "Response hello"


# Refusing datagrams


async def test_refuse(log: pytest.LogCaptureFixture) -> None:
    """A return before the yield discards one datagram, without a log line.

    "To refuse it, return before the first yield. This handler refuses the datagrams of all hosts
    that are not in allowed_hosts:"

    "The server then discards exactly one datagram, without decoding it. The client gets no notice,
    and nothing is logged. The client's next datagram starts a new handle(), which may accept it."
    """

    class Handler(WatchedDatagrams, examples.SkipDatagramRequestHandler):
        pass

    handler = Handler(frozenset({"192.0.2.1"}))
    async with serve(handler) as server:
        with visiting(server) as peer:
            peer.socket.send(b"\xff")
            peer.send("one")
            await until(lambda: len(handler.clients) == 2)
            handler.allowed_hosts = frozenset({"127.0.0.1"})
            assert await peer.ask("two") == "Response two"
    assert len(handler.clients) == 3
    assert not complaints(log)


@once
@needs_loopback_network
async def test_forged_address() -> None:
    """A datagram can have any address of its sender, and the response goes there.

    "Any host that knows your port can send you a datagram."

    "A sender's address is easy to forge. Use it to filter out unknown senders, but not as a proof
    of identity."

    "an attacker may have forged the address in order to flood its real owner."
    """
    handler = examples.SkipDatagramRequestHandler(frozenset({"127.0.0.9"}))
    async with serve(handler) as server:
        address = server.get_addresses()[0].for_connection()
        with socket.socket(type=socket.SOCK_DGRAM) as owner, visiting(server) as peer:
            owner.bind(("127.0.0.9", 0))
            owner.settimeout(PATIENCE)
            peer.send("unknown sender")
            await until(lambda: server.get_statistics().refused == 1)
            with socket.socket(type=socket.SOCK_DGRAM) as attacker:
                attacker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                attacker.bind(("0.0.0.0", owner.getsockname()[1]))
                ip_pktinfo = 8  # linux/in.h
                source = bytes(4) + socket.inet_aton("127.0.0.9") + bytes(4)
                ancillary = (socket.IPPROTO_IP, ip_pktinfo, source)
                attacker.sendmsg([b"hello"], [ancillary], 0, address)
            assert await in_thread(lambda: owner.recv(100)) == b"Response hello"


# Error handling


async def test_parse_error(log: pytest.LogCaptureFixture) -> None:
    """A handler can catch the error of an invalid request and continue.

    "DatagramProtocolParseError The datagram is not a valid request. It is discarded; later
    datagrams are unaffected."

    "If a request cannot be received, the error is raised at the yield."

    "The request is not bytes: the protocol object has already decoded them."
    """
    async with serve(examples.ErrorHandlingInRequestHandler()) as server:
        with visiting(server) as peer:
            peer.socket.send(b"\xff\xfe")
            assert await peer.receive() == "BadRequest"
            assert await peer.ask("hello") == "Response hello"
    assert not complaints(log)


async def test_parse_error_let_out(log: pytest.LogCaptureFixture) -> None:
    """An invalid request that the handler does not catch is one line in the log.

    "If you do not catch this error, the server logs one warning line without a traceback, because
    the client caused the error, and handles the client's next datagram as usual."
    """
    async with serve(examples.MinimumRequestHandler()) as server:
        with visiting(server) as peer:
            peer.socket.send(b"\xff\xfe")
            assert await peer.ask("hello") == "Response hello"
    [record] = complaints(log)
    assert record.levelno == logging.WARNING
    assert not record.exc_info
    assert "\n" not in record.getMessage()
    assert str(peer.address) in record.getMessage()


async def test_protocol_bug(
    capsys: pytest.CaptureFixture[str], log: pytest.LogCaptureFixture
) -> None:
    """A bug in the converter is raised in the handler, with its traceback.

    "If a serializer or converter raises an unexpected exception, you get a ProtocolCrashedError, a
    subclass of RuntimeError, and the original exception is its __cause__."

    "Any other Exception Most likely a bug in the protocol object."

    "If you catch Exception itself, log it, print it with traceback.print_exc(), or raise it again."
    """
    async with serve(examples.ErrorHandlingInRequestHandler()) as server:
        with visiting(server) as peer:
            assert await peer.ask("trap") == "InternalError"
            assert await peer.ask("hello") == "Response hello"
    printed = capsys.readouterr().err
    assert re.search(
        r"^ZeroDivisionError: a bug in the converter$.*direct cause.*^\S+\.ProtocolCrashedError: ",
        printed,
        re.DOTALL | re.MULTILINE,
    )
    assert not complaints(log)


@once
async def test_silent_handler(log: pytest.LogCaptureFixture) -> None:
    """A handler that catches everything and tells nobody hides its bugs.

    "A bug is hard to find if its only effect is a response to the client."
    """

    class Handler(Handling):
        async def handle(self, client: Client) -> Requests:
            try:
                yield
                raise LookupError("a bug in the handler")
            except Exception:
                await client.send_packet(examples.InternalError())

    async with serve(Handler()) as server:
        with visiting(server) as peer:
            assert await peer.ask("hello") == "InternalError"
    assert not complaints(log)


async def test_crash(log: pytest.LogCaptureFixture) -> None:
    """An exception that leaves the handler loses one request, and is logged.

    "Any other exception that leaves handle() is a bug in your code. Only the request that handle()
    was processing is lost. The server logs the exception with its traceback, under the line
    Exception occurred during processing of request from <address>. This includes exceptions that
    are not subclasses of Exception, such as SystemExit."
    """

    class Handler(Handling):
        async def handle(self, client: Client) -> Requests:
            request = yield
            if request.text == "fail":
                raise LookupError("a bug in the handler")
            if request.text == "exit":
                raise SystemExit(2)
            await client.send_packet(Response(request.text))

    async with serve(Handler()) as server:
        with visiting(server) as peer, visiting(server) as other:
            assert await peer.ask("fail", "after") == "Response after"
            assert await peer.ask("exit", "after") == "Response after"
            assert await other.ask("hello") == "Response hello"
    errors: list[Any] = []
    for record in complaints(log):
        assert record.levelno == logging.ERROR
        assert record.getMessage() == (
            f"Exception occurred during processing of request from {peer.address}"
        )
        assert record.exc_info
        errors.append(record.exc_info[1])
    assert list(map(type, errors)) == [LookupError, RuntimeError]
    assert isinstance(errors[1].__cause__, SystemExit)


async def test_timeout_let_out(log: pytest.LogCaptureFixture) -> None:
    """A timeout that the handler does not catch ends its generator, without a warning.

    "TimeoutError No datagram arrived within the number of seconds that you yielded"

    "If you do not catch this error, handle() ends, and the server logs the timeout at level DEBUG
    only."
    """

    class Handler(Handling):
        async def handle(self, client: Client) -> AsyncGenerator[float | None, Request]:
            request = yield None
            await client.send_packet(Response(request.text))
            yield 0.01

    async with serve(Handler()) as server:
        with visiting(server) as peer:
            for _ in range(2):
                assert await peer.ask("hello") == "Response hello"
                await until(lambda: server.get_statistics().peers == 0)
    assert not complaints(log)
    about = [record for record in log.records if "too long" in record.getMessage()]
    assert [record.levelno for record in about] == [logging.DEBUG] * 2


async def test_log_of_crashes(log: pytest.LogCaptureFixture) -> None:
    """A client that triggers the same bug repeatedly does not fill the log.

    "It also explains how the log is limited when a client sends datagrams that trigger the same bug
    again and again."
    """

    class Handler(Handling):
        async def handle(self, client: Client) -> Requests:
            yield
            raise LookupError("a bug in the handler")

    begin = time.monotonic()
    async with serve(Handler()) as server:
        with visiting(server) as peer:
            for _ in range(20):
                peer.send("fail")
            await until(lambda: server.get_statistics().received == 20)
            await until(lambda: server.get_statistics().peers == 0)
    seconds = time.monotonic() - begin + 2  # those that have begun
    records = complaints(log)
    assert [record for record in records if record.exc_info] == records[:1]
    text = "more problems with clients were not logged"
    assert any(text in record.getMessage() for record in records)
    assert len(records) <= 1 + 4 * seconds


# Using multiple ``yield`` statements


async def test_multiple_yields() -> None:
    """The requests of two clients that each send two requests do not mix.

    "Each yield receives the next datagram from the same client. Every yield after the first may
    have to wait. While it waits, the server serves other clients."

    "Some requests are complete only with a second one. Use another yield to receive it"
    """
    async with serve(examples.MultipleYieldInRequestHandler()) as server:
        with visiting(server) as peer, visiting(server) as other:
            assert await peer.ask("order") == "Response What would you like?"
            assert await other.ask("tea") == "Response Say 'order' when you are ready"
            assert await other.ask("order") == "Response What would you like?"
            assert await peer.ask("coffee") == "Response One coffee, coming up"
            assert await other.ask("tea") == "Response One tea, coming up"


async def test_client_that_is_gone() -> None:
    """A handler that waits for a client that is gone waits until the server stops.

    "UDP does not signal that a client is gone. A handle() that waits for such a client waits until
    the server stops"

    "So set a timeout on every yield except the first"
    """
    raised: list[type[BaseException]] = []

    class Handler(Handling):
        async def handle(self, client: Client) -> Requests:
            try:
                yield
                await client.send_packet(Response("What would you like?"))
                yield
            except BaseException as exc:
                raised.append(type(exc))
                raise

    async with serve(Handler()) as server:
        with visiting(server) as peer:
            await peer.ask("order")
        with visiting(server) as other:
            await other.ask("order")
            await anyio.wait_all_tasks_blocked()
            assert raised == []
        await server.shutdown()
        assert raised == [anyio.get_cancelled_exc_class()] * 2


@once
async def test_reordered_conversation() -> None:
    """The second yield gets what arrives second.

    "Datagrams can be lost or reordered in transit. The second datagram that you receive is not
    always the second one that was sent."
    """
    network = MemoryNetwork(reorder=0.5, seed=SEED)
    handler = examples.TimeoutYieldedRequestHandler()
    async with serve_in_memory(handler, protocol(), network=network) as served:
        client = await served.connect(raw=True)
        await client.send(b"Zoe")
        await client.send(b"tea")
        responses = {await client.receive(), await client.receive()}
    assert responses == {b"Response What would you like?", b"Response Zoe for tea"}


# Cancellation and timeouts


async def check_timeout(handler_class: type[Any]) -> None:
    """Check that the second yield times out, and that a request in time gets a response."""
    async with serve(impatient(handler_class)) as server:
        with visiting(server) as peer:
            assert await peer.ask("Zoe") == "Response What would you like?"
            assert await peer.receive() == "TimedOut"
    assert handler_class.patience == 30
    async with serve(handler_class()) as server:
        with visiting(server) as peer:
            assert await peer.ask("Zoe") == "Response What would you like?"
            assert await peer.ask("tea") == "Response tea for Zoe"


async def test_yielded_timeout() -> None:
    """A yielded number is a timeout.

    "Yield the maximum number of seconds to wait"

    "If no datagram arrives in that time, TimeoutError is raised at the yield."

    "For the others, you can set a timeout in two ways."
    """
    await check_timeout(examples.TimeoutYieldedRequestHandler)


async def test_timeout_of_the_framework() -> None:
    """A timeout block of the framework works around a yield.

    "When the time is up, the framework cancels the wait: its cancellation exception is raised at
    the yield, and the with block converts this exception into a timeout error."

    "For the others, you can set a timeout in two ways."

    "Put the yield inside a timeout block of your asynchronous framework."
    """
    variant = of_framework(
        asyncio=examples.TimeoutContextRequestHandlerAsyncIO,
        trio=examples.TimeoutContextRequestHandlerTrio,
    )
    await check_timeout(variant)


async def test_timeout_of_the_backend() -> None:
    """A timeout block of the backend works around a yield.

    "This variant runs on every framework."
    """
    await check_timeout(examples.TimeoutContextRequestHandlerWithClientBackend)


def test_plain_with() -> None:
    """A timeout block of the backend is a plain context manager.

    "It uses a plain with."

    "TimeoutError is a subclass of OSError. If you catch both, put except TimeoutError first."
    """
    source = inspect.getsource(examples.TimeoutContextRequestHandlerWithClientBackend)
    assert "async with" not in source
    assert "with client.backend().timeout(" in source
    assert issubclass(TimeoutError, OSError)


class AskingRequestHandler(WaitingRequestHandler):
    """Waits for a second request within `limits`, and sends back that request or the error."""

    limits: tuple[float | None, float | None] = (None, None)

    async def handle(self, client: Client) -> AsyncGenerator[float | None, Request]:
        self.clients.append(client)
        first, second = self.limits
        try:
            request = yield first
            if request.text == "wait":
                await self.go_on.wait()
            request = yield second
        except Exception as exc:
            await client.send_packet(Response(type(exc).__name__))
        else:
            await client.send_packet(Response(request.text))


async def test_yield_zero() -> None:
    """Zero does not wait, None sets no timeout.

    "yield 0 does not wait. It receives a datagram that has already arrived, or raises
    TimeoutError."

    "yield None is the same as a bare yield: no timeout."
    """
    handler = AskingRequestHandler()
    handler.limits = (None, 0)
    async with serve(handler) as server:
        with visiting(server) as peer, visiting(server) as other:
            peer.send("wait", "second")
            assert await other.ask("first") == "Response TimeoutError"
            handler.go_on.set()
            assert await peer.receive() == "Response second"
            handler.limits = (None, None)
            peer.send("first")
            await until(lambda: len(handler.clients) == 3)
            assert await peer.ask("second") == "Response second"


@pytest.mark.parametrize("limit", [-1, math.nan])
async def test_yield_nonsense(limit: float) -> None:
    """An invalid timeout raises an error at the yield.

    "A negative number or NaN raises ValueError at the same yield, even if it is the first one."
    """
    handler = AskingRequestHandler()
    async with serve(handler) as server:
        with visiting(server) as peer:
            for handler.limits in (limit, None), (None, limit):
                assert await peer.ask("first") == "Response ValueError"
                await anyio.wait_all_tasks_blocked()


async def test_cancel_scope_around_a_yield() -> None:
    """A cancel scope works around a yield.

    "This works because the server runs and closes the generator in the same task. For the same
    reason, you can use any other cancel scope"
    """
    raised: list[type[BaseException]] = []
    tasks: set[int] = set()

    class Handler(Handling):
        async def handle(self, client: Client) -> Requests:
            tasks.add(anyio.get_current_task().id)
            try:
                yield
                with anyio.CancelScope(deadline=anyio.current_time() + 0.01):
                    try:
                        yield
                    except BaseException as exc:
                        raised.append(type(exc))
                        raise
                await client.send_packet(Response("Still there?"))
                with anyio.CancelScope():
                    yield
            finally:
                tasks.add(anyio.get_current_task().id)

    async with serve(Handler()) as server:
        with visiting(server) as peer:
            assert await peer.ask("hello") == "Response Still there?"
            assert raised == [anyio.get_cancelled_exc_class()]
    assert len(tasks) == 1


async def test_server_stops() -> None:
    """A server that stops cancels the handlers of all clients.

    "When the server stops, it cancels every running handle(). The cancellation exception is raised
    at the point where handle() waits, for example at the yield. It is not a subclass of Exception,
    so except Exception does not catch it."

    "Datagrams that are still in a queue are dropped."

    "dropped is the sum of nine counters, one for each reason."

    "dropped_by_stop counts datagrams that were waiting when the server stopped."
    """
    names = [field.name for field in fields(DatagramStatistics) if "dropped" in field.name]
    assert len(names) == 9
    assert DatagramStatistics(**dict.fromkeys(names, 1)).dropped == 9
    raised: list[type[BaseException]] = []

    class Handler(Handling):
        calls = 0

        async def handle(self, client: Client) -> Requests:
            self.calls += 1
            try:
                try:
                    request = yield
                    if request.text == "wait":
                        await anyio.sleep_forever()
                    await client.send_packet(Response(request.text))
                    yield
                except Exception as exc:
                    raised.append(type(exc))
            except BaseException as exc:
                raised.append(type(exc))
                raise

    handler = Handler()
    async with serve(handler) as server:
        with visiting(server) as one, visiting(server) as other:
            one.send("wait", "dropped")
            await other.ask("hello")
            await server.shutdown()
    assert raised == [anyio.get_cancelled_exc_class()] * 2
    assert handler.calls == 2
    statistics = server.get_statistics()
    assert statistics.dropped == statistics.dropped_by_stop == 1


async def test_stubborn_handler(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that ignores its cancellation does not keep shutdown() from returning.

    "If you catch it to clean up, raise it again within a second: shutdown() waits no longer, and
    logs the names of the tasks that are still running."
    """
    shorten_stop(monkeypatch)
    is_busy, released, ended = anyio.Event(), anyio.Event(), anyio.Event()

    class Handler(Handling):
        async def handle(self, client: Client) -> Requests:
            yield
            is_busy.set()
            while not released.is_set():
                with contextlib.suppress(BaseException):
                    await anyio.sleep(0.01)
            ended.set()

    async with serve(Handler()) as server:
        with visiting(server) as peer:
            peer.send("hello")
            await is_busy.wait()
            await server.shutdown()
            assert not ended.is_set()
            released.set()
            await ended.wait()
    [record] = complaints(log)
    assert record.levelno == logging.ERROR
    assert "still running" in record.getMessage().lower()


# Client metadata


async def test_metadata() -> None:
    """A client has its own address, and the server's socket.

    "remote_address is the address that the datagram came from; local_address is the address that it
    was sent to. Both have a host and a port, and both compare equal to the plain tuples that socket
    uses. socket gives access to the options of the server's socket, which all clients share."

    "The attributes of INETClientAttribute give you the client's address and other metadata"
    """

    class Handler(WatchedDatagrams, examples.ClientExtraAttributesRequestHandler):
        pass

    handler = Handler()
    async with serve(handler) as server:
        with visiting(server) as peer, visiting(server) as other:
            for visitor in peer, other:
                host, port = visitor.address
                assert await visitor.ask("hello") == f"Response {host}:{port} said hello"
            for client, visitor in zip(handler.clients, (peer, other), strict=True):
                assert client.extra(INETClientAttribute.remote_address) == visitor.address
                local_address = client.extra(INETClientAttribute.local_address)
                assert local_address == visitor.socket.getpeername()
                assert (local_address.host, local_address.port) == visitor.socket.getpeername()
                options = client.extra(INETClientAttribute.socket)
                assert options.fileno() == server.get_sockets()[0].fileno()
                assert options.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_DGRAM


@pytest.mark.parametrize("hosts", ["0.0.0.0", ["127.0.0.1", "127.0.0.2"]], ids=["all", "listed"])
async def test_all_interfaces(hosts: Any) -> None:
    """The address of a response is the one that was asked.

    "A server that listens on all interfaces (None, "0.0.0.0" or "::") sends each response from the
    address that the client used, and local_address is this address."

    "A client that uses two addresses of the server is two clients, each with its own handle()."

    "pass them to the server one by one"
    """
    clients: set[Client] = set()

    class Handler(Handling):
        async def handle(self, client: Client) -> Requests:
            clients.add(client)
            yield
            address = client.extra(INETClientAttribute.local_address)
            await client.send_packet(Response(address.host))

    async with AsyncUDPNetworkServer(hosts, 0, protocol(), Handler()) as server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve_forever)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind(("127.0.0.1", 0))
                peer.setblocking(False)
                for host in ("127.0.0.1", "127.0.0.2"):
                    peer.sendto(b"hello", (host, server.get_addresses()[0].port))
                    await anyio.wait_readable(peer)
                    response, sender = peer.recvfrom(1000)
                    assert response == f"Response {host}".encode()
                    assert sender[0] == host
            await server.shutdown()
    assert len(clients) == 2


@once
@needs_loopback_network
@pytest.mark.parametrize("asked", ["127.0.0.2", "::1"])
async def test_address_of_response(asked: str) -> None:
    """A connected socket gets the response, which is from the address that it has asked.

    "Many clients, and firewalls, accept a response from no other address."

    "This works for IPv4 on Linux, and for IPv6 on systems that implement"
    """
    host = "::" if ":" in asked else "0.0.0.0"
    async with serve(examples.MinimumRequestHandler(), host=host) as server:
        port = server.get_addresses()[0].port
        with contextlib.closing(DatagramPeer((asked, port))) as peer:
            with socket.socket(peer.socket.family, socket.SOCK_DGRAM) as other:
                other.bind(("127.0.0.1" if "." in asked else "::1", 0))
                other.sendto(b"from another address", peer.address)
            assert await peer.ask("hello") == "Response hello"


@once
@needs_loopback_network
async def test_address_of_response_to_broadcast() -> None:
    """A response to a broadcast comes from an address of the machine.

    "The operating system also chooses it for broadcast and multicast, whose addresses cannot send."
    """
    async with serve(examples.MinimumRequestHandler(), host="0.0.0.0") as server:
        port = server.get_addresses()[0].port
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.settimeout(PATIENCE)
            sock.sendto(b"hello", ("127.255.255.255", port))
            response = await in_thread(lambda: sock.recvfrom(100))
    assert response == (b"Response hello", ("127.0.0.1", port))


async def test_equal_clients() -> None:
    """Client objects can be the keys of a dictionary.

    "Two client objects of a server are equal if both addresses are equal, so you can use them as
    keys of a dictionary that holds data about each client."

    "On this page, a client is an address that datagrams come from."
    """

    class Handler(Handling):
        def __init__(self) -> None:
            self.counts: dict[Client, int] = {}

        async def handle(self, client: Client) -> Requests:
            yield
            self.counts[client] = self.counts.get(client, 0) + 1
            await client.send_packet(Response(str(self.counts[client])))

    async with serve(Handler()) as server:
        with visiting(server) as one, visiting(server) as other:
            assert await one.ask("hello") == "Response 1"
            assert await one.ask("hello") == "Response 2"
            assert await other.ask("hello") == "Response 1"


# Sending packets


async def test_send_to_client_that_is_gone(log: pytest.LogCaptureFixture) -> None:
    """Packets to a client that is gone are lost, without an error.

    "Sending to a client that is gone is not an error. The datagram is lost, and no other client is
    affected."

    "When it returns, the operating system has accepted the datagram. This does not mean that the
    client has received it."
    """
    handler = WatchedMinimum()
    async with serve(handler) as server:
        with visiting(server) as peer:
            await peer.ask("hello")
        with visiting(server) as other:
            for _ in range(3):
                await handler.clients[0].send_packet(Response("Anybody there?"))
                assert await other.ask("hello") == "Response hello"
    assert not complaints(log)


@pytest.mark.parametrize(("host", "limit"), [("127.0.0.1", 65_507), ("::1", 65_527)])
async def test_size(host: str, limit: int, log: pytest.LogCaptureFixture) -> None:
    """The longest datagram arrives; a longer one raises an error.

    "A packet that is too long for a datagram raises OSError with the errno EMSGSIZE. Nothing is
    sent, and you can still use the client. The limit is 65,507 bytes over IPv4, and 20 bytes more
    over IPv6."

    "send_packet() sends one packet as one datagram."
    """

    class Handler(AsyncDatagramRequestHandler[str, str]):
        async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
            request = yield
            try:
                await client.send_packet(request + "x")
            except OSError as exc:
                errors.append(exc.errno)
            await client.send_packet(request)

    errors: list[int | None] = []
    longest = "x" * limit
    async with serving(Handler(), host=host) as server:
        with visiting(server) as peer:
            assert await peer.ask(longest) == longest
            assert await peer.ask("a") == "ax"
    assert errors == [errno.EMSGSIZE]
    assert not complaints(log)


async def test_send_later() -> None:
    """Packets can be sent to a client until the server stops.

    "After handle() has ended, you can still send packets, for example from a background task."

    "Keep the client object."

    "Once the server has stopped, send_packet() raises ClientClosedError."
    """
    handler = WatchedMinimum()
    async with serve(handler) as server:
        with visiting(server) as peer:
            await peer.ask("hello")
            await anyio.wait_all_tasks_blocked()
            [client] = handler.clients
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(client.send_packet, Response("news"))
            assert await peer.receive() == "Response news"
            await server.shutdown()
            with pytest.raises(ClientClosedError):
                await client.send_packet(Response("too late"))


# Sending the first packet


async def test_first_packet() -> None:
    """The server sends first, and the response is handled with an equal client.

    "client_for() returns the client object of an address"

    "What the client sends back starts handle(), as always. If the server listens on a single
    address, handle() gets an equal client object."

    "The host must be numeric" "If the server has no socket of that family, ValueError is raised."

    "A server can also send to an address from which it has received nothing yet."

    "The host must be numeric, because resolving a name may take long."
    """

    class Handler(WatchedDatagrams, examples.MinimumRequestHandler):
        pass

    handler = Handler()
    async with serve(handler) as server:
        with visiting(server) as peer:
            await examples.announce(server, [peer.address])
            assert await peer.receive() == "Response I am here"
            assert await peer.ask("hello") == "Response hello"
            assert handler.clients == [server.client_for(peer.address)]
        for address in (("localhost", 9000), ("::1", 9000)):
            with pytest.raises(ValueError, match=address[0]):
                server.client_for(address)


@once
@needs_loopback_network
async def test_socket_of_the_first_packet() -> None:
    """The first socket sends it; on all interfaces, the address is not known yet.

    "The packet leaves from the first socket of the server that has the address's family."

    "On all interfaces, it does not: which of its addresses the server sends from is only known when
    the response arrives."

    "Compare remote_address there."
    """

    class Handler(WatchedDatagrams, examples.MinimumRequestHandler):
        pass

    handler = Handler()
    hosts: Any = ["::1", "127.0.0.2", "127.0.0.1"]
    async with serve(handler, host=hosts) as server:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(PATIENCE)
            await examples.announce(server, [sock.getsockname()])
            assert (await in_thread(lambda: sock.recvfrom(100)))[1][0] == "127.0.0.2"
    async with serve(handler, host="0.0.0.0") as server:
        with visiting(server) as visitor:
            peer = DatagramPeer(("127.0.0.1", server.get_addresses()[0].port))
            with contextlib.closing(peer):
                await examples.announce(server, [peer.address])
                assert await peer.receive() == "Response I am here"
                assert await peer.ask("hello") == "Response hello"
            [found] = handler.clients
            first = server.client_for(peer.address)
            assert found != first
            for client in found, first:
                assert client.extra(INETClientAttribute.remote_address) == peer.address
            del visitor


@once
@needs_loopback_network
async def test_zone() -> None:
    """An address with a zone is another one than without.

    "An address that is only valid on one link needs its zone"
    """
    async with serve(examples.MinimumRequestHandler(), host="::1") as server:
        clients = [server.client_for((host, 9000)) for host in ("fe80::1%lo", "fe80::1")]
    hosts = [str(client.extra(INETClientAttribute.remote_address)) for client in clients]
    zone = socket.if_nametoindex("lo")
    assert hosts == [f"('fe80::1%{zone}', 9000)", "('fe80::1', 9000)"]
    assert clients[0] != clients[1]


# Receiving multicast


async def test_multicast() -> None:
    """A server that has joined a group receives what is sent to it, on all interfaces only.

    "Join the group in service_init()"

    "The server must listen on all interfaces, because a socket that is bound to an address receives
    no multicast on Linux"

    "On Linux, such a server receives no multicast, but only datagrams that are sent to it alone."

    "Join the group in service_init(), with the option IP_ADD_MEMBERSHIP of the server's socket."
    """
    for host, is_received in (("127.0.0.1", False), ("", True)):
        handler = MulticastRequestHandler("127.0.0.1")
        text: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer(encoding="utf-8"))
        async with AsyncUDPNetworkServer(host, 0, text, handler) as server:
            async with anyio.create_task_group() as tasks:
                is_up = anyio.Event()
                tasks.start_soon(functools.partial(server.serve_forever, is_up_event=is_up))
                await is_up.wait()
                found = await _find(server.get_addresses()[0].port)
                assert found == (["Hello, Zoë!"] if is_received else [])
                await server.shutdown()


async def _find(port: int) -> list[str]:
    responses: list[str] = []
    protocol: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer(encoding="utf-8"))
    async with AsyncUDPNetworkEndpoint(protocol) as endpoint:
        interface = socket.inet_aton("127.0.0.1")
        endpoint.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
        await endpoint.send_packet_to("Zoë", (GROUP, port))
        with anyio.move_on_after(SOON):
            async for response, _ in endpoint:
                responses.append(response)
    return responses


# Service initialization


async def check_service(handler_class: type[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Check that a service's task runs while clients are served, and ends with the server."""
    handler = reporting(handler_class, capsys)
    async with serve(handler) as server:
        with visiting(server) as peer:
            await peer.ask("hello")
            await check_reports(handler, server, capsys)


async def test_service_of_the_framework(capsys: pytest.CaptureFixture[str]) -> None:
    """A background task of the framework ends with the server.

    "When the server stops, the task is cancelled, then Service stopped is printed, then
    serve_forever() returns. You do not have to cancel anything yourself."
    """
    variant = of_framework(
        asyncio=examples.ServiceInitializationHookRequestHandlerAsyncIO,
        trio=examples.ServiceInitializationHookRequestHandlerTrio,
    )
    await check_service(variant, capsys)


async def test_service_of_the_backend(capsys: pytest.CaptureFixture[str]) -> None:
    """A background task of the backend ends with the server.

    "while the server handles them (handle(), not shown, counts the requests)"
    """
    await check_service(examples.ServiceInitializationHookRequestHandlerWithServerBackend, capsys)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_interval_of_reports(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The tasks wait for a minute.

    "This handler starts the task report(), which prints the number of requests every 60 seconds"

    "This handler reads the counters every 60 seconds (handle() is not shown)"
    """
    check_interval(examples, protocol(), backend, capsys)
    serve_for(179, examples.StatisticsRequestHandler(), protocol(), backend)
    assert capsys.readouterr().out == "0 of 0 datagrams were dropped\n" * 3


async def test_service_init() -> None:
    """service_init() runs before the first handle(), and its stack is unwound after the last one.

    "The server calls this method at the start of serve_forever(), before it handles the first
    datagram"

    "After the last handle() has ended, the server unwinds the stack: context managers exit and
    callbacks run, in reverse order."

    "The sockets are already open when service_init() runs, so server.get_addresses() returns the
    addresses that the server listens on. server is a weak reference to the server: a handler that
    stores it does not keep the server alive."

    "Set up everything that the whole service needs in service_init()."
    """
    calls: list[str] = []

    class Handler(Handling):
        async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
            exit_stack.callback(calls.append, "undo the first thing")
            exit_stack.callback(calls.append, "undo the second thing")
            self.server = server
            self.peer = DatagramPeer(server.get_addresses()[0])
            exit_stack.callback(self.peer.close)
            self.peer.send("hello")
            await anyio.wait_all_tasks_blocked()
            calls.append("service_init")

        async def handle(self, client: Client) -> Requests:
            calls.append("handle")
            try:
                yield
                await client.send_packet(Response("welcome"))
                yield
            finally:
                calls.append("end of handle")

    handler = Handler()
    async with serve(handler) as server:
        assert await handler.peer.receive() == "Response welcome"
        assert handler.server is not server
        await server.shutdown()
    assert calls == [
        "service_init",
        "handle",
        "end of handle",
        "undo the second thing",
        "undo the first thing",
    ]
    del server
    gc.collect()
    with pytest.raises(ReferenceError):
        handler.server.get_addresses()


async def test_failing_service() -> None:
    """A background task that fails ends the service.

    "An exception that leaves the task ends the whole service: serve_forever() raises it, wrapped in
    an ExceptionGroup."
    """

    class Handler(examples.ServiceInitializationHookRequestHandlerWithServerBackend):
        def __init__(self) -> None:
            self.trouble = anyio.Event()

        async def report(self, backend: Any) -> None:
            await self.trouble.wait()
            raise LookupError("a bug in the task")

    async def service() -> None:
        handler = Handler()
        async with serve(handler) as server:
            with visiting(server) as peer:
                await peer.ask("hello")
                handler.trouble.set()
                await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await service()
    assert caught.group_contains(LookupError, match="a bug in the task")


@once
async def test_failing_report(log: pytest.LogCaptureFixture) -> None:
    """A background task that catches its exceptions goes on.

    "Catch the exceptions of your background task inside the task."
    """

    class Handler(examples.ServiceInitializationHookRequestHandlerWithServerBackend):
        attempts = 0

        async def report(self, backend: Any) -> None:
            while True:
                with contextlib.suppress(LookupError):
                    self.attempts += 1
                    raise LookupError("a bug in the task")
                await backend.coro_yield()

    handler = Handler()
    async with serve(handler) as server:
        await until(lambda: handler.attempts > 2)
        with visiting(server) as peer:
            assert await peer.ask("hello") == "Response hello"
    assert not complaints(log)


@once
async def test_attribute_of_the_handler() -> None:
    """A request that another client sends meanwhile changes an attribute of `self`.

    "Keep the data of a single request in local variables of handle()."
    """
    kept: list[tuple[str, str]] = []

    class Handler(WaitingRequestHandler):
        text = ""

        async def handle(self, client: Client) -> AsyncGenerator[float | None, Request]:
            request = yield None
            self.text = text = request.text
            if text == "wait":
                await self.go_on.wait()
            kept.append((text, self.text))
            await client.send_packet(Response(text))

    handler = Handler()
    async with serve(handler) as server:
        with visiting(server) as one, visiting(server) as other:
            one.send("wait")
            await until(lambda: handler.text == "wait")
            await other.ask("hello")
            handler.go_on.set()
            await one.receive()
    assert kept == [("hello", "hello"), ("wait", "hello")]


# Per-client variables


async def test_context() -> None:
    """The context variables of a run belong to its client.

    "A value set in handle() is visible in all functions that handle() calls: in signed(),
    self.peer.get() returns it."

    "Context variables save you from passing client through every function."
    """
    async with serve(examples.ClientContextRequestHandler()) as server:
        with visiting(server) as one, visiting(server) as other:
            for peer in (one, other, one):
                host, port = peer.address
                assert await peer.ask("hello") == f"Response hello, {host}:{port}"


async def test_context_of_two_runs() -> None:
    """The context ends with the run, even if the next request of the client is already queued.

    "Each run of handle() has its own context variables"

    "It is not visible in the next run, even for the same client"

    "Each run of handle() has its own context variables if your asynchronous framework supports them
    (asyncio and trio do)"
    """
    peer_of_run = examples.ClientContextRequestHandler.peer

    class Handler(WaitingRequestHandler):
        async def handle(self, client: Client) -> Requests:
            is_set = peer_of_run.get(None) is not None
            peer_of_run.set(client.extra(INETClientAttribute.remote_address))
            request = yield
            if request.text == "wait":
                await self.go_on.wait()
            await client.send_packet(Response(f"{request.text} {is_set}"))

    handler = Handler()
    async with serve(handler) as server:
        with visiting(server) as peer, visiting(server) as other:
            peer.send("wait", "next")
            assert await other.ask("hello") == "Response hello False"
            handler.go_on.set()
            assert await peer.receive() == "Response wait False"
            assert await peer.receive() == "Response next False"
            peer.send("one", "two", "three")
            for text in "one", "two", "three":
                assert await peer.receive() == f"Response {text} False"


async def test_context_of_the_service() -> None:
    """Context variables that service_init() sets are visible to all clients.

    "Values set in service_init() are the initial values of all runs."
    """
    here = examples.ClientContextRequestHandler.peer

    class Handler(WaitingRequestHandler, examples.ClientContextRequestHandler):
        async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
            [address] = server.get_addresses()
            here.set(address)

        async def handle(self, client: Client) -> Requests:
            request = yield
            if request.text == "wait":
                await self.go_on.wait()
            await client.send_packet(Response(self.signed(request.text)))

    handler = Handler()
    async with serve(handler) as server:
        host, port = server.get_addresses()[0]
        with visiting(server) as peer, visiting(server) as other:
            peer.send("wait", "next")
            assert await other.ask("hello") == f"Response hello, {host}:{port}"
            handler.go_on.set()
            assert await peer.receive() == f"Response wait, {host}:{port}"
            assert await peer.receive() == f"Response next, {host}:{port}"


# Server object


def test_async_server() -> None:
    """The program logs the lines on the page, and stops at Control-C.

    "The program enables logging."

    "If one client sends a name, another client sends bytes that are not valid text, and you then
    press Control-C, the log looks like this"

    "It runs until it is stopped, here by Control-C. A program that is a server and nothing else can
    call run() instead, which also handles SIGTERM"

    "The log does not mention the first client: a request that gets a response is not logged."

    "This program runs the first handler of this page. It imports the handler from
    simple_request_handler.py"
    """

    def visit() -> None:
        with contextlib.closing(DatagramPeer(("127.0.0.1", 9000))) as visitor:
            visitor.send("Zoë\n")
            assert visitor.socket.recv(65536) == "Hello, Zoë!".encode()
            visitor.socket.send(b"\xff")

    check_log_of_program("howto/udp_servers.rst", FOLDER, 2, visit)


async def test_address_in_use() -> None:
    """A second server at the same port raises an error, and the server does not set an option.

    "If the port is in use, async with raises an OSError that ends with Address already in use."

    "the server does not set SO_REUSEADDR, because there are no old connections"
    """
    handler = WatchedMinimum()
    async with AsyncUDPNetworkServer("127.0.0.1", 0, protocol(), handler) as server:
        host, port = server.get_addresses()[0][:2]
        with pytest.raises(OSError, match="Address already in use$") as caught:
            async with AsyncUDPNetworkServer(host, port, protocol(), handler):
                pass
        assert caught.value.errno == errno.EADDRINUSE
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="Address already in use"):
                sock.bind((host, port))
    async with AsyncUDPNetworkServer(host, port, protocol(), handler):
        pass


@pytest.mark.skipif(shutil.which("ss") is None, reason="ss is not installed")
async def test_program_at_the_port() -> None:
    """The command shows the process that has the socket.

    "the command that shows the other program is ss -lunp 'sport = :9000'"
    """
    command = ["ss", "-lunp", "sport = :9000"]
    async with AsyncUDPNetworkServer("127.0.0.1", 9000, protocol(), WatchedMinimum()):
        done = subprocess.run(  # noqa: ASYNC221 - nothing else runs
            command, capture_output=True, encoding="utf-8", check=True
        )
    assert f"pid={os.getpid()}," in done.stdout


async def test_listening(log: pytest.LogCaptureFixture) -> None:
    """The context manager opens and closes the sockets.

    "async with opens the sockets and closes them at the end of the block. Inside the block,
    serve_forever() handles datagrams."

    "If localhost also resolves to an IPv6 address of the machine, the first line shows both
    addresses."

    "A server object owns the sockets and passes each request to a handler object that you write."
    """
    handler = WatchedMinimum()
    async with AsyncUDPNetworkServer("localhost", 0, protocol(), handler) as server:
        addresses = server.get_addresses()
        with visiting(server) as peer:
            peer.send("early")
            assert not server.is_serving()
            async with anyio.create_task_group() as task_group:
                is_up = anyio.Event()
                task_group.start_soon(lambda: server.serve_forever(is_up_event=is_up))
                await is_up.wait()
                assert await peer.receive() == "Response early"
                task_group.cancel_scope.cancel()
    for address in addresses:
        assert str(address) in log.messages[0]
        with contextlib.closing(DatagramPeer(address)) as peer:
            peer.send("late")
            with pytest.raises(ConnectionRefusedError):
                peer.socket.recv(1)


# Running the server in the background


def test_background_server() -> None:
    """Each of the program's three requests has its own task.

    "The three requests are handled in three tasks"
    """
    assert len({answer["task"] for answer in answers_of_program(FOLDER)}) == 3


async def test_shutdown() -> None:
    """A program can wait until the server has started and until it has stopped.

    "The is_up event is set when the server is ready to handle datagrams. shutdown() stops the
    server and waits until it has stopped. The task then ends normally."

    "serve_forever() can share the event loop with the rest of your program. Run it in a task"
    """

    class Handler(WatchedMinimum):
        async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
            await anyio.wait_all_tasks_blocked()

    async with serve(Handler()) as server:
        with visiting(server) as peer:
            assert server.is_serving()
            await peer.ask("hello")
            await server.shutdown()
            assert not server.is_serving()


# Avoiding response loops


async def test_response_loop() -> None:
    """Servers that answer everything answer each other for ever, unless the handlers prevent it.

    "If both servers answer whatever they receive, each response causes the next one, and the two
    servers exchange datagrams without end."

    "An attacker can send a datagram to one server under the address of another server."
    """
    handler = examples.MinimumRequestHandler()
    async with serve(handler) as one, serve(handler) as other:
        send_from(one, other, b"hello")
        await until(lambda: one.get_statistics().received > 10)


@pytest.mark.parametrize("datagram", [b"get size", b"get colour", b"\xff", b"error", b"value red"])
async def test_no_response_loop(log: pytest.LogCaptureFixture, datagram: bytes) -> None:
    """The handler of the example answers a request, and nothing else.

    "The library never sends a datagram by itself, not even in response to an invalid one, so this
    is up to your handler."

    "Do not respond to invalid datagrams, which raise DatagramProtocolParseError."

    "A response, an error message in particular, must not look like a request."

    "In this example, a request begins with get, and a response begins with value or error:"
    """
    handler = examples.RequestsOnlyHandler()
    plain: DatagramProtocol[Any, Any] = DatagramProtocol(StringLineSerializer(), Bare(Request))
    async with serving(handler, plain) as one, serving(handler, plain) as other:
        send_from(one, other, datagram)
        await received(other, 1)
        with visiting(one) as peer:
            assert await peer.ask("get colour") == "value blue"
            assert await peer.ask("get size") == "error unknown name size"
        with visiting(other) as peer:
            assert await peer.ask("get colour") == "value blue"
        assert one.get_statistics().received == 2 + datagram.startswith(b"get")
        assert other.get_statistics().received == 2
    assert complaints(log) == []


def test_bit_in_the_header() -> None:
    """A query of DNS has a bit that its response does not have.

    "Other protocols use a bit in the header that tells a response from a request, as DNS does."
    """
    query = dns.message.make_query("example.com", "A")
    response = dns.message.make_response(query)
    assert [message.flags & dns.flags.QR for message in (query, response)] == [0, dns.flags.QR]


async def test_same_port_on_the_same_machine() -> None:
    """What comes from the server's port is taken for its own, if it listens everywhere.

    "A server on all interfaces then drops the requests of other programs on the same machine,
    because it cannot tell them from its own datagrams."

    "To answer programs on the same machine, too, listen on single addresses: only datagrams from
    these addresses are dropped."
    """
    for host, is_answered in ("0.0.0.0", False), ("127.0.0.1", True):
        handler = examples.MinimumRequestHandler()
        async with serve(handler, host=host, reuse_port=True) as server:
            port = server.get_addresses()[0].port
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                other.settimeout(PATIENCE)
                other.bind(("127.0.0.2", port))
                other.sendto(b"hello", ("127.0.0.1", port))
                await received(server, 1)
                assert server.get_statistics().dropped_by_own_address == (not is_answered)
                if is_answered:
                    assert await in_thread(functools.partial(other.recv, 100))


class Bare(Lines):
    """A response is its text."""

    def convert_to_dto_packet(self, obj: Any) -> str:
        return str(obj.text)


def send_from(server: Any, to: Any, datagram: bytes) -> None:
    """Send a datagram from a server's socket, as if somebody had forged its address."""
    endpoint = server._listeners[0].server_socket.endpoint
    assert endpoint.send(datagram, to.get_addresses()[0].for_connection())


# Limits and dropped datagrams


async def test_too_many_datagrams(log: pytest.LogCaptureFixture) -> None:
    """The queue of a client holds at most 64 datagrams, and a flood causes one line in the log.

    "for each client, 64 datagrams in the queue"

    "Datagrams that exceed these limits are dropped; datagrams that are already in a queue stay
    there."

    "The server counts dropped datagrams. server.get_statistics() returns a snapshot of the
    counters, a DatagramStatistics, at any time. Standalone servers have this method, too."

    "When dropping begins, the server logs one warning line, such as Datagrams are dropped: 64 of
    ('127.0.0.1', 58942) are waiting."

    "limits the resources that unknown senders can use"

    "The size of a queue is limited, however"

    "So a server keeps at most"

    "To the sender, a dropped datagram looks like a lost one: no response arrives."
    """
    handler = WaitingRequestHandler()
    async with serve(handler) as server:
        with visiting(server) as peer, visiting(server) as other:
            numbers = [f"{number}" for number in range(70)]
            peer.send("wait", *numbers)
            assert await other.ask("hello") == "Response hello"
            statistics = server.get_statistics()
            assert statistics.received == 72
            assert statistics.waiting == 64
            assert statistics.dropped == statistics.dropped_by_count == 6
            handler.go_on.set()
            answers = [await peer.receive() for _ in range(65)]
            assert answers == ["Response wait", *(f"Response {text}" for text in numbers[:64])]
            assert await peer.ask("again") == "Response again"
    [record] = complaints(log)
    assert record.levelno == logging.WARNING
    assert not record.exc_info
    assert record.getMessage().startswith(
        f"Datagrams are dropped: 64 of {peer.address} are waiting."
    )


async def test_too_many_bytes(log: pytest.LogCaptureFixture) -> None:
    """The queue of a client holds at most 256 KiB.

    "with a total size of 256 KiB"

    "64 datagrams in the queue, with a total size of 256 KiB"

    "In the worst case, the queues hold 250 MiB."
    """
    limits = DatagramLimits()
    assert limits.max_waiting == 64
    assert limits.max_peers * limits.max_waiting_bytes == 250 * 2**20
    handler = WaitingRequestHandler()
    async with serve(handler) as server:
        with visiting(server) as peer, visiting(server) as other:
            peer.send("wait")
            for _ in range(5):
                peer.send("x" * (256 * 1024 // 5 + 1))
                assert await other.ask("hello") == "Response hello"
            statistics = server.get_statistics()
            assert statistics.waiting == 4
            assert statistics.dropped == statistics.dropped_by_size == 1
    assert len(complaints(log)) == 1


async def test_too_many_clients(log: pytest.LogCaptureFixture) -> None:
    """A server runs at most 1,000 handlers at a time.

    "1,000 clients with a running handle()."

    "by default, a server runs at most 1,000 of them at a time."

    "A handle() that is busy, or waits for something other than a datagram, is never interrupted: if
    all of them are, the datagram is dropped."

    "Keep the time between the first yield and the response short."

    """
    handler = WaitingRequestHandler()
    async with serve(handler) as server:
        with visiting(server) as late:
            sent = 0
            while server.get_statistics().peers < 1000:
                with visiting(server) as peer:  # its port may be that of an earlier client
                    peer.send("wait")
                sent += 1
                await received(server, sent)
            late.send("hello")
            await received(server, sent + 1)
            await until(lambda: len(handler.clients) == 1000)
            statistics = server.get_statistics()
            assert statistics.peers == 1000
            assert statistics.dropped == statistics.dropped_by_peers == 1
            handler.go_on.set()
            await until(lambda: server.get_statistics().peers == 0)
            assert await late.ask("again") == "Response again"
    assert len(complaints(log)) == 1


async def test_evicted_client(log: pytest.LogCaptureFixture) -> None:
    """A client that waits makes room for another one.

    "When 1,000 clients have a running handle() and another client sends a datagram, the server
    evicts the client that has waited longest at a yield after the first one: it raises TimeoutError
    at that yield, whatever timeout you have set. If handle() yields again, the server closes the
    generator. The other client's turn comes as soon as handle() has ended."

    "waits until the server stops, or until the server needs its place"

    "evicted counts the evicted clients."

    "It logs the next drop only after ten seconds without a drop, so a flood does not fill the log.
    The same holds for evictions."

    "So clients that begin a conversation and send nothing more, for example because their addresses
    are forged, do not keep others out."
    """
    assert DatagramLimits().max_peers == 1000
    handler = examples.TimeoutYieldedRequestHandler()
    async with serve(handler, limits=DatagramLimits(max_peers=2)) as server:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(visiting(server)) for _ in range(4)]
            for peer in peers:
                assert await peer.ask("Ann") == "Response What would you like?"
            assert [await peer.receive() for peer in peers[:2]] == ["TimedOut"] * 2
            assert await peers[3].ask("tea") == "Response tea for Ann"
            statistics = server.get_statistics()
            assert (statistics.evicted, statistics.dropped) == (2, 0)
    assert len(complaints(log)) == 1


async def test_own_limits(log: pytest.LogCaptureFixture) -> None:
    """A server takes other limits; one of them is for each host.

    "To choose other limits, pass a DatagramLimits to the server, for example
    limits=DatagramLimits(max_peers=10_000, max_waiting=8)."

    "max_peers_per_host limits the clients with the same IP address (for IPv6, in the same network
    of 64 bits). There is no such limit by default"
    """
    assert DatagramLimits().max_peers_per_host is None
    handler = WaitingRequestHandler()
    limits = DatagramLimits(max_peers=10_000, max_waiting=8, max_peers_per_host=2)
    async with serve(handler, limits=limits) as server:
        with visiting(server) as one, visiting(server) as two, visiting(server) as three:
            one.send("wait", *map(str, range(10)))
            two.send("wait")
            three.send("hello")
            await received(server, 13)
            statistics = server.get_statistics()
            assert (statistics.waiting, statistics.dropped_by_count) == (8, 2)
            assert (statistics.peers, statistics.dropped_by_host) == (2, 1)
            handler.go_on.set()
            await until(lambda: server.get_statistics().peers == 0)
    assert len(complaints(log)) == 1


@once
@needs_loopback_network
async def test_limit_for_each_host() -> None:
    """Of a limit for each host, other hosts notice nothing, and forged addresses neither.

    "There is no such limit by default, because all users behind one router, and all clients behind
    one proxy, have the same address. It helps if single hosts send you many requests that take
    long. It does not help against forged addresses."
    """
    for most, dropped in (None, (2, 0)), (2, (0, 2)):
        handler = WaitingRequestHandler()
        limits = DatagramLimits(max_peers=3, max_peers_per_host=most)
        async with serve(handler, limits=limits) as server:
            address = server.get_addresses()[0].for_connection()
            with contextlib.ExitStack() as stack:

                def send_from_host(host: str) -> None:
                    sock = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
                    sock.bind((host, 0))
                    sock.sendto(b"wait", address)  # noqa: B023

                for _ in range(4):
                    send_from_host("127.0.0.1")
                send_from_host("127.0.0.2")
                await received(server, 5)
                statistics = server.get_statistics()
                assert (statistics.dropped_by_peers, statistics.dropped_by_host) == dropped
                if most:
                    assert statistics.peers == 3  # two of one host, and one of another
                    send_from_host("127.0.0.3")
                    await received(server, 6)
                    assert server.get_statistics().dropped_by_peers == 1
                handler.go_on.set()


@once
async def test_counters_of_limits() -> None:
    """Each limit has a counter.

    "dropped_by_count, dropped_by_size, dropped_by_peers and dropped_by_host count datagrams that
    exceeded one of the limits above."

    "dropped_by_name and dropped_by_length are for Unix sockets."
    """
    cases = {
        "dropped_by_count": DatagramLimits(max_waiting=1),
        "dropped_by_size": DatagramLimits(max_waiting_bytes=65_536),
        "dropped_by_peers": DatagramLimits(max_peers=1),
        "dropped_by_host": DatagramLimits(max_peers_per_host=1),
    }
    for name, limits in cases.items():
        handler = WaitingRequestHandler()
        async with serve_in_memory(handler, protocol(), limits=limits) as served:
            client = await served.connect(raw=True)
            for datagram in b"wait", b"x" * 40_000:
                await client.send(datagram)
            if name in ("dropped_by_count", "dropped_by_size"):
                await client.send(b"x" * 40_000)
            else:
                other = await served.connect(raw=True, local_address=(client.address[0], 9))
                await other.send(b"hello")
            await until(lambda: served.server.get_statistics().received == 3)
            statistics = served.server.get_statistics()
            assert (getattr(statistics, name), statistics.dropped) == (1, 1)
            assert (statistics.dropped_by_name, statistics.dropped_by_length) == (0, 0)
            handler.go_on.set()


async def test_own_address(log: pytest.LogCaptureFixture) -> None:
    """A server does not answer itself.

    "A server cannot loop with itself: datagrams that come from one of its own addresses are
    dropped"

    "dropped_by_own_address counts datagrams from an address of the server itself. If the server
    listens on all interfaces, that is its port on any address of the machine."
    """
    for host in "127.0.0.1", "0.0.0.0":
        async with serve(examples.MinimumRequestHandler(), host=host) as server:
            port = server.get_addresses()[0].port
            await server.client_for(("127.0.0.1", port)).send_packet(Response("hello"))
            await received(server, 1)
            assert server.get_statistics().dropped_by_own_address == 1
    assert len(complaints(log)) == 2


async def received(server: Any, count: int) -> None:
    """Wait until a server has taken that many datagrams from its socket."""
    await until(lambda: server.get_statistics().received == count)


async def test_port_zero() -> None:
    """A datagram that cannot get a response does not start a handler.

    "dropped_by_port counts datagrams whose source port is 0, which means that the sender accepts no
    response (RFC 768)."
    """
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    except PermissionError:
        pytest.skip("datagrams from port 0 take privileges")
    handler = WatchedMinimum()
    with raw:
        async with serve(handler) as server:
            port = server.get_addresses()[0].port
            ports_and_length = b"".join(n.to_bytes(2, "big") for n in (0, port, 13))
            raw.sendto(ports_and_length + b"\0\0" + b"hello", ("127.0.0.1", 0))
            await until(lambda: server.get_statistics().received == 1)
            statistics = server.get_statistics()
            assert statistics.dropped == statistics.dropped_by_port == 1
    assert not handler.clients


async def test_never_requests() -> None:
    """The server counts refused and invalid datagrams.

    "Two more counters count datagrams that never became requests: refused counts those for which
    handle() returned before its first yield, and invalid counts those that were not valid
    requests."

    "The server counts the datagrams that you refuse."
    """
    async with serve(examples.SkipDatagramRequestHandler()) as server:
        with visiting(server) as peer:
            peer.send("hello")
            await until(lambda: server.get_statistics().refused == 1)
    for handler in examples.ErrorHandlingInRequestHandler(), examples.MinimumRequestHandler():
        async with serve(handler) as server:
            with visiting(server) as peer:
                peer.socket.send(b"\xff")
                assert await peer.ask("hello") in ("BadRequest", "Response hello")
                assert server.get_statistics().invalid == 1


async def test_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    """A task can watch the counters.

    "The server counts dropped datagrams."
    """

    class Handler(examples.StatisticsRequestHandler):
        report_interval = 0.001

    printed: list[str] = []

    def has_printed(line: str) -> bool:
        printed.append(capsys.readouterr().out)
        return line in "".join(printed).splitlines()

    async with serve(Handler()) as server:
        with visiting(server) as peer:
            assert await peer.ask("hello") == "Response hello"
            await until(lambda: has_printed("0 of 1 datagrams were dropped"))


async def test_receive_buffer(log: pytest.LogCaptureFixture) -> None:
    """A larger receive buffer keeps the operating system from dropping datagrams of a burst.

    "When that buffer is full, the operating system drops datagrams without notice. To absorb short
    bursts, enlarge the buffer: set the socket option SO_RCVBUF on each socket that
    server.get_sockets() returns."

    "Before a datagram reaches these queues, it waits in the receive buffer of the operating
    system."
    """

    async def lost(burst: int, room: int) -> int:
        async with serve(examples.MinimumRequestHandler()) as server:
            [sock] = server.get_sockets()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            with visiting(server) as peer:
                peer.send(*["hello"] * burst)
                assert await peer.receive() == "Response hello"
                await anyio.wait_all_tasks_blocked()
            assert server.get_statistics().dropped == 0
            received: int = server.get_statistics().received
            return burst - received

    assert await lost(burst=50, room=4096) > 0
    assert await lost(burst=50, room=100_000) == 0
    assert not complaints(log)
