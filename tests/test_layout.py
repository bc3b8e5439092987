"""The budgets of the source, so that they stay true: sizes, layers, docstrings, test modules."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import io
import re
import sys
import tokenize
from collections.abc import AsyncGenerator, Callable, Iterator
from importlib.util import resolve_name
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_bytes()) for name, path in MODULES.items()}

FILE_LINES = 400
FUNCTION_LINES = 40
PARAMETERS = 8
CLASSES_IN_MRO = 2
CODE_LINES = 13_472
TESTING_CODE_LINES = 1_750  # what only tests import
ECHO_FUNCTIONS = 15
ECHO_FILES = 8

# A room imports only itself and rooms before it; servers and clients do not know each other.
ROOMS = (
    *("_typevars", "_lazy", "exceptions", "addresses", "_tuning", "_episode", "_extras"),
    *("_arguments", "_forks", "serializers", "converter", "protocol", "parsers", "decoder"),
    *("codec", "tls", "_tls_options", "sockets", "backends", "servers", "clients"),
    *("socketserver", "testing"),
)
STRANGERS = {("clients", "servers")}

# Only where they are asked for: a function may import them, nothing else needs them.
# `anyio.from_thread` costs a tenth of the start, and few programs want a portal.
OPTIONAL = (
    *("trio", "uvloop", "cbor2", "msgpack", "easynetwork.backends.trio"),
    *("anyio.from_thread", "easynetwork.testing._virtual_trio"),
)
# What may be imported at the top of a module, by package.
THIRD_PARTY = {
    "easynetwork.backends.trio": {"anyio", "outcome", "trio"},  # a part of trio's interface
    "easynetwork.testing._virtual_trio": {"trio"},
    "easynetwork.testing.plugin": {"anyio", "pytest"},
    "easynetwork": {"anyio"},
}

# Constructors that have more than `PARAMETERS`, because the documented API has.
LONG_CONSTRUCTORS = {
    "AsyncTCPNetworkClient",
    "AsyncTCPNetworkServer",
    "AsyncUnixDatagramServer",
    "AsyncUnixStreamClient",
    "AsyncUnixStreamServer",
    "JSONSerializer",
    "LengthPrefixedSerializer",
    "StandaloneTCPNetworkServer",
    "StandaloneUDPNetworkServer",
    "StandaloneUnixDatagramServer",
    "StandaloneUnixStreamServer",
    "TCPNetworkClient",
    "UnixStreamClient",
}
# The documented API fixes an exception's bases, a promise to those who catch it, and the steps from
# one-shot to buffered.
LONG_MRO = {"LimitOverrunError", "StapledBufferedIncrementalPacketSerializer"}

# It mirrors the classes of the standard module, which derive from each other.
LONG_MRO_MODULES = ("easynetwork.socketserver",)

# Tested by the conformance suite, which serves real connections on every backend.
CONFORMANCE = ("easynetwork.backends.", "easynetwork.servers.")

# Rooms whose modules only the library imports, and the modules in them that are for users, too.
INTERNAL = tuple(
    f"easynetwork.{name}"
    for name in (
        *("backends", "codec", "decoder", "parsers", "serializers.framing.framers", "sockets"),
        "tls",
    )
)
EXPORTING = (
    *("easynetwork.backends", "easynetwork.backends.abc", "easynetwork.backends.registry"),
    "easynetwork.sockets",
)


def functions(tree: ast.AST) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield the functions of a module with their class's name, if they are methods."""
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield (parent.name if isinstance(parent, ast.ClassDef) else ""), child


def imports(module: str, tree: ast.AST) -> Iterator[str]:
    """Yield the absolute names of the modules, or their members, that some code imports."""
    package = module if MODULES[module].stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            origin = resolve_name(base, package) if node.level else base
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def within(name: str, packages: tuple[str, ...]) -> bool:
    """Return whether a module or member is one of some packages, or in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def room(name: str) -> str:
    """Return the part of easynetwork that a module is in, "" for its front door."""
    return name.partition(".")[2].partition(".")[0]


def is_for_users(name: str) -> bool:
    """Return whether users import from a module: then it says what of it is public."""
    return is_public(name) and (name in EXPORTING or not within(name, INTERNAL))


def is_public(name: str) -> bool:
    """Return whether no part of a module's name begins with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))


def each_module(check: Callable[[str], None]) -> Callable[[], None]:
    """Make one test of what holds for each module; it names those for which it does not.

    A test for each of them would cost more than to look at it.
    """

    def test() -> None:
        wrong = []
        for name in MODULES:
            try:
                check(name)
            except AssertionError as exc:
                wrong.append(f"{name}: {exc}")
        assert wrong == []

    test.__name__, test.__qualname__, test.__doc__ = check.__name__, check.__name__, check.__doc__
    return test


@each_module
def test_file_size(name: str) -> None:
    """A file can be read in one go."""
    assert len(MODULES[name].read_text().splitlines()) <= FILE_LINES


@each_module
def test_function_size(name: str) -> None:
    """A function fits on a page, its docstring apart."""
    for _, function in functions(TREES[name]):
        code = function.body[bool(ast.get_docstring(function)) :]
        lines = (code[-1].end_lineno or 0) - code[0].lineno + 1 if code else 0
        assert lines <= FUNCTION_LINES, f"{function.name}: {lines} lines"


def code_lines(name: str) -> set[int]:
    """Return the lines of a module that are neither imports, docstrings, comments nor blank."""
    others: set[int] = set()
    for node in ast.walk(TREES[name]):
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and (
            is_docstring or isinstance(node, ast.Import | ast.ImportFrom)
        ):
            others.update(range(node.lineno, (node.end_lineno or 0) + 1))
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(MODULES[name].read_text()).readline):
        if token.type not in blank and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - others


def test_code_lines() -> None:
    """The whole can be known by one person, and so can what is only for tests."""
    sizes = {name: len(code_lines(name)) for name in MODULES}
    testing = sum(size for name, size in sizes.items() if room(name) == "testing")
    assert sum(sizes.values()) - testing <= CODE_LINES
    assert testing <= TESTING_CODE_LINES


class Echo(AsyncStreamRequestHandler[str, str]):
    async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
        request = yield
        await client.send_packet(request)


@pytest.mark.asyncio
async def test_echo() -> None:
    """A request is read, answered and waited for again by few functions in few files."""
    crossed: set[tuple[str, str]] = set()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(SOURCE)):
            crossed.add((code.co_filename, code.co_qualname))

    server = AsyncTCPNetworkServer("127.0.0.1", 0, StreamProtocol(StringLineSerializer()), Echo())
    async with server, asyncio.TaskGroup() as tasks:
        is_up = asyncio.Event()
        tasks.create_task(server.serve_forever(is_up_event=is_up))
        await is_up.wait()
        reader, writer = await asyncio.open_connection(*server.get_addresses()[0])
        try:
            for is_traced in (False, True):  # the first request begins the session
                sys.setprofile(profile if is_traced else None)
                writer.write(b"hello\n")
                assert await reader.readline() == b"hello\n"
        finally:
            sys.setprofile(None)
            writer.close()
            await server.shutdown()
    assert 0 < len(crossed) <= ECHO_FUNCTIONS, crossed
    assert len({file for file, _ in crossed}) <= ECHO_FILES, crossed


@each_module
def test_parameters(name: str) -> None:
    """A call can be remembered, but for the constructors of the documented API."""
    for owner, function in functions(TREES[name]):
        arguments = function.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        count = len([argument for argument in named if argument.arg not in ("self", "cls")])
        if not (function.name == "__init__" and owner in LONG_CONSTRUCTORS):
            assert count <= PARAMETERS, f"{owner}.{function.name}: {count} parameters"


@each_module
def test_imports_in_functions(name: str) -> None:
    """What a module needs stands at its top; a function imports optional dependencies only."""
    for _, function in functions(TREES[name]):
        for imported in imports(name, function):
            assert within(imported, OPTIONAL), f"{function.name} imports {imported}"


def test_map() -> None:
    """The map of the modules is in import order, and names all of them."""
    text = (ROOT / "src/easynetwork/__init__.py").read_text(encoding="utf-8")
    named = re.findall(r"^\* `easynetwork\.(\w+)`", text, re.MULTILINE)
    assert sorted(named) == sorted(name for name in ROOMS if not name.startswith("_"))
    order = [ROOMS.index(name) for name in named]
    assert order == sorted(order), named


@each_module
def test_layers(name: str) -> None:
    """A room imports only rooms above it."""
    for imported in imports(name, TREES[name]):
        if not within(imported, ("easynetwork",)) or imported == "easynetwork.__version__":
            continue
        ours, theirs = room(name), room(imported)
        assert ours in ROOMS, f"which room is {name} in?"
        assert ROOMS.index(theirs) <= ROOMS.index(ours), f"{ours} imports {imported}"
        assert (ours, theirs) not in STRANGERS, f"{ours} imports {imported}"


@each_module
def test_third_party_imports(name: str) -> None:
    """The one dependency is anyio; trio's backend has trio."""
    package = next(package for package in THIRD_PARTY if within(name, (package,)))
    known = {*sys.stdlib_module_names, "easynetwork", "_typeshed"} | THIRD_PARTY[package]
    inside = {at for _, function in functions(TREES[name]) for at in imports(name, function)}
    for imported in {*imports(name, TREES[name])} - inside:
        assert imported.partition(".")[0] in known


@each_module
def test_docstring_and_all(name: str) -> None:
    """A module says what it is for, and what of it is public."""
    assert ast.get_docstring(TREES[name])
    if is_for_users(name):
        module = importlib.import_module(name)
        # The packages of one backend's classes have nothing to hand out themselves.
        empty = MODULES[name].stem == "__init__" and len(TREES[name].body) == 1
        assert empty or all(hasattr(module, member) for member in module.__all__)


@each_module
def test_inheritance(name: str) -> None:
    """Classes are composed: at most two of ours in an MRO, besides what is only an interface."""
    if within(name, LONG_MRO_MODULES):
        return
    module = importlib.import_module(name)
    for cls in vars(module).values():
        if not inspect.isclass(cls) or cls.__module__ != name or cls.__name__ in LONG_MRO:
            continue
        ours = [base for base in cls.__mro__ if within(base.__module__, ("easynetwork",))]
        concrete = [base.__name__ for base in ours if not is_interface(base)]
        assert len(concrete) <= CLASSES_IN_MRO, f"{cls.__name__}: {concrete}"


def is_interface(cls: type) -> bool:
    """Return whether a class is there to be implemented: an ABC or a typing.Protocol."""
    return inspect.isabstract(cls) or getattr(cls, "_is_protocol", False)


@each_module
def test_has_tests(name: str) -> None:
    """A module has a test module of the same name, in the same place."""
    path = MODULES[name].relative_to(SOURCE / "easynetwork")
    conformance = ROOT / "tests" / "conformance"
    if path.stem == "__init__" or not is_public(name):
        return
    if name.startswith(CONFORMANCE) and [*conformance.rglob("test_*.py")]:
        return
    assert (ROOT / "tests" / path.with_name(f"test_{path.name}")).exists()


def test_rooms_are_in_the_front_door() -> None:
    """The package's docstring is the map of the house, in the order of the rooms."""
    text = ast.get_docstring(TREES["easynetwork"])
    assert text is not None
    rooms = [name for name in ROOMS if room_exists(name) and is_public(name)]
    found = [text.find(f"`easynetwork.{name}`") for name in rooms]
    assert -1 not in found
    assert all(one < other for one, other in pairwise(found))


def room_exists(name: str) -> bool:
    """Return whether there is such a part of easynetwork yet."""
    return f"easynetwork.{name}" in MODULES
