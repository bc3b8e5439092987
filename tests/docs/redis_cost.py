"""Measure what a request costs the server of the page about Redis, and the one on streams.

redis-benchmark sends the same requests to both, in turn, several times. What is compared is the
processor time of the server's process, which does not depend on the load of the machine as the rate
does.

Usage: python -m tests.docs.redis_cost [REQUESTS [ROUNDS]]
"""

from __future__ import annotations

import contextlib
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.docs.howto_support import DOCS
from tests.times import PATIENCE

COMMANDS = "ping_mbulk,set,get,incr,lpush,lrange_100"
SERVERS = ("easynetwork", "streams")


class Server:
    """A server in a process of its own."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-m", "tests.docs.redis_on_streams", name]
        self.process = subprocess.Popen(command, cwd=DOCS.parent, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def processor_time(self) -> float:
        return time.clock_gettime((~self.process.pid << 3) | 2)  # as clock_getcpuclockid(3) does

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)


@contextlib.contextmanager
def servers() -> Iterator[dict[str, Server]]:
    started: dict[str, Server] = {}
    try:
        for name in SERVERS:
            started[name] = Server(name)
        yield started
    finally:
        for server in started.values():
            server.stop()


def cost(server: Server, command: str, in_flight: int, requests: int) -> float:
    """Return microseconds for one request."""
    before = server.processor_time()
    options = ["-t", command, "-P", str(in_flight), "-c", "50", "-n", str(requests), "-q"]
    subprocess.run(
        ["redis-benchmark", "-p", str(server.port), *options],
        stdout=subprocess.DEVNULL,
        timeout=10 * PATIENCE,
        check=True,
    )
    return (server.processor_time() - before) / requests * 1e6


def measure(
    in_flight: int, requests: int, rounds: int, commands: str = COMMANDS
) -> Iterator[dict[str, dict[str, float]]]:
    """Yield, after each round, the least that each command has cost each server.

    What else the machine does can only add to it.
    """
    with servers() as running:
        for server in running.values():  # a server that no client has left yet is slower
            cost(server, "ping_mbulk", in_flight, requests)
        least = {command: dict.fromkeys(SERVERS, math.inf) for command in commands.split(",")}
        for _ in range(rounds):
            for command, figures in least.items():
                for name, server in running.items():
                    found = cost(server, command, in_flight, requests)
                    figures[name] = min(figures[name], found)
            yield least


def ratio(costs: dict[str, dict[str, float]]) -> float:
    """Return the geometric mean of the ratios."""
    return statistics.geometric_mean(
        figures["easynetwork"] / figures["streams"] for figures in costs.values()
    )


if __name__ == "__main__":
    requests, rounds = [*map(int, sys.argv[1:]), *(20_000, 3)[len(sys.argv) - 1 :]]
    for in_flight in (1, 16):
        *_, costs = measure(in_flight, requests, rounds)
        print(f"{in_flight} in flight, microseconds of processor time for a request:")
        for command, figures in costs.items():
            ours, theirs = (figures[name] for name in SERVERS)
            print(f"  {command:12} {ours:6.1f} {theirs:6.1f}  ratio {ours / theirs:.2f}")
        print(f"  geometric mean of the ratios: {ratio(costs):.2f}")
