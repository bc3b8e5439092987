from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncGenerator

from anyio.from_thread import BlockingPortal

from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, StandaloneTCPNetworkServer
from easynetwork.servers.groups import ClientGroup
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.threads_helper import NetworkServerThread


class NewsRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Sends news from clients and from other threads to all clients."""

    portal: BlockingPortal

    def __init__(self) -> None:
        self.clients: ClientGroup[str] = ClientGroup()

    async def service_init(
        self,
        exit_stack: contextlib.AsyncExitStack,
        server: AsyncTCPNetworkServer[str, str],
    ) -> None:
        portal = server.backend().create_threads_portal()
        self.portal = await exit_stack.enter_async_context(portal)

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        self.clients.add(client)

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        news: str = yield
        self.clients.broadcast(news)

    def publish(self, news: str) -> int:
        """Send the news to all clients. Call this in any other thread."""
        return self.portal.call(self.clients.broadcast, news)


def main() -> None:
    protocol = StreamProtocol(StringLineSerializer())
    handler = NewsRequestHandler()

    with StandaloneTCPNetworkServer("localhost", 9000, protocol, handler) as server:
        server_thread = NetworkServerThread(server)
        server_thread.start()
        try:
            with TCPNetworkClient(("localhost", 9000), protocol) as client:
                client.send_packet("A client has connected")
                print(f"From server: {client.recv_packet(timeout=5)}")

                count = handler.publish("It is raining")
                print(f"{threading.current_thread().name} has told {count} client")
                print(f"From server: {client.recv_packet(timeout=5)}")
        finally:
            server_thread.join()


if __name__ == "__main__":
    main()
