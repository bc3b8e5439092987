"""The terminal's view of a run: a table for each scenario, then the table of targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .results import Results, Table
from .targets import judge, limit

__all__ = ["figure", "render"]


def render(results: Results, references: Mapping[str, str]) -> str:
    """Return the whole report.

    Args:
        results: Of a run.
        references: By family, the contender whose figures the others' are divided by.
    """
    about = "\n".join(f"{topic}: {value}" for topic, value in results.machine.items())
    parts = [about]
    parts += [_scenario(table, references[table.family]) for table in results.tables if table.rows]
    if results.skipped:
        parts.append("\n".join(f"skipped {name}: {why}" for name, why in results.skipped.items()))
    parts.append(_targets(results))
    return "\n\n".join(parts)


def figure(value: float) -> str:
    """Return a number with three significant digits."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if value else "0"


def _scenario(table: Table, reference: str) -> str:
    first, *others = table.metrics
    against = table.row(reference)
    header = ["", f"{first.label} ({first.unit})", "spread"]
    header += [f"/ {reference}"] if against else []
    header += [*(f"{metric.label} ({metric.unit})" for metric in others), ""]
    lines = []
    for row in sorted(table.rows, key=lambda row: row.median(first.key)):
        spread = f"{row.spread(first.key):.0%}" if len(row.samples) > 1 else ""
        cells = [row.contender, figure(row.median(first.key)), spread]
        if against:
            ratio = row.ratio(first.key, against)
            cells.append("" if ratio is None else f"{ratio:.2f}")
        cells += [figure(row.median(metric.key)) for metric in others]
        lines.append([*cells, row.notes()])
    return f"{table.title}\n{_grid(header, lines)}"


def _targets(results: Results) -> str:
    lines = []
    for verdict in judge(results):
        target = verdict.target
        limits = (limit(verdict.value), limit(target.must), limit(target.aim))
        lines.append([target.title, *limits, verdict.text])
    return f"Targets\n{_grid(['', 'measured', 'must', 'aim', ''], lines)}"


def _grid(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return columns: the first and the last to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rendered = []
    for cells in [header, ["-" * width for width in widths], *lines]:
        first, *middle = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells[:-1], widths, strict=False))
        )
        rendered.append("  ".join([first, *middle, cells[-1]]).rstrip())
    return "\n".join(rendered)
