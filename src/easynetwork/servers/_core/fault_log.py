"""Rate-limited logging for a server: what goes wrong with its clients.

The side at fault decides the level: a bug of the handler is an ERROR with its traceback, a peer's
fault one WARNING line. A peer can cause both, so both are limited: the log must not fill the disk.
"""

from __future__ import annotations

import logging
import time
import traceback
from contextlib import suppress
from types import CodeType
from typing import Final, TypeAlias

_LINES_PER_SECOND: Final = 3
"""Enough to see what is wrong, few enough that a thousand bad peers write no more than one does."""

_TRACEBACK_INTERVAL: Final = 60.0
"""Seconds after which an error of the same kind is logged with its traceback again."""

_MAX_KINDS: Final = 100
"""Kinds of errors that are told apart: few places of a program are wrong."""

_MESSAGE_LENGTH: Final = 200
"""Characters of an error's text that are logged: it may quote what a peer sent."""

_Kind: TypeAlias = tuple[type[BaseException], frozenset[tuple[CodeType, int]]]


class ServerLog:
    """The log of one server, as far as its clients can write to it.

    A logging handler or filter that raises is reported to `sys.unraisablehook`: it must not end
    the connection that is logged about.

    Attributes:
        count: How many faults and errors were reported so far, logged or not.
        suppressed: How many of them were not logged.
        handler_errors: How many of them were errors of the handler.
    """

    __slots__ = (
        *("__weakref__", "_kinds", "_left", "_logger", "_second", "_skipped"),
        *("_skipped_level", "count", "handler_errors", "suppressed"),
    )

    def __init__(self, logger: logging.Logger) -> None:
        self.count: int = 0
        self.suppressed: int = 0
        self.handler_errors: int = 0
        self._logger = logger
        self._kinds: dict[_Kind, float] = {}  # when each was last logged with its traceback
        self._skipped = 0
        self._skipped_level = logging.INFO  # WARNING if there are problems among them
        self._second = -1
        self._left = _LINES_PER_SECOND

    def fault(self, message: str, *args: object) -> None:
        """Log a peer's fault: one WARNING line, if there were not too many already."""
        self._log_limited(logging.WARNING, message, *args)

    def error(
        self, message: str, *args: object, exc: BaseException, level: int = logging.ERROR
    ) -> None:
        """Log an exception that a peer can cause.

        The first of a kind has its traceback, and again after a minute; of the others, one line
        each is logged, if there were not too many already.

        Args:
            message: As for `logging.Logger.log`.
            *args: As for `logging.Logger.log`.
            exc: The exception.
            level: The level of the record.
        """
        now = time.monotonic()
        if self._is_news(_kind_of(exc), now):
            self.count += 1
            self.log(level, message, *args, exc=exc)
        else:
            self._log_limited(level, message + ": %s", *args, printable(exc))

    def log(
        self, level: int, message: str, *args: object, exc: BaseException | None = None
    ) -> None:
        """Log without limit, as `logging.Logger.log` does, whatever logging handlers do."""
        if not self._logger.isEnabledFor(level):
            return
        try:
            self._logger.log(level, message, *args, exc_info=exc)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            _Unraisable(error)

    def limit(self, message: str, *args: object) -> None:
        """Log that a client met a limit: one INFO line, if there were not too many already."""
        self._log_limited(logging.INFO, message, *args)

    def flush(self) -> None:
        """Log how many lines were left out since the last that was logged."""
        if self._skipped:
            skipped, self._skipped = self._skipped, 0
            level, self._skipped_level = self._skipped_level, logging.INFO
            self.log(level, "%d more problems with clients were not logged", skipped)

    def _log_limited(self, level: int, message: str, *args: object) -> None:
        self.count += 1
        second = int(time.monotonic())
        if second != self._second:
            self.flush()
            self._second = second
            self._left = _LINES_PER_SECOND
        if self._left:
            self._left -= 1
            self.log(level, message, *args)
        else:
            self._skipped += 1
            self._skipped_level = max(self._skipped_level, min(level, logging.WARNING))
            self.suppressed += 1

    def _is_news(self, kind: _Kind, now: float) -> bool:
        last = self._kinds.get(kind)
        if last is not None and now - last < _TRACEBACK_INTERVAL:
            return False
        if len(self._kinds) == _MAX_KINDS and last is None:
            oldest = next(iter(self._kinds))
            if now - self._kinds[oldest] < _TRACEBACK_INTERVAL:
                return False
            del self._kinds[oldest]
        self._kinds.pop(kind, None)  # the order of the dictionary is that of the times
        self._kinds[kind] = now
        return True


class _Unraisable:
    """Hand an exception to `sys.unraisablehook`, which takes it from the interpreter only."""

    __slots__ = ("_error",)

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __del__(self) -> None:
        raise self._error


def _kind_of(exc: BaseException) -> _Kind:
    """Return what is the same for errors that come the same way through the code.

    How often a function has called itself makes no difference: a peer may choose that.
    """
    if exc.__traceback__ is None and exc.__cause__ is not None:
        exc = exc.__cause__  # what a handler raised that is no Exception
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    lines = frozenset((frame.f_code, line) for frame, line in traceback.walk_tb(exc.__traceback__))
    return type(exc), lines


def printable(error: BaseException) -> str:
    """Return an error's text on one short line of ASCII, whatever bytes of a peer it quotes."""
    text = type(error).__name__
    with suppress(Exception):  # of a class of the user's own
        text += f": {error}" if str(error) else ""
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= _MESSAGE_LENGTH else text[:_MESSAGE_LENGTH] + "..."
