from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys

from simple_request_handler import GreetingRequestHandler

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.sockets import inherited_sockets, notify_systemd


async def main() -> None:
    inherited = inherited_sockets()
    if "greeting" not in inherited:
        sys.exit("Let a supervisor start this program, and pass it a socket named 'greeting'.")

    sockets = inherited["greeting"]
    protocol = StreamProtocol(StringLineSerializer(encoding="utf-8"))
    handler = GreetingRequestHandler()

    async with (
        AsyncTCPNetworkServer.from_sockets(sockets, protocol, handler) as server,
        asyncio.TaskGroup() as tasks,
    ):
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

        is_up = asyncio.Event()
        tasks.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        notify_systemd("READY=1")

        await stop.wait()
        notify_systemd("STOPPING=1")
        await server.server_close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)

    # Control-C is a normal way to stop this program, so it is not an error.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
