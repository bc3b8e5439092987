"""Run a standalone server in a background thread."""

from __future__ import annotations

__all__ = ["NetworkServerThread"]

import threading
import time

from easynetwork.servers.abc import AbstractNetworkServer


class NetworkServerThread(threading.Thread):
    """Runs a server in the background: `start()` starts the server, `join()` stops it.

    A program cannot end before this thread does. So call `join()` in any case (`finally`), or make
    it a daemon thread, which is killed with the program, in the middle of whatever it does.
    """

    def __init__(
        self,
        server: AbstractNetworkServer,
        group: None = None,
        name: str | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        """Prepare a thread; nothing is started yet.

        Args:
            server: The server. It is not closed by the thread.
            group: Always None; `threading.Thread` has it.
            name: The thread's name; `Thread-1` or the like by default.
            daemon: Whether the program may end before the thread; by default, whether the current
                thread is such a thread.

        Raises:
            TypeError: `server` is not a server that runs in a thread.
        """
        if not isinstance(server, AbstractNetworkServer):
            raise TypeError(f"Expected an AbstractNetworkServer object, got {server!r}")
        super().__init__(group=group, name=name, daemon=daemon)
        self._server = server
        self._is_up = threading.Event()
        self._error: BaseException | None = None

    def start(self) -> None:
        """Start the thread and wait until the server is up.

        If another thread shuts the server down before that, this returns as well.

        Raises:
            RuntimeError: The thread was started before.
            OSError: An address cannot be bound, or a name cannot be resolved.
            ExceptionGroup: Several of them: an `OSError` for each.
            BaseException: Whatever else `serve_forever()` raises before the server is up, such as
                `ServerClosedError`. The thread is over then. What it raises later goes to
                `threading.excepthook`, as for any thread.
        """
        super().start()
        self._is_up.wait()
        error, self._error = self._error, None
        if error is not None:
            super().join()
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame

    def run(self) -> None:
        """Run `serve_forever()`."""
        try:
            self._server.serve_forever(is_up_event=self._is_up)
        except BaseException as exc:
            if self._is_up.is_set():
                raise
            self._error = exc
        finally:
            self._is_up.set()

    def join(self, timeout: float | None = None, *, grace: float = 0.0) -> None:
        """Shut the server down and wait for the thread to end. May be called several times.

        Args:
            timeout: The most seconds to wait; None for no limit. See `is_alive()` then.
            grace: Seconds that clients have to come to an end: see
                `AbstractNetworkServer.shutdown()`.

        Raises:
            ValueError: `grace` is negative or not a number.
            RuntimeError: The thread was not started, or is the current one.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.is_alive():
            self._server.shutdown(timeout, grace=grace)
        super().join(None if deadline is None else max(deadline - time.monotonic(), 0))
