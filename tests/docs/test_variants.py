"""What belongs together in examples has the same numbers."""

from __future__ import annotations

import ast
import collections
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.mutate import importers, shown_on
from tests.docs.sentences import PAGES
from tests.docs.test_times import is_program


def numbers(node: ast.AST) -> list[float]:
    """Return the numbers in a part of a source, but for 0 and 1, which any code may have."""
    found = (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))
    return [float(x) for x in found if type(x) is float or (type(x) is int and x > 1)]


def attributes(source: str) -> dict[str, list[list[float]]]:
    """Return the numbers of the attributes of each name that the classes of a source have."""
    found = collections.defaultdict[str, list[list[float]]](list)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                if isinstance(statement, ast.Assign) and (its_numbers := numbers(statement)):
                    found[ast.unparse(statement.targets[0])].append(its_numbers)
    return found


def constants(source: str) -> dict[str, list[float]]:
    """Return the numbers of the constants of a module."""
    return {
        statement.targets[0].id: its_numbers
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and (its_numbers := numbers(statement))
    }


def functions(source: str) -> Iterator[tuple[str, collections.Counter[float]]]:
    """Yield the names of a module's functions, without those of frameworks, and their numbers."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield re.sub("_(?:asyncio|trio)$", "", node.name), collections.Counter(numbers(node))


def test_variants_of_a_handler() -> None:
    """The classes of an example are variants of one: what they have in common is the same."""
    count = 0
    for example in examples():
        for name, found in attributes(example.read_text(encoding="utf-8")).items():
            assert all(each == found[0] for each in found), (example.name, name)
            count += len(found) > 1
    assert count > 4


def test_constants_of_a_folder() -> None:
    """The programs of a folder belong together: a constant of one name is the same in each."""
    known: dict[tuple[Path, str], list[float]] = {}
    count = 0
    for example in examples():
        for name, found in constants(example.read_text(encoding="utf-8")).items():
            assert known.setdefault((example.parent, name), found) == found, (example.name, name)
            count += 1
    assert count - len(known) > 10


def test_blocking_variants() -> None:
    """For each framework, a function has the numbers of the blocking one; it may have more."""
    count = 0
    for example in examples():
        other = example.with_name("asynchronous.py")
        if example.name == "blocking.py" and other.exists():
            blocking = dict(functions(example.read_text(encoding="utf-8")))
            for name, found in functions(other.read_text(encoding="utf-8")):
                expected = blocking.get(name, collections.Counter())
                assert expected <= found, (example, name)
                count += expected.total()
    assert count > 20


def test_standalone_variants() -> None:
    """A program with a standalone server has the numbers of the asynchronous one."""
    count = 0
    for example in examples():
        other = example.parent / "standalone" / example.name
        if other.exists():
            standalone = dict(functions(other.read_text(encoding="utf-8")))
            for name, found in functions(example.read_text(encoding="utf-8")):
                assert found <= standalone.get(name, found), (example, name)
                count += found.total()
    assert count > 5


def examples() -> list[Path]:
    """Return the modules and programs that pages show, and what these import."""
    shown = {file for page in PAGES for file in shown_on(page) if is_program(file)}
    return sorted(shown.union(*map(importers, shown)))
