"""The course of a drain, whatever is served: what the log says, and when it is over.

It runs in a task among those of the clients, so it goes on if the task that has called `shutdown()`
is cancelled, and ends at the latest when all clients are cancelled.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import anyio

from easynetwork.backends.abc import SessionTasks
from easynetwork.servers._core.fault_log import ServerLog

_REPORT_INTERVAL: Final = 5.0
"""Seconds between two lines in the log."""


class Drainable(Protocol):
    """A server, as far as a drain needs it."""

    def _stop_taking(self, tasks: SessionTasks) -> Awaitable[None]:
        """Take what has arrived, and nothing that arrives after that."""

    def _count_clients(self) -> int:
        """Return how many clients are being served."""

    def _end_silent(self) -> float:
        """End clients that have nothing to say; return when to call this again."""


class Drain:
    """One drain of a server.

    Args:
        server: The server.
        log: Its log.
        grace: Seconds that clients have.
        stop: Called at the end: stops the server.
    """

    def __init__(
        self, server: Drainable, log: ServerLog, grace: float, stop: Callable[[], None]
    ) -> None:
        self._server = server
        self._log = log
        self._stop = stop
        self._deadline = anyio.current_time() + grace
        self._callers = 0  # clients whose handlers wait for the end
        self._changed = anyio.Event()

    def changed(self) -> None:
        """Take note that a client has left."""
        self._changed.set()

    def shorten(self, grace: float) -> None:
        """Let the drain end in that many seconds, if it would take longer."""
        self._deadline = min(self._deadline, anyio.current_time() + grace)
        self._changed.set()

    @contextmanager
    def calling(self, *, is_client: bool) -> Iterator[None]:
        """Do not wait, while the block runs, for a client whose handler waits there for the end.

        Args:
            is_client: Whether the calling task is a client's.
        """
        self._callers += is_client
        try:
            yield
        finally:
            self._callers -= is_client

    def _count_clients(self) -> int:
        return self._server._count_clients() - self._callers

    async def run(self, tasks: SessionTasks) -> None:
        """Drain the server, and stop it."""
        left, grace = self._count_clients(), self._deadline - anyio.current_time()
        self._log.log(
            logging.INFO, "Draining for at most %.3g seconds, clients left: %d", grace, left
        )
        try:
            with tasks.scope():
                await self._server._stop_taking(tasks)
                await self._wait_for_clients()
        except Exception as exc:
            self._log.error("Draining ends early", exc=exc)
        finally:
            left = self._count_clients()
            message = "Not drained, clients left: %d" if left else "Drained, clients left: %d"
            self._log.log(logging.INFO, message, left)
            self._stop()  # also after an error: `shutdown()` returns in any case

    async def _wait_for_clients(self) -> None:
        next_report = anyio.current_time() + _REPORT_INTERVAL
        while True:
            self._changed = anyio.Event()
            now = anyio.current_time()
            next_look = self._server._end_silent()
            if not (left := self._count_clients()) or now >= self._deadline:
                break
            if now >= next_report:
                next_report = now + _REPORT_INTERVAL
                self._log.log(logging.INFO, "Still draining, clients left: %d", left)
            with anyio.CancelScope(deadline=min(next_look, next_report, self._deadline)):
                await self._changed.wait()
