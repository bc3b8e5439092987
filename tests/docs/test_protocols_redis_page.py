"""Test what the page about Redis says of its modules, its limits and its tests.

A sentence in quotation marks in a docstring is a quotation of the page. What programs of others get
from the server, and what its commands reply, is in `test_protocols_redis`.
"""

from __future__ import annotations

import ast
import contextlib
import hmac
import inspect
import logging
import os
import re
import socket
import stat
import textwrap
import timeit
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.abc
import pytest
import redis
import redis.asyncio
import sniffio

from docs._include.examples.protocols.redis import miniredis
from docs._include.examples.protocols.redis.miniredis import (
    __main__ as main_module,
    commands,
    connection as connection_module,
    handler as handler_module,
    resp,
    test_server as server_tests,
    transactions,
)
from docs._include.examples.protocols.redis.miniredis.commands import command
from docs._include.examples.protocols.redis.miniredis.handler import RedisRequestHandler, Session
from docs._include.examples.protocols.redis.miniredis.pubsub import PubSub
from docs._include.examples.protocols.redis.miniredis.resp import (
    CLIENT_PROTOCOL,
    SERVER_PROTOCOL,
    Command,
    Error,
    Replies,
    Reply,
    encode_command,
    encode_reply,
)
from docs._include.examples.protocols.redis.miniredis.store import Store
from easynetwork.exceptions import (
    IncrementalDeserializeError,
    LimitOverrunError,
    StreamProtocolParseError,
)
from easynetwork.serializers.tools import GeneratorStreamReader
from easynetwork.servers import CloseReason, Limits, run as server_run
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.groups import ClientGroup
from easynetwork.testing import serve, virtual_time
from tests.docs.howto_support import DOCS, check_quotations, complaints, in_thread, table, until
from tests.docs.test_protocols_redis import (
    LOOPS,
    NOT_AN_INTEGER,
    PACKAGE,
    PAGE,
    WRONG_TYPE,
    Clock,
    PasswordSession,
    ask,
    client_of,
    miniredis_server,
    needs_benchmark,
    needs_cli,
    new_session,
    parse,
    play_at_terminal,
    port_of,
    run,
)
from tests.interop import support as interop
from tests.times import PATIENCE, is_traced


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Fail a test in which the server logs a warning, or worse."""
    caplog.set_level(logging.INFO, "easynetwork")
    yield caplog
    assert complaints(caplog) == []


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


# -- What the page says about the modules ------------------------------------------------------

once = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture
def own_commands(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, commands.Entry]:
    """Let a test add commands, which are gone afterwards."""
    own = dict(commands.COMMANDS)
    for module in commands, handler_module, connection_module:
        monkeypatch.setattr(module, "COMMANDS", own)
    return own


@contextlib.asynccontextmanager
async def in_memory(
    handler: RedisRequestHandler | None = None, **options: Any
) -> AsyncIterator[Callable[[], Any]]:
    """Serve in memory; yield a coroutine function that connects a client."""
    async with serve(handler or RedisRequestHandler(), SERVER_PROTOCOL, **options) as served:
        yield partial(served.connect, protocol=CLIENT_PROTOCOL)


def code_after(text: str) -> str:
    """Return the visible block of Python that follows a text of the page."""
    rest = (DOCS / PAGE).read_text(encoding="utf-8").partition(text)[2]
    block = rest.partition("\n.. code-block:: python\n")[2]
    return textwrap.dedent(re.split(r"\n(?=\S)", block)[0])


def imports(name: str) -> set[str]:
    """Return the modules that a module of the package imports: the first part of their names."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + str(node.module).partition(".")[0])
    return found


def test_modules() -> None:
    """The table lists the modules, and what they contain.

    "The server is a package of small modules, in a folder called miniredis"

    "The protocol: bytes to commands, replies to bytes."

    "The data: values by key, with their expiry."

    "The commands that read and change the data."

    "SUBSCRIBE, PUBLISH and their relatives."

    "Commands about the connection, such as QUIT and CLIENT."

    "MULTI, EXEC, DISCARD, WATCH, UNWATCH."

    "The folder also contains a file called __init__.py, which may be empty."

    "Only resp.py, pubsub.py, handler.py, __main__.py and the tests use easynetwork."

    "The store knows nothing about the network"
    """
    files = {path.name for path in PACKAGE.glob("*.py")}
    assert {name for name, _ in table(PAGE, "Module", "What it contains")} == files - {
        "__init__.py"
    }
    assert PACKAGE.name == "miniredis"
    assert max(len((PACKAGE / name).read_text().splitlines()) for name in files) < 400
    [docstring] = ast.parse((PACKAGE / "__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert {name for name in files if "easynetwork" in imports(name)} == {
        *("resp.py", "pubsub.py", "handler.py", "__main__.py", "test_server.py")
    }
    assert imports("store.py") <= {"__future__", "anyio", "collections", "heapq", "typing", ".resp"}
    owners = {
        "commands": b"GET SET DEL TTL LPUSH",
        "connection": b"QUIT CLIENT",
        "pubsub": b"SUBSCRIBE PUBLISH UNSUBSCRIBE PSUBSCRIBE",
        "transactions": b"MULTI EXEC DISCARD WATCH UNWATCH",
    }
    for module, names in owners.items():
        for name in names.split():
            function = commands.COMMANDS[name].function
            assert function.__module__ == f"{miniredis.__name__}.{module}"
    store = Store(Clock())
    store.put(b"name", b"Ada")
    assert store.get(b"name") == b"Ada"
    store.set_deadline(b"name", Clock.now)
    assert store.get(b"name") is None


@needs_cli
@needs_benchmark
@pytest.mark.anyio
@once
async def test_programs_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three programs talk to the server, and send more than what their users type.

    "Redis' own programs talk to it: redis-cli, redis-benchmark, and the client package redis."

    "Real clients send more than the commands that their users type. redis-cli asks for the list of
    commands (COMMAND DOCS) to show hints, redis-benchmark shows two settings (CONFIG GET), and
    the package redis introduces itself (CLIENT SETINFO)."
    """
    received: list[Command] = []
    original = Session.answer

    def answer(self: Session, words: Command) -> Reply:
        received.append(words[:2])
        return original(self, words)

    monkeypatch.setattr(Session, "answer", answer)
    prompt = "127.0.0.1:6379> "

    def with_package(port: int) -> None:
        with redis.Redis(port=port, protocol=2, socket_timeout=PATIENCE) as client:
            client.incr("a")

    async with miniredis_server() as server:
        port = port_of(server)
        found: list[list[Command]] = []
        for use in (
            lambda: play_at_terminal(port, f"{prompt}ECHO hello\n" + '"hello"\n'),
            lambda: run("redis-benchmark", "-p", str(port), *"-t incr -n 1 -c 1 -q".split()),
            lambda: with_package(port),
        ):
            await in_thread(use)
            found.append([*received])
            received.clear()
    cli, benchmark, package = found
    assert [b"COMMAND", b"DOCS"] in cli
    assert [b"ECHO", b"hello"] in cli
    assert [words for words in benchmark if words[0] == b"CONFIG"] == [[b"CONFIG", b"GET"]] * 2
    assert [words[0] for words in benchmark if words[0] != b"CONFIG"] == [b"INCR"]
    assert [b"CLIENT", b"SETINFO"] in package
    assert package[-1] == [b"INCRBY", b"a"]


@pytest.mark.anyio
@once
async def test_kind_of_protocol() -> None:
    """Three properties of the protocol, and its version.

    "On this page, you build a server that speaks the protocol of Redis, version RESP2."

    "It is an example of a protocol whose packets have no simple framing, in which clients send many
    requests without waiting, and in which the server sends messages that nobody has requested."

    "Neither a separator nor one length tells where such a packet ends."

    "This server speaks RESP2 only, and refuses HELLO 3."

    "A client that has subscribed to a channel gets each message that is published to it"

    "One SUBSCRIBE with several names has several replies. Replies is a list of them: the handler
    sends each as a packet."
    """
    command = [b"ECHO", encode_command([b"PING"])]  # it has all separators in it
    assert parse(SERVER_PROTOCOL, [encode_command(command)]) == [command]
    async with in_memory() as connect:
        client, other = await connect(), await connect()
        await client.send_packet([b"HELLO"])
        facts = await client.recv_packet()
        assert facts[facts.index(b"proto") + 1] == 2
        await client.send_packet([b"HELLO", b"3"])
        assert "NOPROTO" in str(await client.recv_packet())
        for _ in range(100):
            await client.send_packet([b"INCR", b"n"])
        assert [await client.recv_packet() for _ in range(100)] == list(range(1, 101))
        await client.send_packet([b"SUBSCRIBE", b"news", b"sport"])
        assert [(await client.recv_packet())[1] for _ in range(2)] == [b"news", b"sport"]
        for word in b"one", b"two":
            await other.send_packet([b"PUBLISH", b"news", word])
            assert await other.recv_packet() == 1
            assert await client.recv_packet() == [b"message", b"news", word]
    session, _ = new_session()
    pubsub: Any = SimpleNamespace(join=lambda *args: None)
    session.subscriptions.pubsub = pubsub
    replies = session.answer([b"SUBSCRIBE", b"a", b"b"])
    assert isinstance(replies, Replies)
    assert len(replies) == 2


@pytest.mark.anyio
@once
async def test_package_speaks_resp2() -> None:
    """The package cannot connect with the newer version.

    "So pass protocol=2 to the package redis"
    """

    def use(port: int) -> None:
        with redis.Redis(port=port, protocol=3, socket_timeout=PATIENCE) as client:
            with pytest.raises(redis.RedisError):
                client.ping()
        with redis.Redis(port=port, protocol=2, socket_timeout=PATIENCE) as client:
            assert client.ping()

    async with miniredis_server() as server:
        await in_thread(lambda: use(port_of(server)))


def test_commands_on_the_wire() -> None:
    r"""A command is an array, or a line.

    "A command is an array of bulk strings. GET name is 2\r\n$3\r\nGET\r\n$4\r\nname\r\n."

    "People who use telnet or nc can also send a line of text, which is called an inline command"

    "A simple string and an error end with the line."

    "The client's end is the opposite."

    "ReplyReader is at the end of resp.py."

    "So resp.py begins with these types and a function that encodes a reply"
    """
    array = encode_command([b"GET", b"name"])
    assert array == b"*2\r\n$3\r\nGET\r\n$4\r\nname\r\n"
    assert repr(array)[3:-1] in (DOCS / PAGE).read_text(encoding="utf-8")
    for data in array, b"GET name\r\n", b"GET name\n":
        assert parse(SERVER_PROTOCOL, [data]) == [[b"GET", b"name"]]
    for reply in "OK", Error("ERR x\r\ny"):
        data = encode_reply(reply)
        assert data.index(b"\r\n") == len(data) - 2
    assert b"".join(CLIENT_PROTOCOL.generate_chunks([b"GET", b"name"])) == array
    assert parse(CLIENT_PROTOCOL, [b"".join(SERVER_PROTOCOL.generate_chunks("OK"))]) == ["OK"]
    names = [
        node.name
        for node in ast.parse((PACKAGE / "resp.py").read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    ]
    assert names[:4] == ["Error", "NullArray", "Replies", "encode_reply"]
    assert names[-1] == "ReplyReader"


@pytest.mark.parametrize(
    ("protocol", "begin", "rest"),
    [
        (SERVER_PROTOCOL, b"", b"PING\r\n"),  # the line is a whole command
        (SERVER_PROTOCOL, b"*1\r\n$", b""),
        (CLIENT_PROTOCOL, b"$", b""),
    ],
)
def test_rest_after_a_long_line(protocol: Any, begin: bytes, rest: bytes) -> None:
    """What follows a wrong length may be a word of any content: it must not be executed.

    "With ends_packet=False, the parser discards what has arrived after a length that is too long,
    because its end is not the end of a command."
    """
    parser = protocol.serializer.incremental_deserialize()
    next(parser)
    with pytest.raises(LimitOverrunError) as caught:
        parser.send(begin + b"1" * (resp.MAX_LINE + 1) + b"\r\nPING\r\n")
    assert bytes(caught.value.remaining_data) == rest


def test_numbers_of_commands() -> None:
    """What is announced is checked before it is waited for.

    "A client may announce anything, so check each number before you wait for so many bytes"

    "MAX_LINE limits an inline command, and the line with a length."

    "MAX_WORDS limits the number of words, MAX_COMMAND the bytes of all words. With these limits, a
    command occupies 1 MiB plus the small objects of 10,000 words."

    "Python's int also accepts +1, 1_0 and numbers of any length. parse_length() accepts at most ten
    digits, and no word that is longer than room, the part of MAX_COMMAND that is left."

    "If something is wrong, the parser raises IncrementalDeserializeError."
    """

    def error(data: bytes) -> str:
        found = parse(SERVER_PROTOCOL, [data])
        assert len(found) <= 1, data
        return found[0] if found and isinstance(found[0], str) else ""

    limit = "Separator is not found, and chunk exceed the limit"
    assert (resp.MAX_LINE, resp.MAX_WORDS, resp.MAX_COMMAND) == (65_536, 10_000, 2**20)
    for begin in b"", b"*1\r\n$":
        assert error(begin + b"1" * (resp.MAX_LINE - 2)) == ""
        assert error(begin + b"1" * (resp.MAX_LINE + 1)) == limit
    assert error(b"*%d\r\n" % resp.MAX_WORDS) == ""
    assert error(b"*%d\r\n" % (resp.MAX_WORDS + 1)) == "too long"
    assert error(b"*1\r\n$%d\r\n" % resp.MAX_COMMAND) == ""
    assert error(b"*1\r\n$%d\r\n" % (resp.MAX_COMMAND + 1)) == "too long"
    assert error(b"*2\r\n$1\r\na\r\n$%d\r\n" % (resp.MAX_COMMAND - 1)) == ""
    assert error(b"*2\r\n$1\r\na\r\n$%d\r\n" % resp.MAX_COMMAND) == "too long"
    assert (int("+1"), int("1_0"), int("9" * 4000)) == (1, 10, 10**4000 - 1)
    for digits in b"+1", b"1_0", b"0" * 11:
        assert error(b"*%b\r\n" % digits) == "invalid length"
    assert parse(SERVER_PROTOCOL, [b"*0000000001\r\n$4\r\nPING\r\n"]) == [[b"PING"]]
    parser = SERVER_PROTOCOL.build_packet_from_chunks()
    next(parser)
    with pytest.raises(StreamProtocolParseError) as raised:
        parser.send(b"*x\r\n")
    assert isinstance(raised.value.error, IncrementalDeserializeError)


def read_slowly(data: bytes) -> tuple[Command, bytes]:
    """Read one command with the reader that can stop at every byte."""
    reader = GeneratorStreamReader(data)
    with pytest.raises(StopIteration) as stopped:
        next(resp.read_command(reader))
    return stopped.value.value, reader.read_all()


def test_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast way comes first, and gives up if anything is unusual.

    "split_command() returns None if anything is unusual: the end of the command has not arrived, a
    length is wrong, a word contains CRLF."

    "So only read_command() has to know what is wrong. The serializer tries one, then the other"
    """
    whole = encode_command([b"SET", b"name", b"Ada"])
    assert resp.split_command(whole + b"*1") == ([b"SET", b"name", b"Ada"], b"*1")
    assert resp.split_command(encode_command([b"SET", b"a\nb"])) == ([b"SET", b"a\nb"], b"")
    wrong = [whole[:end] for end in range(len(whole))]
    wrong += [whole.replace(b"$3", b"$4"), encode_command([b"a\r\nb"]), b"*x\r\n", b"PING\r\n"]
    for data in wrong:
        assert resp.split_command(data) is None, data
    calls: list[str] = []
    for name in "split_command", "read_command":
        function = getattr(resp, name)

        def noted(data: Any, function: Any = function) -> Any:
            calls.append(function.__name__)
            return function(data)

        monkeypatch.setattr(resp, name, noted)
    assert parse(SERVER_PROTOCOL, [whole]) == [[b"SET", b"name", b"Ada"]]
    assert calls == ["split_command"]
    calls.clear()
    assert parse(SERVER_PROTOCOL, [b"PING\r\n"]) == [[b"PING"]]
    assert calls == ["split_command", "read_command"]


def test_speed_of_the_fast_way() -> None:
    """The fast way is worth its lines.

    "In most cases, a command arrives as a whole. Then it can be parsed with a single call
    of bytes.split(), which is three to four times as fast as a reader that can stop at every byte"
    """
    assert inspect.getsource(resp.split_command).count(".split(") == 1
    data = encode_command([b"SET", b"key:000000000012", b"xxx"])
    assert resp.split_command(data) == read_slowly(data)

    def slow() -> None:
        with contextlib.suppress(StopIteration):
            next(resp.read_command(GeneratorStreamReader(data)))

    def seconds(function: Callable[[], object]) -> float:
        return min(timeit.repeat(function, number=100, repeat=10))

    times = seconds(slow) / seconds(lambda: resp.split_command(data))
    assert times > 2
    assert times < 7 or is_traced()  # tracing costs more where there are more lines


# -- The store ---------------------------------------------------------------------------------


def test_expired_keys_in_the_store() -> None:
    """A key goes when it is asked for, and outdated deadlines go when there are many.

    "A key with a deadline is removed as soon as a command asks for it: get() finds that it has
    expired, and calls remove()."

    "The heap contains outdated deadlines if a key gets a new one, so it is built anew by
    heapq.heapify() when too many of them have accumulated."
    """
    session, clock = new_session()
    store = session.store
    assert ask(session, "SET a 1 EX 1") == "OK"
    clock.now += 1
    assert store._values == {b"a": b"1"}
    assert ask(session, "GET a") is None
    assert store._values == {}
    assert ask(session, "SET a 1") == "OK"
    sizes = []
    for number in range(1100):
        store.set_deadline(b"a", clock.now + 1 + number)
        sizes.append(len(store._next))
    assert sizes[1] > sizes[0]
    assert max(sizes) > 1000
    assert sizes[-1] < 110
    assert (max(sizes) - 2) // 1000 == 1
    assert store.get_deadline(b"a") == clock.now + 1100


def test_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """One task removes what nobody asks for.

    "Keys that no command asks for are removed once a second, which is the task of
    remove_expired()."
    """
    times: list[float] = []

    async def main() -> None:
        handler = RedisRequestHandler()
        began = anyio.current_time()
        monkeypatch.setattr(
            handler.store, "remove_expired", lambda: times.append(anyio.current_time() - began)
        )
        async with in_memory(handler):
            await anyio.sleep(10.5)

    anyio.run(main, backend_options=virtual_time())
    assert [round(each) for each in times] == list(range(1, 11))


# -- Commands of your own ----------------------------------------------------------------------


def test_decorator(own_commands: dict[bytes, commands.Entry]) -> None:
    """The signature of a function says how many words its command has.

    "A command is a function. Its first parameter is the store, and the others are the words that
    follow the name"

    "The function returns the reply, or raises Error. The decorator derives the number of words from
    the signature: parameters with a default are optional, and keys stands for any number of words.
    If a client sends too few or too many, the handler replies with an error"

    "Session finds the function of a command in COMMANDS and calls it"

    "The second argument of the decorator command, here entry.attribute, is the attribute of the
    session that the function gets first. By default, this is the store. For the commands of the
    next sections, it is another object."
    """
    session, _ = new_session()
    calls: list[Any] = []

    @command("ONE")
    def one(store: Store, key: bytes, option: bytes = b"x") -> Reply:
        calls.append((store, key, option))
        return "OK"

    @command("ANY")
    def any_(store: Store, key: bytes, *keys: bytes) -> Reply:
        raise Error(f"ERR {len(keys)} more")

    @command("OTHER", "connection")
    def other(connection: Any) -> Reply:
        calls.append(connection)
        return 1

    assert own_commands[b"ONE"][1:] == ("store", 2, 3)
    assert ask(session, "one a") == ask(session, "ONE a b") == "OK"
    assert calls == [(session.store, b"a", b"x"), (session.store, b"a", b"b")]
    for line in "ONE", "ONE a b c", "ANY", "OTHER x":
        name = line.partition(" ")[0].lower()
        assert ask(session, line) == f"ERR wrong number of arguments for '{name}' command"
    assert ask(session, "ANY a") == "ERR 0 more"
    assert ask(session, "ANY" + " a" * 100) == "ERR 99 more"
    assert ask(session, "OTHER") == 1
    assert calls[-1] is session.connection
    attributes = {entry.attribute for entry in own_commands.values()}
    assert attributes == {"store", "transaction", "subscriptions", "connection"}


@pytest.mark.anyio
@once
async def test_own_command(own_commands: dict[bytes, commands.Entry]) -> None:
    """The command of the page, and its test.

    "Add a command of your own. GETDEL returns the value of a key and removes the key. It is not in
    the files that you have downloaded"

    "This is a test of GETDEL, the command that you have added. Put it into test_server.py, and
    import Error from .resp there."
    """
    assert b"GETDEL" not in own_commands
    names: dict[str, Any] = {**vars(commands)}
    exec(code_after("Add a command of your own."), names)
    assert b"GETDEL" in own_commands
    session, _ = new_session()
    ask(session, "SET name Ada")
    assert ask(session, "GETDEL name") == b"Ada"
    assert session.store.get(b"name") is None
    names = {**vars(server_tests), "Error": Error}
    assert "Error" not in vars(server_tests)
    exec(code_after("This is a test of ``GETDEL``"), names)
    await names["test_getdel"]()
    del own_commands[b"GETDEL"]
    with pytest.raises(AssertionError):
        await names["test_getdel"]()


def test_tools_for_commands() -> None:
    """What a command may use.

    "get_string() returns None if there is no such key, and raises the right error if the value is a
    list."

    "get_list() is its counterpart."

    "put() and remove() change the data. If you change a list in place, call note_change().
    The transactions below depend on it."

    "All words are bytes."

    "parse_int() converts a word to a number, or raises the right error."

    "If the reply is a list, pass it to limited()."
    """
    session, _ = new_session()
    store = session.store
    assert store.get_string(b"a") is store.get_list(b"a") is None
    store.put(b"s", b"x")
    store.put(b"l", deque([b"x"]))
    assert (store.get_string(b"s"), store.get_list(b"l")) == (b"x", deque([b"x"]))
    for get in partial(store.get_string, b"l"), partial(store.get_list, b"s"):
        with pytest.raises(Error, match=WRONG_TYPE):
            get()

    def failed(change: Callable[[], object]) -> bool:
        ask(session, "UNWATCH")
        ask(session, "WATCH l")
        change()
        return session.transaction.has_failed

    items: Any = store.get_list(b"l")
    assert not failed(lambda: items.append(b"y"))
    assert failed(lambda: store.note_change(b"l"))
    assert failed(lambda: store.put(b"l", items))
    assert failed(lambda: store.remove(b"l"))
    assert commands.parse_int(b"-12") == -12
    with pytest.raises(Error, match=NOT_AN_INTEGER):
        commands.parse_int(b"x")
    assert commands.limited([b"x"]) == [b"x"]
    with pytest.raises(Error, match="too large"):
        commands.limited([b"x" * 2**20] * 16)
    words = parse(SERVER_PROTOCOL, [b"SET 'a b' 1\r\n", encode_command([b"INCR", b"n"])])
    assert {type(word) for command in words for word in command} == {bytes}


def test_growing_string(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check, there is no limit.

    "Otherwise a client could make a string grow without end, command by command."
    """
    session, _ = new_session()
    part = b"x" * (resp.MAX_COMMAND // 2)
    for expected in resp.MAX_COMMAND // 2, resp.MAX_COMMAND:
        assert session.answer([b"APPEND", b"a", part]) == expected
    assert isinstance(session.answer([b"APPEND", b"a", part]), Error)
    monkeypatch.setattr(commands, "check_string", lambda size: None)
    for number in range(3, 10):
        assert session.answer([b"APPEND", b"a", part]) == number * len(part)


# -- The handler -------------------------------------------------------------------------------


class Noting(RedisRequestHandler):
    """Notes when generators begin, end, and get an error."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.events: list[Any] = []

    async def handle(self, client: Any) -> AsyncGenerator[None, Command]:
        self.events.append("begin")
        generator = super().handle(client)
        try:
            await anext(generator)
            while True:
                try:
                    words = yield
                except Exception as exc:
                    self.events.append(exc)
                    await generator.athrow(exc)
                else:
                    await generator.asend(words)
        except StopAsyncIteration:
            pass
        finally:
            await generator.aclose()
            self.events.append("end")


@pytest.mark.anyio
@once
async def test_one_generator() -> None:
    """A generator lives as long as its connection.

    "There is one generator for each connection, with a loop in it. What the server has to remember
    about the client is in a local variable."

    "If a client sends something that is not a command, StreamProtocolParseError is raised at the
    yield. The server tells the client in an Error what is wrong, and closes the connection, because
    it cannot know where the next command begins."

    "The request handler receives commands and sends the replies"
    """
    handler = Noting()
    async with serve(handler, SERVER_PROTOCOL) as served:
        one, other = [await served.connect(raw=True) for _ in range(2)]
        for raw, name in (one, b"Ada"), (other, b"Bob"):
            for _ in range(3):
                await raw.send(encode_command([b"CLIENT", b"SETNAME", name]))
                assert await raw.receive() == b"+OK\r\n"
        for raw, name in (one, b"Ada"), (other, b"Bob"):
            await raw.send(encode_command([b"CLIENT", b"GETNAME"]))
            assert await raw.receive() == encode_reply(name)
        assert handler.events == ["begin"] * 2
        await one.send(b"*1\r\n:4\r\n")
        assert (await one.receive()).startswith(b"-ERR Protocol error")
        assert await one.receive() == b""
        assert [type(each) for each in handler.events[2:]] == [StreamProtocolParseError, str]


@pytest.mark.parametrize("how", ["reset", "close", "QUIT", "error"])
@pytest.mark.anyio
@once
async def test_cleaning_up(how: str) -> None:
    """Nothing is left of a client, however it leaves.

    "The generator ends when the client disconnects, whatever it was doing. The finally clause runs
    in each case, and cleans up with session.close()."

    "So a channel without subscribers is removed from topics"
    """
    handler = Noting()
    async with serve(handler, SERVER_PROTOCOL) as served:
        raw = await served.connect(raw=True)
        for words in [b"WATCH", b"a"], [b"MULTI"], [b"DISCARD"], [b"WATCH", b"a"]:
            await raw.send(encode_command(words))
            await raw.receive()
        await raw.send(encode_command([b"SUBSCRIBE", b"news"]))
        await raw.receive()
        assert handler.pubsub.topics["subscribe"].keys() == {b"news"}
        assert handler.store._watchers.keys() == {b"a"}
        if how in ("reset", "close"):
            getattr(raw, how)()
        else:
            await raw.send(b"QUIT\r\n" if how == "QUIT" else b"*x\r\n")
        await until(lambda: handler.events[-1] == "end")
        assert handler.pubsub.topics["subscribe"] == handler.store._watchers == {}


# -- Transactions, publish and subscribe -------------------------------------------------------


def test_queue_of_commands() -> None:
    """Commands are queued, and then executed together.

    "Between MULTI and EXEC, commands are queued. EXEC executes them all, and no command of another
    client comes between."

    "A transaction is an object that the session owns. The store sets its attribute has_failed"
    """
    store = Store(Clock())
    one, other = new_session(store)[0], new_session(store)[0]
    assert ask(one, "MULTI") == "OK"
    for _ in range(3):
        assert ask(one, "INCR n") == "QUEUED"
    assert ask(other, "GET n") is None
    assert ask(other, "SET n 10") == "OK"
    assert ask(one, "EXEC") == [11, 12, 13]
    assert not inspect.iscoroutinefunction(commands.COMMANDS[b"EXEC"].function)
    assert isinstance(one.transaction, transactions.Transaction)
    assert one.transaction is not other.transaction
    assert ask(one, "WATCH n") == "OK"
    assert not one.transaction.has_failed
    store.put(b"n", b"1")
    assert one.transaction.has_failed
    assert not other.transaction.has_failed


def test_limits_of_a_transaction() -> None:
    """A transaction has the limits of a command and of a reply.

    "The queue is memory that a client can fill, so it has a limit, too: a transaction as a whole
    may be as large as a single command (MAX_COMMAND). A few short commands can have very long
    replies. So _run() replaces replies that exceed MAX_REPLY together, and commands such as LRANGE
    refuse to return such a reply."
    """
    session, _ = new_session()
    ask(session, "MULTI")
    word = b"x" * (resp.MAX_COMMAND // 2 - 400)
    for _ in range(2):
        assert session.answer([b"SET", b"a", word]) == "QUEUED"
    assert "too large" in str(session.answer([b"SET", b"a", b"x" * 1000]))
    ask(session, "DISCARD")
    large = b"x" * (resp.MAX_COMMAND - 8)
    for _ in range(17):
        session.answer([b"RPUSH", b"l", large])
    assert ask(session, "LRANGE l 0 -1") == "ERR the reply is too large"
    ask(session, "MULTI")
    for first, last in (0, 7), (8, 15), (16, 16):
        ask(session, f"LRANGE l {first} {last}")
    replies = ask(session, "EXEC")
    assert [type(reply) for reply in replies] == [list, list, Error]


@pytest.mark.anyio
@once
async def test_groups_and_slow_subscribers() -> None:
    """Each name has a group; a slow member delays nobody and is disconnected.

    "Each channel is a ClientGroup, and so is each pattern, such as news."

    "A message goes to the topic.group of its channel, and of each pattern that matches"

    "broadcast() does not wait for any client, so one slow subscriber delays neither the publisher
    nor the other subscribers. A subscriber that does not read as fast as messages are published is
    disconnected when a message is published and more than high_water bytes already wait for it. It
    can connect again, and knows that it may have missed messages."
    """
    pubsub = PubSub(high_water=10_000)
    async with serve(RedisRequestHandler(pubsub=pubsub), SERVER_PROTOCOL) as served:
        slow = await served.connect(raw=True)
        quick, publisher = [await served.connect(protocol=CLIENT_PROTOCOL) for _ in range(2)]
        await slow.send(encode_command([b"SUBSCRIBE", b"news.a"]))
        await slow.receive()
        await quick.send_packet([b"PSUBSCRIBE", b"news.*"])
        await quick.recv_packet()
        for kind, name in ("subscribe", b"news.a"), ("psubscribe", b"news.*"):
            assert type(pubsub.topics[kind][name].group) is ClientGroup
        assert not inspect.iscoroutinefunction(ClientGroup.broadcast)
        message = [b"news.a", b"x" * 1000]
        waiting = []
        while True:
            await publisher.send_packet([b"PUBLISH", *message])
            number = await publisher.recv_packet()
            assert await quick.recv_packet() == [b"pmessage", b"news.*", *message]
            if number == 1:
                break
            clients = served.server.get_clients()
            waiting.append(max(each.get_statistics().unsent for each in clients))
        assert waiting[-2] <= 10_000 < waiting[-1]
        again = await served.connect(protocol=CLIENT_PROTOCOL)
        await again.send_packet([b"SUBSCRIBE", b"news.a"])
        assert await again.recv_packet() == [b"subscribe", b"news.a", 1]


def test_names_of_channels() -> None:
    """What clients choose is limited.

    "Clients choose the names of the channels."

    "and check_names() limits how many names one client can have. The class Subscriptions contains
    the commands"
    """
    commands.check_names({b"%d" % number for number in range(1000)})
    for names in {b"%d" % number for number in range(1001)}, {b"x" * (resp.MAX_COMMAND + 1)}:
        with pytest.raises(Error, match="too many names"):
            commands.check_names(names)
    session, _ = new_session()
    assert ask(session, "SUBSCRIBE " + " ".join(map(str, range(1001)))) == "ERR too many names"
    for name in b"SUBSCRIBE", b"UNSUBSCRIBE", b"PSUBSCRIBE", b"PUNSUBSCRIBE", b"PUBLISH":
        function = commands.COMMANDS[name].function
        assert function.__qualname__.startswith("Subscriptions.")
    assert type(session.subscriptions).__name__ == "Subscriptions"


# -- The tests of the page ---------------------------------------------------------------------


def test_fast_way_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own test would notice a mistake in one of both ways.

    "check_serializer() splits the commands at each position, between the ClientSerializer and the
    ServerSerializer. So it also checks that the fast way and the slow way to parse a command return
    the same words."
    """
    chunks: set[int] = set()
    original = resp.split_command

    def noting(data: bytes) -> tuple[Command, bytes] | None:
        chunks.add(len(data))
        return original(data)

    monkeypatch.setattr(resp, "split_command", noting)
    server_tests.test_commands_in_pieces()
    assert set(range(1, 40)) <= chunks

    def wrong(data: bytes) -> tuple[Command, bytes] | None:
        found = original(data)
        return found and ([word[::-1] for word in found[0]], found[1])

    monkeypatch.setattr(resp, "split_command", wrong)
    with pytest.raises(AssertionError):
        server_tests.test_commands_in_pieces()


@pytest.mark.anyio
@once
async def test_tests_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page says of its tests.

    "The tests run on a network in memory"

    "served.connect() gets CLIENT_PROTOCOL, the protocol object of the client's end"

    "test_slow_network lets one to three bytes arrive at a time: chunks=range(1, 4)."

    "test_invalid_command sends bytes instead of packets"

    "ask() splits the line at spaces."

    "test_slow_subscriber has a small high_water, so that the slow subscriber is too slow after a
    few messages."

    "To send a word with a space in it, call send_packet"

    "If the server replies with an error, ask() returns an Error and does not raise it"
    """
    options: list[dict[str, Any]] = []
    networks: list[Any] = []
    published: list[str] = []

    @contextlib.asynccontextmanager
    async def noting(*args: Any, **more: Any) -> AsyncIterator[Any]:
        networks.append(more.get("network"))
        async with serve(*args, **more) as served:

            def connect(**more: Any) -> Any:
                options.append(more)
                return served.connect(**more)

            yield SimpleNamespace(connect=connect)

    async def noting_ask(client: Any, line: str) -> Any:
        published.append(line.partition(" ")[0])
        return await ask_in_memory(client, line)

    ask_in_memory = server_tests.ask
    monkeypatch.setattr(server_tests, "serve", noting)
    monkeypatch.setattr(server_tests, "ask", noting_ask)
    monkeypatch.setattr(socket.socket, "connect", None)
    await server_tests.test_transaction()
    assert options == [{"protocol": CLIENT_PROTOCOL}] * 2
    await server_tests.test_invalid_command()
    assert options[-1] == {"raw": True}
    await server_tests.test_slow_network(1)
    assert repr(networks[-1]) == "MemoryNetwork(seed=1, chunks=range(1, 4))"
    published.clear()
    await server_tests.test_slow_subscriber()
    assert 2 <= published.count("PUBLISH") < 100 < PubSub().high_water / 10_000
    async with in_memory() as connect:
        client = await connect()
        await client.send_packet([b"SET", b"name", b"Ada Lovelace"])
        assert await client.recv_packet() == "OK"
        assert isinstance(await ask_in_memory(client, "SET name Ada Lovelace"), Error)
        assert await ask_in_memory(client, "GET name") == b"Ada Lovelace"


# -- Before it goes to production --------------------------------------------------------------


def options_of_the_program(monkeypatch: pytest.MonkeyPatch, *args: int) -> tuple[Any, ...]:
    """Return the host and the port to which the program binds, and its limits."""
    made: list[Any] = []
    monkeypatch.setattr(
        main_module, "AsyncTCPNetworkServer", lambda *args, limits: made.append((*args[:2], limits))
    )
    main_module.new_server(*args)
    [options] = made
    return tuple(options)


@pytest.mark.parametrize("loop", LOOPS)
def test_other_framework(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework is an argument of run().

    "With backend="

    "it runs on trio"
    """
    found: list[str] = []

    class Noting(RedisRequestHandler):
        async def service_init(self, exit_stack: Any, server: Any) -> None:
            found.append(sniffio.current_async_library())
            raise KeyError("it has begun")

    monkeypatch.setattr(main_module, "RedisRequestHandler", Noting)
    with pytest.raises(KeyError, match="it has begun"):
        server_run(lambda: main_module.new_server(0), backend=loop)
    assert found == [loop]


@pytest.mark.anyio
@once
async def test_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """All clients may do everything.

    "This server has no password. Whoever can connect can read and delete everything, so __main__.py
    binds it to 127.0.0.1."

    "pass another one to both: python -m miniredis 7000 and redis-cli -p 7000."
    """
    assert options_of_the_program(monkeypatch)[:2] == ("127.0.0.1", 6379)
    assert options_of_the_program(monkeypatch, 7000)[:2] == ("127.0.0.1", 7000)
    async with in_memory() as connect:
        one, other = await connect(), await connect()
        assert await server_tests.ask(one, "SET a 1") == "OK"
        assert await server_tests.ask(other, "GET a") == b"1"
        assert await server_tests.ask(other, "FLUSHDB") == "OK"
        assert await server_tests.ask(one, "GET a") is None
        assert "unknown command" in str(await server_tests.ask(one, "AUTH secret"))


@pytest.mark.anyio
@once
async def test_mode_of_unix_socket(unix_path: str) -> None:
    """The permissions of the path are an argument.

    "Listen on a Unix socket instead, whose mode says who may connect"
    """
    handler = RedisRequestHandler()
    server = AsyncUnixStreamServer(unix_path, SERVER_PROTOCOL, handler, mode=0o640)
    async with interop.serving(server):
        assert stat.S_IMODE(os.stat(unix_path).st_mode) == 0o640


def test_password_in_the_connection(own_commands: dict[bytes, commands.Entry]) -> None:
    """The exercise, as the page describes it.

    "Add a password, as an exercise. AUTH is a command of Connection, which compares its argument
    with hmac.compare_digest() and sets an attribute. Session.answer() raises NOAUTH Authentication
    required. as long as the attribute is not set"
    """

    @command("AUTH", "connection")
    def auth(connection: Any, password: bytes) -> Reply:
        connection.is_logged_in = hmac.compare_digest(password, b"secret")
        return "OK" if connection.is_logged_in else Error("WRONGPASS invalid password.")

    check = " " * 16 + """raise Error(f"ERR wrong number of arguments for '{text}' command")\n"""
    source = inspect.getsource(Session)
    assert check in source
    names = {**vars(handler_module), "FREE": PasswordSession.free}
    exec(
        source.replace(
            check,
            f"{check}            if name not in FREE and not self.connection.is_logged_in:\n"
            '                raise Error("NOAUTH Authentication required.")\n',
        ),
        names,
    )
    handler = RedisRequestHandler(Store(Clock()))
    handler.server = None
    session = names["Session"](handler, None)
    session.connection.is_logged_in = False
    assert ask(session, "GET a") == "NOAUTH Authentication required."
    assert "NOAUTH" not in str(ask(session, "HELLO"))
    assert ask(session, "AUTH x") == "WRONGPASS invalid password."
    assert ask(session, "GET a") == "NOAUTH Authentication required."
    assert ask(session, "AUTH secret") == "OK"
    assert ask(session, "GET a") is None


def test_request_of_a_browser() -> None:
    """Lines of HTTP are commands, as far as the parser is concerned.

    "An address such as 127.0.0.1 does not protect from web pages. A page can make the browser send
    an HTTP request to this port, and its lines look like inline commands."
    """
    request = b"POST / HTTP/1.1\r\nHost: localhost:6379\r\n\r\nSET attacked 1\r\n"
    assert parse(SERVER_PROTOCOL, [request]) == [
        [b"POST", b"/", b"HTTP/1.1"],
        [b"Host:", b"localhost:6379"],
        [],
        [b"SET", b"attacked", b"1"],
    ]


def test_timeouts_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's limits, in virtual time.

    "The server has a limit for its clients, and disconnects those that do not read for 30 seconds.
    A command that has not arrived after 60 seconds ends the connection. Idle clients may stay"

    "A client that sends commands but does not read the replies makes send_packet() wait."
    """
    limits = options_of_the_program(monkeypatch)[2]
    assert limits.max_clients == 1000

    async def main() -> None:
        handler = RedisRequestHandler()
        handler.store.put(b"large", b"x" * resp.MAX_COMMAND)
        async with serve(handler, SERVER_PROTOCOL, limits=limits) as served:
            idle, slow, unread = [await served.connect(raw=True) for _ in range(3)]
            await slow.send(b"*1\r\n$4\r\nPI")
            await unread.send(encode_command([b"GET", b"large"]) * 3)
            began = anyio.current_time()
            for seconds, clients in (29, 3), (31, 2), (59, 2), (61, 1):
                await anyio.sleep(began + seconds - anyio.current_time())
                assert served.server.get_statistics().clients == clients
            closed = served.server.get_statistics().closed
            assert closed[CloseReason.SEND_TIMEOUT] == closed[CloseReason.PACKET_TIMEOUT] == 1
            await anyio.sleep(1000)
            await idle.send(b"PING\r\n")
            assert await idle.receive() == b"+PONG\r\n"

    anyio.run(main, backend_options=virtual_time())


@pytest.mark.anyio
@once
async def test_memory_of_a_client() -> None:
    """A client that does not read has one reply in the server, and the next command waits.

    "A client can make the server keep a command and a reply: at most MAX_COMMAND and MAX_REPLY
    bytes, in addition to the high-water mark of 64 KiB. Multiply this by max_clients, and choose
    smaller values if that is too much."

    "Its own next command is not executed until then. Other clients are not affected."
    """
    handler = RedisRequestHandler()
    handler.store.put(b"l", deque([b"x" * (resp.MAX_COMMAND - 8)] * 16))
    limits = Limits(max_clients=3)
    async with serve(handler, SERVER_PROTOCOL, limits=limits) as served:
        *greedy, other = [await served.connect(raw=True) for _ in range(3)]
        for client in greedy:
            await client.send(encode_command([b"LRANGE", b"l", b"0", b"-1"]) * 5 + b"INCR n\r\n")
        await anyio.wait_all_tasks_blocked()
        unsent = [each.get_statistics().unsent for each in served.server.get_clients()]
        overhead = 16 * len(b"$1048568\r\n\r\n") + len(b"*16\r\n")
        most = resp.MAX_REPLY + overhead + 64 * 1024
        assert sorted(size > resp.MAX_REPLY / 2 for size in unsent) == [False, True, True]
        assert max(unsent) <= most
        with pytest.raises(ConnectionResetError):  # there is no fourth one that could have as much
            await (await served.connect(raw=True)).receive()
        await other.send(b"INCR n\r\n")
        assert await other.receive() == b":1\r\n"
        for client in greedy:
            client.reset()


def test_no_limit_of_the_store(own_commands: dict[bytes, commands.Entry]) -> None:
    """The store takes everything, and a command without an await blocks the others.

    "The store has no limit: a client can fill the memory. Count the bytes in put() and remove()"

    "KEYS, FLUSHDB, long ranges of lists, and messages to clients that have subscribed to many
    patterns block all clients while they run. Remove the commands that you do not need."
    """
    session, _ = new_session()
    large = b"x" * resp.MAX_COMMAND
    for number in range(100):
        assert session.answer([b"SET", b"%d" % number, large]) == "OK"
    for name in b"KEYS", b"FLUSHDB", b"LRANGE", b"PUBLISH":
        assert not inspect.iscoroutinefunction(own_commands[name].function)
    assert not inspect.iscoroutinefunction(Session.answer)
    del own_commands[b"FLUSHDB"]
    assert ask(session, "FLUSHDB") == "ERR unknown command 'FLUSHDB'"


def test_draining() -> None:
    """How the server stops.

    "run() drains the server: each client that is silent for a second is disconnected, subscribers
    included. A command that has arrived is answered. After 10 seconds, the rest is cancelled."
    """
    grace = inspect.signature(server_run).parameters["grace"].default
    assert grace == 10

    async def main() -> None:
        handler = RedisRequestHandler()
        handler.store.put(b"large", b"x" * resp.MAX_COMMAND)
        async with serve(handler, SERVER_PROTOCOL) as served:
            silent, subscriber, busy, unread = [await served.connect(raw=True) for _ in range(4)]
            await subscriber.send(b"SUBSCRIBE news\r\n")
            await subscriber.receive()
            await busy.send(b"PING\r\n")
            await unread.send(b"GET large\r\n" * 5)
            began = anyio.current_time()
            seconds: dict[str, float] = {}

            async def wait(name: str, raw: Any) -> None:
                while await raw.receive():
                    pass
                seconds[name] = anyio.current_time() - began

            async with anyio.create_task_group() as tasks:
                for name, raw in ("silent", silent), ("subscriber", subscriber):
                    tasks.start_soon(wait, name, raw)
                await served.server.shutdown(grace=grace)
            assert 10 <= anyio.current_time() - began <= 11.5
            assert all(1 <= each < 2 for each in seconds.values())
            assert len(seconds) == 2
            assert await busy.receive() == b"+PONG\r\n"
            unread.reset()

    anyio.run(main, backend_options=virtual_time())


@pytest.mark.anyio
@once
async def test_new_server_and_old_client() -> None:
    """Another server, of another process or of this one, has none of the data.

    "Clients of Redis connect again by themselves."

    "All data is lost when the process ends."
    """
    async with miniredis_server() as server:
        port, client = port_of(server), client_of(server)
        assert await in_thread(lambda: client.set("a", "1"))
        assert await in_thread(lambda: client.get("a")) == "1"
    with client:
        async with miniredis_server(port=port):
            assert await in_thread(lambda: client.get("a")) is None
            assert await in_thread(client.ping)


@pytest.mark.anyio
@once
async def test_lines_of_the_log(log: pytest.LogCaptureFixture) -> None:
    """A connection is two lines; what a client does is none.

    "At level INFO, there are two lines for each connection. For clients that connect often, use the
    level WARNING. A client that sends garbage is not in the log"
    """
    async with serve(RedisRequestHandler(), SERVER_PROTOCOL) as served:
        for level, count in (logging.INFO, 2), (logging.WARNING, 0):
            log.set_level(level, "easynetwork")
            log.clear()
            raw = await served.connect(raw=True)
            await raw.send(b"PING\r\n*x\r\n")
            while await raw.receive():
                pass
            await until(lambda: served.server.get_statistics().clients == 0)
            assert [each.levelno for each in log.records] == [logging.INFO] * count
