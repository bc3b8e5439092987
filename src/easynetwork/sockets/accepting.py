"""Accepting connections, on any loop.

One task for each listening socket waits until it is readable and accepts what is there. An error of
one connection, or a full descriptor table, does not end it.
"""

from __future__ import annotations

__all__ = ["accept_forever", "close_listener"]

import errno
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

import anyio

from easynetwork._forks import (
    close_in_children,
    keep_in_children,
    own_descriptor,
    take_descriptor,
)
from easynetwork.addresses import enable_socket_linger

_OnConnection: TypeAlias = Callable[[socket.socket, Any], object]

_BATCH: Final = 100
"""Connections accepted before the event loop gets a turn; also, errors in a row before a pause."""

_PAUSE: Final = 0.1
"""Seconds without accepting while accept() fails."""

_EPISODE: Final = 10.0
"""Seconds without a failure after which the next one is logged again."""

_DESCRIPTOR_ERRNOS: Final = {errno.EMFILE, errno.ENFILE}
"""accept(2): the process, or the system, has no descriptor left."""

_CAPACITY_ERRNOS: Final = {*_DESCRIPTOR_ERRNOS, errno.ENOMEM, errno.ENOBUFS}
"""accept(2): the process, or the system, has run out of something."""

_CONNECTION_ERRNOS: Final = {
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
        *("ENONET", "ENOPROTOOPT", "ENOSR", "EOPNOTSUPP", "EPERM", "EPROTO", "EPROTONOSUPPORT"),
        *("ESOCKTNOSUPPORT", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
}
"""accept(2): errors of the one connection that would have been accepted, or of a firewall. The
latter, and a network that is down, may leave the connection in the queue: the listening socket
stays readable, and accept() fails for as long as that lasts."""


async def accept_forever(
    listener: socket.socket, on_connection: _OnConnection, logger: logging.Logger
) -> None:
    """Accept connections until the listener is closed by `close_listener()`.

    While accept() keeps failing, it is called ten times per second. If no descriptor is left, the
    connections that wait are then reset: a descriptor is kept in reserve to do that with.

    Args:
        listener: A non-blocking listening socket. Children of the process that fork from now on do
            not keep it.
        on_connection: Called with each connection, non-blocking, and its peer's address.
        logger: Gets one ERROR line when accept() fails, however long that lasts.

    Raises:
        OSError: The listening socket itself has failed.
    """
    acceptor = _Acceptor(listener, on_connection, logger)
    take_descriptor(listener)
    close_in_children(listener)
    try:
        while listener.fileno() >= 0:
            await anyio.wait_readable(listener)
            if not acceptor.accept_batch():
                await anyio.sleep(_PAUSE)
    except anyio.ClosedResourceError:
        pass
    finally:
        keep_in_children(listener)
        acceptor.close()


class _Acceptor:
    """Calls accept(), and keeps account of how often it fails."""

    __slots__ = (
        "_failed_at",
        "_failures",
        "_is_out_of_descriptors",
        "_listener",
        "_logger",
        "_on_connection",
        "_reserve",
    )

    def __init__(
        self, listener: socket.socket, on_connection: _OnConnection, logger: logging.Logger
    ) -> None:
        self._listener = listener
        self._on_connection = on_connection
        self._logger = logger
        self._reserve: int | None = None  # a descriptor
        self._failures = 0  # errors of connections since the last success
        self._failed_at = -_EPISODE
        self._is_out_of_descriptors = False  # at the last attempt
        self._refill_reserve()

    def close(self) -> None:
        """Close the descriptor that is kept in reserve."""
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def accept_batch(self) -> bool:
        """Accept what waits, up to a bound; return whether to go on without a pause.

        Raises:
            OSError: The listening socket has failed.
        """
        if self._reserve is None:
            self._refill_reserve()  # before a connection takes the descriptor that has become free
        for _ in range(_BATCH):
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if self._listener.fileno() < 0:  # closed by `on_connection`
                    break
                if exc.errno not in _CONNECTION_ERRNOS or self._failures == _BATCH - 1:
                    self._take_failure(exc)
                    return False
                self._failures += 1
            else:
                self._failures = 0
                self._is_out_of_descriptors = False
                connection.setblocking(False)
                own_descriptor(connection)
                self._on_connection(connection, address)
        return True

    def _take_failure(self, error: OSError) -> None:
        """Report an error that is likely to come again, and do what can be done meanwhile."""
        self._failures = 0
        if error.errno not in _CAPACITY_ERRNOS | _CONNECTION_ERRNOS:
            raise error
        self._report(error)
        if error.errno in _DESCRIPTOR_ERRNOS:
            # The first time, wait: a descriptor may become free before the pause is over.
            if self._is_out_of_descriptors:
                self._refuse_batch()
            self._is_out_of_descriptors = True

    def _report(self, error: OSError) -> None:
        now = anyio.current_time()
        if now - self._failed_at >= _EPISODE:
            message = "accept() failed: %s. New connections wait until that is over."
            if error.errno in _DESCRIPTOR_ERRNOS:
                message = "accept() failed: %s. New connections are reset until that is over."
            if error.errno in _CAPACITY_ERRNOS:
                message += " Close what is not needed, or raise the limit (`ulimit -n`)."
            self._logger.error(message, error)
        self._failed_at = now

    # -- when no descriptor is left

    def _refill_reserve(self) -> None:
        with suppress(OSError):  # there is none left: tried again before the next batch
            self._reserve = os.open(os.devnull, os.O_RDONLY)

    def _refuse_batch(self) -> None:
        """Reset the connections that wait: their peers would wait for an answer otherwise."""
        for _ in range(_BATCH):
            if self._reserve is None:
                return  # another thread, or with ENFILE another process, was faster
            self.close()
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            else:
                with connection:
                    enable_socket_linger(connection, 0)  # close() sends RST
            finally:
                self._refill_reserve()


def close_listener(listener: socket.socket) -> None:
    """Close a listening socket; `accept_forever()` returns."""
    anyio.notify_closing(listener)
    listener.close()
