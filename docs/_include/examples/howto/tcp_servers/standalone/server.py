from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import StandaloneTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler


class GreetingRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Responds to a name with a greeting."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        name: str = yield
        await client.send_packet(f"Hello, {name}!")


def main() -> None:
    host, port = "localhost", 9000
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    handler = GreetingRequestHandler()

    with StandaloneTCPNetworkServer(host, port, protocol, handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)

    # Control-C is the normal way to stop this program, so it is not an error.
    with contextlib.suppress(KeyboardInterrupt):
        main()
