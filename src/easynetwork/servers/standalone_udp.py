"""A UDP server for programs without an event loop."""

from __future__ import annotations

__all__ = ["StandaloneUDPNetworkServer"]

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.addresses import SocketAddress
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.protocol import DatagramProtocol
from easynetwork.servers._core.standalone import StandaloneDatagramBase
from easynetwork.servers.async_udp import AsyncUDPNetworkServer
from easynetwork.servers.blocking import AnyDatagramRequestHandler
from easynetwork.servers.limits import DatagramLimits
from easynetwork.servers.statistics import DatagramStatistics
from easynetwork.sockets.adopting import UDP_SOCKETS


class StandaloneUDPNetworkServer(StandaloneDatagramBase[SocketAddress, _T_Request, _T_Response]):
    """Serves packets over UDP, from a thread.

    `serve_forever()` makes an `AsyncUDPNetworkServer` and an event loop to run it, and returns when
    both are gone. All other methods are for other threads.

    Resource handling: `serve_forever()` opens what it needs and closes it before it returns.
    `with server:` closes the server for good at the end of the block.

    Error handling: whatever goes wrong with one client is logged and concerns that client only.
    """

    __slots__ = ()

    _adoption = UDP_SOCKETS

    def __init__(  # noqa: D417 - AsyncUDPNetworkServer explains the others
        self,
        host: str | Sequence[str] | None,
        port: int,
        protocol: DatagramProtocol[_T_Response, _T_Request],
        request_handler: AnyDatagramRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        runner_options: Mapping[str, Any] | None = None,
        reuse_port: bool = False,
        limits: DatagramLimits | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Check the arguments; nothing is opened yet.

        The arguments that are not explained here are those of `AsyncUDPNetworkServer`.

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
            AsyncUDPNetworkServer[_T_Request, _T_Response],
            host,
            port,
            protocol,
            request_handler,
            reuse_port=reuse_port,
            limits=limits,
            logger=logger,
        )
        super().__init__(new_server, backend, runner_options)

    def get_statistics(self) -> DatagramStatistics:
        """Return what became of the datagrams of this run so far; zeros if the server does not run.

        While the server starts, this waits until it listens.
        """
        return self._ask(DatagramStatistics(), lambda server: server.get_statistics())
