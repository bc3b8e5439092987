"""One `serve_forever()` of a standalone server, as other threads see it.

    serve_forever()   makes a server and runs a loop:  reachable -> started -> finished
    other threads     wait for one of these events, then call into the loop through the portal

`StandaloneRun` lives as long as one `serve_forever()`. It holds these events and the portal. So
only the loop's thread touches the asynchronous server, until the loop has ended and the server is
closed.

The portal exists from the moment the server listens until it is closed. A call that is on its way
to the loop when the loop ends would never be answered, so such calls are counted, and the loop
waits for them before it ends. No lock is held while a thread waits for the loop, because the loop's
thread takes the same locks.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import anyio.lowlevel
from anyio.from_thread import BlockingPortal

from easynetwork._typevars import _T
from easynetwork.servers._core.life_cycle import BaseAsyncNetworkServer
from easynetwork.servers.abc import SupportsEventSet


class StandaloneRun:
    """One `serve_forever()`.

    Attributes:
        server: What is served.
        finished: Set when it is over.
        stopped: Set when it is over, or only handlers that ignore their cancellation still run. The
            event loop waits for those when it ends.
    """

    def __init__(
        self,
        server: BaseAsyncNetworkServer[Any, Any, Any, Any],
        is_up_event: SupportsEventSet | None,
    ) -> None:
        self.server = server
        self.finished = threading.Event()
        self.stopped = threading.Event()
        self._is_up_event = is_up_event
        self._thread = threading.get_ident()
        self._lock = threading.RLock()  # not a mere lock: a signal's handler may come here, too
        self._reachable = threading.Event()  # the server listens, or it never will
        self._started = threading.Event()  # the server is up, or it never will be
        self._is_to_stop = False
        self._portal: BlockingPortal | None = None
        self._calls = 0  # on their way through the portal

    # -- in the event loop

    async def main(self) -> None:
        """Serve until the server is told to stop."""
        async with self.server, contextlib.AsyncExitStack() as stack:
            portal = await BlockingPortal().__aenter__()
            # No exception may leave through the portal: its task group would wrap it.
            stack.push_async_callback(portal.__aexit__, None, None, None)
            stack.push_async_callback(self._close_portal)
            stack.push_async_callback(self.server.server_close)
            with self._lock:
                self._portal = portal
            self._reachable.set()
            if not self._is_to_stop:  # no await before the next line, so no stop() is missed
                await self.server.serve_forever(is_up_event=self)

    async def _close_portal(self) -> None:
        with self._lock:
            self._portal = None
        while self._calls:
            await anyio.lowlevel.cancel_shielded_checkpoint()

    def set(self) -> None:
        """Called by the asynchronous server when it is up."""
        self._started.set()
        if self._is_up_event is not None:
            self._is_up_event.set()

    # -- in the thread of the event loop

    def finish(self) -> None:
        """Wake up all threads that wait for an event of this run."""
        for event in self._reachable, self._started, self.finished, self.stopped:
            event.set()

    # -- in any thread

    def check_thread(self, method: str) -> None:
        """Raise RuntimeError in the thread of the event loop, which must not wait for itself."""
        if threading.get_ident() == self._thread:
            raise RuntimeError(
                f"{method}() would wait for the thread in which it was called: the one that runs "
                "serve_forever(). Call it in another thread"
            )

    def call(self, func: Callable[[], _T]) -> _T:
        """Call a function in the thread of the event loop, or here if that does not run any more.

        Waits until the server listens.
        """
        if threading.get_ident() == self._thread:
            return func()
        self._reachable.wait()
        future = self._start(func)
        result: _T = func() if future is None else future.result()
        return result

    def stop(self, grace: float) -> None:
        """Have the server shut down, if it is not over; do not wait for anything."""
        with self._lock:
            self._is_to_stop = True
        # The portal waits until the event loop has taken the call: it may be busy.
        threading.Thread(target=self._shut_down, args=[grace], daemon=True).start()

    def _shut_down(self, grace: float) -> None:
        future = self._start(lambda: self.server._shut_down(grace))
        if future is not None:
            with contextlib.suppress(Exception, CancelledError):  # the event loop has ended
                if not future.result():
                    self.stopped.set()

    def close(self) -> None:
        """Wait until the server is up, then close it."""
        self._started.wait()
        future = self._start(self.server.server_close)
        if future is not None:
            future.result()

    def abandon(self) -> None:
        """Called in the child of a fork, where the event loop does not run.

        The locks, those inside the events included, are new: a thread that held one of the old ones
        while the process forked does not exist here, and never releases it.
        """
        self._lock = threading.RLock()
        self._portal = None
        self._reachable, self._started = threading.Event(), threading.Event()
        self.finished, self.stopped = threading.Event(), threading.Event()
        self.finish()

    def _start(self, func: Callable[[], Any]) -> Future[Any] | None:
        """Have a function called in the event loop; None if that cannot be reached."""
        with self._lock:
            portal = self._portal
            if portal is None:
                return None
            self._calls += 1
        try:
            return portal.start_task_soon(func)
        finally:
            with self._lock:
                self._calls -= 1
