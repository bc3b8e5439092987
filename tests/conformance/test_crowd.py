"""A hundred clients in all states: however serving ends, it does within a second, and entirely."""

from __future__ import annotations

import os
import time

import anyio
import anyio.lowlevel
import pytest

from tests.conformance.peers import BasePeer, Peer, new_peer
from tests.conformance.support import Client, Narrow, NewServer, Requests, Server, one_protocol
from tests.times import PATIENCE

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts in /proc"),
]

STATES = ("idle", "in a packet", "asleep", "not reading", "half-closed", "greeted")
CLIENTS = 102  # the same number of each


class Patient(Narrow):
    """Stays in whatever state a client brings it into, until it is released."""

    is_greeting = False

    async def greet(self, client: Client) -> None:
        await super().greet(client)
        if self.is_greeting:
            await self.released.wait()

    async def handle(self, client: Client) -> Requests:
        self.note("handle")
        match (yield):
            case "sleep":
                self.note("busy")
                await self.released.wait()
            case "send":
                self.note("busy")
                await client.send_packet("x" * 1_000_000)
            case "close":
                await self.server.server_close()
                self.note("closed")

    server: Server


def descriptors() -> int:
    """Return how many file descriptors are open."""
    return len(os.listdir("/proc/self/fd"))


async def bring_into(state: str, peers: list[BasePeer], handler: Patient) -> None:
    """Connect clients, and wait until all of them are in a state."""
    clients = CLIENTS if Peer.tls is None else CLIENTS // 3  # handshakes take their time
    count = clients // len(STATES)
    handler.notes.clear()
    handler.is_greeting = state == "greeted"
    new = [new_peer(handler.server, receive_buffer=4096) for _ in range(count)]
    peers += new
    for peer in new:
        await peer.start()
    await handler.noted("on_connection" if state == "greeted" else "handle", count)
    requests = {"in a packet": b"pac", "asleep": b"sleep\n", "not reading": b"send\n"}
    for peer in new:
        peer.send_bytes(requests.get(state, b"sleep\n" if state == "half-closed" else b""))
        if state == "half-closed":
            peer.send_eof()
    if state in ("asleep", "not reading", "half-closed"):
        await handler.noted("busy", count)


@pytest.mark.in_turn
@one_protocol
@pytest.mark.parametrize("end", ["shutdown", "server_close", "cancellation"])
async def test_end_with_a_crowd(
    new_server: NewServer, end: str, transport: str, request: pytest.FixtureRequest
) -> None:
    """It ends within a second; no task is left, and no descriptor."""
    if transport != "tcp":  # there it takes as long as it does for users
        request.getfixturevalue("close_timeout_at_stop")
    handler = Patient()
    handler.server = server = new_server(handler)
    scope, is_over = anyio.CancelScope(), anyio.Event()
    peers: list[BasePeer] = []
    open_at_first = descriptors()

    async def serve() -> None:
        with scope:
            await server.serve_forever()
        is_over.set()

    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as tasks:
            open_before, tasks_before = descriptors(), len(anyio.get_running_tasks())
            tasks.start_soon(serve)
            for state in STATES:
                await bring_into(state, peers, handler)
            if end == "server_close":
                handler.is_greeting = False
                last = new_peer(server)
                await last.start()
                last.send("close")
                await handler.noted("closed")
                last.close()
            begin = time.monotonic()
            if end == "shutdown":
                tasks.start_soon(server.shutdown)
            elif end == "cancellation":
                scope.cancel()
            else:
                handler.released.set()
                for peer in peers:
                    peer.close()
            await is_over.wait()
            assert time.monotonic() - begin < 1
            await anyio.lowlevel.checkpoint()
            assert len(anyio.get_running_tasks()) == tasks_before
            for peer in peers:
                peer.close()
            assert descriptors() == (open_at_first if end == "server_close" else open_before)
