from __future__ import annotations

import pytest
from store import PROTOCOL, Store

from easynetwork.testing import converse

pytestmark = pytest.mark.anyio


async def test_values() -> None:
    async with converse(Store(), PROTOCOL) as conversation:
        await conversation.send("set colour blue", "get colour")
        await conversation.expect("ok", "blue")
        await conversation.send("get size")
        assert (await conversation.receive()).startswith("error")


async def test_end() -> None:
    async with converse(Store(), PROTOCOL) as conversation:
        await conversation.expect_nothing(timeout=0.01)
        await conversation.send("quit")
        await conversation.expect_end(reason="closed")


@pytest.mark.virtual_time
async def test_silent_client() -> None:
    async with converse(Store(), PROTOCOL) as conversation:
        await conversation.expect_nothing(timeout=299.0)
        await conversation.expect("bye", timeout=2.0)
        await conversation.expect_end()
