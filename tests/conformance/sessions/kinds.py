"""What the contract of the servers' sessions has to know of each kind of session.

A further kind is a subclass of `Kind` in `KINDS`.
"""

from __future__ import annotations

import abc
import ssl
import uuid
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, TypeAlias

import pytest

from easynetwork.exceptions import DatagramProtocolParseError, StreamProtocolParseError
from easynetwork.protocol import BufferedStreamProtocol, DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, AsyncUDPNetworkServer
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.handlers import (
    AsyncDatagramClient,
    AsyncDatagramRequestHandler,
    AsyncStreamClient,
    AsyncStreamRequestHandler,
)
from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._memory.servers import MemoryTCPServer, MemoryUDPServer
from tests.conformance import support as streams
from tests.conformance.datagrams import support as datagrams
from tests.tls_peers import server_context

Requests: TypeAlias = AsyncGenerator[Any, str]


class Handler(
    streams.Notes, AsyncStreamRequestHandler[str, str], AsyncDatagramRequestHandler[str, str]
):
    """Echoes one packet in each generator. A test overrides what it is about.

    The peer has always sent a packet before the first yield is waiting, since a datagram server
    calls `handle()` only then.
    """

    async def handle(self, client: Any) -> Requests:
        await client.send_packet((yield))

    async def on_disconnection(self, client: Any) -> None:
        """Make a note: only stream servers call this."""
        self.note("on_disconnection")


class Catching(Handler):
    """Answers each packet, or what is raised instead of one, in one generator."""

    async def handle(self, client: Any) -> Requests:
        while True:
            try:
                answer = yield
            except Exception as exc:
                answer = self.describe(exc)
            await client.send_packet(answer)

    def describe(self, exc: Exception) -> str:
        return f"{type(exc).__name__}: {exc}, {type(exc.__cause__).__name__}"


class Kind(abc.ABC):
    """A kind of session, on a certain transport.

    Attributes:
        host: The address that the server listens on.
        client_class: The class of the client that the handler talks to.
        parse_error: The class of the errors of malformed packets.
        deserializing: The method of the protocol object that turns bytes into packets.
        serializing: The method that turns packets into bytes.
    """

    host: ClassVar[str] = "127.0.0.1"
    client_class: ClassVar[type[Any]]
    parse_error: ClassVar[type[Exception]]
    deserializing: ClassVar[str]
    serializing: ClassVar[str]

    def __init__(self, tls_version: ssl.TLSVersion) -> None:
        """Be new. A kind that encrypts speaks a certain version."""

    @abc.abstractmethod
    def new_server(self, handler: Handler, converter: Any = None, **options: Any) -> Any:
        """Return a server whose packets are short texts."""

    @abc.abstractmethod
    def serving(self, server: Any) -> AbstractAsyncContextManager[Any]:
        """Serve while the block runs."""

    def serve(self, *args: Any, **options: Any) -> AbstractAsyncContextManager[Any]:
        """Serve a handler while the block runs."""
        return self.serving(self.new_server(*args, **options))

    @abc.abstractmethod
    async def connect(self, service: Any) -> Any:
        """Return a new peer."""

    @abc.abstractmethod
    def send_invalid(self, peer: Any) -> None:
        """Send bytes that are no packet."""

    @abc.abstractmethod
    async def check_silence(self, peer: Any) -> None:
        """Check that nothing was sent to a peer whose handler has crashed before it could."""

    @abc.abstractmethod
    def check_gone(self, service: Any, handler: Handler) -> None:
        """Check that no generator is left, and that the last hook, if there is one, was called."""

    @abc.abstractmethod
    async def check_end(self, peer: Any, end: str) -> None:
        """Check what became of a peer whose generator an exception has left.

        Args:
            peer: The peer, which has received what was sent before the exception.
            end: "EOF" or "reset", as the peer of a connection sees it.
        """


class TCPKind(Kind):
    """A connection, and a protocol that gets the received bytes in chunks."""

    client_class = AsyncStreamClient
    parse_error = StreamProtocolParseError
    deserializing = "build_packet_from_chunks"
    serializing = "generate_chunks"
    protocol_class: ClassVar[type[Any]] = StreamProtocol

    def new_server(self, handler: Handler, converter: Any = None, **options: Any) -> Any:
        protocol = self.protocol_class(StringLineSerializer(), converter)
        return AsyncTCPNetworkServer(self.host, 0, protocol, handler, **options)

    def serving(self, server: Any) -> AbstractAsyncContextManager[Any]:
        return streams.serving(server)

    async def connect(self, service: Any) -> Any:
        return await service.connect()

    def send_invalid(self, peer: Any) -> None:
        peer.send_bytes(b"\xff\n")

    async def check_silence(self, peer: Any) -> None:
        """Check that the connection was reset at once."""
        assert await peer.rest() == ("", "reset")

    def check_gone(self, service: Any, handler: Handler) -> None:
        """Check that the disconnection was the last thing that the handler was told."""
        assert handler.notes[-1] == "on_disconnection"

    async def check_end(self, peer: Any, end: str) -> None:
        """Check that the connection is over."""
        assert await peer.rest() == ("", end)


class BufferedTCPKind(TCPKind):
    """A connection, and a protocol that gets the received bytes in its own buffer."""

    deserializing = "build_packet_from_buffer"
    protocol_class = BufferedStreamProtocol


class TLSKind(TCPKind):
    """A connection that is encrypted, of a version that the peers speak, too."""

    def __init__(self, tls_version: ssl.TLSVersion) -> None:
        super().__init__(tls_version)
        self._context = server_context(tls_version)

    def new_server(self, handler: Handler, converter: Any = None, **options: Any) -> Any:
        return super().new_server(handler, converter, ssl=self._context, **options)


class UDPKind(Kind):
    """The datagrams of each peer."""

    client_class = AsyncDatagramClient
    parse_error = DatagramProtocolParseError
    deserializing = "build_packet_from_datagram"
    serializing = "make_datagram"

    def new_server(self, handler: Handler, converter: Any = None, **options: Any) -> Any:
        protocol = DatagramProtocol(StringLineSerializer(), converter)
        return AsyncUDPNetworkServer(self.host, 0, protocol, handler, **options)

    def serving(self, server: Any) -> AbstractAsyncContextManager[Any]:
        return datagrams.serving(server)

    async def connect(self, service: Any) -> Any:
        return service.connect()

    def send_invalid(self, peer: Any) -> None:
        peer.send(b"\xff")

    async def check_silence(self, peer: Any) -> None:
        """Check that no datagram has come."""
        peer.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.socket.recv(1)

    def check_gone(self, service: Any, handler: Handler) -> None:
        """Check that no peer has a generator."""
        assert service.server.get_statistics().peers == 0

    async def check_end(self, peer: Any, end: str) -> None:
        """Check that the peer's next datagram is served by the next generator."""
        assert await peer.ask("next") == "next"


class UDPv6Kind(UDPKind):
    """The same, over IPv6."""

    host = "::1"


def unused_name() -> str:
    """Return an abstract name for a Unix socket."""
    return f"\0easynetwork-{uuid.uuid4()}"


class UnixStreamKind(TCPKind):
    """A connection over a Unix socket."""

    def new_server(self, handler: Handler, converter: Any = None, **options: Any) -> Any:
        protocol = self.protocol_class(StringLineSerializer(), converter)
        return AsyncUnixStreamServer(unused_name(), protocol, handler, **options)


class UnixDatagramKind(UDPKind):
    """Datagrams over a Unix socket."""

    def new_server(self, handler: Handler, converter: Any = None, **options: Any) -> Any:
        protocol = DatagramProtocol(StringLineSerializer(), converter)
        return AsyncUnixDatagramServer(unused_name(), protocol, handler, **options)


class MemoryStreamKind(TCPKind):
    """A connection in memory."""

    def new_server(self, handler: Handler, converter: Any = None, **options: Any) -> Any:
        protocol = self.protocol_class(StringLineSerializer(), converter)
        return MemoryTCPServer(MemoryNetwork(), protocol, handler, **options)


class MemoryDatagramKind(UDPKind):
    """Datagrams in memory."""

    def new_server(self, handler: Handler, converter: Any = None, **options: Any) -> Any:
        protocol = DatagramProtocol(StringLineSerializer(), converter)
        return MemoryUDPServer(MemoryNetwork(), protocol, handler, **options)


KINDS: dict[str, type[Kind]] = {
    "tcp": TCPKind,
    "buffer": BufferedTCPKind,
    "tls": TLSKind,
    "udp": UDPKind,
    "udp-ipv6": UDPv6Kind,
    "unix-stream": UnixStreamKind,
    "unix-datagram": UnixDatagramKind,
    "memory-stream": MemoryStreamKind,
    "memory-datagram": MemoryDatagramKind,
}

# For tests of addresses that have a host and a port.
on_ip = pytest.mark.parametrize(
    "kind", [name for name in KINDS if not name.startswith("unix")], indirect=True
)
