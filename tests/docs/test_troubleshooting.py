"""The page with all messages: each one of the source is there, and no other; and its answers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import html
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from easynetwork.clients import AsyncTCPNetworkClient
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.exceptions import EndOfStreamError
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, CloseReason
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from easynetwork.testing import serve, virtual_time
from tests.docs.howto_support import (
    DOCS,
    Watched,
    check_quotations,
    connected,
    in_thread,
    serving,
    turned_away,
    until,
)
from tests.docs.messages import Message, messages_of_source
from tests.times import MS, PATIENCE

pytestmark = pytest.mark.anyio

PAGE = "troubleshooting.rst"
LINES: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(encoding="utf-8"))

# -- what is not on the page, and why

# Readers of the page about testing meet them, in the report of a test that has failed.
OF_TESTS = "testing/"

# Wrong arguments: raised where they are passed, with a text that says what is right.
ABOUT_ARGUMENTS = re.compile(
    r"Expected |is final|should be|is only meaningful|Invalid |Empty separator|With any_newline"
    r"|(has neither|is only for|is not for)\b|must (not )?be(?! an? (asynchronous|coroutine|plain))"
)

# Nobody sees them: they are caught, and another message has their text or takes their place.
CAUGHT = {
    "EOFError: Missing data": "the packet is not complete yet",
    "LockTimeoutError: The operation timed out": "TimeoutError or another one takes its place",
    "JSONDecodeError: Extra data": "follows `JSON decode error:`",
    "ValueError: An item begins with ...": "follows `Deserialize error:`",
    "ValueError: Invalid token": "follows `Deserialize error:`",
    "ValueError: The packet is nested too deeply": "follows `Deserialize error:`",
    "ValueError: Unexpected break: no container of unknown length is open": "the same",
}

# Those of Python itself, or for readers of the reference who call what hardly anybody calls.
OTHERS = {
    "AttributeError: module ... has no attribute ...": "Python says so of every module",
    "ValueError: A packet of known size does not end with a separator": "as ABOUT_ARGUMENTS",
}

# -- what is on the page, and not in the source: texts that the system completes

BIND = "error while attempting to bind on address ...: ..."
CONNECT = "cannot connect to ..., port ...: ..."
CALL = "Connect call failed ...: ..."
COMPLETED = (
    (BIND, errno.EADDRINUSE),
    (BIND, errno.EADDRNOTAVAIL),
    (BIND, errno.EACCES),
    (BIND, errno.ENOENT),
    (CONNECT, errno.ECONNREFUSED),
    (CONNECT, errno.ETIMEDOUT),
    (CONNECT, errno.EHOSTUNREACH),
    (CONNECT, errno.ENETUNREACH),
    (CALL, errno.ECONNREFUSED),
    (CALL, errno.ETIMEDOUT),
    (CALL, errno.ENOENT),
    (CALL, errno.EACCES),
)
TOO_LONG = "OSError: ... (at most ... bytes)"
ABORT = os.strerror(errno.ECONNABORTED)
OF_SYSTEM = (
    f"EndOfStreamError: {ABORT} (end-of-stream)",
    f"ConnectionAbortedError: {ABORT}",
    "SSLCertVerificationError: certificate verify failed: ...",
    TOO_LONG.replace("...", "AF_UNIX path too long", 1),
    *(
        f"{type(OSError(number, '')).__name__}: {text.removesuffix('...')}{os.strerror(number)}"
        for text, number in COMPLETED
    ),
)


def messages_of_page() -> list[str]:
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    blocks = re.findall(r"^\.\. message::\n((?:   \S.*\n)+)", text, re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines()]


@functools.cache
def all_messages() -> list[Message]:
    """Return the messages of the source; it takes a second to find them."""
    return [*messages_of_source()]


def is_about_arguments(message: Message) -> bool:
    is_kind = message.kind in ("TypeError", "ValueError")
    return is_kind and bool(ABOUT_ARGUMENTS.search(message.text))


def messages_for_readers() -> dict[str, str]:
    """Return the messages that the page must have, with their files."""
    return {
        str(message): message.file
        for message in all_messages()
        if not message.file.startswith(OF_TESTS)
        and not is_about_arguments(message)
        and str(message) not in CAUGHT
        and str(message) not in (*OTHERS, TOO_LONG)
    }


def test_all_messages(capsys: pytest.CaptureFixture[str]) -> None:
    """The page has what the source logs and raises, with its level or class.

    "This page has the messages that servers and clients log, and the texts of the exceptions that
    they raise"

    "A message begins with its level, if it is logged, or with the class of an exception. Three dots
    stand for what differs. Errors of the operating system begin with a number, for example
    [Errno 98], which depends on the operating system and is left out here."
    """
    assert str(OSError(98, "text")) == "[Errno 98] text"
    assert "[Errno" not in "".join(messages_of_page())
    expected, found = messages_for_readers(), messages_of_page()
    levels = sum(message.split(":")[0].isupper() for message in found)
    with capsys.disabled():
        print(f"\n{PAGE}: {levels} lines of the log, {len(found) - levels} exceptions")
    missing = [f"{message} ({file})" for message, file in expected.items() if message not in found]
    assert missing == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other texts for errors")
def test_no_other_messages() -> None:
    """Nothing is on the page that is no longer in the source, or twice.

    "This page has the messages"
    """
    found = messages_of_page()
    expected = [*messages_for_readers(), *OF_SYSTEM]
    assert [message for message in found if message not in expected] == []
    assert len(found) == len(set(found))


def test_exceptions_to_the_rule() -> None:
    """What is left out for a reason is in the source.

    "This page has the messages"
    """
    messages = all_messages()
    texts = {str(message) for message in messages}
    assert {*CAUGHT, *OTHERS, TOO_LONG} <= texts
    assert {f"OSError: {text}" for text, _ in COMPLETED} <= texts
    assert any(message.file.startswith(OF_TESTS) for message in messages)
    assert any(map(is_about_arguments, messages))


# Those of Sphinx itself; the tests need no others.
EXTENSIONS = ("autodoc", "intersphinx", "napoleon", "viewcode")


def test_search(tmp_path: Path) -> None:
    """The search of the site has each message, with an address of its own.

    "search this page or the site for a few of its words"
    """
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(DOCS / PAGE, source)
    for folder in "_inventories", "_static":
        shutil.copytree(DOCS / folder, source / folder)
    with patch_docutils(), docutils_namespace():
        app = Sphinx(
            source,
            DOCS,
            tmp_path / "html",
            tmp_path / "doctrees",
            "html",
            {
                "root_doc": "troubleshooting",
                "extensions": [f"sphinx.ext.{name}" for name in EXTENSIONS],
                "html_theme": "basic",
                "nitpicky": False,
            },
            status=None,
            warning=None,
        )
        app.build()
    text = (tmp_path / "html/searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    names = {
        html.unescape(f"{prefix}.{name}" if prefix else name)
        for prefix, objects in index["objects"].items()
        for _, _, priority, _, name in objects
        if priority == 0
    }
    messages = [name_of(message) for message in messages_of_page()]
    assert [message for message in messages if message not in names] == []
    page = (tmp_path / "html/troubleshooting.html").read_text(encoding="utf-8")
    assert page.count('id="message-') == len(messages_of_page())


def name_of(message: str) -> str:
    """Return the name of a message in the index, which conf.py makes."""
    return message.replace("...", "…").replace(". ", "; ").rstrip(".")


# -- the questions


async def test_handler_runs_again(log: pytest.LogCaptureFixture) -> None:
    """The handler is called for each request.

    "handle() is called for each request, not for each client. When it returns, the server calls it
    again"

    "So local variables begin anew each time."

    "If the server disconnects each client at once, handle() returned before its first yield. The
    log says disconnected (refused: handle() returned before its first yield)."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        refuses = False

        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            if self.refuses:
                return
            count = 0
            request = yield
            count += 1
            await client.send_packet(f"{request} {count}")

    handler = Handler()
    async with serving(handler) as server:
        async with connected(server) as peer:
            assert await peer.ask("one") == "one 1"
            assert await peer.ask("two") == "two 1"
        handler.refuses = True
        assert await turned_away(server) == "connection reset"
        refused = "disconnected (refused: handle() returned before its first yield)"
        await until(lambda: refused in log.text)


async def test_newline(log: pytest.LogCaptureFixture) -> None:
    """Without a newline, a line is not complete.

    "without one the server waits for the rest of the line"

    "When such a client leaves, its last line in the log ends with 5 bytes of an incomplete packet
    were dropped."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        received: tuple[str, ...] = ()

        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            self.received += ((yield),)

    log.set_level(logging.DEBUG)
    handler = Handler()
    async with serving(handler) as server:
        async with connected(server) as peer:
            await peer.send_bytes(b"hello")
        await until(lambda: "; 5 bytes of an incomplete packet were dropped)" in log.text)
    assert handler.received == ()


async def test_address_in_use() -> None:
    """A port is in use while a server listens, and not longer.

    "Another socket listens at this port."

    "A server that has ended does not keep the port: you can start it again at once."
    """
    handler = Echo()
    async with serving(handler) as server:
        port = server.get_addresses()[0].port
        async with AsyncTCPNetworkServer("127.0.0.1", 0, LINES, handler) as other:
            assert other.get_addresses()[0].port != port
        with pytest.raises(OSError, match="error while attempting to bind on address") as caught:
            await AsyncTCPNetworkServer("127.0.0.1", port, LINES, handler).server_activate()
        assert caught.value.errno == errno.EADDRINUSE
        async with connected(server) as peer:
            assert await peer.ask("hello") == "hello"
            await server.shutdown()  # so that the connections of the server are in TIME_WAIT
            assert await peer.ending() == "end of the stream"
    async with serving(handler, port=port) as server, connected(server) as peer:
        assert await peer.ask("hello") == "hello"


class Echo(Watched, AsyncStreamRequestHandler[str, str]):
    """Echoes lines; notes what is raised at the yield. "abort" and "close" end the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.raised: list[type[BaseException]] = []

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        try:
            request = yield
        except BaseException as exc:
            self.raised.append(type(exc))
            raise
        if request == "abort":
            client.abort()
        elif request == "close":
            await client.aclose()
        else:
            await client.send_packet(request)


@pytest.mark.parametrize(
    ("leave", "reason"),
    [
        ("end", CloseReason.PEER_CLOSED),
        ("reset", CloseReason.PEER_RESET),
        ("unread", CloseReason.PEER_RESET),
    ],
)
async def test_reset_in_a_handler(leave: str, reason: CloseReason) -> None:
    """A handler sees GeneratorExit, however the client leaves.

    "In a handler, both close the generator: GeneratorExit is raised at the yield, never
    a ConnectionError. client.close_reason and the log tell them apart: the client has left, the
    connection broke"

    "A program that exits, or is killed, ends its connections cleanly if it has read all that it has
    received. If something is unread, the operating system sends a reset."
    """
    handler = Echo()
    async with serving(handler) as server, connected(server) as peer:
        assert await peer.ask("hello") == "hello"
        if leave == "unread":
            await peer.send("hello")
            await in_thread(lambda: peer.socket.recv(1, socket.MSG_PEEK))
        if leave == "reset":
            peer.reset()
        else:
            peer.close()
        await handler.gone.wait()
        assert handler.raised == [GeneratorExit]
        assert handler.clients[0].close_reason is reason


@pytest.mark.parametrize(
    ("request_", "expected", "text"),
    [
        ("close", EndOfStreamError, f"{ABORT} (end-of-stream)"),
        ("abort", ConnectionAbortedError, ABORT),
    ],
)
async def test_reset_in_a_client(request_: str, expected: type[ConnectionError], text: str) -> None:
    """A client sees two errors, and both are of one class.

    "A client gets EndOfStreamError at the end of the stream. It is a subclass of
    ConnectionAbortedError, which it gets after a reset. To catch both, catch ConnectionError."
    """
    async with serving(Echo()) as server:
        address = server.get_addresses()[0][:2]
        async with AsyncTCPNetworkClient[str, str](address, LINES) as client:
            await client.send_packet(request_)
            with pytest.raises(ConnectionAbortedError) as caught:
                await client.recv_packet()
    assert type(caught.value) is expected
    assert str(caught.value) == f"[Errno {errno.ECONNABORTED}] {text}"
    assert issubclass(EndOfStreamError, ConnectionAbortedError)
    assert issubclass(expected, ConnectionError)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no address ::1")
async def test_two_loopback_addresses() -> None:
    """A server serves the addresses at which it listens.

    "The server listens at another address than the one to which the client connects."

    "127.0.0.1 and ::1 are two addresses: a server at 127.0.0.1 does not serve clients that connect
    to ::1"

    "as the host."

    "None stands for all interfaces, IPv4 and IPv6."
    """

    async def ask(host: str, port: int) -> str:
        async with AsyncTCPNetworkClient[str, str]((host, port), LINES) as client:
            await client.send_packet("hello")
            return await client.recv_packet()

    async with serving(Echo()) as server:
        port = server.get_addresses()[0].port
        assert await ask("127.0.0.1", port) == "hello"
        with pytest.raises(ConnectionRefusedError, match="cannot connect to '::1', port"):
            await ask("::1", port)
    for host in ["127.0.0.1", "::1"], None:
        async with serving(Echo(), host=host) as server:  # type: ignore[arg-type]
            port = server.get_addresses()[0].port
            assert await ask("127.0.0.1", port) == "hello"
            assert await ask("::1", port) == "hello"


def test_stuck_handler(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that goes on does not keep the server from stopping.

    "A handler works on after it was cancelled. shutdown() returns one second later, and the log
    names the handler: Still running 1.0 seconds after being cancelled."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            yield
            entered.set()
            with anyio.CancelScope(shield=True):
                await released.wait()

    async def main() -> None:
        async with serve(Handler(), LINES) as served:
            connection = await served.connect(raw=True)
            await connection.send(b"hello\n")
            await entered.wait()
            start = anyio.current_time()
            await served.server.shutdown()
            assert anyio.current_time() - start == pytest.approx(1, abs=0.01)
            released.set()

    entered, released = asyncio.Event(), asyncio.Event()
    anyio.run(main, backend_options=virtual_time())
    assert "Still running 1.0 seconds after being cancelled" in caplog.text
    assert "client ('198.51.100.1'" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_faulthandler(tmp_path: Path) -> None:
    """What runs is shown.

    "start the program with python -X faulthandler, and send it SIGABRT: each thread's traceback is
    printed, and the process ends."
    """
    code = (
        "import resource, threading; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "def wait_here(): print('up', flush=True); threading.Event().wait()\n"
        "threading.Thread(target=wait_here).start()\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "up\n"
            program.send_signal(signal.SIGABRT)
            _, printed = program.communicate(timeout=PATIENCE)
        finally:
            program.kill()
    assert "wait_here" in printed
    assert printed.count("most recent call first") == 2
    assert program.returncode == -signal.SIGABRT


def test_blocked(caplog: pytest.LogCaptureFixture) -> None:
    """Debug mode tells of a handler that blocks.

    "With python -X dev, asyncio logs Executing <Task ...> took 0.512 seconds for such handlers."
    """

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            request = yield
            time.sleep(20 * MS)  # noqa: ASYNC251 - what the page warns of
            await client.send_packet(request)

    async def main() -> None:
        asyncio.get_running_loop().slow_callback_duration = 10 * MS
        async with serving(Handler()) as server, connected(server) as peer:
            assert await peer.ask("hello") == "hello"

    asyncio.run(main(), debug=True)
    found = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    assert any(re.match(r"Executing <Task .*> took \d+\.\d{3} seconds", line) for line in found)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")
async def test_unix_paths(unix_path: str) -> None:
    """The texts of errors about paths, and their classes.

    "The operating system limits the path of a Unix socket."

    "The folder of a Unix socket does not exist. The server does not create it."

    "The path of the Unix socket is wrong, or the server has not started."
    """
    with pytest.raises(OSError, match=r"AF_UNIX path too long \(at most \d+ bytes\)$"):
        await AsyncUnixStreamServer(unix_path + "x" * 200, LINES, Echo()).server_activate()
    with pytest.raises(FileNotFoundError, match="error while attempting to bind on address .*: No"):
        await AsyncUnixStreamServer(f"{unix_path}/x/y", LINES, Echo()).server_activate()
    async with contextlib.aclosing(AsyncUnixStreamClient[str, str](unix_path, LINES)) as client:
        with pytest.raises(FileNotFoundError, match="Connect call failed .*: No such file"):
            await client.wait_connected()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return the log, from level INFO on."""
    caplog.set_level(logging.INFO)
    return caplog


def test_quotations() -> None:
    """Whatever the tests quote is what the page says."""
    check_quotations(PAGE, globals())
