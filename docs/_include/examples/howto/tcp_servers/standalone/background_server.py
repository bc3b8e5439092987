from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from typing import Any

from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer
from easynetwork.servers import StandaloneTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.threads_helper import NetworkServerThread


class JSONRequestHandler(AsyncStreamRequestHandler[dict[str, Any], dict[str, Any]]):
    """Sends back each request, with the names of the thread and the task that handled it."""

    async def handle(
        self,
        client: AsyncStreamClient[dict[str, Any]],
    ) -> AsyncGenerator[None, dict[str, Any]]:
        request = yield
        thread = threading.current_thread()
        task = client.backend().get_current_task()
        response = {"thread": thread.name, "task": task.name, "request": request}
        await client.send_packet(response)


def ask(message: str) -> None:
    protocol = StreamProtocol(JSONSerializer())

    with TCPNetworkClient(("localhost", 9000), protocol) as client:
        client.send_packet({"message": message})
        response = client.recv_packet(timeout=5)
        print(f"From server: {response}")


def main() -> None:
    protocol = StreamProtocol(JSONSerializer())
    handler = JSONRequestHandler()

    with StandaloneTCPNetworkServer("localhost", 9000, protocol, handler) as server:
        server_thread = NetworkServerThread(server)
        server_thread.start()
        try:
            print(f"Server loop running in thread: {server_thread.name}")

            for number in range(1, 4):
                ask(f"Hello world {number}")
        finally:
            server_thread.join()


if __name__ == "__main__":
    main()
