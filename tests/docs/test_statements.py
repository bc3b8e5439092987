"""Test statements that several pages have in common, and those about files, commands and packages.

A sentence in quotation marks in a docstring is a quotation of one of the pages, or of a part that
pages include.
"""

from __future__ import annotations

import ast
import builtins
import dis
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs.values import with_values
from easynetwork import clients
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.servers import AsyncTCPNetworkServer, StandaloneTCPNetworkServer
from easynetwork.testing import serve
from tests.docs.howto_support import DOCS, Echo, check_quotations_in, plain
from tests.docs.sentences import PAGES, PARTS

ROOT = DOCS.parent
EXAMPLES = DOCS / "_include/examples"
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


def test_quotations() -> None:
    """A page says what the tests quote; each test quotes something."""
    check_quotations_in([plain(text) for text in TEXTS.values()], globals())


# Files

SENTENCE = re.compile(
    r"(?:This|These|The|They|It)\b[^.:]*?\b(?:is|are)\b[^.:`]*?"
    r"((?:(?:and )?:download:`[^`]*`\s*)+)([^.:]*)[.:]"
)
DOWNLOAD = re.compile(r":download:`([\w.]+)\s+<([^>]+)>`")


def pointers() -> Iterator[tuple[Path, str, list[Path], str]]:
    """Yield where a page says in which file something is: with what it includes after that."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in SENTENCE.finditer(text):
            files = [page.parent / path for _, path in DOWNLOAD.findall(match[1])]
            yield page, " ".join(match[0].split()), files, text[match.end() :]


def test_files() -> None:
    """Each file has what the page includes next, and imports what it uses.

    "This function is in server_buffered.py:" "These functions are in server_trio.py and
    server_uvloop.py:"

    "The following class and converter are part of readings.py." "They are in reading_protocols.py:"

    "The examples of this section are in writing_your_own.py, with their imports. The complete
    binary format is in binary_format.py."

    "This function is in server_options.py, with all imports:" "The classes in this section are in
    own_servers.py, with all imports."

    "It is in request_handlers.py, with all imports:" "The handlers in this section are in
    request_handlers.py."

    "The classes in this section are in server_options.py:" "This class is in own_servers.py:"

    "The functions in this section are in server_explanation.py, with all imports." "The handlers in
    the following sections are in request_handler_explanation.py, with all imports."
    """
    count = 0
    for page, sentence, files, rest in pointers():
        included = re.findall(r"literalinclude:: (\S+\.py)\n((?: +:.*\n)*)", rest)
        shown = {(page.parent / path).resolve(): options for path, options in included[:8]}
        for file in (file for file in files if file.name != "conftest.py"):
            assert file.resolve() in shown or "binary_format" in file.name, sentence
            if name := re.search(r":pyobject: (\w+)", shown.get(file.resolve(), "")):
                assert name[1] in definitions(file), sentence
            assert not missing(file), sentence
            count += 1
    assert count >= 12


def definitions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {getattr(node, "name", "") for node in tree.body}


def missing(file: Path) -> set[str]:
    """Return the global names that the functions of an example use and that it does not have."""
    name = ".".join(file.resolve().relative_to(ROOT).with_suffix("").parts)
    module = importlib.import_module(name)
    source = file.read_text(encoding="utf-8")
    waiting = [compile(source, str(file), "exec")]
    names: set[str] = set()
    while waiting:
        code = waiting.pop()
        waiting += [each for each in code.co_consts if isinstance(each, types.CodeType)]
        names |= {
            each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"
        }
    return names - vars(module).keys() - vars(builtins).keys()


def test_not_shown() -> None:
    """The page shows a function only.

    "The second program also needs import uvloop, which is not shown here."

    "The rest of the file is a server and a client."
    """
    for name, imports in ("server_trio", False), ("server_uvloop", True):
        text = (EXAMPLES / f"howto/tcp_servers/standalone/{name}.py").read_text(encoding="utf-8")
        assert ("import uvloop\n" in text) is imports
        assert "import" not in text[text.index("def main(") :]
    text = TEXTS["docs/howto/serializers.rst"].partition("The rest of the file")[2]
    [rest] = re.findall(r"caption: binary_format.py \(continued\)\n((?: +:.*\n)+)", text)[:1]
    start = re.search(r":(?:start-at|start-after|pyobject): (.+)", rest)
    assert start is not None
    source = (EXAMPLES / "howto/serializers/binary_format.py").read_text(encoding="utf-8")
    shown = source[source.index(start[1]) :]
    assert "AsyncTCPNetworkServer(" in shown
    assert "TCPNetworkClient(" in shown


def test_zone_file() -> None:
    """It is what the server of the page is started with.

    "This is the zone file."
    """
    text = TEXTS["docs/protocols/dns.rst"].partition("This is the zone file.")[2]
    [file] = re.findall(r"literalinclude:: (\S+)", text)[:1]
    assert f"python dns_server.py {Path(file).name}\n" in text


# Commands and packages


def on_windows(command: str) -> str:
    """Return what a command about a virtual environment is on Windows."""
    if made := re.fullmatch(r"python3 -m venv (\S+)", command):
        return "py -m venv " + made[1].replace("/", "\\")
    activated = re.fullmatch(r"\. (\S+)/bin/activate", command)
    assert activated is not None
    return activated[1].replace("/", "\\") + r"\Scripts\activate"


def test_windows() -> None:
    r"""The commands for Windows use the same folder as the others.

    "On Windows, the first two commands are py -m venv venv and venv\Scripts\activate."

    "On Windows, the first two commands are py -m venv ..\tutorials\venv and
    ..\tutorials\venv\Scripts\activate."

    "Get a clone of this repository, change into it, and install it in a virtual environment:"

    "Get a clone of its repository, change into it, and install it in a virtual environment:"

    "On Windows, type ..\venv\Scripts\activate instead."
    """
    count = 0
    for text in TEXTS.values():
        for match in re.finditer(
            r"On Windows, (?:the first two commands are|type) ([^.]\S.*)", text
        ):
            said = re.findall(r"`+([^`]+)`+", match[1])
            before = re.findall(r"^ *\$ (.*)$", text[: match.start()], re.MULTILINE)
            block = [each for each in before if "venv" in each][-len(said) :]
            assert [on_windows(each) for each in block] == said[: len(block)]
            assert block
            count += 1
    assert count == 5
    install = r"\$ python3 -m venv venv\n *\$ \. venv/bin/activate\n *\$ pip install \.\n"
    for page in "README.md", "docs/index.rst":
        assert re.search(install, TEXTS[page].partition("Get a clone of")[2])


def test_setup() -> None:
    """The tutorials need what the project needs, and what their commands name.

    "You need Python 3.11 or newer, two terminals, and a copy of the repository. In the first
    terminal, change to the folder of the copy. Create a virtual environment for the tutorials next
    to it, activate it, and install easynetwork there:"

    "[trio] also installs trio. Leave it out if you do not choose the variants named trio."
    """
    [setup] = [page for page in PARTS if page.name == "tutorial-setup.rst"]
    commands = re.findall(r"\$ (.*)", with_values(setup.read_text(encoding="utf-8")))
    assert commands == [
        "python3 -m venv ../tutorials/venv",
        ". ../tutorials/venv/bin/activate",
        'pip install ".[trio]"',
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"
    assert any(each.startswith("trio") for each in project["optional-dependencies"]["trio"])
    for page, text in TEXTS.items():
        if setup.name in text:
            captions = {*re.findall(r":caption: (\w+ terminal)", text)}
            assert captions == {"First terminal", "Second terminal"}
            files = (EXAMPLES / "tutorials" / Path(page).stem).glob("*.py")
            with_trio = {each.stem for each in files if re.search(r"\btrio\b", each.read_text())}
            assert with_trio
            assert all(name.endswith("_trio") for name in with_trio)


def test_variants() -> None:
    """A variant that has several groups of tabs on a page is the same one in all of them.

    "Some tasks can be done in several ways: asynchronous or blocking, on asyncio or on trio. Each
    variant has its own tab. Pick one, and all matching tabs on the page follow."
    """
    [part] = [page for page in PARTS if page.name == "sync-async-variants.rst"]
    several = set()
    for page, text in TEXTS.items():
        if part.name in text and page != part.relative_to(ROOT).as_posix():
            groups = re.findall(r"\.\. group-tab:: (.+)", text)
            assert len(groups) > len({*groups}) or len({*groups}) > 1, page
            several |= {name.lower() for name in groups}
            single = re.findall(r"\.\. tab:: (.+)", text)  # which follow no other tab
            assert len({*single}) == len(single), page
            assert {*single}.isdisjoint(groups), page
    assert several >= {"asynchronous", "blocking", "asyncio", "trio"}


@pytest.mark.parametrize(
    ("program", "package"), [("dig", "bind9-dnsutils"), ("redis-cli", "redis-tools")]
)
def test_packages(program: str, package: str) -> None:
    """On Debian and Ubuntu, the programs are in these packages.

    "dig is in the package bind9-dnsutils or bind-utils of your system."

    "On Debian and Ubuntu, redis-cli is in the package redis-tools"
    """
    path = shutil.which(program)
    if path is None or shutil.which("dpkg") is None:
        pytest.skip("the program is not installed by dpkg")
    command = ["dpkg", "-S", str(Path(path).resolve())]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        pytest.skip("the program is not installed by dpkg")
    assert done.stdout.partition(":")[0] == package
    assert sys.platform == "linux"


# What pages have


def test_elsewhere() -> None:
    """There are such pages, and such parts of a page.

    "For socketserver, there is a page of its own."

    "Before the messages, there are answers to common questions." "These are the common reasons:"

    "howto-address-in-use has the details, and howto-stale-paths is about Unix sockets, whose files
    stay when a process is killed."
    """
    assert "\nsocketserver" in TEXTS["docs/howto/socketserver.rst"].partition("***")[2]
    text = TEXTS["docs/troubleshooting.rst"]
    assert text.partition("These are the common reasons:")[2].startswith("\n\n* ")
    assert text.index("\n-----", text.index("?\n---")) < text.index(".. message::")
    assert ".. _howto-address-in-use:" in TEXTS["docs/howto/tcp_servers.rst"]
    section = TEXTS["docs/howto/unix_servers.rst"].partition(".. _howto-stale-paths:")[2]
    assert "killed" in plain(section)[:600]


def test_counts() -> None:
    """There are as many as the pages say.

    "You can set a timeout in two ways."

    "There are two classes of UDP clients." "There are two clients for TCP:"

    "Here are three bugs that tests on real sockets seldom find:"

    "Follow two rules:" "Follow five rules:" "These are the three most useful ones."

    "Forking has two traps:" "It has two parts:" "It has two methods:"

    "Create a certificate in the folder of the two programs"
    """
    text = TEXTS["docs/howto/starttls.rst"]
    assert len({*re.findall(r"literalinclude:: .*/(\w+\.py)$", text, re.MULTILINE)}) == 2
    for page, sentence, count in (
        ("howto/advanced/standalone_servers", "Follow two rules:", 2),
        ("howto/serializers", "Follow five rules:", 5),
        ("howto/socketserver", "Forking has two traps:", 2),
        ("howto/protocols", "It has two parts:", 2),
        ("howto/converters", "It has two methods:", 2),
    ):
        after = TEXTS[f"docs/{page}.rst"].partition(sentence)[2]
        assert after, sentence
        items = re.match(r"\n\n(?:\* .*\n(?: {2}.*\n|\n)*)+", after)
        assert items is not None, sentence
        assert len(re.findall(r"^\* ", items[0], re.MULTILINE)) == count
    own_servers = TEXTS["docs/howto/socketserver.rst"].partition("the three most useful ones")[2]
    listings = own_servers.partition("\n====")[0]
    assert len({*re.findall(r":pyobject: (\w+)", listings)}) >= 3
    for page in "tcp", "udp":
        names = {
            name
            for name in dir(clients)
            if re.fullmatch(rf"(Async)?{page.upper()}NetworkClient", name)
        }
        assert len(names) == 2
    for page in "docs/howto/tcp_servers.rst", "docs/howto/udp_servers.rst":
        text = TEXTS[page]
        if ways := text.partition("set a timeout in two ways")[2]:
            assert re.findall(r"\.\. tab:: (\w+)", ways[:1500]) == ["Using", "Using"]
    bugs = TEXTS["docs/howto/testing.rst"].partition("Here are three bugs")[2]
    assert len(re.findall(r"^\* ", bugs.partition("\n===")[0], re.MULTILINE)) == 3


def test_benchmarks() -> None:
    """All of them use the loopback interface, and count the pages of the process.

    "Client and server communicate over the loopback interface. The benchmarks do not measure a
    network card, its interrupts, or the latency of a network."

    "It does not include the memory of the kernel for a socket, which is the same for all
    contenders."
    """
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").rglob("*.py")]
    assert {*re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", "".join(sources))} == {"127.0.0.1"}
    process = (ROOT / "benchmarks/process.py").read_text(encoding="utf-8")
    assert "Rss" in process
    assert "smaps_rollup" in process


def test_fixtures() -> None:
    """They are in the file, and the tests of the page that need them take them.

    "Here, the two contexts are fixtures of the conftest.py."

    "Those that are marked with pytest.mark.anyio run twice, on asyncio and on trio"
    """
    tests = (EXAMPLES / "howto/testing/conftest.py").read_text(encoding="utf-8")
    found = re.findall(r"@pytest.fixture\ndef (\w+_context)\(", tests)
    assert sorted(found) == ["client_context", "server_context"]
    folder = EXAMPLES / "protocols/redis/miniredis"
    text = (folder / "test_server.py").read_text(encoding="utf-8")
    assert "pytestmark = pytest.mark.anyio" in text
    assert not [file for file in folder.glob("*.py") if "def anyio_backend" in file.read_text()]
    module: Any = importlib.import_module("anyio.pytest_plugin")
    backends = inspect.unwrap(module.get_available_backends)()
    assert {*backends} >= {"asyncio", "trio"}


# Servers and clients


def test_same_handler() -> None:
    """One handler object is right for both kinds of servers.

    "The request handler does not change: it is a class with an asynchronous handle() method, and
    everything that the two other pages say about request handlers also applies here."
    """
    protocol: Any = StreamProtocol(StringLineSerializer())
    handler = Echo()
    for server_class in AsyncTCPNetworkServer, StandaloneTCPNetworkServer:
        server_class("127.0.0.1", 0, protocol, handler, backend="asyncio")
    assert inspect.isasyncgenfunction(Echo.handle)


@pytest.mark.anyio
async def test_no_bytes() -> None:
    """A client sends and receives packets, a peer without a protocol object gets the bytes.

    "You never see the bytes: a protocol object, of the same kind as the server's, encodes the
    packets that you send and decodes the bytes that arrive."
    """
    protocol: Any = StreamProtocol(JSONSerializer())
    async with serve(Echo(), protocol) as served:
        client, raw = await served.connect(), await served.connect(raw=True)
        await client.send_packet({"name": "Zoë"})
        assert await client.recv_packet() == {"name": "Zoë"}
        await raw.send(b'{"name": "x"}\n')
        assert isinstance(await raw.receive(), bytes)


# The reference


def documented(page: str) -> tuple[set[str], set[str]]:
    """Return the modules and the classes whose members a page of the reference has."""
    text = (DOCS / f"api/{page}.rst").read_text(encoding="utf-8")
    found: dict[str, set[str]] = {"module": set(), "class": set()}
    for kind, name, options in re.findall(
        r"^\.\. auto(module|class|function):: ([\w.]+).*\n((?:   :.*\n)*)", text, re.MULTILINE
    ):
        if ":members:" in options or kind == "function":
            found.setdefault(kind, set()).add(name)
    return found["module"], found["class"] | found.get("function", set())


def test_reference() -> None:
    """The reference has all members of these classes and modules.

    "All parameters and methods of the server." "All parameters and methods of the servers."

    "All parameters and methods of the clients."

    "All methods of the client object." "All methods and errors." "All attributes."

    "All functions, with their parameters and errors." "The base classes." "All methods."
    """
    folder = ROOT / "src/easynetwork"
    for page, pattern in (
        ("servers/async_servers", "servers/async_[tu]*.py"),
        ("servers/standalone_servers", "servers/standalone_[tu]*.py"),
        ("clients", "clients/[atu]*_*.py"),
    ):
        modules = {
            ".".join(file.relative_to(folder.parent).with_suffix("").parts)
            for file in folder.glob(pattern)
        }
        assert len(modules) >= 4
        assert modules <= documented(page)[0], page
    classes = {name.rpartition(".")[2] for name in documented("servers/handlers")[1]}
    modules, statistics = documented("servers/async_servers")
    attributes = {name.rpartition(".")[2] for name in statistics | documented("servers/abc")[1]}
    assert {"StreamStatistics", "CloseReason"} <= attributes
    everything = "".join(file.read_text() for file in (DOCS / "api").rglob("*.rst"))
    for name in "AsyncStreamClient", "ClientGroup", "ClientStatistics":
        assert re.search(rf"\.{name}(?:\(\))?\n   :members:", everything) or name in classes
    text = (DOCS / "api/testing.rst").read_text(encoding="utf-8")
    named = re.findall(r"^\.\. auto\w+:: easynetwork\.\w+\.(\w+)", text, re.MULTILINE)
    assert {*named} >= {*importlib.import_module("easynetwork.testing").__all__}
    assert documented("protocol")[0] >= {"easynetwork.converter", "easynetwork.protocol"}


# The tutorials


def test_terminals() -> None:
    """Each command is in the terminal that the sentence before it names.

    "Run the client in the second terminal:"

    "Leave the server running, and start Python in the second terminal (python,
    without a file name). You use the client from there, as a client program would."

    "Continue in the same Python interpreter"

    "Now press Control-C in the first terminal:" "Press Control-C in the first terminal:"
    """
    for page, text in TEXTS.items():
        if "docs/tutorials/" in page:
            parts = text.split("Run the client in the second terminal")[1:]
            assert len(parts) == 3
            for part in parts:
                block = re.search(r":caption: (.*)\n\n +(.*)\n", part)
                assert block is not None
                assert block[1] == "Second terminal"
                assert re.match(r"\$ python client_", block[2])
            for sentence, terminal, prompt in (
                ("Leave the server running, and start", "Second terminal", ">>> "),
                ("Continue in the same Python interpreter", "Second terminal", ">>> "),
                ("ress :kbd:`Control-C` in the first terminal", "First terminal", "^C"),
            ):
                block = re.search(r":caption: (.*)\n\n((?: +.*\n)+)", text.partition(sentence)[2])
                assert block is not None, sentence
                assert block[1] == terminal
                assert re.search(rf"^ +{re.escape(prompt)}", block[2], re.MULTILINE)
