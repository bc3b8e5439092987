"""The figures of a run: the samples of each round, their medians and ratios, and JSON.

Rounds are interleaved: every contender is measured before any is measured again. So a ratio is
taken within each round, where the conditions were the same, and then its median over the rounds.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

__all__ = ["Metric", "Results", "Row", "Sample", "Table", "percentile"]

FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """A quantity that a scenario measures."""

    key: str
    label: str
    unit: str


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one contender in one round, by metric key, and remarks about them."""

    figures: dict[str, float]
    notes: tuple[str, ...] = ()

    def rounded(self) -> Sample:
        """Return the same with four digits of each figure: more would be noise."""
        figures = {key: float(f"{value:.4g}") for key, value in self.figures.items()}
        return Sample(figures, self.notes)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """The rounds of one contender."""

    contender: str
    samples: list[Sample]

    def values(self, key: str) -> list[float]:
        """Return a metric's figure of each round."""
        return [sample.figures[key] for sample in self.samples]

    def median(self, key: str) -> float:
        """Return the median of a metric."""
        return statistics.median(self.values(key))

    def spread(self, key: str) -> float:
        """Return half the distance between the extreme rounds, as a share of the median."""
        values, median = self.values(key), self.median(key)
        return (max(values) - min(values)) / 2 / median if median else 0.0

    def ratio(self, key: str, other: Row) -> float | None:
        """Return the median of the rounds' ratios to another row; None if that is all zeros."""
        pairs = zip(self.values(key), other.values(key), strict=False)
        ratios = [mine / theirs for mine, theirs in pairs if theirs]
        return statistics.median(ratios) if ratios else None

    def notes(self) -> str:
        """Return the remarks, each with the number of rounds it was made in unless that is all."""
        made = [note for sample in self.samples for note in sample.notes]
        total = len(self.samples)
        return ", ".join(
            note if made.count(note) == total else f"{note} ({made.count(note)} of {total})"
            for note in dict.fromkeys(made)
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """The rows of one scenario."""

    scenario: str
    title: str
    family: str
    metrics: tuple[Metric, ...]
    rows: list[Row]

    def row(self, contender: str) -> Row | None:
        """Return a contender's row, if it took part."""
        return next((row for row in self.rows if row.contender == contender), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Results:
    """A whole run.

    Attributes:
        machine: Where it ran, in words, by topic.
        settings: The sizes of the run.
        skipped: The contenders that could not take part, and why.
        tables: One for each scenario.
    """

    machine: dict[str, str]
    settings: dict[str, float]
    skipped: dict[str, str]
    tables: list[Table]

    def table(self, scenario: str) -> Table | None:
        """Return a scenario's table, if it was measured."""
        return next((table for table in self.tables if table.scenario == scenario), None)

    def write(self, path: Path) -> None:
        """Write all of it as JSON."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        path.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            ValueError: The file holds something else.
        """
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"{path} does not hold the results of a benchmark")
        return cls(
            content["machine"],
            content["settings"],
            content["skipped"],
            [_table(table) for table in content["tables"]],
        )


def _table(content: dict[str, Any]) -> Table:
    rows = [
        Row(
            row["contender"],
            [Sample(sample["figures"], tuple(sample["notes"])) for sample in row["samples"]],
        )
        for row in content["rows"]
    ]
    metrics = tuple(Metric(**metric) for metric in content["metrics"])
    return Table(content["scenario"], content["title"], content["family"], metrics, rows)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many per cent of the values do not exceed; NaN of none."""
    if not values:
        return float("nan")
    ranked = sorted(values)
    return ranked[max(0, -int(-len(ranked) * percent // 100) - 1)]
