"""What the tests of pages share sees a page as its reader does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.docs import howto_support
from tests.docs.howto_support import check_quotations, numbered_lists, words

PAGE = """
.. include:: part.rst

The default is :value:`easynetwork.servers.Limits.send_timeout` seconds.

#. A client connects,
   and waits.

#. The server answers.

Then:

#. Both leave.
"""


@pytest.fixture(autouse=True)
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a site with one page, and a part that it includes."""
    (tmp_path / "page.rst").write_text(PAGE, encoding="utf-8")
    (tmp_path / "part.rst").write_text("This is *common*.\n", encoding="utf-8")
    monkeypatch.setattr(howto_support, "DOCS", tmp_path)


def module(docstring: str) -> dict[str, Any]:
    """Return the names of a module with one test."""

    def test_one() -> None: ...

    test_one.__doc__ = docstring
    return {"test_one": test_one, "test_quotations": None}


def test_words() -> None:
    """A page has the numbers that it takes from the code, and what it includes."""
    assert "The default is 60 seconds. A client connects, and waits." in words("page.rst")
    assert "This is common." in words("page.rst")


def test_order_of_steps() -> None:
    """A test quotes the steps of a numbered list in their order."""
    assert numbered_lists("page.rst") == [
        ["A client connects, and waits.", "The server answers."],
        ["Both leave."],
    ]
    check_quotations("page.rst", module('"A client connects" and "The server answers."'))
    with pytest.raises(AssertionError, match="test_one"):
        check_quotations("page.rst", module('"The server answers." and "A client connects"'))


def test_missing() -> None:
    """A quotation that is not on the page is an error, and so is a test that quotes nothing."""
    with pytest.raises(AssertionError, match="test_one"):
        check_quotations("page.rst", module('"A server connects"'))
    with pytest.raises(AssertionError, match="test_one"):
        check_quotations("page.rst", module("Nothing."))
