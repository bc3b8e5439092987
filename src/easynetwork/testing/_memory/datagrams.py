"""Datagrams in memory."""

from __future__ import annotations

import errno
import random
import socket
from collections import deque
from typing import Final

import anyio

from easynetwork.testing._memory.faults import Faults
from easynetwork.testing._memory.sockets import Address, BaseMemorySocket, call_at, os_error

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
        choices: Decides when.
    """

    type = socket.SOCK_DGRAM
    proto = socket.IPPROTO_UDP

    def __init__(
        self,
        address: Address,
        peer_address: Address | None,
        sockets: dict[Address, MemoryDatagramSocket],
        faults: Faults,
        choices: random.Random,
    ) -> None:
        super().__init__(address, peer_address)
        self._sockets = sockets
        self._faults = faults
        self._choices = choices
        self._queue: deque[tuple[bytes, Address]] = deque()
        self._held_back: list[tuple[Address, bytes]] = []
        sockets[address] = self

    def sendto(self, data: bytes, address: Address) -> int:
        self.check_open()
        if len(data) > 65_507:  # RFC 768 and RFC 791: see `too_long`
            raise os_error(errno.EMSGSIZE)
        faults, choices = self._faults, self._choices
        copies = 0 if choices.random() < faults.loss else 1
        copies += copies * (choices.random() < faults.duplicate)
        is_overtaken = choices.random() < faults.reorder
        overtaken, self._held_back = self._held_back, []
        if is_overtaken and copies:
            self._held_back.append((address, bytes(data)))
            call_at(anyio.current_time() + _HELD_BACK, self._release)
            copies -= 1
        for where, datagram in [(address, bytes(data))] * copies + overtaken:
            self._deliver_later(where, datagram)
        return len(data)

    def send(self, data: bytes, flags: int = 0) -> int:
        self.raise_pending_error()
        return self.sendto(data, self.getpeername())

    def _release(self) -> None:
        held_back, self._held_back = self._held_back, []
        for address, datagram in held_back:
            self._deliver_later(address, datagram)

    def _deliver_later(self, address: Address, datagram: bytes) -> None:
        least, most = self._faults.delays
        if most:
            delay = self._choices.uniform(least, most)
            call_at(anyio.current_time() + delay, lambda: self._deliver(address, datagram))
        else:
            self._deliver(address, datagram)

    def _deliver(self, address: Address, datagram: bytes) -> None:
        receiver = self._sockets.get(address)
        if receiver is not None:
            receiver._receive(datagram, self._address)
        elif self._peer_address is not None and self.fileno() >= 0:
            self._error = errno.ECONNREFUSED  # an ICMP message says that the port is closed
            self.on_readable()

    def _receive(self, datagram: bytes, sender: Address) -> None:
        is_wanted = self._peer_address in (None, sender)
        if is_wanted and len(self._queue) < _QUEUE_SIZE:
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
