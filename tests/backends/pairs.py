"""A transport and its peer: a plain non-blocking socket, which does what tests want it to."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import anyio
import pytest

from easynetwork._tls_options import TLSOptions, new_server_tls
from easynetwork.addresses import INETSocketAttribute, SocketProxy, enable_socket_linger
from easynetwork.backends import StreamTransport, ensure_backend
from easynetwork.backends.tls_transport import start_tls
from easynetwork.sockets.connecting import tune_tcp
from tests.tls_peers import TLSSocket, client_context, server_context

MAX_RECV_SIZE = 16 * 1024

# Seconds for what must not happen to happen.

# For the half-closed connections that TLS does not have.
without_tls = pytest.mark.parametrize("pair", [False], indirect=True, ids=["tcp"])


class Pair:
    """Both ends of a connection.

    Attributes:
        transport: This end.
        fed: What the transport has received.
        chunks: The sizes of the chunks in which it did.
        peer: The other end.
    """

    def __init__(self, peer: Any) -> None:
        self.transport: StreamTransport
        self.peer = peer
        self.fed = bytearray()
        self.chunks: list[int] = []

    def feed(self, data: bytes) -> bool:
        """Take a chunk; lines are complete."""
        self.fed += data
        self.chunks.append(len(data))
        return b"\n" in data

    def reset(self) -> None:
        """Let the peer reset the connection."""
        raw = self.peer.raw if isinstance(self.peer, TLSSocket) else self.peer
        enable_socket_linger(raw, 0)
        raw.close()

    async def peer_sends(self, data: bytes) -> None:
        """Send everything from the peer, however long that takes."""
        await self._send_all(self.peer, data)

    async def peer_sends_raw(self, data: bytes) -> None:
        """Send what takes the place of ciphertext."""
        await self._send_all(self.peer.raw, data)

    async def _send_all(self, peer: Any, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            with suppress(BlockingIOError):
                rest = rest[peer.send(rest) :]
                continue
            # anyio's thread (as of 4.16) cannot wait for one descriptor in both directions.
            with self.peer.dup() as duplicate:
                await anyio.wait_writable(duplicate)

    async def peer_receives(self, size: int = 1 << 62) -> bytes:
        """Return what the peer receives up to the end of the stream, or the next `size` bytes."""
        data = bytearray()
        while len(data) < size:
            try:
                chunk = self.peer.recv(min(size - len(data), 1 << 16))
            except BlockingIOError:
                await anyio.wait_readable(self.peer)
                continue
            if not chunk:
                break
            data += chunk
        return bytes(data)

    def congest(self) -> int:
        """Write more than the kernel will ever take if the peer does not read; return how much."""
        size = 2_000_000
        self.transport.write(b"x" * size)
        assert self.transport.congested
        return size

    @property
    def sock(self) -> SocketProxy:
        """The transport's socket."""
        proxy: SocketProxy = self.transport.extra_attributes[INETSocketAttribute.socket]()
        return proxy

    async def receive(self) -> None:
        """Do what the transport's `receive()` does, as a coroutine."""
        await self.transport.receive()

    async def receive_to_end(self) -> None:
        """Receive until that raises an exception."""
        while True:
            await self.transport.receive()


def connected_sockets(buffer_size: int = 64 * 1024) -> tuple[socket.socket, socket.socket]:
    """Return two ends of a TCP connection with kernel buffers of about that many bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Accepted sockets inherit it. The window that a peer is told must be small from the start.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
        peer = socket.socket()
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            peer.setsockopt(socket.SOL_SOCKET, option, buffer_size)
        peer.connect(listener.getsockname())
        sock, _ = listener.accept()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_size)
    tune_tcp(sock)
    tune_tcp(peer)
    sock.setblocking(False)
    peer.setblocking(False)
    return sock, peer


@asynccontextmanager
async def open_pair(
    tls: TLSOptions | None = None, context: ssl.SSLContext | None = None
) -> AsyncIterator[Pair]:
    """Connect a transport of the running event loop with a peer; close both at the end."""
    sock, peer = connected_sockets()
    pair = Pair(peer if tls is None else TLSSocket(peer, context or client_context()))
    with peer:
        pair.transport = ensure_backend(None).wrap_stream_socket(sock, pair.feed, MAX_RECV_SIZE)
        try:
            if tls is not None:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(do_handshake, pair.peer)
                    pair.transport = await start_tls(pair.transport, tls)
            yield pair
        finally:
            pair.transport.abort()
            with anyio.CancelScope(shield=True):
                await pair.transport.aclose()


async def do_handshake(peer: TLSSocket) -> None:
    """Do the peer's part of the handshake."""
    while True:
        try:
            return peer.do_handshake()
        except BlockingIOError:
            await anyio.wait_readable(peer.raw)


def tls_options(
    *,
    handshake_timeout: float | None = None,
    shutdown_timeout: float | None = None,
    is_standard: bool | None = None,
) -> TLSOptions:
    """Return how a transport does TLS."""
    options = handshake_timeout, shutdown_timeout, is_standard
    tls = new_server_tls(server_context(), options)
    assert tls is not None
    return tls


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Turn the garbage collector off, so that what is in a cycle stays."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
