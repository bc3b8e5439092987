"""The contract for datagram sockets."""

from __future__ import annotations

__all__ = ["Batch", "DatagramEndpoint"]

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from easynetwork.addresses._ancillary import AncillaryCallback, RawAncillary
from easynetwork.addresses._unix import AnySocketAddress
from easynetwork.exceptions import UnsupportedOperation

Batch: TypeAlias = list[tuple[bytes, Any]]
"""Datagrams, with their senders' addresses as the socket module says them, or, on all interfaces,
with a source: see `easynetwork.sockets.datagrams`."""

BatchCallback: TypeAlias = Callable[[Batch], object]
ErrorCallback: TypeAlias = Callable[[OSError], object]


class DatagramEndpoint(ABC):
    """One datagram socket in the care of an event loop.

    All methods must be called in the event loop's thread. Datagrams that are not asked for stay in
    the kernel, which drops what is too much.

    Resource handling: `close()` must be called.

    Error handling: errors of the operating system are raised as they are. Those that an earlier
    datagram caused (an ICMP message said that no socket is bound there) are reported by the next
    operation on the same socket, if that is connected. An unconnected socket usually does not
    receive them (udp(7)). If it does, the error may concern another peer, so `send()` retries once.
    """

    __slots__ = ("__weakref__",)

    local_address: AnySocketAddress
    """This end's address."""

    address: AnySocketAddress | None
    """The other end's address; None if the socket is not connected."""

    @property
    @abstractmethod
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """What is known of the endpoint: its socket and addresses. See `extra()`."""

    @abstractmethod
    async def serve(self, received: BatchCallback, failed: ErrorCallback) -> None:
        """Hand over every datagram that arrives, until the endpoint is closed.

        Each time the socket is readable, a bounded number of datagrams are taken from it before the
        event loop gets a turn. Both functions run in the context of the calling task.

        Args:
            received: Called with the datagrams that were taken, and their senders' addresses.
            failed: Called with each error of the socket; receiving goes on.
        """

    @abstractmethod
    def take_waiting(self, received: BatchCallback, failed: ErrorCallback) -> bool:
        """Hand over what the socket holds, up to a bound; see `serve()`, which may be running.

        Returns:
            Whether it came to the bound.
        """

    @abstractmethod
    async def receive(self, deadline: float = math.inf) -> Any:
        """Return the next datagram. At most one task may wait at a time.

        If the socket is not connected, this returns a pair: the datagram and its sender's address,
        as in `Batch`.

        Args:
            deadline: As for `StreamTransport.receive`.

        Raises:
            TimeoutError: The deadline has passed.
            OSError: See above; `EBADF` if the endpoint is closed, also meanwhile.
        """

    async def receive_with_ancillary(self, bufsize: int, received: AncillaryCallback) -> bytes:
        """Return the next datagram, and hand over the ancillary data that came with it.

        Args:
            bufsize: The most bytes of ancillary data, as for ``socket.recvmsg()``.
            received: Called with the ancillary data, maybe none.

        Raises:
            UnsupportedOperation: The socket carries none.
            OSError: The ancillary data was cut off (`EMSGSIZE`), and the datagram is lost with it.
                Otherwise as `receive()`.
        """
        raise UnsupportedOperation("This transport does not have ancillary data support.")

    @abstractmethod
    def send(self, data: bytes, address: Any = None, ancillary: RawAncillary | None = None) -> bool:
        """Send a datagram at once.

        Args:
            data: The datagram.
            address: Where to; None if the socket is connected.
            ancillary: Ancillary data to send with it, as for ``socket.sendmsg()``.

        Returns:
            Whether it was sent. If not, the kernel has no room for it; try again when `writable()`
            has returned.

        Raises:
            OSError: See above; `EMSGSIZE` if the datagram is too long, `EBADF` if the endpoint is
                closed.
        """

    @abstractmethod
    async def writable(self) -> None:
        """Wait until it is worth trying to send again. Any number of tasks may wait."""

    @abstractmethod
    def raise_pending_error(self) -> None:
        """Raise what the kernel has learnt of earlier datagrams, which it forgets then.

        On a machine's own addresses, it knows at once that no socket is bound to a port.

        Raises:
            OSError: `ConnectionRefusedError`, for example.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the socket and wake up all tasks that wait. May be called several times."""

    @abstractmethod
    def is_closing(self) -> bool:
        """Whether it was closed."""
