"""A server that was shut down serves again: the same sockets, and whoever waits in the backlog."""

from __future__ import annotations

import anyio
import pytest

from tests.conformance.peers import new_peer
from tests.conformance.support import NewServer, Recorder, each_family

pytestmark = pytest.mark.anyio


@each_family
async def test_serve_again(new_server: NewServer) -> None:
    """After a shutdown the server may serve again, on the same port; nobody in between is lost."""
    server = new_server(Recorder())
    async with server:
        addresses = server.get_addresses()
        for _ in range(3):
            waiting = [new_peer(server) for _ in range(5)]
            for peer in waiting:
                peer.send("hello")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve_forever)
                for peer in waiting:
                    assert await peer.receive() == "hello"
                    peer.close()
                assert server.get_addresses() == addresses
                await server.shutdown()


async def test_serve_again_at_once(new_server: NewServer) -> None:
    """`serve_forever()` may be called as soon as `shutdown()` has returned."""
    server = new_server(Recorder())

    async def serve(is_up: anyio.Event) -> None:
        await server.serve_forever(is_up_event=is_up)

    async with server, anyio.create_task_group() as tasks:
        for _ in range(3):
            is_up = anyio.Event()
            tasks.start_soon(serve, is_up)
            await is_up.wait()
            await server.shutdown()
