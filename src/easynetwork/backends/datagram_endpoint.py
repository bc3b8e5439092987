"""The shared body of datagram endpoints: a non-blocking datagram socket.

Datagrams stay in the kernel until they are asked for, and leave at once or not at all, so there is
nothing to buffer. A server is handed what arrives (`serve`); a client takes one datagram after
another (`receive`). Loops differ only in how they wait until the socket is readable.
"""

from __future__ import annotations

import errno
import math
import socket as _socket  # the attribute of this name hides the module inside the class
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import anyio
import anyio.lowlevel

from easynetwork._forks import close_in_children, keep_in_children, take_descriptor
from easynetwork.addresses._ancillary import AncillaryCallback, RawAncillary
from easynetwork.addresses._attributes import socket_attributes
from easynetwork.addresses._unix import AnySocketAddress, typed_address
from easynetwork.backends.abc import Batch, DatagramEndpoint
from easynetwork.backends.abc.datagram import BatchCallback, ErrorCallback
from easynetwork.backends.receive_buffer import receive_view
from easynetwork.sockets.connecting import raise_pending_error
from easynetwork.sockets.datagrams import (
    DatagramCalls,
    check_still_connected,
    explain_unix,
    is_unix,
    largest_datagram,
    new_datagram_calls,
    too_long,
)
from easynetwork.sockets.messages import MessageReader

BATCH_SIZE: Final = 64
"""Datagrams taken from one socket before the event loop gets a turn."""

_RETRY_INTERVAL: Final = 0.005
"""Seconds between attempts to send to a Unix socket that its peer does not read."""

_MSG_ERRQUEUE: Final[int | None] = getattr(_socket, "MSG_ERRQUEUE", None)  # Linux


class SocketDatagramEndpoint(DatagramEndpoint):
    """A datagram socket; how to wait for it is up to the loop.

    Attributes:
        socket: The socket.
    """

    __slots__ = ("_calls", "_in_a_row", "_view", "_writing", "address", "local_address", "socket")

    def __init__(self, sock: _socket.socket, calls: DatagramCalls | None = None) -> None:
        take_descriptor(sock)
        self.socket: _socket.socket = sock
        self.local_address: AnySocketAddress = typed_address(sock.getsockname(), sock.family)
        self.address: AnySocketAddress | None = None
        self._view = receive_view(largest_datagram(sock.family))
        self._calls = new_datagram_calls(sock) if calls is None else calls
        self._in_a_row = 0  # datagrams that were received without waiting
        self._writing = anyio.Lock()
        with suppress(OSError):  # a server's: a child that forks before it is served keeps it
            self.address = typed_address(sock.getpeername(), sock.family)
            close_in_children(sock)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return socket_attributes(self.socket, self.local_address, self.address)

    async def serve(self, received: BatchCallback, failed: ErrorCallback) -> None:
        if self.is_closing():
            return
        close_in_children(self.socket)
        try:
            await self._serve(received, failed)
        finally:
            keep_in_children(self.socket)

    async def receive(self, deadline: float = math.inf) -> Any:
        if self._in_a_row == BATCH_SIZE:
            await anyio.lowlevel.checkpoint()
            self._in_a_row = 0
        while (datagram := self._take()) is None:
            self._in_a_row = 0
            await self._readable(deadline)
        self._in_a_row += 1
        return datagram

    async def receive_with_ancillary(self, bufsize: int, received: AncillaryCallback) -> bytes:
        if not is_unix(self.socket):
            return await super().receive_with_ancillary(bufsize, received)
        calls = self._calls
        reader = MessageReader(self.socket, bufsize, received)
        self._calls = calls._replace(receive=reader.recv_into)
        try:
            datagram: bytes = await self.receive()
        finally:
            self._calls = calls
        check_still_connected(self.socket)
        if reader.error is not None:
            raise reader.error
        return datagram

    def send(self, data: bytes, address: Any = None, ancillary: RawAncillary | None = None) -> bool:
        try:
            if ancillary is not None:
                self.socket.sendmsg([data], ancillary, 0, address)
            elif address is None:
                self.socket.send(data)
            else:
                self._calls.send_to(data, address)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno == errno.EMSGSIZE:
                raise too_long(data, self.socket.family) from None
            self._forget_error()
            if address is not None and is_unix(self.socket):
                raise explain_unix(exc, address) from None
            if address is None:
                raise
            return self._send_again(data, address)
        return True

    def _send_again(self, data: bytes, address: Any) -> bool:
        # The error may be what became of an earlier datagram, to another peer. If so, the kernel
        # has sent nothing.
        try:
            self._calls.send_to(data, address)
        except BlockingIOError:
            return False
        return True

    async def writable(self) -> None:
        if self.address is None and is_unix(self.socket):
            # Another socket is full, and the kernel does not tell when it has room again.
            return await anyio.sleep(_RETRY_INTERVAL)
        async with self._writing:  # tasks take turns: loops let only one of them wait
            if not self.is_closing():
                with suppress(anyio.ClosedResourceError):
                    await anyio.wait_writable(self.socket)

    def raise_pending_error(self) -> None:
        raise_pending_error(self.socket)

    def close(self) -> None:
        if not self.is_closing():
            with suppress(anyio.NoEventLoopError):  # garbage collection: no task waits
                anyio.notify_closing(self.socket)
            self._unregister()
            self.socket.close()

    def is_closing(self) -> bool:
        return self.socket.fileno() < 0

    # -- what the loop adds

    @abstractmethod
    async def _serve(self, received: BatchCallback, failed: ErrorCallback) -> None:
        """Do what `serve` says."""

    @abstractmethod
    async def _readable(self, deadline: float) -> None:
        """Wait until it is worth trying to receive again, or the endpoint is closed.

        Raises:
            TimeoutError: The deadline has passed.
        """

    @abstractmethod
    def _unregister(self) -> None:
        """Wake up the task that waits to receive: the socket is about to be closed."""

    # -- for the loop

    def _take(self) -> Any:
        """Return the next datagram, see `receive`; None if there is none."""
        try:
            if self.address is None:
                nbytes, sender = self._calls.receive_from(self._view)
                return self._view[:nbytes].tobytes(), sender
            nbytes = self._calls.receive(self._view)
        except BlockingIOError:
            return None
        except OSError:
            self._forget_error()
            raise
        return self._view[:nbytes].tobytes()

    def take_waiting(self, received: BatchCallback, failed: ErrorCallback) -> bool:
        if self.is_closing():
            return False
        receive, _, _, attach = self._calls
        view = self._view
        batch: Batch = []
        for _ in range(BATCH_SIZE):
            try:
                nbytes, address = receive(view)
            except BlockingIOError:
                break
            except OSError as exc:
                self._forget_error()
                failed(exc)
            else:
                datagram = view[:nbytes].tobytes()
                batch.append((datagram if attach is None else attach(datagram), address))
                if attach is not None:
                    break  # the process has few descriptors: let the handler close them first
        if batch:
            received(batch)
        return len(batch) == BATCH_SIZE

    def _forget_error(self) -> None:
        """Take note that the socket has reported an error, which is not its end.

        If other code has set IP_RECVERR, the kernel also keeps the error's details (ip(7)), and
        calls the socket ready until they are read: the event loop would never rest. (A Unix socket
        has no such queue, and would hand over its datagrams.)
        """
        if _MSG_ERRQUEUE is not None and not is_unix(self.socket):
            with suppress(OSError):  # there are none, or no more
                while True:
                    self.socket.recvmsg(0, 0, _MSG_ERRQUEUE)
