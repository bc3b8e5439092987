"""The data: values by key, until they expire."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias

import anyio

from .resp import Error

Value: TypeAlias = bytes | deque[bytes]


class Watcher(Protocol):
    """A transaction that fails if a key changes that it has read."""

    has_failed: bool


class Store:
    def __init__(self, clock: Callable[[], float] = anyio.current_time) -> None:
        self.clock = clock
        self._values: dict[bytes, Value] = {}
        self._deadlines: dict[bytes, float] = {}
        self._next: list[tuple[float, bytes]] = []  # a heap of deadlines, some of them outdated
        self._watchers: dict[bytes, set[Watcher]] = {}

    # Reading

    def get(self, key: bytes) -> Value | None:
        if key in self._deadlines and self._deadlines[key] <= self.clock():
            self.remove(key)
        return self._values.get(key)

    def get_string(self, key: bytes) -> bytes | None:
        value = self.get(key)
        if isinstance(value, deque):
            raise Error("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def get_list(self, key: bytes) -> deque[bytes] | None:
        value = self.get(key)
        if isinstance(value, bytes):
            raise Error("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def get_keys(self) -> list[bytes]:
        self.remove_expired()
        return list(self._values)

    # Writing

    def put(self, key: bytes, value: Value) -> None:
        """Set the value of a key. Its deadline stays."""
        self._values[key] = value
        self.note_change(key)

    def remove(self, key: bytes) -> bool:
        if key not in self._values:
            return False
        del self._values[key]
        self._deadlines.pop(key, None)
        self.note_change(key)
        return True

    def clear(self) -> None:
        for key in list(self._values):
            self.remove(key)

    def note_change(self, key: bytes) -> None:
        """Have the transactions fail that watch a key. Called after each change."""
        for watcher in self._watchers.get(key, ()):
            watcher.has_failed = True

    # Expiring

    def get_deadline(self, key: bytes) -> float | None:
        return self._deadlines.get(key)

    def set_deadline(self, key: bytes, deadline: float | None) -> None:
        if deadline is None:
            self._deadlines.pop(key, None)
            return
        self._deadlines[key] = deadline
        heapq.heappush(self._next, (deadline, key))
        if len(self._next) > 2 * len(self._deadlines) + 1000:
            self._next = [(deadline, key) for key, deadline in self._deadlines.items()]
            heapq.heapify(self._next)

    def remove_expired(self) -> None:
        now = self.clock()
        while self._next and self._next[0][0] <= now:
            deadline, key = heapq.heappop(self._next)
            if self._deadlines.get(key) == deadline:
                self.remove(key)

    # Watching

    def watch(self, key: bytes, watcher: Watcher) -> None:
        self.get(key)  # if it has expired, that is no change
        self._watchers.setdefault(key, set()).add(watcher)

    def unwatch(self, key: bytes, watcher: Watcher) -> None:
        self._watchers[key].discard(watcher)
        if not self._watchers[key]:
            del self._watchers[key]
