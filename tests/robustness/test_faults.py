"""Peers that misbehave and handlers that fail take nobody with them and do not fill the log."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from tests.robustness.peers import Heartbeat, ask, connect, reset, wait_cut_off, wait_until
from tests.robustness.process import ServerProcess

pytestmark = pytest.mark.in_turn

# One ends in the middle of a line, all have bytes that are not ASCII, or a terminal's commands.
GARBAGE = [
    b"\xff\xfe\n",
    bytes(range(128, 256)) + b"\n\r\n\n",
    b"\x1b[31m\xc3\x28\nINFO forged line\n\xff",
    b"\x80" * 5000 + b"\n",
]


def test_peers_that_reset(loop: str, plain: list[str]) -> None:
    """2,000 peers that connect and reset, half of them in the middle of a line, are no news."""
    with ServerProcess(loop, *plain) as server, Heartbeat(server) as heartbeat:
        for _ in range(1000):
            reset(connect(server))
            sock = connect(server)
            sock.sendall(b"echo x\necho")
            reset(sock)
        heartbeat.wait_beat()
        assert server.log().count("\n") == 1  # that it serves


def test_peers_that_send_garbage(loop: str, plain: list[str]) -> None:
    """200 such peers are cut off, with at most four lines per second in the log."""
    begin = time.monotonic()
    with ServerProcess(loop, *plain) as server, Heartbeat(server) as heartbeat:
        for number in range(200):
            with connect(server) as sock:
                sock.sendall(GARBAGE[number % len(GARBAGE)])
                wait_cut_off(sock)
        heartbeat.wait_beat()
        log = server.log()
    seconds = int(time.monotonic() - begin) + 2
    lines = log.splitlines()
    assert 2 <= len(lines) <= 1 + 4 * seconds
    assert all("WARNING" in line and "sent invalid data" in line for line in lines[1:4])
    assert "Traceback" not in log
    assert log.isascii()
    assert "\x1b" not in log


def test_handler_that_raises_in_each_hook(loop: str, plain: list[str]) -> None:
    """Each failure is one record with its traceback, ends that client and no other."""
    hooks = ["on_connection", "before_yield", "after_yield", "cleanup", "on_disconnection"]
    with (
        ServerProcess(loop, *plain) as server,
        Heartbeat(server) as heartbeat,
        connect(server) as sock,
    ):
        for hook in hooks:
            assert ask(sock, f"arm {hook}") == "armed"
            # It may be reset so early that connecting fails.
            with suppress(ConnectionResetError), connect(server) as victim:
                if hook == "after_yield":
                    victim.sendall(b"echo x\n")
                if hook in ("cleanup", "on_disconnection"):
                    assert ask(victim, "echo x") == "x"
                else:
                    wait_cut_off(victim)
            wait_logged(server, f"\nLookupError: boom in {hook}\n")
        assert ask(sock, "echo still here") == "still here"
        heartbeat.wait_beat()
        log = server.log()
    assert [f"LookupError: boom in {hook}" for hook in hooks] == [
        line for line in log.splitlines() if line.startswith("LookupError")
    ]
    assert log.count("Exception occurred during processing of request from") == len(hooks)
    assert log.count("ERROR") == len(hooks)
    assert log.count("Traceback") == len(hooks) + 1  # the cleanup's names GeneratorExit as well
    assert "WARNING" not in log


def wait_logged(server: ServerProcess, text: str) -> None:
    """Wait until the server has logged a text."""
    wait_until(lambda: text in server.log())
