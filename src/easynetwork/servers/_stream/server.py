"""What servers of connections have in common."""

from __future__ import annotations

import logging
import socket
from abc import abstractmethod
from typing import Any, Generic

import anyio.abc

from easynetwork._arguments import validated_max_recv_size
from easynetwork._tls_options import new_server_tls
from easynetwork._typevars import _T_Address
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral, ensure_backend
from easynetwork.backends.abc import SessionTasks
from easynetwork.backends.socket_listener import SocketListener
from easynetwork.codec import new_decoder_factory, packet_encoder
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol
from easynetwork.servers._core.life_cycle import BaseAsyncNetworkServer
from easynetwork.servers._stream.options import StreamOptions
from easynetwork.servers._stream.service import StreamService
from easynetwork.servers._stream.tls import TLSAcceptor
from easynetwork.servers.handlers import AsyncStreamRequestHandler
from easynetwork.sockets.closing import close_on_error


class BaseStreamServer(BaseAsyncNetworkServer[SocketListener, _T_Address], Generic[_T_Address]):
    """Everything but where the sockets come from, and what kind they are.

    Args:
        tls: The arguments of `new_server_tls`.
        ancillary_bufsize: See `StreamOptions`.
    """

    __slots__ = ("_max_recv_size", "_service")

    def __init__(
        self,
        protocol: AnyStreamProtocolType[Any, Any],
        request_handler: AsyncStreamRequestHandler[Any, Any],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None,
        logger: logging.Logger,
        *,
        max_recv_size: int | None,
        log_client_connection: bool | None,
        tls: dict[str, Any],
        ancillary_bufsize: int | None = None,
    ) -> None:
        check_stream_protocol(protocol)
        if not isinstance(request_handler, AsyncStreamRequestHandler):
            raise TypeError(
                f"Expected an AsyncStreamRequestHandler object, got {request_handler!r}"
            )
        super().__init__(ensure_backend(backend), request_handler, logger)
        self._max_recv_size = validated_max_recv_size(max_recv_size)
        tls_options = new_server_tls(**tls)
        options = StreamOptions(
            backend=self._backend,
            handler=request_handler,
            new_decoder=new_decoder_factory(protocol, self._max_recv_size),
            encode=packet_encoder(protocol),
            log=self._log,
            connection_log_level=logging.DEBUG if log_client_connection is False else logging.INFO,
            tls=None if tls_options is None else TLSAcceptor(tls_options, self._log),
            ancillary_bufsize=ancillary_bufsize,
        )
        self._service = StreamService(options)

    async def _open_listeners(self) -> list[SocketListener]:
        sockets = await self._source.open()
        with close_on_error(*sockets):
            return [self._new_listener(sock) for sock in sockets]

    @abstractmethod
    def _new_listener(self, sock: socket.socket) -> SocketListener:
        """Return the listener of a socket."""

    def _start_serving(self, receivers: anyio.abc.TaskGroup, sessions: SessionTasks) -> None:
        self._service.start(self._listeners, receivers, sessions)
