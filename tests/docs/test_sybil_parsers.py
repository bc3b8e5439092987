"""The parsers of our pages fail when a page is wrong, and only then."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from sybil import Document
from sybil.example import SybilFailure

from docs.emphasis import emphasized_lines
from tests.docs.sybil_parsers import console_blocks, generalize, literal_includes

EXAMPLE = '''\
"""An example."""


class Greeter:
    def greet(self):
        print("hello")

        print("Task-7", ("127.0.0.1", 50123))


if __name__ == "__main__":
    Greeter().greet()
'''


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return the root of a site with one example in it."""
    (tmp_path / "conf.py").touch()
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "greeter.py").write_text(EXAMPLE)
    return tmp_path


def run_page(site: Path, text: str) -> int:
    """Write a page, run its items, return how many there were."""
    page = site / "howto" / "page.rst"
    page.parent.mkdir()
    page.write_text(textwrap.dedent(text))
    examples = list(Document.parse(str(page), literal_includes, console_blocks))
    for example in examples:
        example.evaluate()
    return len(examples)


def test_right_page(site: Path) -> None:
    """A page that keeps its promises passes, each promise being one item."""
    text = """
    .. tabs::

       .. tab:: Nested

          .. literalinclude:: ../examples/greeter.py
             :pyobject: Greeter.greet
             :dedent:
             :emphasize:
                def greet(self) ... print("hello")
                print("Task-7"

    .. literalinclude:: /examples/greeter.py
       :start-at: class Greeter
       :end-at: hello
       :emphasize: class Greeter
       :linenos:

    .. code-block:: console

       $ python greeter.py
       hello
       Task-12 ('127.0.0.1', 40000)
       $ python -c "print(1)"
       1
    """
    assert run_page(site, text) == 3


@pytest.mark.parametrize(
    ("directive", "complaint"),
    [
        ("../examples/nobody.py", "does not exist"),
        ("/examples/nobody.py", "does not exist"),
        ("../examples/greeter.py\n   :pyobject: Greeter.leave", "'Greeter.leave' not found"),
        ("../examples/greeter.py\n   :start-at: class Nobody", "start-at pattern not found"),
        ("../examples/greeter.py\n   :start-after: class Nobody", "start-after pattern not found"),
        ("../examples/greeter.py\n   :end-at: farewell", "end-at pattern not found"),
        ("../examples/greeter.py\n   :pyobjects: Greeter", "an option does not fit"),
        ("../examples/greeter.py\n   :emphasize-lines: 1", "an option does not fit"),
        ("../examples/greeter.py\n   :lines: 1", "an option does not fit"),
        ("../examples/greeter.py\n   :emphasize: def leave(", "'def leave\\(' begins no line"),
        ("../examples/greeter.py\n   :emphasize:\n      class\n      p", "'p' begins lines 6, 8"),
        ("../examples/greeter.py\n   :emphasize: def ... class", "no line after line 5"),
        ("../examples/greeter.py\n   :emphasize: if >>> def", "no line after line 11"),
        ("../examples/greeter.py\n   :pyobject: Greeter.greet\n   :emphasize: class", "no line"),
    ],
)
def test_wrong_literal_include(site: Path, directive: str, complaint: str) -> None:
    """An include of what is not there fails, and says what is missing."""
    with pytest.raises(SybilFailure, match=complaint):
        run_page(site, f".. literalinclude:: {directive}\n\nThe end.\n")


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        ("class Greeter", [4]),
        ("def greet ... print", [5, 6]),
        ("def greet >>> print ... print", [6, 7, 8]),
        ('print("hello") >>> print\n  """An example', [8, 1]),
        ("if __name__ ... Greeter().greet()", [11, 12]),
        ("Gr", [12]),
    ],
)
def test_emphasis(texts: str, numbers: list[int]) -> None:
    """A line of a listing is found by its beginning, a range by that of its ends."""
    assert emphasized_lines(EXAMPLE.splitlines(), texts) == numbers


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        ("import nobody_has_this", "nobody_has_this"),
        ("import warnings\nwarnings.warn('old', DeprecationWarning)", "DeprecationWarning: old"),
    ],
)
def test_include_that_cannot_be_imported(site: Path, module: str, complaint: str) -> None:
    """An example that raises or warns when it is imported fails."""
    (site / "examples" / "broken.py").write_text(module)
    with pytest.raises(SybilFailure, match=complaint):
        run_page(site, ".. literalinclude:: /examples/broken.py\n\nThe end.\n")


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ("$ python greeter.py\nhello", "printed something else"),
        ("$ python greeter.py\nHello\nTask-1 ('127.0.0.1', 1)", "printed something else"),
        ("$ python greeter.py\nhello\nTask-1 ('localhost', 1)", "printed something else"),
        ("$ python nobody.py", "ended with status 2"),
        ("$ python -c 'raise SystemExit(3)'", "ended with status 3"),
        ("$ rm greeter.py", "only 'python FILE' is run"),
        ("$ python", "only 'python FILE' is run"),
        ("python greeter.py", "no command in it"),
    ],
)
def test_wrong_console_block(site: Path, block: str, complaint: str) -> None:
    """A command that fails, prints something else or is not ours to run fails."""
    text = ".. example-folder: ../examples\n\n.. code-block:: console\n\n"
    with pytest.raises(SybilFailure, match=complaint):
        run_page(site, text + textwrap.indent(block, "   ") + "\n\nThe end.\n")


def test_console_block_without_folder(site: Path) -> None:
    """A console block that belongs to no example fails: it would run anywhere."""
    with pytest.raises(SybilFailure, match="no folder to run in"):
        run_page(site, ".. code-block:: console\n\n   $ python greeter.py\n\nThe end.\n")


def test_console_block_of_a_terminal(site: Path) -> None:
    """A block that shows one of several terminals is no item: its page's tests type in them."""
    text = """
    .. code-block:: console
       :caption: First terminal

       $ python nothing.py

    The end.
    """
    assert run_page(site, text) == 0


def test_console_block_folder(site: Path) -> None:
    """The folder is that of the nearest include or comment before the block."""
    (site / "other").mkdir()
    (site / "other" / "who.py").write_text("print('other')")
    text = """
    .. literalinclude:: ../examples/greeter.py

    .. example-folder: /other

    .. code:: console

       $ python who.py
       other

    .. literalinclude:: ../examples/greeter.py

    .. code:: console

       $ python greeter.py
       hello
       Task-1 ('10.0.0.1', 2)
    """
    assert run_page(site, text) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Task-2 Thread-1", "Task-31 Thread-12"),
        ("in process 14610", "in process 7"),
        ("<client at 0x7f00>", "<client at 0xdeadbeef>"),
        ("('127.0.0.1', 9000)", "('10.1.2.3', 54321)"),
        ("('::1', 9000, 0, 0)", "('fe80::1', 54321, 0, 3)"),
        ("('localhost', 9000)", "('localhost', 1)"),
        ("127.0.0.1:9000 [::1]:9000", "10.0.0.1:1 [fe80::2]:80"),
    ],
)
def test_wildcards(one: str, other: str) -> None:
    """Numbers of tasks, threads and processes, ports and addresses may differ."""
    assert generalize(one) == generalize(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Task-2", "Thread-2"),
        ("{'id': 9000}", "{'id': 9001}"),
        ("12:30", "12:31"),
        ("Hello world 1", "Hello world 2"),
    ],
)
def test_no_wildcards(one: str, other: str) -> None:
    """Other numbers may not."""
    assert generalize(one) != generalize(other)
