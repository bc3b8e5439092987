"""Iterators over the packets that arrive in a given time, for all clients.

They count the time that is spent waiting for packets, not the time that the caller spends on them.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

import anyio

from easynetwork._typevars import Received

if TYPE_CHECKING:
    from easynetwork.clients.abc import AbstractAsyncNetworkClient, AbstractNetworkClient

NO_PACKET: Final[Any] = object()
"""Stands for a packet before there is one."""

OVER = -1.0
"""The time that is left when an iterator has ended; 0 stands for what has already been received."""


class AsyncPacketIterator(AsyncIterator[Received]):
    """Not an async generator: it need not be closed when the loop around it is left."""

    __slots__ = ("_client", "_left")

    def __init__(self, client: AbstractAsyncNetworkClient[Any, Received], timeout: float) -> None:
        self._client = client
        self._left = timeout

    async def __anext__(self) -> Received:
        if self._left < 0:
            raise StopAsyncIteration
        start = anyio.current_time()
        try:
            return await self._client._receive(start + self._left)
        except OSError:
            self._left = OVER
            raise StopAsyncIteration from None
        finally:
            if self._left > 0:
                self._left = max(self._left - (anyio.current_time() - start), 0)


class PacketIterator(Iterator[Received]):
    """The same for threads."""

    __slots__ = ("_client", "_given_back", "_left")

    def __init__(self, client: AbstractNetworkClient[Any, Received], timeout: float) -> None:
        self._client = client
        self._given_back = getattr(client, "_given_back", [])
        self._left = timeout

    def __next__(self) -> Received:
        if self._left < 0:
            raise StopIteration
        start = time.monotonic()
        packet: Received = NO_PACKET
        try:
            try:
                packet = self._client.recv_packet(timeout=self._left)
            finally:
                if 0 < self._left < math.inf:
                    self._left = max(self._left - (time.monotonic() - start), 0)
        except BaseException as exc:
            if packet is not NO_PACKET:  # the exception of a signal handler: see `BlockingClient`
                self._given_back.append(packet)
            elif isinstance(exc, OSError):
                self._left = OVER
                raise StopIteration from None
            raise
        return packet
