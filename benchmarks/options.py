"""The command line."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from .contenders import CONTENDERS, REFERENCES, Contender
from .scenarios import SCENARIOS, Scenario
from .settings import FULL, QUICK, Settings, default_cores

__all__ = ["Options", "parse"]

DESCRIPTION = """\
Measure easynetwork against its alternatives.

Every server runs in a process of its own on one core, the load on another. All contenders of a
family do the same work: split lines (or packets in a format), decode, encode, answer. Ratios are
the result; absolute times depend on the machine. "spread" is half the distance between the extreme
rounds.
"""
EPILOG = """\
examples:
  python -m benchmarks --quick                      everything in short, under a minute
  python -m benchmarks --json full.json             the full run, under a quarter of an hour
  python -m benchmarks --scenarios 'tcp-50x*' --contenders 'easynetwork-asyncio-*,asyncio-*'
  python -m benchmarks --from full.json --plot plot.svg --rst tables.rst

Linux only. A contender whose library is not installed is skipped, and the report says so. Machines
with other work to do give figures with a large spread: the remark "disturbed" marks measurements
during which the server's core had other work, "load was the limit" those in which the load could
not keep the server busy.
"""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line."""

    scenarios: list[Scenario]
    contenders: list[Contender]
    settings: Settings
    references: dict[str, str]
    source: Path | None
    json: Path | None
    plot: Path | None
    rst: Path | None
    list: bool


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Parse the command line; exit with an explanation if it is not valid."""
    parser = _parser()
    given = parser.parse_args(arguments)
    settings = QUICK if given.quick else FULL
    server_core, load_core = given.cores or default_cores()
    changes = {"rounds": given.rounds, "duration": given.duration, "rate": given.rate}
    settings = dataclasses.replace(
        settings,
        server_core=server_core,
        load_core=load_core,
        **{name: value for name, value in changes.items() if value is not None},
    )
    scenarios = _select(parser, SCENARIOS, given.scenarios)
    if given.quick and given.scenarios is None:
        scenarios = [scenario for scenario in scenarios if scenario.in_quick]
    contenders = _select(parser, CONTENDERS, given.contenders)
    references = dict(REFERENCES)
    if given.against is not None:
        reference = _select(parser, CONTENDERS, given.against)[0]
        references[reference.family] = reference.name
    return Options(
        scenarios,
        contenders,
        settings,
        references,
        given.source,
        given.json,
        given.plot,
        given.rst,
        given.list,
    )


def _select(parser: argparse.ArgumentParser, known: Iterable[N], patterns: str | None) -> list[N]:
    """Return the items that match any of the patterns, in their own order."""
    if patterns is None:
        return list(known)
    names = [item.name for item in known]
    chosen: set[str] = set()
    for pattern in patterns.split(","):
        matching = fnmatch.filter(names, pattern.strip())
        if not matching:
            parser.error(f"nothing is called {pattern.strip()!r}; --list shows the names")
        chosen.update(matching)
    return [item for item in known if item.name in chosen]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument("--quick", action="store_true", help="fewer scenarios, one short round")
    what.add_argument("--scenarios", metavar="NAMES", help="only these; comma, * and ? allowed")
    what.add_argument("--contenders", metavar="NAMES", help="only these; likewise")
    what.add_argument("--against", metavar="NAME", help="divide figures of its family by its own")
    what.add_argument("--list", action="store_true", help="show the names and stop")
    how = parser.add_argument_group("how")
    how.add_argument("--rounds", type=_positive_int, metavar="N", help="full: 3, quick: 1")
    how.add_argument(
        "--duration", type=_positive, metavar="S", help="seconds of load; full: 0.35, quick: 0.12"
    )
    how.add_argument("--rate", type=_positive, metavar="R", help="requests/s of the open loop")
    how.add_argument("--cores", type=_cores, metavar="S,L", help="core of the server, of the load")
    out = parser.add_argument_group("files, besides the tables on the terminal")
    out.add_argument(
        "--json", type=_output, metavar="FILE", help="write every figure of every round"
    )
    out.add_argument("--plot", type=_output, metavar="FILE", help="draw processor times, as SVG")
    out.add_argument("--rst", type=_output, metavar="FILE", help="write the documentation's tables")
    out.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="measure nothing, take the figures from such a JSON file",
    )
    return parser


def _positive(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above zero")
    return value


def _positive_int(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _cores(text: str) -> tuple[int, int]:
    server, _, load = text.partition(",")
    allowed = os.sched_getaffinity(0)
    if not {int(server), int(load)} <= allowed:
        raise argparse.ArgumentTypeError(f"{text}: the cores are {sorted(allowed)}")
    return int(server), int(load)


def _output(text: str) -> Path:
    """Reject a folder that does not exist before anything is measured."""
    if not (path := Path(text)).parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path
