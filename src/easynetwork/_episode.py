"""Rate-limit log lines about events that come in bursts."""

from __future__ import annotations

import math
import time
from typing import Final

_QUIET_TIME: Final = 10.0
"""Seconds without an event after which the next one is news, and logged again."""


class Episode:
    """Tells the first event of an episode from those that follow it.

    Attributes:
        quiet_time: Seconds without an event after which the next one begins a new episode.
    """

    __slots__ = ("_last_event", "quiet_time")

    def __init__(self) -> None:
        self.quiet_time: float = _QUIET_TIME
        self._last_event = -math.inf

    def begins(self) -> bool:
        """Count an event; return whether it is the first of its episode."""
        now = time.monotonic()
        is_first = now - self._last_event >= self.quiet_time
        self._last_event = now
        return is_first
