"""Datagrams of many peers, each handled in the order in which they came, all peers at once.

    datagram of an idle peer -> ready -> a task -> a generator of `handle()` -> the next that waits

A peer has a place in the table only while a generator runs for it, or is about to. What it sends
meanwhile waits in its queue. All of that is bounded, and what is too much is dropped and counted: a
datagram costs its sender nothing, so it must not cost a server more than a look.

Each generator behaves as if it had its own task. As an optimisation, a generator that ends without
having waited for anything, and that has left its context and cancel scopes as they were, hands its
task to the next one. So a burst of datagrams that are answered at once costs one task (half the
time, measured).
"""

from __future__ import annotations

__all__ = ["PeerTable"]

import contextvars
import logging
import sys
import weakref
from collections import deque
from contextlib import AbstractContextManager
from typing import Any, Final

from easynetwork.backends.datagram_endpoint import Batch
from easynetwork.backends.session_tasks import SessionTasks
from easynetwork.exceptions import ClientClosedError
from easynetwork.servers._core.fault_log import printable
from easynetwork.servers._core.verdict import interrupts, judge, scope_error
from easynetwork.servers._datagram.client import Outlet, ServedDatagramClient
from easynetwork.servers._datagram.session import DatagramService, DatagramSession

_MAX_PEERS: Final = 1000
"""Peers of a server that have a generator running. With the bounds of each peer's queue, at most
256 MB wait."""

_NO_WORKER: Final = object()


class PeerTable:
    """The peers of one socket."""

    __slots__ = (
        "_context",
        "_firstiter",
        "_held",
        "_is_starting",
        "_ready",
        "_sessions",
        "_tasks",
        "_worker",
        "outlet",
        "service",
    )

    def __init__(self, service: DatagramService, outlet: Outlet) -> None:
        self.service: DatagramService = service
        self.outlet: Outlet = outlet
        self._sessions: dict[Any, DatagramSession] = {}  # of the peers that have a generator
        self._ready: deque[DatagramSession] = deque()  # of those, the ones that have yet to begin
        self._worker = _NO_WORKER  # the task that began last, as long as it has not waited
        self._is_starting = False
        # Clients of other peers, as far as a handler keeps them; most keep none.
        self._held: weakref.WeakValueDictionary[Any, ServedDatagramClient] | None = None

    async def serve(self, tasks: SessionTasks) -> None:
        """Take what arrives until the socket is closed.

        Args:
            tasks: Where to start tasks for generators.
        """
        self._tasks = self.service.tasks = tasks
        self._context = contextvars.copy_context()
        self._firstiter = sys.get_asyncgen_hooks().firstiter
        try:
            await self.outlet.endpoint.serve(self._receive, self._log_error)
        finally:
            for session in self._sessions.values():
                session.drop_waiting()
            while self._ready:
                session = self._ready.popleft()
                self.service.counts.dropped_by_stop += 1
                self._forget(session)

    # -- called by the endpoint

    def _receive(self, batch: Batch) -> None:
        counts, sessions = self.service.counts, self._sessions
        counts.received += len(batch)
        for datagram, address in batch:
            session = sessions.get(address)
            if session is not None:
                session.put(datagram)
            elif not address[1]:
                counts.dropped_by_port += 1
                counts.warn("port 0 of %s cannot be answered (RFC 768)", address[0])
            elif counts.peers < _MAX_PEERS:
                counts.peers += 1
                client = None if self._held is None else self._held.get(address)
                if client is None:
                    client = ServedDatagramClient(self.outlet, address)
                session = sessions[address] = DatagramSession(self.service, client, datagram)
                self._ready.append(session)
            else:
                counts.dropped_by_peers += 1
                counts.warn("%d peers have a request handler running", _MAX_PEERS)
        self._start_ready()

    def _log_error(self, error: OSError) -> None:
        # An unconnected socket does not tell which peer the error is about. Most errors are about
        # peers that have left: that is no fault.
        message = "Unrelated error occurred on datagram reception: %s"
        if isinstance(error, ConnectionError):
            self.service.log.log(logging.DEBUG, message, printable(error))
        else:
            self.service.log.fault(message, printable(error))

    # -- tasks

    def _start_ready(self) -> None:
        """Start tasks for those that are ready."""
        self._is_starting = True
        try:
            while self._ready:
                self._worker = _NO_WORKER
                self._tasks.start(self._work)
                if self._worker is _NO_WORKER:  # it has yet to begin, and will see to the others
                    break
                self._worker = _NO_WORKER  # it is over, or waits for something
        finally:
            self._is_starting = False

    async def _work(self) -> None:
        """Run the generators of those that are ready, until one of them needs this task."""
        worker = self._worker = object()
        if not self._ready:
            return  # the task that started this one as its successor has done everything
        goes_on = self._is_starting or self._has_successor()
        last: DatagramSession | None = None  # the one whose generator is not followed by others
        end: BaseException | None = None
        try:
            scope = self._tasks.scope()
            with scope:
                while self._ready and self._worker is worker:
                    session = self._ready.popleft()
                    end = await session.converse(self._firstiter)
                    if end is not None or not goes_on or not self._is_clean(scope):
                        last = session
                        break
                    if session.has_next():
                        self._ready.append(session)
                    else:
                        self._forget(session)
        except RuntimeError as exc:  # of the scope
            end = end if isinstance(end, Exception) else scope_error(exc)
        try:
            if last is not None:
                self._go_on(last, end)
        finally:
            del end  # an exception's traceback may refer to this frame
        if self._ready and not self._is_starting and not self._tasks.is_cancelled():
            # A copy, because a context cannot be entered while it is.
            self._context.copy().run(self._start_ready)

    def _go_on(self, session: DatagramSession, end: BaseException | None) -> None:
        """Report what left a generator; the next one follows, unless the server stops."""
        is_interrupt = False
        if end is not None:
            is_stopping, is_interrupt = self._tasks.is_cancelled(), interrupts(end)
            if is_stopping or is_interrupt:
                session.drop_waiting()
            thrown = session.take_thrown()
            verdict = judge(end, thrown=thrown, is_excused=_is_misuse, is_stopping=is_stopping)
            verdict.report(session.client.address, self.service.log)
        if session.has_next():
            self._ready.append(session)
        else:
            self._forget(session)
        if end is not None and is_interrupt:
            raise end

    def _has_successor(self) -> bool:
        """Start a task that begins when the current one waits for something, if there is a need."""
        is_needed = len(self._ready) > 1 or any(session.has_waiting() for session in self._ready)
        if is_needed:
            self._tasks.start(self._work)
        return is_needed

    def _is_clean(self, scope: AbstractContextManager[object]) -> bool:
        """Whether the current context and cancel scopes are what they were at the beginning."""
        if not self._tasks.is_orderly(scope):
            return False
        try:
            return contextvars.copy_context() == self._context
        except Exception:  # of a value that cannot be compared: so it was set
            return False

    def _forget(self, session: DatagramSession) -> None:
        del self._sessions[session.client.raw_address]
        self.service.counts.peers -= 1
        reference = weakref.ref(session.client)
        del session.client
        if (client := reference()) is not None:  # somebody else holds it
            if self._held is None:
                self._held = weakref.WeakValueDictionary()
            self._held[client.raw_address] = client


def _is_misuse(exc: BaseException) -> bool:
    return isinstance(exc, ClientClosedError)
