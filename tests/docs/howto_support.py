"""What the tests of how-to pages share: a page's words, a server for a handler, peers."""

from __future__ import annotations

import ast
import contextlib
import logging
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import pytest
import sniffio

from docs.values import with_values
from easynetwork._tuning import STOP_TIMEOUT
from easynetwork.converter import AbstractPacketConverterComposite
from easynetwork.exceptions import DatagramProtocolParseError, StreamProtocolParseError
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, AsyncUDPNetworkServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
)
from tests.times import PATIENCE
from tests.tools import until as until

DOCS = Path(__file__).resolve().parents[2] / "docs"

# Seconds. Nothing here takes a tenth of it, unless something hangs.

_T = TypeVar("_T")


# The page


def check_quotations(page: str, module: Mapping[str, Any]) -> None:
    """Check that what a module's tests quote is what a page says; each test quotes something.

    What a test quotes of a numbered list has the order of the list.
    """
    check_quotations_in([words(page)], module)
    lists = numbered_lists(page)
    for name, quotations in quotations_of(module):
        for items in lists:
            order = [n for quote in quotations for n, item in enumerate(items) if quote in item]
            assert order == sorted(order), name


def check_quotations_in(texts: Sequence[str], module: Mapping[str, Any]) -> None:
    """Check that what a module's tests quote is in one of several texts; each quotes something."""
    for name, quotations in quotations_of(module):
        assert quotations, name
        missing = [said for said in quotations if not any(said in text for text in texts)]
        assert missing == [], name


def quotations_of(module: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield the tests of a module, but the one that checks this, with what they quote."""
    for name, test in module.items():
        if name.startswith("test_") and name != "test_quotations":
            yield name, re.findall(r'"(.+?)"', " ".join(str(test.__doc__).split()))


def words(page: str) -> str:
    """Return a page of the site as its reader sees it: no roles, no markup, one long line.

    What several pages include is a part of each.
    """
    path = DOCS / page
    text = path.read_text(encoding="utf-8")
    for part in re.findall(r"^ *\.\. include:: (\S+\.rst)$", text, re.MULTILINE):
        text += (path.parent / part).read_text(encoding="utf-8")
    return plain(text)


def numbered_lists(page: str) -> list[list[str]]:
    """Return the items of each numbered list of a page, as a reader sees them."""
    text = (DOCS / page).read_text(encoding="utf-8")
    lists: list[list[str]] = []
    end = -1
    for item in re.finditer(r"^( *)#\. (.*\n(?:(?:\1   .*)?\n)*)", text, re.MULTILINE):
        if item.start() != end:
            lists.append([])
        lists[-1].append(plain(item[2]))
        end = item.end()
    return lists


def plain(text: str) -> str:
    """Return text without its markup, with the numbers that it takes from the code."""
    text = with_values(text)
    text = re.sub(r":([\w:+-]+):`([~!]?)\.?([^`<]+?)(?:\s+<[^`>]*>)?`", shown, text)
    text = re.sub(r"`([^`<]+?) <[^`>]*>`_", r"\1", text)
    return " ".join(re.sub(r"[`*]|^\s*(?:#\.|\*) ", "", text, flags=re.MULTILINE).split())


def table(page: str, *headings: str) -> list[list[str]]:
    """Return the rows of the ``list-table`` that begins with some headings, as a reader sees it."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for body in re.findall(r"^\.\. list-table::\n(?: .*\n)+\n((?: .*\n)+)", text, re.MULTILINE):
        rows = [
            [plain(cell) for cell in re.split(r"^     - ", row, flags=re.MULTILINE)]
            for row in re.split(r"^   \* - ", body, flags=re.MULTILINE)[1:]
        ]
        if tuple(rows[0][: len(headings)]) == headings:
            return rows[1:]
    raise LookupError(f"{page} has no table with {headings}")


def check_tests(names: str) -> str:
    """Check that the tests that a cell names exist; return their source."""
    file, sources = "", list[str]()
    for name in re.findall(r"tests/[\w/]+\.py|test_\w+", names):
        if name.endswith(".py"):
            file = (DOCS.parent / name).read_text(encoding="utf-8")
        else:
            test = rf"^(?:async )?def {name}\((?:.*\n)(?:[ )].*\n|\n)*"
            found = re.search(test, file, re.MULTILINE)
            assert found, name
            sources.append(found[0])
    assert sources
    return "\n".join(sources)


def shown(role: re.Match[str]) -> str:
    """Return what Sphinx shows of a role."""
    kind, tilde, text = role.groups()
    name = text.rpartition(".")[2] if tilde else text
    return f"{name}()" if kind in ("meth", "func") and not name.endswith(")") else name


# The server


class Lines(AbstractPacketConverterComposite[Any, Any, str, str]):
    """A request is a text. An answer is one too: its class's name, then its own text."""

    def __init__(self, request_class: Callable[[str], Any]) -> None:
        self.request_class = request_class

    def create_from_dto_packet(self, packet: str) -> Any:
        if packet == "trap":
            raise ZeroDivisionError("a bug in the converter")
        return self.request_class(packet)

    def convert_to_dto_packet(self, obj: Any) -> str:
        return f"{type(obj).__name__} {obj.text}".rstrip()


class Watched(AsyncStreamRequestHandler[Any, Any]):
    """Comes before a handler class in the bases of a test's class; notes when what is called."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.calls: list[str] = []
        self.clients: list[AsyncStreamClient[Any]] = []
        self.gone = anyio.Event()

    def on_connection(self, client: AsyncStreamClient[Any]) -> Any:
        self.calls.append("on_connection")
        self.clients.append(client)
        return super().on_connection(client)

    def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[Any, Any]:
        self.calls.append("handle")
        return super().handle(client)  # type: ignore[safe-super]  # that of the next base

    async def on_disconnection(self, client: AsyncStreamClient[Any]) -> None:
        self.calls.append("on_disconnection")
        try:
            await super().on_disconnection(client)
        finally:
            self.gone.set()


class WatchedDatagrams(AsyncDatagramRequestHandler[Any, Any]):
    """The same for datagrams; notes the client of each call."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.clients: list[AsyncDatagramClient[Any]] = []

    def handle(self, client: AsyncDatagramClient[Any]) -> AsyncGenerator[Any, Any]:
        self.clients.append(client)
        return super().handle(client)  # type: ignore[safe-super]  # that of the next base


class _Echoing:
    """Sends back what it receives, and remembers what is raised where it waits."""

    def __init__(self) -> None:
        self.errors: list[Any] = []

    async def handle(self, client: Any) -> AsyncGenerator[None, Any]:
        try:
            packet = yield
        except (StreamProtocolParseError, DatagramProtocolParseError, RuntimeError) as exc:
            self.errors.append(exc)
        else:
            await client.send_packet(packet)


class Echo(_Echoing, AsyncStreamRequestHandler[Any, Any]):
    """Does so over a stream."""


class DatagramEcho(_Echoing, AsyncDatagramRequestHandler[Any, Any]):
    """Does so over UDP."""


@contextlib.asynccontextmanager
async def serving(
    handler: AsyncStreamRequestHandler[Any, Any] | AsyncDatagramRequestHandler[Any, Any],
    protocol: Any = None,
    host: str = "127.0.0.1",
    port: int = 0,
    **options: Any,
) -> AsyncIterator[Any]:
    """Serve a handler while the block runs, then shut the server down. Port 0 is any free port.

    Over UDP if it is a handler of datagrams.
    """
    is_udp = isinstance(handler, AsyncDatagramRequestHandler)
    server_class: Any = AsyncUDPNetworkServer if is_udp else AsyncTCPNetworkServer
    if protocol is None:
        protocol_class: Any = DatagramProtocol if is_udp else StreamProtocol
        protocol = protocol_class(StringLineSerializer(encoding="utf-8"))
    with anyio.fail_after(PATIENCE):
        async with server_class(host, port, protocol, handler, **options) as server:
            async with anyio.create_task_group() as task_group:
                is_up = anyio.Event()
                task_group.start_soon(lambda: server.serve_forever(is_up_event=is_up))
                await is_up.wait()
                yield server
                await server.shutdown()


def shorten_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give clients less than the second that they have to end when the server stops."""
    assert STOP_TIMEOUT == 1
    for module in "servers._core.life_cycle", "servers._core.run", "backends.asyncio.tasks":
        monkeypatch.setattr(f"easynetwork.{module}.STOP_TIMEOUT", 0.1)


def complaints(log: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what the library logged as a warning or worse."""
    return [record for record in log.records if record.levelno >= logging.WARNING]


# Variants of an example


def of_framework(asyncio: type[Any], trio: type[Any]) -> type[Any]:
    """Return the variant of an example that belongs to the framework which runs the test."""
    return {"asyncio": asyncio, "trio": trio}[sniffio.current_async_library()]


def impatient(handler_class: type[Any]) -> Any:
    """Make an example's handler, but with hardly any time to wait."""
    return type("Impatient", (handler_class,), {"patience": 0.01})()


def reporting(handler_class: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """Make an example's handler that reports often, and notes what was printed when that ended."""

    class Handler(handler_class):
        report_interval = 0.001

        def __init__(self) -> None:
            self.cancelled: list[str] = []

        async def report(self, *args: Any) -> None:
            try:
                await super().report(*args)
            finally:
                self.cancelled.append(capsys.readouterr().out)

    return Handler()


async def check_reports(handler: Any, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that a service's task runs beside a client with one request, and ends first."""
    with anyio.fail_after(PATIENCE):
        printed = ""
        while "Requests so far: 1\n" * 2 not in printed:
            printed += capsys.readouterr().out
            await anyio.lowlevel.checkpoint()
    await server.shutdown()
    assert "Service stopped" not in printed + handler.cancelled[0]
    assert capsys.readouterr().out == "Service stopped\n"
    assert printed.startswith("Requests so far: 0\n")


# The peers


class Peer:
    """A client without our library: a blocking socket whose calls run in a worker thread."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.address = sock.getsockname()
        self._stream = sock.makefile("rb")

    async def send(self, *lines: str) -> None:
        """Send lines of text, in one piece."""
        await self.send_bytes("".join(f"{line}\n" for line in lines).encode())

    async def send_bytes(self, data: bytes) -> None:
        await in_thread(lambda: self.socket.sendall(data))

    async def receive(self) -> str:
        """Return the next line; "" at the end of the stream."""
        return (await in_thread(self._stream.readline)).decode().removesuffix("\n")

    async def receive_bytes(self, size: int) -> bytes:
        """Return this many bytes; fewer at the end of the stream."""
        return await in_thread(lambda: self._stream.read(size))

    async def ending(self) -> str:
        """Return how the connection ends, when nothing more is expected to arrive."""
        try:
            rest = await in_thread(self._stream.read)
        except ConnectionResetError:
            return "connection reset"
        return f"end of the stream after {rest!r}" if rest else "end of the stream"

    async def ask(self, *lines: str) -> str:
        """Send lines and return the next line of the answer."""
        await self.send(*lines)
        return await self.receive()

    def close(self) -> None:
        self._stream.close()
        self.socket.close()

    def reset(self) -> None:
        """Leave rudely: the other side gets a reset instead of the end of the stream."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()


async def in_thread(func: Callable[[], _T]) -> _T:
    return await anyio.to_thread.run_sync(func)


@contextlib.asynccontextmanager
async def connected(
    server: AsyncTCPNetworkServer[Any, Any], *, room: int | None = None
) -> AsyncIterator[Peer]:
    """Connect a peer to a server, and close it at the end of the block.

    Args:
        server: The server.
        room: How much memory the peer's socket gets for what it has received, in bytes. It has to
            know that before it connects: one that announced a larger window makes Linux wait.
    """
    address = server.get_addresses()[0]
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    try:
        sock.settimeout(PATIENCE)
        if room is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        await in_thread(lambda: sock.connect(address[:2]))
        peer = Peer(sock)
    except BaseException:
        sock.close()
        raise
    try:
        yield peer
    finally:
        peer.close()


async def turned_away(server: AsyncTCPNetworkServer[Any, Any]) -> str:
    """Return how a connection ends for a peer that says nothing and expects nothing."""
    try:
        async with connected(server) as peer:
            return await peer.ending()
    except ConnectionResetError:  # before it had connected, as far as it can tell
        return "connection reset"


class DatagramPeer:
    """A client without our library: a blocking socket whose answers are awaited in a thread."""

    def __init__(self, address: tuple[Any, ...]) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        self.address = self.socket.getsockname()

    def send(self, *texts: str) -> None:
        """Send a datagram for each text."""
        for text in texts:
            self.socket.send(text.encode())

    async def receive(self) -> str:
        """Return the next datagram."""
        return (await in_thread(lambda: self.socket.recv(65536))).decode()

    async def ask(self, *texts: str) -> str:
        """Send datagrams and return the next one that comes back."""
        self.send(*texts)
        return await self.receive()

    def close(self) -> None:
        self.socket.close()


@contextlib.contextmanager
def visiting(server: AsyncUDPNetworkServer[Any, Any]) -> Iterator[DatagramPeer]:
    """Make a peer that sends datagrams to a server, and close it at the end of the block."""
    peer = DatagramPeer(server.get_addresses()[0])
    try:
        yield peer
    finally:
        peer.close()


# The programs


def check_log_of_program(
    page: str, folder: Path, lines_before_the_end: int, visit: Callable[[], None]
) -> None:
    """Run async_server.py, visit it, press Control-C; check that it logs what a page shows."""
    program = subprocess.Popen(
        [sys.executable, "async_server.py"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with program:
        assert program.stderr is not None
        try:
            lines = [program.stderr.readline()]
            assert "Start serving" in lines[0], lines[0] + program.communicate()[1]
            visit()
            lines += [program.stderr.readline() for _ in range(lines_before_the_end - 1)]
            program.send_signal(signal.SIGINT)
            lines += program.communicate(timeout=PATIENCE)[1].splitlines(keepends=True)
        finally:
            program.kill()
    assert program.returncode == 0
    text = (DOCS / page).read_text(encoding="utf-8")
    shown = re.findall(r"^ +((?:INFO|WARNING):.*)$", text, re.MULTILINE)
    assert [without_addresses(line) for line in lines] == [
        without_addresses(line) for line in shown
    ]


def without_addresses(line: str) -> str:
    """Return a line of the log without the addresses, which differ from run to run."""
    return re.sub(r"\('[^)]*\)(, \('[^)]*\))*", "ADDRESS", line).strip()


def answers_of_program(folder: Path) -> list[Any]:
    """Run background_server.py; return the answers that it prints."""
    done = subprocess.run(
        [sys.executable, "background_server.py"],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=True,
    )
    assert done.stderr == ""
    answers = re.findall(r"^From server: (.*)$", done.stdout, re.MULTILINE)
    return [ast.literal_eval(answer) for answer in answers]
