"""Transactions: several commands that nothing comes between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .commands import check_names, command, size_of
from .resp import MAX_COMMAND, MAX_REPLY, NULL_ARRAY, Command, Error, Reply
from .store import Store

Call: TypeAlias = Callable[[], Reply]


class Transaction:
    """That of one client.

    Attributes:
        is_open: Whether commands are queued.
        is_invalid: Whether one of them could not be queued.
        has_failed: Whether a watched key has changed.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.is_open = False
        self.is_invalid = False
        self.has_failed = False
        self._queue: list[Call] = []
        self._size = 0
        self._watched: set[bytes] = set()

    def close(self) -> None:
        self.is_open = self.is_invalid = False
        self._queue, self._size = [], 0
        self.unwatch()

    def enqueue(self, call: Call, words: Command) -> Reply:
        self._size += sum(map(len, words)) + 100 * len(words)
        if self._size > MAX_COMMAND:
            raise Error("ERR the transaction is too large")
        self._queue.append(call)
        return "QUEUED"

    @command("MULTI", "transaction")
    def multi(self) -> Reply:
        if self.is_open:
            raise Error("ERR MULTI calls can not be nested")
        self.is_open = True
        return "OK"

    @command("DISCARD", "transaction")
    def discard(self) -> Reply:
        if not self.is_open:
            raise Error("ERR DISCARD without MULTI")
        self.close()
        return "OK"

    @command("EXEC", "transaction")
    def exec(self) -> Reply:
        if not self.is_open:
            raise Error("ERR EXEC without MULTI")
        for key in self._watched:
            self.store.get(key)  # notices that it has expired
        calls, is_invalid, has_failed = self._queue, self.is_invalid, self.has_failed
        self.close()
        if is_invalid:
            raise Error("EXECABORT Transaction discarded because of previous errors.")
        return NULL_ARRAY if has_failed else self._run(calls)

    def _run(self, calls: list[Call]) -> Reply:
        replies: list[Reply] = []
        size = 0
        for call in calls:
            reply = call()
            size += size_of(reply)
            replies.append(reply if size <= MAX_REPLY else Error("ERR the reply is too large"))
        return replies

    @command("WATCH", "transaction")
    def watch(self, key: bytes, *keys: bytes) -> Reply:
        if self.is_open:
            raise Error("ERR WATCH inside MULTI is not allowed")
        check_names(self._watched.union((key, *keys)))
        for each in (key, *keys):
            self.store.watch(each, self)
            self._watched.add(each)
        return "OK"

    @command("UNWATCH", "transaction")
    def unwatch(self) -> Reply:
        for key in self._watched:
            self.store.unwatch(key, self)
        self._watched.clear()
        self.has_failed = False
        return "OK"
