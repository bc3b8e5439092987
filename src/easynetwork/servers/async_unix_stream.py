"""A server for Unix streams, for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncUnixStreamServer"]

import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Self, TypeVar

import anyio.abc

from easynetwork._arguments import (
    validated_ancillary_bufsize,
    validated_backlog,
    validated_max_recv_size,
)
from easynetwork.addresses import UnixSocketAddress
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral, ensure_backend
from easynetwork.backends.abc import SessionTasks
from easynetwork.backends.socket_listener import SocketListener, UnixListening
from easynetwork.protocol import AnyStreamProtocolType
from easynetwork.servers._core.life_cycle import BaseAsyncNetworkServer
from easynetwork.servers._core.unix_names import UnixPeer
from easynetwork.servers._core.unix_paths import PathSource, name_and_release
from easynetwork.servers._stream.options import check_stream_arguments, new_stream_options
from easynetwork.servers._stream.service import StreamService
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from easynetwork.sockets.adopting import UNIX_FAMILIES, AdoptedSockets, check_adopting_options
from easynetwork.sockets.closing import close_on_error

_T_Request = TypeVar("_T_Request")
_T_Response = TypeVar("_T_Response")


class AsyncUnixStreamServer(
    BaseAsyncNetworkServer[SocketListener, UnixSocketAddress], Generic[_T_Request, _T_Response]
):
    """Serves packets over Unix streams. Not available on Windows.

    It is like `AsyncTCPNetworkServer`, except for what is said here.

    Resource handling: `server_activate()` makes the path, and `server_close()` removes it, unless
    another file is there by then. A process that is killed leaves its path behind, and the next
    server cannot bind it: see `unlink_stale`. A child that forks off never removes the path.

    Ancillary data: a handler that yields `RecvParams` with `recv_with_ancillary` gets the
    descriptors and credentials that the client sent with the packet. If the packet is here already,
    it is delivered without any. Otherwise the socket is read once, and `data_received` is called,
    maybe with nothing; if the packet is not complete then, `EOFError` is raised at the `yield`, and
    its bytes are kept for the next one. If ancillary data was cut off, that is an `OSError`
    (`EMSGSIZE`). What is not asked for is dropped, and its descriptors are closed. There is none
    over TLS (`UnsupportedOperation`).

    Clients: `client.extra()` takes the keys of `UNIXClientAttribute`. The log names the process,
    user and group of each client that connects.
    """

    __slots__ = ("_max_recv_size", "_service")

    def __init__(  # noqa: D417 - AsyncTCPNetworkServer explains the others
        self,
        path: str | os.PathLike[str] | bytes | UnixSocketAddress,
        protocol: AnyStreamProtocolType[_T_Response, _T_Request],
        request_handler: AsyncStreamRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        ssl: ssl.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_standard_compatible: bool | None = None,
        backlog: int | None = None,
        mode: int | None = None,
        unlink_stale: bool = False,
        max_recv_size: int | None = None,
        ancillary_bufsize: int | None = None,
        log_client_connection: bool | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Check the arguments; nothing is opened yet.

        The arguments that are not explained here are those of `AsyncTCPNetworkServer`.

        Args:
            path: Where to listen: a path of at most 107 bytes; or, on Linux, an abstract name (text
                or bytes that begin with a null character), or `""` for an abstract name that the
                kernel chooses.
            mode: The permissions of the path: 0o660, for example, for the owner and the group.
                Nobody else can connect, not even for a moment. By default, they are those that the
                umask leaves.
            unlink_stale: Replace a socket at `path` on which no server listens. A path that is in
                use, and a file that is not a socket, are never replaced. Servers that do this never
                disturb each other: they lock the file ``<path>.lock``, which stays. A program that
                binds the path without that lock may lose it if it binds in the same moment.
            ancillary_bufsize: The most bytes of ancillary data to receive with one packet. By
                default, 8,192 and what the kernel needs beside: Linux sends at most 253
                descriptors, in 1,012 bytes.
            logger: Where to log; `easynetwork.servers.async_unix_stream` by default.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument has a value that cannot be used.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        check_stream_arguments(protocol, request_handler)
        super().__init__(
            ensure_backend(backend), request_handler, logger or logging.getLogger(__name__)
        )
        self._source = PathSource(
            path,
            mode,
            unlink_stale,
            self._backend,
            socket.SOCK_STREAM,
            validated_backlog(backlog),
        )
        self._max_recv_size = validated_max_recv_size(max_recv_size)
        tls = {
            "context": ssl,
            "ssl_handshake_timeout": ssl_handshake_timeout,
            "ssl_shutdown_timeout": ssl_shutdown_timeout,
            "ssl_standard_compatible": ssl_standard_compatible,
        }
        options = new_stream_options(
            self._backend,
            protocol,
            request_handler,
            self._log,
            max_recv_size=self._max_recv_size,
            log_client_connection=log_client_connection,
            ancillary_bufsize=validated_ancillary_bufsize(ancillary_bufsize),
            tls=tls,
        )
        self._service = StreamService(options)

    @classmethod
    def from_sockets(
        cls,
        sockets: Iterable[socket.socket],
        protocol: AnyStreamProtocolType[_T_Response, _T_Request],
        request_handler: AsyncStreamRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        **options: Any,
    ) -> Self:
        """Return a server on sockets that other code has bound.

        As `AsyncTCPNetworkServer.from_sockets()`, for listening Unix stream sockets. Their paths
        are not removed.
        """
        check_adopting_options(options)
        server = cls("/", protocol, request_handler, backend, **options)
        server._source = AdoptedSockets(sockets, socket.SOCK_STREAM, UNIX_FAMILIES)
        return server

    async def _open_listeners(self) -> list[SocketListener]:
        sockets = await self._source.open()
        with close_on_error(*sockets):
            return [self._new_listener(sock) for sock in sockets]

    def _new_listener(self, sock: socket.socket) -> SocketListener:
        name, release = name_and_release(self._source, sock, self._log)

        def attributes_of(connection: socket.socket) -> Mapping[Any, Callable[[], Any]]:
            return UnixPeer(connection).attributes(name)

        unix = UnixListening(name, attributes_of, release)
        return SocketListener(sock, self._backend, self._max_recv_size, self._log.log, unix)

    def _start_serving(self, receivers: anyio.abc.TaskGroup, sessions: SessionTasks) -> None:
        self._service.start(self._listeners, receivers, sessions)
