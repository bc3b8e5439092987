"""The bases of all blocking clients: a socket that threads share.

Three locks: one for the thread that sends, one for the thread that receives, so that they can do so
at the same time, and one for the descriptor. A thread closes the descriptor under all three, so
none works on a descriptor that has been closed meanwhile, and maybe given to another file.
`close()` waits for no receiver, and not for ever for a sender. It wakes them up, and the last
thread that leaves an operation closes the descriptor.

A signal handler may raise an exception between any two calls. An operation that it interrupts
releases its locks (see `ClientLock`), and records what may be lost: a flag is set before the socket
or a parser is called, and cleared when the result is stored. The flag of an interrupted operation
stays set, and the next operation reports it.
"""

from __future__ import annotations

import math
import selectors
import socket as _socket  # the property of this name hides the module inside the class
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from easynetwork._forks import call_after_fork
from easynetwork._tuning import CLOSE_TIMEOUT
from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.addresses import SocketProxy, enable_socket_linger
from easynetwork.addresses._unix import AnySocketAddress, typed_address
from easynetwork.clients._errors import explain_descriptor
from easynetwork.clients._iterators import NO_PACKET
from easynetwork.clients._waiting import (
    RECEIVER_TIME,
    SENDER_INTERVAL,
    ClientLocks,
    LockTimeoutError,
    deadline_after,
    interrupting,
    new_selector,
    timed_out,
    wait_ready,
)
from easynetwork.clients.abc import AbstractNetworkClient
from easynetwork.exceptions import BusyResourceError, ClientClosedError


class SharedSocket(ABC):
    """A socket that threads share. How packets become bytes is up to the subclass."""

    __slots__ = (
        *("__weakref__", "_close_timeout", "_given_back", "_is_closed", "_is_reset"),
        *("_is_shut_down", "_local_address", "_locks", "_proxy", "_readable"),
        *("_received_unsure", "_remote_address", "_retry_interval", "_socket"),
    )

    def __init__(
        self,
        sock: _socket.socket,
        retry_interval: float,
        remote_address: AnySocketAddress | None = None,
    ) -> None:
        # The socket stays the caller's if this raises an exception.
        sock.setblocking(False)
        self._local_address = typed_address(sock.getsockname(), sock.family)
        self._remote_address = remote_address
        # The longest wait until a thread looks whether the client is closed, in seconds.
        self._retry_interval = retry_interval
        self._prepare(sock)
        self._readable = new_selector(sock, selectors.EVENT_READ)
        self._locks = locks = ClientLocks()
        self._proxy = SocketProxy(sock, lock=lambda: locks.descriptor.lock)
        self._close_timeout = CLOSE_TIMEOUT
        self._given_back: list[Any] = []
        self._received_unsure = False
        self._is_reset = False
        self._is_shut_down = False  # nothing is received any more
        self._is_closed = False
        self._socket = sock
        call_after_fork(self, SharedSocket._after_fork)

    def _after_fork(self) -> None:
        """Renew the locks in the child. A packet on its way to another thread is the parent's."""
        is_receiving = self._locks.receiving.is_taken_elsewhere()
        self._locks.renew()
        if is_receiving:
            self._forget_packet()

    def __del__(self) -> None:
        sock = getattr(self, "_socket", None)
        if sock is not None and sock.fileno() >= 0:
            self._readable.close()
            sock.close()
            message = f"unclosed client {self!r}; call its close() method"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} endpoint={self._remote_address or self._local_address}>"

    # -- what the subclass adds

    def _prepare(self, sock: _socket.socket) -> None:
        """Do what comes before packets, on a non-blocking socket that no other thread has yet."""

    @abstractmethod
    def _send(self, packet: Any, deadline: float) -> None:
        """Send a packet. Called with the lock for sending."""

    @abstractmethod
    def _receive(self, deadline: float) -> Any:
        """Wait for a packet and return it. Called with the lock for receiving."""

    def _explain(self, exc: OSError) -> None:
        """Raise what an error of the socket means, or add to it what it means."""
        explain_descriptor(exc)

    def _send_close_notify(self, deadline: float) -> None:
        """Send what ends the stream for the peer. Called with the lock for sending.

        Raises:
            TimeoutError: The deadline has passed.
        """

    def _drain_before_close(self) -> None:
        """Do what comes before the descriptor is closed. Called with the locks of both ways."""

    def _forget_packet(self) -> None:
        """Drop the packet that is received, and that no operation has returned."""

    # -- the connection

    def is_closed(self) -> bool:
        """Whether `close()` has been called."""
        return self._is_closed

    def close(self) -> None:
        deadline = time.monotonic() + self._close_timeout
        try:
            if not self._is_closed:
                self._locks.sending.run(lambda: self._close_gracefully(deadline), deadline)
        except (LockTimeoutError, BusyResourceError):  # a packet that does not leave
            self._reset()
        except BaseException:
            self._reset()
            raise
        finally:
            self._close_unless_used()

    def _close_gracefully(self, deadline: float) -> None:
        """Begin to close, unless another thread has. Called with the lock for sending."""
        if not self._is_closed:
            self._is_closed = True
            try:
                self._send_close_notify(deadline)
            except TimeoutError as exc:
                self._reset()
                if not exc.errno:
                    raise  # of a signal handler
            else:
                self._finish_closing()

    def _finish_closing(self) -> None:
        """Close the descriptor, unless a receiver does not leave. Called with the lock for sending.

        A receiver that waits for the socket leaves at once. Other code that it may be in, the
        converter for example, is not waited for.
        """
        if self._locks.receiving.is_taken:
            self._wake_up()
        with suppress(LockTimeoutError, BusyResourceError):
            self._locks.receiving.run(self._close_socket, time.monotonic() + RECEIVER_TIME)

    def _reset(self) -> None:
        """Have the connection reset when the last thread leaves it, which is soon."""
        self._is_reset = self._is_closed = True
        self._wake_up()

    def _wake_up(self) -> None:
        with suppress(BusyResourceError):  # a signal handler in the middle of closing
            self._locks.descriptor.run(self._shut_down)

    def _shut_down(self) -> None:
        """Wake up the receiver. A sender wakes up by itself: see `_wait_writable`.

        The other direction stays open: it would end in order, although something may be missing, or
        have the system answer data of the peer with a reset: see `end_stream`.
        """
        self._is_shut_down = True
        with suppress(OSError):  # not connected any more
            if self._is_reset:
                enable_socket_linger(self._socket, 0)
            self._socket.shutdown(_socket.SHUT_RD)

    def _close_unless_used(self) -> None:
        """Close the descriptor of a closed client, or leave it to a thread that is using it.

        Each thread calls this when it leaves an operation, without locks. If one finds a lock
        taken, the one that has it will find it free: both look again after they have released it.
        """
        locks = self._locks
        while self._socket.fileno() >= 0:
            if locks.receiving.is_taken:
                return self._wake_up()
            if locks.sending.is_taken:
                return
            with suppress(LockTimeoutError, BusyResourceError):
                locks.sending.run(lambda: locks.receiving.run(self._close_socket, 0), 0)

    def _close_socket(self) -> None:
        """Close the descriptor, unless another thread has. Called with the locks of both ways."""
        if self._socket.fileno() < 0:
            return
        try:
            if not self._is_reset:
                self._drain_before_close()
        finally:
            self._locks.descriptor.run(self._close_descriptor)

    def _close_descriptor(self) -> None:
        # It may be closed already, without the client's knowledge.
        with suppress(OSError), closing(self._socket), closing(self._readable):
            pass

    # -- packets

    def _run_sending(
        self, send: Callable[[Any, float], None], packet: Any, timeout: float | None
    ) -> None:
        deadline = math.inf if timeout is None else deadline_after(timeout)
        turn = self._locks.sending
        lock = turn.lock
        is_mine = False
        try:
            if not (lock.acquire(False) or turn.acquire_by(deadline)):
                raise timed_out()
            if turn.is_taken:
                raise interrupting()
            is_mine = turn.is_taken = True
            if self._is_closed:
                raise closed_error()
            send(packet, deadline)
        finally:  # as in `ClientLock.run()`, whose call is spared
            if is_mine:
                turn.is_taken = False
                lock.release()
            else:
                try:  # noqa: SIM105 - suppress() would be a call
                    lock.release()
                except RuntimeError:  # it was not acquired
                    pass
            if self._is_closed:
                self._close_unless_used()

    def _wait_writable(self, deadline: float) -> None:
        """Wait until the socket takes something.

        Raises:
            TimeoutError: The deadline has passed.
            ClientClosedError: The client was closed meanwhile.
        """
        interval = min(self._retry_interval, SENDER_INTERVAL)
        with new_selector(self._socket, selectors.EVENT_WRITE) as selector:
            while not wait_ready(selector, deadline, interval):
                self._check_open()
        self._check_open()

    def _run_receiving(
        self, receive: Callable[[float], _T_Received], timeout: float | None
    ) -> _T_Received:
        deadline = math.inf if timeout is None else deadline_after(timeout)
        turn = self._locks.receiving
        lock = turn.lock
        is_mine = False
        packet: _T_Received = NO_PACKET
        try:
            try:
                if not (lock.acquire(False) or turn.acquire_by(deadline)):
                    raise timed_out()
                if turn.is_taken:
                    raise interrupting()
                is_mine = turn.is_taken = True
                if self._is_closed:
                    raise closed_error()
                if self._given_back:
                    packet = self._given_back[0]
                    del self._given_back[0]
                else:
                    packet = receive(deadline)
            finally:  # as in `ClientLock.run()`, whose call is spared
                if is_mine:
                    turn.is_taken = False
                    lock.release()
                else:
                    try:  # noqa: SIM105 - suppress() would be a call
                        lock.release()
                    except RuntimeError:  # it was not acquired
                        pass
                if self._is_closed:
                    self._close_unless_used()
        except BaseException:
            if packet is not NO_PACKET:
                self._given_back.append(packet)
            raise
        return packet  # nothing is called on its way to the caller, so no exception can lose it

    def _read(self, size: int, deadline: float, read: Callable[[int], Any] | None = None) -> Any:
        """Wait until something arrives, and return it.

        Sets `_received_unsure`, which the caller clears when the bytes are in their place.

        Args:
            size: The most bytes.
            deadline: When to give up.
            read: Reads from the socket; by default, ``recv()``.
        """
        while True:
            while not wait_ready(self._readable, deadline, self._retry_interval):
                self._check_open()
            try:
                self._received_unsure = True
                data = self._socket.recv(size) if read is None else read(size)
            except BlockingIOError:  # a spurious wake-up, or the one of `close()`
                self._received_unsure = False
                self._check_open()
                continue
            except OSError as exc:
                self._received_unsure = not is_from_kernel(exc)
                self._check_open()
                self._explain(exc)
                raise
            if self._is_closed:
                raise closed_error()
            return data

    def _check_open(self) -> None:
        if self._is_closed:
            raise closed_error()

    # -- addresses

    @property
    def socket(self) -> SocketProxy:
        """The socket, to look at; the same object each time. Its methods wait for no other thread.

        (Except for one that is just closing the descriptor.)
        """
        return self._proxy

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 if the client is closed."""
        return -1 if self._is_closed else self._socket.fileno()


class BlockingClient(SharedSocket, AbstractNetworkClient[_T_Sent, _T_Received]):
    """A client that is connected to one peer."""

    __slots__ = ()

    def __init__(self, sock: _socket.socket, retry_interval: float) -> None:
        super().__init__(sock, retry_interval, typed_address(sock.getpeername(), sock.family))

    def send_packet(self, packet: _T_Sent, *, timeout: float | None = None) -> None:
        self._run_sending(self._send, packet, timeout)

    def recv_packet(self, *, timeout: float | None = None) -> _T_Received:
        return self._run_receiving(self._receive, timeout)  # type: ignore[no-any-return]

    def _addresses(self) -> tuple[Any, Any]:
        self._check_open()
        return self._local_address, self._remote_address


def closed_error() -> ClientClosedError:
    """Return the error of an operation on a client that was closed here."""
    return ClientClosedError("Closed client")


def is_from_kernel(exc: OSError) -> bool:
    """Whether a non-blocking socket raised an error, rather than a signal handler during the call.

    The socket's errors have a number. Its timeouts (``ETIMEDOUT``) are taken for a handler's: that
    is what handlers of alarms like to raise, and the connection has ended in any case.
    """
    return exc.errno is not None and not isinstance(exc, TimeoutError)
