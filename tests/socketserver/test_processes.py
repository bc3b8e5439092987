"""Servers that fork, and servers with many clients, each in a program of its own."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.robustness.process import ServerProcess
from tests.socketserver.support import ask, receive_line, reset, wait_until
from tests.times import MS, PATIENCE, SOON, STUCK

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.in_turn,
]

PROGRAM = Path(__file__).parent / "served.py"
MEBIBYTE = 1 << 20

each_module = pytest.mark.parametrize("module", ["ours", "standard"])


def serve(*arguments: str) -> ServerProcess:
    return ServerProcess(*arguments, program=PROGRAM)


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE)


def children(server: ServerProcess) -> set[int]:
    """Return the children of a server, with those that have ended and were not reaped."""
    text = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return {int(word) for word in text.split()}


def threads(server: ServerProcess) -> int:
    """Return how many threads a server has."""
    return len(os.listdir(f"/proc/{server.pid}/task"))


def is_running(pid: int) -> bool:
    """Return whether a process exists and has not ended; it may not be reaped yet."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(") ")[2][0] not in "ZX"


def check_waits(sock: socket.socket) -> None:
    """Assert that nothing arrives on a connection for a moment."""
    sock.settimeout(SOON)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.settimeout(PATIENCE)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process have as many descriptors as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 5000:
        pytest.skip("not enough descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- forks


@each_module
def test_children_are_reaped(module: str) -> None:
    """Each connection has a process, which is reaped soon after its end, without another client."""
    with serve("ForkingTCPServer", "--module", module) as server:
        with connect(server) as first, connect(server) as second:
            pids = {int(ask(sock, b"pid\n")) for sock in (first, second)}
            assert children(server) == pids
            assert server.pid not in pids
        wait_until(lambda: not children(server))


@each_module
def test_children_of_datagrams_are_reaped(module: str) -> None:
    with serve("ForkingUDPServer", "--module", module) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(("127.0.0.1", server.port))
            for data in b"", b"\xff" * 10, bytes(60000), b"crash", b"pid":
                sock.send(data)
            received = b""
            while not (received.isdigit() and int(received) != server.pid):
                received = sock.recv(1 << 16)
        wait_until(lambda: not children(server))


@each_module
def test_storm(module: str) -> None:
    """There are never more than `max_children` processes, and all clients are served."""
    most = 0
    with serve("ForkingTCPServer", "--module", module, "--max-children", "5") as server:
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(connect(server)) for _ in range(100)]
            pids = set()
            for sock in socks:
                pids.add(ask(sock, b"pid\n"))
                most = max(most, len(children(server)))
                sock.close()
                most = max(most, len(children(server)))
        wait_until(lambda: not children(server))
    assert len(pids) > 50  # numbers may be used again
    assert 1 < most <= 5


def test_silent_clients_use_up_the_children() -> None:
    """While there are as many as may be, others wait: as in the standard module, for ever."""
    with serve("ForkingTCPServer", "--max-children", "2", "--close-timeout", "0") as server:
        with connect(server) as first, connect(server) as second, connect(server) as third:
            for sock in first, second:
                assert ask(sock, b"hello\n") == b"hello\n"
            third.sendall(b"hello\n")
            check_waits(third)
            first.close()
            assert receive_line(third) == b"hello\n"


def test_resets_and_crashes() -> None:
    """What ends a child ends nothing else, and is logged by the child."""
    with serve("ForkingTCPServer") as server:
        for line in b"", b"half", b"hello\n", b"crash\n", b"\xff\n":
            sock = connect(server)
            sock.sendall(line)
            if line.endswith(b"\n"):
                with contextlib.suppress(ConnectionError):
                    sock.recv(1)
            reset(sock)
        with connect(server) as sock:
            assert ask(sock, b"hello\n") == b"hello\n"
        wait_until(lambda: not children(server))
        log = server.log()
    assert log.count("ERROR") == log.count("Traceback") == 1
    assert log.count("WARNING") == 1
    assert "LookupError: on demand" in log


@each_module
def test_close_waits_for_children(module: str) -> None:
    """Without a time limit, a child ends when its client does."""
    with serve("ForkingTCPServer", "--module", module) as server:
        with connect(server) as sock:
            assert ask(sock, b"hello\n") == b"hello\n"
            assert server._process.stdin is not None
            server._process.stdin.close()
            with pytest.raises(subprocess.TimeoutExpired):
                server._process.wait(2 * SOON)
            assert ask(sock, b"still\n") == b"still\n"
        assert server._process.wait(PATIENCE) == 0


@each_module
def test_close_without_block(module: str) -> None:
    """With `block_on_close = False`, it does not wait, and the child goes on."""
    options = ("--close-timeout", "0") if module == "ours" else ()
    with serve("ForkingTCPServer", "--module", module, "--no-block", *options) as server:
        sock = connect(server)
        child = int(ask(sock, b"pid\n"))
    with sock:
        assert is_running(child)
        assert ask(sock, b"still\n") == b"still\n"
    wait_until(lambda: not is_running(child))


@pytest.mark.in_turn
@pytest.mark.parametrize("command", [b"pause\n", b"ignore\n", b"hello\n"])
@pytest.mark.parametrize("close_timeout", [0.0, 0.1])
def test_close_timeout_of_children(command: bytes, close_timeout: float) -> None:
    """Children get SIGTERM, then SIGKILL; none is left, not even as a zombie."""
    with contextlib.ExitStack() as stack:
        with serve("ForkingTCPServer", "--close-timeout", str(close_timeout)) as server:
            socks = [stack.enter_context(connect(server)) for _ in range(3)]
            for sock in socks:
                assert ask(sock, command) == command
            pids = children(server)
            start = time.monotonic()
        elapsed = time.monotonic() - start
        assert len(pids) == 3
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert elapsed < close_timeout + (1 if command == b"ignore\n" else 0) + STUCK


def test_close_timeout_of_a_child_that_sends() -> None:
    """Its client does not read."""
    with contextlib.ExitStack() as stack:
        with serve("ForkingTCPServer", "--close-timeout", "0") as server:
            sock = stack.enter_context(connect(server))
            assert ask(sock, b"hello\n") == b"hello\n"
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.send(b"x" * 1000 + b"\n")
            assert len(children(server)) == 1


def test_killed_child() -> None:
    """One that is killed costs its connection only."""
    with serve("ForkingTCPServer") as server:
        with connect(server) as sock:
            os.kill(int(ask(sock, b"pid\n")), signal.SIGKILL)
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1) == b""
        wait_until(lambda: not children(server))
        with connect(server) as sock:
            assert ask(sock, b"hello\n") == b"hello\n"


REAPING = """
import socket, sys
import MODULE as socketserver

class Server(socketserver.ForkingTCPServer):
    timeout = 0.01

with Server(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
    assert socketserver.ForkingTCPServer.timeout == 300
    assert socketserver.ForkingTCPServer.max_children == 40
    socket.create_connection(server.server_address).close()
    server.handle_request()
    assert len(server.active_children) == 1
    while server.active_children:
        server.handle_request()
"""


@pytest.mark.parametrize("module", ["easynetwork.socketserver", "socketserver"])
def test_handle_timeout_reaps_children(module: str) -> None:
    """A program that calls `handle_request()` need not call anything else."""
    program = REAPING.replace("MODULE", module)
    subprocess.run([sys.executable, "-W", "error", "-c", program], timeout=PATIENCE, check=True)


def test_silent_children() -> None:
    """A server that has as many children as it may have can still be stopped."""
    arguments = "--max-children", "2", "--close-timeout", "0"
    with contextlib.ExitStack() as stack:
        with serve("ForkingTCPServer", *arguments) as server:
            for _ in range(3):
                stack.enter_context(connect(server))
            wait_until(lambda: len(children(server)) == 2)
            start = time.monotonic()
        assert time.monotonic() - start < 1 + STUCK


OWN_LOOP = """
import os, signal, socket, sys
import easynetwork.socketserver as socketserver

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"hello")
        self.request.recv(1)

class Server(socketserver.ForkingTCPServer):
    max_children = 2
    timeout = 0

other = os.fork()
if not other:
    os._exit(5)
with Server(("127.0.0.1", 0), Handler, close_timeout=0) as server:
    clients = [socket.create_connection(server.server_address) for _ in range(5)]
    for _ in range(5):
        server.handle_request()
    assert len(server.active_children) == 2
    for client in clients[:2]:
        assert client.recv(5) == b"hello"
        client.sendall(b"x")
    server.timeout = 60
    server.handle_request()
    server.handle_request()
    assert clients[3].recv(5) == b"hello"
    assert len(server.active_children) == 2
assert not server.active_children
assert os.waitpid(other, 0) == (other, 5 << 8)
"""


def test_own_loop() -> None:
    """Calling `handle_request()` keeps the limit, and reaps no child of the program itself."""
    subprocess.run([sys.executable, "-W", "error", "-c", OWN_LOOP], timeout=PATIENCE, check=True)


# -- many clients

CROWD = 2000
MAX_THREADS = 50


@pytest.mark.in_turn
@pytest.mark.usefixtures("many_descriptors")
def test_silent_crowd() -> None:
    """It costs as many threads as there may be, and little memory; a place that is free is used."""
    with serve("ThreadingTCPServer", "--max-threads", str(MAX_THREADS)) as server:
        with connect(server) as sock:
            assert ask(sock, b"hello\n") == b"hello\n"
        before = server.memory()
        with contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(connect(server)) for _ in range(CROWD)]
            wait_until(lambda: threads(server) == MAX_THREADS + 1)
            with connect(server) as good:
                good.sendall(b"good\n")
                check_waits(good)
                assert threads(server) == MAX_THREADS + 1
                assert server.memory() - before < 16 * MEBIBYTE
                for sock in crowd:
                    sock.close()
                assert receive_line(good) == b"good\n"
        wait_until(lambda: threads(server) < 5)
        log = server.log()
    assert log.count("\n") == 1
    assert "All 50 threads are busy: clients wait" in log


@pytest.mark.in_turn
@pytest.mark.usefixtures("many_descriptors")
def test_silent_crowd_and_a_timeout() -> None:
    """With a timeout in the handler, it gives way by itself."""
    arguments = "--max-threads", str(MAX_THREADS), "--idle-time", str(10 * MS)
    with serve("ThreadingTCPServer", *arguments) as server, contextlib.ExitStack() as stack:
        for _ in range(CROWD):
            stack.enter_context(connect(server))
        with connect(server) as good:
            assert ask(good, b"good\n") == b"good\n"
        assert threads(server) <= MAX_THREADS + 1
