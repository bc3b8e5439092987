"""A TCP server for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncTCPNetworkServer"]

import functools
import logging
import socket
import ssl
from collections.abc import Sequence

from easynetwork._arguments import (
    validated_backlog,
    validated_hosts,
    validated_port,
    validated_reuse_port,
)
from easynetwork._tls_options import new_server_tls
from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.addresses import SocketAddress
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.backends.socket_listener import SocketListener
from easynetwork.protocol import AnyStreamProtocolType
from easynetwork.servers._stream.server import BaseStreamServer
from easynetwork.servers.blocking import AnyStreamRequestHandler
from easynetwork.servers.limits import Limits
from easynetwork.sockets.adopting import TCP_SOCKETS
from easynetwork.sockets.binding import HostSockets, bind_listener
from easynetwork.sockets.patience import limit_silence


class AsyncTCPNetworkServer(BaseStreamServer[SocketAddress, _T_Request, _T_Response]):
    """Serves packets over TCP.

    Each connection is served in a task of its own, by the generators of one request handler.

    Resource handling: `server_activate()` opens the listening sockets and `server_close()` closes
    them; `async with server:` does both. `serve_forever()` owns the connections and closes each of
    them before it returns.

    Processes: a child that forks off while the server runs gets copies of neither its listening
    sockets nor its connections, and must not use its event loop. A server that is only activated
    keeps its listening sockets in children: each of them may serve, with an event loop of its own.

    Error handling: whatever goes wrong with one client is logged and ends that client only, see
    `AsyncStreamRequestHandler.handle`. Clients can cause errors and warnings, so the log gets at
    most three of these lines per second. The first exception of a kind (of one class, coming one
    way through the code) is logged with its traceback in any case, and again after a minute. What
    is left out is counted, and the log says how much that was.
    """

    __slots__ = ()

    _adoption = TCP_SOCKETS

    def __init__(
        self,
        host: str | Sequence[str] | None,
        port: int,
        protocol: AnyStreamProtocolType[_T_Response, _T_Request],
        request_handler: AnyStreamRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        ssl: ssl.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
        backlog: int | None = None,
        reuse_port: bool = False,
        max_recv_size: int | None = None,
        log_client_connection: bool | None = None,
        limits: Limits | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Check the arguments; nothing is opened yet.

        Args:
            host: Where to listen: a name or a numeric address, several of them, or None (or `""`)
                for all interfaces. A name stands for all its addresses that this machine has; the
                others are named in the log, at level INFO.
            port: The port; 0 for a random one that is free, the same for all addresses.
            protocol: The protocol object.
            request_handler: The request handler: an instance, for all clients.
            backend: The backend, or its name; by default, the framework that is running.
            ssl: Serve over TLS, with the certificate and everything else in this context.
            ssl_handshake_timeout: Seconds that a handshake may take. 60 by default.
            ssl_shutdown_timeout: Seconds that a client has, when its connection is closed, to take
                what waits for it. 30 by default.
            ssl_standard_compatible: Whether connections end with a closing alert (RFC 8446, 6.1),
                and clients that leave without are noted in the log, at level DEBUG. True by
                default.
            backlog: Connections that may wait to be accepted, as for listen(2). 1,024 by
                default; the kernel's own limit applies as well (somaxconn).
            reuse_port: Let several processes listen on the same port, if all of them say so
                (`SO_REUSEPORT`). Not available on Windows.
            max_recv_size: The most bytes taken from one connection at a time. 64 KiB by default.
            log_client_connection: Whether clients that come and go are logged at level INFO (the
                default) or at DEBUG.
            limits: How many clients there may be, and how slow each of them; `Limits()` by default.
            logger: Where to log; `easynetwork.servers.async_tcp` by default.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument has a value that cannot be used.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        tls_options = ssl_handshake_timeout, ssl_shutdown_timeout, ssl_standard_compatible
        super().__init__(
            protocol,
            request_handler,
            backend,
            (logger or logging.getLogger(__name__), log_client_connection),
            max_recv_size=max_recv_size,
            limits=limits,
            tls=new_server_tls(ssl, tls_options),
        )
        hosts, port = validated_hosts(host), validated_port(port)
        bind = functools.partial(
            bind_listener,
            backlog=validated_backlog(backlog),
            reuse_port=validated_reuse_port(reuse_port),
        )
        self._source = HostSockets(hosts, port, socket.SOCK_STREAM, bind, self.logger)

    def _new_listener(self, sock: socket.socket) -> SocketListener:
        limit_silence(sock, self._limits.keepalive, self._limits.send_timeout)
        return SocketListener(
            sock,
            self._backend,
            self._max_recv_size,
            self._log.log,
            note_lost=self._census.note_lost,
        )
