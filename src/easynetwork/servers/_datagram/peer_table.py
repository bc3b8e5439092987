"""Datagrams of many peers, each handled in the order in which they came, all peers at once.

    datagram of an idle peer -> ready -> a task -> a generator of `handle()` -> the next that waits

A peer has a place in the table only while a generator runs for it, or is about to. What it sends
meanwhile waits in its queue. All of that is bounded, and what is too much is dropped and counted: a
datagram costs its sender nothing, so it must not cost a server more than a look.
"""

from __future__ import annotations

import errno
import logging
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel

from easynetwork.addresses._unix import AnySocketAddress
from easynetwork.backends.abc import Batch, SessionTasks
from easynetwork.exceptions import ClientClosedError
from easynetwork.servers._core.fault_log import printable
from easynetwork.servers._core.verdict import interrupts, judge
from easynetwork.servers._datagram.client import ServedDatagramClient, ServerSocket
from easynetwork.servers._datagram.session import DatagramService, DatagramSession
from easynetwork.servers._datagram.task_reuse import TaskReuse

_MAX_PEERS: Final = 1000
"""Peers of a server that have a generator running. With the bounds of each peer's queue, at most
256 MB wait."""

_MAX_LAST_BATCHES: Final = 64
"""Batches taken from a socket before a drain: 4,096 datagrams. The kernel holds about 280 small
ones by default (socket(7): rmem_default), but more may arrive meanwhile."""


class UnnamedSender(str):
    """The name of a peer that has none: empty, and different from all others.

    The kernel tells nothing of such peers apart, so each of their datagrams is handled as if it
    came from another one.
    """

    __slots__ = ()

    __eq__ = object.__eq__
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class UnixDatagrams:
    """What is different if a server listens on a Unix socket.

    Attributes:
        unnamed: What to do with datagrams of unnamed peers: "ignore", "warn" or "handle".
        release: Called before the socket is closed: removes its path.
    """

    unnamed: str
    release: Callable[[], object]


class PeerTable:
    """The peers of one socket."""

    __slots__ = (
        *("_drained", "_kept_clients", "_receiving", "_runner", "_sessions"),
        *("_started", "_tasks", "_unix", "server_socket", "service"),
    )

    def __init__(
        self,
        service: DatagramService,
        server_socket: ServerSocket,
        unix: UnixDatagrams | None = None,
    ) -> None:
        self._unix = unix
        self.service: DatagramService = service
        self.server_socket: ServerSocket = server_socket
        self._sessions: dict[Any, DatagramSession] = {}  # of the peers that have a generator
        # Client objects of other peers, as far as other code keeps them; most keeps none.
        self._kept_clients: weakref.WeakValueDictionary[Any, ServedDatagramClient] | None = None
        self._started = anyio.Event()
        self._drained: anyio.Event | None = None  # while nothing is taken, and some are served

    @property
    def local_address(self) -> AnySocketAddress:
        """Where the server listens."""
        return self.server_socket.unix_name or self.server_socket.endpoint.local_address

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """What is known of the socket."""
        return self.server_socket.endpoint.extra_attributes

    async def serve(self, tasks: SessionTasks) -> None:
        """Take what arrives until the socket is closed.

        Args:
            tasks: Where to start tasks for generators.
        """
        self._tasks = self.service.tasks = tasks
        self._runner = TaskReuse(tasks, self._forget, self._report)
        try:
            with anyio.CancelScope() as self._receiving:
                self._started.set()
                await self.server_socket.endpoint.serve(self._receive, self._log_error)
            if self._drained is not None and self._sessions:
                await self._drained.wait()
        finally:
            self._started = anyio.Event()
            for session in self._sessions.values():
                session.drop_waiting()
            for session in self._runner.clear():
                self.service.counts.dropped_by_stop += 1
                self._forget(session)

    # -- draining

    async def stop_receiving(self, changed: Callable[[], None]) -> None:
        """Take what waits in the socket, and nothing after that.

        Args:
            changed: Called when a peer has been served.
        """
        await self._started.wait()
        endpoint, counts = self.server_socket.endpoint, self.service.counts
        for _ in range(_MAX_LAST_BATCHES):
            received = counts.received
            endpoint.take_waiting(self._receive, self._log_error)
            if counts.received == received:
                break
            await anyio.lowlevel.checkpoint()
        self._drained = drained = anyio.Event()

        def forget(session: DatagramSession) -> None:
            self._forget(session)
            if not self._sessions:
                drained.set()
            changed()

        self._runner.forget = forget
        self._receiving.cancel()

    def count_peers(self) -> int:
        """Return how many peers have a generator, or are about to."""
        return len(self._sessions)

    def stop_waiting(self) -> None:
        """Close the generators that wait for a datagram: none will arrive."""
        for session in list(self._sessions.values()):
            session.stop_waiting()

    def client_for(self, address: Any) -> ServedDatagramClient:
        """Return the client object of an address of the socket module."""
        session = self._sessions.get(address)
        if session is not None:
            return session.client
        client = None if self._kept_clients is None else self._kept_clients.get(address)
        return client or self._keep(ServedDatagramClient(self.server_socket, address))

    def _keep(self, client: ServedDatagramClient) -> ServedDatagramClient:
        """Have the peer's next datagram handled with this object, if there is still a use for it.

        Returns:
            The same object.
        """
        if self._kept_clients is None:
            self._kept_clients = weakref.WeakValueDictionary()
        self._kept_clients[client.raw_address] = client
        return client

    def close(self) -> None:
        """Close the socket."""
        self.server_socket.is_up = False
        if self._unix is not None and not self.is_closing():
            self._unix.release()  # first, see `BoundPath`
        self.server_socket.endpoint.close()

    def is_closing(self) -> bool:
        """Whether the socket is closed."""
        return self.server_socket.endpoint.is_closing()

    # -- called by the endpoint

    def _receive(self, batch: Batch) -> None:
        counts, sessions = self.service.counts, self._sessions
        counts.received += len(batch)
        for datagram, address in batch:
            if address is None and (address := self._name_sender()) is None:
                continue
            session = sessions.get(address)
            if session is not None:
                session.put(datagram)
            elif self._unix is None and not address[1]:
                counts.dropped_by_port += 1
                counts.warn("port 0 of %s cannot be answered (RFC 768)", address[0])
            elif counts.peers < _MAX_PEERS:
                counts.peers += 1
                client = None if self._kept_clients is None else self._kept_clients.get(address)
                if client is None:
                    client = ServedDatagramClient(self.server_socket, address)
                session = sessions[address] = DatagramSession(self.service, client, datagram)
                self._runner.add(session)
            else:
                counts.dropped_by_peers += 1
                counts.warn("%d peers have a request handler running", _MAX_PEERS)
        self._runner.start_ready()

    def _name_sender(self) -> UnnamedSender | None:
        """Return a name for the sender of a datagram that has none; None to drop the datagram."""
        assert self._unix is not None
        if self._unix.unnamed == "handle":
            return UnnamedSender()
        self.service.counts.dropped_by_name += 1
        if self._unix.unnamed == "warn":
            self.service.log.fault(
                "A datagram received from an unbound UNIX datagram socket has been dropped."
            )
        return None

    def _log_error(self, error: OSError) -> None:
        if error.errno == errno.EMSGSIZE:
            self.service.counts.received += 1
            self.service.counts.dropped_by_length += 1
        # An unconnected socket does not tell which peer the error is about. Most errors are about
        # peers that have left: that is no fault.
        message = "Unrelated error occurred on datagram reception: %s"
        if isinstance(error, ConnectionError):
            self.service.log.log(logging.DEBUG, message, printable(error))
        else:
            self.service.log.fault(message, printable(error))

    # -- called when a generator has ended

    def _report(self, session: DatagramSession, end: BaseException) -> None:
        """Report what left a generator; the next one follows, unless the server stops."""
        is_stopping, is_interrupt = self._tasks.is_cancelled(), interrupts(end)
        if is_stopping or is_interrupt:
            session.drop_waiting()
        thrown, session.thrown = session.thrown, None
        is_excused = partial(_is_excused, session.client)
        verdict = judge(
            end,
            is_thrown=lambda leaf: leaf is thrown,
            is_excused=is_excused,
            is_stopping=is_stopping,
        )
        verdict.report(session.client.address, self.service.log)
        if is_interrupt:
            raise end

    def _forget(self, session: DatagramSession) -> None:
        del self._sessions[session.client.raw_address]
        self.service.counts.peers -= 1
        reference = weakref.ref(session.client)
        del session.client
        if (client := reference()) is not None:  # the handler keeps it
            self._keep(client)


def _is_excused(client: ServedDatagramClient, exc: BaseException) -> bool:
    """Whether an exception is due to a client that is closed, or that has left (Unix sockets)."""
    return isinstance(exc, ClientClosedError) or vars(exc).get("_easynetwork_client") is client
