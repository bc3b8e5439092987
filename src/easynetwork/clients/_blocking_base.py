"""What all blocking clients are: a socket that threads share.

Two locks: one for whoever sends, closes or inspects, one for whoever receives; so a thread may
receive while another one sends. The descriptor is closed under both of them: `close()` does not
wait for a receiver but wakes it up, and leaves the descriptor to it. So nobody works on a
descriptor that has been closed meanwhile, and maybe given to another file.
"""

from __future__ import annotations

import selectors
import socket as _socket  # the property of this name hides the module inside the class
import warnings
from abc import abstractmethod
from contextlib import closing, suppress
from typing import Generic, TypeVar

from easynetwork.addresses import SocketAddress, SocketProxy, new_socket_address
from easynetwork.clients._blocking import (
    ClientLocks,
    deadline_after,
    new_selector,
    wait_for_lock,
    wait_ready,
    wait_writable,
)
from easynetwork.clients._errors import explain_descriptor
from easynetwork.clients.abc import AbstractNetworkClient
from easynetwork.exceptions import ClientClosedError

_T_Sent = TypeVar("_T_Sent")
_T_Received = TypeVar("_T_Received")


class BlockingClient(AbstractNetworkClient[_T_Sent, _T_Received], Generic[_T_Sent, _T_Received]):
    """A client with a connected socket. How packets become bytes is up to the subclass."""

    __slots__ = (
        "_is_closed",
        "_local_address",
        "_locks",
        "_proxy",
        "_readable",
        "_remote_address",
        "_retry_interval",
        "_socket",
    )

    _retry_interval: float
    """The longest wait until a thread looks whether the client is closed, in seconds."""

    def _take_over(self, sock: _socket.socket) -> None:
        """Own a connected socket from now on, unless this raises an exception."""
        sock.setblocking(False)
        self._local_address = new_socket_address(sock.getsockname(), sock.family)
        self._remote_address = new_socket_address(sock.getpeername(), sock.family)
        self._prepare(sock)
        self._readable = new_selector(sock, selectors.EVENT_READ)
        self._locks = locks = ClientLocks()
        self._proxy = SocketProxy(sock, lock=lambda: locks.sending)
        self._is_closed = False
        self._socket = sock

    def __del__(self) -> None:
        sock = getattr(self, "_socket", None)
        if sock is not None and not self._is_closed:
            self._readable.close()
            sock.close()
            message = f"unclosed client {self!r}; call its close() method"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} endpoint={self._remote_address}>"

    # -- what the subclass adds

    def _prepare(self, sock: _socket.socket) -> None:
        """Do what comes before packets, on a non-blocking socket that nobody else has yet."""

    @abstractmethod
    def _send(self, packet: _T_Sent, deadline: float) -> None:
        """Send a packet. Called with the lock for sending."""

    @abstractmethod
    def _receive(self, deadline: float) -> _T_Received:
        """Wait for a packet and return it. Called with the lock for receiving."""

    def _explain(self, exc: OSError) -> None:
        """Raise what an error of the socket means, or add to it what it means."""
        explain_descriptor(exc)

    def _take_leave(self) -> None:
        """Send what the peer is owed at the end. Called with the lock for sending."""

    def _finish(self) -> None:
        """Do what the peer is owed before the descriptor is closed. Called with both locks."""

    # -- the connection

    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        with self._locks.sending:
            if not self._is_closed:
                self._is_closed = True
                try:
                    self._take_leave()
                finally:
                    self._close_socket()

    def _close_socket(self) -> None:
        """Close the descriptor, or have it closed by the thread that is receiving.

        Called with the lock for sending.
        """
        receiving = self._locks.receiving
        if not receiving.acquire(blocking=False):
            with suppress(OSError):  # not connected any more
                self._socket.shutdown(_socket.SHUT_RDWR)  # wakes up the receiver
            return
        try:
            with suppress(OSError), closing(self._socket), closing(self._readable):
                if self._socket.fileno() >= 0:  # otherwise another receiver was here first
                    self._finish()
        finally:
            receiving.release()

    # -- packets

    def send_packet(self, packet: _T_Sent, *, timeout: float | None = None) -> None:
        deadline = deadline_after(timeout)
        lock = self._locks.sending
        if not lock.acquire(blocking=False):
            wait_for_lock(lock, deadline)
        try:
            self._check_open()
            self._send(packet, deadline)
        finally:
            lock.release()

    def _write(self, data: bytes | memoryview, deadline: float) -> int:
        """Send what the kernel takes at once, and wait until it takes something."""
        while True:
            try:
                return self._socket.send(data)
            except BlockingIOError:
                wait_writable(self._socket, deadline, self._retry_interval)
            except OSError as exc:
                self._explain(exc)
                raise

    def recv_packet(self, *, timeout: float | None = None) -> _T_Received:
        deadline = deadline_after(timeout)
        lock = self._locks.receiving
        if not lock.acquire(blocking=False):
            wait_for_lock(lock, deadline)
        try:
            self._check_open()
            return self._receive(deadline)
        finally:
            lock.release()
            if self._is_closed:
                with self._locks.sending:
                    self._close_socket()

    def _read(self, size: int, deadline: float) -> bytes:
        """Wait until something arrives, and return it."""
        while True:
            while not wait_ready(self._readable, deadline, self._retry_interval):
                self._check_open()
            try:
                data = self._socket.recv(size)
            except BlockingIOError:  # a spurious wake-up, or the one of `_close_socket()`
                self._check_open()
                continue
            except OSError as exc:
                self._check_open()
                self._explain(exc)
                raise
            self._check_open()
            return data

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosedError("Closed client")

    # -- addresses

    @property
    def socket(self) -> SocketProxy:
        """The socket, to look at; the same object each time. Its methods wait for senders."""
        return self._proxy

    def get_local_address(self) -> SocketAddress:
        """Return this end's address.

        Raises:
            ClientClosedError: The client is closed.
        """
        self._check_open()
        return self._local_address

    def get_remote_address(self) -> SocketAddress:
        """Return the peer's address.

        Raises:
            ClientClosedError: The client is closed.
        """
        self._check_open()
        return self._remote_address

    def fileno(self) -> int:
        return -1 if self._is_closed else self._socket.fileno()
