from __future__ import annotations

import dataclasses
import logging

import pytest

from easynetwork.servers._core.fault_log import ServerLog
from easynetwork.servers._datagram.counts import DatagramCounts
from easynetwork.servers.statistics import DatagramStatistics

LOGGER = logging.getLogger("tests.statistics")


def test_snapshot() -> None:
    """A snapshot has the counts of its moment, each under its own name."""
    counts = DatagramCounts(ServerLog(LOGGER))
    assert counts.snapshot() == DatagramStatistics()
    names = [field.name for field in dataclasses.fields(DatagramStatistics)]
    for number, name in enumerate(names):
        setattr(counts, name, number)
    snapshot = counts.snapshot()
    assert dataclasses.astuple(snapshot) == tuple(range(len(names)))
    counts.received = 100
    assert snapshot.received == 0


def test_dropped() -> None:
    """All reasons to drop something add up."""
    reasons = [
        field.name
        for field in dataclasses.fields(DatagramStatistics)
        if field.name.startswith("dropped_by_")
    ]
    assert len(reasons) == 9
    assert DatagramStatistics(**dict.fromkeys(reasons, 5), received=9).dropped == 5 * 9


def test_episodes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An episode gets one line. It is over when nothing was dropped for ten seconds."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    caplog.set_level(logging.WARNING, LOGGER.name)
    counts = DatagramCounts(ServerLog(LOGGER))
    for _ in range(5):
        counts.warn("%d things", 5)
        now += 9.0
    assert [record.getMessage() for record in caplog.records] == [
        "Datagrams are dropped: 5 things. No more is logged until none was dropped for 10 seconds; "
        "get_statistics() counts them."
    ]
    now += 1.0
    counts.warn("other things")
    assert len(caplog.records) == 2
    assert "other things" in caplog.messages[1]


def test_episodes_of_evictions(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Evictions have episodes of their own: a line about drops does not stand for one of them."""
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    caplog.set_level(logging.WARNING, LOGGER.name)
    counts = DatagramCounts(ServerLog(LOGGER))
    counts.warn("5 things")
    for _ in range(5):
        counts.warn_of_eviction(10)
    assert len(caplog.records) == 2
    assert caplog.messages[1].startswith("Peers are evicted: 10 have a request handler running")
