"""What the tests of standalone servers share: servers of each kind, their peers, other threads."""

from __future__ import annotations

import contextlib
import importlib
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar, TypeVarTuple

import pytest

from easynetwork.backends.asyncio.backend import AsyncIOBackend
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.abc import AbstractNetworkServer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from easynetwork.servers.standalone_tcp import StandaloneTCPNetworkServer
from easynetwork.servers.standalone_udp import StandaloneUDPNetworkServer
from easynetwork.servers.threads_helper import NetworkServerThread
from tests.conftest import HAS_UVLOOP
from tests.times import PATIENCE

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


def loop_options(loop: str) -> dict[str, Any]:
    """Return the keyword arguments that have a server run on an event loop."""
    if loop == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
        return {"backend": "asyncio", "runner_options": {"loop_factory": factory}}
    return {"backend": loop}


UVLOOP = pytest.param(
    "uvloop", marks=pytest.mark.skipif(not HAS_UVLOOP, reason="uvloop is not installed")
)
each_loop = pytest.mark.parametrize("loop", ["asyncio", UVLOOP, "trio"])


class Hooks:
    """Notes what happens, and echoes. A test overrides the method that it is about."""

    def __init__(self) -> None:
        self.servers: list[Any] = []

    async def service_init(self, exit_stack: contextlib.AsyncExitStack, server: Any) -> None:
        self.servers.append(server)
        await self.prepare(server)

    async def prepare(self, server: Any) -> None:
        """Do what a test has to do before the server is up."""

    async def answer(self, client: Any, request: str) -> str:
        return request

    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        request = yield
        await client.send_packet(await self.answer(client, request))


class Kind:
    """TCP or UDP: how to make a server, and how to talk to it."""

    def __init__(
        self, server_class: Any, protocol: Any, handler_class: Any, socket_type: socket.SocketKind
    ) -> None:
        self.server_class = server_class
        self.protocol = protocol
        self.handler_class = handler_class
        self.socket_type = socket_type

    def new_server(
        self, hooks: type[Hooks] = Hooks, host: Any = "127.0.0.1", port: int = 0, **options: Any
    ) -> Any:
        """Return a server for a handler with the methods of `hooks`, which it also has as such."""
        handler: Any = type("Handler", (hooks, self.handler_class), {})()
        return self.server_class(host, port, self.protocol, handler, **options)

    @contextlib.contextmanager
    def connected(self, server: Any) -> Iterator[Peer]:
        """Connect a peer to a server for a block."""
        with socket.socket(socket.AF_INET, self.socket_type) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(server.get_addresses()[0])
            yield Peer(sock)


class Peer:
    """The other end, without the library."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def send(self, text: str) -> None:
        self.socket.sendall(f"{text}\n".encode())

    def receive(self) -> str:
        return self.socket.recv(4096).decode().rstrip("\n")

    def ask(self, text: str) -> str:
        self.send(text)
        return self.receive()


TCP = Kind(
    StandaloneTCPNetworkServer,
    StreamProtocol(StringLineSerializer()),
    AsyncStreamRequestHandler,
    socket.SOCK_STREAM,
)
UDP = Kind(
    StandaloneUDPNetworkServer,
    DatagramProtocol(StringLineSerializer()),
    AsyncDatagramRequestHandler,
    socket.SOCK_DGRAM,
)
each_kind = pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])


@contextlib.contextmanager
def serving(server: AbstractNetworkServer) -> Iterator[NetworkServerThread]:
    """Serve in a thread while a block runs."""
    thread = NetworkServerThread(server)
    try:
        thread.start()
        yield thread
    finally:
        thread.join(PATIENCE)
        assert not thread.is_alive()


class GatedBackend(AsyncIOBackend):
    """asyncio, with a start that takes until somebody opens the gate."""

    __slots__ = ("gate",)

    def __init__(self) -> None:
        self.gate = threading.Event()

    def bootstrap(
        self,
        coro_func: Callable[[*_Ts], Coroutine[Any, Any, _T]],
        *args: *_Ts,
        runner_options: Mapping[str, Any] | None = None,
    ) -> _T:
        assert self.gate.wait(PATIENCE)
        return super().bootstrap(coro_func, *args, runner_options=runner_options)
