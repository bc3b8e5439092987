from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeAlias

import anyio

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

PROTOCOL: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(encoding="utf-8"))

Client: TypeAlias = AsyncTCPNetworkClient[str, str]


class Store(AsyncStreamRequestHandler[str, str]):
    """Keeps values by their names. The requests are "set NAME VALUE", "get NAME" and "quit"."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[float, str]:
        try:
            request = yield 300.0  # a client may be silent for five minutes
        except TimeoutError:
            await client.send_packet("bye")
            await client.aclose()
            return
        except StreamProtocolParseError:
            await client.send_packet("error: not text")
            return
        match request.split():
            case ["set", name, value]:
                self.values[name] = value
                await client.send_packet("ok")
            case ["get", name]:
                await client.send_packet(self.values.get(name, "error: no value"))
            case ["quit"]:
                await client.aclose()
            case _:
                await client.send_packet("error: unknown request")


async def lookup(client: Client, name: str) -> str:
    await client.send_packet(f"get {name}")
    with client.backend().timeout(30.0):
        return await client.recv_packet()


async def lookup_patiently(
    connect: Callable[[], Awaitable[Client]], name: str, attempts: int = 3
) -> str:
    for _ in range(attempts):
        try:
            async with await connect() as client:
                return await lookup(client, name)
        except (ConnectionError, TimeoutError):
            await anyio.sleep(60.0)
    raise TimeoutError(f"no answer in {attempts} attempts")
