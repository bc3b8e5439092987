"""Children of a process that forks keep nothing alive that the parent serves.

Each program has a process of its own, with one thread, so that forking is safe.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.robustness.process import ServerProcess
from tests.times import PATIENCE

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.in_turn,
]

PROGRAM = Path(__file__).parent / "forking.py"
CHILDREN = ("bare", "fork", "spawn")

each_loop = pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
each_child = pytest.mark.parametrize("child", CHILDREN)


class Peer:
    """A connection to the server."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)

    def ask(self, request: str) -> str:
        self.socket.sendall(f"{request}\n".encode())
        return self.receive()

    def receive(self) -> str:
        data = b""
        while not data.endswith(b"\n"):
            chunk = self.socket.recv(1000)
            assert chunk, "the end"
            data += chunk
        return data.decode().strip()


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    peers: list[Peer] = []
    yield peers
    for peer in peers:
        peer.socket.close()


@pytest.mark.in_turn
@each_loop
@each_child
def test_connections(loop: str, child: str, peers: list[Peer]) -> None:
    """While a child lives, connections end when the server closes or resets them."""
    with ServerProcess(loop, program=PROGRAM) as server:
        peers += [Peer(server.port) for _ in range(3)]
        forker, bystander, victim = peers
        for peer in peers:
            assert peer.ask("echo") == "echo"
        assert forker.ask(child) == "child"
        assert bystander.ask("echo") == "echo"
        bystander.socket.sendall(b"close\n")
        assert bystander.socket.recv(1) == b""
        victim.socket.sendall(b"crash\n")
        with pytest.raises(ConnectionResetError):
            victim.socket.recv(1)
        # The parent's other connections and its listener go on, watched by the same selector.
        assert forker.ask("echo") == "echo"
        peers.append(Peer(server.port))
        assert peers[-1].ask("echo") == "echo"
        forker.socket.sendall(b"close\n")
        assert forker.socket.recv(1) == b""


@pytest.mark.in_turn
@each_loop
@each_child
def test_ports(loop: str, child: str, peers: list[Peer]) -> None:
    """While a child lives, the ports of a closed server can be used again."""
    with ServerProcess(loop, program=PROGRAM) as server:
        peers.append(Peer(server.port))
        assert peers[0].ask(child) == "child"
        tcp, udp = map(int, peers[0].ask("stop").split())
        assert tcp == server.port
        with pytest.raises(ConnectionRefusedError):
            Peer(tcp)
        for kind, port in (socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp):
            with socket.socket(socket.AF_INET, kind) as sock:
                if kind == socket.SOCK_STREAM:  # the server's end may be in TIME_WAIT
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("127.0.0.1", port))
                if kind == socket.SOCK_STREAM:
                    sock.listen()


@pytest.mark.in_turn
@each_loop
@each_child
def test_async_clients(loop: str, child: str, peers: list[Peer]) -> None:
    """The same holds for the clients that live in the parent's event loop."""
    with ServerProcess(loop, program=PROGRAM) as server:
        peers.append(Peer(server.port))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(PATIENCE)
            udp = int(peers[0].ask(f"connect {listener.getsockname()[1]}"))
            with listener.accept()[0] as sock:
                sock.settimeout(PATIENCE)
                assert peers[0].ask(child) == "child"
                assert peers[0].ask("disconnect") == "disconnected"
                assert sock.recv(1) == b""
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                datagrams.bind(("127.0.0.1", udp))


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", ["tcp", "udp"])
@each_loop
def test_activated(loop: str, kind: str) -> None:
    """A server that was only activated can be served by several children."""
    command = [sys.executable, "-W", "error", str(PROGRAM), loop, kind]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            pids = {int(process.stdout.readline()) for _ in range(2)}
            assert process.pid not in pids
            seen = set()
            for _ in range(200):
                seen.add(ask_for_pid(kind, port))
                if seen == pids:
                    break
            assert seen <= pids
            assert seen
        finally:
            process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def ask_for_pid(kind: str, port: int) -> int:
    sort = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, sort) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", port))
        sock.send(b"pid\n" if kind == "tcp" else b"pid")
        return int(sock.recv(1000))
