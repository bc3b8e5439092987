"""The server of datagrams under attack, a program of its own like ``served.py``.

A datagram is a command:

* ``echo TEXT`` is answered by ``TEXT``;
* ``talk`` by ``talking``; then that peer's generator waits half a minute for the next command;
* ``observer`` by the port of a second server, which answers each datagram with the statistics of
  the first one and how many datagrams that has handled, as JSON;
* any other makes the handler sleep for as many seconds as the command line says.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import AsyncGenerator
from functools import partial

import anyio

from easynetwork.backends import new_builtin_backend
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncUDPNetworkServer
from easynetwork.servers.handlers import AsyncDatagramClient, AsyncDatagramRequestHandler
from tests.robustness.served import runner_options


class Handler(AsyncDatagramRequestHandler[str, str]):
    """Does what it is told."""

    __slots__ = ("handled", "nap", "observer_port")

    def __init__(self, nap: float) -> None:
        self.nap = nap
        self.handled = 0
        self.observer_port = 0

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[float | None, str]:
        command = yield None
        await self._obey(command, client)
        while command == "talk":
            await self._obey((yield 30), client)

    async def _obey(self, command: str, client: AsyncDatagramClient[str]) -> None:
        self.handled += 1
        match command.split(" "):
            case ["echo", *words]:
                await client.send_packet(" ".join(words))
            case ["talk"]:
                await client.send_packet("talking")
            case ["observer"]:
                await client.send_packet(str(self.observer_port))
            case _:
                await anyio.sleep(self.nap)


class Observer(AsyncDatagramRequestHandler[str, str]):
    """Tells what another server does, whatever happens to that one."""

    __slots__ = ("handler", "server")

    def __init__(self, handler: Handler, server: AsyncUDPNetworkServer[str, str]) -> None:
        self.handler = handler
        self.server = server

    async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
        yield
        statistics = dataclasses.asdict(self.server.get_statistics())
        await client.send_packet(json.dumps({**statistics, "handled": self.handler.handled}))


async def serve(options: argparse.Namespace) -> None:
    protocol: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer())
    handler = Handler(options.nap)
    server = AsyncUDPNetworkServer("127.0.0.1", 0, protocol, handler)
    observer = AsyncUDPNetworkServer("127.0.0.1", 0, protocol, Observer(handler, server))
    async with observer, server, anyio.create_task_group() as tasks:
        for each in observer, server:
            is_up = anyio.Event()
            tasks.start_soon(partial(each.serve_forever, is_up_event=is_up))
            await is_up.wait()
        handler.observer_port = observer.get_addresses()[0].port
        print(server.get_addresses()[0].port, flush=True)
        await anyio.wait_readable(sys.stdin)
        await server.shutdown()
        await observer.shutdown()


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
