"""The scenarios: each one turns a contender into figures, once per round.

The first metric of a scenario is the one that ratios are made of.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Iterator
from typing import Any

from . import probes
from .contenders import Contender
from .host import LINE_LIMIT, Host
from .links import open_links
from .load import Load, closed_loop, open_loop
from .packets import FORMATS
from .process import TICK
from .results import Metric, Sample, percentile

__all__ = ["SCENARIOS", "Scenario"]

MS, US = 1e3, 1e6
LARGE_LINE = 1024 * 1024
# Share of the server's core that others may use before a measurement is called disturbed.
DISTURBED = 0.1

CPU = Metric("cpu_us", "processor time", "µs")
RATE = Metric("per_second", "requests", "1/s")
P50 = Metric("p50_ms", "p50", "ms")
P99 = Metric("p99_ms", "p99", "ms")
IDLE = (
    Metric("kib", "memory per connection", "KiB"),
    Metric("idle_ms", "processor time per second, all together", "ms"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Scenario:
    """One measurement.

    Attributes:
        name: Its name on the command line.
        title: Its title in reports.
        family: Of the contenders that take part.
        metrics: The figures that it yields.
        measure: Measures one contender once.
        in_quick: Whether a quick run has it.
        rounds: At most so many rounds, for what hardly varies and takes long.
        only: Pattern of the names of the contenders that take part.
    """

    name: str
    title: str
    family: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Host, Contender], Sample]
    in_quick: bool = True
    rounds: int = 99
    only: str = "*"

    def concerns(self, contender: Contender) -> bool:
        """Return whether a contender takes part."""
        return contender.family == self.family and fnmatch.fnmatch(contender.name, self.only)


def _requests(
    host: Host,
    contender: Contender,
    *,
    connections: int,
    size: int,
    in_flight: int,
    past: bool,
) -> Sample:
    settings = host.settings
    limit = max(LINE_LIMIT, 2 * size)
    lent = host.server(contender, limit) if past else host.fresh(contender, past=False)
    with (
        lent as server,
        open_links(
            contender.family, server.port, connections, size=size, in_flight=in_flight
        ) as links,
    ):
        load = closed_loop(
            links, warm_up=settings.warm_up, duration=settings.duration, reading=server.read
        )
    notes = ["load was the limit"] if load.was_the_limit else []
    return Sample(_figures(load), (*notes, *_notes(load)))


def _latency(host: Host, contender: Contender) -> Sample:
    settings = host.settings
    with (
        host.server(contender) as server,
        open_links(contender.family, server.port, 50, size=64) as links,
    ):
        load = open_loop(
            links,
            rate=settings.rate,
            warm_up=settings.warm_up,
            duration=2 * settings.duration,
            reading=server.read,
        )
    figures = _figures(load)
    late = percentile(load.late, 99) * MS
    notes = ["load was late itself"] if late > figures["p99_ms"] / 4 else []
    return Sample(figures | {"late_ms": late}, (*notes, *_notes(load)))


def _figures(load: Load) -> dict[str, float]:
    answers = max(load.answers, 1.0)
    return {
        "cpu_us": load.server_seconds / answers * US,
        "per_second": load.answers / load.seconds,
        "p50_ms": percentile(load.latencies, 50) * MS,
        "p99_ms": percentile(load.latencies, 99) * MS,
        "load_busy": load.busy * 100,
    }


def _notes(load: Load) -> Iterator[str]:
    others = load.after.core - load.before.core - load.server_seconds
    if others > DISTURBED * load.seconds + 2 * TICK:
        yield "disturbed"
    if load.lost:
        yield "datagrams lost"


def _idle(host: Host, contender: Contender) -> Sample:
    count, seconds = host.settings.idle_connections, host.settings.idle_seconds
    with host.fresh(contender) as server:
        figures = probes.idle(server, contender.family, connections=count, seconds=seconds)
        return Sample(figures)


def _churn(host: Host, contender: Contender) -> Sample:
    warm_up, duration = host.settings.warm_up, host.settings.duration
    with host.server(contender) as server:
        return Sample(probes.churn(server, warm_up=warm_up, duration=duration))


def _fairness(host: Host, contender: Contender) -> Sample:
    with host.server(contender) as server:
        return Sample(probes.fairness(server, duration=2 * host.settings.duration))


def _crowd(host: Host, contender: Contender) -> Sample:
    settings = host.settings
    with host.fresh(contender) as server:
        figures = probes.fairness(
            server,
            duration=4 * settings.duration,
            connections=settings.crowd_connections,
            in_flight=probes.CROWD_IN_FLIGHT,
        )
    return Sample(figures)


def _never_reader(host: Host, contender: Contender) -> Sample:
    with host.fresh(contender) as server:
        return Sample(probes.never_reader(server, at_most=host.settings.never_reader_bytes))


def _broadcast(host: Host, contender: Contender) -> Sample:
    clients, duration = host.settings.broadcast_clients, host.settings.duration
    with host.fresh(contender, past=False) as server:
        return Sample(probes.broadcast(server, clients=clients, duration=duration))


def _import(host: Host, contender: Contender) -> Sample:
    return Sample(probes.import_time(contender.program))


def _load(
    name: str,
    title: str,
    family: str,
    *,
    in_flight: int,
    connections: int = 50,
    size: int = 64,
    past: bool = True,
    **options: Any,
) -> Scenario:
    """Return a scenario that keeps so many requests in flight on each connection."""
    measure = functools.partial(
        _requests, connections=connections, size=size, in_flight=in_flight, past=past
    )
    return Scenario(name, title, family, (CPU, RATE, P50, P99), measure, **options)


def _matrix() -> Iterator[Scenario]:
    """The plain requests: every mix of connections, size and requests in flight."""
    for connections, count in (
        (1, "1 connection"),
        (50, "50 connections"),
        (500, "500 connections"),
    ):
        for size, size_text in ((64, "64 B"), (4096, "4 KiB")):
            for in_flight in (1, 16):
                yield _load(
                    f"tcp-{connections}x{size}x{in_flight}",
                    f"TCP, {count}, {size_text}, {in_flight} in flight",
                    "tcp",
                    connections=connections,
                    size=size,
                    in_flight=in_flight,
                    in_quick=connections == 50 and size == 64,
                )


def _young() -> Iterator[Scenario]:
    """The plain requests again, in a server that no client has left yet; see `host`."""
    for in_flight in (1, 16):
        yield _load(
            f"tcp-50x64x{in_flight}-young",
            f"TCP, 50 connections, 64 B, {in_flight} in flight, before any client has left",
            "tcp",
            in_flight=in_flight,
            past=False,
            only="*asyncio*",
        )


def _encrypted() -> Iterator[Scenario]:
    for in_flight in (1, 16):
        yield _load(
            f"tls-50x64x{in_flight}",
            f"TLS, 50 connections, 64 B, {in_flight} in flight",
            "tls",
            in_flight=in_flight,
        )
    yield Scenario("tls-idle", "TLS, idle connections", "tls", IDLE, _idle, rounds=2)


def _unix() -> Iterator[Scenario]:
    for kind, what, depths in (
        ("streams", "connections", (1, 16)),
        ("datagrams", "sockets", (1, 8)),
    ):
        for in_flight in depths:
            yield _load(
                f"unix-{kind}-50x64x{in_flight}",
                f"Unix {kind}, 50 {what}, 64 B, {in_flight} in flight",
                f"unix-{kind}",
                in_flight=in_flight,
            )


def _datagrams() -> Iterator[Scenario]:
    for in_flight in (1, 8):
        yield _load(
            f"udp-50x64x{in_flight}",
            f"UDP, 50 sockets, 64 B, {in_flight} in flight",
            "udp",
            in_flight=in_flight,
        )


def _formats() -> Iterator[Scenario]:
    """Requests in each format, in a server that no client has left yet, and in one with a past."""
    for name in FORMATS:
        for in_flight in (1, 16):
            for past in (False, True):
                yield _load(
                    f"{name}-50x{in_flight}{'' if past else '-young'}",
                    f"Format {name}, 50 connections, {in_flight} in flight"
                    f"{'' if past else ', before any client has left'}",
                    name,
                    in_flight=in_flight,
                    past=past,
                    in_quick=name == "struct" and in_flight == 1,
                    rounds=2 if past else 3,
                )


SCENARIOS = (
    *_matrix(),
    *_young(),
    _load(
        "tcp-large",
        "TCP, 4 connections, 1 MiB, 1 in flight",
        "tcp",
        connections=4,
        size=LARGE_LINE,
        in_flight=1,
        in_quick=False,
    ),
    Scenario(
        "tcp-latency",
        "TCP, 50 connections, 64 B, requests at a fixed rate",
        "tcp",
        (P99, P50, CPU, Metric("late_ms", "load late p99", "ms")),
        _latency,
    ),
    Scenario(
        "tcp-churn",
        "TCP, connect, one request, close",
        "tcp",
        (CPU, dataclasses.replace(RATE, label="connections")),
        _churn,
    ),
    Scenario(
        "tcp-fairness",
        "TCP, a heartbeat while 50 connections keep 64 requests in flight",
        "tcp",
        (P99, P50, Metric("max_ms", "max", "ms")),
        _fairness,
        rounds=2,
    ),
    Scenario(
        "tcp-crowd",
        "TCP, a heartbeat while 400 connections send as fast as they are answered",
        "tcp",
        (P99, P50, Metric("max_ms", "max", "ms"), RATE),
        _crowd,
        rounds=2,
    ),
    Scenario(
        "tcp-idle",
        "TCP, idle connections",
        "tcp",
        IDLE,
        _idle,
        rounds=2,
    ),
    Scenario(
        "tcp-never-reader",
        "TCP, a peer that sends and never reads",
        "tcp",
        (
            Metric("grown_mib", "memory grown by", "MiB"),
            Metric("taken_mib", "requests taken", "MiB"),
        ),
        _never_reader,
        rounds=1,
    ),
    Scenario(
        "broadcast",
        "TCP, one line to 1,000 clients, of which 50 never read",
        "broadcast",
        (
            dataclasses.replace(CPU, label="processor time per client"),
            P50,
            P99,
            Metric("grown_kib", "memory grown per client that never reads", "KiB"),
        ),
        _broadcast,
    ),
    *_encrypted(),
    *_datagrams(),
    *_unix(),
    *_formats(),
    Scenario(
        "import",
        "Start-up: processor time of the import",
        "import",
        (
            Metric("total_ms", "fresh interpreter", "ms"),
            Metric("beyond_ms", "after asyncio and anyio", "ms"),
        ),
        _import,
    ),
)
