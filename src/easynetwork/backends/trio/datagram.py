"""A datagram socket on trio."""

from __future__ import annotations

import math
from contextlib import suppress

import trio

from easynetwork.backends.abc.datagram import BatchCallback, ErrorCallback
from easynetwork.backends.datagram_endpoint import SocketDatagramEndpoint


class TrioDatagramEndpoint(SocketDatagramEndpoint):
    """A datagram socket under trio's care."""

    __slots__ = ()

    async def _serve(self, received: BatchCallback, failed: ErrorCallback) -> None:
        while self.socket.fileno() >= 0:
            await self._readable(math.inf)
            if self.take_waiting(received, failed):
                # trio shuffles tasks: let those that were started meanwhile have their turn first.
                await trio.lowlevel.checkpoint()

    async def _readable(self, deadline: float) -> None:
        if deadline == math.inf:
            with suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(self.socket)
        elif deadline > trio.current_time():
            with trio.CancelScope(deadline=deadline) as scope:
                await self._readable(math.inf)
            if scope.cancelled_caught:
                raise TimeoutError("timed out")
        else:
            await trio.lowlevel.checkpoint()
            raise TimeoutError("timed out")

    def _unregister(self) -> None:
        pass  # the task that waits has been told by `anyio.notify_closing()`
