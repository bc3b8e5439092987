from __future__ import annotations

import time

import pytest

from easynetwork._episode import Episode


def test_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events belong to one episode for as long as no two of them are too far apart."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    episode = Episode()
    found = []
    for delay in (0, 0, 9.9, 9.9, 10, 1):
        now += delay
        found.append(episode.begins())
    assert found == [True, False, False, False, True, False]
