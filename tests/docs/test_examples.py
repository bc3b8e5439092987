"""What holds for all examples that pages show, whatever they are about."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.mutate import shown_on
from tests.docs.sentences import PAGES

# Where None is the point: it replaces a timeout that is the default.
WITHOUT_TIMEOUT = {"iter_received_packets"}


def arguments(source: str) -> Iterator[tuple[str, str, object]]:
    """Yield the called function, the name and the value of each constant that is a keyword."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func).rpartition(".")[2]
            for keyword in node.keywords:
                if isinstance(keyword.value, ast.Constant):
                    yield function, str(keyword.arg), keyword.value.value


def says_nothing(function: str, name: str, value: object) -> bool:
    """Return whether an argument is what is the default, or a timeout that there is not."""
    if name in ("timeout", "connect_timeout"):
        return value is None and function not in WITHOUT_TIMEOUT
    return (name, value) in (("frozen", False), ("slots", False), ("eq", True))


def examples() -> Iterator[Path]:
    """Yield the programs and modules that pages show."""
    found = {file for page in PAGES for file in shown_on(page) if file.suffix == ".py"}
    return iter(sorted(found))


def test_arguments() -> None:
    """A timeout has a number, and an argument of a dataclass is not its default."""
    count = 0
    for file in examples():
        for argument in arguments(file.read_text(encoding="utf-8")):
            assert not says_nothing(*argument), f"{file.name}: {argument}"
            count += 1
    assert count > 100


@pytest.mark.parametrize(
    ("source", "is_useless"),
    [
        ("client.recv_packet(timeout=5.0)", False),
        ("client.recv_packet(timeout=None)", True),
        ("client.iter_received_packets(timeout=None)", False),
        ("TCPNetworkClient(address, protocol, connect_timeout=None)", True),
        ("Limits(idle_timeout=None)", False),
        ("dataclasses.dataclass(frozen=True)", False),
        ("dataclasses.dataclass(frozen=False)", True),
    ],
)
def test_argument(source: str, is_useless: bool) -> None:
    """None is a value where it turns off what is on by default."""
    [argument] = arguments(source)
    assert says_nothing(*argument) is is_useless


def imported(module: ast.Module) -> dict[str, Any]:
    """Return what a program imports, but for its own modules and packages that are missing."""
    found: dict[str, Any] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                with contextlib.suppress(ImportError, AttributeError):
                    value = getattr(importlib.import_module(str(node.module)), alias.name)
                    found[alias.asname or alias.name] = value
        elif isinstance(node, ast.Import):
            for alias in node.names:
                with contextlib.suppress(ImportError):
                    value = importlib.import_module(alias.name)
                    name = alias.name.partition(".")[0]
                    found[alias.asname or name] = value if alias.asname else sys.modules[name]
    found.pop("pytest", None)  # its `mark` fails for the marks of another configuration
    return found


def meant(expression: ast.expr, names: dict[str, Any]) -> Any:
    """Return the function or class that an expression such as ``os.dup2`` names, if it is known."""
    first, *attributes = ast.unparse(expression).split(".")
    found = names.get(first)
    for attribute in attributes:
        found = getattr(found, attribute, None)
    return found


def useless_arguments(source: str) -> Iterator[str]:
    """Yield the arguments that are the defaults of the imported functions that get them."""
    module = ast.parse(source)
    names = imported(module)
    for call in ast.walk(module):
        if not isinstance(call, ast.Call):
            continue
        function = meant(call.func, names)
        if function is None:
            continue
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # written in C
            continue
        for keyword in call.keywords:
            parameter = parameters.get(str(keyword.arg))
            if parameter is not None and isinstance(keyword.value, ast.Constant):
                value = keyword.value.value
                if (type(value), value) == (type(parameter.default), parameter.default):
                    yield f"{ast.unparse(call.func)}({ast.unparse(keyword)})"


def test_defaults() -> None:
    """An argument is there because it changes something: it is not the default."""
    for file in examples():
        assert list(useless_arguments(file.read_text(encoding="utf-8"))) == [], file.name


@pytest.mark.parametrize(
    ("source", "useless"),
    [
        ("import os\nos.dup2(1, 2, inheritable=False)", []),
        ("import os\nos.dup2(1, 2, inheritable=True)", ["os.dup2(inheritable=True)"]),
        ("from os import dup2 as copy\ncopy(1, 2, inheritable=True)", ["copy(inheritable=True)"]),
        ("os.dup2(1, 2, inheritable=True)", []),
        ("from .os import dup2\ndup2(1, 2, inheritable=True)", []),
        ("import os.path\nos.dup2(1, 2, inheritable=True)", ["os.dup2(inheritable=True)"]),
        ("import os.path as os\nos.dup2(1, 2, inheritable=True)", []),
        ("import missing\nmissing.call(inheritable=True)", []),
        ("from os import path\npath.missing(inheritable=True)", []),
        ("from easynetwork.servers import Limits\nLimits(idle_timeout=1)", []),
        (
            "from easynetwork.servers import Limits\nLimits(idle_timeout=None)",
            ["Limits(idle_timeout=None)"],
        ),
    ],
)
def test_useless_arguments(source: str, useless: list[str]) -> None:
    """Only what the program imports from elsewhere has defaults that are known here."""
    assert list(useless_arguments(source)) == useless


def useless_attributes(source: str) -> Iterator[str]:
    """Yield the class attributes that have the value of an imported base class."""
    module = ast.parse(source)
    names = imported(module)
    for cls in ast.walk(module):
        if not isinstance(cls, ast.ClassDef):
            continue
        bases = [meant(base, names) for base in cls.bases]
        for node in cls.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                value, name = node.value.value, ast.unparse(node.targets[0])
                inherited = [getattr(base, name) for base in bases if hasattr(base, name)]
                if inherited and (type(inherited[0]), inherited[0]) == (type(value), value):
                    yield f"{cls.name}.{name}"


def test_attributes() -> None:
    """A class attribute is there because the base class has another value."""
    for file in examples():
        assert list(useless_attributes(file.read_text(encoding="utf-8"))) == [], file.name


@pytest.mark.parametrize(
    ("line", "useless"),
    [
        ("allow_reuse_address = True", []),
        ("allow_reuse_address = False", ["Server.allow_reuse_address"]),
        ("request_queue_size = 6", []),
        ("another_name = None", []),
    ],
)
def test_attribute(line: str, useless: list[str]) -> None:
    """The first base class that has the attribute counts."""
    source = f"from socketserver import TCPServer\nclass Server(Missing, TCPServer):\n {line}"
    assert list(useless_attributes(source)) == useless


# Names

_SCOPES = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def used_too_early(source: str) -> list[str]:
    """Return the names that a module, class or function uses above their first assignment."""
    found: list[str] = []
    for scope in ast.walk(ast.parse(source)):
        if not isinstance(scope, (ast.Module, *_SCOPES)):
            continue
        names = [name for statement in scope.body for name in in_order(statement)]
        assigned = {name for name, is_assigned in names if is_assigned}
        known = known_before(scope)
        for name, is_assigned in names:
            if is_assigned:
                known.add(name)
            elif name in assigned - known:
                found.append(name)
    return found


def known_before(scope: ast.AST) -> set[str]:
    """Return the arguments of a function, and what it calls global or nonlocal."""
    known: set[str] = set()
    if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
        known = {node.arg for node in ast.walk(scope.args) if isinstance(node, ast.arg)}
    for node in ast.walk(scope):
        if isinstance(node, ast.Global | ast.Nonlocal):
            known.update(node.names)
    return known


def in_order(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield the names in a statement, each with whether it is assigned, in the order of their use.

    Names in a function or class are not yielded: they are another scope's.
    """
    if isinstance(node, ast.Name):
        yield node.id, isinstance(node.ctx, ast.Store)
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).partition(".")[0], True
    elif isinstance(node, _SCOPES):
        for decorator in node.decorator_list:
            yield from in_order(decorator)
        yield node.name, True
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp):
        targets = [name for generator in node.generators for name in in_order(generator.target)]
        for part in ast.iter_child_nodes(node):
            yield from (name for name in in_order(part) if (name[0], True) not in targets)
    elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        yield from in_order(node.value)
        yield from ((node.target.id, is_assigned) for is_assigned in (False, True))
    else:
        if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name, True
        for part in parts_in_order(node):
            yield from in_order(part)


def parts_in_order(node: ast.AST) -> list[ast.AST]:
    """Return the parts of a statement in the order in which Python evaluates them."""
    if isinstance(node, ast.Lambda):
        return []
    if isinstance(node, ast.GeneratorExp):
        return [node.generators[0].iter]  # the rest runs later
    if isinstance(node, ast.AnnAssign):
        return [node.value, node.target] if node.value else []
    parts = list(ast.iter_child_nodes(node))
    first = getattr(node, "value" if isinstance(node, ast.Assign | ast.NamedExpr) else "iter", None)
    return sorted(parts, key=lambda part: part is not first)


def test_names() -> None:
    """An example uses no name above its first value, also where no test runs it."""
    for file in examples():
        assert used_too_early(file.read_text(encoding="utf-8")) == [], file.name


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("line = yield\nprint(line)", []),
        ("print(line)\nline = input()", ["line"]),
        ("line = line.strip()", ["line"]),
        ("size += 1", ["size"]),
        ("for line in lines: print(line)", []),
        ("for line in line: print(line)", ["line"]),
        ("task_group.start_soon(work)\nasync with create() as task_group: pass", ["task_group"]),
        ("task_group.start_soon(lambda: work(task))\ntask = 1", []),
        ("print([word for word in words])\nword = 1", []),
        ("print([word for word in words])\nwords = [1]", ["words"]),
        ("print([word + end for word in words])\nend = 1", ["end"]),
        ("print(word + end for word in words)\nend = 1", []),
        ("@cache\ndef cache(): pass", ["cache"]),
        ("def work(size):\n size += 1\n print(size)", []),
        ("def work():\n print(size)\n size = 1", ["size"]),
        ("def work():\n global size\n size += 1", []),
        ("try: pass\nexcept OSError as exc: print(exc)", []),
        ("match command:\n case [name, *rest]: print(name, rest)", []),
        ("import os.path\nos.path.exists('')", []),
    ],
)
def test_name(source: str, names: list[str]) -> None:
    """What a function does when it is called later is not too early."""
    assert used_too_early(source) == names


# Waiting

# What a method of asyncio's StreamWriter waits for: the method that begins it.
BEGUN_BY = {"drain": ("write", "writelines"), "wait_closed": ("close",)}


def waits_for_nothing(source: str) -> list[str]:
    """Return the calls that wait for something that the function has not begun before."""
    found: list[str] = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
        methods = [call for call in calls if isinstance(call, ast.Attribute)]
        last: dict[str, str] = {}
        for method in sorted(methods, key=lambda call: (call.end_lineno, call.end_col_offset)):
            receiver = ast.unparse(method.value)
            if method.attr in BEGUN_BY and last.get(receiver) not in BEGUN_BY[method.attr]:
                found.append(ast.unparse(method))
            last[receiver] = method.attr
    return found


def test_waiting() -> None:
    """With asyncio streams, an example writes before it drains, and closes before it waits."""
    for file in examples():
        assert waits_for_nothing(file.read_text(encoding="utf-8")) == [], file.name


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("writer.write(data)\n await writer.drain()", []),
        ("await writer.drain()\n writer.write(data)", ["writer.drain"]),
        ("writer.close()\n with suppress(OSError):\n  await writer.wait_closed()", []),
        ("await writer.wait_closed()\n writer.close()", ["writer.wait_closed"]),
        ("self.writer.write(data)\n await writer.drain()", ["writer.drain"]),
    ],
)
def test_wait(body: str, found: list[str]) -> None:
    """Both are methods of the same object."""
    assert waits_for_nothing(f"async def work():\n {body}") == found
