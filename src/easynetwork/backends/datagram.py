"""A datagram socket in the care of an event loop."""

from __future__ import annotations

__all__ = ["DatagramEndpoint"]

import math
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any


class DatagramEndpoint(ABC):
    """One datagram socket in the care of an event loop.

    All methods must be called in the event loop's thread. What nobody asks for stays in the kernel,
    which drops what is too much.

    Resource handling: owns its socket; `close()` must be called.

    Error handling: errors of the operating system are raised as they are. Those that an earlier
    datagram caused (an ICMP message said that nobody listens there) are reported by whatever comes
    next on the same socket.
    """

    __slots__ = ("__weakref__",)

    socket: socket.socket
    """The socket, to ask for addresses and options. Not to be read, written or closed."""

    @abstractmethod
    async def serve(
        self, received: Callable[[bytes, Any], object], failed: Callable[[OSError], object]
    ) -> None:
        """Hand over every datagram that arrives until the endpoint is closed.

        Each time the socket is readable, a bounded number of datagrams are taken from it before the
        event loop gets a turn. Both functions run in the context of the calling task.

        Args:
            received: Called with each datagram and its sender's address.
            failed: Called with each error of the socket; receiving goes on.
        """

    @abstractmethod
    async def receive(self, deadline: float = math.inf) -> bytes:
        """Return the next datagram. At most one task may wait at a time.

        Args:
            deadline: As for `StreamTransport.receive`.

        Raises:
            TimeoutError: The deadline has passed.
            OSError: See above; `EBADF` if the endpoint is closed, also meanwhile.
        """

    @abstractmethod
    def send(self, data: bytes, address: Any = None) -> bool:
        """Send a datagram at once.

        Args:
            data: The datagram.
            address: Where to; None if the socket is connected.

        Returns:
            Whether it was sent. If not, the kernel has no room for it: try again when `writable()`
            has returned.

        Raises:
            OSError: See above; `EMSGSIZE` if the datagram is too long, `EBADF` if the endpoint is
                closed.
        """

    @abstractmethod
    async def writable(self) -> None:
        """Wait until it is worth trying to send again. Any number of tasks may wait."""

    @abstractmethod
    def close(self) -> None:
        """Close the socket and wake up everybody who waits. May be called several times."""
