"""The page about logging: what its examples print, what it says of loggers, levels and floods."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import logging.handlers
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.logging import connection_ids, json_lines
from easynetwork import _episode
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.exceptions import PacketConversionError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.servers import (
    AsyncTCPNetworkServer,
    AsyncUDPNetworkServer,
    DatagramLimits,
    Limits,
    StandaloneTCPNetworkServer,
    StandaloneUDPNetworkServer,
)
from easynetwork.servers._core import fault_log
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)
from easynetwork.servers.threads_helper import NetworkServerThread
from easynetwork.testing import serve, virtual_time
from tests.docs.howto_support import (
    DOCS,
    DatagramEcho,
    Echo,
    Lines,
    Peer,
    Watched,
    check_quotations,
    connected,
    serving,
    table,
    until,
)
from tests.docs.memory_support import LINES, Obedient, Stage, rest_of
from tests.docs.messages import SOURCE
from tests.docs.sybil_parsers import compare
from tests.times import PATIENCE
from tests.tls_peers import server_context

pytestmark = pytest.mark.anyio

PAGE = "logging.rst"
FOLDER = DOCS / "_include/examples/howto/logging"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return the log, with all levels."""
    caplog.set_level(logging.DEBUG)
    return caplog


def console_of(program: str) -> str:
    """Return what the page shows of a program in a terminal."""
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    [shown] = re.findall(rf"^   \$ python {program}\n((?:   .*\n)+)", text, re.MULTILINE)
    return re.sub("^   ", "", shown, flags=re.MULTILINE)


def output_of(program: str) -> str:
    """Run a program of the page, and return what it prints."""
    done = subprocess.run(
        [sys.executable, program],
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout


def found(log: pytest.LogCaptureFixture, text: str) -> logging.LogRecord:
    """Return the only record whose message has a text."""
    [record] = [record for record in log.records if text in record.getMessage()]
    return record


# What a server logs, levels


def test_levels_program() -> None:
    """The lines of the first program are those of the page; only a traceback is cut short.

    "To see what a server does, configure the level INFO when the program starts"

    "This program sends three requests to its own server: one that is valid, one that is not in
    UTF-8, and one with which the handler divides by zero"

    "The line with the reason for which a connection ended comes before the line with the details."
    """
    printed = re.sub(r"(?:^  .*\n)+", "  ...\n", output_of("levels.py"), flags=re.MULTILINE)
    assert compare(console_of("levels.py"), printed) == ""


def test_unconfigured() -> None:
    """What Python does if nobody has configured it.

    "Without any configuration, Python prints only warnings and errors."
    """
    code = "import levels; levels.asyncio.run(levels.main())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=FOLDER,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("(")]
    assert len(lines) == 1
    assert "sent invalid data" in lines[0]
    assert "Exception occurred" in done.stderr
    assert "Start serving" not in done.stderr


async def test_levels(log: pytest.LogCaptureFixture) -> None:
    """Who is at fault decides.

    "An exception left the handler, a task did not end, no descriptor is left. There is a traceback
    if an exception is the reason."

    "Your program, or the machine."

    "A client, most often: it sent invalid data, or broke TLS."

    "There is no traceback."

    "The server starts, drains and stops, a client comes, leaves, or reaches a limit."

    "a client that says nothing, or leaves during the TLS handshake."
    """

    class Handler(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
            request = yield
            if request == "bug":
                raise ZeroDivisionError

    async with serving(Handler()) as server:
        async with connected(server) as peer:
            await peer.send("bug")
            await peer.ending()
        async with connected(server) as peer:
            await peer.send_bytes(b"\xff\n")
            await peer.ending()
        async with connected(server) as peer:
            await peer.send_bytes(b"half")
        await until(lambda: "incomplete" in log.text)
    levels = {
        "Exception occurred": ("ERROR", True),
        "sent invalid data:": ("WARNING", False),
        "Start serving": ("INFO", False),
        "incomplete packet": ("INFO", False),
        "Server stopped": ("INFO", False),
    }
    for text, (level, has_traceback) in levels.items():
        record = found(log, text)
        assert (record.levelname, record.exc_info is not None) == (level, has_traceback), text


async def test_quiet_about_clients(log: pytest.LogCaptureFixture) -> None:
    """The argument that lowers the level.

    "With log_client_connection=False, they have the level DEBUG. Stream servers have this
    argument."
    """
    async with serving(Echo(), log_client_connection=False) as server:
        async with connected(server):
            await until(lambda: "Accepted" in log.text)
        await until(lambda: "disconnected" in log.text)
    assert found(log, "Accepted").levelno == found(log, "disconnected").levelno == logging.DEBUG


def test_clients_log_nothing() -> None:
    """No module of the clients has a logger.

    "Our clients log nothing."

    "They raise exceptions."
    """
    for path in (SOURCE / "clients").rglob("*.py"):
        assert "logging" not in path.read_text(encoding="utf-8"), path


# Loggers


def loggers_of_source() -> Iterator[str]:
    """Yield the names of all loggers."""
    for path in SOURCE.rglob("*.py"):
        module = ".".join(["easynetwork", *path.relative_to(SOURCE).with_suffix("").parts])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger":
                [argument] = node.args
                is_name = isinstance(argument, ast.Constant)
                yield str(ast.literal_eval(argument)) if is_name else module


def test_loggers() -> None:
    """The table has all loggers.

    "All names begin with easynetwork, so this makes all servers quiet"
    """
    rows = table(PAGE, "Logger", "Used by")
    assert sorted(name for name, _ in rows) == sorted(loggers_of_source())
    assert all(name.startswith("easynetwork.") for name, _ in rows)


async def test_logger_of_a_server(unix_path: str, log: pytest.LogCaptureFixture) -> None:
    """A server takes a logger.

    "Servers use Python's logging."

    "If several servers run in one process, pass each its own logger"

    "All servers take the argument logger, except those of easynetwork.socketserver."
    """
    logger = logging.getLogger("easynetwork.tests.logger")
    streams: Any = StreamProtocol(StringLineSerializer())
    datagrams: Any = DatagramProtocol(StringLineSerializer())
    servers: list[Any] = [
        AsyncTCPNetworkServer("127.0.0.1", 0, streams, Echo(), logger=logger),
        AsyncUDPNetworkServer("127.0.0.1", 0, datagrams, DatagramEcho(), logger=logger),
        AsyncUnixStreamServer(unix_path, streams, Echo(), logger=logger),
        AsyncUnixDatagramServer(f"{unix_path}d", datagrams, DatagramEcho(), logger=logger),
    ]
    for server in servers:
        log.clear()
        async with server, anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(partial(server.serve_forever, is_up_event=is_up))
            await is_up.wait()
            await server.shutdown()
        names = {record.name for record in log.records if record.name.startswith("easynetwork")}
        assert names == {logger.name}


# Floods


async def test_flood(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines above the limit are summed up.

    "At most three lines per second are about faults of clients, errors of handlers, and limits that
    clients reach. The next line, or the end of the server, sums up the rest: 12 more problems with
    clients were not logged."

    "and has the number of lines that were left out, suppressed_log_lines"
    """
    monkeypatch.setattr(fault_log, "time", Clock())
    async with serving(Watching()) as server:
        for _ in range(15):
            async with connected(server) as peer:
                await peer.send_bytes(b"\xff\n")
                await peer.ending()
        await until(lambda: server.get_statistics().clients == 0)
        assert server.get_statistics().suppressed_log_lines == 12
    messages = [record.getMessage() for record in log.records]
    assert sum("sent invalid data:" in message for message in messages) == 3
    assert messages.count("12 more problems with clients were not logged") == 1
    assert sum("disconnected" in message for message in messages) == 15


async def test_tracebacks(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback comes again after a minute.

    "An error of the handler has its traceback the first time, and again after 60 seconds. In
    between, it is one line with the text of the exception, and one of the three."

    "The text of an error on a line without a traceback is escaped"

    "It is cut off after 200 characters."
    """

    class Handler(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
            raise LookupError((yield))

    clock = Clock()
    monkeypatch.setattr(fault_log, "time", clock)
    async with serving(Handler()) as server:
        for text, later in ("one", 0), ("\x1b[2J\r" + "x" * 300, 59), ("three", 60.5):
            clock.now = later
            async with connected(server) as peer:
                await peer.send(text)
                await peer.ending()
            await until(lambda: server.get_statistics().clients == 0)
    records = [record for record in log.records if "Exception occurred" in record.getMessage()]
    assert [record.exc_info is not None for record in records] == [True, False, True]
    line = records[1].getMessage()
    assert line.isprintable()
    _, _, text = line.partition("LookupError")
    assert len(f"LookupError{text}") == 200 + len("...")


class Clock:
    """Stands for the module `time` in the log of a server: the test says what time it is."""

    now: float = 0

    def monotonic(self) -> float:
        return self.now


class Watching(AsyncStreamRequestHandler[Any, Any]):
    """Does nothing with requests."""

    async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
        yield


def test_quiet_time() -> None:
    """The number of the page.

    "The next line comes when it happens again after 10 seconds of quiet."
    """
    assert _episode.Episode().quiet_time == 10


# What is never in the log


@pytest.mark.parametrize(
    "serializer", [JSONSerializer(), StringLineSerializer()], ids=["JSON", "lines"]
)
async def test_no_packets(serializer: Any, log: pytest.LogCaptureFixture) -> None:
    """Whatever a client sends, valid or not, is not in the log.

    "Servers never log a packet, at no level."

    "For lines and JSON, it has the position and at most a few bytes of the data."
    """
    secret = b"correct horse battery staple"
    packets = (
        b'"%b"\n' % secret,
        b"%b\n" % secret,
        b'{"password": "%b"\n' % secret,
        b'"\xff%b"\n' % secret,
        b'"%b' % secret,
        b'"%b"' % (secret * 4096),
    )
    protocol: Any = StreamProtocol(serializer)
    handler = type("Handler", (Watched, Watching), {})()
    async with serving(handler, protocol) as server:
        for packet in packets:
            async with connected(server) as peer:
                await send(peer, packet)
            await until(lambda: server.get_statistics().clients == 0)
    assert server.get_statistics().accepted == len(packets)
    assert "sent invalid data" in log.text
    assert "incomplete packet" in log.text
    assert "correct" not in log.text
    assert "staple" not in log.text


async def send(peer: Peer, data: bytes) -> None:
    """Send data and the end of the stream; wait for the end of the connection."""
    try:
        await peer.send_bytes(data)
        peer.socket.shutdown(1)
        await peer.ending()
    except ConnectionError:
        pass  # the server has had enough of it


async def test_own_text(log: pytest.LogCaptureFixture) -> None:
    """The text of a handler's exception is in its traceback.

    "A traceback of your handler ends with the text of your exception. KeyError: 'name' quotes a
    key, for example."
    """

    class Handler(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
            raise KeyError((yield))

    async with serving(Handler()) as server, connected(server) as peer:
        await peer.send("name")
        await peer.ending()
        await until(lambda: "KeyError: 'name'" in log.text)


# Lines of JSON


def test_json_program() -> None:
    """The program prints what the page shows, at another time.

    "A formatter makes it, without another package. Pass it to the handler of the log with
    setFormatter()"
    """
    printed = output_of("json_lines.py")
    times = r'"time": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"'
    shown, actual = (
        re.sub(times, '"time": "T"', text) for text in (console_of("json_lines.py"), printed)
    )
    assert actual.count('"time": "T"') == len(actual.splitlines()) == 5
    assert compare(shown, actual) == ""


def test_json_traceback() -> None:
    """A traceback is in the object.

    "A traceback is in the same object, so it stays on one line."

    "The arguments of a message are in record.args"
    """
    stream = io.StringIO()
    log_handler = logging.StreamHandler(stream)
    log_handler.setFormatter(json_lines.JSONFormatter())
    logger = logging.getLogger("easynetwork.tests.json")
    logger.propagate = False
    logger.addHandler(log_handler)
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError:
        logger.exception("Exception for %s", "someone")
    finally:
        logger.removeHandler(log_handler)
    [line] = stream.getvalue().splitlines()
    found_line = json.loads(line)
    assert found_line["message"] == "Exception for someone"
    assert found_line["traceback"].endswith("ZeroDivisionError: a bug")


# An ID for each connection


async def test_connection_ids(log: pytest.LogCaptureFixture) -> None:
    """The lines of a client have its ID, those of its threads and of its end as well.

    "The task of a client has its own context variables, so the ContextVar connection_id that
    on_connection() sets is also there when the server itself logs something about this client"

    "Accepted new connection comes before on_connection(), and has no ID yet."

    "Functions that the handler calls in threads with anyio.to_thread.run_sync() or
    asyncio.to_thread() have the ID, too. So have tasks that the handler starts."
    """

    class Handler(connection_ids.EchoRequestHandler):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            request = yield
            await anyio.to_thread.run_sync(connection_ids.logger.info, "in a thread")
            client.start_soon(self.log_in_task)
            await client.send_packet(request)

        async def log_in_task(self) -> None:
            connection_ids.logger.info("in a task")

    log.handler.addFilter(id_filter := connection_ids.AddConnectionID())
    try:
        async with serving(Handler()) as server:
            async with connected(server) as peer:
                assert await peer.ask("hello") == "hello"
                await until(lambda: "in a task" in log.text)
                await peer.send_bytes(b"\xff\n")
                await peer.ending()
            await until(lambda: server.get_statistics().clients == 0)
    finally:
        log.handler.removeFilter(id_filter)
    ids = {text: vars(found(log, text))["connection_id"] for text in TEXTS}
    assert ids == {"Accepted": "-", **dict.fromkeys(TEXTS[1:], "c1")}


def test_ids_of_the_program() -> None:
    """Each client of the program has an ID, and both are there before one of them leaves.

    "The program has two clients at the same time"
    """
    ids = re.findall(r"^INFO (\w+): (.*)$", console_of("connection_ids.py"), re.MULTILINE)
    assert {name for name, _ in ids} == {"c1", "c2"}
    assert [name for name, _ in ids[:2]] == ["c1", "c2"]
    assert "disconnected" not in ids[0][1] + ids[1][1]


def test_no_ids_of_timeouts(log: pytest.LogCaptureFixture) -> None:
    """The supervision of timeouts runs in another task.

    "Accepted new connection comes before on_connection(), and has no ID yet. Neither have the lines
    about failed TLS handshakes, and those about the timeouts"
    """
    handler = connection_ids.EchoRequestHandler()
    log.handler.addFilter(id_filter := connection_ids.AddConnectionID())
    try:
        Stage(handler, limits=Limits(idle_timeout=5)).play((6,))
        Stage(handler, ssl=server_context()).play((b"hello\n", 1))
    finally:
        log.handler.removeFilter(id_filter)
    assert vars(found(log, "is closed: silent for too long"))["connection_id"] == "-"
    assert vars(found(log, "(silent for too long)"))["connection_id"] == "c1"
    assert vars(found(log, "during TLS handshake"))["connection_id"] == "-"


TEXTS = ("Accepted", "in a thread", "in a task", "disconnected", "sent invalid data:")


def test_quotations() -> None:
    """Whatever the tests quote is what the page says."""
    check_quotations(PAGE, globals())


# What a line has


def test_addresses_of_lines(log: pytest.LogCaptureFixture) -> None:
    """Each client can be told from the others.

    "Each line about a client has its address."

    "The arguments of a message are in record.args: the address of the client is the first one, in
    the lines that begin with it."

    "The level says which side is at fault"
    """
    stage = Stage(limits=Limits(idle_timeout=5))
    stage.play((b"\xff\n",), (b"raise\n",), (b"hel", "reset"), (b"hello\n", 6), (b"close\n",))
    addresses = {
        str(client.extra(INETClientAttribute.remote_address)) for client in stage.handler.clients
    }
    assert len(addresses) == 5
    general = ("Clients have", "Start serving", "Server ", "Using selector")
    records = [each for each in log.records if not each.getMessage().startswith(general)]
    assert len(records) >= 13
    for record in records:
        [address] = [each for each in addresses if each in record.getMessage()]
        if record.getMessage().startswith("("):
            assert isinstance(record.args, tuple)
            assert str(record.args[0]) == address
    levels = {
        text: found(log, text).levelname for text in ("sent invalid data:", "Exception occurred")
    }
    assert levels == {"sent invalid data:": "WARNING", "Exception occurred": "ERROR"}


@pytest.mark.skipif(sys.platform != "linux", reason="the test knows the IDs of Linux")
def test_unix_clients(unix_path: str, log: pytest.LogCaptureFixture) -> None:
    """A client of a Unix socket is told by its process.

    "Clients of a Unix socket, which mostly have no name, are <unnamed>, and the line that begins
    with Accepted new connection also has the process ID, the user ID and the group ID of the
    client."
    """

    async def main() -> None:
        async with AsyncUnixStreamServer(unix_path, LINES, Echo()) as server:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve_forever)
                async with AsyncUnixStreamClient[str, str](unix_path, LINES) as client:
                    await client.send_packet("hello")
                    assert await client.recv_packet() == "hello"
                await until(lambda: "disconnected" in log.text)
                await server.shutdown()

    anyio.run(main)
    ids = f"pid {os.getpid()}, uid {os.getuid()}, gid {os.getgid()}"
    accepted = f"Accepted new connection (address = <unnamed>), {ids}"
    assert found(log, "Accepted").getMessage() == accepted
    assert found(log, "disconnected").getMessage() == "<unnamed> disconnected (the client has left)"


# Loggers of standalone servers


@pytest.mark.parametrize(
    ("server_class", "handler"),
    [(StandaloneTCPNetworkServer, Echo()), (StandaloneUDPNetworkServer, DatagramEcho())],
    ids=["tcp", "udp"],
)
def test_loggers_of_standalone_servers(
    server_class: Any, handler: Any, log: pytest.LogCaptureFixture
) -> None:
    """They log as the servers that do their work.

    "Each kind of server has a logger of its own"

    "Standalone servers have the loggers of the asynchronous servers."
    """
    is_tcp = server_class is StandaloneTCPNetworkServer
    protocol: Any = LINES if is_tcp else DatagramProtocol(StringLineSerializer())
    with server_class("127.0.0.1", 0, protocol, handler) as server:
        thread = NetworkServerThread(server)
        thread.start()
        thread.join()
    names = {record.name for record in log.records if record.name.startswith("easynetwork")}
    assert names == {f"easynetwork.servers.async_{'tcp' if is_tcp else 'udp'}"}


# Floods of other kinds


def test_limit_is_of_the_server(log: pytest.LogCaptureFixture) -> None:
    """Many clients with a single fault each have no more lines than one with many.

    "A client can cause a warning, or an error in your handler, as often as it wants. So that it
    cannot fill the disk, a server limits these lines, for all clients together"

    "Nothing is lost for your metrics: server.get_statistics() counts all events"

    "The lines about clients that connect and disconnect are not limited."
    """
    stage = Stage()
    stage.play(*[(b"\xff\n",)] * 50)
    assert stage.statistics.invalid_packets == 50
    assert stage.statistics.suppressed_log_lines >= 40
    messages = [record.getMessage() for record in log.records]
    assert sum("sent invalid data:" in message for message in messages) <= 10
    assert sum("Accepted new connection" in message for message in messages) == 50
    assert sum("disconnected" in message for message in messages) == 50


def test_tracebacks_of_other_places(log: pytest.LogCaptureFixture) -> None:
    """Two bugs are two bugs.

    "An error at another place of your program has a traceback of its own."
    """

    class Handler(Obedient):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            request = yield
            if request == "one":
                raise LookupError
            raise LookupError

    Stage(Handler()).play((b"one\n",), (b"one\n",), (b"other\n",), (b"other\n",))
    records = [record for record in log.records if "Exception occurred" in record.getMessage()]
    assert [record.exc_info is not None for record in records] == [True, False, True, False]


@pytest.mark.parametrize("what", ["dropped", "evicted"])
def test_episodes_of_datagrams(what: str, log: pytest.LogCaptureFixture) -> None:
    """Many datagrams that are dropped have one line; later, there is another one.

    "What may happen many times in a row is logged once: datagrams that are dropped, peers that are
    evicted"
    """

    class Slow(AsyncDatagramRequestHandler[str, str]):
        async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
            yield
            if what == "evicted":
                with contextlib.suppress(TimeoutError):
                    yield
            else:
                await anyio.sleep(1)

    async def main() -> None:
        limits = DatagramLimits(max_peers=1, max_waiting=1)
        async with serve(Slow(), DatagramProtocol(StringLineSerializer()), limits=limits) as served:
            for _ in range(2):
                for _ in range(10):
                    peer = await served.connect(raw=True)
                    await peer.send(b"hello")
                    await anyio.sleep(0.01)
                clock.now += 9 if not counts else 11
                counts.append(log.text.count(f"{what}: "))
            for _ in range(2):
                await (await served.connect(raw=True)).send(b"hello")
                await anyio.sleep(0.01)
            counts.append(log.text.count(f"{what}: "))

    counts: list[int] = []
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_episode, "time", clock)
        anyio.run(main, backend_options=virtual_time())
    assert counts == [1, 1, 2]


# Texts of exceptions


class Refusing(Lines):
    """Refuses what begins with "secret"."""

    def create_from_dto_packet(self, packet: str) -> Any:
        if packet.startswith("secret"):
            raise PacketConversionError(packet)
        return packet


def test_own_errors(log: pytest.LogCaptureFixture) -> None:
    """What an exception quotes is in the log, on a line that cannot be broken.

    "But two kinds of lines have the text of an exception, and it is up to the exception what this
    text quotes"

    "After sent invalid data:, there is the text of the error."

    "That of a PacketConversionError is yours: do not put a password into it."

    "The text of an error on a line without a traceback is escaped: a client cannot write a line
    break, a second line, or control characters for your terminal into the log."
    """
    serializer = StringLineSerializer(newline="CRLF", encoding="utf-8")
    protocol: Any = StreamProtocol(serializer, Refusing(str))
    handler = Obedient()

    async def main() -> None:
        async with serve(handler, protocol) as served:
            peer = await served.connect(raw=True)
            await peer.send(b"secret\nERROR: all is lost\x1b[2J\x07\r\n")
            assert await rest_of(peer) == b""

    anyio.run(main, backend_options=virtual_time())
    _, _, text = found(log, "sent invalid data:").getMessage().partition("data: ")
    assert text == r"PacketConversionError: secret\nERROR: all is lost\x1b[2J\x07"


def test_text_of_a_traceback() -> None:
    """The text in a traceback is as the formatter writes it.

    "For the text in a traceback, this depends on the formatter."
    """

    class Handler(Obedient):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            raise LookupError((yield))

    with capturing() as stream:
        log_handler = logging.getLogger("easynetwork").handlers[-1]
        Stage(Handler()).play((b"\x1b[2J\n",))
        assert "LookupError: \x1b[2J" in stream.getvalue()
        stream.truncate(0)
        log_handler.setFormatter(json_lines.JSONFormatter())
        Stage(Handler()).play((b"\x1b[2J\n",))
        assert "LookupError: \\u001b[2J" in stream.getvalue()


def test_errors_of_packages(log: pytest.LogCaptureFixture) -> None:
    """The text of another package is what it is.

    "For other formats, it may be that of the package that decodes them."
    """
    msgpack = pytest.importorskip("msgpack")
    from easynetwork.serializers import MessagePackSerializer

    with pytest.raises(msgpack.UnpackException) as caught:
        msgpack.unpackb(b"\xc1")
    protocol: Any = DatagramProtocol(MessagePackSerializer())

    class Handler(AsyncDatagramRequestHandler[Any, Any]):
        async def handle(self, client: AsyncDatagramClient[Any]) -> AsyncGenerator[None, Any]:
            yield

    async def main() -> None:
        async with serve(Handler(), protocol) as served:
            await (await served.connect(raw=True)).send(b"\xc1")
            await anyio.sleep(0.01)

    anyio.run(main, backend_options=virtual_time())
    assert str(caught.value) in found(log, "sent invalid data:").getMessage()


def test_hidden_addresses() -> None:
    """A filter can change what is logged.

    "To leave them out, change the record in a logging.Filter."
    """

    class HideAddresses(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            arguments = record.args if isinstance(record.args, tuple) else ()
            record.args = tuple(
                "somebody" if isinstance(argument, tuple) else argument for argument in arguments
            )
            return True

    with capturing(HideAddresses()) as stream:
        Stage().play((b"\xff\n",))
    lines = stream.getvalue().splitlines()
    assert "somebody disconnected (the client sent invalid data)" in lines
    assert not [line for line in lines if "127.0.0.1" in line and "serving" not in line]


@contextlib.contextmanager
def capturing(
    id_filter: logging.Filter | None = None, log_format: str = "%(message)s"
) -> Iterator[io.StringIO]:
    """Write the log to a stream while the block runs."""
    log_handler = logging.StreamHandler(stream := io.StringIO())
    log_handler.setFormatter(logging.Formatter(log_format))
    if id_filter is not None:
        log_handler.addFilter(id_filter)
    with attached(log_handler):
        yield stream


@contextlib.contextmanager
def attached(log_handler: logging.Handler) -> Iterator[None]:
    """Have a handler of the log while the block runs."""
    logger = logging.getLogger("easynetwork")
    level = logger.level
    logger.addHandler(log_handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(log_handler)
        logger.setLevel(level)


def test_filters_of_loggers() -> None:
    """A filter of a logger sees only what is logged to this logger.

    "Pass the filter to addFilter() of the log's handler, not of a logger: filters of loggers do not
    see the lines of other loggers."

    "For the lines of your own handlers, use a logger of your program, as connection_ids.py below
    does."
    """
    id_filter, logger = connection_ids.AddConnectionID(), logging.getLogger("easynetwork")
    log_format = "%(connection_id)s %(message)s"
    with capturing(id_filter, log_format) as stream:
        Stage(connection_ids.EchoRequestHandler()).play((b"hello\n", "read"))
    assert "c1 (" in stream.getvalue()
    assert connection_ids.logger.name == "echo"
    logger.addFilter(id_filter)
    try:
        with capturing(None, "%(message)s %(has_id)s") as stream:
            logging.getLogger("easynetwork").handlers[-1].addFilter(note_id)
            Stage(connection_ids.EchoRequestHandler()).play((b"hello\n", "read"))
    finally:
        logger.removeFilter(id_filter)
    assert {line.rpartition(" ")[2] for line in stream.getvalue().splitlines()} == {"False"}


def note_id(record: logging.LogRecord) -> bool:
    record.has_id = hasattr(record, "connection_id")
    return True


def test_adapter(caplog: pytest.LogCaptureFixture) -> None:
    """An adapter adds what it is given.

    "If only your own lines need it, a logging.LoggerAdapter is enough"
    """
    adapter = logging.LoggerAdapter(logging.getLogger("echo"), {"connection_id": "c1"})
    adapter.warning("hello")
    assert vars(found(caplog, "hello"))["connection_id"] == "c1"


# Slow destinations


class ThreadNoting(logging.Handler):
    """Notes in which thread it is called, and the ID of the connection there."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[threading.Thread] = set()
        self.ids: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.threads.add(threading.current_thread())
        own = getattr(record, "connection_id", "?")
        self.ids.append((connection_ids.connection_id.get(), own))


def test_thread_of_lines() -> None:
    """A line is written at once, by the event loop's thread.

    "A line is written in the thread of the event loop, and all clients wait for it."
    """
    with attached(log_handler := ThreadNoting()):
        Stage().play((b"hello\n", "read"))
    assert log_handler.threads == {threading.current_thread()}


def test_queue() -> None:
    """A thread can write the lines of a queue.

    "For a destination in the network, or a slow disk, let a thread write"

    "call listener.start() before you start the server, and listener.stop() when it has stopped.
    Pass filters that use context variables to queue_handler: the listener runs in another thread."
    """
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    slow_handler = ThreadNoting()
    listener = logging.handlers.QueueListener(lines, slow_handler)
    queue_handler = logging.handlers.QueueHandler(lines)
    queue_handler.addFilter(connection_ids.AddConnectionID())
    listener.start()
    with attached(queue_handler):
        Stage(connection_ids.EchoRequestHandler()).play((b"hello\n", "read", "close"))
    listener.stop()
    assert threading.current_thread() not in slow_handler.threads
    assert {before for before, _ in slow_handler.ids} == {"-"}
    assert {own for _, own in slow_handler.ids} == {"-", "c1"}


def test_broken_handler_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is served although it cannot be logged.

    "If a handler or a filter of the log raises an exception, sys.unraisablehook() gets it, and the
    client is served all the same."
    """

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise LookupError("no log")

    def refuse(record: logging.LogRecord) -> bool:
        raise ValueError("no filter")

    errors: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda error: errors.append(str(error.exc_value)))
    for is_filter in False, True:
        errors.clear()
        log_handler = Broken()
        if is_filter:
            log_handler.addFilter(refuse)
        stage = Stage()
        with attached(log_handler):
            stage.play((b"hello\n", "read"))
        assert stage.received == b"hello\n"
        assert {*errors} == {"no filter" if is_filter else "no log"}
