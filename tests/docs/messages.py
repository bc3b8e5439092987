"""The messages of the library: what its source logs and raises, as a page shows them.

They are found in the syntax tree: the text of each call of a logger, and of each exception that is
made. A name may stand for the text (``message = "..."``), with more than one meaning. Placeholders
of both kinds, ``%s`` and ``{name}``, become ``...``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

SOURCE = Path(__file__).resolve().parents[2] / "src/easynetwork"

LEVELS = {
    "debug": "DEBUG",
    "info": "INFO",
    "limit": "INFO",
    "level": "INFO",
    "connection_log_level": "INFO",
    "warning": "WARNING",
    "fault": "WARNING",
    "error": "ERROR",
}

# The names of exceptions, and of functions that raise one with the text that they are given.
EXCEPTION = re.compile(r"\w*(Error|ExceptionGroup|Running|Operation)|[a-z.]*\.gaierror")
HELPERS = {"_check_open": "ServerClosedError"}

Names: TypeAlias = dict[str, list[str]]
"""The texts that names stand for."""


class Message(NamedTuple):
    """A message.

    Attributes:
        kind: The level of a line of the log, or the class of an exception.
        text: The text, with ``...`` for what differs.
        file: Where it is, below the package.
    """

    kind: str
    text: str
    file: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def messages_of_source() -> Iterator[Message]:
    """Yield all messages; one that is in several places comes several times."""
    for path in sorted(SOURCE.rglob("*.py")):
        file = path.relative_to(SOURCE).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants: Names = {}
        for statement in tree.body:
            note_assignment(statement, constants)
        for kind, text in messages_of_node(tree, constants):
            yield Message(kind, text, file)


def messages_of_node(node: ast.AST, names: Names) -> Iterator[tuple[str, str]]:
    """Yield the messages in a node; note in `names` what it assigns."""
    if isinstance(node, ast.Call) and (kind := kind_of(node)):
        for text in texts_of_call(node, names):
            yield kind, text
    for _, value in ast.iter_fields(node):
        if not isinstance(value, list):
            if isinstance(value, ast.AST):
                yield from messages_of_node(value, names)
        elif any(isinstance(item, ast.stmt | ast.ExceptHandler) for item in value):
            inner = {name: [*texts] for name, texts in names.items()}
            for item in value:
                yield from messages_of_node(item, inner)
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                # Afterwards, a name may have the meaning of any branch.
                for name, texts in inner.items():
                    known = names.setdefault(name, [])
                    known += (text for text in texts if text not in known)
        else:
            for item in value:
                if isinstance(item, ast.AST):
                    yield from messages_of_node(item, names)
    note_assignment(node, names)


def note_assignment(node: ast.AST, names: Names) -> None:
    """Note the texts that a statement gives to names."""
    if isinstance(node, ast.Assign):
        targets, value = node.targets, node.value
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        targets, value = [node.target], node.value
    else:
        return
    for target in targets:
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = [*zip(target.elts, value.elts, strict=False)]
        for name, part in pairs:
            if isinstance(name, ast.Name):
                names[name.id] = texts_of(part, names)


def kind_of(call: ast.Call) -> str | None:
    """Return the level or the class of what a call logs or makes; None if it does neither."""
    function = ast.unparse(call.func)
    owner, _, name = function.rpartition(".")
    if (re.search("log", owner, re.IGNORECASE) or function == "self.log") and (
        name in LEVELS or name == "log"
    ):
        level = next((item.value for item in call.keywords if item.arg == "level"), None)
        level = call.args[0] if name == "log" else level
        return LEVELS[name] if level is None else level_of(level)
    if name == "_log" and call.args:  # the method of a logger that a component was given
        return level_of(call.args[0])
    if name in HELPERS:
        return HELPERS[name]
    return name if EXCEPTION.fullmatch(name) or EXCEPTION.fullmatch(function) else None


def level_of(node: ast.expr) -> str:
    """Return the level that an expression stands for."""
    name = ast.unparse(node).rpartition(".")[2]
    return LEVELS.get(name, name)


def texts_of_call(call: ast.Call, names: Names) -> Iterable[str]:
    """Return the texts of the first argument that has any: a level or a number may be before it."""
    for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
        if texts := texts_of(argument, names):
            return [text for text in map(tidy, texts) if re.search(r"[a-zA-Z]{3}", text)]
    return []


def texts_of(node: ast.AST, names: Names) -> list[str]:
    """Return the texts that an expression may stand for; none if it is not about text."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return joined([texts_of(part, names) or ["..."] for part in parts])
        case ast.FormattedValue(value=ast.Name(id=name), conversion=-1):
            return [text for text in names.get(name, []) if " " in text]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            sides = [texts_of(left, names), texts_of(right, names)]
            return joined([side or ["..."] for side in sides]) if any(sides) else []
        case ast.IfExp(body=body, orelse=orelse):
            return texts_of(body, names) + texts_of(orelse, names)
        case ast.Name(id=name):
            return names.get(name, [])
    return []


def joined(parts: Iterable[list[str]]) -> list[str]:
    """Return all texts that consist of one of each of several lists."""
    texts = [""]
    for part in parts:
        texts = [before + text for before in texts for text in part]
    return texts


def tidy(text: str) -> str:
    """Return a text as pages show it."""
    text = re.sub(r"%(\.\d+)?[sdrfgx]", "...", text)
    return re.sub(r"\.{3,}", "...", " ".join(text.split()))
