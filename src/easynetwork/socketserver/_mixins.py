"""A thread or a process for each request, bounded, and with a deadline at the end."""

from __future__ import annotations

import functools
import math
import os
import signal
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from easynetwork._arguments import validated_delay
from easynetwork._episode import Episode
from easynetwork.socketserver._handlers import logger
from easynetwork.socketserver._servers import TCPServer, UDPServer

_PLACE_INTERVAL: Final = 0.5
"""Seconds that an accept loop without a free thread waits until it looks for `shutdown()`: the
default `poll_interval` of `socketserver.BaseServer.serve_forever`."""

_BUSY_QUIET_TIME: Final = 10.0
"""Seconds with a free thread after which a server says again that it has none."""

_GRACE: Final = 1.0
"""Seconds that what has been aborted has to end."""


class ThreadingMixIn(socketserver.ThreadingMixIn):
    """`socketserver.ThreadingMixIn` with a bound: a thread for each request, but not any number.

    While all threads are busy, the server does not accept: new clients wait in the backlog, and
    datagrams in the socket's buffer. `shutdown()` is noticed all the same.
    """

    # A constructor that calls the one of the server class by its name leaves out the one here.
    _max_threads = 1000
    _close_timeout = math.inf
    _places = functools.cached_property(lambda self: threading.Semaphore(self._max_threads))
    _busy = functools.cached_property(lambda self: Episode(_BUSY_QUIET_TIME))

    def __init__(
        self,
        *args: Any,
        max_threads: int = 1000,
        close_timeout: float | None = None,
        **options: Any,
    ) -> None:
        """Make the server.

        Args:
            *args: Those of the server class.
            max_threads: How many requests may be handled at the same time.
            close_timeout: Seconds that `server_close()` waits for them. Then it resets the
                connections that are left, and waits one second for their threads. None to wait for
                ever, as `socketserver` does. Without effect if `block_on_close` is false, or
                `daemon_threads` is true: there is nothing to wait for.
            **options: Those of the server class.

        Raises:
            TypeError: `max_threads` is not an integer.
            ValueError: It is not strictly positive, or `close_timeout` is negative.
        """
        if type(max_threads) is not int:
            raise TypeError(f"Expected an integer as max_threads, got {max_threads!r}")
        if max_threads <= 0:
            raise ValueError("max_threads must be a strictly positive int")
        self._max_threads = max_threads
        self._close_timeout = validated_delay(close_timeout)
        super().__init__(*args, **options)

    def _handle_request_noblock(self) -> None:
        """Accept, as soon as a thread is free: not in `get_request()`, which programs override."""
        if not self._places.acquire(blocking=False):
            if self._busy.begins():
                logger.warning("All %d threads are busy: clients wait", self._max_threads)
            if not self._places.acquire(timeout=_PLACE_INTERVAL):
                return  # the server looks around
        self._places.release()
        super()._handle_request_noblock()  # type: ignore[misc]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a request."""
        self._places.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle a request, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def server_close(self) -> None:
        """Close the listening socket, and wait for the threads, up to `close_timeout`."""
        abort = getattr(self, "_abort_requests", lambda: None)
        waits = self.block_on_close and not self.daemon_threads
        _close_in_time(super().server_close, self._close_timeout if waits else math.inf, abort)


class ThreadingTCPServer(ThreadingMixIn, TCPServer):
    """A `TCPServer` with a thread for each connection."""


class ThreadingUDPServer(ThreadingMixIn, UDPServer):
    """A `UDPServer` with a thread for each datagram."""


if hasattr(socketserver, "ForkingMixIn"):

    class ForkingMixIn(socketserver.ForkingMixIn):
        """`socketserver.ForkingMixIn` with a deadline: a process for each request.

        At most `max_children` at a time, 40 by default: then the server waits for one to end. Each
        process limits its own log only.
        """

        _close_timeout = math.inf

        def __init__(self, *args: Any, close_timeout: float | None = None, **options: Any) -> None:
            """Make the server.

            Args:
                *args: Those of the server class.
                close_timeout: Seconds that `server_close()` waits for the processes. Then it sends
                    them SIGTERM, and SIGKILL one second later. None to wait for ever, as
                    `socketserver` does. Without effect if `block_on_close` is false.
                **options: Those of the server class.

            Raises:
                ValueError: `close_timeout` is negative.
            """
            self._close_timeout = validated_delay(close_timeout)
            super().__init__(*args, **options)

        def server_close(self) -> None:
            """Close the listening socket, and wait for the processes, up to `close_timeout`."""
            terminate = functools.partial(self._send_signal, signal.SIGTERM)
            kill = functools.partial(self._send_signal, signal.SIGKILL)
            timeout = self._close_timeout if self.block_on_close else math.inf
            _close_in_time(super().server_close, timeout, terminate, kill)

        def _send_signal(self, number: int) -> None:
            for child in list(self.active_children or ()):
                with suppress(ProcessLookupError):
                    os.kill(child, number)

    class ForkingTCPServer(ForkingMixIn, TCPServer):
        """A `TCPServer` with a process for each connection."""

    class ForkingUDPServer(ForkingMixIn, UDPServer):
        """A `UDPServer` with a process for each datagram."""


if hasattr(socketserver, "UnixStreamServer"):
    from easynetwork.socketserver._servers import UnixDatagramServer, UnixStreamServer

    class ThreadingUnixStreamServer(ThreadingMixIn, UnixStreamServer):
        """A `UnixStreamServer` with a thread for each connection."""

    class ThreadingUnixDatagramServer(ThreadingMixIn, UnixDatagramServer):
        """A `UnixDatagramServer` with a thread for each datagram."""

    class ForkingUnixStreamServer(ForkingMixIn, UnixStreamServer):
        """A `UnixStreamServer` with a process for each connection."""

    class ForkingUnixDatagramServer(ForkingMixIn, UnixDatagramServer):
        """A `UnixDatagramServer` with a process for each datagram."""


def _close_in_time(
    close: Callable[[], None], timeout: float, *measures: Callable[[], object]
) -> None:
    """Call what may wait for ever, and take measures, one after the other, if it does not return.

    Args:
        close: The function.
        timeout: Seconds until the first measure; infinity for no limit.
        *measures: What should have it return, within a second each.
    """
    if timeout == math.inf:
        return close()
    closer = threading.Thread(target=close, daemon=True)
    closer.start()
    for measure in measures:
        closer.join(timeout)
        if not closer.is_alive():
            return
        measure()
        timeout = _GRACE
    closer.join(timeout)
    if closer.is_alive():
        logger.error("Requests are still being handled after server_close()")
