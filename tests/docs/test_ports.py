"""An example listens at the port that its page says, also where only a reader runs it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

from tests.docs.mutate import shown_on
from tests.docs.sentences import PAGES

# Those of examples whose page names no other: the next ones are for further servers of a program.
USUAL = {9000, 9001, 9002}


def ports(source: str) -> Iterator[int]:
    """Yield the numbers that come after a host, in a call or a tuple."""
    for node in ast.walk(ast.parse(source)):
        values = getattr(node, "args" if isinstance(node, ast.Call) else "elts", [])
        for host, port in pairwise(values):
            if isinstance(port, ast.Constant) and type(port.value) is int and is_host(host):
                yield from [port.value] if port.value >= 1024 else []


def is_host(node: ast.expr) -> bool:
    """Return whether an expression may be a host: a text without spaces, None or a name."""
    if isinstance(node, ast.Constant):
        text = node.value
        return text is None or (isinstance(text, str) and bool(re.fullmatch(r"[\w.:]*", text)))
    return isinstance(node, ast.Name) and "host" in node.id


def test_ports() -> None:
    """Each port in an example of a page is a usual one, or on the page."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = USUAL | {int(number) for number in re.findall(r"\b\d{4,5}\b", text)}
        for example in shown_on(page):
            if example.suffix == ".py":
                found = {*ports(example.read_text(encoding="utf-8"))}
                assert found <= named, example.name


def test_ports_of_a_source() -> None:
    """A port is after a host."""
    source = 'Server("localhost", 2001, protocol)\nhost, port = "::1", 2002\nsend(b"", 2003)'
    more = 'f("a b", 2004)\nClient((None, 2005))\nconnect(host, 2006)\npack("u", 2)'
    assert sorted(ports(f"{source}\n{more}")) == [2001, 2002, 2005, 2006]
