"""The picture of a run: processor time per request as horizontal bars, in SVG.

Text takes the colour of the page it is put into (``currentColor``), so one picture serves light
and dark pages when it is inlined.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .report import figure
from .results import Results, Row, Table

__all__ = ["draw"]

SCENARIOS = ("tcp-50x64x1", "tcp-50x64x16", "udp-50x64x1")
OURS, THEIRS = "#0a7d5a", "#8792a2"
WIDTH, LABEL, VALUE = 760, 210, 60
BAR, GAP, TITLE = 16, 6, 44
STYLE = "text{font:13px system-ui,sans-serif;fill:currentColor}.title{font-weight:600}"


def draw(results: Results) -> str:
    """Return one panel for each of the scenarios that ours was measured in."""
    measured = (results.table(name) for name in SCENARIOS)
    tables = [table for table in measured if table and any(map(_is_ours, table.rows))]
    parts: list[str] = []
    top = 0
    for table in tables:
        parts += _panel(table, top)
        top += TITLE + len(table.rows) * (BAR + GAP)
    label = escape("Processor time per request of each contender, in microseconds")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + GAP}" '
            f'role="img" aria-label="{label}">',
            f"<style>{STYLE}</style>",
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(table: Table, top: int) -> Sequence[str]:
    metric = table.metrics[0]
    rows = sorted(table.rows, key=lambda row: row.median(metric.key))
    scale = (WIDTH - LABEL - VALUE) / max(row.median(metric.key) for row in rows)
    title = escape(f"{table.title}: {metric.label} per request, {metric.unit}")
    parts = [f'<text class="title" x="0" y="{top + TITLE - 18}">{title}</text>']
    y = top + TITLE - GAP
    for row in rows:
        cost, name, text_y = row.median(metric.key), escape(row.contender), y + BAR - 4
        end = LABEL + cost * scale
        colour = OURS if _is_ours(row) else THEIRS
        bar = f'y="{y}" width="{end - LABEL:.1f}" height="{BAR}" rx="2" fill="{colour}"'
        parts += [
            f'<text x="{LABEL - 8}" y="{text_y}" text-anchor="end">{name}</text>',
            f'<rect x="{LABEL}" {bar}/>',
            f'<text x="{end + 6:.1f}" y="{text_y}">{figure(cost)}</text>',
        ]
        y += BAR + GAP
    return parts


def _is_ours(row: Row) -> bool:
    return row.contender.startswith("easynetwork")
