"""A listener and a transport in memory, without any socket."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from typing import Any

import anyio
import anyio.lowlevel

from easynetwork.addresses import IPv4SocketAddress
from easynetwork.backends import abc


class MemoryTransport(abc.StreamTransport):
    """One end of a connection: it writes to the feed function of the other end, its `peer`."""

    congested, has_lost_descriptor, close_timeout = False, False, 1.0
    extra_attributes: Mapping[Any, Callable[[], Any]] = {}
    turn = nullcontext

    def __init__(self, local_port: int, port: int, peer: MemoryTransport | None = None) -> None:
        self.peer = MemoryTransport(port, local_port, self) if peer is None else peer
        self.local_address = IPv4SocketAddress("memory", local_port)
        self.address = IPv4SocketAddress("memory", port)
        self.feed = abc.discard
        self._is_complete = anyio.Event()
        self._at_eof = self._is_closing = False

    async def receive(self, deadline: float = math.inf) -> None:
        if self._at_eof:
            raise EOFError
        with anyio.fail_after(deadline - anyio.current_time()):
            await self._is_complete.wait()
        self._is_complete = anyio.Event()

    def write(self, data: bytes | bytearray) -> None:
        if self._is_closing or self.peer._is_closing:
            raise abc.broken_connection(None)
        if self.peer.feed(bytes(data)):
            self.peer._is_complete.set()

    async def send_eof(self) -> None:
        self.peer._end()

    def _end(self) -> None:
        self._at_eof = True
        self._is_complete.set()

    async def aclose(self, **options: Any) -> None:
        self.abort()

    def abort(self) -> None:
        self._is_closing = True
        self._end()
        self.peer._end()

    def is_closing(self) -> bool:
        return self._is_closing

    async def drain(self) -> None: ...

    def get_unsent_size(self) -> int:
        return 0

    def limit_sending(self, timeout: float) -> None: ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        loop: Any = anyio.lowlevel.current_token().native_token
        (getattr(loop, "call_soon", None) or loop.run_sync_soon)(callback)


class MemoryListener(abc.Listener):
    """Accepts the other end of each connection that `connect()` returns."""

    local_address = IPv4SocketAddress("memory", 1)
    extra_attributes: Mapping[Any, Callable[[], Any]] = {}

    def __init__(self) -> None:
        self._sender, self._arrived = anyio.create_memory_object_stream[MemoryTransport](math.inf)
        self._ports = iter(range(2, 100))

    def connect(self) -> MemoryTransport:
        transport = MemoryTransport(next(self._ports), 1)
        self._sender.send_nowait(transport.peer)
        return transport

    async def accept_forever(self, admit: Callable[[abc.Incoming], Awaitable[object]]) -> None:
        with self._arrived:
            async for transport in self._arrived:
                await admit(abc.Incoming(transport, self.local_address, transport.address))

    def close(self) -> None:
        self._sender.close()

    def is_closing(self) -> bool:
        return self._sender.statistics().open_send_streams == 0
