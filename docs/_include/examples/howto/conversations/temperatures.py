from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextvars import ContextVar

from easynetwork.clients import TCPNetworkClient
from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import PacketConversionError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

unit: ContextVar[str] = ContextVar("unit", default="C")


class TemperatureConverter(AbstractPacketConverterComposite[str, str | float, str, str]):
    """A request is a temperature in degrees Celsius, or the name of a unit."""

    def create_from_dto_packet(self, packet: str) -> str | float:
        if packet in ("C", "F"):
            return packet
        try:
            degrees = float(packet)
        except ValueError:
            raise PacketConversionError("neither a number nor a unit") from None
        return (degrees - 32) / 1.8 if unit.get() == "F" else degrees

    def convert_to_dto_packet(self, obj: str) -> str:
        return obj


class TemperatureRequestHandler(AsyncStreamRequestHandler[str | float, str]):
    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str | float]:
        request: str | float = yield

        if isinstance(request, str):
            # All later packets of this client are parsed with this unit.
            unit.set(request)
        else:
            await client.send_packet(f"{request:.1f} degrees Celsius")


def report() -> None:
    protocol = StreamProtocol(StringLineSerializer())
    with TCPNetworkClient(("127.0.0.1", 9000), protocol) as client:
        # These packets arrive together, and are parsed one by one.
        for line in ["20", "F", "68"]:
            client.send_packet(line)
        print(client.recv_packet(timeout=5))
        print(client.recv_packet(timeout=5))


async def main() -> None:
    protocol = StreamProtocol(StringLineSerializer(), TemperatureConverter())
    handler = TemperatureRequestHandler()
    async with AsyncTCPNetworkServer("127.0.0.1", 9000, protocol, handler) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        await asyncio.to_thread(report)
        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
