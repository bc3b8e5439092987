"""What the tests of how-to pages share: a page's words, a server for a handler, a peer."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

DOCS = Path(__file__).resolve().parents[2] / "docs"

# Seconds. Nothing here takes a tenth of it, unless something hangs.
PATIENCE = 10

_T = TypeVar("_T")


def words(page: str) -> str:
    """Return a page of the site as its reader sees it: no roles, no markup, one long line."""
    text = (DOCS / page).read_text(encoding="utf-8")
    text = re.sub(r":([\w:+-]+):`([~!]?)\.?([^`<]+?)(?: <[^`>]*>)?`", shown, text)
    text = re.sub(r"`([^`<]+?) <[^`>]*>`_", r"\1", text)
    return " ".join(re.sub(r"[`*]|^\s*(?:#\.|\*) ", "", text, flags=re.MULTILINE).split())


def shown(role: re.Match[str]) -> str:
    """Return what Sphinx shows of a role."""
    kind, tilde, text = role.groups()
    name = text.rpartition(".")[2] if tilde else text
    return f"{name}()" if kind in ("meth", "func") and not name.endswith(")") else name


class Watched(AsyncStreamRequestHandler[Any, Any]):
    """Comes before a handler class in the bases of a test's class; notes when what is called."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.calls: list[str] = []
        self.clients: list[AsyncStreamClient[Any]] = []
        self.gone = anyio.Event()

    def on_connection(self, client: AsyncStreamClient[Any]) -> Any:
        self.calls.append("on_connection")
        self.clients.append(client)
        return super().on_connection(client)

    def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[Any, Any]:
        self.calls.append("handle")
        return super().handle(client)  # type: ignore[safe-super]  # that of the next base

    async def on_disconnection(self, client: AsyncStreamClient[Any]) -> None:
        self.calls.append("on_disconnection")
        try:
            await super().on_disconnection(client)
        finally:
            self.gone.set()


@contextlib.asynccontextmanager
async def serving(
    handler: AsyncStreamRequestHandler[Any, Any],
    protocol: StreamProtocol[Any, Any] | None = None,
    **options: Any,
) -> AsyncIterator[AsyncTCPNetworkServer[Any, Any]]:
    """Serve a handler on a free port while the block runs, then shut the server down."""
    protocol = protocol or StreamProtocol(StringLineSerializer(encoding="utf-8"))
    with anyio.fail_after(PATIENCE):
        async with AsyncTCPNetworkServer("127.0.0.1", 0, protocol, handler, **options) as server:
            async with anyio.create_task_group() as task_group:
                is_up = anyio.Event()
                task_group.start_soon(lambda: server.serve_forever(is_up_event=is_up))
                await is_up.wait()
                yield server
                await server.shutdown()


class Peer:
    """A client without our library: a blocking socket whose calls run in a worker thread."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.address = sock.getsockname()
        self._stream = sock.makefile("rb")

    async def send(self, *lines: str) -> None:
        """Send lines of text, in one piece."""
        await self.send_bytes("".join(f"{line}\n" for line in lines).encode())

    async def send_bytes(self, data: bytes) -> None:
        await in_thread(lambda: self.socket.sendall(data))

    async def receive(self) -> str:
        """Return the next line; "" at the end of the stream."""
        return (await in_thread(self._stream.readline)).decode().removesuffix("\n")

    async def ending(self) -> str:
        """Return how the connection ends, when nothing more is expected to arrive."""
        try:
            rest = await in_thread(self._stream.read)
        except ConnectionResetError:
            return "connection reset"
        return f"end of the stream after {rest!r}" if rest else "end of the stream"

    async def ask(self, *lines: str) -> str:
        """Send lines and return the next line of the answer."""
        await self.send(*lines)
        return await self.receive()

    def close(self) -> None:
        self._stream.close()
        self.socket.close()

    def reset(self) -> None:
        """Leave rudely: the other side gets a reset instead of the end of the stream."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()


async def in_thread(func: Callable[[], _T]) -> _T:
    return await anyio.to_thread.run_sync(func)


@contextlib.asynccontextmanager
async def connected(server: AsyncTCPNetworkServer[Any, Any]) -> AsyncIterator[Peer]:
    """Connect a peer to a server, and close it at the end of the block."""
    host, port = server.get_addresses()[0][:2]
    sock = await in_thread(lambda: socket.create_connection((host, port), timeout=PATIENCE))
    peer = Peer(sock)
    try:
        yield peer
    finally:
        peer.close()


async def turned_away(server: AsyncTCPNetworkServer[Any, Any]) -> str:
    """Return how a connection ends for a peer that says nothing and expects nothing."""
    try:
        async with connected(server) as peer:
            return await peer.ending()
    except ConnectionResetError:  # before it had connected, as far as it can tell
        return "connection reset"
