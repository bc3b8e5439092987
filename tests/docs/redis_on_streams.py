"""The subset of Redis of the page, on asyncio's streams: what it costs without the library.

The commands and the encoding of replies are those of the page. The parser, the loop of a connection
and publishing are written by hand, as a program without the library would do it.

Usage: python -m tests.docs.redis_on_streams [easynetwork]

With the argument, the server of the page runs instead. Both print their port.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import itertools
import shlex
import sys
from collections import defaultdict
from functools import partial
from types import SimpleNamespace

from docs._include.examples.protocols.redis.miniredis.__main__ import new_server
from docs._include.examples.protocols.redis.miniredis.commands import COMMANDS, Entry
from docs._include.examples.protocols.redis.miniredis.connection import Connection
from docs._include.examples.protocols.redis.miniredis.handler import NOT_QUEUED
from docs._include.examples.protocols.redis.miniredis.resp import (
    MAX_COMMAND,
    MAX_WORDS,
    Command,
    Error,
    Reply,
    encode_reply,
)
from docs._include.examples.protocols.redis.miniredis.store import Store
from docs._include.examples.protocols.redis.miniredis.transactions import Transaction
from easynetwork.servers.statistics import StreamStatistics

STORE = Store(clock=lambda: asyncio.get_running_loop().time())
NUMBERS = itertools.count(1)
Topics = dict[bytes, set[asyncio.StreamWriter]]
CHANNELS: Topics = defaultdict(set)
PATTERNS: Topics = defaultdict(set)


class ProtocolError(Exception):
    pass


async def read_command(reader: asyncio.StreamReader) -> Command | None:
    """Return the words of the next command; None at the end of the stream."""
    line = await reader.readline()
    if not line:
        return None
    if not line.startswith(b"*"):
        try:
            return [word.encode("latin-1") for word in shlex.split(line.decode("latin-1"))]
        except ValueError:
            raise ProtocolError("unbalanced quotes in request") from None
    words = []
    for _ in range(parse_length(line, b"*", MAX_WORDS)):
        size = parse_length(await reader.readline(), b"$", MAX_COMMAND)
        words.append((await reader.readexactly(size + 2))[:-2])
    return words


def parse_length(line: bytes, prefix: bytes, most: int) -> int:
    digits = line[1:-2]
    if not (line.startswith(prefix) and digits.isdigit() and int(digits) <= most):
        raise ProtocolError("invalid length")
    return int(digits)


class Session:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.store = STORE
        self.transaction = Transaction(STORE)
        server = SimpleNamespace(get_statistics=lambda: StreamStatistics)
        self.connection = Connection(server, next(NUMBERS))
        self.names: list[tuple[Topics, bytes]] = []

    def close(self) -> None:
        self.transaction.close()
        for topics, name in self.names:
            topics[name].discard(self.writer)
            if not topics[name]:
                del topics[name]

    def answer(self, words: Command) -> Reply:
        name = words[0].upper()
        entry = COMMANDS.get(name)
        try:
            if name in (b"SUBSCRIBE", b"PSUBSCRIBE"):
                return self.subscribe(name, words)
            if name == b"PUBLISH":
                return self.publish(*words[1:])
            if name == b"PING":
                return words[1] if len(words) > 1 else "PONG"
            if entry is None:
                raise Error(f"ERR unknown command '{words[0].decode('latin-1')}'")
            if not entry.fewest <= len(words) <= entry.most:
                raise Error("ERR wrong number of arguments")
            if self.transaction.is_open and name not in NOT_QUEUED:
                return self.transaction.enqueue(partial(self.call, entry, words), words)
        except Error as error:
            self.transaction.is_invalid = True
            return error
        return self.call(entry, words)

    def call(self, entry: Entry, words: Command) -> Reply:
        try:
            return entry.function(getattr(self, entry.attribute), *words[1:])
        except Error as error:
            return error

    def subscribe(self, name: bytes, words: Command) -> Reply:
        *others, last = words[1:]
        topics = CHANNELS if name == b"SUBSCRIBE" else PATTERNS
        for each in [*others, last]:
            topics[each].add(self.writer)
            self.names.append((topics, each))
            if each is not last:
                self.writer.write(encode_reply([name.lower(), each, len(self.names)]))
        return [name.lower(), last, len(self.names)]

    def publish(self, channel: bytes, message: bytes) -> Reply:
        count = 0
        for writer in CHANNELS.get(channel, ()):
            writer.write(encode_reply([b"message", channel, message]))
            count += 1
        for pattern, writers in PATTERNS.items():
            if fnmatch.fnmatchcase(channel, pattern):
                for writer in writers:
                    writer.write(encode_reply([b"pmessage", pattern, channel, message]))
                    count += 1
        return count


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    session = Session(writer)
    try:
        while not session.connection.has_quit:
            words = await read_command(reader)
            if words is None:
                break
            if words:
                writer.write(encode_reply(session.answer(words)))
                await writer.drain()
    except ProtocolError as error:
        writer.write(encode_reply(Error(f"ERR Protocol error: {error}")))
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        session.close()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def on_streams() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


async def on_easynetwork() -> None:
    async with new_server(0) as server:
        print(server.get_addresses()[0].port, flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(on_easynetwork() if sys.argv[1:] == ["easynetwork"] else on_streams())
