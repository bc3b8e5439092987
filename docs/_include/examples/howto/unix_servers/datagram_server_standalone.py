from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator

from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncDatagramClient, AsyncDatagramRequestHandler
from easynetwork.servers.standalone_unix_datagram import StandaloneUnixDatagramServer


class GreetingRequestHandler(AsyncDatagramRequestHandler[str, str]):
    """Responds to a name with a greeting."""

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        name: str = yield
        await client.send_packet(f"Hello, {name}!")


def main() -> None:
    path = "greeting.sock"
    protocol = DatagramProtocol(StringLineSerializer(encoding="utf-8"))
    handler = GreetingRequestHandler()

    with StandaloneUnixDatagramServer(path, protocol, handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)

    # Control-C is the normal way to stop this program, so it is not an error.
    with contextlib.suppress(KeyboardInterrupt):
        main()
