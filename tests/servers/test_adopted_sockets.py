"""Standalone servers on sockets that other code has bound: each run serves on duplicates."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from easynetwork.exceptions import ServerAlreadyRunning, ServerClosedError
from easynetwork.servers.threads_helper import NetworkServerThread
from tests.adopting import CLIENTS, Load, ask, new_bound_socket
from tests.clients.threads_support import wait_until
from tests.conftest import descriptors
from tests.servers.standalone_support import (
    TCP,
    UDP,
    Hooks,
    Kind,
    each_kind,
    each_loop,
    loop_options,
    serving,
)
from tests.times import PATIENCE


def from_sockets(kind: Kind, *sockets: Any, **options: Any) -> Any:
    handler: Any = type("Handler", (Hooks, kind.handler_class), {})()
    return kind.server_class.from_sockets(sockets, kind.protocol, handler, **options)


@pytest.fixture
def kept(kind: Kind) -> Iterator[socket.socket]:
    """Return a socket of a supervisor, who keeps it."""
    with new_bound_socket(kind.socket_type) as sock:
        yield sock


@each_kind
@each_loop
def test_serving(kind: Kind, loop: str, kept: socket.socket) -> None:
    """A server serves several times on the same sockets, each time on other descriptors."""
    own = kept.dup()
    address = kept.getsockname()
    with from_sockets(kind, own, **loop_options(loop)) as server:
        assert isinstance(server, kind.server_class)
        before = descriptors()
        for _ in range(3):
            assert server.get_addresses() == ()
            with serving(server):
                assert server.get_addresses() == (address,)
                [proxy] = server.get_sockets()
                assert proxy.fileno() not in (own.fileno(), kept.fileno())
                assert ask(kind.socket_type, address, "hello") == "hello"
            assert own.fileno() >= 0
            assert descriptors() == before
    assert own.fileno() == -1
    with pytest.raises(ServerClosedError):
        server.serve_forever()
    assert descriptors() < before


@each_kind
@each_loop
def test_between_runs(kind: Kind, loop: str, kept: socket.socket) -> None:
    """Clients that come between two runs are served by the next one."""
    with from_sockets(kind, kept.dup(), **loop_options(loop)) as server:
        for _ in range(2):
            with socket.socket(socket.AF_INET, kind.socket_type) as client:
                client.settimeout(PATIENCE)
                client.connect(kept.getsockname())
                client.sendall(b"early\n" if kind is TCP else b"early")
                with serving(server):
                    assert client.recv(100).decode().strip() == "early"


@each_kind
def test_close_new(kind: Kind, kept: socket.socket) -> None:
    """A server that never ran closes its sockets, and no others; it may be closed twice."""
    before = descriptors()
    own = kept.dup()
    server = from_sockets(kind, own)
    for _ in range(2):
        server.server_close()
        assert own.fileno() == -1
    assert descriptors() == before


@each_kind
@each_loop
def test_close_running(kind: Kind, loop: str, kept: socket.socket) -> None:
    """Closing a running server closes its duplicates and the originals; clients are served."""
    before = descriptors()
    own = kept.dup()
    server = from_sockets(kind, own, **loop_options(loop))
    thread = NetworkServerThread(server)
    thread.start()
    with kind.connected(server) as peer:
        if kind is TCP:  # UDP has no connection that could go on
            wait_until(lambda: not has_backlog(kept))
        server.server_close()
        assert own.fileno() == -1
        assert server.get_addresses() == ()
        if kind is TCP:
            assert peer.ask("hello") == "hello"
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert descriptors() - before == set()
    assert ask_backlog(kind, kept)


def has_backlog(listener: socket.socket) -> bool:
    """Whether a connection waits to be accepted."""
    # linux/tcp.h: tcpi_unacked, the seventh number, is the length of the queue.
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    return any(info[24:])


def ask_backlog(kind: Kind, sock: socket.socket) -> bool:
    """Whether a socket of the supervisor still takes clients."""
    with socket.socket(socket.AF_INET, kind.socket_type) as client:
        client.connect(sock.getsockname())
        client.send(b"x")
        sock.settimeout(PATIENCE)
        if kind is UDP:
            return sock.recv(1) == b"x"
        with sock.accept()[0] as accepted:
            accepted.settimeout(PATIENCE)
            return accepted.recv(1) == b"x"


@each_kind
def test_second_thread(kind: Kind, kept: socket.socket) -> None:
    """A second thread cannot serve, and does not disturb the first."""
    with from_sockets(kind, kept.dup()) as server, serving(server):
        before = descriptors()
        with pytest.raises(ServerAlreadyRunning):
            server.serve_forever()
        assert descriptors() == before
        assert ask(kind.socket_type, kept.getsockname(), "hello") == "hello"


@each_kind
def test_closed_meanwhile(kind: Kind, kept: socket.socket) -> None:
    """A socket that other code has closed is the error of the next run."""
    own = kept.dup()
    with from_sockets(kind, own) as server:
        own.close()
        with pytest.raises(OSError, match=r"a socket given to from_sockets\(\) has been closed"):
            server.serve_forever()


@each_kind
@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"reuse_port": False}, TypeError, "does not take 'reuse_port'"),
        ({"backlog": 5}, TypeError, "does not take 'backlog'"),
        ({"host": None}, TypeError, "does not take 'host'"),
        ({"unknown": 1}, TypeError, "unknown"),
        ({"backend": "no such loop"}, NotImplementedError, "no such loop"),
        ({"runner_options": ["debug"]}, TypeError, "runner_options"),
        ({"protocol": "lines"}, TypeError, "Expected a"),
        ({"sockets": []}, ValueError, "Expected at least one socket"),
    ],
    ids=str,
)
def test_errors(
    kind: Kind, kept: socket.socket, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    """After an error the sockets are the caller's, as they were."""
    handler: Any = type("Handler", (Hooks, kind.handler_class), {})()
    kept.set_inheritable(True)
    before = descriptors()
    arguments = {"sockets": [kept], "protocol": kind.protocol, "request_handler": handler}
    with pytest.raises(error, match=text):
        kind.server_class.from_sockets(**{**arguments, **changes})
    assert descriptors() == before
    assert kept.gettimeout() is None
    assert kept.get_inheritable()


@each_kind
def test_other_kind(kind: Kind) -> None:
    """A server of streams refuses datagram sockets, and the other way round."""
    other = UDP if kind is TCP else TCP
    with new_bound_socket(other.socket_type) as sock:
        with pytest.raises(ValueError, match=rf"is of type {sock.type.name}, expected SOCK_"):
            from_sockets(kind, sock)


@each_kind
@each_loop
def test_restarts(kind: Kind, loop: str, kept: socket.socket) -> None:
    """10 restarts under load: 5 runs of one server, then new servers; no client is refused."""
    address = kept.getsockname()
    with Load(kind.socket_type, address) as load:
        with from_sockets(kind, kept.dup(), **loop_options(loop)) as server:
            for _ in range(5):
                serve_some(server, load)
        for _ in range(5):
            with from_sockets(kind, kept.dup(), **loop_options(loop)) as server:
                serve_some(server, load)
        with from_sockets(kind, kept.dup(), **loop_options(loop)) as server, serving(server):
            load.stop()
    assert load.refused == 0
    assert load.answered >= 10 * CLIENTS


def serve_some(server: Any, load: Load) -> None:
    goal = load.answered + CLIENTS
    with serving(server):
        wait_until(lambda: load.answered >= goal)


# -- children


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@each_kind
@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
def test_fork(kind: Kind, is_running: bool) -> None:
    """A child keeps the sockets only if it forks while the server does not run."""
    own = new_bound_socket(kind.socket_type)
    address = own.getsockname()
    with from_sockets(kind, own) as server:
        with serving(server):
            # From the first answer on, the server certainly serves.
            assert ask(kind.socket_type, address, "hello") == "hello"
            child = fork_child() if is_running else 0
        child = child or fork_child()
    try:
        with socket.socket(socket.AF_INET, kind.socket_type) as again:
            if kind is TCP:  # the connection is in TIME_WAIT
                again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_running:
                again.bind(address)
            else:
                with pytest.raises(OSError, match="Address already in use"):
                    again.bind(address)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def fork_child() -> int:
    """Return the number of a child that runs until it is killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    return pid
