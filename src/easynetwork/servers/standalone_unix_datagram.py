"""A server for Unix datagrams, for programs without an event loop."""

from __future__ import annotations

__all__ = ["StandaloneUnixDatagramServer"]

import functools
import logging
import os
from collections.abc import Mapping
from typing import Any, Literal

from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.addresses import UnixSocketAddress
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.protocol import DatagramProtocol
from easynetwork.servers._core.standalone import StandaloneDatagramBase
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.blocking import AnyDatagramRequestHandler
from easynetwork.servers.limits import DatagramLimits
from easynetwork.servers.statistics import DatagramStatistics
from easynetwork.sockets.adopting import UNIX_DATAGRAM_SOCKETS


class StandaloneUnixDatagramServer(
    StandaloneDatagramBase[UnixSocketAddress, _T_Request, _T_Response]
):
    """Serves packets over Unix datagrams, from a thread. Not available on Windows.

    `serve_forever()` makes an `AsyncUnixDatagramServer` and an event loop to run it, and returns
    when both are gone, and the path as well. All other methods are for other threads.

    Error handling: whatever goes wrong with one client is logged and concerns that client only.
    """

    __slots__ = ()

    _adoption = UNIX_DATAGRAM_SOCKETS

    def __init__(  # noqa: D417 - AsyncUnixDatagramServer explains the others
        self,
        path: str | os.PathLike[str] | bytes | UnixSocketAddress,
        protocol: DatagramProtocol[_T_Response, _T_Request],
        request_handler: AnyDatagramRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        runner_options: Mapping[str, Any] | None = None,
        mode: int | None = None,
        unlink_stale: bool = False,
        unnamed_addresses_behavior: Literal["ignore", "handle", "warn"] | None = None,
        receive_ancillary_data: bool = False,
        ancillary_bufsize: int | None = None,
        limits: DatagramLimits | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Check the arguments; nothing is opened yet.

        The arguments that are not explained here are those of `AsyncUnixDatagramServer`.

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
            AsyncUnixDatagramServer[_T_Request, _T_Response],
            path,
            protocol,
            request_handler,
            mode=mode,
            unlink_stale=unlink_stale,
            unnamed_addresses_behavior=unnamed_addresses_behavior,
            receive_ancillary_data=receive_ancillary_data,
            ancillary_bufsize=ancillary_bufsize,
            limits=limits,
            logger=logger,
        )
        super().__init__(new_server, backend, runner_options)

    def get_statistics(self) -> DatagramStatistics:
        """Return what became of the datagrams of this run so far; zeros if the server does not run.

        While the server starts, this waits until it listens.
        """
        return self._ask(DatagramStatistics(), lambda server: server.get_statistics())
