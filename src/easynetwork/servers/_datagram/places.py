"""The places of a server's peers: who has one, and who has to give up its own.

    stranger -> the peer that has waited longest is evicted -> its generator ends -> stranger's turn

That is for a server whose places are all taken. The stranger stays in the *lobby* meanwhile, so
there are never more generators than places. There is an evicted peer for each one in the lobby, and
the queues of evicted peers are empty, so all queues together stay within their bounds as well.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from easynetwork.servers._core.hosts import HostCounts
from easynetwork.servers._datagram.counts import DatagramCounts
from easynetwork.servers.limits import DatagramLimits

if TYPE_CHECKING:
    from easynetwork.servers._datagram.peer_table import PeerTable
    from easynetwork.servers._datagram.session import DatagramSession


class Places:
    """The places of one server, for the peers of all its sockets.

    Attributes:
        limits: How many there are, and what each peer may have.
        plenty: Below so many peers, one may come or go without a call to `admits()`, `take()` or
            `release()`, which would cost 2 % of a request (measured).
        waiting: The sessions that wait for a datagram after their first, in the order in which they
            began to. (A dict would look for its first item through all those that have left.)
    """

    __slots__ = ("_counts", "_hosts", "_lobby", "limits", "plenty", "waiting")

    def __init__(self, limits: DatagramLimits, counts: DatagramCounts) -> None:
        self.limits: DatagramLimits = limits
        self.plenty: int = limits.max_peers if limits.max_peers_per_host is None else 0
        self.waiting: OrderedDict[DatagramSession, None] = OrderedDict()
        self._counts = counts
        self._hosts = HostCounts(limits.max_peers_per_host)
        self._lobby: deque[tuple[PeerTable, DatagramSession]] = deque()

    def admits(self, address: Any) -> bool:
        """Whether a stranger gets a place, now or soon. If not, count its datagram as dropped."""
        counts, limit = self._counts, self._hosts.limit
        if self._hosts.is_full(address):
            counts.dropped_by_host += 1
            counts.warn("%d peers of %s have a request handler running", limit, address[0])
        elif counts.peers >= self.limits.max_peers and not self.waiting:
            self.drop()
        else:
            return True
        return False

    def drop(self) -> None:
        """Count a datagram that is dropped because its sender has no place."""
        self._counts.dropped_by_peers += 1
        self._counts.warn("%d peers have a request handler running", self.limits.max_peers)

    def take(self, table: PeerTable, session: DatagramSession) -> bool:
        """Give a stranger that was admitted a place.

        Returns:
            Whether it has it. If not, another peer was evicted: see `release()`.
        """
        self._hosts.add(session.client.raw_address, 1)
        if self._counts.peers < self.limits.max_peers:
            self._counts.peers += 1
            return True
        longest, _ = self.waiting.popitem(last=False)
        longest.evict()
        self._counts.evicted += 1
        self._counts.warn_of_eviction(self.limits.max_peers)
        self._lobby.append((table, session))
        return False

    def release(self, session: DatagramSession) -> tuple[PeerTable, DatagramSession] | None:
        """Take the place of a session that has ended.

        Returns:
            The session in the lobby that has it now, and its table; None if the lobby is empty.
        """
        self._hosts.add(session.client.raw_address, -1)
        if self._lobby:
            return self._lobby.popleft()
        self._counts.peers -= 1
        return None

    def clear_lobby(self, table: PeerTable) -> list[DatagramSession]:
        """Return the sessions of one table that are in the lobby, as if they had a place each."""
        sessions = [session for owner, session in self._lobby if owner is table]
        self._lobby = deque(entry for entry in self._lobby if entry[0] is not table)
        self._counts.peers += len(sessions)
        return sessions
