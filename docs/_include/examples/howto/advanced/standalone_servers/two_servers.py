from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncGenerator

from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import StandaloneTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.threads_helper import NetworkServerThread


class Visits:
    """A counter that several threads can use."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    def add(self) -> int:
        with self._lock:
            self._count += 1
            return self._count


class VisitRequestHandler(AsyncStreamRequestHandler[str, str]):
    def __init__(self, visits: Visits) -> None:
        self.visits = visits

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        yield
        thread = threading.current_thread()
        await client.send_packet(f"visit {self.visits.add()}, served by {thread.name}")


def main() -> None:
    protocol = StreamProtocol(StringLineSerializer())
    visits = Visits()

    with contextlib.ExitStack() as stack:
        for port in (9000, 9001):
            handler = VisitRequestHandler(visits)
            server = StandaloneTCPNetworkServer("localhost", port, protocol, handler)
            stack.enter_context(server)
            server_thread = NetworkServerThread(server)
            server_thread.start()
            stack.callback(server_thread.join)

        for port in (9000, 9001):
            with TCPNetworkClient(("localhost", port), protocol) as client:
                client.send_packet("hello")
                print(f"Port {port}: {client.recv_packet(timeout=5)}")


if __name__ == "__main__":
    main()
