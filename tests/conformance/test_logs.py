"""Where a server logs, at which levels, and what it has to say when all goes well.

The lines about handlers' and peers' mistakes are tested with those.
"""

from __future__ import annotations

import logging

import pytest

from easynetwork.addresses import UnixSocketAddress
from tests.conformance.support import Client, Recorder, Records, Requests, Serve, each_family

pytestmark = pytest.mark.anyio


@each_family
async def test_good_day(serve: Serve, log: Records) -> None:
    """A server that starts, serves and stops says so, in this order, and at level INFO."""
    async with serve(Recorder()) as service:
        [address] = service.server.get_addresses()
        peer = await service.connect()
        assert await peer.ask("hello") == "hello"
        peer.send_eof()
        await peer.rest()
    assert log.messages(logging.INFO) == [
        f"Start serving at {address}",
        peer.accepted,
        f"{peer.name} disconnected (the client has left)",
        "Server loop break, waiting for remaining tasks...",
        "Server stopped",
    ]
    if not isinstance(address, UnixSocketAddress):
        assert str(address) == f"('{address.host}', {address.port})"


async def test_several_addresses(serve: Serve, log: Records) -> None:
    """All addresses are named in one line."""
    async with serve(Recorder(), host=["127.0.0.1", "::1"]) as service:
        first, second = service.server.get_addresses()
        assert log.messages() == [f"Start serving at {first}, {second}"]


@pytest.mark.parametrize(
    ("option", "level"), [(None, logging.INFO), (True, logging.INFO), (False, logging.DEBUG)]
)
async def test_level_of_connections(
    serve: Serve, log: Records, option: bool | None, level: int
) -> None:
    """Connections are logged at INFO, or at DEBUG if the server was told so."""
    async with serve(Recorder(), log_client_connection=option) as service:
        peer = await service.connect()
        await peer.ask("hello")
        peer.send_eof()
        await peer.rest()
        about = [record for record in log.records if peer.name in record.getMessage()]
    assert [(record.levelno, record.getMessage()) for record in about] == [
        (level, peer.accepted),
        (level, f"{peer.name} disconnected (the client has left)"),
    ]


@pytest.mark.parametrize("leave", ["close", "reset", "send_eof"])
@pytest.mark.parametrize("moment", ["at once", "in a packet", "while it is answered"])
async def test_nobodys_fault(serve: Serve, log: Records, leave: str, moment: str) -> None:
    """Peers that leave, however and whenever they do, are no reason to complain."""

    class Handler(Recorder):
        async def handle(self, client: Client) -> Requests:
            yield
            self.note("busy")
            await self.released.wait()
            for _ in range(100):
                await client.send_packet("x" * 10_000)

    handler = Handler()
    async with serve(handler) as service:
        peer = await service.connect()
        if moment == "in a packet":
            peer.send_bytes(b"hal")
        elif moment == "while it is answered":
            peer.send("hello")
            await handler.noted("busy")
        getattr(peer, leave)()
        handler.released.set()
        if leave == "send_eof":
            await peer.rest()
        if moment == "while it is answered":
            await handler.noted("on_disconnection")
    assert log.messages(logging.WARNING) == []
