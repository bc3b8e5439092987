"""Tests on a network in memory."""

from __future__ import annotations

from typing import Any

import pytest

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.serializers import StapledPacketSerializer
from easynetwork.testing import MemoryNetwork, check_serializer, serve

from .handler import RedisRequestHandler
from .pubsub import PubSub
from .resp import (
    CLIENT_PROTOCOL,
    NULL_ARRAY,
    SERVER_PROTOCOL,
    ClientSerializer,
    Command,
    Reply,
    ServerSerializer,
)

pytestmark = pytest.mark.anyio

Client = AsyncTCPNetworkClient[Command, Reply]


async def ask(client: Client, line: str) -> Any:
    await client.send_packet(line.encode().split())
    return await client.recv_packet()


def test_commands_in_pieces() -> None:
    check_serializer(
        StapledPacketSerializer(ClientSerializer(), ServerSerializer()),
        [[b"PING"], [b"SET", b"name", b"two\r\nlines"], [b"GET", b""]],
        garbage=[b"*1\r\n+PING\r\n", b"$4\r\nPING\r\n", b'"PING\r\n', b"*1\r\n$2\r\nPING\r\n"],
    )


@pytest.mark.parametrize("seed", range(5))
async def test_slow_network(seed: int) -> None:
    network = MemoryNetwork(seed=seed, chunks=range(1, 4))
    async with serve(RedisRequestHandler(), SERVER_PROTOCOL, network=network) as served:
        client = await served.connect(protocol=CLIENT_PROTOCOL)
        assert await ask(client, "SET visits 41") == "OK"
        assert await ask(client, "INCR visits") == 42
        assert await ask(client, "GET visits") == b"42"


async def test_transaction() -> None:
    async with serve(RedisRequestHandler(), SERVER_PROTOCOL) as served:
        ada = await served.connect(protocol=CLIENT_PROTOCOL)
        grace = await served.connect(protocol=CLIENT_PROTOCOL)
        assert await ask(ada, "WATCH visits") == "OK"
        assert await ask(ada, "MULTI") == "OK"
        assert await ask(ada, "INCR visits") == "QUEUED"
        assert await ask(grace, "SET visits 10") == "OK"
        assert await ask(ada, "EXEC") is NULL_ARRAY
        assert await ask(ada, "GET visits") == b"10"


async def test_invalid_command() -> None:
    async with serve(RedisRequestHandler(), SERVER_PROTOCOL) as served:
        connection = await served.connect(raw=True)
        await connection.send(b"*1\r\n:4\r\n")
        assert await connection.receive() == b"-ERR Protocol error: expected '$', got ':'\r\n"
        assert await connection.receive() == b""


async def test_slow_subscriber() -> None:
    handler = RedisRequestHandler(pubsub=PubSub(high_water=10_000))
    async with serve(handler, SERVER_PROTOCOL) as served:
        slow = await served.connect(protocol=CLIENT_PROTOCOL)
        quick = await served.connect(protocol=CLIENT_PROTOCOL)
        publisher = await served.connect(protocol=CLIENT_PROTOCOL)
        await ask(slow, "SUBSCRIBE news")
        await ask(quick, "SUBSCRIBE news")
        message = "x" * 10_000
        while await ask(publisher, f"PUBLISH news {message}") == 2:
            assert await quick.recv_packet() == [b"message", b"news", message.encode()]
        with pytest.raises(ConnectionError):
            while True:
                await slow.recv_packet()
