"""What makes a page or an example wrong, and which tests would have to notice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.docs import mutate, mutations
from tests.docs.mutations import EXAMPLES, KINDS, Mutation, draw
from tests.docs.sentences import DOCS

PAGE = """
Limits of 3 kinds
=================

There are two limits, and a client cannot change them. A client that is silent for 60 seconds is
closed (RFC 768, ``timeout=5``, :rfc:`6587`). Is it so? The default is :value:`a.b`, or
:value:`half a minute <c.d>`.

#. The server accepts.
#. The server reads,
   and waits.

.. code-block:: python

   There are three of them.

:exc:`TimeoutError` never ends it, but ``idle_timeout`` always does.

.. code-block:: console

   $ mkdir echo
   $ cd echo
   $ dig one
   1
   $ dig two
   2
"""

EXAMPLE = '''
def greet(client, timeout: float = 2.5):
    """A number in a text: 7."""
    name = client.ask(timeout=30, again=True)
    print("Hello", name)
    client.send("Zoë")
    client.close()
    other = 0x10
    self.count()
    self.report()
    try:
        third = None
    except TimeoutError:
        raise ValueError("5") from None
'''


def changes(found: Iterable[tuple[int, str, str]], text: str) -> list[tuple[str, str]]:
    """Return what is replaced by what, after a look at the place."""
    listed = list(found)
    for start, old, _ in listed:
        assert text[start:].startswith(old)
    return [(old, new) for _, old, new in listed]


def test_numbers() -> None:
    """Numbers of the prose change: not those of code, of RFCs, of headings or of names."""
    found = changes(mutations.numbers(PAGE), PAGE)
    assert found == [("two", "three"), ("60", "120")]


@pytest.mark.parametrize(
    ("old", "new"),
    [("0", "1"), ("3", "4"), ("60", "120"), ("1,000", "2,000"), ("0.25", "0.5"), ("0.0", "1.0")],
)
def test_changed_number(old: str, new: str) -> None:
    """A number becomes another one, in the same spelling."""
    assert mutations.changed_number(old) == new


def test_negations() -> None:
    """Each sentence says the contrary, questions and code aside."""
    assert changes(mutations.negations(PAGE), PAGE) == [
        ("cannot", "can"),
        ("is", "is not"),
        ("is", "is not"),
        ("never", "always"),
    ]


def test_steps() -> None:
    """Items of a list change places, and commands if one uses what the other makes."""
    first = "#. The server accepts."
    second = "#. The server reads,\n   and waits."
    assert changes(mutations.steps(PAGE), PAGE) == [
        (f"{first}\n{second}", f"{second}\n{first}"),
        ("   $ mkdir echo\n   $ cd echo", "   $ cd echo\n   $ mkdir echo"),
    ]


def test_names() -> None:
    """The names of exceptions and options become others that exist."""
    found = changes(mutations.names(PAGE), PAGE)
    assert found == [("TimeoutError", "ValueError"), ("idle_timeout", "send_timeout")]


def test_example() -> None:
    """In an example, numbers, values and exceptions change, and statements that need each other.

    Two methods of ``self`` may have nothing in common.
    """
    assert changes(mutations.numbers_of_example(EXAMPLE), EXAMPLE) == [
        ("2.5", "5.0"),
        ("30", "60"),
    ]
    assert sorted(changes(mutations.defaults_of_example(EXAMPLE), EXAMPLE)) == [
        ("0x10", "None"),
        ("30", "None"),
        ("None", "1"),
        ("TimeoutError", "ValueError"),
        ("True", "False"),
        ("ValueError", "RuntimeError"),
    ]
    name, hello = "name = client.ask(timeout=30, again=True)", 'print("Hello", name)'
    send, close = 'client.send("Zoë")', "client.close()"
    assert changes(mutations.steps_of_example(EXAMPLE), EXAMPLE) == [
        (f"{name}\n    {hello}", f"{hello}\n    {name}"),
        (f"{send}\n    {close}", f"{close}\n    {send}"),
    ]


def test_emphasis(tmp_path: Path) -> None:
    """The emphasis of one line moves to the line beside it; that of a range stays."""
    (tmp_path / "greeter.py").write_text(EXAMPLE, encoding="utf-8")
    text = (
        ".. literalinclude:: greeter.py\n   :emphasize:\n      client.close()\n      def ... name\n"
    )
    (tmp_path / "page.rst").write_text(text, encoding="utf-8")
    found = changes(mutations.emphasis(text, tmp_path / "page.rst"), text)
    assert found == [("client.close()", "other = 0x10")]


def test_draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same seed draws the same changes; pages and examples take turns, and so do files."""
    files = [tmp_path / f"{number}.py" for number in range(4)]
    groups = [[Mutation("order", file, start, "a", "b") for start in range(9)] for file in files]
    monkeypatch.setattr(mutations, "candidates", lambda kind: (groups[:2], groups[2:]))
    drawn = draw("order", 4, seed=1)
    assert drawn == draw("order", 4, seed=1)
    assert drawn != draw("order", 4, seed=2)
    assert {mutation.file for mutation in drawn} == {*files}
    assert {mutation.file for mutation in drawn[::2]} == {*files[:2]}
    assert len({*draw("order", 99, seed=1)}) == 36
    assert KINDS


SOURCE = """
from docs._include.examples.howto.many_clients import chat, topics
from tests.docs import howto_support
from tests.docs.howto_support import words

PAGE = "howto/many_clients.rst"
FOLDER = "_include/examples/howto/many_clients"

def test_quotations():
    assert words(PAGE)

def served():
    return chat.ChatRequestHandler()

def test_chat(served):
    pass

def test_topics():
    topics.run()

def test_all_programs():
    run(FOLDER)

def test_other_page():
    howto_support.words("howto/limits.rst")

def test_page_and_folder():
    run("tutorials/echo_client_server_tcp.rst", "_include/examples/tutorials")
"""


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        (DOCS / "howto/many_clients.rst", ["test_quotations"]),
        (DOCS / "howto/limits.rst", ["test_other_page"]),
        (EXAMPLES / "howto/many_clients/chat.py", ["test_chat", "test_all_programs"]),
        (EXAMPLES / "howto/many_clients/topics.py", ["test_topics", "test_all_programs"]),
        (EXAMPLES / "tutorials/echo_client_server_tcp/client_trio.py", ["test_page_and_folder"]),
    ],
)
def test_tests_of(file: Path, tests: list[str], tmp_path: Path) -> None:
    """The source of a test tells which page it reads and which example it uses."""
    (tmp_path / "test_pages.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "howto_support.py").write_text("def words(page): ...", encoding="utf-8")
    found = mutate.tests_of(Mutation("", file, 0, "", ""), mutate.Sources(tmp_path))
    *items, page = found
    assert items == [f"tests/docs/test_pages.py::{test}" for test in tests]
    if file.suffix == ".py":
        file = DOCS / f"{file.parent.relative_to(EXAMPLES)}.rst"
    assert page == f"docs/{file.relative_to(DOCS)}"


def test_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change is made in a copy, and undone there."""
    (tmp_path / "original").mkdir()
    file = tmp_path / "original/page.rst"
    file.write_text("Two", encoding="utf-8")
    monkeypatch.setattr(mutate, "ROOT", tmp_path / "original")
    monkeypatch.setattr(mutate, "tracked", lambda: ["page.rst"])
    copy = mutate.Copy(tmp_path / "copy", ())
    with copy.changed(Mutation("", file, 0, "Two", "Three")):
        assert copy.run("-c", "print(open('page.rst').read())") == (0, "Three\n")
    assert (tmp_path / "copy/page.rst").read_text(encoding="utf-8") == "Two"
    assert copy.run("-c", "import time; time.sleep(60)", limit=0.01)[0] != 0


def test_failures() -> None:
    """The summary of pytest names the tests that failed."""
    output = "ERROR   some.log\nFAILED tests/a.py::test[a b] - Error: 1\nERROR tests/b.py"
    assert mutate.failures(output) == ["tests/a.py::test[a b]", "tests/b.py"]
