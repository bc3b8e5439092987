"""What servers of datagrams have in common."""

from __future__ import annotations

import logging
import socket
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Generic, Self

import anyio.abc

from easynetwork._typevars import _T_Address, _T_Request, _T_Response
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral, ensure_backend
from easynetwork.backends.abc import SessionTasks
from easynetwork.codec import datagram_builder, datagram_encoder
from easynetwork.protocol import DatagramProtocol, check_datagram_protocol
from easynetwork.servers._core.life_cycle import BaseAsyncNetworkServer
from easynetwork.servers._core.threads import asynchronous_datagram_handler
from easynetwork.servers._datagram.counts import DatagramCounts
from easynetwork.servers._datagram.peer_table import PeerTable
from easynetwork.servers._datagram.session import DatagramService
from easynetwork.servers.blocking import AnyDatagramRequestHandler
from easynetwork.servers.statistics import DatagramStatistics
from easynetwork.sockets.adopting import Adoption
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.messages import ReceivedDatagram


class BaseDatagramServer(
    BaseAsyncNetworkServer[PeerTable, _T_Address], Generic[_T_Address, _T_Request, _T_Response]
):
    """Everything but where the sockets come from, and what kind they are."""

    __slots__ = ("_counts", "_encode", "_service")

    _adoption: ClassVar[Adoption]

    def __init__(
        self,
        protocol: DatagramProtocol[_T_Response, _T_Request],
        request_handler: AnyDatagramRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None,
        logger: logging.Logger,
        *,
        has_ancillary: bool = False,
    ) -> None:
        check_datagram_protocol(protocol)
        handler = asynchronous_datagram_handler(request_handler)
        super().__init__(ensure_backend(backend), handler, logger)
        self._encode = datagram_encoder(protocol)
        self._counts = DatagramCounts(self._log)
        build = datagram_builder(protocol)
        self._service = DatagramService(
            handler=handler,
            build=_without_ancillary(build) if has_ancillary else build,
            log=self._log,
            counts=self._counts,
            has_ancillary=has_ancillary,
        )

    @classmethod
    def from_sockets(
        cls,
        sockets: Iterable[socket.socket],
        protocol: DatagramProtocol[_T_Response, _T_Request],
        request_handler: AnyDatagramRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        **options: Any,
    ) -> Self:
        """Return a server on sockets that other code has bound.

        For example, on those that `easynetwork.sockets.inherited_sockets()` returns. Datagrams that
        have arrived before wait in the kernel.

        The sockets become non-blocking and non-inheritable, and belong to the server:
        `server_close()` closes them, also if the server was never activated. It only closes its own
        descriptors: other processes that have these sockets keep them. The paths of Unix sockets
        are not removed.

        Args:
            sockets: Sockets of the server's kind, UDP or Unix, that are bound and not connected: at
                least one, and none twice.
            protocol: The protocol object.
            request_handler: The request handler: an instance, for all peers.
            backend: The backend, or its name; by default, the framework that is running.
            **options: Keyword arguments of the constructor, except those about binding:
                `reuse_port`, `mode` and `unlink_stale`.

        Raises:
            TypeError: An argument is of the wrong type, or is about binding sockets.
            ValueError: An argument, or a socket, cannot be used. The caller keeps the sockets after
                any error, and they are unchanged.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        server = cls._adoption.new_server(cls, options, protocol, request_handler, backend)
        server._source = cls._adoption.adopt(sockets)
        return server

    def get_statistics(self) -> DatagramStatistics:
        """Return what became of the datagrams that have arrived so far."""
        return self._counts.snapshot()

    async def server_close(self) -> None:
        """Close the sockets for good, and cancel the tasks of all peers.

        There is no connection that could go on without the socket.

        Raises:
            BusyResourceError: `serve_forever()` is about to start.
        """
        self._stop_sessions()
        await super().server_close()

    async def _open_listeners(self) -> list[PeerTable]:
        sockets = await self._source.open()
        with close_on_error(*sockets):
            return [self._new_table(sock) for sock in sockets]

    @abstractmethod
    def _new_table(self, sock: socket.socket) -> PeerTable:
        """Return the table of the peers of one socket."""

    def _start_serving(self, receivers: anyio.abc.TaskGroup, sessions: SessionTasks) -> None:
        for table in self._listeners:
            table.server_socket.is_up = True
            receivers.start_soon(table.serve, sessions)

    def _end_serving(self) -> None:
        for table in self._listeners:
            table.server_socket.is_up = False


def _without_ancillary(build: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a function that closes what came with a datagram, before it makes a packet of it."""

    def build_packet(datagram: bytes) -> Any:
        if isinstance(datagram, ReceivedDatagram):
            datagram.close()
        return build(bytes(datagram))

    return build_packet
