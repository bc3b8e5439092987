"""Peers with a lot to say, or hardly anything, do not keep others waiting."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import anyio
import anyio.lowlevel
import pytest

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from tests.robustness.peers import Heartbeat, ask, connect, receive_exactly
from tests.robustness.process import ServerProcess
from tests.times import MS

pytestmark = pytest.mark.in_turn

# Seconds. The worst case measured is 0.1 with 16 peers: each takes 1,024 lines' time per turn.
PROMPT = 2.0

# Seconds. The median measured beside 200 peers is 0.02; 0.5 if each is served in every turn.
SOON_ENOUGH = 200 * MS

# Seconds of the server's processor. The median measured is 0.005; 0.8 for 700 requests at once, and
# 0.1 for 50, if their number is not considered.
ANSWERED_SOON = 50 * MS

CROWD = Path(__file__).parent / "crowd.py"


def storm(server: ServerProcess, lines: int) -> None:
    """Send empty lines, 64 KiB at once, and read what answers them."""
    with connect(server) as sock:
        reader = threading.Thread(target=receive_exactly, args=(sock, len("empty\n") * lines))
        reader.start()
        for _ in range(lines // 65536):
            sock.sendall(b"\n" * 65536)
        reader.join()


def test_storm_of_empty_lines(loop: str, plain: list[str], scale: int) -> None:
    """64 KiB of the smallest packets from each of four peers do not silence a fifth."""
    with ServerProcess(loop, *plain) as server:
        with Heartbeat(server) as heartbeat:
            peers = [threading.Thread(target=storm, args=(server, 65536 * scale)) for _ in range(4)]
            for peer in peers:
                peer.start()
            for peer in peers:
                peer.join()
        assert max(heartbeat.delays) < PROMPT


@pytest.mark.parametrize("protocol", ["", "--buffered"])
def test_one_byte_at_a_time(loop: str, plain: list[str], protocol: str) -> None:
    """300 peers who send their lines byte by byte are served like everybody else."""
    line = b"echo how are you\n"
    with ServerProcess(loop, *plain, *filter(None, [protocol])) as server:
        with Heartbeat(server) as heartbeat:
            socks = [connect(server) for _ in range(300)]
            for index in range(len(line) - 1):
                for sock in socks:
                    sock.sendall(line[index : index + 1])
            for sock in socks:
                with sock:
                    assert ask(sock, "") == "how are you"
        assert max(heartbeat.delays) < PROMPT


@contextmanager
def crowd(server: ServerProcess, count: int, burst: int = 0) -> Iterator[None]:
    """Run ``crowd.py`` while the block runs."""
    target = server.path or str(server.port)
    with subprocess.Popen(
        [sys.executable, str(CROWD), str(count), target, *([str(burst)] if burst else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            process.stdin.close()
    assert process.returncode == 0


def test_crowd(loop: str, plain: list[str]) -> None:
    """A quiet client is answered soon while many send as much as the server can take."""
    with ServerProcess(loop, *plain) as server, Heartbeat(server) as heartbeat:
        with crowd(server, 200):
            heartbeat.wait_beat()
            before = len(heartbeat.delays)
            for _ in range(5):
                heartbeat.wait_beat()
            delays = heartbeat.delays[before:]
    assert median(delays) < SOON_ENOUGH


@pytest.mark.parametrize("options", [[], ["--buffered"]], ids=["chunks", "buffer"])
@pytest.mark.parametrize("burst", [50, 700])
def test_small_bursts(loop: str, plain: list[str], burst: int, options: list[str]) -> None:
    """Many requests in few bytes are many requests: 400 peers that send such do not hold up one.

    The server's processor time is measured, whatever else the machine does meanwhile.
    """
    with ServerProcess(loop, *plain, *options) as server, connect(server) as sock:
        spent = []
        with crowd(server, 400, burst):
            for _ in range(20):
                before = server.processor_time()
                assert ask(sock, "echo x") == "x"
                spent.append(server.processor_time() - before)
    assert median(spent) < ANSWERED_SOON


class TurnCounter(AsyncStreamRequestHandler[str, str]):
    """Tells how many turns the event loop made while it was busy."""

    __slots__ = ("turns",)

    def __init__(self) -> None:
        self.turns = 0

    async def count(self) -> None:
        while True:
            self.turns += 1
            await anyio.lowlevel.checkpoint()

    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        request = yield
        before = self.turns
        if request == "stream":
            for _ in range(8192):
                await client.send_packet("x")
        while request == "":
            request = yield
        await client.send_packet(str(self.turns - before))


@pytest.mark.anyio
@pytest.mark.parametrize("requests", [b"stream\n", b"\n" * 8192 + b"end\n"])
async def test_loop_turns_meanwhile(requests: bytes) -> None:
    """The event loop turns at least every 1,024 packets that are sent or received."""
    handler = TurnCounter()
    protocol = StreamProtocol(StringLineSerializer())
    server = AsyncTCPNetworkServer[str, str]("127.0.0.1", 0, protocol, handler)
    async with server, anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve_forever)
        tasks.start_soon(handler.count)
        async with await anyio.connect_tcp("127.0.0.1", server.get_addresses()[0].port) as stream:
            await stream.send(requests)
            answer = b""
            while not answer.endswith(b"\n") or answer.endswith(b"x\n"):
                answer += await stream.receive()
        assert int(answer.split()[-1]) >= 7
        tasks.cancel_scope.cancel()
