"""The sizes of a run, and the processor cores that it uses."""

from __future__ import annotations

import dataclasses
import os

__all__ = ["FULL", "QUICK", "Settings", "default_cores"]

MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of a run.

    Attributes:
        rounds: How often everything is measured.
        warm_up: Seconds of load before each measurement.
        duration: Seconds of each measurement.
        rate: Requests per second of the open loop: a quarter of what the slowest TCP contender
            can do on the machines this was written on, so that none is saturated.
        idle_connections: Connections whose memory is measured.
        broadcast_clients: Clients that each line of a broadcast goes to.
        crowd_connections: Connections that keep a server busy beside a quiet one.
        idle_seconds: How long their server's processor time is watched.
        never_reader_bytes: The most bytes sent to a server whose answers are never read.
        server_core: The core of the servers.
        load_core: The core of the load.
    """

    rounds: int
    warm_up: float
    duration: float
    rate: float
    idle_connections: int
    broadcast_clients: int
    crowd_connections: int
    idle_seconds: float
    never_reader_bytes: int
    server_core: int = 0
    load_core: int = 0


FULL = Settings(
    rounds=3,
    warm_up=0.1,
    duration=0.35,
    rate=10_000,
    idle_connections=2000,
    broadcast_clients=1000,
    crowd_connections=400,
    idle_seconds=0.5,
    never_reader_bytes=64 * MIB,
)
QUICK = Settings(
    rounds=1,
    warm_up=0.05,
    duration=0.12,
    rate=10_000,
    idle_connections=250,
    broadcast_clients=100,
    crowd_connections=50,
    idle_seconds=0.2,
    never_reader_bytes=16 * MIB,
)


def default_cores() -> tuple[int, int]:
    """Return the server's and the load's core: the two that are farthest apart, of those allowed.

    Neighbours are often two threads of one core, which would slow each other down.
    """
    cores = sorted(os.sched_getaffinity(0))
    return cores[-1], cores[0]
