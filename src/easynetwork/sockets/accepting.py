"""Accept connections, whatever goes wrong with some of them.

An error of one connection, or a full descriptor table, does not end a server. While accept() keeps
failing, it should be called ten times per second (`PAUSE`). If no descriptor is left (EMFILE), the
first failure only waits for one pause; after the next, the connections that wait are reset, with a
descriptor that is kept in reserve for that.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, Protocol

from easynetwork._episode import Episode
from easynetwork._forks import own_descriptor
from easynetwork.addresses import enable_socket_linger

_BATCH: Final = 100
"""Connections accepted before the event loop gets a turn; also, errors in a row before a pause."""

PAUSE: Final = 0.1
"""Seconds without accepting while accept() fails."""

_DESCRIPTOR_ERRNOS: Final = {errno.EMFILE, errno.ENFILE}
"""accept(2): the process, or the system, has no descriptor left."""

CAPACITY_ERRNOS: Final = {*_DESCRIPTOR_ERRNOS, errno.ENOMEM, errno.ENOBUFS}
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


class Log(Protocol):
    """A function that writes to a log, like `logging.Logger.log`, and raises nothing."""

    def __call__(self, level: int, message: str, *args: object) -> object: ...


class Acceptor:
    """Calls accept(), and keeps account of how often it fails.

    Args:
        listener: A non-blocking listening socket.
        log: Gets one ERROR line when accept() fails, however long that lasts.

    Attributes:
        has_failed: Whether the last batch ended with an error that is likely to come again.
        refused: How many connections were reset because no descriptor was left.
    """

    def __init__(self, listener: socket.socket, log: Log) -> None:
        self.has_failed: bool = False
        self.refused: int = 0
        self._listener = listener
        self._log = log
        self._reserve: int | None = None  # a descriptor
        self._failures = 0  # errors of connections since the last success
        self._episode = Episode()
        self._is_out_of_descriptors = False  # at the last attempt
        self._refill_reserve()

    def close(self) -> None:
        """Close the descriptor that is kept in reserve."""
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def accept_batch(self) -> Iterator[tuple[socket.socket, Any]]:
        """Accept the connections that wait, up to a bound; yield each with its peer's address.

        Raises:
            OSError: The listening socket has failed.
        """
        self.has_failed = False
        if self._reserve is None:
            self._refill_reserve()  # before a connection takes the descriptor that has become free
        for _ in range(_BATCH):
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if self._listener.fileno() < 0:  # closed since the last connection was yielded
                    break
                if exc.errno not in _CONNECTION_ERRNOS or self._failures == _BATCH - 1:
                    self.has_failed = True
                    self._take_failure(exc)
                    break
                self._failures += 1
            else:
                self._failures = 0
                self._is_out_of_descriptors = False
                connection.setblocking(False)
                own_descriptor(connection)
                yield connection, address

    def _take_failure(self, error: OSError) -> None:
        """Report an error that is likely to come again, and do what can be done meanwhile."""
        self._failures = 0
        if error.errno not in CAPACITY_ERRNOS | _CONNECTION_ERRNOS:
            raise error
        self._report(error)
        if error.errno in _DESCRIPTOR_ERRNOS:
            # The first time, wait: a descriptor may become free before the pause is over.
            if self._is_out_of_descriptors:
                self._refuse_batch()
            self._is_out_of_descriptors = True

    def _report(self, error: OSError) -> None:
        if self._episode.begins():
            message = "accept() failed: %s. New connections wait until that is over."
            if error.errno in _DESCRIPTOR_ERRNOS:
                message = "accept() failed: %s. New connections are reset until that is over."
            if error.errno in CAPACITY_ERRNOS:
                message += " Close what is not needed, or raise the limit (`ulimit -n`)."
            self._log(logging.ERROR, message, error)

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
                self.refused += 1
                with connection:
                    enable_socket_linger(connection, 0)  # close() sends RST
            finally:
                self._refill_reserve()
