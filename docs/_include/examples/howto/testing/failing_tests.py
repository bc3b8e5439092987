"""Tests that fail, to show their messages: ``pytest --easynetwork-leaks failing_tests.py``."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator

import pytest
from store import PROTOCOL, Client, Store, lookup

from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.testing import MemoryNetwork, converse, serve

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_wrong_expectation() -> None:
    network = MemoryNetwork(seed=3, chunks=range(1, 4))
    async with converse(Store(), PROTOCOL, network=network) as conversation:
        await conversation.send("set colour blue", "get colour")
        await conversation.expect("ok", "green")


class Counter(AsyncStreamRequestHandler[str, str]):
    """Counts the lines of a stream, and sends their number when it ends."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        count = 0
        try:
            while True:
                yield
                count += 1
        finally:
            await client.send_packet(f"{count}")


async def count(client: Client) -> int:
    await client.send_packet("one line")
    return int(await client.recv_packet())  # send_eof() is missing


@pytest.mark.virtual_time
async def test_count() -> None:
    async with serve(Counter(), PROTOCOL) as served:
        assert await count(await served.connect()) == 1


@pytest.mark.virtual_time
async def test_real_sockets() -> None:
    await lookup(Client(("127.0.0.1", 9000), PROTOCOL), "colour")


@pytest.mark.virtual_time
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
async def test_uvloop() -> None:
    pass


@pytest.mark.memory_network(latency=0.01)
async def test_network_of_the_fixture(memory_network: MemoryNetwork) -> None:
    async with serve(Store(), PROTOCOL, network=memory_network) as served:
        assert await lookup(await served.connect(), "colour") == "blue"


stop_reporting = threading.Event()


async def test_leak() -> None:
    threading.Thread(target=stop_reporting.wait, args=(3.0,), name="reporter").start()
