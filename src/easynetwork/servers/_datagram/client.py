"""A peer of a datagram server, as its handler sees it."""

from __future__ import annotations

__all__ = ["Outlet", "ServedDatagramClient"]

from collections.abc import Callable, Mapping
from typing import Any

import anyio.lowlevel

from easynetwork._tuning import DATAGRAMS_SHARE
from easynetwork.addresses import (
    INETSocketAttribute,
    SocketAddress,
    SocketProxy,
    new_socket_address,
)
from easynetwork.backends.abc import AsyncBackend
from easynetwork.backends.datagram_endpoint import DatagramEndpoint
from easynetwork.exceptions import ClientClosedError
from easynetwork.servers.handlers import AsyncDatagramClient


class Outlet:
    """One socket of a server, as far as its clients need it.

    Attributes:
        backend: The server's.
        endpoint: What sends.
        encode: Makes a datagram of a packet.
        family: The socket's address family.
        local_address: The socket's address.
        is_up: Whether the server serves on it.
    """

    __slots__ = ("backend", "encode", "endpoint", "family", "is_up", "local_address")

    def __init__(
        self, backend: AsyncBackend, endpoint: DatagramEndpoint, encode: Callable[[Any], bytes]
    ) -> None:
        self.backend: AsyncBackend = backend
        self.endpoint: DatagramEndpoint = endpoint
        self.encode: Callable[[Any], bytes] = encode
        self.family: int = endpoint.socket.family
        self.local_address: SocketAddress = new_socket_address(
            endpoint.socket.getsockname(), self.family
        )
        self.is_up: bool = False


class ServedDatagramClient(AsyncDatagramClient[Any]):
    """A peer, as its handler sees it.

    Attributes:
        raw_address: Its address, as the socket module says it: few handlers ask for it.
    """

    __slots__ = ("_outlet", "_sent_in_a_row", "raw_address")

    def __init__(self, outlet: Outlet, address: Any) -> None:
        self._outlet = outlet
        self.raw_address: Any = address
        self._sent_in_a_row = 0

    def __repr__(self) -> str:
        return f"<client with address {self.address} at {id(self):#x}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServedDatagramClient):
            return NotImplemented
        return self._outlet is other._outlet and self.raw_address == other.raw_address

    def __hash__(self) -> int:
        return hash((self._outlet, self.raw_address))

    @property
    def address(self) -> SocketAddress:
        """Its address, as users see it."""
        return new_socket_address(self.raw_address, self._outlet.family)

    def backend(self) -> AsyncBackend:
        return self._outlet.backend

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        outlet = self._outlet
        return {
            INETSocketAttribute.socket: lambda: SocketProxy(outlet.endpoint.socket),
            INETSocketAttribute.family: lambda: outlet.family,
            INETSocketAttribute.sockname: lambda: outlet.local_address,
            INETSocketAttribute.peername: lambda: self.address,
        }

    def is_closing(self) -> bool:
        return not self._outlet.is_up

    async def send_packet(self, packet: Any, /) -> None:
        outlet = self._outlet
        if not outlet.is_up:
            raise ClientClosedError("Closed client")
        data = outlet.encode(packet)
        while not outlet.endpoint.send(data, self.raw_address):
            await outlet.endpoint.writable()
            if not outlet.is_up:
                raise ClientClosedError("Closed client")
        self._sent_in_a_row += 1
        if self._sent_in_a_row == DATAGRAMS_SHARE:
            self._sent_in_a_row = 0
            await anyio.lowlevel.checkpoint()
