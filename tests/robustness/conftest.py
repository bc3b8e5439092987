"""Proofs that no peer can make the server's process grow, stop serving others or fill its log.

Each runs a server in a process of its own (``served.py``), on every loop. The figures come from
Linux's ``/proc``; elsewhere there is nothing to prove.

``ROBUSTNESS_SCALE=16`` in the environment makes it a gigabyte wherever less is sent by default.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def scale() -> int:
    """How much more is sent than for a quick proof."""
    return int(os.environ.get("ROBUSTNESS_SCALE", "1"))


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    """The event loop that the server runs on."""
    if request.param == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    return str(request.param)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process, and the server it starts, open as many descriptors as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
