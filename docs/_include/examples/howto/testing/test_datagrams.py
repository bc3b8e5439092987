from __future__ import annotations

import pytest
from thermometer import PROTOCOL, Thermometer, measure

from easynetwork.testing import MemoryNetwork, serve

pytestmark = pytest.mark.anyio


@pytest.mark.virtual_time
@pytest.mark.memory_network(loss=0.3, duplicate=0.3, reorder=0.3)
async def test_lossy_network(memory_network: MemoryNetwork) -> None:
    async with serve(Thermometer(), PROTOCOL, network=memory_network) as served:
        client = await served.connect()
        for _ in range(20):
            assert await measure(client) == 21.5
