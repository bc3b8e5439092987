"""A UDP server for programs without an event loop."""

from __future__ import annotations

__all__ = ["StandaloneUDPNetworkServer"]

import functools
import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Self

from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.addresses import SocketAddress
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.protocol import DatagramProtocol
from easynetwork.servers._core.standalone import BaseStandaloneNetworkServer
from easynetwork.servers.async_udp import AsyncUDPNetworkServer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler
from easynetwork.servers.statistics import DatagramStatistics
from easynetwork.sockets.adopting import INET_FAMILIES, AdoptedSockets, check_adopting_options


class StandaloneUDPNetworkServer(
    BaseStandaloneNetworkServer[SocketAddress], Generic[_T_Request, _T_Response]
):
    """Serves packets over UDP, from a thread.

    `serve_forever()` makes an `AsyncUDPNetworkServer` and an event loop to run it, and returns when
    both are gone. All other methods are for other threads.

    Resource handling: `serve_forever()` opens what it needs and closes it before it returns.
    `with server:` closes the server for good at the end of the block.

    Error handling: whatever goes wrong with one client is logged and concerns that client only.
    """

    __slots__ = ()

    def __init__(  # noqa: D417 - AsyncUDPNetworkServer explains the others
        self,
        host: str | Sequence[str] | None,
        port: int,
        protocol: DatagramProtocol[_T_Response, _T_Request],
        request_handler: AsyncDatagramRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        runner_options: Mapping[str, Any] | None = None,
        reuse_port: bool = False,
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
        super().__init__(
            functools.partial(
                AsyncUDPNetworkServer[_T_Request, _T_Response],
                host,
                port,
                protocol,
                request_handler,
                reuse_port=reuse_port,
                logger=logger,
            ),
            backend,
            runner_options,
        )

    @classmethod
    def from_sockets(
        cls,
        sockets: Iterable[socket.socket],
        protocol: DatagramProtocol[_T_Response, _T_Request],
        request_handler: AsyncDatagramRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        **options: Any,
    ) -> Self:
        """Return a server on sockets that other code has bound.

        For example, on those that `easynetwork.sockets.inherited_sockets()` returns. Datagrams that
        have arrived before wait in the kernel.

        The sockets become non-blocking and non-inheritable, and belong to the server:
        `server_close()` closes them, also if the server was never activated. It only closes its own
        descriptors: other processes that have these sockets keep them.

        Each run serves on duplicates, and closes these at its end. What arrives between two runs
        waits for the next.

        Args:
            sockets: UDP sockets that are bound and not connected: at least one, and none twice.
            protocol: The protocol object.
            request_handler: The request handler: an instance, for all peers.
            backend: The backend, or its name; by default, asyncio.
            **options: Keyword arguments of the constructor, except `reuse_port`.

        Raises:
            TypeError: An argument is of the wrong type, or is about binding sockets.
            ValueError: An argument, or a socket, cannot be used. The caller keeps the sockets after
                any error, and they are unchanged.
            NotImplementedError: The backend is not known.
            ModuleNotFoundError: The backend is not installed.
        """
        check_adopting_options(options)
        server = cls(None, 0, protocol, request_handler, backend, **options)
        server._adopted = AdoptedSockets(sockets, socket.SOCK_DGRAM, INET_FAMILIES)
        return server

    def get_statistics(self) -> DatagramStatistics:
        """Return what became of the datagrams of this run so far; zeros if the server does not run.

        While the server starts, this waits until it listens.
        """
        return self._ask(DatagramStatistics(), lambda server: server.get_statistics())
