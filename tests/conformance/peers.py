"""The other ends of the servers' connections, without the library: real sockets, or in memory."""

from __future__ import annotations

import abc
import os
import socket
import ssl
from typing import Any, ClassVar

import anyio
import anyio.to_thread

from easynetwork.addresses import UnixSocketAddress
from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._memory.servers import MemoryTCPServer
from easynetwork.testing._serving import RawConnection
from tests.times import PATIENCE
from tests.tls_peers import TLSSocket


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


class BasePeer(abc.ABC):
    """The other end of a connection.

    What is sent here fits into the kernel's buffers, unless it goes through `send_much`.

    Attributes:
        socket: The socket, or what encrypts for it.
        address: The address, as the server sees it.
        family: The family of the socket.
    """

    socket: Any
    address: Any
    family: int

    def __init__(self) -> None:
        self._received = bytearray()

    async def start(self) -> None:
        """Do the handshake, if there is one; otherwise that is done when something is received."""

    @property
    def name(self) -> str:
        """The address as it stands in the log."""
        return name_in_log(self.family, self.address)

    @property
    def accepted(self) -> str:
        """What the log says when it is accepted."""
        line = f"Accepted new connection (address = {self.name})"
        if self.family == socket.AF_UNIX:
            line += f", pid {os.getpid()}, uid {os.getuid()}, gid {os.getgid()}"
        return line

    def send(self, *lines: str) -> None:
        """Send lines, in one piece."""
        self.send_bytes("".join(f"{line}\n" for line in lines).encode())

    @abc.abstractmethod
    def send_bytes(self, data: bytes) -> None:
        """Send bytes, in one piece."""

    @abc.abstractmethod
    async def send_much(self, data: bytes) -> None:
        """Send more than the kernel holds."""

    async def receive(self) -> str:
        """Return the next line.

        Raises:
            EOFError: The server has sent everything.
            ConnectionResetError: The server has cut the connection.
        """
        while b"\n" not in self._received:
            if not (data := await self._receive_some()):
                raise EOFError(f"the end, behind {bytes(self._received)!r}")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    @abc.abstractmethod
    async def _receive_some(self) -> bytes:
        """Return the next bytes, ``b""`` at the end of the stream."""

    async def receive_lines(self, count: int) -> list[str]:
        """Return the next lines."""
        return [await self.receive() for _ in range(count)]

    async def ask(self, *lines: str) -> str:
        """Send lines and return the next line of the answer."""
        self.send(*lines)
        return await self.receive()

    async def rest(self, *, leave: bool = True) -> tuple[str, str]:
        """Return all that still arrives, and how the connection ends: "EOF" or "reset".

        Args:
            leave: Whether to close this end then, as peers usually do.
        """
        end = "EOF"
        try:
            while data := await self._receive_some():
                self._received += data
        except ConnectionResetError:
            end = "reset"
        if leave:
            self.close()
        if self.family == socket.AF_UNIX:
            end = EitherEnd(end)
        return self._received.decode(), end

    def send_eof(self) -> None:
        """Send nothing more, but go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    @abc.abstractmethod
    def reset(self) -> None:
        """Leave rudely."""


class Peer(BasePeer):
    """A blocking socket, read in a worker thread.

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
        super().__init__()
        self.socket = self._raw = new_socket(address, socket.SOCK_STREAM)
        self.family = self._raw.family
        self._raw.settimeout(PATIENCE)
        if receive_buffer is not None:  # what the kernel may hold until somebody reads
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if connects:
            try:
                self.connect(address)
            except BaseException:
                self._raw.close()
                raise
        self.address = self._raw.getsockname()
        if self.tls is not None:
            self.socket = TLSSocket(self._raw, self.tls)

    def connect(self, address: Any) -> None:
        """Connect to the address of a server."""
        self.socket.connect(raw(address))

    async def start(self) -> None:
        if isinstance(self.socket, TLSSocket):
            await anyio.to_thread.run_sync(self.socket.do_handshake)

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    async def send_much(self, data: bytes) -> None:
        await anyio.to_thread.run_sync(self.socket.sendall, data)

    async def _receive_some(self) -> bytes:
        data: bytes = await anyio.to_thread.run_sync(self.socket.recv, 1 << 18)
        return data

    def reset(self) -> None:
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._raw.close()


class MemoryPeer(BasePeer):
    """A socket of a network in memory, which needs no thread."""

    family = socket.AF_INET

    def __init__(
        self, network: MemoryNetwork, address: Any, receive_buffer: int | None = None
    ) -> None:
        super().__init__()
        self.socket = network.connect(address, None, None, None)
        self._connection = RawConnection(self.socket)
        self.address = self._connection.address
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)

    def send_bytes(self, data: bytes) -> None:
        assert self.socket.send(data) == len(data)

    async def send_much(self, data: bytes) -> None:
        await self._connection.send(data)

    async def _receive_some(self) -> bytes:
        return await self._connection.receive(1 << 18)

    def reset(self) -> None:
        self._connection.reset()


def new_peer(server: Any, address: Any = None, receive_buffer: int | None = None) -> BasePeer:
    """Return a peer that is connected to a server; the handshake, if there is one, is to be done.

    Args:
        server: The server.
        address: The address that it has, or had; its first one by default.
        receive_buffer: What the peer may hold until the test reads, in bytes.
    """
    if address is None:
        address = server.get_addresses()[0]
    if isinstance(server, MemoryTCPServer):
        return MemoryPeer(server._network, address.for_connection(), receive_buffer)
    return Peer(address, receive_buffer)
