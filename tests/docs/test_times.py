"""How long examples wait: as long as is usual, or as their page says."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.values import NUMBERS, UNITS
from tests.docs.howto_support import plain
from tests.docs.mutate import shown_on
from tests.docs.mutations import prose_with_code
from tests.docs.sentences import PAGES

# Seconds. Examples wait so long if the page says nothing else: not at all, for a peer that answers
# at once, and for one that may be slow.
USUAL = {0.0, 5.0, 30.0}

# What takes a time as an argument without a name.
WAITING = {"timeout", "sleep", "fail_after", "move_on_after"}
NAME = re.compile(r"timeout|patience|interval|delay|seconds|grace|idle_time|stale", re.IGNORECASE)

# Texts such as "half a second", "five minutes", "0.1 seconds". A word after "a second" that is no
# preposition makes it another thing: "a second client".
_COUNT = "|".join(word for word in NUMBERS if word.isalpha() and word.rstrip("s") not in UNITS)
_TIME = re.compile(
    rf"\b((?:(?:\d[\d,]*(?:\.\d+)?|{_COUNT}|of)[ -])*)"
    r"(milliseconds?|seconds|minutes?|hours?"
    r"|second(?![ -](?!after|before|for|longer|later|of|that|to|until|without)\w))\b",
    re.IGNORECASE,
)


def times(source: str) -> Iterator[float]:
    """Yield the seconds that an example waits, or lets the library wait."""
    for node in ast.walk(ast.parse(source)):
        for name, expression in values(node):
            value = expression.value if isinstance(expression, ast.Constant) else None
            if isinstance(value, int | float) and not isinstance(value, bool) and NAME.search(name):
                yield float(value)


def values(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield the names and values of arguments, defaults and variables; a yielded number has one."""
    if isinstance(node, ast.keyword):
        yield str(node.arg), node.value
    elif isinstance(node, ast.Call):
        if ast.unparse(node.func).rpartition(".")[2] in WAITING:
            yield from (("timeout", argument) for argument in node.args)
    elif isinstance(node, ast.Yield):
        yield "timeout", node.value
    elif isinstance(node, ast.Assign):
        yield from ((ast.unparse(target), node.value) for target in node.targets)
    elif isinstance(node, ast.AnnAssign):
        yield ast.unparse(node.target), node.value
    elif isinstance(node, ast.arguments):
        names = [each.arg for each in (*node.posonlyargs, *node.args)]
        yield from zip(reversed(names), reversed(node.defaults), strict=False)
        yield from zip((each.arg for each in node.kwonlyargs), node.kw_defaults, strict=True)


def said(text: str) -> set[float]:
    """Return the times that a text names, in seconds."""
    found = set()
    for count, unit in _TIME.findall(text):
        factors = [
            NUMBERS[word] if word in NUMBERS else float(word.replace(",", ""))
            for word in re.findall(r"\d[\d,]*(?:\.\d+)?|[a-z]+", count.lower())
            if word != "of"
        ]
        found.add(round(math.prod(factors) * NUMBERS[unit.lower()], 9))
    return found


def is_usual(time: float, text: str) -> bool:
    """Return whether a reader expects a time, or a text names it."""
    return time in USUAL or time in said(text)


def test_times() -> None:
    """An example waits for a usual time, or for one that its page says."""
    count = 0
    for page in PAGES:
        shown = [file for file in shown_on(page) if is_program(file)]
        text = plain(prose_with_code(page.read_text(encoding="utf-8")))
        for example in shown:
            for time in times(example.read_text(encoding="utf-8")):
                assert is_usual(time, text), (page.name, example.name, time)
                count += 1
    assert count > 100


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("recv_packet(timeout=1)", [1]),
        ("recv_packet(size=1)", []),
        ("with client.backend().timeout(2.5): pass", [2.5]),
        ("def handle():\n    request = yield 3.0", [3]),
        ("class Handler:\n    patience = 4.0\n    limit = 5", [4]),
        ("IDLE_TIME: float = 6.0", [6]),
        ("def ask(tries=7, patience=8.0, *, timeout=9.0): pass", [8, 9]),
    ],
)
def test_times_of_a_source(source: str, expected: list[float]) -> None:
    """A time is an argument, a default, a variable, or what a handler yields."""
    assert sorted(times(source)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It waits five seconds, then half a minute.", {5, 30}),
        ("After 0.1 seconds, each second until 1,000 seconds have passed", {0.1, 1, 1000}),
        ("a tenth of a second, a quarter of an hour", {0.1, 900}),
        ("Send a second request with a second socket; the second one is lost", set[float]()),
        ("at most a second.", {1}),
        ("two packets per minute", {60}),
    ],
)
def test_said_times(text: str, expected: set[float]) -> None:
    """A page says times in words or digits; what is only the second one is none."""
    assert said(text) == expected


def is_program(file: Path) -> bool:
    """Return whether a file that a page shows is a module or a program, and no test."""
    return file.suffix == ".py" and not file.name.startswith("test_")
