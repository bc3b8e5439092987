from __future__ import annotations

import hashlib
import threading
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.to_thread

from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer
from easynetwork.servers import StandaloneTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.threads_helper import NetworkServerThread


def derive_key(password: str) -> dict[str, Any]:
    """Return a key and the name of the thread that derived it. This is slow by design."""
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", iterations=100_000)
    return {"thread": threading.current_thread().name, "key": key.hex()[:8]}


class KeyRequestHandler(AsyncStreamRequestHandler[Any, dict[str, Any]]):
    """Responds to a password with a key."""

    def __init__(self, max_threads: int) -> None:
        self.limiter = anyio.CapacityLimiter(max_threads)

    async def handle(
        self,
        client: AsyncStreamClient[dict[str, Any]],
    ) -> AsyncGenerator[None, Any]:
        password = yield
        if not isinstance(password, str):  # a client can send any JSON value
            await client.send_packet({"error": "expected a password"})
            return
        response = await anyio.to_thread.run_sync(derive_key, password, limiter=self.limiter)
        await client.send_packet(response)


def ask(password: str) -> None:
    protocol = StreamProtocol(JSONSerializer())

    with TCPNetworkClient(("localhost", 9000), protocol) as client:
        client.send_packet(password)
        print(f"From server: {client.recv_packet(timeout=5)}")


def main() -> None:
    protocol = StreamProtocol(JSONSerializer())
    handler = KeyRequestHandler(max_threads=2)

    with StandaloneTCPNetworkServer("localhost", 9000, protocol, handler) as server:
        server_thread = NetworkServerThread(server)
        server_thread.start()
        try:
            print(f"Server loop running in thread: {server_thread.name}")

            for password in ("swordfish", "open sesame"):
                ask(password)
        finally:
            server_thread.join()


if __name__ == "__main__":
    main()
