"""Unix sockets: bound to a path or an abstract name, and connected (:manpage:`unix(7)`).

A path outlives the process that has bound it: bind(2) makes a file, and nothing but unlink(2)
removes it. So there are two kinds of paths in the way of a server: *live* ones, whose server runs,
and *stale* ones. Only an attempt to connect tells them apart.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from typing import Final

import anyio

from easynetwork._forks import take_descriptor
from easynetwork.addresses import UnixSocketAddress
from easynetwork.sockets.closing import close_on_error
from easynetwork.sockets.connecting import connect_call_error, start_connecting
from easynetwork.sockets.resolving import bind_error

if sys.platform != "win32":
    import fcntl

if sys.platform == "win32" or not hasattr(socket, "AF_UNIX"):
    raise ImportError(f"UNIX sockets are not supported on {sys.platform}.")

_LONGEST_PATH: Final = 107
"""Bytes of a path: those of ``sun_path`` without the NUL at its end (unix(7))."""

_RETRY_INTERVAL: Final = 0.005
"""Seconds between attempts to connect to a server that is slow to accept. Linux does not tell when
its backlog has room again: connect(2) fails with EAGAIN, and poll(2) says that all is well."""

_LOCK_INTERVAL: Final = 0.001
"""Seconds between attempts to lock a path. Servers hold the lock for less than that."""

_BEGIN_TIMEOUT: Final = 5.0
"""Seconds that a server tries to lock its path before it binds it, in a thread."""

_END_TIMEOUT: Final = 0.1
"""Seconds that a server tries to lock its path at its end, when its event loop waits."""


class BoundPath:
    """The path that a socket was bound to here, and how to remove it.

    Remove it before the socket is closed: until then, the file system does not give the number of
    its inode, by which it is told from others, to another file.

    Attributes:
        is_locked: Whether to hold the lock of the path meanwhile.
    """

    __slots__ = ("_identity", "_path", "_pid", "is_locked")

    def __init__(self, path: str) -> None:
        self.is_locked: bool = False
        self._path = os.path.abspath(path)  # the program may change its folder meanwhile
        self._identity = _identity(path)
        self._pid: int | None = os.getpid()

    def __str__(self) -> str:
        return self._path

    def remove(self) -> None:
        """Remove the path, unless another file is there now, or this is a child of fork.

        Raises:
            OSError: It cannot be removed.
        """
        pid, self._pid = self._pid, None
        if pid != os.getpid():
            return
        with contextlib.suppress(FileNotFoundError):
            with _lock(self._path, _END_TIMEOUT) if self.is_locked else contextlib.nullcontext():
                if _identity(self._path) == self._identity:
                    os.unlink(self._path)


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def open_unix_socket(
    address: UnixSocketAddress,
    kind: socket.SocketKind,
    *,
    mode: int | None = None,
    backlog: int | None = None,
    unlink_stale: bool = False,
) -> tuple[socket.socket, UnixSocketAddress, BoundPath | None]:
    """Open a non-blocking socket for a server; may wait for the file system.

    Args:
        address: The path or abstract name; unnamed for an abstract name that Linux chooses.
        kind: `socket.SOCK_STREAM` or `socket.SOCK_DGRAM`.
        mode: The permissions of the path, from the moment in which it exists; None for those that
            the umask leaves.
        backlog: Connections that may wait to be accepted; None for a socket that does not listen.
        unlink_stale: Replace a socket on which no server listens.

    Returns:
        The socket, its address, and its path if it has one.

    Raises:
        OSError: The address cannot be bound.
    """
    sock = socket.socket(socket.AF_UNIX, kind)
    with close_on_error(sock):
        sock.setblocking(False)
        path = address.as_raw()
        if not isinstance(path, str) or not path:
            bind_unix(sock, address)
            _listen(sock, backlog)
            return sock, UnixSocketAddress.from_raw(sock.getsockname()), None
        if mode is not None:
            # Linux gives the file the mode of the socket's own inode, less the umask: it is never
            # more accessible than it is meant to be. Other systems ignore or refuse this.
            with contextlib.suppress(OSError):
                os.fchmod(sock.fileno(), mode)
        with _naming(address):
            if not unlink_stale:
                return sock, address, _bind_path(sock, path, mode, backlog)
            with _lock(path, _BEGIN_TIMEOUT):
                # Not bound beside it and renamed: the kernel would go on to tell clients and ss(8)
                # the first name, and peers answer to the name that a datagram comes from.
                if _is_stale(path, kind):
                    os.unlink(path)
                bound = _bind_path(sock, path, mode, backlog)
                bound.is_locked = True
                return sock, address, bound


def _bind_path(sock: socket.socket, path: str, mode: int | None, backlog: int | None) -> BoundPath:
    sock.bind(path)
    bound = BoundPath(path)
    try:
        if mode is not None:
            os.chmod(path, mode)  # what the umask took away
        _listen(sock, backlog)
    except BaseException:
        bound.remove()
        raise
    return bound


def _listen(sock: socket.socket, backlog: int | None) -> None:
    if backlog is not None:
        sock.listen(backlog)


def _is_stale(path: str, kind: int) -> bool:
    """Whether a path is a socket without a server; false if there is nothing.

    Raises:
        OSError: There is something else.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    reason = "it is not a socket"
    if stat.S_ISSOCK(found.st_mode):
        with socket.socket(socket.AF_UNIX, kind) as probe:
            probe.setblocking(False)
            error = probe.connect_ex(path)
        if error in (errno.ECONNREFUSED, errno.ENOENT):
            return True
        reason = "a server uses it"
        if error not in (0, errno.EAGAIN, errno.EPROTOTYPE):
            reason = f"it cannot be found out whether a server uses it: {os.strerror(error)}"
    raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: {reason}")


@contextlib.contextmanager
def _lock(path: str, seconds: float) -> Iterator[None]:
    """Hold the lock of a path: flock(2) on ``<path>.lock``, which stays there.

    Args:
        path: The path.
        seconds: How long to try: another program may hold it for ever.

    Raises:
        OSError: It cannot be made, or other programs hold it all the time (`EAGAIN`).
    """
    name = f"{path}.lock"
    try:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise OSError(exc.errno, f"{exc.strerror}: {name}") from None
    deadline = time.monotonic() + seconds
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() >= deadline:
                raise OSError(errno.EAGAIN, f"another program holds the lock {name}")
            time.sleep(_LOCK_INTERVAL)
        yield
    finally:
        os.close(fd)


def bind_unix(sock: socket.socket, address: UnixSocketAddress) -> None:
    """Bind a Unix socket.

    Raises:
        OSError: It cannot be bound: the path, and the reason.
    """
    with _naming(address):
        sock.bind(address.as_raw())


@contextlib.contextmanager
def _naming(address: UnixSocketAddress) -> Iterator[None]:
    """Have errors name the address that was to be bound."""
    try:
        yield
    except OSError as exc:
        raise bind_error(_explained(exc), socket.AF_UNIX, address.as_raw()) from None


def _explained(exc: OSError) -> OSError:
    """Return an error with a number: Python checks the length of a path itself."""
    if exc.errno is not None:
        return exc
    return OSError(errno.ENAMETOOLONG, f"{exc} (at most {_LONGEST_PATH} bytes)")


async def connect_unix(sock: socket.socket, address: UnixSocketAddress) -> None:
    """Connect a non-blocking Unix socket.

    Raises:
        OSError: It cannot be connected: the path, and the reason.
    """
    while not _try_to_connect(sock, address):  # noqa: ASYNC110 - no event tells
        await anyio.sleep(_RETRY_INTERVAL)


def connect_unix_blocking(sock: socket.socket, address: UnixSocketAddress, deadline: float) -> None:
    """Do what `connect_unix` does, for a thread that may wait.

    Args:
        sock: The socket.
        address: What to connect to.
        deadline: When to give up, on the clock of `time.monotonic`.
    """
    while not _try_to_connect(sock, address):
        if time.monotonic() >= deadline:
            raise connect_call_error(errno.ETIMEDOUT, socket.AF_UNIX, address.as_raw())
        time.sleep(_RETRY_INTERVAL)


def _try_to_connect(sock: socket.socket, address: UnixSocketAddress) -> bool:
    take_descriptor(sock)
    try:
        return start_connecting(sock, address.as_raw())
    except OSError as exc:
        if exc.errno is not None:
            raise
        error = _explained(exc)
        text = f"Connect call failed {address}: {error.strerror}"
        raise OSError(error.errno, text) from None
