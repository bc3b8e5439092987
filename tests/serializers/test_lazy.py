"""The package imports a format when it is first asked for."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

from easynetwork import serializers


def modules_after(statement: str) -> set[str]:
    """Return the modules that a new interpreter has imported after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    return set(output.decode().split())


def test_nothing_is_imported_in_advance() -> None:
    """Who serves lines pays for lines."""
    modules = modules_after("from easynetwork.serializers import StringLineSerializer")
    ours = {name for name in modules if name.startswith("easynetwork.serializers.")}

    assert "easynetwork.serializers.line" in ours
    for name in "cbor json msgpack pickle struct wrapper composite".split():
        assert f"easynetwork.serializers.{name}" not in ours
    assert not modules & {"bz2", "cbor2", "hashlib", "json", "msgpack", "pickle", "zlib"}


@pytest.mark.parametrize("name", serializers.__all__)
def test_every_name(name: str) -> None:
    """Each name is the class of its module, and known to type checkers."""
    cls = getattr(serializers, name)

    assert cls is getattr(importlib.import_module(cls.__module__), name)
    assert cls.__module__.startswith("easynetwork.serializers.")
    assert name in dir(serializers)
    imported = ast.walk(ast.parse(inspect.getsource(serializers)))
    assert name in {
        alias.name for node in imported if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def test_unknown_name() -> None:
    """What does not exist is said not to."""
    with pytest.raises(AttributeError, match=r"has no attribute 'YAMLSerializer'$"):
        serializers.YAMLSerializer  # noqa: B018  # To look it up is what this is about.
