"""A server for Unix streams, for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncUnixStreamServer"]

import logging
import os
import socket
import ssl

from easynetwork._arguments import validated_ancillary_bufsize, validated_backlog
from easynetwork._tls_options import new_server_tls
from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.addresses import UnixSocketAddress
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.backends.socket_listener import SocketListener, UnixListening
from easynetwork.protocol import AnyStreamProtocolType
from easynetwork.servers._core.unix_names import UnixPeer
from easynetwork.servers._core.unix_paths import PathSource, name_and_release
from easynetwork.servers._stream.server import BaseStreamServer
from easynetwork.servers.blocking import AnyStreamRequestHandler
from easynetwork.servers.limits import Limits
from easynetwork.sockets.adopting import UNIX_STREAM_SOCKETS


class AsyncUnixStreamServer(BaseStreamServer[UnixSocketAddress, _T_Request, _T_Response]):
    """Serves packets over Unix streams. Not available on Windows.

    It is like `AsyncTCPNetworkServer`, except for what is said here.

    Resource handling: `server_activate()` makes the path, and `server_close()` removes it, unless
    another file is there by then. A process that is killed leaves its path behind, and the next
    server cannot bind it: see `unlink_stale`. A child that forks off never removes the path.

    Ancillary data: a handler that yields `RecvParams` with `recv_with_ancillary` gets the
    descriptors and credentials that the client sent with the packet. If the packet is here already,
    it is delivered without any. Otherwise the socket is read once, and `data_received` is called,
    maybe with nothing; if the packet is not complete then, `EOFError` is raised at the `yield`, and
    its bytes are kept for the next one. Packets that have arrived together are read together, and
    what came with the second is handed over with the first. If ancillary data was cut off, that is
    an `OSError` (`EMSGSIZE`). What is not asked for is dropped, and its descriptors are closed.
    There is none over TLS (`UnsupportedOperation`).

    Trust: whatever a server does, the kernel receives the descriptors that a client passes, and
    closing some of them takes time: a TCP socket with SO_LINGER holds up the process that closes it
    last (:manpage:`socket(7)`). So let only users connect that you trust: see `mode`.

    Clients: `client.extra()` takes the keys of `UNIXClientAttribute`. The log names the process,
    user and group of each client that connects.
    """

    __slots__ = ()

    _adoption = UNIX_STREAM_SOCKETS

    def __init__(  # noqa: D417 - AsyncTCPNetworkServer explains the others
        self,
        path: str | os.PathLike[str] | bytes | UnixSocketAddress,
        protocol: AnyStreamProtocolType[_T_Response, _T_Request],
        request_handler: AnyStreamRequestHandler[_T_Request, _T_Response],
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
        limits: Limits | None = None,
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
        tls_options = ssl_handshake_timeout, ssl_shutdown_timeout, ssl_standard_compatible
        super().__init__(
            protocol,
            request_handler,
            backend,
            (logger or logging.getLogger(__name__), log_client_connection),
            max_recv_size=max_recv_size,
            limits=limits,
            ancillary_bufsize=validated_ancillary_bufsize(ancillary_bufsize),
            tls=new_server_tls(ssl, tls_options),
        )
        self._source = PathSource(
            path, mode, unlink_stale, self._backend, socket.SOCK_STREAM, validated_backlog(backlog)
        )

    def _new_listener(self, sock: socket.socket) -> SocketListener:
        name, release = name_and_release(self._source, sock, self._log)
        unix = UnixListening(name, lambda sock: UnixPeer(sock).attributes(name), release)
        return SocketListener(
            sock,
            self._backend,
            self._max_recv_size,
            self._log.log,
            unix,
            self._census.note_lost,
        )
