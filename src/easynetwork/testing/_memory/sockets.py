"""What sockets in memory have in common, for streams and for datagrams.

They have those methods of a non-blocking `socket.socket` that transports call, and raise what these
raise. They call their owner back when it may be worth trying again.
"""

from __future__ import annotations

import errno
import heapq
import math
import os
import socket
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel

_FIRST_DESCRIPTOR: Final = 1 << 30
"""No process has so many descriptors, so their numbers are free for sockets that have none."""

Address: TypeAlias = tuple[str, int]
Cancel: TypeAlias = Callable[[], object]


def call_at(deadline: float, callback: Callable[[], object]) -> Cancel:
    """Call a function at a time on the clock of the event loop; return what prevents that."""
    token: Any = anyio.lowlevel.current_token().native_token
    if hasattr(token, "call_at"):
        return token.call_at(deadline, callback).cancel  # type: ignore[no-any-return]
    import trio

    scope = trio.CancelScope()

    async def wait() -> None:
        with scope:
            await trio.sleep_until(deadline)
            callback()

    trio.lowlevel.spawn_system_task(wait)
    return scope.cancel


def nothing() -> None:
    """Stand in for a callback, where nobody waits."""


async def wait_readable(sock: BaseMemorySocket, deadline: float = math.inf) -> None:
    """Wait until there is something to receive, be it an error or the end. One task at a time.

    Raises:
        TimeoutError: The deadline, on the event loop's clock, has passed.
    """
    if sock.is_readable():
        return await anyio.lowlevel.checkpoint()
    arrived = anyio.Event()
    sock.on_readable = wake_up = arrived.set
    try:
        if deadline == math.inf:
            await arrived.wait()
        else:
            with anyio.CancelScope(deadline=deadline):
                await arrived.wait()
            if not arrived.is_set():
                raise TimeoutError("timed out")
    finally:
        if sock.on_readable is wake_up:  # else, the next one waits already
            sock.on_readable = nothing


async def wait_writable(sock: BaseMemorySocket) -> None:
    """Wait until a socket that was full takes something again. One task at a time."""
    if sock.is_writable():
        return await anyio.lowlevel.checkpoint()
    has_room = anyio.Event()
    sock.on_writable = has_room.set
    await has_room.wait()


class _Descriptors:
    """The numbers that stand for descriptors, each in use by one socket at a time."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._next = _FIRST_DESCRIPTOR

    def take(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        self._next += 1
        return self._next

    def give_back(self, number: int) -> None:
        heapq.heappush(self._free, number)


_descriptors: Final = _Descriptors()


class BaseMemorySocket:
    """What sockets for streams and for datagrams have in common.

    Attributes:
        family: Always that of IPv4.
        type: The type of the socket.
        proto: The number of its protocol.
        on_readable: Called when it may be worth trying to receive.
        on_writable: Called when it may be worth trying to send.
    """

    family: Final = socket.AF_INET
    type: socket.SocketKind
    proto: int

    def __init__(self, address: Address, peer_address: Address | None) -> None:
        self._address = address
        self._peer_address = peer_address
        self._descriptor = _descriptors.take()
        self._options: dict[tuple[int, int], Any] = {}
        self._error = 0  # the number of the pending one: see SO_ERROR in socket(7)
        self.on_readable: Callable[[], object] = nothing
        self.on_writable: Callable[[], object] = nothing

    def fileno(self) -> int:
        return self._descriptor

    def getsockname(self) -> Address:
        self.check_open()
        return self._address

    def getpeername(self) -> Address:
        self.check_open()
        if self._peer_address is None:
            raise os_error(errno.ENOTCONN)
        return self._peer_address

    def get_inheritable(self) -> bool:
        return False

    def setblocking(self, flag: bool, /) -> None:
        """Do nothing: the socket does not block."""

    def setsockopt(self, level: int, option: int, value: Any, length: int | None = None) -> None:
        """Note the value. The sizes of the buffers and lingering have their effect, no others."""
        self.check_open()
        self._options[level, option] = value

    def getsockopt(self, level: int, option: int, length: int = 0) -> Any:
        self.check_open()
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            return self.take_error()
        value = self._options.get((level, option), b"" if length else 0)
        return bytes(value).ljust(length, b"\0") if length else value

    def option(self, option: int, default: int) -> int:
        """Return the value of an option of SOL_SOCKET."""
        return int(self._options.get((socket.SOL_SOCKET, option), default))

    def recv_into(self, view: memoryview, nbytes: int = 0, flags: int = 0) -> int:
        data = self.recv(nbytes or len(view), flags)
        view[: len(data)] = data
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:
        raise NotImplementedError

    def is_readable(self) -> bool:
        """Whether there is something to receive, be it an error or the end."""
        raise NotImplementedError

    def is_writable(self) -> bool:
        """Whether sending would not have to wait; it may raise an error."""
        return True

    def recvmsg(self, *args: Any) -> Any:
        """Say that there is nothing: there is no ancillary data, and no queue of errors."""
        raise os_error(errno.EAGAIN)

    def check_open(self) -> None:
        if self._descriptor < 0:
            raise os_error(errno.EBADF)

    def take_error(self) -> int:
        error, self._error = self._error, 0
        return error

    def raise_pending_error(self) -> None:
        if error := self.take_error():
            raise os_error(error)

    def close(self) -> None:
        if self._descriptor >= 0:
            _descriptors.give_back(self._descriptor)
            self._descriptor = -1
            self.on_readable()
            self.on_writable()


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
