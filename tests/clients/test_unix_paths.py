"""The names of blocking clients for Unix sockets, and of their servers."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
import stat
import sys
from collections.abc import Callable
from typing import Any

import pytest

from easynetwork.addresses import UnixSocketAddress
from tests.clients.blocking_kinds import BLOCKING_KINDS, BlockingKind
from tests.clients.threads_support import fork
from tests.clients.unix_support import (
    FORMS,
    OBSTACLES,
    new_name,
    too_long,
    unprivileged,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
each_form = pytest.mark.parametrize("form", FORMS)
each_abstract = pytest.mark.parametrize("form", [bytes, os.fsdecode, UnixSocketAddress.from_raw])


@pytest.fixture(params=["Unix-stream", "Unix-datagram"])
def kind(request: pytest.FixtureRequest) -> BlockingKind:
    """Return a kind of client for Unix sockets."""
    return BLOCKING_KINDS[request.param]


def exists(path: str) -> bool:
    return os.path.lexists(path)


def write(path: str) -> None:
    pathlib.Path(path).write_text("important")


def read(path: str) -> str:
    return pathlib.Path(path).read_text()


def outcome_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# -- The server's name -------------------------------------------------------------------------


@each_form
def test_path(kind: BlockingKind, form: str) -> None:
    """The path may be text, bytes, a path object or an address."""
    with kind.target("127.0.0.1") as listener:
        path = listener.getsockname()
        with kind.new(FORMS[form](path)) as client:
            assert client.get_peer_name() == UnixSocketAddress.from_pathname(path)
            assert repr(client) == f"<{kind.client_class.__name__} endpoint={path}>"
    assert not exists(path)


@linux_only
@each_abstract
def test_abstract_name(kind: BlockingKind, form: Callable[[bytes], Any]) -> None:
    """Text or bytes that begin with a null character are an abstract name."""
    name = new_name(is_abstract=True)
    assert isinstance(name, bytes)
    with socket.socket(socket.AF_UNIX, kind.socket_type) as listener:
        listener.bind(name)
        if kind.socket_type == socket.SOCK_STREAM:
            listener.listen()
        with kind.new(form(name)) as client:
            assert client.get_peer_name().as_raw() == name
            assert repr(client).endswith(f"endpoint=@{os.fsdecode(name[1:])}>")


@pytest.mark.parametrize("path", [None, 3, ("127.0.0.1", 80), ["/run/server"], bytearray(b"/run")])
def test_no_path(kind: BlockingKind, path: Any) -> None:
    """Anything that is neither a path, a name nor a socket is refused."""
    with pytest.raises(TypeError, match="^Expected a str object or an os.PathLike object, got "):
        kind.new(path)
    if path is not None:
        with pytest.raises(TypeError, match="^Expected a str object or an os.PathLike object, go"):
            kind.new("/run/server", local_path=path)


@pytest.mark.parametrize("path", ["", b"", UnixSocketAddress()])
def test_empty_path(kind: BlockingKind, path: Any) -> None:
    """No name is the name of no server."""
    with pytest.raises(ValueError, match="^path cannot be an empty string: it names no server$"):
        kind.new(path)


@pytest.mark.parametrize("path", ["/run\0server", b"/run\0server"])
def test_null_in_a_path(kind: BlockingKind, path: Any) -> None:
    """A path has no null characters."""
    for options in ({}, {"local_path": path}):
        with pytest.raises(ValueError, match="^paths must not contain interior null bytes$"):
            kind.new("/run/server" if options else path, **options)


@pytest.mark.parametrize(("obstacle", "error", "number"), OBSTACLES)
def test_no_server(
    kind: BlockingKind,
    folder: str,
    obstacle: Callable[[str], str],
    error: type[OSError],
    number: int,
) -> None:
    """The error names the path and the reason. Nothing is left."""
    path, local_path = obstacle(folder), f"{folder}/client"
    for _ in range(2):
        with pytest.raises(error) as caught:
            kind.new(path, local_path=local_path)
        assert caught.value.errno == number
        assert f"Connect call failed {path}: " in str(caught.value)
        assert ("at most 107 bytes" if obstacle is too_long else os.strerror(number)) in str(
            caught.value
        )
        assert not exists(local_path)


@pytest.mark.parametrize("is_socket", [True, False])
def test_permission(kind: BlockingKind, folder: str, is_socket: bool) -> None:
    """A server, or a folder, that the user may not enter is an error that says so."""
    path = f"{folder}/server"
    with socket.socket(socket.AF_UNIX, kind.socket_type) as listener:
        listener.bind(path)
        os.chmod(path, 0)
        os.chmod(folder, 0o711 if is_socket else 0)
        with unprivileged(), pytest.raises(PermissionError, match=f"failed {path}: Permission den"):
            kind.new(path)
        os.chmod(folder, 0o700)


def test_server_of_another_type(kind: BlockingKind, folder: str) -> None:
    """A server for streams does not serve datagrams, nor the other way round."""
    [other] = {socket.SOCK_STREAM, socket.SOCK_DGRAM} - {kind.socket_type}
    with socket.socket(socket.AF_UNIX, other) as listener:
        listener.bind(f"{folder}/server")
        with pytest.raises(OSError, match=f"failed {folder}/server: ") as caught:
            kind.new(f"{folder}/server")
        assert caught.value.errno == errno.EPROTOTYPE


# -- The client's name -------------------------------------------------------------------------


@each_form
def test_local_path(kind: BlockingKind, folder: str, form: str) -> None:
    """The path is there while the client is connected, and gone when it is closed."""
    path = f"{folder}/client"
    with kind.target("127.0.0.1") as listener:
        with kind.new(listener.getsockname(), local_path=FORMS[form](path)) as client:
            assert stat.S_ISSOCK(os.lstat(path).st_mode)
            assert client.get_local_name() == UnixSocketAddress.from_pathname(path)
            assert client.socket.getsockname() == path
        assert not exists(path)
    assert os.listdir(folder) == []


@linux_only
@each_abstract
def test_local_abstract_name(kind: BlockingKind, form: Callable[[bytes], Any]) -> None:
    """The name of the client may be abstract."""
    name = new_name(is_abstract=True)
    assert isinstance(name, bytes)
    with kind.target("127.0.0.1") as listener:
        with kind.new(listener.getsockname(), local_path=form(name)) as client:
            assert client.get_local_name().as_raw() == name


@linux_only
@pytest.mark.parametrize("path", ["", b"", UnixSocketAddress()])
def test_local_name_of_linux(kind: BlockingKind, path: Any) -> None:
    """An empty name is one that Linux chooses."""
    with kind.target("127.0.0.1") as listener:
        with kind.new(listener.getsockname(), local_path=path) as client:
            assert client.get_local_name().as_abstract_name()


def test_no_local_name_of_other_systems(
    kind: BlockingKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system chooses none, a note says so."""
    monkeypatch.setattr(sys, "platform", "darwin")
    message = "^local_path parameter is required on this platform and cannot be an empty string."
    with pytest.raises(ValueError, match=message) as caught:
        kind.new("/run/server", local_path="")
    assert caught.value.__notes__ == ["Automatic socket bind is not supported."]


@pytest.mark.parametrize("is_folder_there", [True, False])
def test_local_path_that_cannot_be_bound(
    kind: BlockingKind, folder: str, is_folder_there: bool
) -> None:
    """The error names the path; what is there stays there."""
    path = f"{folder}/client" if is_folder_there else f"{folder}/missing/client"
    if is_folder_there:
        write(path)
    with kind.target("127.0.0.1") as listener:
        message = f"error while attempting to bind on address .*{path}"
        with pytest.raises(OSError, match=message) as caught:
            kind.new(listener.getsockname(), local_path=path)
        assert caught.value.errno == (errno.EADDRINUSE if is_folder_there else errno.ENOENT)
    if is_folder_there:
        assert read(path) == "important"


def test_second_attempt(kind: BlockingKind, folder: str) -> None:
    """The path is removed when an attempt fails, so that the next one can bind it."""
    with pytest.raises(FileNotFoundError):
        kind.new(f"{folder}/server", local_path=f"{folder}/client")
    with socket.socket(socket.AF_UNIX, kind.socket_type) as listener:
        listener.bind(f"{folder}/server")
        if kind.socket_type == socket.SOCK_STREAM:
            listener.listen()
        with kind.new(f"{folder}/server", local_path=f"{folder}/client"):
            assert exists(f"{folder}/client")
    assert os.listdir(folder) == ["server"]


def test_another_file_in_its_place(kind: BlockingKind, folder: str) -> None:
    """A file that has taken the place of the client's socket is left alone."""
    path = f"{folder}/client"
    with kind.target("127.0.0.1") as listener:
        with kind.new(listener.getsockname(), local_path=path):
            os.unlink(path)
            write(path)
    assert read(path) == "important"


def test_path_that_is_gone(kind: BlockingKind, folder: str) -> None:
    """If other code has removed the path, there is nothing to do."""
    with kind.target("127.0.0.1") as listener:
        with kind.new(listener.getsockname(), local_path=f"{folder}/client"):
            os.unlink(f"{folder}/client")
    assert os.listdir(folder) == []


def test_path_that_cannot_be_removed(kind: BlockingKind, folder: str) -> None:
    """That is no reason to fail: nothing depends on it."""
    with kind.target("127.0.0.1") as listener:
        client = kind.new(listener.getsockname(), local_path=f"{folder}/client")
        os.chmod(folder, 0)
        with unprivileged():
            client.close()
        assert client.socket.fileno() == -1
        os.chmod(folder, 0o700)
    assert exists(f"{folder}/client")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")
def test_fork(kind: BlockingKind, folder: str) -> None:
    """The path is its parent's: a child that closes its copy of the client does not remove it."""
    path = f"{folder}/client"

    def close_in_child(client: Any) -> None:
        client.close()
        assert client.is_closed()
        assert exists(path)

    with kind.target("127.0.0.1") as listener:
        with kind.new(listener.getsockname(), local_path=path) as client:
            assert outcome_of(fork(close_in_child, client)) == 0
            assert exists(path)
        assert not exists(path)


# -- Sockets -----------------------------------------------------------------------------------


def test_unnamed_datagram_socket() -> None:
    """A datagram socket without a name is refused and closed: its peer could not answer."""
    kind = BLOCKING_KINDS["Unix-datagram"]
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    message = "^UnixDatagramClient requires the socket to be named.$"
    with other, pytest.raises(ValueError, match=message):
        kind.new(one)
    assert one.fileno() == -1


def test_path_of_a_given_socket(kind: BlockingKind, folder: str) -> None:
    """The path of a socket that the client was given is the user's, who has bound it."""
    with (
        kind.target("127.0.0.1") as listener,
        socket.socket(socket.AF_UNIX, kind.socket_type) as sock,
    ):
        sock.bind(f"{folder}/client")
        sock.connect(listener.getsockname())
        with kind.new(sock) as client:
            assert client.get_local_name().as_raw() == f"{folder}/client"
    assert exists(f"{folder}/client")
