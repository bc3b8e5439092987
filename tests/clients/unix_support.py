"""What the tests of clients for Unix sockets share: their other end, a plain socket with a name."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pathlib
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from easynetwork.addresses import SocketAncillary, UnixSocketAddress
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
    """Send the same again and again until the kernel takes no more; return how many bytes it did.

    Args:
        sock: A socket, or what has one.
        data: What to send.
    """
    total = 0
    with socket.socket(fileno=os.dup(sock.fileno())) as copy:
        copy.setblocking(False)  # as those of clients are; the mode is not that of the descriptor
        with contextlib.suppress(BlockingIOError):
            while True:
                total += copy.send(data)
    return total


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be a user whom permissions concern."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)  # nobody
    try:
        yield
    finally:
        os.seteuid(user)


# What a path may be given as.
FORMS: dict[str, Callable[[str], Any]] = {
    "text": str,
    "bytes": os.fsencode,
    "path object": pathlib.Path,
    "address": UnixSocketAddress.from_pathname,
}

# Whether a path, and what is there, is no server: the error, and what it says.
Obstacle: TypeAlias = tuple[Callable[[str], str], type[OSError], int]


def missing(folder: str) -> str:
    return f"{folder}/missing"


def in_no_folder(folder: str) -> str:
    return f"{folder}/missing/server"


def too_long(folder: str) -> str:
    return f"{folder}/" + "x" * (108 - len(folder) - 1)


def ordinary_file(folder: str) -> str:
    path = f"{folder}/file"
    pathlib.Path(path).touch()
    return path


def directory(folder: str) -> str:
    return folder


OBSTACLES: list[Obstacle] = [
    (missing, FileNotFoundError, errno.ENOENT),
    (in_no_folder, FileNotFoundError, errno.ENOENT),
    (too_long, OSError, errno.ENAMETOOLONG),
    (ordinary_file, ConnectionRefusedError, errno.ECONNREFUSED),
    (directory, ConnectionRefusedError, errno.ECONNREFUSED),
]


@dataclass
class Descriptors:
    """Both ends of a pipe: whether a descriptor is the reading one is seen by what it reads."""

    reading: int
    writing: int

    def check(self, number: int) -> None:
        """Assert that a descriptor is a copy of the reading end; close it."""
        os.write(self.writing, b"!")
        assert number != self.reading
        assert os.read(number, 1) == b"!"
        os.close(number)


def ancillary_of(*numbers: int) -> SocketAncillary:
    """Return ancillary data with some descriptors."""
    ancillary = SocketAncillary()
    ancillary.add_fds(numbers)
    return ancillary


def receive_fds(sock: socket.socket, size: int = 1 << 18) -> tuple[bytes, list[int]]:
    """Return what one call receives: bytes and descriptors."""
    data, descriptors, _, _ = socket.recv_fds(sock, size, 300)
    return data, descriptors


def receive_all(sock: socket.socket, size: int) -> bytes:
    """Return a number of bytes, of a stream."""
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        assert chunk, f"the end, after {len(data)} bytes"
        data += chunk
    return data
