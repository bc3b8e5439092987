"""A UDP client for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncUDPNetworkClient"]

import socket as _socket  # the property of this name hides the module inside the class
from typing import Any

from easynetwork._arguments import validated_local_address
from easynetwork._typevars import _T_Received, _T_Sent
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.clients._addresses import INETAddresses
from easynetwork.clients._async_datagram import BaseAsyncDatagramClient
from easynetwork.clients._target import validated_udp_target
from easynetwork.protocol import DatagramProtocol
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.connecting import connect_udp


class AsyncUDPNetworkClient(BaseAsyncDatagramClient[_T_Sent, _T_Received], INETAddresses):
    """Sends packets to one address and receives packets from there, one datagram each.

    Packets may get lost, arrive twice or overtake others, and no error says so: UDP promises no
    more than that. The operating system ignores datagrams from other addresses.

    It connects, which sends nothing, by `async with client:`, by `wait_connected()`, or by the
    first operation that needs the socket. Methods must be called in the event loop's thread.
    Several tasks may send at once, and several may receive: each packet goes to one of them, in the
    order in which they asked.

    Resource handling: `aclose()` closes the socket, and so does leaving `async with`.

    Error handling: errors of the operating system are raised as they are, and do not end anything:
    the next operation is a new attempt. When a host answers with an ICMP message that the port is
    closed, the next operation raises `ConnectionRefusedError`; if that is `send_packet()`, its own
    packet may not have been sent. Operations on a client closed here raise
    `ClientClosedError`.
    """

    __slots__ = ("_connect_options",)

    def __init__(
        self,
        address: tuple[str, int] | _socket.socket,
        /,
        protocol: DatagramProtocol[_T_Sent, _T_Received],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        local_address: tuple[str, int] | None = None,
        family: int = _socket.AF_UNSPEC,
    ) -> None:
        """Check the arguments; the socket is connected later.

        Args:
            address: The remote host and port; the first address of a host that there is a
                route to is used. Or a connected UDP socket, which belongs to the client from now
                on.
            protocol: The protocol object.
            backend: The backend, or its name; by default, the framework that is running.
            local_address: The address to send from; chosen by the kernel by default.
            family: `socket.AF_INET` or `socket.AF_INET6`, to use only addresses of that family. By
                default, the resolver's order decides.

        Raises:
            TypeError: An argument is of the wrong type, or does not go with a socket.
            ValueError: An argument has a value that cannot be used.
            OSError: The socket is not connected.
            NotImplementedError: The backend is not known.
            anyio.NoEventLoopError: There is no backend, and no event loop is running.
        """
        with close_on_error(address):
            local_address = validated_local_address(local_address)
            target = validated_udp_target(address, local_address, family)
            super().__init__(target, protocol, backend)
        self._connect_options: dict[str, Any] = {"local_address": local_address, "family": family}

    async def _new_socket(self) -> _socket.socket:
        return await connect_udp(*self._target, **self._connect_options)

    async def send_packet(self, packet: _T_Sent) -> None:
        """Send a packet; connect first if need be. Several tasks may send at once.

        Returns when the operating system has the datagram, which promises nothing about its
        arrival. Usually that is at once.

        Args:
            packet: What to send.

        Raises:
            ClientClosedError: The client is closed.
            OSError: The socket cannot be connected, the datagram is too long (`EMSGSIZE`), or
                something is wrong with this packet or an earlier one, see above.
            ProtocolCrashedError: The protocol object cannot make bytes of the packet (the cause);
                nothing was sent.
        """
        await self._send(packet)
