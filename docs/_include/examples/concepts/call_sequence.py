from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio

from easynetwork.clients import AsyncTCPNetworkClient, AsyncUDPNetworkClient
from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import EndOfStreamError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.serializers.framing import AutoSeparatedPacketSerializer
from easynetwork.servers import AsyncTCPNetworkServer, AsyncUDPNetworkServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    BaseRequestHandler,
)

ADDRESS = ("127.0.0.1", 9000)


def trace(call: str) -> None:
    print(f"    {call}")


class LineSerializer(AutoSeparatedPacketSerializer[str, str]):
    """A packet is a line of text, with a newline at its end in a stream."""

    def __init__(self) -> None:
        super().__init__(b"\n")

    def serialize(self, packet: str) -> bytes:
        trace(f"serialize({packet!r})")
        return packet.encode()

    def deserialize(self, data: bytes) -> str:
        trace(f"deserialize({bytes(data)!r})")
        return data.decode("utf-8", errors="replace")


class NumberConverter(AbstractPacketConverterComposite[str, int, str, str]):
    """A request is a number, a response is a text."""

    def create_from_dto_packet(self, packet: str) -> int:
        trace(f"create_from_dto_packet({packet!r})")
        return int(packet)

    def convert_to_dto_packet(self, obj: str) -> str:
        trace(f"convert_to_dto_packet({obj!r})")
        return obj


class Service(BaseRequestHandler):
    async def service_init(self, exit_stack: AsyncExitStack, server: Any) -> None:
        trace("service_init()")
        exit_stack.callback(trace, "callback of the exit stack")


class ConnectionHandler(Service, AsyncStreamRequestHandler[int, str]):
    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        trace("on_connection()")
        await client.send_packet("Send me a number")

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, int]:
        trace("handle() begins")
        try:
            number = yield
        except GeneratorExit:
            trace("handle() gets GeneratorExit")
            raise
        trace(f"handle() gets {number}")
        await client.send_packet(f"twice {number} is {2 * number}")
        trace("handle() returns")

    async def on_disconnection(self, client: AsyncStreamClient[str]) -> None:
        trace("on_disconnection()")


class DatagramHandler(Service, AsyncDatagramRequestHandler[int, str]):
    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, int]:
        trace("handle() begins")
        number = yield
        trace(f"handle() gets {number}")
        await client.send_packet(f"twice {number} is {2 * number}")
        trace("handle() returns")


@asynccontextmanager
async def serving(server: Any) -> AsyncIterator[None]:
    async with server, anyio.create_task_group() as task_group:
        is_up = anyio.Event()
        print("The server starts")
        task_group.start_soon(partial(server.serve_forever, is_up_event=is_up))
        await is_up.wait()
        yield
        print("The server stops")
        await server.shutdown()


async def ask(client: Any, number: str) -> None:
    print(f"The client sends {number}")
    await client.send_packet(number)
    await client.recv_packet()
    await anyio.wait_all_tasks_blocked()  # until the handler waits again


async def connection() -> None:
    protocol = StreamProtocol(LineSerializer(), NumberConverter())
    async with serving(AsyncTCPNetworkServer(*ADDRESS, protocol, ConnectionHandler())):
        print("The client connects")
        async with AsyncTCPNetworkClient(ADDRESS, StreamProtocol(StringLineSerializer())) as client:
            await client.recv_packet()
            await anyio.wait_all_tasks_blocked()
            await ask(client, "21")
            await ask(client, "4")
            print("The client disconnects")
            await client.send_eof()
            with suppress(EndOfStreamError):
                await client.recv_packet()  # until the server has disconnected, too
            await anyio.wait_all_tasks_blocked()


async def datagrams() -> None:
    protocol = DatagramProtocol(LineSerializer(), NumberConverter())
    async with serving(AsyncUDPNetworkServer(*ADDRESS, protocol, DatagramHandler())):
        async with AsyncUDPNetworkClient(ADDRESS, DatagramProtocol(StringLineSerializer())) as peer:
            await ask(peer, "21")
            await ask(peer, "4")


if __name__ == "__main__":
    backend = sys.argv[2] if len(sys.argv) > 2 else "asyncio"
    anyio.run({"connection": connection, "datagrams": datagrams}[sys.argv[1]], backend=backend)
