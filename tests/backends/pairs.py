"""A transport and its peer: a plain non-blocking socket, which does what tests want it to."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio

from easynetwork.addresses import enable_socket_linger
from easynetwork.backends import StreamTransport, ensure_backend

MAX_RECV_SIZE = 16 * 1024

# Seconds for what must not happen to happen.
SOON = 0.05


class Pair:
    """Both ends of a connection.

    Attributes:
        transport: This end.
        fed: What the transport has received.
        chunks: The sizes of the chunks in which it did.
        peer: The other end.
    """

    def __init__(self, peer: socket.socket) -> None:
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
        enable_socket_linger(self.peer, 0)
        self.peer.close()

    async def peer_sends(self, data: bytes) -> None:
        """Send everything from the peer, however long that takes."""
        rest = memoryview(data)
        while rest:
            with suppress(BlockingIOError):
                rest = rest[self.peer.send(rest) :]
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
    sock.setblocking(False)
    peer.setblocking(False)
    return sock, peer


@asynccontextmanager
async def open_pair() -> AsyncIterator[Pair]:
    """Connect a transport of the running event loop with a peer; close both at the end."""
    sock, peer = connected_sockets()
    pair = Pair(peer)
    with peer:
        pair.transport = await ensure_backend(None).wrap_stream_socket(
            sock, pair.feed, MAX_RECV_SIZE
        )
        try:
            yield pair
        finally:
            pair.transport.abort()
            with anyio.CancelScope(shield=True):
                await pair.transport.aclose()
