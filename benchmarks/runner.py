"""A run: every scenario with every contender, round after round.

In a round the servers are started once and stay; for each scenario the contenders follow each
other within seconds. Each round starts new processes, since two runs of one program differ by more
than two measurements of one process, and every other round goes through the contenders backwards,
so that none is always measured first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
from collections.abc import Sequence

from .contenders import Contender
from .host import Host
from .machine import describe
from .progress import Progress
from .results import Results, Row, Table
from .scenarios import Scenario
from .settings import Settings

__all__ = ["run"]

# Besides those of the idle connections and the ones before them.
SPARE_FILES = 200


def run(
    scenarios: Sequence[Scenario],
    contenders: Sequence[Contender],
    settings: Settings,
    progress: Progress,
) -> Results:
    """Measure.

    Args:
        scenarios: The scenarios.
        contenders: The contenders; each scenario takes those that it concerns.
        settings: The sizes of the run.
        progress: Shows each step.

    Raises:
        ServerError: A server did not start, ended, or answered something else than the echo.
    """
    skipped = {c.name: f"{c.missing()} is not installed" for c in contenders if c.missing()}
    present = [contender for contender in contenders if contender.name not in skipped]
    tables = [_empty_table(scenario, present) for scenario in scenarios]
    progress.expect(
        sum(
            len(table.rows) * min(settings.rounds, scenario.rounds)
            for scenario, table in zip(scenarios, tables, strict=True)
        )
    )
    _allow_files(2 * settings.idle_connections + SPARE_FILES)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {settings.load_core})
    try:
        for number in range(settings.rounds):
            _round(number, scenarios, tables, {c.name: c for c in present}, settings, progress)
    finally:
        os.sched_setaffinity(0, allowed)
        progress.finish()
    return Results(describe(), dataclasses.asdict(settings), skipped, tables)


def _round(
    number: int,
    scenarios: Sequence[Scenario],
    tables: Sequence[Table],
    contenders: dict[str, Contender],
    settings: Settings,
    progress: Progress,
) -> None:
    with contextlib.ExitStack() as stack:
        host = Host(settings, stack)
        for scenario, table in zip(scenarios, tables, strict=True):
            if number >= scenario.rounds:
                continue
            for row in table.rows if number % 2 == 0 else reversed(table.rows):
                progress.step(f"{scenario.name} {row.contender}")
                sample = scenario.measure(host, contenders[row.contender])
                row.samples.append(sample.rounded())


def _empty_table(scenario: Scenario, contenders: Sequence[Contender]) -> Table:
    rows = [Row(contender.name, []) for contender in contenders if scenario.concerns(contender)]
    return Table(scenario.name, scenario.title, scenario.family, scenario.metrics, rows)


def _allow_files(count: int) -> None:
    """Raise the limit of open files, which the servers inherit, as far as it is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
