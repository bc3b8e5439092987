"""How a thread waits: for a moment, a lock, a socket, a connection.

Sockets are non-blocking, so that a thread that writes and one that reads can have time-outs of
their own. A deadline is a point in time on the clock of `time.monotonic()`; infinity stands for
none. All waits of one operation share its deadline.
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

from easynetwork.backends._checks import check_delay
from easynetwork.backends._forks import call_after_fork
from easynetwork.backends.limits import LINGER_TIME
from easynetwork.backends.sockets import (
    check_connected,
    connect_call_error,
    connection_error,
    interleave,
    new_client_socket,
    resolve_blocking,
    start_connecting,
)

LONGEST_WAIT: Final = 3600.0
"""Seconds that one system call may wait: poll(2) counts milliseconds in an int, up to 25 days."""

_Selector: Final[Callable[[], selectors.BaseSelector]] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)
"""Waits for one socket without a descriptor of its own. select(2), which Windows has in place of
poll(2), does not take descriptors from 1024 on elsewhere."""

_DISCARD_SIZE: Final = 64 * 1024


# -- deadlines


def deadline_after(timeout: float | None) -> float:
    """Return the deadline of an operation that starts now.

    Raises:
        ValueError: `timeout` is negative or not a number.
    """
    return math.inf if timeout is None else time.monotonic() + check_delay(timeout)


def check_retry_interval(seconds: float) -> float:
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


class ClientLocks:
    """One lock for sending, closing and inspecting a client, and one for receiving.

    After a fork, the child gets new ones: the threads that may hold them are not there.
    """

    __slots__ = ("__weakref__", "receiving", "sending")

    def __init__(self) -> None:
        self.renew()
        call_after_fork(self, ClientLocks.renew)

    def renew(self) -> None:
        """Forget who holds them."""
        self.sending = threading.Lock()
        self.receiving = threading.Lock()


def wait_for_lock(lock: threading.Lock, deadline: float) -> None:
    """Acquire a lock.

    Raises:
        TimeoutError: The deadline has passed, and another thread has the lock.
    """
    left = max(deadline - time.monotonic(), 0)
    if not lock.acquire(timeout=min(left, threading.TIMEOUT_MAX)):
        raise timed_out()


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
    check_delay(timeout)
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
    try:
        if not start_connecting(sock, address):
            wait_writable(sock, deadline, LONGEST_WAIT)
            check_connected(sock, address)
    except TimeoutError:
        sock.close()
        raise connect_call_error(errno.ETIMEDOUT, address) from None
    except BaseException:
        sock.close()
        raise


def end_stream(sock: socket.socket, *, is_peer_sending: bool) -> None:
    """Tell the peer that nothing follows, and see to it that everything before arrives.

    To close a socket while its peer sends resets the connection (RFC 9293, 3.6.1; RFC 2525, 2.17),
    and what is still on its way there is lost. So if the peer may be in the middle of sending, this
    reads, and forgets what it reads, until the peer ends its side or `LINGER_TIME` is over.

    Args:
        sock: A non-blocking socket. It is not closed.
        is_peer_sending: Whether there is something of the peer that nobody asked for. If the socket
            knows of more, it need not be told.
    """
    # Whatever is an OSError is the end of this: nothing to read, time over, connection broken.
    with suppress(OSError), new_selector(sock, selectors.EVENT_READ) as selector:
        sock.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + LINGER_TIME
        if is_peer_sending or sock.recv(_DISCARD_SIZE):
            while wait_ready(selector, deadline, LINGER_TIME) and sock.recv(_DISCARD_SIZE):
                pass
