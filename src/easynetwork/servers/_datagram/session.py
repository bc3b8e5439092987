"""The conversation with one client: its queue of datagrams, and the generators that take them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from easynetwork.addresses._unix import AnySocketAddress
from easynetwork.backends.abc import SessionTasks
from easynetwork.exceptions import DatagramProtocolParseError, UnsupportedOperation
from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.servers._core.generators import (
    Hooks,
    close,
    deliver_ancillary,
    not_a_generator,
    throw_in,
    timeout_of,
)
from easynetwork.servers._datagram.client import ServedDatagramClient
from easynetwork.servers._datagram.counts import DatagramCounts
from easynetwork.servers._datagram.places import Places
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, RecvParams, Yielded
from easynetwork.sockets.messages import ReceivedDatagram


@dataclass(slots=True)
class DatagramService:
    """What all peers of a server share.

    Attributes:
        has_ancillary: Whether datagrams are received with their ancillary data.
        own_addresses: The addresses of all the server's sockets.
        tasks: The owner of the tasks in which generators run, while the server serves.
    """

    handler: AsyncDatagramRequestHandler[Any, Any]
    build: Callable[[bytes], Any]
    log: ServerLog
    counts: DatagramCounts
    places: Places
    has_ancillary: bool = False
    own_addresses: frozenset[AnySocketAddress] = frozenset()
    tasks: SessionTasks | None = None


class _StoppedError(Exception):
    """Raised where a datagram was wanted, and there will be none: the generator has to end."""


class DatagramSession:
    """A peer that has a generator, or is about to.

    Attributes:
        client: What its handler sees of it.
    """

    __slots__ = (
        *("_arrived", "_datagram", "_is_evicted", "_service", "_waiting"),
        *("_waiting_size", "client", "thrown"),
    )

    def __init__(
        self, service: DatagramService, client: ServedDatagramClient, datagram: bytes
    ) -> None:
        self.client: ServedDatagramClient = client
        self._service = service
        self._datagram: bytes | None = datagram  # the one that started the generator
        self.thrown: BaseException | None = None  # see `throw_in()`
        self._waiting: deque[bytes] | None = None

    def __str__(self) -> str:
        # For the log, which few of the datagrams that are dropped get to: a flood must stay cheap.
        return str(self.client.address)

    def is_cancelled(self) -> bool:
        """Whether the current task is to end, and not just a scope that its handler has opened."""
        tasks = self._service.tasks
        return tasks is not None and tasks.is_scope_cancelled()

    # -- the queue; most peers never need one

    def _open_queue(self) -> deque[bytes]:
        self._waiting = deque()
        self._waiting_size = 0
        self._is_evicted = False
        self._arrived: anyio.Event | None = None  # while the generator waits for another one
        return self._waiting

    def put(self, datagram: bytes) -> None:
        """Let a datagram wait for its turn, if not too many do."""
        counts, places = self._service.counts, self._service.places
        waiting = self._open_queue() if self._waiting is None else self._waiting
        if self._is_evicted:
            places.drop()  # it comes too late for the generator, and another peer has the place
        elif len(waiting) >= places.limits.max_waiting:
            counts.dropped_by_count += 1
            counts.warn("%d of %s are waiting", len(waiting), self)
        elif self._waiting_size + len(datagram) > places.limits.max_waiting_bytes:
            counts.dropped_by_size += 1
            counts.warn("%d bytes of %s are waiting", self._waiting_size, self)
        else:
            counts.waiting += 1
            waiting.append(datagram)
            self._waiting_size += len(datagram)
            if self._arrived is not None:
                self._arrived.set()
                places.waiting.pop(self, None)  # it has something to do before its task runs

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

    def evict(self) -> None:
        """Have the generator, which waits for a datagram, end: another peer gets the place."""
        assert self._arrived is not None
        self._is_evicted = True
        self._arrived.set()

    # -- the conversation

    async def converse(self, hooks: Hooks) -> BaseException | None:
        """Run one generator; return what left it.

        Args:
            hooks: The event loop's hooks for generators.
        """
        service = self._service
        try:
            generator = service.handler.handle(self.client)
            sys.set_asyncgen_hooks(None, None)  # see `easynetwork.servers._core.generators`
            try:
                first_step = generator.asend(None)
            except AttributeError:
                raise not_a_generator(generator) from None
            finally:
                sys.set_asyncgen_hooks(hooks[0], hooks[1])
            yielded = await first_step
            while True:
                try:
                    if yielded is None and (datagram := self._datagram) is not None:
                        self._datagram = None
                        packet = service.build(datagram)
                    else:
                        packet = None  # a generator that waits does not keep the last one
                        packet = await self._next_packet(yielded)
                    datagram = None
                except _StoppedError:
                    await close(generator)
                    return None
                except BaseException as exc:
                    datagram = None
                    if isinstance(exc, DatagramProtocolParseError):
                        service.counts.invalid += 1
                    yielded = await throw_in(generator, exc, self)
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
        ancillary = yielded.recv_with_ancillary if isinstance(yielded, RecvParams) else None
        if ancillary is not None and not self._service.has_ancillary:
            raise UnsupportedOperation("The server is not configured to handle ancillary data.")
        datagram, self._datagram = self._datagram, None
        if datagram is None:
            datagram = self._pop()
        if datagram is None:
            datagram = await self._wait(timeout)
        if ancillary is not None and isinstance(datagram, ReceivedDatagram):
            try:
                received = datagram.take()
            except OSError:
                self._datagram = datagram  # for the next `yield`
                raise
            deliver_ancillary(ancillary, received)
        return self._service.build(datagram)

    async def _wait(self, timeout: float | None) -> bytes:
        tasks = self._service.tasks
        if tasks is not None and tasks.is_ending:
            raise _StoppedError
        if self._waiting is None:
            self._open_queue()
        if self._is_evicted:
            raise _StoppedError
        waiting = self._service.places.waiting
        arrived = self._arrived = anyio.Event()
        waiting[self] = None
        try:
            if timeout is None:
                await arrived.wait()
            else:
                with anyio.move_on_after(timeout):
                    await arrived.wait()
        finally:
            self._arrived = None
            waiting.pop(self, None)
        if self._is_evicted:
            raise TimeoutError("evicted: all places are taken, and another peer needs one")
        datagram = self._pop()
        if datagram is None:
            if tasks is not None and tasks.is_ending:
                raise _StoppedError
            raise TimeoutError("timed out")
        return datagram

    def stop_waiting(self) -> None:
        """Have a generator that waits closed: nothing more will arrive."""
        if self._waiting is not None and self._arrived is not None:
            self._arrived.set()
