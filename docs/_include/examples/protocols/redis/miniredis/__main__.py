"""The program: python -m miniredis [PORT]"""

from __future__ import annotations

import logging
import sys

from easynetwork.servers import AsyncTCPNetworkServer, Limits, run

from .handler import RedisRequestHandler
from .resp import SERVER_PROTOCOL, Command, Reply


def new_server(port: int = 6379) -> AsyncTCPNetworkServer[Command, Reply]:
    limits = Limits(max_clients=1000, send_timeout=30)
    handler = RedisRequestHandler()
    return AsyncTCPNetworkServer("127.0.0.1", port, SERVER_PROTOCOL, handler, limits=limits)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)

    run(lambda: new_server(*map(int, sys.argv[1:])))
