from __future__ import annotations

import logging

import trio
from echo_handler import EchoRequestHandler
from echo_protocol import host, port, protocol

from easynetwork.servers import AsyncUDPNetworkServer


async def main() -> None:
    handler = EchoRequestHandler()

    async with AsyncUDPNetworkServer(host, port, protocol, handler) as server:
        await server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)

    # Control-C is the ordinary way to stop this program, not an error.
    # The star is necessary: trio may raise it in an exception group.
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        pass
