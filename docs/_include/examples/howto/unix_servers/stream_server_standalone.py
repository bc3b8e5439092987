from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.standalone_unix_stream import StandaloneUnixStreamServer


class GreetingRequestHandler(AsyncStreamRequestHandler[str, str]):
    """Responds to a name with a greeting."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        name: str = yield
        await client.send_packet(f"Hello, {name}!")


def main() -> None:
    path = "greeting.sock"
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    handler = GreetingRequestHandler()

    with StandaloneUnixStreamServer(path, protocol, handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)

    # Control-C is the normal way to stop this program, so it is not an error.
    with contextlib.suppress(KeyboardInterrupt):
        main()
