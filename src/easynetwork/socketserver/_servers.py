"""The servers of `socketserver`, with TLS, whole datagrams, and a log that clients cannot fill."""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
import socketserver
import ssl
import sys
import time
import traceback
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from easynetwork._arguments import check_plain_methods
from easynetwork._episode import Episode
from easynetwork._tls_options import TLSOptions, new_server_tls
from easynetwork.exceptions import BaseProtocolParseError, ClientClosedError
from easynetwork.protocol import (
    AnyStreamProtocolType,
    DatagramProtocol,
    check_datagram_protocol,
    check_stream_protocol,
)
from easynetwork.servers._core.fault_log import printable
from easynetwork.sockets.accepting import CAPACITY_ERRNOS, PAUSE
from easynetwork.sockets.datagrams import largest_datagram
from easynetwork.socketserver._handlers import (
    DatagramPacketHandler,
    StreamPacketHandler,
    log_of,
    name_of,
    protocol_of,
)


class _PacketServer(socketserver.TCPServer):
    """What the servers here have in common.

    Error handling: an exception that leaves a handler ends that request, and is logged by
    `handle_error()`: a bug as an ERROR with its traceback, what a client sent as one WARNING line,
    that a client has left as a DEBUG line. A client cannot fill the log.
    """

    protocol: Any = None

    def __init__(
        self,
        server_address: Any,
        RequestHandlerClass: Callable[[Any, Any, Any], socketserver.BaseRequestHandler],  # noqa: N803
        bind_and_activate: bool = True,
        *,
        protocol: AnyStreamProtocolType[Any, Any] | DatagramProtocol[Any, Any] | None = None,
    ) -> None:
        """Bind, as the class of this name in `socketserver` does.

        Args:
            server_address: Where to receive, in the form that the `socket` module uses.
            RequestHandlerClass: The handler's class: a `DatagramPacketHandler`, or any other of
                `socketserver`, which gets bytes.
            bind_and_activate: Whether to bind now. If not, call `server_bind()`.
            protocol: The protocol object of handlers that have none of their own: a
                `DatagramProtocol`.

        Raises:
            TypeError: `protocol` is of the wrong type, or there is none.
            OSError: The address cannot be bound.
        """
        if protocol is not None:
            self._check_protocol(protocol)
            self.protocol = protocol
        self._check_handler(RequestHandlerClass)
        super().__init__(server_address, RequestHandlerClass, bind_and_activate)

    @staticmethod
    @abstractmethod
    def _check_protocol(protocol: object) -> None:
        """Raise TypeError for one of the wrong type."""

    def _check_handler(self, handler: object) -> None:
        if not callable(handler):
            raise TypeError(f"Expected a handler class, got {handler!r}")
        packet_handlers = (StreamPacketHandler, DatagramPacketHandler)
        if isinstance(handler, type) and issubclass(handler, packet_handlers):
            check_plain_methods(handler, "setup", "handle", "finish")
            self._check_protocol(protocol_of(handler, self))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the exception that has left a handler; called where it is being handled."""
        exc = sys.exception()
        if exc is None:
            return super().handle_error(request, client_address)
        log, client = log_of(self), name_of(client_address, self.socket.family)
        if not self._is_of_peer(exc):
            log.error("Exception occurred during processing of request from %s", client, exc=exc)
        elif isinstance(exc, BaseProtocolParseError):
            log.fault("%s sent invalid data: %s", client, printable(exc.error))
        elif isinstance(exc, ssl.SSLError):
            log.fault("TLS connection of %s broke: %s", client, printable(exc))
        else:
            log.log(logging.DEBUG, "%s has left or is silent: %s", client, printable(exc))

    @abstractmethod
    def _is_of_peer(self, exc: BaseException) -> bool:
        """Whether an exception of a handler is the client's fault."""


class TCPServer(_PacketServer):
    """`socketserver.TCPServer` for packets, also over TLS. Handles one connection at a time."""

    # On Windows, it would let two servers share the port.
    allow_reuse_address: bool = os.name == "posix"
    request_queue_size: int = 100

    _tls: TLSOptions | None = None
    _shortage = functools.cached_property(lambda _: Episode())
    _connections = functools.cached_property[set[StreamPacketHandler[Any, Any]]](lambda _: set())

    def __init__(
        self,
        server_address: Any,
        RequestHandlerClass: Callable[[Any, Any, Any], socketserver.BaseRequestHandler],  # noqa: N803
        bind_and_activate: bool = True,
        *,
        protocol: AnyStreamProtocolType[Any, Any] | None = None,
        ssl: ssl.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
    ) -> None:
        """Bind and listen, as `socketserver.TCPServer` does.

        Args:
            server_address: Where to listen, in the form that the `socket` module uses.
            RequestHandlerClass: The handler's class: a `StreamPacketHandler`, or any other of
                `socketserver`, which exchanges bytes.
            bind_and_activate: Whether to bind and listen now. If not, call `server_bind()` and
                `server_activate()`.
            protocol: The protocol object of handlers that have none of their own.
            ssl: Speak TLS, as this context says. The handshake is the first thing that the handler
                does, in its own thread or process.
            ssl_handshake_timeout: Seconds that it may take. 60 by default.
            ssl_shutdown_timeout: Seconds that a client has, at the end of its connection, to take
                what waits for it. 30 by default.
            ssl_standard_compatible: Whether a connection ends with a closing alert (RFC 8446, 6.1).
                True by default.

        Raises:
            TypeError: An argument is of the wrong type, there is no protocol object, or `ssl` is
                used with another handler than a `StreamPacketHandler`.
            ValueError: An argument has a value that cannot be used.
            OSError: The address cannot be bound.
        """
        tls_options = ssl_handshake_timeout, ssl_shutdown_timeout, ssl_standard_compatible
        self._tls = new_server_tls(ssl, tls_options)
        cls = RequestHandlerClass
        if ssl and not (isinstance(cls, type) and issubclass(cls, StreamPacketHandler)):
            raise TypeError(f"ssl needs a subclass of StreamPacketHandler, got {cls!r}")
        super().__init__(server_address, cls, bind_and_activate, protocol=protocol)

    @staticmethod
    def _check_protocol(protocol: object) -> None:
        check_stream_protocol(protocol)

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection. If the system has no descriptor left, log that, and wait a little.

        Raises:
            OSError: There is no connection. The server tries again.
        """
        try:
            return super().get_request()
        except OSError as exc:
            if exc.errno in CAPACITY_ERRNOS:
                if self._shortage.begins():
                    log_of(self).fault("accept() failed: %s. New connections wait", exc)
                time.sleep(PAUSE)
            raise

    def _reset_connections(self) -> None:
        """Reset all connections, so that the threads that wait for them go on."""
        for handler in list(self._connections):
            if (client := getattr(handler, "client", None)) is not None:
                client._reset()
                client._close_unless_used()  # its handler may be busy with something else

    def _is_of_peer(self, exc: BaseException) -> bool:
        objects = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(exc.__traceback__)]
        handlers = [o for o in objects if isinstance(o, StreamPacketHandler)]
        client = getattr(handlers[0], "client", None) if handlers else None
        if client is None:
            return isinstance(exc, OSError) and _passed_through(exc, StreamPacketHandler.setup)
        if isinstance(exc, ClientClosedError) and not client._is_reset:
            return False  # the handler has closed it
        errors = (ConnectionError, TimeoutError, ssl.SSLError, BaseProtocolParseError)
        return isinstance(exc, errors) and any(o is client for o in objects)


class UDPServer(_PacketServer, socketserver.UDPServer):
    """`socketserver.UDPServer` for packets. Handles one datagram at a time."""

    max_packet_size: ClassVar[int] = largest_datagram(socket.AF_INET)

    @staticmethod
    def _check_protocol(protocol: object) -> None:
        check_datagram_protocol(protocol)

    def get_request(self) -> tuple[Any, Any]:
        """Receive a datagram. One that is longer than `max_packet_size` is logged and dropped."""
        if not hasattr(self.socket, "recvmsg"):  # Windows, whose recvfrom() raises an error
            return super().get_request()
        data, _, flags, address = self.socket.recvmsg(self.max_packet_size)
        if flags & socket.MSG_TRUNC:
            sender = name_of(address, self.socket.family)
            log_of(self).fault("%s sent more than %d bytes", sender, self.max_packet_size)
            raise OSError(errno.EMSGSIZE, "a datagram was longer than max_packet_size")
        return (data, self.socket), address

    def _is_of_peer(self, exc: BaseException) -> bool:
        is_sent = _passed_through(exc, DatagramPacketHandler.send_packet)
        return is_sent and isinstance(exc, OSError) and exc.errno != errno.EMSGSIZE


def _passed_through(exc: BaseException, method: Callable[..., object]) -> bool:
    """Whether an exception was raised in a method, or in what it has called."""
    code = method.__code__
    return any(frame.f_code is code for frame, _ in traceback.walk_tb(exc.__traceback__))


if hasattr(socketserver, "UnixStreamServer"):

    class UnixStreamServer(TCPServer, socketserver.UnixStreamServer):
        """`socketserver.UnixStreamServer` for packets. Handles one connection at a time."""

    class UnixDatagramServer(UDPServer, socketserver.UnixDatagramServer):
        """`socketserver.UnixDatagramServer` for packets. Handles one datagram at a time."""

        max_packet_size: ClassVar[int] = largest_datagram(socket.AF_UNIX)
