"""The loops that the contracts run on: on trio, connections are watched in two ways."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import BACKENDS, HAS_TRIO
from tests.trio_readiness import watch_all

WATCHED: Any = pytest.param(
    ("trio", {}),
    id="trio-watched",
    marks=pytest.mark.skipif(not HAS_TRIO, reason="trio is not installed"),
)


@pytest.fixture(params=[*BACKENDS, WATCHED])
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return the backend that a coroutine test runs on; have trio watch connections, or not."""
    if "trio-watched" in request.node.nodeid:
        watch_all(monkeypatch)
    return request.param
