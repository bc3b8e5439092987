"""What a page of the site promises, turned into pytest items.

Sybil calls a parser with a document; each region that the parser yields becomes an item. Two
directives need more than Sybil has:

* ``literalinclude``: the file exists, can be imported, and has what the options name. Sphinx itself
  resolves the options, so that the test and the page cannot disagree. Each text of ``:emphasize:``
  is the beginning of one line of the snippet: see ``docs/emphasis.py``.
* ``code-block:: console``: its ``$ python FILE`` commands are run in the folder of the example
  that was included last, or that the comment ``.. example-folder: PATH`` names, and must print what
  the page says. Numbers that differ from run to run (see `WILDCARDS`) may differ. A block with a
  ``:caption:`` is left alone: it shows one of several terminals, in which ``terminals.py`` types.

Anything else in a console block must be skipped in the open, with ``.. skip: next``.
"""

from __future__ import annotations

import difflib
import functools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from sphinx.config import Config
from sphinx.directives.code import LiteralInclude
from sybil import Document, Example, Region
from sybil.parsers.rest.lexers import DirectiveInCommentLexer, DirectiveLexer

from docs.emphasis import emphasized_lines, read_listing, with_emphasis

__all__ = ["WILDCARDS", "console_blocks", "literal_includes"]

# What differs from run to run, and what stands for it when outputs are compared.
WILDCARDS = (
    (r"\bTask-\d+", "Task-N"),
    (r"\bThread-\d+", "Thread-N"),
    (r"\bprocess \d+", "process N"),
    (r"\b0x[0-9a-fA-F]+", "0xN"),
    (r"\b\d{1,3}(?:\.\d{1,3}){3}\b", "ADDRESS"),
    (r"(['\[])[0-9a-f:]*::[0-9a-f:]*(['\]])", r"\1ADDRESS\2"),
    (r"('(?:ADDRESS|localhost)', )\d+(?:, \d+, \d+)?", r"\1PORT"),
    (r"\b(ADDRESS\]?|localhost):\d+", r"\1:PORT"),
)

# Seconds. An example talks to itself on the loopback interface and ends.
COMMAND_TIMEOUT = 30

_literalinclude = DirectiveLexer("literalinclude")
# An option goes on in lines that are indented further.
_OPTION = re.compile(r"^( +):([\w-]+):(.*(?:\n\1 +\S.*)*)", re.MULTILINE)
code_blocks = DirectiveLexer("code-block|code|sourcecode")
_example_folder = DirectiveInCommentLexer("example-folder")


def literal_includes(document: Document) -> Iterator[Region]:
    """Yield one item per ``literalinclude``."""
    for region in _literalinclude(document):
        region.lexemes["options"] = read_options(document.text[region.start : region.end])
        region.evaluator = check_literal_include
        yield region


def read_options(directive: str) -> dict[str, str]:
    """Return the options of a directive, which may have several lines."""
    return {
        name: "\n".join(line.strip() for line in value.splitlines()).strip()
        for _, name, value in _OPTION.findall(directive)
    }


def console_blocks(document: Document) -> Iterator[Region]:
    """Yield one item per console block; its ``parsed`` is the folder it runs in, or None."""
    folders = [
        *((found.start, locate(document, found).parent) for found in _literalinclude(document)),
        *((found.start, locate(document, found)) for found in _example_folder(document)),
    ]
    for region in code_blocks(document):
        if is_console(region) and "caption" not in region.lexemes["options"]:
            before = [(start, folder) for start, folder in folders if start < region.start]
            region.parsed = max(before)[1] if before else None
            region.evaluator = check_console_block
            yield region


def is_console(region: Region) -> bool:
    """Return whether a block of code shows a terminal."""
    return (region.lexemes["arguments"] or "").strip() == "console"


def locate(document: Document, region: Region) -> Path:
    """Return the file that a directive names: below the page, or below the site if it has a /."""
    page = Path(document.path)
    name: str = region.lexemes["arguments"].strip()
    if not name.startswith("/"):
        return (page.parent / name).resolve()
    root = next((folder for folder in page.parents if (folder / "conf.py").exists()), page.parent)
    return (root / name[1:]).resolve()


def check_literal_include(example: Example) -> str | None:
    """Return what is wrong with a ``literalinclude``, None if nothing is."""
    options = example.region.lexemes["options"]
    file = locate(example.document, example.region)
    if not file.is_file():
        return f"{file} does not exist"
    if file.suffix == ".py" and (failure := import_failure(file)):
        return f"{file} cannot be imported:\n{failure}"
    try:
        emphasized_lines(read_snippet(file, options), options.get("emphasize", ""))
    except (KeyError, ValueError) as exc:
        return f"an option does not fit {file}: {exc}"
    return None


def read_snippet(file: Path, options: Mapping[str, str]) -> list[str]:
    """Return the lines that Sphinx shows for a file and options, ValueError if there are none."""
    # None stands for an option without a value, as in docutils; the type hint knows only str.
    known = with_emphasis(LiteralInclude)
    converted = {name: known[name](value or cast("str", None)) for name, value in options.items()}
    return read_listing(file, converted, Config())


@functools.cache
def import_failure(file: Path) -> str:
    """Import an example as a reader would, in its folder; return the error, "" if there is none.

    The folder of a module that belongs to a package is that of the package.
    """
    folder, name = file.parent, file.stem
    while (folder / "__init__.py").exists():
        folder, name = folder.parent, f"{folder.name}.{name}"
    return run_python(["-W", "error", "-c", f"import {name}"], folder)[1]


def check_console_block(example: Example) -> str | None:
    """Return how the output of a console block differs from the page, None if it does not."""
    if example.parsed is None:
        return "no folder to run in: include the example before it, or say .. example-folder: PATH"
    _, *blocks = re.split(r"^\$ ", "\n" + example.region.lexemes["source"], flags=re.MULTILINE)
    if not blocks:
        return "there is no command in it: a command starts with '$ '"
    for block in blocks:
        command, _, expected = block.partition("\n")
        program, *arguments = shlex.split(command)
        if program != "python" or not arguments:
            return f"only 'python FILE' is run, not {command!r}: skip it with .. skip: next"
        status, output = run_python(arguments, example.parsed)
        if status != 0:
            return f"{command!r} ended with status {status}:\n{output}"
        if difference := compare(expected, output):
            return f"{command!r} printed something else:\n{difference}"
    return None


def run_python(arguments: list[str], folder: Path) -> tuple[int, str]:
    """Run this interpreter in a folder; return its status, and all it printed if that is not 0."""
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        return -1, f"{exc}"
    return done.returncode, done.stdout


def compare(expected: str, actual: str) -> str:
    """Return the difference of two outputs but for wildcards and outer blank lines."""
    expected, actual = (generalize(text) for text in (expected, actual))
    diff = difflib.unified_diff(
        expected.splitlines(), actual.splitlines(), "the page", "the program", lineterm=""
    )
    return "\n".join(diff)


def generalize(output: str) -> str:
    """Return an output with the wildcards in place of what differs from run to run."""
    for pattern, wildcard in WILDCARDS:
        output = re.sub(pattern, wildcard, output)
    return output.strip()
