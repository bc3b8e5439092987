"""A UDP socket for packets from and to any address, for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncUDPNetworkEndpoint"]

import math
import socket as _socket  # the property of this name hides the module inside the class
from typing import Generic, Self

from easynetwork._forks import close_in_children
from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.addresses import SocketAddress
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.backends.abc import DatagramEndpoint
from easynetwork.clients._async_datagram import AsyncDatagrams
from easynetwork.clients._endpoint import (
    destination,
    pair_builder,
    prepare_socket,
    validated_binding,
)
from easynetwork.exceptions import ClientClosedError
from easynetwork.protocol import DatagramProtocol
from easynetwork.sockets.binding import bind_udp
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.resolving import resolve


class AsyncUDPNetworkEndpoint(AsyncDatagrams, Generic[_T_Sent, _T_Received]):
    """Sends packets to any address and receives packets from any address, one datagram each.

    For example to find servers by broadcast, or to talk to several peers over one socket.

    It binds its socket by `async with endpoint:`, or by the first operation that needs it. Methods
    must be called in the event loop's thread. Several tasks may send at once, and several may
    receive: each packet goes to one of them, in the order in which they asked. Datagrams that are
    not asked for wait in the kernel, which drops what is too much.

    ``async for packet, address in endpoint:`` receives packets until the endpoint is closed.

    Resource handling: `aclose()` closes the socket, and so does leaving `async with`.

    Error handling: errors of the operating system are raised as they are, and do not end anything.
    A peer that is gone is no error: the operating system does not tell an unconnected socket.
    Operations on an endpoint closed here raise `ClientClosedError`.
    """

    __slots__ = ()

    def __init__(
        self,
        protocol: DatagramProtocol[_T_Sent, _T_Received],
        *,
        local_address: tuple[str, int] | None = None,
        reuse_address: bool = False,
        reuse_port: bool = False,
        broadcast: bool = False,
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
    ) -> None:
        """Check the arguments; the socket is bound later.

        Args:
            protocol: The protocol object.
            local_address: Where to receive, and to send from: a host and a port. The host also
                decides whether that is IPv4 or IPv6: `""` stands for all IPv4 interfaces, `"::"`
                for all IPv6 interfaces. By default, a random port on all IPv4 interfaces.
            reuse_address: Let several sockets share the port, if all of them say so: each gets
                what is sent to a broadcast or multicast address (`SO_REUSEADDR`).
            reuse_port: Let several processes of one user share the port, if all of them say so
                (`SO_REUSEPORT`). Not available on Windows.
            broadcast: Whether packets may be sent to a broadcast address (`SO_BROADCAST`).
            backend: The backend, or its name; by default, the framework that is running.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument has a value that cannot be used.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        target = validated_binding(local_address, reuse_address, reuse_port, broadcast)
        super().__init__(target, protocol, backend)
        self._build = pair_builder(self._build)

    @classmethod
    def from_socket(
        cls,
        sock: _socket.socket,
        protocol: DatagramProtocol[_T_Sent, _T_Received],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
    ) -> Self:
        """Return an endpoint on a socket of yours.

        Args:
            sock: A UDP socket that is not connected, and that belongs to the endpoint from now on.
                If it is not bound, it gets a random port.
            protocol: The protocol object.
            backend: The backend, or its name; by default, the framework that is running.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: The socket is of another kind, or connected. It is closed, as it is after
                any other error.
            OSError: The socket is closed.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        with close_on_error(sock):
            prepare_socket(sock)
            self = cls(protocol, backend=backend)
        self._target = sock
        return self

    async def __aenter__(self) -> Self:
        """Bind the socket.

        Raises:
            ClientClosedError: The endpoint is closed.
            OSError: The address cannot be bound, or the host cannot be resolved.
        """
        await self._connected()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Call `aclose()`."""
        await self.aclose()

    async def _new_socket(self) -> _socket.socket:
        host, port, options = self._target
        return bind_udp(await resolve(host, port, _socket.SOCK_DGRAM), options)

    async def _wrap(self, sock: _socket.socket) -> DatagramEndpoint:
        endpoint = await super()._wrap(sock)
        close_in_children(sock)
        return endpoint

    def get_local_address(self) -> SocketAddress:
        """Return the address that the socket is bound to.

        Raises:
            ClientClosedError: The endpoint is closed.
            OSError: The socket is not bound yet.
        """
        return self._open_transport().local_address  # type: ignore[return-value]  # as of UDP

    async def send_packet_to(
        self, packet: _T_Sent, address: tuple[str, int] | tuple[str, int, int, int]
    ) -> None:
        """Send a packet to an address. Several tasks may send at once.

        Waits while the kernel has no room for it, which is seldom.

        Args:
            packet: What to send.
            address: A numeric host and a port, or the four items of an IPv6 address of the socket
                module; for example what `recv_packet_from()` returned.

        Raises:
            ClientClosedError: The endpoint is closed.
            TypeError: This is not an address.
            ValueError: The host is a name or of another family than the socket, or the port is 0.
            PermissionError: This is a broadcast address, and `broadcast` is off.
            OSError: The socket cannot be bound, the datagram is too long (`EMSGSIZE`), or it cannot
                be sent for another reason.
            ProtocolCrashedError: The protocol object cannot make bytes of the packet (the cause);
                nothing was sent.
        """
        endpoint = await self._connected()
        await self._send(packet, None, destination(address, endpoint.local_address))

    async def recv_packet_from(self) -> tuple[_T_Received, SocketAddress]:
        """Wait for a packet; return it and the address that it came from.

        Nothing is lost when this is cancelled.

        Raises:
            ClientClosedError: The endpoint is closed.
            DatagramProtocolParseError: A datagram is not a packet. Its attribute `sender_address`
                tells where it came from. The next call continues after it.
            OSError: The socket cannot be bound, or has another problem.
            ProtocolCrashedError: The protocol object has a bug (the cause).
        """
        return await self._receive(math.inf)  # type: ignore[no-any-return]  # see `pair_builder`

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[_T_Received, SocketAddress]:
        try:
            return await self.recv_packet_from()
        except ClientClosedError:
            raise StopAsyncIteration from None
