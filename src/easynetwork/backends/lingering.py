"""Read what a peer still sends on a connection that is being closed."""

from __future__ import annotations

__all__ = ["read_to_end"]

import socket
from contextlib import suppress

import anyio
import anyio.lowlevel

from easynetwork._tuning import LINGER_SIZE


async def read_to_end(sock: socket.socket, view: memoryview, ended: anyio.Event) -> None:
    """Discard what the peer sends until it ends its side, or has sent `LINGER_SIZE` bytes.

    Start before all output is sent: some peers read only after they have finished sending.

    Args:
        sock: The socket; may be closed meanwhile.
        view: Where to receive.
        ended: Set at the end.
    """
    left = LINGER_SIZE
    with suppress(OSError, anyio.ClosedResourceError):
        while sock.fileno() >= 0 and left > 0:
            await anyio.wait_readable(sock)
            # On uvloop, anyio does not cancel a task whose socket is ready at every turn.
            await anyio.lowlevel.checkpoint_if_cancelled()
            with suppress(BlockingIOError):
                nbytes = sock.recv_into(view)
                if not nbytes:
                    break
                left -= nbytes
    ended.set()
