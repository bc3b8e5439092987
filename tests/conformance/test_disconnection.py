"""The peer leaves: at a yield, while the handler is busy, in the middle of a packet."""

from __future__ import annotations

from operator import methodcaller

import anyio
import anyio.lowlevel
import pytest

from easynetwork.servers.statistics import CloseReason
from tests.conformance.support import Client, Recorder, Records, Requests, Serve

pytestmark = pytest.mark.anyio

LEAVE = {"half-close": methodcaller("send_eof"), "reset": methodcaller("reset")}


@pytest.mark.parametrize("how", LEAVE)
async def test_disconnection(serve: Serve, how: str) -> None:
    """At a yield, the end of a connection is GeneratorExit, never ConnectionError."""
    handler = Recorder()
    async with serve(handler) as service:
        peer = await service.connect()
        await peer.ask("hello")
        LEAVE[how](peer)
        await handler.noted("on_disconnection")
    assert handler.notes[-3:] == ["handle", "GeneratorExit", "on_disconnection"]


async def test_cleanup_may_take_its_time(serve: Serve) -> None:
    """A generator that is closed may await and send; nothing else happens before it is done."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            try:
                yield
            finally:
                self.note("cleaning up")
                await self.released.wait()
                await client.send_packet("bye")

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_eof()
        await handler.noted("cleaning up")
        await anyio.wait_all_tasks_blocked()
        assert handler.notes == ["on_connection", "cleaning up"]
        handler.released.set()
        assert await peer.rest() == ("bye\n", "EOF")
        assert handler.notes == ["on_connection", "cleaning up", "on_disconnection"]


async def test_requests_before_the_end(serve: Serve) -> None:
    """A peer that has sent everything gets all its answers, then the end of the stream."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            request = yield
            await anyio.lowlevel.checkpoint()
            await client.send_packet(request)

    requests = [f"request {number}" for number in range(100)]
    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send(*requests)
        peer.send_eof()
        assert await peer.rest() == ("".join(f"{line}\n" for line in requests), "EOF")


async def test_long_answer_to_a_peer_that_has_sent_everything(serve: Serve) -> None:
    """However long an answer is, it arrives whole before the end."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            await client.send_packet("x" * 5_000_000)

    async with serve(Handler()) as service:
        peer = await service.connect()
        peer.send("go")
        peer.send_eof()
        assert await peer.rest() == ("x" * 5_000_000 + "\n", "EOF")


@pytest.mark.parametrize("how", LEAVE)
async def test_incomplete_packet(serve: Serve, how: str) -> None:
    """What is left of an incomplete packet is dropped, without an error."""
    handler = Recorder()
    async with serve(handler) as service:
        peer = await service.connect()
        assert await peer.ask("one") == "one"
        peer.send_bytes(b"tw")
        await anyio.wait_all_tasks_blocked()
        LEAVE[how](peer)
        await handler.noted("on_disconnection")
    assert handler.notes[-2:] == ["GeneratorExit", "on_disconnection"]


async def test_disconnection_while_busy(serve: Serve) -> None:
    """A busy handler learns at its next yield that the peer has left."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("busy")
            await self.released.wait()
            self.note("done")
            with self.noting_errors():
                yield

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("hello")
        await handler.noted("busy")
        peer.close()
        await anyio.wait_all_tasks_blocked()
        assert handler.notes == ["on_connection", "busy"]
        handler.released.set()
        await handler.noted("on_disconnection")
    assert handler.notes[2:] == ["done", "GeneratorExit", "on_disconnection"]


async def test_send_fails_while_busy(serve: Serve) -> None:
    """Or when it sends: that raises ConnectionError, which may go its way silently."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("busy")
            await self.released.wait()
            with self.noting_errors():
                while True:
                    await client.send_packet("hello?")
                    await anyio.lowlevel.checkpoint()

        def note(self, what: str) -> None:
            broken = ("ConnectionResetError", "BrokenPipeError", "ConnectionAbortedError")
            super().note("broken" if what in broken else what)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send("hello")
        await handler.noted("busy")
        peer.reset()
        handler.released.set()
        await handler.noted("on_disconnection")
    assert handler.notes == ["on_connection", "busy", "broken", "on_disconnection"]


@pytest.mark.parametrize("ending", [b"", b"half a packet"])
async def test_incomplete_bytes(serve: Serve, log: Records, ending: bytes) -> None:
    """Bytes that are left at the end of a stream are no packet: the last line counts them."""
    handler = Recorder()
    async with serve(handler) as service:
        peer = await service.connect()
        peer.send_bytes(b"hello\n" + ending)
        assert await peer.receive() == "hello"
        peer.send_eof()
        await log.logged(f"{peer.name} disconnected")
        line = f"{peer.name} disconnected ({CloseReason.PEER_CLOSED.value})"
        if ending:
            rest = f"; {len(ending)} bytes of an incomplete packet were dropped"
            line = f"{peer.name} disconnected ({CloseReason.TRUNCATED.value}{rest})"
        assert log.messages()[-1] == line
