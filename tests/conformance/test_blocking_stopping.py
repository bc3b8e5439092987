"""How serving ends with blocking handlers: what waits gets an error at once, no thread is left."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from easynetwork.exceptions import ClientClosedError
from tests.conformance.blocking_support import (
    Client,
    Echo,
    Stopwatch,
    handler_threads,
    threads_ended,
)
from tests.conformance.support import NewServer, Records, Serve, Service, one_protocol
from tests.times import FACTOR, PATIENCE, SOON

pytestmark = pytest.mark.anyio

THREADS = 4


class Waiting(Echo):
    """Waits in each thread for the same thing, and notes how that ends."""

    def __init__(self, where: str) -> None:
        super().__init__(THREADS)
        self.where = where

    def handle(self, client: Client) -> None:
        client.send_packet("ready")
        self.note("waiting")
        with self.noting_errors():
            if self.where == "recv_packet":
                client.recv_packet()
            elif self.where == "recv_packet with a timeout":
                client.recv_packet(timeout=2 * PATIENCE)
            else:
                while True:
                    client.send_packet("x" * 100_000)


each_wait = pytest.mark.parametrize(
    "where", ["recv_packet", "recv_packet with a timeout", "send_packet"]
)


@contextlib.asynccontextmanager
async def waiting_threads(new_server: NewServer, where: str) -> AsyncIterator[Any]:
    """Serve while a block runs, and begin when all threads wait; yield what cancels serving."""
    handler = Waiting(where)
    async with serving_until_cancelled(new_server(handler)) as (service, cancel):
        peers = [await service.connect() for _ in range(THREADS)]
        for peer in peers:
            assert await peer.receive() == "ready"
        await handler.noted("waiting", times=THREADS)
        if where == "send_packet":
            await anyio.sleep(SOON)  # until nothing more fits anywhere
        yield handler, service, cancel


@contextlib.asynccontextmanager
async def serving_until_cancelled(server: Any) -> AsyncIterator[tuple[Any, Callable[[], None]]]:
    """Serve while a block runs; yield the service, and what cancels `serve_forever()`."""
    scope = anyio.CancelScope()
    is_up, is_over = anyio.Event(), anyio.Event()

    async def serve() -> None:
        with scope:
            await server.serve_forever(is_up_event=is_up)
        is_over.set()

    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await is_up.wait()
            service: Any = Service(server)
            service.is_over = is_over
            with contextlib.closing(service):
                yield service, scope.cancel
                await server.shutdown()


@one_protocol
@each_wait
@pytest.mark.parametrize("end", ["shutdown", "cancellation"])
async def test_waiting_threads(
    new_server: NewServer,
    where: str,
    end: str,
    record_property: Callable[[str, object], None],
    close_timeout_at_stop: float,
) -> None:
    """Each gets a ClientClosedError, and says goodbye; all is over within a second."""
    async with waiting_threads(new_server, where) as (handler, service, cancel):
        with Stopwatch() as stopwatch:
            if end == "shutdown":
                await service.server.shutdown()
            else:
                cancel()
            await service.is_over.wait()
        record_property("seconds", stopwatch.elapsed)
        assert stopwatch.elapsed < 1 * FACTOR
        assert handler.notes.count("ClientClosedError") == THREADS
        assert handler.notes.count("on_disconnection") == THREADS
        await threads_ended()


@one_protocol
async def test_server_close(new_server: NewServer) -> None:
    """It ends at once; those clients are served on, and serving ends with the last of them."""
    async with waiting_threads(new_server, "recv_packet") as (handler, service, _):
        with anyio.fail_after(1 * FACTOR):
            await service.server.server_close()
        assert "ClientClosedError" not in handler.notes
        assert not service.is_over.is_set()
        for peer in service.peers:
            peer.send("over")
            assert await peer.rest() == ("", "EOF")
        await service.is_over.wait()
        await threads_ended()


@one_protocol
async def test_shutdown_after_server_close(new_server: NewServer) -> None:
    async with waiting_threads(new_server, "recv_packet") as (handler, service, _):
        await service.server.server_close()
        with anyio.fail_after(1 * FACTOR):
            await service.server.shutdown()
        assert handler.notes.count("ClientClosedError") == THREADS


@one_protocol
async def test_clients_that_wait_for_a_thread(serve: Serve, log: Records) -> None:
    """They are never handed to the handler."""

    class Handler(Echo):
        def on_connection(self, client: Client) -> None:
            self.note("on_connection")

    handler = Handler(max_threads=1)
    async with serve(handler) as service:
        peers = [await service.connect() for _ in range(5)]
        await log.logged("are busy")
        with anyio.fail_after(1 * FACTOR):
            await service.server.shutdown()
        for peer in peers:
            assert await peer.rest() == ("", "EOF")
        assert len(log.problems()) == 1
    assert handler.notes == ["on_connection", "on_disconnection"]


@one_protocol
async def test_use_while_stopping(serve: Serve) -> None:
    """Whatever a handler does with its client after that raises the error again."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            client.send_packet("ready")
            with pytest.raises(ClientClosedError):
                client.recv_packet()
            for _ in range(3):
                with pytest.raises(ClientClosedError):
                    client.recv_packet(timeout=0)
                with pytest.raises(ClientClosedError):
                    client.send_packet("too late")
            assert client.is_closing()
            self.note("checked")

        def on_disconnection(self, client: Client) -> None:
            assert list(client.packets()) == []
            super().on_disconnection(client)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.receive() == "ready"
        await service.server.shutdown()
    assert handler.notes == ["on_connection", "checked", "on_disconnection"]


@one_protocol
async def test_crash_while_stopping(serve: Serve, log: Records) -> None:
    """It is logged like any other, whether the server waits for the thread or not."""

    class Handler(Echo):
        def on_disconnection(self, client: Client) -> None:
            raise LookupError("no database")

    async with serve(Handler()) as service:
        peer = await service.connect()
        assert await peer.ask("one") == "one"
        await service.server.shutdown()
        while not log.messages(logging.ERROR):  # the handler's thread writes it
            await anyio.sleep(0.001)
        [(level, message, exc)] = log.problems()
        assert (level, str(exc)) == ("ERROR", "no database")
        assert message == f"Exception occurred during processing of request from {peer.name}"


# -- handlers that do not stop

STILL_RUNNING = [("ERROR", "1 request handlers are still running in their threads", None)]


class Stubborn(Echo):
    """Goes on when the server stops, until the test releases it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def handle(self, client: Client) -> None:
        client.send_packet("ready")
        if self.how == "blocks":
            self.wait()
        while not self.released.is_set():
            with contextlib.suppress(ClientClosedError):
                client.recv_packet()
            self.released.wait(0.001)
        self.note("released")


@one_protocol
@pytest.mark.parametrize("how", ["blocks", "ignores the error"])
@pytest.mark.parametrize("end", ["shutdown", "cancellation"])
async def test_stubborn_handler(
    new_server: NewServer, log: Records, stop_timeout: float, how: str, end: str
) -> None:
    """Serving ends without it, soon, and says so; its thread ends when the handler does."""
    handler = Stubborn(how)
    async with (
        contextlib.AsyncExitStack() as stack,
        serving_until_cancelled(new_server(handler)) as (service, cancel),
    ):
        stack.callback(handler.released.set)  # also if the test fails
        peer = await service.connect()
        assert await peer.receive() == "ready"
        with Stopwatch() as stopwatch:
            if end == "shutdown":
                await service.server.shutdown()
            else:
                cancel()
            await service.is_over.wait()
        assert stopwatch.elapsed / stop_timeout < 5 * FACTOR
        assert await peer.rest() == ("", "EOF")
        assert log.problems() == STILL_RUNNING
        assert len(handler_threads()) == 1
        handler.released.set()
        await threads_ended()
        assert handler.notes == ["on_connection", "released", "on_disconnection"]


@one_protocol
async def test_handler_that_ends_in_time(serve: Serve) -> None:
    """A handler that is in its own code has a moment to end, which serving waits for."""

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            client.send_packet("ready")
            self.wait()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.receive() == "ready"
        timer = threading.Timer(SOON, handler.released.set)
        timer.start()
        await service.server.shutdown()
        assert handler.notes == ["on_connection", "on_disconnection"]
        timer.join()


@one_protocol
async def test_thread_of_the_user(serve: Serve, transport: str) -> None:
    """A thread that a handler started gets the error as well."""
    errors: list[BaseException] = []

    class Handler(Echo):
        def handle(self, client: Client) -> None:
            def receive() -> None:
                try:
                    client.recv_packet()
                except ConnectionError as exc:
                    errors.append(exc)

            others = [threading.Thread(target=receive, daemon=True) for _ in range(3)]
            for other in others:
                other.start()
            client.send_packet("ready")
            for other in others:
                other.join(PATIENCE)
            self.note("joined")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.receive() == "ready"
        with anyio.fail_after(1 * FACTOR):
            await service.server.shutdown()
    assert handler.notes == ["on_connection", "joined", "on_disconnection"]
    assert [type(exc) for exc in errors] == [ClientClosedError] * 3
