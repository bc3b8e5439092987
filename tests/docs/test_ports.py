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
    """Yield the numbers that come after a host, and the arguments of the main block."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        values = getattr(node, "args" if isinstance(node, ast.Call) else "elts", [])
        yield from (port for host, value in pairwise(values) if is_host(host) for port in of(value))
        yield from (port for value in named(node) for port in of(value))
    for block in (node for node in tree.body if isinstance(node, ast.If)):
        for call in (node for node in ast.walk(block) if isinstance(node, ast.Call)):
            yield from (port for value in call.args for port in of(value))


def named(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the defaults of parameters and of options of a program that are ports."""
    if isinstance(node, ast.arguments):
        parameters = [*node.posonlyargs, *node.args][::-1]
        defaults = [
            *zip(parameters, node.defaults[::-1], strict=False),
            *zip(node.kwonlyargs, node.kw_defaults, strict=True),
        ]
        yield from (value for name, value in defaults if value and name.arg == "port")
    elif isinstance(node, ast.Call) and "'--port'" in map(ast.unparse, node.args):
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "default")


def of(node: ast.expr, least: int = 1024) -> list[int]:
    """Return the number of an expression, if it may be that of a port."""
    value = node.value if isinstance(node, ast.Constant) else None
    return [value] if type(value) is int and least <= value < 65536 else []


def privileged(source: str) -> list[int]:
    """Return the numbers below 1024 that come after an address or "localhost", but for 0."""
    sequences = (
        getattr(node, "args" if isinstance(node, ast.Call) else "elts", [])
        for node in ast.walk(ast.parse(source))
    )
    found = [
        port
        for values in sequences
        for host, value in pairwise(values)
        if is_address(host)
        for port in of(value, least=1)
    ]
    return [port for port in found if port < 1024]


def is_address(node: ast.expr) -> bool:
    """Return whether an expression is an IP address, or the name that stands for one."""
    text = node.value if isinstance(node, ast.Constant) else None
    address = re.compile(r"localhost|[\d.]+|[\da-f]*:[\da-f:]*")
    return isinstance(text, str) and bool(address.fullmatch(text))


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


def test_privileged_ports() -> None:
    """No example needs the privilege to listen at a port below 1024: port 0 is any free one."""
    for page in PAGES:
        for example in shown_on(page):
            if example.suffix == ".py":
                assert privileged(example.read_text(encoding="utf-8")) == [], example.name


def test_privileged_ports_of_a_source() -> None:
    """Such a port is after an address; after another text, a number may be anything."""
    source = 'Server("localhost", 25, protocol)\nsock.bind(("127.0.0.1", 1))\nClient(("::1", 1023))'
    more = 'Server("localhost", 0)\nClient(("127.0.0.1", 1024))\npack("u", 2)\nsend(b"", 3)'
    assert sorted(privileged(f"{source}\n{more}")) == [1, 25, 1023]


def test_ports_of_a_source() -> None:
    """A port is after a host."""
    source = 'Server("localhost", 2001, protocol)\nhost, port = "::1", 2002\nsend(b"", 2003)'
    more = 'f("a b", 2004)\nClient((None, 2005))\nconnect(host, 2006)\npack("u", 2)'
    main = 'if __name__ == "__main__":\n    find_servers(2007, 1.5)'
    assert sorted(ports(f"{source}\n{more}\n{main}")) == [2001, 2002, 2005, 2006, 2007]


def test_default_ports_of_a_source() -> None:
    """A port is the default of a parameter of this name, or of an option."""
    source = "def serve(size=2001, port=2002, *, limit=2003): pass\ndef ask(*, port=2004): pass"
    more = 'add_argument("--port", default=2005)\nadd_argument("--size", default=2006)'
    assert sorted(ports(f"{source}\n{more}")) == [2002, 2004, 2005]
