"""What the tests of the pages about Unix sockets share: servers, peers, paths, programs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler
from tests.docs.howto_support import Peer
from tests.times import PATIENCE

STREAM: StreamProtocol[Any, Any] = StreamProtocol(StringLineSerializer(encoding="utf-8"))
DATAGRAM: DatagramProtocol[Any, Any] = DatagramProtocol(StringLineSerializer(encoding="utf-8"))

NOBODY = 65534
"""The number of a user without privileges."""


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where a program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user without privileges while the block runs, in all threads."""
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """Make a folder; those of pytest have paths that are too long (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="easynetwork-") as name:
        yield Path(name)


def new_server(path: Any, handler: Any, **options: Any) -> Any:
    """Return a server for a handler, of the kind that the handler needs."""
    if isinstance(handler, AsyncDatagramRequestHandler):
        return AsyncUnixDatagramServer(path, DATAGRAM, handler, **options)
    return AsyncUnixStreamServer(path, STREAM, handler, **options)


@contextlib.asynccontextmanager
async def serving(server: Any) -> AsyncIterator[Any]:
    """Serve while the block runs, then shut the server down."""
    with anyio.fail_after(PATIENCE):
        async with server, anyio.create_task_group() as task_group:
            is_up = anyio.Event()
            task_group.start_soon(lambda: server.serve_forever(is_up_event=is_up))
            await is_up.wait()
            yield server
            await server.shutdown()


@contextlib.contextmanager
def connected(path: Any) -> Iterator[Peer]:
    """Connect a peer to a stream server; close it at the end of the block."""
    sock = socket.socket(socket.AF_UNIX)
    with sock:
        sock.settimeout(PATIENCE)
        sock.connect(os.fspath(path))
        peer = Peer(sock)
        with contextlib.closing(peer):
            yield peer


@contextlib.contextmanager
def datagram_socket(path: Any, name: str | None = "") -> Iterator[socket.socket]:
    """Make a datagram socket that is connected to a server; None is no name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        if name is not None:
            sock.bind(name)
        sock.connect(os.fspath(path))
        yield sock


def is_open(pid: int, socket_name: str) -> bool:
    """Whether a process can be talked to over a socket: its path exists before it listens."""
    descriptors = Path(f"/proc/{pid}/fd")
    inodes: set[str] = set()
    with contextlib.suppress(OSError):
        inodes = {os.readlink(link).strip("socket:[]") for link in descriptors.iterdir()}
    for line in Path("/proc/net/unix").read_text().splitlines():
        fields = line.split()  # fewer, or others, if another socket's name has a line end
        if len(fields) > 7 and fields[6] in inodes and fields[-1] == socket_name:
            # It listens, or it is for datagrams.
            return fields[3] == "00010000" or fields[4] == "0002"
    return False


@contextlib.contextmanager
def example(file: Path, folder: Path, socket_name: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program of a page in a folder, until the block ends; wait for its socket first."""
    with subprocess.Popen(
        [sys.executable, "-u", "-W", "error", file],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as program:
        try:
            deadline = time.monotonic() + PATIENCE
            while not is_open(program.pid, socket_name):
                assert program.poll() is None, program.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.001)
            yield program
        finally:
            program.kill()


def run(command: list[str], folder: Path) -> str:
    """Run a command in a folder; return what it prints."""
    return subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    ).stdout
