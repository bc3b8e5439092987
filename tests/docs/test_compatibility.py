"""Compare the page about compatibility with the project's files, and with the package.

As in `test_howto_tcp_servers`, a sentence in quotation marks in a docstring is a quotation of the
page.
"""

from __future__ import annotations

import ast
import enum
import importlib
import importlib.resources
import re
import runpy
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import easynetwork
from easynetwork import exceptions
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import JSONSerializer
from easynetwork.servers import AsyncTCPNetworkServer, CloseReason, limits
from easynetwork.servers.handlers import AsyncStreamClient
from easynetwork.sockets import patience
from tests.conftest import BACKENDS
from tests.docs.howto_support import DOCS, Echo, check_quotations, table, words
from tests.times import PATIENCE
from tests.wasm.selection import SELECTED

PAGE = "compatibility.rst"
REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REFERENCE = "".join(
    file.read_text(encoding="utf-8") for file in sorted((DOCS / "api").rglob("*.rst"))
)


def test_quotations() -> None:
    """Check that the page contains all quotations, and that each test quotes it."""
    check_quotations(PAGE, globals())


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_versions_of_python() -> None:
    """The table has the versions that the package declares, which are those that CI runs.

    "easynetwork needs CPython 3.11 or newer. The tests run on each of these versions"
    """
    declared = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    rows = table(PAGE, "Python", "Tests")
    assert [version for version, _ in rows] == declared
    assert PROJECT["requires-python"] == f">={declared[0]}"
    assert "Programming Language :: Python :: " in text_of(".ci/run")
    eager = [version for version, tests in rows if "eager tasks" in tests]
    assert eager == [version for version in declared if version != "3.11"]
    ids = [param.id for param in BACKENDS]  # type: ignore[attr-defined]
    assert ("asyncio-eager" in ids) == (sys.version_info >= (3, 12))
    assert f'"--python-version={declared[-1]}"' in text_of("noxfile.py")
    assert "WebAssembly" in dict(rows)["3.14"]
    assert 'part tests-lowest "${pythons[1]}"' in text_of(".ci/run")
    assert "lowest" in dict(rows)["3.11"]


def test_types() -> None:
    """The marker is in the package, and all other files are modules; CI knows one interpreter.

    "PyPy, free-threaded builds of CPython and subinterpreters have never been tried. easynetwork is
    written in Python alone, and a type checker finds its annotations: the package contains the
    marker py.typed."
    """
    assert importlib.resources.files(easynetwork).joinpath("py.typed").is_file()
    files = [path for path in (REPOSITORY / "src").rglob("*") if path.is_file()]
    compiled = {".pyc"}
    assert {path.suffix for path in files} - compiled == {".py", ".typed"}
    for name in ".ci/run", "noxfile.py", "pyproject.toml":
        assert not re.search(r"pypy|free.?thread|\b3\.\d+t\b|subinterp", text_of(name), re.I), name


def test_event_loops() -> None:
    """The tests run on those that the table says.

    "Without backend, asynchronous servers and clients use the framework that runs them."
    """
    tested = [loop for loop, tests, _ in table(PAGE, "Event loop", "Tests") if tests == "yes"]
    assert tested == ["asyncio, its default loop", "uvloop", "trio"]
    ids = {param.id for param in BACKENDS}  # type: ignore[attr-defined]
    assert ids - {"asyncio-eager"} == {"asyncio", "uvloop", "trio"}


@pytest.mark.anyio
async def test_backend_of_the_loop(anyio_backend_name: str) -> None:
    """Nothing has to be said.

    "use the framework that runs them"
    """
    protocol: Any = StreamProtocol(JSONSerializer())
    async with AsyncTCPNetworkServer("127.0.0.1", 0, protocol, Echo()) as server:
        assert anyio_backend_name in type(server.backend()).__module__


def test_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other pages say the same of Windows.

    "The tests run on Linux only. macOS, the BSD systems and Windows have never been tried."

    "reuse_port=True raises ValueError on Windows."

    "max_clients="auto" is 10,000 on Windows, because sockets are not descriptors there."

    "Unix sockets do not exist on Windows. Abstract names exist only on Linux."

    "keepalive sets only the options of TCP that the platform has."
    """
    assert "Windows have never been tried" in words("api/backends.rst")
    assert "On Windows, this raises ValueError" in words("howto/tcp_servers.rst")
    assert "None of this is available on Windows" in words("howto/unix_servers.rst")
    assert "as far as the platform has these options" in " ".join(
        str(limits.Limits.__doc__).split()
    )
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it fails, as on Windows
    elsewhere = runpy.run_path(str(limits.__file__))
    assert elsewhere["Limits"]().in_force().max_clients == 10_000


def test_excluded_platforms() -> None:
    """Of all modules, those for Unix sockets refuse to be imported on some platform.

    "Nothing in the code excludes them, but expect to find errors there"
    """
    refusing = []
    for file in (REPOSITORY / "src").rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        if "sys.platform" in source or "os.name" in source:
            refusing += [
                file.name
                for node in ast.parse(source).body
                if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise)
            ]
    assert refusing == ["unix.py"]


def test_webassembly() -> None:
    """Tests of these run there, and no others.

    "In WebAssembly (Pyodide), there are no sockets."

    "Serializers, converters and protocol objects work, and so do converse() and serve() for tests."
    """
    for name in (
        *("tests/serializers", "tests/test_converter.py", "tests/test_protocol.py"),
        *("tests/testing/test_conversation.py", "tests/testing/test_serving.py"),
    ):
        assert name in SELECTED
    assert not [name for name in SELECTED if re.match(r"tests/(sockets|clients|conform)", name)]


def test_dependencies() -> None:
    """The bounds are those of the project.

    "everything; the only package that is always needed"

    "The lower bounds are tested."

    "The optional packages of a clone have names: pip install"

    ".[trio,uvloop,cbor,msgpack]"
    """
    extras = PROJECT["optional-dependencies"]
    (required,) = PROJECT["dependencies"]
    declared = [required, *(requirement for (requirement,) in extras.values())]
    bounds = [re.fullmatch(r"(\w+)([^;]+)(;.*)?", requirement) for requirement in declared]
    shown = [(name, versions) for name, versions, _ in table(PAGE, "Package", "Versions")]
    assert shown == [(match[1], match[2]) for match in bounds if match]
    (uvloop,) = extras["uvloop"]
    assert "CPython" in uvloop
    assert "!= 'win32'" in uvloop
    assert f'".[{",".join(extras)}]"' in words(PAGE)


def test_public_names() -> None:
    """The reference lists no module, and nothing exports a name, that has an underscore in front.

    "A name is public if the reference lists it. All other names may change without notice"

    "modules, classes and attributes whose names begin with an underscore"

    "modules that the reference does not list, even if they have no underscore."

    "In the reference, each class begins with the statement that imports it."
    """
    listed = re.findall(r"automodule:: (\S+)", REFERENCE)
    assert "easynetwork.serializers.json" in listed
    assert "easynetwork.decoder" not in listed
    for name in listed:
        if name != "easynetwork._tuning":  # it explains numbers, and has nothing to import
            assert not any(part.startswith("_") for part in name.split(".")), name
            module = importlib.import_module(name)
            assert not [public for public in getattr(module, "__all__", ()) if public[0] == "_"]
    assert "def show_import" in (DOCS / "conf.py").read_text(encoding="utf-8")
    assert "Names that are not listed here are not part of the interface" in words("api/index.rst")


def test_classes_in_place_of_texts() -> None:
    """There are classes for errors, and members of an enumeration for ends.

    "The texts of exceptions and log lines are not part of the interface: errors have classes, and
    the ends of connections have a CloseReason."
    """
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), Exception)
    assert issubclass(CloseReason, enum.Enum)
    assert AsyncStreamClient.__annotations__["close_reason"] == "CloseReason | None"


def test_version() -> None:
    """It begins with 0, and the file of changes says which scheme it follows.

    "The version numbers follow semantic versioning. easynetwork.__version__ is the version."

    "project/changes lists what changed."

    "As long as the version begins with 0, a version such as 0.2.0 may change public names."
    """
    assert re.fullmatch(r"0\.(0|[1-9]\d*)\.(0|[1-9]\d*)", easynetwork.__version__)
    assert "Versions: [semantic](https://semver.org/)" in text_of("CHANGELOG.md")
    assert "CHANGELOG.md" in text_of("docs/project/changes.rst")


def test_deprecations() -> None:
    """Nothing in the package warns of itself.

    "A name that is going to be removed raises a DeprecationWarning when you use it. At present,
    nothing is deprecated."
    """
    for file in (REPOSITORY / "src").rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        assert not re.search(r"warnings\.warn\(.*DeprecationWarning|@deprecated", source), file


HIDDEN = """
import types, warnings
library = types.ModuleType("library")
exec("import warnings; warnings.warn('old', DeprecationWarning)", vars(library))
print("hidden")
"""


@pytest.mark.parametrize("option", [None, "error::DeprecationWarning"])
def test_hidden_warnings(option: str | None) -> None:
    """What a library deprecates is seen with the option only.

    "Python hides these warnings in libraries; to see them in your tests, run python -W
    error::DeprecationWarning -m pytest."
    """
    options = [] if option is None else ["-W", option]
    done = subprocess.run(
        [sys.executable, "-I", "-S", *options, "-c", HIDDEN],
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    if option is None:
        assert (done.stdout, done.stderr) == ("hidden\n", "")
    else:
        assert "DeprecationWarning: old" in done.stderr
        assert done.returncode


def test_missing_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TCP lacks an option, the others are set.

    "What the operating system does not have is missing there"

    "keepalive sets only the options of TCP that the platform has."
    """
    with socket.socket() as listening:
        if not hasattr(socket, "TCP_KEEPINTVL"):
            pytest.skip("no such option here either")
        default = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        idle = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        keep_idle = socket.TCP_KEEPIDLE
        monkeypatch.delattr(socket, "TCP_KEEPIDLE")
        patience.limit_silence(listening, default + 10, None)
        assert listening.getsockopt(socket.IPPROTO_TCP, keep_idle) == idle
        interval = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        assert interval == (default + 10) // 2


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install.

    "If an optional package is missing, the constructor that needs it raises ModuleNotFoundError,
    which says what to install."
    """
    from easynetwork.serializers import MessagePackSerializer

    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(ModuleNotFoundError, match="msgpack>=1.1"):
        MessagePackSerializer()
