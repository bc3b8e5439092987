"""How serving ends: shut down, closed, cancelled, failed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import anyio
import pytest

from tests.conformance.peers import new_peer
from tests.conformance.support import (
    REFUSED,
    Client,
    NewServer,
    Recorder,
    Records,
    Requests,
    Serve,
    on_ip,
    serving,
)
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio


class Sleeping(Recorder):
    """Sleeps when it is asked to, and answers other requests."""

    async def handle(self, client: Client) -> Requests:
        with self.noting_errors():
            request = yield
            self.note(request)
            if request == "sleep":
                await anyio.sleep(3600)
            await client.send_packet(request)


class Init(Recorder):
    """Starts slowly."""

    async def service_init(self, exit_stack: Any, server: Any) -> None:
        exit_stack.callback(self.note, "unwound")
        self.note("starting")
        with self.noting_errors():
            await self.released.wait()


# -- shutdown


async def test_shutdown_trace(serve: Serve, log: Records) -> None:
    """Clients are cancelled and said goodbye to; what was initialised is unwound; it is over."""

    class Handler(Sleeping):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            exit_stack.callback(lambda: self.note(log.messages()[-1]))

        async def on_disconnection(self, client: Client) -> None:
            self.note(log.messages()[-1])
            self.note(f"closing: {client.is_closing()}")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("sleep")
        await handler.noted("sleep")
        with anyio.fail_after(1):
            await service.server.shutdown()
        assert service.server.is_listening()
        assert handler.notes == [
            *("on_connection", "sleep", "cancelled"),
            "Server loop break, waiting for remaining tasks...",
            "closing: False",
            f"{peer.name} disconnected (the server stopped)",
        ]
        assert log.messages()[-1] == "Server stopped"
        assert await peer.rest() == ("", "EOF")


async def test_shutdown_by_a_client(new_server: NewServer) -> None:
    """A handler that shuts its server down is cancelled there, like all others."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            with self.noting_errors():
                await server.shutdown()

    handler = Handler()
    server = new_server(handler)
    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve_forever)
            peer = new_peer(server)
            peer.send("stop")
            assert await peer.rest() == ("", "EOF")
    assert handler.notes == ["on_connection", "cancelled", "on_disconnection"]


async def test_shutdown_with_unread_requests(serve: Serve) -> None:
    """A server that stops in the middle of requests still sends what was answered."""

    class Handler(Sleeping):
        async def on_disconnection(self, client: Client) -> None:
            await client.send_packet("bye")

    handler = Handler()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        peer.send("one", "sleep")
        await handler.noted("sleep")
        peer.send("two", "three")
        tasks.start_soon(service.server.shutdown)
        assert await peer.rest() == ("one\nbye\n", "EOF")


async def test_shutdown_with_unsent_answers(serve: Serve) -> None:
    """Answers that the peer has not read yet arrive, if it reads now, before the end."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            with anyio.move_on_after(0):
                await client.send_packet("x" * 5_000_000)
            self.note("sent")
            await anyio.sleep_forever()

    handler = Handler()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        peer.send("go")
        await handler.noted("sent")
        tasks.start_soon(service.server.shutdown)
        assert await peer.rest() == ("x" * 5_000_000 + "\n", "EOF")


async def test_shutdown_during_goodbye(serve: Serve) -> None:
    """A goodbye that takes too long is cancelled too, which is not a crash."""

    class Handler(Recorder):
        async def on_disconnection(self, client: Client) -> None:
            self.note("goodbye")
            with self.noting_errors():
                await anyio.sleep_forever()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("handle")
        peer.send_eof()
        await handler.noted("goodbye")
        await service.server.shutdown()
        assert handler.notes[-1] == "cancelled"
        assert await peer.rest() == ("", "EOF")


async def test_shutdown_before_accepting(new_server: NewServer) -> None:
    """A client that is connected and not yet accepted does not delay it."""
    server = new_server(Recorder())
    with anyio.fail_after(1):
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            peer = new_peer(server)
            await server.shutdown()
        await peer.rest()


@pytest.mark.parametrize("moment", ["activation", "service_init"])
async def test_shutdown_while_starting(new_server: NewServer, log: Records, moment: str) -> None:
    """A server that is shut down while it starts does not come up; `serve_forever()` returns."""
    handler = Init()
    server = new_server(handler)
    is_up = anyio.Event()

    async def start() -> None:
        handler.note("begun")
        await server.serve_forever(is_up_event=is_up)
        handler.note("returned")

    async def shut_down() -> None:
        await server.shutdown()
        assert handler.notes[-1] == "returned"

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            await handler.noted("begun" if moment == "activation" else "starting")
            for _ in range(3):
                tasks.start_soon(shut_down)
    assert not is_up.is_set()
    if moment == "service_init":
        assert handler.notes == ["begun", "starting", "cancelled", "unwound", "returned"]
        assert log.messages() == ["Server stopped"]
    await server.server_close()


async def test_shutdown_while_starting_stubbornly(new_server: NewServer) -> None:
    """Not even if `service_init()` cannot be cancelled."""

    class Handler(Recorder):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            self.note("starting")
            with anyio.CancelScope(shield=True):
                await self.released.wait()

    handler = Handler()
    is_up = anyio.Event()
    with anyio.fail_after(PATIENCE):
        async with new_server(handler) as server, anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await handler.noted("starting")
            tasks.start_soon(server.shutdown)
            await anyio.wait_all_tasks_blocked()
            handler.released.set()
    assert not is_up.is_set()


# -- server_close


async def test_close_from_a_handler(serve: Serve, log: Records) -> None:
    """Clients that are connected are served on; new ones are refused; the last one ends it."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            if request == "close":
                await service.server.server_close()
                self.note(str(service.server.get_addresses()))
            await client.send_packet(request)

    handler = Handler()
    async with serve(handler) as service:
        [address] = service.server.get_addresses()
        peer, other = await service.connect(), await service.connect()
        assert await other.ask("hello") == "hello"
        assert await peer.ask("close") == "close"
        assert handler.notes[-1] == "()"
        assert not service.server.is_serving()
        with pytest.raises(REFUSED):
            new_peer(service.server, address)
        assert await peer.ask("one") == "one"
        assert await other.ask("two") == "two"
        peer.close()
        await handler.noted("on_disconnection")
        assert await other.ask("three") == "three"
        assert "Server stopped" not in log.messages()
        other.close()
        await log.logged("Server stopped")
        assert log.messages()[-2:] == [
            "Server loop break, waiting for remaining tasks...",
            "Server stopped",
        ]


@pytest.mark.parametrize("clients", [0, 1])
async def test_close_ends_serving(new_server: NewServer, clients: int) -> None:
    """`serve_forever()` returns at once if there is no client, else when the last one leaves."""
    handler = Recorder()
    server = new_server(handler)
    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            peers = [new_peer(server) for _ in range(clients)]
            for peer in peers:
                await peer.ask("hello")
            await server.server_close()
            for peer in peers:
                assert await peer.ask("hello") == "hello"
                peer.close()


async def test_shutdown_behind_close(serve: Serve) -> None:
    """A server that was closed can still be shut down."""
    handler = Sleeping()
    async with serve(handler) as service:
        (await service.connect()).send("sleep")
        await handler.noted("sleep")
        await service.server.server_close()
        await service.server.shutdown()
        assert handler.notes[-2:] == ["cancelled", "on_disconnection"]


# -- cancellation


@pytest.mark.parametrize("way", ["scope", "task", "timeout"])
@pytest.mark.parametrize("moment", ["service_init", "serving"])
async def test_cancelled(
    new_server: NewServer, log: Records, anyio_backend_name: str, way: str, moment: str
) -> None:
    """A `serve_forever()` that is cancelled cleans up, and lets the cancellation through."""
    if way != "scope" and anyio_backend_name == "trio":
        pytest.skip("trio has scopes only")
    handler = Init()
    server = new_server(handler)
    is_up = anyio.Event()
    scope = anyio.CancelScope()

    async def serve_until_cancelled() -> None:
        with contextlib.ExitStack() as stack:
            if way == "scope":
                stack.enter_context(scope)
            stack.enter_context(handler.noting_errors())
            await server.serve_forever(is_up_event=is_up)

    async def provoke(cancel: Any) -> None:
        await handler.noted("starting")
        if moment == "serving":
            handler.released.set()
            await is_up.wait()
            peer = new_peer(server)
            await peer.ask("hello")
            cancel()
            assert await peer.rest() == ("", "EOF")
        else:
            cancel()

    with anyio.fail_after(PATIENCE):
        async with server:
            async with anyio.create_task_group() as tasks:
                if way == "scope":
                    tasks.start_soon(serve_until_cancelled)
                    await provoke(scope.cancel)
                elif way == "task":
                    task = asyncio.ensure_future(serve_until_cancelled())
                    await provoke(task.cancel)
                    await asyncio.wait([task])
                    assert task.cancelled()
                else:
                    timeout = asyncio.timeout(None)
                    tasks.start_soon(provoke, lambda: timeout.reschedule(0))
                    with pytest.raises(TimeoutError):
                        async with timeout:
                            await serve_until_cancelled()
            assert server.is_listening()
            assert not server.is_serving()
    assert log.messages()[-1] == "Server stopped"
    assert handler.notes[-2:] == ["unwound", "cancelled"]


# -- failure


@on_ip
async def test_broken_listener(new_server: NewServer, log: Records) -> None:
    """A listening socket that fails ends the server with its error; the clients are cancelled."""
    handler = Sleeping()
    server = new_server(handler)
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(server) as service:
            (await service.connect()).send("sleep")
            await handler.noted("sleep")
            with socket.socket(fileno=socket.dup(server.get_sockets()[0].fileno())) as listener:
                listener.shutdown(socket.SHUT_RDWR)  # accept(2) fails from now on: EINVAL
            await anyio.sleep_forever()
    assert caught.group_contains(OSError)
    assert handler.notes[-2:] == ["cancelled", "on_disconnection"]
    assert log.messages()[-1] == "Server stopped"
