"""Read what a peer still sends on a connection that is being closed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import anyio
import anyio.lowlevel

from easynetwork._tuning import LINGER_SIZE


def has_unread(sock: socket.socket) -> bool:
    """Whether the kernel holds bytes of the peer."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


class _Receiving(Protocol):
    """A transport, as far as it is needed here."""

    socket: socket.socket

    async def wait_readable(self) -> None:
        """Wait until it is worth trying to receive."""


async def linger(
    transport: _Receiving,
    view: memoryview,
    all_sent: anyio.Event | None,
    shut_down: Callable[[], object],
    timeout: float,
) -> None:
    """End the sending half when everything is sent, and read until the peer ends its side.

    Args:
        transport: The transport, whose socket may be closed meanwhile.
        view: Where to receive.
        all_sent: Set when all output is sent; None if it is.
        shut_down: Ends the sending half.
        timeout: Seconds that the peer has after that.
    """
    async with anyio.create_task_group() as tasks:
        peer_ended = anyio.Event()
        tasks.start_soon(_read_to_end, transport, view, peer_ended)
        if all_sent is not None:
            await all_sent.wait()
        shut_down()
        with anyio.move_on_after(timeout):
            await peer_ended.wait()
        tasks.cancel_scope.cancel()


async def _read_to_end(transport: _Receiving, view: memoryview, ended: anyio.Event) -> None:
    """Discard what the peer sends until it ends its side, or has sent `LINGER_SIZE` bytes.

    Starts before all output is sent: some peers read only after they have finished sending.
    """
    sock = transport.socket
    left = LINGER_SIZE
    with suppress(OSError, anyio.ClosedResourceError):
        while sock.fileno() >= 0 and left > 0:
            await transport.wait_readable()
            # On uvloop, anyio does not cancel a task whose socket is ready at every turn.
            await anyio.lowlevel.checkpoint_if_cancelled()
            with suppress(BlockingIOError):
                nbytes = sock.recv_into(view)
                if not nbytes:
                    break
                left -= nbytes
    ended.set()
