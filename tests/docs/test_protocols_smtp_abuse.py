"""Test the example of the page about SMTP under hostile clients, and where it may be interrupted.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page. The rest of the page is in `test_protocols_smtp`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import smtplib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from easynetwork.testing import Faults, MemoryNetwork
from tests.conftest import BACKENDS, HAS_TRIO
from tests.docs.howto_support import check_quotations
from tests.docs.smtp_support import (
    ENVELOPE,
    Client,
    Program,
    codes,
    mail_queue,
    running,
    send_and_read,
    serving_in_memory,
)
from tests.interop.support import needs, run
from tests.times import PATIENCE

pytestmark = [
    pytest.mark.in_turn,
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix", reason="the queue needs folders that can be synced"),
]

EVERY_BACKEND = pytest.mark.parametrize(
    "backend",
    ["asyncio", pytest.param("trio", marks=pytest.mark.skipif(not HAS_TRIO, reason="no trio"))],
)


@pytest.fixture(params=[BACKENDS[0], BACKENDS[-1]])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Return asyncio and trio; other loops are no other example."""
    return request.param


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a queue on a disk that is fast, because nothing has to survive a power failure."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return mail_queue.MailQueue(tmp_path / "queue")


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations("protocols/smtp.rst", globals())


# How the stream is cut


FORGED = b"MAIL FROM:<eve@example.org>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nForged\r\n.\r\n"
NEWLINES = (b"\n", b"\r", b"\r\n")
SMUGGLED_ENDS = [
    before + b"." + after
    for before, after in itertools.product(NEWLINES, NEWLINES)
    if not before == after == b"\r\n"
]


@pytest.mark.parametrize("end", [*SMUGGLED_ENDS, b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\n\n.\n\n"])
async def test_smuggling(queue: Any, end: bytes) -> None:
    """No end of a message but the real one ends it, wherever the stream is cut.

    "In this server, CRLF is the only end of a line, so only CRLF, a dot and CRLF end a message."

    "the whole message is received up to its real end and is not stored"

    "A line that contains CR or LF is refused"

    "so that no server behind this one can be deceived."

    "Whatever a client sends as the content of one message, the server stores it as one message or
    refuses it with one reply. It never finds two messages in it."

    "Nothing in the content may ever be taken for a command."
    """
    content = b"Hello" + end + FORGED
    data = ENVELOPE + content + b"QUIT\r\n"
    async with serving_in_memory(queue) as served:
        for cut in range(len(ENVELOPE) - 2, len(ENVELOPE + content) + 2):
            replies = await send_and_read(served, data, to_server=Faults(chunks=[cut]))
            assert codes(replies) == [220, 250, 250, 250, 354, 554, 221], cut
        replies = await send_and_read(served, data, to_server=Faults(chunks=1))
        assert codes(replies) == [220, 250, 250, 250, 354, 554, 221]
    assert queue.messages() == []


@pytest.mark.parametrize("end", [b"\r\n..\r\n", b"\r\n .\r\n", b"\r\n. \r\n", b"\r\n\0.\r\n", b"."])
async def test_harmless_dots(queue: Any, end: bytes) -> None:
    """Lines that only look like the end belong to the message.

    "only CRLF, a dot and CRLF end a message"

    "the server stores it as one message or refuses it with one reply. It never finds two messages
    in it."
    """
    data = ENVELOPE + b"Hello" + end + FORGED + b"QUIT\r\n"
    async with serving_in_memory(queue, network=MemoryNetwork(chunks=range(1, 9))) as served:
        replies = await send_and_read(served, data)
    assert codes(replies) == [220, 250, 250, 250, 354, 250, 221]
    [path] = queue.messages()
    received = b"Hello" + end.replace(b"\n.", b"\n") + FORGED.removesuffix(b".\r\n")
    assert mail_queue.read_mail(path)[1].endswith(b"\r\n" + received)


@pytest.mark.in_turn
async def test_each_cut(queue: Any) -> None:
    """A message is the same message, wherever the stream is cut.

    "a message that arrives byte by byte"
    """
    content = b"Subject: a test\r\n\r\n..dot\r\n...\r\n\r\nHello.\r\n"
    data = ENVELOPE + content + b".\r\n" + ENVELOPE + b".\r\nNOOP\r\nQUIT\r\n"
    mail = [250, 250, 250, 354, 250]
    async with serving_in_memory(queue) as served:
        for cuts in *([cut] for cut in range(1, len(data))), [1] * len(data), [2, 3] * len(data):
            replies = await send_and_read(served, data, to_server=Faults(chunks=cuts))
            assert codes(replies) == [220, *mail, *mail, 250, 221], cuts
    stored = {mail_queue.read_mail(path)[1].split(b"\r\n", 2)[2] for path in queue.messages()}
    assert stored == {content.replace(b"\n.", b"\n"), b""}
    assert len(queue.messages()) == 2 * (len(data) + 1)


# Crashes


class Sender:
    """Sends one message after the other, until the server is gone.

    Attributes:
        acknowledged: The hashes of the messages that the server is responsible for.
    """

    def __init__(self, port: int, seed: int, acknowledged: set[str]) -> None:
        self._port = port
        self._random = random.Random(seed)
        self._acknowledged = acknowledged

    def send_until_the_end(self) -> None:
        with suppress(ConnectionError), Client(self._port) as client:
            client.reply()
            while True:
                line = self._random.randbytes(30).hex().encode() + b"\r\n"
                content = line * self._random.choice([1, 10, 1000, 5000])
                client.ask(ENVELOPE + content + b".\r\n", 4)
                if not client.reply().startswith("250 2.0.0 Queued as "):
                    break
                self._acknowledged.add(hashlib.sha256(content).hexdigest())


@pytest.mark.in_turn
@EVERY_BACKEND
def test_crashes(backend: str, tmp_path: Path) -> None:
    """Each message that was acknowledged is in the queue, whole, when the server is killed.

    "If the connection or the server breaks before the reply arrives, the client sends the message
    again. A message may arrive twice, but it is never lost."

    "This happens at once, so there is never half a message in new."

    "The reply 250 after the content is a promise: from now on, the server is responsible for the
    message, and the client deletes it."
    """
    acknowledged: set[str] = set()
    for seed in range(3):
        program = Program(tmp_path, f"--backend={backend}")
        try:
            senders = [Sender(program.port, 10 * seed + n, acknowledged) for n in range(4)]
            enough = len(acknowledged) + random.Random(seed).randrange(1, 40)
            with ThreadPoolExecutor() as pool:
                done = [pool.submit(sender.send_until_the_end) for sender in senders]
                while len(acknowledged) < enough:
                    assert program.process.poll() is None, program.log()
                    time.sleep(0.001)
                program.kill()
            for each in done:
                each.result()
        finally:
            program.kill()
    stored = set()
    for envelope, content in program.queued():
        assert envelope == {"sender": "ada@example.org", "recipients": ["bob@example.com"]}
        _, _, received = content.split(b"\r\n", 2)
        assert len(received) % 62 == 0
        assert len(received) // 62 in (1, 10, 1000, 5000)
        stored.add(hashlib.sha256(received).hexdigest())
    assert acknowledged <= stored
    assert len(stored) <= len(acknowledged) + 12  # in each round, one message of each sender


# Hostile clients


class Nuisances:
    """200 clients that are silent, slow, send garbage or never read.

    Attributes:
        refused: Those that send garbage, and were disconnected.
        stuck: Those that never read, and cannot send any more.
    """

    def __init__(self, port: int) -> None:
        self.refused: set[socket.socket] = set()
        self.stuck: set[socket.socket] = set()
        self._stack = ExitStack()
        self._clients: list[tuple[str, socket.socket]] = []
        for number in range(200):
            # The program allows 20 connections of each address.
            sock = socket.socket()
            self._stack.enter_context(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sock.bind((f"127.0.1.{number % 20}", 0))
            sock.connect(("127.0.0.1", port))
            sock.setblocking(False)
            kind = ("silent", "slow", "garbage", "never reads")[number % 4]
            self._clients.append((kind, sock))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Nuisances:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        self._stack.close()

    def _run(self) -> None:
        garbage = random.Random(0)
        slow = itertools.cycle(ENVELOPE + b"Hello\r\n" * 10)
        # The pause sets the pace, and leaves the processor to the server.
        while not self._stop.wait(0.01):
            byte = bytes([next(slow)])
            for kind, sock in self._clients:
                if kind == "slow":
                    with suppress(BlockingIOError):
                        sock.send(byte)
                elif kind == "garbage" and sock not in self.refused:
                    try:
                        sock.send(garbage.randbytes(200) + b"\r\n" * 3)
                        while sock.recv(1000):
                            pass
                        self.refused.add(sock)
                    except BlockingIOError:
                        pass
                    except ConnectionError:
                        self.refused.add(sock)
                elif kind == "never reads" and sock not in self.stuck:
                    try:
                        sock.send(b"EHLO x\r\n" * 400)
                    except (BlockingIOError, ConnectionError):
                        self.stuck.add(sock)


def memory_of(process: int) -> int:
    """Return the most memory that a process ever had, in KiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1])


@pytest.fixture
def nuisances(backend: str, tmp_path: Path) -> Iterator[tuple[Program, Nuisances]]:
    with running(tmp_path, f"--backend={backend}") as program, Nuisances(program.port) as nuisances:
        yield program, nuisances


@pytest.mark.in_turn
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs 127.0.1.x, and /proc")
@needs("swaks")
@EVERY_BACKEND
def test_abuse(backend: str, nuisances: tuple[Program, Nuisances]) -> None:
    """Hostile clients do not get in the way of others, and do not fill the memory.

    "Limits.public() disconnects clients that are silent, slow or do not read"
    """
    program, hostile = nuisances
    before = memory_of(program.process.pid)
    sent = 0
    while sent < 5 or len(hostile.refused) < 50 or len(hostile.stuck) < 50:
        done = anyio.run(
            lambda: run(
                *("swaks", "--server", f"127.0.0.1:{program.port}", "--ehlo", "client"),
                *("--from", "ada@example.org", "--to", "bob@example.com"),
            )
        )
        assert done.returncode == 0, done.stdout + done.stderr
        with smtplib.SMTP("127.0.0.1", program.port, timeout=PATIENCE) as client:
            client.sendmail("ada@example.org", ["bob@example.com"], "Hello.\r\n" * 20_000)
        sent += 2
    assert len(program.queued()) == sent
    assert memory_of(program.process.pid) - before < 50_000
    assert len(program.log()) < 200_000
