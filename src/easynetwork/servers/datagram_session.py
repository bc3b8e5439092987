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

from easynetwork.addresses import new_socket_address
from easynetwork.backends.abc import SessionTasks
from easynetwork.backends.datagram import Batch
from easynetwork.exceptions import ClientClosedError, DatagramProtocolParseError
from easynetwork.servers._driving import Hook, start, throw_in, timeout_of
from easynetwork.servers._verdict import interrupts, judge, scope_error
from easynetwork.servers.datagram_client import Outlet, ServedDatagramClient
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, Yielded
from easynetwork.servers.reports import ServerLog, printable
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
    log: ServerLog
    counts: DatagramCounts


class PeerTable:
    """The peers of one socket."""

    __slots__ = (
        "_context",
        "_deadline",
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
        self._deadline = anyio.current_effective_deadline()
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
        address: Any = None
        failed: DatagramSession | None = None
        end: BaseException | None = None
        try:
            with self._tasks.scope():
                while self._ready and self._worker is worker:
                    session = self._ready.popleft()
                    address = session.client.raw_address
                    end = await session.converse(self._firstiter)
                    if end is not None:
                        failed = session
                        break
                    self._go_on(session)
                    if not goes_on or not self._is_clean():
                        break
        except RuntimeError as exc:  # of the scope
            end = end if isinstance(end, Exception) else scope_error(exc)
        try:
            if end is not None:
                self._end(address, end, failed)
        finally:
            del end  # an exception's traceback may refer to this frame
        if self._ready and not self._is_starting and not self._tasks.is_cancelled():
            # A copy, because a context cannot be entered while it is.
            self._context.copy().run(self._start_ready)

    def _end(self, address: Any, exc: BaseException, failed: DatagramSession | None) -> None:
        """Report what left a generator; its session goes on, unless the server stops."""
        is_stopping = self._tasks.is_cancelled()
        is_interrupt = interrupts(exc)
        thrown = None
        if failed is not None:
            thrown = failed.take_thrown()
            if is_stopping or is_interrupt:
                failed.drop_waiting()
            self._go_on(failed)
        expected: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
        if is_stopping:
            expected += (anyio.get_cancelled_exc_class(),)
        verdict = judge(exc, thrown=thrown, is_excused=_is_misuse, expected=expected)
        verdict.report(new_socket_address(address, self.outlet.family), self.service.log)
        if is_interrupt:
            raise exc

    def _go_on(self, session: DatagramSession) -> None:
        if session.has_next():
            self._ready.append(session)
        else:
            self._forget(session)

    def _has_successor(self) -> bool:
        """Start a task that begins when the current one waits for something, if there is a need."""
        is_needed = len(self._ready) > 1 or any(session.has_waiting() for session in self._ready)
        if is_needed:
            self._tasks.start(self._work)
        return is_needed

    def _is_clean(self) -> bool:
        """Whether the current context and cancel scopes are what they were at the beginning."""
        if anyio.current_effective_deadline() != self._deadline:
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


class DatagramSession:
    """A peer that has a generator, or is about to.

    Attributes:
        client: What its handler sees of it.
    """

    __slots__ = (
        "_arrived",
        "_datagram",
        "_service",
        "_thrown",
        "_waiting",
        "_waiting_size",
        "client",
    )

    def __init__(
        self, service: DatagramService, client: ServedDatagramClient, datagram: bytes
    ) -> None:
        self.client: ServedDatagramClient = client
        self._service = service
        self._datagram: bytes | None = datagram  # the one that started the generator
        self._thrown: BaseException | None = None  # what was raised at the last yield, and left it
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

    async def converse(self, firstiter: Hook) -> BaseException | None:
        """Run one generator; return what left it.

        Args:
            firstiter: See `start`.
        """
        service = self._service
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
                    yielded = await self._throw(generator, exc)
                else:
                    yielded = await generator.asend(packet)
        except StopAsyncIteration:
            if self._datagram is not None:
                service.counts.refused += 1
        except BaseException as exc:
            return exc
        return None

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
        try:
            return await throw_in(generator, exc)
        except StopAsyncIteration:
            raise
        except BaseException:
            self._thrown = exc
            raise
        finally:
            del exc  # its traceback refers to this frame, and to what the peer sent

    def take_thrown(self) -> BaseException | None:
        """Return what was raised at the `yield` that an exception came from, and forget it."""
        thrown, self._thrown = self._thrown, None
        return thrown


def _is_misuse(exc: BaseException) -> bool:
    return isinstance(exc, ClientClosedError)
