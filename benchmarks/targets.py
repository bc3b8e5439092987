"""The library's promises: ratios (and two sizes) that a run has to reach, and aims at.

A ratio is of the first metric of a scenario, within one run. "must" is a promise, "aim" the goal.
For a new type of server, add its rows here and its contenders in `contenders`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from .packets import FORMATS
from .results import Results

__all__ = ["TARGETS", "Target", "Verdict", "judge", "limit"]


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One promise.

    Attributes:
        title: In words.
        scenario: Where it is measured.
        metric: Which of its figures.
        contender: The contender with this figure.
        against: The contender to divide by; None if the figure itself is judged.
        must: The most it may be; None if it is shown for comparison only.
        aim: The most it should be; None if there is nothing to gain beyond `must`.
    """

    title: str
    scenario: str
    metric: str
    contender: str
    against: str | None
    must: float | None = None
    aim: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """A target, what was measured (None: nothing), and how that compares."""

    target: Target
    value: float | None

    @property
    def text(self) -> str:
        """In a word or two."""
        if self.value is None:
            return "not measured"
        if self.target.must is None:
            return "for comparison"
        if self.value > self.target.must:
            return "MISSED"
        return "aim met" if self.target.aim and self.value <= self.target.aim else "met"


def _requests(
    ours: str,
    theirs: str,
    in_flight: int,
    must: float | None = None,
    aim: float | None = None,
    *,
    young: bool = False,
    family: str = "tcp",
) -> Target:
    load = f"50x64x{in_flight}{'-young' if young else ''}"
    title = f"{load}: {ours} / {theirs}"
    return Target(title, f"{family}-{load}", "cpu_us", ours, theirs, must, aim)


def _datagrams(
    loop: str, theirs: str, must: float | None = None, aim: float | None = None
) -> Target:
    return _requests(f"easynetwork-udp-{loop}-request", theirs, 1, must, aim, family="udp")


def _styles() -> Iterator[Target]:
    for loop in ("asyncio", "uvloop", "trio"):
        for in_flight in (1, 16):
            ours = f"easynetwork-{loop}"
            yield _requests(f"{ours}-request", f"{ours}-loop", in_flight, 1.25)

    for in_flight in (1, 16):
        ours = "easynetwork-asyncio"
        yield _requests(f"{ours}-helper", f"{ours}-loop", in_flight, 1.05)


def _formats() -> Iterator[Target]:
    for name in FORMATS:
        ours, theirs = f"easynetwork-asyncio-{name}", f"asyncio-streams-{name}"
        # The parser of RESP is the user's, and the greater part of the work.
        promises: tuple[tuple[str, float | None], ...] = (
            ((f"{name}-50x1", 1.00), (f"{name}-50x16", 0.70))
            if name == "resp"
            else ((f"{name}-50x1-young", 0.60), (f"{name}-50x1", None))
        )
        for scenario, must in promises:
            title = f"{scenario}: {ours} / {theirs}"
            yield Target(title, scenario, "cpu_us", ours, theirs, must)


def _crowd() -> Iterator[Target]:
    for loop in ("asyncio", "uvloop", "trio"):
        name = f"easynetwork-{loop}-loop"
        title = f"p99 of a quiet connection beside 400 busy streams, ms: {name}"
        yield Target(title, "tcp-crowd", "p99_ms", name, None, 50, 20)


TARGETS = (
    _requests("easynetwork-asyncio-loop", "asyncio-streams", 1, 0.55, 0.35, young=True),
    _requests("easynetwork-asyncio-loop", "asyncio-streams", 16, 0.30, 0.20, young=True),
    # Once a client has left, asyncio's streams are cheaper: see `host`.
    _requests("easynetwork-asyncio-loop", "asyncio-streams", 1),
    _requests("easynetwork-asyncio-loop", "asyncio-streams", 16),
    _requests("easynetwork-trio-loop", "trio-streams", 1, 0.90, 0.65),
    _requests("easynetwork-trio-loop", "trio-streams", 16, 0.30, 0.15),
    _requests("easynetwork-uvloop-loop", "uvloop-streams", 1, 1.10, 0.80),
    *_styles(),
    _datagrams("asyncio", "asyncio-datagrams", 0.50, 0.28),
    _datagrams("uvloop", "uvloop-datagrams"),
    _datagrams("trio", "asyncio-datagrams"),  # trio has nothing like it
    *_formats(),
    *_crowd(),
    Target(
        "broadcast: easynetwork-broadcast / epoll-broadcast",
        "broadcast",
        "cpu_us",
        "easynetwork-broadcast",
        "epoll-broadcast",
        1.20,
        1.10,
    ),
    Target(
        "tls-50x64x1: easynetwork-asyncio-tls / asyncio-streams-tls",
        "tls-50x64x1",
        "cpu_us",
        "easynetwork-asyncio-tls",
        "asyncio-streams-tls",
        0.90,
        0.60,
    ),
    Target(
        "idle, KiB per connection: easynetwork-asyncio-loop",
        "tcp-idle",
        "kib",
        "easynetwork-asyncio-loop",
        None,
        10,
        6,
    ),
    # No timer runs: the rest belongs to the interpreter and to the measurement.
    Target(
        "idle, ms of processor time per second: easynetwork-asyncio-loop",
        "tcp-idle",
        "idle_ms",
        "easynetwork-asyncio-loop",
        None,
        1,
    ),
    Target(
        "import, ms beyond asyncio and anyio: AsyncTCPNetworkServer",
        "import",
        "beyond_ms",
        "import-easynetwork",
        None,
        40,
        15,
    ),
)


def judge(results: Results) -> list[Verdict]:
    """Return the verdict on each target."""
    return [Verdict(target, _value(target, results)) for target in TARGETS]


def _value(target: Target, results: Results) -> float | None:
    table = results.table(target.scenario)
    row = table.row(target.contender) if table else None
    if table is None or row is None:
        return None
    if target.against is None:
        return row.median(target.metric)
    other = table.row(target.against)
    return row.ratio(target.metric, other) if other else None


def limit(value: float | None) -> str:
    """Return a limit, or a measured value, as tables show it."""
    return "" if value is None else f"{value:.2f}"
