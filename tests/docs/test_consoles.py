"""What a reader types comes after what it needs, also where no test can type it."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from tests.docs.sentences import PAGES

CONSOLE = re.compile(
    r"^( *)\.\. code-block:: console\n(?:\1 +\S.*\n|\n)*|^```console\n(?s:.*?)^```", re.MULTILINE
)
COMMAND = re.compile(r"^ *\$ ((?:.*\\\n)*.*)$", re.MULTILINE)
WORD = re.compile(r"[^\s\"']+")


def made_by(command: str) -> set[str]:
    """Return what a command makes: folders, files, and the programs of an environment."""
    words = WORD.findall(command)
    made = {
        after for before, after in pairwise(words) if before in (">", "-out", "-keyout", "venv")
    }
    if words[0] == "mkdir":
        made |= {words[-1]}
    if words[0] == ".":
        made |= {"pip"}
    return made


def out_of_order(text: str) -> list[tuple[str, str]]:
    """Return commands of a console that need what a later one makes, each with the later one."""
    found = []
    for console in CONSOLE.finditer(text):
        commands = COMMAND.findall(console[0])
        for number, command in enumerate(commands):
            used = [f"{word}/" for word in WORD.findall(command)]
            for later in commands[number + 1 :]:
                made = tuple(f"{name}/" for name in made_by(later))
                found += [(command, later) for word in used if word.startswith(made)]
    return found


def test_order() -> None:
    """No command of a console needs what a later one makes."""
    for page in PAGES:
        assert out_of_order(page.read_text(encoding="utf-8")) == [], page


@pytest.mark.parametrize(
    "commands",
    [
        ("cd echo", "mkdir echo"),
        (". venv/bin/activate", "python3 -m venv venv"),
        (". ../venv/bin/activate", "python3 -m venv ../venv"),
        ("pip install .", ". venv/bin/activate"),
        ("cat mail.txt", "echo Hello > mail.txt"),
    ],
)
def test_out_of_order(commands: tuple[str, str]) -> None:
    """Two commands that changed places are found, on pages and in the README."""
    for order, wrong in ((commands, [commands]), (commands[::-1], [])):
        lines = "\n".join(f"   $ {command}" for command in order)
        assert out_of_order(f".. code-block:: console\n\n{lines}\n\nEnd.\n") == wrong
        assert out_of_order(f"```console\n{lines}\n```\n") == wrong
