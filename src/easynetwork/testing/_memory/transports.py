"""Sockets in memory under the care of any event loop: transports and listeners."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel

from easynetwork.addresses import IPv4SocketAddress
from easynetwork.addresses._attributes import socket_attributes
from easynetwork.addresses._unix import AnySocketAddress
from easynetwork.backends.abc import Incoming, Listener, broken_connection, discard
from easynetwork.backends.abc.datagram import BatchCallback, ErrorCallback
from easynetwork.backends.abc.stream import Feed
from easynetwork.backends.datagram_endpoint import SocketDatagramEndpoint
from easynetwork.backends.stream_transport import SocketStreamTransport
from easynetwork.sockets.connecting import tune_tcp
from easynetwork.testing._memory.datagrams import MemoryDatagramSocket
from easynetwork.testing._memory.sockets import (
    BaseMemorySocket,
    Cancel,
    call_at,
    nothing,
    wait_readable,
)
from easynetwork.testing._memory.streams import MemorySocket


class MemoryStreamTransport(SocketStreamTransport):
    """One end of a connection in memory."""

    __slots__ = ("_timer",)

    def __init__(self, sock: MemorySocket, feed: Feed, max_recv_size: int) -> None:
        socket: Any = sock
        super().__init__(socket, feed, max_recv_size)
        self._timer: Cancel = nothing

    # -- called by the owner

    async def receive(self, deadline: float = math.inf) -> None:
        if self._at_eof:
            raise EOFError if self._error is None else broken_connection(self._error)
        is_late = deadline <= anyio.current_time()
        while not self._at_eof:
            if is_late:
                await anyio.lowlevel.checkpoint()
            else:
                await wait_readable(self._memory_socket, deadline)
            if self._receive_now(is_late=is_late):
                return

    def _receive_now(self, *, is_late: bool) -> bool:
        """Feed what one read returns; return whether `receive()` should return."""
        if self._at_eof:  # closed meanwhile
            return True
        try:
            nbytes = self._source.recv_into(self._view)
        except BlockingIOError:
            if is_late:
                raise TimeoutError("timed out") from None
            return False
        except OSError as exc:
            self._break(exc)
            return True
        if nbytes:
            is_complete = self.feed(self._view[:nbytes].tobytes()) > 0
            if not is_complete:
                self.observer.note_partial()
            return is_complete
        self._at_eof = True
        return True

    def limit_sending(self, timeout: float) -> None:
        self._deadline = min(self._deadline, anyio.current_time() + timeout)
        if self._unsent is not None:
            self._start_timer()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._fair_queue.call_soon(callback)

    # -- called by the base class

    @property
    def _memory_socket(self) -> MemorySocket:
        sock: Any = self.socket
        assert isinstance(sock, MemorySocket)
        return sock

    async def wait_readable(self) -> None:
        await wait_readable(self._memory_socket)

    def _send_later(self) -> None:
        # Not at once: the other end may call this while it receives, or this one while it sends.
        self._memory_socket.on_writable = partial(self.call_soon, self._on_writable)
        if self._memory_socket.is_writable():  # it broke while it took the first part
            self._memory_socket.on_writable()
        self._start_timer()

    def _on_writable(self) -> None:
        if self._send_some():
            self._memory_socket.on_writable = nothing

    def _start_timer(self) -> None:
        self._timer()
        if self._deadline < math.inf:
            self._timer = call_at(self._deadline, self._give_up)

    def _discard_unsent(self) -> None:
        super()._discard_unsent()
        self._timer()
        self._timer = nothing

    def _stop_receiving(self) -> None:
        self._memory_socket.on_readable()

    def _unregister(self) -> None:
        self._memory_socket.on_writable = nothing


class MemoryListener(Listener):
    """Accepts the connections that are made to an address.

    Args:
        sock: Stands for the listening socket; only its address and its options matter.
        max_recv_size: The most bytes taken from a connection at a time.
        release: Called when it is closed.
    """

    __slots__ = ("_arrived", "_max_recv_size", "_release", "_socket", "_waiting", "local_address")

    def __init__(
        self, sock: BaseMemorySocket, max_recv_size: int, release: Callable[[], object]
    ) -> None:
        self.local_address: AnySocketAddress = IPv4SocketAddress(*sock.getsockname())
        self._socket = sock
        self._max_recv_size = max_recv_size
        self._release = release
        self._waiting: deque[MemorySocket] = deque()
        self._arrived = anyio.Event()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return socket_attributes(self._socket, self.local_address, None)

    def add(self, sock: MemorySocket) -> None:
        """Have one more connection accepted.

        Args:
            sock: The server's end.
        """
        self._waiting.append(sock)
        self._arrived.set()

    async def accept_forever(self, admit: Callable[[Incoming], Awaitable[object]]) -> None:
        while not self.is_closing():
            await self.accept_waiting(admit)
            if not self.is_closing():
                self._arrived = anyio.Event()
                await self._arrived.wait()

    async def accept_waiting(self, admit: Callable[[Incoming], Awaitable[object]]) -> None:
        while self._waiting:
            incoming = self._new_incoming(self._waiting.popleft())
            if incoming is not None:
                await admit(incoming)

    def _new_incoming(self, sock: Any) -> Incoming | None:
        tune_tcp(sock)
        try:
            transport = MemoryStreamTransport(sock, discard, self._max_recv_size)
        except OSError:  # the client has reset the connection before it was accepted
            sock.close()
            return None
        return Incoming(transport, transport.local_address, transport.address)

    def close(self) -> None:
        if not self.is_closing():
            self._socket.close()
            self._release()
            for sock in self._waiting:
                sock.abort()
            self._waiting.clear()
            self._arrived.set()

    def is_closing(self) -> bool:
        return self._socket.fileno() < 0


class MemoryDatagramEndpoint(SocketDatagramEndpoint):
    """A datagram socket in memory."""

    __slots__ = ("_memory_socket",)

    def __init__(self, sock: MemoryDatagramSocket) -> None:
        socket: Any = sock
        super().__init__(socket)
        self._memory_socket = sock

    async def _serve(self, received: BatchCallback, failed: ErrorCallback) -> None:
        while not self.is_closing():
            await wait_readable(self._memory_socket)
            if self.take_waiting(received, failed):
                # trio shuffles tasks: let those that were started meanwhile have their turn first.
                await anyio.lowlevel.checkpoint()

    async def _readable(self, deadline: float) -> None:
        if deadline > anyio.current_time():
            await wait_readable(self._memory_socket, deadline)
        else:
            await anyio.lowlevel.checkpoint()
            if not self._memory_socket.is_readable():
                raise TimeoutError("timed out")

    def _unregister(self) -> None:
        """Do nothing: closing the socket wakes up the task that waits for it."""
