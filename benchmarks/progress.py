"""One line that says how far a run is: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

__all__ = ["Progress"]

WIDTH = 30


class Progress:
    """Counts steps and redraws its line at each."""

    __slots__ = ("_done", "_start", "_stream", "_total")

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._done = self._total = 0
        self._start = time.monotonic()

    def expect(self, total: int) -> None:
        """Say how many steps there will be."""
        self._total = total

    def step(self, text: str) -> None:
        """Begin a step, which ends the one before."""
        if self._stream.isatty():
            share = self._done / self._total
            bar = ("#" * round(share * WIDTH)).ljust(WIDTH, ".")
            elapsed = time.monotonic() - self._start
            left = f"{elapsed / share - elapsed:.0f} s left" if share > 0.02 else ""
            line = f"[{bar}] {self._done}/{self._total} {left}  {text}"
            self._stream.write(f"\r\x1b[K{line[:100]}")
            self._stream.flush()
        self._done += 1

    def finish(self) -> None:
        """Remove the line."""
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()
