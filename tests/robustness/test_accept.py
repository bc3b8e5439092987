"""A process that runs out of descriptors goes on serving, and accepts again when it can."""

from __future__ import annotations

import socket
import time

from tests.robustness.peers import Heartbeat, ask, connect, wait_until
from tests.robustness.process import ServerProcess


def test_no_descriptors_left(loop: str) -> None:
    """Connections wait; one line is logged per episode; hardly any work is done meanwhile."""
    with ServerProcess(loop, "--descriptors", "64") as server:
        with Heartbeat(server) as heartbeat:
            for _ in range(2):  # the second time is still the same episode
                served, waiting = exhaust(server)
                wait_until(lambda: "accept() failed" in server.log())
                assert work(server, 0.3) < 0.1
                for sock in served:
                    sock.close()
                for sock in waiting:
                    with sock:
                        assert ask(sock, "echo at last") == "at last"
            heartbeat.wait_beat()
        lines = server.log().splitlines()
        assert len(lines) == 2
        assert lines[1].startswith("ERROR")
        assert "Too many open files" in lines[1]


def exhaust(server: ServerProcess) -> tuple[list[socket.socket], list[socket.socket]]:
    """Return connections that are served, and some that cannot be before those are closed."""
    socks = [connect(server) for _ in range(90)]
    served, waiting = socks[:40], socks[40:]
    for sock in served:
        assert ask(sock, "echo x") == "x"
    return served, waiting


def work(server: ServerProcess, seconds: float) -> float:
    """Return the share of the coming seconds that the server works."""
    before = server.processor_time()
    time.sleep(seconds)
    return (server.processor_time() - before) / seconds
