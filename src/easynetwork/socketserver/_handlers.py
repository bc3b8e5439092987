"""Handlers that exchange packets, for all servers of `socketserver`."""

from __future__ import annotations

import errno
import logging
import socket
import socketserver
import ssl
import time
from collections.abc import Iterator
from typing import Any, ClassVar, Final, Generic

from easynetwork._arguments import validated_delay
from easynetwork._tls_options import TLSOptions
from easynetwork._tuning import HIGH_WATER
from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.addresses._unix import typed_address
from easynetwork.clients._blocking_stream import BlockingStreamClient
from easynetwork.clients._waiting import NO_WAIT, timed_out
from easynetwork.clients.tcp import TCPNetworkClient
from easynetwork.codec import datagram_builder, datagram_encoder
from easynetwork.exceptions import DatagramProtocolParseError
from easynetwork.protocol import (
    AnyStreamProtocolType,
    DatagramProtocol,
    check_datagram_protocol,
    check_stream_protocol,
)
from easynetwork.servers._core.fault_log import ServerLog, printable
from easynetwork.sockets.connecting import tune_tcp
from easynetwork.sockets.datagrams import explain_unix, is_unix, too_long

_RETRY_INTERVAL: Final = 1.0
"""As the default of `TCPNetworkClient`."""

POLL_INTERVAL: Final = 0.01
"""Seconds between two looks at something that the kernel does not tell of."""

logger: Final = logging.getLogger("easynetwork.socketserver")


class StreamPacketHandler(socketserver.BaseRequestHandler, Generic[_T_Request, _T_Response]):
    """Serves one connection: receives and sends packets. For all servers with connections.

    Like every handler of `socketserver`, there is one for each connection. Override `handle()`; if
    you override `setup()` or `finish()`, call `super()` there. The server's `handle_error()` gets
    the exceptions that `handle()` does not catch.

    Attributes:
        protocol: The protocol object. If it is None, the server's `protocol` is used.
        client: The connection as a blocking client: a `TCPNetworkClient` or a `UnixStreamClient`.
            `setup()` creates it. Other threads may use it, too.
    """

    protocol: ClassVar[AnyStreamProtocolType[Any, Any] | None] = None
    _check_protocol = staticmethod(check_stream_protocol)
    _checked: ClassVar[object] = None
    client: TCPNetworkClient[_T_Response, _T_Request] | UnixStreamClient[_T_Response, _T_Request]

    def __init__(self, request: Any, client_address: Any, server: socketserver.BaseServer) -> None:
        connections: set[Any] = getattr(server, "_connections", set())
        connections.add(self)
        try:
            super().__init__(request, client_address, server)
        finally:
            connections.discard(self)
            client = getattr(self, "client", None)
            if client is not None:
                client.close()  # also if something in a subclass failed after `setup()`
                if client._tls is not None and (error := client._tls._session.error):
                    # `handle()` is only told that the connection has ended
                    name = name_of(client_address, request.family)
                    log_of(server).fault("TLS connection of %s broke: %s", name, printable(error))

    def setup(self) -> None:
        """Create `client` from the connection; with TLS, do the handshake.

        Raises:
            TypeError: There is no protocol object, or the connection has TLS already.
            OSError: The client has left already, or the handshake failed.
        """
        protocol = protocol_of(self, self.server)
        if isinstance(self.request, ssl.SSLSocket):
            raise TypeError("Pass the context to the server, which does not take an ssl.SSLSocket")
        new_client = _UnixConnection if is_unix(self.request) else _TCPConnection
        self.client = new_client(self.request, protocol, getattr(self.server, "_tls", None))

    def packets(self, *, timeout: float | None = None) -> Iterator[_T_Request]:
        """Yield packets until the client has left.

        Args:
            timeout: The most seconds to wait for each packet; None for no limit.

        Raises:
            TimeoutError: No packet came in this time.
            StreamProtocolParseError: What was received is not a packet. Use `recv_packet()` if you
                want to go on.
        """
        while True:
            try:
                packet = self.recv_packet(timeout=timeout)
            except ConnectionError:
                return
            yield packet

    def recv_packet(self, *, timeout: float | None = None) -> _T_Request:
        """Wait for a packet, as `TCPNetworkClient.recv_packet()` does."""
        try:
            return self.client.recv_packet(timeout=timeout)
        except ConnectionAbortedError:
            if unused := len(self.client._decoder):
                name = name_of(self.client_address, self.request.family)
                message = "%s left %d bytes of an incomplete packet"
                log_of(self.server).log(logging.DEBUG, message, name, unused)
            raise

    def send_packet(self, packet: _T_Response, *, timeout: float | None = None) -> None:
        """Send a packet, as `TCPNetworkClient.send_packet()` does."""
        self.client.send_packet(packet, timeout=timeout)

    def finish(self) -> None:
        """Close the connection gracefully: see `TCPNetworkClient.close()`."""
        self.client.close()


class DatagramPacketHandler(socketserver.BaseRequestHandler, Generic[_T_Request, _T_Response]):
    """Handles one datagram. For all servers of datagrams.

    Override `handle()`. It is not called, nor are `setup()` and `finish()`, if the datagram is not
    a packet: see `handle_invalid()`.

    Attributes:
        protocol: The protocol object. If it is None, the server's `protocol` is used.
        packet: What the datagram contains.
    """

    protocol: ClassVar[DatagramProtocol[Any, Any] | None] = None
    _check_protocol = staticmethod(check_datagram_protocol)
    _checked: ClassVar[object] = None
    packet: _T_Request

    def __init__(self, request: Any, client_address: Any, server: socketserver.BaseServer) -> None:
        self.request: Any = request
        self.client_address: Any = client_address
        self.server: socketserver.BaseServer = server
        protocol = protocol_of(self, server)
        self._encode = datagram_encoder(protocol)
        try:
            self.packet = datagram_builder(protocol)(request[0])
        except DatagramProtocolParseError as exc:
            self.handle_invalid(exc)
        else:
            super().__init__(request, client_address, server)

    def handle_invalid(self, exc: DatagramProtocolParseError) -> None:
        """Handle a datagram that is not a packet. By default, this logs a WARNING, but no flood.

        Args:
            exc: What is wrong with it.
        """
        sender = name_of(self.client_address, self.request[1].family)
        log_of(self.server).fault("%s sent invalid data: %s", sender, printable(exc.error))

    def send_packet(self, packet: _T_Response, *, timeout: float | None = 1.0) -> None:
        """Send a packet to the sender of the datagram.

        Args:
            packet: What to send.
            timeout: The most seconds to wait for a Unix socket that does not read; None for no
                limit.

        Raises:
            TimeoutError: It has not read in this time.
            ProtocolCrashedError: The protocol object cannot make a datagram of it (the cause).
            OSError: The datagram is too long (`EMSGSIZE`), or its receiver has no name (`EINVAL`)
                or has left (Unix).
        """
        sock = self.request[1]
        data = self._encode(packet)
        deadline = time.monotonic() + validated_delay(timeout)
        while True:
            try:
                sock.sendto(data, NO_WAIT, self.client_address or "")
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise timed_out() from None
                time.sleep(POLL_INTERVAL)
            except OSError as exc:
                if exc.errno == errno.EMSGSIZE:
                    raise too_long(data, sock.family) from None
                if is_unix(sock):
                    raise explain_unix(exc, self.client_address) from None
                raise


def protocol_of(handler: Any, server: Any) -> Any:
    """Return the protocol object of a handler, or of a class of handlers: its own or the server's.

    Raises:
        TypeError: There is none, or it is of the wrong type.
    """
    cls: Any = handler if isinstance(handler, type) else type(handler)
    protocol = getattr(server, "protocol", None) if handler.protocol is None else handler.protocol
    if protocol is None:
        raise TypeError(
            f"{cls.__name__} has no protocol object: set its attribute 'protocol', or pass one to "
            "the server"
        )
    if protocol is not cls._checked:
        cls._check_protocol(protocol)
        cls._checked = protocol  # not again for each request
    return protocol


def log_of(server: Any) -> ServerLog:
    """Return the log of a server, of `socketserver` or of this module."""
    log: ServerLog = vars(server).setdefault("_packet_log", ServerLog(logger))
    return log


def name_of(address: Any, family: int) -> object:
    """Return an address as it is logged."""
    try:
        return typed_address(address, family)
    except Exception:  # of a family that only `socketserver` serves, or of a user's get_request()
        return repr(address)


class _TCPConnection(TCPNetworkClient[Any, Any]):
    """The server's end of a TCP connection, as a client."""

    __slots__ = ()

    def __init__(self, sock: socket.socket, protocol: Any, tls: TLSOptions | None) -> None:
        tune_tcp(sock)
        _init_connection(self, sock, protocol, tls)


def _init_connection(
    client: Any, sock: socket.socket, protocol: Any, tls: TLSOptions | None
) -> None:
    """Do what the constructors of clients do, for a socket that was accepted."""
    BlockingStreamClient.__init__(
        client,
        protocol,
        lambda: sock,
        max_recv_size=HIGH_WATER,
        retry_interval=_RETRY_INTERVAL,
        tls=tls,
    )
    client._wait_in_recv()


if hasattr(socket, "AF_UNIX"):
    from easynetwork.clients._unix import LocalPath
    from easynetwork.clients.unix_stream import UnixStreamClient

    class _UnixConnection(UnixStreamClient[Any, Any]):
        """The server's end of a connection over a Unix socket, as a client."""

        __slots__ = ()

        def __init__(self, sock: socket.socket, protocol: Any, tls: TLSOptions | None) -> None:
            self._local_path = LocalPath(None)
            self._credentials = None
            _init_connection(self, sock, protocol, tls)
