from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from benchmarks import page, plot, report
from benchmarks.contenders import CONTENDERS, REFERENCES
from benchmarks.results import Row, Sample, Table
from benchmarks.scenarios import SCENARIOS
from benchmarks.targets import TARGETS, Verdict, judge


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (1, "1.00"),
        (27.13, "27.1"),
        (271.3, "271"),
        (12345.6, "12,346"),
    ],
)
def test_figure(value, text):
    """A figure has three digits that mean something."""
    assert report.figure(value) == text


def test_terminal_table(results):
    """The report has a line for each contender, cheapest first, with spread, ratio and remarks."""
    lines = report.render(results, REFERENCES).splitlines()
    start = lines.index("TCP, 50 connections")
    header, _, ours, theirs = lines[start + 1 : start + 5]

    assert header.split("  ")[-1] == "p99 (ms)"
    assert ours.split() == "easynetwork-asyncio-loop 5.00 20% 0.38 0.500 disturbed (1 of 2)".split()
    assert theirs.split() == "asyncio-streams 14.0 14% 1.00 1.40".split()
    assert "skipped gevent: gevent is not installed" in lines


def test_terminal_table_without_the_reference(results):
    """Without the contender that ratios are against, there are none."""
    results.tables[0].rows.pop()

    assert "/ asyncio-streams " not in report.render(results, REFERENCES).partition("Targets")[0]


def test_targets_exist():
    """Every target is about scenarios, metrics and contenders that there are."""
    scenarios = {scenario.name: scenario for scenario in SCENARIOS}
    contenders = {contender.name: contender.family for contender in CONTENDERS}
    for target in TARGETS:
        scenario = scenarios[target.scenario]
        assert target.metric in [metric.key for metric in scenario.metrics]
        assert contenders[target.contender] == scenario.family
        assert target.against is None or contenders[target.against] == scenario.family


def test_every_family_has_its_reference():
    """Whom ratios are against is one of the family."""
    assert {c.family: c.name for c in CONTENDERS if c.name in REFERENCES.values()} == REFERENCES


def test_judge(results):
    """A target is judged by the median ratio; what was not measured is said to be so."""
    verdicts = [verdict for verdict in judge(results) if verdict.value is not None]

    assert [(verdict.value, verdict.text) for verdict in verdicts] == [(0.375, "for comparison")]


@pytest.mark.parametrize(
    ("value", "text"), [(0.56, "MISSED"), (0.55, "met"), (0.35, "aim met"), (None, "not measured")]
)
def test_verdict(value, text):
    """The limits themselves are still met."""
    assert Verdict(TARGETS[0], value).text == text


def test_plot_is_svg(results):
    """The picture is well-formed and shows each contender with its figure."""
    svg = ET.fromstring(plot.draw(results))
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    bars = [float(bar.attrib["width"]) for bar in svg.iter("{http://www.w3.org/2000/svg}rect")]

    assert texts[2:] == ["easynetwork-asyncio-loop", "5.00", "asyncio-streams", "14.0"]
    assert bars[0] / bars[1] == pytest.approx(5 / 14, abs=0.001)


def test_plot_of_nothing(results):
    """A run without the scenarios that are drawn gives an empty picture, not an error."""
    results.tables.clear()

    assert len(ET.fromstring(plot.draw(results))) == 1


def test_page(results):
    """The page's tables have a row for each contender and a cell for what was measured."""
    text = page.render(results)

    assert text.startswith("Measured with python 3.13.0 (CPython).\n")
    assert "   * - ``easynetwork-asyncio-loop``\n     - 5.00\n   * - ``asyncio-streams``" in text
    assert "* Processor time, 50 connections, 64 bytes, 1 in flight: none.\n" in text
    assert "17% of the figure in the typical row, and 20% in the worst row" in text


def test_page_names_who_is_cheaper(results):
    """A contender that costs less is named, with its ratio."""
    ours, theirs = results.tables[0].rows
    ours.samples[:], theirs.samples[:] = list(theirs.samples), list(ours.samples)

    assert "1 in flight: ``asyncio-streams`` 0.38." in page.render(results)


def test_page_without_both_kinds_of_handlers(results):
    """The page does not compare the two kinds of handlers unless both were measured."""
    assert "easynetwork-*-request" not in page.render(results)


def test_page_compares_kinds_of_handlers(results):
    """The page states the ratios and the difference of the two kinds of handlers."""
    loop, _ = results.tables[0].rows  # 4, then 6 microseconds
    tables = []
    for count, costs in ((1, (5.0, 7.5)), (50, (6.0, 9.0)), (500, (8.0, 12.0))):
        rows = []
        for name, factor in (("asyncio", 1), ("trio", 1.1)):
            samples = [Sample({"cpu_us": cost * factor}) for cost in costs]
            rows += [Row(f"easynetwork-{name}-request", samples)]
            rows += [Row(f"easynetwork-{name}-loop", loop.samples)]
        metrics = results.tables[0].metrics[:1]
        tables.append(Table(f"tcp-{count}x64x16", "", "tcp", metrics, rows))
    results.tables[:] = tables

    assert (
        ": 1.25 to 1.38 with 1 connection, 1.50 to 1.65 with 50 connections, "
        "2.00 to 2.20 with 500 connections. The difference is 1.25 to 6.00 µs.\n"
    ) in page.render(results)

    results.tables[0].rows[2:] = []

    assert ": 1.25 with 1 connection, 1.50 to" in page.render(results)
