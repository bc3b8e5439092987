"""Test the statements and the examples of the page about TCP servers.

A sentence in quotation marks in a docstring is a word-for-word quotation of the page (the first
test checks this), and the test fails if the sentence is wrong. The tests use the handlers of the
page; where a test needs more, it defines a subclass.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import math
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
import sniffio

from docs._include.examples.howto.tcp_servers import request_handler_explanation as examples
from docs._include.examples.howto.tcp_servers.request_handler_explanation import (
    Request,
    Response,
    TimedOut,
)
from docs._include.examples.howto.tcp_servers.simple_request_handler import GreetingRequestHandler
from easynetwork._tuning import HIGH_WATER
from easynetwork.exceptions import ClientClosedError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)
from easynetwork.servers.limits import Limits
from easynetwork.testing import serve as serve_in_memory, virtual_time
from tests.docs.howto_support import (
    DOCS,
    Lines,
    Peer,
    Watched,
    answers_of_program,
    check_log_of_program,
    check_quotations,
    check_reports,
    complaints,
    connected,
    impatient,
    of_framework,
    reporting,
    serving,
    shorten_stop,
    turned_away,
    until,
)
from tests.docs.unix_support import example
from tests.docs.virtual_support import check_interval
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

Client = AsyncStreamClient[Response]
Requests = AsyncGenerator[None, Request]

FOLDER = DOCS / "_include/examples/howto/tcp_servers"


def protocol(limit: int = 65536) -> StreamProtocol[Response, Request]:
    return StreamProtocol(StringLineSerializer(limit=limit), Lines(Request))


def serve(
    handler: AsyncStreamRequestHandler[Request, Response], limit: int = 65536, **options: Any
) -> Any:
    return serving(handler, protocol(limit), **options)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


class WatchedMinimum(Watched, examples.MinimumRequestHandler):
    pass


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/tcp_servers.rst", globals())


# Request handler objects


async def test_greeting() -> None:
    """The first example responds.

    "It receives a name and sends back a greeting"
    """
    async with serving(GreetingRequestHandler()) as server, connected(server) as peer:
        assert await peer.ask("Zoë") == "Hello, Zoë!"


async def test_one_handler_for_all() -> None:
    """Two clients share one handler object.

    "All clients share one handler object: the one that you pass to the server."

    "So all clients share an attribute that you set on self."
    """
    handler = examples.CountingRequestHandler()
    async with serve(handler) as server:
        async with connected(server) as one, connected(server) as other:
            await one.ask("hello")
            await other.ask("hello")
    assert handler.request_count == 2


# Minimum requirements


async def test_life_of_a_connection(log: pytest.LogCaptureFixture) -> None:
    """A connection stays open after a request, and its normal end is not logged as an error.

    "The server handles a connection with this handler as follows"

    "The server calls handle() and runs it up to the yield."

    "handle() resumes, sends a response and returns."

    "The connection stays open."

    "The server immediately calls handle() again, which waits for the second request. This repeats
    for every request."

    "This is the normal end of a connection, and no error is logged."
    """
    handler = WatchedMinimum()
    async with serve(handler) as server:
        async with connected(server) as peer:
            assert await peer.ask("one") == "Response one"
            assert await peer.ask("two") == "Response two"
        await handler.gone.wait()
    assert handler.calls == ["on_connection", *["handle"] * 3, "on_disconnection"]
    assert not complaints(log)


async def test_generator_is_closed() -> None:
    """The last generator of a connection gets GeneratorExit.

    "The server closes the generator, because no further request will arrive."
    """
    raised: list[type[BaseException]] = []

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            try:
                yield
            except BaseException as exc:
                raised.append(type(exc))
                raise

    handler = Handler()
    async with serve(handler) as server:
        async with connected(server):
            pass
        await handler.gone.wait()
    assert raised == [GeneratorExit]


async def test_code_before_the_first_yield() -> None:
    """The code before the first yield runs once for each request, and once more.

    "The code before the first yield runs when the client connects, and again after each response."
    """

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            await client.send_packet(Response("Welcome!"))
            request = yield
            await client.send_packet(Response(request.text))

    async with serve(Handler()) as server, connected(server) as peer:
        assert await peer.receive() == "Response Welcome!"
        assert await peer.ask("hello") == "Response hello"
        assert await peer.receive() == "Response Welcome!"


# Closing a connection


async def test_close() -> None:
    """aclose() sends all data, and is final.

    "The client receives the complete response, then the end of the stream."

    "handle() is not called again for this client, and sending to it raises ClientClosedError."
    """

    class Handler(Watched, examples.ConnectionCloseRequestHandler):
        pass

    handler = Handler()
    long = "x" * 4_000_000
    async with serve(handler, limit=5_000_000) as server, connected(server) as peer:
        assert await peer.ask(long) == f"Response {long}"
        assert await peer.ending() == "end of the stream"
        await handler.gone.wait()
        assert handler.calls == ["on_connection", "handle", "on_disconnection"]
        with pytest.raises(ClientClosedError):
            await handler.clients[0].send_packet(Response("Too late"))


async def test_close_gives_up() -> None:
    """aclose() resets the connection if the client does not read in time.

    "aclose() waits until the operating system has taken the data that was sent, for at most 30
    seconds. If the client reads so slowly that data is left by then, the connection is reset."
    """
    assert Limits().close_timeout == 30

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            yield
            with anyio.move_on_after(0.1):
                await client.send_packet(Response("x" * 20_000_000))
            await client.aclose()
            self.calls.append("closed")

    handler = Handler()
    async with (
        serve(handler, limits=Limits(close_timeout=0.1)) as server,
        connected(server) as peer,
    ):
        await peer.send("hello")
        await handler.gone.wait()
        assert "closed" in handler.calls
        assert await peer.ending() == "connection reset"


@pytest.mark.parametrize("ending", ["returns", "raises", "is closed"])
async def test_close_with_context(ending: str) -> None:
    """The client is closed however the generator ends.

    "the connection is closed when the generator ends: when it returns, when it raises an exception
    or when the server closes it because the client has disconnected. contextlib.aclosing(client)
    calls client.aclose()."
    """

    class Handler(Watched, examples.ConnectionCloseWithContextRequestHandler):
        closing: bool | None = None

        async def on_disconnection(self, client: Client) -> None:
            self.closing = client.is_closing()
            await super().on_disconnection(client)

    handler = Handler()
    async with serve(handler) as server, connected(server) as peer:
        if ending == "returns":
            assert await peer.ask("hello") == "Response hello"
        elif ending == "raises":
            await peer.send("trap")
        else:
            peer.socket.shutdown(socket.SHUT_WR)
        assert await peer.ending() == "end of the stream"
        await handler.gone.wait()
    assert handler.closing is True
    assert handler.calls.count("handle") == 1


class FailingRequestHandler(Watched):
    async def handle(self, client: Client) -> Requests:
        request = yield
        if request.text == "fail":
            raise LookupError("a bug in the handler")
        await client.send_packet(Response(request.text))


async def test_exception_cuts_the_connection(log: pytest.LogCaptureFixture) -> None:
    """A crash aborts the connection of one client, and is logged with its traceback.

    "In two cases, the server aborts the connection. The client gets a connection reset"

    "The server logs the exception with its traceback, under the line Exception occurred during
    processing of request from <address>."

    "Other clients are not affected."
    """
    async with serve(FailingRequestHandler()) as server:
        async with connected(server) as peer, connected(server) as other:
            assert await other.ask("before") == "Response before"
            await peer.send("fail")
            assert await peer.ending() == "connection reset"
            assert await other.ask("after") == "Response after"
    [record] = complaints(log)
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        f"Exception occurred during processing of request from {peer.address}"
    )
    assert record.exc_info
    assert isinstance(record.exc_info[1], LookupError)


async def test_turn_away(log: pytest.LogCaptureFixture) -> None:
    """Returning before the yield rejects a client, and logs nothing.

    "The client gets a connection reset"

    "handle() returns before the first yield. Use this to reject a client, here one of the
    banned_hosts. It is not an error, and is not logged as one."
    """
    refusing = examples.ConnectionCloseBeforeYieldRequestHandler(frozenset({"127.0.0.1"}))
    async with serve(refusing) as server:
        assert await turned_away(server) == "connection reset"
    welcoming = examples.ConnectionCloseBeforeYieldRequestHandler(frozenset({"192.0.2.1"}))
    async with serve(welcoming) as server, connected(server) as peer:
        assert await peer.ask("hello") == "Response hello"
    assert not complaints(log)


# Error handling


async def test_parse_error() -> None:
    """A handler can continue after an invalid request.

    "If a request cannot be received, the error is raised at the yield."

    "StreamProtocolParseError The client sent data that is not a valid request. The connection stays
    open: the next yield reads the data that follows."
    """
    async with serve(examples.ErrorHandlingInRequestHandler()) as server:
        async with connected(server) as peer:
            await peer.send_bytes(b"\xff\xfe\nhello\n")
            assert await peer.receive() == "BadRequest"
            assert await peer.receive() == "Response hello"


async def test_parse_error_let_out(log: pytest.LogCaptureFixture) -> None:
    """An invalid request that the handler does not catch is one line in the log.

    "If you do not catch this error, the connection is closed: the client receives the responses
    that were sent before, then the end of the stream. The server logs one warning line without a
    traceback, because the client caused the error."
    """
    long = "x" * 1_000_000
    async with serve(WatchedMinimum(), limit=2_000_000) as server, connected(server) as peer:
        await peer.send_bytes(f"{long}\n".encode() + b"\xff\xfe\n")
        assert await peer.receive() == f"Response {long}"
        assert await peer.ending() == "end of the stream"
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
    """
    async with serve(examples.ErrorHandlingInRequestHandler()) as server:
        async with connected(server) as peer:
            assert await peer.ask("trap") == "InternalError"
            assert await peer.ask("hello") == "Response hello"
    printed = capsys.readouterr().err
    assert re.search(
        r"^ZeroDivisionError: a bug in the converter$.*direct cause.*^\S+\.ProtocolCrashedError: ",
        printed,
        re.DOTALL | re.MULTILINE,
    )
    assert not complaints(log)


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset])
async def test_disconnection_at_the_yield(leave: Any, log: pytest.LogCaptureFixture) -> None:
    """A disconnection raises GeneratorExit in a handler that waits at a yield.

    "A yield never raises ConnectionError or another socket error. When the client disconnects, for
    any reason, the server closes the generator, which raises GeneratorExit at the yield. Put your
    cleanup code in a finally block"
    """
    raised: list[BaseException] = []
    cleaned_up: list[bool] = []

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            try:
                request = yield
                await client.send_packet(Response(request.text))
            except BaseException as exc:
                raised.append(exc)
                raise
            finally:
                await anyio.lowlevel.checkpoint()
                cleaned_up.append(True)

    handler = Handler()
    async with serve(handler) as server, connected(server) as peer:
        await peer.ask("hello")
        leave(peer)
        await handler.gone.wait()
    assert [type(exc) for exc in raised] == [GeneratorExit]
    assert len(cleaned_up) == 2
    assert not complaints(log)


async def test_yield_after_the_end(log: pytest.LogCaptureFixture) -> None:
    """A generator that yields again after GeneratorExit is logged as a crash.

    "Do not yield again in this block: this is a crash, and is logged as one."
    """

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            try:
                yield
            finally:
                yield

    handler = Handler()
    async with serve(handler) as server:
        async with connected(server):
            pass
        await handler.gone.wait()
    [record] = complaints(log)
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert isinstance(record.exc_info[1], RuntimeError)


async def test_client_leaves_before_the_answer(log: pytest.LogCaptureFixture) -> None:
    """Sending to a client that has disconnected raises an error, which need not be caught.

    "raises ConnectionError if the client disconnected before it received your response. You do not
    have to catch this error: the connection has ended, and nothing is logged."
    """
    raised: list[BaseException] = []

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            yield
            try:
                while True:
                    await client.send_packet(Response("x" * 65536))
            except BaseException as exc:
                raised.append(exc)
                raise

    handler = Handler()
    async with serve(handler) as server, connected(server) as peer:
        await peer.send("hello")
        await peer.receive()
        peer.reset()
        await handler.gone.wait()
    assert isinstance(raised[0], ConnectionError)
    assert not complaints(log)


# Using multiple ``yield`` statements


async def test_multiple_yields() -> None:
    """Requests of two clients do not mix, even if a response takes two requests.

    "Some requests are complete only with a second one. Use another yield to receive it"

    "Each yield waits for the next request from the same client. Meanwhile, the server serves other
    clients."

    "each client has its own running handle()"
    """
    async with serve(examples.MultipleYieldInRequestHandler()) as server:
        async with connected(server) as peer, connected(server) as other:
            assert await peer.ask("order") == "Response What would you like?"
            assert await other.ask("tea") == "Response Say 'order' when you are ready"
            assert await other.ask("order") == "Response What would you like?"
            assert await peer.ask("coffee") == "Response One coffee, coming up"
            assert await other.ask("tea") == "Response One tea, coming up"


async def test_client_loop() -> None:
    """A counter in a loop counts the requests of a connection.

    "With a loop inside the generator, one run of handle() lasts as long as the connection, and
    keeps its local variables"
    """

    class Handler(Watched, examples.ClientLoopInRequestHandler):
        pass

    handler = Handler()
    async with serve(handler) as server, connected(server) as peer:
        for count in range(1, 4):
            assert await peer.ask("hello") == f"Response Request {count}: hello"
        assert await peer.ask("quit") == "Response Request 4: quit"
        assert await peer.ending() == "end of the stream"
        await handler.gone.wait()
    assert handler.calls == ["on_connection", "handle", "on_disconnection"]


# Cancellation and timeouts


async def check_timeout(handler: AsyncStreamRequestHandler[Request, Response]) -> None:
    """Check the timeout at the yield, and that a request that arrives in two halves is received."""
    async with serve(handler) as server, connected(server) as peer:
        await peer.send_bytes(b"hel")
        assert await peer.receive() == "TimedOut"
        await peer.send_bytes(b"lo\n")
        while (answer := await peer.receive()) == "TimedOut":
            pass
        assert answer == "Response hello"


async def test_yielded_timeout() -> None:
    """A yielded number is a timeout.

    "If no complete request arrives in that time, TimeoutError is raised at the yield."

    "The connection stays open."

    "No data is lost: if half a request has arrived, the next yield waits for the other half."
    """
    await check_timeout(impatient(examples.TimeoutYieldedRequestHandler))


async def test_timeout_of_the_framework() -> None:
    """A timeout block of the framework works around a yield.

    "Put the yield inside a timeout block of your asynchronous framework."

    "When the time is up, the framework cancels the wait: its cancellation exception is raised at
    the yield, and the with block converts this exception into a timeout error."
    """
    variant = of_framework(
        asyncio=examples.TimeoutContextRequestHandlerAsyncIO,
        trio=examples.TimeoutContextRequestHandlerTrio,
    )
    await check_timeout(impatient(variant))


async def test_timeout_of_the_backend() -> None:
    """A timeout block of the backend works around a yield.

    "This variant runs on every framework."
    """
    await check_timeout(impatient(examples.TimeoutContextRequestHandlerWithClientBackend))


async def test_idle_limit(log: pytest.LogCaptureFixture) -> None:
    """A timeout that the handler does not catch disconnects idle clients.

    "To disconnect idle clients, do not catch the error:"

    "TimeoutError No request arrived within the number of seconds that you yielded"

    "If you do not catch this error, the connection is closed in the same way. Apart from the line
    disconnected, the server logs the timeout at level DEBUG only."
    """

    class Handler(Watched, examples.IdleLimitRequestHandler):
        patience = 0.1

    async with serve(Handler()) as server, connected(server) as peer:
        assert await peer.ask("hello") == "Response hello"
        assert await peer.ending() == "end of the stream"
    assert not complaints(log)
    about = [record for record in log.records if "sent nothing for too long" in record.getMessage()]
    assert [record.levelno for record in about] == [logging.DEBUG]
    assert str(peer.address) in about[0].getMessage()


@pytest.mark.parametrize(
    "handler_class",
    [
        examples.TimeoutYieldedRequestHandler,
        examples.TimeoutContextRequestHandlerWithClientBackend,
    ],
)
async def test_in_time(handler_class: type[Any]) -> None:
    """A request that arrives in time gets its response.

    "Yield the maximum number of seconds to wait"
    """
    async with serve(handler_class()) as server, connected(server) as peer:
        assert await peer.ask("hello") == "Response hello"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", ["TimeoutYielded", "IdleLimit", "TimeoutContext"])
def test_patience(name: str, backend: str) -> None:
    """A request after 29 seconds is in time, and another 31 seconds later is not.

    "The handlers below wait for 30 seconds."
    """
    variants = {"asyncio": "AsyncIO", "trio": "Trio"}[backend], "WithClientBackend"
    suffixes = variants if name == "TimeoutContext" else ("",)

    async def main(handler: Any) -> None:
        async with serve_in_memory(handler, protocol()) as served:
            client = await served.connect(raw=True)
            await anyio.sleep(29)
            await client.send(b"hello\n")
            assert await client.receive() == b"Response hello\n"
            await anyio.sleep(31)
            assert await client.receive() == (b"" if name == "IdleLimit" else b"TimedOut\n")

    for suffix in suffixes:
        handler_class = getattr(examples, f"{name}RequestHandler{suffix}")
        anyio.run(main, handler_class(), backend=backend, backend_options=virtual_time(backend))


class AskingRequestHandler(Watched):
    """Waits for a second request with a given timeout, and sends back its text or the error."""

    limit: float | None = None

    async def handle(self, client: Client) -> AsyncGenerator[float | None, Request]:
        yield None
        try:
            request = yield self.limit
        except Exception as exc:
            await client.send_packet(Response(type(exc).__name__))
        else:
            await client.send_packet(Response(request.text))


async def test_yield_zero() -> None:
    """0 means that the yield does not wait, None that there is no timeout.

    "yield 0 does not wait. It receives a request that has already arrived, or raises TimeoutError."

    "yield None is the same as a bare yield: no timeout."
    """
    handler = AskingRequestHandler()
    handler.limit = 0
    async with serve(handler) as server, connected(server) as peer:
        assert await peer.ask("first", "second") == "Response second"
        assert await peer.ask("first") == "Response TimeoutError"
        handler.limit = None
        assert await peer.ask("first", "second") == "Response second"


@pytest.mark.parametrize("limit", [-1, math.nan])
async def test_yield_nonsense(limit: float) -> None:
    """A number that cannot be a timeout raises an error at the yield.

    "A negative number or NaN raises ValueError at the same yield."
    """
    handler = AskingRequestHandler()
    handler.limit = limit
    async with serve(handler) as server, connected(server) as peer:
        assert await peer.ask("first") == "Response ValueError"
        assert await peer.ask("first") == "Response ValueError"


async def test_cancel_scope_around_a_yield() -> None:
    """A cancel scope works around a yield.

    "This works because the server runs and closes the generator in the same task, the client's
    task. For the same reason, you can use any other cancel scope"
    """
    raised: list[type[BaseException]] = []
    tasks: set[int] = set()

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            tasks.add(anyio.get_current_task().id)
            try:
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

    handler = Handler()
    async with serve(handler) as server:
        async with connected(server) as peer:
            assert await peer.receive() == "Response Still there?"
            assert raised == [anyio.get_cancelled_exc_class()]
        await handler.gone.wait()
    assert len(tasks) == 1


async def test_answer_inside_the_timeout() -> None:
    """A response whose sending is cancelled still arrives.

    "Do not send the response inside the with block. The timeout would then include the time that a
    slow client needs to receive the response."

    "A cancelled send_packet() may still deliver its packet, so the client could get a response and
    a timeout message."
    """
    out_of_time = anyio.Event()

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            request = yield
            try:
                with client.backend().timeout(0.01):
                    await client.send_packet(Response(request.text))
            except TimeoutError:
                out_of_time.set()
                await client.send_packet(TimedOut())

    long = "x" * 16_000_000
    async with serve(Handler(), limit=20_000_000) as server, connected(server) as peer:
        await peer.send(long)
        await out_of_time.wait()
        assert await peer.receive() == f"Response {long}"
        assert await peer.receive() == "TimedOut"


async def test_server_stops() -> None:
    """A server that stops cancels the tasks of all clients.

    "When the server stops, it cancels the tasks of all connected clients. The cancellation
    exception is raised at the point where handle() waits, for example at the yield. It is not a
    subclass of Exception, so except Exception does not catch it."
    """
    raised: list[type[BaseException]] = []
    waiting = anyio.Event()

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            try:
                try:
                    request = yield
                    if request.text == "wait":
                        waiting.set()
                        await anyio.sleep_forever()
                    await client.send_packet(Response(request.text))
                except Exception as exc:
                    raised.append(type(exc))
            except BaseException as exc:
                raised.append(type(exc))
                raise

    handler = Handler()
    async with serve(handler) as server, connected(server) as one, connected(server) as other:
        await one.ask("hello")
        await other.send("wait")
        await waiting.wait()
        await server.shutdown()
        assert raised == [anyio.get_cancelled_exc_class()] * 2
        assert handler.calls.count("on_disconnection") == 2


async def test_stubborn_handler(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """shutdown() returns even if a handler ignores its cancellation.

    "If you catch it to clean up, raise it again within a second"

    "shutdown() returns at most one second after the cancellation. If a client's task is still
    running then, the server logs one error line with the name of the task."

    "On asyncio, serve_forever() also returns then, while the task keeps running. On trio, this is
    impossible: serve_forever() returns when the task has ended."
    """
    shorten_stop(monkeypatch)
    is_busy, is_over, released = anyio.Event(), anyio.Event(), anyio.Event()

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            yield
            is_busy.set()
            while not released.is_set():
                with contextlib.suppress(BaseException):
                    await anyio.sleep(0.01)
            await client.aclose()

    async def serve_forever() -> None:
        await server.serve_forever()
        is_over.set()

    handler = Handler()
    server = AsyncTCPNetworkServer("127.0.0.1", 0, protocol(), handler)
    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as task_group:
            task_group.start_soon(serve_forever)
            async with connected(server) as peer:
                await peer.send("hello")
                await is_busy.wait()
                await server.shutdown()
                if sniffio.current_async_library() == "asyncio":
                    await is_over.wait()
                assert is_over.is_set() == (sniffio.current_async_library() == "asyncio")
                assert not handler.gone.is_set()
                released.set()
            await handler.gone.wait()
            await is_over.wait()
    [record] = complaints(log)
    assert record.levelno == logging.ERROR
    assert str(peer.address) in record.getMessage()


# Crashes


async def generate() -> AsyncGenerator[None, None]:
    with anyio.CancelScope():
        while True:
            yield


class CrashingRequestHandler(Watched):
    """Crashes in the way that the request names."""

    async def handle(self, client: Client) -> Requests:
        request = yield
        if request.text == "exit":
            raise SystemExit(2)
        if request.text == "await a cancelled task":
            task = asyncio.ensure_future(asyncio.sleep(60))
            task.cancel()
            await task
        if request.text == "leave a scope open":
            anyio.CancelScope().__enter__()
        if request.text == "leave a task group open":
            await anyio.create_task_group().__aenter__()
        if request.text == "leave a generator open":
            self.generator = generate()
            async for _ in self.generator:
                break
        if request.text == "close a generator":
            async with contextlib.aclosing(generate()) as generator:
                async for _ in generator:
                    break
        if request.text == "end":
            raise LookupError("an end")
        await client.send_packet(Response(request.text))


@pytest.mark.parametrize(
    "crash",
    [
        *("exit", "await a cancelled task"),
        *("leave a scope open", "leave a task group open", "leave a generator open"),
    ],
)
async def test_crashes(crash: str, log: pytest.LogCaptureFixture) -> None:
    """Crashes without an Exception also end the connection of one client only.

    "It ends the connection of one client, and the server logs one error. The server and the other
    clients are not affected."

    "The log shows a RuntimeError, and the original exception is its __cause__."

    "Cancellations that the server did not request, for example because the handler awaits a
    cancelled task."

    "Cancel scopes and task groups of anyio or trio that handle() has entered but not exited. The
    server detects them when the connection ends, at the latest. It detects those of asyncio itself
    only when they cancel something. If you leave a loop over an asynchronous generator early, the
    generator may have a scope open. Use contextlib.aclosing() to close the generator."
    """
    if "cancelled" in crash and sniffio.current_async_library() == "trio":
        pytest.skip("tasks of trio cannot be cancelled one by one")
    handler = CrashingRequestHandler()
    async with serve(handler) as server, connected(server) as other:
        assert await other.ask("before") == "Response before"
        async with connected(server) as peer:
            await peer.send(crash)
            if "open" in crash:
                assert await peer.receive() == f"Response {crash}"
                peer.socket.shutdown(socket.SHUT_WR)
            assert await peer.ending() == "connection reset"
        assert await other.ask("after") == "Response after"
        async with connected(server) as newcomer:
            assert await newcomer.ask("close a generator") == "Response close a generator"
            assert await newcomer.ask("hello") == "Response hello"
        if "generator" in crash:
            with contextlib.suppress(RuntimeError):  # its scope belongs to a task that has ended
                await handler.generator.aclose()
    [record] = complaints(log)
    assert record.levelno == logging.ERROR
    assert record.exc_info
    error = record.exc_info[1]
    assert isinstance(error, RuntimeError)
    assert isinstance(error.__cause__, SystemExit) == (crash == "exit")


async def test_task_group_around_a_yield(log: pytest.LogCaptureFixture) -> None:
    """A task group around a yield ends with the connection.

    "A yield may be inside a task group. If the client disconnects during this yield, the tasks of
    the group are cancelled when the generator is closed. This is a normal end of the connection,
    and no error is logged."
    """
    cancelled = anyio.Event()

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(work)
                while True:
                    request = yield
                    await client.send_packet(Response(request.text))

    handler = Handler()
    async with serve(handler) as server:
        async with connected(server) as peer:
            assert await peer.ask("hello") == "Response hello"
        await handler.gone.wait()
        assert cancelled.is_set()
        async with connected(server) as peer:
            assert await peer.ask("hello") == "Response hello"
    assert not complaints(log)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_server(kind: type[BaseException]) -> None:
    """Two exceptions stop the whole server.

    "Two exceptions stop the server: KeyboardInterrupt, and SystemExit in a task of asyncio that
    your code has started. In the second case, asyncio itself stops the event loop."
    """

    async def leave() -> None:
        raise kind

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            yield
            if kind is KeyboardInterrupt:
                raise kind
            await asyncio.create_task(leave())

    async def main() -> None:
        async with serve(Handler()) as server, connected(server) as peer:
            await peer.send("hello")
            await peer.ending()
            await anyio.sleep_forever()

    with pytest.raises((kind, BaseExceptionGroup)) as caught:
        asyncio.run(main())
    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert type(error) is kind


async def test_log_of_crashes(log: pytest.LogCaptureFixture) -> None:
    """The server limits the number of errors that it logs.

    "The first error of each kind is logged with its traceback, and again after a minute. Two errors
    are of the same kind if they have the same class and took the same path through the code."

    "Of all other errors and warnings, the server logs at most three lines per second. It counts the
    rest, and logs their number: 12 more problems with clients were not logged."
    """
    count = 20
    begin = time.monotonic()
    async with serve(CrashingRequestHandler()) as server:
        for request in ["exit"] + ["end"] * (count - 1):
            async with connected(server) as peer:
                await peer.send(request)
                assert await peer.ending() == "connection reset"
    seconds = time.monotonic() - begin + 2  # those that have begun
    records = complaints(log)
    messages = [record.getMessage() for record in records]
    skipped = [int(message.split()[0]) for message in messages if "more problems" in message]
    assert any(
        re.fullmatch(r"\d+ more problems with clients were not logged", message)
        for message in messages
    )
    with_traceback = [record for record in records if record.exc_info]
    assert len(with_traceback) == 2
    others = len(records) - len(skipped) - 2
    assert 0 < others <= 3 * seconds
    assert 2 + others + sum(skipped) == count


async def test_log_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logging filter that raises an exception does not affect a connection.

    "If a logging handler or filter raises an exception, sys.unraisablehook() gets that exception,
    and the connection continues."
    """
    reports: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: reports.append(args.exc_value))

    def fail(record: logging.LogRecord) -> bool:
        raise LookupError("a bug in the filter")

    logger = logging.getLogger("easynetwork.servers.async_tcp")
    async with serve(WatchedMinimum()) as server:
        logger.addFilter(fail)
        try:
            async with connected(server) as peer:
                assert await peer.ask("hello") == "Response hello"
        finally:
            logger.removeFilter(fail)
    assert {type(report) for report in reports} == {LookupError}


# Client metadata


async def test_metadata() -> None:
    """The attributes of a client contain the addresses of its socket.

    "remote_address is the address of the client; local_address is the address that the client
    connected to. Both have a host and a port, both compare equal to the plain tuples that socket
    uses, and both remain available after the client has disconnected. socket gives access to the
    options of the socket."
    """

    class Handler(Watched, examples.ClientExtraAttributesRequestHandler):
        pass

    handler = Handler()
    async with serve(handler) as server:
        async with connected(server) as peer:
            host, port = peer.address
            assert await peer.ask("hello") == f"Response {host}:{port} said hello"
            [client] = handler.clients
            options = client.extra(INETClientAttribute.socket)
            assert options.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            peername = peer.socket.getpeername()
        await handler.gone.wait()
        assert client.extra(INETClientAttribute.remote_address) == peer.address
        assert client.extra(INETClientAttribute.local_address) == peername


# Sending packets


class Narrow(Watched):
    """Makes the buffer of the operating system small."""

    def on_connection(self, client: Client) -> Any:
        options = client.extra(INETClientAttribute.socket)
        options.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return super().on_connection(client)


async def test_slow_client() -> None:
    """Many tasks send to a client that does not read, each with a timeout.

    "While more than 64 KiB are waiting to be sent to a client, send_packet() waits for its turn, in
    the order of the calls. It then hands over its packet, and waits until the client has read
    enough. So at most 64 KiB and one packet are waiting for a client, regardless of how many tasks
    send."

    "for example because of a timeout, sends its whole packet or nothing. If it is cancelled before
    its turn, nothing is sent. After its turn, the packet is still sent. In both cases, you can
    still use the client."

    "Several tasks can send at the same time: their packets are never mixed."
    """
    assert HIGH_WATER == 64 * 1024
    size = 30_000

    class Handler(Narrow):
        async def handle(self, client: Client) -> Requests:
            yield
            async with anyio.create_task_group() as task_group:
                for number in range(200):
                    task_group.start_soon(self.send, client, number)
            self.calls.append("sent")
            yield
            await client.send_packet(Response("still there"))
            await client.aclose()

        async def send(self, client: Client, number: int) -> None:
            with anyio.move_on_after(0.1):
                await client.send_packet(Response(f"{number:03} ".ljust(size, "x")))

    handler = Handler()
    async with serve(handler) as server, connected(server, room=4096) as peer:
        await peer.send("go")
        await until(lambda: "sent" in handler.calls)
        await peer.send("go on")
        numbers = []
        while (answer := await peer.receive()) != "Response still there":
            assert len(answer) == len("Response ") + size
            numbers.append(int(answer.split()[1]))
        assert await peer.ending() == "end of the stream"
    assert len(set(numbers)) == len(numbers)
    # What the kernel's two buffers take is small, but not known.
    assert HIGH_WATER // size <= len(numbers) < 20


async def test_gathered_answers() -> None:
    """Responses do not wait until the handler has finished the next request.

    "Responses to requests that arrived together are sent together, in the next iteration of the
    event loop at the latest, regardless of what the handler waits for."
    """

    class Handler(Watched):
        async def handle(self, client: Client) -> Requests:
            request = yield
            if request.text == "wait":
                await anyio.sleep_forever()
            await client.send_packet(Response(request.text))

    async with serve(Handler()) as server, connected(server) as peer:
        assert await peer.ask("one", "two", "wait", "three") == "Response one"
        assert await peer.receive() == "Response two"


# Connection hooks


async def test_hooks(capsys: pytest.CaptureFixture[str]) -> None:
    """The server calls the hooks before the first and after the last handle().

    "Two other methods, which you can override, deal with connections"

    "The server calls on_connection() once, when the task of a new client starts, before handle()."

    "The server calls on_disconnection() once, when that task ends, after the last handle()."
    """

    class Handler(Watched, examples.ClientConnectionHooksRequestHandler):
        pass

    handler = Handler()
    async with serve(handler) as server:
        async with connected(server) as peer:
            assert await peer.receive() == "Response Welcome!"
            assert await peer.ask("hello") == "Response hello"
            assert len(handler.connected) == 1
        await handler.gone.wait()
    assert handler.calls == ["on_connection", "handle", "handle", "on_disconnection"]
    assert not handler.connected
    arrival, departure = capsys.readouterr().out.splitlines()
    assert arrival == f"{handler.clients[0]!r} is connected"
    assert departure == f"{handler.clients[0]!r} is disconnected"
    assert str(peer.address) in arrival


@pytest.mark.parametrize("ending", ["leave", "close", "fail", "stop"])
async def test_how_it_ended(ending: str) -> None:
    """is_closing() in on_disconnection() tells whether a last packet can be sent.

    "In on_disconnection(), client.is_closing() tells you how the connection ended."

    "It returns true if the client disconnected or you closed the client; sending then raises
    ClientClosedError. It returns false if an exception left handle() or the server is stopping: the
    client may still be connected, and you can send a last packet before the connection is closed."
    """

    class Handler(Watched):
        closing: bool | None = None
        is_refused = False

        async def handle(self, client: Client) -> Requests:
            request = yield
            if request.text == "close":
                await client.aclose()
            elif request.text == "fail":
                raise LookupError("a bug in the handler")
            await client.send_packet(Response(request.text))

        async def on_disconnection(self, client: Client) -> None:
            self.closing = client.is_closing()
            try:
                await client.send_packet(Response("Sorry"))
            except ClientClosedError:
                self.is_refused = True
            self.gone.set()

    handler = Handler()
    async with serve(handler) as server, connected(server) as peer:
        if ending == "leave":
            await peer.ask("hello")
            peer.close()
        elif ending == "stop":
            await peer.ask("hello")
            await server.shutdown()
        else:
            await peer.send(ending)
        if ending in ("fail", "stop"):
            assert await peer.receive() == "Response Sorry"
            is_reset = ending == "fail"
            assert await peer.ending() == ("connection reset" if is_reset else "end of the stream")
        await handler.gone.wait()
    assert handler.closing is (ending in ("leave", "close"))
    assert handler.is_refused is handler.closing


async def test_last_packet_is_not_read() -> None:
    """A client that does not read cannot delay the end of its connection.

    "The client has 30 seconds to read the data that is waiting for it. If it does not, the
    connection is reset, and a waiting send_packet() raises ConnectionError, in this method and in
    all other tasks."
    """
    assert Limits().close_timeout == 30
    errors: list[ConnectionError] = []

    async def send_for_ever(client: Client) -> None:
        try:
            while True:
                await client.send_packet(Response("x" * 20_000_000))
        except ConnectionError as exc:
            errors.append(exc)

    class Handler(Watched):
        async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
            self.tasks = await exit_stack.enter_async_context(anyio.create_task_group())

        async def handle(self, client: Client) -> Requests:
            yield
            self.tasks.start_soon(send_for_ever, client)
            raise LookupError("a bug in the handler")

        async def on_disconnection(self, client: Client) -> None:
            await send_for_ever(client)
            await super().on_disconnection(client)

    handler = Handler()
    async with (
        serve(handler, limits=Limits(close_timeout=0.1)) as server,
        connected(server) as peer,
    ):
        await peer.send("hello")
        await handler.gone.wait()
        await until(lambda: len(errors) == 2)
        assert await peer.ending() == "connection reset"


async def test_failing_on_connection() -> None:
    """If on_connection() fails, the server calls no other method for this client.

    "If on_connection() raises an exception, neither handle() nor on_disconnection() is called."
    """

    class Handler(Watched, examples.MinimumRequestHandler):
        async def on_connection(self, client: Client) -> None:
            raise LookupError("a bug in the handler")

    handler = Handler()
    async with serve(handler) as server:
        assert await turned_away(server) == "connection reset"
    assert handler.calls == []


class WatchedLogin(Watched, examples.ClientConnectionAsyncGenRequestHandler):
    pass


async def test_login() -> None:
    """on_connection() receives the first request.

    "on_connection() can also be an asynchronous generator. It then receives requests with yield, as
    handle() does. You can use this for a login"

    "Unlike handle(), this generator runs once: on_connection() receives the first request, and
    handle() receives the others."
    """
    handler = WatchedLogin()
    async with serve(handler) as server:
        async with connected(server) as peer:
            assert await peer.receive() == "Response Who are you?"
            assert await peer.ask("Zoe", "hello") == "Response Zoe said hello"
            assert await peer.ask("bye") == "Response Zoe said bye"
        await handler.gone.wait()
    assert handler.calls == ["on_connection", *["handle"] * 3, "on_disconnection"]
    assert not handler.names


async def test_login_left_halfway(log: pytest.LogCaptureFixture) -> None:
    """A client that disconnects during the login leaves nothing to clean up.

    "If the client disconnects while on_connection() waits, the generator is closed and
    on_disconnection() is not called: line 11 has not run, so self.names has no entry to remove."
    """
    handler = WatchedLogin()
    async with serve(handler) as server, connected(server) as peer:
        assert await peer.receive() == "Response Who are you?"
        peer.socket.shutdown(socket.SHUT_WR)
        assert await peer.ending() in ("end of the stream", "connection reset")
    assert handler.calls == ["on_connection"]
    assert not handler.names
    assert not complaints(log)


# Service initialization


async def check_service(handler_class: type[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Check that a service's task runs while clients are served, and ends with the server."""
    handler = reporting(handler_class, capsys)
    async with serve(handler) as server, connected(server) as peer:
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

    "while the server serves clients (handle(), not shown, counts the requests)"
    """
    await check_service(examples.ServiceInitializationHookRequestHandlerWithServerBackend, capsys)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_interval_of_reports(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The task waits for a minute.

    "This handler starts the task report(), which prints the number of requests every 60 seconds"
    """
    check_interval(examples, protocol(), backend, capsys)


async def test_service_init() -> None:
    """service_init() runs before the first client, and its stack is unwound after the last one.

    "Set up everything that the whole service needs in service_init()."

    "The server calls this method at the start of serve_forever(), before it accepts the first
    client"

    "After the last client has disconnected, the server unwinds the stack: context managers exit and
    callbacks run, in reverse order."

    "The sockets are already open when service_init() runs, so server.get_addresses() returns the
    addresses that the server listens on."

    "server is a weak reference to the server: a handler that stores it does not keep the server
    alive."
    """

    class Handler(Watched, examples.MinimumRequestHandler):
        async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
            exit_stack.callback(self.calls.append, "undo the first thing")
            exit_stack.callback(self.calls.append, "undo the second thing")
            self.server = server
            [self.address] = server.get_addresses()
            with socket.create_connection(self.address, timeout=PATIENCE):
                await anyio.wait_all_tasks_blocked()
                self.calls.append("service_init")

    handler = Handler()
    async with serve(handler) as server, connected(server) as peer:
        await handler.gone.wait()
        await peer.ask("hello")
        assert peer.socket.getpeername() == handler.address
        assert handler.server is not server
        await server.shutdown()
    assert handler.calls[0] == "service_init"
    assert handler.calls[-3:] == [
        "on_disconnection",
        "undo the second thing",
        "undo the first thing",
    ]
    del server
    gc.collect()
    with pytest.raises(ReferenceError):
        handler.server.get_addresses()


async def test_failing_service() -> None:
    """An exception in a background task ends the service.

    "Catch the exceptions of your background task inside the task."

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
        async with serve(handler) as server, connected(server) as peer:
            await peer.ask("hello")
            handler.trouble.set()
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await service()
    assert caught.group_contains(LookupError, match="a bug in the task")


# Per-client variables with ``contextvars``


async def test_context() -> None:
    """Each client has its own context.

    "Context variables save you from passing client through every function. Each client has its own
    task and therefore its own context variables if your asynchronous framework supports them
    (asyncio and trio do)"

    "A value set in on_connection() is visible in every handle() of the same client and in its
    on_disconnection(): self.peer.get() returns it. It is not visible to other clients."
    """
    signatures: list[str] = []

    class Handler(Watched, examples.ClientContextRequestHandler):
        async def on_disconnection(self, client: Client) -> None:
            signatures.append(self.signed("bye"))
            await super().on_disconnection(client)

    handler = Handler()
    async with serve(handler) as server:
        async with connected(server) as one, connected(server) as other:
            for peer in (one, other, one):
                host, port = peer.address
                assert await peer.ask("hello") == f"Response hello, {host}:{port}"
            one.close()
            await handler.gone.wait()
            host, port = one.address
            assert signatures == [f"bye, {host}:{port}"]


async def test_context_of_the_service() -> None:
    """All clients start with a copy of the service's context.

    "Values set in service_init() are the initial values for all clients."
    """
    here = examples.ClientContextRequestHandler.peer

    class Handler(examples.ClientContextRequestHandler):
        async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
            [address] = server.get_addresses()
            here.set(address)

        async def on_connection(self, client: Client) -> None:
            assert here.get() == client.extra(INETClientAttribute.local_address)

    async with serve(Handler()) as server:
        host, port = server.get_addresses()[0]
        for _ in range(2):
            async with connected(server) as peer:
                assert await peer.ask("hello") == f"Response hello, {host}:{port}"


async def test_context_of_two_runs() -> None:
    """A context lasts as long as its connection.

    "The runs of handle() for the same client are not isolated from each other."

    "A value that one run sets with contextvars.ContextVar.set() is still visible in the next run."
    """

    class Handler(Watched, examples.ClientContextRequestHandler):
        async def handle(self, client: Client) -> Requests:
            request = yield
            if request.text == "move":
                self.peer.set(self.peer.get()._replace(host="elsewhere"))
            await client.send_packet(Response(self.signed(request.text)))

    async with serve(Handler()) as server, connected(server) as peer:
        await peer.ask("move")
        assert (await peer.ask("hello")).startswith("Response hello, elsewhere:")


# Server object


def test_async_server() -> None:
    """The program logs what the page shows, and stops at Control-C.

    "The program enables logging."

    "If one client connects and disconnects, and you then press Control-C, the log looks like this"

    "This program runs the first handler of this page. It imports the handler from
    simple_request_handler.py"

    "It runs until it is stopped, here by Control-C. A program that is a server and nothing else can
    call run() instead, which also handles SIGTERM"
    """

    def visit() -> None:
        with socket.create_connection(("localhost", 9000), timeout=PATIENCE) as visitor:
            visitor.sendall(b"Zo\xc3\xab\n")
            assert visitor.makefile("rb").readline() == b"Hello, Zo\xc3\xab!\n"

    check_log_of_program("howto/tcp_servers.rst", FOLDER, 3, visit)


def test_server_of_a_path(tmp_path: Path) -> None:
    """The program of the other tab creates the socket in its folder, and responds to a name.

    "This program contains the handler. It listens on the path greeting.sock instead of a port"
    """
    file = DOCS / "_include/examples/howto/unix_servers/stream_server.py"
    with example(file, tmp_path, "greeting.sock"), socket.socket(socket.AF_UNIX) as visitor:
        visitor.settimeout(PATIENCE)
        visitor.connect(str(tmp_path / "greeting.sock"))
        visitor.sendall("Zoë\n".encode())
        assert visitor.makefile(encoding="utf-8").readline() == "Hello, Zoë!\n"


async def test_listening(log: pytest.LogCaptureFixture) -> None:
    """The context manager opens and closes the sockets.

    "async with opens the listening sockets and closes them at the end of the block. Inside the
    block, serve_forever() accepts clients."

    "If localhost also resolves to an IPv6 address of the machine, the first line shows both
    addresses."
    """
    async with AsyncTCPNetworkServer("localhost", 0, protocol(), WatchedMinimum()) as server:
        addresses = server.get_addresses()
        async with connected(server):
            assert not server.is_serving()
        async with anyio.create_task_group() as task_group:
            is_up = anyio.Event()
            task_group.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            async with connected(server) as peer:
                assert await peer.ask("hello") == "Response hello"
            task_group.cancel_scope.cancel()
    start = next(line for line in log.messages if line.startswith("Start serving"))
    for address in addresses:
        assert str(address) in start
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address[:2], timeout=PATIENCE)


# Handling "Address already in use"


async def start_at(host: str, port: int, **options: Any) -> OSError | None:
    """Start a server and stop it. Return the error if it cannot start."""
    handler = WatchedMinimum()
    try:
        async with AsyncTCPNetworkServer(host, port, protocol(), handler, **options):
            return None
    except OSError as exc:
        return exc


async def test_address_in_use() -> None:
    """A second server at the same port raises the error on the page.

    "If the port is in use, async with raises an OSError that contains the address:"

    "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 9000): Address
    already in use"

    "compare the errno attribute with errno.EADDRINUSE"

    "Another socket listens at this port, at the same address or at all addresses of the machine."
    """
    message = "error while attempting to bind on address ('127.0.0.1', 9000)"
    for address in "127.0.0.1", "0.0.0.0":
        with socket.create_server((address, 9000)):
            error = await start_at("127.0.0.1", 9000)
        assert type(error) is OSError
        assert error.errno == errno.EADDRINUSE
        assert str(error) == f"[Errno {errno.EADDRINUSE}] {message}: Address already in use"


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is not everywhere an address")
async def test_addresses_in_use() -> None:
    """The error of several addresses is a group.

    "If several addresses are in use, an ExceptionGroup of such errors is raised."
    """
    handler = WatchedMinimum()
    hosts = ["127.0.0.1", "127.0.0.2"]
    with contextlib.ExitStack() as stack:
        for host in hosts:
            stack.enter_context(socket.create_server((host, 9000)))
        with pytest.raises(ExceptionGroup) as caught:
            async with AsyncTCPNetworkServer(hosts, 9000, protocol(), handler):
                pass
    for host, error in zip(hosts, caught.value.exceptions, strict=True):
        assert f"('{host}', 9000): Address already in use" in str(error)


@pytest.mark.skipif(shutil.which("ss") is None, reason="ss is not installed")
async def test_program_at_the_port() -> None:
    """The command shows the process that listens.

    "On Linux, this command shows the program and its process ID."
    """
    text = (DOCS / "howto/tcp_servers.rst").read_text(encoding="utf-8")
    shown = re.search(r"^ +\$ (ss .*)\n(.*)\n(.*)$", text, re.MULTILINE)
    assert shown is not None
    command, header, line = shown.groups()
    async with AsyncTCPNetworkServer("127.0.0.1", 9000, protocol(), WatchedMinimum()):
        done = subprocess.run(  # noqa: ASYNC221 - nothing else runs
            shlex.split(command), capture_output=True, encoding="utf-8", check=True
        )
    printed = done.stdout.splitlines()
    assert "".join(printed[0].split()) == "".join(header.split())
    assert printed[1].split()[:5] == line.split()[:5]
    assert f"pid={os.getpid()}," in printed[1]


@pytest.mark.skipif(shutil.which("lsof") is None, reason="lsof is not installed")
async def test_program_at_the_port_on_macos() -> None:
    """The tool of macOS, which other systems have as well, shows the process that listens.

    "On macOS, run lsof -nP -iTCP:9000 -sTCP:LISTEN."
    """
    command = ["lsof", "-nP", "-iTCP:9000", "-sTCP:LISTEN"]
    async with AsyncTCPNetworkServer("127.0.0.1", 9000, protocol(), WatchedMinimum()):
        done = subprocess.run(  # noqa: ASYNC221 - nothing else runs
            command, capture_output=True, encoding="utf-8", check=True
        )
    _, line = done.stdout.splitlines()
    assert line.split()[1] == str(os.getpid())


@pytest.mark.skipif(sys.platform != "win32", reason="that of Windows has other options")
async def test_program_at_the_port_on_windows() -> None:
    """The tool of Windows shows the process that listens.

    "On Windows, run netstat -ano: the last column of the line with :9000 and LISTENING is the
    process ID."
    """
    async with AsyncTCPNetworkServer("127.0.0.1", 9000, protocol(), WatchedMinimum()):
        done = subprocess.run(  # noqa: ASYNC221 - nothing else runs
            ["netstat", "-ano"], capture_output=True, encoding="utf-8", check=True
        )
    lines = [line.split() for line in done.stdout.splitlines() if ":9000 " in line]
    assert [line[-1] for line in lines if "LISTENING" in line] == [str(os.getpid())]


async def test_restart() -> None:
    """A server can start again although the connections of its last run are in TIME_WAIT.

    "A server that has ended does not cause this error: you can start it again at once. The
    operating system keeps its old connections for about a minute (TIME_WAIT), and would refuse the
    port until then. So on POSIX systems, the server sets SO_REUSEADDR. This option does not allow
    two servers to listen at the same time."
    """
    async with serve(examples.ConnectionCloseRequestHandler()) as server:
        port = server.get_addresses()[0].port
        async with connected(server) as peer:
            await peer.ask("hello")
            assert await peer.ending() == "end of the stream"
    with socket.socket() as sock, pytest.raises(OSError, match="Address already in use"):
        sock.bind(("127.0.0.1", port))
    async with AsyncTCPNetworkServer("127.0.0.1", port, protocol(), WatchedMinimum()):
        assert isinstance(await start_at("127.0.0.1", port), OSError)


async def test_reuse_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several servers share a port if all of them allow it.

    "If several processes must listen on the same port, pass reuse_port=True to each server
    (SO_REUSEPORT). The operating system then passes each connection to one of the processes. On
    Windows, this raises ValueError."

    "the other process would still receive a part of the connections"
    """
    one, other = WatchedMinimum(), WatchedMinimum()
    async with serving(one, protocol(), reuse_port=True) as server:
        host, port = server.get_addresses()[0][:2]
        assert isinstance(await start_at(host, port), OSError)
        async with serving(other, protocol(), port=port, reuse_port=True):
            for _ in range(40):
                async with connected(server) as peer:
                    await peer.ask("hello")
    assert len(one.clients) + len(other.clients) == 40
    assert one.clients != []
    assert other.clients != []
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(ValueError, match="reuse_port"):
        await start_at(host, port, reuse_port=True)


# Running the server in the background


def test_background_server() -> None:
    """Each of the program's three requests is handled in its own task.

    "serve_forever() can share the event loop with the rest of your program. Run it in a task"

    "The output looks like this, but the port numbers differ"

    "The three clients are handled in three tasks: each client has its own task, which is named
    after the client's address."
    """
    answers = answers_of_program(FOLDER)
    assert len({answer["task"] for answer in answers}) == 3
    page = (DOCS / "howto/tcp_servers.rst").read_text(encoding="utf-8")
    shown = re.findall(r"^   From server: (.*)$", page.partition("_ssl.py")[0], re.MULTILINE)
    assert [re.sub(r"\d{2,}", "N", each) for each in shown] == [
        re.sub(r"\d{2,}", "N", str(answer)) for answer in answers
    ]


async def test_shutdown() -> None:
    """A program can wait until the server has started and until it has stopped.

    "The is_up event is set when the server is ready to accept clients. shutdown() stops the server
    and waits until it has stopped. The task then ends normally."
    """

    class Handler(WatchedMinimum):
        async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
            await anyio.wait_all_tasks_blocked()

    handler = Handler()
    async with serve(handler) as server, connected(server) as peer:
        assert server.is_serving()
        await peer.ask("hello")
        await server.shutdown()
        assert not server.is_serving()
        assert handler.calls[-1] == "on_disconnection"
