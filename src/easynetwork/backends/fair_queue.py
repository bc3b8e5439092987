"""Share the turns of an event loop among busy connections.

A chunk of 64 KiB holds a thousand small requests, which take milliseconds. If each of 400 clients
had one of its chunks served in every turn of the loop, the next client would wait for a second. So
large reads are charged to a budget that all connections of the loop share, and that is renewed once
per turn. When it is exhausted, busy connections wait in a queue, and others read only a little.

The order is that of start-time fair queueing (Goyal, Vin and Cheng, 1996): each flow has a tag, the
bytes that it would have had if all had got the same since it became busy, and the lowest goes
first. A flow that uses less than its share waits for a turn or two, however many there are.

Bytes are a rough measure: a chunk of one large packet takes microseconds, a few requests to a slow
handler take milliseconds. So the budget grows while turns of the loop are short, and shrinks while
they are long.
"""

from __future__ import annotations

import heapq
import itertools
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

import anyio
from anyio.lowlevel import RunVar, current_token

QUANTUM: Final = 64 * 1024
"""Bytes that all busy connections together may read in one turn of the loop: a chunk of the default
size, which takes 2 to 3 ms if it holds requests of 64 bytes (measured)."""

BUSY_SIZE: Final = 1460
"""Bytes of one read that are charged: what a TCP segment carries over Ethernet. A peer that has
sent more since the last read has sent more than one small request."""

BUSY_PACKETS: Final = 16
"""Packets of one read that are charged, however few bytes they have."""

_PACKET_COST: Final = 64
"""Bytes that a smaller packet is charged as: to serve it takes as long (measured)."""

SMALL_SIZE: Final = 256
"""Bytes that a connection may read without waiting when the budget is exhausted. Requests of one
byte, of which it could hold so many, take half a millisecond (measured)."""

_MAX_BUDGET: Final = 16 * QUANTUM

_SHORT, _LONG = 0.003, 0.008
"""Seconds that two turns of the loop take when the budget grows, and when it shrinks."""

# Weakly, because a queue refers to its event loop: connections keep it, and nobody else does.
_fair_queue: Final = RunVar["weakref.ref[FairQueue]"]("_fair_queue")


class Flow(Protocol):
    """A connection, as far as it is scheduled here."""

    finish_tag: int
    """The bytes that it has had, and would have had while it was not busy. Starts with 0."""


class FairQueue:
    """The connections of an event loop that wait to be served, and what the others may read.

    Not thread-safe.

    Attributes:
        is_exhausted: Whether a connection that is about to read has to ask `must_wait()`.
        call_soon: Calls a function at the next turn of the loop.
    """

    __slots__ = (
        *("_budget", "_granted", "_heap", "_is_scheduled", "_numbers", "_renewals"),
        *("__weakref__", "_small_view", "_virtual_time", "_waiting", "call_soon", "is_exhausted"),
    )

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self.is_exhausted: bool = False
        self.call_soon: Callable[[Callable[[], None]], object] = call_soon
        self._budget = self._granted = QUANTUM
        self._is_scheduled = False  # the next renewal
        self._renewals = (0.0, 0.0)  # when the last two were
        self._virtual_time = QUANTUM  # the tag with which a flow was served last
        self._small_view = memoryview(bytearray(SMALL_SIZE))
        # Those that have left keep their places until these come up, so that a flow that leaves and
        # comes back, again and again, has one only.
        self._waiting: dict[object, Callable[[], None] | None] = {}
        self._heap: list[tuple[int, int, object]] = []
        self._numbers = itertools.count()  # of equal tags, the first goes first

    def must_wait(self, flow: Flow) -> bool:
        """Whether a flow has to `enter()` before it reads: it has been busy lately.

        It may come first then. Otherwise it would read a little now and the rest in its turn.
        """
        return self.is_exhausted and flow.finish_tag > self._virtual_time - QUANTUM

    def limited(self, view: memoryview) -> memoryview:
        """Return the view to read into without waiting, when the budget is exhausted.

        What fills it is to be charged, so that the flow waits before it reads again.
        """
        return min(view, self._small_view, key=len)

    def charge(self, flow: Flow, nbytes: int, packets: int = 0) -> None:
        """Charge to the budget and to a flow what it has read, if that is much.

        Args:
            flow: The flow.
            nbytes: How many bytes that was.
            packets: How many packets were in it, about.
        """
        nbytes = max(nbytes, packets * _PACKET_COST)
        self._virtual_time = max(self._virtual_time, flow.finish_tag)
        flow.finish_tag = self._virtual_time + nbytes
        self._budget -= nbytes
        self.is_exhausted = self._budget <= 0
        self._schedule()

    def enter(self, key: object, flow: Flow, serve: Callable[[], None]) -> None:
        """Let a flow wait.

        Args:
            key: What stands for it in the queue. One that waits already keeps its place.
            flow: The flow.
            serve: Called when its turn has come. What it does is to be charged by then.
        """
        if key not in self._waiting:
            heapq.heappush(self._heap, (flow.finish_tag, next(self._numbers), key))
        self._waiting[key] = serve
        self._schedule()

    def leave(self, key: object) -> bool:
        """Wait no more; return whether the key was waiting."""
        if self._waiting.get(key) is None:
            return False
        self._waiting[key] = None
        return True

    async def give_way(self, flow: Flow) -> None:
        """Implement `StreamTransport.give_way`."""
        turn = anyio.Event()

        def serve() -> None:
            self.charge(flow, QUANTUM)
            turn.set()

        self.enter(turn, flow, serve)
        try:
            await turn.wait()
        finally:
            self.leave(turn)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self.call_soon(self._renew)

    def _renew(self) -> None:
        self._is_scheduled = False
        self._adapt(time.perf_counter())
        self._budget = self._granted
        self.is_exhausted = False
        if self._heap:
            self._schedule()  # first: if a flow raises, the others must not wait for ever
        while self._heap and not self.is_exhausted:
            _, _, key = heapq.heappop(self._heap)
            if serve := self._waiting.pop(key):
                serve()

    def _adapt(self, now: float) -> None:
        """Change the budget by how long turns take.

        Two at a time: this runs before or after the tasks that serve what was read in a turn. While
        no flow waits, a long time may have been a pause, after which the first chunk is whole.
        """
        earlier, last = self._renewals
        self._renewals = last, now
        if now - earlier < _SHORT:
            self._granted = min(self._granted * 2, _MAX_BUDGET)
        elif now - earlier > _LONG:
            self._granted = max(self._granted // 2, BUSY_SIZE if self._heap else QUANTUM)


def fair_queue() -> FairQueue:
    """Return the queue of the running event loop."""
    reference = _fair_queue.get(None)
    queue = None if reference is None else reference()
    if queue is None:
        loop: Any = current_token().native_token
        queue = FairQueue(getattr(loop, "call_soon", None) or partial(_run_sync_soon, loop))
        _fair_queue.set(weakref.ref(queue))
    return queue


def _run_sync_soon(token: Any, callback: Callable[[], None]) -> None:
    # At its end, trio makes the last calls, and refuses new ones (`RunFinishedError`). An exception
    # here would be one of trio's own.
    with suppress(RuntimeError):
        token.run_sync_soon(callback)
