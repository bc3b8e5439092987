"""The subset of Redis of the page, on asyncio's streams: what it costs without the library.

The commands, the session of a client and the encoding of replies are those of the page. Parsing,
the loop of a connection and publishing are written by hand, as in a program without the library.

Usage: python -m tests.docs.redis_on_streams [easynetwork]

With the argument, the server of the page runs instead. Both print their port.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shlex
import sys
from types import SimpleNamespace
from typing import Any

from docs._include.examples.protocols.redis.miniredis.__main__ import new_server
from docs._include.examples.protocols.redis.miniredis.commands import compile_pattern
from docs._include.examples.protocols.redis.miniredis.handler import Session
from docs._include.examples.protocols.redis.miniredis.resp import (
    MAX_COMMAND,
    MAX_WORDS,
    Command,
    Error,
    Replies,
    Reply,
    encode_reply,
)
from docs._include.examples.protocols.redis.miniredis.store import Store


class PubSub:
    """Writes to all subscribers, however much waits for them already."""

    def __init__(self) -> None:
        self.topics: dict[str, dict[bytes, set[Any]]] = {"subscribe": {}, "psubscribe": {}}

    def join(self, writer: asyncio.StreamWriter, kind: str, name: bytes) -> None:
        self.topics[kind].setdefault(name, set()).add(writer)

    def leave(self, writer: asyncio.StreamWriter, kind: str, name: bytes) -> None:
        self.topics[kind][name].discard(writer)
        if not self.topics[kind][name]:
            del self.topics[kind][name]

    def publish(self, channel: bytes, message: bytes) -> int:
        count = self.write(self.topics["subscribe"].get(channel), [b"message", channel, message])
        for name, writers in self.topics["psubscribe"].items():
            if compile_pattern(name).match(channel):
                count += self.write(writers, [b"pmessage", name, channel, message])
        return count

    def write(self, writers: set[Any] | None, message: Reply) -> int:
        data = encode_reply(message)
        for writer in writers or ():
            writer.write(data)
        return len(writers or ())


STATISTICS = SimpleNamespace(clients=0, accepted=0, packets_received=0)
HANDLER: Any = SimpleNamespace(
    store=Store(clock=lambda: asyncio.get_running_loop().time()),
    pubsub=PubSub(),
    server=SimpleNamespace(get_statistics=lambda: STATISTICS),
    numbers=itertools.count(1),
)


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


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    client: Any = writer
    session = Session(HANDLER, client)
    try:
        while not session.connection.has_quit:
            words = await read_command(reader)
            if words is None:
                break
            reply = session.answer(words)
            for each in reply if type(reply) is Replies else [reply]:
                writer.write(encode_reply(each))
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
