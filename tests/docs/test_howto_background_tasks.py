"""Test the statements and the examples of the page about tasks of a connection.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.from_thread
import pytest

from docs._include.examples.howto.background_tasks import reports, searches, ticker
from easynetwork._tuning import CLOSE_TIMEOUT, HIGH_WATER
from easynetwork.exceptions import BusyResourceError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.limits import Limits
from easynetwork.testing import converse, serve, virtual_time
from tests.docs.howto_support import (
    Peer,
    Watched,
    check_quotations,
    complaints,
    connected,
    in_thread,
    serving,
    until,
)
from tests.docs.virtual_support import virtual
from tests.times import PATIENCE, SOON

pytestmark = pytest.mark.anyio

Client = AsyncStreamClient[str]

LINES = StreamProtocol[str, str](StringLineSerializer())


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/background_tasks.rst", globals())


def half_close(peer: Peer) -> None:
    peer.socket.shutdown(socket.SHUT_WR)


async def settle() -> None:
    """Let the other tasks do what they can do without waiting for a time."""
    await anyio.sleep(0.001)


# Starting a task


def test_where_to_start() -> None:
    """A task can be started in two places, and ends with its client only.

    "client.start_soon() runs a coroutine function in a task that belongs to the client. You can
    call it in handle() and in on_connection()."
    """
    ended: list[str] = []
    tasks: set[int] = set()

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def on_connection(self, client: Client) -> None:
            client.start_soon(self.run, client, "on_connection")

        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            tasks.add(anyio.get_current_task().id)
            yield
            client.start_soon(self.run, client, "handle")

        async def run(self, client: Client, name: str) -> None:
            tasks.add(anyio.get_current_task().id)
            await client.send_packet(name)
            try:
                await anyio.sleep_forever()
            finally:
                ended.append(name)

    async def main() -> None:
        async with serve(Handler(), LINES) as served:
            one, other = await served.connect(), await served.connect()
            assert await other.recv_packet() == await one.recv_packet() == "on_connection"
            await one.send_packet("hello")
            assert await one.recv_packet() == "handle"
            await settle()
            assert not ended
            await one.aclose()
            await settle()
            assert sorted(ended) == ["handle", "on_connection"]
            assert len(tasks) == 5

    anyio.run(main, backend_options=virtual_time())


def test_one_receives() -> None:
    """A task and the handler cannot both wait for a packet.

    "Only one task at a time may receive"
    """

    async def receive(client: Client) -> None:
        with pytest.raises(BusyResourceError):
            await client.recv_packet()
        await client.send_packet("busy")

    async def main() -> None:
        async with converse(Starting(receive), LINES) as conversation:
            await conversation.send("hello")
            await conversation.expect("hello", "busy")

    anyio.run(main, backend_options=virtual_time())


async def test_ticker(log: pytest.LogCaptureFixture) -> None:
    """The example sends ticks and responses.

    "while handle() waits for requests"
    """

    class Handler(ticker.TickerRequestHandler):
        interval = 0.01

    async with serving(Handler()) as server, connected(server) as peer:
        assert await peer.receive() == "tick 1"
        await peer.send("hello")
        lines = ["tick 1"]
        while "You said hello" not in lines or "tick 9" not in lines:
            lines.append(await peer.receive())
        lines.remove("You said hello")
        assert lines == [f"tick {number}" for number in range(1, len(lines) + 1)]
    assert not complaints(log)


@virtual
async def test_ticks() -> None:
    """The ticks of the example have this interval.

    "This server sends a tick to each client every 0.1 seconds, with try_send_packet()"
    """
    async with serve(ticker.TickerRequestHandler(), LINES) as served:
        peer = await served.connect(raw=True)
        start = anyio.current_time()
        for number in 1, 2, 3:
            assert await peer.receive() == f"tick {number}\n".encode()
            assert anyio.current_time() - start == pytest.approx(number * 0.1)


class Starting(Watched, AsyncStreamRequestHandler[str, str]):
    """Runs a function in a task of each client, and notes what happens."""

    def __init__(self, func: Callable[[Client], Any]) -> None:
        super().__init__()
        self.func = func

    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        try:
            line = yield
        except GeneratorExit:
            self.calls.append("closed")
            raise
        except BaseException:
            self.calls.append("cancelled")
            raise
        client.start_soon(self.run, client)
        await client.send_packet(line)

    async def run(self, client: Client) -> None:
        try:
            await self.func(client)
        except anyio.get_cancelled_exc_class():
            self.calls.append("task cancelled")
            raise


@pytest.mark.parametrize("leave", [half_close, Peer.reset])
async def test_end_of_a_task(leave: Callable[[Peer], None], log: pytest.LogCaptureFixture) -> None:
    """A task runs until the connection ends.

    "The task may outlive the run of handle() that started it."

    "When the connection ends, and handle() with it, the task is cancelled. This happens after the
    generator is closed and before on_disconnection(). The server waits for the task for at most 30
    seconds."
    """
    assert CLOSE_TIMEOUT == 30
    handler = Starting(lambda client: anyio.sleep_forever())
    async with serving(handler) as server, connected(server) as peer:
        assert await peer.ask("one") == "one"
        assert await peer.ask("two") == "two"
        leave(peer)
        await handler.gone.wait()
    assert handler.calls == [
        *["on_connection", "closed", "task cancelled", "task cancelled", "on_disconnection"],
    ]
    assert not complaints(log)


async def test_context() -> None:
    """A task has a copy of its creator's context.

    "It can do everything that handle() can, and sees the context variables of its creator."
    """
    variable: ContextVar[str] = ContextVar("variable")

    class Handler(Starting):
        async def on_connection(self, client: Client) -> None:
            variable.set("of the client")

    async def converse(client: Client) -> None:
        await client.send_packet(variable.get())

    async with serving(Handler(converse)) as server, connected(server) as peer:
        await peer.send("hello")
        assert {await peer.receive(), await peer.receive()} == {"hello", "of the client"}


@pytest.mark.parametrize("error", [ZeroDivisionError, ConnectionError])
async def test_exception(error: type[Exception], log: pytest.LogCaptureFixture) -> None:
    """An exception of a task ends its client.

    "An exception that leaves the task ends the connection of this client, and is logged as if it
    had left handle(). A ConnectionError of this client is not logged."
    """

    async def fail(client: Client) -> None:
        if error is ZeroDivisionError:
            raise ZeroDivisionError
        await client.recv_packet()  # after the end of the connection

    class Handler(Starting):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            client.start_soon(self.run, client)
            await anyio.sleep_forever()

    handler = Handler(fail)
    async with serving(handler) as server, connected(server) as peer:
        await peer.send("hello")
        if error is ConnectionError:
            half_close(peer)
        await handler.gone.wait()
    if error is ZeroDivisionError:
        [record] = complaints(log)
        assert record.getMessage().startswith("Exception occurred during processing of request")
        assert record.exc_info
        assert isinstance(record.exc_info[1], ZeroDivisionError)
    else:
        assert not complaints(log)


async def test_task_group(log: pytest.LogCaptureFixture) -> None:
    """A task group of a handler ends with it.

    "A task group around a yield works, too: see howto-crashes. Its tasks end with this run of
    handle()."
    """

    class Handler(Watched):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(anyio.sleep_forever)
                await client.send_packet((yield))
                task_group.cancel_scope.cancel()

    handler = Handler()
    async with serving(handler) as server, connected(server) as peer:
        assert await peer.ask("one") == "one"
        assert await peer.ask("two") == "two"
        half_close(peer)
        await handler.gone.wait()
    assert not complaints(log)


# Detecting dead connections


async def test_heartbeat(log: pytest.LogCaptureFixture) -> None:
    """A client that answers the ping stays, and one that does not is disconnected.

    "handle() sends ping if the client is silent for 30 seconds. If the client does not respond in
    the next 30 seconds, handle() resets the connection with client.abort()."

    "The operating system of the server notices it within three minutes: see keepalive in
    limits."
    """
    assert Limits().keepalive == 60  # and three times that at most, see `test_howto_limits`
    assert ticker.TickerRequestHandler.patience == 30

    class Handler(Watched, ticker.TickerRequestHandler):
        interval = 60.0
        patience = SOON

    handler = Handler()
    async with serving(handler) as server, connected(server) as peer:
        assert await peer.receive() == "ping"
        assert await peer.ask("pong") == "ping"
        assert await peer.ask("hello") == "You said hello"
        assert await peer.receive() == "ping"
        assert await peer.ending() == "connection reset"
        await handler.gone.wait()
    assert not complaints(log)


def test_heartbeat_is_quicker() -> None:
    """A client that says nothing is noticed by the ping that it does not answer.

    "To notice it earlier, send something that the client has to answer."

    "It notices a machine without power only within three minutes, by keepalive."

    "A heartbeat is quicker."
    """

    class Handler(Watched, ticker.TickerRequestHandler):
        async def on_connection(self, client: Client) -> None:
            client.start_soon(self.wait, client)

        async def wait(self, client: Client) -> None:
            await client.wait_disconnected()
            self.calls.append("disconnected")

    async def main() -> None:
        handler = Handler()
        async with serve(handler, LINES) as served:
            peer = await served.connect(raw=True)
            start = anyio.current_time()
            assert await peer.receive() == b"ping\n"
            assert anyio.current_time() - start == pytest.approx(30)
            await settle()
            assert "disconnected" not in handler.calls
            with pytest.raises(ConnectionResetError):
                await peer.receive()
            seconds = anyio.current_time() - start
            assert seconds == pytest.approx(60, abs=0.1)
            assert Limits().keepalive == 60  # the kernel notices it after three times that

    anyio.run(main, backend_options=virtual_time())


async def test_abort_does_not_wait() -> None:
    """What waits is lost, at once.

    "Unlike aclose(), abort() does not wait until the client has read what was sent. Data that is
    waiting is lost."

    "resets the connection immediately. A generator that waits at its yield is closed, as after
    a disconnection."
    """

    async def abort(client: Client) -> None:
        assert client.try_send_packet("x" * 20_000_000)
        client.abort()

    handler = Starting(abort)
    async with serving(handler) as server, connected(server) as peer:
        assert await peer.ask("hello") == "hello"
        await handler.gone.wait()
        assert handler.calls[-2:] == ["closed", "on_disconnection"]
        assert await peer.ending() == "connection reset"


# Answering several requests at once


class Search(Watched, searches.SearchRequestHandler):
    """Searches until it is told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.running: dict[str, anyio.Event] = {}
        self.most = 0
        self.cancelled: set[str] = set()

    async def search(self, text: str) -> str:
        self.running[text] = anyio.Event()
        self.most = max(self.most, len(self.running))
        try:
            await self.running[text].wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled.add(text)
            raise
        finally:
            del self.running[text]
        return "found"


def test_one_after_the_other() -> None:
    """Without tasks, a request is received after the response to the one before.

    "Usually, a client's next request waits until handle() has answered the previous one."
    """
    events: list[str] = []

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            request = yield
            events.append(f"received {request}")
            await anyio.sleep(1)
            await client.send_packet(request)
            events.append(f"answered {request}")

    async def main() -> None:
        async with converse(Handler(), LINES) as conversation:
            await conversation.send("one", "two")
            await conversation.expect("one", "two", timeout=2)

    anyio.run(main, backend_options=virtual_time())
    assert events[:3] == ["received one", "answered one", "received two"]


def test_limit_of_searches() -> None:
    """Of many requests, a few are in work; the client that sends more of them has to wait.

    "Limit their number, because a client can send requests faster than you can answer them"

    "Further requests wait in the connection, and in the end the client has to wait. This limit is
    for one client."
    """

    class Unlimited(Search):
        max_searches = 10**9

    async def main() -> None:
        handler = Search()
        async with serve(handler, LINES) as served:
            one, other = await served.connect(), await served.connect()
            for number in range(10):
                await one.send_packet(f"a{number}")
                await other.send_packet(f"b{number}")
            await settle()
            assert sorted(handler.running) == [
                f"{client}{number}" for client in "ab" for number in range(4)
            ]
            with anyio.move_on_after(1) as scope:
                for _ in range(1000):
                    await one.send_packet("x" * 1000)
            assert scope.cancelled_caught
            assert handler.most == 8
        handler = Unlimited()
        async with serve(handler, LINES) as served:
            client = await served.connect()
            for number in range(1000):
                await client.send_packet(f"a{number}")
            await settle()
            assert handler.most == 1000

    anyio.run(main, backend_options=virtual_time())


class SearchInGroup(Search):
    """What the page suggests: a task group that the client's end cancels."""

    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        free = anyio.Semaphore(self.max_searches)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self.give_up, client, task_group.cancel_scope)
            while True:
                request = yield
                await free.acquire()
                task_group.start_soon(self.answer, client, request, free)

    async def give_up(self, client: Client, scope: anyio.CancelScope) -> None:
        await client.wait_disconnected()
        scope.cancel()


def test_leaving_a_busy_handler() -> None:
    """While all searches are running, the end goes unnoticed, unless a task waits for it.

    "While it waits in line 10, nothing shows that the client has left, so they go on until one of
    them is done. To cancel them immediately in this case as well, wrap the loop in a task group
    that wait_disconnected() cancels, as the next section does, and start the answers in this task
    group."
    """

    async def main() -> None:
        words = ["one", "two", "three", "four"]
        for handler_class in Search, SearchInGroup:
            handler = handler_class()
            async with serve(handler, LINES) as served:
                client = await served.connect()
                for word in (*words, "five"):
                    await client.send_packet(word)
                await settle()
                await client.aclose()
                await anyio.sleep(1000)
                if handler_class is Search:
                    assert list(handler.running) == words
                    handler.running["two"].set()
                    await settle()
                assert not handler.running
                assert handler.cancelled >= {"one", "three", "four"}

    anyio.run(main, backend_options=virtual_time())


async def test_searches(log: pytest.LogCaptureFixture) -> None:
    """Requests are answered at the same time, but not too many.

    "To work on several requests at the same time, start a task for each of them."

    "The client has asked for the elephant first, so each response must say which request it
    answers."

    "While max_searches tasks are running, handle() waits in line 10, in free.acquire(), and
    receives nothing, until one of them calls free.release()."
    """
    handler = Search()
    async with serving(handler) as server, connected(server) as peer:
        await peer.send("one", "two", "three", "four", "five", "six")
        await until(lambda: len(handler.running) == 4)
        await anyio.wait_all_tasks_blocked()
        assert set(handler.running) == {"one", "two", "three", "four"}
        handler.running["three"].set()
        assert await peer.receive() == "three: found"
        await until(lambda: "five" in handler.running)
        handler.running["one"].set()
        assert await peer.receive() == "one: found"
        await until(lambda: "six" in handler.running)
        for event in handler.running.values():
            event.set()
        assert sorted([await peer.receive() for _ in range(4)]) == [
            f"{word}: found" for word in ("five", "four", "six", "two")
        ]
    assert handler.most == 4
    assert not complaints(log)


async def test_shared_limit() -> None:
    """A limiter holds for the requests of all clients.

    "For a limit that all clients share, for example the number of connections to a database, use an
    anyio.CapacityLimiter in search()."
    """

    class Handler(Search):
        def __init__(self) -> None:
            super().__init__()
            self.limiter = anyio.CapacityLimiter(2)

        async def search(self, text: str) -> str:
            async with self.limiter:
                return await super().search(text)

    handler = Handler()
    async with serving(handler) as server:
        async with connected(server) as one, connected(server) as other:
            await one.send("a", "b")
            await other.send("c", "d")
            for _ in range(4):
                await until(lambda: bool(handler.running))
                await anyio.wait_all_tasks_blocked()
                next(iter(handler.running.values())).set()
                await until(lambda: not any(event.is_set() for event in handler.running.values()))
            for peer in one, other:
                assert {(await peer.receive())[1:], (await peer.receive())[1:]} == {": found"}
    assert handler.most == 2


@pytest.mark.parametrize("leave", [half_close, Peer.reset])
async def test_searches_are_given_up(
    leave: Callable[[Peer], None], log: pytest.LogCaptureFixture
) -> None:
    """Tasks end with the connection, also if the client has only half-closed it.

    "If the client leaves while handle() waits at its yield, all tasks are cancelled."

    "A half-close looks the same as leaving. A client that sends its requests, ends its sending side
    (as nc -N does) and then waits for the responses, gets only those that are already sent."
    """
    handler = Search()
    async with serving(handler) as server, connected(server) as peer:
        await peer.send("one", "two")
        await until(lambda: len(handler.running) == 2)
        handler.running["one"].set()
        assert await peer.receive() == "one: found"
        leave(peer)
        await handler.gone.wait()
        if leave is half_close:
            assert await peer.ending() == "end of the stream"
    assert handler.cancelled == {"two"}
    assert not complaints(log)


# Giving up work for a client that has left


class Report(Watched, reports.ReportRequestHandler):
    pass


@pytest.mark.parametrize("leave", [half_close, Peer.reset])
async def test_report_is_given_up(
    leave: Callable[[Peer], None],
    capsys: pytest.CaptureFixture[str],
    log: pytest.LogCaptureFixture,
) -> None:
    """Work for a client ends when the client leaves.

    "Await client.wait_disconnected() in another task, here give_up(), and cancel the work"

    "It also returns if the client has only ended its sending side, and could still receive the
    report. Do not use it for protocols in which clients do this."
    """
    handler = Report()
    async with serving(handler) as server, connected(server) as peer:
        assert await peer.ask("elephants") == "Please wait"
        leave(peer)
        await handler.gone.wait()
    assert capsys.readouterr().out == "The client has left\n"
    assert not complaints(log)


@virtual
async def test_time_of_a_report() -> None:
    """The example's work takes so long that a client may leave before its end.

    "Here, the work takes a minute"
    """
    async with converse(reports.ReportRequestHandler(), LINES) as conversation:
        await conversation.send("elephants")
        await conversation.expect("Please wait")
        start = anyio.current_time()
        await conversation.expect("All about elephants", timeout=PATIENCE + 60)
        assert anyio.current_time() - start == pytest.approx(60)


async def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    """A client that waits gets the report, and may ask again.

    "While handle() waits for something else than a packet, the connection is not read, and the
    server does not notice that the client has left."
    """

    class Handler(Report):
        seconds = 0.01

    async with serving(Handler()) as server, connected(server) as peer:
        await peer.send("elephants", "mice")
        for subject in "elephants", "mice":
            assert await peer.receive() == "Please wait"
            assert await peer.receive() == f"All about {subject}"
    assert capsys.readouterr().out == ""


async def test_not_noticed() -> None:
    """A handler that works hears nothing of the end without wait_disconnected().

    "the connection is not read, and the server does not notice that the client has left"
    """

    class Handler(Watched):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            half_close(self.peer)
            await anyio.sleep(SOON)
            self.calls.append(f"is_closing {client.is_closing()}")

        peer: Peer

    handler = Handler()
    async with serving(handler) as server, connected(server) as peer:
        handler.peer = peer
        await peer.send("hello")
        await handler.gone.wait()
    assert "is_closing False" in handler.calls


async def test_too_much_before_the_end() -> None:
    """Packets that wait hide the end.

    "To see the end, the server must read what comes before it. If more than 64 KiB of packets are
    waiting for the handler, the connection is not read, and
    wait_disconnected() does not return before the handler has received some of them."
    """
    assert HIGH_WATER == 64 * 1024
    outcome: list[bool] = []

    class Handler(Watched):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            with anyio.move_on_after(SOON) as scope:
                await client.wait_disconnected()
            outcome.append(scope.cancelled_caught)
            for _ in range(20):
                await client.recv_packet()
            await client.wait_disconnected()
            outcome.append(True)

    handler = Handler()
    async with serving(handler) as server, connected(server) as peer:
        await peer.send("hello", *["x" * 30_000] * 20)
        half_close(peer)
        await handler.gone.wait()
    assert outcome == [True, True]


def test_work_in_a_thread() -> None:
    """A task that is cancelled still waits for its work in a thread.

    "Work in a thread cannot be cancelled"
    """
    may_end = threading.Event()
    ended: list[str] = []

    async def main() -> None:
        has_begun = anyio.Event()

        def work() -> None:
            anyio.from_thread.run_sync(has_begun.set)
            may_end.wait(PATIENCE)
            ended.append("work")

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(in_thread, work)
            await has_begun.wait()
            task_group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()
            assert not ended
            may_end.set()
        assert ended == ["work"]

    anyio.run(main)


# Sending without waiting


def test_send_waits() -> None:
    """Of two ways to send to a client that does not read, one waits.

    "send_packet() waits for a client that does not read. In a task that must not wait, use these
    methods"
    """
    outcome: list[Any] = []

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            with anyio.move_on_after(30) as scope:
                while True:
                    await client.send_packet("x" * 10_000)
            start = anyio.current_time()
            outcome.append(scope.cancelled_caught)
            outcome.append(client.try_send_packet("x"))
            outcome.append(client.get_unsent_size() > HIGH_WATER)
            client.abort()
            outcome.append(anyio.current_time() - start)

    async def main() -> None:
        async with serve(Handler(), LINES) as served:
            peer = await served.connect(raw=True)
            await peer.send(b"hello\n")
            await anyio.sleep(31)

    anyio.run(main, backend_options=virtual_time())
    assert outcome == [True, False, True, 0]


async def test_try_send() -> None:
    """A packet is sent whole or not at all.

    "sends the packet, or returns false and sends nothing: if more than 64 KiB are waiting to be
    sent, if other tasks wait for their turn to send, or if the client is closed."

    "returns how many bytes are waiting to be sent, for example to send less detail to a slow
    client."
    """
    outcome: list[Any] = []
    is_read = anyio.Event()

    async def send(client: Client) -> None:
        count = 0
        while client.try_send_packet("x" * 10_000):
            count += 1
        outcome.append((count, client.get_unsent_size()))
        client.start_soon(client.send_packet, "after the others")
        await until(lambda: client.try_send_packet("last"))
        await is_read.wait()
        client.abort()
        outcome.append(client.try_send_packet("closed"))

    handler = Starting(send)
    async with serving(handler) as server, connected(server) as peer:
        assert await peer.ask("hello") == "hello"
        await until(lambda: bool(outcome))
        count, unsent = outcome[0]
        assert HIGH_WATER < unsent <= HIGH_WATER + 10_001
        for _ in range(count):
            assert await peer.receive() == "x" * 10_000
        assert await peer.receive() == "after the others"
        assert await peer.receive() == "last"
        is_read.set()
        assert await peer.ending() == "connection reset"
    assert outcome[1] is False
