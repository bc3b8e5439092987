"""No flood of datagrams makes the process grow, stops the service of others or fills the log.

``ROBUSTNESS_SCALE=16`` makes it a million datagrams of one source, and 50,000 sources.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.robustness.peers import TIMEOUT, wait_until
from tests.robustness.process import ServerProcess
from tests.times import MS, is_traced

pytestmark = pytest.mark.in_turn

PROGRAM = Path(__file__).parent / "served_datagrams.py"

MEBIBYTE = 1 << 20

not_traced = pytest.mark.skipif(is_traced(), reason="tracing takes memory of its own")

# "Bounded" in bytes, beyond what is documented to wait.
GROWTH = 8 * MEBIBYTE

# What 1,000 waiting generators may take: on trio, they have 8 MiB.
CONVERSATIONS = 12 * MEBIBYTE

# Lines that a flood may cost.
LINES = 3

# When an answer counts as lost.
LOST = 2_000 * MS


# ip(7): where a datagram leaves from. The socket module has the number from Python 3.12 on.
IP_PKTINFO = 8


def connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    """Return a socket that sends to the server, from an address of its own."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(LOST)
    sock.bind((host, 0))
    sock.connect(("127.0.0.1", port))
    return sock


def ask(sock: socket.socket, command: str) -> str | None:
    """Send a command and return the answer; None if there is none."""
    try:
        sock.send(command.encode())
        return sock.recv(65536).decode()
    except TimeoutError:
        return None


def kernel_queue(port: int) -> tuple[int, int]:
    """Return how many bytes wait in the kernel for the server, and how many datagrams it lost."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:  # proc(5)
        fields = line.split()
        if fields[1].endswith(f":{port:04X}"):
            return int(fields[4].partition(":")[2], 16), int(fields[-1])
    raise AssertionError("the server's socket is closed")


def let_through(port: int) -> None:
    """Wait until the kernel has got rid of most datagrams: what it loses proves nothing."""
    deadline = time.monotonic() + TIMEOUT
    while kernel_queue(port)[0] > 32 * 1024:
        assert time.monotonic() < deadline, "the server does not take them"
        time.sleep(0.0005)


class Visitor:
    """A well-behaved peer in a thread of its own, which asks again and again.

    Attributes:
        asked: How many questions it has asked.
        answered: How many of them were answered.
    """

    def __init__(self, port: int, command: str) -> None:
        self.answered = self.asked = 0
        self._command = command
        self._sock = connect(port)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def visiting(self) -> Iterator[None]:
        """Ask while the block runs."""
        self._thread.start()
        try:
            wait_until(lambda: self.answered > 0)
            yield
        finally:
            self._stopped.set()
            self._thread.join()
            self._sock.close()

    def _run(self) -> None:
        while not self._stopped.wait(0.002):
            self.asked += 1
            self.answered += ask(self._sock, self._command) is not None


def flood(
    server: ServerProcess,
    send: Callable[[], int],
    command: str,
    *,
    is_full: bool = False,
    room: int = GROWTH,
) -> dict[str, Any]:
    """Check that a flood remains without effect.

    Args:
        server: The server.
        send: Sends the flood, and returns how many datagrams that was.
        command: What a well-behaved peer asks meanwhile.
        is_full: Whether all places are taken by peers whose requests are handled, so that no other
            peer is answered.
        room: How many bytes the process may grow.

    Returns:
        The server's statistics behind it.
    """
    with connect(server.port) as peer, connect(int(ask(peer, "observer") or 0)) as watch:
        memory, lines = server.memory(), len(server.log().splitlines())
        server.forget_peak()
        visitor = Visitor(server.port, command)
        with visitor.visiting():
            sent = send()
        tries, is_settled = 0, False
        while not is_settled and tries < 1000:  # until all generators have begun
            tries += 1
            after: dict[str, Any] = json.loads(ask(watch, "statistics") or "null")
            dropped = sum(count for name, count in after.items() if name.startswith("dropped_by_"))
            is_settled = after["received"] == after["handled"] + dropped + after["waiting"]
    _, lost = kernel_queue(server.port)
    growth = server.peak_memory() - memory
    figures = (
        f"{sent} sent, {lost} lost in the kernel, {after}, {visitor.answered} of {visitor.asked} "
        f"questions answered, {growth / MEBIBYTE:.1f} MiB more"
    )
    print(figures)
    assert growth < room, figures
    assert is_full or visitor.answered >= 0.95 * visitor.asked, figures
    assert len(server.log().splitlines()) - lines <= LINES, figures
    assert is_settled, figures
    assert after["received"] == sent + visitor.asked + 1 - lost, figures
    return after


def send_from_one(port: int, count: int, datagram: bytes) -> int:
    """Send the same datagram that often."""
    with connect(port) as sock:
        for number in range(count):
            if number % (1 + 120_000 // (1000 + len(datagram))) == 0:
                let_through(port)
            sock.send(datagram)
    return count


def send_from_many(port: int, count: int) -> int:
    """Send a datagram from each of that many addresses of this host."""
    for number in range(count):
        if number % 100 == 0:
            let_through(port)
        host = f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        with connect(port, host) as sock:
            sock.send(b"flood")
    return count


class Crowd:
    """One socket that sends from as many addresses of this host as there are.

    Attributes:
        answers: How many answers it has received.
    """

    def __init__(self, port: int) -> None:
        self.answers = 0
        self._server = "127.0.0.1", port
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MEBIBYTE)
        self._sock.bind(("0.0.0.0", 0))  # which the answers to all of them get to

    def send(self, count: int, datagram: bytes) -> int:
        """Send a datagram from each of that many addresses; return how many that was."""
        with self._sock as sock:
            for number in range(count):
                if number % 50 == 0:
                    let_through(self._server[1])
                    self._take_answers()
                source = (0x7F01_0000 + number).to_bytes(4, "big")
                ancillary = (socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + source + bytes(4))
                sock.sendmsg([datagram], [ancillary], 0, self._server)
            while kernel_queue(self._server[1])[0]:
                time.sleep(MS)
            with suppress(TimeoutError):
                sock.settimeout(LOST / 4)
                while sock.recv(100):
                    self.answers += 1
        return count

    def _take_answers(self) -> None:
        with suppress(BlockingIOError):
            while self._sock.recv(100, socket.MSG_DONTWAIT):
                self.answers += 1


@not_traced
def test_one_source(loop: str, scale: int) -> None:
    """One peer may send what it wants: a few of its datagrams wait, and others notice nothing."""
    with ServerProcess(loop, "3600", program=PROGRAM) as server:
        after = flood(
            server, lambda: send_from_one(server.port, 62_500 * scale, b"flood"), "echo hello"
        )
        assert after["waiting"] == 64
        assert after["peers"] == 1
        assert after["dropped_by_count"] > 0


@not_traced
def test_large_datagrams(loop: str) -> None:
    """Fewer wait if they are large."""
    with ServerProcess(loop, "3600", program=PROGRAM) as server:
        after = flood(server, lambda: send_from_one(server.port, 1000, b"x" * 60_000), "echo hello")
        assert after["waiting"] == 4
        assert after["dropped_by_size"] > 0


@not_traced
def test_many_sources(loop: str, scale: int) -> None:
    """Peers without number have a bounded number of generators; who is in work keeps it."""
    with ServerProcess(loop, "3600", program=PROGRAM) as server:
        after = flood(
            server, lambda: send_from_many(server.port, 3125 * scale), "echo hello", is_full=True
        )
        assert after["peers"] == 1000
        assert after["evicted"] == 0
        assert after["dropped_by_peers"] > 0


@not_traced
def test_many_sources_served(loop: str, scale: int) -> None:
    """If their requests take a moment, strangers are served among them."""
    with ServerProcess(loop, "0.001", program=PROGRAM) as server:
        after = flood(server, lambda: send_from_many(server.port, 3125 * scale), "echo hello")
        # More peers than there may be at once: the generators of the first ones have ended.
        assert after["handled"] > 1000
        assert after["peers"] < 1000


@not_traced
def test_conversations(loop: str) -> None:
    """Of 1,100 peers that begin a conversation and say no more, all are answered."""
    with ServerProcess(loop, "3600", program=PROGRAM) as server, ExitStack() as stack:
        answers = []
        for _ in range(1100):
            peer = stack.enter_context(connect(server.port))
            answers.append(ask(peer, "talk"))
        # Without room for the last 100, the first of them would wait until others time out.
        assert answers.count("talking") >= 1095
        assert ask(peer, "echo hello") == "hello"  # the last one goes on with its own


@not_traced
def test_strangers(loop: str, scale: int) -> None:
    """However many begin a conversation and say no more, the next one is answered."""
    with ServerProcess(loop, "3600", program=PROGRAM) as server:
        crowd = Crowd(server.port)
        count = 6250 * scale
        after = flood(server, lambda: crowd.send(count, b"talk"), "echo hello", room=CONVERSATIONS)
        _, lost = kernel_queue(server.port)
        figures = f"{crowd.answers} answers to {count} strangers, of whom {lost} were lost"
        print(figures)
        assert crowd.answers >= 0.95 * (count - lost), figures
        assert after["peers"] <= 1000
        assert after["evicted"] >= 0.95 * (count - lost) - 1000, figures
