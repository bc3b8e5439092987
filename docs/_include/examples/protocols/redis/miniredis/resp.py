"""Redis's protocol, RESP2: what clients send, and what they get."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from typing import Final, TypeAlias

from easynetwork.exceptions import IncrementalDeserializeError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers.abc import AbstractIncrementalPacketSerializer
from easynetwork.serializers.tools import GeneratorStreamReader

MAX_LINE: Final = 64 * 1024
MAX_DIGITS: Final = 10
MAX_WORDS: Final = 10_000
MAX_COMMAND: Final = 1024 * 1024  # all words of a command together
MAX_REPLY: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 8


class Error(Exception):
    """A reply that says what is wrong. Commands raise it."""


class NullArray:
    """The reply in place of an array that does not exist."""


NULL_ARRAY: Final = NullArray()

Command: TypeAlias = list[bytes]
Reply: TypeAlias = str | bytes | int | list["Reply"] | Error | NullArray | None


class Replies(list[Reply]):
    """Several replies to one command. Each of them is a packet."""


def encode_reply(reply: Reply) -> bytes:
    match reply:
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case str():  # only texts of this program: nothing can escape a newline
            return b"+%b\r\n" % reply.encode()
        case int():
            return b":%d\r\n" % reply
        case list():
            return b"*%d\r\n%b" % (len(reply), b"".join(map(encode_reply, reply)))
        case Error():  # it may quote the client: a newline would begin another reply
            text = " ".join(str(reply).splitlines())
            return b"-%b\r\n" % text.encode()
        case NullArray():
            return b"*-1\r\n"
    return b"$-1\r\n"


def encode_command(command: Command) -> bytes:
    return encode_reply([*command])


class ServerSerializer(AbstractIncrementalPacketSerializer[Reply, Command]):
    def incremental_serialize(self, packet: Reply) -> Generator[bytes, None, None]:
        yield encode_reply(packet)

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Command, bytes]]:
        data = yield
        if (command := split_command(data)) is not None:
            return command
        reader = GeneratorStreamReader(data)
        words = yield from read_command(reader)
        return words, reader.read_all()


class ClientSerializer(AbstractIncrementalPacketSerializer[Command, Reply]):
    def incremental_serialize(self, packet: Command) -> Generator[bytes, None, None]:
        yield encode_command(packet)

    def incremental_deserialize(self) -> Generator[None, bytes, tuple[Reply, bytes]]:
        reader = ReplyReader()
        reply = yield from reader.read_reply(MAX_DEPTH)
        return reply, reader.read_all()


SERVER_PROTOCOL: Final = StreamProtocol(ServerSerializer())
CLIENT_PROTOCOL: Final = StreamProtocol(ClientSerializer())


# Commands


def read_command(reader: GeneratorStreamReader) -> Generator[None, bytes, Command]:
    line = yield from reader.read_until(b"\n", MAX_LINE, keep_end=False)
    if not line.startswith(b"*"):
        return split_line(reader, line)
    count = parse_length(reader, line, b"*", MAX_WORDS)
    words = []
    room = MAX_COMMAND
    for _ in range(count):
        line = yield from reader.read_until(b"\n", MAX_LINE, keep_end=False, ends_packet=False)
        size = parse_length(reader, line, b"$", room)
        room -= size
        word = yield from reader.read_exactly(size + 2)
        if not word.endswith(b"\r\n"):
            raise IncrementalDeserializeError("expected CRLF", reader.read_all())
        words.append(word[:-2])
    return words


def split_line(reader: GeneratorStreamReader, line: bytes) -> Command:
    """Return the words of a line that a person has typed: an inline command."""
    if b'"' not in line and b"'" not in line:
        return line.split()
    try:
        return [word.encode("latin-1") for word in shlex.split(line.decode("latin-1"))]
    except ValueError:
        message = "unbalanced quotes in request"
        raise IncrementalDeserializeError(message, reader.read_all()) from None


def parse_length(reader: GeneratorStreamReader, line: bytes, prefix: bytes, most: int) -> int:
    """Return the length in a line such as ``$5\\r``."""
    digits = line[1:-1]
    if not line.startswith(prefix):
        message = f"expected '{prefix.decode()}', got '{line[:1].decode('latin-1')}'"
        raise IncrementalDeserializeError(message, reader.read_all())
    if line == b"*-1\r":
        return 0
    if not (digits.isdigit() and line.endswith(b"\r") and len(digits) <= MAX_DIGITS):
        raise IncrementalDeserializeError("invalid length", reader.read_all())
    if (length := int(digits)) > most:
        raise IncrementalDeserializeError("too long", reader.read_all())
    return length


def split_command(data: bytes) -> tuple[Command, bytes] | None:
    """Do what `read_command()` does, only faster, if the data begins with a usual command.

    Return the words and what follows them. Return None if the command is not complete, is wrong, or
    has CRLF in a word.
    """
    end = data.find(b"\r\n", 0, 7)  # of at most four digits
    digits = data[1:end]
    if end < 0 or not (data.startswith(b"*") and digits.isdigit()) or len(data) > MAX_COMMAND:
        return None
    lines = data.split(b"\r\n", 2 * int(digits) + 1)  # "*2", "$3", "GET", "$1", "k", the rest
    lengths, words = lines[1:-1:2], lines[2:-1:2]
    if len(words) != int(digits) or lengths != [b"$%d" % len(word) for word in words]:
        return None
    return words, lines[-1]


# Replies


class ReplyReader(GeneratorStreamReader):
    """Reads one reply, of limited size and depth."""

    def __init__(self) -> None:
        super().__init__()
        self.room = MAX_REPLY

    def read_reply(self, depth: int) -> Generator[None, bytes, Reply]:
        line = yield from self.read_until(b"\r\n", MAX_LINE, keep_end=False, ends_packet=False)
        kind, text = line[:1], line[1:]
        match kind:
            case b"+":
                return text.decode("latin-1")
            case b"-":
                return Error(text.decode("latin-1"))
            case b":":
                return self.parse_integer(text)
            case b"$":
                if (size := self.parse_integer(text)) < 0:
                    return None
                self.use_room(size)
                return (yield from self.read_exactly(size + 2))[:-2]
            case b"*":
                if (count := self.parse_integer(text)) < 0:
                    return NULL_ARRAY
                if depth == 0:
                    raise IncrementalDeserializeError("too deep", self.read_all())
                replies: list[Reply] = []
                for _ in range(count):
                    self.use_room(1)
                    replies.append((yield from self.read_reply(depth - 1)))
                return replies
        raise IncrementalDeserializeError(f"unknown type {kind!r}", self.read_all())

    def parse_integer(self, text: bytes) -> int:
        if not text.removeprefix(b"-").isdigit() or len(text) > 20:
            raise IncrementalDeserializeError("not an integer", self.read_all())
        return int(text)

    def use_room(self, size: int) -> None:
        self.room -= size
        if self.room < 0:
            raise IncrementalDeserializeError("the reply is too long", self.read_all())
