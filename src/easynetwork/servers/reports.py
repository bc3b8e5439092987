"""What a server says in its log about other people's mistakes.

Whose fault it is decides the level: the handler's is an ERROR with its traceback, a peer's one
WARNING line, and only so many of those: a log is not for peers to fill.
"""

from __future__ import annotations

__all__ = ["PeerFaultLog", "printable", "split_errors"]

import logging
import time
from collections.abc import Callable
from typing import Final

_LINES_PER_SECOND: Final = 3
"""Enough to see what is wrong, few enough that a thousand bad peers write no more than one does."""

_MESSAGE_LENGTH: Final = 200
"""Characters of an error's text that are logged: it may quote what a peer sent."""


class PeerFaultLog:
    """WARNING lines about peers, at most three per second for one server; the rest is counted.

    Attributes:
        count: How many faults were reported so far, logged or not.
    """

    __slots__ = ("__weakref__", "_left", "_logger", "_second", "_skipped", "count")

    def __init__(self, logger: logging.Logger) -> None:
        self.count: int = 0
        self._logger = logger
        self._skipped = 0
        self._second = -1
        self._left = _LINES_PER_SECOND

    def warning(self, message: str, *args: object) -> None:
        """Log one line, as `logging.Logger.warning` does, if there was not too much already."""
        self.count += 1
        second = int(time.monotonic())
        if second != self._second:
            self.flush()
            self._second = second
            self._left = _LINES_PER_SECOND
        if self._left:
            self._left -= 1
            self._logger.warning(message, *args)
        else:
            self._skipped += 1

    def flush(self) -> None:
        """Say how many lines were left out since the last that was logged."""
        if self._skipped:
            self._logger.warning("%d more faults of peers were not logged", self._skipped)
            self._skipped = 0


def printable(error: BaseException) -> str:
    """Return an error's text on one short line of ASCII, whatever bytes of a peer it quotes."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= _MESSAGE_LENGTH else text[:_MESSAGE_LENGTH] + "..."


def split_errors(
    error: Exception | None, belongs: Callable[[BaseException], bool]
) -> tuple[Exception | None, Exception | None]:
    """Split an error into the part that belongs and the rest, looking into exception groups."""
    if isinstance(error, ExceptionGroup):
        return error.split(lambda exc: not isinstance(exc, ExceptionGroup) and belongs(exc))
    if error is not None and belongs(error):
        return error, None
    return None, error
