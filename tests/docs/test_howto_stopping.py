"""Test the statements and the examples of the page about stopping and restarting.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. What a drain does is tested in `tests/conformance/test_draining.py`, and restarts are tested
in `tests/test_supervised.py`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from docs._include.examples.howto.stopping import jobs
from easynetwork.servers.running import EXIT_STUCK
from tests.docs.howto_support import check_quotations, connected, serving
from tests.times import PATIENCE

FOLDER = Path(jobs.__file__).parent


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("howto/stopping.rst", globals())


def run_program(name: str, question: str, port: int) -> tuple[str, int, str]:
    """Start a program, ask one question, and send it SIGTERM meanwhile.

    Returns:
        The answer, the exit status and the log.
    """
    process = subprocess.Popen(
        [sys.executable, name],
        cwd=FOLDER,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    sock = socket.create_connection(("localhost", port), PATIENCE)
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            with sock, sock.makefile() as file:
                sock.sendall(f"{question}\n".encode())
                assert process.stderr is not None
                log = ""
                while "Accepted new connection" not in log:  # it does not serve at once
                    log += process.stderr.readline()
                process.send_signal(signal.SIGTERM)
                answer = file.read()
            log += process.stderr.read()
            process.wait(PATIENCE)
        finally:
            process.kill()
    return answer, process.returncode, log


@pytest.mark.in_turn
@pytest.mark.skipif(os.name != "posix", reason="sends signals of POSIX")
def test_program() -> None:
    """The program answers what has arrived, and ends without a traceback.

    "serves until the process gets SIGTERM or SIGINT (Control-C)"

    "There is no traceback."

    "The log says at the start, at the end and every 5 seconds between how many clients are left."
    """
    answer, status, log = run_program("jobs.py", "laundry", 9000)
    assert (answer, status) == ("laundry is done\n", 0)
    assert "Traceback" not in log
    assert "Draining for at most 10 seconds, 1 clients are left" in log
    assert log.count("Drained, 0 clients are left") == 2


@pytest.mark.in_turn
@pytest.mark.skipif(os.name != "posix", reason="sends signals of POSIX")
def test_health() -> None:
    """The port for health checks stays open while the other server drains.

    "If it asks another port, that one has to stay open while the server drains."
    """
    process = subprocess.Popen(
        [sys.executable, "health.py"],
        cwd=FOLDER,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    def ask(port: int, question: str) -> socket.socket:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                sock = socket.create_connection(("localhost", port), PATIENCE)
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            else:
                sock.sendall(f"{question}\n".encode())
                return sock

    def health() -> str:
        with ask(9002, "?") as sock:
            return sock.recv(100).decode()

    with process:
        try:
            assert health() == "healthy\n"
            with ask(9000, "laundry") as job:
                time.sleep(0.1)  # the request should have been read
                process.send_signal(signal.SIGTERM)
                while health() == "healthy\n":
                    time.sleep(0.01)
                assert health() == "draining\n"
                assert job.recv(100) == b"laundry is done\n"
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@pytest.mark.anyio
async def test_endless_handler() -> None:
    """A handler that sends without being asked ends by itself.

    "It should ask client.is_draining() now and then, as ClockRequestHandler above does."
    """

    class Handler(jobs.ClockRequestHandler):
        interval = 0.01

    async with serving(Handler()) as server, connected(server) as peer:
        await peer.send("start")
        assert await peer.receive() == "tick"
        with anyio.fail_after(PATIENCE / 2):
            await server.shutdown(grace=PATIENCE)
        while (line := await peer.receive()) == "tick":
            pass
        assert line == "connect again"


def test_exit_status() -> None:
    """The page names the exit status of a process with a stubborn handler.

    "The process then ends with exit status 70 (EXIT_STUCK), and the log names the handler."
    """
    assert EXIT_STUCK == 70
