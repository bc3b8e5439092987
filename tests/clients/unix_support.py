"""What the tests of clients for Unix sockets share: their other end, a plain socket with a name."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import tempfile
from typing import Protocol

from tests.times import PATIENCE

_numbers = itertools.count()


def new_path() -> str:
    """Return a path that nothing has; it is short enough for a socket (107 bytes: unix(7))."""
    return f"{tempfile.gettempdir()}/easynetwork-{os.getpid()}-{next(_numbers)}"


def new_name(*, is_abstract: bool) -> str | bytes:
    """Return a name that nothing has; a path where there are no abstract names."""
    path = new_path()
    return b"\0" + path.encode() if is_abstract and sys.platform == "linux" else path


class Named(socket.socket):
    """A Unix socket whose path, if it has one, is removed when it is closed."""

    _path = ""

    def bind(self, name: str | bytes, /) -> None:  # type: ignore[override]  # Unix sockets only.
        super().bind(name)
        self._path = name if isinstance(name, str) else ""

    def close(self) -> None:
        super().close()
        path, self._path = self._path, ""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def named(
    kind: socket.SocketKind = socket.SOCK_STREAM, *, is_abstract: bool = False, backlog: int = 128
) -> Named:
    """Return a blocking socket with a new name; a stream socket listens."""
    sock = Named(socket.AF_UNIX, kind)
    try:
        sock.settimeout(PATIENCE)
        sock.bind(new_name(is_abstract=is_abstract))
        if kind == socket.SOCK_STREAM:
            sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


class HasDescriptor(Protocol):
    """A socket or a client."""

    def fileno(self) -> int: ...


def fill(sock: HasDescriptor, data: bytes) -> int:
    """Send the same again and again until the kernel takes no more; return how often it did.

    Args:
        sock: A socket, or what has one.
        data: What to send.
    """
    with socket.socket(fileno=os.dup(sock.fileno())) as copy:
        copy.setblocking(False)  # as those of clients are; the mode is not that of the descriptor
        for count in itertools.count():
            try:
                copy.send(data)
            except BlockingIOError:
                return count
    raise AssertionError
