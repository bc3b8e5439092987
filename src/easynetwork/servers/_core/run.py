"""One `serve_forever()` of a server.

Its phases come in this order. FINISHING and DRAINING may be left out, and so may SERVING, if the
server is stopped while it starts:

    phase      begins with                   what happens
    STARTING   serve_forever()               service_init() runs
    SERVING    service_init() has returned   clients are accepted and served
    FINISHING  server_close()                no client is accepted, those that are here are served
    DRAINING   shutdown(grace=...)           the same, and each leaves as soon as it can
    STOPPING   shutdown(), a cancellation,   the tasks of all clients are cancelled, and then the
               the end of the grace, or the  exit stack of service_init() is unwound
               last client has left
"""

from __future__ import annotations

import enum
import logging
from typing import Final

import anyio

from easynetwork._tuning import STOP_TIMEOUT
from easynetwork.backends.abc import SessionTasks
from easynetwork.servers._core.drain import Drain
from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.servers._core.verdict import interrupts

_MAX_NAMES: Final = 10
"""Tasks that are named in one line of the log; it should be readable."""


class Phase(enum.Enum):
    """The phases of a run; see above."""

    STARTING = enum.auto()
    SERVING = enum.auto()
    FINISHING = enum.auto()
    DRAINING = enum.auto()
    STOPPING = enum.auto()


class Run:
    """One `serve_forever()`; the observer of its sessions' tasks.

    Attributes:
        drain: What goes on from DRAINING on, to the end.
        is_stuck: Whether something that should have ended was still running when the time was up.
    """

    def __init__(self, log: ServerLog) -> None:
        self.phase = Phase.STARTING
        self.scope = anyio.CancelScope()
        self.sessions_scope = anyio.CancelScope()
        self.sessions: SessionTasks | None = None  # while there may be any
        self.drain: Drain | None = None
        self.stopping = anyio.Event()
        self.finished = anyio.Event()
        self.is_stuck = False
        self._log = log

    def interrupts(self, exc: BaseException, /) -> bool:
        return interrupts(exc)

    def uncaught(self, exc: BaseException, name: str, /) -> None:
        self._log.error("Unexpected exception in the task of %s", name, exc=exc)

    def still_running(self, names: list[str], /) -> None:
        if self.is_stuck:
            return
        self.is_stuck = True
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        which = ", ".join(names[:_MAX_NAMES]) + more
        message = "Still running %s seconds after being cancelled, and not waited for any longer"
        self._log.log(logging.ERROR, f"{message}: %s", STOP_TIMEOUT, which)

    def give_up(self) -> None:
        """Report what still runs, when the time to stop is up."""
        if self.sessions is not None:
            self.sessions.give_up()
        self.still_running(["service_init() or its exit stack"])
