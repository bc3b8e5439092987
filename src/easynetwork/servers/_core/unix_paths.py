"""The path of a server's Unix socket."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial

from easynetwork._arguments import check_has_path, validated_mode, validated_unix_path
from easynetwork.addresses import UnixSocketAddress
from easynetwork.backends import AsyncBackend
from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.sockets.unix import BoundPath, open_unix_socket


class ServerPath:
    """Where a server binds its socket: its arguments `path`, `mode` and `unlink_stale`.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a value that cannot be used.
    """

    __slots__ = ("_address", "_mode", "_unlink_stale")

    def __init__(self, path: object, mode: int | None, unlink_stale: bool) -> None:
        self._address = validated_unix_path(path)
        self._mode = validated_mode(mode, self._address)
        self._unlink_stale = bool(unlink_stale)
        if unlink_stale:
            check_has_path("unlink_stale", self._address)

    async def open(
        self, backend: AsyncBackend, kind: socket.SocketKind, log: ServerLog, backlog: int | None
    ) -> tuple[socket.socket, UnixSocketAddress, Callable[[], None]]:
        """Bind a socket.

        It happens in a thread, since a file system may be slow.

        Returns:
            The socket, its address, and a function that removes the path.
        """
        open_socket = partial(
            open_unix_socket,
            self._address,
            kind,
            mode=self._mode,
            backlog=backlog,
            unlink_stale=self._unlink_stale,
        )
        sock, address, path = await backend.run_in_thread(open_socket)
        return sock, address, partial(_remove, path, log)


def _remove(path: BoundPath | None, log: ServerLog) -> None:
    if path is not None:
        try:
            path.remove()
        except OSError as exc:
            log.log(logging.ERROR, "Unable to clean up listening Unix socket '%s': %s", path, exc)
