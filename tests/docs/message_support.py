"""Messages as tests provoke them: compared with those that the docstring of the test quotes.

A message of the page is a paragraph of the docstring that begins with a level or the class of an
exception: ``"KeyError: text"``, or ``KeyError: "A sentence." "Another one"``, because the sentences
of the page are counted. Its three dots stand for anything.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio

_KIND = r"(?:DEBUG|INFO|WARNING|ERROR|gaierror|\w*(?:Error|Group|Running|Operation)): "
_MESSAGE = re.compile(_KIND)


def text_of(exc: BaseException) -> str:
    """Return an exception as a reader of the page sees it: without what depends on the platform."""
    text = str(exc)
    if isinstance(exc, OSError):
        text = re.sub(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$", "", text)
    if isinstance(exc, BaseExceptionGroup):
        text = re.sub(r" \(\d+ sub-exceptions?\)$", "", text)
    return f"{type(exc).__name__}: {text}".replace("`", "")


class Seen:
    """What a test has seen: messages, as the page shows them."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.errors: list[BaseException] = []

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Note what the block raises; it has to."""
        try:
            yield
        except BaseException as exc:
            self.note(exc)
        else:
            raise AssertionError("nothing was raised")

    def note(self, exc: BaseException) -> None:
        """Note an exception."""
        self.messages.append(text_of(exc))
        self.errors.append(exc)

    def calls(self, function: Callable[..., Any], *args: Any, **options: Any) -> BaseException:
        """Call a function, which has to raise something, and return that."""
        with self.raised():
            function(*args, **options)
        return self.errors[-1]

    def runs(self, function: Callable[..., Any], *args: Any) -> BaseException:
        """Run a coroutine function in an event loop, and return what it raises."""
        return self.calls(anyio.run, function, *args)

    def logged(self, log: Iterable[logging.LogRecord], *texts: str) -> None:
        """Note what was logged, as far as it has one of several texts."""
        lines = [f"{record.levelname}: {record.getMessage()}".replace("`", "") for record in log]
        for text in texts:
            found = [line for line in lines if text in line]
            assert found, (text, lines)
            self.messages += found

    def check(self, test: Callable[..., Any]) -> None:
        """Check that these are the messages that a test quotes, and no others."""
        paragraphs = [" ".join(text.split()) for text in str(test.__doc__).split("\n\n")]
        unquoted = [text.replace('"', "") for text in paragraphs]
        quoted = [text for text in unquoted if _MESSAGE.match(text)]
        assert quoted
        patterns = [re.escape(text).replace(r"\.\.\.", ".*") for text in quoted]
        for text, pattern in zip(quoted, patterns, strict=True):
            found = [line for line in self.messages if re.fullmatch(pattern, line, re.DOTALL)]
            assert found, f"{text!r} is not one of {self.messages}"
        for line in self.messages:
            assert any(re.fullmatch(pattern, line, re.DOTALL) for pattern in patterns), line
