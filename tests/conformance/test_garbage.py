"""What a connection leaves behind is freed at once: no reference cycle waits for the collector."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from tests.conformance.peers import BasePeer, new_peer
from tests.conformance.support import (
    Client,
    Narrow,
    Records,
    Requests,
    Serve,
    Service,
    one_protocol,
)

pytestmark = [pytest.mark.anyio, one_protocol]

CONNECTIONS = 5


class Ending(Narrow):
    """Ends connections in every way."""

    async def handle(self, client: Client) -> Requests:
        request = yield
        if request == "crash":
            raise LookupError
        if request == "crash in a group":
            async with anyio.create_task_group():
                raise LookupError
        if request == "exit":
            raise SystemExit
        if request == "idle":
            yield 0
        if request == "close":
            await client.aclose()
        if request == "closed":
            await client.aclose()
            await client.send_packet("too late")
        if request == "flood":
            while True:
                await client.send_packet("x" * 100_000)
        if request == "watch":
            with anyio.move_on_after(0):
                await client.wait_disconnected()
        if request == "task":
            client.start_soon(client.wait_disconnected)
        if request == "failing task":
            client.start_soon(self.fail)
            await anyio.sleep_forever()
        if request in ("helper", "busy task"):
            client.start_soon(self.receive, client)
            if request == "helper":
                await anyio.sleep_forever()
        await client.send_packet(request)

    async def fail(self) -> None:
        raise LookupError

    async def receive(self, client: Client) -> None:
        await client.recv_packet()

    async def on_disconnection(self, client: Client) -> None:
        self.clients.remove(client)
        await super().on_disconnection(client)


def end(peer: BasePeer, how: str) -> None:
    """Do what ends a connection."""
    if how in ("reset", "reset while sending"):
        if how != "reset":
            peer.send("flood")
        peer.reset()
    elif how == "EOF":
        peer.send_eof()
    elif how == "half a packet":
        peer.send_bytes(b"half")
        peer.send_eof()
    elif how == "invalid":
        peer.send_bytes(b"\xff\n")
    elif how == "too long":
        peer.send_bytes(b"x" * 3_000)
    elif how == "reset of a helper":
        peer.send("helper")
        peer.reset()
    else:
        peer.send(how)
        if how in ("watch", "task", "helper"):
            peer.send_eof()


@contextlib.contextmanager
def garbage() -> Iterator[list[Any]]:
    """Collect into a list what is only freed by the garbage collector."""
    found: list[Any] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


ENDS = [
    *("reset", "reset while sending", "EOF", "half a packet", "invalid", "too long"),
    *("crash", "crash in a group", "exit", "idle", "close", "closed"),
    *("watch", "task", "failing task", "busy task", "helper", "reset of a helper"),
]


@pytest.mark.in_turn
@pytest.mark.parametrize("how", ENDS)
async def test_no_cycles(serve: Serve, log: Records, how: str) -> None:
    """However a connection ends."""

    async def connect_and_end(service: Service) -> None:
        peer = new_peer(service.server)
        with contextlib.closing(peer):
            await peer.start()
            assert await peer.ask("hello") == "hello"
            count = handler.notes.count("on_disconnection")
            end(peer, how)
            await handler.noted("on_disconnection", count + 1)
            await anyio.wait_all_tasks_blocked()

    handler = Ending()
    async with serve(handler, limit=1_000) as service:
        await connect_and_end(service)  # the first one fills caches
        log.records.clear()
        with garbage() as found:
            for _ in range(CONNECTIONS):
                await connect_and_end(service)
            log.records.clear()
        log.problems()
        ours = [thing for thing in found if is_ours(thing)]
        assert ours == []
        assert [type(thing) for thing in found] == []
    log.problems()


def is_ours(thing: Any) -> bool:
    return type(thing).__module__.partition(".")[0] == "easynetwork"
