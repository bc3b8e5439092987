"""Test what the page about limits says of each limit, in memory and in virtual time.

The rest of the page is in `test_howto_limits`, which explains the quotations.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import statistics
import time
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from easynetwork._tuning import HIGH_WATER
from easynetwork.exceptions import StreamProtocolParseError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, AsyncUDPNetworkServer, DatagramLimits, Limits
from easynetwork.servers.handlers import AsyncDatagramRequestHandler, AsyncStreamRequestHandler
from easynetwork.servers.statistics import CloseReason
from easynetwork.testing import Faults, RawConnection, serve
from tests.docs.howto_support import DOCS, check_quotations, table
from tests.docs.virtual_support import LINES, Client, ending, virtual
from tests.tls_peers import client_context, server_context

PAGE = "howto/limits.rst"
TEXT = (DOCS / PAGE).read_text(encoding="utf-8")
HALF = 0.5
HOUR = 3600.0
UNLIMITED = Limits.unlimited()

Requests = AsyncGenerator[float | None, str]


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


def only(**limits: Any) -> Limits:
    """Return one limit, without the others."""
    return dataclasses.replace(UNLIMITED, **limits)


class Echo(AsyncStreamRequestHandler[str, str]):
    """Answers, and notes why connections end."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.reasons: list[CloseReason | None] = []

    async def on_connection(self, client: Client) -> None:
        self.clients.append(client)

    async def handle(self, client: Client) -> Requests:
        request = yield None
        if request == "flood":
            await client.send_packet("x" * 4_000_000)
        await client.send_packet(request)

    async def on_disconnection(self, client: Client) -> None:
        self.reasons.append(client.close_reason)


async def seconds_to_end(connection: RawConnection) -> float:
    """Return how long it takes until the connection has ended."""
    start = anyio.current_time()
    await ending(connection)
    return anyio.current_time() - start


async def is_served(served: Any) -> bool:
    """Whether a further client is served; it stays connected then."""
    connection = await served.connect(raw=True)
    try:
        await connection.send(b"hello\n")
        return bool(await connection.receive() == b"hello\n")
    except ConnectionResetError:
        return False


# Choosing limits


@virtual
async def test_example() -> None:
    """The example has the limits that it says, and they hold.

    "Pass a Limits object to the server."

    "Then write AsyncTCPNetworkServer(..., limits=limits)."
    """
    source = re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", TEXT)[0]
    names: dict[str, Any] = {}
    exec(re.sub(r"^   ", "", source, flags=re.MULTILINE), names)
    limits = names["limits"]
    assert (limits.max_clients, limits.idle_timeout, limits.packet_timeout) == (500, None, 30)
    handler = Echo()
    async with serve(handler, LINES, limits=limits) as served:
        silent, talker = await served.connect(raw=True), await served.connect(raw=True)
        await talker.send(b"hello\n")
        assert await seconds_to_end(silent) >= 30
        await anyio.sleep(HOUR)
        await talker.send(b"hello\n")
        assert await talker.receive() == b"hello\nhello\n"
    wrong: Any = 500
    with pytest.raises(TypeError):
        AsyncTCPNetworkServer("127.0.0.1", 0, LINES, handler, limits=wrong)


def test_three_sets() -> None:
    """The class makes two more.

    "There are three sets of limits to start from"
    """
    made = [name for name, value in vars(Limits).items() if isinstance(value, classmethod)]
    assert [f"Limits.{name}" for name in made] == ["Limits.public", "Limits.unlimited"]
    assert re.findall(r"^``(Limits.*)\(\)``$", TEXT, re.MULTILINE) == [
        "Limits",
        *(f"Limits.{name}" for name in made),
    ]


@virtual
async def test_default_limits() -> None:
    """A packet that never ends is hostile; a client in another solar system is far away.

    "These limits are for clients that are broken or hostile. A client that is slow, silent or far
    away does not reach them."
    """
    async with serve(Echo(), LINES) as served:
        silent = await served.connect(raw=True)
        slow = await served.connect(raw=True, to_server=Faults(chunks=512, latency=0.5))
        far = await served.connect(to_server=Faults(latency=HOUR), to_client=Faults(latency=HOUR))
        broken = await served.connect(raw=True)
        await broken.send(b"hel")
        assert 60 <= await seconds_to_end(broken) <= 61
        await slow.send(b"x" * 100_000 + b"\n")
        await far.send_packet("hello")
        assert await far.recv_packet() == "hello"
        assert await slow.receive()
        await silent.send(b"hello\n")
        assert await silent.receive() == b"hello\n"


@virtual
async def test_public_limits() -> None:
    """A client that connects and does nothing has to leave, but only there.

    "Limits.public() For a port that faces the internet. Clients that connect and then do nothing
    are disconnected, too."
    """
    for limits, stays in (Limits(), True), (Limits.public(), False):
        handler = Echo()
        async with serve(handler, LINES, limits=limits) as served:
            await served.connect(raw=True)
            await anyio.sleep(HOUR)
            reasons = [] if stays else [CloseReason.FIRST_PACKET_TIMEOUT]
            assert handler.reasons == reasons


@virtual
async def test_unlimited() -> None:
    """No client has to leave, whatever it does, and any number may come.

    "Limits.unlimited() For a network in which you trust each machine, or for tests."
    """
    handler = Echo()
    async with serve(handler, LINES, limits=UNLIMITED) as served:
        for data in b"", b"hel", b"flood\n", b"hello\n":
            connection = await served.connect(raw=True)
            await connection.send(data)
        await anyio.sleep(24 * HOUR)
        assert handler.reasons == []


@virtual
async def test_proxy() -> None:
    """All clients in memory have one address, as those of a proxy.

    "If your clients come through a proxy or a load balancer, all of them have its address. Then set
    max_clients_per_host=None, and limit the clients of each host in the proxy."

    "A server behind a proxy. There is no max_clients_per_host by default."
    """
    behind_a_proxy = dataclasses.replace(Limits.public(), max_clients_per_host=None)
    for limits, expected in (Limits.public(), False), (behind_a_proxy, True), (Limits(), True):
        async with serve(Echo(), LINES, limits=limits) as served:
            for _ in range(100):
                assert await is_served(served)
            assert await is_served(served) is expected


# What each limit does


@virtual
async def test_max_clients() -> None:
    """A connection that has not shaken hands takes a place.

    "if it connects while this number of clients is connected. Clients in a TLS handshake count."
    """
    for tls in {}, {"ssl": server_context()}:
        options: dict[str, Any] = {"limits": only(max_clients=2), **tls}
        async with serve(Echo(), LINES, **options) as served:
            connections = [await served.connect(raw=True) for _ in range(2)]
            await anyio.wait_all_tasks_blocked()
            assert await ending(await served.connect(raw=True)) == "reset"
            connections.pop().close()
            await anyio.wait_all_tasks_blocked()
            connections.append(await served.connect(raw=True))
            await anyio.wait_all_tasks_blocked()
            assert served.server.get_statistics().closed[CloseReason.FULL] == 1
            assert served.server.get_statistics().clients == 2


@virtual
async def test_max_clients_per_host() -> None:
    """Addresses count together if they are of one host.

    "if it connects while this number of clients with its IPv4 address, or in its IPv6 network of 64
    bits, is connected."
    """
    addresses = [
        ("192.0.2.7", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8:0:1::1", False),
        ("2001:db8:0:1:ffff::", True),
        ("2001:db8:0:2::1", False),
    ]
    async with serve(Echo(), LINES, limits=only(max_clients_per_host=1)) as served:
        for port, (host, is_refused) in enumerate(addresses, 50_000):
            connection = await served.connect(raw=True, local_address=(host, port))
            await anyio.wait_all_tasks_blocked()
            if is_refused:
                assert await ending(connection) == "reset"
            else:
                await connection.send(b"hello\n")
                assert await connection.receive() == b"hello\n"


@virtual
async def test_first_packet_timeout() -> None:
    """The time begins when the handler waits, and ends with the packet.

    "if its handler waits for the first packet, and the packet has not arrived in this time."

    "The reason is in client.close_reason"
    """

    class Greeting(Echo):
        async def on_connection(self, client: Client) -> None:
            await anyio.sleep(HOUR)

    for handler, wait in (Echo(), 0.0), (Greeting(), HOUR):
        async with serve(handler, LINES, limits=only(first_packet_timeout=30)) as served:
            connection = await served.connect(raw=True)
            await connection.send(b"hel")
            assert 30 <= await seconds_to_end(connection) - wait <= 30 + HALF
            await anyio.wait_all_tasks_blocked()
            assert handler.reasons == [CloseReason.FIRST_PACKET_TIMEOUT]
            connection = await served.connect(raw=True)
            await connection.send(b"hello\n")
            assert await connection.receive() == b"hello\n"
            await anyio.sleep(HOUR)
            assert len(handler.reasons) == 1


@pytest.mark.parametrize("size", [1, 10 * 1024])
@virtual
async def test_packet_timeout(size: int) -> None:
    """The first byte begins it, each KiB prolongs it.

    "if the end of a packet has not arrived in this time after its first byte. Each KiB that has
    arrived adds one second."

    "The server looks at its clients every half a second, so a client may have half a second more."

    "The client is closed after 60 seconds, and one second more for each KiB."
    """
    handler = Echo()
    async with serve(handler, LINES, limits=Limits()) as served:
        connection = await served.connect(raw=True)
        await anyio.sleep(1000.3)
        await connection.send(b"x")
        start = anyio.current_time()
        await anyio.sleep(40)
        await connection.send(b"x" * size)
        await ending(connection)
        expected = 60 + size // 1024
        assert expected <= anyio.current_time() - start <= expected + HALF
        await anyio.wait_all_tasks_blocked()
        assert handler.reasons == [CloseReason.PACKET_TIMEOUT]


@virtual
async def test_idle_timeout() -> None:
    """A packet in either direction is enough, a part of one is not.

    "if its handler waits, and for this time neither has a complete packet arrived, nor has anything
    been sent to it."
    """
    handler = Echo()
    async with serve(handler, LINES, limits=only(idle_timeout=600)) as served:
        sender, receiver, partial = [await served.connect(raw=True) for _ in range(3)]
        start = anyio.current_time()
        for _ in range(3):
            await anyio.sleep(250)
            await sender.send(b"hello\n")
            await handler.clients[1].send_packet("news")
            await partial.send(b"x")
        await ending(partial)
        assert anyio.current_time() - start >= 600
        assert handler.reasons == [CloseReason.IDLE_TIMEOUT]
        await ending(sender)
        await ending(receiver)
        assert anyio.current_time() - start >= 750 + 600
        await anyio.wait_all_tasks_blocked()
        assert handler.reasons == [CloseReason.IDLE_TIMEOUT] * 3


@pytest.mark.parametrize("name", ["send_timeout", "idle_timeout"])
@virtual
async def test_noticed_late(name: str) -> None:
    """What happens shortly after a look counts from the next one.

    "A client that has taken a part of the data, or to which something has been sent, may have a
    quarter of send_timeout or idle_timeout more, because the server does not notice this at once."
    """
    handler = Echo()
    async with serve(handler, LINES, limits=only(**{name: 80})) as served:
        connection = await served.connect(raw=True)
        await connection.send(b"flood\n" if name == "send_timeout" else b"hello\n")
        await anyio.sleep(1)
        if name == "send_timeout":
            await connection.receive()
        else:
            await handler.clients[0].send_packet("news")
        await anyio.sleep(80)
        assert handler.reasons == []
        await anyio.sleep(20.1 + HALF)
        assert handler.reasons == [CloseReason[name.upper()]]


@virtual
async def test_send_timeout() -> None:
    """A part that the client takes is enough.

    "if data waits for it, and it has not taken a part of it for this time."
    """
    handler = Echo()
    async with serve(handler, LINES, limits=only(send_timeout=60)) as served:
        connection = await served.connect(raw=True)
        await connection.send(b"flood\n")
        for _ in range(3):
            await anyio.sleep(50)
            await connection.receive()
            assert handler.reasons == []
        await anyio.sleep(59)
        assert handler.reasons == []
        await anyio.sleep(HOUR)
        assert handler.reasons == [CloseReason.SEND_TIMEOUT]
        assert await ending(connection) == "reset"


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 30),
        ({"ssl": server_context()}, 30),
        ({"ssl": server_context(), "ssl_shutdown_timeout": 5}, 5),
    ],
    ids=["close_timeout", "with TLS", "ssl_shutdown_timeout"],
)
@virtual
async def test_close_timeout(options: dict[str, Any], seconds: float) -> None:
    """A client that reads nothing more is waited for, but not for long.

    "if the server closes the connection, and the client has not taken all data in this time."

    "With TLS, the argument ssl_shutdown_timeout of the server takes the place of close_timeout, if
    you pass it"
    """

    class Closing(Echo):
        async def handle(self, client: Client) -> Requests:
            yield None
            client.try_send_packet("x" * 4_000_000)
            await client.aclose()

    tls: dict[str, Any] = {}
    if options:
        tls = {"ssl": client_context(), "server_hostname": "localhost"}
    async with serve(Closing(), LINES, limits=only(close_timeout=30), **options) as served:
        client = await served.connect(**tls)
        await client.send_packet("hello")
        await anyio.sleep(seconds - 0.1)
        assert served.server.get_statistics().closed == {}
        await anyio.sleep(0.1 + HALF)
        assert served.server.get_statistics().closed == {CloseReason.CLOSE_TIMEOUT: 1}


@virtual
async def test_handshake_timeout() -> None:
    """A client of a TLS server that says nothing has to leave.

    "ssl_handshake_timeout limits the handshake, 60 seconds by default."

    "The client is disconnected after 60 seconds, and counts for max_clients until then."
    """
    options: dict[str, Any] = {"ssl": server_context(), "limits": only(max_clients=1)}
    for seconds in 60, 5:
        if seconds == 5:
            options["ssl_handshake_timeout"] = 5
        async with serve(Echo(), LINES, **options) as served:
            connection = await served.connect(raw=True)
            await anyio.sleep(seconds - 1)
            assert await ending(await served.connect(raw=True)) == "reset"
            assert 1 <= await seconds_to_end(connection) <= 1 + HALF
            await served.connect(ssl=client_context(), server_hostname="localhost")


@virtual
async def test_time_of_the_handler() -> None:
    """Half a packet, the first packet and the next one may wait while the handler works.

    "Only the time in which your handler waits for a packet counts for the first three timeouts."
    """

    class Working(Echo):
        async def handle(self, client: Client) -> Requests:
            request = yield None
            await anyio.sleep(60)
            await client.send_packet(request)

    limits = only(first_packet_timeout=5, packet_timeout=5, idle_timeout=5)
    async with serve(Working(), LINES, limits=limits) as served:
        connection = await served.connect(raw=True)
        await connection.send(b"one\ntw")
        assert await connection.receive() == b"one\n"
        await connection.send(b"o\n")
        assert await connection.receive() == b"two\n"


@virtual
async def test_idle_clients_cost_no_time() -> None:
    """Three days of silence, in which the server could look at its clients 500,000 times.

    "With the default limits, idle clients cost no processor time."

    "Idle clients cost no processor time."

    "They stay, up to max_clients. They cost memory (see /performance), and no processor time."
    """
    limits = dataclasses.replace(Limits(), max_clients=3)
    async with serve(Echo(), LINES, limits=limits) as served:
        for _ in range(3):
            assert await is_served(served)
        assert not await is_served(served)
        before = time.process_time()
        await anyio.sleep(72 * HOUR)
        assert time.process_time() - before < 0.5
        assert served.server.get_statistics().clients == 3


@virtual
async def test_several_servers() -> None:
    """Two servers have room for twice as many clients.

    "If several servers run in one process, each of them counts for itself: pass a number to each."
    """
    options: dict[str, Any] = {"limits": only(max_clients=1)}
    async with serve(Echo(), LINES, **options) as one, serve(Echo(), LINES, **options) as two:
        for expected in True, False:
            assert await is_served(one) is await is_served(two) is expected


# Clients that the defaults do not affect


@pytest.mark.parametrize(
    ("limits", "interval", "stays"),
    [
        (Limits(), 24 * HOUR, True),
        (Limits.public(), 700, False),
        (Limits.public(), 500, True),
        (dataclasses.replace(Limits.public(), idle_timeout=None), 24 * HOUR, True),
    ],
    ids=["default", "public", "packets", "no idle_timeout"],
)
@virtual
async def test_chat(limits: Limits, interval: float, stays: bool) -> None:
    """Clients that are silent have to leave a public port, unless one of two things is done.

    "A chat whose clients are silent for hours. There is no idle_timeout by default"

    "With Limits.public(), set idle_timeout=None, or let clients send a packet from time to time."
    """
    handler = Echo()
    async with serve(handler, LINES, limits=limits) as served:
        connection = await served.connect(raw=True)
        for _ in range(4):
            if handler.reasons:
                break
            await connection.send(b"hello\n")
            await anyio.sleep(interval)
        assert handler.reasons == ([] if stays else [CloseReason.IDLE_TIMEOUT])


# What a client costs


def test_sum() -> None:
    """The sum of the table's rows; the packet itself comes on top.

    "With max_clients at 10,000, clients that do not read can occupy 700 MiB."
    """
    rows = {row[0]: row[1] for row in table(PAGE, "The client", "without TLS")}
    assert rows["does not read what it is sent"] == (
        f"the same, and at most {HIGH_WATER // 1024} KiB and one packet"
    )
    idle = int(rows["is idle"].split()[2])
    assert round((idle + HIGH_WATER // 1024) * 10_000 / 1024, -2) == 700


def test_idle_clients() -> None:
    """The page on security has the same costs, rounded up; the benchmarks measure less.

    "The memory of the process for each client, measured with CPython 3.13"
    """
    [idle] = [row for row in table(PAGE, "The client", "without TLS") if row[0] == "is idle"]
    most = dict(table("security.rst", "A client that", "costs at most"))
    figures = json.loads((DOCS / "_include/performance/python-3.13.json").read_text("utf-8"))
    measured = {each["scenario"]: each["rows"] for each in figures["tables"]}
    for cell, scenario, client in (
        (idle[1], "tcp-idle", "is connected and silent"),
        (idle[2], "tls-idle", "is connected over TLS and silent"),
    ):
        low, high = map(int, re.findall(r"\d+", cell))
        assert low < high <= int(most[client].split()[0]) <= high + 5
        for row in measured[scenario]:
            costs = [sample["figures"]["kib"] for sample in row["samples"]]
            if re.match(r"easynetwork-(?!socketserver)", row["contender"]):
                assert statistics.median(costs) < high, row["contender"]


# Changing the limits of one client


@virtual
async def test_set_limits() -> None:
    """Half a packet has arrived, and has less time from now on.

    "The new timeouts hold at once, also for a packet that has arrived in part. The others stay as
    they are."
    """
    handler = Echo()
    async with serve(handler, LINES, limits=only(packet_timeout=600, idle_timeout=60)) as served:
        connection, idle = await served.connect(raw=True), await served.connect(raw=True)
        await connection.send(b"hel")
        await anyio.wait_all_tasks_blocked()
        for client in handler.clients:
            client.set_limits(packet_timeout=20)
        assert 20 <= await seconds_to_end(connection) <= 20 + HALF
        assert 40 - HALF <= await seconds_to_end(idle) <= 40 + HALF
        assert handler.reasons == [CloseReason.PACKET_TIMEOUT, CloseReason.IDLE_TIMEOUT]


# Limits for datagrams


class DatagramEcho(AsyncDatagramRequestHandler[str, str]):
    """Answers the first datagram, waits for a second one, and notes who has not sent one."""

    def __init__(self) -> None:
        self.evicted: list[Any] = []

    async def handle(self, client: Any) -> AsyncGenerator[None, str]:
        await client.send_packet((yield))
        try:
            yield
        except TimeoutError:
            self.evicted.append(client.extra_attributes)
            await client.send_packet("evicted")


@virtual
async def test_datagrams() -> None:
    """They have limits of their own, and no others.

    "Servers of datagrams have a DatagramLimits object instead, because they have no connections"

    "The client that has waited longest gives up its place."
    """
    protocol: Any = DatagramProtocol(StringLineSerializer())
    stream: Any = Limits()
    with pytest.raises(TypeError):
        AsyncUDPNetworkServer("127.0.0.1", 0, protocol, DatagramEcho(), limits=stream)
    limits = DatagramLimits(max_peers=2)
    async with serve(DatagramEcho(), protocol, limits=limits) as served:
        clients = [await served.connect() for _ in range(3)]
        for client in clients:
            await client.send_packet("hello")
            assert await client.recv_packet() == "hello"
        assert await clients[0].recv_packet() == "evicted"
        await anyio.sleep(HOUR)
        for client in clients[1:]:
            assert [packet async for packet in client.iter_received_packets(timeout=0)] == []


# What happens in an attack


@virtual
async def test_too_many_connections() -> None:
    """One host comes many times.

    "Connections beyond max_clients are reset at once. One host can take all places."
    """
    limits = dataclasses.replace(Limits(), max_clients=5)
    async with serve(Echo(), LINES, limits=limits) as served:
        for _ in range(5):
            await served.connect(raw=True, local_address=("192.0.2.66", 50_000))
        start = anyio.current_time()
        for host in "192.0.2.66", "192.0.2.7":
            connection = await served.connect(raw=True, local_address=(host, 50_000))
            assert await ending(connection) == "reset"
        assert anyio.current_time() == start


@virtual
async def test_client_that_never_reads() -> None:
    """The handler sends small packets to it.

    "send_packet() waits when 64 KiB wait for the client, which is reset after 60 seconds."
    """

    class Pushing(Echo):
        async def handle(self, client: Client) -> Requests:
            yield None
            while True:
                await client.send_packet("x" * 1023)

    async with serve(Pushing(), LINES) as served:
        connection = await served.connect(raw=True)
        await connection.send(b"hello\n")
        await anyio.sleep(59)
        [client] = served.server.get_clients()
        assert 64 * 1024 <= client.get_unsent_size() <= 66 * 1024
        await anyio.sleep(1.1 + HALF)
        assert served.server.get_statistics().closed == {CloseReason.SEND_TIMEOUT: 1}


@pytest.mark.parametrize("catches", [True, False], ids=["caught", "not caught"])
@virtual
async def test_line_without_end(catches: bool) -> None:
    """The serializer has its default limit.

    "The handler gets an error after 64 KiB. If it does not catch the error, the client is closed."
    """

    class Handler(Echo):
        async def handle(self, client: Client) -> Requests:
            try:
                yield None
            except StreamProtocolParseError:
                if not catches:
                    raise
                await client.send_packet("too long")

    handler = Handler()
    protocol: Any = StreamProtocol(StringLineSerializer())
    async with serve(handler, protocol) as served:
        connection = await served.connect(raw=True)
        await connection.send(b"x" * 64 * 1024)
        await anyio.wait_all_tasks_blocked()
        assert handler.reasons == []
        await connection.send(b"xx")
        if catches:
            assert await connection.receive() == b"too long\n"
            assert handler.reasons == []
        else:
            assert await ending(connection) == "end"
            await anyio.wait_all_tasks_blocked()
            assert handler.reasons == [CloseReason.INVALID_DATA]


@virtual
async def test_many_small_requests() -> None:
    """Ten clients have thousands of requests each, and one has one.

    "They wait for their turns. A client that sends little is answered before them."
    """
    number = 3000

    class Noting(Echo):
        async def handle(self, client: Client) -> Requests:
            order.append((yield None))

    order: list[str] = []
    async with serve(Noting(), LINES) as served:
        crowd = [await served.connect(raw=True) for _ in range(10)]
        quiet = await served.connect(raw=True)
        async with anyio.create_task_group() as tasks:
            for index, connection in enumerate(crowd):
                tasks.start_soon(connection.send, f"{index}\n".encode() * number)
            tasks.start_soon(quiet.send, b"quiet\n")
        await anyio.wait_all_tasks_blocked()
    assert len(order) == 10 * number + 1
    # Each of them has had a turn before, but all of them have more.
    before = Counter(order[: order.index("quiet")])
    assert max(before.values()) < number / 2


@virtual
async def test_lines_for_connections(caplog: pytest.LogCaptureFixture) -> None:
    """Each of a hundred clients that come at once has both lines.

    "Two lines in the log do not have a limit: the line for a client that connects, and the line for
    a client that disconnects."
    """
    caplog.set_level(logging.INFO, "easynetwork")
    async with serve(Echo(), LINES) as served:
        for _ in range(100):
            (await served.connect(raw=True)).close()
        await anyio.wait_all_tasks_blocked()
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "Accepted new connection" in line]) == 100
    assert len([line for line in lines if "disconnected (" in line]) == 100
