"""A service: a program that serves on the sockets that its supervisor passes.

It says READY=1 when it serves, and stops at SIGTERM. Clients that it has accepted are served before
it ends; with ``--run``, `run()` does all that. Requests are answered with its process, the names of
its sockets, and the variables that its children would see.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import threading
from functools import partial
from typing import Any

import anyio

from easynetwork.backends.registry import new_builtin_backend
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import (
    AsyncTCPNetworkServer,
    AsyncUDPNetworkServer,
    StandaloneTCPNetworkServer,
    StandaloneUDPNetworkServer,
    run,
)
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from easynetwork.servers.standalone_unix_datagram import StandaloneUnixDatagramServer
from easynetwork.servers.standalone_unix_stream import StandaloneUnixStreamServer
from easynetwork.sockets import inherited_sockets, notify_systemd

LINES: Any = StreamProtocol(StringLineSerializer())
DATAGRAMS: Any = DatagramProtocol(StringLineSerializer())


# By family and type: the asynchronous and the standalone server.
CLASSES = {
    (False, socket.SOCK_STREAM): (AsyncTCPNetworkServer, StandaloneTCPNetworkServer),
    (False, socket.SOCK_DGRAM): (AsyncUDPNetworkServer, StandaloneUDPNetworkServer),
    (True, socket.SOCK_STREAM): (AsyncUnixStreamServer, StandaloneUnixStreamServer),
    (True, socket.SOCK_DGRAM): (AsyncUnixDatagramServer, StandaloneUnixDatagramServer),
}
WITHOUT_CONNECTIONS = (
    *(AsyncUDPNetworkServer, StandaloneUDPNetworkServer),
    *(AsyncUnixDatagramServer, StandaloneUnixDatagramServer),
)


class Handler(AsyncStreamRequestHandler[str, str], AsyncDatagramRequestHandler[str, str]):
    """Answers questions about the process."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.tells_supervisor = False

    async def service_init(self, exit_stack: Any, server: Any) -> None:
        if self.tells_supervisor:
            notify_systemd("READY=1")

    async def handle(self, client: Any) -> Any:
        match (yield):
            case "pid":
                await client.send_packet(str(os.getpid()))
            case "names":
                await client.send_packet(" ".join(self.names))
            case "variables":
                found = [name for name in os.environ if name.startswith("LISTEN_")]
                await client.send_packet(" ".join(["variables:", *found]))
            case other:
                await client.send_packet(other)


def new_servers(is_standalone: bool, backend: Any, **options: Any) -> list[Any]:
    """Return a server for each type of socket that this process inherits."""
    inherited = inherited_sockets()
    assert inherited_sockets() == {}
    handler = Handler([name for name, sockets in inherited.items() for _ in sockets])
    sockets = [sock for named in inherited.values() for sock in named]
    servers: list[Any] = []
    for (is_unix, kind), classes in CLASSES.items():
        own = [s for s in sockets if (s.family == socket.AF_UNIX, s.type) == (is_unix, kind)]
        if own:
            cls: Any = classes[is_standalone]
            protocol = LINES if kind == socket.SOCK_STREAM else DATAGRAMS
            servers.append(cls.from_sockets(own, protocol, handler, backend, **options))
    return servers


async def serve(backend: Any) -> None:
    servers = new_servers(is_standalone=False, backend=backend)
    async with anyio.create_task_group() as tasks:
        for server in servers:
            is_up = anyio.Event()
            tasks.start_soon(partial(server.serve_forever, is_up_event=is_up))
            await is_up.wait()
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            notify_systemd("READY=1")
            async for _ in signals:
                break
        for server in servers:
            if type(server) in WITHOUT_CONNECTIONS:
                await server.shutdown()
            await server.server_close()


def serve_standalone(loop: str, runner_options: Any) -> None:
    backend = "trio" if loop == "trio" else "asyncio"
    servers = new_servers(is_standalone=True, backend=backend, runner_options=runner_options)
    threads = []
    for server in servers:
        is_up = threading.Event()
        thread = threading.Thread(target=partial(server.serve_forever, is_up_event=is_up))
        thread.start()
        threads.append(thread)
        is_up.wait()
    notify_systemd("READY=1")
    signal.sigwait([signal.SIGTERM])
    for server in servers:
        if type(server) in WITHOUT_CONNECTIONS:
            server.shutdown()
        server.server_close()
    for thread in threads:
        thread.join()


def run_servers(backend: Any, runner_options: Any) -> None:
    servers = new_servers(is_standalone=False, backend=backend)
    servers[-1]._handler.tells_supervisor = True
    factories = [partial(lambda server: server, server) for server in servers]
    run(*factories, backend=backend, runner_options=runner_options)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=["asyncio", "uvloop", "trio"])
    parser.add_argument("--standalone", action="store_true")
    parser.add_argument("--run", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    # The threads of servers must not take the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM] if arguments.standalone else [])
    runner_options: dict[str, Any] = {}
    if arguments.loop == "uvloop":
        import uvloop  # optional dependency

        runner_options = {"loop_factory": uvloop.new_event_loop}
    if arguments.standalone:
        serve_standalone(arguments.loop, runner_options)
    else:
        backend = new_builtin_backend("trio" if arguments.loop == "trio" else "asyncio")
        if arguments.run:
            run_servers(backend, runner_options)
        else:
            backend.bootstrap(serve, backend, runner_options=runner_options)


if __name__ == "__main__":
    main()
