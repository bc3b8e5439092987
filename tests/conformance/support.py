"""What the conformance tests share: a handler that keeps notes, a running server, a plain peer.

Tests wait for a note, for the log or for a peer's socket, never for time to pass.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, TypeAlias

import anyio
import anyio.to_thread
import pytest

from easynetwork.addresses import UnixSocketAddress
from easynetwork.protocol import StreamProtocol
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import (
    AsyncStreamClient,
    AsyncStreamRequestHandler,
    INETClientAttribute,
)
from tests.times import PATIENCE
from tests.tls_peers import TLSSocket

Client: TypeAlias = AsyncStreamClient[str]
Requests: TypeAlias = AsyncGenerator[Any, str]
Server: TypeAlias = AsyncTCPNetworkServer[str, str]

each_family = pytest.mark.parametrize("host", ["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
# How connecting to a server that was closed fails: a Unix socket's path is gone.
REFUSED = (ConnectionRefusedError, FileNotFoundError)
# For tests of what Unix sockets do not have.
on_ip = pytest.mark.parametrize("transport", ["tcp", "tls"])
# For slow tests of what comes after the protocol.
one_protocol = pytest.mark.parametrize("protocol_class", [StreamProtocol], ids=["chunks"])


class Changes:
    """Lets tasks wait until something that changes now and then is as they want it."""

    def __init__(self) -> None:
        self._next = anyio.Event()

    def announce(self) -> None:
        self._next.set()
        self._next = anyio.Event()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._next.wait()


class Notes:
    """Keeps notes, for which a test can wait."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.released = anyio.Event()  # for methods that wait until the test lets them go on
        self._changes = Changes()

    def note(self, what: str) -> None:
        self.notes.append(what)
        self._changes.announce()

    async def noted(self, what: str, times: int = 1) -> None:
        """Wait until something has been noted that often."""
        await self._changes.wait_for(lambda: self.notes.count(what) >= times)

    @contextlib.contextmanager
    def noting_errors(self) -> Iterator[None]:
        """Note what is raised in the block, and let it through."""
        try:
            yield
        except BaseException as exc:
            self.note(name_of(exc))
            raise


class Recorder(Notes, AsyncStreamRequestHandler[str, str]):
    """Echoes lines, and keeps notes. A test overrides the method that it is about."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []

    def on_connection(self, client: Client) -> Any:
        self.clients.append(client)
        return self.greet(client)

    async def greet(self, client: Client) -> None:
        self.note("on_connection")

    async def handle(self, client: Client) -> Requests:
        self.note("handle")
        with self.noting_errors():
            request = yield
        self.note(request)
        await client.send_packet(request)

    async def on_disconnection(self, client: Client) -> None:
        self.note("on_disconnection")


class Narrow(Recorder):
    """Lets the kernel hold little of what is sent, so that a peer which does not read is felt."""

    async def greet(self, client: Client) -> None:
        sock = client.extra(INETClientAttribute.socket)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await super().greet(client)


class Echo(Recorder):
    """Answers each request, or what is raised instead of one, until the client leaves."""

    timeout: Any = None

    async def handle(self, client: Client) -> Requests:
        while True:
            try:
                answer = yield self.timeout
            except Exception as exc:
                answer = self.describe(exc)
            await client.send_packet(answer)

    def describe(self, exc: Exception) -> str:
        return f"{type(exc).__name__}: {exc}"


def name_of(exc: BaseException) -> str:
    """Return what kind of exception this is, with one name for the cancellations of all loops."""
    return "cancelled" if isinstance(exc, anyio.get_cancelled_exc_class()) else type(exc).__name__


class EitherEnd(str):
    """How a Unix stream has ended: the kernel does not tell a reset from an end in order."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return other in ("EOF", "reset")


def new_socket(address: Any, kind: socket.SocketKind) -> socket.socket:
    """Return a socket for an address of a server; it has a name if it is a Unix socket."""
    if isinstance(address, UnixSocketAddress):
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.bind("")
        return sock
    return socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, kind)


def raw(address: Any) -> Any:
    """Return the address of a server as the socket module takes it."""
    return address.as_raw() if isinstance(address, UnixSocketAddress) else address


def name_in_log(family: int, address: Any) -> str:
    """Return the address of a peer as it stands in the log."""
    if family == socket.AF_UNIX:
        return str(UnixSocketAddress.from_raw(address))
    return str(address[:2])


class Peer:
    """The other end, without the library: a blocking socket, read in a worker thread.

    What is sent here fits into the kernel's buffers, unless it goes through `send_much`.

    Attributes:
        tls: With which it connects, if at all.
    """

    tls: ClassVar[ssl.SSLContext | None] = None

    def __init__(
        self,
        address: Any,
        receive_buffer: int | None = None,
        *,
        connects: bool = True,
    ) -> None:
        self.socket: Any = new_socket(address, socket.SOCK_STREAM)
        self._raw = self.socket
        self.socket.settimeout(PATIENCE)
        if receive_buffer is not None:  # what the kernel may hold until somebody reads
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._received = bytearray()
        if connects:
            try:
                self.connect(address)
            except BaseException:
                self.socket.close()
                raise
        self.address = self.socket.getsockname()
        if self.tls is not None:
            self.socket = TLSSocket(self.socket, self.tls)

    def connect(self, address: Any) -> None:
        """Connect to the address of a server."""
        self.socket.connect(raw(address))

    async def start(self) -> None:
        """Do the handshake, if there is one; otherwise that is done when something is received."""
        if isinstance(self.socket, TLSSocket):
            await anyio.to_thread.run_sync(self.socket.do_handshake)

    @property
    def name(self) -> str:
        """The address as it stands in the log."""
        return name_in_log(self._raw.family, self.address)

    @property
    def accepted(self) -> str:
        """What the log says when it is accepted."""
        line = f"Accepted new connection (address = {self.name})"
        if self._raw.family == socket.AF_UNIX:
            line += f", pid {os.getpid()}, uid {os.getuid()}, gid {os.getgid()}"
        return line

    def send(self, *lines: str) -> None:
        """Send lines, in one piece."""
        self.send_bytes("".join(f"{line}\n" for line in lines).encode())

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    async def send_much(self, data: bytes) -> None:
        """Send more than the kernel holds."""
        await anyio.to_thread.run_sync(self.socket.sendall, data)

    async def receive(self) -> str:
        """Return the next line.

        Raises:
            EOFError: The server has sent everything.
            ConnectionResetError: The server has cut the connection.
        """
        return await anyio.to_thread.run_sync(self._read_line)

    async def receive_lines(self, count: int) -> list[str]:
        """Return the next lines."""
        return await anyio.to_thread.run_sync(lambda: [self._read_line() for _ in range(count)])

    def _read_line(self) -> str:
        while b"\n" not in self._received:
            if not (data := self.socket.recv(1 << 18)):
                raise EOFError(f"the end, behind {bytes(self._received)!r}")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    async def ask(self, *lines: str) -> str:
        """Send lines and return the next line of the answer."""
        self.send(*lines)
        return await self.receive()

    async def rest(self, *, leave: bool = True) -> tuple[str, str]:
        """Return all that still arrives, and how the connection ends: "EOF" or "reset".

        Args:
            leave: Whether to close this end then, as peers usually do.
        """
        rest = await anyio.to_thread.run_sync(self._read_rest)
        if leave:
            self.close()
        return rest

    def _read_rest(self) -> tuple[str, str]:
        end = "EOF"
        try:
            while data := self.socket.recv(1 << 18):
                self._received += data
        except ConnectionResetError:
            end = "reset"
        if self._raw.family == socket.AF_UNIX:
            end = EitherEnd(end)
        return self._received.decode(), end

    def send_eof(self) -> None:
        """Send nothing more, but go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Leave rudely."""
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._raw.close()


class Service:
    """A server that is up, and the peers that a test connects to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.peers: list[Peer] = []

    async def connect(self, receive_buffer: int | None = None) -> Peer:
        """Return a new peer; it is closed with the service at the latest."""
        peer = Peer(self.server.get_addresses()[0], receive_buffer)
        self.peers.append(peer)
        await peer.start()
        return peer

    def close(self) -> None:
        for peer in self.peers:
            peer.close()


Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[Service]]
NewServer: TypeAlias = Callable[..., Server]


@contextlib.asynccontextmanager
async def serving(server: Any, new_service: Callable[[Any], Any] = Service) -> AsyncIterator[Any]:
    """Serve while the block runs; then the peers leave and the server is shut down."""
    with anyio.fail_after(PATIENCE):
        async with server, restarting(server):
            with contextlib.closing(new_service(server)) as service:
                yield service


@contextlib.asynccontextmanager
async def restarting(server: Any) -> AsyncIterator[None]:
    """Serve once more while the block runs."""
    async with anyio.create_task_group() as tasks:
        is_up = anyio.Event()
        tasks.start_soon(lambda: server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        yield
        await server.shutdown()


class Records(logging.Handler):
    """What was logged, by anybody; from INFO on for the servers, from WARNING on for others."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self._changes = Changes()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._changes.announce()

    async def logged(self, text: str, minimum: int = logging.INFO) -> None:
        """Wait until a message contains a text."""
        await self._changes.wait_for(lambda: any(text in line for line in self.messages(minimum)))

    async def logged_often(self, count: int, minimum: int = logging.WARNING) -> None:
        """Wait until there are so many messages."""
        await self._changes.wait_for(lambda: len(self.messages(minimum)) >= count)

    def messages(self, minimum: int = logging.INFO) -> list[str]:
        """Return what the library said, in order."""
        return [
            record.getMessage()
            for record in self.records
            if record.levelno >= minimum and record.name.startswith("easynetwork")
        ]

    def problems(self) -> list[tuple[str, str, BaseException | None]]:
        """Return level, text and exception of all warnings and errors, and forget them."""
        found = [record for record in self.records if record.levelno >= logging.WARNING]
        self.records = [record for record in self.records if record not in found]
        return [
            (record.levelname, record.getMessage(), record.exc_info[1] if record.exc_info else None)
            for record in found
        ]
