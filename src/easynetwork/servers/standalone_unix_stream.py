"""A server for Unix streams, for programs without an event loop."""

from __future__ import annotations

__all__ = ["StandaloneUnixStreamServer"]

import functools
import logging
import os
import ssl
from collections.abc import Mapping
from typing import Any

from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.addresses import UnixSocketAddress
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.protocol import AnyStreamProtocolType
from easynetwork.servers._core.standalone import StandaloneStreamBase
from easynetwork.servers.async_unix_stream import AsyncUnixStreamServer
from easynetwork.servers.blocking import AnyStreamRequestHandler
from easynetwork.servers.handlers import AsyncStreamClient
from easynetwork.servers.limits import Limits
from easynetwork.servers.statistics import StreamStatistics
from easynetwork.sockets.adopting import UNIX_STREAM_SOCKETS


class StandaloneUnixStreamServer(StandaloneStreamBase[UnixSocketAddress, _T_Request, _T_Response]):
    """Serves packets over Unix streams, from a thread. Not available on Windows.

    `serve_forever()` makes an `AsyncUnixStreamServer` and an event loop to run it, and returns when
    both are gone, and the path as well. All other methods are for other threads.

    Error handling: whatever goes wrong with one client is logged and ends that client only.
    """

    __slots__ = ()

    _adoption = UNIX_STREAM_SOCKETS

    def __init__(  # noqa: D417 - AsyncUnixStreamServer explains the others
        self,
        path: str | os.PathLike[str] | bytes | UnixSocketAddress,
        protocol: AnyStreamProtocolType[_T_Response, _T_Request],
        request_handler: AnyStreamRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        runner_options: Mapping[str, Any] | None = None,
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

        The arguments that are not explained here are those of `AsyncUnixStreamServer`.

        Args:
            backend: The backend, or its name; asyncio by default.
            runner_options: Keyword arguments of what runs the event loop: `asyncio.Runner` or
                `trio.run`. For example `{"loop_factory": uvloop.new_event_loop}`.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument has a value that cannot be used.
            NotImplementedError: The backend is not known.
            ModuleNotFoundError: The backend is not installed.
        """
        new_server = functools.partial(
            AsyncUnixStreamServer[_T_Request, _T_Response],
            path,
            protocol,
            request_handler,
            ssl=ssl,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            ssl_standard_compatible=ssl_standard_compatible,
            backlog=backlog,
            mode=mode,
            unlink_stale=unlink_stale,
            max_recv_size=max_recv_size,
            ancillary_bufsize=ancillary_bufsize,
            log_client_connection=log_client_connection,
            limits=limits,
            logger=logger,
        )
        super().__init__(new_server, backend, runner_options)

    def get_statistics(self) -> StreamStatistics:
        """Return what has happened to the connections of this run of `serve_forever()`.

        May be called by any thread.
        """
        return self._ask(StreamStatistics(), lambda server: server.get_statistics())

    def get_clients(self) -> list[AsyncStreamClient[_T_Response]]:
        """Return the clients that are here now, whose handler has been called.

        May be called by any thread; the clients may only be used in the event loop's.
        """
        found: list[AsyncStreamClient[_T_Response]] = []
        return self._ask(found, lambda server: server.get_clients())
