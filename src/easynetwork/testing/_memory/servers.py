"""The servers and the clients of the library, on a network in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio.lowlevel

from easynetwork._typevars import _T_Received, _T_Request, _T_Response, _T_Sent
from easynetwork.backends.abc import DatagramEndpoint, StreamTransport
from easynetwork.backends.tls_transport import start_tls
from easynetwork.clients.async_tcp import AsyncTCPNetworkClient
from easynetwork.clients.async_udp import AsyncUDPNetworkClient
from easynetwork.servers._datagram.client import ServerSocket
from easynetwork.servers._datagram.peer_table import PeerTable
from easynetwork.servers.async_tcp import AsyncTCPNetworkServer
from easynetwork.servers.async_udp import AsyncUDPNetworkServer
from easynetwork.sockets.connecting import tune_tcp
from easynetwork.testing._memory.network import MemoryNetwork
from easynetwork.testing._memory.transports import (
    MemoryDatagramEndpoint,
    MemoryListener,
    MemoryStreamTransport,
)

_ANY = ("127.0.0.1", 0)
"""Stands for the host and the port that the arguments of a server name. Nothing is bound to it."""


class MemoryTCPServer(AsyncTCPNetworkServer[_T_Request, _T_Response]):
    """A TCP server whose listener is in memory."""

    __slots__ = ("_network",)

    def __init__(self, network: MemoryNetwork, *args: Any, **options: Any) -> None:
        super().__init__(*_ANY, *args, **options)
        self._network = network

    async def _open_listeners(self) -> Sequence[MemoryListener]:
        return [self._network.listen(self._max_recv_size)]


class MemoryUDPServer(AsyncUDPNetworkServer[_T_Request, _T_Response]):
    """A UDP server whose socket is in memory."""

    __slots__ = ("_network",)

    def __init__(self, network: MemoryNetwork, *args: Any, **options: Any) -> None:
        super().__init__(*_ANY, *args, **options)
        self._network = network

    async def _open_listeners(self) -> Sequence[PeerTable]:
        endpoint = MemoryDatagramEndpoint(self._network.bind())
        return [PeerTable(self._service, ServerSocket(self._backend, endpoint, self._encode))]


class MemoryTCPClient(AsyncTCPNetworkClient[_T_Sent, _T_Received]):
    """A TCP client whose connection is in memory."""

    __slots__ = ("_connect_socket",)

    def __init__(self, connect_socket: Callable[[], Any], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._connect_socket = connect_socket

    async def _new_socket(self) -> Any:
        await anyio.lowlevel.checkpoint()
        return self._connect_socket()

    async def _wrap(self, sock: Any) -> StreamTransport:
        tune_tcp(sock)
        transport = MemoryStreamTransport(sock, self._decoder.feed, self._max_recv_size)
        return await start_tls(transport, self._tls) if self._tls else transport


class MemoryUDPClient(AsyncUDPNetworkClient[_T_Sent, _T_Received]):
    """A UDP client whose socket is in memory."""

    __slots__ = ("_connect_socket",)

    def __init__(self, connect_socket: Callable[[], Any], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._connect_socket = connect_socket

    async def _new_socket(self) -> Any:
        await anyio.lowlevel.checkpoint()
        return self._connect_socket()

    async def _wrap(self, sock: Any) -> DatagramEndpoint:
        return MemoryDatagramEndpoint(sock)
