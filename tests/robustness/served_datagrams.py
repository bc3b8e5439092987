"""The server of datagrams under attack, a program of its own like ``served.py``.

A datagram is a command:

* ``echo TEXT`` is answered by ``TEXT``;
* ``stay`` by ``staying``; that peer's generator will never end;
* ``statistics`` by the server's statistics and how many datagrams were handled, as JSON;
* any other makes the handler sleep for as many seconds as the command line says.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import AsyncGenerator

import anyio

from easynetwork.backends import new_builtin_backend
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.handlers import AsyncDatagramClient, AsyncDatagramRequestHandler
from tests.robustness.served import runner_options


class Handler(AsyncDatagramRequestHandler[str, str]):
    """Does what it is told."""

    __slots__ = ("handled", "nap", "server")

    def __init__(self, nap: float) -> None:
        self.nap = nap
        self.handled = 0
        self.server: AsyncUDPNetworkServer[str, str]

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        command = yield
        await self._obey(command, client)
        while command == "stay":
            await self._obey((yield), client)

    async def _obey(self, command: str, client: AsyncDatagramClient[str]) -> None:
        self.handled += 1
        match command.split(" "):
            case ["echo", *words]:
                await client.send_packet(" ".join(words))
            case ["stay"]:
                await client.send_packet("staying")
            case ["statistics"]:
                statistics = dataclasses.asdict(self.server.get_statistics())
                await client.send_packet(json.dumps({**statistics, "handled": self.handled}))
            case _:
                await anyio.sleep(self.nap)


async def serve(options: argparse.Namespace) -> None:
    handler = Handler(options.nap)
    handler.server = AsyncUDPNetworkServer[str, str](
        "127.0.0.1", 0, DatagramProtocol(StringLineSerializer()), handler
    )
    async with handler.server, anyio.create_task_group() as tasks:
        is_up = anyio.Event()
        tasks.start_soon(lambda: handler.server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        print(handler.server.get_addresses()[0].port, flush=True)
        await anyio.wait_readable(sys.stdin)
        await handler.server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=["asyncio", "uvloop", "trio"])
    parser.add_argument("nap", type=float, help="seconds")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    backend = new_builtin_backend("trio" if options.loop == "trio" else "asyncio")
    backend.bootstrap(serve, options, runner_options=runner_options(options.loop))


if __name__ == "__main__":
    main()
