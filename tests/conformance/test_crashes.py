"""An exception that leaves the handler: who is told, what is logged, what the peer sees."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import anyio
import anyio.lowlevel
import pytest
import trio

from easynetwork.exceptions import ClientClosedError
from tests.conformance.peers import BasePeer
from tests.conformance.support import Client, Recorder, Records, Requests, Serve

pytestmark = pytest.mark.anyio


def crash(peer: BasePeer) -> str:
    return f"Exception occurred during processing of request from {peer.name}"


def misuse(peer: BasePeer) -> str:
    return f"There have been attempts to do operation on closed client {peer.name}"


class Failing(Recorder):
    """Raises what `fail()` raises, in answer to a request "fail"."""

    async def fail(self, client: Client) -> None:
        raise NotImplementedError

    async def handle(self, client: Client) -> Requests:
        request = yield
        if request == "fail":
            await self.fail(client)
        await client.send_packet(request)


# -- a crash


async def test_order_of_a_crash(serve: Serve, log: Records) -> None:
    """First the goodbye, then the log: "disconnected", one ERROR with traceback; then a reset."""

    class Handler(Failing):
        async def fail(self, client: Client) -> None:
            self.note("failing")
            raise LookupError

        async def on_disconnection(self, client: Client) -> None:
            if self.notes[-1] == "failing":
                await client.send_packet("bye")
                self.note(log.messages()[-1])

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("one", "fail", "more")
        assert await peer.rest() == ("one\nbye\n", "reset")
        assert log.messages()[-3:] == [
            peer.accepted,
            f"{peer.name} disconnected (the handler raised an exception)",
            crash(peer),
        ]
        assert handler.notes[-1].startswith("Accepted")
        [(level, message, exc)] = log.problems()
        assert (level, message, type(exc)) == ("ERROR", crash(peer), LookupError)


async def test_answers_before_a_crash(serve: Serve, log: Records) -> None:
    """Requests that were answered before it stay answered."""

    class Handler(Failing):
        async def fail(self, client: Client) -> None:
            raise LookupError

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("one", "two", "fail", "more")
        assert await peer.rest() == ("one\ntwo\n", "reset")
        assert len(log.problems()) == 1


async def test_crash_with_a_complete_goodbye(serve: Serve, log: Records) -> None:
    """A handler that wants a clean end even then closes the client itself."""

    class Handler(Failing):
        async def fail(self, client: Client) -> None:
            raise LookupError

        async def on_disconnection(self, client: Client) -> None:
            await client.send_packet("x" * 5_000_000)
            await client.aclose()

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("fail")
        assert await peer.rest() == ("x" * 5_000_000 + "\n", "EOF")
        await log.logged("Exception occurred")
        assert len(log.problems()) == 1


@pytest.mark.parametrize("where", ["first step", "clean-up", "on_disconnection"])
async def test_crash_anywhere(serve: Serve, log: Records, where: str) -> None:
    """Wherever a handler crashes, that is logged once and costs its client only."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            if where == "first step":
                raise LookupError
            try:
                yield
            finally:
                if where == "clean-up":
                    raise LookupError

        async def on_disconnection(self, client: Client) -> None:
            await super().on_disconnection(client)
            if where == "on_disconnection":
                raise LookupError

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        if where in ("clean-up", "on_disconnection"):
            await handler.noted("on_connection")
            peer.send_eof()
        assert await peer.rest() == ("", "reset")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("ERROR", crash(peer))
        assert isinstance(exc, LookupError)
        assert service.server.is_serving()
    assert handler.notes == ["on_connection", "on_disconnection"]


async def test_two_crashes(serve: Serve, log: Records) -> None:
    """If `on_disconnection()` crashes behind a crash of `handle()`, both are logged."""

    class Handler(Failing):
        async def fail(self, client: Client) -> None:
            raise LookupError("first")

        async def on_disconnection(self, client: Client) -> None:
            raise LookupError("second")

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("fail")
        assert await peer.rest() == ("", "reset")
        assert [str(exc) for _, _, exc in log.problems()] == ["first", "second"]


class Fatal(BaseException):
    pass


async def test_timeout_let_out(serve: Serve, log: Records) -> None:
    """A timeout that the handler yielded and lets out is how it closes an idle connection."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            async with contextlib.AsyncExitStack() as stack:
                if self.notes.count("handle"):
                    await stack.enter_async_context(anyio.create_task_group())
                self.note("handle")
                yield 0.01

        async def on_disconnection(self, client: Client) -> None:
            assert not client.is_closing()
            await client.send_packet("bye")

    async with serve(Handler()) as service:
        for _ in range(2):
            peer = await service.connect()
            assert await peer.rest() == ("bye\n", "EOF")
            assert f"{peer.name} sent nothing for too long" in log.messages(logging.DEBUG)


async def test_other_timeout(serve: Serve, log: Records) -> None:
    """A TimeoutError of something else is a crash."""

    class Handler(Failing):
        async def fail(self, client: Client) -> None:
            raise TimeoutError("the database")

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("fail")
        assert await peer.rest() == ("", "reset")
        assert [problem[:2] for problem in log.problems()] == [("ERROR", crash(peer))]


# -- connections that break


async def break_down(client: Client) -> None:
    """Send until the connection, which its peer has reset, is known to be broken."""
    while True:
        await client.send_packet("hello?")
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("wrap", [None, "anyio", "framework"])
async def test_own_connection_error(
    serve: Serve, anyio_backend_name: str, wrap: str | None
) -> None:
    """A ConnectionError of this very client is nobody's fault, in a task group's group as well."""

    class Handler(Failing):
        async def fail(self, client: Client) -> None:
            self.note("failing")
            await self.released.wait()
            if wrap is None:
                await break_down(client)
            elif wrap == "anyio":
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(break_down, client)
            elif anyio_backend_name == "asyncio":
                async with asyncio.TaskGroup() as task_group:
                    task_group.create_task(break_down(client))
                    await asyncio.sleep(60)
            else:
                async with trio.open_nursery() as outer, trio.open_nursery() as inner:
                    outer.start_soon(break_down, client)
                    inner.start_soon(break_down, client)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("fail")
        await handler.noted("failing")
        peer.reset()
        handler.released.set()
        await handler.noted("on_disconnection")


async def test_connection_error_with_a_crash(serve: Serve, log: Records) -> None:
    """Of a group, only what is not this client's ConnectionError is logged."""

    class Handler(Failing):
        async def fail(self, client: Client) -> None:
            self.note("failing")
            await self.released.wait()
            errors: list[Exception] = [LookupError("a bug")]
            try:
                await break_down(client)
            except ConnectionError as exc:
                errors.append(exc)
            raise ExceptionGroup("both", errors)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("fail")
        await handler.noted("failing")
        peer.reset()
        handler.released.set()
        await handler.noted("on_disconnection")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("ERROR", crash(peer))
        assert isinstance(exc, ExceptionGroup)
        assert [type(error) for error in exc.exceptions] == [LookupError]


@pytest.mark.parametrize("error", [ConnectionResetError, BrokenPipeError, ClientClosedError])
@pytest.mark.parametrize("grouped", [False, True])
async def test_foreign_connection_error(
    serve: Serve, log: Records, error: type[Exception], grouped: bool
) -> None:
    """A ConnectionError of something else, a database say, is a crash like any other."""

    class Handler(Failing):
        async def fail(self, client: Client) -> None:
            raise ExceptionGroup("", [error("the database")]) if grouped else error("the database")

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("fail")
        assert await peer.rest() == ("", "reset")
        assert [problem[:2] for problem in log.problems()] == [("ERROR", crash(peer))]


async def test_other_clients_connection_error(serve: Serve, log: Records) -> None:
    """The ConnectionError of another client is not this client's."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            first = self.clients[0]
            if client is first:
                await self.released.wait()
            yield
            await break_down(first)

    handler = Handler()
    async with serve(handler) as service:
        first = await service.connect()
        await handler.noted("on_connection")
        peer = await service.connect()
        first.reset()
        peer.send("hello")
        assert await peer.rest() == ("", "reset")
        assert [problem[:2] for problem in log.problems()] == [("ERROR", crash(peer))]
        handler.released.set()


# -- use after closing


@pytest.mark.parametrize("grouped", [False, True])
async def test_use_of_a_closed_client(serve: Serve, log: Records, grouped: bool) -> None:
    """To send to a client that one has closed is a mistake that gets a warning."""

    class Handler(Failing):
        async def fail(self, client: Client) -> None:
            await client.aclose()
            if grouped:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.send_packet, "too late")
            await client.send_packet("too late")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("fail")
        assert await peer.rest() == ("", "EOF")
        await handler.noted("on_disconnection")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("WARNING", misuse(peer))
        assert isinstance(exc, ExceptionGroup if grouped else ClientClosedError)


# -- goodbye


@pytest.mark.parametrize("grouped", [False, True])
async def test_connection_error_in_on_disconnection(
    serve: Serve, log: Records, grouped: bool
) -> None:
    """A ConnectionError of this client in `on_disconnection()` is swallowed with a warning."""

    class Handler(Failing):
        async def fail(self, client: Client) -> None:
            self.note("failing")
            await self.released.wait()
            raise LookupError("so that the client may still be used")

        async def on_disconnection(self, client: Client) -> None:
            self.note("on_disconnection")
            if grouped:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(break_down, client)
            await break_down(client)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("fail")
        await handler.noted("failing")
        peer.reset()
        handler.released.set()
        await handler.noted("on_disconnection")
        await log.logged("Exception occurred")
        (warning, message, _), (error, *_) = log.problems()
        assert (warning, error) == ("WARNING", "ERROR")
        assert "ConnectionError raised in request_handler.on_disconnection()" in message
        assert "\n" not in message


async def test_foreign_connection_error_in_on_disconnection(serve: Serve, log: Records) -> None:
    """One of something else is a crash there as well."""

    class Handler(Recorder):
        async def on_disconnection(self, client: Client) -> None:
            raise ConnectionResetError("the database")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        peer.send_eof()
        assert await peer.rest() == ("", "reset")
        assert [problem[:2] for problem in log.problems()] == [("ERROR", crash(peer))]
