"""`client.start_soon()`: tasks that belong to a client, and end with it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from easynetwork.exceptions import ClientClosedError
from easynetwork.servers.limits import Limits
from tests.conformance.support import (
    Client,
    Narrow,
    Recorder,
    Records,
    Requests,
    Serve,
    one_protocol,
)
from tests.times import SOON

pytestmark = [pytest.mark.anyio, one_protocol]

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Starting(Recorder):
    """Starts `task()` for a client that says "start"; echoes everything else."""

    async def handle(self, client: Client) -> Requests:
        with self.noting_errors():
            request = yield
        if request == "start":
            client.start_soon(self.task, client)
            await anyio.wait_all_tasks_blocked()
            self.note("started")
        else:
            await client.send_packet(request)

    async def task(self, client: Client) -> None:
        self.note("task")
        with self.noting_errors():
            await anyio.sleep_forever()


def crash(peer: Any) -> str:
    return f"Exception occurred during processing of request from {peer.name}"


# -- life


async def test_life(serve: Serve) -> None:
    """It outlives its generator; it is cancelled after the last one, before the last hook."""
    handler = Starting()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("start", "hello") == "hello"
        assert "cancelled" not in handler.notes
        peer.send_eof()
        await handler.noted("on_disconnection")
    expected = ["task", "started", "GeneratorExit", "cancelled", "on_disconnection"]
    assert handler.notes[1:] == expected


async def test_end_of_a_task(serve: Serve) -> None:
    """One that returns is forgotten; the client goes on."""

    class Handler(Starting):
        async def task(self, client: Client) -> None:
            await client.send_packet("done")

    async with serve(Handler()) as service:
        peer = await service.connect()
        for _ in range(3):
            assert await peer.ask("start") == "done"
        assert await peer.ask("hello") == "hello"


async def test_cleanup(serve: Serve) -> None:
    """The connection is still there while it cleans up, and this is waited for."""

    class Handler(Starting):
        async def task(self, client: Client) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await self.released.wait()
                    await client.send_packet("bye")
                self.note("cleaned up")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        peer.send_eof()
        await handler.noted("GeneratorExit")
        await anyio.wait_all_tasks_blocked()
        assert handler.notes[-1] == "GeneratorExit"
        handler.released.set()
        assert await peer.rest() == ("bye\n", "EOF")
    assert handler.notes[-2:] == ["cleaned up", "on_disconnection"]


@pytest.mark.parametrize("where", ["coroutine", "generator", "before yield", "task", "outside"])
async def test_started_anywhere(serve: Serve, where: str) -> None:
    """In either kind of `on_connection()`, before a `yield`, by another task of any kind."""

    class Handler(Starting):
        def on_connection(self, client: Client) -> Any:
            self.clients.append(client)
            return self.greet_twice(client) if where == "generator" else self.greet(client)

        async def greet(self, client: Client) -> None:
            if where == "coroutine":
                client.start_soon(self.task, client)
            elif where == "task":
                client.start_soon(self.start, client)

        async def start(self, client: Client) -> None:
            client.start_soon(self.task, client)

        async def greet_twice(self, client: Client) -> Requests:
            client.start_soon(self.task, client)
            yield

        async def handle(self, client: Client) -> Requests:
            if where == "before yield":
                client.start_soon(self.task, client)
            self.note("handle")
            await client.send_packet((yield))
            await anyio.sleep_forever()
            yield

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        if where == "generator":
            peer.send("greeting")
        await handler.noted("handle")
        if where == "outside":
            handler.clients[0].start_soon(handler.task, handler.clients[0])
        assert await peer.ask("hello") == "hello"
        await handler.noted("task")
        await service.server.shutdown()
        await peer.rest()
    assert handler.notes[-2:] == ["cancelled", "on_disconnection"]


async def test_arguments(serve: Serve) -> None:
    """It gets the arguments, the name, and a copy of the caller's context."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            who.set("caller")
            client.start_soon(self.task, 1, "two", name="my task")
            client.start_soon(self.task, 3, "four")
            who.set("changed")
            await self.noted("3four")
            assert who.get() == "changed"
            yield

        async def task(self, number: int, text: str) -> None:
            self.note(f"{who.get()} {anyio.get_current_task().name}")
            who.set("task")
            self.note(f"{number}{text}")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("go")
        await handler.noted("3four")
        name = f"task of client {peer.name}"
    assert {"caller my task", "1two"} < set(handler.notes)
    assert f"caller {name}" in handler.notes


async def test_over(serve: Serve) -> None:
    """When the conversation is over, no task can be started; nothing is left of the attempt."""

    class Handler(Starting):
        async def on_disconnection(self, client: Client) -> None:
            with pytest.raises(RuntimeError, match="conversation with this client is over"):
                client.start_soon(self.task, client)
            await super().on_disconnection(client)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await peer.ask("hello")
        peer.send_eof()
        await handler.noted("on_disconnection")
        await peer.rest()
        with pytest.raises(RuntimeError, match="over"):
            handler.clients[0].start_soon(handler.task, handler.clients[0])
    assert "task" not in handler.notes


async def test_started_by_a_task_that_ends(serve: Serve) -> None:
    """Nor by a task that is cancelled because the client has left."""

    class Handler(Starting):
        async def task(self, client: Client) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with pytest.raises(RuntimeError, match="over"):
                    client.start_soon(self.task, client)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        peer.send_eof()
        await handler.noted("on_disconnection")


async def test_started_at_the_last_moment(serve: Serve) -> None:
    """A task that was started and has not run yet when the client leaves never runs."""

    class Handler(Starting):
        async def handle(self, client: Client) -> Requests:
            try:
                yield
            finally:
                client.start_soon(self.task, client)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_eof()
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_connection", "on_disconnection"]


async def test_other_thread(serve: Serve) -> None:
    """In another thread, it says the rule, and starts nothing."""
    handler = Starting()

    def run() -> None:
        with pytest.raises(RuntimeError, match="only be used in the thread of its event loop"):
            handler.clients[0].start_soon(handler.task, handler.clients[0])

    async with serve(handler) as service:
        peer = await service.connect()
        await peer.ask("hello")
        await anyio.to_thread.run_sync(run)
    assert "task" not in handler.notes


# -- failures


async def test_crash(serve: Serve, log: Records) -> None:
    """An exception ends the client and is logged once; the generator is cancelled."""

    class Handler(Starting):
        async def task(self, client: Client) -> None:
            self.failing = client
            await self.released.wait()
            raise LookupError

        async def on_disconnection(self, client: Client) -> None:
            if client is self.failing:
                await client.send_packet("bye")
            await super().on_disconnection(client)

    handler = Handler()
    async with serve(handler) as service:
        other = await service.connect()
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        handler.released.set()
        assert (await peer.rest())[1] == "reset"
        await handler.noted("on_disconnection")
        [(level, message, exc)] = log.problems()
        assert (level, message, type(exc)) == ("ERROR", crash(peer), LookupError)
        assert handler.notes[-2:] == ["cancelled", "on_disconnection"]
        assert await other.ask("hello") == "hello"


@pytest.mark.parametrize("where", ["before", "in on_connection", "at the yield", "in a group"])
async def test_crash_at_any_stage(serve: Serve, log: Records, where: str) -> None:
    """Whatever the handler does meanwhile: it is cancelled, and one error is logged."""

    class Handler(Starting):
        async def greet(self, client: Client) -> None:
            self.note("on_connection")
            if where == "in on_connection":
                client.start_soon(self.task, client)
                await anyio.sleep_forever()

        async def handle(self, client: Client) -> Requests:
            if where == "in a group":
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anyio.sleep_forever)
                    client.start_soon(self.task, client)
                    yield
            client.start_soon(self.task, client)
            if where == "before":
                await anyio.sleep_forever()
            yield

        async def task(self, client: Client) -> None:
            raise LookupError

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.rest() == ("", "reset")
        await log.logged("disconnected")
        await anyio.wait_all_tasks_blocked()
        [(level, message, exc)] = log.problems()
        assert (level, message, type(exc)) == ("ERROR", crash(peer), LookupError)
    hooks = 0 if where == "in on_connection" else 1
    assert handler.notes.count("on_disconnection") == hooks


class Fatal(BaseException):
    """Neither an Exception nor anything that Python knows."""


def cancelled() -> BaseException:
    return asyncio.CancelledError()


@pytest.mark.parametrize(
    ("new_error", "text"),
    [
        (SystemExit, "The handler raised SystemExit"),
        (Fatal, "The handler raised Fatal"),
        (GeneratorExit, "The handler raised GeneratorExit"),
        (cancelled, ""),
        (lambda: ConnectionResetError("foreign"), "foreign"),
        (lambda: ExceptionGroup("two", [LookupError(), ValueError()]), "two"),
        (lambda: BaseExceptionGroup("mixed", [SystemExit(), ValueError()]), "The handler raised"),
        (lambda: BaseExceptionGroup("more", [cancelled(), ValueError()]), ""),
        (TimeoutError, ""),
        (StopAsyncIteration, ""),
    ],
    ids=[
        *("exit", "fatal", "generator-exit", "cancelled", "foreign", "group", "mixed", "more"),
        *("timeout", "stop"),
    ],
)
@pytest.mark.parametrize("transport", ["tcp", "memory"])
async def test_crashes(
    serve: Serve, log: Records, new_error: Callable[[], BaseException], text: str
) -> None:
    """Whatever leaves a task is a crash of this client, logged once at level ERROR."""

    class Handler(Starting):
        async def task(self, client: Client) -> None:
            await self.released.wait()
            raise new_error()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        handler.released.set()
        assert await peer.rest() == ("", "reset")
        await handler.noted("on_disconnection")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("ERROR", crash(peer))
        assert text in str(exc)
        assert await (await service.connect()).ask("hello") == "hello"


async def test_awaiting_what_is_cancelled(serve: Serve, log: Records, anyio_backend: Any) -> None:
    """A task that lets out a cancellation of something else has crashed, too."""
    if anyio_backend[0] != "asyncio":
        pytest.skip("trio's tasks are not awaited")

    class Handler(Starting):
        async def task(self, client: Client) -> None:
            await self.released.wait()
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        handler.released.set()
        assert await peer.rest() == ("", "reset")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("ERROR", crash(peer))
        assert "a cancellation that was not its own" in str(exc)


@pytest.mark.parametrize("what", ["scope", "group"])
async def test_scope_left_open(serve: Serve, log: Records, what: str) -> None:
    """A task that leaves a scope open has crashed; the log says what to do."""

    class Handler(Starting):
        async def task(self, client: Client) -> None:
            await self.released.wait()
            if what == "scope":
                anyio.CancelScope().__enter__()
            else:
                scope = anyio.move_on_after(0)
                scope.__enter__()
                await anyio.sleep_forever()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        handler.released.set()
        assert await peer.rest() == ("", "reset")
        await handler.noted("on_disconnection")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("ERROR", crash(peer))
        assert "left a cancel scope open" in str(exc)
        assert await (await service.connect()).ask("hello") == "hello"


async def test_own_connection_error(serve: Serve) -> None:
    """A ConnectionError of this client ends it silently."""

    class Handler(Starting):
        async def task(self, client: Client) -> None:
            await self.released.wait()
            while True:
                await client.send_packet("x" * 1_000)
                await anyio.lowlevel.checkpoint()

        async def handle(self, client: Client) -> Requests:
            yield
            client.start_soon(self.task, client)
            self.note("started")
            with self.noting_errors():
                await anyio.sleep_forever()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        peer.reset()
        handler.released.set()
        await handler.noted("on_disconnection")
    assert handler.notes[-2:] == ["cancelled", "on_disconnection"]


async def test_connection_error_of_another_client(serve: Serve, log: Records) -> None:
    """One of another client is a crash."""

    class Handler(Starting):
        async def task(self, client: Client) -> None:
            await self.clients[0].send_packet("hello")

    handler = Handler()
    async with serve(handler) as service:
        first = await service.connect()
        await handler.noted("on_connection")
        await handler.clients[0].aclose()
        await first.rest()
        peer = await service.connect()
        peer.send("start")
        assert await peer.rest() == ("", "reset")
        [(level, message, exc)] = log.problems()
        assert (level, message, type(exc)) == ("ERROR", crash(peer), ClientClosedError)


async def test_several_errors(serve: Serve, log: Records) -> None:
    """Errors of several tasks, of the generator and of a task that cleans up are logged at once."""

    class Handler(Starting):
        async def handle(self, client: Client) -> Requests:
            yield
            for error in (LookupError("task"), ValueError("cleanup")):
                client.start_soon(self.fail, error)
            self.note("started")
            try:
                await anyio.sleep_forever()
            finally:
                raise KeyError("generator")

        async def fail(self, error: Exception) -> None:
            try:
                if isinstance(error, LookupError):
                    await self.released.wait()
                else:
                    await anyio.sleep_forever()
            finally:
                raise error

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        handler.released.set()
        assert await peer.rest() == ("", "reset")
        await handler.noted("on_disconnection")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("ERROR", crash(peer))
        assert isinstance(exc, ExceptionGroup)
        assert {type(error) for error in exc.exceptions} == {LookupError, ValueError, KeyError}


async def test_error_while_the_client_leaves(serve: Serve, log: Records) -> None:
    """A task that fails when it is cancelled has crashed."""

    class Handler(Starting):
        async def task(self, client: Client) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise LookupError

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        peer.send_eof()
        assert await peer.rest() == ("", "reset")
        await handler.noted("on_disconnection")
        [(level, message, exc)] = log.problems()
        assert (level, message, type(exc)) == ("ERROR", crash(peer), LookupError)


async def test_not_a_coroutine_function(serve: Serve, log: Records) -> None:
    """A function that is none is a crash of the client, when the task runs."""

    class Handler(Starting):
        async def handle(self, client: Client) -> Requests:
            yield
            function: Any = lambda: None  # noqa: E731
            client.start_soon(function)
            yield

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("start")
        assert await peer.rest() == ("", "reset")
        [(level, message, exc)] = log.problems()
        assert (level, message, type(exc)) == ("ERROR", crash(peer), TypeError)


# -- tasks that do not end


@pytest.fixture
def close_timeout(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give tasks little time to end; return options of the server."""
    monkeypatch.setattr("easynetwork.servers._stream.session._CLOSE_TIMEOUT_AT_STOP", SOON)
    return {"limits": Limits(close_timeout=SOON)}


class Deaf(Starting):
    """Has a task that goes on until the test releases it."""

    error: Exception | None = None

    async def task(self, client: Client) -> None:
        self.note("task")
        with anyio.CancelScope(shield=True):
            await self.released.wait()
        self.note("task ended")
        if self.error is not None:
            raise self.error


async def test_deaf_task(serve: Serve, log: Records, close_timeout: dict[str, Any]) -> None:
    """After `close_timeout` it is not waited for any more, and named in the log."""
    handler = Deaf()
    async with serve(handler, **close_timeout) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        peer.send_eof()
        assert await peer.rest() == ("", "EOF")
        await handler.noted("on_disconnection")
        name = f"task of client {peer.name}"
        message = f"Tasks of {peer.name} still run after they were cancelled: {name}"
        assert log.problems() == [("WARNING", message, None)]
        assert handler.notes[-1] == "on_disconnection"
        handler.released.set()
        await handler.noted("task ended")


async def test_deaf_task_that_fails(
    serve: Serve, log: Records, close_timeout: dict[str, Any]
) -> None:
    """Its error is logged even then."""
    handler = Deaf()
    handler.error = LookupError()
    async with serve(handler, **close_timeout) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        peer.send_eof()
        await peer.rest()
        await handler.noted("on_disconnection")
        handler.released.set()
        await handler.noted("task ended")
        await anyio.wait_all_tasks_blocked()
        first, second = log.problems()
        assert first[0] == "WARNING"
        assert (second[0], type(second[2])) == ("ERROR", LookupError)


# -- the server stops


async def test_shutdown(serve: Serve) -> None:
    """Tasks are cancelled and waited for before the last hook."""
    handler = Starting()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        await service.server.shutdown()
        await peer.rest()
        assert sorted(handler.notes[3:5]) == ["cancelled", "cancelled"]
        assert handler.notes[5:] == ["on_disconnection"]


async def test_shutdown_with_cleanup(serve: Serve) -> None:
    """They have time to say goodbye."""

    class Handler(Starting):
        async def task(self, client: Client) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()
                    await client.send_packet("bye")
                self.note("cleaned up")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        await service.server.shutdown()
        assert await peer.rest() == ("bye\n", "EOF")
    assert handler.notes[-2:] == ["cleaned up", "on_disconnection"]


# -- a task that closes its client


class Closing(Narrow):
    """Has a task that sends more than the kernel takes, and closes the client."""

    async def handle(self, client: Client) -> Requests:
        with self.noting_errors():
            yield
            client.start_soon(self.task, client)
            yield

    async def task(self, client: Client) -> None:
        await client.send_packet("x" * 60_000)
        try:
            await self.close(client)
        finally:
            self.note("closed")
        with self.noting_errors():
            await anyio.sleep_forever()

    async def close(self, client: Client) -> None:
        await client.aclose()


async def test_task_that_closes(serve: Serve) -> None:
    """What was sent before arrives, and then the end; the task is cancelled after that."""
    handler = Closing()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("GeneratorExit")
        await anyio.wait_all_tasks_blocked()
        text, end = await peer.rest()
        assert (len(text), end) == (60_001, "EOF")
        await handler.noted("on_disconnection")
    assert handler.notes[1:] == ["GeneratorExit", "closed", "cancelled", "on_disconnection"]


@pytest.mark.parametrize("is_grouped", [False, True])
async def test_task_that_sends_while_the_handler_closes(serve: Serve, is_grouped: bool) -> None:
    """It could not know: nothing is logged, and the connection is closed in order."""

    class Handler(Narrow):
        closing = anyio.Event()

        async def handle(self, client: Client) -> Requests:
            yield
            client.start_soon(self.tick, client)
            await client.send_packet("x" * 60_000)
            self.closing.set()
            await client.aclose()
            self.note("closed")

        async def tick(self, client: Client) -> None:
            if is_grouped:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self.send, client)
            else:
                await self.send(client)

        async def send(self, client: Client) -> None:
            await self.closing.wait()
            self.note("sends")
            await client.send_packet("tick")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("sends")
        text, end = await peer.rest()
        assert (text.count("x"), end) == (60_000, "EOF")
        await handler.noted("on_disconnection")
    assert handler.notes[1:] == ["sends", "closed", "on_disconnection"]


async def test_task_that_closes_in_a_group(serve: Serve) -> None:
    """So it is if the task leaves that to one of its own."""

    class Handler(Closing):
        async def close(self, client: Client) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.aclose)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("GeneratorExit")
        text, end = await peer.rest()
        assert (len(text), end) == (60_001, "EOF")
        await handler.noted("on_disconnection")


async def test_task_that_closes_with_a_timeout(serve: Serve) -> None:
    """The task's own timeout holds."""

    class Handler(Closing):
        async def close(self, client: Client) -> None:
            with anyio.move_on_after(SOON):
                await client.aclose()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("on_disconnection")
        assert len((await peer.rest())[0]) < 60_001
    assert handler.notes[1:] == ["GeneratorExit", "closed", "cancelled", "on_disconnection"]


async def test_task_that_closes_when_the_server_stops(serve: Serve) -> None:
    """A server that stops does not wait for it."""
    handler = Closing()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("go")
        await handler.noted("GeneratorExit")
        await anyio.wait_all_tasks_blocked()
        await service.server.shutdown()
        await peer.rest()
    assert handler.notes[-1] == "on_disconnection"


# -- a session that is cancelled by mistake


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_session_cancelled_meanwhile(
    serve: Serve, log: Records, anyio_backend: Any, how: str
) -> None:
    """The connection is closed, though the client's task is cancelled while it waits for tasks."""
    if anyio_backend[0] != "asyncio":
        pytest.skip("on trio, no task can cancel another one without a scope")

    class Handler(Starting):
        async def handle(self, client: Client) -> Requests:
            yield
            self.session = asyncio.current_task()
            self.has_begun = anyio.Event()
            client.start_soon(self.task, client)
            await self.has_begun.wait()
            if how == "timeout":
                await asyncio.timeout(SOON).__aenter__()
            self.note("started")
            yield

        async def task(self, client: Client) -> None:
            self.has_begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    if how == "cancel":
                        assert self.session is not None
                        self.session.cancel()
                    await anyio.sleep(2 * SOON)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("start")
        await handler.noted("started")
        peer.send_eof()
        await peer.rest()
        await log.logged("disconnected")
        await handler.noted("on_disconnection")
        [(level, message, exc)] = log.problems()
        assert (level, message) == ("ERROR", crash(peer))
        assert "a cancellation that was not its own" in str(exc)
