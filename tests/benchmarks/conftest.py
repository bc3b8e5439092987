"""The benchmarks read the kernel's books: they, and so their tests, are for Linux alone."""

from __future__ import annotations

import sys

import pytest

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]

if sys.platform == "linux":
    from benchmarks.results import Metric, Results, Row, Sample, Table

    @pytest.fixture
    def results() -> Results:
        """Two contenders in two rounds, in microseconds: ours 4, then 6; the other 16, then 12."""
        rows = [
            Row("easynetwork-asyncio-loop", [_sample(4.0), _sample(6.0, "disturbed")]),
            Row("asyncio-streams", [_sample(16.0), _sample(12.0)]),
        ]
        metrics = (Metric("cpu_us", "processor time", "µs"), Metric("p99_ms", "p99", "ms"))
        table = Table("tcp-50x64x1", "TCP, 50 connections", "tcp", metrics, rows)
        skipped = {"gevent": "gevent is not installed"}
        return Results({"python": "3.13.0 (CPython)"}, {"rounds": 2}, skipped, [table])

    def _sample(cost: float, *notes: str) -> Sample:
        return Sample({"cpu_us": cost, "p99_ms": cost / 10}, notes)
