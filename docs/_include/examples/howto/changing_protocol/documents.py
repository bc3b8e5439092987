from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.serializers.framing import FixedSizePacketSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
LINES = StreamProtocol(StringLineSerializer("CRLF", encoding="utf-8"))


class BodySerializer(FixedSizePacketSerializer[bytes, bytes]):
    """A packet is a number of bytes: the size that the constructor gets."""

    def serialize(self, packet: bytes) -> bytes:
        return packet

    def deserialize(self, data: bytes) -> bytes:
        return data


def body_protocol(size: int) -> StreamProtocol[bytes, bytes]:
    return StreamProtocol(BodySerializer(size))


class DocumentRequestHandler(AsyncStreamRequestHandler[str, Any]):
    """Receives header lines, an empty line and a body. Sends the body back in capital letters."""

    max_headers = 100
    max_size = 1_000_000  # bytes

    async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, str]:
        headers: dict[str, str] = {}
        while line := (yield):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
            if len(headers) > self.max_headers:
                await client.send_packet("Error: too many headers")
                await client.aclose()
                return

        length = headers.get("content-length", "")
        # Python refuses to convert thousands of digits.
        if not (length.isdecimal() and len(length) < 10 and 0 < int(length) <= self.max_size):
            await client.send_packet("Error: no usable length")
            await client.aclose()
            return

        client.set_protocol(body_protocol(int(length)))
        body: bytes = await client.recv_packet()
        client.set_protocol(LINES)

        await client.send_packet(f"Content-Length: {length}")
        await client.send_packet("")
        client.set_protocol(body_protocol(int(length)))
        await client.send_packet(body.upper())
        client.set_protocol(LINES)


async def ask_async(client: AsyncTCPNetworkClient[Any, Any], body: bytes) -> bytes:
    await client.send_packet(f"Content-Length: {len(body)}")
    await client.send_packet("")
    client.set_protocol(body_protocol(len(body)))
    await client.send_packet(body)
    client.set_protocol(LINES)

    length = 0
    while header := await client.recv_packet():
        length = int(header.removeprefix("Content-Length: "))
    client.set_protocol(body_protocol(length))
    response: bytes = await client.recv_packet()
    client.set_protocol(LINES)
    return response


def ask_blocking(client: TCPNetworkClient[Any, Any], body: bytes) -> bytes:
    client.send_packet(f"Content-Length: {len(body)}")
    client.send_packet("")
    client.set_protocol(body_protocol(len(body)))
    client.send_packet(body)
    client.set_protocol(LINES)

    length = 0
    while header := client.recv_packet(timeout=30):
        length = int(header.removeprefix("Content-Length: "))
    client.set_protocol(body_protocol(length))
    response: bytes = client.recv_packet(timeout=30)
    client.set_protocol(LINES)
    return response


def ask_in_thread() -> None:
    with TCPNetworkClient[Any, Any](ADDRESS, LINES) as client:
        print(ask_blocking(client, b"blocking"))
        print(ask_blocking(client, b"the same connection"))


async def main() -> None:
    handler = DocumentRequestHandler()
    async with AsyncTCPNetworkServer(*ADDRESS, LINES, handler) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        async with AsyncTCPNetworkClient[Any, Any](ADDRESS, LINES) as client:
            print(await ask_async(client, b"one line\r\n\r\nanother line\r\n"))
        await asyncio.to_thread(ask_in_thread)
        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
