"""Test the statements and the examples of the page about limits.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. What each limit does, at its boundary, is tested in `tests/conformance/test_limits.py`.
"""

from __future__ import annotations

import inspect
import logging
import re
import socket
import sys
from collections.abc import AsyncGenerator
from dataclasses import fields
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.limits import login
from easynetwork._tls_options import _HANDSHAKE_TIMEOUT
from easynetwork._tuning import HIGH_WATER
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, StandaloneTCPNetworkServer
from easynetwork.servers._core import fault_log
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)
from easynetwork.servers.limits import Limits
from easynetwork.servers.standalone_unix_stream import StandaloneUnixStreamServer
from easynetwork.servers.statistics import CloseReason
from easynetwork.testing import serve, virtual_time
from tests.docs.howto_support import (
    Watched,
    check_quotations,
    check_tests,
    complaints,
    connected,
    serving,
    table,
    turned_away,
    until,
    words,
)
from tests.times import MS

pytestmark = pytest.mark.anyio

PAGE = "howto/limits.rst"
LINES: Any = StreamProtocol(StringLineSerializer(limit=1 << 20))
HOUR = 3600

Client = AsyncStreamClient[str]
Requests = AsyncGenerator[float | None, str]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


class Echo(AsyncStreamRequestHandler[str, str]):
    """Answers, and notes what happens."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    async def handle(self, client: Client) -> Requests:
        try:
            request = yield None
        except GeneratorExit:
            self.notes.append("closed")
            raise
        if request == "flood":
            await client.send_packet("x" * 8_000_000)
        await client.send_packet(request)

    async def on_disconnection(self, client: Client) -> None:
        assert client.close_reason is not None
        self.notes.append(client.close_reason.name)


# Choosing limits


@pytest.mark.parametrize(
    "server_class",
    [
        AsyncTCPNetworkServer,
        AsyncUnixStreamServer,
        StandaloneTCPNetworkServer,
        StandaloneUnixStreamServer,
    ],
)
def test_servers(server_class: Any) -> None:
    """All have the argument.

    "All servers of connections take it, over TCP and over Unix sockets, asynchronous and
    standalone"
    """
    assert "limits" in inspect.signature(server_class).parameters


def test_presets() -> None:
    """The table has all values of all of them.

    "Times are in seconds, and None means no limit"
    """
    presets = Limits(), Limits.public(), Limits.unlimited()
    found = [
        [field.name, *(shown(getattr(preset, field.name)) for preset in presets)]
        for field in fields(Limits)
    ]
    assert table(PAGE, "Limit", "Limits()") == found


def shown(value: object) -> str:
    """Return a value as the page shows it."""
    if isinstance(value, float):
        return f"{value:g}"
    return f'"{value}"' if isinstance(value, str) else str(value)


# What each limit does


def test_reasons() -> None:
    """The second table has all limits, in their order, with their reasons.

    "The connection breaks within three times this time."
    """
    rows = table(PAGE, "Limit", "A client reaches it")
    assert [row[0] for row in rows] == [field.name for field in fields(Limits)]
    for name, _, what, reason in rows:
        assert reason in CloseReason.__members__
        if name.endswith("_timeout"):
            assert reason == name.upper()
        verbs = {"max": "reset at once", "send": "reset", "close": "reset", "keepalive": ""}
        verb = verbs.get(name.partition("_")[0], "closed")
        assert what == (
            f"It is {verb}." if verb else "The connection breaks within three times this time."
        )


async def test_closed(log: pytest.LogCaptureFixture) -> None:
    """A client that is silent for too long gets what was sent before.

    "Closed means that the client gets what was sent to it, then the end of the stream. Its
    generator is closed at the yield, as if the client had disconnected."

    "The server logs one line at level INFO, for example ('127.0.0.1', 58942) is closed: silent for
    too long, and at most three such lines per second. The usual line for a disconnected client
    follows."
    """
    assert fault_log._LINES_PER_SECOND == 3
    handler = Echo()
    async with serving(handler, limits=Limits(idle_timeout=200 * MS)) as server:
        async with connected(server) as peer:
            await peer.send("hello")
            assert await peer.ending() == r"end of the stream after b'hello\n'"
            await until(lambda: len(handler.notes) == 2)
    assert handler.notes == ["closed", "IDLE_TIMEOUT"]
    message = f"{peer.address} is closed: silent for too long"
    assert [record.levelname for record in log.records if message in record.message] == ["INFO"]
    lines = [record.message for record in log.records]
    usual = f"{peer.address} disconnected (silent for too long)"
    assert lines.index(message) < lines.index(usual)
    assert not complaints(log)


@pytest.mark.in_turn
async def test_reset() -> None:
    """A client that does not read loses what waits for it.

    "Reset means that the client gets an error, and what waits for it is lost."

    "In both cases, on_disconnection() is called, if on_connection() has returned."
    """
    handler = Echo()
    async with serving(handler, limits=Limits(send_timeout=200 * MS)) as server:
        async with connected(server, room=4096) as peer:
            await peer.send("flood")
            await until(lambda: handler.notes)
            assert await peer.ending() == "connection reset"
    assert handler.notes == ["SEND_TIMEOUT"]


async def test_exempt_host() -> None:
    """A host that has all its connections at one port can have more at another one.

    "No host is exempt from max_clients_per_host. If one should be, such as that of your monitoring,
    give it a server at a port of its own."
    """
    handler = Echo()
    async with (
        serving(handler, limits=Limits(max_clients_per_host=1)) as server,
        serving(handler) as other,
        connected(server) as peer,
    ):
        assert await peer.ask("hello") == "hello"
        assert await turned_away(server) == "connection reset"
        async with connected(other) as another:
            assert await another.ask("hello") == "hello"


async def test_full() -> None:
    """A client too many is reset, and the handler does not see it.

    "It is reset at once."
    """
    handler = Echo()
    async with serving(handler, limits=Limits(max_clients=1)) as server:
        async with connected(server) as peer:
            assert await peer.ask("hello") == "hello"
            assert await turned_away(server) == "connection reset"
            assert server.get_statistics().closed == {CloseReason.FULL: 1}
    assert len([note for note in handler.notes if note.isupper()]) == 1


def test_work() -> None:
    """A handler that works for an hour is no fault of its client.

    "Your handler may work for as long as it wants."
    """

    class Handler(Echo):
        async def on_connection(self, client: Client) -> None:
            await anyio.sleep(HOUR)

        async def handle(self, client: Client) -> Requests:
            request = yield None
            await anyio.sleep(HOUR)
            await client.send_packet(request)

    async def main() -> None:
        async with serve(Handler(), LINES, limits=Limits.public()) as served:
            client = await served.connect()
            for _ in range(3):
                await client.send_packet("hello")
                assert await client.recv_packet() == "hello"

    anyio.run(main, backend_options=virtual_time())


@pytest.mark.parametrize(("descriptors", "clients"), [(1024, 819), (1_000_000, 10_000)])
def test_auto(descriptors: int, clients: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default depends on what the process may open.

    "the default of max_clients, is 80 % of the number of descriptors that the process may open when
    the server starts, but at most 10,000. With ulimit -n at 1,024, that is 819."
    """
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert Limits().max_clients == "auto"
    assert Limits().in_force().max_clients == clients


@pytest.mark.skipif(sys.platform != "linux", reason="TCP options of Linux")
async def test_keepalive() -> None:
    """Each connection has the options.

    "if its machine has vanished. After this time of silence, the operating system begins to ask for
    a sign of life."

    "the operating system of a silent client answers to keepalive"
    """

    class Handler(Watched, Echo):
        pass

    handler = Handler()
    async with serving(handler) as server, connected(server) as peer:
        assert await peer.ask("hello") == "hello"
        sock = handler.clients[0].extra(INETClientAttribute.socket)

        def option(name: str, level: int = socket.IPPROTO_TCP) -> Any:
            return sock.getsockopt(level, getattr(socket, name))

        assert option("SO_KEEPALIVE", socket.SOL_SOCKET)
        assert option("TCP_KEEPIDLE") == Limits().keepalive
        total = option("TCP_KEEPIDLE") + option("TCP_KEEPINTVL") * option("TCP_KEEPCNT")
        assert total <= 3 * option("TCP_KEEPIDLE")


async def test_timeout_of_the_handler() -> None:
    """A handler may have a limit of its own.

    "A handler can have limits of its own, for one yield"

    "If the TimeoutError leaves the handler, the reason is IDLE_TIMEOUT, too."
    """

    class Handler(Echo):
        async def handle(self, client: Client) -> Requests:
            yield 1 * MS

    handler = Handler()
    async with serving(handler) as server:
        assert await turned_away(server) == "end of the stream"
        await until(lambda: handler.notes)
    assert handler.notes == ["IDLE_TIMEOUT"]


# Clients that the defaults do not affect


@pytest.mark.parametrize("preset", [Limits(), Limits.unlimited()], ids=["default", "unlimited"])
def test_silent_chat(preset: Limits) -> None:
    """Clients may be silent for a day.

    "There is no idle_timeout by default"
    """

    async def main() -> None:
        async with serve(Echo(), LINES, limits=preset) as served:
            client = await served.connect()
            for _ in range(2):
                await client.send_packet("hello")
                assert await client.recv_packet() == "hello"
                await anyio.sleep(24 * HOUR)

    anyio.run(main, backend_options=virtual_time())


@pytest.mark.parametrize("direction", ["sends", "receives"])
def test_collector(direction: str) -> None:
    """Even on a public port, traffic in one direction is enough.

    "A client that only sends, or only receives, is not idle."
    """

    class Collector(Echo):
        async def on_connection(self, client: Client) -> None:
            if direction == "receives":
                client.start_soon(self.push, client)

        async def push(self, client: Client) -> None:
            while True:
                await client.send_packet("news")
                await anyio.sleep(500)

        async def handle(self, client: Client) -> Requests:
            yield None
            while True:
                self.notes.append((yield None))

    handler = Collector()

    async def main() -> None:
        async with serve(handler, LINES, limits=Limits.public()) as served:
            client = await served.connect()
            await client.send_packet("first")
            for _ in range(10):
                if direction == "sends":
                    await client.send_packet("value")
                await anyio.sleep(500)
            assert served.server.get_statistics().closed == {}

    anyio.run(main, backend_options=virtual_time())
    assert handler.notes.count("value") == (10 if direction == "sends" else 0)


def test_slow_reader() -> None:
    """A client that takes a part every 50 seconds gets all of it.

    "send_timeout is not the time for the whole answer. It starts again each time the client has
    taken a part of the data. The server sees this in steps of a segment: 1.4 kB over Ethernet, but
    32 kB or more over the loopback interface."
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(listening.getsockname()) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) > 32_000

    async def main() -> None:
        async with serve(Echo(), LINES) as served:
            connection = await served.connect(raw=True)
            await connection.send(b"flood\n")
            begin, size = anyio.current_time(), 0
            while size < 8_000_000:
                await anyio.sleep(50)
                size += len(await connection.receive(1 << 20))
            assert anyio.current_time() - begin > 5 * 60

    anyio.run(main, backend_options=virtual_time())


def test_slow_line() -> None:
    """A packet of 200 KiB may take 200 seconds.

    "packet_timeout grows with the packet, so 1 KiB per second is always enough."
    """

    async def main() -> None:
        async with serve(Echo(), LINES, limits=Limits.public()) as served:
            connection = await served.connect(raw=True)
            await connection.send(b"hello\n")
            assert await connection.receive() == b"hello\n"
            for _ in range(200):
                await connection.send(b"x" * 1024)
                await anyio.sleep(1)
            await connection.send(b"\n")
            assert (await connection.receive()).startswith(b"xxx")

    anyio.run(main, backend_options=virtual_time())


def test_first_limit() -> None:
    """A client that sends a packet byte by byte is idle before its packet takes too long.

    "The limit that is reached first decides. A client that sends one packet for longer than
    idle_timeout is closed as idle: choose packet_timeout shorter than idle_timeout."
    """

    async def main(limits: Limits) -> CloseReason:
        async with serve(Echo(), LINES, limits=limits) as served:
            connection = await served.connect(raw=True)
            while not (closed := served.server.get_statistics().closed):
                await connection.send(b"x")
                await anyio.sleep(1)
        [reason] = closed
        return reason

    for idle, packet, reason in (20, 30, "IDLE_TIMEOUT"), (30, 20, "PACKET_TIMEOUT"):
        limits = Limits(idle_timeout=idle, packet_timeout=packet)
        found = anyio.run(main, limits, backend_options=virtual_time())
        assert found is CloseReason[reason]


# Changing the limits of one client


async def test_login(log: pytest.LogCaptureFixture) -> None:
    """Guests have to leave, members do not.

    "After a login, the handler can change the timeouts of its client with client.set_limits()"

    "max_clients, max_clients_per_host and keepalive cannot be changed for one client"

    "TypeError is raised."

    "Here, idle_timeout is one second for guests, and there is none for members."
    """

    class Handler(Watched, login.AccountRequestHandler):
        pass

    assert Limits.public().idle_timeout == 600
    assert login.LIMITS.idle_timeout == 1
    handler = Handler()
    async with serving(handler, limits=Limits(idle_timeout=200 * MS)) as server:
        async with connected(server) as member, connected(server) as guest:
            assert await member.ask("login Ada") == "Welcome, Ada"
            assert await guest.ask("hello") == "You said hello"
            assert await guest.ending() == "end of the stream"
            assert await member.ask("hello") == "You said hello"
            client = handler.clients[0]
            for name in "max_clients", "max_clients_per_host", "keepalive":
                with pytest.raises(TypeError):
                    client.set_limits(**{name: 10})
    assert not complaints(log)


# What happens in an attack


def test_attacks() -> None:
    """The tests that the page names exist, and set the limits that it names beside them.

    "The column Test names a test in the repository that makes this attack."

    "The client is closed after 60 seconds, and one second more for each KiB."

    "send_packet() waits when 64 KiB wait for the client, which is reset after 60 seconds."

    "The client is disconnected after 60 seconds, and counts for max_clients until then."

    "The handler gets an error after 64 KiB."

    "At most three lines per second, and one traceback per minute for each kind of error."

    "test_first_packet, test_idle; tests/robustness/test_idle.py"

    "test_peer_that_never_reads; tests/conformance/test_limits.py"
    """
    assert Limits().packet_timeout == Limits().send_timeout == _HANDSHAKE_TIMEOUT == 60
    assert HIGH_WATER == 64 * 1024
    default = inspect.signature(StringLineSerializer).parameters["limit"].default
    assert default == 64 * 1024
    assert (fault_log._LINES_PER_SECOND, fault_log._TRACEBACK_INTERVAL) == (3, 60)
    rows = table(PAGE, "Attack", "By default")
    assert len(rows) == 9
    limits = {field.name for field in fields(Limits)}
    for *_, settings, tests in rows:
        tried = set(re.findall(r"\w+", check_tests(tests)))
        assert limits & set(settings.split(", ")) == limits & tried, settings


async def test_lines_of_connections(log: pytest.LogCaptureFixture) -> None:
    """Those who come and go are logged, unless that is not wanted.

    "Pass log_client_connection=False to the server to log them at level DEBUG."
    """
    assert "Two lines in the log do not have a limit" in words(PAGE)
    async with serving(Echo(), log_client_connection=False) as server:
        async with connected(server) as peer:
            assert await peer.ask("hello") == "hello"
    levels = {
        record.levelname
        for record in log.records
        if "disconnected (" in record.message or "Accepted new" in record.message
    }
    assert levels == {"DEBUG"}
