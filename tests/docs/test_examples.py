"""What holds for all examples that pages show, whatever they are about."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

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
