from __future__ import annotations

import ssl

import anyio
import pytest
from store import PROTOCOL, Store, lookup

from easynetwork.testing import serve

pytestmark = pytest.mark.anyio


async def test_two_clients() -> None:
    async with serve(Store(), PROTOCOL) as served:
        one, other = await served.connect(), await served.connect()
        await one.send_packet("set colour blue")
        assert await one.recv_packet() == "ok"
        assert await lookup(other, "colour") == "blue"


async def test_half_a_packet() -> None:
    async with serve(Store(), PROTOCOL) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"get col")
        await anyio.wait_all_tasks_blocked()
        await raw.send(b"our\n")
        assert await raw.receive() == b"error: no value\n"


async def test_malformed_bytes() -> None:
    async with serve(Store(), PROTOCOL) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"\xff\n")
        assert await raw.receive() == b"error: not text\n"


async def test_half_close() -> None:
    async with serve(Store(), PROTOCOL) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"set colour blue\n")
        raw.send_eof()
        assert await raw.receive() == b"ok\n"
        assert await raw.receive() == b""


async def test_reset() -> None:
    store = Store()
    async with serve(store, PROTOCOL) as served:
        raw = await served.connect(raw=True)
        await raw.send(b"set colour blue\nset size ")
        raw.reset()
        client = await served.connect()
        await client.send_packet("get size")
        assert await client.recv_packet() == "error: no value"


async def test_tls(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    async with serve(Store(), PROTOCOL, ssl=server_context) as served:
        client = await served.connect(ssl=client_context, server_hostname="localhost")
        assert await lookup(client, "colour") == "error: no value"
