from __future__ import annotations

import logging
import sys
from contextlib import AsyncExitStack
from typing import Any

from simple_request_handler import GreetingRequestHandler

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, run
from easynetwork.sockets import inherited_sockets, notify_systemd


class SupervisedRequestHandler(GreetingRequestHandler):
    async def service_init(self, exit_stack: AsyncExitStack, server: Any) -> None:
        notify_systemd("READY=1")
        exit_stack.callback(notify_systemd, "STOPPING=1")


def new_server() -> AsyncTCPNetworkServer[str, str]:
    inherited = inherited_sockets()
    if "greeting" not in inherited:
        sys.exit("Let a supervisor start this program, and pass it a socket named 'greeting'.")

    sockets = inherited["greeting"]
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    handler = SupervisedRequestHandler()
    return AsyncTCPNetworkServer.from_sockets(sockets, protocol, handler)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    run(new_server, grace=20)
