"""Accepting connections, on any loop.

One task for each listening socket waits until it is readable and accepts what is there. Nothing
that a peer or a full descriptor table does to one connection ends it.
"""

from __future__ import annotations

__all__ = ["accept_forever", "close_listener"]

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

import anyio

_BATCH: Final = 100
"""Connections accepted before the event loop gets a turn: the default backlog."""

_CAPACITY_ERRNOS: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
"""accept(2): this process or the system has run out of something; it passes."""

_CAPACITY_PAUSE: Final = 0.1
"""Seconds without accepting when resources have run out. The connections wait in the backlog."""

_CAPACITY_EPISODE: Final = 10.0
"""Seconds without such an error after which the next one is news, and logged again."""

_TRANSIENT_ERRNOS: Final = {
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
        *("ENONET", "ENOPROTOOPT", "ENOSR", "EOPNOTSUPP", "EPERM", "EPROTO", "EPROTONOSUPPORT"),
        *("ESOCKTNOSUPPORT", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
}
"""accept(2): errors of the one connection that would have been accepted, or of a firewall."""


async def accept_forever(
    listener: socket.socket,
    on_connection: Callable[[socket.socket, Any], object],
    logger: logging.Logger,
) -> None:
    """Accept connections until the listener is closed by `close_listener()`.

    Args:
        listener: A non-blocking listening socket.
        on_connection: Called with each connection, non-blocking, and its peer's address.
        logger: Gets one ERROR line when resources run out, however long that lasts.

    Raises:
        OSError: The listening socket itself has failed.
    """
    capacity_error_time = -_CAPACITY_EPISODE
    while listener.fileno() >= 0:
        try:
            await anyio.wait_readable(listener)
            _accept_batch(listener, on_connection)
        except anyio.ClosedResourceError:
            return
        except OSError as exc:
            if listener.fileno() < 0:  # by `on_connection`
                return
            if exc.errno not in _CAPACITY_ERRNOS:
                raise
            now = anyio.current_time()
            if now - capacity_error_time >= _CAPACITY_EPISODE:
                logger.error(
                    "accept() failed: %s. New connections wait until that is over. "
                    "Close what is not needed, or raise the limit (`ulimit -n`).",
                    exc,
                )
            capacity_error_time = now
            await anyio.sleep(_CAPACITY_PAUSE)


def _accept_batch(
    listener: socket.socket, on_connection: Callable[[socket.socket, Any], object]
) -> None:
    for _ in range(_BATCH):
        try:
            connection, address = listener.accept()
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno in _TRANSIENT_ERRNOS:
                continue
            raise
        connection.setblocking(False)
        on_connection(connection, address)


def close_listener(listener: socket.socket) -> None:
    """Close a listening socket; `accept_forever()` returns."""
    anyio.notify_closing(listener)
    listener.close()
