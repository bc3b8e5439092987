"""Makes pages and examples wrong, one change at a time, and prints which test notices.

``python -m tests.docs.mutate [--seed N] [--count 60]``, or the session ``mutate-docs``. The changes
(see ``mutations.py``) are made in copies of the repository. For each of them, only those tests run
that read the page or use the example, which their source tells: see `Sources`. First, all of these
tests have to pass without a change.

The examples listen on the same port. So each copy has a network of its own, as far as ``unshare``
can make one; otherwise there is only one copy.
"""

from __future__ import annotations

import argparse
import ast
import collections
import concurrent.futures
import contextlib
import itertools
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sybil import Document

from tests.docs.mutations import EXAMPLES, KINDS, ROOT, Mutation, draw
from tests.docs.sentences import DOCS, PAGES
from tests.docs.sybil_parsers import literal_includes, locate

# Seconds for the tests of one change.
TIME_LIMIT = 240
ATTEMPTS = 2
SPHINX = ("-m", "sphinx", "-n", "-W", "-q", "--keep-going", "docs")
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not cost")


# -- which tests


class Sources:
    """The functions of the tests of pages, and what each of them names, directly or not."""

    def __init__(self, folder: Path = DOCS.parent / "tests/docs") -> None:
        self._definitions: dict[tuple[str, str], ast.AST] = {}
        self._imported: dict[tuple[str, str], tuple[str, str]] = {}
        self._words: dict[tuple[str, str], frozenset[str]] = {}
        for file in sorted(folder.glob("*.py")):
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                self._add(file.stem, node)

    def _add(self, module: str, node: ast.stmt) -> None:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = alias.asname or alias.name
                self._imported[module, name] = (str(node.module), alias.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._definitions[module, node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.For | ast.With):
            for target in ast.walk(node):
                if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
                    self._definitions[module, target.id] = node

    def tests(self) -> Iterator[tuple[str, str]]:
        """Yield the module and the name of each test."""
        for module, name in self._definitions:
            if module.startswith("test_") and name.startswith("test_"):
                yield module, name

    def words(self, module: str, name: str) -> frozenset[str]:
        """Return the texts and modules that a function names, or others that it uses."""
        if (module, name) not in self._words:
            found: set[str] = set()
            seen = {(module, name)}
            waiting = [(module, name)]
            while waiting:
                for word, used in self._named(*waiting.pop()):
                    found.add(word)
                    if used and used not in seen:
                        seen.add(used)
                        waiting.append(used)
            self._words[module, name] = frozenset(found)
        return self._words[module, name]

    def _named(self, module: str, name: str) -> Iterator[tuple[str, tuple[str, str] | None]]:
        """Yield what a definition names, each with the definition that is meant, if it is ours."""
        for node in ast.walk(self._definitions[module, name]):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value, None
            elif isinstance(node, ast.Name | ast.arg):
                yield from self._meant(module, node.id if isinstance(node, ast.Name) else node.arg)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                source, own = self._imported.get((module, node.value.id), ("", ""))
                if source == "tests.docs":
                    yield from self._meant(own, node.attr)

    def _meant(self, module: str, name: str) -> Iterator[tuple[str, tuple[str, str] | None]]:
        if (module, name) in self._definitions:
            yield "", (module, name)
        elif (module, name) in self._imported:
            source, own = self._imported[module, name]
            yield f"{source}.{own}", None
            package, _, other = source.rpartition(".")
            if package == "tests.docs" and (other, own) in self._definitions:
                yield "", (other, own)


def tests_of(mutation: Mutation, sources: Sources) -> list[str]:
    """Return what pytest has to run for a change: items of pages, and tests."""
    file = mutation.file
    if file.suffix == ".py":
        files = {file, *importers(file)}
        pages = [page for page in PAGES if files & shown_on(page)]
        found = [test for test in sources.tests() if uses(sources, test, files)]
        texts = {page.relative_to(DOCS).as_posix() for page in pages if page.suffix == ".rst"}
        modules = {test[0] for test in sources.tests() if texts & sources.words(*test)}
        found = found or [test for test in sources.tests() if test[0] in modules]
        of_all_pages = [test for test in sources.tests() if "*.rst" in sources.words(*test)]
        found += [test for test in of_all_pages if test not in found]
    else:
        pages = [page for page in PAGES if page == file or includes(page, file)]
        places = {page.relative_to(DOCS).as_posix() for page in pages if page.suffix == ".rst"}
        texts = {*places, "*.rst", *(page.name for page in pages if page.suffix == ".md")}
        found = [test for test in sources.tests() if texts & sources.words(*test)]
    return [
        *(f"tests/docs/{module}.py::{name}" for module, name in found),
        *(page.relative_to(ROOT).as_posix() for page in pages),
    ]


def uses(sources: Sources, test: tuple[str, str], files: set[Path]) -> bool:
    """Return whether a test names one of the examples, or only the folder that they are in."""
    words = sources.words(*test)
    for folder in {file.parent for file in files}:
        name = folder.relative_to(EXAMPLES).as_posix()
        package = f"docs._include.examples.{name.replace('/', '.')}"
        if folder == EXAMPLES:
            named = {each for each in files if any(f"examples/{each.name}" in w for w in words)}
        elif names_folder(name, words) or any(word.startswith(package) for word in words):
            named = {
                file for file in folder.glob("*.py") if is_named(file, package, words)
            } or files
        else:
            named = set()
        if named & files:
            return True
    return False


def names_folder(name: str, words: frozenset[str]) -> bool:
    """Return whether a test names a folder of examples, or its parent and the page of its name."""
    parent = name.rpartition("/")[0]
    return any(f"{name}/" in f"{word}/" for word in words) or (
        f"{name}.rst" in words and f"_include/examples/{parent}" in words
    )


def is_named(file: Path, package: str, words: frozenset[str]) -> bool:
    """Return whether a test imports an example, or has its name in a text."""
    module = f"{package}.{file.stem}"
    return any(
        word in (file.stem, file.name, module)
        or word.startswith(f"{module}.")
        or word.endswith(f"/{file.name}")
        or (word.endswith(".py") and file.name.endswith(word))  # the end of a name
        for word in words
    )


def importers(example: Path) -> set[Path]:
    """Return the examples of the same folder that import an example, directly or not."""
    found, waiting = set[Path](), {example}
    while waiting:
        statement = re.compile(rf"^\s*(?:from|import) \.?{waiting.pop().stem}\b", re.MULTILINE)
        for file in example.parent.glob("*.py"):
            if file not in found | {example} and statement.search(file.read_text("utf-8")):
                found.add(file)
                waiting.add(file)
    return found


def shown_on(page: Path) -> set[Path]:
    """Return the examples that a page includes."""
    if page.suffix != ".rst":
        return set()
    document = Document(page.read_text(encoding="utf-8"), str(page))
    return {locate(document, region) for region in literal_includes(document)}


def includes(page: Path, part: Path) -> bool:
    """Return whether a page includes a part that several pages share."""
    return page.suffix == ".rst" and part.name in page.read_text(encoding="utf-8")


# -- running them


def tracked() -> list[str]:
    """Return the names of all files that git does not ignore."""
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return [name for name in done.stdout.decode().split("\0") if (ROOT / name).is_file()]


class Copy:
    """A copy of the repository, without what git ignores, and a network for its programs."""

    def __init__(self, folder: Path, isolation: tuple[str, ...]) -> None:
        for name in tracked():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
        self.folder = folder
        self._isolation = isolation
        self._times = itertools.count(int(time.time()) + 10, 10)

    def run(self, *arguments: str, limit: float | None = None) -> tuple[int, str]:
        """Run Python in the copy; return the status and the output."""
        env = {**os.environ, "PYTHONPATH": f"{self.folder / 'src'}{os.pathsep}{self.folder}"}
        with subprocess.Popen(
            [*self._isolation, sys.executable, *arguments],
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        ) as process:
            try:
                output = process.communicate(timeout=limit)[0]
            except subprocess.TimeoutExpired:
                output = "time limit"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
        return process.returncode, output

    @contextlib.contextmanager
    def changed(self, mutation: Mutation) -> Iterator[None]:
        """Have a file changed while the block runs."""
        file = self.folder / mutation.file.relative_to(ROOT)
        text = file.read_text(encoding="utf-8")
        self._write(file, mutation.apply(text))
        try:
            yield
        finally:
            self._write(file, text)

    def _write(self, file: Path, text: str) -> None:
        """Write a file. Python notices a change of an example by its time, in seconds."""
        file.write_text(text, encoding="utf-8")
        now = next(self._times)
        os.utime(file, (now, now))


def network() -> tuple[str, ...]:
    """Return the command that gives a program a network of its own; nothing if there is none."""
    for command in (("unshare", "-n"), ("unshare", "-rn")):
        start = (*command, "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
        with contextlib.suppress(OSError):
            if subprocess.run([*start, "true"], capture_output=True, check=False).returncode == 0:
                return start
    return ()


def notice(copy: Copy, mutation: Mutation, tests: list[str]) -> str:
    """Return which test notices a change, "" if none does.

    It has to notice it twice: a test may fail because the machine is busy.
    """
    with copy.changed(mutation):
        for _ in range(ATTEMPTS):
            status, output = copy.run(*PYTEST, "-x", *tests, limit=TIME_LIMIT)
            if status == 0:
                break
            found = failures(output) or tests
            if copy.run(*PYTEST, "-x", *found, limit=TIME_LIMIT)[0]:
                return found[0]
        if is_in_role(mutation) and copy.run(*SPHINX, "-d", "../trees", "../site")[0]:
            return "sphinx-build"
    return ""


def failures(output: str) -> list[str]:
    """Return the tests that failed, from the output of pytest."""
    summary = re.compile(r"^(?:FAILED|ERROR) ((?:tests|docs|README)\b.+?)(?: - .*)?$", re.MULTILINE)
    return summary.findall(output)


def is_in_role(mutation: Mutation) -> bool:
    """Return whether a change is to a role or an option of a page, which Sphinx checks as well."""
    text = mutation.file.read_text(encoding="utf-8") if mutation.file.suffix == ".rst" else ""
    roles = re.finditer(r":[\w:+-]+:`[^`]+`", text)
    in_role = any(role.start() <= mutation.start < role.end() for role in roles)
    return in_role or mutation.kind == "emphasis"


def main(arguments: list[str] | None = None) -> None:
    """Draw changes, run the tests of each, print what they notice."""
    parser = argparse.ArgumentParser(prog="mutate-docs", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=60, help="of all kinds together")
    options = parser.parse_args(arguments)
    share = options.count // len(KINDS)
    drawn = [mutation for kind in KINDS for mutation in draw(kind, share, options.seed)]
    sources = Sources()
    tests = {mutation: tests_of(mutation, sources) for mutation in drawn}
    isolation = network()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name, "copy") for name in ("1", "2")[: 2 if isolation else 1]]
        copies = [Copy(path, isolation) for path in paths]
        report(drawn, try_all(copies, tests))


def try_all(copies: list[Copy], tests: dict[Mutation, list[str]]) -> dict[Mutation, str]:
    """Return which test notices each change.

    Raises:
        SystemExit: A test fails without one.
    """
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def using_a_copy(mutation: Mutation | None, selected: list[str]) -> str:
        copy = free.get()
        try:
            if mutation is not None:
                found = notice(copy, mutation, selected)
                print(f"{mutation.kind:8} {mutation}: {found or 'NOT NOTICED'}", flush=True)
                return found
            status, output = copy.run(*PYTEST, *selected)
            if status and (again := failures(output)):
                status, output = copy.run(*PYTEST, *again)
            return output if status else ""
        finally:
            free.put(copy)

    with concurrent.futures.ThreadPoolExecutor(len(copies)) as threads:
        selected = sorted({test for each in tests.values() for test in each})
        parts = [selected[number :: len(copies)] for number in range(len(copies))]
        for output in threads.map(using_a_copy, [None] * len(parts), parts):
            if output:
                sys.exit(f"These tests fail without a change:\n{output}")
        print(f"{len(selected)} tests and pages pass without a change", flush=True)
        return dict(zip(tests, threads.map(using_a_copy, tests, tests.values()), strict=True))


def report(drawn: list[Mutation], noticed: dict[Mutation, str]) -> None:
    """Print the share of changes that tests notice."""
    all_ = collections.Counter(mutation.kind for mutation in drawn)
    caught = collections.Counter(mutation.kind for mutation in drawn if noticed[mutation])
    for kind in KINDS:
        print(f"{kind:10} {caught[kind]:3} of {all_[kind]:3}")
    print(f"{'all':10} {caught.total():3} of {all_.total():3}")


if __name__ == "__main__":
    main()
