"""The server under attack: a program of its own, so that it can be measured from outside.

It speaks lines of ASCII. It prints its port on standard output, logs to standard error, and ends
when its standard input does, so that it never outlives the test.

A line is a command:

* ``echo TEXT`` is answered by ``TEXT``;
* ``stream SIZE COUNT`` by COUNT lines of SIZE bytes, their ends included, sent one by one;
* ``progress`` by how many bytes of those were sent so far, to all clients together;
* ``clients`` by how many clients there are;
* ``closed REASON`` by how many connections have ended for that reason;
* ``arm HOOK`` by ``armed``: the next time that another client comes to that hook, the hook raises;
* an empty line by ``empty``.
"""

from __future__ import annotations

import argparse
import logging
import resource
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import anyio

from easynetwork.backends import new_builtin_backend
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.protocol import BufferedStreamProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.servers.limits import Limits
from easynetwork.servers.statistics import CloseReason


class Handler(AsyncStreamRequestHandler[str, str]):
    """Does what it is told."""

    __slots__ = ("_armed", "_sent", "_survives", "_victim", "server")

    server: Any

    def __init__(self, *, survives: bool) -> None:
        self._survives = survives  # catches parse errors and goes on
        self._armed: str | None = None
        self._victim: AsyncStreamClient[str] | None = None  # the first to connect when armed
        self._sent = 0

    async def service_init(self, exit_stack: AsyncExitStack, server: Any, /) -> None:
        self.server = server

    async def on_connection(self, client: AsyncStreamClient[str]) -> None:
        if self._armed is not None and self._victim is None:
            self._victim = client
        self._explode("on_connection", client)

    async def on_disconnection(self, client: AsyncStreamClient[str]) -> None:
        self._explode("on_disconnection", client)

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        self._explode("before_yield", client)
        try:
            line = yield
        except GeneratorExit:
            self._explode("cleanup", client)
            raise
        except StreamProtocolParseError:
            if self._survives:
                return
            raise
        self._explode("after_yield", client)
        await self._obey(line, client)

    async def _obey(self, line: str, client: AsyncStreamClient[str]) -> None:
        match line.split(" "):
            case ["echo", *words]:
                await client.send_packet(" ".join(words))
            case ["stream", size, count]:
                packet = "x" * (int(size) - 1)
                for _ in range(int(count)):
                    await client.send_packet(packet)
                    self._sent += int(size)
            case ["progress"]:
                await client.send_packet(str(self._sent))
            case ["clients"]:
                await client.send_packet(str(self.server.get_statistics().clients))
            case ["closed", reason]:
                closed = self.server.get_statistics().closed
                await client.send_packet(str(closed.get(CloseReason[reason], 0)))
            case ["arm", hook]:
                self._armed = hook
                await client.send_packet("armed")
            case [""]:
                await client.send_packet("empty")

    def _explode(self, hook: str, client: AsyncStreamClient[str]) -> None:
        if self._armed == hook and self._victim is client:
            self._armed = self._victim = None
            raise LookupError(f"boom in {hook}")


async def serve(options: argparse.Namespace) -> None:
    protocol = BufferedStreamProtocol if options.buffered else StreamProtocol
    server: Any
    arguments = protocol(StringLineSerializer()), Handler(survives=options.survives)
    # No peer has to try again, however many come at once.
    common: dict[str, Any] = {"backlog": 4096, "log_client_connection": False}
    limits: dict[str, Any] = dict(limit_of(text) for text in options.limit)
    # Some servers have few descriptors: what happens when they run out is tested, too.
    common["limits"] = Limits(**{"max_clients": None, **limits})
    if options.unix is not None:
        server = AsyncUnixStreamServer(options.unix, *arguments, **common)
    else:
        server = AsyncTCPNetworkServer(
            "127.0.0.1",
            0,
            *arguments,
            **common,
            ssl=None if options.tls is None else tls_context(options.tls),
            ssl_handshake_timeout=options.handshake_timeout,
        )
    async with server, anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve_forever)
        [address] = server.get_addresses()
        print(getattr(address, "port", 0), flush=True)
        await anyio.wait_readable(sys.stdin)
        await server.shutdown()


def limit_of(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, int(value) if name.startswith("max_") else float(value)


def tls_context(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def runner_options(loop: str) -> dict[str, Any]:
    if loop != "uvloop":
        return {}
    import uvloop  # optional dependency

    return {"loop_factory": uvloop.new_event_loop}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=["asyncio", "uvloop", "trio"])
    parser.add_argument("--buffered", action="store_true", help="BufferedStreamProtocol")
    parser.add_argument("--survives", action="store_true", help="catch parse errors")
    parser.add_argument("--unix", help="path of a Unix socket")
    parser.add_argument("--tls", help="file with a certificate and its key")
    parser.add_argument("--handshake-timeout", type=float, help="in seconds")
    parser.add_argument("--limit", action="append", default=[], help="a limit, as name=value")
    parser.add_argument("--descriptors", type=int, help="how many there may be")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    if options.descriptors is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (options.descriptors, hard))
    backend = new_builtin_backend("trio" if options.loop == "trio" else "asyncio")
    backend.bootstrap(serve, options, runner_options=runner_options(options.loop))


if __name__ == "__main__":
    main()
