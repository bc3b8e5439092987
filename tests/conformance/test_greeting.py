"""`on_connection()`: a coroutine or a generator, and each way in which it may end."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from tests.conformance.peers import BasePeer
from tests.conformance.support import Client, Recorder, Records, Requests, Serve

pytestmark = pytest.mark.anyio


class Login(Recorder):
    """Greets with a generator, which asks for a name."""

    async def greet(self, client: Client) -> Requests:  # type: ignore[override]  # either is right
        self.note("login")
        with self.noting_errors():
            name = yield
        self.note(f"name: {name}")
        await client.send_packet(f"hello {name}")


def complaint(peer: BasePeer) -> str:
    return f"Exception occurred during processing of request from {peer.name}"


async def test_no_hooks(serve: Serve) -> None:
    """By default, both hooks do nothing."""

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Client) -> Requests:
            await client.send_packet((yield))

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        peer.send_eof()
        assert await peer.rest() == ("", "EOF")


async def test_coroutine_comes_first(serve: Serve) -> None:
    """`handle()` begins when the coroutine is over; what the peer sends meanwhile waits."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> None:
            self.note("begin")
            await self.released.wait()
            self.note("end")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("one", "two")
        await handler.noted("begin")
        await anyio.wait_all_tasks_blocked()
        assert handler.notes == ["begin"]
        handler.released.set()
        assert await peer.receive() == "one"
        assert await peer.receive() == "two"
        assert handler.notes[:4] == ["begin", "end", "handle", "one"]


async def test_generator_runs_once(serve: Serve) -> None:
    """A generator is driven like `handle()`, once; later requests are for `handle()`."""
    handler = Login()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("Ada", "one") == "hello Ada"
        assert await peer.receive() == "one"
        assert await peer.ask("two") == "two"
        peer.close()
        await handler.noted("on_disconnection")
    assert handler.notes == [
        *("login", "name: Ada"),
        *("handle", "one", "handle", "two", "handle", "GeneratorExit"),
        "on_disconnection",
    ]


async def test_generator_gets_errors(serve: Serve) -> None:
    """What goes wrong at a yield is raised there, as in `handle()`."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> Requests:  # type: ignore[override]  # as above
            for timeout in None, 0:
                try:
                    yield timeout
                except (StreamProtocolParseError, TimeoutError) as exc:
                    await client.send_packet(type(exc).__name__)

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send_bytes(b"\xff\n")
        assert await peer.receive() == "StreamProtocolParseError"
        assert await peer.receive() == "TimeoutError"
        assert await peer.ask("hello") == "hello"


async def test_generator_without_yield(serve: Serve) -> None:
    """A generator that returns before its first yield is finished; that refuses nobody."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> Requests:  # type: ignore[override]  # as above
            self.note("greeted")
            if not self.notes:
                yield

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        peer.close()
        await handler.noted("on_disconnection")
    assert handler.notes[:2] == ["greeted", "handle"]


# -- ends early


@pytest.mark.parametrize("way", ["coroutine", "before the yield", "after the yield"])
async def test_raises(serve: Serve, log: Records, way: str) -> None:
    """If it raises, that is a crash: neither `handle()` nor `on_disconnection()` is called."""

    class Handler(Login):
        def greet(self, client: Client) -> Any:
            return self.coroutine() if way == "coroutine" else self.generator()

        async def coroutine(self) -> None:
            raise LookupError("a bug")

        async def generator(self) -> Requests:
            if way == "before the yield":
                raise LookupError("a bug")
            yield
            raise LookupError("a bug")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        if way == "after the yield":
            peer.send("hello")
        assert await peer.rest() == ("", "reset")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("ERROR", complaint(peer))
        assert isinstance(exc, LookupError)
    assert handler.notes == []


async def test_raises_at_once(serve: Serve, log: Records) -> None:
    """A hook that is neither a coroutine function nor a generator function may fail as well."""

    class Handler(Recorder):
        def greet(self, client: Client) -> Any:
            raise LookupError("a bug")

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.rest() == ("", "reset")
        assert [problem[:2] for problem in log.problems()] == [("ERROR", complaint(peer))]


async def test_returns_nonsense(serve: Serve, log: Records) -> None:
    """To return neither a coroutine nor a generator is a crash, whose text says what is wrong."""

    class Handler(Recorder):
        def greet(self, client: Client) -> Any:
            return "hello"

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.rest() == ("", "reset")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("ERROR", complaint(peer))
        assert "on_connection()" in str(exc)
    assert handler.notes == []


async def test_disconnection_during_generator(serve: Serve) -> None:
    """A peer that leaves while a generator waits: it is closed, and nothing else is called."""
    handler = Login()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("login")
        peer.send_eof()
        assert await peer.rest() == ("", "EOF")
    assert handler.notes == ["login", "GeneratorExit"]


async def test_disconnection_during_coroutine(serve: Serve) -> None:
    """A peer that leaves during a coroutine is noticed at the first yield of `handle()`."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> None:
            self.note("begin")
            await self.released.wait()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("begin")
        peer.close()
        handler.released.set()
        await handler.noted("on_disconnection")
    assert handler.notes == ["begin", "handle", "GeneratorExit", "on_disconnection"]


@pytest.mark.parametrize("way", ["coroutine", "generator"])
async def test_shutdown_meanwhile(serve: Serve, way: str) -> None:
    """If the server stops meanwhile, it is cancelled, and nothing else is called."""

    class Coroutine(Recorder):
        async def greet(self, client: Client) -> None:
            self.note("login")
            with self.noting_errors():
                await anyio.sleep_forever()

    handler = Coroutine() if way == "coroutine" else Login()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("login")
        await service.server.shutdown()
        assert await peer.rest() == ("", "EOF")
    assert handler.notes == ["login", "cancelled"]


# -- closes the client


async def test_closes_and_returns(serve: Serve) -> None:
    """If it closes the client and returns, only `on_disconnection()` follows."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> None:
            await client.send_packet("go away")
            await client.aclose()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.rest() == ("go away\n", "EOF")
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_disconnection"]


async def test_closes_and_yields(serve: Serve) -> None:
    """If it closes the client and yields, it is closed there, and nothing else is called."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> Requests:  # type: ignore[override]  # as above
            await client.aclose()
            with self.noting_errors():
                yield
            self.note("unreachable")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("hello")
        assert await peer.rest() == ("", "EOF")
        await handler.noted("GeneratorExit")
    assert handler.notes == ["GeneratorExit"]
