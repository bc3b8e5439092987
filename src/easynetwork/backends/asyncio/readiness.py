"""Callbacks when a socket is ready, on every event loop.

Most loops have `add_reader` and its three siblings. The one that is the default on Windows
(`asyncio.ProactorEventLoop`) has not; there a task for each callback waits, by means of anyio,
which lets a thread with a selector do it.

On Windows that is select(2), for at most 512 descriptors: beyond them, the thread would end, and
with it all that waits. So sockets beyond a limit are refused.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import selectors
import socket
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

import anyio
from anyio.lowlevel import RunVar


class Selector(Protocol):
    """What transports use of an event loop; see `asyncio.loop.add_reader` and its siblings."""

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> object: ...

    def remove_reader(self, fd: int, /) -> object: ...

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> object: ...

    def remove_writer(self, fd: int, /) -> object: ...


_has_only_select: Final[bool] = issubclass(selectors.DefaultSelector, selectors.SelectSelector)

_MAX_SOCKETS: Final = 240 if _has_only_select else math.inf
"""How many sockets a thread may watch: each may take two descriptors, to read and to write. A few
are left for listening sockets and for connections that are being made."""

_selector: Final = RunVar["_TaskSelector"]("_selector")

_watched: Final[weakref.WeakSet[socket.socket]] = weakref.WeakSet()
"""The sockets of this process that are watched by a thread. anyio has one for all loops."""

_logger: Final = logging.getLogger(__name__)


def selector_of(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> Selector:
    """Return what watches a socket: the running event loop, or what stands in for it.

    Raises:
        OSError: `EMFILE`: so many sockets cannot be watched on this event loop.
    """
    if _watches(loop):
        return loop
    selector = _selector.get(None)
    if selector is None:
        selector = _TaskSelector()
        _selector.set(selector)
    selector.admit(sock)
    return selector


def _watches(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether an event loop can watch sockets itself."""
    return type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


def stops_watching_on_error(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a socket that has reported an error has to be watched anew.

    libuv, and so uvloop, does not watch it any longer (uv__poll_io, as of 1.52). What had arrived
    before the error, and the end after it, would never be read.
    """
    return _watches(loop) and not isinstance(loop, asyncio.SelectorEventLoop)


class _TaskSelector:
    """A task for each callback."""

    __slots__ = ("_is_full", "_readers", "_writers")

    def __init__(self) -> None:
        self._is_full = False  # and has said so
        self._readers: dict[int, asyncio.Task[None]] = {}
        self._writers: dict[int, asyncio.Task[None]] = {}

    def admit(self, sock: socket.socket) -> None:
        """Count a socket until it is closed.

        Raises:
            OSError: `EMFILE`: there are too many.
        """
        if len(_watched) >= _MAX_SOCKETS:
            for closed in [other for other in _watched if other.fileno() < 0]:
                _watched.discard(closed)
        if len(_watched) < _MAX_SOCKETS:
            _watched.add(sock)
            return
        if not self._is_full:
            self._is_full = True
            message = (
                "%s can watch at most %d sockets. It closes new connections until others end. "
                "Run the program on trio to serve more."
            )
            _logger.error(message, type(asyncio.get_running_loop()).__name__, _MAX_SOCKETS)
        raise OSError(errno.EMFILE, "too many sockets for this event loop")

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> None:
        self._readers[fd] = _watch(anyio.wait_readable, fd, callback)

    def remove_reader(self, fd: int, /) -> None:
        if task := self._readers.pop(fd, None):
            task.cancel()

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> None:
        self._writers[fd] = _watch(anyio.wait_writable, fd, callback)

    def remove_writer(self, fd: int, /) -> None:
        if task := self._writers.pop(fd, None):
            task.cancel()


def _watch(
    wait: Callable[[socket.socket], Awaitable[None]], fd: int, callback: Callable[[], object]
) -> asyncio.Task[None]:
    """Return a task that calls a function whenever a descriptor is ready."""
    # A duplicate: anyio's thread (as of 4.16) loses its way when one descriptor is waited for in
    # both directions, and the original may be closed while this waits.
    sock = socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)

    async def repeat() -> None:
        with suppress(anyio.ClosedResourceError):
            while True:
                await wait(sock)
                callback()

    task = asyncio.create_task(repeat())
    # Not in the task, which may be cancelled before it has begun.
    task.add_done_callback(lambda _: sock.close())
    return task


async def wait_until(
    loop: asyncio.AbstractEventLoop, deadline: float, waiter: asyncio.Future[None]
) -> None:
    """Wait for a future.

    Raises:
        TimeoutError: The deadline has passed.
    """
    timer = loop.call_at(deadline, _expire, waiter)
    try:
        await waiter
    finally:
        timer.cancel()


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError("timed out"))
