"""A network in memory: who listens where, and what goes wrong on the way."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Sequence
from dataclasses import fields
from functools import partial

from easynetwork.testing._memory.datagrams import MemoryDatagramSocket
from easynetwork.testing._memory.faults import Faults
from easynetwork.testing._memory.sockets import Address, BaseMemorySocket
from easynetwork.testing._memory.streams import MemorySocket, new_pair
from easynetwork.testing._memory.transports import MemoryListener

_SERVER_HOST = "192.0.2.1"
_CLIENT_HOST = "198.51.100.1"
"""Addresses for documentation (RFC 5737): no host has them."""

_FIRST_PORT = 49_152
"""The first one of those that are free for everybody (RFC 6335, section 6)."""


class MemoryNetwork:
    """A network without sockets, for servers and clients in one event loop.

    Servers and clients use it by `serve()` and `converse()`. Bytes and datagrams arrive at once and
    whole, unless the arguments say otherwise: they are the faults of everything that is sent over
    this network. See `Faults` for what they mean, and for those of one connection.

    Attributes:
        seed: What decides about all faults.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        chunks: int | Sequence[int] | None = None,
        latency: float | tuple[float, float] = 0.0,
        reset_after: int | None = None,
        truncate_after: int | None = None,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
    ) -> None:
        self.seed: int = seed
        self._faults = Faults(
            chunks=chunks,
            latency=latency,
            reset_after=reset_after,
            truncate_after=truncate_after,
            loss=loss,
            duplicate=duplicate,
            reorder=reorder,
        )
        self._listeners: dict[Address, MemoryListener] = {}
        self._datagram_sockets: dict[Address, MemoryDatagramSocket] = {}
        self._ports = itertools.count(_FIRST_PORT)
        self._connections = itertools.count(1)

    def __repr__(self) -> str:
        values = [(field, getattr(self._faults, field.name)) for field in fields(Faults)]
        faults = [f", {field.name}={value!r}" for field, value in values if value != field.default]
        return f"MemoryNetwork(seed={self.seed}{''.join(faults)})"

    # -- for servers and clients

    def listen(self, max_recv_size: int) -> MemoryListener:
        """Return a listener at a new address."""
        sock = BaseMemorySocket((_SERVER_HOST, next(self._ports)), None)
        address = sock.getsockname()
        release = partial(self._listeners.pop, address, None)
        listener = self._listeners[address] = MemoryListener(sock, max_recv_size, release)
        return listener

    def connect(
        self,
        address: Address,
        local_address: Address | None,
        to_server: Faults | None,
        to_client: Faults | None,
    ) -> MemorySocket:
        """Return the client's end of a new connection.

        Raises:
            ConnectionRefusedError: No server listens there.
        """
        listener = self._listeners.get(address)
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        faults = to_server or self._faults, to_client or self._faults
        number = next(self._connections)
        choices = self._choices(number, "to server"), self._choices(number, "to client")
        client = local_address or (_CLIENT_HOST, next(self._ports))
        client_end, server_end = new_pair((client, address), faults, choices)
        listener.add(server_end)
        return client_end

    def bind(
        self,
        peer_address: Address | None = None,
        local_address: Address | None = None,
        faults: Faults | None = None,
    ) -> MemoryDatagramSocket:
        """Return a datagram socket: a server's, or one that is connected to a server.

        Args:
            peer_address: What it is connected to; None for a server's.
            local_address: Its address; a new one by default.
            faults: What happens to what it sends; by default, what the network does.
        """
        host = _SERVER_HOST if peer_address is None else _CLIENT_HOST
        address = local_address or (host, next(self._ports))
        if address in self._datagram_sockets:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        choices_to = partial(self._choices, next(self._connections))
        return MemoryDatagramSocket(
            address, peer_address, self._datagram_sockets, faults or self._faults, choices_to
        )

    def _choices(self, number: int, where: object) -> random.Random:
        return random.Random(f"{self.seed}, {number}, {where}")
