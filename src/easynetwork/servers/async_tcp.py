"""A TCP server for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncTCPNetworkServer"]

import logging
import socket
import ssl
from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import anyio.abc

from easynetwork._arguments import check_max_recv_size, check_port
from easynetwork._tls_options import check_server_tls
from easynetwork.addresses import new_socket_address
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral, ensure_backend
from easynetwork.backends.abc import SessionTasks
from easynetwork.codec import new_decoder_factory, packet_encoder
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol
from easynetwork.servers._core.life_cycle import BaseAsyncNetworkServer
from easynetwork.servers._stream.client import ServedClient, StreamService
from easynetwork.servers._stream.session import StreamSession, serve_client
from easynetwork.servers._stream.tls import TLSAcceptor
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from easynetwork.sockets.accepting import accept_forever
from easynetwork.sockets.binding import open_tcp_listeners
from easynetwork.sockets.connecting import tune_tcp

_T_Request = TypeVar("_T_Request")
_T_Response = TypeVar("_T_Response")

_DEFAULT_BACKLOG: Final = 1024
"""With 100, half of 1,000 clients that connect at once have to try again, a second later. The
kernel's own limit applies as well (listen(2): somaxconn)."""


class AsyncTCPNetworkServer(BaseAsyncNetworkServer, Generic[_T_Request, _T_Response]):
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

    __slots__ = (
        "_backlog",
        "_connection_log_level",
        "_hosts",
        "_max_recv_size",
        "_new_decoder",
        "_port",
        "_protocol",
        "_request_handler",
        "_reuse_port",
        "_tls",
    )

    def __init__(
        self,
        host: str | Sequence[str] | None,
        port: int,
        protocol: AnyStreamProtocolType[_T_Response, _T_Request],
        request_handler: AsyncStreamRequestHandler[_T_Request, _T_Response],
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
            logger: Where to log; `easynetwork.servers.async_tcp` by default.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument has a value that cannot be used.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        check_stream_protocol(protocol)
        if not isinstance(request_handler, AsyncStreamRequestHandler):
            raise TypeError(
                f"Expected an AsyncStreamRequestHandler object, got {request_handler!r}"
            )
        super().__init__(
            ensure_backend(backend), request_handler, logger or logging.getLogger(__name__)
        )
        self._hosts = check_hosts(host)
        self._port = check_port(port)
        self._protocol = protocol
        self._request_handler = request_handler
        self._backlog = check_backlog(backlog)
        self._reuse_port = check_reuse_port(reuse_port)
        self._max_recv_size = check_max_recv_size(max_recv_size)
        self._new_decoder = new_decoder_factory(protocol, self._max_recv_size)
        self._connection_log_level = (
            logging.DEBUG if log_client_connection is False else logging.INFO
        )
        tls = check_server_tls(
            ssl,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            ssl_standard_compatible=ssl_standard_compatible,
        )
        self._tls = None if tls is None else TLSAcceptor(tls, self._log)

    async def _open_listeners(self) -> Sequence[socket.socket]:
        return await open_tcp_listeners(
            self._hosts,
            self._port,
            backlog=self._backlog,
            reuse_port=self._reuse_port,
            logger=self.logger,
        )

    def _start_serving(self, receivers: anyio.abc.TaskGroup, sessions: SessionTasks) -> None:
        service = StreamService(
            backend=self.backend(),
            tasks=sessions,
            handler=self._request_handler,
            new_decoder=self._new_decoder,
            encode=packet_encoder(self._protocol),
            log=self._log,
            connection_log_level=self._connection_log_level,
            tls=self._tls,
        )

        def start(sock: socket.socket, peername: Any) -> None:
            name = f"client {peername[:2]}"
            arguments = self._new_session, service, sock, peername
            sessions.start(serve_client, sessions, *arguments, name=name)

        for listener in self._listeners:
            receivers.start_soon(accept_forever, listener, start, self.logger)

    async def _new_session(
        self, service: StreamService, sock: socket.socket, peername: Any
    ) -> StreamSession | None:
        decoder = service.new_decoder()
        try:
            address = new_socket_address(sock.getpeername(), sock.family)  # OSError: it has left
            local_address = new_socket_address(sock.getsockname(), sock.family)
            tune_tcp(sock)
            transport = await service.backend.wrap_stream_socket(
                sock, decoder.feed, self._max_recv_size
            )
        except OSError as exc:
            sock.close()
            self._log.log(logging.DEBUG, "%s left before it was served: %s", peername, exc)
            return None
        if service.tls is not None:
            secured = await service.tls.accept(transport, address)
            if secured is None:
                return None
            transport = secured
        client = ServedClient(service, transport, decoder, local_address, address)
        return StreamSession(service, client)


def check_hosts(host: str | Sequence[str] | None) -> list[str | None]:
    """Return the hosts to listen on; None stands for all interfaces."""
    given: object = host  # whatever the annotation says
    hosts = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not all(item is None or isinstance(item, str) for item in hosts):
        raise TypeError(f"Expected a host name or a sequence of host names, got {host!r}")
    return [str(item) if item else None for item in hosts]


def check_backlog(backlog: object) -> int:
    """Return how many connections may wait."""
    if backlog is None:
        return _DEFAULT_BACKLOG
    if not isinstance(backlog, int):
        raise TypeError(f"Expected an integer as backlog, got {backlog!r}")
    if backlog < 1:
        raise ValueError("backlog should be strictly positive")
    return backlog


def check_reuse_port(reuse_port: bool) -> bool:
    """Return whether to share the port."""
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("reuse_port not supported by socket module")
    return bool(reuse_port)
