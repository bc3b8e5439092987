"""Test the page about Redis: programs that others wrote talk to its server.

A sentence in quotation marks in a docstring is a quotation of the page. The server is `miniredis`,
the package of the page. The programs are redis-cli, redis-benchmark and the client package `redis`.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import fcntl
import hmac
import inspect
import logging
import os
import pty
import random
import re
import select
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import termios
import textwrap
import timeit
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.abc
import pytest
import redis
import redis.asyncio
from hypothesis import given, strategies as st

from docs._include.examples.protocols.redis import miniredis
from docs._include.examples.protocols.redis.miniredis import (
    __main__ as main_module,
    commands,
    connection as connection_module,
    handler as handler_module,
    resp,
    test_server,
    transactions,
)
from docs._include.examples.protocols.redis.miniredis.commands import command
from docs._include.examples.protocols.redis.miniredis.handler import RedisRequestHandler, Session
from docs._include.examples.protocols.redis.miniredis.pubsub import PubSub
from docs._include.examples.protocols.redis.miniredis.resp import (
    CLIENT_PROTOCOL,
    NULL_ARRAY,
    SERVER_PROTOCOL,
    Command,
    Error,
    Replies,
    Reply,
    encode_command,
    encode_reply,
)
from docs._include.examples.protocols.redis.miniredis.store import Store
from easynetwork.codec import new_codec
from easynetwork.exceptions import IncrementalDeserializeError, StreamProtocolParseError
from easynetwork.parsers import NEED_DATA
from easynetwork.serializers.tools import GeneratorStreamReader
from easynetwork.servers import AsyncTCPNetworkServer, CloseReason, Limits, run as server_run
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.groups import ClientGroup
from easynetwork.testing import serve, virtual_time
from tests.docs import redis_cost
from tests.docs.howto_support import DOCS, complaints, in_thread, serving, table, until, words
from tests.docs.terminals import next_lines
from tests.interop import support as interop
from tests.interop.support import needs
from tests.times import PATIENCE, SOON
from tests.tls_peers import authority, new_server_context

PAGE = "protocols/redis.rst"
PACKAGE = Path(miniredis.__file__).parent
LOOPS = ("asyncio", "trio")

needs_cli = needs("redis-cli")
needs_benchmark = needs("redis-benchmark")


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Fail a test in which the server logs a warning, or worse."""
    caplog.set_level(logging.INFO, "easynetwork")
    yield caplog
    assert complaints(caplog) == []


@contextlib.asynccontextmanager
async def miniredis_server(
    handler: RedisRequestHandler | None = None, **options: Any
) -> AsyncIterator[AsyncTCPNetworkServer[Command, Reply]]:
    async with serving(handler or RedisRequestHandler(), SERVER_PROTOCOL, **options) as server:
        yield server


def port_of(server: AsyncTCPNetworkServer[Any, Any]) -> int:
    return server.get_addresses()[0].port


def test_quotations() -> None:
    """The page says what the tests quote."""
    page = words(PAGE)
    found = []
    for name, test in globals().items():
        if name.startswith("test_"):
            text = " ".join(str(test.__doc__).split())
            found += re.findall(r'"(.+?)"', text)
    assert [quotation for quotation in found if quotation not in page] == []
    assert len(found) > 10


# -- redis-cli ---------------------------------------------------------------------------------


class Terminal:
    """redis-cli, in which commands are typed line by line.

    Args:
        options: ``--no-raw``, for example: show replies as in a terminal.
    """

    def __init__(self, port: int, *options: str) -> None:
        self.process = subprocess.Popen(
            ["redis-cli", "-p", str(port), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def read(self, lines: int) -> str:
        return next_lines(self.process, lines)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


@contextlib.contextmanager
def terminal(port: int) -> Iterator[Terminal]:
    opened = Terminal(port, "--no-raw")
    try:
        yield opened
    finally:
        opened.close()


def play(port: int, typed: list[tuple[str, str]]) -> list[tuple[str, str]]:
    with terminal(port) as opened:
        found = []
        for line, shown in typed:
            opened.type(line)
            found.append((line, opened.read(shown.count("\n"))))
        return found


def transcripts() -> list[str]:
    """Return what the page shows of redis-cli."""
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    blocks = re.findall(r"^   \$ redis-cli\n((?:   .*\n)+)", text, re.MULTILINE)
    return [re.sub("^   ", "", block, flags=re.MULTILINE) for block in blocks]


def play_at_terminal(port: int, transcript: str) -> str:
    """Type what a transcript has after each prompt into redis-cli; return what is on the screen."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 200, 0, 0))
    process = subprocess.Popen(
        ["redis-cli", "-p", str(port)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "dumb", "REDISCLI_HISTFILE": os.devnull},
        start_new_session=True,
    )
    os.close(slave)
    screen = ""
    transcript = transcript.replace(":6379", f":{port}")
    try:
        for part in re.split(r"(?<=> )", transcript):  # up to a prompt
            size = len(screen) + len(part)
            while len(screen) < size and select.select([master], [], [], PATIENCE)[0]:
                screen += os.read(master, 65536).decode().replace("\r\n", "\n")
            if len(screen) < len(transcript):
                line = transcript[len(screen) :].partition("\n")[0]
                os.write(master, f"{line}\n".encode())
    finally:
        process.kill()
        process.wait(PATIENCE)
        os.close(master)
    return screen.replace(f":{port}", ":6379").removesuffix("127.0.0.1:6379> ")  # may be there


@needs_cli
@pytest.mark.anyio
async def test_transcripts() -> None:
    """What the page types into redis-cli, at a terminal, prints what the page shows."""
    assert len(transcripts()) == 3
    for transcript in transcripts():
        async with miniredis_server() as server:
            screen = await in_thread(partial(play_at_terminal, port_of(server), transcript))
        assert screen == transcript


TYPED = [
    ("PING", "PONG\n"),
    ("ping hello", '"hello"\n'),
    ("ECHO 'two words'", '"two words"\n'),
    ("SELECT 0", "OK\n"),
    ("SELECT 1", "(error) ERR DB index is out of range\n"),
    ('SET binary "a\\x00\\r\\nb"', "OK\n"),
    ("GET binary", '"a\\x00\\r\\nb"\n'),
    ("GET nothing", "(nil)\n"),
    ("INCR binary", "(error) ERR value is not an integer or out of range\n"),
    ("LPUSH letters c b a", "(integer) 3\n"),
    ("GET letters", "(error) WRONGTYPE Operation against a key holding the wrong kind of value\n"),
    ("LRANGE letters 0 -2", '1) "a"\n2) "b"\n'),
    ("LRANGE letters 5 6", "(empty array)\n"),
    ("KEYS l*", '1) "letters"\n'),
    ("TYPE letters", "list\n"),
    ("CLIENT GETNAME", "(nil)\n"),
    ("CLIENT ID", "(integer) 1\n"),
    ("CONFIG GET save", '1) "save"\n2) ""\n'),
    ("HELLO 3", "(error) NOPROTO unsupported protocol version\n"),
    ("NONSENSE", "(error) ERR unknown command 'NONSENSE'\n"),
    ("GET", "(error) ERR wrong number of arguments for 'get' command\n"),
    ("MULTI", "OK\n"),
    ("GET nothing", "QUEUED\n"),
    ("LLEN letters", "QUEUED\n"),
    ("EXEC", "1) (nil)\n2) (integer) 3\n"),
    ("COMMAND COUNT", f"(integer) {len(commands.COMMANDS)}\n"),
    ("FLUSHDB", "OK\n"),
    ("DBSIZE", "(integer) 0\n"),
]


@needs_cli
@pytest.mark.anyio
async def test_typed() -> None:
    """Each type of reply looks right in redis-cli."""
    async with miniredis_server() as server:
        assert await in_thread(lambda: play(port_of(server), TYPED)) == TYPED


def run(*command: str, data: bytes = b"") -> str:
    """Run a program to its end; return what it prints."""
    done = subprocess.run(
        command,
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.decode()


@needs_cli
@pytest.mark.anyio
async def test_piped() -> None:
    """Many commands at once are all answered, in both forms.

    "redis-cli --pipe sends a file of commands at once. Each line is an inline command here"
    """
    numbers = range(1, 10_001)
    inline = "".join(f"RPUSH numbers {number}\n" for number in numbers).encode()
    arrays = b"".join(encode_command([b"RPUSH", b"others", b"%d" % number]) for number in numbers)
    async with miniredis_server() as server:
        cli = ["redis-cli", "-p", str(port_of(server))]
        for key, data in ("numbers", inline), ("others", arrays):
            output = await in_thread(partial(run, *cli, "--pipe", data=data))
            shown = "".join(f"   {line}\n" for line in output.splitlines())
            assert shown in (DOCS / PAGE).read_text(encoding="utf-8")
            output = await in_thread(partial(run, *cli, "LRANGE", key, "0", "-1"))
            assert output.split() == [str(number) for number in numbers]


@needs_cli
@pytest.mark.anyio
async def test_unix_socket(unix_path: str) -> None:
    """redis-cli connects over a Unix socket.

    "redis-cli -s PATH connects to it."
    """
    handler = RedisRequestHandler()
    async with interop.serving(AsyncUnixStreamServer(unix_path, SERVER_PROTOCOL, handler)):
        assert await in_thread(lambda: run("redis-cli", "-s", unix_path, "PING")) == "PONG\n"


@needs_cli
@pytest.mark.anyio
async def test_tls(tmp_path: Path) -> None:
    """redis-cli connects over TLS, with a certificate of its own.

    "redis-cli has the options --tls, --cert and --key."

    "Use TLS with client certificates"
    """
    authority().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority().issue_cert("client")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    context = new_server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(context)
    async with miniredis_server(ssl=context) as server:
        command = ["redis-cli", "-p", str(port_of(server)), "-h", "127.0.0.1", "--tls"]
        for option, name in ("--cacert", "ca.pem"), ("--cert", "cert.pem"), ("--key", "key.pem"):
            command += [option, str(tmp_path / name)]
        assert await in_thread(lambda: run(*command, "PING")) == "PONG\n"


@needs_cli
@pytest.mark.anyio
async def test_subscribe_in_terminal() -> None:
    """redis-cli prints the messages of a channel and of a pattern.

    "Now run redis-cli PUBLISH news hello in another terminal, and the message appears in this one."
    """
    async with miniredis_server() as server:
        port = port_of(server)

        def subscribe() -> Terminal:
            opened = Terminal(port, "--csv")
            opened.type("SUBSCRIBE news")
            assert '"subscribe","news",1' in opened.read(1)
            return opened

        opened = await in_thread(subscribe)
        try:
            number = await in_thread(
                lambda: run("redis-cli", "-p", str(port), "PUBLISH", "news", "hello")
            )
            assert number == "1\n"
            assert await in_thread(lambda: opened.read(1)) == '"message","news","hello"\n'
        finally:
            await in_thread(opened.close)


# -- redis-benchmark ---------------------------------------------------------------------------


@pytest.mark.in_turn
@needs_benchmark
@pytest.mark.anyio
@pytest.mark.parametrize("in_flight", [1, 16])
async def test_benchmark(in_flight: int) -> None:
    """redis-benchmark does its work, with 50 connections.

    "redis-benchmark measures how many commands a server executes per second."
    """
    names = "ping,set,get,incr,lpush,rpush,lpop,rpop,mset,lrange_100"
    options = ["-t", names, "-n", "1000", "-c", "50", "-P", str(in_flight), "--csv"]
    async with miniredis_server() as server:
        command = ["redis-benchmark", "-p", str(port_of(server)), *options]
        output = await in_thread(lambda: run(*command))
    assert "error" not in output.lower()
    assert "WARNING" not in output
    found = re.findall(r'^"([\w ]+)', output, re.MULTILINE)
    assert {"PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "LPUSH", "MSET "} <= set(found)


@needs_cli
def test_same_subset() -> None:
    """The server on asyncio's streams, with which the cost is compared, does the same."""
    with redis_cost.servers() as servers:
        for server in servers.values():
            assert play(server.port, TYPED) == TYPED
            with redis.Redis(port=server.port, protocol=2, socket_timeout=PATIENCE) as client:
                with client.pubsub() as pubsub:
                    pubsub.subscribe("news")
                    pubsub.psubscribe("n*")
                    found = [pubsub.get_message(timeout=PATIENCE) for _ in range(2)]
                    assert client.publish("news", "hello") == 2
                    found += [pubsub.get_message(timeout=PATIENCE) for _ in range(2)]
                    assert [message["data"] for message in found] == [1, 2, b"hello", b"hello"]


@needs_benchmark
@pytest.mark.cost
@pytest.mark.parametrize(("in_flight", "most"), [(1, 1.0), (16, 0.9)])
def test_cost(in_flight: int, most: float) -> None:
    """A request costs less processor time than on asyncio's streams.

    "about 1.1 times the processor time of this server with one command in flight, and about 1.6
    times with 16."
    """
    costs = redis_cost.measure(in_flight, 4000, rounds=4, commands="ping_mbulk,set,get,incr,lpush")
    assert redis_cost.ratio(costs) <= most, costs


# -- The client package ------------------------------------------------------------------------


def client_of(server: AsyncTCPNetworkServer[Any, Any], **options: Any) -> redis.Redis:
    return redis.Redis(
        port=port_of(server), protocol=2, socket_timeout=PATIENCE, decode_responses=True, **options
    )


async def with_client(use: Callable[[redis.Redis], None]) -> None:
    """Use a blocking client in a thread, while the server runs."""

    def run() -> None:
        with client_of(server) as client:
            use(client)

    async with miniredis_server() as server:
        await in_thread(run)


@pytest.mark.anyio
async def test_package() -> None:
    """The client package calls each command, and understands each reply."""

    def use(client: redis.Redis) -> None:
        assert client.ping()
        assert client.set("a", "1", ex=100)
        assert client.set("a", "2", nx=True) is None
        assert client.set("b", "2", xx=True) is None
        assert client.set("a", "5", keepttl=True, get=True) == "1"
        assert 0 < client.ttl("a") <= 100
        assert client.persist("a")
        assert client.ttl("a") == -1
        assert client.incr("a") == 6
        assert client.incrby("a", 4) == 10
        assert client.decr("a") == 9
        assert client.append("a", "!") == 2
        assert client.strlen("a") == 2
        assert client.mset({"x": "1", "y": "2"})
        assert client.mget("x", "nothing", "y") == ["1", None, "2"]
        assert client.setnx("x", "3") == 0
        assert client.exists("x", "y", "z") == 2
        assert client.pexpire("x", 50_000)
        assert 0 < client.pttl("x") <= 50_000
        assert client.rpush("l", "a", "b", "c") == 3
        assert client.lpush("l", "z") == 4
        assert client.lrange("l", 0, -1) == ["z", "a", "b", "c"]
        assert client.lpop("l") == "z"
        assert client.rpop("l", 2) == ["c", "b"]
        assert client.llen("l") == 1
        assert client.type("l") == "list"
        assert sorted(client.keys("?")) == ["a", "l", "x", "y"]
        assert client.dbsize() == 4
        assert client.delete("a", "nothing") == 1
        assert client.echo("hello") == "hello"
        assert client.config_get("save") == {"save": ""}
        assert client.info()["redis_version"] == "7.0.0"
        assert client.client_setname("tests")
        assert client.client_getname() == "tests"
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            client.get("l")
        assert client.flushdb()

    await with_client(use)


@pytest.mark.anyio
async def test_example_of_package(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of the page that use the client package print what they say."""
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    example = text[text.index("   import redis\n") :].partition("\n\n\n")[0]
    assert "protocol=2" in example

    def run(port: int) -> None:
        names: dict[str, Any] = {}
        exec(textwrap.dedent(example).replace("protocol=2", f"protocol=2, port={port}"), names)
        names["client"].close()

    async with miniredis_server() as server:
        await in_thread(lambda: run(port_of(server)))
    assert capsys.readouterr().out == example.rpartition("# ")[2].rstrip() + "\n"


@pytest.mark.anyio
async def test_pipelines() -> None:
    """A pipeline's replies come in order, and an error costs only its own command."""

    def use(client: redis.Redis) -> None:
        with client.pipeline(transaction=False) as pipeline:
            for number in range(1000):
                pipeline.set(f"key:{number}", "x" * number)
            for number in range(1000):
                pipeline.get(f"key:{number}")
            replies = pipeline.execute()
        assert replies == [True] * 1000 + ["x" * number for number in range(1000)]
        with client.pipeline(transaction=False) as pipeline:
            pipeline.incr("key:1")
            pipeline.incr("n")
            error, number = pipeline.execute(raise_on_error=False)
        assert isinstance(error, redis.ResponseError)
        assert number == 1

    await with_client(use)


@pytest.mark.anyio
async def test_transactions() -> None:
    """A watched key that changes makes the transaction fail, so that none of it is done.

    "If a key that the client has passed to WATCH has changed by then, nothing is executed"
    """

    def use(client: redis.Redis) -> None:
        with client.pipeline() as pipeline:
            pipeline.watch("n")
            pipeline.multi()
            pipeline.incr("n")
            client.set("n", "10")
            with pytest.raises(redis.WatchError):
                pipeline.execute()
        assert client.get("n") == "10"

        def double(pipeline: Any) -> None:
            value = int(pipeline.get("n"))
            pipeline.multi()
            pipeline.set("n", value * 2)

        assert client.transaction(double, "n") == [True]
        assert client.get("n") == "20"

    await with_client(use)


@pytest.mark.anyio
async def test_package_pubsub() -> None:
    """Messages arrive in order, over channels and patterns."""

    def use(client: redis.Redis) -> None:
        with client.pubsub() as pubsub:
            pubsub.subscribe("news.sport")
            pubsub.psubscribe("news.*")
            assert [pubsub.get_message(timeout=PATIENCE)["type"] for _ in range(2)] == [
                "subscribe",
                "psubscribe",
            ]
            assert client.publish("news.sport", "3:2") == 2
            assert client.publish("news.weather", "rain") == 1
            assert client.publish("gossip", "psst") == 0
            found = [pubsub.get_message(timeout=PATIENCE) for _ in range(3)]
            assert [(each["type"], each["channel"], each["data"]) for each in found] == [
                ("message", "news.sport", "3:2"),
                ("pmessage", "news.sport", "3:2"),
                ("pmessage", "news.weather", "rain"),
            ]
            pubsub.ping("still there")
            assert pubsub.get_message(timeout=PATIENCE)["data"] == "still there"
            pubsub.unsubscribe()
            pubsub.punsubscribe()
            assert [pubsub.get_message(timeout=PATIENCE)["data"] for _ in range(2)] == [1, 0]

    await with_client(use)


@pytest.mark.anyio
async def test_async_package() -> None:
    """The asynchronous client works as well: commands, pipelines, publish and subscribe.

    "All commands of all clients run in the thread of the event loop, and none of them awaits
    anything. So each command is atomic, without a lock."
    """

    async def use(port: int) -> None:
        async with redis.asyncio.Redis(port=port, protocol=2, socket_timeout=PATIENCE) as client:
            assert await client.set("n", 1)
            async with client.pipeline() as pipeline:
                pipeline.incr("n")
                pipeline.incr("n")
                assert await pipeline.execute() == [2, 3]
            async with client.pubsub() as pubsub:
                await pubsub.subscribe("news")
                await pubsub.get_message(timeout=PATIENCE)
                assert await client.publish("news", "hello") == 1
                message = await pubsub.get_message(timeout=PATIENCE)
                assert message["data"] == b"hello"
            answers = await asyncio.gather(*(client.incr("n") for _ in range(20)))
            assert sorted(answers) == list(range(4, 24))

    async with miniredis_server() as server:
        await in_thread(lambda: asyncio.run(use(port_of(server))))


# -- Slow subscribers, and abuse ---------------------------------------------------------------


@pytest.mark.anyio
async def test_slow_subscriber() -> None:
    """A subscriber that never reads is disconnected, and does not hold up the others.

    "A subscriber that does not read as fast as messages are published is disconnected"
    """
    pubsub = PubSub(high_water=100_000)
    async with miniredis_server(RedisRequestHandler(pubsub=pubsub)) as server:
        with socket.create_connection(("127.0.0.1", port_of(server))) as never_reads:
            never_reads.sendall(encode_command([b"SUBSCRIBE", b"news"]))
            await until(lambda: b"news" in pubsub.topics["subscribe"])

            def publish() -> int:
                with client_of(server) as client, client.pubsub() as quick:
                    quick.subscribe("news")
                    quick.get_message(timeout=PATIENCE)
                    count = 0
                    while client.publish("news", "x" * 50_000) == 2:
                        assert quick.get_message(timeout=PATIENCE)["data"] == "x" * 50_000
                        count += 1
                    assert quick.get_message(timeout=PATIENCE)["data"] == "x" * 50_000
                    return count

            assert await in_thread(publish) >= 2
            await until(lambda: CloseReason.ABORTED in server.get_statistics().closed)
        await until(lambda: not pubsub.topics["subscribe"])


async def silent(stream: anyio.abc.SocketStream, seed: int) -> None:
    await anyio.sleep_forever()


async def slow(stream: anyio.abc.SocketStream, seed: int) -> None:
    for byte in encode_command([b"SET", b"slow", b"x" * 100_000]):
        await stream.send(bytes([byte]))
        await anyio.sleep(SOON)


async def garbage(stream: anyio.abc.SocketStream, seed: int) -> None:
    data = random.Random(seed).randbytes(100_000)
    while True:
        await stream.send(b"*" * (seed % 2) + data)


async def never_reads(stream: anyio.abc.SocketStream, seed: int) -> None:
    sock = stream.extra(anyio.abc.SocketAttribute.raw_socket)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # does not take megabytes
    while True:
        await stream.send(encode_command([b"GET", b"large"]) * 100)


@pytest.mark.in_turn
@needs_cli
@pytest.mark.anyio
async def test_abuse() -> None:
    """redis-cli works beside 200 clients that are slow, silent, send garbage or never read.

    "A client that sends commands but does not read the replies makes send_packet() wait. Its own
    next command is not executed until then. Other clients are not affected."

    "A client that sends garbage is not in the log, because the handler catches its error."
    """
    limits = Limits(send_timeout=10 * SOON, packet_timeout=10 * SOON)
    async with miniredis_server(limits=limits) as server, anyio.create_task_group() as tasks:
        port = port_of(server)

        async def misbehave(abuse: Callable[..., Any], seed: int) -> None:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    await abuse(stream, seed)

        def work() -> None:
            for number in range(10):
                assert run("redis-cli", "-p", str(port), "INCR", "n") == f"{number + 1}\n"
            assert run("redis-cli", "-p", str(port), "SET", "large", "x" * 10_000) == "OK\n"

        await in_thread(lambda: run("redis-cli", "-p", str(port), "SET", "large", "x" * 10_000))
        for seed in range(50):
            for abuse in silent, slow, garbage, never_reads:
                tasks.start_soon(misbehave, abuse, seed)
        await until(lambda: server.get_statistics().accepted >= 200)
        await in_thread(work)
        await until(lambda: server.get_statistics().clients == 50)
        closed = server.get_statistics().closed
        assert closed[CloseReason.PACKET_TIMEOUT] >= 50
        assert closed[CloseReason.SEND_TIMEOUT] >= 1
        assert closed[CloseReason.CLOSED] >= 25
        tasks.cancel_scope.cancel()


# -- The protocol ------------------------------------------------------------------------------


def parse(protocol: Any, chunks: list[bytes]) -> list[Any]:
    """Return the packets of a stream, and the first error as a text; it ends the connection."""
    decoder = new_codec(protocol, 65536).new_decoder()
    found: list[Any] = []
    for chunk in chunks:
        decoder.feed(chunk)
        while decoder.refill():
            try:
                while (packet := decoder.take()) is not NEED_DATA:
                    found.append(packet)
            except StreamProtocolParseError as exc:
                return [*found, str(exc.error)]
    return found


def cuts(data: bytes) -> Iterator[list[bytes]]:
    yield [data[index : index + 1] for index in range(len(data))]
    for index in range(1, len(data)):
        yield [data[:index], data[index:]]


WORDS = st.binary(max_size=12) | st.sampled_from([b"\r\n", b"$1\r\nx\r\n", b"*1\r\n", b""])
COMMANDS = st.lists(WORDS, min_size=1, max_size=4)
PIECES = (
    COMMANDS.map(encode_command)
    | st.binary(max_size=8)
    | st.sampled_from(
        [
            *(b"PING\r\n", b"\r\n", b"\n", b"SET \"a b\" 'c'\n", b'"\n', b"*0\r\n", b"*-1\r\n"),
            *(b"*1\n", b"*2\r\n$1\r\nx\r\n", b"*1\r\n$03\r\nabc\r\n", b"*1\r\n$3\r\nabcd\r\n"),
            *(b"*99999\r\n", b"*1\r\n$99999999\r\n", b"*1\r\n$-1\r\n", b"*+1\r\n", b"*1_0\r\n"),
            *(b"* 1\r\n", b"*\r\n"),
        ]
    )
)


@given(st.lists(COMMANDS, min_size=1, max_size=4))
def test_commands_at_every_cut(sent: list[Command]) -> None:
    """Commands are the same, however the stream is cut."""
    data = b"".join(map(encode_command, sent))
    assert parse(SERVER_PROTOCOL, [data]) == sent
    for chunks in cuts(data):
        assert parse(SERVER_PROTOCOL, chunks) == sent


@given(st.lists(PIECES, min_size=1, max_size=4))
def test_anything_at_every_cut(pieces: list[bytes]) -> None:
    """What is wrong is as wrong in pieces, and the quick way to split finds what the other does."""
    data = b"".join(pieces)
    whole = parse(SERVER_PROTOCOL, [data]) if data else []
    for chunks in cuts(data):
        assert parse(SERVER_PROTOCOL, chunks) == whole


REPLIES = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=9) | st.just("OK"),
    lambda replies: st.lists(replies, max_size=3),
    max_leaves=5,
)


@given(REPLIES)
def test_replies_at_every_cut(reply: Reply) -> None:
    """The client's end understands what the server's end sends."""
    data = encode_reply(reply)
    assert parse(CLIENT_PROTOCOL, [data]) == [reply]
    for chunks in cuts(data):
        assert parse(CLIENT_PROTOCOL, chunks) == [reply]


WRONG = {
    b"*1\r\n:4\r\nPING\r\n": "expected '$', got ':'",
    b"*x\r\n": "invalid length",
    b"*10001\r\n": "too long",
    b"*1\r\n$1048577\r\n": "too long",
    b"*2\r\n$1048576\r\n" + b"x" * 1048576 + b"\r\n$1\r\n": "too long",
    b"*1\r\n$4\r\nPINGPONG": "expected CRLF",
    b'GET "x\r\n': "unbalanced quotes in request",
    b"x" * 65537: "Separator is not found, and chunk exceed the limit",
    b"*1\r\n$" + b"1" * 65537: "Separator is not found, and chunk exceed the limit",
    b"*" + b"9" * 5000 + b"\r\n": "invalid length",
}


@pytest.mark.parametrize("data", WRONG, ids=lambda data: repr(data[:12]))
@pytest.mark.anyio
async def test_wrong_commands(data: bytes) -> None:
    """A client that does not follow the protocol is told why, and disconnected.

    "The server tells the client what is wrong, and closes the connection"
    """
    async with serve(RedisRequestHandler(), SERVER_PROTOCOL) as served:
        connection = await served.connect(raw=True)
        await connection.send(encode_command([b"PING"]) + data)
        received = b""
        while chunk := await connection.receive():
            received += chunk
        assert received == f"+PONG\r\n-ERR Protocol error: {WRONG[data]}\r\n".encode()


@pytest.mark.parametrize("lines", ["POST / HTTP/1.1", "GET / HTTP/1.1\r\nHost: localhost:6379"])
@pytest.mark.anyio
async def test_browser(lines: str) -> None:
    """A web page cannot make a browser send commands.

    "So the server disconnects a client that sends POST or Host:, as Redis does."

    "they disconnect web browsers"
    """
    handler = RedisRequestHandler()
    async with serve(handler, SERVER_PROTOCOL) as served:
        connection = await served.connect(raw=True)
        await connection.send(f"{lines}\r\n\r\nSET attacked 1\r\n".encode())
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := await connection.receive():
                received += chunk
        assert received.splitlines()[-1] == b"-ERR this is not a web server"
        assert handler.store.get(b"attacked") is None


class PasswordSession(Session):
    """The exercise of the page, solved: commands need a login."""

    free = frozenset({b"AUTH", b"HELLO", b"QUIT", b"POST", b"HOST:"})

    def __init__(self, handler: RedisRequestHandler, client: Any) -> None:
        super().__init__(handler, client)
        self.client = client
        self.is_logged_in = False
        self.errors = 0

    def answer(self, words: Command) -> Reply:
        if words and not self.is_logged_in and words[0].upper() not in self.free:
            return self.refuse(Error("NOAUTH Authentication required."))
        return super().answer(words)

    def refuse(self, error: Error) -> Error:
        self.errors += 1
        self.connection.has_quit = self.errors == 3
        return error

    def log_in(self, password: bytes) -> Reply:
        if not hmac.compare_digest(password, b"secret"):
            return self.refuse(Error("WRONGPASS invalid password."))
        self.is_logged_in = True
        self.client.set_limits(idle_timeout=None)
        return "OK"


class PasswordHandler(RedisRequestHandler):
    async def on_connection(self, client: Any) -> None:
        client.set_limits(idle_timeout=10)


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server of the page have the solved exercise."""
    monkeypatch.setattr(handler_module, "Session", PasswordSession)
    entry = commands.Entry(lambda log_in, word: log_in(word), "log_in", 2, 2)
    monkeypatch.setitem(commands.COMMANDS, b"AUTH", entry)


@pytest.mark.usefixtures("password")
@pytest.mark.parametrize("loop", LOOPS)
def test_password(loop: str) -> None:
    """A client that does not log in is disconnected, and one that does may stay.

    "Call client.set_limits(idle_timeout=10) in on_connection(), and
    client.set_limits(idle_timeout=None) after the login."

    "for all commands but AUTH, HELLO, QUIT, POST and HOST:. The last two must still disconnect
    browsers."

    "Each command starts this time anew, so also set has_quit after a few errors."

    "A client that does not log in should not stay."
    """

    async def main() -> None:
        async with serve(PasswordHandler(), SERVER_PROTOCOL) as served:

            async def talk(*lines: str, pause: float = 0) -> list[bytes]:
                """Send lines until the server ends the connection, and return the replies."""
                connection = await served.connect(raw=True)
                replies = []
                for line in lines:
                    await connection.send(f"{line}\r\n".encode())
                    replies.append(await connection.receive())
                    await anyio.sleep(pause)
                began = anyio.current_time()
                with contextlib.suppress(ConnectionResetError):
                    assert await connection.receive() == b""
                replies.append(b"%d" % (anyio.current_time() - began))
                return replies

            refused = b"-NOAUTH Authentication required.\r\n"
            assert await talk() == [b"10"]
            assert await talk("GET a") == [refused, b"10"]
            assert await talk("GET a", "GET a", pause=9) == [refused, refused, b"1"]
            wrong = b"-WRONGPASS invalid password.\r\n"
            assert await talk("AUTH x", "GET a", "AUTH y") == [wrong, refused, wrong, b"0"]
            for line in "POST / HTTP/1.1", "Host: localhost":
                assert await talk(line) == [b"-ERR this is not a web server\r\n", b"0"]
            client = await served.connect(protocol=CLIENT_PROTOCOL)
            for words in [b"AUTH", b"secret"], [b"PING"]:
                await client.send_packet(words)
                assert await client.recv_packet() in ("OK", "PONG")
                await anyio.sleep(1000)

    anyio.run(main, backend=loop, backend_options=virtual_time(loop))


@pytest.mark.usefixtures("password")
@pytest.mark.parametrize("loop", LOOPS)
def test_first_packet_timeout_and_password(loop: str) -> None:
    """The timeout for the first packet does not replace the idle timeout.

    "Limits(first_packet_timeout=10) is not enough: a single command ends it, even one that is
    refused."
    """

    async def main() -> None:
        limits = Limits(first_packet_timeout=10)
        async with serve(RedisRequestHandler(), SERVER_PROTOCOL, limits=limits) as served:
            client = await served.connect(protocol=CLIENT_PROTOCOL)
            for _ in range(2):
                await client.send_packet([b"GET", b"a"])
                assert "NOAUTH" in str(await client.recv_packet())
                await anyio.sleep(1000)

    anyio.run(main, backend=loop, backend_options=virtual_time(loop))


def test_types_of_replies() -> None:
    """Replies look as the table shows them.

    "There are five types of replies. The first byte of a reply tells its type"
    """
    values: list[list[Reply]] = [
        ["OK"],
        [Error("ERR unknown command")],
        [42],
        [b"Ada", None],
        [[42], NULL_ARRAY],
    ]
    rows = table(PAGE, "Reply", "In Python", "Bytes")
    for (_, _, shown), replies in zip(rows, values, strict=True):
        encoded = [encode_reply(reply).decode().replace("\r\n", "\\r\\n") for reply in replies]
        assert ", or ".join(encoded).replace("*", "") == shown  # which has lost its asterisks


def test_limits_of_replies() -> None:
    """The client's end refuses what is nested too deeply, or too large.

    "Replies can be nested, so it limits their depth."
    """
    depth = resp.MAX_DEPTH
    assert parse(CLIENT_PROTOCOL, [b"*1\r\n" * depth + b":1\r\n"]) != ["too deep"]
    assert parse(CLIENT_PROTOCOL, [b"*1\r\n" * (depth + 1) + b":1\r\n"]) == ["too deep"]
    for large in b"$%d\r\n" % (resp.MAX_REPLY + 1), b"*2\r\n$%d\r\n" % resp.MAX_REPLY:
        assert parse(CLIENT_PROTOCOL, [large]) == ["the reply is too long"]
    assert parse(CLIENT_PROTOCOL, [b"?1\r\n"]) == ["unknown type b'?'"]
    assert parse(CLIENT_PROTOCOL, [b":x\r\n"]) == ["not an integer"]


def test_errors_stay_on_their_line() -> None:
    """A client cannot make its error look like several replies.

    "An error often quotes what the client has sent, and in such a text a newline would begin
    another reply. So the function replaces newlines."
    """
    session, _ = new_session()
    for name in b"x\r\n+OK", b"x\n+OK", b"x\x85+OK", b"\xff":
        data = encode_reply(session.answer([name]))
        assert data.count(b"\n") == data.count(b"\r") == 1
        assert data.endswith(b"\r\n")


# -- The commands ------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_list_of_commands() -> None:
    """The page lists all commands, by module.

    "These are all commands"

    "POST and HOST: are registered, too, so COMMAND COUNT includes them"

    "so COMMAND COUNT includes them: they disconnect web browsers"
    """
    listed = {
        (module, name)
        for module, names in table(PAGE, "Module", "Commands")
        for name in names.split()
    }
    modules = {
        "store": "commands.py",
        "transaction": "transactions.py",
        "subscriptions": "pubsub.py",
        "connection": "connection.py",
    }
    http = {b"POST", b"HOST:"}
    assert ask(new_session()[0], "COMMAND COUNT") == len(listed) + len(http)
    assert listed == {
        (modules[entry.attribute], name.decode())
        for name, entry in commands.COMMANDS.items()
        if name not in http
    }


def new_session(store: Store | None = None) -> tuple[Session, Clock]:
    """Return a session without a connection, and the clock of its store."""
    clock = Clock()
    handler = RedisRequestHandler(store or Store(clock))
    handler.server = None
    client: Any = None
    return Session(handler, client), clock


def ask(session: Session, line: str) -> Any:
    reply = session.answer(line.encode().split())
    return str(reply) if isinstance(reply, Error) else reply


NOT_AN_INTEGER = "ERR value is not an integer or out of range"
OVERFLOW = "ERR increment or decrement would overflow"
SYNTAX = "ERR syntax error"
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
EXPIRE = "ERR invalid expire time in 'set' command"

SCRIPTS = {
    "set": """
        SET a 1 -> 'OK'
        set a 2 nx -> None
        SET b 2 XX -> None
        SET a 2 XX GET -> b'1'
        SET c 1 GET -> None
        SET a 3 NX XX -> SYNTAX
        SET a 3 EX 1 PX 1 -> SYNTAX
        SET a 3 EX 1 KEEPTTL -> SYNTAX
        SET a 3 EX -> NOT_AN_INTEGER
        SET a 3 EX 0 -> EXPIRE
        SET a 3 PX -5 -> EXPIRE
        SET a 3 EX 99999999999 -> EXPIRE
        SET a 3 SOON -> SYNTAX
        GET a -> b'2'
        LPUSH l x -> 1
        SET l x GET -> WRONG_TYPE
        SET l x -> 'OK'
        GET l -> b'x'
    """,
    "integers": """
        INCR n -> 1
        INCRBY n 9223372036854775806 -> 9223372036854775807
        INCR n -> OVERFLOW
        GET n -> b'9223372036854775807'
        SET n -9223372036854775808 -> 'OK'
        DECR n -> OVERFLOW
        INCRBY n 9223372036854775808 -> NOT_AN_INTEGER
        INCRBY n +1 -> NOT_AN_INTEGER
        INCRBY n 1_0 -> NOT_AN_INTEGER
        INCRBY n --1 -> NOT_AN_INTEGER
        SET n 1.5 -> 'OK'
        INCR n -> NOT_AN_INTEGER
        LPUSH l x -> 1
        INCR l -> WRONG_TYPE
        APPEND l x -> WRONG_TYPE
    """,
    "lists": """
        RPUSH l a b c -> 3
        LPUSH l z y -> 5
        LRANGE l 0 -1 -> [b'y', b'z', b'a', b'b', b'c']
        LRANGE l -2 100 -> [b'b', b'c']
        LRANGE l -100 0 -> [b'y']
        LRANGE l 3 1 -> []
        LRANGE none 0 -1 -> []
        LRANGE l x 1 -> NOT_AN_INTEGER
        LPOP l -> b'y'
        RPOP l 2 -> [b'c', b'b']
        LPOP l 0 -> []
        LPOP l -1 -> 'ERR value is out of range, must be positive'
        LPOP l 10 -> [b'z', b'a']
        EXISTS l -> 0
        LPOP l -> None
        LPOP l 1 -> NULL_ARRAY
        LLEN l -> 0
        SET s x -> 'OK'
        LLEN s -> WRONG_TYPE
        RPUSH s x -> WRONG_TYPE
        TYPE s -> 'string'
        TYPE none -> 'none'
    """,
    "several keys": """
        MSET a 1 b 2 -> 'OK'
        MSET a 1 b -> "ERR wrong number of arguments for 'mset' command"
        RPUSH l x -> 1
        MGET a l none b -> [b'1', None, None, b'2']
        EXISTS a a none -> 2
        KEYS [ab] -> [b'a', b'b']
        KEYS [^ab] -> [b'l']
        SETNX a 1 -> 0
        SETNX c 1 -> 1
        DEL a a b none -> 2
        DBSIZE -> 2
        FLUSHDB -> 'OK'
        KEYS * -> []
    """,
    "transactions": """
        EXEC -> 'ERR EXEC without MULTI'
        DISCARD -> 'ERR DISCARD without MULTI'
        MULTI -> 'OK'
        MULTI -> 'ERR MULTI calls can not be nested'
        WATCH a -> 'ERR WATCH inside MULTI is not allowed'
        SET a 1 -> 'QUEUED'
        LPOP a -> 'QUEUED'
        INCR a -> 'QUEUED'
        EXEC -> ['OK', WRONG_TYPE, 2]
        MULTI -> 'OK'
        SET a 10 -> 'QUEUED'
        GET -> "ERR wrong number of arguments for 'get' command"
        EXEC -> 'EXECABORT Transaction discarded because of previous errors.'
        MULTI -> 'OK'
        SET a 10 -> 'QUEUED'
        DISCARD -> 'OK'
        GET a -> b'2'
        WATCH a -> 'OK'
        SET a 3 -> 'OK'
        UNWATCH -> 'OK'
        MULTI -> 'OK'
        GET a -> 'QUEUED'
        EXEC -> [b'3']
        MULTI -> 'OK'
        SUBSCRIBE news -> 'ERR subscriptions are not allowed in transactions'
        EXEC -> 'EXECABORT Transaction discarded because of previous errors.'
    """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_commands(name: str) -> None:
    """Commands give the replies of Redis."""
    session, _ = new_session()
    for step in SCRIPTS[name].strip().splitlines():
        line, _, expected = step.strip().partition(" -> ")
        reply = ask(session, line)
        if isinstance(reply, list):
            reply = [str(each) if isinstance(each, Error) else each for each in reply]
        assert reply == eval(expected), line


def test_expiry() -> None:
    """A key is gone as soon as its time is over, whether it is asked for or not."""
    session, clock = new_session()
    for line in "SET a 1 EX 10", "SET b 1 PX 500", "SET c 1":
        assert ask(session, line) == "OK"
    assert [ask(session, f"PTTL {key}") for key in "abcd"] == [10_000, 500, -1, -2]
    assert ask(session, "EXPIRE c 20") == 1
    assert ask(session, "EXPIRE d 20") == 0
    assert ask(session, "INCR a") == 2
    clock.now += 0.5
    assert ask(session, "DBSIZE") == 2
    assert ask(session, "GET b") is None
    assert ask(session, "TTL a") == 10
    assert ask(session, "SET a 5 KEEPTTL") == "OK"
    assert ask(session, "PTTL a") == 9500
    assert ask(session, "SET a 6") == "OK"
    assert ask(session, "TTL a") == -1
    assert ask(session, "PERSIST a") == 0
    assert ask(session, "PERSIST c") == 1
    assert ask(session, "PEXPIRE a 1") == 1
    assert ask(session, "EXPIRE c -1") == 1
    assert ask(session, "EXISTS c") == 0
    clock.now += 1
    assert ask(session, "RPUSH a x") == 1, "not the string that has expired"
    assert ask(session, "TTL a") == -1


@pytest.mark.parametrize("loop", LOOPS)
def test_keys_that_are_not_asked_for(loop: str) -> None:
    """Expired keys are removed even if no client asks for them.

    "once a second"
    """

    async def main() -> None:
        handler = RedisRequestHandler()
        async with serve(handler, SERVER_PROTOCOL) as served:
            client = await served.connect(protocol=CLIENT_PROTOCOL)
            await client.send_packet([b"SET", b"a", b"1", b"EX", b"60"])
            assert await client.recv_packet() == "OK"
            await anyio.sleep(59)
            assert handler.store._values == {b"a": b"1"}
            await anyio.sleep(3)
            assert handler.store._values == handler.store._deadlines == {}

    anyio.run(main, backend=loop, backend_options=virtual_time(loop))


def test_watched_keys() -> None:
    """A transaction fails if a watched key was changed, removed or expired, and only then."""
    clock = Clock()
    store = Store(clock)
    one, other = new_session(store)[0], new_session(store)[0]
    for change, is_failure in {
        "SET a 2": True,
        "APPEND a x": True,
        "DEL a": True,
        "EXPIRE a 1": True,
        "FLUSHDB": True,
        "GET a": False,
        "SET b 2": False,
        "SET a 2 NX": False,
    }.items():
        ask(one, "SET a 1 EX 100")
        ask(one, "WATCH a c")
        ask(other, change)
        ask(one, "MULTI")
        ask(one, "GET b")
        assert (ask(one, "EXEC") is NULL_ARRAY) == is_failure, change
    ask(one, "SET a 1 EX 100")
    ask(one, "WATCH a")
    ask(one, "MULTI")
    clock.now += 100
    assert ask(one, "EXEC") is NULL_ARRAY
    assert store._watchers == {}
    ask(one, "WATCH a")
    one.close()
    assert store._watchers == {}


def test_bounded() -> None:
    """What one client can make the server keep, or send, is bounded.

    "it passes the new length to check_string() before it builds the string"
    """
    session, _ = new_session()
    large = b"x" * resp.MAX_COMMAND
    session.answer([b"SET", b"large", large])
    assert ask(session, "APPEND large x") == "ERR string exceeds maximum allowed size"
    assert ask(session, "MGET" + " large" * 17) == "ERR the reply is too large"
    assert ask(session, "MULTI") == "OK"
    for _ in range(20):
        assert ask(session, "GET large") == "QUEUED"
    replies = ask(session, "EXEC")
    assert [type(reply) for reply in replies] == [bytes] * 16 + [Error] * 4
    assert ask(session, "MULTI") == "OK"
    assert "too large" in str(session.answer([b"SET", b"a", large]))
    assert "EXECABORT" in ask(session, "EXEC")
    names = " ".join(map(str, range(1001)))
    assert ask(session, f"WATCH {names}") == "ERR too many names"
    assert ask(session, f"SUBSCRIBE {names}") == "ERR too many names"
    assert ask(session, f"KEYS {'x' * 257}") == "ERR the pattern is too long"
    assert ask(session, f"PSUBSCRIBE a {'x' * 257}") == "ERR the pattern is too long"
    store = session.store
    for number in range(10_000):
        ask(session, f"EXPIRE large {number + 1}")
    assert len(store._next) < 2000


@pytest.mark.parametrize("name", ["LPOP", "RPOP", "LRANGE"])
def test_bounded_lists(name: str) -> None:
    """A list that is too large for a reply stays as it is."""
    session, _ = new_session()
    large = b"x" * (resp.MAX_COMMAND - 5)
    for _ in range(17):
        session.answer([b"RPUSH", b"l", large])
    arguments = "0 16" if name == "LRANGE" else "17"
    assert ask(session, f"{name} l {arguments}") == "ERR the reply is too large"
    assert ask(session, "LLEN l") == 17
    arguments = "0 14" if name == "LRANGE" else "15"
    assert ask(session, f"{name} l {arguments}") == [large] * 15


@pytest.mark.anyio
async def test_subscriptions() -> None:
    """A client that has subscribed gets messages, and may use few commands."""
    handler = RedisRequestHandler()
    async with serve(handler, SERVER_PROTOCOL) as served:
        client = await served.connect(protocol=CLIENT_PROTOCOL)
        other = await served.connect(protocol=CLIENT_PROTOCOL)

        async def send(*lines: str) -> None:
            for line in lines:
                await client.send_packet(line.encode().split())

        async def receive(count: int) -> list[Any]:
            return [await client.recv_packet() for _ in range(count)]

        await send(
            "UNSUBSCRIBE", "SUBSCRIBE a b a", "PSUBSCRIBE a*", "GET a", "PING", "PUBLISH a x"
        )
        replies = await receive(8)
        assert replies[:5] == [
            [b"unsubscribe", None, 0],
            [b"subscribe", b"a", 1],
            [b"subscribe", b"b", 2],
            [b"subscribe", b"a", 2],
            [b"psubscribe", b"a*", 3],
        ]
        assert isinstance(replies[5], Error)
        assert replies[6] == [b"pong", b""]
        assert isinstance(replies[7], Error)
        await other.send_packet([b"PUBLISH", b"a", b"1"])
        assert await other.recv_packet() == 2
        assert await receive(2) == [[b"message", b"a", b"1"], [b"pmessage", b"a*", b"a", b"1"]]
        await send("UNSUBSCRIBE a c", "PUNSUBSCRIBE", "UNSUBSCRIBE", "PING")
        assert await receive(5) == [
            [b"unsubscribe", b"a", 2],
            [b"unsubscribe", b"c", 2],
            [b"punsubscribe", b"a*", 1],
            [b"unsubscribe", b"b", 0],
            "PONG",
        ]
        assert handler.pubsub.topics == {"subscribe": {}, "psubscribe": {}}
        await send("SUBSCRIBE a", "QUIT")
        assert await receive(2) == [[b"subscribe", b"a", 1], "OK"]
        with pytest.raises(ConnectionError):
            await client.recv_packet()
        await until(lambda: not handler.pubsub.topics["subscribe"])


@pytest.mark.anyio
async def test_one_write() -> None:
    """The replies to commands that arrive together leave together.

    "their replies leave in one write"

    "A client sends commands, and the server sends a reply to each."

    "Clients may send many commands without waiting for the replies, which is called pipelining.
    There is nothing to do for this: commands that arrive together are executed in order, and their
    replies leave in one write."
    """
    async with serve(RedisRequestHandler(), SERVER_PROTOCOL) as served:
        connection = await served.connect(raw=True)
        await connection.send(encode_command([b"INCR", b"n"]) * 16)
        replies = b"".join(b":%d\r\n" % number for number in range(1, 17))
        assert await connection.receive() == replies


# -- The program -------------------------------------------------------------------------------


def test_size_of_the_handler() -> None:
    """The handler has at most 180 lines."""
    assert handler_module.__file__ is not None
    assert len(Path(handler_module.__file__).read_text().splitlines()) <= 180


@needs_cli
def test_program(tmp_path: Path) -> None:
    """The program serves until it is told to stop, and drains then.

    "python -m miniredis"

    "disconnects those that do not read for 30 seconds"

    "each client that is silent for a second is disconnected, subscribers included."

    "Start the server in the folder above miniredis"

    "run() serves until the process gets SIGTERM or SIGINT (Control-C)."
    """
    shutil.copytree(PACKAGE, tmp_path / "miniredis", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "miniredis", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        try:
            lines = [program.stderr.readline() for _ in range(2)]
            port = re.findall(r"'127.0.0.1', (\d+)\)", lines[1])[0]
            for line in lines:
                assert f"   {line.replace(port, '6379')}" in (DOCS / PAGE).read_text("utf-8")
            assert "send_timeout=30," in lines[0]
            assert run("redis-cli", "-p", port, "SET", "a", "1") == "OK\n"
            opened = Terminal(int(port))
            try:
                opened.type("SUBSCRIBE news")
                assert opened.read(3).endswith("1\n")
                program.send_signal(signal.SIGTERM)
                output = program.communicate(timeout=PATIENCE)[1]
            finally:
                opened.close()
        finally:
            program.kill()
    assert program.returncode == 0, output
    assert "Traceback" not in output


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


def test_numbers_of_commands() -> None:
    """What is announced is checked before it is waited for.

    "A client may announce anything, so check each number before you wait for so many bytes"

    "MAX_LINE limits an inline command, and the line with a length."

    "MAX_WORDS limits the number of words, MAX_COMMAND the bytes of all words. With these limits, a
    command occupies 1 MiB plus the small objects of 10,000 words."

    "Python's int also accepts +1, 1_0 and numbers of any length. parse_length() accepts at most ten
    digits."

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

    assert 2 < seconds(slow) / seconds(lambda: resp.split_command(data)) < 7


# -- The store ---------------------------------------------------------------------------------


def test_expired_keys_in_the_store() -> None:
    """A key goes when it is asked for, and outdated deadlines go when there are many.

    "A key with a deadline is removed as soon as a command asks for it and finds that it has
    expired."

    "The heap contains outdated deadlines if a key gets a new one, so it is built anew when too many
    of them have accumulated."
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

    "Session finds the function of a command and calls it"

    "The second argument of the decorator command is the attribute of the session that the function
    gets first. By default, this is the store. For the commands of the next sections, it is another
    object."
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
    names = {**vars(test_server), "Error": Error}
    assert "Error" not in vars(test_server)
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
    yield. The server tells the client what is wrong, and closes the connection"

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
    in each case, and cleans up."

    "So a channel without subscribers is removed"
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
    may be as large as a single command. A few short commands can have very long replies. So _run()
    replaces replies that exceed MAX_REPLY together, and commands such as LRANGE refuse to return
    such a reply."
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

    "check_serializer() splits the commands at each position. So it also checks that the fast way
    and the slow way to parse a command return the same words."
    """
    chunks: set[int] = set()
    original = resp.split_command

    def noting(data: bytes) -> tuple[Command, bytes] | None:
        chunks.add(len(data))
        return original(data)

    monkeypatch.setattr(resp, "split_command", noting)
    test_server.test_commands_in_pieces()
    assert set(range(1, 40)) <= chunks

    def wrong(data: bytes) -> tuple[Command, bytes] | None:
        found = original(data)
        return found and ([word[::-1] for word in found[0]], found[1])

    monkeypatch.setattr(resp, "split_command", wrong)
    with pytest.raises(AssertionError):
        test_server.test_commands_in_pieces()


@pytest.mark.anyio
@once
async def test_tests_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page says of its tests.

    "The tests run on a network in memory"

    "connect() gets the protocol object of the client's end"

    "test_slow_network lets one to three bytes arrive at a time."

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

    ask_in_memory = test_server.ask
    monkeypatch.setattr(test_server, "serve", noting)
    monkeypatch.setattr(test_server, "ask", noting_ask)
    monkeypatch.setattr(socket.socket, "connect", None)
    await test_server.test_transaction()
    assert options == [{"protocol": CLIENT_PROTOCOL}] * 2
    await test_server.test_invalid_command()
    assert options[-1] == {"raw": True}
    await test_server.test_slow_network(1)
    assert repr(networks[-1]) == "MemoryNetwork(seed=1, chunks=range(1, 4))"
    published.clear()
    await test_server.test_slow_subscriber()
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
        assert await test_server.ask(one, "SET a 1") == "OK"
        assert await test_server.ask(other, "GET a") == b"1"
        assert await test_server.ask(other, "FLUSHDB") == "OK"
        assert await test_server.ask(one, "GET a") is None
        assert "unknown command" in str(await test_server.ask(one, "AUTH secret"))


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
    bytes, in addition to the high-water mark of 64 KiB."

    "Its own next command is not executed until then. Other clients are not affected."
    """
    handler = RedisRequestHandler()
    handler.store.put(b"l", deque([b"x" * (resp.MAX_COMMAND - 8)] * 16))
    async with serve(handler, SERVER_PROTOCOL) as served:
        greedy, other = [await served.connect(raw=True) for _ in range(2)]
        await greedy.send(encode_command([b"LRANGE", b"l", b"0", b"-1"]) * 5 + b"INCR n\r\n")
        await anyio.wait_all_tasks_blocked()
        unsent = max(each.get_statistics().unsent for each in served.server.get_clients())
        overhead = 16 * len(b"$1048568\r\n\r\n") + len(b"*16\r\n")
        assert resp.MAX_REPLY / 2 < unsent <= resp.MAX_REPLY + overhead + 64 * 1024
        await other.send(b"INCR n\r\n")
        assert await other.receive() == b":1\r\n"
        greedy.reset()


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
