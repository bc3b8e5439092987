"""Contracts for byte streams: where connections come from, and what each of them can do."""

from __future__ import annotations

__all__ = [
    "UNOBSERVED",
    "Incoming",
    "Listener",
    "PaceObserver",
    "StreamTransport",
    "broken_connection",
    "discard",
]

import errno
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from easynetwork.addresses._ancillary import AncillaryCallback, RawAncillary
from easynetwork.addresses._unix import AnySocketAddress
from easynetwork.exceptions import UnsupportedOperation

Feed: TypeAlias = Callable[[bytes], int]
"""Takes a chunk that has arrived: see `StreamTransport.feed`."""

Farewell: TypeAlias = Callable[[], None] | None
"""Sends the last bytes, if there are any: see `StreamTransport.aclose`."""


def broken_connection(error: BaseException | None) -> ConnectionError:
    """Return a new exception for each caller that meets a connection which is gone.

    Args:
        error: Why; None if it was closed on this side.
    """
    if isinstance(error, ConnectionError):
        return type(error)(*error.args)
    exc = ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
    exc.__cause__ = error
    return exc


def discard(data: bytes, /) -> bool:
    """Drop a chunk: the feed function of a transport whose owner does not want data."""
    return False


class PaceObserver:
    """What a transport tells about the pace of its peer. This one does not want to know."""

    __slots__ = ()

    def note_partial(self) -> None:
        """Take note that a chunk has arrived, and the feed function says: nothing is complete."""

    def note_unsent(self) -> None:
        """Take note that bytes begin to wait to be sent, because the kernel does not take them."""


UNOBSERVED: Final = PaceObserver()


class StreamTransport(ABC):
    """One connection in the care of an event loop.

    Bytes that arrive are handed to a *feed* function; bytes to send are taken at once and leave in
    the background. All methods must be called in the event loop's thread.

    Resource handling: `aclose()` must be called, after `abort()` too.

    Error handling: a connection that breaks is reported by `receive()`, `drain()` and `write()` as
    a `ConnectionError`; nothing else of the operating system's errors is hidden.
    """

    __slots__ = ("__weakref__", "close_timeout", "observer")

    feed: Feed
    """Called with each chunk that arrives, in order, in the event loop's thread; returns how many
    packets are at hand, about: if there are any, `receive()` returns now. Never called before the
    first `receive()`. May be replaced at any time."""

    observer: PaceObserver
    """Told when the peer is slow. May be replaced at any time."""

    local_address: AnySocketAddress
    """This end's address."""

    address: AnySocketAddress
    """The other end's address."""

    close_timeout: float
    """Seconds that the peer has, when the connection is closed, to read pending data."""

    congested: bool
    """Whether a producer has to wait: for its turn before it writes (`turn()`), and after it wrote
    until the peer has read, or the event loop has had a turn (`drain()`)."""

    has_given_up: bool
    """Whether the connection was reset because the peer did not read everything in time: see
    `limit_sending()`."""

    has_lost_descriptor: bool
    """Whether other code has closed the connection's descriptor, which broke the connection."""

    @property
    def has_partial(self) -> bool:
        """Whether something has arrived that is fed only when all of it is here."""
        return False

    @property
    @abstractmethod
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """What is known of the connection: its socket, addresses, TLS. See `extra()`."""

    @abstractmethod
    def receive(self, deadline: float = math.inf) -> Awaitable[None]:
        """Wait until the feed function says that something complete has arrived.

        Also returns when the connection ends meanwhile; the next call tells how.

        What arrived and is incomplete when this is cancelled or times out is not lost. The task
        that calls this has to await it at once, and at most one task may wait at a time. While many
        connections are busy, the event loop reads one after the other, and a connection that has
        received much waits for its turn. Reading from the socket pauses when more than `HIGH_WATER`
        bytes have come since the last call: data that is not asked for stays in the kernel and
        slows down the peer.

        Args:
            deadline: When to give up, on the loop's clock, in seconds. One that has passed means
                that only data that the kernel already holds is taken.

        Raises:
            EOFError: The peer has sent everything, or the transport was closed here.
            TimeoutError: The deadline has passed.
            ConnectionError: The connection broke.
        """

    async def receive_with_ancillary(
        self, bufsize: int, received: AncillaryCallback, deadline: float = math.inf
    ) -> None:
        """Wait until something arrives, and read once, with the ancillary data that comes with it.

        Ancillary data that comes with bytes which `receive()` reads is dropped by the kernel, and
        descriptors are closed.

        Args:
            bufsize: The most bytes of ancillary data, as for ``socket.recvmsg()``.
            received: Called with the ancillary data, maybe none, before the bytes are fed.
            deadline: As for `receive()`.

        Raises:
            UnsupportedOperation: The connection carries none. Nothing has been read.
            OSError: The ancillary data was cut off (`EMSGSIZE`): its descriptors are closed. The
                bytes were fed.
            EOFError: As `receive()`, like the others.
        """
        raise UnsupportedOperation("This transport does not have ancillary data support.")

    async def send_with_ancillary(
        self, encode: Callable[[], bytes], ancillary: RawAncillary
    ) -> int:
        """Send a packet, with ancillary data beside its first byte, when its turn has come.

        If this is cancelled, or raises an error other than `ConnectionError`, nothing was sent.

        Args:
            encode: Makes the bytes of the packet when its turn has come.
            ancillary: As for ``socket.sendmsg()``. It is not used any more when this returns.

        Returns:
            How many bytes the packet has.

        Raises:
            UnsupportedOperation: The connection carries none.
            ConnectionError: The connection broke or was closed.
            OSError: The packet is longer than the kernel takes at once (`EMSGSIZE`), or the kernel
                refuses the ancillary data (`EBADF` for a closed descriptor).
        """
        raise UnsupportedOperation("This transport does not have ancillary data support.")

    @abstractmethod
    def write(self, data: bytes | bytearray) -> int:
        """Send bytes, now as far as the kernel takes them, the rest in the background.

        A bytearray belongs to the transport from now on.

        Returns:
            The length of `data`.

        Raises:
            ConnectionError: The connection broke or was closed.
        """

    @abstractmethod
    def turn(self) -> AbstractAsyncContextManager[None]:
        """Return a context manager in which a task may write to a congested transport.

        Entering it waits until few enough bytes wait to be sent, first come, first served. So at
        most `HIGH_WATER` bytes and one packet wait, however many tasks send and however their
        waiting ends.

        Raises:
            ConnectionError: The connection broke.
        """

    @abstractmethod
    async def drain(self) -> None:
        """Wait until few enough bytes wait to be sent. Any number of tasks may wait.

        If the peer reads as fast as tasks write, none of them would ever wait, so after
        `SEND_BUDGET_BYTES` this gives the event loop a turn, and other busy connections theirs.

        Raises:
            ConnectionError: The connection broke or was reset, here or by the peer: bytes are lost.
        """

    @abstractmethod
    async def give_way(self) -> None:
        """Wait for a turn of the event loop, and of this connection if others are busy, too.

        For a task that still has packets at hand after it has served many without waiting. The
        connection may be closed meanwhile.
        """

    @abstractmethod
    def get_unsent_size(self) -> int:
        """Return how many bytes wait to be sent."""

    @abstractmethod
    def get_progress(self) -> tuple[int, int] | None:
        """Return what shows that the peer reads, while something waits to be sent.

        Returns:
            How many of its bytes the kernel has taken so far, which increases; and how many bytes
            the kernel holds, which decreases when the peer acknowledges some. None if nothing
            waits.
        """

    @abstractmethod
    def make_room(self, high_water: int) -> bool:
        """Whether a producer that cannot wait may write, even if the transport is congested.

        Not if a task has or waits for its `turn()`, or if too many bytes wait to be sent. If only
        the event loop should have had a turn, it is as if it had had one.

        Args:
            high_water: The most bytes that may wait.
        """

    @abstractmethod
    def limit_sending(self, timeout: float) -> None:
        """Reset the connection if bytes still wait to be sent when the time is up.

        Of several limits the earliest holds. A connection with nothing to send is left alone.

        Args:
            timeout: Seconds from now.
        """

    @abstractmethod
    def has_unread(self) -> bool:
        """Whether bytes of the peer have arrived that were not fed."""

    @abstractmethod
    def stop_receiving(self) -> None:
        """Receive nothing more, as if the peer had ended its side; `receive()` wakes up.

        Sending goes on. The peer may still be sending, so `aclose()` lingers if need be.
        """

    @abstractmethod
    async def send_eof(self) -> None:
        """Send pending data, then tell the peer that nothing follows. Receiving goes on.

        Tasks that wait for their `turn()` get it first. This does not wait for any of that.
        """

    @abstractmethod
    async def aclose(
        self, *, timeout: float | None = None, linger: bool = False, farewell: Farewell = None
    ) -> None:
        """Close gracefully: send pending data, then close.

        Wakes up `receive()` at once. Tasks that wait for their `turn()` get it first. If the peer
        does not read everything in time, or if this is cancelled, the connection is reset and the
        descriptor closed. May be called several times; each call returns when the descriptor is
        closed. Never raises an `OSError`.

        Args:
            timeout: Seconds that the peer has; `close_timeout` by default.
            linger: Whether the owner has bytes of the peer that it never used, so that the peer may
                be in the middle of sending. (What the kernel holds is looked at here.) Closing a
                socket while its peer sends resets the connection (RFC 9293, 3.6.1; RFC 2525,
                2.17), and the answers on their way are lost. So this goes on reading, and discards
                what it reads, until the peer has seen the end of the stream and ends its side, or
                `LINGER_TIME` is over.
            farewell: Called when the last `turn()` is over, unless the connection is broken. What
                it writes is the end of the stream.
        """

    @abstractmethod
    def abort(self) -> None:
        """Reset the connection: pending data is lost, and the peer is told so (RST).

        Wakes up all tasks that wait. The descriptor is closed by the next `aclose()` at the latest.
        """

    @abstractmethod
    def is_closing(self) -> bool:
        """Whether the connection was closed or broke."""

    @abstractmethod
    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call a function at the next turn of the loop."""


class Incoming(NamedTuple):
    """A connection on its way from a listener to its session.

    Each step on that way may replace a part of it: TLS the transport, the header of a proxy the
    address.
    """

    transport: StreamTransport
    """The connection. Its feed function has yet to be set."""

    local_address: AnySocketAddress
    """This end's address, as the handler sees it."""

    address: AnySocketAddress
    """The client's address, as the handler and the log see it."""

    attributes: Mapping[Any, Callable[[], Any]] = MappingProxyType({})
    """What is known of the client besides what its transport knows."""


class Listener(ABC):
    """Where connections come from: a socket that listens, or anything that makes streams.

    Resource handling: `close()` must be called.
    """

    __slots__ = ("__weakref__",)

    local_address: AnySocketAddress
    """Where it listens."""

    @property
    @abstractmethod
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """What is known of the listener: its socket, for example. See `extra()`."""

    @abstractmethod
    async def accept_forever(self, admit: Callable[[Incoming], Awaitable[object]]) -> None:
        """Hand over each connection, until the listener is closed or this is cancelled.

        Args:
            admit: Awaited with each connection, which belongs to it from then on. No further
                connection is accepted before it returns.

        Raises:
            OSError: The listener itself has failed.
        """

    @abstractmethod
    async def accept_waiting(self, admit: Callable[[Incoming], Awaitable[object]]) -> None:
        """Hand over the connections that wait at this moment, and return.

        When this returns, none waits: `close()`, called at once, refuses none that was there.

        Args:
            admit: As for `accept_forever()`, which may be running.

        Raises:
            OSError: The listener itself has failed.
        """

    @abstractmethod
    def close(self) -> None:
        """Accept no more: `accept_forever()` returns. May be called several times."""

    @abstractmethod
    def is_closing(self) -> bool:
        """Whether it was closed."""
