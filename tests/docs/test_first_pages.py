"""What the README and the first page promise, each promise shown once and in small.

As in `test_readme`, which is about their programs and figures, a sentence in quotation marks in a
docstring is a quotation of one of the two pages.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
import re
import socket
import socketserver
import ssl
import threading
import time
import tomllib
from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple

import anyio
import pytest
import trustme

import easynetwork.socketserver
from easynetwork.clients import (
    AsyncTCPNetworkClient,
    AsyncUDPNetworkClient,
    TCPNetworkClient,
)
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import DeserializeError, EndOfStreamError, StreamProtocolParseError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import (
    CBORSerializer,
    JSONSerializer,
    MessagePackSerializer,
    NetstringSerializer,
    StringLineSerializer,
    StructSerializer,
)
from easynetwork.serializers.abc import AbstractPacketSerializer
from easynetwork.serializers.framing import (
    LengthPrefixedPacketSerializer,
)
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.testing import Faults, check_serializer, serve
from tests.docs.howto_support import (
    DOCS,
    DatagramEcho,
    Echo,
    check_quotations_in,
    check_tests,
    complaints,
    serving,
    words,
)
from tests.docs.memory_support import play
from tests.docs.sentences import PAGES
from tests.docs.test_readme import PROGRAMS, SAID
from tests.times import PATIENCE

REPOSITORY = DOCS.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
JSON: Any = StreamProtocol(JSONSerializer())
LINES: Any = StreamProtocol(StringLineSerializer())
FIVE_MINUTES = 300


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "easynetwork")
    return caplog


def test_quotations() -> None:
    """Check that one of the pages contains each quotation, and that each test quotes one."""
    check_quotations_in(SAID, globals())


# What it is


@pytest.mark.asyncio
async def test_packets_over_each_transport(unix_path: str) -> None:
    """What is sent is what is received: an object, over TCP, UDP and a Unix socket.

    "Servers and clients for TCP, UDP and Unix sockets that exchange packets, not bytes."
    """
    datagrams: Any = DatagramProtocol(JSONSerializer())
    packets = [{"a": [1, None]}, "text", ["in", "pieces" * 1000]]

    async def check(client: Any) -> None:
        async with client:
            for packet in packets:
                await client.send_packet(packet)
            assert [await client.recv_packet() for _ in packets] == packets

    async with serving(Echo(), JSON) as server:
        await check(AsyncTCPNetworkClient(tuple(server.get_addresses()[0]), JSON))
    async with serving(DatagramEcho(), datagrams) as server:
        await check(AsyncUDPNetworkClient(tuple(server.get_addresses()[0]), datagrams))
    async with AsyncUnixStreamServer(unix_path, JSON, Echo()) as server:
        async with anyio.create_task_group() as tasks:
            is_up = anyio.Event()
            tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            await check(AsyncUnixStreamClient(unix_path, JSON))
            await server.shutdown()


class Lines(AsyncStreamRequestHandler[str, str]):
    """Sends back each line, in capitals. Says nothing of errors, clients and bytes."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        await client.send_packet((yield).upper())


def test_copes_with_clients(log: pytest.LogCaptureFixture) -> None:
    """A handler of one line: half lines, garbage, and clients that are slow or gone.

    "You write a request handler; easynetwork finds where each packet ends, rejects malformed data,
    and copes with slow and departed clients."
    """

    async def main() -> None:
        async with serve(Lines(), LINES) as served:
            slow = await served.connect(raw=True)
            await slow.send(b"never fin")
            departed = await served.connect(raw=True)
            await departed.send(b"one\ntwo\nthr")
            departed.reset()
            malformed = await served.connect(raw=True)
            await malformed.send(b"\xff\xfe\n")
            assert await malformed.receive() == b""
            good = await served.connect(raw=True)
            await good.send(b"o")
            await anyio.wait_all_tasks_blocked()
            await good.send(b"ne\ntwo\nthree")
            await anyio.wait_all_tasks_blocked()
            assert await good.receive() == b"ONE\nTWO\n"
            await good.send(b"\n")
            assert await good.receive() == b"THREE\n"
            await slow.send(b"ished\n")
            assert await slow.receive() == b"NEVER FINISHED\n"

    play(main)
    [complaint] = complaints(log)
    assert "sent invalid data" in complaint.getMessage()


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return those of a server and of a client that trusts it."""
    authority = trustme.CA()
    server, client = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(),
    )
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@pytest.mark.anyio
async def test_event_loops_and_tls(anyio_backend_name: str) -> None:
    """The same server, over TCP and over TLS, on the loop of the moment.

    "On asyncio, uvloop or trio, with or without TLS."

    "TLS in servers and clients."

    "asyncio, uvloop and trio, each with its native input and output."
    """
    server_context, client_context = tls_contexts()
    plain: dict[str, Any] = {}
    encrypted = {"ssl": client_context, "server_hostname": "localhost"}
    for options, client_options in ((plain, plain), ({"ssl": server_context}, encrypted)):
        async with serving(Lines(), LINES, **options) as server:
            address = tuple(server.get_addresses()[0])
            async with AsyncTCPNetworkClient(address, LINES, **client_options) as client:
                await client.send_packet("hello")
                assert await client.recv_packet() == "HELLO"
                # The backend is written for this framework, not for one that runs on all.
                for end in server, client:
                    module = type(end.backend()).__module__
                    assert module == f"easynetwork.backends.{anyio_backend_name}.backend"


def test_any_client_may_send_anything(log: pytest.LogCaptureFixture) -> None:
    """Others are served, whatever one of them has sent, and whatever the handler made of it.

    "Whatever one client sends, the server and the other clients go on."
    """

    class Fragile(Lines):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            request = yield
            if request == "crash":
                raise RuntimeError("a bug")
            await client.send_packet(request.upper())

    attacks = [b"\xff\n", b"crash\n", b"x" * 100_000, bytes(range(256)) * 300, b"\n" * 10_000, b"x"]

    async def main() -> None:
        async with serve(Fragile(), LINES) as served:
            witness = await served.connect()
            for attack in attacks:
                attacker = await served.connect(raw=True)
                await attacker.send(attack)
                await witness.send_packet("still there?")
                assert await witness.recv_packet() == "STILL THERE?"
                attacker.reset()
            latecomer = await served.connect()
            await latecomer.send_packet("hello")
            assert await latecomer.recv_packet() == "HELLO"

    play(main)
    assert "a bug" in log.text


# Installing


def test_versions_of_python() -> None:
    """The project, its launcher and the pages say the same.

    "easynetwork needs Python 3.11 or newer."
    """
    assert PROJECT["requires-python"] == ">=3.11"
    needed = re.compile(r"\bneeds? C?Python (\S+) or newer")
    versions = [version for page in PAGES for version in needed.findall(page.read_text("utf-8"))]
    assert len(versions) > 3
    assert {f">={version}" for version in versions} == {PROJECT["requires-python"]}
    assert "sys.version_info < (3, 11)" in (REPOSITORY / "run.py").read_text(encoding="utf-8")


class Run(NamedTuple):
    """What `run.py` did: environments that it made, and commands that it called."""

    environments: list[str]
    commands: list[list[str]]


@pytest.fixture
def launcher(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[..., int], Run]:
    """Return the function of `run.py`, in an empty clone, with nothing that would take long."""
    names: dict[str, Any] = {"__name__": "launcher", "__file__": str(tmp_path / "run.py")}
    exec((REPOSITORY / "run.py").read_text(encoding="utf-8"), names)
    done = Run([], [])

    def create(environment: Any, **options: Any) -> None:
        done.environments.append(str(environment))
        programs = environment / "bin"
        programs.mkdir(parents=True)
        (programs / "python").touch()

    def run(command: list[Any], **options: Any) -> int:
        done.commands.append([str(part) for part in command])
        if "pip" in command:
            (tmp_path / ".venv" / names["VERSION"] / "bin/nox").touch()
        return 0

    monkeypatch.setattr(names["venv"], "create", create)
    monkeypatch.setattr(names["subprocess"], "run", run)
    monkeypatch.setattr(names["subprocess"], "call", run)
    return names["main"], done


def sessions() -> dict[str, str]:
    """Return the source of each session."""
    text = (REPOSITORY / "noxfile.py").read_text(encoding="utf-8")
    parts = re.split(r"^@nox\.session.*\ndef (\w+)", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_two_commands(
    launcher: tuple[Callable[..., int], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands need no environment; they make one, with what it takes, and only once.

    "To see it at work first, without installing anything by hand, run these two commands in the
    clone. They make their own environments, for which they need the network once."

    "The first one starts a server that answers three requests; the second one runs the tests, with
    every example of the documentation"

    "The tests execute every example in the documentation, the ones on this page included."
    """
    main, done = launcher
    commands = re.findall(r"^\$ python3 run\.py (\w+)$", README, re.MULTILINE)
    assert commands == ["demo", "tests"]
    for command in commands:
        assert main([command]) == 0
    assert len(done.environments) == 1
    pip, *nox = done.commands
    assert "pip" in pip
    assert nox[0][-3:-1] == ["-s", "demo"]
    assert nox[1][-2].startswith("tests-3.")
    demo, tests = sessions()["demo"], sessions()["tests"]
    assert "install(session" in demo
    assert "install(session" in tests
    [program] = re.findall(r'"python", f"\{EXAMPLES\}/(\w+\.py)"', demo)
    source = (DOCS / "_include/examples/howto/tcp_servers" / program).read_text(encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
    names: dict[str, Any] = {"__name__": "demo"}
    exec(source.replace("9000", port).replace("localhost", "127.0.0.1"), names)
    asyncio.run(names["main"]())
    printed = capsys.readouterr().out
    assert "Server loop running" in printed
    assert printed.count("From server: ") == 3
    collected = (REPOSITORY / "conftest.py").read_text(encoding="utf-8")
    assert 'pattern="README.md"' in collected
    assert 'path="docs", pattern="*.rst"' in collected


def test_site() -> None:
    """The session builds it where the README says.

    "python3 run.py docs builds the site into docs/_build/html; open index.html there."

    "Its source files are in docs"
    """
    [line] = [line for line in sessions()["docs"].splitlines() if '"sphinx-build"' in line]
    assert '"docs/_build/html"' in line
    assert (DOCS / "conf.py").exists()
    assert 'SPHINX = ("-n", "-W", "--keep-going", "-q", "docs")' in (
        REPOSITORY / "noxfile.py"
    ).read_text(encoding="utf-8")


# The programs


def test_protocol_of_the_client() -> None:
    """The client's protocol object is the server's.

    "A client in Python uses the same protocol object."

    "This is the blocking client; AsyncTCPNetworkClient is its asynchronous counterpart."
    """
    for program in "greeter.py", "ask.py", "background.py":
        assert set(re.findall(r"StreamProtocol\(.+?\)\)", PROGRAMS[program])) == {
            "StreamProtocol(JSONSerializer())"
        }
    assert "with TCPNetworkClient(" in PROGRAMS["ask.py"]
    for name in "send_packet", "recv_packet":
        assert inspect.iscoroutinefunction(getattr(AsyncTCPNetworkClient, name))
        assert not inspect.iscoroutinefunction(getattr(TCPNetworkClient, name))


def test_socketserver() -> None:
    """The classes are those of the standard library, with packets.

    "If your program is written with the standard library's socketserver, easynetwork.socketserver
    adds packets to it."
    """
    requests = []

    class Handler(easynetwork.socketserver.StreamPacketHandler[Any, Any]):
        def handle(self) -> None:
            for packet in self.packets():
                requests.append(packet)
                self.send_packet(packet)

    server_class = easynetwork.socketserver.TCPServer
    assert issubclass(server_class, socketserver.TCPServer)
    with server_class(("127.0.0.1", 0), Handler, protocol=JSON) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with TCPNetworkClient(server.socket.getsockname(), JSON) as client:
            client.send_packet([1, 2])
            assert client.recv_packet(timeout=PATIENCE) == [1, 2]
        thread.join()
    assert requests == [[1, 2]]


# What you get


def test_errors_where_the_handler_waits() -> None:
    """They are raised at the yield, and so is the end; a call that waits has an error for it.

    "Request handlers that read like a conversation: request = yield, send a response, yield again."

    "Timeouts, parse errors and disconnections are raised where the handler waits."
    """
    outcomes: list[Any] = []

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[float, str]:
            while True:
                try:
                    request = yield 10
                except (TimeoutError, StreamProtocolParseError, GeneratorExit) as exc:
                    outcomes.append(type(exc))
                    if isinstance(exc, GeneratorExit):
                        raise
                else:
                    outcomes.append(request)
                    await client.send_packet(f"you said {request}")
                    if request == "bye":
                        with pytest.raises(EndOfStreamError):
                            await client.recv_packet()
                        outcomes.append(EndOfStreamError)

    async def main() -> None:
        async with serve(Handler(), LINES) as served:
            for last in b"hello\n", b"bye\n":
                client = await served.connect(raw=True)
                await client.send(b"\xff\n" + last)
                assert (await client.receive()).startswith(b"you said")
                if last == b"hello\n":
                    await anyio.sleep(11)
                client.close()
                await anyio.wait_all_tasks_blocked()

    play(main)
    first = [StreamProtocolParseError, "hello", TimeoutError, GeneratorExit]
    assert outcomes[: len(first)] == first
    assert outcomes[len(first) :][:3] == [StreamProtocolParseError, "bye", EndOfStreamError]


def test_bounded_memory_and_log(log: pytest.LogCaptureFixture) -> None:
    """The buffers of each such client have an end, and so has what they write into the log.

    "Servers that stay up: a client that sends garbage, stops reading, never finishes a line or
    reconnects a thousand times costs bounded memory and bounded log output."
    """
    log.set_level(logging.WARNING, "easynetwork")
    sent = 0

    async def flood(client: Any, data: bytes) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                await client.send(data)
                sent += len(data)

    async def main() -> None:
        nonlocal sent
        async with serve(Lines(), LINES) as served:
            for data in (b"no end" * 1000, b"ping\n" * 1000):  # never ends its line; never reads
                sent = 0
                client = await served.connect(raw=True)
                with anyio.move_on_after(10):
                    await flood(client, data)
                assert sent < 2_000_000
                client.reset()
            for _ in range(250):
                client = await served.connect(raw=True)
                await client.send(b"\xff\n")
                client.reset()
            await anyio.wait_all_tasks_blocked()
            assert served.server.get_statistics().clients == 0

    play(main)
    assert 1 <= len(complaints(log)) < 20


def test_blocking_clients_are_thread_safe() -> None:
    """Threads send through one client while another receives; no packet is torn or lost.

    "The blocking clients are thread-safe."
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        TCPNetworkClient(listener.getsockname(), JSON) as client,
        listener.accept()[0] as theirs,
    ):
        theirs.settimeout(PATIENCE)
        received: list[Any] = []
        packets = [[number, "x" * 1000] for number in range(40)]

        def send(part: list[Any]) -> None:
            for packet in part:
                client.send_packet(packet)

        def receive() -> None:
            received.extend(client.recv_packet(timeout=PATIENCE) for _ in packets)

        threads = [threading.Thread(target=receive)]
        threads += [threading.Thread(target=send, args=(packets[i::4],)) for i in range(4)]
        for thread in threads:
            thread.start()
        lines = theirs.makefile("rb")
        for _ in packets:
            theirs.sendall(lines.readline())
        for thread in threads:
            thread.join()
        lines.close()
    assert sorted(received) == packets


class Numbers(AbstractPacketSerializer[int, int]):
    """A format of one's own, for datagrams."""

    __slots__ = ()

    def serialize(self, packet: int, /) -> bytes:
        return str(packet).encode()

    def deserialize(self, data: bytes, /) -> int:
        try:
            return int(data)
        except ValueError as exc:
            raise DeserializeError(str(exc)) from exc


class Prefixed(LengthPrefixedPacketSerializer[int, int]):
    """The same, for streams."""

    __slots__ = ()

    def serialize(self, packet: int, /) -> bytes:
        return Numbers().serialize(packet)

    def deserialize(self, data: bytes, /) -> int:
        return Numbers().deserialize(data)


class Point(NamedTuple):
    x: int
    y: int


class Points(AbstractPacketConverterComposite[Point, Point, Any, Any]):
    """Makes points of lists."""

    def create_from_dto_packet(self, packet: Any) -> Point:
        return Point(*packet)

    def convert_to_dto_packet(self, obj: Point) -> Any:
        return list(obj)


def test_serializers() -> None:
    """Each of them makes bytes and packets, and so do those of one's own.

    "Serializers for JSON, lines of text, structs, MessagePack, CBOR and more, base classes for your
    own formats, and converters from plain data to your own classes."
    """
    document = {"a": [1, 2.5, None]}
    pairs: list[tuple[Any, Any]] = [
        (JSONSerializer(), document),
        (StringLineSerializer(), "a line"),
        (StructSerializer("!IH"), (1, 2)),
        (MessagePackSerializer(), document),
        (CBORSerializer(), document),
        (NetstringSerializer(), b"and more"),
        (Numbers(), 42),
        (Prefixed("u16"), 42),
    ]
    for serializer, packet in pairs:
        check_serializer(serializer, [packet])
    protocol: Any = DatagramProtocol(JSONSerializer(), Points())
    assert protocol.make_datagram(Point(1, 2)) == b"[1,2]"
    assert protocol.build_packet_from_datagram(b"[1,2]") == Point(1, 2)


def test_tests_without_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout, half a packet and a lost datagram, without a socket and without waiting.

    "Tests without sockets, without waiting: half a packet, a lost datagram or a timeout of five
    minutes, in milliseconds."

    "Tests without sockets, without waiting: half a packet, a lost datagram, a timeout of five
    minutes."
    """

    class Patient(Lines):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[Any, str]:
            try:
                await client.send_packet((yield FIVE_MINUTES).upper())
            except TimeoutError:
                await client.send_packet("too late")

    def no_socket(*args: Any, **options: Any) -> None:
        raise AssertionError("there is a socket")

    async def main() -> None:
        monkeypatch.setattr(socket.socket, "__init__", no_socket)
        begin = time.perf_counter()
        async with serve(Patient(), LINES) as served:
            client = await served.connect(raw=True)
            assert await client.receive() == b"too late\n"
            await client.send(b"hal")
            await anyio.wait_all_tasks_blocked()
            await client.send(b"f\n")
            assert await client.receive() == b"HALF\n"
        datagrams: Any = DatagramProtocol(StringLineSerializer())
        async with serve(DatagramEcho(), datagrams) as other:
            loser = await other.connect(to_server=Faults(loss=1))
            await loser.send_packet("lost")
            with pytest.raises(TimeoutError), anyio.fail_after(FIVE_MINUTES):
                await loser.recv_packet()
        assert time.perf_counter() - begin < 5  # of ten minutes; on a slow machine
        monkeypatch.undo()

    play(main)


def test_dependencies() -> None:
    """There is one, and the marker of typed packages.

    "One dependency, anyio. Everything is typed."
    """
    assert [re.match(r"\w+", name)[0] for name in PROJECT["dependencies"]] == ["anyio"]  # type: ignore[index]
    assert (REPOSITORY / "src/easynetwork/py.typed").exists()


# Where to go from here


def test_links_of_the_readme() -> None:
    """Each link leads to a page that says what the link promises; no how-to page is missing.

    "The TCP tutorial and the UDP tutorial start from an empty folder, and build a server and its
    clients step by step."

    "The page on standalone servers covers trio and uvloop, blocking work in handlers, and sending
    to clients from other threads."

    "The page on socketserver covers both."

    "Tutorials: TCP, UDP. Start here."

    "Concepts, which class to use for what, security, compatibility, and the way from other
    libraries."

    "How-to pages: TCP servers, UDP servers, Unix servers,"

    "Real protocols, step by step: DNS, Redis, SMTP."

    "Changes, contributing, which describes how the source is organised."
    """
    links = set(re.findall(r"\]\(([\w/]+\.\w+)\)", README))
    assert all((REPOSITORY / link).is_file() for link in links)
    pages = [*DOCS.glob("howto/**/*.rst"), *DOCS.glob("tutorials/*.rst"), *DOCS.glob("*.rst")]
    pages += set(DOCS.glob("protocols/*.rst")) - {DOCS / "protocols/index.rst"}
    named = {str(page.relative_to(REPOSITORY)) for page in pages} - {"docs/index.rst"}
    assert named <= links
    for page in "tcp", "udp":
        text = words(f"tutorials/echo_client_server_{page}.rst")
        assert "create a folder for the programs and change to it" in text
        for step in "Step 1: ", "Step 3: Write the server", "Step 4: Write the client":
            assert step in text
    text = words("howto/advanced/standalone_servers.rst")
    for part in ("trio", "uvloop"):
        assert f"server_{part}.py" in text
    for part in ("Running blocking code in a handler", "Calling into the event loop"):
        assert part in text
    text = words("howto/socketserver.rst")
    assert "BlockingStreamRequestHandler" in text
    assert "easynetwork.socketserver" in text
    assert "where things are" in (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8").lower()


# The headings that a page must have for what the first page says of it.
HEADINGS = {
    "concepts": "The way of a packet, The life of a connection, When handle() runs again",
    "choosing": "Which transport?, Which server?, Which client?, Which serializer?",
    "coming_from": "The same program, four times, Coming from asyncio streams, Coming from Twisted",
    "compatibility": "Python, Platforms, Public names, Versions and deprecations",
    "howto/conversations": "Receiving packets in a helper",
    "howto/changing_protocol": "Receiving a file after a line of text",
    "howto/many_clients": "Sending to all clients, Dealing with slow clients, Publishing by topic",
    "howto/background_tasks": "Starting a task, Detecting dead connections, "
    "Answering several requests at once",
    "howto/stopping": "Running servers as a program, Restarting without refusing connections",
    "howto/limits": "What each limit does, What happens in an attack",
    "howto/watching": "Why a connection ended, Statistics of the server, "
    "Exporting metrics to Prometheus",
    "security": "What is bounded by default, What is up to you",
    "troubleshooting": "Reading the messages, In the log of a running server",
    "logging": "What a server logs, Loggers, Lines of JSON",
    "howto/advanced/standalone_servers": "Running the server in the background",
    "howto/socketserver": "Packets instead of bytes, Keeping blocking code",
    "howto/protocols": "Choosing a protocol class",
    "howto/serializers": "Choosing a serializer, Writing your own serializer",
    "howto/converters": "Converting a dataclass",
    "project/about": "How the pages are organised, How the examples are tested",
}

# What else must be in a page.
WORDS = {
    "concepts": ["diagrams/"],
    "coming_from": ["chat_server.py", "streams_server.py", "twisted_server.py"],
    "howto/background_tasks": ["heartbeat"],
    "howto/stopping": ["SIGTERM"],
    "howto/starttls": ["STARTTLS"],
    "howto/advanced/standalone_servers": ["async"],
    "howto/socketserver": ["BlockingStreamRequestHandler"],
    "howto/tcp_clients": ["TCPNetworkClient", "AsyncTCPNetworkClient"],
    "howto/udp_clients": ["UDPNetworkClient", "AsyncUDPNetworkClient"],
    "howto/unix_clients": ["UnixStreamClient", "AsyncUnixStreamClient"],
    "protocols/dns": ["$ dig"],
    "protocols/redis": ["redis-cli"],
    "protocols/smtp": ["swaks", "smtplib"],
    "project/changes": ["CHANGELOG.md"],
    "project/contributing": ["CONTRIBUTING.md"],
    "project/licence": ["LICENSE"],
}

# The tests of what the pages themselves show.
ELSEWHERE = """
tests/docs/test_coming_from.py: test_chat
tests/docs/test_howto_many_clients.py: test_skip, test_high_water
tests/docs/test_howto_limits.py: test_attacks
tests/docs/test_troubleshooting.py: test_all_messages
tests/docs/test_protocols_dns.py: test_transcript
tests/docs/test_protocols_smtp.py: test_smtplib
tests/servers/test_running.py: test_signal
tests/servers/test_adopted_sockets.py: test_restarts
"""


def headings(page: str) -> list[str]:
    text = (DOCS / f"{page}.rst").read_text(encoding="utf-8")
    found = re.findall(r"^(\S.*)\n([=*\-~^])\2{2,}$", text, re.MULTILINE)
    return [heading.replace("``", "") for heading, _ in found]


def test_promises_about_pages() -> None:
    """Each page has the sections, programs or names that the first page promises, and tests.

    "Start here: a server and a client, from scratch, in four steps. There is one for UDP, too."

    "How it works, with diagrams: what a packet passes, when your methods are called. Which class to
    use for what."

    "The same chat with asyncio, with Twisted and with us, and what is different. Versions,
    platforms, and which names are stable."

    "Going further with a connection: several packets that belong together, parts in another format,
    encryption from some point on."

    "Chats, feeds, publish and subscribe, without waiting for slow clients. Pushing packets,
    heartbeats, several answers at once."

    "Programs that stop at a signal without losing a request, and restarts that no client notices."

    "How many clients, how slow, how long, and what happens in an attack. Why connections end,
    statistics, metrics."

    "What is limited and what is up to you. Every message, what it means and what to do. What is in
    the log, and where to send it."

    "Servers for programs without async, and servers in the background."

    "howto/tcp_clients, howto/udp_clients, howto/unix_clients Writing clients, blocking and
    asynchronous."

    "Packets for programs that are written with socketserver, and handlers without async."

    "Choosing a format for packets, or writing one, and turning packets into objects of your own."

    "protocols/dns, protocols/redis, protocols/smtp Real protocols, built step by step into servers
    that dig, redis-cli and mail programs talk to."

    "How these pages are organised and tested. Also: changes, contributing and the licence."
    """
    for page in "tutorials/echo_client_server_tcp", "tutorials/echo_client_server_udp":
        steps = [heading for heading in headings(page) if heading.startswith("Step ")]
        assert [step[5] for step in steps] == list("1234")
    check_tests(ELSEWHERE)
    for page, wanted in HEADINGS.items():
        assert set(wanted.split(", ")) <= set(", ".join(headings(page)).split(", ")), page
    for page, parts in WORDS.items():
        text = (DOCS / f"{page}.rst").read_text(encoding="utf-8")
        assert [part for part in parts if part not in text] == [], page


def test_every_class_and_method() -> None:
    """The reference has all public names of these modules, with all of their members.

    "Every class and method: parameters, errors, guarantees."
    """
    reference = "".join(page.read_text("utf-8") for page in DOCS.glob("api/**/*.rst"))
    whole = set(re.findall(r"automodule:: (\S+)\n   :members:\n", reference))
    for module in "clients", "servers", "serializers", "socketserver", "testing":
        package = importlib.import_module(f"easynetwork.{module}")
        assert package.__all__
        for name in package.__all__:
            home = getattr(package, name).__module__
            # What comes from the standard library is documented there; combinations are listed.
            if home in whole or not home.startswith("easynetwork"):
                continue
            listed = name.replace("Forking", "Threading")
            assert re.search(rf"auto\w+:: \S*\b{name}\b|``{listed}``", reference), name


def test_terms_of_the_glossary() -> None:
    """Other pages use each of them.

    "The terms that the other pages use."
    """
    glossary = (DOCS / "glossary.rst").read_text(encoding="utf-8")
    terms = set(re.findall(r"^   (\w[\w -]+)$", glossary, re.MULTILINE))
    pages = [page for page in DOCS.rglob("*.rst") if page.name != "glossary.rst"]
    text = " ".join(page.read_text(encoding="utf-8") for page in pages)
    assert len(terms) > 10
    assert [term for term in terms if not re.search(rf"\b{term}s?\b", text)] == []
