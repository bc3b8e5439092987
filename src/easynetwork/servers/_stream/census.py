"""The connections of a server: how many there are, of whom, and what became of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from easynetwork.addresses._unix import AnySocketAddress
from easynetwork.servers._core.hosts import HostCounts
from easynetwork.servers.limits import Limits
from easynetwork.servers.statistics import CloseReason

if TYPE_CHECKING:
    from easynetwork.servers._stream.drain import StreamDrain
    from easynetwork.servers._stream.packets import PacketClient
    from easynetwork.servers._stream.session import StreamSession


class Traffic(NamedTuple):
    """What connections have received and sent; see `StreamStatistics`."""

    packets_received: int = 0
    packets_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0

    def plus(self, client: PacketClient) -> Traffic:
        """Add what a client has received and sent."""
        return Traffic(
            self.packets_received + client.decoder.taken,
            self.packets_sent + client.packets_sent + len(client.gathered),
            self.bytes_received + client.decoder.received,
            self.bytes_sent + client.bytes_sent + client.gathered_size(),
        )


class Census:
    """Counts connections, and lets no more in than may be here.

    Attributes:
        accepted: Connections so far, those that were refused here included.
        closed: Those that have ended, by reason.
        invalid_packets: Errors in place of packets.
        connections: Those that are here, handshakes included.
        drain: Ends them, while the server drains.
        most: How many may be here.
        sessions: Those that have come as far as their handler.
    """

    __slots__ = (
        *("_hosts", "_traffic", "accepted", "closed", "connections", "drain"),
        *("invalid_packets", "most", "sessions"),
    )

    def __init__(self, limits: Limits) -> None:
        self._hosts = HostCounts(limits.max_clients_per_host)
        self.accepted: int = 0
        self.closed: Counter[CloseReason] = Counter()
        self.connections: int = 0
        self.drain: StreamDrain | None = None
        self.most: float = 0
        self.sessions: set[StreamSession] = set()
        self.invalid_packets: int = 0
        self._traffic = Traffic()

    def admit(self, address: AnySocketAddress) -> bool:
        """Count a connection; return whether it may stay."""
        self.accepted += 1
        if self.connections >= self.most or self._hosts.is_full(address):
            self.closed[CloseReason.FULL] += 1
            return False
        self.connections += 1
        self._hosts.add(address, 1)
        return True

    def note_lost(self, left: int, refused: int) -> None:
        """Count connections that were never admitted.

        Args:
            left: Those that were reset by the peer while they waited to be accepted.
            refused: Those that were reset here because no descriptor was left.
        """
        self.accepted += left + refused
        for reason, count in ((CloseReason.PEER_RESET, left), (CloseReason.FULL, refused)):
            if count:
                self.closed[reason] += count

    def forget(self, session: StreamSession) -> None:
        """Take note that a session is over."""
        self.sessions.discard(session)
        self._traffic = self._traffic.plus(session.client)

    def traffic(self) -> Traffic:
        """Return what all connections so far have received and sent."""
        traffic = self._traffic
        for session in self.sessions:
            traffic = traffic.plus(session.client)
        return traffic

    def leave(self, address: AnySocketAddress, reason: CloseReason) -> None:
        """Take note that a connection which was admitted is closed."""
        self.connections -= 1
        self.closed[reason] += 1
        if self.drain is not None:
            self.drain.changed()
        self._hosts.add(address, -1)
