"""What servers of connections have in common."""

from __future__ import annotations

import logging
import math
from typing import Generic

import anyio.abc

from easynetwork._arguments import validated_max_recv_size
from easynetwork._tls_options import TLSOptions
from easynetwork._typevars import _T_Address, _T_Request, _T_Response
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral, ensure_backend
from easynetwork.backends.abc import Listener, SessionTasks
from easynetwork.codec import new_codec
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol
from easynetwork.servers._core.drain import Drain
from easynetwork.servers._core.life_cycle import BaseAsyncNetworkServer
from easynetwork.servers._core.threads import asynchronous_stream_handler
from easynetwork.servers._stream.census import Census
from easynetwork.servers._stream.drain import StreamDrain
from easynetwork.servers._stream.options import StreamOptions
from easynetwork.servers._stream.service import StreamService
from easynetwork.servers._stream.timeouts import Timeouts
from easynetwork.servers._stream.tls import TLSLog
from easynetwork.servers.blocking import AnyStreamRequestHandler
from easynetwork.servers.handlers import AsyncStreamClient
from easynetwork.servers.limits import Limits, check_limits
from easynetwork.servers.statistics import StreamStatistics


class BaseStreamServer(
    BaseAsyncNetworkServer[
        Listener,
        _T_Address,
        AnyStreamRequestHandler[_T_Request, _T_Response],
        AnyStreamProtocolType[_T_Response, _T_Request],
    ],
    Generic[_T_Address, _T_Request, _T_Response],
):
    """Everything but where the sockets come from, and what kind they are.

    Args:
        tls: How connections get TLS; None if they do not.
        ancillary_bufsize: See `StreamOptions`.
    """

    __slots__ = ("_census", "_limits", "_max_recv_size", "_service", "_timeouts", "_tls_log")

    def __init__(
        self,
        protocol: AnyStreamProtocolType[_T_Response, _T_Request],
        request_handler: AnyStreamRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None,
        log: tuple[logging.Logger, bool | None],
        *,
        max_recv_size: int | None,
        tls: TLSOptions | None,
        limits: Limits | None,
        ancillary_bufsize: int | None = None,
    ) -> None:
        check_stream_protocol(protocol)
        logger, log_client_connection = log
        handler = asynchronous_stream_handler(request_handler)
        super().__init__(ensure_backend(backend), handler, logger)
        self._max_recv_size = validated_max_recv_size(max_recv_size)
        self._limits = check_limits(limits, Limits)
        self._census = Census(self._limits)
        self._timeouts = Timeouts(self._log)
        self._tls_log = TLSLog(self._log)
        options = StreamOptions(
            backend=self._backend,
            handler=handler,
            codec=new_codec(protocol, self._max_recv_size),
            max_recv_size=self._max_recv_size,
            census=self._census,
            limits=self._limits,
            timeouts=self._timeouts,
            log=self._log,
            connection_log_level=logging.DEBUG if log_client_connection is False else logging.INFO,
            tls=tls,
            tls_log=self._tls_log,
            ancillary_bufsize=ancillary_bufsize,
        )
        self._service = StreamService(options)

    def get_statistics(self) -> StreamStatistics:
        """Return what has happened to the server's connections so far."""
        census = self._census
        return StreamStatistics(
            clients=census.connections,
            accepted=census.accepted,
            closed=dict(census.closed),
            invalid_packets=census.invalid_packets,
            handler_errors=self._log.handler_errors,
            tls_handshakes=self._tls_log.completed,
            tls_failures=self._tls_log.failed,
            suppressed_log_lines=self._log.suppressed,
            **census.traffic()._asdict(),
        )

    def get_clients(self) -> list[AsyncStreamClient[_T_Response]]:
        """Return the clients that are here now, whose handler has been called."""
        return [session.client for session in self._census.sessions]

    def _start_serving(self, receivers: anyio.abc.TaskGroup, sessions: SessionTasks) -> None:
        self._timeouts.start(sessions)
        limits = self._limits.in_force()
        most = limits.max_clients
        self._census.most = most if isinstance(most, int) else math.inf
        level = logging.DEBUG if self._limits == Limits() else logging.INFO
        self._log.log(level, "Clients have %s", limits)
        self._service.start(self._listeners, receivers, sessions)

    def _end_serving(self) -> None:
        self._census.drain = None

    def _begin_draining(self, drain: Drain) -> None:
        self._census.drain = StreamDrain(self._census, drain.changed)

    async def _stop_taking(self, tasks: SessionTasks) -> None:
        tasks.is_ending = True
        await self._service.stop(self._listeners, tasks)
        self._listeners = ()

    def _count_clients(self) -> int:
        return self._census.connections

    def _end_silent(self) -> float:
        drain = self._census.drain
        return math.inf if drain is None else drain.end_silent()
