"""`service_init()`: when it runs, what it may start, how that ends; and context variables."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from easynetwork.exceptions import BusyResourceError
from tests.conformance.peers import new_peer
from tests.conformance.support import (
    Client,
    NewServer,
    Recorder,
    Records,
    Requests,
    Serve,
    Server,
    restarting,
    serving,
)
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio


async def test_once_per_serving(serve: Serve) -> None:
    """It is called whenever serving begins, before any client."""

    class Handler(Recorder):
        async def service_init(self, exit_stack: AsyncExitStack, server: Server) -> None:
            exit_stack.callback(self.note, "unwound")
            self.note("init")

    handler = Handler()
    async with serve(handler) as service:
        await service.connect()
        await handler.noted("on_connection")
        await service.server.shutdown()
        # The stack is unwound behind the last client's task.
        assert handler.notes[:2] == ["init", "on_connection"]
        assert handler.notes[-2:] == ["on_disconnection", "unwound"]
        async with restarting(service.server):
            pass
        assert handler.notes[-2:] == ["init", "unwound"]


async def test_default(serve: Serve) -> None:
    """It need not be there."""
    async with serve(Recorder()) as service:
        assert await (await service.connect()).ask("hello") == "hello"


async def test_server(new_server: NewServer, anyio_backend_name: str) -> None:
    """It gets a proxy of the server, which has its addresses and is not serving yet."""

    class Handler(Recorder):
        async def service_init(self, exit_stack: AsyncExitStack, proxy: Any) -> None:
            assert proxy == server
            assert type(proxy) is weakref.ProxyType
            assert isinstance(proxy, type(server))
            assert proxy.get_addresses() == server.get_addresses() != ()
            assert len(proxy.get_sockets()) == 1
            assert proxy.is_listening()
            assert not proxy.is_serving()
            assert proxy.backend().name == anyio_backend_name
            with pytest.raises(BusyResourceError):
                await proxy.server_close()
            self.note("checked")

    handler = Handler()
    server = new_server(handler)
    async with serving(server):
        assert handler.notes == ["checked"]


@pytest.mark.parametrize("wait", [False, True])
async def test_failure(new_server: NewServer, log: Records, wait: bool) -> None:
    """If it fails, serving ends with that error; the server listens on, and may be tried again."""

    class Handler(Recorder):
        fails = True

        async def service_init(self, exit_stack: AsyncExitStack, server: Server) -> None:
            exit_stack.callback(self.note, "unwound")
            if wait:
                await anyio.lowlevel.checkpoint()
            if self.fails:
                raise LookupError("no database")

    handler = Handler()
    server = new_server(handler)
    is_up = anyio.Event()
    async with server:
        with pytest.raises(LookupError, match="no database"):
            await server.serve_forever(is_up_event=is_up)
        assert not is_up.is_set()
        assert server.is_listening()
        assert not server.is_serving()
        assert handler.notes == ["unwound"]
        assert log.messages() == ["Server stopped"]
        handler.fails = False
        async with serving(server) as service:
            assert await (await service.connect()).ask("hello") == "hello"


async def test_failing_exit(new_server: NewServer, log: Records) -> None:
    """If what it left in the exit stack fails, serving ends with that error."""

    class Handler(Recorder):
        async def service_init(self, exit_stack: AsyncExitStack, server: Server) -> None:
            exit_stack.callback(self.fail)

        def fail(self) -> None:
            raise LookupError("lost")

    with anyio.fail_after(PATIENCE):
        async with new_server(Handler()) as server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()

            async def stop() -> None:
                await is_up.wait()
                await server.shutdown()

            tasks.start_soon(stop)
            with pytest.raises(LookupError, match="lost"):
                await server.serve_forever(is_up_event=is_up)
    assert log.messages()[-1] == "Server stopped"


# -- background tasks


class Background(Recorder):
    """Runs a task beside the clients, in a task group of a certain kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    async def service_init(self, exit_stack: AsyncExitStack, server: Server) -> None:
        exit_stack.callback(self.note, "unwound")
        if self.kind == "backend":
            group = await exit_stack.enter_async_context(server.backend().create_task_group())
            group.start_soon(self.work)
        elif server.backend().name == "asyncio":
            tasks = await exit_stack.enter_async_context(asyncio.TaskGroup())
            self.task = tasks.create_task(self.work())
        else:
            nursery = await exit_stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(self.work)

    async def work(self) -> None:
        self.note("working")
        with self.noting_errors():
            await self.released.wait()
            raise LookupError("a bug")


each_kind = pytest.mark.parametrize("kind", ["framework", "backend"])
each_end = pytest.mark.parametrize("end", ["shutdown", "server_close", "cancellation"])


@each_kind
@each_end
async def test_background_task(new_server: NewServer, kind: str, end: str) -> None:
    """A background task lives until serving ends, in whatever way; then it is cancelled."""
    handler = Background(kind)
    server = new_server(handler)
    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            await handler.noted("working")
            if end == "shutdown":
                await server.shutdown()
            elif end == "server_close":
                await server.server_close()
            else:
                tasks.cancel_scope.cancel()
    assert handler.notes == ["working", "cancelled", "unwound"]


@each_kind
async def test_failing_background_task(new_server: NewServer, log: Records, kind: str) -> None:
    """A background task that fails ends serving, with its group of errors; the clients first."""

    class Handler(Background):
        async def greet(self, client: Client) -> None:
            self.note("on_connection")
            self.released.set()
            await anyio.sleep_forever()

    handler = Handler(kind)
    server = new_server(handler)
    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as tasks:
            peer = new_peer(server)
            has_started = anyio.Event()

            async def start() -> None:
                await peer.start()
                has_started.set()

            tasks.start_soon(start)
            with pytest.raises(ExceptionGroup) as caught:
                await server.serve_forever()
            await has_started.wait()
            assert await peer.rest() == ("", "EOF")
            assert server.is_listening()
    assert [str(exc) for exc in caught.value.exceptions] == ["a bug"]
    assert handler.notes == ["working", "on_connection", "LookupError", "unwound"]
    assert log.messages()[-1] == "Server stopped"


# -- context variables

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def test_context_of_the_service(new_server: NewServer) -> None:
    """What is set in `service_init()` is seen by every client, again after a restart."""

    class Handler(Recorder):
        async def service_init(self, exit_stack: AsyncExitStack, server: Server) -> None:
            who.set("service")

        async def greet(self, client: Client) -> None:
            await client.send_packet(who.get())

        async def handle(self, client: Client) -> Requests:
            await client.send_packet(who.get())
            yield

        async def on_disconnection(self, client: Client) -> None:
            self.note(who.get())

    handler = Handler()
    server = new_server(handler)
    async with serving(server) as service:
        peers = [await service.connect() for _ in range(3)]
        for peer in peers:
            assert await peer.receive_lines(2) == ["service", "service"]
            peer.close()
        await handler.noted("service", times=3)
        await server.shutdown()
        async with restarting(server):
            assert await (await service.connect()).receive_lines(2) == ["service", "service"]
    assert who.get() == "nobody"


async def test_context_of_a_connection(serve: Serve) -> None:
    """What is set for a connection stays with it, from one method and generator to the next."""

    class Handler(Recorder):
        async def greet(self, client: Client) -> None:
            assert who.get() == "nobody"
            who.set("greeted")

        async def handle(self, client: Client) -> Requests:
            before = who.get()
            request = yield
            assert who.get() == before
            await client.send_packet(before)
            who.set(request)

        async def on_disconnection(self, client: Client) -> None:
            self.note(who.get())

    handler = Handler()
    async with serve(handler) as service:
        for _ in range(2):
            one, two = await service.connect(), await service.connect()
            assert await one.ask("one") == "greeted"
            assert await two.ask("two") == "greeted"
            assert await one.ask("three") == "one"
            assert await two.ask("four") == "two"
            one.close()
            two.close()
        await handler.noted("three", times=2)
        await handler.noted("four", times=2)
