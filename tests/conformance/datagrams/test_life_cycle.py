"""A server's life: what each call does when it is new, listening, serving, closed; how it ends."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.exceptions import BusyResourceError, ServerAlreadyRunning, ServerClosedError
from tests.conformance.datagrams.support import (
    Client,
    NewServer,
    Peer,
    Recorder,
    Requests,
    Serve,
    Server,
    new_peer,
    on_ip,
    serving,
)
from tests.conformance.peers import raw
from tests.conformance.support import Records, restarting
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

each_state = pytest.mark.parametrize("state", ["new", "listening", "serving", "closed"])


@contextlib.asynccontextmanager
async def in_state(state: str, server: Server) -> AsyncIterator[None]:
    """Bring a server into a state, and close it at the end."""
    with anyio.fail_after(PATIENCE):
        async with contextlib.AsyncExitStack() as stack:
            if state == "serving":
                await stack.enter_async_context(serving(server))
            elif state != "new":
                await stack.enter_async_context(server)
            if state == "closed":
                await server.server_close()
            yield
            await server.server_close()


@each_state
async def test_state(new_server: NewServer, anyio_backend_name: str, state: str, host: str) -> None:
    """Each state tells itself from the others; addresses and sockets are there while it listens."""
    server = new_server(Recorder())
    async with in_state(state, server):
        assert server.is_listening() is (state in ("listening", "serving"))
        assert server.is_serving() is (state == "serving")
        assert server.backend().name == anyio_backend_name
        if server.is_listening():
            [address], [sock] = server.get_addresses(), server.get_sockets()
            assert host in ("unix", "memory") or address.host == host
            assert sock.getsockname() == raw(address)
            assert sock.type == socket.SOCK_DGRAM
            assert str(address) in repr(server)
        else:
            assert server.get_addresses() == server.get_sockets() == ()


@each_state
async def test_calls(new_server: NewServer, state: str) -> None:
    """`server_activate()`, `shutdown()` and `server_close()` do what they can, or say why not."""
    server = new_server(Recorder())
    async with in_state(state, server):
        if state == "closed":
            for call in server.server_activate, server.serve_forever:
                with pytest.raises(ServerClosedError, match="^Closed server$"):
                    await call()
        else:
            await server.server_activate()
            assert server.is_listening()
        if state == "serving":
            with pytest.raises(ServerAlreadyRunning, match="^Server is already running$"):
                await server.serve_forever()
        await server.shutdown()
        assert not server.is_serving()
        assert server.is_listening() is (state != "closed")
        for _ in range(2):
            await server.server_close()
        assert not server.is_listening()


async def test_unclosed(new_server: NewServer) -> None:
    """A server that is forgotten closes its sockets, and says that it had to."""
    server = new_server(Recorder())
    await server.server_activate()
    [sock] = server.get_sockets()
    servers = [server]
    del server
    with pytest.warns(ResourceWarning, match="^unclosed server"):
        servers.clear()
    assert sock.fileno() < 0


# -- serving


async def test_good_day(serve: Serve, log: Records) -> None:
    """A server says that it starts and stops; datagrams leave no trace in the log."""
    async with serve(Recorder()) as service:
        [address] = service.server.get_addresses()
        for _ in range(3):
            assert await service.connect().ask("hello") == "hello"
    assert log.messages(logging.INFO) == [
        f"Start serving at {address}",
        "Server loop break, waiting for remaining tasks...",
        "Server stopped",
    ]
    assert {record.name for record in log.records} == {service.server.logger.name}
    assert service.server.logger.name in {each.__module__ for each in type(service.server).mro()}


async def test_several_sockets(serve: Serve) -> None:
    """All addresses are served, by whatever family; each answer comes from where it was asked."""
    async with serve(Recorder(), host=["127.0.0.1", "::1", "127.0.0.2"]) as service:
        addresses = service.server.get_addresses()
        assert len(addresses) == 3
        for address in addresses:
            with contextlib.closing(Peer(address)) as peer:
                assert await peer.ask("hello") == "hello"


async def test_datagrams_before_and_between(new_server: NewServer) -> None:
    """Datagrams that come while the server listens and does not serve are handled afterwards."""
    server = new_server(Recorder())
    async with server:
        for _ in range(3):
            with contextlib.closing(new_peer(server)) as peer:
                peer.send(*map(str, range(5)))
                async with restarting(server):
                    assert [await peer.receive() for _ in range(5)] == list("01234")
        assert server.get_statistics().received == 15


async def test_serve_again_at_once(new_server: NewServer) -> None:
    """`serve_forever()` may be called as soon as `shutdown()` has returned."""
    async with new_server(Recorder()) as server:
        for _ in range(3):
            async with restarting(server):
                assert server.is_serving()


# -- service_init


async def test_service_init(new_server: NewServer) -> None:
    """It is called before any datagram, with the server; its stack unwinds behind the last task."""

    class Handler(Recorder):
        async def service_init(self, exit_stack: AsyncExitStack, proxy: Any) -> None:
            assert proxy == server
            assert isinstance(proxy, type(server))
            assert proxy.get_addresses() == server.get_addresses() != ()
            assert not proxy.is_serving()
            with pytest.raises(BusyResourceError):
                await proxy.server_close()
            exit_stack.callback(self.note, "unwound")
            tasks = await exit_stack.enter_async_context(proxy.backend().create_task_group())
            tasks.start_soon(anyio.sleep_forever)

        async def handle(self, client: Client) -> Requests:
            self.note((yield))
            with self.noting_errors():
                yield

    handler = Handler()
    server = new_server(handler)
    async with server:
        with contextlib.closing(new_peer(server)) as peer:
            peer.send("early")
            assert handler.notes == []
            async with restarting(server):
                await handler.noted("early")
    assert handler.notes == ["early", "cancelled", "unwound"]


async def test_failing_service_init(new_server: NewServer, log: Records) -> None:
    """If it fails, serving ends with that error; the server listens on, and may be tried again."""

    class Handler(Recorder):
        fails = True

        async def service_init(self, exit_stack: AsyncExitStack, server: Any) -> None:
            if self.fails:
                raise LookupError("no database")

    handler = Handler()
    server = new_server(handler)
    async with server:
        with pytest.raises(LookupError, match="no database"):
            await server.serve_forever()
        assert server.is_listening()
        assert log.messages() == ["Server stopped"]
        handler.fails = False
        async with serving(server) as service:
            assert await service.connect().ask("hello") == "hello"


# -- the end


class Busy(Recorder):
    """Waits, at a yield or elsewhere, and notes how that ends."""

    async def handle(self, client: Client) -> Requests:
        request = yield
        self.note(request)
        with self.noting_errors():
            if request == "sleep":
                await anyio.sleep(3600)
            yield


@pytest.mark.parametrize("how", ["shutdown", "server_close"])
async def test_end(serve: Serve, log: Records, how: str) -> None:
    """All generators are cancelled, at once and wherever they wait; for there is no connection."""
    handler = Busy()
    async with serve(handler) as service:
        server = service.server
        peers = [service.connect() for _ in range(4)]
        for number, peer in enumerate(peers):
            peer.send("sleep" if number % 2 else "yield")
        await handler.noted("sleep", times=2)
        await handler.noted("yield", times=2)
        with anyio.fail_after(1):
            await getattr(server, how)()
        assert not server.is_serving()
        assert server.is_listening() is (how == "shutdown")
        await log.logged("Server stopped")
        assert handler.notes.count("cancelled") == 4
        assert server.get_statistics().peers == 0
        assert log.messages()[-2:] == [
            "Server loop break, waiting for remaining tasks...",
            "Server stopped",
        ]


@pytest.mark.parametrize("how", ["shutdown", "server_close"])
async def test_end_by_a_handler(new_server: NewServer, how: str) -> None:
    """A handler that ends its server is cancelled there, like all others."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            with self.noting_errors():
                await getattr(server, how)()
                await anyio.sleep_forever()

    handler = Handler()
    server = new_server(handler)
    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve_forever)
            with contextlib.closing(new_peer(server)) as peer:
                peer.send("stop", "more", "datagrams")
    assert handler.notes == ["cancelled"]


@on_ip
async def test_end_with_a_datagram_just_received(new_server: NewServer) -> None:
    """A datagram that has just arrived delays nothing."""
    server = new_server(Busy())
    with anyio.fail_after(1):
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            with contextlib.closing(new_peer(server)) as peer:
                peer.send(*["sleep"] * 60)
                for _ in range(3):
                    await anyio.lowlevel.checkpoint()
                await server.shutdown()


async def test_cancelled(new_server: NewServer) -> None:
    """A `serve_forever()` that is cancelled cleans up, and lets the cancellation through."""
    handler = Busy()
    server = new_server(handler)
    async with server, anyio.create_task_group() as tasks:

        async def serve() -> None:
            with handler.noting_errors():
                await server.serve_forever()

        tasks.start_soon(serve)
        with contextlib.closing(new_peer(server)) as peer:
            peer.send("sleep")
            await handler.noted("sleep")
            tasks.cancel_scope.cancel()
    assert handler.notes == ["sleep", "cancelled", "cancelled"]


@pytest.mark.parametrize("shielded", ["scope", "backend"])
async def test_shielded_handler(serve: Serve, shielded: str) -> None:
    """What a handler shields from cancellation is not interrupted."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("begun")
            if shielded == "scope":
                with anyio.CancelScope(shield=True):
                    await self.work()
            else:
                await client.backend().ignore_cancellation(self.work())

        async def work(self) -> None:
            await self.released.wait()
            await anyio.lowlevel.checkpoint()
            self.note("done")

    handler = Handler()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        service.connect().send("hello")
        await handler.noted("begun")
        tasks.start_soon(service.server.shutdown)
        await anyio.wait_all_tasks_blocked()
        handler.released.set()
        await handler.noted("done")


async def test_closed_during_activation(new_server: NewServer) -> None:
    """A server that is closed while it is being activated does not come up."""
    server = new_server(Recorder())
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.server_activate)
            tasks.start_soon(server.server_close)
    assert caught.group_contains(ServerClosedError)
    assert not server.is_listening()
