from __future__ import annotations

import asyncio
import contextlib
import logging

from simple_request_handler import GreetingRequestHandler

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer


async def main() -> None:
    host, port = "localhost", 9000
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    handler = GreetingRequestHandler()

    async with AsyncTCPNetworkServer(host, port, protocol, handler) as server:
        await server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)

    # Control-C is the normal way to stop this program, so it is not an error.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
