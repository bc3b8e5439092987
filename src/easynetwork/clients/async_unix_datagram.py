"""A client for Unix datagrams, for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncUnixDatagramClient"]

import math
import os
import socket as _socket  # the property of this name hides the module inside the class

from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.addresses import SocketAncillary, UnixSocketAddress
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.backends.abc import DatagramEndpoint
from easynetwork.clients._addresses import UnixNames
from easynetwork.clients._async_datagram import BaseAsyncDatagramClient
from easynetwork.clients._target import validated_unix_datagram_target
from easynetwork.clients._unix import LocalPath, collecting, validated_reception
from easynetwork.protocol import DatagramProtocol
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.unix import connect_unix


class AsyncUnixDatagramClient(BaseAsyncDatagramClient[_T_Sent, _T_Received], UnixNames):
    """Sends packets to one Unix socket and receives packets from there. Not available on Windows.

    It is like `AsyncUDPNetworkClient`, except that nothing is lost on the way: sending waits while
    the peer does not read. Packets may have ancillary data.

    Error handling: if the server is gone, sending raises `ConnectionRefusedError`. Linux has
    disconnected the client's socket then: further operations raise `OSError` (`ENOTCONN`). Close
    the client and make another one.
    """

    __slots__ = ("_local_path",)

    def __init__(
        self,
        path: str | os.PathLike[str] | bytes | UnixSocketAddress | _socket.socket,
        /,
        protocol: DatagramProtocol[_T_Sent, _T_Received],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        local_path: str | os.PathLike[str] | bytes | UnixSocketAddress | None = None,
    ) -> None:
        """Check the arguments; the socket is connected later.

        Args:
            path: Where to send: a path or, on Linux, an abstract name (text or bytes that begin
                with a null character). Or a Unix datagram socket that is connected and has a name;
                it belongs to the client from now on.
            protocol: The protocol object.
            backend: The backend, or its name; by default, the framework that is running.
            local_path: The name of this end, to which the peer answers. A path is removed when the
                client is closed. By default, an abstract name that Linux chooses; needed on other
                systems.

        Raises:
            TypeError: An argument is of the wrong type, or does not go with a socket.
            ValueError: An argument has a value that cannot be used.
            OSError: The socket is not connected.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        with close_on_error(path):
            target, local = validated_unix_datagram_target(path, local_path, type(self).__name__)
            super().__init__(target, protocol, backend)
        self._local_path = LocalPath(local)

    async def _new_socket(self) -> _socket.socket:
        with self._local_path.new_socket(_socket.SOCK_DGRAM) as sock:
            await connect_unix(sock, self._target)
            return sock

    async def _close(self, transport: DatagramEndpoint) -> None:
        self._local_path.remove()
        await super()._close(transport)

    async def send_packet(
        self, packet: _T_Sent, *, ancillary_data: SocketAncillary | None = None
    ) -> None:
        """Send a packet; connect first if need be. Several tasks may send at once.

        Waits while the peer does not read what was sent before.

        Args:
            packet: What to send.
            ancillary_data: Descriptors and credentials to send with it. When this returns, the
                kernel has the descriptors, and they may be closed here.

        Raises:
            OSError: The socket cannot be connected, the peer is gone, the datagram is too long
                (`EMSGSIZE`), or the kernel refuses the ancillary data (`EBADF` for a closed
                descriptor). Nothing was sent.
            Exception: As `AbstractAsyncNetworkClient.send_packet()`.
        """
        await self._send(packet, None if ancillary_data is None else ancillary_data.as_raw())

    async def recv_packet(
        self, *, ancillary_data: SocketAncillary | None = None, ancillary_bufsize: int | None = None
    ) -> _T_Received:
        """Wait for a packet and return it; connect first if need be.

        Args:
            ancillary_data: Where to add what comes with the packet; the descriptors belong to the
                caller, who has to close them. What is not asked for is dropped, and its descriptors
                are closed.
            ancillary_bufsize: The most bytes of ancillary data; enough for Linux by default.

        Raises:
            OSError: Ancillary data was cut off (`EMSGSIZE`): it is closed, and the packet is lost.
            RuntimeError: Ancillary data could not be parsed (the cause).
            Exception: As `AbstractAsyncNetworkClient.recv_packet()`.
        """
        bufsize = validated_reception(ancillary_data, ancillary_bufsize)
        if ancillary_data is None:
            return await super().recv_packet()
        with collecting(ancillary_data) as received:
            packet: _T_Received = await self._receive(
                math.inf, lambda endpoint: endpoint.receive_with_ancillary(bufsize, received)
            )
            return packet
