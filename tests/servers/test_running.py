"""`run()`, in processes of their own that get signals."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from easynetwork.servers import run
from easynetwork.servers.running import EXIT_STUCK
from tests.conftest import HAS_TRIO, HAS_UVLOOP
from tests.times import PATIENCE

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="sends signals of POSIX"),
    pytest.mark.in_turn,
]

PROGRAM = Path(__file__).parent / "running_program.py"
LOOPS = ["asyncio", *(["uvloop"] if HAS_UVLOOP else []), *(["trio"] if HAS_TRIO else [])]
each_loop = pytest.mark.parametrize("loop", LOOPS)


class Program:
    """The program, and the ports of its servers."""

    def __init__(self, process: subprocess.Popen[str], servers: int) -> None:
        assert process.stdout is not None
        self.process = process
        self.ports = [int(process.stdout.readline()) for _ in range(servers)]

    def connect(self, request: str, number: int = 0) -> socket.socket:
        """Return a connection on which a request was sent."""
        sock = socket.create_connection(("127.0.0.1", self.ports[number]), PATIENCE)
        sock.sendall(f"{request}\n".encode())
        return sock

    def end(self) -> tuple[int, str, str]:
        """Return the exit status, the rest of the output, and the log."""
        output, log = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output, log


@contextlib.contextmanager
def running(loop: str, *arguments: str, servers: int = 1) -> Iterator[Program]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", PROGRAM, loop, "--servers", str(servers), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        try:
            yield Program(process, servers)
        finally:
            process.kill()


def rest(sock: socket.socket) -> str:
    """Return what still arrives, up to the end of the stream."""
    with sock, sock.makefile() as file:
        return file.read()


@pytest.mark.in_turn
@each_loop
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal(loop: str, number: signal.Signals) -> None:
    """A signal has the servers drain; then the program goes on after run(), without a word."""
    with running(loop, servers=2) as program:
        clients = [program.connect("sleep", number) for number in range(2)]
        for client in clients:
            assert client.recv(9) == b"sleeping\n"
        program.process.send_signal(number)
        for client in clients:
            assert rest(client) == "sleep\n"
        assert program.end() == (0, "returned\n", "")


@each_loop
def test_second_signal(loop: str) -> None:
    """The second signal stops the servers at once."""
    with running(loop, "--grace", "60") as program:
        client = program.connect("stay")
        assert client.recv(9) == b"staying\n"
        program.process.send_signal(signal.SIGTERM)
        while True:  # it listens no more: the first one has arrived
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", program.ports[0]), PATIENCE).close()
                time.sleep(0.005)
                continue
            break
        program.process.send_signal(signal.SIGINT)
        assert rest(client) == ""
        assert program.end() == (0, "returned\n", "")


@pytest.mark.in_turn
@each_loop
@pytest.mark.parametrize("arguments", [[], ["--blocking"]], ids=["async", "blocking"])
def test_stubborn_handler(loop: str, arguments: list[str]) -> None:
    """If a handler runs on, the process ends with a status of its own, and an error in the log."""
    with running(loop, "--grace", "0.1", *arguments) as program:
        with program.connect("stubborn") as client:
            assert client.recv(12).endswith(b"ing\n")
            start = time.monotonic()
            program.process.send_signal(signal.SIGTERM)
            status, output, log = program.end()
        assert time.monotonic() - start < PATIENCE / 2
        assert (status, output) == (EXIT_STUCK, "")
        assert log == "ERROR\nERROR\n"


@each_loop
def test_address_in_use(loop: str) -> None:
    """A server that cannot listen ends all, with its exception."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        program_arguments = [loop, "--port", str(sock.getsockname()[1])]
        result = subprocess.run(
            [sys.executable, PROGRAM, *program_arguments],
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("OSError: [Errno 98]")
    assert result.stderr.count("Traceback") == 1


@each_loop
def test_shut_down_by_a_handler(loop: str) -> None:
    """When all servers have been shut down, run() returns."""
    with running(loop, servers=2) as program:
        for number in range(2):
            assert rest(program.connect("stop", number)) == ""
        assert program.end() == (0, "returned\n", "")


def new_server() -> Any:
    raise LookupError("no server")


@pytest.mark.parametrize("loop", [name for name in LOOPS if name != "uvloop"])
def test_failing_factory(loop: Any) -> None:
    """What a factory raises is raised, and the handlers of signals are as before."""
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(LookupError, match="no server"):
        run(new_server, backend=loop)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


@pytest.mark.parametrize("loop", [name for name in LOOPS if name != "uvloop"])
def test_factory_that_exits(loop: Any) -> None:
    """So is what ends the program, without a group of exceptions around it."""

    def new_server() -> Any:
        sys.exit("nothing to serve")

    with pytest.raises(SystemExit, match="nothing to serve"):
        run(new_server, backend=loop)


def test_arguments() -> None:
    """Wrong arguments are refused before anything runs."""
    with pytest.raises(TypeError, match="at least one function"):
        run()
    with pytest.raises(TypeError, match=r"asynchronous server, got None"):
        run(lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match=r"functions that return a server, got None"):
        run(new_server, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        run(new_server, grace=-1)


def test_other_thread() -> None:
    """Only the main thread gets signals."""
    errors: list[BaseException] = []

    def call() -> None:
        try:
            run(new_server)
        except RuntimeError as exc:
            errors.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "main thread" in str(errors.pop())
