"""Test the statements and the examples of the page about conversations.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.conversations import sign_up, temperatures
from easynetwork.exceptions import (
    BusyResourceError,
    ClientClosedError,
    EndOfStreamError,
    ProtocolCrashedError,
    StreamProtocolParseError,
)
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.testing import converse, serve, virtual_time
from tests.docs.howto_support import (
    Lines,
    Peer,
    Watched,
    check_quotations,
    complaints,
    connected,
    serving,
    table,
    turned_away,
)
from tests.docs.virtual_support import virtual

pytestmark = pytest.mark.anyio

Client = AsyncStreamClient[str]

PAGE = "howto/conversations.rst"
LINES = StreamProtocol[str, str](StringLineSerializer())


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


class Receiving(AsyncStreamRequestHandler[str, str]):
    """Receives a packet with a yield, then another one in its own way, and notes the outcome."""

    def __init__(self, receive: Callable[[Client], Any] = lambda client: client.recv_packet()):
        self.receive = receive
        self.outcome: Any = None
        self.is_done = anyio.Event()

    async def handle(self, client: Client) -> AsyncGenerator[float | None, str]:
        yield None
        try:
            self.outcome = await self.receive(client)
        except BaseException as exc:
            self.outcome = exc
            raise
        finally:
            self.is_done.set()
        await client.send_packet(self.outcome)


class AtYield(Receiving):
    async def handle(self, client: Client) -> AsyncGenerator[float | None, str]:
        yield None
        try:
            await client.send_packet((yield 0.01))
        except BaseException as exc:
            self.outcome = exc
            raise
        finally:
            self.is_done.set()


# Receiving packets in a helper


async def test_sign_up() -> None:
    """The example's helpers ask until the answers can be used.

    "a handler that asks the client several questions, and move parts of it into functions"

    "This program signs up a new member. handle() receives the first packet, and the two helpers,
    ask() and ask_number(), receive the others"

    "You can mix both ways freely: each packet is delivered once, in order, to whatever asks for the
    next one."
    """
    async with serving(sign_up.SignUpRequestHandler()) as server, connected(server) as peer:
        assert await peer.ask("hello") == "Unknown command: hello"
        assert await peer.ask("sign up") == "What is your name?"
        await peer.send_bytes(b"\xff\n")
        assert await peer.receive() == "That is not UTF-8."
        assert await peer.receive() == "What is your name?"
        assert await peer.ask("Zoë") == "In which year were you born?"
        assert await peer.ask("long ago") == "That is not a number."
        assert await peer.receive() == "In which year were you born?"
        assert await peer.ask("1815") == "Welcome, Zoë, born in 1815!"
        # The next run of handle() receives the next packet, also if all arrive together.
        assert await peer.ask("sign up", "Ada", "1815", "bye") == "What is your name?"
        assert await peer.receive() == "In which year were you born?"
        assert await peer.receive() == "Welcome, Ada, born in 1815!"
        assert await peer.receive() == "Unknown command: bye"


def test_who_can_yield() -> None:
    """A handler has two yields; of two helpers, the one that awaits a packet works.

    "A handler can use several yield expressions"

    "But a function that the handler calls cannot yield on its behalf. In such a function, await
    client.recv_packet(). It returns the next packet, as a yield does."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            first = yield
            second = yield
            third = await self.receive(client)
            await client.send_packet(f"{first} {second} {third}")
            with pytest.raises(TypeError):
                await self.receive_by_yield()  # type: ignore[misc]  # the point of it

        async def receive(self, client: Client) -> str:
            return await client.recv_packet()  # type: ignore[no-any-return]

        async def receive_by_yield(self) -> AsyncGenerator[None, str]:
            yield

    async def main() -> None:
        async with converse(Handler(), LINES) as conversation:
            await conversation.send("one", "two", "three")
            await conversation.expect("one two three")

    anyio.run(main, backend_options=virtual_time())


async def test_sign_up_too_slow(log: pytest.LogCaptureFixture) -> None:
    """The example gives up when an answer takes too long.

    "Catch TimeoutError and StreamProtocolParseError to continue, as the program above does."
    """

    class Handler(sign_up.SignUpRequestHandler):
        patience = 0.01

    async with serving(Handler()) as server, connected(server) as peer:
        assert await peer.ask("sign up") == "What is your name?"
        assert await peer.receive() == "Too late. Please start again."
        assert await peer.ending() == "end of the stream"
    assert not complaints(log)


@virtual
async def test_time_for_each_answer() -> None:
    """The time starts again with each question.

    "A client has 60 seconds for each answer, however many questions there are."
    """
    async with converse(sign_up.SignUpRequestHandler(), sign_up.PROTOCOL) as conversation:
        await conversation.send("sign up")
        await conversation.expect("What is your name?")
        for answer in "Ada", "long ago":
            await anyio.sleep(59)
            await conversation.send(answer)
            if answer == "long ago":
                await conversation.expect("That is not a number.")
            await conversation.expect("In which year were you born?")
        await anyio.sleep(61)
        await conversation.expect("Too late. Please start again.")


async def test_no_yield(log: pytest.LogCaptureFixture) -> None:
    """A handle() with recv_packet() alone is not a generator.

    "handle() still needs at least one yield, because that is where the server waits for the next
    request."
    """

    class Handler(Watched):
        async def handle(self, client: Client) -> None:  # type: ignore[override]
            await client.recv_packet()

    async with serving(Handler()) as server:
        assert await turned_away(server) == "connection reset"
    [record] = complaints(log)
    assert record.exc_info
    assert isinstance(record.exc_info[1], TypeError)


async def test_login() -> None:
    """A plain on_connection() can receive packets, too.

    "recv_packet() also works in on_connection(), for example for a login."
    """

    class Handler(sign_up.SignUpRequestHandler):
        async def on_connection(self, client: Client) -> None:
            name = await self.ask(client, "Who are you?")
            await client.send_packet(f"Hello, {name}!")

    async with serving(Handler()) as server, connected(server) as peer:
        assert await peer.receive() == "Who are you?"
        assert await peer.ask("Ada") == "Hello, Ada!"
        assert await peer.ask("sign up") == "What is your name?"


@pytest.mark.parametrize("how", ["close", "raise"])
async def test_login_refused(how: str) -> None:
    """Who closes the client in on_connection() still sees it leave; an exception is the end.

    "To refuse the client there, close it and return: handle() is not called then, but
    on_disconnection() is. If an exception leaves on_connection(), neither of them is called."
    """
    calls: list[str] = []

    class Handler(sign_up.SignUpRequestHandler):
        async def on_connection(self, client: Client) -> None:
            await self.ask(client, "Who are you?")
            if how == "raise":
                raise ConnectionRefusedError
            await client.aclose()

        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            calls.append("handle")
            yield

        async def on_disconnection(self, client: Client) -> None:
            calls.append("on_disconnection")

    async with serving(Handler()) as server, connected(server) as peer:
        assert await peer.receive() == "Who are you?"
        await peer.send("Eve")
        await peer.ending()
    assert calls == (["on_disconnection"] if how == "close" else [])


# What is raised, and where


def raised(what_happened: str, handler: type[Receiving]) -> str:
    """Return the name of the exception that the page's table has for a handler."""
    [row] = [row for row in table(PAGE, "What happened") if row[0] == what_happened]
    return row[1 if handler is AtYield else 2]


def half_close(peer: Peer) -> None:
    peer.socket.shutdown(socket.SHUT_WR)


ROW_OF_END = {
    half_close: "The client has ended the connection",
    Peer.reset: "The client has reset the connection",
}


@pytest.mark.parametrize("leave", [half_close, Peer.reset])
async def test_end_at_yield(leave: Callable[[Peer], None], log: pytest.LogCaptureFixture) -> None:
    """The end of the connection closes a generator that waits at its yield.

    "At a yield, a handler never gets a ConnectionError. The server closes the generator instead,
    because no request will follow."
    """

    class Handler(AtYield):
        async def handle(self, client: Client) -> AsyncGenerator[float | None, str]:
            await client.send_packet("waiting")
            try:
                yield None
            except BaseException as exc:
                self.outcome = exc
                raise
            finally:
                self.is_done.set()

    handler = Handler()
    async with serving(handler) as server, connected(server) as peer:
        assert await peer.receive() == "waiting"
        leave(peer)
        await handler.is_done.wait()
    assert type(handler.outcome) is GeneratorExit
    assert raised(ROW_OF_END[leave], AtYield) == "GeneratorExit"
    assert not complaints(log)


@pytest.mark.parametrize("leave", [half_close, Peer.reset])
async def test_end_in_helper(leave: Callable[[Peer], None], log: pytest.LogCaptureFixture) -> None:
    """The end of the connection is an exception of recv_packet(), and may leave the handler.

    "recv_packet() is called by your function, which the server cannot close, so it raises
    an exception. EndOfStreamError is a subclass of ConnectionError. You do not have to catch it: if
    it leaves handle(), the connection ends, and nothing is logged."
    """
    handler = Receiving()
    async with serving(handler) as server, connected(server) as peer:
        await peer.send("hello")
        leave(peer)
        await handler.is_done.wait()
    assert isinstance(handler.outcome, ConnectionError)
    if leave is half_close:
        assert type(handler.outcome) is EndOfStreamError
    expected = EndOfStreamError if leave is half_close else ConnectionError
    assert raised(ROW_OF_END[leave], Receiving) == expected.__name__
    assert not complaints(log)


async def test_closed_in_helper() -> None:
    """A client that was closed here has an error of its own.

    "You have closed the client"
    """

    async def close_and_receive(client: Client) -> None:
        await client.aclose()
        await client.recv_packet()

    handler = Receiving(close_and_receive)
    async with serving(handler) as server, connected(server) as peer:
        await peer.send("hello")
        await handler.is_done.wait()
    assert type(handler.outcome) is ClientClosedError
    assert raised("You have closed the client", Receiving) == "ClientClosedError"


@pytest.mark.parametrize("handler_class", [AtYield, Receiving])
@pytest.mark.parametrize(
    ("data", "what_happened", "error"),
    [
        (b"", "The time is up", TimeoutError),
        (b"\xff\n", "The data is not a packet", StreamProtocolParseError),
        (b"trap\n", "The protocol object has a bug", ProtocolCrashedError),
    ],
)
async def test_same_errors(
    handler_class: type[Receiving], data: bytes, what_happened: str, error: type[Exception]
) -> None:
    """All other errors are the same in both places.

    "A yield and recv_packet() report the same errors in the same way, with one exception: the end
    of the connection."
    """
    handler = handler_class(lambda client: client.recv_packet(timeout=0.01))
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"), Lines(str))
    async with serving(handler, protocol) as server, connected(server) as peer:
        await peer.send_bytes(b"hello\n" + data)
        await handler.is_done.wait()
    assert type(handler.outcome) is error
    assert raised(what_happened, handler_class) == error.__name__


@pytest.mark.parametrize("handler_class", [AtYield, Receiving])
@pytest.mark.parametrize(
    ("data", "level"), [(b"", logging.DEBUG), (b"\xff\n", logging.WARNING)], ids=["late", "invalid"]
)
async def test_errors_let_out(
    handler_class: type[Receiving], data: bytes, level: int, log: pytest.LogCaptureFixture
) -> None:
    """The errors that a client causes are not crashes.

    "If one of them leaves handle(), the connection is closed gracefully, as after a yield"
    """
    handler = handler_class(lambda client: client.recv_packet(timeout=0.01))
    async with serving(handler) as server, connected(server) as peer:
        await peer.send_bytes(b"hello\n" + data)
        assert await peer.ending() == "end of the stream"
    messages = [(record.levelno, record.getMessage()) for record in log.records]
    message = "sent invalid data" if data else "sent nothing for too long"
    assert [level] == [
        number for number, text in messages if message in text and "disconnected" not in text
    ]
    assert not [number for number, _ in messages if number > level and number > logging.INFO]


async def test_continue_after_errors() -> None:
    """Neither a timeout nor an invalid packet ends the connection.

    "The connection stays open, and the next call continues after the invalid packet."

    "timeout=0 returns a packet that has already arrived, or raises TimeoutError. No data is lost:
    if half a packet has arrived, the next call waits for the other half."
    """

    async def receive(client: Client) -> str:
        assert await client.recv_packet(timeout=0) == "at once"
        with pytest.raises(TimeoutError):
            await client.recv_packet(timeout=0)
        await client.send_packet("send")
        with pytest.raises(StreamProtocolParseError):
            await client.recv_packet()
        with pytest.raises(TimeoutError):
            await client.recv_packet(timeout=0)
        await client.send_packet("more")
        return str(await client.recv_packet())

    async with serving(Receiving(receive)) as server, connected(server) as peer:
        await peer.send_bytes(b"hello\nat once\n")
        assert await peer.receive() == "send"
        await peer.send_bytes(b"\xff\nha")
        assert await peer.receive() == "more"
        assert await peer.ask("lf") == "half"


async def test_answer_after_the_end() -> None:
    """A client that has half-closed the connection can receive.

    "A client that has only ended its sending side (a half-close, as nc -N does) can still receive.
    After an EndOfStreamError, you can send it a last packet."
    """

    async def count(client: Client) -> str:
        lines = 1
        with contextlib.suppress(EndOfStreamError):
            while True:
                await client.recv_packet()
                lines += 1
        return f"{lines} lines"

    async with serving(Receiving(count)) as server, connected(server) as peer:
        await peer.send("one", "two", "three")
        half_close(peer)
        assert await peer.receive() == "3 lines"
        assert await peer.ending() == "end of the stream"


# Setting a timeout


def test_seconds() -> None:
    """The time is up after this number of seconds.

    "Pass timeout to recv_packet(), in seconds."
    """

    async def receive(client: Client) -> str:
        start = anyio.current_time()
        with pytest.raises(TimeoutError):
            await client.recv_packet(timeout=5)
        return f"{anyio.current_time() - start:.3f}"

    async def main() -> None:
        async with converse(Receiving(receive), LINES) as conversation:
            await conversation.send("hello")
            await conversation.expect("5.000", timeout=10)

    anyio.run(main, backend_options=virtual_time())


@virtual
async def test_time_for_an_answer() -> None:
    """The example does not wait longer for a member that is silent.

    "In the program above, a client has a minute for each answer."
    """
    async with converse(sign_up.SignUpRequestHandler(), LINES) as conversation:
        await conversation.send("sign up")
        await conversation.expect("What is your name?")
        await anyio.sleep(59)
        await conversation.send("Ada")
        await conversation.expect("In which year were you born?")
        start = anyio.current_time()
        await conversation.expect("Too late. Please start again.", timeout=100)
        assert anyio.current_time() - start == pytest.approx(60)


async def test_time_of_a_conversation() -> None:
    """A timeout around several calls loses no data.

    "For the time of a whole conversation, put the calls in a timeout block of your asynchronous
    framework"

    "A cancelled recv_packet() loses no data either."
    """

    async def receive(client: Client) -> str:
        with anyio.move_on_after(0.01) as scope:
            await client.recv_packet()
            await client.recv_packet()
        assert scope.cancelled_caught
        await client.send_packet("more")
        return str(await client.recv_packet())

    async with serving(Receiving(receive)) as server, connected(server) as peer:
        await peer.send_bytes(b"hello\none\nha")
        assert await peer.receive() == "more"
        assert await peer.ask("lf") == "half"


# Receiving in one task at a time


@pytest.mark.parametrize("who_waits", ["the generator", "a task"])
async def test_busy(who_waits: str) -> None:
    """A second task cannot wait for a packet, but it can send.

    "Only one task may wait for a packet of a client. If another task already waits, or the
    handler's generator waits at its yield, recv_packet()
    raises BusyResourceError."

    "Sending is different: several tasks can send to the same client at the same time."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            client.start_soon(self.intrude, client)
            if who_waits == "a task":
                await client.send_packet(await client.recv_packet())
            await client.send_packet((yield))

        async def intrude(self, client: Client) -> None:
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(BusyResourceError):
                await client.recv_packet()
            await client.send_packet("busy")

    async with serving(Handler()) as server, connected(server) as peer:
        assert await peer.receive() == "busy"
        assert await peer.ask("hello") == "hello"


def test_passing_on() -> None:
    """One task receives, and two others get the packets from it.

    "Let one task receive, and pass the packets on to the others."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            send, receive = anyio.create_memory_object_stream[str]()
            for number in range(2):
                client.start_soon(self.work, client, number, receive.clone())
            with send, receive:
                while True:
                    await send.send((yield))

        async def work(self, client: Client, number: int, requests: Any) -> None:
            with requests:
                async for request in requests:
                    await client.send_packet(f"{number}: {request}")
                    await anyio.sleep(1)

    async def main() -> None:
        async with converse(Handler(), LINES) as conversation:
            await conversation.send("one", "two", "three")
            received = [await conversation.receive(timeout=2) for _ in range(3)]
            assert [line[3:] for line in received] == ["one", "two", "three"]
            assert {line[0] for line in received} == {"0", "1"}

    anyio.run(main, backend_options=virtual_time())


# When packets are parsed


async def test_temperatures() -> None:
    """The example's packets are parsed with what the handler has set before.

    "In this program, a converter looks up the context variable unit with unit.get(). The handler
    sets it with unit.set()"

    "The client sends three packets at once. The second one changes the unit of the third one"

    "So how a packet is parsed can depend on everything that was said before it."
    """
    protocol = StreamProtocol(StringLineSerializer(), temperatures.TemperatureConverter())
    handler = temperatures.TemperatureRequestHandler()
    async with serving(handler, protocol) as server:
        async with connected(server) as peer, connected(server) as other:
            assert await peer.ask("20", "F", "68", "C", "30") == "20.0 degrees Celsius"
            assert await peer.receive() == "20.0 degrees Celsius"
            assert await peer.receive() == "30.0 degrees Celsius"
            await peer.send("F")
            assert await other.ask("68") == "68.0 degrees Celsius"


async def test_wrong_temperature(log: pytest.LogCaptureFixture) -> None:
    """What is no temperature is an error of the client, and no bug of the converter.

    "The data is not a packet"
    """
    protocol = StreamProtocol(StringLineSerializer(), temperatures.TemperatureConverter())
    handler = temperatures.TemperatureRequestHandler()
    async with serving(handler, protocol) as server, connected(server) as peer:
        await peer.send("warm")
        assert await peer.ending() == "end of the stream"
    [record] = complaints(log)
    assert record.levelno == logging.WARNING
    assert "neither a number nor a unit" in record.getMessage()


def test_other_format() -> None:
    """What follows a packet can be of another format, without a converter.

    "If a packet changes the format of the next ones, you do not need such a converter"
    """

    class Handler(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
            assert (yield) == "JSON"
            client.set_protocol(StreamProtocol(JSONSerializer()))
            await client.send_packet((yield))

    async def main() -> None:
        async with serve(Handler(), StreamProtocol[Any, Any](StringLineSerializer())) as served:
            peer = await served.connect(raw=True)
            await peer.send(b"JSON\n[1, 2]\n")
            assert await peer.receive() == b"[1,2]\n"

    anyio.run(main, backend_options=virtual_time())


class GeneratorLines(StringLineSerializer):
    """Does the same through a generator, which is driven in another way."""

    __slots__ = ()

    def incremental_deserialize(self) -> Any:
        return (yield from super().incremental_deserialize())


@pytest.mark.parametrize("serializer", [StringLineSerializer(), GeneratorLines()], ids=type)
async def test_order_of_parsing(serializer: StringLineSerializer) -> None:
    """A converter notes when, and in which task, it is called.

    "Packets are parsed lazily, one by one, and in the task that asks for them. For a yield, this is
    the client's own task, with its context variables."

    "Nothing of a later packet is parsed before the handler asks for it, even if many packets have
    arrived together."
    """
    events: list[str] = []
    tasks: set[int] = set()

    class Noting(Lines):
        def create_from_dto_packet(self, packet: str) -> Any:
            events.append(f"parse {packet}")
            tasks.add(anyio.get_current_task().id)
            return packet

        def convert_to_dto_packet(self, obj: str) -> str:
            return obj

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            tasks.add(anyio.get_current_task().id)
            request = yield
            events.append(f"handle {request}")
            await anyio.wait_all_tasks_blocked()
            request = await client.recv_packet()
            events.append(f"handle {request}")
            await client.send_packet(request)

    protocol = StreamProtocol(serializer, Noting(str))
    async with serving(Handler(), protocol) as server, connected(server) as peer:
        assert await peer.ask("one", "two", "three", "four") == "two"
        assert await peer.receive() == "four"
    words = ["one", "two", "three", "four"]
    assert events == [f"{verb} {word}" for word in words for verb in ("parse", "handle")]
    assert len(tasks) == 1
