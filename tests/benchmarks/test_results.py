from __future__ import annotations

import math

import pytest

from benchmarks.results import Results, Row, Sample, percentile


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (50, 2), (51, 3), (75, 3), (99, 4), (100, 4)]
)
def test_percentile(percent, expected):
    """A percentile is the smallest value that so many per cent do not exceed."""
    assert percentile([4, 1, 3, 2], percent) == expected


def test_percentile_of_nothing():
    """Nothing measured is not a number, never zero."""
    assert math.isnan(percentile([], 50))


def test_row(results):
    """A row has a median, and half the distance of the extremes as its spread."""
    row = results.tables[0].row("easynetwork-asyncio-loop")

    assert row.median("cpu_us") == 5.0
    assert row.spread("cpu_us") == 0.2


def test_ratio_is_taken_within_rounds(results):
    """A ratio is the median of the rounds' ratios, not the ratio of the medians."""
    ours, theirs = results.tables[0].rows

    assert ours.ratio("cpu_us", theirs) == (4 / 16 + 6 / 12) / 2


def test_ratio_to_nothing():
    """There is no ratio to zero."""
    row = Row("idle", [Sample({"cpu_us": 0.0})])

    assert row.ratio("cpu_us", row) is None
    assert row.spread("cpu_us") == 0.0


def test_notes_say_in_how_many_rounds(results):
    """A remark that was not made in every round says in how many it was."""
    ours, theirs = results.tables[0].rows

    assert ours.notes() == "disturbed (1 of 2)"
    assert theirs.notes() == ""


def test_json_round_trip(results, tmp_path):
    """What is written is read back as it was."""
    results.write(tmp_path / "figures.json")

    assert Results.read(tmp_path / "figures.json") == results


def test_read_refuses_other_files(tmp_path):
    """A file of another format is refused by name."""
    path = tmp_path / "other.json"
    path.write_text('{"format": 0}')

    with pytest.raises(ValueError, match=r"other\.json does not hold the results"):
        Results.read(path)


def test_absent_rows_and_tables(results):
    """What was not measured is None."""
    assert results.table("udp-50x64x1") is None
    assert results.tables[0].row("twisted") is None
