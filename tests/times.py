"""The times that tests use, in seconds, all scaled by one factor.

A test waits for a state or an event. What it needs a time for is one of these:

* to give something that must not happen the time to happen: `SOON`;
* to give up when something that must happen does not: `PATIENCE`;
* to give up in an operation that a test repeats many times: `STUCK`.

``EASYNETWORK_TESTS_TIMEOUT_FACTOR`` in the environment replaces the factor on a slow machine.
"""

from __future__ import annotations

import os
import sys


def is_traced() -> bool:
    """Whether coverage, or a debugger, slows down each line."""
    # From Python 3.12 on, coverage may use sys.monitoring, and then there is no trace function.
    monitoring = getattr(sys, "monitoring", None)
    return sys.gettrace() is not None or (
        monitoring is not None and monitoring.get_tool(monitoring.COVERAGE_ID) is not None
    )


# Under coverage the suite takes about twice as long.
FACTOR = float(os.environ.get("EASYNETWORK_TESTS_TIMEOUT_FACTOR") or (2 if is_traced() else 1))

MS = 0.001 * FACTOR

# Long enough for something wrong to happen. A slow machine can make such a test pass, never fail.
SOON = 30 * MS

# How long to wait for something that must happen. Less than the time limit of a test.
PATIENCE = 10_000 * MS

# The timeout of an operation that never takes long, unless it waits for something left behind.
STUCK = 1_000 * MS
