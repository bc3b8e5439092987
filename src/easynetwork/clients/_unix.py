"""What the clients for Unix sockets have in common."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from easynetwork._arguments import validated_ancillary_bufsize
from easynetwork.addresses import SocketAncillary, UnixSocketAddress
from easynetwork.addresses._ancillary import AncillaryCallback, RawAncillary
from easynetwork.clients._waiting import deadline_after
from easynetwork.sockets.unix import BoundPath, connect_unix_blocking, open_unix_socket


class LocalPath:
    """Where a client binds its socket before it connects.

    Args:
        address: The path or abstract name; None not to bind the socket.
    """

    __slots__ = ("_address", "_bound")

    def __init__(self, address: UnixSocketAddress | None) -> None:
        self._address = address
        self._bound: BoundPath | None = None

    @contextlib.contextmanager
    def new_socket(self, kind: socket.SocketKind) -> Iterator[socket.socket]:
        """Return a non-blocking socket; close it and remove its path if the block fails."""
        if self._address is None:
            sock = socket.socket(socket.AF_UNIX, kind)
            sock.setblocking(False)
        else:
            sock, _, self._bound = open_unix_socket(self._address, kind)
        try:
            yield sock
        except BaseException:
            self.remove()
            sock.close()
            raise

    def connect(self, target: Any, kind: socket.SocketKind, timeout: float | None) -> socket.socket:
        """Return a socket that is connected to an address; `target` itself if it is a socket.

        Raises:
            OSError: The socket cannot be connected in time.
        """
        if isinstance(target, socket.socket):
            return target
        deadline = deadline_after(timeout)
        with self.new_socket(kind) as sock:
            connect_unix_blocking(sock, target, deadline)
            return sock

    def remove(self) -> None:
        """Remove the path, if this client has made one, before its socket is closed."""
        bound, self._bound = self._bound, None
        if bound is not None:
            with contextlib.suppress(OSError):  # a foreign matter, and nothing depends on it
                bound.remove()


@contextlib.contextmanager
def collecting(ancillary_data: SocketAncillary) -> Iterator[AncillaryCallback]:
    """Return a callback for ancillary data; add all of it to a user's object at the end.

    Raises:
        RuntimeError: It cannot be parsed (the cause).
    """
    collected: RawAncillary = []
    try:
        yield collected.extend
    finally:
        try:
            ancillary_data.update_from_raw(collected)
        except Exception as exc:
            raise RuntimeError("ancillary_data_received() crashed") from exc


def validated_reception(
    ancillary_data: SocketAncillary | None, ancillary_bufsize: int | None
) -> int:
    """Return the most bytes of ancillary data to receive; 0 for none.

    Raises:
        ValueError: There is a size and nothing to receive, or it is not strictly positive.
    """
    if ancillary_data is None:
        if ancillary_bufsize is not None:
            raise ValueError("ancillary_bufsize is only meaningful with ancillary_data")
        return 0
    return validated_ancillary_bufsize(ancillary_bufsize)
