"""Test the page about Redis: programs that others wrote talk to its server.

A sentence in quotation marks in a docstring is a quotation of the page. The server is `miniredis`,
the package of the page. The programs are redis-cli, redis-benchmark and the client package `redis`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hmac
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
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
import redis
import redis.asyncio
from hypothesis import given, strategies as st

from docs._include.examples.protocols.redis import miniredis
from docs._include.examples.protocols.redis.miniredis import (
    commands,
    handler as handler_module,
    resp,
)
from docs._include.examples.protocols.redis.miniredis.handler import RedisRequestHandler, Session
from docs._include.examples.protocols.redis.miniredis.pubsub import PubSub
from docs._include.examples.protocols.redis.miniredis.resp import (
    CLIENT_PROTOCOL,
    NULL_ARRAY,
    SERVER_PROTOCOL,
    Command,
    Error,
    Reply,
    encode_command,
    encode_reply,
)
from docs._include.examples.protocols.redis.miniredis.store import Store
from easynetwork.codec import new_codec
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.parsers import NEED_DATA
from easynetwork.servers import AsyncTCPNetworkServer, CloseReason, Limits
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
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
@pytest.mark.parametrize(("in_flight", "most"), [(1, 1.0), (16, 0.6)])
def test_cost(in_flight: int, most: float) -> None:
    """A request costs less processor time than on asyncio's streams.

    "about 1.2 times the processor time of this server with one command in flight, and about 2.4
    times with 16."
    """
    commands = "ping_mbulk,set,get,incr,lpush"
    for costs in redis_cost.measure(in_flight, 3000, rounds=10, commands=commands):
        if redis_cost.ratio(costs) <= most:
            break
    else:
        pytest.fail(f"{redis_cost.ratio(costs):.2f} of {costs}")


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

    "The server tells the client in an Error what is wrong, and closes the connection, because it
    cannot know where the next command begins."
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

    "Replies can be nested, so it limits their depth to eight."
    """
    depth = resp.MAX_DEPTH
    assert depth == 8
    assert parse(CLIENT_PROTOCOL, [b"*1\r\n" * depth + b":1\r\n"]) != ["too deep"]
    assert parse(CLIENT_PROTOCOL, [b"*1\r\n" * (depth + 1) + b":1\r\n"]) == ["too deep"]
    for large in b"$%d\r\n" % (resp.MAX_REPLY + 1), b"*2\r\n$%d\r\n" % resp.MAX_REPLY:
        assert parse(CLIENT_PROTOCOL, [large]) == ["the reply is too long"]
    # A reply in an array counts as one byte more.
    assert parse(CLIENT_PROTOCOL, [b"*1\r\n$%d\r\n" % (resp.MAX_REPLY - 1)]) == []
    assert parse(CLIENT_PROTOCOL, [b"?1\r\n"]) == ["unknown type b'?'"]
    smallest = -(2**63)
    assert parse(CLIENT_PROTOCOL, [b":%d\r\n" % smallest]) == [smallest]
    for text in b"x", b"1" * len(str(smallest)) + b"1":
        assert parse(CLIENT_PROTOCOL, [b":%s\r\n" % text]) == ["not an integer"]


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
        TTL a -> -1
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
        INCR n -> -9223372036854775807
        DECR n -> -9223372036854775808
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
    # Each word counts as 100 bytes more than it has.
    rest = resp.MAX_COMMAND - len("SETa") - 3 * 100
    session, _ = new_session()
    too_large = "ERR the transaction is too large"
    for size, reply in (rest, "QUEUED"), (rest + 1, too_large), (rest, "QUEUED"):
        assert ask(session, "MULTI") == "OK"
        assert str(session.answer([b"SET", b"a", b"x" * size])) == reply
        session.answer([b"DISCARD"])
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
