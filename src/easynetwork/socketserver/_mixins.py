"""A thread or a process for each request, within limits of number and time."""

from __future__ import annotations

import functools
import os
import signal
import socket
import socketserver
import threading
import time
from contextlib import suppress
from typing import Any, Final

from easynetwork._arguments import strictly_positive, validated_delay
from easynetwork._episode import Episode
from easynetwork.socketserver._handlers import POLL_INTERVAL, logger
from easynetwork.socketserver._servers import TCPServer, UDPServer

_PLACE_INTERVAL: Final = 0.5
"""Seconds that `serve_forever()` waits for a free thread or process before it looks for
`shutdown()` again: the default `poll_interval` of `socketserver.BaseServer.serve_forever`."""

_GRACE: Final = 1.0
"""Seconds to end for what has been aborted."""


class _BoundedMixIn:
    """A server that handles a limited number of requests at the same time."""

    timeout: float | None
    close_timeout: float | None = None

    def __init__(self, *args: Any, close_timeout: float | None = None, **options: Any) -> None:
        if close_timeout is not None:
            self.close_timeout = close_timeout
        validated_delay(self.close_timeout)
        super().__init__(*args, **options)

    def _wait_for_place(self, timeout: float) -> bool:
        """Wait until one more request may be handled; return whether that is so."""
        raise NotImplementedError

    def handle_request(self) -> None:
        """Handle one request, as `socketserver.BaseServer.handle_request` does.

        If no more may be handled now, it first waits until one has ended, for at most `timeout`
        seconds, or half a second if that is None. If none has, it calls `handle_timeout()`.
        """
        if self._wait_for_place(_PLACE_INTERVAL if self.timeout is None else self.timeout):
            super().handle_request()  # type: ignore[misc]
        else:
            self.handle_timeout()  # type: ignore[attr-defined]

    def _handle_request_noblock(self) -> None:
        # Not in get_request(), which programs override. Without a place, it is for serve_forever()
        # to look for shutdown().
        if self._wait_for_place(_PLACE_INTERVAL):
            super()._handle_request_noblock()  # type: ignore[misc]


class ThreadingMixIn(_BoundedMixIn, socketserver.ThreadingMixIn):
    """`socketserver.ThreadingMixIn` with a limit: a thread for each request, but not too many.

    While all threads are busy, the server does not accept connections: new clients wait in the
    backlog, and datagrams in the socket's buffer. `shutdown()` works all the same.

    `SystemExit` and `KeyboardInterrupt` in a handler's thread end this request only, like other
    exceptions: `handle_error()` gets them.

    Attributes:
        max_threads: The default of the argument.
        close_timeout: The default of the argument.
    """

    max_threads: int = 1000

    # Not in the constructor: programs may call the one of the server class by its name.
    _handlers = functools.cached_property[list["_RequestThread"]](lambda _: [])
    _places = functools.cached_property(lambda self: threading.Semaphore(self.max_threads))
    _busy = functools.cached_property(lambda _: Episode())

    def __init__(self, *args: Any, max_threads: int | None = None, **options: Any) -> None:
        """Create the server.

        Args:
            *args: Those of the server class.
            max_threads: How many requests may be handled at the same time. 1,000 by default.
            **options: Those of the server class, and `close_timeout`: seconds that `server_close()`
                waits for the threads. Then it resets the connections that are still open, and waits
                for one more second. By default, it waits without a limit, as in `socketserver`. It
                never waits for daemon threads, nor if `block_on_close` is false.

        Raises:
            ValueError: `max_threads` is not a strictly positive integer, or `close_timeout` is
                negative.
        """
        if max_threads is not None:
            self.max_threads = max_threads
        strictly_positive(self.max_threads, "max_threads")
        super().__init__(*args, **options)

    def _wait_for_place(self, timeout: float) -> bool:
        if not self._places.acquire(blocking=False):
            if self._busy.begins():
                logger.warning("All %d threads are busy: clients wait", self.max_threads)
            if not self._places.acquire(timeout=timeout):
                return False
        self._places.release()
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread that calls `process_request_thread()`."""
        self._places.acquire()
        thread = _RequestThread(
            target=self.process_request_thread,
            args=(request, client_address),
            daemon=self.daemon_threads,
        )
        thread.server, thread.request, thread.client_address = self, request, client_address
        try:
            thread.start()
        except BaseException:
            if thread.ident is None:  # it has not started
                self._places.release()
            raise
        self._handlers[:] = (other for other in self._handlers if other.is_alive())
        self._handlers.append(thread)

    def server_close(self) -> None:
        """Close the listening socket, and wait for the threads: see `close_timeout`."""
        super().server_close()
        if not self.block_on_close or self._join(self.close_timeout):
            return
        getattr(self, "_reset_connections", lambda: None)()
        for thread in self._handlers:
            with suppress(AttributeError, OSError):  # a datagram; closed meanwhile
                thread.request.shutdown(socket.SHUT_RDWR)
        if not self._join(_GRACE):
            logger.error("Requests are still being handled after server_close()")

    def _join(self, timeout: float | None) -> bool:
        """Wait for the threads of requests; return whether all have ended."""
        deadline = time.monotonic() + min(validated_delay(timeout), threading.TIMEOUT_MAX)
        current = threading.current_thread()
        others = [t for t in self._handlers if not t.daemon and t is not current]
        for thread in others:
            thread.join(max(deadline - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in others)


class _RequestThread(threading.Thread):
    """A thread that handles one request."""

    server: Any
    request: Any
    client_address: Any

    def run(self) -> None:
        try:
            super().run()
        except Exception:
            raise  # of handle_error() itself, for example
        except BaseException:  # which process_request_thread() does not catch
            self.server.handle_error(self.request, self.client_address)
        finally:
            self.server._places.release()


class ThreadingTCPServer(ThreadingMixIn, TCPServer):
    """A `TCPServer` with a thread for each connection."""


class ThreadingUDPServer(ThreadingMixIn, UDPServer):
    """A `UDPServer` with a thread for each datagram."""


if hasattr(socketserver, "ForkingMixIn"):

    class ForkingMixIn(_BoundedMixIn, socketserver.ForkingMixIn):
        """`socketserver.ForkingMixIn` with a deadline: a process for each request.

        There are at most `max_children` processes at the same time, 40 by default. While there are
        so many, the server does not accept connections; `shutdown()` works all the same. Each
        process limits its own log only.

        When it is closed, it waits `close_timeout` seconds for the processes. Then it sends them
        SIGTERM, and SIGKILL one second later. A process has the signal handlers of the server's. By
        default, it waits without a limit, as in `socketserver`. It does not wait if
        `block_on_close` is false.

        Attributes:
            close_timeout: The default of the constructor's argument of this name.
        """

        def _wait_for_place(self, timeout: float) -> bool:
            return self._wait_for_fewer(self.max_children, timeout)

        def _wait_for_fewer(self, limit: int, timeout: float | None) -> bool:
            deadline = time.monotonic() + validated_delay(timeout)
            while True:
                self.collect_children()
                if len(self.active_children or ()) < limit:
                    return True
                if time.monotonic() >= deadline:
                    return False
                time.sleep(POLL_INTERVAL)

        def collect_children(self, *, blocking: bool = False) -> None:
            """Forget the processes that have ended.

            Args:
                blocking: Whether to wait for all of them, and to end them after `close_timeout`.
            """
            children = set() if self.active_children is None else self.active_children
            flags = 0 if blocking and self.close_timeout is None else os.WNOHANG
            for child in list(children):
                try:
                    ended, _ = os.waitpid(child, flags)
                except ChildProcessError:  # other code has waited for it
                    ended = child
                if ended:
                    children.discard(child)
            if blocking and children:
                self._end_children(children)

        def _end_children(self, children: set[int]) -> None:
            timeout = self.close_timeout
            for number in signal.SIGTERM, signal.SIGKILL:
                if self._wait_for_fewer(1, timeout):
                    return
                for child in children:
                    os.kill(child, number)  # it exists, at least as a zombie
                timeout = _GRACE
            if not self._wait_for_fewer(1, _GRACE):
                logger.error("Requests are still being handled after server_close()")

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
