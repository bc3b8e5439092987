"""The documentation's view of a run: reStructuredText that ``docs/performance.rst`` includes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from .packets import FORMATS
from .report import figure
from .results import Results
from .targets import judge, limit

__all__ = ["render"]

# One table each: title, then the columns as (heading, scenario, metric).
TABLES = (
    *(
        (
            f"TCP, lines of {text}: processor time per request, µs",
            tuple(
                (
                    f"{count} conn., {in_flight} in flight",
                    f"tcp-{count}x{size}x{in_flight}",
                    "cpu_us",
                )
                for count in (1, 50, 500)
                for in_flight in (1, 16)
            ),
        )
        for size, text in ((64, "64 bytes"), (4096, "4 KiB"))
    ),
    (
        "TCP, lines of 64 bytes, 50 connections, before any client has left: processor time, µs",
        (
            ("1 in flight", "tcp-50x64x1-young", "cpu_us"),
            ("16 in flight", "tcp-50x64x16-young", "cpu_us"),
        ),
    ),
    (
        "TCP, latency and large messages",
        (
            ("fixed rate, p50, ms", "tcp-latency", "p50_ms"),
            ("fixed rate, p99, ms", "tcp-latency", "p99_ms"),
            ("heartbeat in a storm, p50, ms", "tcp-fairness", "p50_ms"),
            ("heartbeat in a storm, p99, ms", "tcp-fairness", "p99_ms"),
            ("heartbeat in a crowd, p50, ms", "tcp-crowd", "p50_ms"),
            ("heartbeat in a crowd, p99, ms", "tcp-crowd", "p99_ms"),
            ("1 MiB, processor time, µs", "tcp-large", "cpu_us"),
        ),
    ),
    (
        "TCP, connections",
        (
            ("connect, one request, close: processor time, µs", "tcp-churn", "cpu_us"),
            ("idle: memory of one, KiB", "tcp-idle", "kib"),
            ("idle: processor time of all, ms/s", "tcp-idle", "idle_ms"),
            ("a client that never reads: memory, MiB", "tcp-never-reader", "grown_mib"),
        ),
    ),
    (
        "TCP, one line of 1 KiB to 1,000 clients, of which 50 never read",
        (
            ("processor time per client, µs", "broadcast", "cpu_us"),
            ("p50, ms", "broadcast", "p50_ms"),
            ("p99, ms", "broadcast", "p99_ms"),
        ),
    ),
    (
        "TLS 1.3, lines of 64 bytes, 50 connections",
        (
            ("1 in flight: processor time, µs", "tls-50x64x1", "cpu_us"),
            ("16 in flight: processor time, µs", "tls-50x64x16", "cpu_us"),
            ("idle: memory of one, KiB", "tls-idle", "kib"),
        ),
    ),
    (
        "UDP, datagrams of 64 bytes, 50 sockets: processor time per request, µs",
        (("1 in flight", "udp-50x64x1", "cpu_us"), ("8 in flight", "udp-50x64x8", "cpu_us")),
    ),
    *(
        (
            f"Unix {kind}, 64 bytes, 50 {what}: processor time per request, µs",
            tuple(
                (f"{depth} in flight", f"unix-{kind}-50x64x{depth}", "cpu_us") for depth in depths
            ),
        )
        for kind, what, depths in (
            ("streams", "connections", (1, 16)),
            ("datagrams", "sockets", (1, 8)),
        )
    ),
    *(
        (
            f"TCP, packets in the format {name}, 50 connections: processor time per request, µs",
            tuple(
                (f"{in_flight} in flight{text}", f"{name}-50x{in_flight}{young}", "cpu_us")
                for text, young in ((", before any client has left", "-young"), ("", ""))
                for in_flight in (1, 16)
            ),
        )
        for name in FORMATS
    ),
    (
        "Start-up, ms",
        (
            ("fresh interpreter", "import", "total_ms"),
            ("after asyncio and anyio", "import", "beyond_ms"),
        ),
    ),
)
# The page names the contenders that need less than ours, for each text, scenario and metric.
OURS = "easynetwork-asyncio-loop"
COMPARED = (
    ("Processor time, 50 connections, 64 bytes, 1 in flight", "tcp-50x64x1", "cpu_us"),
    ("Processor time, 50 connections, 64 bytes, 16 in flight", "tcp-50x64x16", "cpu_us"),
    ("Processor time, lines of 1 MiB", "tcp-large", "cpu_us"),
    ("Processor time, connect, one request, close", "tcp-churn", "cpu_us"),
    ("Delay of a heartbeat in a storm, p99", "tcp-fairness", "p99_ms"),
    ("Memory of an idle connection", "tcp-idle", "kib"),
)
# A handler that returns after each request is compared with one that loops: on these event loops,
# and in these scenarios by their number of connections, where a request costs least.
LOOPS = ("asyncio", "uvloop", "trio")
DENSE = tuple((count, f"tcp-{count}x64x16") for count in (1, 50, 500))

Columns = Sequence[tuple[str, str, str]]


def render(results: Results) -> str:
    """Return the page's figures: the machine, cheaper contenders, all tables, the targets."""
    blocks = [
        f"Measured with {', '.join(f'{what} {value}' for what, value in results.machine.items())}.",
        *_cheaper(results),
        *_handler_cost(results),
    ]
    for title, columns in TABLES:
        blocks += _figures(results, title, columns)
    blocks += [_spread(results), _targets(results)]
    return "\n\n".join(blocks) + "\n"


def _figures(results: Results, title: str, columns: Columns) -> Iterator[str]:
    tables = {scenario: results.table(scenario) for _, scenario, _ in columns}
    measured = [column for column in columns if tables[column[1]] is not None]
    names = dict.fromkeys(row.contender for table in tables.values() if table for row in table.rows)
    if not names:
        return
    lines = []
    limited = False
    for name in names:
        cells = [f"``{name}``"]
        for _, scenario, key in measured:
            table = tables[scenario]
            row = table.row(name) if table else None
            mark = " †" if row and "limit" in row.notes() else ""
            limited = limited or bool(mark)
            cells.append(figure(row.median(key)) + mark if row else "")
        lines.append(cells)
    yield _list_table(title, ["contender", *(heading for heading, _, _ in measured)], lines)
    if limited:
        yield (
            "† The load was the limit: with a faster load, the server would handle more requests "
            "at a time."
        )


def _cheaper(results: Results) -> Iterator[str]:
    """Name the contenders that need less than ours on the plain event loop, with their ratios."""
    lines = []
    for text, scenario, key in COMPARED:
        table = results.table(scenario)
        if table is None or (ours := table.row(OURS)) is None:
            continue
        ratios = {row.contender: row.ratio(key, ours) or 0.0 for row in table.rows}
        ahead = [
            f"``{name}`` {ratio:.2f}"
            for name, ratio in sorted(ratios.items(), key=lambda item: item[1])
            if ratio < 1 and not name.startswith("easynetwork")
        ]
        lines.append(f"* {text}: {', '.join(ahead) or 'none'}.")
    if lines:
        yield f"Contenders that need less than ``{OURS}``, and their ratio to it:"
        yield "\n".join(lines)


def _handler_cost(results: Results) -> Iterator[str]:
    """State what a handler that returns after each request costs, compared with one that loops."""
    ratios, differences = [], []
    for count, scenario in DENSE:
        table = results.table(scenario)
        pairs = [
            (request, loop)
            for name in LOOPS
            if table
            and (request := table.row(f"easynetwork-{name}-request"))
            and (loop := table.row(f"easynetwork-{name}-loop"))
        ]
        found = [ratio for request, loop in pairs if (ratio := request.ratio("cpu_us", loop))]
        if found:
            connections = "1 connection" if count == 1 else f"{count} connections"
            ratios.append(f"{_range(found)} with {connections}")
        differences += [r.median("cpu_us") - loop.median("cpu_us") for r, loop in pairs]
    if ratios:
        yield (
            "Processor time per request of ``easynetwork-*-request``, divided by that of "
            "``easynetwork-*-loop``, with lines of 64 bytes and 16 in flight: "
            f"{', '.join(ratios)}. The difference is {_range(differences)} µs."
        )


def _range(values: Sequence[float]) -> str:
    low, high = (f"{value:.2f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _spread(results: Results) -> str:
    spreads = [
        row.spread(table.metrics[0].key)
        for table in results.tables
        for row in table.rows
        if len(row.samples) > 1
    ]
    if not spreads:
        return "Measured once: there is no spread to report."
    return (
        "Each figure is the median of several rounds. Half the distance between the extreme rounds "
        f"is {statistics.median(spreads):.0%} of the figure in the typical row, and "
        f"{max(spreads):.0%} in the worst row."
    )


def _targets(results: Results) -> str:
    lines = []
    for verdict in judge(results):
        target = verdict.target
        limits = (limit(verdict.value), limit(target.must), limit(target.aim))
        lines.append([target.title, *limits, verdict.text])
    return _list_table(
        "What the library promises", ["", "measured", "must", "aim", "verdict"], lines
    )


def _list_table(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [
        "\n".join(
            f"{'   * -' if not index else '     -'} {cell}".rstrip()
            for index, cell in enumerate(cells)
        )
        for cells in [header, *lines]
    ]
    options = "   :header-rows: 1\n   :stub-columns: 1"
    return f".. list-table:: {title}\n{options}\n\n" + "\n".join(rows)
