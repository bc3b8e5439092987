"""Which connections of a server that drains are ended, and when.

    between two requests, nothing received    at once
    a request at work, or received            when the handler asks for the next one
    anything else that waits for the client   when that is silent for a second (`SILENCE`)

A session that is about to wait for its client asks `may_wait()`. `end_silent()` looks at those that
wait already, and is called again when the next one may be due.

A client is ended as if it had ended its side: nothing more is received, the session closes the
handler's generator, and what was sent before still leaves. A request that arrives at this moment
is either here, and served, or never read.

While a server does not drain, nothing of this costs anything but one assignment per packet: the
`Stage` of the client.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from easynetwork.servers.statistics import CloseReason

if TYPE_CHECKING:
    from easynetwork.servers._stream.census import Census
    from easynetwork.servers._stream.packets import PacketClient

SILENCE: Final = 1.0
"""Seconds after which a client that could still say something is taken to have nothing to say.

Several round trips on any network. (RFC 6298, 2.1: as long as TCP waits before it first retries.)
"""


class Stage(enum.Enum):
    """What the next packet of a client is, if a task waits for one."""

    NEW = "its first request"
    IDLE = "its next request"
    CONVERSING = "part of a conversation: at a later yield, in on_connection() or recv_packet()"
    HANDSHAKE = "part of a TLS handshake"


@dataclass(slots=True)
class _Waiting:
    """How long a handler has been waiting for a client.

    Attributes:
        client: The client.
        since: When it began to, on the event loop's clock, after the client was last heard.
        heard: When bytes of the client arrived last.
    """

    client: PacketClient
    since: float
    heard: float = field(default=-math.inf)

    def feed(self, data: bytes) -> int:
        """Stand in for the feed function of the client's decoder."""
        self.heard = self.client.tasks.clock()
        return self.client.decoder.feed(data)


class StreamDrain:
    """Ends the clients of a server that drains.

    Args:
        census: The clients.
        changed: Called when there is one less.
    """

    __slots__ = ("_census", "_waiting", "changed")

    def __init__(self, census: Census, changed: Callable[[], None]) -> None:
        self.changed: Callable[[], None] = changed
        self._census = census
        self._waiting: dict[PacketClient, _Waiting] = {}

    def may_wait(self, client: PacketClient) -> bool:
        """Whether a task may wait for a packet of a client, now that none is at hand."""
        if client.ended_by is CloseReason.DRAINED:
            return False
        now = anyio.current_time()
        if _has_finished(client, now):
            client.end_by(CloseReason.DRAINED)
            return False
        self._note_waiting(client, now)
        return True

    def _note_waiting(self, client: PacketClient, now: float) -> _Waiting:
        waiting = self._waiting.get(client)
        if waiting is None:
            waiting = self._waiting[client] = _Waiting(client, now)
        elif waiting.heard >= waiting.since:
            # Otherwise, this waits since its last packet: it only woke up to send something.
            waiting.since = now
        client.transport.feed = waiting.feed  # again: the protocol may have changed
        return waiting

    def end_silent(self) -> float:
        """End the clients that are waited for in vain; return when to look again."""
        now = anyio.current_time()
        next_look = now + SILENCE
        for session in list(self._census.sessions):
            client = session.client
            is_ending = client.is_over or client.ended_by is CloseReason.DRAINED
            if is_ending or not client.is_receiving or client.stage is Stage.HANDSHAKE:
                continue
            due = now if _has_finished(client, now) else self._due(client, now)
            if due <= now:
                client.end_by(CloseReason.DRAINED)
                client.transport.stop_receiving()
            else:
                next_look = min(next_look, due)
        return next_look

    def _due(self, client: PacketClient, now: float) -> float:
        waiting = self._waiting.get(client) or self._note_waiting(client, now)
        if client.get_unsent_size() or client.transport.has_unread():
            waiting.since = now
        due = max(waiting.since, waiting.heard) + SILENCE
        is_young = client.stage is Stage.NEW and now < client.connected + SILENCE
        return min(due, client.connected + SILENCE) if is_young else due


def _has_finished(client: PacketClient, now: float) -> bool:
    """Whether a client has nothing at work, and nothing on its way that could be seen.

    One that has just connected is about to send its first request: it may have waited in the
    backlog.
    """
    if client.stage is Stage.NEW:
        if now < client.connected + SILENCE:
            return False
    elif client.stage is not Stage.IDLE:
        return False
    return not client.decoder and not client.transport.has_unread()
