"""The share of the site's sentences that tests quote may only rise."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.docs import sentences

# Raise it when there are more. A page without tests, or a test that quotes less, lowers the share.
SHARE = 0.9

PAGE = """
A heading that is not a sentence
================================

A server has a limit of :term:`clients <client>`. It refuses :meth:`~.Server.accept` then.

.. code-block:: python

   print("This is no sentence of the page.")

.. note::

   Each of them is *counted* in ``statistics``.

* Too short.

* In a list, there are sentences as well.

Python says no. The next value is another one.

>>> print("This is no sentence either.")
This is no sentence either.

.. message::
   ValueError: this is a message that the page explains.

   Another test has to see the message.
"""


def test_sentences(tmp_path: Path) -> None:
    """Headings, code, messages and fragments are not counted; words are what a reader sees."""
    page = tmp_path / "page.rst"
    page.write_text(PAGE)
    assert [" ".join(words) for words in sentences.sentences(page)] == [
        "a server has a limit of clients",
        "each of them is counted in statistics",
        "in a list there are sentences as well",
        "the next value is another one",
        "another test has to see the message",
    ]


def test_not_quoted(tmp_path: Path) -> None:
    """Quotations count together, where they are in the page only, also across a short sentence."""
    page = tmp_path / "page.rst"
    page.write_text(PAGE)
    quoted = {"a server has", "of clients", "each of", "and of others"}
    rest = ["each of them is counted in statistics", "in a list there are sentences as well"]
    last = ["the next value is another one", "another test has to see the message"]
    assert sentences.not_quoted(page, quoted) == (5, rest + last)
    quoted.add("python says no the next value is another one")
    assert sentences.not_quoted(page, quoted) == (5, rest + last[1:])


def test_parts() -> None:
    """All claims of the parts that several pages include are quoted."""
    quoted = set(sentences.quotations())
    assert {page.name for page in sentences.PARTS} >= {"tutorial-setup.rst"}
    for page in sentences.PARTS:
        assert sentences.not_quoted(page, quoted)[1] == [], page.name


def test_share(capsys: pytest.CaptureFixture[str]) -> None:
    """The session ``docs`` prints it."""
    share = sentences.main([])
    assert "docs/howto/tcp_servers.rst" in capsys.readouterr().out
    assert share >= SHARE


def without_negations(sentence: list[str]) -> str:
    """Return a sentence without the words with which its contrary is said."""
    words = ("can" if word == "cannot" else word for word in sentence)
    return " ".join(word for word in words if word not in ("not", "never", "always"))


def contradictions(pages: Iterable[Path]) -> list[set[str]]:
    """Return sentences that say the contrary of each other."""
    found = collections.defaultdict[str, set[str]](set)
    for page in pages:
        for sentence in sentences.sentences(page):
            found[without_negations(sentence)].add(" ".join(sentence))
    return [same for same in found.values() if len(same) > 1]


def test_no_contradictions() -> None:
    """What is said twice is said in the same way: a quotation is only looked for on one page."""
    assert contradictions(sentences.PAGES) == []


def test_contradictions(tmp_path: Path) -> None:
    """The contrary of a sentence is found, on the same page or another one."""
    for name, verb in ("one", "is"), ("other", "is not"), ("third", "is"):
        (tmp_path / f"{name}.rst").write_text(f"A program {verb} using the port.\n")
    assert contradictions([tmp_path / "one.rst", tmp_path / "third.rst"]) == []
    assert contradictions(sorted(tmp_path.glob("*.rst"))) == [
        {"a program is using the port", "a program is not using the port"}
    ]
