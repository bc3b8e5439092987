"""`client.recv_packet()`: a part of the conversation in a helper coroutine, or in a task."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from easynetwork.converter import AbstractPacketConverter
from easynetwork.exceptions import (
    BusyResourceError,
    ClientClosedError,
    EndOfStreamError,
    ProtocolCrashedError,
)
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from tests.conformance.support import (
    Client,
    Recorder,
    Records,
    Requests,
    Serve,
    one_protocol,
    serving,
)
from tests.times import SOON

pytestmark = pytest.mark.anyio

Helper = Callable[[Client], Coroutine[Any, Any, object]]


class Helped(Recorder):
    """Calls a helper for each request, which is "go"; notes what leaves the helper."""

    def __init__(self, helper: Helper) -> None:
        super().__init__()
        self.helper = helper

    async def handle(self, client: Client) -> Requests:
        while True:
            with self.noting_errors():
                yield
                await self.helper(client)
            self.note("helped")


async def describe(client: Client, timeout: float | None = None) -> str:
    """Return the next packet, or the name of what is raised instead of one."""
    try:
        packet: str = await client.recv_packet(timeout=timeout)
    except Exception as exc:
        return type(exc).__name__
    return packet


# -- packets


async def test_packets(serve: Serve) -> None:
    """A helper and the generator take packets in turns, in the order in which they came."""

    async def helper(client: Client) -> None:
        first = await client.recv_packet()
        second = await client.recv_packet(timeout=60)
        await client.send_packet(f"{first}, {second}")

    async with serve(Helped(helper)) as service:
        peer = await service.connect()
        assert await peer.ask("go", "one", "two", "go", "three", "four", "go") == "one, two"
        assert await peer.receive() == "three, four"
        for letter in "five\nsix":
            peer.send_bytes(letter.encode())
            await anyio.lowlevel.checkpoint()
        assert await peer.ask("") == "five, six"


async def test_greeting(serve: Serve) -> None:
    """A helper of `on_connection()`, a coroutine, can ask for the first packets."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> None:
            self.note("asking")
            await client.send_packet("name?")
            await client.send_packet("hello " + await client.recv_packet())

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.receive() == "name?"
        peer.send("me", "request")
        assert await peer.receive_lines(2) == ["hello me", "request"]
    assert handler.notes[:2] == ["asking", "handle"]


async def test_greeting_that_yields(serve: Serve) -> None:
    """Or of an `on_connection()` that is a generator."""

    class Handler(Recorder):
        def on_connection(self, client: Client) -> Any:
            return self.ask_twice(client)

        async def ask_twice(self, client: Client) -> Requests:
            first = yield
            await client.send_packet(first + await client.recv_packet())

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("a", "b", "c")
        assert await peer.receive_lines(2) == ["ab", "c"]


async def test_before_the_first_yield(serve: Serve) -> None:
    """A generator may ask a helper before it yields."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            first = await client.recv_packet()
            second = yield
            await client.send_packet(first + second)

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.ask("a", "b", "c") == "ab"
        assert await peer.ask("d") == "cd"


async def test_gathered_answers(serve: Serve) -> None:
    """Answers that were gathered leave before a helper waits."""

    async def helper(client: Client) -> None:
        await client.send_packet("answer")
        await client.recv_packet()
        await client.send_packet("another")
        await client.recv_packet()

    async with serve(Helped(helper)) as service:
        peer = await service.connect()
        peer.send("go", "more")
        assert await peer.receive_lines(2) == ["answer", "another"]
        peer.send("more", "go")
        assert await peer.receive() == "answer"


async def test_many_packets(serve: Serve) -> None:
    """Whatever the number of packets in a chunk, none is lost, and the loop gets turns."""
    count = 3_000

    async def helper(client: Client) -> None:
        numbers = [int(await client.recv_packet()) for _ in range(count)]
        await client.send_packet(f"{numbers == [*range(count)]}")

    async with serve(Helped(helper)) as service:
        peer = await service.connect()
        peer.send("go", *map(str, range(count)))
        assert await peer.receive() == "True"


# -- timeouts


async def test_timeout(serve: Serve) -> None:
    """It is a TimeoutError, after which the client can still be used."""

    async def helper(client: Client) -> None:
        for timeout in (SOON, 0):
            await client.send_packet(await describe(client, timeout))
        await client.send_packet(await describe(client))

    async with serve(Helped(helper)) as service:
        peer = await service.connect()
        assert await peer.ask("go") == "TimeoutError"
        assert await peer.receive() == "TimeoutError"
        assert await peer.ask("late") == "late"


@pytest.mark.parametrize("transport", ["unix", "memory"])  # TCP may hold back what the peer sends
async def test_timeout_of_zero(serve: Serve) -> None:
    """Takes what is here, and what the kernel holds, as a `yield` does."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("busy")
            await self.released.wait()
            packets = [await describe(client, 0), await describe(client, 0)]
            await client.send_packet(", ".join(packets))
            await client.send_packet(await describe(client, 0))

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("go")
        await handler.noted("busy")
        peer.send("one", "two")
        await anyio.lowlevel.checkpoint()
        handler.released.set()
        assert await peer.receive() == "one, two"
        assert await peer.receive() == "TimeoutError"


async def test_timeout_in_the_middle_of_a_packet(serve: Serve) -> None:
    """Costs no byte."""

    async def helper(client: Client) -> None:
        await client.send_packet(await describe(client, SOON))
        await client.send_packet(await describe(client))

    async with serve(Helped(helper)) as service:
        peer = await service.connect()
        peer.send_bytes(b"go\nfirst ")
        assert await peer.receive() == "TimeoutError"
        assert await peer.ask("second") == "first second"


@pytest.mark.parametrize(
    ("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
async def test_invalid_timeout(serve: Serve, timeout: Any, error: type[Exception]) -> None:
    """Is refused, and takes no packet."""

    async def helper(client: Client) -> None:
        with pytest.raises(error):
            await client.recv_packet(timeout=timeout)
        await client.send_packet(await client.recv_packet(timeout=float("inf")))

    async with serve(Helped(helper)) as service:
        peer = await service.connect()
        assert await peer.ask("go", "packet") == "packet"


async def test_timeout_let_out(serve: Serve, log: Records) -> None:
    """Closes the connection gracefully, with one DEBUG line, as one of a `yield` does."""

    async def helper(client: Client) -> None:
        await client.send_packet("asking")
        await client.recv_packet(timeout=SOON)

    handler = Helped(helper)
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("go") == "asking"
        assert await peer.rest() == ("", "EOF")
        await log.logged(f"{peer.name} sent nothing for too long", logging.DEBUG)
        await handler.noted("on_disconnection")


# -- errors


async def test_parse_error(serve: Serve) -> None:
    """It is raised where a packet was wanted; the next call continues after it."""

    async def helper(client: Client) -> None:
        for _ in range(3):
            await client.send_packet(await describe(client))

    async with serve(Helped(helper), limit=20) as service:
        peer = await service.connect()
        peer.send_bytes(b"go\n\xff\nvalid\n" + b"x" * 100 + b"\n")
        expected = ["StreamProtocolParseError", "valid", "StreamProtocolParseError"]
        assert await peer.receive_lines(3) == expected
        assert await peer.ask("go", "next") == "next"


@one_protocol
@pytest.mark.parametrize("where", ["handle", "on_connection", "task", "group"])
async def test_parse_error_let_out(serve: Serve, log: Records, where: str) -> None:
    """Is the peer's fault: one WARNING line, and a graceful end, as at a `yield`."""

    async def helper(client: Client) -> None:
        await client.send_packet("asking")
        if where == "group":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.recv_packet)
        else:
            await client.recv_packet()

    class Handler(Helped):
        async def greet(self, client: Client) -> None:
            if where == "on_connection":
                await self.helper(client)
            elif where == "task":
                client.start_soon(self.helper, client)

        async def handle(self, client: Client) -> Requests:
            if where == "task":
                await anyio.sleep_forever()
            with self.noting_errors():
                yield
                await self.helper(client)

    handler = Handler(helper)
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_bytes((b"go\n" if where in ("handle", "group") else b"") + b"\xff\n")
        assert await peer.rest() == ("asking\n", "EOF")
        await log.logged(f"{peer.name} disconnected")
        [(level, message, exc)] = log.problems()
        assert (level, exc) == ("WARNING", None)
        assert message.startswith(f"{peer.name} sent invalid data: ")


async def test_caught_parse_error_and_crash(serve: Serve, log: Records) -> None:
    """An error that was dealt with is no excuse for the next one."""

    async def helper(client: Client) -> None:
        await describe(client)
        raise LookupError

    handler = Helped(helper)
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_bytes(b"go\n\xff\n")
        assert await peer.rest() == ("", "reset")
        [(level, _, exc)] = log.problems()
        assert (level, type(exc)) == ("ERROR", LookupError)


class CrashingConverter(AbstractPacketConverter[str, str]):
    """Has a bug."""

    def create_from_dto_packet(self, packet: str) -> str:
        if packet == "crash":
            raise LookupError
        return packet

    def convert_to_dto_packet(self, obj: str) -> str:
        return obj


class Generators(StringLineSerializer):
    """Parses with generators of its own, which have a bug."""

    def incremental_deserialize(self) -> Any:
        data = yield
        while b"\n" not in data:
            data += yield
        return self.parse(data)

    def buffered_incremental_deserialize(self, buffer: bytearray, /) -> Any:
        size = yield 0
        while b"\n" not in buffer[:size]:
            size += yield size
        return self.parse(bytes(buffer[:size]))

    def parse(self, data: bytes) -> tuple[str, bytes]:
        packet, _, rest = data.partition(b"\n")
        if packet == b"crash":
            raise LookupError
        return packet.decode(), rest


@pytest.mark.parametrize("where", ["converter", "generator"])
async def test_protocol_that_crashes(protocol_class: Any, log: Records, where: str) -> None:
    """Its bug is raised where a packet was wanted; only after a generator's, nothing follows."""
    described: list[str] = []

    async def helper(client: Client) -> None:
        with pytest.raises(ProtocolCrashedError) as info:
            await client.recv_packet()
        assert isinstance(info.value.__cause__, LookupError)
        described.append(await describe(client, SOON))

    handler = Helped(helper)
    if where == "converter":
        protocol = protocol_class(StringLineSerializer(), CrashingConverter())
    else:
        protocol = protocol_class(Generators())
    async with serving(AsyncTCPNetworkServer("127.0.0.1", 0, protocol, handler)) as service:
        peer = await service.connect()
        peer.send("go", "crash", "next")
        await handler.noted("helped")
    assert described == ["next" if where == "converter" else "TimeoutError"]


async def test_protocol_with_generators(protocol_class: Any, log: Records) -> None:
    """Serializers with generators of their own are served in the same way."""

    async def helper(client: Client) -> None:
        await client.send_packet(await client.recv_packet() + await client.recv_packet())

    protocol = protocol_class(Generators())
    server = AsyncTCPNetworkServer("127.0.0.1", 0, protocol, Helped(helper))
    async with serving(server) as service:
        peer = await service.connect()
        for part in b"g", b"o\na", b"\nb\ng", b"o\n":
            peer.send_bytes(part)
            await anyio.wait_all_tasks_blocked()
        assert await peer.receive() == "ab"
        assert await peer.ask("c", "d") == "cd"


# -- one receiver at a time


async def test_two_helpers(serve: Serve) -> None:
    """The second one that asks is refused; the first one gets the packet."""
    found: list[str] = []

    async def helper(client: Client) -> None:
        async def ask() -> None:
            found.append(await describe(client))

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(ask)
        await client.send_packet(", ".join(found))

    async with serve(Helped(helper)) as service:
        peer = await service.connect()
        peer.send("go")
        while not found:
            await anyio.lowlevel.checkpoint()
        assert await peer.ask("packet") == "BusyResourceError, packet"


async def test_helper_while_the_generator_waits(serve: Serve) -> None:
    """A task that asks while the generator waits at its `yield` is refused, even for no time."""
    handler = Recorder()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("handle")
        await anyio.wait_all_tasks_blocked()
        [client] = handler.clients
        for timeout in (None, 0):
            with pytest.raises(BusyResourceError):
                await client.recv_packet(timeout=timeout)
        assert await peer.ask("hello") == "hello"


async def test_generator_while_a_task_waits(serve: Serve) -> None:
    """And so is a generator, at its `yield`, while a task waits, which then gets the packet."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            try:
                request = yield
            except BusyResourceError:
                self.note("busy")
                await self.released.wait()
                request = yield
            await client.send_packet(request)

        async def greet(self, client: Client) -> None:
            client.start_soon(self.ask, client)
            await self.noted("asking")

        async def ask(self, client: Client) -> None:
            self.note("asking")
            self.note(await client.recv_packet())
            self.released.set()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("busy")
        peer.send("for the task", "for the generator")
        assert await peer.receive() == "for the generator"
    assert "for the task" in handler.notes


@pytest.mark.parametrize("receiver", ["generator", "task"])
async def test_pipelined_packets_of_two_receivers(serve: Serve, receiver: str) -> None:
    """Packets that are here already are nobody's, so whoever asks gets the next one."""

    async def helper(client: Client) -> None:
        async def ask() -> None:
            await client.send_packet(await client.recv_packet())

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)

    async with serve(Helped(helper)) as service:
        peer = await service.connect()
        peer.send("go", "a", "b", "c")
        assert await peer.receive_lines(3) == ["a", "b", "c"]


# -- cancellation


async def test_cancellation(serve: Serve) -> None:
    """At whatever moment a helper is cancelled, it takes no packet with it."""
    count = 40

    async def helper(client: Client) -> None:
        for expected in range(count):
            for turns in range(5):
                packet = None
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(cancel_after, turns, scope)
                        packet = await client.recv_packet()
                        tasks.cancel_scope.cancel()
                if packet is not None:
                    break
            else:
                packet = await client.recv_packet()
            assert packet == str(expected)
        await client.send_packet("all")

    async def cancel_after(turns: int, scope: anyio.CancelScope) -> None:
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    async with serve(Helped(helper)) as service:
        peer = await service.connect()
        peer.send("go")
        for number in range(count):
            peer.send(str(number))
            for _ in range(number % 7):
                await anyio.lowlevel.checkpoint()
        assert await peer.receive() == "all"


async def test_shutdown(serve: Serve) -> None:
    """A server that stops cancels a helper that waits."""

    async def helper(client: Client) -> None:
        handler.note("asking")
        await client.recv_packet()

    handler = Helped(helper)
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("go")
        await handler.noted("asking")
        await service.server.shutdown()
        await peer.rest()
    assert handler.notes == ["on_connection", "asking", "cancelled", "on_disconnection"]


# -- the end


@pytest.mark.parametrize("pending", [b"", b"packet\n", b"packet\nhalf"])
async def test_end_of_stream(serve: Serve, pending: bytes) -> None:
    """After the last packet comes EndOfStreamError, again and again; sending still works."""

    class Handler(Helped):
        async def on_disconnection(self, client: Client) -> None:
            self.note(await describe(client))

    async def helper(client: Client) -> None:
        if pending:
            await client.send_packet(await client.recv_packet())
        for timeout in (None, 0, 60):
            with pytest.raises(EndOfStreamError, match="has left") as info:
                await client.recv_packet(timeout=timeout)
            assert isinstance(info.value, ConnectionAbortedError)
        await client.send_packet("bye")
        await client.recv_packet()

    handler = Handler(helper)
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_bytes(b"go\n" + pending)
        peer.send_eof()
        assert await peer.rest() == (("packet\n" if pending else "") + "bye\n", "EOF")
        await handler.noted("ClientClosedError")  # in the hook, the client is closed
    assert handler.notes == ["on_connection", "EndOfStreamError", "ClientClosedError"]


async def test_end_of_stream_while_waiting(serve: Serve) -> None:
    """A helper that waits is told; if it lets that out, nothing is logged."""
    handler = Helped(lambda client: client.recv_packet())
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("go")
        await anyio.wait_all_tasks_blocked()
        peer.send_eof()
        assert await peer.rest() == ("", "EOF")
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_connection", "EndOfStreamError", "on_disconnection"]


async def test_yield_after_the_end(serve: Serve) -> None:
    """A `yield` after EndOfStreamError is the end of the generator, as ever."""
    handler = Helped(describe)
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("go")
        peer.send_eof()
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_connection", "helped", "GeneratorExit", "on_disconnection"]


@pytest.mark.parametrize("waiting", [False, True])
async def test_reset(serve: Serve, waiting: bool, transport: str) -> None:
    """It is raised as the ConnectionError that it was, each time anew; letting it out is silent."""
    errors: list[BaseException] = []

    class Handler(Helped):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("busy")
            if not waiting:
                await self.released.wait()
            for _ in range(2):
                try:
                    await client.recv_packet()
                except ConnectionError as exc:
                    errors.append(exc)
            await client.recv_packet()

    handler = Handler(describe)
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("go")
        await handler.noted("busy")
        await anyio.wait_all_tasks_blocked()
        peer.reset()
        handler.released.set()
        await handler.noted("on_disconnection")
    assert len({id(error) for error in errors}) == 2
    expected = {ConnectionResetError} | ({EndOfStreamError} if transport == "unix" else set())
    assert {type(error) for error in errors} <= expected


async def test_truncation(serve: Serve, tls: ssl.SSLContext | None, log: Records) -> None:
    """Over TLS, an end without a closing alert is an error of the connection."""
    if tls is None:
        pytest.skip("not over TLS")
    described: list[str] = []

    async def helper(client: Client) -> None:
        described.append(await describe(client))
        with pytest.raises(ConnectionAbortedError) as info:
            await client.recv_packet()
        assert isinstance(info.value.__cause__, ssl.SSLEOFError)
        described.append("truncated")
        raise info.value

    handler = Helped(helper)
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("go", "packet")
        peer._raw.shutdown(1)  # type: ignore[attr-defined]
        await handler.noted("on_disconnection")
    assert described == ["packet", "truncated"]
    assert len(log.problems()) <= 1  # a line about the truncation


@pytest.mark.parametrize("how", ["aclose", "abort"])
@pytest.mark.parametrize("waiting", [False, True])
async def test_closed_here(serve: Serve, how: str, waiting: bool, log: Records) -> None:
    """A client that was closed gives no packets any more, even if some were here."""

    async def helper(client: Client) -> None:
        async def close() -> None:
            await (client.aclose() if how == "aclose" else aborted(client))

        async with anyio.create_task_group() as tasks:
            if waiting:
                tasks.start_soon(close)
            else:
                await close()
            for timeout in (None, 0):
                with pytest.raises(ClientClosedError):
                    await client.recv_packet(timeout=timeout)

    async def aborted(client: Client) -> None:
        client.abort()

    handler = Helped(helper)
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("go", *([] if waiting else ["one", "two"]))
        end = "EOF" if how == "aclose" else "reset"
        assert await peer.rest() == ("", end)
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_connection", "helped", "GeneratorExit", "on_disconnection"]


async def test_in_on_disconnection(serve: Serve, log: Records) -> None:
    """There, nothing can be received any more."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            raise LookupError

        async def on_disconnection(self, client: Client) -> None:
            for timeout in (None, 0):
                self.note(await describe(client, timeout))

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("go", "unread")
        await handler.noted("EndOfStreamError", times=2)
        await peer.rest()
        await service.server.shutdown()
    assert [type(exc) for _, _, exc in log.problems()] == [LookupError]


# -- threads


async def test_other_thread(serve: Serve) -> None:
    """A coroutine that runs in another thread is told the rule."""

    def run(client: Client) -> None:
        coroutine = client.recv_packet()
        with pytest.raises(RuntimeError, match="only be used in the thread of its event loop"):
            coroutine.send(None)

    handler = Helped(lambda client: anyio.to_thread.run_sync(run, client))
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("go")
        await handler.noted("helped")
