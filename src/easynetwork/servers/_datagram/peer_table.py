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

from easynetwork.addresses import IPv4SocketAddress, IPv6SocketAddress
from easynetwork.addresses._unix import AnySocketAddress, typed_address
from easynetwork.backends.abc import Batch, SessionTasks
from easynetwork.exceptions import ClientClosedError
from easynetwork.servers._core.fault_log import printable
from easynetwork.servers._core.verdict import interrupts, judge
from easynetwork.servers._datagram.client import ServedDatagramClient, ServerSocket
from easynetwork.servers._datagram.session import DatagramService, DatagramSession
from easynetwork.servers._datagram.task_reuse import TaskReuse
from easynetwork.sockets.datagrams import is_of_this_machine, remote_address

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
        *("_drained", "_kept_clients", "_receiving", "_runner", "_sessions", "_started"),
        *("_suspicious_ports", "_tasks", "_unix", "server_socket", "service"),
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
        own = self.service.own_addresses
        self._suspicious_ports = {0} | {each.port for each in own if isinstance(each, tuple)}
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
            for session in self.service.places.clear_lobby(self) + self._runner.clear():
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
        counts, places, sessions = self.service.counts, self.service.places, self._sessions
        plenty, suspicious_ports = places.plenty, self._suspicious_ports
        counts.received += len(batch)
        for datagram, address in batch:
            if address is None and (address := self._name_sender()) is None:
                continue
            session = sessions.get(address)
            if session is not None:
                session.put(datagram)
                continue
            if self._unix is None and address[1] in suspicious_ports and self._suspects(address):
                continue
            has_place = counts.peers < plenty
            if not has_place and not places.admits(address):
                continue
            client = None if self._kept_clients is None else self._kept_clients.get(address)
            if client is None:
                client = ServedDatagramClient(self.server_socket, address)
            session = sessions[address] = DatagramSession(self.service, client, datagram)
            if has_place:
                counts.peers += 1
            if has_place or places.take(self, session):
                self._runner.add(session)
        self._runner.start_ready()

    def _suspects(self, address: Any) -> bool:
        """Whether nothing good comes from an address. If so, count its datagram as dropped."""
        counts = self.service.counts
        if not address[1]:
            counts.dropped_by_port += 1
            counts.warn("port 0 of %s cannot be answered (RFC 768)", address[0])
        elif self._is_own(address):
            counts.dropped_by_own_address += 1
            counts.warn("%s is an address of the server", address[:2])
        else:
            return False
        return True

    def _is_own(self, address: Any) -> bool:
        """Whether an answer to an address would be received by this server."""
        own, family = self.service.own_addresses, self.server_socket.family
        sender = typed_address(remote_address(address), family)
        if isinstance(sender, IPv6SocketAddress):
            wildcard: Any = IPv6SocketAddress("::", sender.port)
        else:
            wildcard = IPv4SocketAddress("0.0.0.0", address[1])
        return sender in own or (
            wildcard in own and is_of_this_machine(remote_address(address), family)
        )

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
        service = self.service
        if service.counts.peers < service.places.plenty:
            service.counts.peers -= 1
        elif (newcomer := service.places.release(session)) is not None:
            self._start_newcomer(*newcomer)
        reference = weakref.ref(session.client)
        del session.client
        if (client := reference()) is not None:  # the handler keeps it
            self._keep(client)

    def _start_newcomer(self, table: PeerTable, session: DatagramSession) -> None:
        if table is self:
            self._runner.add(session)  # the task that has called `_forget()` goes on with it
        else:
            table._runner.start(session)


def _is_excused(client: ServedDatagramClient, exc: BaseException) -> bool:
    """Whether an exception is due to a client that is closed, or that has left (Unix sockets)."""
    return isinstance(exc, ClientClosedError) or vars(exc).get("_easynetwork_client") is client
