"""Test the statements and the examples of the page about watching a server.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. What each reason means is tested in `tests/conformance/test_limits.py`.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import socket
import socketserver
import threading
import urllib.request
from collections.abc import AsyncGenerator
from dataclasses import FrozenInstanceError, replace
from typing import Any

import anyio
import pytest

from docs._include.examples.howto.watching import admin, reasons
from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import StandaloneTCPNetworkServer
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)
from easynetwork.servers.limits import Limits
from easynetwork.servers.statistics import CloseReason, DatagramStatistics, StreamStatistics
from easynetwork.servers.threads_helper import NetworkServerThread
from easynetwork.testing import serve, virtual_time
from tests.docs.howto_support import (
    DOCS,
    DatagramEcho,
    Peer,
    Watched,
    check_quotations,
    complaints,
    connected,
    in_thread,
    serving,
    table,
    turned_away,
    until,
    visiting,
)
from tests.docs.memory_support import Script, Stage
from tests.times import PATIENCE
from tests.tls_peers import server_context

pytestmark = pytest.mark.anyio

PAGE = "howto/watching.rst"
LINES: Any = StreamProtocol(StringLineSerializer(encoding="utf-8"))

Client = AsyncStreamClient[str]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


class Noting(Watched, AsyncStreamRequestHandler[str, str]):
    """Answers, and notes why connections ended."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[CloseReason | None] = []

    async def handle(self, client: Client) -> AsyncGenerator[None, str]:
        await client.send_packet((yield))

    async def on_disconnection(self, client: Client) -> None:
        self.reasons.append(client.close_reason)


# Why a connection ended


async def test_seats(log: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """The example tells players who leave from those whose connection breaks.

    "In this server, a player keeps the seat if the connection broke, that is, if the reason is in
    MAY_RETURN"

    "client.close_reason is set to a CloseReason before on_disconnection() is called. Until then, it
    is None."

    "The log names the reason, too, in the line at level INFO for each client that disconnects"
    """

    class Game(Watched, reasons.GameRequestHandler):
        pass

    handler = Game()
    closed: set[CloseReason] = set()
    async with serving(handler) as server:
        for end in Peer.close, Peer.reset:
            handler.gone = anyio.Event()
            async with connected(server) as peer:
                assert await peer.ask("e4") == "You play e4"
                assert handler.clients[-1].close_reason is None
                end(peer)
                await handler.gone.wait()
                name = peer.address
            await until(lambda: len(server.get_statistics().closed) > len(closed))
            [reason] = server.get_statistics().closed.keys() - closed
            closed.add(reason)
            assert ("INFO", f"{name} disconnected ({reason.value})") in lines(log)
    assert capsys.readouterr().out.splitlines() == [
        "The seat is free (CloseReason.PEER_CLOSED)",
        "The seat is kept (CloseReason.PEER_RESET)",
    ]
    assert not complaints(log)


def lines(log: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.message) for record in log.records]


async def test_incomplete_packet(log: pytest.LogCaptureFixture) -> None:
    """The log counts the bytes of an incomplete packet.

    "If the client has left in the middle of a packet, the line also says how many bytes of it had
    arrived."
    """
    async with serving(Noting()) as server, connected(server) as peer:
        await peer.send_bytes(b"hello\nhal")
        assert await peer.receive() == "hello"
        peer.close()
        await until(lambda: server.get_statistics().closed == {CloseReason.TRUNCATED: 1})
        [line] = [line for _, line in lines(log) if "disconnected" in line]
        assert line.startswith(f"{peer.address} disconnected ({CloseReason.TRUNCATED.value}; 3 ")


def test_reasons() -> None:
    """The table has all of them.

    "These are the reasons, and what the log says"
    """
    found = [row[:2] for row in table(PAGE, "Reason")]
    assert found == [[reason.name, reason.value] for reason in CloseReason]


@pytest.mark.parametrize("reason", [CloseReason.FULL, CloseReason.TLS_FAILED])
async def test_connections_without_handler(reason: CloseReason) -> None:
    """What ends before the handler is called is counted.

    "FULL and TLS_FAILED concern connections that your handler never sees. They are only counted,
    and have another line in the log."
    """
    handler = Noting()
    options: dict[str, Any] = {"limits": Limits(max_clients=1)}
    if reason is CloseReason.TLS_FAILED:
        options["ssl"] = server_context()
    async with serving(handler, **options) as server, connected(server) as peer:
        if reason is CloseReason.FULL:
            assert await peer.ask("hello") == "hello"
            await turned_away(server)
        else:
            await peer.send("no TLS at all, " * 10)
        await until(lambda: server.get_statistics().closed == {reason: 1})
        assert handler.calls.count("on_connection") == (reason is CloseReason.FULL)
        assert not handler.reasons


def test_close_timeout(log: pytest.LogCaptureFixture) -> None:
    """The last reason of a client that does not take the rest is known late.

    "CLOSE_TIMEOUT comes after on_disconnection(), which sees the reason why the connection was
    closed. The client is counted under CLOSE_TIMEOUT, and has one more line in the log."
    """
    stage = Stage(limits=Limits(close_timeout=5))
    stage.play((b"flood and close\n", 10))
    assert stage.handler.reasons == [CloseReason.CLOSED]
    assert stage.statistics.closed == {CloseReason.CLOSE_TIMEOUT: 1}
    found = [(level, re.sub(r"\(.*\d\)", "client", line)) for level, line in lines(log)]
    assert ("INFO", f"client disconnected ({CloseReason.CLOSED.value})") in found
    assert ("INFO", f"client is reset: {CloseReason.CLOSE_TIMEOUT.value}") in found


# Statistics of the server


async def test_statistics() -> None:
    """All clients are counted.

    "It is a snapshot, and does not change later."

    "For all clients that there ever were"

    "The counters grow for as long as the server object exists."
    """
    namespace: dict[str, Any] = {}
    code = re.search(r"( +def are_correct.*\n.*\n)", (DOCS / PAGE).read_text(encoding="utf-8"))
    assert code is not None
    exec(re.sub(r"^   ", "", code[0], flags=re.MULTILINE), namespace)
    async with serving(Noting()) as server:
        before = server.get_statistics()
        async with connected(server) as one, connected(server) as other:
            assert [await one.ask("a"), await other.ask("b")] == ["a", "b"]
            now = server.get_statistics()
            assert namespace["are_correct"](now)
            assert (now.clients, now.packets_received, now.bytes_sent) == (2, 2, 4)
        await until(lambda: server.get_statistics().closed == {CloseReason.PEER_CLOSED: 2})
        assert namespace["are_correct"](server.get_statistics())
        assert before == StreamStatistics()
        with pytest.raises(FrozenInstanceError):
            before.accepted = 3
    assert server.get_statistics().accepted == 2


def test_standalone() -> None:
    """A standalone server may be asked in this thread.

    "On standalone servers, any thread can call the method, and the counters begin at 0 with each
    serve_forever()."
    """
    with StandaloneTCPNetworkServer("127.0.0.1", 0, LINES, Noting()) as server:
        for _ in range(2):
            thread = NetworkServerThread(server)
            thread.start()
            [address] = server.get_addresses()
            with TCPNetworkClient[str, str]((address.host, address.port), LINES) as client:
                client.send_packet("hello")
                assert client.recv_packet(timeout=PATIENCE) == "hello"
                assert server.get_statistics().accepted == 1
                assert len(server.get_clients()) == 1
            thread.join(PATIENCE)


# Statistics of the clients


async def test_admin(log: pytest.LogCaptureFixture) -> None:
    """The administrator sees a client, and disconnects it.

    "This program has a second server, for its administrator"

    "They are the objects that your handler gets, so you can send them packets, disconnect them
    with abort(), and ask client.get_statistics() what they do."
    """

    class Handler(Watched, admin.EchoRequestHandler):
        pass

    handler = Handler()
    async with serving(handler) as server, connected(server) as peer:
        assert await peer.ask("hello") == "hello"
        assert server.get_clients() == handler.clients
        async with serving(admin.AdminRequestHandler(server)) as other, connected(other) as boss:
            name = "{}:{}".format(*peer.address)
            assert await boss.ask("list") == "1 connected"
            assert await boss.receive() == f"{name} is waiting, 1 received, 0 bytes unsent"
            refusal = "No such command, or no such client"
            assert await boss.ask("close 192.0.2.1:80") == refusal
            assert await boss.ask("shout") == refusal
            assert await boss.ask(f"close {name}") == f"{name} is closed"
            assert await peer.ending() == "connection reset"
            await until(lambda: server.get_statistics().closed == {CloseReason.ABORTED: 1})
    assert not complaints(log)


def test_client_statistics() -> None:
    """They tell the age of a connection, and since when its handler waits.

    "ClientStatistics also has the age of the connection (seconds), the time that its handler has
    been waiting for a packet (idle), and the bytes and packets in both directions."
    """

    async def main() -> None:
        async with serve(Noting(), LINES) as served:
            peer = await served.connect()
            await anyio.sleep(3)
            await peer.send_packet("hello")
            assert await peer.recv_packet() == "hello"
            [client] = served.server.get_clients()
            await anyio.sleep(20)
            found = client.get_statistics()
            assert (round(found.idle, 3), round(found.seconds, 3)) == (20, 23)
            assert (found.packets_received, found.packets_sent) == (1, 1)
            assert (found.bytes_received, found.bytes_sent) == (6, 6)

    anyio.run(main, backend_options=virtual_time())


async def test_handshake_is_not_listed() -> None:
    """A client is listed when its handler is called.

    "Clients in a TLS handshake are not in the list."
    """
    async with serving(Noting(), ssl=server_context()) as server, connected(server):
        await until(lambda: server.get_statistics().clients == 1)
        assert server.get_clients() == []


# Exporting metrics to Prometheus


def exporter() -> Any:
    """Return the example, which needs a package that easynetwork does not."""
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    return importlib.import_module("docs._include.examples.howto.watching.metrics")


def scrape() -> str:
    """Return what Prometheus gets."""
    client = importlib.import_module("prometheus_client")
    text: str = client.generate_latest(client.REGISTRY).decode()
    return text


async def test_prometheus() -> None:
    """What the page shows is exported while the server runs, and only then.

    "After one client has sent two lines, http://127.0.0.1:9464/metrics contains these lines, among
    others"

    "The names follow the metrics of a system in the conventions of OpenTelemetry, such as
    system.network.io with the attribute network.io.direction, with server in place of system."
    """
    metrics = exporter()
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    shown = re.findall(r"^   (server_\S+ \S+)$", text, re.MULTILINE)
    assert len(shown) == 8
    assert any(line.startswith("server_network_io") for line in shown)
    assert any("network_io_direction=" in line for line in shown)
    async with serving(metrics.EchoRequestHandler()) as server, connected(server) as peer:
        assert await peer.ask("hello", "world") == "hello"
        assert await peer.receive() == "world"
        exported = (await in_thread(scrape)).splitlines()
        assert [line for line in shown if line not in exported] == []
    assert "server_network" not in scrape()


def test_labels() -> None:
    """The labels that the page names exist, for all reasons.

    "closed with the reason full: clients are turned away."

    "closed with the reason handler_error, and errors of the type handler_error: your code has a
    bug."

    "closed with the reason send_timeout or packet_timeout"
    """
    metrics = exporter()
    found = {
        tuple(sample.labels.values())
        for metric in metrics.metrics_of(StreamStatistics(closed={CloseReason.FULL: 3}))
        for sample in metric.samples
    }
    assert found >= {(reason.name.lower(),) for reason in CloseReason}
    assert ("handler_error",) in found


def test_prometheus_standalone() -> None:
    """A standalone server needs no portal.

    "With a standalone server, it needs none:
    REGISTRY.register(ServerCollector(server.get_statistics))."
    """
    metrics = exporter()
    with StandaloneTCPNetworkServer("127.0.0.1", 0, LINES, Noting()) as server:
        thread = NetworkServerThread(server)
        thread.start()
        collector = metrics.ServerCollector(server.get_statistics)
        metrics.REGISTRY.register(collector)
        try:
            assert "server_network_connection_count 0.0" in scrape()
        finally:
            metrics.REGISTRY.unregister(collector)
        thread.join(PATIENCE)


# When a connection ends for which reason

HANDLING = (b"hello\n", "read")
WAYS: dict[str, list[Script]] = {
    "PEER_CLOSED": [(*HANDLING, "close"), ("close",)],
    "PEER_RESET": [(*HANDLING, "reset"), (b"hel", "reset")],
    "TRUNCATED": [(b"hel", "close"), (b"hello\nhel", "read", "close")],
    "CLOSED": [(b"close\n",)],
    "ABORTED": [(b"abort\n",)],
    "REFUSED": [(b"refuse\n",)],
    "HANDLER_ERROR": [(b"raise\n",)],
    "INVALID_DATA": [(b"\xff\n",)],
    "FIRST_PACKET_TIMEOUT": [(6,), (b"hel", 6)],
    "PACKET_TIMEOUT": [(b"hello\nhel", 6)],
    "IDLE_TIMEOUT": [(*HANDLING, 6)],
    "SEND_TIMEOUT": [(b"flood\n", 10)],
    "CLOSE_TIMEOUT": [(b"flood and close\n", 10)],
    "DRAINED": [(*HANDLING, 2, "drain"), (b"work 5\n", 1, "drain")],
    "STOPPED": [(b"work 5\n", 1, "stop"), (*HANDLING, "stop"), (b"work 50\n", 1, "drain")],
}


@pytest.mark.parametrize("name", WAYS)
def test_when(name: str) -> None:
    """Each way to end a connection has the reason that the table says.

    "The client ended the connection, and no packet was incomplete."

    "The client reset the connection, or its machine or network failed."

    "The client, or an attacker in the network, ended the connection where it should not end."

    "Your code called client.aclose()."

    "Your code called client.abort()."

    "The handler did not want a request."

    "A bug in your code. The log has the exception."

    "The handler did not catch the StreamProtocolParseError."

    "The server was shut down with a grace, and all requests of the client were answered."

    "The server was shut down without a grace, or the grace was over."

    "Where the column When has only a name, the client reached this limit"
    """
    [when] = [row[2] for row in table(PAGE, "Reason") if row[0] == name]
    limits = dict.fromkeys(re.findall(r"^\w+_timeout", when), 5)
    for script in WAYS[name]:
        stage = Stage(limits=replace(Limits.unlimited(), **limits))
        stage.play(script)
        assert stage.statistics.closed == {CloseReason[name]: 1}, script


def test_timeout_of_the_yield() -> None:
    """A timeout of the handler is one more reason.

    "idle_timeout, or the handler did not catch the TimeoutError of its yield."
    """
    stage = Stage(limits=Limits.unlimited())
    stage.play((b"patience 3\n", 4))
    assert stage.handler.reasons == [CloseReason.IDLE_TIMEOUT]


@pytest.mark.parametrize(
    ("limits", "scripts"),
    [
        (Limits(max_clients=1), [(), (1,)]),
        (Limits(max_clients_per_host=1), [(), (1,)]),
    ],
    ids=["max_clients", "max_clients_per_host"],
)
def test_full(limits: Limits, scripts: list[Script]) -> None:
    """Two limits have one reason.

    "max_clients or max_clients_per_host."
    """
    stage = Stage(limits=limits)
    stage.play(*scripts)
    assert stage.statistics.closed == {CloseReason.FULL: 1}
    assert len(stage.handler.clients) == 1


@pytest.mark.parametrize("script", [(b"GET / HTTP/1.1\r\n\r\n",), (b"\x16", "close"), (61,)])
def test_failed_handshakes(script: Script) -> None:
    """A handshake fails in more than one way.

    "The handshake failed or took too long, or the client left during it."
    """
    stage = Stage(ssl=server_context())
    stage.play((*script, 1))
    assert stage.statistics.closed == {CloseReason.TLS_FAILED: 1}
    assert (stage.statistics.tls_failures, stage.handler.clients) == (1, [])


def test_no_descriptor_left() -> None:
    """A connection for which there is no descriptor is counted as one too many.

    "Or the process had no descriptor left."
    """
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        async with serving(Noting()) as server:
            with socket.socket() as sock:
                lowest = os.dup(sock.fileno())
                os.close(lowest)
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
                try:
                    sock.connect(server.get_addresses()[0].for_connection())
                    await until(lambda: server.get_statistics().closed == {CloseReason.FULL: 1})
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    anyio.run(main)


async def test_stolen_descriptor(log: pytest.LogCaptureFixture) -> None:
    """Code that closes the descriptor of a connection is a bug as well.

    "A bug in your code. The log has the exception. Also if other code has closed the connection's
    descriptor."
    """

    class Handler(Noting):
        async def handle(self, client: Client) -> AsyncGenerator[None, str]:
            yield
            os.close(client.extra(INETClientAttribute.socket).fileno())
            await client.send_packet("lost")

    handler = Handler()
    async with serving(handler) as server, connected(server) as peer:
        await peer.send("hello")
        await until(lambda: bool(handler.reasons))
        await until(lambda: server.get_statistics().closed == {CloseReason.HANDLER_ERROR: 1})
    assert "Other code has closed the connection's descriptor" in log.text


# Statistics, clients


async def test_contents_of_statistics() -> None:
    """They have what the page lists.

    "server.get_statistics() returns a StreamStatistics object: connected and accepted clients,
    clients closed for each reason, packets and bytes in both directions, and errors. Refused
    clients count as accepted ones, and as closed ones with the reason FULL."

    "server.get_clients() returns the connected clients."
    """
    async with serving(Noting()) as server:
        async with connected(server) as one, connected(server) as other:
            assert await one.ask("hello") == "hello"
            await other.send_bytes(b"\xff\n")
            await other.ending()
            await until(lambda: len(server.get_clients()) == 1)
            found = server.get_statistics()
            assert type(found) is StreamStatistics
            assert (found.clients, found.accepted) == (1, 2)
            assert found.closed == {CloseReason.INVALID_DATA: 1}
            assert (found.packets_received, found.packets_sent) == (2, 1)
            assert (found.bytes_received, found.bytes_sent) == (8, 6)
            assert (found.invalid_packets, found.handler_errors) == (1, 0)


async def test_datagrams() -> None:
    """A server of datagrams counts other things.

    "Servers of datagrams have other counters"
    """
    async with serving(DatagramEcho()) as server:
        with visiting(server) as peer:
            assert await peer.ask("hello") == "hello"
        found = server.get_statistics()
        assert type(found) is DatagramStatistics
        assert (found.received, found.dropped) == (1, 0)
        assert not hasattr(found, "accepted")


def test_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Prometheus asks for is collected then, in another thread.

    "The package prometheus-client answers it, in a thread of its own: start_http_server() opens the
    port."

    "A collector gets the statistics of the server when Prometheus asks, so a request costs nothing
    more than without metrics"

    "The collector is called in the thread of prometheus-client, so it uses a portal"
    """
    metrics, package = exporter(), importlib.import_module("prometheus_client")
    threads: list[threading.Thread] = []

    def ask() -> str:
        address = f"http://127.0.0.1:{exposed.server_address[1]}/metrics"
        with urllib.request.urlopen(address, timeout=PATIENCE) as response:
            return str(response.read())

    class Collector(metrics.ServerCollector):  # type: ignore[name-defined]
        def collect(self) -> Any:
            threads.append(threading.current_thread())
            return super().collect()

    async def main() -> None:
        async with serving(Noting()) as server, server.backend().create_threads_portal() as portal:
            registry.register(Collector(lambda: portal.call(server.get_statistics)))
            async with connected(server) as peer:
                assert await peer.ask("hello") == "hello"
                assert threads == []
                assert "server_network_connection_count 1.0" in await in_thread(ask)
                assert len(threads) == 1
                assert threads[0] is not threading.current_thread()

    # Its thread looks twice a second whether it has to end.
    monkeypatch.setattr(socketserver.BaseServer.serve_forever, "__defaults__", (0.01,))
    registry = package.CollectorRegistry()
    exposed, thread = package.start_http_server(0, "127.0.0.1", registry)
    try:
        anyio.run(main)
    finally:
        exposed.shutdown()
        exposed.server_close()
        thread.join()
