"""A UDP client for asynchronous programs."""

from __future__ import annotations

__all__ = ["AsyncUDPNetworkClient"]

import socket as _socket  # the property of this name hides the module inside the class
from contextlib import suppress
from typing import Any, Generic, TypeVar, overload

import anyio
import anyio.lowlevel

from easynetwork._arguments import validated_local_address
from easynetwork._tuning import SEND_BUDGET_DATAGRAMS
from easynetwork.backends import AsyncBackend, BuiltinAsyncBackendLiteral
from easynetwork.backends.abc import DatagramEndpoint
from easynetwork.clients._async_client import AsyncClient, closed_error
from easynetwork.clients._errors import explain_descriptor
from easynetwork.clients._target import validated_udp_target
from easynetwork.codec import datagram_builder, datagram_encoder
from easynetwork.protocol import DatagramProtocol, check_datagram_protocol
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.connecting import connect_udp

_T_Sent = TypeVar("_T_Sent")
_T_Received = TypeVar("_T_Received")


class AsyncUDPNetworkClient(
    AsyncClient[_T_Sent, _T_Received, DatagramEndpoint], Generic[_T_Sent, _T_Received]
):
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

    __slots__ = ("_build", "_connect_options", "_encode", "_sending", "_sent_in_a_row")

    @overload
    def __init__(
        self,
        address: tuple[str, int],
        /,
        protocol: DatagramProtocol[_T_Sent, _T_Received],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
        *,
        local_address: tuple[str, int] | None = None,
        family: int = _socket.AF_UNSPEC,
    ) -> None: ...

    @overload
    def __init__(
        self,
        sock: _socket.socket,
        /,
        protocol: DatagramProtocol[_T_Sent, _T_Received],
        backend: AsyncBackend | BuiltinAsyncBackendLiteral | None = None,
    ) -> None: ...

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
            check_datagram_protocol(protocol)
            super().__init__(target, backend)
        self._connect_options: dict[str, Any] = {"local_address": local_address, "family": family}
        self._build = datagram_builder(protocol)
        self._encode = datagram_encoder(protocol)
        self._sending = anyio.Lock(fast_acquire=True)
        self._sent_in_a_row = 0

    # -- the connection

    async def _new_socket(self, host: str, port: int) -> _socket.socket:
        return await connect_udp(host, port, **self._connect_options)

    async def _wrap(self, sock: _socket.socket) -> DatagramEndpoint:
        return self._backend.wrap_datagram_socket(sock)

    async def _close(self, transport: DatagramEndpoint) -> None:
        try:
            if self._sending.locked():
                async with self._sending:
                    pass  # tasks that are sending a packet are through
        finally:
            with suppress(OSError):  # other code has closed the descriptor
                transport.close()

    # -- packets

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
        endpoint = await self._connected()
        data = self._encode(packet)
        self._sent_in_a_row += 1
        if self._sent_in_a_row > SEND_BUDGET_DATAGRAMS:
            self._sent_in_a_row = 1
            await anyio.lowlevel.checkpoint()
        try:
            if self._sending.locked() or not endpoint.send(data):
                async with self._sending:
                    while not endpoint.send(data):
                        await endpoint.writable()
            endpoint.raise_pending_error()
        except OSError as exc:
            self._explain(exc)
            raise

    async def _receive(self, deadline: float) -> _T_Received:
        endpoint = await self._connected(deadline)
        await self._acquire_receiving(deadline)
        try:
            datagram = await endpoint.receive(deadline)
        except OSError as exc:
            self._explain(exc)
            raise
        finally:
            self._receiving.release()
        received: _T_Received = self._build(datagram)
        return received

    def _explain(self, exc: OSError) -> None:
        if self._is_closing:
            raise closed_error() from exc
        explain_descriptor(exc)
