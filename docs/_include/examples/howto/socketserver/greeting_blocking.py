from __future__ import annotations

import contextlib

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import StandaloneTCPNetworkServer
from easynetwork.servers.blocking import BlockingClient, BlockingStreamRequestHandler


class GreetingRequestHandler(BlockingStreamRequestHandler[str, str]):
    """Responds to names with greetings."""

    def handle(self, client: BlockingClient[str, str]) -> None:
        for name in client.packets():
            client.send_packet(f"Hello, {name}!")


def main() -> None:
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    handler = GreetingRequestHandler(max_threads=50)

    with StandaloneTCPNetworkServer("localhost", 9000, protocol, handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
