"""End the connections of clients that are too slow. One task does, for all clients of a server.

A client is looked at when one of its limits may be met at the earliest. Which ones may be depends
on where it is:

    its first packet is not here yet       first_packet_timeout
    a packet is here in part               packet_timeout
    its handler waits for a packet         idle_timeout, if nothing waits to be sent to it
    something waits to be sent to it       send_timeout

While its handler does something else than wait for a packet, only the last one counts.

Looks are due every half a second, so that many clients share one. The task exists while some are
due: there is no timer per client, and a server whose clients are idle does nothing. That a client
has taken data, or that something was sent to it, is noticed at the next look, which is due after a
quarter of the limit at the latest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
import anyio.lowlevel

from easynetwork._tuning import LOOK_SHARE
from easynetwork.backends.abc import SessionTasks
from easynetwork.backends.abc.stream import UNOBSERVED, PaceObserver
from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.servers.limits import Limits
from easynetwork.servers.statistics import CloseReason

if TYPE_CHECKING:
    from easynetwork.servers._stream.packets import PacketClient

_LOOKS_PER_SECOND: Final = 2

_RATE: Final = 1024
"""Bytes of a packet that earn it another second."""


class _Partial(NamedTuple):
    """A packet that is here in part."""

    number: int  # of packets before it
    since: float
    received: int  # bytes, when it was noticed


class _Progress(NamedTuple):
    """When the client has last taken a part of what waits to be sent to it."""

    since: float
    taken: int
    unacknowledged: int


class Supervision(PaceObserver):
    """What is known of the pace of one client.

    Attributes:
        limits: What it is allowed.
        due: When it is looked at next, in looks; None if it is not.
    """

    __slots__ = (
        "_client",
        "_partial",
        "_progress",
        "_pushed",
        "_timeouts",
        "due",
        "limits",
    )

    def __init__(self, timeouts: Timeouts, client: PacketClient, limits: Limits) -> None:
        self._timeouts = timeouts
        self._client = client
        self._partial: _Partial | None = None
        self._progress: _Progress | None = None
        self._pushed = 0, client.connected  # bytes sent while it waited, and when they were seen
        self.due: int | None = None
        self.limits: Limits = limits
        client.transport.observer = self
        if limits.first_packet_timeout is not None or limits.idle_timeout is not None:
            self._timeouts.look(self, client.connected)

    def change(self, limits: Limits) -> None:
        """Have other limits hold from now on, also for what has begun already."""
        self.limits = limits
        self._timeouts.look(self, self._timeouts.now())

    def end(self) -> None:
        """Do not look at the client any more."""
        self._client.transport.observer = UNOBSERVED
        self._timeouts.forget(self)

    # -- what happens

    def note_partial(self) -> None:
        """Take note that a packet may be here in part. May be called for each part of it."""
        decoder = self._client.decoder
        if not self._is_partial():
            self._partial = None  # bytes that are no part of a packet: the next one begins later
        elif self._partial is None or self._partial.number != decoder.taken:
            now = self._timeouts.now()
            self._partial = _Partial(decoder.taken, now, decoder.received)
            if self.limits.packet_timeout is not None:
                self._timeouts.look(self, now + self.limits.packet_timeout)

    def note_unsent(self) -> None:
        """Take note that bytes begin to wait to be sent."""
        if self.limits.send_timeout is not None:
            now = self._timeouts.now()
            self._progress = None
            self._sending(now)
            self._timeouts.look(self, self.next_look(now, now + self.limits.send_timeout))

    def _is_partial(self) -> bool:
        return self._client.decoder.has_rest or self._client.transport.has_partial

    # -- what is due

    def next_limit(self, now: float) -> tuple[float, CloseReason] | None:
        """Return the limit that is met first, and when, if nothing changes; None for none."""
        found = [*self._receiving(now), *self._sending(now)]
        return min(found, key=lambda limit: limit[0], default=None)

    def next_look(self, now: float, due: float) -> float:
        """Return when to look again: in time to see whether something has changed."""
        return min(due, now + max(1.0, (due - now) * LOOK_SHARE))

    def _receiving(self, now: float) -> list[tuple[float, CloseReason]]:
        client, limits, partial = self._client, self.limits, self._partial
        decoder = client.decoder
        found: list[tuple[float, CloseReason]] = []
        if client.is_over:
            return found  # one of these limits is met already
        since = now
        if client.is_receiving and not decoder.at_hand and client.waiting_since is not None:
            since = client.waiting_since
        if limits.first_packet_timeout is not None and not decoder.taken:
            due = since + limits.first_packet_timeout
            found.append((due, CloseReason.FIRST_PACKET_TIMEOUT))
        if (
            limits.packet_timeout is not None
            and partial is not None
            and partial.number == decoder.taken
            and self._is_partial()
        ):
            earned = (decoder.received - partial.received) / _RATE
            due = max(partial.since, since) + limits.packet_timeout + earned
            found.append((due, CloseReason.PACKET_TIMEOUT))
        if limits.idle_timeout is not None:
            is_new = client.bytes_sent not in (client.sent_before, self._pushed[0])
            if is_new or client.transport.get_unsent_size():  # or the client still receives
                self._pushed = client.bytes_sent, now
            due = max(since, self._pushed[1]) + limits.idle_timeout
            found.append((due, CloseReason.IDLE_TIMEOUT))
        return found

    def _sending(self, now: float) -> list[tuple[float, CloseReason]]:
        timeout = self.limits.send_timeout
        if timeout is None or (progress := self._client.transport.get_progress()) is None:
            return []
        taken, unacknowledged = progress
        last = self._progress
        if last is None or taken > last.taken or unacknowledged < last.unacknowledged:
            last = self._progress = _Progress(now, taken, unacknowledged)
        return [(last.since + timeout, CloseReason.SEND_TIMEOUT)]

    def meet(self, reason: CloseReason, log: ServerLog) -> None:
        """End the connection, because a limit is met."""
        client = self._client
        client.end_by(reason)
        if reason is CloseReason.SEND_TIMEOUT:
            log.limit("%s is reset: %s", client.address, reason.value)
            client.transport.abort()
        else:
            log.limit("%s is closed: %s", client.address, reason.value)
            client.is_over = True
            client.transport.stop_receiving()


class Timeouts:
    """When to look at which client.

    Args:
        log: Gets a line for each client that meets a limit.
    """

    __slots__ = ("_clock", "_is_running", "_log", "_looks", "_tasks", "_woken")

    def __init__(self, log: ServerLog) -> None:
        self._log = log
        self._looks: dict[int, set[Supervision]] = {}
        self._is_running = False
        self._woken = anyio.Event()
        self._tasks: SessionTasks | None = None
        self._clock: Callable[[], float] = anyio.current_time

    def start(self, tasks: SessionTasks) -> None:
        """Take note of where tasks can be started.

        Args:
            tasks: The owner of the tasks of the server's clients.
        """
        self._tasks, self._clock = tasks, tasks.clock
        self._is_running = False

    def now(self) -> float:
        """Return the time on the event loop's clock."""
        return self._clock()

    def look(self, supervision: Supervision, when: float) -> None:
        """Have a client looked at some time, unless that is due earlier."""
        due = int(when * _LOOKS_PER_SECOND) + 1
        if supervision.due is not None:
            if supervision.due <= due:
                return
            self.forget(supervision)
        supervision.due = due
        self._looks.setdefault(due, set()).add(supervision)
        if not self._is_running and self._tasks is not None:
            self._is_running = True
            self._tasks.start(self._run, self._tasks, name="timeouts of clients")
        elif len(self._looks[due]) == 1:
            self._woken.set()

    def forget(self, supervision: Supervision) -> None:
        """Do not look at a client."""
        due, supervision.due = supervision.due, None
        clients = self._looks.get(-1 if due is None else due)
        if clients is not None and due is not None:
            clients.discard(supervision)
            if not clients:
                del self._looks[due]
                self._woken.set()

    async def _run(self, tasks: SessionTasks) -> None:
        try:
            with tasks.scope():
                while self._looks:
                    self._woken = anyio.Event()
                    due = min(self._looks)
                    with anyio.CancelScope(deadline=due / _LOOKS_PER_SECOND):
                        await self._woken.wait()
                    now = self.now()
                    if now * _LOOKS_PER_SECOND >= due:
                        # If the loop was busy, what has come until now is read first. Meanwhile,
                        # it may be busy again.
                        await anyio.lowlevel.checkpoint()
                        self._look_at_all(due, now)
        finally:
            self._is_running = False

    def _look_at_all(self, due: int, now: float) -> None:
        # Not in `_run()`, which would keep the last one.
        for supervision in self._looks.pop(due, ()):
            supervision.due = None
            self._look_now(supervision, now)

    def _look_now(self, supervision: Supervision, now: float) -> None:
        found = supervision.next_limit(now)
        if found is not None and found[0] <= now:
            supervision.meet(found[1], self._log)
            found = supervision.next_limit(now)  # after some limits, the handler may go on sending
        if found is not None:
            due = found[0]
            self.look(supervision, supervision.next_look(now, due))
