"""The loops that the contracts run on: on trio, connections are watched in two ways."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.conftest import BACKENDS, HAS_TRIO

WATCHED: Any = pytest.param(
    ("trio", {}),
    id="trio-watched",
    marks=pytest.mark.skipif(not HAS_TRIO, reason="trio is not installed"),
)


@pytest.fixture(params=[*BACKENDS, WATCHED])
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return the backend that a coroutine test runs on; have trio watch connections, or not."""
    if "trio-watched" in request.node.nodeid:
        module = importlib.import_module("easynetwork.backends.trio.readiness")
        monkeypatch.setattr(module, "FEW", 0)
    return request.param
