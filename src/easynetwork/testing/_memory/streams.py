"""Connections in memory: what the kernel does for a connection over the loopback interface.

What a `MemorySocket` does is what Linux does, in these points:

* Bytes that were sent are in the peer's buffer at once, unless there is latency. A sender has to
  wait (`BlockingIOError`) while its own buffer and the peer's are full.
* What has arrived can be received, even if the connection is reset afterwards. Then the error comes
  once, and then the end of the stream; if that had arrived before the reset, only a sender gets the
  error.
* A socket that is closed while there is something to receive resets the connection. So does one
  that lingers (SO_LINGER) for 0 seconds, and one to which something is sent after it was closed or
  shut down in both directions.
* A connection that has ended in both directions, or was reset, is none any more: ENOTCONN.
"""

from __future__ import annotations

import errno
import random
import socket
from collections import deque
from typing import Final

import anyio

from easynetwork.addresses import enable_socket_linger, get_socket_linger
from easynetwork.testing._memory.faults import Faults
from easynetwork.testing._memory.sockets import Address, BaseMemorySocket, Cancel, call_at, os_error

BUFFER_SIZE: Final = 64 * 1024
"""Bytes that a socket buffers in each direction, unless SO_SNDBUF or SO_RCVBUF says otherwise."""


class _Item:
    """What is on its way in a pipe: bytes, the end of the stream (``b""``), or a reset (None)."""

    __slots__ = ("arrival", "data")

    def __init__(self, data: bytes | None, arrival: float) -> None:
        self.data = data
        self.arrival = arrival


class _Pipe:
    """One direction of a connection, from its `writer` to its `reader`."""

    def __init__(self, faults: Faults, choices: random.Random) -> None:
        self.writer: MemorySocket | None = None  # until it connects, and when it is closed
        self.reader: MemorySocket | None = None
        self.arrived: bytearray = bytearray()
        self.has_ended: bool = False  # everything has arrived, and the end of the stream
        self._faults = faults
        self._choices = choices
        self._cuts = faults.cuts(choices)
        self._next_cut = next(self._cuts)  # bytes until there
        self._on_the_way: deque[_Item] = deque()
        self._size_on_the_way = 0
        self._timer: Cancel | None = None
        self._written = 0
        self._is_truncated = False

    # -- the writer's end

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take bytes as far as there is room, and return how many."""
        if (room := self.room()) <= 0:
            raise os_error(errno.EAGAIN)
        taken = bytes(data[:room])
        before, self._written = self._written, self._written + len(taken)
        if self._is_truncated:
            return len(taken)
        reset_after, truncate_after = self._faults.reset_after, self._faults.truncate_after
        if reset_after is not None and truncate_after is not None:  # the first one counts
            reset_after = reset_after if reset_after < truncate_after else None
        if truncate_after is not None and self._written >= truncate_after and reset_after is None:
            self._send(taken[: truncate_after - before])
            self._send(b"", is_end=True)
            self._is_truncated = True
        elif reset_after is not None and self._written >= reset_after:
            self._send(taken[: reset_after - before])
            if self.writer is not None:
                self.writer.break_connection(errno.ECONNRESET)
            self._send(None)
        else:
            self._send(taken)
        return len(taken)

    def end(self) -> None:
        if not self._is_truncated:
            self._send(b"", is_end=True)

    def reset(self) -> None:
        """Tell the reader of a reset, and lose what the writer's kernel had not delivered."""
        while self._on_the_way:
            self._size_on_the_way -= len(self._on_the_way.pop().data or b"")
        self._send(None)

    def room(self) -> int:
        """Return how many more bytes both buffers hold; none if it is negative."""
        buffers = (self.writer, socket.SO_SNDBUF), (self.reader, socket.SO_RCVBUF)
        sizes = [sock.option(name, BUFFER_SIZE) for sock, name in buffers if sock is not None]
        return sum(sizes) - len(self.arrived) - self._size_on_the_way

    def _send(self, data: bytes | None, *, is_end: bool = False) -> None:
        if data == b"" and not is_end:
            return
        least, most = self._faults.delays
        if not most:
            return self._deliver(data)
        arrival = anyio.current_time() + self._choices.uniform(least, most)
        if self._on_the_way:
            arrival = max(arrival, self._on_the_way[-1].arrival)
        self._on_the_way.append(_Item(data, arrival))
        self._size_on_the_way += len(data or b"")
        if self._timer is None:
            self._timer = call_at(arrival, self._arrive)

    def _arrive(self) -> None:
        self._timer = None
        now = anyio.current_time()
        while self._on_the_way and self._on_the_way[0].arrival <= now:
            data = self._on_the_way.popleft().data
            self._size_on_the_way -= len(data or b"")
            self._deliver(data)
        if self._on_the_way:
            self._timer = call_at(self._on_the_way[0].arrival, self._arrive)

    def _deliver(self, data: bytes | None) -> None:
        reader = self.reader
        self.has_ended |= data == b""
        if data and (reader is None or reader.is_shut_down):
            for sock in self.reader, self.writer:
                if sock is not None:
                    sock.break_connection()
        elif reader is not None:
            if data is None:
                reader.break_connection()
            else:
                self.arrived += data
                reader.on_readable()

    # -- the reader's end

    def read(self, size: int, *, is_peek: bool) -> bytes:
        """Return what has arrived, up to a number of bytes and the next place to cut."""
        data = bytes(self.arrived[: min(size, self._next_cut)])
        if data and not is_peek:
            del self.arrived[: len(data)]
            self._next_cut -= len(data)
            if not self._next_cut:
                self._next_cut = next(self._cuts)
            if self.writer is not None:
                self.writer.on_writable()
        return data


class MemorySocket(BaseMemorySocket):
    """One end of a connection."""

    type = socket.SOCK_STREAM
    proto: int = socket.IPPROTO_TCP

    def __init__(
        self,
        address: Address,
        peer_address: Address,
        incoming: _Pipe,
        outgoing: _Pipe,
    ) -> None:
        super().__init__(address, peer_address)
        self._incoming, self._outgoing = incoming, outgoing
        incoming.reader, outgoing.writer = self, self
        self._cannot_send = False
        self._cannot_receive = False
        self._is_broken = False

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        self.check_open()
        self.raise_pending_error()
        if self._cannot_send:
            raise os_error(errno.EPIPE)
        return self._outgoing.write(data)

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.check_open()
        is_peek = bool(flags & socket.MSG_PEEK)
        if data := self._incoming.read(size, is_peek=is_peek):
            return data
        if self._incoming.has_ended:
            return b""
        self.raise_pending_error()
        if self._cannot_receive:
            return b""
        raise os_error(errno.EAGAIN)

    @property
    def is_shut_down(self) -> bool:
        """Whether this end neither sends nor receives any more."""
        return self._cannot_send and self._cannot_receive

    @property
    def _is_connected(self) -> bool:
        return not (self._is_broken or (self._incoming.has_ended and self._outgoing.has_ended))

    def getpeername(self) -> Address:
        address = super().getpeername()
        if not self._is_connected:
            raise os_error(errno.ENOTCONN)
        return address

    def is_readable(self) -> bool:
        return bool(
            self._incoming.arrived
            or self._error
            or self._incoming.has_ended
            or self._cannot_receive
            or self.fileno() < 0
        )

    def is_writable(self) -> bool:
        return bool(self._error or self._cannot_send or self._outgoing.room() > 0)

    def shutdown(self, how: int) -> None:
        self.check_open()
        if not self._is_connected:
            raise os_error(errno.ENOTCONN)
        if how != socket.SHUT_RD and not self._cannot_send:
            self._cannot_send = True
            self._outgoing.end()
        if how != socket.SHUT_WR:
            self._cannot_receive = True
            self.on_readable()

    def break_connection(self, error: int | None = None) -> None:
        """Take note of a reset; its error is raised once, by what is called next."""
        if self._is_connected:
            # As tcp_reset() of Linux: a peer that had ended its side is not there any more.
            default = errno.EPIPE if self._incoming.has_ended else errno.ECONNRESET
            self._error = default if error is None else error
            self._is_broken = self._cannot_send = self._cannot_receive = True
            del self._incoming.arrived[self.option(socket.SO_RCVBUF, BUFFER_SIZE) :]
            self.on_readable()
            self.on_writable()

    def abort(self) -> None:
        """Reset the connection, and close the socket."""
        enable_socket_linger(self, 0)
        self.close()

    def close(self) -> None:
        if self.fileno() < 0:
            return
        is_abortive = get_socket_linger(self) == (True, 0)
        super().close()
        if self._is_connected:
            if is_abortive or self._incoming.arrived:
                self._outgoing.reset()
            elif not self._cannot_send:
                self._outgoing.end()
        self._incoming.reader = self._outgoing.writer = None


def new_pair(
    addresses: tuple[Address, Address],
    faults: tuple[Faults, Faults],
    choices: tuple[random.Random, random.Random],
) -> tuple[MemorySocket, MemorySocket]:
    """Return the two ends of a new connection: the client's and the server's.

    Args:
        addresses: Theirs, in this order.
        faults: What happens to what they send.
        choices: Decides when.
    """
    upstream, downstream = map(_Pipe, faults, choices)
    client, server = addresses
    return (
        MemorySocket(client, server, downstream, upstream),
        MemorySocket(server, client, upstream, downstream),
    )
