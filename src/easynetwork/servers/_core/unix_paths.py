"""The paths of servers on Unix sockets."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial

from easynetwork._arguments import check_has_path, validated_mode, validated_unix_path
from easynetwork.addresses import UnixSocketAddress
from easynetwork.backends import AsyncBackend
from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.sockets.binding import SocketSource
from easynetwork.sockets.unix import BoundPath, open_unix_socket


class PathSource(SocketSource):
    """Binds the socket of a server to its arguments `path`, `mode` and `unlink_stale`.

    Args:
        path: The server's argument, like the following two.
        mode: See `path`.
        unlink_stale: See `path`.
        backend: The server's backend: binding happens in a thread, since a file system may be slow.
        kind: `socket.SOCK_STREAM` or `socket.SOCK_DGRAM`.
        backlog: Connections that may wait to be accepted; None for datagrams.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a value that cannot be used.
    """

    __slots__ = ("_backend", "_open", "address", "bound")

    def __init__(
        self,
        path: object,
        mode: int | None,
        unlink_stale: bool,
        backend: AsyncBackend,
        kind: socket.SocketKind,
        backlog: int | None,
    ) -> None:
        self._backend = backend
        self.address: UnixSocketAddress = validated_unix_path(path)
        self.bound: BoundPath | None = None
        if unlink_stale:
            check_has_path("unlink_stale", self.address)
        self._open = partial(
            open_unix_socket,
            self.address,
            kind,
            mode=validated_mode(mode, self.address),
            backlog=backlog,
            unlink_stale=bool(unlink_stale),
        )

    async def open(self) -> list[socket.socket]:
        sock, self.address, self.bound = await self._backend.run_in_thread(self._open)
        return [sock]


def name_and_release(
    source: SocketSource, sock: socket.socket, log: ServerLog
) -> tuple[UnixSocketAddress, Callable[[], None]]:
    """Return the name of a listening socket, and what removes its path if it was bound here.

    A socket that has replaced a stale one was bound under another name, and getsockname(2) tells
    that one.
    """
    if isinstance(source, PathSource):
        return source.address, partial(_remove, source.bound, log)
    return UnixSocketAddress.from_raw(sock.getsockname()), partial(_remove, None, log)


def _remove(path: BoundPath | None, log: ServerLog) -> None:
    if path is not None:
        try:
            path.remove()
        except OSError as exc:
            log.log(logging.ERROR, "Unable to clean up listening Unix socket '%s': %s", path, exc)
