"""The reader of the tutorials notices when a page is wrong, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Document
from sybil.example import SybilFailure

from tests.docs.terminals import terminals

SERVER = """\
import time

try:
    print("up", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("down")
"""

PAGE = """
.. code-block:: console
   :caption: First terminal

   $ python server_a.py
   up

.. code-block:: console
   :caption: First terminal

   $ python server_b.py
   never started

.. code-block:: console
   :caption: Second terminal

   $ python client.py one "and two"
   ['client.py', 'one', 'and two']

.. code-block:: console
   :caption: First terminal

   ^Cdown

That is all.
"""


def read(folder: Path, page: str) -> None:
    (folder / "server_a.py").write_text(SERVER)
    (folder / "client.py").write_text("import sys\nprint(sys.argv)\n")
    with terminals(folder, "a") as reader:
        document = Document(page, "page.rst")
        for region in reader.blocks(document):
            document.add(region)
        for example in document:
            example.evaluate()


def test_right_page(tmp_path: Path) -> None:
    """A page that shows what happens passes; other servers than the chosen one do not matter."""
    read(tmp_path, PAGE)


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        pytest.param("   up\n", "   ready\n", "+up", id="other output of a server"),
        pytest.param("two']\n", "three']\n", "+['client.py', 'one', 'and two']", id="a client"),
        pytest.param("^Cdown", "^C", "+^Cdown", id="an end that is not shown"),
        pytest.param("client.py one", "gone.py one", "status 2", id="a program that fails"),
    ],
)
def test_wrong_page(tmp_path: Path, right: str, wrong: str, complaint: str) -> None:
    """A page that shows something else fails and says what really happens."""
    with pytest.raises(SybilFailure) as failure:
        read(tmp_path, PAGE.replace(right, wrong))
    assert complaint in str(failure.value)


def test_missing_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that says less than its page shows is not waited for without end."""
    monkeypatch.setattr("tests.docs.terminals.PATIENCE", 0.5)
    with pytest.raises(SybilFailure, match="-and running"):
        read(tmp_path, PAGE.replace("   up\n", "   up\n   and running\n"))
