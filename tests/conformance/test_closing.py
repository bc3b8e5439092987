"""`client.aclose()`: from the handler, from another task, cancelled, with requests unread."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.addresses import ISocket
from easynetwork.exceptions import ClientClosedError
from easynetwork.servers.handlers import INETClientAttribute
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

pytestmark = pytest.mark.anyio


class Closing(Recorder):
    """Answers, closes the client, and goes on with something else."""

    async def handle(self, client: Client) -> Requests:
        self.note("handle")
        request = yield
        await client.send_packet(request)
        await client.aclose()
        assert client.is_closing()
        self.note("closed")


async def test_close_from_handle(serve: Serve) -> None:
    """The peer gets its answer and the end of the stream; the handler goes on and is done."""
    handler = Closing()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        assert await peer.rest() == ("", "EOF")
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_connection", "handle", "closed", "on_disconnection"]


async def test_peer_that_does_not_take_the_rest(serve: Serve, tls: ssl.SSLContext | None) -> None:
    """What was sent before the end is kept for a peer for a while, not for ever."""
    answer = "x" * 10_000_000
    sockets: list[ISocket] = []

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            sockets.append(client.extra(INETClientAttribute.socket))
            yield
            with anyio.move_on_after(SOON):
                await client.send_packet(answer)

    options: dict[str, Any] = {"ssl_shutdown_timeout": SOON}
    if tls is None:
        options = {"limits": Limits(close_timeout=SOON)}
    async with serve(Handler(), **options) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("hello")
        peer.send_eof()
        while not sockets or sockets[0].fileno() >= 0:
            await anyio.sleep(SOON / 10)
        got, end = await peer.rest()
        assert end == "reset"
        assert len(got) < len(answer)


async def test_close_before_the_first_yield(serve: Serve) -> None:
    """A generator that closes the client and yields is closed there."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            await client.aclose()
            with self.noting_errors():
                yield

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.rest() == ("", "EOF")
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_connection", "GeneratorExit", "on_disconnection"]


async def test_yield_after_closing(serve: Serve) -> None:
    """At a yield behind `aclose()`, the generator is closed, whatever has been received."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            await client.aclose()
            with self.noting_errors():
                self.note((yield))

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("one", "two", "three")
        assert await peer.rest() == ("", "EOF")
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_connection", "GeneratorExit", "on_disconnection"]


async def test_close_twice(serve: Serve) -> None:
    """Closing again, and at the same time, does nothing more."""
    handler = Recorder()
    async with serve(handler) as service:
        peer = await service.connect()
        await handler.noted("on_connection")
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(handler.clients[0].aclose)
        await handler.clients[0].aclose()
        assert await peer.rest() == ("", "EOF")


# -- everything arrives


@pytest.mark.parametrize("size", [10, 5_000_000])
async def test_answer_arrives_whole(serve: Serve, size: int) -> None:
    """What was sent before arrives before the end of the stream, however much it is."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            with anyio.CancelScope(shield=True), anyio.move_on_after(0):
                await client.send_packet("x" * size)  # the transport has it when this is cancelled
            await client.aclose()

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("go")
        assert await peer.rest() == ("x" * size + "\n", "EOF")


@pytest.mark.parametrize("arrive", ["at once", "one by one", "later"])
@pytest.mark.parametrize("size", [10, 5_000_000])
async def test_unread_requests(serve: Serve, arrive: str, size: int) -> None:
    """Requests that are not answered any more do not cost the peer the answer it was given."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("answering")
            await self.released.wait()
            await client.send_packet("x" * size)
            await client.aclose()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        if arrive == "at once":
            peer.send("one", "two", "three")
        else:
            peer.send("one")
        await handler.noted("answering")
        if arrive == "one by one":
            for request in "two", "three":
                await anyio.wait_all_tasks_blocked()
                peer.send(request)
            await anyio.wait_all_tasks_blocked()
        handler.released.set()
        if arrive == "later":
            peer.send("two", "three")
        assert await peer.rest() == ("x" * size + "\n", "EOF")


@pytest.mark.in_turn
@one_protocol
async def test_peer_that_goes_on_sending(serve: Serve, linger_time: float) -> None:
    """A peer that never stops does not keep a closed connection open."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            await client.send_packet((yield))
            await client.aclose()

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("one", "two")
        assert await peer.rest(leave=False) == ("one\n", "EOF")
        with contextlib.suppress(ConnectionError):
            while "on_disconnection" not in handler.notes:
                peer.send("more")
                await anyio.lowlevel.checkpoint()
        await handler.noted("on_disconnection")


# -- by another task


async def test_close_while_the_handler_waits(serve: Serve) -> None:
    """When another task closes the client, a generator that waits at its yield is closed."""

    class Handler(Recorder):
        async def on_disconnection(self, client: Client) -> None:
            self.note(f"closing: {client.is_closing()}")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        await handler.noted("handle", times=2)
        await handler.clients[0].aclose()
        assert await peer.rest() == ("", "EOF")
        await handler.noted("closing: True")
    assert handler.notes[-2:] == ["GeneratorExit", "closing: True"]


async def test_close_while_the_handler_waits_and_the_peer_does_not_read(serve: Serve) -> None:
    """Even if what was sent cannot leave yet; it does when the peer reads."""
    handler = Narrow()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        await handler.noted("handle")
        [client] = handler.clients
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.send_packet, "x" * 1_000_000)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(client.aclose)
            await handler.noted("on_disconnection")
            assert handler.notes[-2:] == ["GeneratorExit", "on_disconnection"]
            assert await peer.rest() == ("x" * 1_000_000 + "\n", "EOF")


async def test_close_while_the_handler_is_busy(serve: Serve) -> None:
    """A busy handler goes on to its end; then there is no new generator."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note("handle")
            yield
            self.note("busy")
            await self.released.wait()
            with pytest.raises(ClientClosedError):
                await client.send_packet("too late")
            self.note("done")

    handler = Handler()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = await service.connect()
        peer.send("one", "two")
        await handler.noted("busy")
        tasks.start_soon(handler.clients[0].aclose)
        assert await peer.rest() == ("", "EOF")
        handler.released.set()
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_connection", "handle", "busy", "done", "on_disconnection"]


async def test_close_while_another_task_sends(serve: Serve) -> None:
    """A task that waits in `send_packet()` then is none the worse: its packet arrives."""
    handler = Narrow()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        await handler.noted("on_connection")
        [client] = handler.clients
        async with anyio.create_task_group() as tasks:
            for name in "ab":
                tasks.start_soon(client.send_packet, name * 500_000)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(client.aclose)
            received, end = await peer.rest()
            assert end == "EOF"
            assert sorted(received.split()) == ["a" * 500_000, "b" * 500_000]


# -- cancelled


@pytest.mark.parametrize("waits_for", ["the peer to read", "the peer to leave"])
async def test_cancelled(serve: Serve, waits_for: str) -> None:
    """If it is cancelled while it waits, the connection is reset, and the cancellation goes on."""

    class Handler(Narrow):
        async def handle(self, client: Client) -> Requests:
            yield
            if waits_for == "the peer to read":
                with anyio.move_on_after(0):
                    await client.send_packet("x" * 1_000_000)
            with anyio.CancelScope() as self.scope, self.noting_errors():
                self.note("closing")
                await client.aclose()
            self.note("done")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect(receive_buffer=4096)
        peer.send("one", "two")
        await handler.noted("closing")
        await anyio.wait_all_tasks_blocked()
        handler.scope.cancel()
        await handler.noted("on_disconnection")
        [client] = handler.clients
        assert client.is_closing()
        await anyio.wait_all_tasks_blocked()
        assert client.extra(INETClientAttribute.socket).fileno() == -1
        received, end = await peer.rest()
        assert end == ("reset" if waits_for == "the peer to read" else "EOF")
        assert len(received) < 1_000_000
    assert handler.notes == ["on_connection", "closing", "cancelled", "done", "on_disconnection"]


async def test_cancelled_by_another_task(serve: Serve, log: Records) -> None:
    """If another task's `aclose()` is cancelled, the session does not wait either."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("busy")
            await self.released.wait()

    async def close(client: Client, scope: anyio.CancelScope) -> None:
        with scope:
            await client.aclose()

    handler = Handler()
    scope = anyio.CancelScope()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        (await service.connect()).send("one", "two")
        await handler.noted("busy")
        [client] = handler.clients
        tasks.start_soon(close, client, scope)
        await anyio.wait_all_tasks_blocked()
        handler.released.set()
        await handler.noted("on_disconnection")
        await service.server.server_close()
        with anyio.fail_after(0.5):
            scope.cancel()
            await log.logged("Server stopped")
        assert client.extra(INETClientAttribute.socket).fileno() == -1
