"""Unix sockets: paths, stale ones, permissions, and connecting."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from easynetwork.addresses import UnixSocketAddress
from easynetwork.sockets import unix
from easynetwork.sockets.unix import (
    BoundPath,
    bind_unix,
    connect_unix,
    connect_unix_blocking,
    open_unix_socket,
)

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder; those of pytest have paths that are too long."""
    with tempfile.TemporaryDirectory(prefix="easynetwork-") as name:
        yield Path(name)


@contextlib.contextmanager
def opened(path: Any, kind: socket.SocketKind = STREAM, **options: Any) -> Iterator[Any]:
    """Open a socket for a server, and yield it with its address and path."""
    address = path if isinstance(path, UnixSocketAddress) else UnixSocketAddress.from_pathname(path)
    if kind == STREAM:
        options.setdefault("backlog", 10)
    sock, address, bound = open_unix_socket(address, kind, **options)
    with sock:
        yield sock, address, bound
        if bound is not None:
            bound.remove()


def make_stale(path: Path, kind: socket.SocketKind = STREAM) -> int:
    """Leave a socket behind that no server uses; return its inode."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(path))
    return path.stat().st_ino


def connect(path: Path, kind: socket.SocketKind = STREAM) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.connect(str(path))


# -- binding


@pytest.mark.parametrize("kind", [STREAM, DATAGRAM])
def test_path(folder: Path, kind: socket.SocketKind) -> None:
    """A path is there while the server is, and clients can connect to it."""
    path = folder / "socket"
    with opened(path, kind) as (sock, address, _):
        assert address == UnixSocketAddress.from_pathname(path)
        assert not sock.getblocking()
        connect(path, kind)
    assert os.listdir(folder) == []


def test_abstract_names() -> None:
    """A name is not in the file system; Linux chooses one for an unnamed address."""
    name = UnixSocketAddress.from_abstract_name(f"easynetwork-{os.getpid()}")
    with opened(name) as (sock, address, bound):
        assert (address, bound) == (name, None)
        assert sock.getsockname() == name.as_raw()
    with opened(UnixSocketAddress()) as (_, address, bound):
        assert bound is None
        assert address.as_abstract_name()


@pytest.mark.parametrize(
    ("prepare", "number", "reason"),
    [
        (lambda path: path.mkdir(), errno.EADDRINUSE, "Address already in use"),
        (lambda path: path.write_text(""), errno.EADDRINUSE, "Address already in use"),
        (make_stale, errno.EADDRINUSE, "Address already in use"),
        (lambda path: path.parent.rmdir(), errno.ENOENT, "No such file or directory"),
    ],
    ids=["folder", "file", "socket", "no folder"],
)
def test_error(folder: Path, prepare: Any, number: int, reason: str) -> None:
    """An error of binding names the path and the reason; nothing that is there is changed."""
    (folder / "inner").mkdir()
    path = folder / "inner" / "socket"
    prepare(path)
    before = path.lstat() if path.exists() else None
    message = f"error while attempting to bind on address {path}: {reason}"
    with pytest.raises(OSError, match=f"{message}$") as caught, opened(path):
        pass
    assert caught.value.errno == number
    assert (path.lstat() if path.exists() else None) == before
    path.parent.mkdir(exist_ok=True)


@pytest.mark.parametrize("unlink_stale", [False, True])
def test_no_permission(folder: Path, unlink_stale: bool) -> None:
    """A folder in which nothing may be made is an error, too."""
    folder.chmod(0o500)
    user = os.geteuid()
    address = UnixSocketAddress.from_pathname(folder / "socket")
    try:
        if user == 0:  # who may do everything
            folder.chmod(0o755)
            os.seteuid(65534)
        with pytest.raises(PermissionError, match=f"address {folder}/socket: Permission denied"):
            open_unix_socket(address, STREAM, unlink_stale=unlink_stale)
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


@pytest.mark.parametrize("unlink_stale", [False, True])
def test_path_too_long(folder: Path, unlink_stale: bool) -> None:
    """The longest path has 107 bytes."""
    longest = folder / ("x" * (107 - len(f"{folder}/")))
    with opened(longest, unlink_stale=unlink_stale):
        connect(longest)
    with pytest.raises(OSError, match=r"bind on address /.*x: .*too long.*at most 107 bytes") as c:
        open_unix_socket(UnixSocketAddress.from_pathname(f"{longest}x"), STREAM)
    assert c.value.errno == errno.ENAMETOOLONG


def test_error_of_bind_alone(folder: Path) -> None:
    """A client that binds its own end sees the same error."""
    with (
        socket.socket(socket.AF_UNIX) as sock,
        pytest.raises(OSError, match=f"attempting to bind on address {folder}: Address already in"),
    ):
        bind_unix(sock, UnixSocketAddress.from_pathname(folder))


# -- permissions


@pytest.mark.parametrize("unlink_stale", [False, True])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_mode(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int, umask: int, unlink_stale: bool
) -> None:
    """The path never has more permissions than it is meant to have, and has these in the end."""
    at_first: list[int] = []
    chmod = os.chmod

    def noting_chmod(path: str, mode: int) -> None:
        at_first.append(stat.S_IMODE(os.stat(path).st_mode))
        chmod(path, mode)

    monkeypatch.setattr(os, "chmod", noting_chmod)
    path = folder / "socket"
    if unlink_stale:
        make_stale(path)
    before = os.umask(umask)
    try:
        with opened(path, mode=mode, unlink_stale=unlink_stale):
            assert at_first == [mode & ~umask]
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


def test_mode_that_cannot_be_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is removed then, and the socket closed."""

    def chmod(path: str, mode: int) -> None:
        raise PermissionError(errno.EPERM, "forced")

    monkeypatch.setattr(os, "chmod", chmod)
    with (
        pytest.raises(PermissionError, match=f"bind on address {folder}/socket: forced"),
        opened(folder / "socket", mode=0o600),
    ):
        pass
    assert os.listdir(folder) == []


# -- stale paths


@pytest.mark.parametrize("kind", [STREAM, DATAGRAM])
def test_stale_path(folder: Path, kind: socket.SocketKind) -> None:
    """It is replaced on request, and so is one of another type; the lock stays."""
    path = folder / "socket"
    for stale_kind in (STREAM, DATAGRAM):
        make_stale(path, stale_kind)
        with opened(path, kind, unlink_stale=True) as (sock, address, _):
            assert str(address) == str(path)
            assert sock.getsockname() == str(path)  # what clients see, and answer to
            connect(path, kind)
        assert os.listdir(folder) == ["socket.lock"]
    assert stat.S_IMODE((folder / "socket.lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("live_kind", [STREAM, DATAGRAM])
@pytest.mark.parametrize("kind", [STREAM, DATAGRAM])
def test_live_path(folder: Path, kind: socket.SocketKind, live_kind: socket.SocketKind) -> None:
    """A path whose server runs is never replaced, even if its backlog is full."""
    path = folder / "socket"
    with opened(path, live_kind, **({"backlog": 0} if live_kind == STREAM else {})):
        inode = path.stat().st_ino
        with contextlib.ExitStack() as stack:
            if live_kind == STREAM:
                for _ in range(2):
                    client = stack.enter_context(socket.socket(socket.AF_UNIX))
                    client.setblocking(False)
                    client.connect_ex(str(path))
            with pytest.raises(OSError, match="Address already in use: a server uses it$") as c:
                open_unix_socket(UnixSocketAddress.from_pathname(path), kind, unlink_stale=True)
        assert c.value.errno == errno.EADDRINUSE
        assert str(path) in str(c.value)
        assert path.stat().st_ino == inode
        assert sorted(os.listdir(folder)) == ["socket", "socket.lock"]


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_no_socket(folder: Path, what: str) -> None:
    """It is never replaced: not even a link to a stale socket."""
    path = folder / "socket"
    if what == "file":
        path.write_text("precious")
    elif what == "folder":
        path.mkdir()
    else:
        make_stale(folder / "other")
        path.symlink_to(folder / "other")
    before = path.lstat()
    with pytest.raises(OSError, match="Address already in use: it is not a socket$"):
        open_unix_socket(UnixSocketAddress.from_pathname(path), STREAM, unlink_stale=True)
    assert path.lstat() == before


def test_path_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it cannot be found out whether a server uses it, it is left alone."""
    path = folder / "socket"
    make_stale(path)

    class Refused(socket.socket):
        def connect_ex(self, address: Any, /) -> int:
            return errno.EACCES

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Refused)
        with pytest.raises(OSError, match="cannot be found out .*: Permission denied$"):
            open_unix_socket(UnixSocketAddress.from_pathname(path), STREAM, unlink_stale=True)
    assert path.exists()


def test_foreign_server_is_faster(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not know the lock, and takes the path meanwhile, keeps it."""
    path = folder / "socket"
    make_stale(path)
    unlink = os.unlink
    with socket.socket(socket.AF_UNIX) as foreign:

        def unlink_and_lose(target: str) -> None:
            unlink(target)
            foreign.bind(str(path))
            foreign.listen()

        monkeypatch.setattr(os, "unlink", unlink_and_lose)
        with (
            pytest.raises(OSError, match=f"bind on address {path}: Address already in use$"),
            opened(path, unlink_stale=True),
        ):
            pass
        connect(path)


def test_servers_do_not_race(folder: Path) -> None:
    """Of many that want the same stale path, one gets it, and stays the one."""
    path = folder / "socket"
    address = UnixSocketAddress.from_pathname(path)
    for _ in range(30):
        make_stale(path)
        barrier = threading.Barrier(8)

        def try_to_open(barrier: threading.Barrier = barrier) -> Any:
            barrier.wait()
            with contextlib.suppress(OSError):
                return open_unix_socket(address, STREAM, backlog=10, unlink_stale=True)
            return None

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: try_to_open(), range(8)))
        [(sock, _, bound)] = [result for result in results if result is not None]
        connect(path)
        sock.accept()[0].close()
        bound.remove()
        sock.close()
        assert os.listdir(folder) == ["socket.lock"]


# -- removing


def test_removed_already(folder: Path) -> None:
    with opened(folder / "socket"):
        (folder / "socket").unlink()


@pytest.mark.parametrize("what", ["file", "socket"])
def test_another_file_in_its_place(folder: Path, what: str) -> None:
    """It is left alone."""
    path = folder / "socket"
    with opened(path):
        path.unlink()
        if what == "file":
            path.write_text("precious")
        else:
            make_stale(path)
    assert path.exists()


def test_removed_once(folder: Path) -> None:
    path = folder / "socket"
    with opened(path) as (_, _, bound):
        bound.remove()
        make_stale(path)
        bound.remove()
        assert path.exists()


def test_child_removes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path belongs to the process that has bound it, not to the children that it forks."""
    path = folder / "socket"
    sock, _, bound = open_unix_socket(UnixSocketAddress.from_pathname(path), STREAM, backlog=1)
    assert bound is not None
    with sock:
        monkeypatch.setattr(os, "getpid", lambda: 1)
        bound.remove()
        assert path.exists()


def test_removal_under_the_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another server looks at the path, the removal waits a little, and then gives up."""
    path = folder / "socket"
    sock, _, bound = open_unix_socket(
        UnixSocketAddress.from_pathname(path), STREAM, backlog=1, unlink_stale=True
    )
    with sock, (folder / "socket.lock").open("w") as lock:
        assert bound is not None
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer = threading.Timer(0.02, fcntl.flock, (lock, fcntl.LOCK_UN))
        timer.start()
        bound.remove()
        timer.join()
        assert not path.exists()

        monkeypatch.setattr(unix, "_END_TIMEOUT", 0.01)
        make_stale(path)
        again = BoundPath(str(path))
        again.is_locked = True
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match=f"another program holds the lock {path}.lock"):
            again.remove()
        assert path.exists()


def test_lock_that_is_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that holds the lock for ever keeps no server waiting for ever."""
    monkeypatch.setattr(unix, "_BEGIN_TIMEOUT", 0.05)
    path = folder / "socket"
    with (folder / "socket.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            pytest.raises(OSError, match=f"another program holds the lock {path}.lock"),
            opened(path, unlink_stale=True),
        ):
            pass
    assert not path.exists()


@pytest.mark.parametrize("what", ["folder", "link"])
def test_lock_that_cannot_be_made(folder: Path, what: str) -> None:
    """The error names the lock, which need not be where the reader looks: at the path."""
    path, lock = folder / "socket", folder / "socket.lock"
    if what == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(folder / "other")
    with (
        pytest.raises(OSError, match=f"bind on address {path}: [A-Z].*: {lock}$"),
        opened(path, unlink_stale=True),
    ):
        pass
    assert os.listdir(folder) == ["socket.lock"]


def test_longest_stale_path(folder: Path) -> None:
    """What can be bound once can be bound again, although its lock has a longer name."""
    inner = folder / ("x" * (106 - len(f"{folder}/") - 1))
    inner.mkdir()
    path = inner / "s"
    assert len(str(path)) == 107
    make_stale(path)
    with opened(path, unlink_stale=True):
        connect(path)


@pytest.mark.parametrize("unlink_stale", [False, True])
def test_folder_is_changed_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch, unlink_stale: bool
) -> None:
    """A relative path is removed where it was made."""
    (folder / "inner").mkdir()
    monkeypatch.chdir(folder)
    if unlink_stale:
        make_stale(folder / "socket")
    with opened("socket", unlink_stale=unlink_stale):
        monkeypatch.chdir(folder / "inner")
        assert (folder / "socket").exists()
    assert not (folder / "socket").exists()


# -- connecting


@pytest.mark.anyio
async def test_full_backlog(folder: Path) -> None:
    """Linux does not tell when there is room: it is tried again, until the server accepts."""
    path = folder / "socket"
    address = UnixSocketAddress.from_pathname(path)
    with opened(path, backlog=0) as (listener, _, _), contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        for sock in first, second:
            sock.setblocking(False)
        await connect_unix(first, address)
        with anyio.move_on_after(0.05) as scope:
            await connect_unix(second, address)
        assert scope.cancelled_caught
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect_unix, second, address)
            await anyio.wait_all_tasks_blocked()
            stack.enter_context(listener.accept()[0])
        assert second.getpeername() == str(path)


def test_full_backlog_blocking(folder: Path) -> None:
    path = folder / "socket"
    address = UnixSocketAddress.from_pathname(path)
    with opened(path, backlog=0), contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        for sock in first, second:
            sock.setblocking(False)
        connect_unix_blocking(first, address, time.monotonic())
        with pytest.raises(TimeoutError, match=f"Connect call failed {path}: Connection timed out"):
            connect_unix_blocking(second, address, time.monotonic() + 0.02)


@pytest.mark.parametrize(
    ("prepare", "error", "reason"),
    [
        (lambda path: None, FileNotFoundError, "No such file or directory"),
        (make_stale, ConnectionRefusedError, "Connection refused"),
        (lambda path: path.write_text(""), ConnectionRefusedError, "Connection refused"),
        (lambda path: path.mkdir(), ConnectionRefusedError, "Connection refused"),
    ],
    ids=["nothing", "stale", "file", "folder"],
)
def test_connect_error(folder: Path, prepare: Any, error: type[OSError], reason: str) -> None:
    """The error names the path and the reason."""
    path = folder / "socket"
    prepare(path)
    with (
        socket.socket(socket.AF_UNIX) as sock,
        pytest.raises(error, match=f"Connect call failed {path}: {reason}$"),
    ):
        connect_unix_blocking(sock, UnixSocketAddress.from_pathname(path), 0)


def test_connect_to_a_path_too_long() -> None:
    with (
        socket.socket(socket.AF_UNIX) as sock,
        pytest.raises(OSError, match=r"Connect call failed /x+: .*too long") as caught,
    ):
        connect_unix_blocking(sock, UnixSocketAddress.from_pathname("/" + "x" * 200), 0)
    assert caught.value.errno == errno.ENAMETOOLONG
