"""The commands that read and change the data."""

from __future__ import annotations

import fnmatch
import inspect
import math
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from .resp import MAX_COMMAND, MAX_REPLY, NULL_ARRAY, Error, Reply
from .store import Store

MAX_PATTERN: Final = 256
MAX_SECONDS: Final = 10**10
MAX_NAMES: Final = 1000  # that a client watches, or subscribes to

_Function = TypeVar("_Function", bound=Callable[..., Reply])


class Entry(NamedTuple):
    """A command, and how many words it may have, its name included.

    Its function is called with an attribute of the client's session, and with the words that follow
    the name.
    """

    function: Callable[..., Reply]
    attribute: str
    fewest: float
    most: float


COMMANDS: Final[dict[bytes, Entry]] = {}


def command(name: str, attribute: str = "store") -> Callable[[_Function], _Function]:
    """Return a decorator that adds a function to the commands."""

    def register(function: _Function) -> _Function:
        words = inspect.signature(function).parameters.values()
        fewest = sum(each.default is each.empty for each in words)
        most: float = len(words)
        if any(each.kind is each.VAR_POSITIONAL for each in words):
            fewest, most = fewest - 1, math.inf
        COMMANDS[name.encode()] = Entry(function, attribute, fewest, most)
        return function

    return register


# Words


def parse_int(word: bytes) -> int:
    if len(word) <= 20 and word.removeprefix(b"-").isdigit():
        number = int(word)
        if -(2**63) <= number < 2**63:
            return number
    raise Error("ERR value is not an integer or out of range")


def parse_period(name: str, word: bytes, *, milliseconds: bool) -> float:
    seconds = parse_int(word) / (1000 if milliseconds else 1)
    if abs(seconds) > MAX_SECONDS:
        raise Error(f"ERR invalid expire time in '{name}' command")
    return seconds


def compile_pattern(pattern: bytes) -> re.Pattern[bytes]:
    """Return a pattern of a shell, such as ``news.*``, as a regular expression."""
    if len(pattern) > MAX_PATTERN:
        raise Error("ERR the pattern is too long")
    text = pattern.decode("latin-1").replace("[^", "[!")
    return re.compile(fnmatch.translate(text).encode("latin-1"))


def size_of(reply: Reply) -> int:
    """Return about how many bytes a reply has."""
    if isinstance(reply, list):
        sizes = [len(each) if type(each) is bytes else size_of(each) for each in reply]
        return sum(sizes) + 8 * len(sizes)
    return len(reply) if isinstance(reply, bytes) else 8


def check_string(size: int) -> None:
    """Make sure that a string may have so many bytes, before it is built."""
    if size > MAX_COMMAND:
        raise Error("ERR string exceeds maximum allowed size")


def check_names(names: Collection[bytes]) -> None:
    """Make sure that a client has few names that the server keeps."""
    if len(names) > MAX_NAMES or sum(map(len, names)) > MAX_COMMAND:
        raise Error("ERR too many names")


def limited(replies: list[Reply]) -> list[Reply]:
    """Return an array for the client, unless it is too large to wait in memory until it is sent."""
    if size_of(replies) > MAX_REPLY:
        raise Error("ERR the reply is too large")
    return replies


# Strings


@command("GET")
def get(store: Store, key: bytes) -> Reply:
    return store.get_string(key)


@command("SET")
def set_(store: Store, key: bytes, value: bytes, *options: bytes) -> Reply:
    names, period = parse_set_options(options) if options else ((), None)
    old = store.get_string(key) if b"GET" in names else None
    if names and (b"XX" if store.get(key) is None else b"NX") in names:
        return old
    store.put(key, value)
    if b"KEEPTTL" not in names:
        store.set_deadline(key, None if period is None else store.clock() + period)
    return old if b"GET" in names else "OK"


SET_OPTIONS: Final = {b"EX", b"PX", b"NX", b"XX", b"GET", b"KEEPTTL"}
EXCLUSIVE_OPTIONS: Final = ({b"NX", b"XX"}, {b"EX", b"PX", b"KEEPTTL"})


def parse_set_options(options: tuple[bytes, ...]) -> tuple[Collection[bytes], float | None]:
    names: set[bytes] = set()
    period = None
    words = iter(options)
    for word in words:
        names.add(name := word.upper())
        if name in (b"EX", b"PX"):
            period = parse_period("set", next(words, b""), milliseconds=name == b"PX")
            if period <= 0:
                raise Error("ERR invalid expire time in 'set' command")
    if names - SET_OPTIONS or any(len(names & each) > 1 for each in EXCLUSIVE_OPTIONS):
        raise Error("ERR syntax error")
    return names, period


@command("SETNX")
def setnx(store: Store, key: bytes, value: bytes) -> Reply:
    return int(set_(store, key, value, b"NX") is not None)


@command("MGET")
def mget(store: Store, key: bytes, *keys: bytes) -> Reply:
    values = map(store.get, (key, *keys))
    return limited([value if isinstance(value, bytes) else None for value in values])


@command("MSET")
def mset(store: Store, key: bytes, value: bytes, *others: bytes) -> Reply:
    if len(others) % 2:
        raise Error("ERR wrong number of arguments for 'mset' command")
    words = iter((key, value, *others))
    for each in words:
        set_(store, each, next(words))
    return "OK"


@command("APPEND")
def append(store: Store, key: bytes, value: bytes) -> Reply:
    old = store.get_string(key) or b""
    check_string(len(old) + len(value))
    store.put(key, old + value)
    return len(old) + len(value)


@command("STRLEN")
def strlen(store: Store, key: bytes) -> Reply:
    return len(store.get_string(key) or b"")


@command("INCRBY")
def incrby(store: Store, key: bytes, number: bytes) -> Reply:
    return add(store, key, parse_int(number))


@command("DECRBY")
def decrby(store: Store, key: bytes, number: bytes) -> Reply:
    return add(store, key, -parse_int(number))


@command("INCR")
def incr(store: Store, key: bytes) -> Reply:
    return add(store, key, 1)


@command("DECR")
def decr(store: Store, key: bytes) -> Reply:
    return add(store, key, -1)


def add(store: Store, key: bytes, number: int) -> int:
    total = parse_int(store.get_string(key) or b"0") + number
    if not -(2**63) <= total < 2**63:
        raise Error("ERR increment or decrement would overflow")
    store.put(key, b"%d" % total)
    return total


# Keys


@command("DEL")
def delete(store: Store, key: bytes, *keys: bytes) -> Reply:
    return sum(store.get(each) is not None and store.remove(each) for each in (key, *keys))


@command("EXISTS")
def exists(store: Store, key: bytes, *keys: bytes) -> Reply:
    return sum(store.get(each) is not None for each in (key, *keys))


@command("TYPE")
def type_(store: Store, key: bytes) -> Reply:
    value = store.get(key)
    if value is None:
        return "none"
    return "list" if isinstance(value, deque) else "string"


@command("KEYS")
def keys(store: Store, pattern: bytes) -> Reply:
    matches = compile_pattern(pattern).match
    return limited([key for key in store.get_keys() if matches(key)])


@command("DBSIZE")
def dbsize(store: Store) -> Reply:
    return len(store.get_keys())


@command("FLUSHDB")
def flushdb(store: Store, mode: bytes = b"SYNC") -> Reply:
    store.clear()
    return "OK"


# Expiry


@command("EXPIRE")
def expire(store: Store, key: bytes, seconds: bytes) -> Reply:
    return expire_after(store, key, parse_period("expire", seconds, milliseconds=False))


@command("PEXPIRE")
def pexpire(store: Store, key: bytes, milliseconds: bytes) -> Reply:
    return expire_after(store, key, parse_period("pexpire", milliseconds, milliseconds=True))


def expire_after(store: Store, key: bytes, seconds: float) -> int:
    if store.get(key) is None:
        return 0
    store.set_deadline(key, store.clock() + seconds)
    store.note_change(key)
    return 1


@command("TTL")
def ttl(store: Store, key: bytes) -> Reply:
    left = get_time_left(store, key)
    return left if left < 0 else (left + 500) // 1000


@command("PTTL")
def pttl(store: Store, key: bytes) -> Reply:
    return get_time_left(store, key)


def get_time_left(store: Store, key: bytes) -> int:
    """Return milliseconds; -1 without a deadline, -2 without a value."""
    if store.get(key) is None:
        return -2
    deadline = store.get_deadline(key)
    return -1 if deadline is None else math.ceil((deadline - store.clock()) * 1000)


@command("PERSIST")
def persist(store: Store, key: bytes) -> Reply:
    if store.get(key) is None or store.get_deadline(key) is None:
        return 0
    store.set_deadline(key, None)
    store.note_change(key)
    return 1


# Lists


@command("LPUSH")
def lpush(store: Store, key: bytes, value: bytes, *values: bytes) -> Reply:
    items = store.get_list(key) or deque()
    items.extendleft((value, *values))
    store.put(key, items)
    return len(items)


@command("RPUSH")
def rpush(store: Store, key: bytes, value: bytes, *values: bytes) -> Reply:
    items = store.get_list(key) or deque()
    items.extend((value, *values))
    store.put(key, items)
    return len(items)


@command("LPOP")
def lpop(store: Store, key: bytes, count: bytes | None = None) -> Reply:
    return pop(store, key, count, iter, deque.popleft)


@command("RPOP")
def rpop(store: Store, key: bytes, count: bytes | None = None) -> Reply:
    return pop(store, key, count, reversed, deque.pop)


def pop(
    store: Store,
    key: bytes,
    count: bytes | None,
    iterate: Callable[[deque[bytes]], Iterator[bytes]],
    take: Callable[[deque[bytes]], bytes],
) -> Reply:
    wanted = 1 if count is None else parse_int(count)
    if wanted < 0:
        raise Error("ERR value is out of range, must be positive")
    items = store.get_list(key)
    if items is None:
        return None if count is None else NULL_ARRAY
    taken = limited([*islice(iterate(items), wanted)])  # or nothing is removed
    for _ in taken:
        take(items)
    if items:
        store.note_change(key)
    else:
        store.remove(key)
    return taken[0] if count is None else taken


@command("LLEN")
def llen(store: Store, key: bytes) -> Reply:
    return len(store.get_list(key) or ())


@command("LRANGE")
def lrange(store: Store, key: bytes, start: bytes, stop: bytes) -> Reply:
    items = store.get_list(key) or ()
    first, last = parse_int(start), parse_int(stop)
    begin = max(first + len(items) if first < 0 else first, 0)
    end = min(last + len(items) if last < 0 else last, len(items) - 1) + 1
    return limited([*islice(items, begin, end)]) if begin < end else []
