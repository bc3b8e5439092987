"""Servers and clients on the memory network, in virtual time."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from easynetwork.testing import Faults, MemoryNetwork, converse, serve
from tests.testing.test_virtual_time import each_runner, took_no_time
from tests.times import SOON

LINES: Any = StreamProtocol(StringLineSerializer())
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())


class Patient(AsyncStreamRequestHandler[str, str], AsyncDatagramRequestHandler[str, str]):
    """Says when nothing has come for five minutes."""

    async def handle(self, client: Any) -> AsyncGenerator[float, str]:
        while True:
            try:
                await client.send_packet((yield 300))
            except TimeoutError:
                await client.send_packet(f"still there after {anyio.current_time():g} s?")


@each_runner
def test_timeout_of_a_yield(run: Any) -> None:
    """``yield 300`` takes no time."""

    async def main() -> None:
        async with serve(Patient(), LINES) as served:
            client = await served.connect()
            await took_no_time(client.recv_packet)

    run(main)


@each_runner
def test_all_together(run: Any) -> None:
    """Handlers, clients, sleeps and a worker thread agree on the time."""

    async def main() -> None:
        seen: dict[str, object] = {}

        async def sleep() -> None:
            await anyio.sleep(450)
            seen["sleep"] = anyio.current_time()

        async def work() -> None:
            await anyio.sleep(400)
            await anyio.to_thread.run_sync(time.sleep, SOON)
            seen["thread"] = anyio.current_time()

        async def receive(client: AsyncTCPNetworkClient[str, str]) -> None:
            seen["packets"] = [packet async for packet in client.iter_received_packets(timeout=700)]
            seen["client"] = anyio.current_time()

        async with serve(Patient(), LINES) as served, anyio.create_task_group() as tasks:
            tasks.start_soon(receive, await served.connect())
            tasks.start_soon(sleep)
            tasks.start_soon(work)
        assert seen == {
            "thread": 400,
            "sleep": 450,
            "packets": ["still there after 300 s?", "still there after 600 s?"],
            "client": 700,
        }

    run(main)


@each_runner
def test_latency(run: Any) -> None:
    """Latency is time of that clock, and so is the place in time of what comes late."""

    async def main() -> None:
        network = MemoryNetwork(latency=60)
        async with converse(Patient(), LINES, network=network) as conversation:
            began = anyio.current_time()
            await conversation.send("hello")
            await conversation.expect("hello", timeout=121)
            assert anyio.current_time() - began == 120
            await conversation.expect("still there after 360 s?", timeout=400)
            assert anyio.current_time() == 420

        async with serve(Patient(), DATAGRAMS) as served:
            raw = await served.connect(raw=True, to_server=Faults(latency=(1, 1)))
            began = anyio.current_time()
            await raw.send(b"hello")
            assert await raw.receive() == b"hello"
            assert anyio.current_time() - began == 1

    run(main)


@each_runner
def test_slow_handshake(run: Any) -> None:
    """A TLS handshake that takes too long is given up in no time."""
    pytest.importorskip("trustme")  # WebAssembly has none
    from tests.tls_peers import server_context

    async def main() -> None:
        options: dict[str, Any] = {"ssl": server_context(), "ssl_handshake_timeout": 60}
        async with serve(Patient(), LINES, **options) as served:
            raw = await served.connect(raw=True)
            began = anyio.current_time()
            with pytest.raises(ConnectionResetError):
                await raw.receive()
            assert anyio.current_time() - began == 60

    run(main)


@each_runner
def test_peer_that_does_not_read(run: Any) -> None:
    """A connection whose peer does not read is reset when the time to close is up."""

    class Talker(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: Any) -> AsyncGenerator[None, str]:
            await client.send_packet((yield) * 150_000)
            await client.aclose()

    async def main() -> None:
        async with serve(Talker(), LINES) as served:
            raw = await served.connect(raw=True)
            began = anyio.current_time()
            await raw.send(b"x\n")
            await anyio.sleep(29)
            assert len(await raw.receive(1)) == 1
            await anyio.sleep(2)
            with pytest.raises(ConnectionResetError):
                while await raw.receive():
                    pass
            assert anyio.current_time() - began == 31

    run(main)
