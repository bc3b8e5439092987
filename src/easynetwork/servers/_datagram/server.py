"""What servers of datagrams have in common."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, Generic

import anyio.abc

from easynetwork._typevars import _T_Address, _T_Request, _T_Response
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral, ensure_backend
from easynetwork.backends.abc import SessionTasks
from easynetwork.codec import datagram_builder, datagram_encoder
from easynetwork.protocol import DatagramProtocol, check_datagram_protocol
from easynetwork.servers._core.drain import Drain
from easynetwork.servers._core.life_cycle import BaseAsyncNetworkServer
from easynetwork.servers._core.threads import asynchronous_datagram_handler
from easynetwork.servers._datagram.counts import DatagramCounts
from easynetwork.servers._datagram.peer_table import PeerTable
from easynetwork.servers._datagram.places import Places
from easynetwork.servers._datagram.session import DatagramService
from easynetwork.servers.blocking import AnyDatagramRequestHandler
from easynetwork.servers.limits import DatagramLimits, check_limits
from easynetwork.servers.statistics import DatagramStatistics
from easynetwork.sockets.messages import ReceivedDatagram


class BaseDatagramServer(
    BaseAsyncNetworkServer[
        PeerTable,
        _T_Address,
        AnyDatagramRequestHandler[_T_Request, _T_Response],
        DatagramProtocol[_T_Response, _T_Request],
    ],
    Generic[_T_Address, _T_Request, _T_Response],
):
    """Everything but where the sockets come from, and what kind they are."""

    __slots__ = ("_counts", "_drain", "_encode", "_service")

    def __init__(
        self,
        protocol: DatagramProtocol[_T_Response, _T_Request],
        request_handler: AnyDatagramRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None,
        logger: logging.Logger,
        *,
        limits: DatagramLimits | None = None,
        has_ancillary: bool = False,
    ) -> None:
        check_datagram_protocol(protocol)
        handler = asynchronous_datagram_handler(request_handler)
        super().__init__(ensure_backend(backend), handler, logger)
        self._encode = datagram_encoder(protocol)
        self._counts = DatagramCounts(self._log)
        build = datagram_builder(protocol)
        if has_ancillary:
            build = _without_ancillary(build)
        places = Places(check_limits(limits, DatagramLimits), self._counts)
        self._service = DatagramService(
            handler, build, self._log, self._counts, places, has_ancillary
        )

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

    def _start_serving(self, receivers: anyio.abc.TaskGroup, sessions: SessionTasks) -> None:
        tables = self._listeners
        self._service.own_addresses = frozenset(table.local_address for table in tables)
        for table in tables:
            table.server_socket.is_up = True
            receivers.start_soon(table.serve, sessions)

    def _end_serving(self) -> None:
        for table in self._listeners:
            table.server_socket.is_up = table.server_socket.is_draining = False

    def _begin_draining(self, drain: Drain) -> None:
        self._drain = drain
        for table in self._listeners:
            table.server_socket.is_draining = True

    async def _stop_taking(self, tasks: SessionTasks) -> None:
        for table in self._listeners:
            await table.stop_receiving(self._drain.changed)
        tasks.is_ending = True

    def _count_clients(self) -> int:
        return sum(table.count_peers() for table in self._listeners)

    def _end_silent(self) -> float:
        for table in self._listeners:
            table.stop_waiting()
        return math.inf


def _without_ancillary(build: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a function that closes what came with a datagram, before it makes a packet of it."""

    def build_packet(datagram: bytes) -> Any:
        if isinstance(datagram, ReceivedDatagram):
            datagram.close()
        return build(bytes(datagram))

    return build_packet
