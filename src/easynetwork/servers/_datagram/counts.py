"""The running counts of a datagram server, and its log lines about datagrams that it drops."""

from __future__ import annotations

import logging
from dataclasses import fields

from easynetwork._episode import Episode
from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.servers.statistics import DatagramStatistics


class DatagramCounts:
    """The running counts of a server; those of `DatagramStatistics`.

    A flood is an episode: it gets one line in the log, and the next one follows when nothing was
    dropped for a while.
    """

    def __init__(self, log: ServerLog) -> None:
        self._log = log
        self._episode, self._evictions = Episode(), Episode()
        self.received = self.invalid = self.refused = 0
        self.dropped_by_count = self.dropped_by_size = self.dropped_by_peers = 0
        self.dropped_by_port = self.dropped_by_name = self.dropped_by_length = 0
        self.dropped_by_host = self.dropped_by_own_address = self.dropped_by_stop = 0
        self.waiting = self.peers = self.evicted = 0

    def warn(self, why: str, *args: object) -> None:
        """Log why something was dropped, if this begins an episode."""
        if self._episode.begins():
            message = (
                "Datagrams are dropped: %s. No more is logged until none was dropped for %d "
                "seconds; get_statistics() counts them."
            )
            self._log.log(logging.WARNING, message, why % args, self._episode.quiet_time)

    def warn_of_eviction(self, peers: int) -> None:
        """Log that a peer gives up its place to another one, if this begins an episode."""
        if self._evictions.begins():
            message = (
                "Peers are evicted: %d have a request handler running, and others want one. No "
                "more is logged until none was evicted for %d seconds; get_statistics() counts "
                "them."
            )
            self._log.log(logging.WARNING, message, peers, self._evictions.quiet_time)

    def snapshot(self) -> DatagramStatistics:
        """Return the counts of this moment."""
        names = (field.name for field in fields(DatagramStatistics))
        return DatagramStatistics(**{name: getattr(self, name) for name in names})
