"""Unix sockets with peers that others wrote: socat, nc, curl, logger, the standard library."""

from __future__ import annotations

import asyncio
import os
import socket
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from easynetwork.addresses import SocketAncillary
from easynetwork.clients.async_unix_stream import AsyncUnixStreamClient
from easynetwork.clients.unix_datagram import UnixDatagramClient
from easynetwork.clients.unix_stream import UnixStreamClient
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    RecvAncillaryDataParams,
    RecvParams,
)
from tests.interop.support import needs, serving
from tests.times import PATIENCE

pytestmark = pytest.mark.anyio

LINES: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer())
CRLF_LINES: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer("CRLF"))
TEXT: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer())


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="easynetwork-") as folder:
        yield f"{folder}/socket"


class Echo(AsyncStreamRequestHandler[str, str]):
    """Sends lines back in capitals."""

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        await client.send_packet((yield).upper())


async def run(*command: str, send: bytes = b"") -> bytes:
    """Run a program in a thread, and return what it writes."""

    def run_program() -> bytes:
        return subprocess.run(
            command, input=send, stdout=subprocess.PIPE, check=True, timeout=PATIENCE
        ).stdout

    return await anyio.to_thread.run_sync(run_program)


# -- our servers


@needs("socat")
async def test_socat(path: str) -> None:
    """Socat connects to a path and to an abstract name."""
    name = f"easynetwork-{os.getpid()}"
    for where, option in (path, f"UNIX-CONNECT:{path}"), (f"\0{name}", f"ABSTRACT-CONNECT:{name}"):
        async with serving(AsyncUnixStreamServer(where, LINES, Echo())):
            answer = await run("socat", "-t", "5", "STDIO", option, send=b"hello\nworld\n")
            assert answer == b"HELLO\nWORLD\n"


@needs("nc")
async def test_nc(path: str) -> None:
    """Nc -U sends lines, and ends when the server has answered and closed."""
    async with serving(AsyncUnixStreamServer(path, LINES, Echo())):
        assert await run("nc", "-U", "-N", path, send=b"hello\nworld\n") == b"HELLO\nWORLD\n"


@needs("curl")
async def test_curl(path: str) -> None:
    """Curl speaks HTTP over a Unix socket."""

    class Hello(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            request = yield
            while (yield):
                pass
            body = f"you asked for {request.split()[1]}"
            for line in "HTTP/1.1 200 OK", f"Content-Length: {len(body) + 2}", "", body:
                await client.send_packet(line)

    async with serving(AsyncUnixStreamServer(path, CRLF_LINES, Hello())):
        answer = await run("curl", "-sS", "--unix-socket", path, "http://localhost/hello")
        assert answer == b"you asked for /hello\r\n"


@needs("logger")
async def test_logger(path: str) -> None:
    """Logger sends to a datagram server as to /dev/log; its socket has no name."""
    received: list[str] = []

    class Log(AsyncDatagramRequestHandler[str, str]):
        async def handle(self, client: AsyncDatagramClient[str]) -> AsyncGenerator[None, str]:
            received.append((yield))

    server = AsyncUnixDatagramServer(path, TEXT, Log(), unnamed_addresses_behavior="handle")
    async with serving(server):
        await run("logger", "--socket", path, "-t", "tests", "-p", "user.warning", "it works")
        while not received:
            await anyio.sleep(0.001)
    [line] = received
    assert line.startswith("<12>")  # facility 1, severity 4 (RFC 3164, 4.1.1)
    assert line.rstrip("\0").endswith("tests: it works")


async def test_asyncio_client(path: str) -> None:
    """Asyncio's streams over a Unix socket, in a thread with a loop of its own."""

    async def ask() -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"hello\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer

    async with serving(AsyncUnixStreamServer(path, LINES, Echo())):
        assert await anyio.to_thread.run_sync(lambda: asyncio.run(ask())) == b"HELLO\n"


async def test_plain_descriptors(path: str, tmp_path: Path) -> None:
    """A file goes to the handler and back by the functions of the socket module."""

    class Append(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[Any, str]:
            ancillary = SocketAncillary()
            params = RecvAncillaryDataParams(ancillary.update_from_raw)
            request = yield RecvParams(recv_with_ancillary=params)
            [fd] = ancillary.iter_fds()
            os.write(fd, request.encode())
            await client.send_packet_with_ancillary("done", ancillary.as_raw())
            os.close(fd)

    file = tmp_path / "file"

    def exchange() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock, file.open("w") as output:
            sock.connect(path)
            socket.send_fds(sock, [b"hello\n"], [output.fileno()])
            answer, [fd], _, _ = socket.recv_fds(sock, 100, 1)
            os.write(fd, b", again")
            os.close(fd)
            return answer

    async with serving(AsyncUnixStreamServer(path, LINES, Append())):
        assert await anyio.to_thread.run_sync(exchange) == b"done\n"
    assert file.read_text() == "hello, again"


# -- our clients


def is_open(path: str) -> bool:
    """Whether a socket can be talked to: its path exists before it listens."""
    for line in Path("/proc/net/unix").read_text().splitlines():
        _, _, _, flags, kind, _, _, *found = line.split()
        if found == [path]:
            return flags == "00010000" or kind == "0002"  # it listens, or it is for datagrams
    return False


@contextmanager
def running(*command: str, path: str) -> Iterator[None]:
    """Run a program that makes a path."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            while not is_open(path):
                assert process.poll() is None
            yield
        finally:
            process.kill()


@needs("socat")
async def test_socat_serves(path: str) -> None:
    """Socat echoes streams."""
    with running("socat", f"UNIX-LISTEN:{path},fork", "EXEC:cat", path=path):
        async with AsyncUnixStreamClient(path, LINES) as client:
            await client.send_packet("hello")
            assert await client.recv_packet() == "hello"
        with UnixStreamClient(path, LINES) as blocking:
            blocking.send_packet("hello")
            assert blocking.recv_packet(timeout=PATIENCE) == "hello"


@needs("socat")
def test_socat_serves_datagrams(path: str) -> None:
    """Socat echoes datagrams to the name that the client has."""
    with (
        running("socat", f"UNIX-RECVFROM:{path},fork", "EXEC:cat", path=path),
        UnixDatagramClient(path, TEXT, local_path=f"{path}.client") as client,
    ):
        client.send_packet("hello")
        assert client.recv_packet(timeout=PATIENCE) == "hello"
    assert not os.path.exists(f"{path}.client")


def test_socketserver(path: str) -> None:
    """The standard library's threading server."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.upper())

    with socketserver.ThreadingUnixStreamServer(path, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with UnixStreamClient(path, LINES) as client:
                for text in "hello", "again":
                    client.send_packet(text)
                    assert client.recv_packet(timeout=PATIENCE) == text.upper()
                assert client.get_peer_credentials().pid == os.getpid()
        finally:
            server.shutdown()
            thread.join()


def test_asyncio_server(path: str) -> None:
    """Asyncio's server, and our client in the same loop."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    async def main() -> list[str]:
        async with (
            await asyncio.start_unix_server(serve, path),
            AsyncUnixStreamClient(path, LINES) as client,
        ):
            await client.send_packet("hello")
            return [packet async for packet in client.iter_received_packets(timeout=None)]

    assert asyncio.run(main()) == ["HELLO"]
