from __future__ import annotations

import logging
from typing import Any

from echo_handler import EchoRequestHandler
from echo_protocol import host, port, protocol

from easynetwork.servers import AsyncTCPNetworkServer, run


def new_server() -> AsyncTCPNetworkServer[Any, Any]:
    return AsyncTCPNetworkServer(host, port, protocol, EchoRequestHandler())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)

    run(new_server)
