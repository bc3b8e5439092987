"""Compare the page about performance with its figures, and with what the benchmarks do.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. Nothing is measured here: the figures are those beside the page, of both versions of Python.
"""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import contextlib
import ctypes
import fnmatch
import io
import itertools
import os
import re
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the benchmarks read the kernel's books", allow_module_level=True)

from benchmarks import certificates, host, links, load, page, plot, probes, runner, scenarios
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.options import parse
from benchmarks.packets import PACKETS
from benchmarks.process import SERVERS, Reading, ServerProcess
from benchmarks.progress import Progress
from benchmarks.results import Metric, Results, Row, Sample
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.servers import asyncio_formats, easynetwork_formats, easynetwork_tcp
from benchmarks.servers.asyncio_protocol import EchoProtocol
from benchmarks.settings import FULL, QUICK, Settings, default_cores
from easynetwork.backends.receive_buffer import receive_view
from tests.docs.howto_support import DOCS, check_quotations, words
from tests.times import PATIENCE

PAGE = "performance.rst"
FOLDER = DOCS / "_include/performance"
VERSIONS = "3.13", "3.11"
FIGURES = {version: Results.read(FOLDER / f"python-{version}.json") for version in VERSIONS}

each_version = pytest.mark.parametrize("figures", FIGURES.values(), ids=VERSIONS)


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


def median(figures: Results, scenario: str, contender: str, key: str = "cpu_us") -> float:
    return row(figures, scenario, contender).median(key)


def row(figures: Results, scenario: str, contender: str) -> Row:
    table = figures.table(scenario)
    assert table
    found = table.row(contender)
    assert found
    return found


def medians(figures: Results, scenario: str, key: str = "cpu_us") -> dict[str, float]:
    table = figures.table(scenario)
    assert table
    return {row.contender: row.median(key) for row in table.rows}


# Summary


def test_summary() -> None:
    """The summary is that of the tables.

    "With one request in flight on each connection, easynetwork costs about as much as asyncio
    streams: 9.4 µs and 9.9 µs of processor time per request, on asyncio and Python 3.13. With 16
    requests in flight, it costs a quarter: 1.7 µs and 6.6 µs."
    """
    for scenario, sentence in (
        ("tcp-50x64x1", "as much as asyncio streams: {:.1f} µs and {:.1f} µs of processor time"),
        ("tcp-50x64x16", "it costs a quarter: {:.1f} µs and {:.1f} µs."),
    ):
        ours = median(FIGURES["3.13"], scenario, "easynetwork-asyncio-loop")
        streams = median(FIGURES["3.13"], scenario, "asyncio-streams")
        assert sentence.format(ours, streams) in words(PAGE)
        low, high = (0.22, 0.28) if "quarter" in sentence else (0.8, 1.25)
        assert low < ours / streams < high


def test_charts() -> None:
    """They show these scenarios, with a bar for each contender that grows with its figure.

    "The charts show the processor time of the server per request, with 50 connections and lines of
    64 bytes (datagrams of 64 bytes over UDP)."

    "Shorter bars are better."
    """
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    for name in plot.SCENARIOS:
        assert re.search(r", 50 (connections|sockets), 64 B, ", by_name[name].title)
        assert by_name[name].metrics[0].label == "processor time"
    for version in VERSIONS:
        svg = (FOLDER / f"python-{version}.svg").read_text(encoding="utf-8")
        panel = svg.split('class="title"')[1]
        bars = [float(width) for width in re.findall(r'width="([\d.]+)"', panel)]
        costs = [float(cost) for cost in re.findall(r">([\d.]+)</text>", panel)]
        assert len(bars) == len(costs) == len(medians(FIGURES[version], plot.SCENARIOS[0]))
        assert bars == sorted(bars)
        assert costs == sorted(costs)


def test_tables() -> None:
    """They contain all that was measured on both versions.

    "The tables below contain these figures and all others."

    "The benchmarks are in the repository: one command repeats the measurements on your machine."
    """
    shown = {(scenario, key) for _, columns in page.TABLES for _, scenario, key in columns}
    for figures in FIGURES.values():
        for table in figures.tables:
            assert (table.scenario, table.metrics[0].key) in shown, table.scenario
    assert words(PAGE).count("$ python3 run.py bench") == 2


# How the benchmarks work


def sources(family: str) -> dict[str, str]:
    """Return the text of each server of a family."""
    names = {contender.program for contender in CONTENDERS if contender.family == family}
    return {name: (SERVERS / name).read_text(encoding="utf-8") for name in names}


def test_servers() -> None:
    """What each file does is in the file.

    "Every server splits the stream into lines, decodes each line to str, encodes it again and sends
    it back."

    "has a file of its own in benchmarks/servers/, and disables Nagle's algorithm."
    """
    unasked = "import asyncio", "import trio", "easynetwork.socketserver"
    for name, text in sources("tcp").items():
        by_hand = '.decode("ascii")' in text and '.encode("ascii")' in text
        assert by_hand != ("StringLineSerializer(" in text), name
        disabled = re.search("TCP_NODELAY, 1|setTcpNoDelay[(]True|disable_nagle_.* = True", text)
        assert disabled or any(library in text for library in unasked), name


def run_to_end(handler: Any) -> tuple[list[str], bool]:
    """Send two requests to a generator; return the responses, and whether the first ended it."""
    sent: list[str] = []

    async def send_packet(packet: str) -> None:
        sent.append(packet)

    async def main() -> bool:
        generator = handler.handle(types.SimpleNamespace(send_packet=send_packet))
        await anext(generator)
        try:
            await generator.asend("one")
        except StopAsyncIteration:
            return True
        await generator.aclose()
        return False

    return sent, asyncio.run(main())


def test_shapes_of_handlers() -> None:
    """One generator ends with its first request, the other one waits for the next.

    "handle() responds to one request and returns; in"

    "it loops."
    """
    assert run_to_end(easynetwork_tcp.HANDLERS["request"]()) == (["one"], True)
    assert run_to_end(easynetwork_tcp.HANDLERS["loop"]()) == (["one"], False)
    for contender in CONTENDERS:
        if fnmatch.fnmatch(contender.name, "easynetwork-*-request") and contender.family == "tcp":
            assert contender.arguments[1] == "request"


@each_version
def test_lower_bounds(figures: Results) -> None:
    """Nothing needs less, but for what is as good as the same.

    "The bare select.epoll loop and the bare UDP socket are lower bounds, not servers to use: they
    do as little as Python can do for the same work."
    """
    for scenario, floor in (
        ("tcp-50x64x1", "epoll-floor"),
        ("tcp-50x64x16", "epoll-floor"),
        ("udp-50x64x1", "socket-floor"),
    ):
        found = medians(figures, scenario)
        assert found[floor] < 1.05 * min(found.values())


def test_formats() -> None:
    """The packets of each format that was measured, and the two servers for it.

    "These scenarios use small packets instead of lines: one JSON document per line, MessagePack
    with a length prefix, bytes with a length prefix, a command of Redis, and a struct.Struct."

    "uses a serializer for each format."

    "uses a hand-written loop around readline() or readexactly()."
    """
    measured = {table.family for table in FIGURES["3.13"].tables} & set(PACKETS)
    assert measured == {"json", "msgpack", "prefixed", "resp", "struct"}
    assert PACKETS["resp"].startswith(b"*3\r\n$3\r\nSET\r\n")
    assert PACKETS["json"].startswith(b"{")
    assert PACKETS["json"].index(b"\n") == len(PACKETS["json"]) - 1
    for name in "msgpack", "prefixed":
        assert int.from_bytes(PACKETS[name][:4]) == len(PACKETS[name]) - 4
    assert len(PACKETS["struct"]) == asyncio_formats.READING.size
    names = [type(easynetwork_formats.make_serializer(name, 65536)).__name__ for name in measured]
    assert all(name.endswith("Serializer") for name in names)
    for name in measured:
        called = asyncio_formats.ECHOES[name].__code__.co_names
        assert {"readline", "readexactly"} & set(called), name


def test_tls() -> None:
    """The handshake of a server and of the load, with the certificate.

    "These scenarios send the same lines over TLS 1.3, with a certificate that is generated for the
    run."

    "The load verifies it."
    """
    file = Path(certificates.certificate())
    assert time.time() - file.stat().st_mtime < 3600  # made by this process
    context = certificates.client_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(file)
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(one, other, server_hostname="localhost")
    server = ours.wrap_bio(other, one, server_side=True)
    for end in client, server, client, server:
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    assert client.version() == server.version() == "TLSv1.3"


def test_processes() -> None:
    """A server runs on its core, and is counted with all of its threads.

    "Each server runs in its own process, pinned to one core; the load runs on another core."

    "Each server uses one core."

    "Processor time is the time of the server process: all threads, user and system, as the kernel
    counts it."
    """
    server_core, load_core = default_cores()
    assert (server_core == load_core) == (len(os.sched_getaffinity(0)) == 1)
    with ServerProcess("epoll_loop.py", ["65536"], core=server_core) as server:
        assert server.process.pid != os.getpid()
        assert os.sched_getaffinity(server.process.pid) == {server_core}
        assert server.read().processor > 0
    ours = object.__new__(ServerProcess)
    ours.process, ours._core = types.SimpleNamespace(pid=os.getpid()), server_core  # type: ignore[assignment]
    before = ours.read().processor

    def work() -> None:
        while time.thread_time() < 0.01:
            os.getppid()  # of which some is the system's

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ours.read().processor - before >= 0.01


class FakeServer:
    """In place of a process."""

    started: list[str]
    port = 0

    def __init__(self, program: str, arguments: list[str], *, core: int) -> None:
        self.name = program
        self.started.append(program)

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what two rounds did: the starts of two servers, clients that left, measurements."""
    done: list[Any] = []

    @contextlib.contextmanager
    def open_links(family: str, port: int, count: int, **options: Any) -> Iterator[None]:
        yield
        done.append(count)

    def measure(host: Any, contender: Contender) -> Sample:
        assert os.sched_getaffinity(0) == {settings.load_core}
        with host.server(contender):
            done.append(contender.name)
        return Sample({"cost": 1.0})

    monkeypatch.setattr(FakeServer, "started", done, raising=False)
    monkeypatch.setattr(host, "ServerProcess", FakeServer)
    monkeypatch.setattr(host, "open_links", open_links)
    server_core, load_core = default_cores()
    settings = Settings(2, 0, 0, 1, 0, 0, 0, 0, 0, server_core, load_core)
    two = [Scenario(name, "", "tcp", (Metric("cost", "", ""),), measure) for name in ("1", "2")]
    contenders = [Contender(name, "tcp", f"{name}.py") for name in "ab"]
    runner.run(two, contenders, settings, Progress(io.StringIO()))
    return done


def test_rounds(order: list[Any]) -> None:
    """The order of starts and measurements.

    "A round measures each scenario with one contender after the other, so that the compared
    measurements are seconds apart. Each round starts new processes, and every other round measures
    the contenders in reverse order."
    """
    steps = [step for step in order if isinstance(step, str)]
    assert steps == ["a.py", "a", "b.py", "b", "a", "b", "b.py", "b", "a.py", "a", "b", "a"]


def test_warm_up(order: list[Any]) -> None:
    """Clients leave between the start of a server and its first measurement.

    "Before a server is measured, a few clients connect and disconnect."
    """
    assert order[:6] == ["a.py", 3, "a", "b.py", 3, "b"]
    assert order.count(3) == 4  # servers


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return the server's end of the connection that a link makes next."""
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(links.StreamLink, "_connect", staticmethod(lambda port: ours))
    with ours, theirs:
        yield theirs


@pytest.mark.parametrize("wrong", [0, 63, 64, 127])
def test_every_byte_is_compared(wrong: int, peer: socket.socket) -> None:
    """A response with one wrong byte is found out, the right one is not.

    "The load sends batches of requests on each connection and compares every byte of the
    responses."
    """
    line = links.make_line(64)
    link = links.StreamLink(0, line, 2, line * 2000)
    peer.sendall(link.greeting)
    link.greet()
    for _ in range(2):
        link.ask(0.0)
        assert peer.recv(1000).endswith(line * 2)
        peer.sendall(line * 2)
        assert link.take() == 128
        assert link.missing == 0
    link.ask(0.0)
    bad = bytearray(line * 2)
    bad[wrong] ^= 1
    peer.sendall(bad)
    with pytest.raises(links.WrongAnswerError):
        link.take()


class FakeLink:
    """A connection that always has something to read, or never."""

    unsent = b""
    line_size = 1

    def __init__(self, sock: Any, answers: int) -> None:
        self.sock, self.answers = sock, answers
        self.missing, self.asked_at = 0, 0.0
        self.asked: list[int] = []

    def ask(self, now: float) -> None:
        self.asked.append(self.missing)
        self.missing += 4
        self.asked_at = now

    def take(self) -> int:
        taken = min(self.answers, self.missing)
        self.missing -= taken
        return taken


@pytest.fixture
def fake_links(peer: socket.socket) -> list[Any]:
    """Return a link whose responses come one by one."""
    peer.sendall(b"x")
    return [FakeLink(links.StreamLink._connect(0), 1)]


def reading() -> Reading:
    return Reading(time.perf_counter(), 0.0, 0.0)


def test_closed_loop(fake_links: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batch is sent when no response is missing, and never before.

    "It sends the next batch when it has received the responses to the last one (closed loop)."
    """
    ticks = itertools.count()
    clock = types.SimpleNamespace(perf_counter=lambda: next(ticks), process_time=time.process_time)
    monkeypatch.setattr(load, "time", clock)
    result = load.closed_loop(fake_links, warm_up=0, duration=50, reading=reading)
    [link] = fake_links
    assert len(link.asked) > 2
    assert set(link.asked) == {0}
    assert result.answers >= 4 * (len(link.asked) - 2)


def test_open_loop(peer: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not respond is asked all the same, and each request waits since its time.

    "In a scenario with a fixed rate, each request is sent when it is due, even if responses are
    missing, and its latency is measured from the time at which it was due (open loop). A stall
    therefore counts in the latency of every request that it delays."
    """
    monkeypatch.setattr(load, "GRACE", 0.005)
    silent: Any = FakeLink(links.StreamLink._connect(0), 0)
    result = load.open_loop([silent], rate=1000, warm_up=0, duration=0.0205, reading=reading)
    assert len(silent.asked) == 21
    waits = result.latencies
    assert [round(early - late, 6) for early, late in itertools.pairwise(waits)] == ([0.001] * 20)
    assert waits[-1] >= 0.005
    assert "fixed rate" in next(s.title for s in SCENARIOS if s.name == "tcp-latency")


@pytest.mark.parametrize(("busy", "server", "limit"), [(1, 0.5, True), (1, 1, False)])
def test_mark_of_the_load(busy: float, server: float, limit: bool) -> None:
    """The load was the limit if it was busy and the server was not; the tables mark that.

    "A mark shows where the load was the limit."
    """
    result = load.Load(1, Reading(0, 0, 0), Reading(1, server, 0), [], busy)
    assert result.was_the_limit is limit
    for version, figures in FIGURES.items():
        text = (FOLDER / f"python-{version}.rst").read_text(encoding="utf-8")
        marked = any("limit" in row.notes() for table in figures.tables for row in table.rows)
        assert ("† The load was the limit" in text) == marked


def test_medians() -> None:
    """Three rounds: the figures' median, and that of the ratios within the rounds.

    "Each figure is the median of the rounds. A ratio is calculated within each round; the median of
    these ratios is shown."
    """
    ours = Row("ours", [Sample({"cpu_us": cost}) for cost in (1.0, 4.0, 9.0)])
    theirs = Row("theirs", [Sample({"cpu_us": cost}) for cost in (2.0, 2.0, 18.0)])
    assert ours.median("cpu_us") == 4.0
    assert ours.ratio("cpu_us", theirs) == 0.5  # of 0.5, 2 and 0.5; that of the medians is 2
    assert all(figures.settings["rounds"] > 2 for figures in FIGURES.values())


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The growth is shared among the connections, each of which was greeted.

    "Memory is the growth of the process (Rss) per connection, with 2,000 connections that have each
    received one response."
    """
    opened: list[int] = []

    @contextlib.contextmanager
    def open_links(family: str, port: int, count: int, **options: Any) -> Iterator[None]:
        opened.append(count)
        yield

    monkeypatch.setattr(probes, "open_links", open_links)
    sizes = iter([10_000_000, 10_000_000 + 2000 * 1024])
    server: Any = types.SimpleNamespace(port=0, memory=lambda: next(sizes), read=reading)
    assert probes.idle(server, "tcp", connections=2000, seconds=0)["kib"] == 1
    assert opened == [500, 2000]
    assert FULL.idle_connections == 2000
    assert all(figures.settings["idle_connections"] == 2000 for figures in FIGURES.values())
    ours = object.__new__(ServerProcess)
    ours.process = types.SimpleNamespace(pid=os.getpid())  # type: ignore[assignment]
    assert ours.memory() % 1024 == 0
    assert "greet()" in Path(links.__file__).read_text(encoding="utf-8")


def test_heartbeat() -> None:
    """The sizes are those of the code.

    "One connection sends a request every 5 milliseconds. In a storm, 50 other connections keep 64
    requests each in flight; in a crowd, 400 other connections keep 1,024 requests each in flight."
    """
    assert probes.BEAT == 0.005
    assert probes.fairness.__kwdefaults__ == {"connections": 50, "in_flight": 64}
    assert FULL.crowd_connections == 400
    assert probes.CROWD_IN_FLIGHT == 1024


# Why the servers are warmed up


@each_version
def test_cost_before_any_client_has_left(figures: Results) -> None:
    """The figures before and after.

    "From then on, the C library keeps these blocks, and a read costs less than half."

    "A benchmark of asyncio streams or of an asyncio.Protocol in a new process therefore shows a
    server that is slower than it is later. All servers here are warmed up, except where a table
    says"

    "easynetwork reads into one buffer per event loop, and a request costs the same from the
    beginning."
    """
    for contender in "asyncio-streams", "asyncio-protocol":
        new, old = (median(figures, f"tcp-50x64x1{part}", contender) for part in ("-young", ""))
        assert old < new / 2
    for in_flight in 1, 16:
        name, contender = f"tcp-50x64x{in_flight}", "easynetwork-asyncio-loop"
        new, old = (median(figures, f"{name}{part}", contender) for part in ("-young", ""))
        assert 0.9 < new / old < 1.1

    async def views() -> tuple[memoryview, memoryview]:
        return receive_view(65536), receive_view(65536)

    one, other = asyncio.run(views())
    assert one is other
    for scenario in SCENARIOS:
        if getattr(scenario.measure, "keywords", {}).get("past") is False:
            assert "before any client has left" in scenario.title


def test_size_of_a_read() -> None:
    """It is that of the standard library.

    "asyncio allocates 256 KiB for each recv."
    """
    transport: Any = vars(asyncio.selector_events)["_SelectorSocketTransport"]
    assert transport.max_size == 256 * 1024


# Prints how many blocks the C library has from the kernel while it has one of 256 KiB: as it is
# allocated, and as most of it was given back; three times. Before the last time, one of them or
# a packet's was freed whole.
BLOCKS = """
import ctypes, sys
c = ctypes.CDLL(None)
c.malloc.restype = c.realloc.restype = ctypes.c_void_p
c.realloc.argtypes, c.free.argtypes = (ctypes.c_void_p, ctypes.c_size_t), (ctypes.c_void_p,)
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena o s blocks size u f w c k".split()]
c.mallinfo2.restype = Info
def read():
    before = c.mallinfo2()
    pointer = c.malloc(256 * 1024)
    allocated = c.mallinfo2()
    pointer = c.realloc(pointer, 100)
    rest = c.mallinfo2()
    print(allocated.blocks - before.blocks, (rest.size - before.size) // 1024)
    c.free(pointer)
read(), read()
if sys.argv[1]:
    sys.path.append(sys.argv[1])
    import msgpack
    msgpack.packb(1)
else:
    c.free(c.malloc(256 * 1024))
read()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="another C library")
@pytest.mark.parametrize("library", [None, "msgpack"])
def test_blocks_of_the_c_library(library: str | None) -> None:
    """Each block comes from the kernel, and goes back but for a page, until one is freed whole.

    "The C library of most Linux systems requests a block of this size from the kernel and returns
    most of it at every read, until the program frees a whole block of this size for the first
    time."

    "The MessagePack library frees such a block with every packet that it writes."
    """
    file = pytest.importorskip(library).__file__ if library else None
    done = subprocess.run(
        [sys.executable, "-IS", "-c", BLOCKS, str(Path(file).parents[1]) if file else ""],
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.splitlines() == ["1 4", "1 4", "0 0"]


@each_version
def test_cost_with_messagepack(figures: Results) -> None:
    """Streams with this library cost the same before and after; with another format they do not.

    "asyncio streams that use it are therefore warmed up from the first response on, and are no
    slower before the first client disconnects than afterwards."
    """
    for name, is_slower in (("msgpack", False), ("prefixed", True)):
        new, old = (
            median(figures, f"{name}-50x1{part}", f"asyncio-streams-{name}")
            for part in ("-young", "")
        )
        assert (new > 1.1 * old) is is_slower


# Limits of the benchmarks


def test_one_machine() -> None:
    """Both files name the same one.

    "The figures come from one machine."
    """
    one, other = (figures.machine for figures in FIGURES.values())
    assert (one["processor"], one["system"]) == (other["processor"], other["system"])


def test_loopback() -> None:
    """The load connects to this address, at which the servers listen.

    "Client and server communicate over the loopback interface."
    """
    assert links.HOST == "127.0.0.1"
    for name, text in {**sources("tcp"), **sources("udp")}.items():
        assert "127.0.0.1" in text, name


def test_limits_of_lines() -> None:
    """The others say that they have none, and pass a longer line on.

    "The contenders do not give the same guarantees. Only easynetwork, asyncio streams and Twisted
    limit the length of a line."
    """
    limited = {name for name, text in sources("tcp").items() if "no limit of its own" not in text}
    assert {re.split("[_.]", name)[0] for name in limited} == {"easynetwork", "asyncio", "twisted"}
    assert {name for name in limited if name.startswith("asyncio")} == {"asyncio_streams.py"}
    written: list[bytes] = []
    protocol = EchoProtocol()
    transport: Any = types.SimpleNamespace(write=written.append)
    protocol.connection_made(transport)
    for part in b"x" * 100_000, b"y" * 100_000, b"\n":
        protocol.data_received(part)
    assert [len(line) for line in written] == [200_001]


@each_version
def test_clients_that_never_read(figures: Results) -> None:
    """These grow by nearly all that was sent, the others by less than a hundredth of it.

    "Twisted and the hand-written asyncio.Protocol buffer all data that a client does not read: see
    the column"
    """
    sent = figures.settings["never_reader_bytes"] / (1 << 20)
    grown = medians(figures, "tcp-never-reader", "grown_mib")
    buffering = {name for name, mib in grown.items() if mib > 0.8 * sent}
    assert buffering == {"twisted", "asyncio-protocol", "uvloop-protocol"}
    assert all(mib < sent / 64 for name, mib in grown.items() if name not in buffering)


@each_version
def test_lines_split_by_hand(figures: Results) -> None:
    """They join what they have with what has come, and need several times what the floor needs.

    "asyncio-protocol, uvloop-protocol and trio-streams join the rest of a line with each new chunk,
    as is usual, which increases their cost with lines of 1 MiB."
    """
    programs = {contender.name: contender.program for contender in CONTENDERS}
    costs = medians(figures, "tcp-large")
    joining = {
        name
        for name in costs
        if re.search(r"\((self\.)?partial \+ data\)", (SERVERS / programs[name]).read_text())
    }
    assert joining == {"asyncio-protocol", "uvloop-protocol", "trio-streams"}
    assert all(costs[name] > 2 * costs["epoll-floor"] for name in joining)


@each_version
def test_stacks(figures: Results) -> None:
    """Threads and greenlets need more than twice what any other contender needs.

    "Each thread and each greenlet has a stack, which increases the memory of an idle connection."
    """
    idle = medians(figures, "tcp-idle", "kib")
    stacks = {name for name in idle if "socketserver" in name or name == "gevent"}
    assert len(stacks) == 3
    others = max(kib for name, kib in idle.items() if name not in stacks)
    assert min(idle[name] for name in stacks) > 2 * others


@each_version
def test_cost_of_a_generator(figures: Results) -> None:
    """The ratios of the two kinds of handlers.

    "A generator for each request has a cost: the server creates it, runs it up to its first yield,
    and catches the exception that signals its return. The cost is visible where a request costs
    little more than that, with 16 in flight on a connection."

    "The paragraph before the tables states, for each Python version, the ratio of"
    """
    ratios = {
        in_flight: statistics.median(
            median(figures, f"tcp-{count}x64x{in_flight}", f"easynetwork-{loop}-request")
            / median(figures, f"tcp-{count}x64x{in_flight}", f"easynetwork-{loop}-loop")
            for count in (1, 50, 500)
            for loop in ("asyncio", "uvloop", "trio")
        )
        for in_flight in (1, 16)
    }
    assert ratios[1] < 1.1 < 1.2 < ratios[16]
    version = figures.machine["python"].rpartition(".")[0]
    text = (FOLDER / f"python-{version}.rst").read_text(encoding="utf-8")
    start = text.index("``easynetwork-*-request``, divided by that of ``easynetwork-*-loop``")
    assert start < text.index(".. list-table::")


@each_version
def test_spread_of_the_latencies(figures: Results) -> None:
    """They do, in the typical row.

    "Latencies at the 99th percentile vary several times as much as processor times, from one round
    to the next."
    """
    table = figures.table("tcp-latency")
    assert table
    p99, cpu = (
        statistics.median(row.spread(key) for row in table.rows) for key in ("p99_ms", "cpu_us")
    )
    assert p99 > 3 * cpu


@each_version
def test_what_latencies_depend_on(figures: Results) -> None:
    """They differ between servers under one load, and under two loads with one server.

    "Latencies and rates depend on both the server and the load."
    """
    for key in "p50_ms", "per_second":
        ours, theirs = (
            median(figures, "tcp-50x64x16", contender, key)
            for contender in ("easynetwork-asyncio-loop", "asyncio-streams")
        )
        other_load = median(figures, "tcp-50x64x1", "easynetwork-asyncio-loop", key)
        assert not 0.5 < ours / theirs < 2
        assert not 0.5 < ours / other_load < 2


# Run the benchmarks yourself


def seconds_of_load(settings: Settings, chosen: list[Scenario]) -> float:
    """Return for how long at least there is load."""
    return sum(
        sum(map(scenario.concerns, CONTENDERS))
        * min(settings.rounds, scenario.rounds)
        * (settings.warm_up + settings.duration)
        for scenario in chosen
    )


def test_sizes_of_runs() -> None:
    """The load alone takes two thirds of the time that the page says, at most.

    "It runs fewer scenarios, each in one short round, and takes less than a minute. The full run
    takes less than fifteen minutes."
    """
    quick, full = parse(["--quick"]), parse([])
    assert len(quick.scenarios) < len(full.scenarios)
    assert quick.settings.rounds == QUICK.rounds == 1
    assert quick.settings.duration < full.settings.duration
    assert seconds_of_load(quick.settings, quick.scenarios) < 60 * 2 / 3
    assert seconds_of_load(full.settings, full.scenarios) < 15 * 60 * 2 / 3


@pytest.mark.parametrize(("others", "is_marked"), [(0.0, False), (0.05, False), (0.5, True)])
def test_disturbed(others: float, is_marked: bool) -> None:
    """The core was busy with something else than the server.

    "A measurement is marked as disturbed if other processes used the server's core."
    """
    result = load.Load(1, Reading(0, 0, 0), Reading(1, 0.4, 0.4 + others), [], 0.5)
    assert ("disturbed" in scenarios._notes(result)) is is_marked


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    """They are in the help, and do that.

    "--help lists the other options: they select scenarios and contenders, replace asyncio streams
    as the divisor of the ratios, and draw the chart."
    """
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    text = capsys.readouterr().out
    for option in "--scenarios", "--contenders", "--against", "--plot":
        assert option in text
    chosen = parse(["--scenarios", "tcp-idle", "--contenders", "twisted", "--against", "gevent"])
    assert [scenario.name for scenario in chosen.scenarios] == ["tcp-idle"]
    assert [contender.name for contender in chosen.contenders] == ["twisted"]
    assert parse([]).references["tcp"] == "asyncio-streams"
    assert chosen.references["tcp"] == "gevent"


def test_missing_library() -> None:
    """Nothing is started for it.

    "A contender is skipped if its library is not installed."
    """
    missing = Contender("missing", "tcp", "no_such_file.py", (), ("no_such_library",))
    chosen = [scenario for scenario in SCENARIOS if scenario.name == "tcp-50x64x1"]
    results = runner.run(chosen, [missing], QUICK, Progress(io.StringIO()))
    assert results.skipped == {"missing": "no_such_library is not installed"}
    assert results.tables[0].rows == []
