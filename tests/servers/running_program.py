"""A program that is nothing but servers: it says which ports it has, and runs until a signal.

Requests: "sleep" is answered after a while, "stubborn" and "block" never end, "fail" raises an
exception out of the server. Other requests are answered at once.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import threading
from typing import Any

import anyio

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, run
from easynetwork.servers.blocking import BlockingStreamRequestHandler
from easynetwork.servers.handlers import AsyncStreamRequestHandler


class Handler(AsyncStreamRequestHandler[str, str]):
    """Does what a request says."""

    async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
        self.server = server
        print(server.get_addresses()[0].port, flush=True)

    async def handle(self, client: Any) -> Any:
        request = yield
        match request:
            case "sleep":
                await client.send_packet("sleeping")
                await anyio.sleep(0.3)
            case "stay":
                await client.send_packet("staying")
                await anyio.sleep_forever()
            case "stubborn":
                await client.send_packet("staying")
                while True:
                    with contextlib.suppress(BaseException):
                        await anyio.sleep_forever()
            case "stop":
                await self.server.shutdown()
        await client.send_packet(request)


class BlockingHandler(BlockingStreamRequestHandler[str, str]):
    """Answers, and never returns."""

    async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
        print(server.get_addresses()[0].port, flush=True)

    def handle(self, client: Any) -> None:
        client.send_packet(f"{client.recv_packet()}ing")
        threading.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=["asyncio", "uvloop", "trio"])
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--grace", type=float, default=10.0)
    parser.add_argument("--blocking", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s")
    runner_options: dict[str, Any] = {}
    if arguments.loop == "uvloop":
        import uvloop  # optional dependency

        runner_options = {"loop_factory": uvloop.new_event_loop}
    protocol: Any = StreamProtocol(StringLineSerializer())
    new_handler: Any = BlockingHandler if arguments.blocking else Handler

    def new_server() -> AsyncTCPNetworkServer[str, str]:
        return AsyncTCPNetworkServer("127.0.0.1", arguments.port, protocol, new_handler())

    run(
        *[new_server] * arguments.servers,
        backend="trio" if arguments.loop == "trio" else "asyncio",
        grace=arguments.grace,
        runner_options=runner_options,
    )
    print("returned", flush=True)


if __name__ == "__main__":
    main()
