"""A peer of a datagram server, as its handler sees it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.lowlevel

from easynetwork._tuning import CLOSE_TIMEOUT, SEND_BUDGET_DATAGRAMS
from easynetwork.addresses import SocketAttribute, UnixSocketAddress
from easynetwork.addresses._ancillary import RawAncillary
from easynetwork.addresses._unix import AnySocketAddress, typed_address
from easynetwork.backends.abc import AsyncBackend, DatagramEndpoint
from easynetwork.exceptions import ClientClosedError
from easynetwork.servers._core.unix_names import unix_names
from easynetwork.servers.handlers import AsyncDatagramClient
from easynetwork.sockets.datagrams import asked_address, remote_address


class ServerSocket:
    """One socket of a server, as far as its clients need it.

    Attributes:
        backend: The server's.
        endpoint: Where datagrams are sent.
        encode: Makes a datagram of a packet.
        is_draining: Whether the server drains.
        is_up: Whether the server serves on it.
        unix_name: Its name, if it is a Unix socket.
    """

    __slots__ = ("backend", "encode", "endpoint", "family", "is_draining", "is_up", "unix_name")

    def __init__(
        self, backend: AsyncBackend, endpoint: DatagramEndpoint, encode: Callable[[Any], bytes]
    ) -> None:
        self.backend: AsyncBackend = backend
        self.endpoint: DatagramEndpoint = endpoint
        self.encode: Callable[[Any], bytes] = encode
        self.family: int = endpoint.extra_attributes[SocketAttribute.family]()
        self.is_draining: bool = False
        self.is_up: bool = False
        self.unix_name: UnixSocketAddress | None = None


class ServedDatagramClient(AsyncDatagramClient[Any]):
    """A peer, as its handler sees it.

    Attributes:
        raw_address: Its address, as `DatagramCalls` have it; few handlers ask for the other one.
    """

    __slots__ = ("_sent_in_a_row", "_server_socket", "raw_address")

    def __init__(self, server_socket: ServerSocket, address: Any) -> None:
        self._server_socket = server_socket
        self.raw_address: Any = address
        self._sent_in_a_row = 0

    def __repr__(self) -> str:
        return f"<client with address {self.address} at {id(self):#x}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServedDatagramClient):
            return NotImplemented
        return self._server_socket is other._server_socket and self.raw_address == other.raw_address

    def __hash__(self) -> int:
        return hash((self._server_socket, self.raw_address))

    @property
    def address(self) -> AnySocketAddress:
        """Its address, as users see it."""
        return typed_address(remote_address(self.raw_address), self._server_socket.family)

    def backend(self) -> AsyncBackend:
        return self._server_socket.backend

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        known = self._server_socket.endpoint.extra_attributes
        local_address = self._server_socket.endpoint.local_address
        name = self._server_socket.unix_name
        unix = {} if name is None else unix_names(name, lambda: self.address)
        return {
            **known,
            SocketAttribute.sockname: lambda: asked_address(self.raw_address, local_address),
            SocketAttribute.peername: lambda: self.address,
            **unix,
        }

    def is_closing(self) -> bool:
        return not self._server_socket.is_up

    def is_draining(self) -> bool:
        return self._server_socket.is_draining

    async def send_packet(self, packet: Any, /) -> None:
        server_socket = self._server_socket
        if not server_socket.is_up:
            raise ClientClosedError("Closed client")
        data = server_socket.encode(packet)
        try:
            if not server_socket.endpoint.send(data, self.raw_address):
                await self._send_later(data, None)
        except ConnectionError as exc:
            self._tag(exc)
            raise
        # Counted for each client: one budget for the socket would make all handlers of a busy
        # server wait for each other.
        self._sent_in_a_row += 1
        if self._sent_in_a_row == SEND_BUDGET_DATAGRAMS:
            self._sent_in_a_row = 0
            await anyio.lowlevel.checkpoint()

    async def send_packet_with_ancillary(
        self, packet: Any, ancillary_data: RawAncillary, /
    ) -> None:
        if self._server_socket.unix_name is None:
            await super().send_packet_with_ancillary(packet, ancillary_data)
        if self.is_closing():
            raise ClientClosedError("Closed client")
        data = self._server_socket.encode(packet)
        try:
            if not self._server_socket.endpoint.send(data, self.raw_address, ancillary_data):
                await self._send_later(data, ancillary_data)
        except ConnectionError as exc:
            self._tag(exc)
            raise

    def _tag(self, exc: ConnectionError) -> None:
        """Mark an error as due to this client, which is gone. Over UDP it may be due to others."""
        if self._server_socket.unix_name is not None:
            vars(exc)["_easynetwork_client"] = self

    async def _send_later(self, data: bytes, ancillary: RawAncillary | None) -> None:
        """Send a datagram when the kernel has room for it: on Unix, when the peer has read some."""
        server_socket = self._server_socket
        endpoint = server_socket.endpoint
        with anyio.move_on_after(CLOSE_TIMEOUT) as scope:
            is_sent = False
            while not is_sent:
                await endpoint.writable()
                if not server_socket.is_up:
                    raise ClientClosedError("Closed client")
                is_sent = endpoint.send(data, self.raw_address, ancillary)
        if scope.cancelled_caught:
            reason = "peers do not read what was sent before"
            raise TimeoutError(errno.ETIMEDOUT, f"nothing can be sent to {self.address}: {reason}")
