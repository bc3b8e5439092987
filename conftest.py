"""Makes pytest items of what readers can copy: README, pages of the site, docstrings.

Sybil finds the examples. The parsers for what is particular to our pages are in
``tests/docs/sybil_parsers.py``.

Where several processes share the work, each file's tests stay together. So do all examples: they
listen on the same port.
"""

from __future__ import annotations

import doctest
from collections.abc import Iterable
from typing import Any

import pytest

try:
    from sybil import Sybil
    from sybil.parsers import markdown, rest
    from sybil.sybil import SybilCollection
    from sybil.typing import Parser
    from xdist.scheduler import LoadScopeScheduling
except ModuleNotFoundError as exc:
    pytest.exit(
        f"The tests need {exc.name}, which is not installed. Run `python3 run.py tests`, which "
        "makes an environment, or install all that they need: `pip install -e . --group tests`.",
        returncode=2,
    )

from tests.docs.sybil_parsers import console_blocks, literal_includes

# Tests of an example run in its folder, as a reader runs them: the tests of its page do that.
collect_ignore = [
    f"docs/_include/examples/{folder}"
    for folder in ("howto/testing", "protocols/dns", "protocols/smtp")
]

EXAMPLES = ("README.md", "docs/", "tests/docs/")

DOCTEST = rest.DocTestParser(doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
REST: list[Parser] = [DOCTEST, rest.PythonCodeBlockParser(), rest.SkipParser()]

readme = Sybil(
    parsers=[markdown.PythonCodeBlockParser(), markdown.SkipParser()],
    pattern="README.md",
)
pages = Sybil(parsers=[*REST, literal_includes, console_blocks], path="docs", pattern="*.rst")
docstrings = Sybil(parsers=REST, path="src", pattern="*.py")

pytest_collect_file = SybilCollection([readme, pages, docstrings]).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that several processes end at the same time.

    That is the examples, all of which one process runs, and files with slow tests.
    """
    slow = {item.path for item in items if item.get_closest_marker("in_turn")}
    items.sort(key=lambda item: (not item.nodeid.startswith(EXAMPLES), item.path not in slow))


class Collection(list[str]):
    """The tests that a worker has found. Each of them is looked up once."""

    def __init__(self, nodeids: Iterable[str]) -> None:
        super().__init__(nodeids)
        self._indexes = {nodeid: index for index, nodeid in enumerate(self)}

    def index(self, nodeid: str, *limits: Any) -> int:
        return self._indexes[nodeid]


class Scheduling(LoadScopeScheduling):
    """How pytest-xdist shares the work: in the order in which the tests were found.

    The superclass searches all tests for each one that it hands out, and counts all that a worker
    has ever been given, several times for each that ends: seconds, where there are 20,000.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # the number of tests says little of their time

    def add_node_collection(self, node: Any, collection: Any) -> None:
        """Note what tests a worker has found."""
        super().add_node_collection(node, collection)
        if node in self.registered_collections:
            self.registered_collections[node] = Collection(self.registered_collections[node])

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        """Note that a test has ended; forget the piece that ends with it."""
        super().mark_test_complete(node, item_index, duration)
        nodeid = self.registered_collections[node][item_index]
        work = self.assigned_work[node]
        scope = self._split_scope(nodeid)
        if nodeid == next(reversed(work[scope])) and all(work[scope].values()):
            del work[scope]

    def _split_scope(self, nodeid: str) -> str:
        """Return what is in one piece with other tests of the same result."""
        file, _, _ = nodeid.partition("::")
        return "examples" if file.startswith(EXAMPLES) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Use it."""
    return Scheduling(config, log)
