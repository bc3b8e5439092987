from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from typing import Any

from easynetwork.clients import UDPNetworkClient
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import JSONSerializer
from easynetwork.servers import StandaloneUDPNetworkServer
from easynetwork.servers.handlers import AsyncDatagramClient, AsyncDatagramRequestHandler
from easynetwork.servers.threads_helper import NetworkServerThread


class JSONRequestHandler(AsyncDatagramRequestHandler[dict[str, Any], dict[str, Any]]):
    """Sends back each request, with the names of the thread and the task that handled it."""

    async def handle(
        self,
        client: AsyncDatagramClient[dict[str, Any]],
    ) -> AsyncGenerator[None, dict[str, Any]]:
        request = yield
        thread = threading.current_thread()
        task = client.backend().get_current_task()
        response = {"thread": thread.name, "task": task.name, "request": request}
        await client.send_packet(response)


def ask(message: str) -> None:
    protocol = DatagramProtocol(JSONSerializer())

    with UDPNetworkClient(("localhost", 9000), protocol) as client:
        client.send_packet({"message": message})

        # A datagram can be lost, so limit the time to wait for the response.
        response = client.recv_packet(timeout=5)
        print(f"From server: {response}")


def main() -> None:
    protocol = DatagramProtocol(JSONSerializer())
    handler = JSONRequestHandler()

    with StandaloneUDPNetworkServer("localhost", 9000, protocol, handler) as server:
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
