"""The share of the site's sentences that tests quote may only rise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import sentences

# Raise it when there are more. A page without tests, or a test that quotes less, lowers the share.
SHARE = 0.385

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
"""


def test_sentences(tmp_path: Path) -> None:
    """Headings, code and fragments are not counted; words are what a reader sees."""
    page = tmp_path / "page.rst"
    page.write_text(PAGE)
    assert [" ".join(words) for words in sentences.sentences(page)] == [
        "a server has a limit of clients",
        "each of them is counted in statistics",
        "in a list there are sentences as well",
    ]


def test_not_quoted(tmp_path: Path) -> None:
    """Quotations count together, and where they are in the page only."""
    page = tmp_path / "page.rst"
    page.write_text(PAGE)
    quoted = {"a server has", "of clients", "each of", "and of others"}
    rest = ["each of them is counted in statistics", "in a list there are sentences as well"]
    assert sentences.not_quoted(page, quoted) == (3, rest)


def test_share(capsys: pytest.CaptureFixture[str]) -> None:
    """The session ``docs`` prints it."""
    share = sentences.main([])
    assert "docs/howto/tcp_servers.rst" in capsys.readouterr().out
    assert share >= SHARE
