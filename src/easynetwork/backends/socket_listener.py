"""Accept the connections of a listening socket, for any event loop."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio

from easynetwork._forks import close_in_children, keep_in_children, take_descriptor
from easynetwork.addresses._attributes import socket_attributes
from easynetwork.addresses._unix import AnySocketAddress, UnixSocketAddress, typed_address
from easynetwork.backends.abc import AsyncBackend, Incoming, Listener, discard
from easynetwork.sockets.accepting import PAUSE, Acceptor, Log
from easynetwork.sockets.connecting import tune_tcp

_MAX_BACKLOG: Final = 4096
"""Connections that may wait to be accepted: the kernel's own limit (listen(2): somaxconn)."""


@dataclass(frozen=True, slots=True)
class UnixListening:
    """What is different if a server listens on a Unix socket.

    Attributes:
        address: Where it listens. The socket itself may have been bound under another name.
        attributes_of: Return what is known of the client at the other end of a connection.
        release: Called before the socket is closed: removes its path.
    """

    address: UnixSocketAddress
    attributes_of: Callable[[socket.socket], Mapping[Any, Callable[[], Any]]]
    release: Callable[[], object]


class SocketListener(Listener):
    """A listening socket in the care of an event loop.

    Children of the process that fork while `accept_forever()` runs do not keep the socket.

    Args:
        sock: A non-blocking listening socket. It belongs to the listener from now on.
        backend: Makes the transports.
        max_recv_size: The most bytes taken from a connection per turn of the loop.
        log: Gets one ERROR line when accept() fails, however long that lasts, and DEBUG lines
            about connections that end before they are served.
        unix: What is to be done for a Unix socket; None for others.
        note_lost: Called with how many connections have ended before they could be handed over,
            and how many were reset because no descriptor was left for them.
    """

    __slots__ = (
        *("_backend", "_log", "_max_recv_size", "_note_lost", "_socket", "_unix"),
        "local_address",
    )

    def __init__(
        self,
        sock: socket.socket,
        backend: AsyncBackend,
        max_recv_size: int,
        log: Log,
        unix: UnixListening | None = None,
        note_lost: Callable[[int, int], object] | None = None,
    ) -> None:
        self.local_address: AnySocketAddress = typed_address(sock.getsockname(), sock.family)
        if unix is not None:
            self.local_address = unix.address
        self._unix = unix
        self._socket = sock
        self._backend = backend
        self._max_recv_size = max_recv_size
        self._log = log
        self._note_lost = note_lost

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return socket_attributes(self._socket, self.local_address, None)

    async def accept_forever(self, admit: Callable[[Incoming], Awaitable[object]]) -> None:
        sock = self._socket
        acceptor = Acceptor(sock, self._log)
        take_descriptor(sock)
        close_in_children(sock)
        try:
            while not self.is_closing():
                await anyio.wait_readable(sock)
                await self._accept_batch(acceptor, admit)
                if acceptor.has_failed:
                    await anyio.sleep(PAUSE)
        except anyio.ClosedResourceError:
            pass
        finally:
            keep_in_children(sock)
            acceptor.close()

    async def accept_waiting(self, admit: Callable[[Incoming], Awaitable[object]]) -> None:
        acceptor = Acceptor(self._socket, self._log)
        left = _MAX_BACKLOG  # clients may connect as fast as they are accepted
        try:
            while left > 0 and not (self.is_closing() or acceptor.has_failed):
                if not (accepted := await self._accept_batch(acceptor, admit)):
                    break
                left -= accepted
        finally:
            acceptor.close()

    async def _accept_batch(
        self, acceptor: Acceptor, admit: Callable[[Incoming], Awaitable[object]]
    ) -> int:
        """Admit the connections of a batch; return how many were accepted."""
        accepted, lost, refused = 0, 0, acceptor.refused
        for connection, address in acceptor.accept_batch():
            accepted += 1
            incoming = self._new_incoming(connection, address)
            if incoming is not None:
                await admit(incoming)
            else:
                lost += 1
        refused = acceptor.refused - refused
        if (lost or refused) and self._note_lost is not None:
            self._note_lost(lost, refused)
        return accepted

    def _new_incoming(self, connection: socket.socket, address: Any) -> Incoming | None:
        unix = self._unix
        try:
            if unix is None:
                tune_tcp(connection)
            transport = self._backend.wrap_stream_socket(connection, discard, self._max_recv_size)
        except OSError as exc:
            self._log(logging.DEBUG, "%s left before it was served: %s", address, exc)
            return None
        if unix is None:
            return Incoming(transport, transport.local_address, transport.address)
        return Incoming(transport, unix.address, transport.address, unix.attributes_of(connection))

    def close(self) -> None:
        if not self.is_closing():
            if self._unix is not None:
                self._unix.release()  # first, see `BoundPath`
            with suppress(anyio.NoEventLoopError):  # garbage collection: no task waits
                anyio.notify_closing(self._socket)
            self._socket.close()

    def is_closing(self) -> bool:
        return self._socket.fileno() < 0
