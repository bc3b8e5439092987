"""Deadlines, locks and socket readiness for the blocking clients.

Calls do not block, so that a thread that writes and one that reads can have timeouts of their own.
A deadline is a point in time on the clock of `time.monotonic()`; infinity stands for none. All
waits of one operation share its deadline.
"""

from __future__ import annotations

import errno
import math
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from easynetwork._arguments import validated_delay
from easynetwork._tuning import LINGER_TIME
from easynetwork._typevars import _T
from easynetwork.addresses import enable_socket_linger
from easynetwork.exceptions import BusyResourceError
from easynetwork.sockets.closing import close_on_error, get_unacknowledged_size
from easynetwork.sockets.connecting import (
    check_connected,
    connect_call_error,
    connection_error,
    new_client_socket,
    start_connecting,
)
from easynetwork.sockets.resolving import interleave, resolve_blocking

LONGEST_WAIT: Final = 3600.0
"""Seconds that one system call may wait: poll(2) counts milliseconds in an int, up to 25 days."""

SENDER_INTERVAL: Final = 1.0
"""Seconds until a thread that cannot send looks whether the client is closed.

Nothing wakes it up without telling the peer that the stream ends in order."""

_Selector: Final[Callable[[], selectors.BaseSelector]] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)
"""Waits for one socket without a descriptor of its own. select(2), which Windows has in place of
poll(2), does not take descriptors from 1024 on elsewhere."""

RECEIVER_TIME: Final = 0.1
"""Seconds that `close()` waits for the thread that receives, which it has woken up.

It leaves in microseconds, unless it is in other code than the client's."""

NO_WAIT: Final[int] = getattr(socket, "MSG_DONTWAIT", 0)
"""The flag of a call that does not wait, whatever the socket is. Windows has none."""

_DISCARD_SIZE: Final = 64 * 1024

_ACKNOWLEDGEMENT_INTERVAL: Final = 0.005
"""Seconds until the next look whether the peer has all bytes: nothing announces that."""


# -- deadlines


def deadline_after(timeout: float | None) -> float:
    """Return the deadline of an operation that starts now.

    Raises:
        ValueError: `timeout` is negative or not a number.
    """
    return math.inf if timeout is None else time.monotonic() + validated_delay(timeout)


def validated_retry_interval(seconds: float) -> float:
    """Return how long one system call may wait, in seconds.

    Raises:
        ValueError: It is not strictly positive, or not a number.
    """
    if not seconds > 0:
        raise ValueError("retry_interval must be a strictly positive float")
    return min(seconds, LONGEST_WAIT)


def timed_out() -> TimeoutError:
    """Return the error of an operation whose deadline has passed."""
    return TimeoutError(errno.ETIMEDOUT, "The operation timed out")


# -- locks


class LockTimeoutError(TimeoutError):
    """The deadline has passed, and another thread has the lock."""


class ClientLock:
    """A lock that an exception of a signal handler does not leave locked.

    CPython runs signal handlers after any call, also after the one of ``acquire()`` and before the
    ``try`` that would release the lock: an exception of the handler then leaves a plain lock locked
    for ever (measured: one interrupt in twelve). So `acquire()` is called inside the ``try``, which
    ends with a call of `release()` in any case: a `threading.RLock` knows whether it was acquired.

    No thread gets it twice: whatever is called while the lock is held, a signal handler for
    example, gets a `BusyResourceError`.

    Attributes:
        lock: To be acquired and released as `run()` does.
        is_taken: Whether a thread holds it.
    """

    __slots__ = ("is_taken", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.is_taken = False

    def acquire_by(self, deadline: float) -> bool:
        """Acquire `lock`.

        Returns:
            Whether it was acquired; if not, the deadline has passed, and another thread has it.
        """
        left = max(deadline - time.monotonic(), 0)
        return self.lock.acquire(timeout=min(left, threading.TIMEOUT_MAX))

    def is_taken_elsewhere(self) -> bool:
        """Return whether another thread holds it."""
        if self.lock.acquire(blocking=False):
            self.lock.release()
            return False
        return True

    def run(self, function: Callable[[], _T], deadline: float = math.inf) -> _T:
        """Call a function with the lock.

        Raises:
            LockTimeoutError: The deadline has passed, and another thread has the lock.
            BusyResourceError: This thread has it: the caller has interrupted the holder.
        """
        lock = self.lock
        is_mine = False
        try:
            if not (lock.acquire(blocking=False) or self.acquire_by(deadline)):
                raise LockTimeoutError(errno.ETIMEDOUT, "The operation timed out")
            if self.is_taken:
                raise interrupting()
            is_mine = self.is_taken = True
            return function()
        finally:
            # Until `release()` returns, this calls nothing: no signal handler can cut it.
            if is_mine:
                self.is_taken = False
                lock.release()
            else:
                try:  # noqa: SIM105 - suppress() would be a call
                    lock.release()
                except RuntimeError:  # it was not acquired
                    pass


def interrupting() -> BusyResourceError:
    """Return the error of an operation that waits for one that its own thread is doing."""
    return BusyResourceError(
        "This thread is already using the client, in the code that called this"
    )


class ClientLocks:
    """One lock for sending and closing, one for receiving, one for the descriptor itself.

    The last one is never held while waiting for a peer.
    """

    __slots__ = ("descriptor", "receiving", "sending")

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Reset them after a fork: the thread that holds one may not exist in the child."""
        self.sending = ClientLock()
        self.receiving = ClientLock()
        self.descriptor = ClientLock()


# -- sockets


def new_selector(sock: socket.socket, event: int) -> selectors.BaseSelector:
    """Return what waits until a socket is ready. To be closed, and used by one thread at a time."""
    selector = _Selector()
    selector.register(sock.fileno(), event)
    return selector


def wait_ready(selector: selectors.BaseSelector, deadline: float, interval: float) -> bool:
    """Wait until the socket is ready, for at most `interval` seconds.

    Returns:
        Whether it is ready.

    Raises:
        TimeoutError: The deadline has passed, and it is not.
    """
    left = deadline - time.monotonic()
    if selector.select(min(left, interval)):
        return True
    if left <= 0:
        raise timed_out()
    return False


def wait_writable(sock: socket.socket, deadline: float, interval: float) -> None:
    """Wait until a socket takes bytes, looking every `interval` seconds.

    Raises:
        TimeoutError: The deadline has passed, and it does not.
    """
    with new_selector(sock, selectors.EVENT_WRITE) as selector:
        while not wait_ready(selector, deadline, interval):
            pass


def connect_tcp(
    host: str, port: int, *, local_address: tuple[str, int] | None, timeout: float | None
) -> socket.socket:
    """Connect to the first address of a host that answers; try them one after the other.

    Args:
        host: A name or a numeric address.
        port: The port.
        local_address: What to bind the socket to before; None to let the kernel choose.
        timeout: Seconds for each address; None to leave it to the kernel.

    Raises:
        OSError: No address could be connected to: see `connection_error`.
        socket.gaierror: A name is unknown.
        ValueError: `timeout` is negative or not a number.
    """
    validated_delay(timeout)
    infos = interleave(resolve_blocking(host, port, socket.SOCK_STREAM))
    local = local_address and resolve_blocking(*local_address, socket.SOCK_STREAM)
    errors: list[OSError] = []
    for info in infos:
        try:
            sock = new_client_socket(info, local)
            _finish_connecting(sock, info[4], deadline_after(timeout))
            return sock
        except OSError as exc:
            errors.append(exc)
    raise connection_error(host, port, errors)


def _finish_connecting(sock: socket.socket, address: tuple[Any, ...], deadline: float) -> None:
    with close_on_error(sock):
        try:
            if not start_connecting(sock, address):
                wait_writable(sock, deadline, LONGEST_WAIT)
                check_connected(sock, address)
        except TimeoutError:
            raise connect_call_error(errno.ETIMEDOUT, sock.family, address) from None


def end_stream(
    sock: socket.socket, *, is_peer_sending: bool, is_reset: Callable[[], bool], timeout: float
) -> None:
    """Tell the peer that nothing follows, and see to it that everything before arrives.

    A socket that is closed answers data with a reset (RFC 9293, 3.6.1; RFC 2525, 2.17), and what is
    still on its way to the peer is lost. So if the peer may be sending, this first reads and
    discards until the peer's system has all bytes; then it ends the stream, and goes on reading
    until the peer ends its side or `LINGER_TIME` is over.

    Args:
        sock: A non-blocking socket. It is not closed.
        is_peer_sending: Whether there is something of the peer that was not asked for, or may be:
            on Linux, a socket whose receiving half was shut down still receives, but answers with a
            reset once its own stream has ended. If the socket knows of more, it need not be told.
        is_reset: Whether another thread wants the connection to be reset, now.
        timeout: Seconds that the peer's system has to take what was sent. After that, the
            connection is reset.
    """
    # Whatever is an OSError is the end of this: time over, connection broken.
    with suppress(OSError), new_selector(sock, selectors.EVENT_READ) as selector:
        size = _discard(sock)
        if not (size or is_peer_sending):
            return sock.shutdown(socket.SHUT_WR)
        ended = size == 0
        deadline = time.monotonic() + timeout
        while get_unacknowledged_size(sock):
            # Linux goes on counting when the peer has reset the connection; this raises then.
            sock.getpeername()
            if is_reset() or time.monotonic() >= deadline:
                return enable_socket_linger(sock, 0)
            if ended:  # the socket is readable for ever
                time.sleep(_ACKNOWLEDGEMENT_INTERVAL)
            else:
                selector.select(_ACKNOWLEDGEMENT_INTERVAL)
            ended = _discard(sock) == 0 or ended
        sock.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + LINGER_TIME
        while not ended and wait_ready(selector, deadline, LINGER_TIME):
            ended = _discard(sock) == 0


def _discard(sock: socket.socket) -> int | None:
    """Read what a socket has received, as far as one call does, and forget it.

    Returns:
        How many bytes it was: 0 at the end of the stream, None if there is nothing yet.

    Raises:
        OSError: The connection is broken.
    """
    try:
        return len(sock.recv(_DISCARD_SIZE, NO_WAIT))
    except BlockingIOError:
        return None
