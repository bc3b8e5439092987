"""dig asks a server on a wildcard address at several addresses of the machine.

It takes no answer from another address than the one that it has asked.
"""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import AsyncGenerator

import anyio
import anyio.to_thread
import pytest

from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers.abc import AbstractPacketSerializer
from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    INETClientAttribute,
)
from tests.interop.support import needs
from tests.times import PATIENCE

pytestmark = [pytest.mark.anyio, needs("dig")]


class Bytes(AbstractPacketSerializer[bytes, bytes]):
    """Leaves DNS messages as they are."""

    def serialize(self, packet: bytes) -> bytes:
        return packet

    def deserialize(self, data: bytes) -> bytes:
        return data


class Resolver(AsyncDatagramRequestHandler[bytes, bytes]):
    """Answers every question with the address that was asked (RFC 1035, 4.1)."""

    async def handle(self, client: AsyncDatagramClient[bytes]) -> AsyncGenerator[None, bytes]:
        query = yield
        host = client.extra(INETClientAttribute.local_address).host
        kind, address = (
            1,
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host),
        )
        if len(address) == 16:
            kind = 28  # AAAA
        number, _, questions, *_ = struct.unpack_from("!6H", query)
        end = query.index(b"\0", 12) + 5  # of the question: a name, a type and a class
        header = struct.pack("!6H", number, 0x8580, questions, 1, 0, 0)
        # The name is that at offset 12; one minute to live.
        record = struct.pack("!3HIH", 0xC00C, kind, 1, 60, len(address)) + address
        await client.send_packet(header + query[12:end] + record)


def dig(host: str, port: int) -> str:
    kind = "AAAA" if ":" in host else "A"
    command = ["dig", f"@{host}", "-p", str(port), "+short", "+tries=1", "+time=5", "x.test", kind]
    process = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return process.stdout.strip()


@pytest.mark.parametrize(
    ("wildcard", "hosts"),
    [("0.0.0.0", ["127.0.0.1", "127.0.0.2", "127.255.0.1"]), ("::", ["::1"])],
)
async def test_wildcard(wildcard: str, hosts: list[str]) -> None:
    """The answer comes from the address that was asked, and the handler knows which one it is."""
    protocol: DatagramProtocol[bytes, bytes] = DatagramProtocol(Bytes())
    server = AsyncUDPNetworkServer(wildcard, 0, protocol, Resolver())
    async with server, anyio.create_task_group() as tasks:
        is_up = anyio.Event()
        tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        port = server.get_addresses()[0].port
        for host in hosts:
            assert await anyio.to_thread.run_sync(dig, host, port) == host
        await server.shutdown()
