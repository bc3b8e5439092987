"""A reader with two terminals, who types what a page tells them to and looks at what happens.

In the tutorials, a console block with a ``:caption:`` shows what goes on in the terminal of that
name: a command and what it prints, or, without a command, what the program that still runs there
prints next. ``^C`` is where Control-C is pressed. Nothing else may be printed: what a page does not
show would surprise its reader.

Of the servers that a page offers, the reader chooses one. All clients are run. How a server ends is
in a tab for each of them.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sybil import Document, Example, Region

from tests.docs.sybil_parsers import code_blocks, compare, is_console
from tests.times import PATIENCE

__all__ = ["Terminals", "end", "next_lines", "terminals"]


@contextlib.contextmanager
def terminals(folder: Path, server: str) -> Iterator[Terminals]:
    """Open terminals in a folder with programs; close them at the end of the block."""
    opened = Terminals(folder, server)
    try:
        yield opened
    finally:
        rests = [end(program, kill=True) for program in opened.programs.values()]
    assert not any(rests), rests


class Terminals:
    """What was typed in each terminal, and the program that it started."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self.server = server
        self.typed: list[str] = []
        self.programs: dict[str, subprocess.Popen[bytes]] = {}

    def blocks(self, document: Document) -> Iterator[Region]:
        """Yield the blocks that show a terminal: a parser for Sybil."""
        for region in code_blocks(document):
            if is_console(region) and "caption" in region.lexemes["options"]:
                region.evaluator = self.check
                yield region

    def check(self, example: Example) -> str | None:
        """Do what a block shows; return how it differs from what happens, None if it does not."""
        terminal = example.region.lexemes["options"]["caption"]
        shown: str = example.region.lexemes["source"]
        if "^C" in shown and tab_of(example) not in (None, self.server):
            return None
        if shown.startswith("$ "):
            command, _, shown = shown.removeprefix("$ ").partition("\n")
            if command.startswith("python server_") and self.server not in command:
                return None
            self.start(terminal, command)
        program = self.programs[terminal]
        before, interrupt, _ = shown.partition("^C")
        printed = next_lines(program, before.count("\n"))
        if interrupt:
            program.send_signal(signal.SIGINT)
        if interrupt or "server_" not in str(program.args):
            printed += interrupt + end(program)
            if program.returncode != 0:
                return f"{program.args!r} ended with status {program.returncode}:\n{printed}"
        return compare(shown, printed) or None

    def start(self, terminal: str, command: str) -> subprocess.Popen[bytes]:
        """Start a program in a terminal where none runs, and return it."""
        python, *arguments = shlex.split(command)
        assert python == "python"
        assert terminal not in self.programs or self.programs[terminal].returncode is not None
        self.typed.append(command)
        self.programs[terminal] = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return self.programs[terminal]


def tab_of(example: Example) -> str | None:
    """Return the name of the tab that a block is in, if it is in one."""
    text, start = example.document.text, example.region.start
    if not text.startswith(" ", start):
        return None
    return text[:start].rpartition(".. group-tab:: ")[2].partition("\n")[0]


def next_lines(program: subprocess.Popen[bytes], count: int) -> str:
    """Return what a program prints next: so many lines, more only if they came with these."""
    assert program.stdout is not None
    output, descriptor = b"", program.stdout.fileno()
    while output.count(b"\n") < count and select.select([descriptor], [], [], PATIENCE)[0]:
        if not (data := os.read(descriptor, 65536)):
            break
        output += data
    return output.decode()


def end(program: subprocess.Popen[bytes], *, kill: bool = False) -> str:
    """Wait for a program to end; return what it had yet to print."""
    if program.returncode is not None:
        return ""
    if kill:
        program.kill()
    try:
        return program.communicate(timeout=PATIENCE)[0].decode()
    except subprocess.TimeoutExpired:
        program.kill()
        return program.communicate()[0].decode()
