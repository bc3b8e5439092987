"""Statistics of servers, and why connections ended."""

from __future__ import annotations

__all__ = ["ClientStatistics", "CloseReason", "DatagramStatistics", "StreamStatistics"]

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


class CloseReason(enum.Enum):
    """Why a connection ended. The value is how the log says it."""

    PEER_CLOSED = "the client has left"
    PEER_RESET = "the connection broke"
    TRUNCATED = "the client has left in the middle of a packet, or without TLS's closing alert"
    CLOSED = "closed by the handler"
    ABORTED = "reset by the handler"
    REFUSED = "refused: handle() returned before its first yield"
    HANDLER_ERROR = "the handler raised an exception"
    INVALID_DATA = "the client sent invalid data"
    FULL = "too many clients"
    TLS_FAILED = "the TLS handshake failed"
    FIRST_PACKET_TIMEOUT = "no first packet in time"
    PACKET_TIMEOUT = "a packet took too long to arrive"
    IDLE_TIMEOUT = "silent for too long"
    SEND_TIMEOUT = "the client does not read"
    CLOSE_TIMEOUT = "the client did not read everything before the time to close it was up"
    DRAINED = "the server drains"
    STOPPED = "the server stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatistics:
    """What has happened to a server's connections since it was made.

    At any moment, `accepted` is the sum of `clients` and of all values of `closed`.

    Attributes:
        clients: Connections at this moment, those in a handshake included.
        accepted: Connections accepted, those that were refused included.
        closed: How many of them ended for each reason; reasons that no connection had are missing.
        packets_received: Packets that handlers were given, and errors in their place.
        packets_sent: Packets that handlers have sent.
        bytes_received: Bytes of packets received, whole or not: after TLS, where there is TLS.
        bytes_sent: Bytes of packets sent: before TLS, where there is TLS.
        invalid_packets: Errors of the protocol object that were raised in place of packets.
        handler_errors: Exceptions of handlers that were logged as errors; also scopes that they
            left open, and descriptors of connections that other code has closed.
        tls_handshakes: TLS handshakes that were completed.
        tls_failures: TLS handshakes that were not.
        suppressed_log_lines: Lines about clients that the log did not get, because there were too
            many.
    """

    clients: int = 0
    accepted: int = 0
    closed: Mapping[CloseReason, int] = field(default_factory=dict)
    packets_received: int = 0
    packets_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    invalid_packets: int = 0
    handler_errors: int = 0
    tls_handshakes: int = 0
    tls_failures: int = 0
    suppressed_log_lines: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStatistics:
    """What has happened on one connection so far.

    Attributes:
        state: What its handler does: ``"greeting"`` (`on_connection()`), ``"waiting"`` for a
            packet, ``"working"``, ``"sending"`` (more waits to be sent than the client takes), or
            ``"closing"``.
        seconds: How long the connection exists.
        idle: Seconds since its handler began to wait for a packet; 0 while it does not.
        packets_received: As in `StreamStatistics`, like the next three.
        packets_sent: Packets sent.
        bytes_received: Bytes received.
        bytes_sent: Bytes sent.
        unsent: Bytes that wait to be sent.
    """

    state: str
    seconds: float
    idle: float
    packets_received: int
    packets_sent: int
    bytes_received: int
    bytes_sent: int
    unsent: int


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
        dropped_by_count: Those dropped because `DatagramLimits.max_waiting` datagrams of the same
            peer were waiting.
        dropped_by_size: Those dropped because more than `DatagramLimits.max_waiting_bytes` of the
            same peer would have been waiting.
        dropped_by_peers: Those dropped because `DatagramLimits.max_peers` other peers had a
            generator running, none of which could be evicted; and those of a peer that was evicted,
            until its generator had ended.
        dropped_by_host: Those dropped because `DatagramLimits.max_peers_per_host` peers of the same
            host had a generator running.
        dropped_by_port: Those dropped because they came from port 0: the sender takes no answers
            (RFC 768), and sending one fails.
        dropped_by_own_address: Those dropped because they came from an address on which the server
            itself receives: it would answer itself. On all interfaces, that is the server's port on
            any address of the machine. Does not concern Unix sockets.
        dropped_by_name: Those dropped because their sender has no name that an answer could be sent
            to (Unix sockets; see `AsyncUnixDatagramServer`).
        dropped_by_length: Those dropped because they were longer than the buffer (Unix sockets):
            their sender has asked the system for more than any process may.
        dropped_by_stop: Those dropped because they were waiting when the server stopped.
        waiting: Datagrams that wait at this moment until their peer's generator asks for them.
        peers: Peers that have a generator running at this moment.
        evicted: Peers whose generators had to end because others needed their places: see
            `DatagramLimits`.
    """

    received: int = 0
    invalid: int = 0
    refused: int = 0
    dropped_by_count: int = 0
    dropped_by_size: int = 0
    dropped_by_peers: int = 0
    dropped_by_host: int = 0
    dropped_by_port: int = 0
    dropped_by_own_address: int = 0
    dropped_by_name: int = 0
    dropped_by_length: int = 0
    dropped_by_stop: int = 0
    waiting: int = 0
    peers: int = 0
    evicted: int = 0

    @property
    def dropped(self) -> int:
        """All that were dropped."""
        counts = asdict(self).items()
        return sum(count for name, count in counts if name.startswith("dropped_by_"))
