"""Whole runs, tiny ones, with the contenders that need nothing but Python."""

from __future__ import annotations

import dataclasses
import fnmatch
import io
import math
import os
import re
from pathlib import Path

import pytest

from benchmarks import page, plot, probes, runner
from benchmarks.__main__ import main
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.links import open_links
from benchmarks.load import closed_loop
from benchmarks.packets import FORMATS
from benchmarks.process import SERVERS, ServerError, ServerProcess, core_time
from benchmarks.progress import Progress
from benchmarks.results import Metric, Results, Sample
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.settings import QUICK, default_cores

pytestmark = pytest.mark.in_turn

FIGURES = Path(__file__).parents[2] / "docs" / "_include" / "performance"
TINY = dataclasses.replace(
    QUICK,
    warm_up=0.01,
    duration=0.03,
    idle_connections=20,
    idle_seconds=0.01,
    never_reader_bytes=1 << 20,
    broadcast_clients=40,
    crowd_connections=5,
    server_core=default_cores()[0],
    load_core=default_cores()[1],
)


@pytest.fixture
def server():
    with ServerProcess("epoll_loop.py", ["65536"], core=default_cores()[0]) as server:
        yield server


def test_every_server_file_is_a_contender():
    """No server file is forgotten."""
    files = {path.name for path in SERVERS.glob("*.py")} - {"__init__.py"}

    assert files == {c.program for c in CONTENDERS if c.family != "import"}


def test_missing_library():
    """A contender whose library is not installed says which."""
    assert (
        Contender("x", "tcp", "x.py", (), ("sys", "no_such_library")).missing() == "no_such_library"
    )
    assert Contender("x", "tcp", "x.py", (), ("sys",)).missing() is None


def test_server_process(server):
    """A server's meters move when it works, and only then to speak of."""
    before = server.read()
    probes.churn(server, warm_up=0.0, duration=0.02)
    after = server.read()

    assert 0 < after.processor - before.processor < after.clock - before.clock
    assert server.memory() > 1 << 20


@pytest.mark.parametrize(
    "contender",
    [c for c in CONTENDERS if c.family in FORMATS],
    ids=lambda contender: contender.name,
)
def test_formats(contender):
    """Every server of a format answers its packets, many at a time as well."""
    arguments = ["65536", *contender.arguments]
    with (
        ServerProcess(contender.program, arguments, core=default_cores()[0]) as server,
        open_links(contender.family, server.port, 2, size=64, in_flight=16) as links,
    ):
        load = closed_loop(links, warm_up=0.0, duration=0.02, reading=server.read)

    assert load.answers > 0


def test_server_that_does_not_start():
    """A server that ends before it listens says why."""
    with pytest.raises(ServerError, match="invalid literal"):
        ServerProcess("asyncio_streams.py", ["nonsense", "asyncio"], core=default_cores()[0])


def test_server_that_has_ended(server):
    """A server that is gone is an error, not an idle one."""
    server.process.kill()
    server.process.wait()

    with pytest.raises(ServerError, match="has ended"):
        server.read()


def test_core_that_does_not_exist():
    """A wrong core is named."""
    with pytest.raises(ValueError, match="no core 100000"):
        core_time(100_000)


def test_fairness(server):
    """The heartbeat is answered during the storm."""
    figures = probes.fairness(server, duration=0.05, connections=3, in_flight=64)

    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]
    assert figures["per_second"] > 0


def test_import_time(monkeypatch):
    """An import that was done already takes no time."""
    monkeypatch.setattr(probes, "INTERPRETERS", 1)

    assert probes.import_time("import asyncio, anyio")["beyond_ms"] < 1


def test_run_all_scenarios(monkeypatch):
    """Every scenario measures who needs nothing but Python, and no process is left."""
    monkeypatch.setattr(probes, "INTERPRETERS", 1)
    names = ("epoll-floor", "socket-floor", "asyncio-streams-struct", "import-socketserver")
    contenders = [contender for contender in CONTENDERS if contender.name in names]
    missing = Contender("missing", "tcp", "x.py", (), ("no_such_library",))
    scenarios = [scenario for scenario in SCENARIOS if scenario.in_quick]
    cores = os.sched_getaffinity(0)
    before = children()

    results = runner.run(scenarios, [*contenders, missing], TINY, Progress(io.StringIO()))

    assert os.sched_getaffinity(0) == cores
    assert results.skipped == {"missing": "no_such_library is not installed"}
    for scenario, table in zip(scenarios, results.tables, strict=True):
        assert [row.contender for row in table.rows] == [
            contender.name for contender in contenders if scenario.concerns(contender)
        ]
        for row in table.rows:
            # Memory may be given back: not every figure is positive.
            assert all(math.isfinite(row.median(metric.key)) for metric in table.metrics)
    assert children() <= before


def children() -> set[int]:
    """Return the processes that this one has started, those of multiprocessing included."""
    found = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    return {int(pid) for pids in found for pid in pids}


def test_rounds_are_interleaved():
    """Nobody is measured twice before all were once, nor always first; rounds can be limited."""
    order = []

    def measure(host, contender):
        order.append(contender.name)
        return Sample({"cost": 1.23456})

    cost = (Metric("cost", "cost", "us"),)
    scenarios = [
        Scenario("often", "", "tcp", cost, measure),
        Scenario("once", "", "tcp", cost, measure, rounds=1),
    ]
    contenders = [Contender(name, "tcp", "x.py") for name in "ab"]
    settings = dataclasses.replace(TINY, rounds=3)

    results = runner.run(scenarios, contenders, settings, Progress(io.StringIO()))

    assert "".join(order) == "abab" + "ba" + "ab"
    assert results.tables[0].rows[0].values("cost") == [1.235] * 3


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal():
    """A terminal gets a bar, redrawn in place and removed at the end."""
    stream = Terminal()
    progress = Progress(stream)
    progress.expect(2)
    progress.step("first")
    progress.step("second")
    progress.finish()

    first, second, end = stream.getvalue().split("\r\x1b[K")[1:]
    assert first.startswith("[" + "." * 30 + "] 0/2")
    assert second.startswith("[" + "#" * 15 + "." * 15 + "] 1/2")
    assert end == ""


def test_figures_can_be_shown_again(results, tmp_path, monkeypatch, capsys):
    """``--from`` shows and draws the figures of a file without measuring."""
    source, svg, rst = (tmp_path / name for name in ("a.json", "a.svg", "a.rst"))
    results.write(source)
    arguments = ["--from", str(source), "--plot", str(svg), "--rst", str(rst)]
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])

    assert main() == 0
    assert "easynetwork-asyncio-loop" in capsys.readouterr().out
    assert svg.read_text().startswith("<svg")
    assert ".. list-table::" in rst.read_text()


def test_file_that_is_not_there(monkeypatch, capsys):
    """A file that cannot be read is named, without a traceback."""
    monkeypatch.setattr("sys.argv", ["benchmarks", "--from", "no_such_file.json"])

    assert main() == 1
    assert "no_such_file.json" in capsys.readouterr().err


def test_list(monkeypatch, capsys):
    """``--list`` shows every name that can be chosen."""
    monkeypatch.setattr("sys.argv", ["benchmarks", "--list"])

    assert main() == 0
    shown = capsys.readouterr().out.split()
    assert {scenario.name for scenario in SCENARIOS} <= set(shown)
    assert {contender.name for contender in CONTENDERS} <= set(shown)


@pytest.mark.parametrize("figures", sorted(FIGURES.glob("*.json")), ids=lambda path: path.stem)
def test_committed_page_is_what_its_figures_give(figures):
    """The documentation's tables and picture are those of the figures beside them."""
    results = Results.read(figures)

    assert figures.with_suffix(".rst").read_text() == page.render(results)
    assert figures.with_suffix(".svg").read_text() == plot.draw(results)


@pytest.mark.parametrize("tables", sorted(FIGURES.glob("*.rst")), ids=lambda path: path.stem)
def test_page_refers_to_what_its_tables_show(tables):
    """The page includes the tables, and the headings and contenders that it names are in them."""
    page_text, shown = (FIGURES.parents[1] / "performance.rst").read_text(), tables.read_text()
    headings = re.findall(r'"(.+?)"', page_text)
    contenders = re.findall(r"``(easynetwork-\S+?|asyncio-\S+?)``", page_text)

    assert f"include:: _include/performance/{tables.name}\n" in page_text
    assert headings
    assert [heading for heading in headings if heading not in shown] == []
    assert contenders
    for name in contenders:
        assert fnmatch.filter(re.findall(r"\* - ``(.+?)``", shown), name), name
    assert re.search(r"``easynetwork-\*-request``, divided by .+: 1\.\d\d to .+ µs\.", shown)
