"""Interrupts at random moments, and the other end of clients that are interrupted."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# Seconds until an interrupt comes: the time of a few packets.
_AT_MOST = 60e-6


class Interruption(BaseException):
    """What a signal's handler raises in the main thread, as `KeyboardInterrupt`."""


class Alarm(TimeoutError):  # noqa: N818
    """What others raise: an ordinary exception, and an `OSError` even."""


class Storm:
    """Interrupts the main thread while it is `armed`, and counts how often.

    CPython runs the handler between two calls, wherever that is. So nothing may be called between
    the operation under test and ``storm.armed = False``.
    """

    def __init__(self, error: type[BaseException] = Interruption) -> None:
        self._error = error
        self._random = random.Random(1)
        self.armed = False
        self.count = 0

    def __enter__(self) -> Storm:
        self._switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)  # the peer's thread does not make the main thread wait
        self._previous = signal.signal(signal.SIGALRM, self._strike)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._previous)
        sys.setswitchinterval(self._switch_interval)

    def arm(self, at_most: float = _AT_MOST) -> None:
        """Interrupt soon. Call this where an interrupt is expected already."""
        signal.setitimer(signal.ITIMER_REAL, self._random.uniform(1e-6, at_most))
        self.armed = True

    def _strike(self, signum: int, frame: FrameType | None) -> None:
        if self.armed:
            self.armed = False
            self.count += 1
            raise self._error


@contextlib.contextmanager
def serving(
    serve: Callable[[socket.socket], object], context: ssl.SSLContext | None = None
) -> Iterator[tuple[str, int]]:
    """Serve one connection after the other in a thread, until each of them fails or ends."""

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # for the main thread alone
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                sock, _ = listener.accept()
                sock.settimeout(1)  # a client that does not read any more is not waited for
                with contextlib.suppress(OSError), sock:
                    if context is None:
                        serve(sock)
                    else:
                        with context.wrap_socket(sock, server_side=True) as tls_sock:
                            serve(tls_sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run, name="peer")
        thread.start()
        try:
            yield "localhost", listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
