"""The picture of a run: processor time per request as horizontal bars, in SVG.

Text takes the colour of the page it is put into (``currentColor``), so one picture serves light
and dark pages when it is inlined. The name of a contender is above its bar: so no name is too long,
and the picture is narrow enough to be read on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .report import figure
from .results import Results, Row, Table

__all__ = ["draw"]

SCENARIOS = ("tcp-50x64x1", "tcp-50x64x16", "udp-50x64x1")
OURS, THEIRS = "#0a7d5a", "#8792a2"
WIDTH, VALUE = 420, 50
TEXT, BAR, GAP, TITLE = 17, 10, 7, 48
STYLE = (
    f"svg{{width:100%;max-width:{WIDTH * 4 // 3}px}}"
    "text{font:13px system-ui,sans-serif;fill:currentColor}.title,.ours{font-weight:600}"
)


def draw(results: Results) -> str:
    """Return one panel for each of the scenarios that ours was measured in."""
    measured = (results.table(name) for name in SCENARIOS)
    tables = [table for table in measured if table and any(map(_is_ours, table.rows))]
    parts: list[str] = []
    top = 0
    for table in tables:
        parts += _panel(table, top)
        top += TITLE + len(table.rows) * (TEXT + BAR + GAP)
    label = escape("Processor time per request of each contender, in microseconds")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + GAP}" '
            f'role="figure" aria-label="{label}">',
            f"<style>{STYLE}</style>",
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(table: Table, top: int) -> Sequence[str]:
    metric = table.metrics[0]
    rows = sorted(table.rows, key=lambda row: row.median(metric.key))
    scale = (WIDTH - VALUE) / max(row.median(metric.key) for row in rows)
    title, unit = escape(table.title), escape(f"{metric.label} per request, {metric.unit}")
    parts = [
        f'<text class="title" x="0" y="{top + 16}">{title}</text>',
        f'<text x="0" y="{top + 33}">{unit}</text>',
    ]
    y = top + TITLE
    for row in rows:
        cost, name = row.median(metric.key), escape(row.contender)
        length, bar_y = cost * scale, y + TEXT
        style, colour = (' class="ours"', OURS) if _is_ours(row) else ("", THEIRS)
        bar = f'y="{bar_y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"'
        parts += [
            f'<text{style} x="0" y="{y + 12}">{name}</text>',
            f'<rect x="0" {bar}/>',
            f'<text x="{length + 6:.1f}" y="{bar_y + BAR}">{figure(cost)}</text>',
        ]
        y += TEXT + BAR + GAP
    return parts


def _is_ours(row: Row) -> bool:
    return row.contender.startswith("easynetwork")
