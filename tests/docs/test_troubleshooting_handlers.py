"""The page with all messages: those in a handler.

Each test provokes messages, and does what the page says of them. See `message_support`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from easynetwork.addresses import SocketAncillary, TLSAttribute
from easynetwork.clients.unix_stream import UnixStreamClient
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.blocking import (
    BlockingClient,
    BlockingDatagramRequestHandler,
    BlockingStreamRequestHandler,
)
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    RecvAncillaryDataParams,
    RecvParams,
)
from easynetwork.testing import serve
from tests.docs.howto_support import check_quotations, until
from tests.docs.memory_support import LINES, Obedient, Script, Stage, play
from tests.docs.message_support import Seen
from tests.times import PATIENCE
from tests.tls_peers import client_context, server_context

PAGE = "troubleshooting.rst"
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())

Client = AsyncStreamClient[str]
Requests = AsyncGenerator[float | None, str]


def test_quotations() -> None:
    """Whatever the tests quote is what the page says."""
    check_quotations(PAGE, globals())


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return the log, with all levels."""
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


class Doing(Obedient):
    """Calls a function with its client, after the first request; notes what that raises."""

    def __init__(self, seen: Seen, function: Callable[[Client], Any]) -> None:
        super().__init__()
        self.seen = seen
        self.function = function

    async def handle(self, client: Client) -> Requests:
        yield None
        with self.seen.raised():
            result = self.function(client)
            if result is not None:
                await result


def errors_of(
    seen: Seen, *functions: Callable[[Client], Any], script: Script = (b"go\n", 5)
) -> None:
    """Note what several functions raise that a handler calls with its client."""
    for function in functions:
        Stage(Doing(seen, function)).play(script)


# -- receiving


def test_timeouts(log: pytest.LogCaptureFixture) -> None:
    """Nothing arrives.

    TimeoutError: "timed out"

    "No packet arrived in the time that you yielded, or passed to recv_packet()."

    "If handle() does not catch it, the client is disconnected."
    """
    seen = Seen()

    class AtYield(Obedient):
        async def handle(self, client: Client) -> Requests:
            with seen.raised():
                yield 3
            raise ConnectionAbortedError

    Stage(AtYield()).play((4,))
    errors_of(seen, lambda client: client.recv_packet(timeout=3))
    stage = Stage()
    stage.play((b"patience 3\n", 4))
    assert stage.statistics.clients == 0
    seen.check(test_timeouts)


def test_closed_clients() -> None:
    """A client that was closed on this side.

    ClientClosedError: "Closed client"

    ClientClosedError: "Client is closing, or is already closed"

    "The client was closed on this side, by aclose(), by the server, or at the end of an async with
    block."
    """
    seen = Seen()

    async def close(client: Client) -> None:
        await client.aclose()
        await client.send_packet("too late")

    errors_of(seen, close)

    async def main() -> None:
        handler = Obedient()
        async with serve(handler, LINES) as served:
            async with await served.connect() as client:
                await client.send_packet("hello")
                await client.recv_packet()
            with seen.raised():
                await client.send_packet("too late")
            other = await served.connect()
            await other.send_packet("hello")
            await other.recv_packet()
            await served.server.shutdown()
            with seen.raised():
                await handler.clients[-1].send_packet("too late")

    play(main)
    seen.check(test_closed_clients)


def test_ends() -> None:
    """No packet will come.

    EndOfStreamError: "The client has left"

    EndOfStreamError: "The server drains"

    "client.recv_packet() waited, and no packet will come."
    """
    seen = Seen()
    errors_of(seen, lambda client: client.recv_packet(), script=(b"go\n", "close", 1))
    errors_of(seen, lambda client: client.recv_packet(), script=(b"go\n", 1, "drain"))
    seen.check(test_ends)


def test_two_receivers() -> None:
    """Two tasks receive.

    BusyResourceError: "Another task, or handle() at its yield, already waits for a packet of this
    client"

    "Only one task at a time may receive from a client."

    "Let one task receive, and pass the packets on."
    """
    seen = Seen()
    received: list[str] = []

    class Two(Obedient):
        async def on_connection(self, client: Client) -> None:
            client.start_soon(self.intrude, client)

        async def intrude(self, client: Client) -> None:
            await anyio.sleep(1)
            with seen.raised():
                await client.recv_packet()

        async def handle(self, client: Client) -> Requests:
            received.append((yield None))

    Stage(Two()).play((2, b"hello\n", 1))
    assert received == ["hello"]
    seen.check(test_two_receivers)


def test_kept_clients() -> None:
    """A client that is kept for too long.

    RuntimeError: "The conversation with this client is over"

    "The client was kept after handle() had ended. Ask client.is_closing() before you use a client
    that you keep."
    """
    seen = Seen()

    async def main() -> None:
        handler = Obedient()
        async with serve(handler, LINES) as served:
            connection = await served.connect(raw=True)
            await connection.send(b"hello\n")
            await connection.receive()
            [client] = handler.clients
            assert not client.is_closing()
            connection.close()
            await anyio.sleep(1)
            assert client.is_closing()
            seen.calls(client.start_soon, anyio.sleep, 1)

    play(main)
    seen.check(test_kept_clients)


def test_threads() -> None:
    """A client belongs to the thread of its event loop.

    RuntimeError: "A client may only be used in the thread of its event loop." "In another thread,
    call its methods with anyio.from_thread.run() or run_sync(), or with the server's portal"
    """
    seen = Seen()

    class Threaded(Obedient):
        async def handle(self, client: Client) -> Requests:
            yield None
            await anyio.to_thread.run_sync(seen.calls, client.abort)
            await anyio.to_thread.run_sync(
                partial(anyio.from_thread.run, client.send_packet, "from a thread")
            )

    stage = Stage(Threaded())
    stage.play((b"hello\n", "read"))
    assert stage.received == b"from a thread\n"
    seen.check(test_threads)


# -- bugs of the handler


def crash_of(handler: Any, log: pytest.LogCaptureFixture, script: Script = (b"go\n", 1)) -> Any:
    """Return the exception that a handler has raised, as it is in the log."""
    log.clear()
    with contextlib.suppress(OSError):
        Stage(handler).play(script)
    [record] = [record for record in log.records if "Exception occurred" in record.getMessage()]
    assert record.exc_info
    return record.exc_info[1]


class WithoutYield(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: Client) -> None:  # type: ignore[override]
        pass


class Plain(AsyncStreamRequestHandler[str, str]):
    def handle(self, client: Client) -> Any:
        return "nothing"


class PlainGreeting(Obedient):
    def on_connection(self, client: Client) -> Any:
        return "nothing"


class Coroutine(BlockingStreamRequestHandler[str, str]):
    async def handle(self, client: BlockingClient[str, str]) -> None:  # type: ignore[override]
        pass


def test_kinds_of_methods(log: pytest.LogCaptureFixture) -> None:
    """Methods have to be functions of the right kind.

    TypeError: "handle() must be an asynchronous generator function, but it has no yield:" "request
    = yield waits for a request"

    TypeError: "handle() must be an asynchronous generator function, but it returned ..."

    TypeError: "on_connection() must be a coroutine function or an asynchronous generator function,
    but it returned ..."

    TypeError: "...() must be a plain method, not ..."

    "Write async def, and a yield in handle()"

    "The last one is about blocking handlers, which have neither."
    """
    seen = Seen()
    for handler in WithoutYield(), Plain(), PlainGreeting():
        seen.note(crash_of(handler, log))
    seen.calls(AsyncTCPNetworkServer, "127.0.0.1", 0, LINES, Coroutine(), "asyncio")
    seen.check(test_kinds_of_methods)


class Raising(Obedient):
    """Raises what the test says."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        self.function = function

    async def handle(self, client: Client) -> Requests:
        yield None
        result = self.function()
        if result is not None:
            await result


class Fatal(BaseException):
    """What is not an Exception."""


def raise_fatal() -> None:
    raise Fatal


async def await_cancelled_task() -> None:
    task = asyncio.get_running_loop().create_task(asyncio.sleep(10))
    task.cancel()
    await task


class OpenScope(Obedient):
    async def handle(self, client: Client) -> Requests:
        anyio.CancelScope().__enter__()
        yield None


def test_exceptions_that_are_none(log: pytest.LogCaptureFixture) -> None:
    """What leaves a handler, and is no error of it at first sight.

    RuntimeError: "The handler raised SystemExit." "That ends this client, not the program: catch it
    where it is raised (argparse raises it for wrong arguments)"

    RuntimeError: "The handler raised ..., which is not an Exception"

    RuntimeError: "The handler let out a cancellation that was not its own"

    RuntimeError: "The handler left a cancel scope open." "Leave it in the generator that has
    entered it, and close the generators that you do not exhaust (contextlib.aclosing)"

    "These are bugs of the handler, and the original exception is the cause of this one"
    """
    seen = Seen()
    parse = partial(argparse.ArgumentParser(exit_on_error=True).parse_args, ["--wrong"])
    causes = []
    for handler in Raising(parse), Raising(raise_fatal), Raising(await_cancelled_task), OpenScope():
        seen.note(crash_of(handler, log))
        causes.append(type(seen.errors[-1].__cause__))
    assert causes == [SystemExit, Fatal, asyncio.CancelledError, RuntimeError]
    seen.check(test_exceptions_that_are_none)


def test_groups(log: pytest.LogCaptureFixture) -> None:
    """Several tasks fail.

    BaseExceptionGroup: "Errors of a client"

    "Several tasks of the handler have failed. Each exception is in the group."
    """
    seen = Seen()

    class Failing(Obedient):
        async def on_connection(self, client: Client) -> None:
            for error in LookupError("one"), ValueError("two"):
                client.start_soon(self.fail, error)

        async def fail(self, error: Exception) -> None:
            await anyio.sleep(1)
            raise error

    group = crash_of(Failing(), log, (2,))
    seen.note(group)
    assert {type(error) for error in group.exceptions} == {LookupError, ValueError}
    seen.messages[-1] = seen.messages[-1].replace("ExceptionGroup", "BaseExceptionGroup")
    seen.check(test_groups)


# -- what a client does not have


def test_attributes() -> None:
    """Attributes that not all clients have.

    TypedAttributeLookupError: "Attribute not found"

    TypedAttributeLookupError: "value not available"

    "This client does not have this attribute. For example, there is no certificate without TLS.
    Pass a default to client.extra()."
    """
    seen = Seen()

    def ask(client: Client) -> None:
        assert client.extra(TLSAttribute.peercert, None) is None
        client.extra(TLSAttribute.peercert)

    errors_of(seen, ask)

    async def main() -> None:
        handler = Doing(seen, ask)
        async with serve(handler, LINES, ssl=server_context()) as served:
            client = await served.connect(ssl=client_context(), server_hostname="localhost")
            await client.send_packet("go")
            await anyio.sleep(1)

    play(main)
    seen.check(test_attributes)


def test_limits_of_a_client() -> None:
    """Only timeouts can be changed for one client.

    "TypeError: ... cannot be changed for one client: only timeouts can"

    "Pass this limit to the server"
    """
    seen = Seen()
    set_limits: Any = lambda client: client.set_limits(max_clients=3)  # noqa: E731
    errors_of(seen, set_limits)
    seen.check(test_limits_of_a_client)

    class Patient(Obedient):
        async def on_connection(self, client: Client) -> None:
            client.set_limits(idle_timeout=3)

    stage = Stage(Patient())
    stage.play((b"hello\n", 4))
    assert stage.statistics.clients == 0


class Generated(StringLineSerializer):
    """Parses with a generator."""

    def incremental_deserialize(self) -> Any:
        return (yield from super().incremental_deserialize())


def test_changes_at_the_wrong_moment() -> None:
    """A connection that cannot be changed now.

    RuntimeError: "The connection uses TLS already"

    RuntimeError: "It is not known where the next packet begins"

    RuntimeError: "The protocol object has got the beginning of the next packet"

    "start_tls() or set_protocol() is not possible at this moment. Call it when the packet before
    has been received, and no earlier"
    """
    seen = Seen()

    async def change(client: Any) -> None:
        with contextlib.suppress(TimeoutError, StreamProtocolParseError):
            await client.recv_packet(timeout=1)
        with seen.raised():
            client.set_protocol(LINES)
        raise ConnectionAbortedError

    async def play_with(protocol: Any, data: bytes) -> None:
        async with serve(Doing(Seen(), change), protocol) as served:
            connection = await served.connect(raw=True)
            await connection.send(data)
            await anyio.sleep(2)

    async def start_twice() -> None:
        handler = Doing(seen, lambda client: client.start_tls(server_context()))
        async with serve(handler, LINES, ssl=server_context()) as served:
            client = await served.connect(ssl=client_context(), server_hostname="localhost")
            await client.send_packet("go")
            await anyio.sleep(1)

    play(partial(play_with, StreamProtocol(Generated(encoding="utf-8")), b"go\nhal"))
    documents: Any = StreamProtocol(JSONSerializer(use_lines=False, limit=10))
    play(partial(play_with, documents, b'"go" {"a": "' + b"x" * 20))
    play(start_twice)
    seen.check(test_changes_at_the_wrong_moment)

    async def change_in_time() -> None:
        class Changing(Obedient):
            async def handle(self, client: Client) -> Requests:
                request = yield None
                client.set_protocol(LINES)
                await client.send_packet(request)

        async with serve(Changing(), LINES) as served:
            client = await served.connect()
            for _ in range(2):
                await client.send_packet("hello")
                assert await client.recv_packet() == "hello"

    play(change_in_time)


def test_operations_that_are_not_there() -> None:
    """What some transports cannot do.

    UnsupportedOperation: "This client does not have ancillary data support."

    UnsupportedOperation: "There is no connection"

    UnsupportedOperation: "Only clients with a connection have set_protocol()"

    UnsupportedOperation: "Only clients with a connection have start_tls()"

    "This transport, or this platform, cannot do that. Ancillary data needs a Unix socket, and an
    option of the server"
    """
    seen = Seen()
    send: Any = lambda client: client.send_packet_with_ancillary("x", ANCILLARY)  # noqa: E731
    errors_of(seen, send)

    class Blocking(BlockingDatagramRequestHandler[str, str]):
        def handle(self, client: BlockingClient[str, str]) -> None:
            client.recv_packet()
            seen.calls(client.close)
            client.send_packet("done")

    async def main() -> None:
        async with serve(Blocking(), DATAGRAMS) as served:
            client: Any = await served.connect()
            await client.send_packet("hello")
            assert await client.recv_packet() == "done"
            for change, argument in (client.set_protocol, LINES), (client.start_tls, True):
                with seen.raised():
                    result = change(argument)
                    if result is not None:
                        await result

    play(main)
    seen.check(test_operations_that_are_not_there)


ANCILLARY: Any = None


# -- ancillary data


class Asking(AsyncStreamRequestHandler[str, str]):
    """Asks for ancillary data, in which it has no interest; notes errors."""

    def __init__(self, seen: Seen, receive: Callable[[Any], object]) -> None:
        self.seen = seen
        self.receive = receive

    async def handle(self, client: Client) -> AsyncGenerator[Any, str]:
        try:
            request = yield RecvParams(recv_with_ancillary=RecvAncillaryDataParams(self.receive))
        except Exception as exc:
            self.seen.note(exc)
            request = yield None
        await client.send_packet(request)


def close_all(ancillary: Any) -> None:
    found = SocketAncillary()
    found.update_from_raw(ancillary)
    for descriptor in found.iter_fds():
        os.close(descriptor)


def crash(ancillary: Any) -> None:
    close_all(ancillary)
    raise LookupError("a bug")


@pytest.mark.skipif(sys.platform != "linux", reason="the texts are those of Linux")
def test_ancillary_data(unix_path: str) -> None:
    """Descriptors do not come together with their packet.

    UnsupportedOperation: "The server is not configured to handle ancillary data
    (ancillary_bufsize=None)."

    EOFError: "Received partial packet data"

    "OSError: ancillary data was cut off: it is longer than the ... bytes of its buffer, or the
    process has no descriptor left (ulimit -n)"

    "OSError: packet of ... bytes is too long to be sent with ancillary data: at most ... bytes fit"

    RuntimeError: "RecvAncillaryDataParams.data_received() crashed"

    "Something is wrong with ancillary data."

    "A packet with ancillary data must be sent and received in one piece"

    "If a callback of yours crashed, its exception is the cause."
    """
    seen = Seen()

    async def main(bufsize: int, receive: Any, data: bytes, descriptors: int) -> None:
        handler = Asking(seen, receive)
        server: Any = AsyncUnixStreamServer(unix_path, LINES, handler, ancillary_bufsize=bufsize)
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(partial(server.serve_forever, is_up_event=is_up))
            await is_up.wait()
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(unix_path)
                before = len(seen.errors)
                socket.send_fds(sock, [data], [sock.fileno()] * descriptors)
                if not data.endswith(b"\n"):
                    await until(lambda: len(seen.errors) > before)
                    sock.sendall(b"lo\n")
                sock.settimeout(PATIENCE)
                received = await anyio.to_thread.run_sync(sock.recv, 100)
                assert received == b"hello\n"
            await server.shutdown()

    Stage(Asking(seen, close_all)).play((b"hello\n", "read"))  # over TCP, there is no such option
    anyio.run(main, 1000, close_all, b"hel", 1)
    anyio.run(main, socket.CMSG_SPACE(8), close_all, b"hello\n", 20)
    anyio.run(main, 1000, crash, b"hello\n", 1)
    assert isinstance(seen.errors[-1].__cause__, LookupError)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(unix_path)
        listener.listen()
        with UnixStreamClient[str, str](unix_path, LINES) as client:
            seen.calls(client.send_packet, "x" * 1_000_000, ancillary_data=SocketAncillary())
    seen.check(test_ancillary_data)
