"""The facts about the machine that a reader needs to judge the figures; no names."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path

__all__ = ["describe"]

LIBRARIES = ("easynetwork", "anyio", "trio", "uvloop", "gevent", "twisted", "msgpack")


def describe() -> dict[str, str]:
    """Return facts by topic."""
    facts = {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        # Without the suffix, which names the distribution or the cloud.
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
    }
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts[library] = importlib.metadata.version(library)
    return facts


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
