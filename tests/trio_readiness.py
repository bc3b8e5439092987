"""Have trio watch connections as if they were many."""

from __future__ import annotations

import importlib

import pytest


def watch_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one task of trio wait for all connections that are made from now on."""
    # Not by its name: a test may have imported the package anew.
    module = importlib.import_module("easynetwork.backends.trio.readiness")
    monkeypatch.setattr(module, "FEW", 0)
