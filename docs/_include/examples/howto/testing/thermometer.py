from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator

from easynetwork.clients import AsyncUDPNetworkClient
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncDatagramClient, AsyncDatagramRequestHandler

PROTOCOL: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer())


class Thermometer(AsyncDatagramRequestHandler[str, str]):
    """Responds to "NUMBER" with "NUMBER CELSIUS"."""

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        number = yield
        await client.send_packet(f"{number} 21.5")


request_numbers = itertools.count()


async def measure(client: AsyncUDPNetworkClient[str, str], attempts: int = 10) -> float:
    number = str(next(request_numbers))
    for _ in range(attempts):
        await client.send_packet(number)
        async for response in client.iter_received_packets(timeout=1.0):
            response_number, _, celsius = response.partition(" ")
            if response_number == number:
                return float(celsius)
    raise TimeoutError(f"no answer in {attempts} attempts")
