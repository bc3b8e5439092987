"""Finds the lines of a listing that a page emphasizes by their text.

The option ``emphasize`` of ``literalinclude`` and ``code-block`` has a text on each of its lines,
which is the beginning of exactly one line of the listing, apart from its indentation:

* ``A`` emphasizes the line that begins with A;
* ``A ... B`` all lines from there to the next one that begins with B;
* ``C >>> A`` the first one with A after the line that begins with C, where there are several.

A text that is gone, or begins several lines, is an error: numbers would now emphasize something
else. The site and the tests of the pages call the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from docutils.parsers.rst import directives
from sphinx.config import Config
from sphinx.directives.code import LiteralIncludeReader
from sphinx.util.docutils import SphinxDirective

__all__ = ["emphasized_lines", "read_listing", "with_emphasis"]


def with_emphasis(directive: type[SphinxDirective]) -> dict[str, Callable[[str], Any]]:
    """Return the options of a directive of Sphinx, with texts in place of numbers of lines."""
    numbers = ("emphasize-lines", "lines")
    options = {name: new for name, new in directive.option_spec.items() if name not in numbers}
    return {**options, "emphasize": directives.unchanged_required}


def read_listing(file: Path, options: Mapping[str, Any], config: Config) -> list[str]:
    """Return the lines that Sphinx shows of a file.

    Raises:
        ValueError: The options name something that is not in the file.
    """
    own = {name: value for name, value in options.items() if name != "emphasize"}
    text, _ = LiteralIncludeReader(str(file), own, config).read()
    return text.splitlines()


def emphasized_lines(listing: list[str], texts: str) -> list[int]:
    """Return the numbers of the lines that an option emphasizes, counted from 1.

    Raises:
        ValueError: A text begins no line, or several.
    """
    lines = [line.strip() for line in listing]
    numbers: list[int] = []
    for text in filter(None, map(str.strip, texts.splitlines())):
        first, _, last = text.partition(" ... ")
        before, _, first = first.rpartition(" >>> ")
        if before:
            start = next_line(lines, only_line(lines, before) + 1, first)
        else:
            start = only_line(lines, first)
        end = next_line(lines, start + 1, last) if last else start
        numbers += range(start + 1, end + 2)
    return numbers


def only_line(lines: list[str], text: str) -> int:
    """Return the index of the line that begins with a text."""
    found = [index for index, line in enumerate(lines) if line.startswith(text)]
    if len(found) != 1:
        places = f"lines {', '.join(str(index + 1) for index in found)}" if found else "no line"
        raise ValueError(f"emphasize: {text!r} begins {places}")
    return found[0]


def next_line(lines: list[str], start: int, text: str) -> int:
    """Return the index of the first line from an index on that begins with a text."""
    for index in range(start, len(lines)):
        if lines[index].startswith(text):
            return index
    raise ValueError(f"emphasize: {text!r} begins no line after line {start}")
