"""Statistics of servers."""

from __future__ import annotations

__all__ = ["DatagramStatistics"]

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramStatistics:
    """What became of the datagrams that a server has taken from its sockets since it was made.

    What the kernel dropped before that is not known here: a socket holds about 200 small datagrams
    by default on Linux (socket(7): rmem_default).

    Attributes:
        received: Datagrams taken from the sockets.
        invalid: Those that were no packets: the protocol object raised
            `DatagramProtocolParseError`, whatever the handler made of it.
        refused: Those whose generator returned before its first `yield`.
        dropped_by_count: Those dropped because 64 datagrams of the same peer were waiting.
        dropped_by_size: Those dropped because 256 KiB of the same peer would have been waiting.
        dropped_by_peers: Those dropped because 1,000 other peers had a generator running.
        dropped_by_port: Those dropped because they came from port 0: the sender takes no answers
            (RFC 768), and sending one fails.
        dropped_by_name: Those dropped because their sender has no name that an answer could be sent
            to (Unix sockets; see `AsyncUnixDatagramServer`).
        dropped_by_length: Those dropped because they were longer than the buffer (Unix sockets):
            their sender has asked the system for more than any process may.
        dropped_by_stop: Those dropped because they were waiting when the server stopped.
        waiting: Datagrams that wait at this moment until their peer's generator asks for them.
        peers: Peers that have a generator running at this moment.
    """

    received: int = 0
    invalid: int = 0
    refused: int = 0
    dropped_by_count: int = 0
    dropped_by_size: int = 0
    dropped_by_peers: int = 0
    dropped_by_port: int = 0
    dropped_by_name: int = 0
    dropped_by_length: int = 0
    dropped_by_stop: int = 0
    waiting: int = 0
    peers: int = 0

    @property
    def dropped(self) -> int:
        """All that were dropped."""
        counts = asdict(self).items()
        return sum(count for name, count in counts if name.startswith("dropped_by_"))
