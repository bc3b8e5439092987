"""The sessions: everything that is ever done to the project, by name.

``python3 run.py SESSION`` runs one on a machine that has no nox. What a session needs comes from
``pyproject.toml`` (the project, its extras, a dependency group), so it is written down once. An
environment is kept and used again until that file changes.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import nox
import nox.command

nox.needs_version = ">=2025.5.1"
nox.options.sessions = ["lint", "typing", "tests", "docs"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
# Also where the CI variable is set: a machine tests the interpreters that it has.
nox.options.error_on_missing_interpreters = False

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
ALL_EXTRAS = f".[{','.join(PYPROJECT['project']['optional-dependencies'])}]"
EXAMPLES = "docs/_include/examples/howto/tcp_servers"
# More processes than two would wait for the one that runs the examples. What measures cost has a
# session of its own: tracing and other tests disturb it.
TESTS = ("--numprocesses=2", "-m", "not cost")
# CPython 3.14 for WebAssembly, and which wheels it can use: those for any platform, and its own.
PYODIDE = "pyodide@314.0.7"
PYODIDE_WHEELS = (
    *("--only-binary=:all:", "--platform=any", "--platform=pyemscripten_2026_0_wasm32"),
    *("--implementation=cp", "--python-version=3.14", "--abi=cp314", "--abi=none"),
)
SPHINX = ("-n", "-W", "--keep-going", "-q", "docs")


def install(session: nox.Session, *groups: str, project: str | None = ALL_EXTRAS) -> None:
    """Install the project and dependency groups, unless the environment already has them."""
    wanted = [*(["-e", project] if project else []), *dependencies(*groups)]
    once(session, wanted, lambda: session.install(*wanted))


def once(session: nox.Session, wanted: list[str], fill: Callable[[], None]) -> None:
    """Fill the environment, unless it was filled with the same before."""
    # The folder, too: an editable install points to where the project was.
    digest = hashlib.sha256(f"{Path.cwd()} {wanted} {PYPROJECT}".encode()).hexdigest()
    stamp = Path(session.virtualenv.location, "installed")
    if not stamp.exists() or stamp.read_text() != digest:
        fill()
        stamp.write_text(digest)


def dependencies(*groups: str) -> tuple[str, ...]:
    """Return the requirements of some dependency groups."""
    return nox.project.dependency_groups(PYPROJECT, *groups) if groups else ()


@nox.session
def demo(session: nox.Session) -> None:
    """Install the project, run the background server of the how-to page."""
    install(session, project=".")
    session.run("python", f"{EXAMPLES}/background_server.py")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests, the pages' examples included; arguments go to a single pytest."""
    install(session, "tests")
    run_tests(session)


def run_tests(session: nox.Session, env: dict[str, str] | None = None) -> None:
    """Run the tests. What fails is shown, and run again by itself, as CPython's own runner does.

    A test that passes then has met a moment that few runs meet. That is a fault to look for, but
    not a reason to doubt the change.
    """
    try:
        session.run("pytest", *(session.posargs or TESTS), env=env)
    except nox.command.CommandFailed:
        if session.posargs:
            raise
        session.warn("Once more, one after the other, those that have failed")
        again = ("--last-failed", "--last-failed-no-failures=none", "--maxfail=1")
        session.run("pytest", *again, "-m", "not cost", env=env)


@nox.session
def cost(session: nox.Session) -> None:
    """Run the tests that measure processor time and memory, one after the other."""
    install(session, "tests")
    session.run("pytest", "-m", "cost", *session.posargs)


@nox.session(name="tests-lowest")
def tests_lowest(session: nox.Session) -> None:
    """Run each test with the lowest versions of the dependencies that pyproject.toml allows.

    With a third of its cases: if one of them needs a newer version, the others do.
    """
    tools = dependencies("tests")
    once(session, ["lowest", *tools], lambda: install_lowest(session, *tools))
    run_tests(session, env={"CONFORMANCE": "few"})


def install_lowest(session: nox.Session, *tools: str) -> None:
    """Install the project with its lowest dependencies, and new tools that leave them alone."""
    session.install("uv")
    here = ("--python", session.virtualenv.location)
    lowest = ("--resolution", "lowest-direct", "--all-extras", "--upgrade", "pyproject.toml")
    versions = str(Path(session.virtualenv.location, "lowest.txt"))
    session.run("uv", "pip", "compile", "-q", *here, *lowest, "-o", versions)
    session.run("uv", "pip", "install", *here, "--constraint", versions, "-e", ALL_EXTRAS, *tools)


@nox.session
def wasm(session: nox.Session) -> None:
    """Run the tests that need no sockets or threads on Python 3.14 in WebAssembly, under Node."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        session.skip(f"This takes Node: {' and '.join(missing)} not found")
    tools = Path(session.create_tmp())
    extras = PYPROJECT["project"]["optional-dependencies"]
    packages = [
        *(*PYPROJECT["project"]["dependencies"], *extras["cbor"], *extras["msgpack"]),
        *dependencies("wasm"),
    ]
    wanted = [PYODIDE, *PYODIDE_WHEELS, *packages]
    try:
        once(session, wanted, lambda: install_for_wasm(session, tools, *packages))
    except nox.command.CommandFailed:
        session.skip("Pyodide and what the tests need cannot be installed: see above")
    session.run("node", "tests/wasm/run.mjs", str(tools), *session.posargs, external=True)


def install_for_wasm(session: nox.Session, tools: Path, *packages: str) -> None:
    """Install Pyodide, and packages for it, into the folder that tests/wasm/run.mjs expects."""
    shutil.rmtree(tools / "site-packages", ignore_errors=True)
    npm = ("npm", "install", "--no-audit", "--no-fund", "--prefix", str(tools), PYODIDE)
    session.run(*npm, external=True)
    pip = ("python", "-m", "pip", "install", "--quiet", *PYODIDE_WHEELS)
    session.run(*pip, "--target", str(tools / "site-packages"), *packages)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and show the lines and branches that they do not reach."""
    install(session, "coverage")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or TESTS))
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into docs/_build/html; a warning or a dead reference is an error.

    Then print how many of its sentences a test quotes.
    """
    install(session, "docs", "tests")
    session.run("sphinx-build", *SPHINX, "docs/_build/html", *session.posargs)
    session.run("python", "-m", "tests.docs.sentences")
    session.log("Open docs/_build/html/index.html in a browser")


@nox.session(name="docs-live")
def docs_live(session: nox.Session) -> None:
    """Serve the site locally and build it again at every change."""
    install(session, "docs-live")
    session.run(
        "sphinx-autobuild", "-n", "--watch=src", "docs", "docs/_build/live", *session.posargs
    )


@nox.session(name="mutate-docs")
def mutate_docs(session: nox.Session) -> None:
    """Make pages and examples wrong, see which tests notice; ``-- --seed 1 --count 60``."""
    install(session, "tests", "docs")
    session.run("python", "-m", "tests.docs.mutate", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and layout with ruff; ``-- --fix`` mends what can be mended."""
    install(session, "lint", project=None)
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []))
    session.run("ruff", "format", *([] if fix else ["--check"]))


@nox.session
def typing(session: nox.Session) -> None:
    """Check types with mypy, strictly, and with pyright that the public interface has them all."""
    install(session, "typing")
    session.run("mypy", *session.posargs)
    session.install("--no-deps", "--force-reinstall", ".")  # the wheel, as users get it
    with session.chdir(session.create_tmp()):  # where pyright does not see the sources
        session.run("pyright", "--verifytypes", "easynetwork", "--ignoreexternal")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against other libraries; arguments go to benchmarks."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)
