from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from store import PROTOCOL, Client, Store, lookup, lookup_patiently

from easynetwork.servers.handlers import AsyncStreamClient
from easynetwork.testing import Faults, serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("size", range(len("error: no value\n")))
async def test_server_dies(size: int) -> None:
    async with serve(Store(), PROTOCOL) as served:
        client = await served.connect(to_client=Faults(reset_after=size))
        with pytest.raises(ConnectionError):
            await lookup(client, "colour")


async def test_truncated_response() -> None:
    async with serve(Store(), PROTOCOL) as served:
        client = await served.connect(to_client=Faults(truncate_after=5))
        with pytest.raises(ConnectionError):
            await lookup(client, "colour")


class CrashingStore(Store):
    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[float, str]:
        yield 300.0
        raise ValueError("a bug")


async def test_crash() -> None:
    async with serve(CrashingStore(), PROTOCOL) as served:
        client = await served.connect()
        with pytest.raises(ConnectionError):
            await lookup(client, "colour")


@pytest.mark.virtual_time
async def test_second_attempt() -> None:
    store = Store()
    store.values["colour"] = "blue"
    async with serve(store, PROTOCOL) as served:
        faults = [Faults(reset_after=2), None]

        async def connect() -> Client:
            return await served.connect(to_client=faults.pop(0))

        assert await lookup_patiently(connect, "colour") == "blue"
        assert faults == []
