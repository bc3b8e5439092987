"""What the tests of the page about socketserver share: servers in a thread or a process, peers."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import subprocess
import sys
import threading
from ast import literal_eval
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from docs._include.examples.howto.socketserver import four_servers
from tests.docs.howto_support import DOCS
from tests.docs.socketserver_program import POLL_INTERVAL
from tests.docs.terminals import end, next_lines
from tests.times import PATIENCE, SOON

FOLDER = DOCS / "_include/examples/howto/socketserver"
EXAMPLES = "docs._include.examples.howto.socketserver"

STREAMS = ("TCPServer", "UnixStreamServer")
DATAGRAMS = ("UDPServer", "UnixDatagramServer")
KINDS = (*STREAMS, *DATAGRAMS)

LOCAL = ("127.0.0.1", 0)


def new_address(kind: str, folder: Path) -> Any:
    """Return an address to listen on, for a kind of servers."""
    return str(folder / "greeting.sock") if "Unix" in kind else ("127.0.0.1", 0)


@contextlib.contextmanager
def serving(server: Any) -> Iterator[Any]:
    """Serve in a thread while the block runs, then shut the server down and close it."""
    thread = threading.Thread(target=server.serve_forever, args=(POLL_INTERVAL,), daemon=True)
    with server:
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


# What the handlers do


class Keeping:
    """Comes before a handler class in the bases of a test's class; keeps the handler objects."""

    def setup(self) -> None:
        super().setup()  # type: ignore[misc]
        self.server.kept.append(self)  # type: ignore[attr-defined]


class KeepingStreams(Keeping, four_servers.GreetingStreamHandler):
    pass


class KeepingDatagrams(Keeping, four_servers.GreetingDatagramHandler):
    pass


def keeping(server: Any) -> Any:
    """Prepare a server for handlers that are kept."""
    server.kept = []
    return server


def noting(handler_class: Any, calls: list[str]) -> Any:
    """Return a subclass of a handler that notes which of its methods are called."""

    class Handler(handler_class):
        def setup(self) -> None:
            calls.append("setup")
            super().setup()

        def handle(self) -> None:
            calls.append("handle")
            super().handle()

        def finish(self) -> None:
            calls.append("finish")
            super().finish()

    return Handler


def entries(log: pytest.LogCaptureFixture) -> list[tuple[str, bool]]:
    """Return the level of each log entry, and whether it has a traceback."""
    assert {record.name for record in log.records} <= {"easynetwork.socketserver"}
    assert not any("\n" in record.getMessage() for record in log.records)
    return [(record.levelname, bool(record.exc_info)) for record in log.records]


# The peers


class Peer:
    """A client without our library: a blocking socket that is connected to a server."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.address = sock.getsockname()
        self._stream = sock.makefile("rb") if sock.type == socket.SOCK_STREAM else None

    def send(self, *texts: str) -> None:
        """Send lines of text in one piece, or a datagram for each text."""
        if self._stream is not None:
            self.socket.sendall("".join(f"{text}\n" for text in texts).encode())
        else:
            for text in texts:
                self.socket.send(text.encode())

    def receive(self) -> str:
        """Return the next line, without its end, or the next datagram."""
        if self._stream is not None:
            return self._stream.readline().decode().removesuffix("\n")
        return self.socket.recv(65536).decode()

    def ask(self, *texts: str) -> str:
        """Send texts and return the first response."""
        self.send(*texts)
        return self.receive()

    def hears(self) -> bool:
        """Whether something arrives soon."""
        return bool(select.select([self.socket], [], [], SOON)[0])

    def ending(self) -> str:
        """Return how the connection ends, when nothing more is expected to arrive."""
        assert self._stream is not None
        try:
            rest = self._stream.read()
        except ConnectionResetError:
            return "connection reset"
        return f"end of the stream after {rest!r}" if rest else "end of the stream"

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self.socket.close()

    def reset(self) -> None:
        """Leave rudely: the server gets a reset instead of the end of the stream."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()


@contextlib.contextmanager
def connected(address: Any, kind: str = "TCPServer", host: str = "127.0.0.1") -> Iterator[Peer]:
    """Connect a peer to a server of a kind, from an address of this machine.

    Closes it at the end of the block.
    """
    family = socket.AF_UNIX if "Unix" in kind else socket.AF_INET
    sock_type = socket.SOCK_STREAM if kind in STREAMS else socket.SOCK_DGRAM
    with socket.socket(family, sock_type) as sock:
        sock.settimeout(PATIENCE)
        if kind not in STREAMS and family == socket.AF_UNIX:
            sock.bind("")  # a name for the responses, which Linux chooses
        elif family == socket.AF_INET:
            sock.bind((host, 0))
        sock.connect(address)
        with contextlib.closing(Peer(sock)) as peer:
            yield peer


# The programs


@dataclass
class Program:
    """A program that serves: see `socketserver_program`."""

    process: subprocess.Popen[bytes]
    address: Any
    is_interrupted: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    def has_children(self) -> bool:
        """Whether the server has child processes, running or waiting to be collected."""
        self.process.send_signal(signal.SIGUSR1)
        return {"children": True, "no children": False}[self.line()]

    def line(self) -> str:
        """Return the next line that the program prints."""
        return next_lines(self.process, 1).removesuffix("\n")

    def interrupt(self) -> None:
        """Press Control-C, once: the program closes its server."""
        if not self.is_interrupted:
            self.is_interrupted = True
            self.process.send_signal(signal.SIGINT)

    def stop(self) -> str:
        """Have the program end; return what it had yet to print."""
        self.interrupt()
        return end(self.process)


@contextlib.contextmanager
def in_background(func: Callable[..., Any], *args: Any) -> Iterator[Future[Any]]:
    """Call a function in a thread while the block runs, and wait for it at the end."""
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(func, *args)


@contextlib.contextmanager
def running(server: str, handler: str, address: Any, **options: Any) -> Iterator[Program]:
    """Run a program that serves while the block runs, and check that it ends without a word.

    Args:
        server: The server's class, as `server_class()` wants it.
        handler: The handler's class, in the same way.
        address: The address to listen on.
        **options: More arguments of the server.
    """
    arguments = [server, handler, repr(address), repr(options)]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.docs.socketserver_program", *arguments],
        cwd=DOCS.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        try:
            line = next_lines(process, 1)
            assert line.startswith("serving at "), line + end(process)
            program = Program(process, literal_eval(line.removeprefix("serving at ")))
            yield program
            assert program.stop() == ""
            assert process.returncode == 0
        finally:
            process.kill()


def output_of(program: str, *options: str) -> str:
    """Run a program with options of the interpreter; return all that it prints."""
    return subprocess.run(
        [sys.executable, *(options or ["-W", "error"]), "-c", program],
        cwd=DOCS.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    ).stdout
