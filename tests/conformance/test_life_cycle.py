"""The table of a server's life: what each call does when it is new, listening, serving, closed."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

import anyio
import pytest

from easynetwork.exceptions import BusyResourceError, ServerAlreadyRunning, ServerClosedError
from tests.conformance.peers import new_peer
from tests.conformance.support import (
    REFUSED,
    Client,
    NewServer,
    Recorder,
    Records,
    Serve,
    Server,
    each_family,
    on_ip,
    serving,
)
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

STATES = ("new", "listening", "serving", "closed")

each_state = pytest.mark.parametrize("state", STATES)


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
async def test_is_listening(new_server: NewServer, state: str) -> None:
    """A server listens from its activation until it is closed."""
    server = new_server(Recorder())
    async with in_state(state, server):
        assert server.is_listening() is (state in ("listening", "serving"))


@each_state
async def test_is_serving(new_server: NewServer, state: str) -> None:
    """It serves while `serve_forever()` runs."""
    server = new_server(Recorder())
    async with in_state(state, server):
        assert server.is_serving() is (state == "serving")


@on_ip
@each_state
@each_family
async def test_addresses(new_server: NewServer, state: str, host: str) -> None:
    """It has addresses, and sockets to look at, while it listens."""
    server = new_server(Recorder())
    async with in_state(state, server):
        if state in ("new", "closed"):
            assert server.get_addresses() == ()
            assert server.get_sockets() == ()
        else:
            [address], [sock] = server.get_addresses(), server.get_sockets()
            assert address.host == host
            assert address.port > 0
            assert sock.getsockname() == address
            assert sock.type == socket.SOCK_STREAM


@each_state
async def test_backend(new_server: NewServer, anyio_backend_name: str, state: str) -> None:
    """It always knows its backend: that of the framework it was made in, by default."""
    server = new_server(Recorder())
    async with in_state(state, server):
        assert server.backend().name == anyio_backend_name


# -- server_activate


@each_state
async def test_activate(new_server: NewServer, state: str) -> None:
    """`server_activate()` opens a new server, leaves an open one alone, refuses a closed one."""
    server = new_server(Recorder())
    async with in_state(state, server):
        before = server.get_addresses()
        if state == "closed":
            with pytest.raises(ServerClosedError, match="^Closed server$"):
                await server.server_activate()
        else:
            await server.server_activate()
            assert server.is_listening()
            assert server.is_serving() is (state == "serving")
            assert before in ((), server.get_addresses())


async def test_activate_as_context(new_server: NewServer) -> None:
    """`async with` activates a server and closes it."""
    server = new_server(Recorder())
    async with server as entered:
        assert entered is server
        assert server.is_listening()
    assert not server.is_listening()
    with pytest.raises(ServerClosedError):
        await server.server_activate()


async def test_activate_concurrently(new_server: NewServer) -> None:
    """Several tasks may activate a server at once: it is done once, though it takes time."""
    server = new_server(Recorder(), host="localhost")
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(server.server_activate)
    assert server.is_listening()  # a socket that was opened in vain would say so
    await server.server_close()


async def test_close_overtakes_activation(new_server: NewServer) -> None:
    """A server that is closed just after its activation has begun does not open."""
    server, begun = new_server(Recorder()), anyio.Event()

    async def activate() -> None:
        begun.set()
        with pytest.raises(ServerClosedError, match="^Server has been closed$"):
            await server.server_activate()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(activate)
        await begun.wait()
        await server.server_close()
    assert not server.is_listening()


async def test_activation_can_be_cancelled(new_server: NewServer) -> None:
    """An activation that is cancelled leaves the server new."""
    server = new_server(Recorder())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await server.server_activate()
    assert scope.cancelled_caught
    assert not server.is_listening()
    async with server:
        assert server.is_listening()


# -- serve_forever


@each_state
async def test_serve(new_server: NewServer, state: str) -> None:
    """`serve_forever()` activates and serves; once at a time, and not when closed."""
    server = new_server(Recorder())
    async with in_state(state, server):
        if state == "serving":
            with pytest.raises(ServerAlreadyRunning, match="^Server is already running$"):
                server.serve_forever().send(None)  # without any suspension
            assert server.is_serving()
        elif state == "closed":
            with pytest.raises(ServerClosedError, match="^Closed server$"):
                await server.serve_forever()
        else:
            async with serving(server) as service:
                assert server.is_listening()
                assert server.is_serving()
                assert await (await service.connect()).ask("hello") == "hello"


async def test_event(new_server: NewServer) -> None:
    """The event is set when clients are accepted; anything with a `set()` will do."""

    class Event:
        was_serving = False

        def set(self) -> None:
            self.was_serving = server.is_serving()
            done.set()

    server, event, done = new_server(Recorder()), Event(), anyio.Event()
    async with server, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: server.serve_forever(is_up_event=event))
        await done.wait()
        assert event.was_serving
        await server.shutdown()


async def test_log(new_server: NewServer, log: Records) -> None:
    """The beginning and the end of serving are logged."""
    server = new_server(Recorder())
    async with serving(server):
        [address] = server.get_addresses()
        assert log.messages() == [f"Start serving at {address}"]
    assert log.messages()[1:] == [
        "Server loop break, waiting for remaining tasks...",
        "Server stopped",
    ]


# -- shutdown


@each_state
async def test_shutdown(new_server: NewServer, state: str) -> None:
    """`shutdown()` ends serving, and nothing else."""
    server = new_server(Recorder())
    async with in_state(state, server):
        await server.shutdown()
        assert not server.is_serving()
        assert server.is_listening() is (state in ("listening", "serving"))


async def test_shutdown_concurrently(serve: Serve) -> None:
    """Any number of tasks may shut a server down; all wait until it has stopped."""
    handler = Recorder()
    async with serve(handler) as service:
        await (await service.connect()).ask("hello")

        async def shut_down() -> None:
            await service.server.shutdown()
            assert handler.notes[-1] == "on_disconnection"

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(shut_down)
        await service.server.shutdown()


# -- server_close


@each_state
async def test_close(new_server: NewServer, state: str) -> None:
    """`server_close()` closes the sockets, at once and for good; again, it does nothing."""
    server = new_server(Recorder())
    async with in_state(state, server):
        addresses = server.get_addresses()
        for _ in range(2):
            await server.server_close()
            assert not server.is_listening()
            assert not server.is_serving()
            assert server.get_addresses() == ()
        for address in addresses:
            with pytest.raises(REFUSED):
                new_peer(server, address)
        with pytest.raises(ServerClosedError):
            await server.server_activate()


@pytest.mark.parametrize("state", ["listening", "serving"])
async def test_close_cancelled(new_server: NewServer, state: str) -> None:
    """If it is cancelled, the server is closed all the same, and the caller is told."""
    server = new_server(Recorder())
    async with in_state(state, server):
        with anyio.move_on_after(0) as scope:
            await server.server_close()
        assert scope.cancelled_caught
        assert not server.is_listening()


async def test_close_while_starting(new_server: NewServer) -> None:
    """A server that is just starting cannot be closed."""

    class Handler(Recorder):
        async def service_init(self, exit_stack: object, server: object) -> None:
            self.note("starting")
            await self.released.wait()

        async def greet(self, client: Client) -> None: ...

    handler = Handler()
    server = new_server(handler)
    message = r"^Cannot close server during serve_forever\(\) setup\.$"
    async with server, anyio.create_task_group() as tasks:
        is_up = anyio.Event()
        tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
        await handler.noted("starting")
        with pytest.raises(BusyResourceError, match=message):
            await server.server_close()
        assert server.is_listening()
        handler.released.set()
        await is_up.wait()
        await server.shutdown()
