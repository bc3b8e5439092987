"""Run pytest in WebAssembly: the tests of `selection`, on an event loop without sockets."""

from __future__ import annotations

import asyncio
import os
import re
import selectors
import sys
import time
from collections.abc import Sequence
from typing import Any

import hypothesis
import pytest

from tests.wasm.selection import MISSING, SELECTED

PLUGINS = ("anyio.pytest_plugin", "_hypothesis_pytestplugin", "pytest_asyncio.plugin")
OPTIONS = (
    *(f"-p{plugin}" for plugin in PLUGINS),
    "-ppytest_timeout",  # Its options are in pyproject.toml; its watchdog would be a thread.
    "--timeout=0",
    "-pno:cacheprovider",
    "--capture=sys",
    # The project's own conftest.py reads the pages, which takes Sphinx.
    "--confcutdir=tests",
    "-mnot cost",
    "--hypothesis-profile=wasm",
)


class Sleeper(selectors.SelectSelector):
    """Waits for timers alone: poll(2) of Emscripten returns at once."""

    def select(self, timeout: float | None = None) -> list[Any]:
        """Sleep until the next timer is due."""
        if timeout is None:
            raise RuntimeError("Every task waits, and there is no timer: nothing will ever happen")
        time.sleep(max(timeout, 0))
        return []


class TimerLoop(asyncio.SelectorEventLoop):
    """An event loop with timers and callbacks. No other thread wakes it, so it needs no pipe."""

    def __init__(self) -> None:
        super().__init__(Sleeper())

    def _make_self_pipe(self) -> None:
        self._csock = None

    def _close_self_pipe(self) -> None: ...


class TimerLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes every new loop a `TimerLoop`."""

    def new_event_loop(self) -> TimerLoop:
        """Return one."""
        return TimerLoop()


class Missing:
    """A plugin that skips the tests of what is missing."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Skip them, and say what they need."""
        for what, patterns in MISSING.items():
            needing = re.compile("|".join(patterns))
            for item in items:
                if needing.search(item.nodeid):
                    item.add_marker(pytest.mark.skip(reason=f"needs {what}"))


def main(options: Sequence[str]) -> int:
    """Run the selected tests, or those that the options name, and return pytest's exit status."""
    print(f"Python {sys.version.split()[0]} on {sys.platform}, pytest {pytest.__version__}")
    # Pyodide's loop, which runs this, cannot be asked to run until a coroutine is done: that takes
    # stack switching, which not every Node has. So tests see no running loop, and make their own.
    asyncio._set_running_loop(None)
    asyncio.set_event_loop_policy(TimerLoopPolicy())
    # This is slow, and looks for differences from other systems, not for rare cases.
    hypothesis.settings.register_profile("wasm", deadline=None, max_examples=20)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    chosen = any(not option.startswith("-") for option in options)
    arguments = [*OPTIONS, *options, *(() if chosen else SELECTED)]
    return int(pytest.main(arguments, [Missing()]))
