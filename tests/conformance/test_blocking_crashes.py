"""An exception that leaves a blocking handler concerns its client only, and is logged once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import ClientClosedError, ProtocolCrashedError
from tests.conformance.blocking_support import Client, Echo, threads_ended
from tests.conformance.peers import BasePeer
from tests.conformance.support import Records, Serve, one_protocol

pytestmark = pytest.mark.anyio


def crash(peer: BasePeer) -> str:
    return f"Exception occurred during processing of request from {peer.name}"


class Failing(Echo):
    """Fails at one place, if the client asks for it."""

    error: Any = LookupError("no database")

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def fail_at(self, where: str) -> None:
        if self.where == where:
            self.where = ""  # only once
            raise self.error

    def on_connection(self, client: Client) -> None:
        super().on_connection(client)
        self.fail_at("on_connection")

    def handle(self, client: Client) -> None:
        self.fail_at("before receiving")
        try:
            for request in client.packets():
                self.fail_at("after receiving")
                client.send_packet(request)
        finally:
            self.fail_at("at the end")

    def on_disconnection(self, client: Client) -> None:
        super().on_disconnection(client)
        self.fail_at("on_disconnection")


PLACES = (
    *("on_connection", "before receiving", "after receiving"),
    *("at the end", "on_disconnection"),
)


@pytest.mark.parametrize("where", PLACES)
async def test_crash(serve: Serve, log: Records, where: str) -> None:
    """An ERROR with a traceback is logged, the connection is reset, and others are served."""
    handler = Failing("")
    async with serve(handler) as service:
        other = await service.connect()
        assert await other.ask("hello") == "hello"
        handler.where = where
        peer = await service.connect()
        if where == "after receiving":
            peer.send("one")
        elif where in ("at the end", "on_disconnection"):
            assert await peer.ask("one") == "one"
            peer.send_eof()
        assert await peer.rest() == ("", "reset")
        [(level, message, exc)] = log.problems()
        assert (level, message, exc) == ("ERROR", crash(peer), Failing.error)
        assert exc is not None
        assert exc.__traceback__ is not None
        assert await other.ask("hello") == "hello"
        assert await (await service.connect()).ask("hello") == "hello"
    # There is no goodbye to a client that was not greeted.
    goodbyes = 2 if where == "on_connection" else 3
    assert handler.notes.count("on_disconnection") == goodbyes


async def test_two_crashes(serve: Serve, log: Records) -> None:
    """If `on_disconnection()` fails after `handle()`, the traceback has both."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            raise LookupError("first")

        def on_disconnection(self, client: Client) -> None:
            raise LookupError("second")

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.rest() == ("", "reset")
        [(_, _, exc)] = log.problems()
        assert str(exc) == "second"
        assert exc is not None
        assert str(exc.__context__) == "first"


@one_protocol
@pytest.mark.parametrize(
    "error",
    [
        SystemExit(1),
        GeneratorExit(),
        StopIteration(),
        StopAsyncIteration(),
        asyncio.CancelledError(),
        TimeoutError("the database"),
        ConnectionResetError("the database"),
        ClientClosedError("the database"),
        BaseExceptionGroup("", [SystemExit(1), LookupError()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_any_exception(serve: Serve, log: Records, error: BaseException) -> None:
    """One that means something to threads, generators or event loops is a crash as well."""

    class Handler(Failing):
        pass

    Handler.error = error
    handler = Handler("after receiving")
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("one")
        assert await peer.rest() == ("", "reset")
        [(level, message, _)] = log.problems()
        assert (level, message) == ("ERROR", crash(peer))
        assert await (await service.connect()).ask("hello") == "hello"


# -- errors of the connection


async def test_own_connection_error(serve: Serve) -> None:
    """The ConnectionError of a client that has left is no fault."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            client.recv_packet()
            self.wait()
            with self.noting_errors():
                while True:
                    client.send_packet("x" * 1000)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("one")
        await handler.noted("on_connection")
        peer.reset()
        handler.released.set()
        await handler.noted("on_disconnection")
    assert len(handler.notes) == 3


async def test_use_of_a_closed_client(serve: Serve, log: Records) -> None:
    """To send to a client that one has closed is a mistake that gets a warning."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            client.close()
            client.send_packet("too late")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.rest() == ("", "EOF")
        await handler.noted("on_disconnection")
        await log.logged("attempts to do operation on closed client")
        [(level, _, exc)] = log.problems()
        assert level == "WARNING"
        assert isinstance(exc, ClientClosedError)


async def test_unserializable_packet(serve: Serve) -> None:
    """It is an error of the call, and nothing is sent."""

    class Handler(Echo):
        def answer(self, client: Client, request: str) -> Any:
            with pytest.raises(ProtocolCrashedError):
                client.send_packet("\u20ac")
            return request

    async with serve(Handler()) as service:
        assert await (await service.connect()).ask("one") == "one"


class Panic(BaseException):
    """What extension modules in other languages raise."""


class Panicking(AbstractPacketConverterComposite[str, str, str, str]):
    """Fails when the packet `panic` is sent."""

    error: BaseException

    def create_from_dto_packet(self, packet: str, /) -> str:
        return packet

    def convert_to_dto_packet(self, packet: str, /) -> str:
        if packet == "panic":
            raise self.error
        return packet


@one_protocol
@pytest.mark.parametrize("error", [SystemExit(1), Panic(), GeneratorExit()], ids=repr)
@pytest.mark.parametrize("is_caught", [True, False], ids=["caught", "let-out"])
async def test_any_exception_while_sending(
    serve: Serve, log: Records, error: BaseException, is_caught: bool
) -> None:
    """What the protocol raises is raised in the thread, and ends the client, not the server."""

    class Handler(Echo):
        def answer(self, client: Client, request: str) -> str:
            if request != "panic" or not is_caught:
                return request
            with pytest.raises(type(error)) as caught:
                client.send_packet(request)
            return str(caught.value is error)

    converter = Panicking()
    converter.error = error
    async with serve(Handler(), converter) as service:
        other, peer = await service.connect(), await service.connect()
        peer.send("panic")
        if is_caught:
            assert await peer.receive() == "True"
        else:
            assert await peer.rest() == ("", "reset")
            [(level, message, exc)] = log.problems()
            assert (level, message) == ("ERROR", crash(peer))
            assert isinstance(exc, RuntimeError)
            assert exc.__cause__ is error
        assert await other.ask("hello") == "hello"


# -- garbage


@contextlib.contextmanager
def little_garbage(limit: int) -> Iterator[None]:
    """Expect that the block leaves little of the library that only the collector finds."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        modules = [type(item).__module__ for item in gc.garbage]
        ours = [name for name in modules if name.startswith(("easynetwork", "concurrent"))]
        assert len(ours) < limit
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


ENDS = ("echo\n", "crash\n", "close\n", "left\n", "timeout\n", "\x80\n", "half", "")


@pytest.mark.in_turn
@one_protocol
@pytest.mark.parametrize("sent", ENDS, ids=repr)
async def test_no_garbage(serve: Serve, log: Records, sent: str) -> None:
    """However a client ends, neither it nor an exception is left to the garbage collector."""

    class Handler(Echo):
        def answer(self, client: Client, request: str) -> str:
            if request == "crash":
                raise LookupError("no database")
            if request == "close":
                client.close()
            elif request == "left":
                client.recv_packet()
            elif request == "timeout":
                with contextlib.suppress(TimeoutError):
                    client.recv_packet(timeout=0)
                client.recv_packet(timeout=0)
            return request

    handler = Handler(max_threads=50)  # a silent client that waits would not be served
    async with serve(handler) as service:
        with little_garbage(limit=20):
            for _ in range(20):
                peer = await service.connect()
                peer.send_bytes(sent.encode("latin-1"))
                if sent == "echo\n":
                    assert await peer.receive() == "echo"
                peer.close()
            await handler.noted("on_disconnection", times=20)
            await service.server.shutdown()
            await threads_ended()  # other tests count them
            log.records.clear()
