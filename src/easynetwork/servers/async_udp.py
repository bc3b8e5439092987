"""A UDP server for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncUDPNetworkServer"]

import functools
import logging
import socket
from collections.abc import Sequence

from easynetwork._arguments import (
    parse_numeric_address,
    validated_hosts,
    validated_port,
    validated_reuse_port,
)
from easynetwork._typevars import _T_Request, _T_Response
from easynetwork.addresses import SocketAddress
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.protocol import DatagramProtocol
from easynetwork.servers._datagram.client import ServerSocket
from easynetwork.servers._datagram.peer_table import PeerTable
from easynetwork.servers._datagram.server import BaseDatagramServer
from easynetwork.servers.blocking import AnyDatagramRequestHandler
from easynetwork.servers.handlers import AsyncDatagramClient
from easynetwork.servers.limits import DatagramLimits
from easynetwork.sockets.adopting import UDP_SOCKETS
from easynetwork.sockets.binding import HostSockets, bind_udp_server
from easynetwork.sockets.datagrams import ask_for_sources


class AsyncUDPNetworkServer(BaseDatagramServer[SocketAddress, _T_Request, _T_Response]):
    """Serves packets over UDP.

    A peer is known by its address; on all interfaces, together with the one of the server's that it
    has asked. A datagram of a peer starts a generator of the request handler,
    in a task of its own; peers are served concurrently, the datagrams of one peer in order.

    What waits is bounded, see `DatagramLimits`: by default, 64 datagrams and 256 KiB for each peer,
    and 1,000 peers that have a generator running. A datagram that comes on top of that is dropped
    and counted, see `get_statistics()`. If all 1,000 are there when another peer sends a datagram,
    the one that has waited longest at a `yield` after its first gets a `TimeoutError` there, and
    makes room. The log gets one WARNING line when datagrams begin to be dropped, or peers to make
    room, and the next one when that has not happened for 10 seconds.

    Resource handling: `server_activate()` opens the sockets and `server_close()` closes them;
    `async with server:` does both. Datagrams that arrive while the sockets are open and
    `serve_forever()` does not run wait in the kernel.

    Processes: a child that forks off while the server runs gets no copies of its sockets, and must
    not use its event loop. A server that is only activated keeps its sockets in children: each of
    them may serve, with an event loop of its own.

    Error handling: whatever goes wrong with one datagram is logged, and concerns that datagram and
    its generator only. The log is limited as with `AsyncTCPNetworkServer`.
    """

    __slots__ = ()

    _adoption = UDP_SOCKETS

    def __init__(
        self,
        host: str | Sequence[str] | None,
        port: int,
        protocol: DatagramProtocol[_T_Response, _T_Request],
        request_handler: AnyDatagramRequestHandler[_T_Request, _T_Response],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        reuse_port: bool = False,
        limits: DatagramLimits | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Check the arguments; nothing is opened yet.

        Args:
            host: Where to listen: a name or a numeric address, several of them, or None (or `""`)
                for all interfaces. A name stands for all its addresses that this machine has; the
                others are named in the log, at level INFO. On all interfaces, a response leaves
                from the address that was asked, where the platform lets it (Linux does).
            port: The port; 0 for a random one that is free, the same for all addresses.
            protocol: The protocol object.
            request_handler: The request handler: an instance, for all peers.
            backend: The backend, or its name; by default, the framework that is running.
            reuse_port: Let several processes listen on the same port, if all of them say so
                (`SO_REUSEPORT`). Not available on Windows.
            limits: How many peers are served at a time, and what waits for them;
                `DatagramLimits()` by default.
            logger: Where to log; `easynetwork.servers.async_udp` by default.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument has a value that cannot be used.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        logger = logger or logging.getLogger(__name__)
        super().__init__(protocol, request_handler, backend, logger, limits=limits)
        hosts, port = validated_hosts(host), validated_port(port)
        bind = functools.partial(bind_udp_server, reuse_port=validated_reuse_port(reuse_port))
        self._source = HostSockets(hosts, port, socket.SOCK_DGRAM, bind, self.logger)

    def client_for(
        self, address: tuple[str, int] | tuple[str, int, int, int]
    ) -> AsyncDatagramClient[_T_Response]:
        """Return the client object of an address, for example to send the first packet.

        It sends from the first address of its family that the server listens on. On an address
        that is not a wildcard, it is equal to what `handle()` gets for datagrams from there; it is
        the same object as long as the caller keeps it.

        Args:
            address: A numeric host and a port, for example ``("192.0.2.1", 9000)`` or
                ``("fe80::1%eth0", 9000)``. Or the four items of an IPv6 address of the socket
                module.

        Raises:
            TypeError: This is not an address.
            ValueError: The host is a name, the port is 0, or the server does not listen on any
                address of that family.
            ServerClosedError: The server is closed.
        """
        self._check_open("Closed server")
        family, raw_address = parse_numeric_address(address)
        for table in self._listeners:
            if table.server_socket.family == family:
                return table.client_for(raw_address)
        raise ValueError(f"The server does not listen on an address of the family of {address!r}")

    def _new_listener(self, sock: socket.socket) -> PeerTable:
        ask_for_sources(sock, sock.getsockname()[0])  # those that other code has bound, too
        endpoint = self._backend.wrap_datagram_socket(sock)
        return PeerTable(self._service, ServerSocket(self._backend, endpoint, self._encode))
