"""The measurements that are not a plain load: memory, connection churn, fairness, imports.

Each takes a running server (or a statement) and returns figures by name. Those about memory need a
server that was started for them alone.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Self

from .links import HOST, PATIENCE, WrongAnswerError, open_links
from .load import closed_loop
from .process import Reading, ServerProcess
from .results import percentile

__all__ = [
    "CROWD_IN_FLIGHT",
    "broadcast",
    "churn",
    "fairness",
    "idle",
    "import_time",
    "never_reader",
]

MS, US, KIB, MIB = 1e3, 1e6, 1024, 1024 * 1024
# Connections that use up memory that a server has reserved at its start, before it is read; as a
# share of those that are measured.
FIRST_CONNECTIONS = 1 / 4
# Connections at a time of the churn: enough for several accepts in one turn of a loop.
CHURNING = 8
# Requests that each connection of a crowd keeps in flight: as many as a server reads at a time.
CROWD_IN_FLIGHT = 1024
# Seconds between two heartbeats.
BEAT = 0.005
# Lines after which nothing more can be sent to a client that never reads, of 1 KiB each.
DEAF_LINES = 160
# Interpreters started for each import that is timed.
INTERPRETERS = 3
# Seconds without taking a byte after which a server has stopped reading from a peer.
STALLED = 0.2


def idle(
    server: ServerProcess, family: str, *, connections: int, seconds: float
) -> dict[str, float]:
    """Memory and processor time of connections that had one request answered and then rest."""
    with open_links(family, server.port, int(connections * FIRST_CONNECTIONS), size=64):
        before = server.memory()
        with open_links(family, server.port, connections, size=64):
            grown = server.memory() - before
            start = server.read()
            time.sleep(seconds)
            end = server.read()
    return {
        "kib": grown / connections / KIB,
        "idle_ms": (end.processor - start.processor) / (end.clock - start.clock) * MS,
    }


def churn(server: ServerProcess, *, warm_up: float, duration: float) -> dict[str, float]:
    """Processor time of a connection that connects, has one request answered, and closes."""
    with select.epoll() as poller, _Churn(server.port, poller) as churning:
        churning.go_on(warm_up)
        before = server.read()
        count = churning.go_on(duration)
        after = server.read()
    return {
        "cpu_us": (after.processor - before.processor) / max(count, 1) * US,
        "per_second": count / (after.clock - before.clock),
    }


def never_reader(server: ServerProcess, *, at_most: int) -> dict[str, float]:
    """Memory of a server while one peer sends requests and reads no answer."""
    lines = (b"0123456789abcde" * 273 + b"\n") * 16
    with socket.create_connection((HOST, server.port)) as sock:
        sock.settimeout(STALLED)
        before, sent = server.memory(), 0
        with contextlib.suppress(TimeoutError):
            while sent < at_most:
                sent += sock.send(lines)
        grown = server.memory() - before
    return {"grown_mib": grown / MIB, "taken_mib": sent / MIB}


def broadcast(server: ServerProcess, *, clients: int, duration: float) -> dict[str, float]:
    """Processor time and delay of a line that goes to many clients, of which some never read."""
    line = b"n" * 1023 + b"\n"
    deaf = clients // 20
    delays: list[float] = []
    with socket.create_connection((HOST, server.port)) as past:  # see `host`
        past.sendall(line)
        past.recv(len(line))
    with contextlib.ExitStack() as stack:
        poller = stack.enter_context(select.epoll())
        readers: dict[int, socket.socket] = {}
        for number in range(clients):
            sock = stack.enter_context(socket.socket())
            if number < deaf:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((HOST, server.port))
            if number >= deaf:
                poller.register(sock, select.EPOLLIN)
                readers[sock.fileno()] = sock
        publisher = next(reversed(readers.values()))
        _publish(publisher, line, poller, readers)  # now, all are connected
        memory = server.memory()
        for _ in range(DEAF_LINES):
            _publish(publisher, line, poller, readers)
        before, count = server.read(), 0
        until = time.perf_counter() + duration
        while time.perf_counter() < until:
            delays += _publish(publisher, line, poller, readers)
            count += 1
        after, grown = server.read(), server.memory() - memory
    return {
        "cpu_us": (after.processor - before.processor) / (count * clients) * US,
        "p50_ms": percentile(delays, 50) * MS,
        "p99_ms": percentile(delays, 99) * MS,
        "grown_kib": grown / deaf / KIB,
    }


def _publish(
    publisher: socket.socket, line: bytes, poller: select.epoll, readers: dict[int, socket.socket]
) -> list[float]:
    """Send a line, and wait until all have it; return how long that took for each."""
    delays: list[float] = []
    start = time.perf_counter()
    publisher.sendall(line)
    while len(delays) < len(readers):
        events = poller.poll(PATIENCE)
        if not events:
            raise WrongAnswerError(f"only {len(delays)} of {len(readers)} got the line")
        for fd, _ in events:
            if (got := readers[fd].recv(4096)) != line:
                raise WrongAnswerError(f"expected {line!r}, got {got!r}")
            delays.append(time.perf_counter() - start)
    return delays


def fairness(
    server: ServerProcess, *, duration: float, connections: int = 50, in_flight: int = 64
) -> dict[str, float]:
    """Delay of one quiet connection's requests while others storm the server, and their rate."""
    with (
        socket.create_connection((HOST, server.port)) as sock,
        _storm(server.port, duration, connections, in_flight) as receiver,
    ):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        delays = _beat(sock, duration)
        per_second = receiver.recv()
    return {
        "p50_ms": percentile(delays, 50) * MS,
        "p99_ms": percentile(delays, 99) * MS,
        "max_ms": max(delays) * MS,
        "per_second": per_second,
    }


def import_time(statement: str) -> dict[str, float]:
    """Processor time of an import in a fresh interpreter, and after ``import asyncio, anyio``."""
    return {
        "total_ms": _time_statement("pass", statement) * MS,
        "beyond_ms": _time_statement("import asyncio, anyio", statement) * MS,
    }


def _beat(sock: socket.socket, duration: float) -> list[float]:
    """Send a request at fixed times; return how long after its time each was answered."""
    delays: list[float] = []
    waiting: collections.deque[float] = collections.deque()
    start = time.perf_counter()
    for number in range(max(1, int(duration / BEAT))):
        due = start + number * BEAT
        while (left := due - time.perf_counter()) > 0:
            # To the microsecond, where epoll would wake up a millisecond late.
            if select.select([sock], [], [], left)[0]:
                _take_beats(sock, waiting, delays)
        sock.sendall(b"beat\n")
        waiting.append(due)
    sock.settimeout(PATIENCE)
    while waiting:
        _take_beats(sock, waiting, delays)
    return delays


def _take_beats(
    sock: socket.socket, waiting: collections.deque[float], delays: list[float]
) -> None:
    answers = sock.recv(4096)
    now = time.perf_counter()
    if not answers or answers.strip(b"beat\n"):
        raise WrongAnswerError(f"expected b'beat\\n', got {answers!r}")
    delays += [now - waiting.popleft() for _ in range(answers.count(b"\n"))]


@contextlib.contextmanager
def _storm(
    port: int, duration: float, connections: int, in_flight: int
) -> Iterator[multiprocessing.connection.Connection]:
    """Storm a server from a process of lower priority, which gives way to the heartbeat.

    Yields what receives, at the end of the storm, how many requests per second were answered.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    arguments = port, duration, connections, in_flight, sender
    process = context.Process(target=_be_the_storm, args=arguments, daemon=True)
    process.start()
    sender.close()
    with receiver:
        try:
            receiver.recv()  # nothing but the moment at which the storm is up
            yield receiver
        except EOFError:
            raise WrongAnswerError("the storm broke off") from None
        finally:
            process.join()


def _be_the_storm(
    port: int,
    duration: float,
    connections: int,
    in_flight: int,
    sender: multiprocessing.connection.Connection,
) -> None:
    os.nice(19)
    readings: list[Reading] = []

    def reading() -> Reading:
        if not readings:
            sender.send(None)
        readings.append(Reading(time.perf_counter(), 0.0, 0.0))
        return readings[-1]

    with open_links("tcp", port, connections, size=64, in_flight=in_flight) as links:
        load = closed_loop(links, warm_up=0.05, duration=duration, reading=reading)
        sender.send(load.answers / load.seconds)


class _Churn:
    """A few connections at a time, each replaced as soon as its request was answered."""

    __slots__ = ("_poller", "_port", "_sockets")

    def __init__(self, port: int, poller: select.epoll) -> None:
        self._port, self._poller = port, poller
        self._sockets: dict[int, socket.socket] = {}

    def __enter__(self) -> Self:
        for _ in range(CHURNING):
            self._connect_and_ask()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for sock in self._sockets.values():
            sock.close()

    def go_on(self, duration: float) -> int:
        """Go on for a while; return how many connections were served."""
        count = 0
        until = time.perf_counter() + duration
        while time.perf_counter() < until:
            for fd, _ in self._poller.poll(duration):
                with self._sockets.pop(fd) as sock:
                    if (answer := sock.recv(64)) != b"hello\n":
                        raise WrongAnswerError(f"expected b'hello\\n', got {answer!r}")
                count += 1
                self._connect_and_ask()
        return count

    def _connect_and_ask(self) -> None:
        sock = socket.create_connection((HOST, self._port), PATIENCE)
        self._sockets[sock.fileno()] = sock
        sock.sendall(b"hello\n")
        self._poller.register(sock, select.EPOLLIN)


def _time_statement(first: str, statement: str) -> float:
    """Return the processor time of a statement: the median of a few interpreters.

    Modules are compiled before that, as installers do it.
    """
    program = f"import time; {first}; t = time.process_time(); {statement}; "
    program += "print(time.process_time() - t)"
    command = [sys.executable, "-c", program]
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache}
        runs = [
            subprocess.run(command, check=True, capture_output=True, env=env)
            for _ in range(1 + INTERPRETERS)
        ]
    return statistics.median(float(run.stdout) for run in runs[1:])
