"""Handlers that do not go when they are told to: they cost their client, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import traceback
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from tests.conformance.peers import BasePeer, new_peer
from tests.conformance.support import (
    Client,
    NewServer,
    Recorder,
    Records,
    Requests,
    Serve,
    one_protocol,
)
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

# The interpreter says so when it collects a generator that has ignored GeneratorExit.
wicked = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def assert_ignored_exit(log: Records) -> None:
    """Check that the one problem in the log is a generator that ignored GeneratorExit."""
    [(level, _, exc)] = log.problems()
    assert level == "ERROR"
    assert isinstance(exc, RuntimeError)
    assert str(exc) == "async generator ignored GeneratorExit"
    traceback.clear_frames(exc.__traceback__)  # so that the generator is collected now
    gc.collect()


@wicked
async def test_generator_that_will_not_go(serve: Serve, log: Records) -> None:
    """A handler that answers GeneratorExit with a yield has crashed."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            try:
                yield
            except GeneratorExit:
                yield

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        peer.send_eof()
        assert await peer.rest() == ("", "reset")
        assert_ignored_exit(log)
    assert handler.notes == ["on_connection", "on_disconnection"]


# -- handlers that do not end


class Endless(Recorder):
    """Goes on in spite of its cancellation, until the test releases it."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    async def ignore(self) -> None:
        self.note("ignoring")
        while not self.released.is_set():
            with contextlib.suppress(anyio.get_cancelled_exc_class()):
                await self.released.wait()

    async def greet(self, client: Client) -> None:
        if self.where == "on_connection":
            await self.ignore()

    async def handle(self, client: Client) -> Requests:
        await client.send_packet((yield))
        if self.where == "handle":
            await self.ignore()
        yield

    async def on_disconnection(self, client: Client) -> None:
        if self.where == "on_disconnection":
            await self.ignore()


@pytest.mark.in_turn
@one_protocol
@pytest.mark.parametrize("where", ["on_connection", "handle", "on_disconnection"])
async def test_shutdown_returns(
    new_server: NewServer,
    log: Records,
    anyio_backend_name: str,
    stop_timeout: float,
    where: str,
) -> None:
    """Some time after the cancellation `shutdown()` returns, and what still runs is named once."""
    handler = Endless(where)
    server = new_server(handler)
    returned = anyio.Event()

    async def serve_forever() -> None:
        await server.serve_forever(is_up_event=is_up)
        returned.set()

    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(serve_forever)
            await is_up.wait()
            peer = new_peer(server)
            with contextlib.closing(peer):
                await peer.start()
                peer.send("hello")
                if where == "on_disconnection":
                    await peer.receive()
                    peer.send_eof()
                await handler.noted("ignoring")
                begin = anyio.current_time()
                async with anyio.create_task_group() as others:
                    for _ in range(3):
                        others.start_soon(server.shutdown)
                assert 0.9 < (anyio.current_time() - begin) / stop_timeout < 5
                if anyio_backend_name == "asyncio":
                    await returned.wait()
                [(level, message, _)] = log.problems()
                assert level == "ERROR"
                assert message.startswith(
                    f"Still running {stop_timeout} seconds after being cancelled"
                )
                assert f"client {peer.name}" in message
                # It does not keep a processor busy any more.
                cpu = time.process_time()
                await anyio.sleep(0.2)
                assert time.process_time() - cpu < 0.1
                handler.released.set()
                await returned.wait()
    assert log.problems() == []


@one_protocol
async def test_shutdown_returns_before_the_exit_stack_is_unwound(
    new_server: NewServer, log: Records, stop_timeout: float
) -> None:
    """What `service_init()` left to be done at the end does not keep `shutdown()`, either."""

    class Handler(Recorder):
        async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: object) -> None:
            exit_stack.push_async_callback(self.clean_up)

        async def clean_up(self) -> None:
            with anyio.CancelScope(shield=True):
                await self.released.wait()

    handler = Handler()
    server = new_server(handler)
    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            begin = anyio.current_time()
            await server.shutdown()
            assert 0.9 < (anyio.current_time() - begin) / stop_timeout < 5
            [(level, message, _)] = log.problems()
            assert (level, "exit stack" in message) == ("ERROR", True)
            handler.released.set()


@one_protocol
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_end_of_asyncio_run(new_server: NewServer, log: Records, anyio_backend: str) -> None:
    """A program that ends while it serves cancels all tasks at once: no handler has crashed."""
    peers: list[BasePeer] = []

    async def main() -> None:
        is_up = asyncio.Event()
        serving = asyncio.ensure_future(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        for _ in range(3):
            peers.append(new_peer(server))
            assert await peers[-1].ask("hello") == "hello"
        assert not serving.done()

    server = new_server(Recorder(), backend="asyncio")
    await anyio.to_thread.run_sync(asyncio.run, main())
    await server.server_close()
    for peer in peers:
        assert await peer.rest() == ("", "EOF")
    assert log.problems() == []
    assert len([line for line in log.messages() if "disconnected" in line]) == 3
    assert log.messages()[-1] == "Server stopped"


# -- task groups around a yield


@one_protocol
@pytest.mark.parametrize("kind", ["anyio", "framework"])
@pytest.mark.parametrize("leaves", ["EOF", "reset", "closed here"])
async def test_task_group_around_a_yield(
    serve: Serve, anyio_backend_name: str, kind: str, leaves: str
) -> None:
    """A client that leaves is no error, although the group makes one of the generator's end."""

    def new_group() -> Any:
        if kind == "anyio":
            return anyio.create_task_group()
        return asyncio.TaskGroup() if anyio_backend_name == "asyncio" else trio.open_nursery()

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            async with new_group() as group:
                start = getattr(group, "start_soon", None)
                if start is not None:
                    start(anyio.sleep_forever)
                else:
                    group.create_task(asyncio.sleep(3600))
                while True:
                    await client.send_packet((yield))

    handler = Handler()
    async with serve(handler) as service:
        bystander = await service.connect()
        assert await bystander.ask("hello") == "hello"
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        if leaves == "EOF":
            peer.send_eof()
        elif leaves == "reset":
            peer.reset()
        else:
            await handler.clients[1].aclose()
        await handler.noted("on_disconnection")
        assert await bystander.ask("hello") == "hello"
        assert service.server.is_serving()
