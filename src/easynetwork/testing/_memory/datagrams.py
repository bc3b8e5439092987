"""Datagrams in memory."""

from __future__ import annotations

import errno
import functools
import heapq
import itertools
import random
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

import anyio

from easynetwork.testing._memory.faults import Faults
from easynetwork.testing._memory.sockets import (
    Address,
    BaseMemorySocket,
    Cancel,
    call_at,
    nothing,
    os_error,
)

_QUEUE_SIZE: Final = 256
"""Datagrams that wait in a socket; those on top of it are lost. Linux holds some 280 small ones
(``net.core.rmem_default``, 208 KiB)."""

_HELD_BACK: Final = 0.1
"""Seconds after which a datagram that is to be overtaken arrives, though nothing came after it."""


class MemoryDatagramSocket(BaseMemorySocket):
    """A datagram socket.

    Args:
        address: Its address.
        peer_address: What it is connected to; None if it is not.
        sockets: All datagram sockets of the network, by their addresses.
        faults: What happens to what it sends.
        choices_to: Makes what decides when, for each address that it sends to: so it does not
            matter which of them are sent to first.
    """

    type = socket.SOCK_DGRAM
    proto: int = socket.IPPROTO_UDP

    def __init__(
        self,
        address: Address,
        peer_address: Address | None,
        sockets: dict[Address, MemoryDatagramSocket],
        faults: Faults,
        choices_to: Callable[[Address], random.Random],
    ) -> None:
        super().__init__(address, peer_address)
        self._sockets = sockets
        self._faults = faults
        self._choices_to = functools.cache(choices_to)
        self._queue: deque[tuple[bytes, Address]] = deque()
        self._held_back: dict[Address, bytes] = {}  # one for each address, at most
        # A heap of arrival times. The number keeps those in order that arrive at once.
        self._on_the_way: list[tuple[float, int, Address, bytes]] = []
        self._numbers = itertools.count()
        self._timer: Cancel = nothing
        sockets[address] = self

    def sendto(self, data: bytes, address: Address) -> int:
        self.check_open()
        if len(data) > 65_507:  # RFC 768 and RFC 791: see `too_long`
            raise os_error(errno.EMSGSIZE)
        self.raise_pending_error()
        faults, choices = self._faults, self._choices_to(address)
        copies = 0 if choices.random() < faults.loss else 1
        copies += copies * (choices.random() < faults.duplicate)
        is_overtaken = choices.random() < faults.reorder
        datagram, overtaken = bytes(data), self._held_back.pop(address, None)
        if is_overtaken and copies:
            self._held_back[address] = datagram
            call_at(anyio.current_time() + _HELD_BACK, partial(self._release, address, datagram))
            copies -= 1
        for _ in range(copies):
            self._deliver_later(address, datagram)
        if overtaken is not None:
            self._deliver_later(address, overtaken)
        return len(data)

    def send(self, data: bytes, flags: int = 0) -> int:
        self.check_open()
        if self._peer_address is None:
            raise os_error(errno.EDESTADDRREQ)
        return self.sendto(data, self._peer_address)

    def _release(self, address: Address, datagram: bytes) -> None:
        if self._held_back.get(address) is datagram:  # nothing came after it
            del self._held_back[address]
            self._deliver_later(address, datagram)

    def _deliver_later(self, address: Address, datagram: bytes) -> None:
        least, most = self._faults.delays
        if not most:
            return self._deliver(address, datagram)
        arrival = anyio.current_time() + self._choices_to(address).uniform(least, most)
        heapq.heappush(self._on_the_way, (arrival, next(self._numbers), address, datagram))
        self._set_timer()

    def _set_timer(self) -> None:
        # One for all: trio shuffles what happens at the same time.
        self._timer()
        self._timer = nothing
        if self._on_the_way:
            self._timer = call_at(self._on_the_way[0][0], self._arrive)

    def _arrive(self) -> None:
        now = anyio.current_time()
        while self._on_the_way and self._on_the_way[0][0] <= now:
            _, _, address, datagram = heapq.heappop(self._on_the_way)
            self._deliver(address, datagram)
        self._set_timer()

    def _deliver(self, address: Address, datagram: bytes) -> None:
        receiver = self._sockets.get(address)
        if receiver is not None and receiver._peer_address in (None, self._address):
            receiver._receive(datagram, self._address)
        elif self._peer_address == address and self.fileno() >= 0:
            self._error = errno.ECONNREFUSED  # an ICMP message says that the port is closed
            self.on_readable()

    def _receive(self, datagram: bytes, sender: Address) -> None:
        if len(self._queue) < _QUEUE_SIZE:
            self._queue.append((datagram, sender))
            self.on_readable()

    def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, Address]:
        self.check_open()
        self.raise_pending_error()
        if not self._queue:
            raise os_error(errno.EAGAIN)
        datagram, sender = self._queue.popleft()
        return datagram[:size], sender

    def recv(self, size: int, flags: int = 0) -> bytes:
        return self.recvfrom(size)[0]

    def recvfrom_into(
        self, view: memoryview, nbytes: int = 0, flags: int = 0
    ) -> tuple[int, Address]:
        datagram, sender = self.recvfrom(len(view))
        view[: len(datagram)] = datagram
        return len(datagram), sender

    def is_readable(self) -> bool:
        return bool(self._queue or self._error or self.fileno() < 0)

    def close(self) -> None:
        if self.fileno() >= 0:
            del self._sockets[self._address]
            super().close()
