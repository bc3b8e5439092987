"""The load: many links kept busy, or asked at a fixed rate.

*Closed loop*: each link has a fixed number of requests in flight, sent as one batch; when the
whole batch is answered the next one leaves (as ``redis-benchmark -P`` does). It shows what a
request costs when there is always another one. *Open loop*: requests leave at fixed times whether
or not earlier ones were answered, and a latency counts from the time at which the request was
due. It shows what a user waits for; a closed loop hides that, since it does not ask a stalled
server.

The load must not limit what is measured, so it says when it did. In a closed loop it waits for the
server; if it hardly ever had to while the server did, the load was the limit. In an open loop it
spins, for the clock of ``epoll`` ticks in milliseconds, and keeps how late its own requests left.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, DefaultSelector

from .links import DatagramLink, Link
from .process import Reading

__all__ = ["Load", "closed_loop", "open_loop"]

# Seconds. A batch of datagrams not answered by then has lost some and is sent again: ten times
# what the slowest contender needs for all batches that are on their way together.
DATAGRAM_PATIENCE = 0.2
# Seconds that an open loop waits for the answers to its last requests.
GRACE = 1.0
# Shares of a core. The load was the limit when it was that busy while the server was not.
SATURATED = 0.9


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """What a load did and saw between two readings of the server.

    Attributes:
        answers: Requests answered.
        before: The server when the measured time began.
        after: The server when it ended.
        latencies: Seconds; of each batch (closed loop) or each request (open loop).
        busy: Share of the time in which the load itself was running.
        lost: Batches of datagrams that had to be sent again.
        late: Seconds; how late each request of an open loop left.
    """

    answers: float
    before: Reading
    after: Reading
    latencies: list[float]
    busy: float
    lost: int = 0
    late: list[float] = dataclasses.field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The seconds between the two readings."""
        return self.after.clock - self.before.clock

    @property
    def server_seconds(self) -> float:
        """Processor time that the server took."""
        return self.after.processor - self.before.processor

    @property
    def was_the_limit(self) -> bool:
        """Whether a closed loop would have gone faster with a faster load."""
        return self.busy > SATURATED > self.server_seconds / self.seconds


def closed_loop(
    links: Sequence[Link], *, warm_up: float, duration: float, reading: Callable[[], Reading]
) -> Load:
    """Keep a batch in flight on each link.

    Args:
        links: At least one.
        warm_up: Seconds before measuring.
        duration: Seconds to measure.
        reading: Reads the server's meters.
    """
    latencies: list[float] = []
    with DefaultSelector() as selector:
        for link in links:
            selector.register(link.sock, EVENT_READ, link)
            _ask(selector, link, time.perf_counter())
        _converse(selector, links, warm_up, latencies)
        latencies.clear()
        before, busy = reading(), time.process_time()
        answered, lost = _converse(selector, links, duration, latencies)
        busy, after = time.process_time() - busy, reading()
    busy /= after.clock - before.clock
    return Load(answered / links[0].line_size, before, after, latencies, busy, lost)


def open_loop(
    links: Sequence[Link],
    *,
    rate: float,
    warm_up: float,
    duration: float,
    reading: Callable[[], Reading],
) -> Load:
    """Send requests at a fixed rate, to one link after the other.

    A request that is still unanswered at the end counts with the time it has waited so far.

    Args:
        links: At least one, with one line in a batch.
        rate: Requests per second.
        warm_up: Seconds before measuring.
        duration: Seconds to measure.
        reading: Reads the server's meters.
    """
    start = time.perf_counter()
    with DefaultSelector() as selector:
        schedule = _Schedule(selector, links, start, 1 / rate)
        schedule.follow(start + warm_up)
        schedule.latencies.clear()
        schedule.late.clear()
        before, busy = reading(), time.process_time()
        schedule.follow(start + warm_up + duration)
        busy, after = time.process_time() - busy, reading()
        answers = len(schedule.latencies)
        schedule.finish(time.perf_counter() + GRACE)
    busy /= after.clock - before.clock
    return Load(answers, before, after, schedule.latencies, busy, late=schedule.late)


def _ask(selector: BaseSelector, link: Link, now: float) -> None:
    link.ask(now)
    if link.unsent:
        selector.modify(link.sock, EVENT_READ | EVENT_WRITE, link)


def _take(selector: BaseSelector, link: Link, events: int) -> int:
    """Do what a link is ready for; return how many bytes of answers came."""
    if events & EVENT_WRITE:
        link.flush()
        if not link.unsent:
            selector.modify(link.sock, EVENT_READ, link)
        if not events & EVENT_READ:
            return 0
    return link.take()


def _converse(
    selector: BaseSelector, links: Sequence[Link], duration: float, latencies: list[float]
) -> tuple[int, int]:
    """Repeat each batch that is answered; return the bytes of answers and the lost batches."""
    clock = time.perf_counter
    answered = lost = 0
    now = clock()
    until, check_at = now + duration, now + DATAGRAM_PATIENCE
    while now < until:
        for key, events in selector.select(min(until - now, DATAGRAM_PATIENCE)):
            link = key.data
            answered += _take(selector, link, events)
            if not link.missing:
                now = clock()
                latencies.append(now - link.asked_at)
                _ask(selector, link, now)
        now = clock()
        if now > check_at:
            check_at = now + DATAGRAM_PATIENCE
            for link in links:
                if isinstance(link, DatagramLink) and now - link.asked_at > DATAGRAM_PATIENCE:
                    lost += 1
                    link.ask(now)
    return answered, lost


class _Schedule:
    """Requests that are due at fixed times, and those of them that are not answered yet."""

    __slots__ = ("due", "interval", "late", "latencies", "selector", "turns", "waiting")

    def __init__(
        self, selector: BaseSelector, links: Sequence[Link], start: float, interval: float
    ) -> None:
        self.selector, self.due, self.interval = selector, start, interval
        for link in links:
            selector.register(link.sock, EVENT_READ, link)
        self.waiting = {link: collections.deque[float]() for link in links}
        self.turns = itertools.cycle(links)
        self.latencies: list[float] = []
        self.late: list[float] = []

    def follow(self, until: float) -> None:
        """Send all that is due until that time, and take answers meanwhile."""
        now = time.perf_counter()
        while True:
            while self.due <= min(now, until):
                link = next(self.turns)
                _ask(self.selector, link, now)
                self.waiting[link].append(self.due)
                self.late.append(now - self.due)
                self.due += self.interval
            if now >= until:
                return
            self.take_answers()
            now = time.perf_counter()

    def take_answers(self) -> None:
        """Take the answers that have come."""
        for key, events in self.selector.select(0):
            link, waiting = key.data, self.waiting[key.data]
            _take(self.selector, link, events)
            unanswered = -(-link.missing // link.line_size)
            now = time.perf_counter()
            while len(waiting) > unanswered:
                self.latencies.append(now - waiting.popleft())

    def finish(self, deadline: float) -> None:
        """Wait for the last answers; count those that do not come by then as if they had."""
        while any(self.waiting.values()) and time.perf_counter() < deadline:
            self.take_answers()
        now = time.perf_counter()
        self.latencies += [now - due for waiting in self.waiting.values() for due in waiting]
