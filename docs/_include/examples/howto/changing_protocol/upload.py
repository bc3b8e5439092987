from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from typing import Any

from easynetwork.clients import AsyncTCPNetworkClient, TCPNetworkClient
from easynetwork.exceptions import EndOfStreamError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import RawSerializer, StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ADDRESS = ("127.0.0.1", 9000)
LINES = StreamProtocol(StringLineSerializer(encoding="utf-8"))
RAW = StreamProtocol(RawSerializer())


class UploadRequestHandler(AsyncStreamRequestHandler[str, Any]):
    """Receives the name of a file, then the file up to the end of the stream."""

    max_size = 1_000_000_000  # bytes

    async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, str]:
        name: str = yield

        if "/" in name:
            await client.send_packet("refused")
            return

        await client.send_packet("ready")
        client.set_protocol(RAW)
        size, digest = await self.receive_file(client)
        client.set_protocol(LINES)
        if size > self.max_size:
            await client.send_packet("too large")
        else:
            await client.send_packet(f"{name}: {size:,} bytes, SHA-256 {digest[:8]}...")
        await client.aclose()

    async def receive_file(self, client: AsyncStreamClient[Any]) -> tuple[int, str]:
        size = 0
        digest = hashlib.sha256()
        while size <= self.max_size:
            try:
                data: bytes = await client.recv_packet()
            except EndOfStreamError:
                break
            size += len(data)
            digest.update(data)
        return size, digest.hexdigest()


async def upload_async(name: str, data: bytes) -> str:
    async with AsyncTCPNetworkClient[Any, Any](ADDRESS, LINES) as client:
        await client.send_packet(name)
        response = await client.recv_packet()
        if response == "ready":
            client.set_protocol(RAW)
            await client.send_packet(data)
            await client.send_eof()
            client.set_protocol(LINES)
            response = await client.recv_packet()
        return str(response)


def upload_blocking(name: str, data: bytes) -> str:
    with TCPNetworkClient[Any, Any](ADDRESS, LINES) as client:
        client.send_packet(name)
        response = client.recv_packet(timeout=30)
        if response == "ready":
            client.set_protocol(RAW)
            client.send_packet(data)
            client.send_eof()
            client.set_protocol(LINES)
            response = client.recv_packet(timeout=30)
        return str(response)


async def main() -> None:
    handler = UploadRequestHandler()
    async with AsyncTCPNetworkServer(*ADDRESS, LINES, handler) as server:
        is_up = asyncio.Event()
        server_task = asyncio.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        print(await upload_async("zeros.bin", bytes(10_000_000)))
        print(await asyncio.to_thread(upload_blocking, "lines.txt", b"one\ntwo\n"))
        print(await upload_async("../secret", b"shutdown\n"))
        await server.shutdown()
        await server_task


if __name__ == "__main__":
    asyncio.run(main())
