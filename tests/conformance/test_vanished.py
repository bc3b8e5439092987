"""Clients that vanish: their machine or its network has failed, and nothing tells the server."""

from __future__ import annotations

import socket

import anyio
import pytest

from easynetwork.servers.handlers import INETClientAttribute
from easynetwork.servers.limits import Limits
from easynetwork.servers.statistics import CloseReason
from tests.conformance.support import Client, Recorder, Requests, Serve, one_protocol
from tests.networks import ip, own_network
from tests.times import MS, PATIENCE

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.in_turn,
    one_protocol,
    pytest.mark.parametrize("transport", ["tcp"]),
]

SECOND = 1000 * MS
SERVER, SILENT, UNREAD, OTHER = (f"192.0.2.{number}" for number in range(1, 5))

# Whole seconds: the kernel's options have no fractions.
KEEPALIVE, SEND_TIMEOUT = 3, 1
# When bytes are not acknowledged, the kernel gives up this much later than the server would.
RESERVE = 5


class Vanishing(Recorder):
    """Answers each request twice, the second time when the test says so, and notes each end."""

    async def handle(self, client: Client) -> Requests:
        request = yield
        await client.send_packet(request)
        if request == "unread":
            await self.released.wait()
            await client.send_packet("more")

    async def on_disconnection(self, client: Client) -> None:
        if client.close_reason is CloseReason.PEER_RESET:
            self.note(f"{client.extra(INETClientAttribute.remote_address).host} is gone")


async def connect(address: tuple[str, int], host: str, request: bytes) -> socket.socket:
    """Connect from an address, and be answered, without a thread."""
    sock = socket.create_connection(address, PATIENCE, source_address=(host, 0))
    sock.sendall(request)
    await anyio.wait_readable(sock)
    assert sock.recv(100) == request
    return sock


@pytest.mark.in_turn
async def test_vanished(serve: Serve) -> None:
    """They are gone within three times `keepalive`, whether or not something was sent to them."""
    addresses = [f"addr add {host}/32 dev lo" for host in (SERVER, SILENT, UNREAD, OTHER)]
    with own_network(*addresses):
        handler = Vanishing()
        limits = Limits(keepalive=KEEPALIVE, send_timeout=SEND_TIMEOUT)
        async with serve(handler, host=SERVER, limits=limits) as service:
            address = service.server.get_addresses()[0].for_connection()
            with (
                await connect(address, SILENT, b"silent\n"),
                await connect(address, UNREAD, b"unread\n"),
                await connect(address, OTHER, b"other\n") as other,
            ):
                begin = anyio.current_time()
                for host in SILENT, UNREAD:
                    ip(f"addr del {host}/32 dev lo")
                    ip(f"route add blackhole {host}/32")
                handler.released.set()
                await handler.noted(f"{UNREAD} is gone")
                assert anyio.current_time() - begin < 1.25 * SEND_TIMEOUT + RESERVE + SECOND
                await handler.noted(f"{SILENT} is gone")
                assert anyio.current_time() - begin < 3 * KEEPALIVE + SECOND
                # It is there, and its machine says so, although it has nothing to say itself.
                other.sendall(b"hello\n")
                await anyio.wait_readable(other)
                assert other.recv(100) == b"hello\n"
        assert service.server.get_statistics().closed[CloseReason.PEER_RESET] == 2
