"""Event loops are forgotten when they have ended, whatever ran on them."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
from easynetwork.clients.async_udp import AsyncUDPNetworkClient
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, AsyncUDPNetworkServer
from tests.conformance.sessions.kinds import Handler
from tests.conftest import BACKENDS


async def talk(server: Any, client: Any) -> None:
    """Exchange a packet with a server that stops afterwards."""
    async with anyio.create_task_group() as tasks:
        async with server:
            is_up = anyio.Event()
            tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            [address] = server.get_addresses()
            async with client(address) as connected:
                await connected.send_packet("hello")
                assert await connected.recv_packet() == "hello"
            await server.shutdown()


@pytest.mark.parametrize("backend", BACKENDS)
def test_forgotten(backend: tuple[str, dict[str, Any]]) -> None:
    """A program may run one event loop after the other, and memory does not grow."""
    stream, datagram = (
        StreamProtocol(StringLineSerializer()),
        DatagramProtocol(StringLineSerializer()),
    )

    async def main() -> weakref.ref[Any]:
        tcp = AsyncTCPNetworkServer("127.0.0.1", 0, stream, Handler())
        await talk(tcp, lambda address: AsyncTCPNetworkClient(address[:2], stream))
        udp = AsyncUDPNetworkServer("127.0.0.1", 0, datagram, Handler())
        await talk(udp, lambda address: AsyncUDPNetworkClient(address[:2], datagram))
        return weakref.ref(anyio.lowlevel.current_token().native_token)

    name, options = backend
    event_loop = anyio.run(main, backend=name, backend_options=options)
    for _ in range(3):  # what has a finalizer is gone after the next collection
        gc.collect()
    assert event_loop() is None
