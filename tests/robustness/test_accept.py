"""A process that runs out of descriptors goes on serving, and accepts again when it can.

It has one in reserve, to reset the connections that it cannot accept.
"""

from __future__ import annotations

import socket
import time

import pytest

from tests.robustness.peers import Heartbeat, ask, connect, wait_until
from tests.robustness.process import ServerProcess

pytestmark = pytest.mark.in_turn


def test_no_descriptors_left(loop: str, plain: list[str]) -> None:
    """Connections are reset; one line is logged per episode; hardly any work is done meanwhile."""
    with ServerProcess(loop, *plain, "--descriptors", "64") as server:
        with Heartbeat(server) as heartbeat:
            for _ in range(2):  # the second time is still the same episode
                socks = [connect(server) for _ in range(90)]
                began = time.monotonic()
                served = [sock for sock in socks if is_served(sock)]
                assert time.monotonic() - began < 2
                assert 30 < len(served) < 64
                assert "accept() failed" in server.log()
                assert work(server, 0.3) < 0.1
                for sock in served:
                    sock.close()
                wait_until(lambda: is_accepting(server))
            heartbeat.wait_beat()
        lines = server.log().splitlines()
        assert len(lines) == 2
        assert lines[1].startswith("ERROR")
        assert "Too many open files" in lines[1]


def is_served(sock: socket.socket) -> bool:
    """Return whether the server answers on a connection; close the connection otherwise."""
    try:
        return ask(sock, "echo x") == "x"
    except ConnectionError:  # a Unix socket tells it at once that the other end is closed
        sock.close()
        return False


def is_accepting(server: ServerProcess) -> bool:
    """Return whether the server serves a new connection."""
    with connect(server) as sock:
        return is_served(sock)


def work(server: ServerProcess, seconds: float) -> float:
    """Return the share of the coming seconds that the server works."""
    before = server.processor_time()
    time.sleep(seconds)
    return (server.processor_time() - before) / seconds
