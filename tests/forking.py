"""A server whose handlers fork: a program of its own, with one thread.

Prints its port, and ends when its standard input does. With a second argument, "tcp" or "udp", it
only activates a server, and lets two children serve it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import anyio

from easynetwork.backends.registry import new_builtin_backend
from easynetwork.clients import AsyncTCPNetworkClient, AsyncUDPNetworkClient
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, AsyncUDPNetworkServer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler

LINES: Any = StreamProtocol(StringLineSerializer())
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())


class Handler(AsyncStreamRequestHandler[str, str], AsyncDatagramRequestHandler[str, str]):
    """Does what it is told; see the tests."""

    def __init__(self, children: contextlib.ExitStack) -> None:
        self.children = children
        self.servers: list[Any] = []
        self.clients: list[Any] = []

    async def handle(self, client: Any) -> Any:
        request = yield
        match request.split():
            case ["pid"]:
                await client.send_packet(str(os.getpid()))
            case ["echo"]:
                await client.send_packet("echo")
            case ["bare"]:
                fork_bare(self.children)
                await client.send_packet("child")
            case ["fork" | "spawn" as method]:
                start_pool(self.children, method)
                await client.send_packet("child")
            case ["close"]:
                await client.aclose()
            case ["crash"]:
                raise LookupError("on demand")
            case ["stop"]:
                ports = [str(server.get_addresses()[0].port) for server in self.servers]
                for server in self.servers:
                    await server.server_close()
                await client.send_packet(" ".join(ports))
            case ["connect", port]:
                self.clients = [
                    AsyncTCPNetworkClient(("127.0.0.1", int(port)), LINES),
                    AsyncUDPNetworkClient(("127.0.0.1", 9), DATAGRAMS),
                ]
                for other in self.clients:
                    await other.wait_connected()
                await client.send_packet(str(self.clients[1].get_local_address().port))
            case ["disconnect"]:
                for other in self.clients:
                    await other.aclose()
                await client.send_packet("disconnected")


def fork_bare(children: contextlib.ExitStack) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.read(reader, 1)  # the parent may otherwise go on before the child has begun
    os.close(reader)
    os.close(writer)
    children.callback(os.waitpid, pid, 0)
    children.callback(os.kill, pid, signal.SIGKILL)


def start_pool(children: contextlib.ExitStack, method: str) -> None:
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method))
    children.callback(pool.shutdown)
    assert pool.submit(os.getpid).result() != os.getpid()


async def serve(children: contextlib.ExitStack) -> None:
    handler = Handler(children)
    tcp = AsyncTCPNetworkServer("127.0.0.1", 0, LINES, handler)
    udp = AsyncUDPNetworkServer("127.0.0.1", 0, DATAGRAMS, handler)
    handler.servers = [tcp, udp]
    async with tcp, udp, anyio.create_task_group() as tasks:
        port = tcp.get_addresses()[0].port
        for server in tcp, udp:
            is_up = anyio.Event()
            tasks.start_soon(partial(server.serve_forever, is_up_event=is_up))
            await is_up.wait()
        print(port, flush=True)
        await anyio.wait_readable(sys.stdin)
        for server in tcp, udp:
            await server.shutdown()


def serve_in_children(kind: str, backend: Any, bootstrap: Any) -> None:
    handler = Handler(contextlib.ExitStack())
    server: Any
    if kind == "tcp":
        server = AsyncTCPNetworkServer("127.0.0.1", 0, LINES, handler, backend)
    else:
        server = AsyncUDPNetworkServer("127.0.0.1", 0, DATAGRAMS, handler, backend)
    bootstrap(server.server_activate)
    print(server.get_addresses()[0].port, flush=True)
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            serve_here(server, bootstrap)
        pids.append(pid)
    sys.stdin.read()
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    failed = [os.waitpid(pid, 0)[1] for pid in pids]
    bootstrap(server.server_close)
    sys.exit(any(failed))


def serve_here(server: Any, bootstrap: Any) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(partial(server.serve_forever, is_up_event=is_up))
            await is_up.wait()
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                os.write(1, f"{os.getpid()}\n".encode())  # in one piece
                async for _ in signals:
                    break
            await server.shutdown()
            await server.server_close()

    status = 1
    try:
        bootstrap(main)
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=["asyncio", "uvloop", "trio"])
    parser.add_argument("activated", nargs="?", choices=["tcp", "udp"])
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    backend = new_builtin_backend("trio" if options.loop == "trio" else "asyncio")
    runner_options: dict[str, Any] = {}
    if options.loop == "uvloop":
        import uvloop  # optional dependency

        runner_options = {"loop_factory": uvloop.new_event_loop}

    def bootstrap(function: Any, *args: Any) -> None:
        backend.bootstrap(function, *args, runner_options=runner_options)

    if options.activated:
        serve_in_children(options.activated, backend, bootstrap)
    else:
        with contextlib.ExitStack() as children:
            bootstrap(serve, children)


if __name__ == "__main__":
    main()
