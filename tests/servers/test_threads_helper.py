"""A server in a background thread: start() starts it, join() stops it."""

from __future__ import annotations

import errno
import re
import socket
import threading
import time
from typing import Any

import anyio
import pytest

from easynetwork.exceptions import ServerClosedError
from easynetwork.servers.abc import AbstractNetworkServer
from easynetwork.servers.threads_helper import NetworkServerThread
from tests.clients.threads_support import InThread, wait_until
from tests.servers.standalone_support import (
    TCP,
    Hooks,
    Kind,
    each_kind,
    each_loop,
    loop_options,
    serving,
)
from tests.times import PATIENCE


@each_kind
@each_loop
def test_start_and_join(kind: Kind, loop: str) -> None:
    """start() returns when the server is up; join() stops it, and may be called again."""
    server = kind.new_server(**loop_options(loop))
    thread = NetworkServerThread(server)
    assert isinstance(thread, threading.Thread)
    thread.start()
    assert server.is_serving()
    assert thread.is_alive()
    with kind.connected(server) as peer:
        assert peer.ask("hello") == "hello"
    thread.join()
    assert not thread.is_alive()
    assert not server.is_serving()
    thread.join()
    thread.join(timeout=0)


def test_arguments() -> None:
    """The other arguments are those of threads."""
    server = TCP.new_server()
    assert re.fullmatch(r"Thread-\d+", NetworkServerThread(server).name)
    assert NetworkServerThread(server).daemon is False
    thread = NetworkServerThread(server, None, "mine", daemon=True)
    assert (thread.name, thread.daemon) == ("mine", True)
    with pytest.raises(TypeError, match="^Expected an AbstractNetworkServer object, got 5$"):
        NetworkServerThread(5)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(AssertionError):  # Python's own
        NetworkServerThread(server, 1)  # type: ignore[arg-type]  # that is the point


def test_start_waits() -> None:
    """start() blocks until the server is up."""
    is_preparing, gate = threading.Event(), threading.Event()

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            is_preparing.set()
            await anyio.to_thread.run_sync(gate.wait, PATIENCE)

    server = TCP.new_server(Handler)
    thread = NetworkServerThread(server)
    start = InThread(thread.start)
    assert is_preparing.wait(PATIENCE)
    start.waits_in("wait")
    gate.set()
    start.result()
    assert server.is_serving()
    thread.join()


def test_second_start() -> None:
    """A thread is started once, like any thread; another one may run the server again."""
    server = TCP.new_server()
    with serving(server) as thread:
        with pytest.raises(RuntimeError, match="once"):
            thread.start()
        assert server.is_serving()
    with pytest.raises(RuntimeError, match="once"):
        thread.start()
    with serving(server):
        assert server.is_serving()


def test_join_before_start() -> None:
    """A thread that was not started cannot be joined, and stops no server of another thread."""
    server = TCP.new_server()
    with serving(server):
        with pytest.raises(RuntimeError, match="before it is started"):
            NetworkServerThread(server).join()
        assert server.is_serving()


@each_kind
@each_loop
def test_bind_error(kind: Kind, loop: str, capsys: pytest.CaptureFixture[str]) -> None:
    """start() raises what keeps the server from starting, with address and reason."""
    with socket.socket(socket.AF_INET, kind.socket_type) as occupant:
        occupant.bind(("127.0.0.1", 0))
        if kind is TCP:
            occupant.listen()
        address = occupant.getsockname()
        server = kind.new_server(port=address[1], **loop_options(loop))
        thread = NetworkServerThread(server)
        with pytest.raises(OSError, match="in use") as caught:
            thread.start()
    error = caught.value
    assert error.errno == errno.EADDRINUSE
    assert str(address) in str(error)
    assert not thread.is_alive()
    assert not server.is_serving()
    thread.join()
    with pytest.raises(RuntimeError, match="once"):
        thread.start()
    assert capsys.readouterr().err == ""  # nobody needs to be told twice


def test_other_errors_of_the_start() -> None:
    """Other errors of the start are raised there as well, whatever they are."""

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            raise SystemExit(3)

    server = TCP.new_server(Handler)
    with pytest.raises(SystemExit):
        NetworkServerThread(server).start()
    server.server_close()
    with pytest.raises(ServerClosedError):
        NetworkServerThread(server).start()


def test_later_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while the server is up goes where those of other threads go."""
    reports: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reports.append(args[:2]))

    class Server(AbstractNetworkServer):
        """A server that fails when it is shut down."""

        def __init__(self) -> None:
            self.is_stopped = threading.Event()

        def is_serving(self) -> bool:
            return True

        def serve_forever(self, *, is_up_event: Any = None) -> None:
            is_up_event.set()
            self.is_stopped.wait(PATIENCE)
            raise LookupError("lost")

        def shutdown(self, timeout: float | None = None, *, grace: float = 0.0) -> None:
            self.is_stopped.set()

        def server_close(self) -> None:
            pass

    thread = NetworkServerThread(Server())
    thread.start()
    thread.join()
    ((kind, error),) = reports
    assert kind is LookupError
    assert str(error) == "lost"


def test_shutdown_while_starting() -> None:
    """start() returns, too, if somebody else stops the server before it is up."""
    is_preparing = threading.Event()

    class Handler(Hooks):
        async def prepare(self, server: Any) -> None:
            is_preparing.set()
            await anyio.sleep_forever()

    server = TCP.new_server(Handler)
    thread = NetworkServerThread(server)
    start = InThread(thread.start)
    assert is_preparing.wait(PATIENCE)
    server.shutdown()
    start.result()
    thread.join()


@each_loop
@each_kind
def test_join_with_a_grace(kind: Kind, loop: str) -> None:
    """With a grace, what is being answered is; meanwhile, the server says that it drains."""
    goes_on = threading.Event()

    class Slow(Hooks):
        async def answer(self, client: Any, request: str) -> str:
            started.set()
            while not goes_on.is_set():
                await anyio.sleep(0.001)
            return f"{request}, {client.is_draining()}"

    started = threading.Event()
    server = kind.new_server(Slow, **loop_options(loop))
    thread = NetworkServerThread(server)
    thread.start()
    with kind.connected(server) as peer:
        assert not server.is_draining()
        peer.send("hello")
        assert started.wait(PATIENCE)
        joining = threading.Thread(target=lambda: thread.join(grace=PATIENCE))
        joining.start()
        wait_until(server.is_draining)
        goes_on.set()
        assert peer.receive() == "hello, True"
    joining.join(PATIENCE)
    assert not thread.is_alive()
    assert not server.is_draining()


def test_invalid_grace() -> None:
    """A grace is a number of seconds, whether the server runs or not."""
    with pytest.raises(ValueError, match="Invalid delay"):
        TCP.new_server().shutdown(grace=-1)


def test_join_timeout() -> None:
    """join() waits no longer than it may, for the server and the thread together."""
    is_asked, gate = threading.Event(), threading.Event()

    class Handler(Hooks):
        async def answer(self, client: Any, request: str) -> str:
            is_asked.set()
            gate.wait(PATIENCE)
            return request

    server = TCP.new_server(Handler)
    with serving(server) as thread, TCP.connected(server) as peer:
        peer.send("hello")
        assert is_asked.wait(PATIENCE)
        start = time.monotonic()
        thread.join(timeout=0.05)
        assert 0.049 < time.monotonic() - start < PATIENCE / 2
        assert thread.is_alive()
        gate.set()
        thread.join(timeout=PATIENCE)
        assert not thread.is_alive()
