from __future__ import annotations

import asyncio
import contextlib
import logging

from simple_request_handler import GreetingRequestHandler

from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncUDPNetworkServer


async def main() -> None:
    host, port = "localhost", 9000
    protocol = DatagramProtocol(StringLineSerializer(encoding="utf-8"))
    handler = GreetingRequestHandler()

    async with AsyncUDPNetworkServer(host, port, protocol, handler) as server:
        await server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)

    # Control-C is the normal way to stop this program, so it is not an error.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
