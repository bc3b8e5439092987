"""Test the statements and the examples of the page for those who come from another library.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. Here are the programs and the names; `test_coming_from_differences` has what is different when
a program runs.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_process
import anyio.to_thread
import pytest
from twisted.internet import asyncioreactor, defer, interfaces, protocol, task, threads
from twisted.internet.testing import StringTransport
from twisted.protocols import basic, policies

import easynetwork
from docs._include.examples.coming_from import clock_handler
from docs.emphasis import emphasized_lines
from easynetwork import backends, serializers, servers, testing
from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.testing import serve, virtual_time
from tests.docs.howto_support import DOCS, check_quotations, table, words
from tests.docs.sybil_parsers import read_options
from tests.times import MS, PATIENCE

PAGE = "coming_from.rst"
TEXT = (DOCS / PAGE).read_text(encoding="utf-8")
FOLDER = DOCS / "_include/examples/coming_from"
LIBRARIES = ("chat", "streams", "protocol", "twisted")
each_server = pytest.mark.parametrize("library", LIBRARIES)


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


# The same program, four times


def command(module: str, **values: Any) -> list[str]:
    """Return the command that runs an example with other values of its constants."""
    changes = "".join(f"m.{name} = {value!r}; " for name, value in values.items())
    assert all(hasattr_in_source(module, name) for name in values)
    return [sys.executable, "-c", f"import {module} as m; {changes}m.main()"]


def hasattr_in_source(module: str, name: str) -> bool:
    """Whether a program has a constant of that name: a wrong one would be ignored."""
    source = (FOLDER / f"{module}.py").read_text(encoding="utf-8")
    return re.search(rf"^{name} = ", source, re.MULTILINE) is not None


def free_address() -> tuple[str, int]:
    """Return an address that no program uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        return host, port


def connect(address: tuple[str, int], program: subprocess.Popen[str]) -> socket.socket:
    """Connect to a program as soon as it listens."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(address, PATIENCE)
        assert program.poll() is None
        time.sleep(5 * MS)  # leave the processor to the program


@contextlib.contextmanager
def running(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block ends, then press Control-C; it has to end in order."""
    with subprocess.Popen(
        arguments,
        cwd=FOLDER,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as program:
        try:
            yield program
            program.send_signal(signal.SIGINT)
            printed = program.communicate(timeout=PATIENCE)[0]
            assert program.returncode == 0, printed
            # In Python 3.11, asyncio logs a traceback for each callback of streams that it cancels.
            assert "Traceback" not in printed or "streams_server" in arguments[-1]
        finally:
            program.kill()


@contextlib.contextmanager
def chatting(library: str, **values: Any) -> Iterator[Any]:
    """Run a server; the block gets a function that connects to it."""
    address = free_address()
    with running(command(f"{library}_server", ADDRESS=address, **values)) as program:
        with contextlib.ExitStack() as stack:

            def join() -> Member:
                return stack.enter_context(Member(connect(address, program)))

            join.address = address  # type: ignore[attr-defined]
            yield join


class Member:
    """A client of a chat, without any library."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.stream = sock.makefile("rb")
        self.greeting = self.receive()

    def __enter__(self) -> Member:
        return self

    def __exit__(self, *args: object) -> None:
        self.stream.close()
        self.socket.close()

    def receive(self) -> str:
        """Return the next line; "" at the end of the stream, however it ends."""
        try:
            return self.stream.readline().decode()
        except ConnectionResetError:
            return ""

    def say(self, line: str | bytes) -> str:
        """Send a line, and return the next one that comes back."""
        self.socket.sendall((line.encode() if isinstance(line, str) else line) + b"\n")
        return self.receive()


def join_empty_room(join: Any) -> Member:
    """Connect when all others have left, as far as the server has noticed."""
    member: Member
    while (member := join()).greeting != "1 in the room\n":
        member.__exit__()
    return member


@pytest.mark.in_turn
@each_server
def test_chat(library: str) -> None:
    """All four have one format on the wire, and do the same.

    "All four servers are the same chat"

    "The clients are four variants of another program. Each client works with each server."

    "To try one, start it, and then a client in another terminal"

    "The format on the wire does not change, so you can move servers and clients at different
    times."

    "A new client is told how many clients are in the room."

    "The server sends each line to all other clients, and tells the sender how many they are."

    "A client that sends a line of more than 1,024 bytes, or a line that is not UTF-8, is
    disconnected."

    "A client that does not read misses lines. It neither delays the others nor makes the server
    grow."
    """
    with chatting(library) as join:
        check_clients(join)
        check_room(join)
        for data in b"x" * 2048 + b"\n", b"x" * 2048, b"\xff\n":
            check_invalid_line(join, data)
        check_slow_client(join)


# Connects, and leaves when all others have: the end of the stream says that the server knows.
LEAVE_LAST = """
def leave_last(address):
    with socket.create_connection(address) as sock, sock.makefile("rb") as lines:
        lines.readline()
        sock.sendall(b"hello\\n")
        while lines.readline() != b"sent to 0\\n":
            sock.sendall(b"hello\\n")
        sock.shutdown(socket.SHUT_WR)
        lines.read()
"""


def check_clients(join: Any) -> None:
    """Check what the page's clients print. Twisted is the last: its `react()` ends the process."""
    shown = re.search(r"^   \$ python chat_client.py\n((?:   .*\n)+)", TEXT, re.MULTILINE)
    assert shown
    join().__exit__()  # the server is up
    *_, last = LIBRARIES
    assert last == "twisted"
    runs = [f"import socket\n{LEAVE_LAST}"]
    for library in LIBRARIES:
        runs.append(f"leave_last({join.address!r})")
        runs.append(command(f"{library}_client", ADDRESS=join.address)[-1])
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(runs)],
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == shown[1].replace("   ", "") * len(LIBRARIES)
    assert done.returncode == 0


def check_room(join: Any) -> None:
    ada, grace, joan = join_empty_room(join), join(), join()
    assert joan.greeting == "3 in the room\n"
    assert ada.say("hello") == "sent to 2\n"
    assert [grace.receive(), joan.receive()] == ["hello\n"] * 2
    joan.__exit__()
    while (answer := ada.say("hello")) == "sent to 2\n":
        pass
    assert answer == "sent to 1\n"
    for member in ada, grace:
        member.__exit__()


def check_invalid_line(join: Any, data: bytes) -> None:
    """One connection ends, and the other goes on. A line is too long before its end arrives."""
    ada, grace = join_empty_room(join), join()
    assert ada.say(b"x" * 1000) == "sent to 1\n"
    assert len(grace.receive()) == 1001
    ada.socket.sendall(data)
    assert ada.receive() == ""
    while (answer := grace.say("hello")) == "sent to 1\n":
        pass
    assert answer == "sent to 0\n"
    for member in ada, grace:
        member.__exit__()


def check_slow_client(join: Any) -> None:
    """The operating system takes a few MB before a member is slow."""
    line = "x" * 1000
    ada = join_empty_room(join)
    join()
    count = 0
    while (answer := ada.say(line)) == "sent to 1\n":
        count += 1
        assert count < 20_000
    assert count > 64
    assert answer == ada.say(line) == "sent to 0\n"


@each_server
def test_silent_client(library: str) -> None:
    """Five minutes are shorter here.

    "So is a client that sends nothing for five minutes."
    """
    source = (FOLDER / f"{library}_server.py").read_text(encoding="utf-8")
    assert "\nIDLE_TIME = 300.0\n" in source
    assert "\nLIMIT = 1024\n" in source
    with chatting(library, IDLE_TIME=200 * MS) as join:
        assert join().receive() == ""


def test_timeout_of_twisted() -> None:
    """A line that arrives in time makes the client wait for the whole time again.

    "With Twisted, resetTimeout() restarts the timeout that setTimeout() has set."
    """
    clock = task.Clock()
    ended = []

    class Client(policies.TimeoutMixin):
        def callLater(self, period: Any, func: Any) -> Any:  # noqa: N802
            return clock.callLater(period, func)

        def timeoutConnection(self) -> None:  # noqa: N802
            ended.append(clock.seconds())

    client = Client()
    client.setTimeout(300)
    clock.advance(200)
    client.resetTimeout()
    clock.pump([100] * 5)
    assert ended == [500]


def test_lines_of_code() -> None:
    """They are counted as the page says.

    "Blank lines and imports are not counted."
    """
    (counted,) = (row for row in table(PAGE, "Work", "easynetwork") if row[0] == "Lines of code")
    assert counted[1:] == [f"{lines_of_code(f'{library}_server')} lines" for library in LIBRARIES]


def lines_of_code(module: str) -> int:
    source = (FOLDER / f"{module}.py").read_text(encoding="utf-8")
    imports = {
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for number in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    lines = enumerate(source.splitlines(), 1)
    return sum(bool(line.strip()) and number not in imports for number, line in lines)


IN_WORDS = {"the serializer": "StringLineSerializer"}


def test_work() -> None:
    """What the table names is in the programs.

    "This table shows what does the same work in each server"
    """
    sources = [(FOLDER / f"{name}_server.py").read_text(encoding="utf-8") for name in LIBRARIES]
    for row in table(PAGE, "Work", "easynetwork")[:-1]:
        for cell, source in zip(row[1:], sources, strict=True):
            for name in cell.removesuffix(", twice").split(", "):
                if name != "nothing to write":
                    assert IN_WORDS.get(name, name) in source, name


def test_emphasis() -> None:
    """Emphasised lines are those that find lines, time out, wait and skip.

    "The same program, four times"
    """
    marks = {
        "chat": [
            "line = yield",
            'client.send_packet(f"sent',
            "broadcast(",
            "StringLineSerializer(",
        ],
        "streams": ["except", "timeout(", "readuntil", "drain", "get_write_buffer_size"],
        "protocol": ["call_later", "split", "if len", "is_slow", "pause_reading"],
        "twisted": ["registerProducer", "setTimeout", "resetTimeout", "except", "paused"],
    }
    for name, texts in marks.items():
        listings = re.findall(rf"{name}_server.py\n(?: +\S.*\n)+", TEXT)
        [texts_of_page] = (found["emphasize"] for found in map(read_options, listings) if found)
        lines = (FOLDER / f"{name}_server.py").read_text(encoding="utf-8").splitlines()
        emphasized = emphasized_lines(lines, texts_of_page)
        shown = "\n".join(lines[number - 1] for number in emphasized)
        assert [text for text in texts if text not in shown] == [], shown


# Moving step by step


@pytest.mark.parametrize("module", ["beside_asyncio", "beside_twisted"])
def test_both_in_one_loop(module: str, tmp_path: Path) -> None:
    """Two servers count the same words.

    "So you can move one port at a time, and both servers share their data"

    "Twisted can run on the event loop of asyncio. Call asyncioreactor.install() before anything
    imports the reactor"

    "loop.create_task() starts serve_forever() beside the reactor. addSystemEventTrigger() closes
    the new server before the reactor stops."
    """
    source = (FOLDER / f"{module}.py").read_text(encoding="utf-8")
    addresses = [free_address(), free_address()]
    for shown, address in zip(("9000", "9001"), addresses, strict=True):
        assert source.count(shown) == 1
        source = source.replace(shown, str(address[1]))
    if module == "beside_asyncio":  # it prints a traceback at Control-C, as programs do
        source = source.replace("asyncio.run(main())", SILENT)
    else:
        closed = "    assert not new.get_addresses()"
        source = source.replace("reactor.run()", f"reactor.run()\n{closed}")
    (tmp_path / "program.py").write_text(source, encoding="utf-8")
    with running([sys.executable, str(tmp_path / "program.py")]) as program:
        for word, address, answer in zip(
            ("old", "new", "new"), (*addresses, addresses[0]), (1, 2, 2), strict=True
        ):
            with connect(address, program) as sock, sock.makefile("rb") as stream:
                sock.sendall(f"{word}\n".encode())
                assert stream.readline() == f"{answer} words\n".encode()


SILENT = """
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
"""


# The names in the tables

TWISTED = (
    *(protocol.Factory, protocol.Protocol, protocol.DatagramProtocol, policies.TimeoutMixin),
    *(basic.LineReceiver, basic.Int32StringReceiver, basic.NetstringReceiver),
    *(defer.Deferred, task.LoopingCall, task.Clock, StringTransport),
)
THEIRS: dict[str, Any] = {
    "asyncio": asyncio,
    "loop": asyncio.AbstractEventLoop,
    **{name: getattr(asyncio, name) for name in ("StreamReader", "StreamWriter", "Server")},
    **{name: getattr(asyncio, name) for name in ("Protocol", "DatagramProtocol", "Transport")},
    **{name: getattr(asyncio, name) for name in ("BufferedProtocol", "DatagramTransport")},
}
THEIRS_IN_TWISTED: dict[str, Any] = {
    **{cls.__name__: cls for cls in TWISTED},
    # The class of real transports has startTLS() only if pyOpenSSL is installed.
    "transport": types.SimpleNamespace(
        **dict.fromkeys((*interfaces.ITLSTransport.names(all=True), *interfaces.IConsumer.names()))
    ),
    "reactor": asyncioreactor.AsyncioSelectorReactor,
}
OURS: dict[str, Any] = {
    "client": AsyncStreamClient,
    "server": servers.AsyncTCPNetworkServer,
    "backend": backends.AsyncBackend,
}


@pytest.mark.parametrize(
    ("heading", "theirs"),
    [
        ("asyncio streams", THEIRS),
        ("asyncio.Protocol", THEIRS),
        ("Twisted", THEIRS_IN_TWISTED),
    ],
)
def test_names(heading: str, theirs: dict[str, Any]) -> None:
    """What the tables name exists, on both sides.

    "you know which part of easynetwork replaces each part of the library that you use"
    """
    rows = table(PAGE, heading, "easynetwork")
    assert len(rows) > 10
    for left, right in rows:
        names = re.findall(r"\b(\w+)\.(\w+)", left)
        assert names or "(" in left or "object" in left or "limit" in left or "," in left, left
        for owner, name in names:
            assert hasattr(theirs[owner], name), f"{owner}.{name}"
        for owner, name in re.findall(r"\b(client|server|backend)\.(\w+)\(", right):
            assert hasattr(OURS[owner], name), f"{owner}.{name}"
        for name in re.findall(r"\b(on_\w+|service_init|handle)\(", right):
            assert hasattr(AsyncStreamRequestHandler, name), name
    for function in defer.inlineCallbacks, threads.deferToThread:
        assert function.__name__ in TEXT


def test_names_of_releases() -> None:
    """Names on the right can be imported, names on the left cannot.

    "The rest of easynetwork.lowlevel does not exist either."

    "The names of servers, clients, handlers, protocol objects, converters, exceptions and
    serializers are the same"
    """
    assert importlib.util.find_spec("easynetwork.lowlevel") is None
    assert importlib.util.find_spec("easynetwork.serializers.base_stream") is None
    assert importlib.util.find_spec("easynetwork.servers.misc") is None
    rows = table(PAGE, "Published releases", "Here")
    count = 0
    for _, right in rows:
        for name in re.findall(r"\b(?:easynetwork|anyio|asyncio|backend)(?:\.\w+)+", right):
            assert exists(name), name
            count += 1
    assert count >= 17
    portal = inspect.signature(backends.AsyncBackend.create_threads_portal).return_annotation
    assert portal == anyio.from_thread.BlockingPortal.__name__
    assert callable(anyio.from_thread.BlockingPortal.call)
    assert callable(anyio.from_thread.BlockingPortal.start_task_soon)
    for name in "cancelled_caught", "cancel_called", "deadline":
        assert isinstance(getattr(anyio.CancelScope, name), property)


def exists(name: str) -> bool:
    owner, *rest = name.split(".")
    value = OURS.get(owner) or importlib.import_module(owner)
    for part in rest:
        value = getattr(value, part, None) or importlib.import_module(f"{value.__name__}.{part}")
    return value is not None


def test_clock_handler(caplog: pytest.LogCaptureFixture) -> None:
    """The handler whose imports have changed works, and both tabs differ in what the page says.

    "Most programs only change their imports, here those of SocketAddress and RecvParams. The tables
    below explain the other two changes, start_soon() and cancelled_caught"
    """

    async def main() -> None:
        line_protocol: Any = StreamProtocol(StringLineSerializer())
        async with serve(clock_handler.ClockHandler(), line_protocol) as served:
            client: AsyncTCPNetworkClient[str, str] = await served.connect()
            await client.send_packet("2.5")
            assert (await client.recv_packet()).endswith(" asked after 2 seconds")
            await client.send_packet("10")
            assert await client.recv_packet() == "too late"

    anyio.run(main, backend_options=virtual_time())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    (before,) = re.findall(r"^      \.\. code-block:: python\n((?:         .*\n|\n)+)", TEXT, re.M)
    old = [line.strip() for line in before.splitlines() if line.strip()[:1] not in ("", ":")]
    source = (
        (FOLDER / "clock_handler.py").read_text(encoding="utf-8").partition("    # The work")[0]
    )
    new = [line.strip() for line in source.splitlines() if line.strip()]
    body = new.index("class ClockHandler(AsyncStreamRequestHandler[str, str]):")
    changed = [line for line in new[body:] if line not in old]
    assert changed == ["group.start_soon(self.count)", "if scope.cancelled_caught:"]


def test_counterparts() -> None:
    """What the page sends its readers to exists.

    "Callbacks. There is no method that is called for each chunk of bytes. The nearest is
    a RawSerializer, whose packets are the chunks."
    """
    methods = {name for name in dir(AsyncStreamRequestHandler) if not name.startswith("_")}
    assert methods == {"service_init", "on_connection", "handle", "on_disconnection"}
    assert callable(testing.converse)
    assert serializers.RawSerializer().serialize(b"chunk") == b"chunk"
    assert "StringTransport, Clock" in words(PAGE)


def test_no_counterparts() -> None:
    """The library has no module for other protocols, files or processes.

    "Protocols. There is no HTTP, SSH, IRC or AMP. easynetwork is for protocols of your own, and for
    those that you implement"

    "Files and subprocesses. Use asyncio or trio for them."
    """
    modules = [module.name for module in pkgutil.walk_packages(easynetwork.__path__)]
    assert "protocol" in modules
    assert not [name for name in modules if re.search("http|ssh|irc|amp|subprocess", name)]
    for function in "create_subprocess_exec", "create_subprocess_shell":
        assert hasattr(asyncio, function)
        assert not hasattr(backends.AsyncBackend, function)


def test_connection_strings() -> None:
    """A string in place of an address is not taken for one.

    "Connection strings such as tcp:9000:interface=localhost."

    "Pass arguments instead."
    """
    protocol: Any = StreamProtocol(StringLineSerializer())
    server: Any = servers.StandaloneTCPNetworkServer
    with pytest.raises(TypeError):
        server("tcp:9000:interface=localhost", protocol, clock_handler.ClockHandler())
