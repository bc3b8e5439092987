"""Datagrams of many peers, each handled in the order in which they came, all peers at once.

    datagram of an idle peer -> ready -> a task -> a generator of `handle()` -> the next that waits

A peer has a place in the table only while a generator runs for it, or is about to. What it sends
meanwhile waits in its queue. All of that is bounded, and what is too much is dropped and counted: a
datagram costs its sender nothing, so it must not cost a server more than a look.

Each generator runs in a task of its own, as far as anybody can tell: one that ends without having
waited for anything, and without having changed its context, leaves its task to the next one. So a
burst of datagrams that are answered at once costs one task (half the time, measured).
"""

from __future__ import annotations

__all__ = ["DatagramService", "PeerTable"]

import contextvars
import logging
import sys
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio

from easynetwork.backends.abc import SessionTasks
from easynetwork.backends.datagram import Batch
from easynetwork.exceptions import ClientClosedError, DatagramProtocolParseError
from easynetwork.servers._driving import Hook, own_error, report_error, start, throw_in, timeout_of
from easynetwork.servers.datagram_client import Outlet, ServedDatagramClient
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, Yielded
from easynetwork.servers.reports import PeerFaultLog, printable
from easynetwork.servers.statistics import DatagramCounts

_MAX_WAITING: Final = 64
"""Datagrams of one peer that wait: as many as are taken from a socket at once."""

_MAX_WAITING_SIZE: Final = 256 * 1024
"""Bytes of one peer that wait: four of the largest datagrams."""

_MAX_PEERS: Final = 1000
"""Peers of a server that have a generator running. With the two above, 256 MB wait at the most."""

_NOBODY: Final = object()


@dataclass(frozen=True, slots=True)
class DatagramService:
    """What all peers of a server share."""

    handler: AsyncDatagramRequestHandler[Any, Any]
    build: Callable[[bytes], Any]
    logger: logging.Logger
    peer_faults: PeerFaultLog
    counts: DatagramCounts


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
        self._worker = _NOBODY  # the task that began last, as long as it has not waited
        self._is_starting = False
        # Clients of other peers, as far as a handler keeps them; most keep none.
        self._held: weakref.WeakValueDictionary[Any, ServedDatagramClient] | None = None

    async def serve(self, tasks: SessionTasks) -> None:
        """Take what arrives until the socket is closed.

        Args:
            tasks: Where to start tasks for generators.
        """
        self._tasks = tasks
        self._context = contextvars.copy_context()
        self._firstiter = sys.get_asyncgen_hooks().firstiter
        try:
            await self.outlet.endpoint.serve(self._receive, self._log_error)
        finally:
            for session in self._sessions.values():
                session.drop_waiting()

    # -- called by the endpoint

    def _receive(self, batch: Batch) -> None:
        counts, sessions = self.service.counts, self._sessions
        counts.received += len(batch)
        for datagram, address in batch:
            session = sessions.get(address)
            if session is not None:
                session.put(datagram)
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
        # On an unconnected socket nobody can tell which peer it is about, and others are not
        # concerned. Most are gone: that is nobody's fault.
        service = self.service
        if isinstance(error, ConnectionError):
            service.logger.debug("Unrelated error occurred on datagram reception: %s", error)
        else:
            service.peer_faults.warning(
                "Unrelated error occurred on datagram reception: %s", printable(error)
            )

    # -- tasks

    def _start_ready(self) -> None:
        """Start tasks for those that are ready."""
        self._is_starting = True
        try:
            while self._ready:
                self._worker = _NOBODY
                self._tasks.start(self._work)
                if self._worker is _NOBODY:  # it has yet to begin, and will see to the others
                    break
                self._worker = _NOBODY  # it is over, or waits for something
        finally:
            self._is_starting = False

    async def _work(self) -> None:
        """Run the generators of those that are ready, until one of them needs this task."""
        worker = self._worker = object()
        goes_on = self._is_starting or self._has_successor()
        while self._ready and self._worker is worker:
            session = self._ready.popleft()
            try:
                await session.converse(self._firstiter)
            except BaseException:
                session.drop_waiting()
                self._forget(session)
                raise
            if session.has_next():
                self._ready.append(session)
            else:
                self._forget(session)
            if not goes_on or not self._is_clean():
                break
        if self._ready and not self._is_starting:
            # A copy, because a context cannot be entered while it is.
            self._context.copy().run(self._start_ready)

    def _has_successor(self) -> bool:
        """Start a task that begins when the current one waits for something, if there is a need."""
        is_needed = len(self._ready) > 1 or any(session.has_waiting() for session in self._ready)
        if is_needed:
            self._tasks.start(self._work)
        return is_needed

    def _is_clean(self) -> bool:
        """Whether the current context is what it was when serving began."""
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


class DatagramSession:
    """A peer that has a generator, or is about to.

    Attributes:
        client: What its handler sees of it.
    """

    __slots__ = ("_arrived", "_datagram", "_service", "_waiting", "_waiting_size", "client")

    def __init__(
        self, service: DatagramService, client: ServedDatagramClient, datagram: bytes
    ) -> None:
        self.client: ServedDatagramClient = client
        self._service = service
        self._datagram: bytes | None = datagram  # the one that started the generator
        self._waiting: deque[bytes] | None = None

    # -- the queue; most peers never need one

    def _open_queue(self) -> deque[bytes]:
        self._waiting = deque()
        self._waiting_size = 0
        self._arrived: anyio.Event | None = None  # while the generator waits for another one
        return self._waiting

    def put(self, datagram: bytes) -> None:
        """Let a datagram wait for its turn, if not too many do."""
        counts = self._service.counts
        waiting = self._open_queue() if self._waiting is None else self._waiting
        if len(waiting) == _MAX_WAITING:
            counts.dropped_by_count += 1
            counts.warn("%d of %s are waiting", _MAX_WAITING, self.client.raw_address[:2])
        elif self._waiting_size + len(datagram) > _MAX_WAITING_SIZE:
            counts.dropped_by_size += 1
            counts.warn(
                "%d bytes of %s are waiting", self._waiting_size, self.client.raw_address[:2]
            )
        else:
            counts.waiting += 1
            waiting.append(datagram)
            self._waiting_size += len(datagram)
            if self._arrived is not None:
                self._arrived.set()

    def _pop(self) -> bytes | None:
        if not self._waiting:
            return None
        datagram = self._waiting.popleft()
        self._waiting_size -= len(datagram)
        self._service.counts.waiting -= 1
        return datagram

    def has_waiting(self) -> bool:
        """Whether there is more than the datagram that starts the next generator."""
        return bool(self._waiting)

    def has_next(self) -> bool:
        """Take the datagram that starts the next generator; return whether there is one."""
        if not self._waiting:
            return False
        self._datagram = self._pop()
        return True

    def drop_waiting(self) -> None:
        """Drop what is waiting, because the server stops."""
        while self._pop() is not None:
            self._service.counts.dropped_by_stop += 1

    # -- the conversation

    async def converse(self, firstiter: Hook) -> None:
        """Run one generator.

        Args:
            firstiter: See `start`.

        Raises:
            BaseException: Only what is not an `Exception`: cancellation, KeyboardInterrupt.
        """
        service, thrown = self._service, None
        try:
            generator = service.handler.handle(self.client)
            yielded = await start(generator, firstiter)
            while True:
                try:
                    if yielded is None and (datagram := self._datagram) is not None:
                        self._datagram = None
                        packet = service.build(datagram)
                    else:
                        packet = None  # a generator that waits does not keep the last one
                        packet = await self._next_packet(yielded)
                    datagram = None
                except BaseException as exc:
                    datagram = None
                    thrown = exc
                    yielded = await self._throw(generator, exc)
                    thrown = None
                else:
                    yielded = await generator.asend(packet)
        except StopAsyncIteration:
            if self._datagram is not None:
                service.counts.refused += 1
        except BaseException as exc:
            self._report(own_error(exc), thrown)
        finally:
            thrown = None  # its traceback refers to this frame

    async def _next_packet(self, yielded: Yielded) -> Any:
        timeout = timeout_of(yielded)
        datagram, self._datagram = self._datagram, None
        if datagram is None:
            datagram = self._pop()
        if datagram is None:
            datagram = await self._wait(timeout)
        return self._service.build(datagram)

    async def _wait(self, timeout: float | None) -> bytes:
        if self._waiting is None:
            self._open_queue()
        arrived = self._arrived = anyio.Event()
        try:
            if timeout is None:
                await arrived.wait()
            else:
                with anyio.move_on_after(timeout):
                    await arrived.wait()
        finally:
            self._arrived = None
        datagram = self._pop()
        if datagram is None:
            raise TimeoutError("timed out")
        return datagram

    async def _throw(self, generator: AsyncGenerator[Yielded, Any], exc: BaseException) -> Yielded:
        if isinstance(exc, DatagramProtocolParseError):
            self._service.counts.invalid += 1
        return await throw_in(generator, exc)

    def _report(self, error: BaseException, thrown: BaseException | None) -> None:
        if not isinstance(error, Exception):
            raise error
        service = self._service
        report_error(
            error, thrown, _is_misuse, self.client.address, service.logger, service.peer_faults
        )


def _is_misuse(exc: BaseException) -> bool:
    return isinstance(exc, ClientClosedError)
