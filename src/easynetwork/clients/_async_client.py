"""The base classes of asynchronous clients, which tasks share, and which connect when needed.

There is one attempt to connect at a time. A task that needs the connection waits for it; if the
attempt fails or its task is cancelled, the next task that waits tries again. Closing a client is
final, and cancels the attempt.
"""

from __future__ import annotations

import errno
import math
import os
import socket as _socket  # the property of this name hides the module inside the class
import warnings
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import anyio

from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.addresses import SocketAttribute, SocketProxy
from easynetwork.backends import (
    AsyncBackend,
    BuiltinAsyncBackendLiteral,
    StreamTransport,
    ensure_backend,
)
from easynetwork.backends.abc import DatagramEndpoint
from easynetwork.clients.abc import AbstractAsyncNetworkClient
from easynetwork.exceptions import ClientClosedError
from easynetwork.sockets.closing import close_on_error

_T_Transport = TypeVar("_T_Transport", StreamTransport, DatagramEndpoint)


class LazyTransport(ABC, Generic[_T_Transport]):
    """The owner of a socket that is in the care of an event loop, once it is needed."""

    __slots__ = (
        *("__weakref__", "_attempt", "_backend", "_connecting"),
        *("_is_closing", "_proxy", "_receiving", "_target", "_transport"),
    )

    def __init__(
        self, target: Any, backend: AsyncBackend | BuiltinAsyncBackendLiteral | None
    ) -> None:
        self._backend = ensure_backend(backend)
        self._target = target  # an address, or a connected socket
        self._transport: _T_Transport | None = None
        self._proxy: SocketProxy | None = None
        self._connecting = anyio.Lock()
        self._receiving = anyio.Lock()
        self._attempt: anyio.CancelScope | None = None
        self._is_closing = False

    def __del__(self) -> None:
        transport = getattr(self, "_transport", None)
        if transport is not None and not transport.is_closing():
            message = f"unclosed client {self!r} (and cannot be closed synchronously)"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        if self._transport is None:
            return f"<{type(self).__name__} (partially initialized)>"
        address = self._transport.address or self._transport.local_address
        return f"<{type(self).__name__} endpoint={address}>"

    def backend(self) -> AsyncBackend:
        """Return the backend that the client runs on."""
        return self._backend

    # -- what the subclass adds

    @abstractmethod
    async def _new_socket(self) -> _socket.socket:
        """Return a socket that is connected, or bound, to the target."""

    @abstractmethod
    async def _wrap(self, sock: _socket.socket) -> _T_Transport:
        """Put a socket under the loop's care. It is closed if this fails."""

    @abstractmethod
    async def _close(self, transport: _T_Transport) -> None:
        """Close it when tasks that are sending a packet are through."""

    # -- the connection

    async def _connected(self, deadline: float = math.inf) -> _T_Transport:
        if self._is_closing:
            raise closed_error()
        if self._transport is not None:
            return self._transport
        if isinstance(self._target, _socket.socket):
            deadline = math.inf  # there is nothing to wait for
        with self._backend.timeout_at(deadline):
            async with self._connecting:
                await self._try_to_connect()
        return await self._connected()  # unless closed meanwhile

    async def _try_to_connect(self) -> None:
        if self._transport is not None or self._is_closing:
            return  # since the lock was asked for
        try:
            with anyio.CancelScope() as self._attempt:
                await self._connect()
        finally:
            self._attempt = None
        if self.is_closing():  # meanwhile: maybe too late to be cancelled
            await self.aclose()

    async def _connect(self) -> None:
        sock = self._target
        if not isinstance(sock, _socket.socket):
            sock = await self._new_socket()
        with close_on_error(sock):
            sock.setblocking(False)
        self._transport = await self._wrap(sock)

    def is_closing(self) -> bool:
        """Whether `aclose()` has been called."""
        return self._is_closing

    async def aclose(self) -> None:
        """Close the client for good; what was sent still arrives. May be called several times.

        Tasks that wait for the connection or for a packet get a `ClientClosedError`.

        Over a connection, this waits until the kernel has taken what was sent, for at most 30
        seconds, or `ssl_shutdown_timeout`. At this deadline, or if it is cancelled, the connection
        is reset. The kernel delivers what it has taken in the background.
        """
        self._is_closing = True
        if self._attempt is not None:
            self._attempt.cancel()  # its task closes what there is to close
        elif self._transport is not None:
            await self._close(self._transport)
        elif isinstance(self._target, _socket.socket):
            self._target.close()

    # -- packets

    async def _acquire_receiving(self, deadline: float) -> None:
        try:
            self._receiving.acquire_nowait()
        except anyio.WouldBlock:
            with anyio.CancelScope(deadline=deadline) as scope:
                await self._receiving.acquire()
            if scope.cancelled_caught:
                raise TimeoutError("timed out") from None

    # -- addresses

    @property
    def socket(self) -> SocketProxy:
        """The socket, to look at; the same object each time.

        Raises:
            AttributeError: The client is not connected yet.
        """
        if self._transport is None:
            raise AttributeError("Socket not connected")
        if self._proxy is None:
            self._proxy = self._transport.extra_attributes[SocketAttribute.socket]()
        return self._proxy

    def _open_transport(self) -> _T_Transport:
        if self._is_closing:
            raise closed_error()
        if self._transport is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._transport


class AsyncClient(
    LazyTransport[_T_Transport],
    AbstractAsyncNetworkClient[_T_Sent, _T_Received],
    Generic[_T_Sent, _T_Received, _T_Transport],
):
    """A client that is connected to one peer."""

    __slots__ = ()

    def is_connected(self) -> bool:
        return self._transport is not None

    async def wait_connected(self) -> None:
        await self._connected()

    async def recv_packet(self) -> _T_Received:
        return await self._receive(math.inf)

    def _addresses(self) -> tuple[Any, Any]:
        transport = self._open_transport()
        assert transport.address is not None  # the socket is connected
        return transport.local_address, transport.address


def closed_error() -> ClientClosedError:
    """Return the error of an operation on a client that was closed here."""
    return ClientClosedError("Client is closing, or is already closed")
