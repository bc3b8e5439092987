"""What servers of connections have in common."""

from __future__ import annotations

import logging
import socket
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Generic, Self

import anyio.abc

from easynetwork._arguments import validated_max_recv_size
from easynetwork._tls_options import new_server_tls
from easynetwork._typevars import _T_Address, _T_Request, _T_Response
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral, ensure_backend
from easynetwork.backends.abc import SessionTasks
from easynetwork.backends.socket_listener import SocketListener
from easynetwork.codec import new_decoder_factory, packet_encoder
from easynetwork.protocol import AnyStreamProtocolType, check_stream_protocol
from easynetwork.servers._core.life_cycle import BaseAsyncNetworkServer
from easynetwork.servers._core.threads import asynchronous_stream_handler
from easynetwork.servers._stream.options import StreamOptions
from easynetwork.servers._stream.service import StreamService
from easynetwork.servers._stream.tls import TLSAcceptor
from easynetwork.servers.blocking import AnyStreamRequestHandler
from easynetwork.sockets.adopting import Adoption
from easynetwork.sockets.closing import close_on_error


class BaseStreamServer(
    BaseAsyncNetworkServer[SocketListener, _T_Address], Generic[_T_Address, _T_Request, _T_Response]
):
    """Everything but where the sockets come from, and what kind they are.

    Args:
        tls: The arguments of `new_server_tls`.
        ancillary_bufsize: See `StreamOptions`.
    """

    __slots__ = ("_max_recv_size", "_service")

    _adoption: ClassVar[Adoption]

    def __init__(
        self,
        protocol: AnyStreamProtocolType[_T_Response, _T_Request],
        request_handler: AnyStreamRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None,
        logger: logging.Logger,
        *,
        max_recv_size: int | None,
        log_client_connection: bool | None,
        tls: dict[str, Any],
        ancillary_bufsize: int | None = None,
    ) -> None:
        check_stream_protocol(protocol)
        handler = asynchronous_stream_handler(request_handler)
        super().__init__(ensure_backend(backend), handler, logger)
        self._max_recv_size = validated_max_recv_size(max_recv_size)
        tls_options = new_server_tls(**tls)
        options = StreamOptions(
            backend=self._backend,
            handler=handler,
            new_decoder=new_decoder_factory(protocol, self._max_recv_size),
            encode=packet_encoder(protocol),
            log=self._log,
            connection_log_level=logging.DEBUG if log_client_connection is False else logging.INFO,
            tls=None if tls_options is None else TLSAcceptor(tls_options, self._log),
            ancillary_bufsize=ancillary_bufsize,
        )
        self._service = StreamService(options)

    @classmethod
    def from_sockets(
        cls,
        sockets: Iterable[socket.socket],
        protocol: AnyStreamProtocolType[_T_Response, _T_Request],
        request_handler: AnyStreamRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        **options: Any,
    ) -> Self:
        """Return a server on sockets that other code has bound.

        For example, on those that `easynetwork.sockets.inherited_sockets()` returns. Clients that
        have connected before wait in the backlog.

        The sockets become non-blocking and non-inheritable, and belong to the server:
        `server_close()` closes them, also if the server was never activated. It only closes its own
        descriptors: other processes that have these sockets keep them. The paths of Unix sockets
        are not removed.

        Args:
            sockets: Listening sockets of the server's kind, TCP or Unix: at least one, and none
                twice.
            protocol: The protocol object.
            request_handler: The request handler: an instance, for all clients.
            backend: The backend, or its name; by default, the framework that is running.
            **options: Keyword arguments of the constructor, except those about binding:
                `reuse_port`, `mode`, `unlink_stale` and `backlog`.

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

    async def _open_listeners(self) -> list[SocketListener]:
        sockets = await self._source.open()
        with close_on_error(*sockets):
            return [self._new_listener(sock) for sock in sockets]

    @abstractmethod
    def _new_listener(self, sock: socket.socket) -> SocketListener:
        """Return the listener of a socket."""

    def _start_serving(self, receivers: anyio.abc.TaskGroup, sessions: SessionTasks) -> None:
        self._service.start(self._listeners, receivers, sessions)
