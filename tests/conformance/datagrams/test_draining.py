"""A server of datagrams that is shut down with a grace: what has arrived is answered."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from tests.conformance.datagrams.support import Client, Recorder, Requests, Serve
from tests.conformance.support import Records
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

in_memory = pytest.mark.parametrize("host", ["memory"])
LONG = PATIENCE / 2


class Slow(Recorder):
    """Answers one datagram after the other, when it is let go on."""

    async def handle(self, client: Client) -> Requests:
        self.clients.append(client)
        request = yield
        self.note(request)
        await self.released.wait()
        await client.send_packet(request)


async def test_queued(serve: Serve) -> None:
    """What waits in the queue of a peer, and in the socket, is answered; nothing later is."""
    handler = Slow()
    async with serve(handler) as service, anyio.create_task_group() as tasks:
        peer = service.connect()
        peer.send("1", "2", "3")
        await handler.noted("1")
        for number in range(4, 7):  # in one turn of the loop: they wait in the kernel
            peer.send(str(number))
        tasks.start_soon(lambda: service.server.shutdown(grace=LONG))
        while not service.server.is_draining():
            await anyio.sleep(0.001)
        assert handler.clients[0].is_draining()
        handler.released.set()
        assert [await peer.receive() for _ in range(6)] == ["1", "2", "3", "4", "5", "6"]
    assert service.server.get_statistics().dropped_by_stop == 0


async def test_conversation(serve: Serve) -> None:
    """A generator that waits for more is closed at once: nothing more is taken."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note((yield))
            await client.send_packet("more?")
            with self.noting_errors():
                yield 60

    handler = Handler()
    async with serve(handler) as service:
        peer = service.connect()
        peer.send("hello")
        assert await peer.receive() == "more?"
        with anyio.fail_after(LONG):
            await service.server.shutdown(grace=PATIENCE)
        assert handler.notes == ["hello", "GeneratorExit"]
        assert not service.server.is_listening()


@in_memory
@pytest.mark.parametrize(("grace", "seconds"), [(0, 0), (1, 1), (10, 5)])
async def test_grace(serve: Serve, log: Records, grace: float, seconds: float) -> None:
    """What is at work has the grace to end."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            self.note((yield))
            await anyio.sleep(5)
            await client.send_packet("worked")

    handler = Handler()
    async with serve(handler) as service:
        peer = service.connect()
        peer.send("hello")
        await handler.noted("hello")
        start = anyio.current_time()
        await service.server.shutdown(grace=grace)
        assert anyio.current_time() - start == pytest.approx(seconds, abs=0.01)
        if grace > seconds:
            assert await peer.receive() == "worked"
    end = "Drained, clients left: 0" if grace > seconds else "Not drained, clients left: 1"
    assert not grace or end in log.messages()


async def test_shutdown_by_a_client(serve: Serve) -> None:
    """A handler may drain its server: its own client counts as finished."""

    class Handler(Slow):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            self.server = server

        async def handle(self, client: Client) -> Requests:
            if (request := (yield)) == "stop":
                with self.noting_errors():
                    await self.server.shutdown(grace=PATIENCE)
            self.note(request)
            await self.released.wait()
            await client.send_packet(request)

    handler = Handler()
    async with serve(handler) as service:
        working, stopping = service.connect(), service.connect()
        working.send("work")
        await handler.noted("work")
        stopping.send("stop")
        while not service.server.is_draining():
            await anyio.sleep(0.001)
        handler.released.set()
        assert await working.receive() == "work"
        with anyio.fail_after(LONG):
            await handler.noted("cancelled")


async def test_at_once(serve: Serve) -> None:
    """Without peers, a drain is over at once, and the server may serve again."""
    async with serve(Recorder()) as service:
        with anyio.fail_after(LONG):
            await service.server.shutdown(grace=PATIENCE)
