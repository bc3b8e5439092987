from __future__ import annotations

import pytest
from store import PROTOCOL, Store, lookup

from easynetwork.testing import Faults, MemoryNetwork, converse, serve

pytestmark = pytest.mark.anyio


@pytest.mark.virtual_time
@pytest.mark.parametrize("seed", range(20))
async def test_slow_network(seed: int) -> None:
    network = MemoryNetwork(seed=seed, chunks=range(1, 4), latency=(0.1, 2.0))
    async with converse(Store(), PROTOCOL, network=network) as conversation:
        await conversation.send("set colour blue", "get colour")
        await conversation.expect("ok", "blue", timeout=60.0)


@pytest.mark.virtual_time
async def test_one_slow_client() -> None:
    async with serve(Store(), PROTOCOL) as served:
        slow = await served.connect(to_server=Faults(chunks=1, latency=60.0))
        quick = await served.connect()
        await slow.send_packet("set colour blue")
        assert await lookup(quick, "colour") == "error: no value"
        assert await slow.recv_packet() == "ok"
        assert await lookup(quick, "colour") == "blue"
