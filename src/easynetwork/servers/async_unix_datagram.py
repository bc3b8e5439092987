"""A server for Unix datagrams, for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncUnixDatagramServer"]

import logging
import os
import socket
from typing import Any, Final, Literal

from easynetwork._arguments import validated_ancillary_bufsize
from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.addresses import UnixSocketAddress
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.protocol import DatagramProtocol
from easynetwork.servers._core.unix_paths import PathSource, name_and_release
from easynetwork.servers._datagram.client import ServerSocket
from easynetwork.servers._datagram.peer_table import PeerTable, UnixDatagrams
from easynetwork.servers._datagram.server import BaseDatagramServer
from easynetwork.servers.blocking import AnyDatagramRequestHandler
from easynetwork.servers.limits import DatagramLimits
from easynetwork.sockets.adopting import UNIX_DATAGRAM_SOCKETS
from easynetwork.sockets.datagrams import new_datagram_calls
from easynetwork.sockets.messages import AncillaryInbox

_UNNAMED: Final = ("ignore", "handle", "warn")


class AsyncUnixDatagramServer(BaseDatagramServer[UnixSocketAddress, _T_Request, _T_Response]):
    """Serves packets over Unix datagrams. Not available on Windows.

    It is like `AsyncUDPNetworkServer`, except that nothing is lost on the way, and for what is said
    here. A peer is known by its name.

    Resource handling: as with `AsyncUnixStreamServer`.

    Peers without a name: a socket that was not bound has none, and no answer can be sent to it. See
    `unnamed_addresses_behavior`. Each of their datagrams is handled as if it came from another
    peer, and sending to it raises `OSError` (`EINVAL`).

    Slow peers: what a peer has not read yet counts against the send buffer of the server's socket
    (`SO_SNDBUF`; :manpage:`socket(7)`), which all peers share. While it is full, `send_packet()`
    waits, to whichever peer, for at most 30 seconds; after that, it raises `TimeoutError`. So do
    not send much to a peer that does not ask for it.

    Peers that have left: sending to them raises `ConnectionRefusedError`. If that leaves the
    handler, nothing is logged.

    Ancillary data: with `receive_ancillary_data`, a handler that yields `RecvParams` with
    `recv_with_ancillary` gets the descriptors and credentials that came with the datagram. If it
    was cut off, an `OSError` (`EMSGSIZE`) is raised at the `yield`, and the datagram is what the
    next `yield` returns. What is not asked for is closed. At most 256 descriptors wait with the
    datagrams of a server: those that come on top of that are closed, and are cut off.
    """

    __slots__ = ("_ancillary_bufsize", "_unnamed")

    _adoption = UNIX_DATAGRAM_SOCKETS

    def __init__(
        self,
        path: str | os.PathLike[str] | bytes | UnixSocketAddress,
        protocol: DatagramProtocol[_T_Response, _T_Request],
        request_handler: AnyDatagramRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        mode: int | None = None,
        unlink_stale: bool = False,
        unnamed_addresses_behavior: Literal["ignore", "handle", "warn"] | None = None,
        receive_ancillary_data: bool = False,
        ancillary_bufsize: int | None = None,
        limits: DatagramLimits | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Check the arguments; nothing is opened yet.

        Args:
            path: As for `AsyncUnixStreamServer`, like the following ones.
            protocol: The protocol object.
            request_handler: The request handler: an instance, for all peers.
            backend: The backend, or its name; by default, the framework that is running.
            mode: The permissions of the path.
            unlink_stale: Replace a socket at `path` that no server uses.
            unnamed_addresses_behavior: What to do with the datagrams of a peer without a name:
                "ignore" them (the default), "warn" in the log as well, or "handle" them. Those that
                are dropped are counted: see `get_statistics()`.
            receive_ancillary_data: Receive ancillary data with datagrams, for handlers that ask for
                it.
            ancillary_bufsize: The most bytes of ancillary data to receive with one datagram. By
                default, enough for what Linux sends.
            limits: How many peers are served at a time, and what waits for them;
                `DatagramLimits()` by default.
            logger: Where to log; `easynetwork.servers.async_unix_datagram` by default.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument has a value that cannot be used.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        logger = logger or logging.getLogger(__name__)
        options: Any = {"limits": limits, "has_ancillary": bool(receive_ancillary_data)}
        super().__init__(protocol, request_handler, backend, logger, **options)
        self._source = PathSource(path, mode, unlink_stale, self._backend, socket.SOCK_DGRAM, None)
        self._unnamed = unnamed_addresses_behavior or "ignore"
        if self._unnamed not in _UNNAMED:
            raise ValueError(
                f"Invalid unnamed_addresses_behavior value, got {unnamed_addresses_behavior!r}"
            )
        self._ancillary_bufsize: int | None = None
        if receive_ancillary_data:
            self._ancillary_bufsize = validated_ancillary_bufsize(ancillary_bufsize)
        elif ancillary_bufsize is not None:
            raise ValueError(
                "ancillary_bufsize is only meaningful with receive_ancillary_data set to True"
            )

    def _new_listener(self, sock: socket.socket) -> PeerTable:
        calls = new_datagram_calls(sock)
        if self._ancillary_bufsize is not None:
            calls = AncillaryInbox(sock, self._ancillary_bufsize).calls(calls)
        endpoint = self._backend.wrap_datagram_socket(sock, calls)
        server_socket = ServerSocket(self._backend, endpoint, self._encode)
        server_socket.unix_name, release = name_and_release(self._source, sock, self._log)
        return PeerTable(self._service, server_socket, UnixDatagrams(self._unnamed, release))
