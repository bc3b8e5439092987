"""Read a connection while no task waits for a packet, to see its end.

From the first `wait_disconnected()` on, one task per client reads. A task that wants packets waits
for that task, unless it was already receiving when the watch began.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio

from easynetwork._tuning import HIGH_WATER
from easynetwork.backends.abc import SessionTasks, broken_connection

if TYPE_CHECKING:
    from easynetwork.servers._stream.packets import PacketClient


class Watch:
    """Reads for one client.

    Args:
        tasks: Where to start the task that reads.
        client: The client.
    """

    __slots__ = (
        *("_arrived", "_client", "_end", "_ended"),
        *("_has_left", "_is_held", "_reading", "_resumed"),
    )

    def __init__(self, tasks: SessionTasks, client: PacketClient) -> None:
        self._client = client
        self._is_held = client.is_receiving  # another task reads
        self._reading: anyio.CancelScope | None = None  # while this does
        self._resumed = anyio.Event()
        self._has_left = anyio.Event()
        self._arrived = anyio.Event()
        self._ended = anyio.Event()
        self._end: EOFError | ConnectionError | None = None
        tasks.start(self._run, tasks, name=f"watch of client {client.address}")

    async def _run(self, tasks: SessionTasks) -> None:
        try:
            with tasks.scope():
                while True:
                    await self._read_or_wait()
        except (EOFError, ConnectionError) as exc:
            self._end = exc.with_traceback(None)
        finally:
            self._reading = None
            for event in self._has_left, self._arrived, self._ended:
                event.set()

    async def _read_or_wait(self) -> None:
        client = self._client
        # A packet that a task waits for may be longer than that.
        is_full = len(client.decoder) > HIGH_WATER and not client.is_receiving
        if self._is_held or is_full:
            self._resumed = anyio.Event()
            await self._resumed.wait()
        else:
            if client.decoder.at_hand:  # fed by the transport before this asked for it
                self._arrived.set()
            with anyio.CancelScope() as self._reading:
                await client.transport.receive()
            self._reading = None
            self._has_left.set()
            self._arrived.set()

    async def hold(self) -> None:
        """Have it read no more until `resume()` is called, so that the caller can."""
        self._is_held = True
        if self._reading is not None:
            self._has_left = anyio.Event()
            self._reading.cancel()
            await self._has_left.wait()

    def resume(self) -> None:
        """Let it read again: no other task does, and packets may have been taken."""
        self._is_held = False
        self._resumed.set()

    async def receive(self, deadline: float) -> None:
        """Do what `StreamTransport.receive()` does."""
        self.resume()
        if self._ended.is_set():
            await anyio.lowlevel.checkpoint()
            raise EOFError if isinstance(self._end, EOFError) else broken_connection(self._end)
        self._arrived = anyio.Event()
        if deadline == math.inf:
            await self._arrived.wait()
        else:
            with anyio.CancelScope(deadline=deadline):
                await self._arrived.wait()
            if not self._arrived.is_set():
                raise TimeoutError("timed out")

    async def wait(self) -> None:
        """Wait until the connection has ended."""
        await self._ended.wait()
